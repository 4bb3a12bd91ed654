// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Sources of images; see source.h. One row per scheme. A plain path is looked
 * at: folders and what disk.c knows by its first bytes; the rest is left to
 * libarchive.
 */
#include "images/source.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/util.h"
#include "images/confine.h"
#include "images/disk.h"
#include "images/oci.h"

static int describe(struct favo_source *source, const char *kind, struct favo_err *err)
{
	source->origin = json_pack("{s:s}", "kind", kind);
	return source->origin ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int load_dir(struct favo_source *source, const char *path, struct favo_err *err)
{
	int ret = favo_tree_load_dir(&source->tree, path, err);

	return ret < 0 ? ret : describe(source, "dir", err);
}

static int load_tar(struct favo_source *source, const char *path, struct favo_err *err)
{
	favo_autoclose int fd = -1;
	int ret;

	if (strcmp(path, "-") == 0)
		fd = dup(STDIN_FILENO);
	else
		fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "%m");
	ret = favo_tree_load_tar(&source->tree, fd, source->tmp_dir, err);
	return ret < 0 ? ret : describe(source, "tar", err);
}

int favo_source_confined_tar(struct favo_source *source, const struct favo_confine *spec,
			     struct favo_tree **out, struct favo_err *err)
{
	struct favo_confined run = FAVO_CONFINED_INIT;
	favo_autotree struct favo_tree *tree = NULL;
	struct favo_err tar_err = {0};
	int ret = favo_confine_start(&run, spec, err), tar_ret;
	bool ended;
	char c;

	if (ret < 0)
		return ret;
	if (run.open)
		favo_source_note(source, "this machine gives users no namespaces: the "
					 "image is read without a jail");
	tar_ret = favo_tree_load_tar(&tree, run.stdout_fd, source->tmp_dir, &tar_err);
	/* Who is to blame for a bad tar: a writer that stopped, or the content? */
	ended = tar_ret == 0 || read(run.stdout_fd, &c, 1) == 0;
	ret = favo_confine_finish(&run, err);
	if (tar_ret < 0 && (ret == 0 || !ended))
		return favo_fail(err, -tar_ret, "%s", tar_err.msg);
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&tree);
	return 0;
}

static int load_squashfs(struct favo_source *source, const char *path,
			 struct favo_err *err)
{
	/* "." keeps the metadata of the root; what cannot be kept is an error. */
	static char *const argv[] = {"sqfs2tar", "--no-skip",	  "--root-becomes",
				     ".",	 FAVO_CONFINE_IN, NULL};
	favo_autofree char *copy = NULL;
	struct favo_confine spec = {.argv = argv};
	int ret = favo_confine_admit(&copy, path, source->tmp_dir, err);

	if (ret < 0)
		return ret;
	spec.in_path = copy ? copy : path;
	ret = favo_source_confined_tar(source, &spec, &source->tree, err);
	if (copy)
		unlink(copy);
	if (ret == -ENOENT)
		return favo_fail(err, ENOENT,
				 "sqfs2tar is not installed; install the package "
				 "squashfs-tools-ng");
	return ret < 0 ? ret : describe(source, "squashfs", err);
}

static int load_disk(struct favo_source *source, const char *path,
		     enum favo_disk_kind kind, const char *name, struct favo_err *err)
{
	int ret = favo_disk_load(source, path, kind, err);

	return ret < 0 ? ret : describe(source, name, err);
}

static int load_raw(struct favo_source *source, const char *path, struct favo_err *err)
{
	return load_disk(source, path, FAVO_DISK_RAW, "raw", err);
}

static int load_qcow2(struct favo_source *source, const char *path, struct favo_err *err)
{
	return load_disk(source, path, FAVO_DISK_QCOW2, "qcow2", err);
}

static int load_vmdk(struct favo_source *source, const char *path, struct favo_err *err)
{
	return load_disk(source, path, FAVO_DISK_VMDK, "vmdk", err);
}

static int load_vdi(struct favo_source *source, const char *path, struct favo_err *err)
{
	return load_disk(source, path, FAVO_DISK_VDI, "vdi", err);
}

static int load_oci(struct favo_source *source, const char *scheme, const char *rest,
		    struct favo_err *err)
{
	struct favo_oci_params params = {.spool_dir = source->tmp_dir,
					 .max_bytes = source->max_bytes,
					 .http_hosts = source->registry_http,
					 .progress = source->progress,
					 .user = source->user};
	favo_autofree char *text = favo_asprintf("%s%s", scheme, rest);
	struct favo_oci_image image = {0};
	struct favo_oci_ref ref = {0};
	int ret = text ? favo_oci_ref_parse(&ref, text, err)
		       : favo_fail(err, ENOMEM, "out of memory");

	if (ret == 0)
		ret = favo_oci_load(&source->tree, &image, &ref, &params, err);
	favo_oci_ref_fini(&ref);
	if (ret < 0)
		return ret;
	source->origin = favo_steal_ptr(&image.source);
	source->config = favo_steal_ptr(&image.config);
	return 0;
}

static int load_docker(struct favo_source *source, const char *rest, struct favo_err *err)
{
	return load_oci(source, "docker://", rest, err);
}

static int load_layout(struct favo_source *source, const char *rest, struct favo_err *err)
{
	return load_oci(source, "oci:", rest, err);
}

static int load_oci_archive(struct favo_source *source, const char *rest,
			    struct favo_err *err)
{
	return load_oci(source, "oci-archive:", rest, err);
}

static int load_docker_archive(struct favo_source *source, const char *rest,
			       struct favo_err *err)
{
	return load_oci(source, "docker-archive:", rest, err);
}

/* A tar without scheme: a root file system, or the archive of an image. */
static int load_some_tar(struct favo_source *source, const char *path,
			 struct favo_err *err)
{
	bool oci, docker;
	int ret = load_tar(source, path, err);

	if (ret < 0 || strcmp(path, "-") == 0)
		return ret;
	oci = favo_tree_find(source->tree, "oci-layout") &&
	      favo_tree_find(source->tree, "index.json");
	docker = favo_tree_find(source->tree, "manifest.json") &&
		 !favo_tree_find(source->tree, "usr") &&
		 !favo_tree_find(source->tree, "bin");
	if (!oci && !docker)
		return 0;
	favo_source_fini(source);
	return oci ? load_oci_archive(source, path, err)
		   : load_docker_archive(source, path, err);
}

static int load_folder(struct favo_source *source, const char *path, int fd,
		       struct favo_err *err)
{
	return faccessat(fd, "oci-layout", F_OK, 0) == 0 ? load_layout(source, path, err)
							 : load_dir(source, path, err);
}

/* A path without scheme. */
static int load_path(struct favo_source *source, const char *path, struct favo_err *err)
{
	favo_autofree char *head = malloc(FAVO_DISK_HEAD);
	favo_autoclose int fd = -1;
	struct stat st;
	ssize_t n;

	if (!head)
		return favo_fail(err, ENOMEM, "out of memory");
	if (strcmp(path, "-") == 0)
		return load_tar(source, path, err);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, errno, "%m");
	if (S_ISDIR(st.st_mode))
		return load_folder(source, path, fd, err);
	n = S_ISREG(st.st_mode) ? pread(fd, head, FAVO_DISK_HEAD, 0) : 0;
	switch (n > 0 ? favo_disk_detect(head, (size_t)n) : FAVO_DISK_NONE) {
	case FAVO_DISK_SQUASHFS:
		return load_squashfs(source, path, err);
	case FAVO_DISK_RAW:
		return load_raw(source, path, err);
	case FAVO_DISK_QCOW2:
		return load_qcow2(source, path, err);
	case FAVO_DISK_VMDK:
		return load_vmdk(source, path, err);
	case FAVO_DISK_VDI:
		return load_vdi(source, path, err);
	case FAVO_DISK_VMDK_TEXT:
		return favo_fail(
			err, EINVAL,
			"a VMDK descriptor that names other files; make one file "
			"of it: qemu-img convert -O qcow2 FILE NEW.qcow2");
	case FAVO_DISK_OTHER:
		return favo_fail(err, EINVAL,
				 "a disk image in a format that Favo does not read; "
				 "convert it: qemu-img convert -O qcow2 FILE NEW.qcow2");
	case FAVO_DISK_NONE:
		break;
	}
	return load_some_tar(source, path, err);
}

static const struct {
	const char *scheme;
	int (*load)(struct favo_source *source, const char *rest, struct favo_err *err);
} schemes[] = {
	{"dir:", load_dir},
	{"tar:", load_tar},
	{"sqsh:", load_squashfs},
	{"raw:", load_raw},
	{"qcow2:", load_qcow2},
	{"vmdk:", load_vmdk},
	{"vdi:", load_vdi},
	{"docker://", load_docker},
	{"oci:", load_layout},
	{"oci-archive:", load_oci_archive},
	{"docker-archive:", load_docker_archive},
};

int favo_source_load(struct favo_source *source, const char *text, struct favo_err *err)
{
	size_t len;
	int ret;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(schemes); i++) {
		len = strlen(schemes[i].scheme);
		if (strncmp(text, schemes[i].scheme, len) != 0)
			continue;
		ret = schemes[i].load(source, text + len, err);
		return ret < 0 ? favo_wrap(err, ret, "%s", text) : 0;
	}
	ret = load_path(source, text, err);
	return ret < 0 ? favo_wrap(err, ret, "%s", text) : 0;
}

void favo_source_fini(struct favo_source *source)
{
	favo_tree_free(source->tree);
	json_decref(source->origin);
	json_decref(source->config);
	source->tree = NULL;
	source->origin = NULL;
	source->config = NULL;
}

static char *name_of_image(const char *text)
{
	struct favo_oci_ref ref = {0};
	char *name;

	if (favo_oci_ref_parse(&ref, text, NULL) < 0)
		return strdup(text); /* loading it will say what is wrong */
	name = favo_oci_ref_name(&ref);
	favo_oci_ref_fini(&ref);
	return name;
}

char *favo_source_name(const char *text)
{
	static const char *const ends[] = {".tar",   ".tgz", ".sqsh", ".squashfs", ".img",
					   ".qcow2", ".raw", ".vmdk", ".vdi"};
	favo_autofree char *full = NULL;
	const char *base, *end = NULL;

	if (favo_oci_is_ref(text))
		return name_of_image(text);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(schemes); i++)
		if (strncmp(text, schemes[i].scheme, strlen(schemes[i].scheme)) == 0)
			text += strlen(schemes[i].scheme);
	full = realpath(text, NULL);
	base = full ? strrchr(full, '/') + 1 : text;
	for (size_t i = 0; !end && i < FAVO_ARRAY_SIZE(ends); i++) {
		end = strstr(base, ends[i]);
		/* Only ".tar" may have more behind it. */
		if (i > 0 && end && end[strlen(ends[i])])
			end = NULL;
	}
	return strndup(base, end ? (size_t)(end - base) : strlen(base));
}
