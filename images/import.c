// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Import of a tree into the store; see import.h. The manifest depends on the
 * tree, the name and the options only: its time is the newest time stamp in
 * the tree, so that the same input gives the same image id.
 */
#include "images/import.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/util.h"
#include "images/clean.h"
#include "images/erofs_writer.h"
#include "images/initramfs.h"
#include "images/kernel.h"
#include "images/osrelease.h"
#include "images/source.h"

#define OS_RELEASE_MAX 65536
#define DROPPED_MAX 1000

/* Folders that the agent mounts on. */
static const struct {
	const char *path;
	mode_t mode;
} folders[] = {{"dev", 0755},  {"proc", 0555},	   {"sys", 0555}, {"run", 0755},
	       {"tmp", 01777}, {"var/tmp", 01777}, {"etc", 0755}, {"root", 0700},
	       {"home", 0755}, {"mnt", 0755}};

struct job {
	const struct favo_import *import;
	struct favo_store *store;
	struct favo_tree *tree;
	struct favo_image_name name;
	struct favo_import_result *result;
	struct favo_store_tx *tx;
	json_t *os;
	json_t *dropped; /* secrets; NULL: none */
	struct favo_kernel kernel;
	struct favo_digest kernel_digest, initramfs_digest;
	json_t *netboot; /* member of that name; NULL: none */
	struct favo_packed_root root;
};

static void note(const struct job *job, const char *what, const char *detail)
{
	favo_autofree char *text = favo_asprintf("%s%s", what, detail);

	if (job->import->note && text)
		job->import->note(text, job->import->user);
}

static void note_secret(const char *path, void *user)
{
	struct job *job = user;

	note(job, "dropped secret /", path);
	/* A path that is no UTF-8 is told, and not written down. */
	if (!job->dropped)
		job->dropped = json_array();
	if (json_array_size(job->dropped) < DROPPED_MAX)
		json_array_append_new(job->dropped, json_string(path));
}

/* ---- the tree ---- */

static int identify(struct job *job, struct favo_err *err)
{
	const struct favo_inode *inode = favo_tree_find(job->tree, "etc/os-release");
	const char *path = "usr/lib/os-release";
	favo_autofree char *text = NULL, *changed = NULL;
	char id[FAVO_IMAGE_NAME_MAX];
	size_t len = 0;
	int64_t mtime = inode ? inode->mtime : 0;
	int ret = 0;

	memcpy(id, job->name.name, sizeof(id));
	for (char *p = id; *p; p++)
		if (*p == '/')
			*p = '-';
	if (inode)
		ret = favo_tree_read_all(job->tree, inode, OS_RELEASE_MAX, &text, &len,
					 err);
	else
		text = favo_asprintf("ID=linux\nNAME=\"%s\"\nPRETTY_NAME=\"%s\"\n", id,
				     id);
	if (ret < 0)
		return favo_wrap(err, ret, "/etc/os-release");
	changed = text ? favo_osrelease_identify(text, id, job->name.tag) : NULL;
	if (!changed)
		return favo_fail(err, ENOMEM, "out of memory");
	job->os = favo_osrelease_parse(changed, strlen(changed));
	/* Keep a symlink in /etc when it leads to the usual place. */
	if (!inode || favo_tree_find(job->tree, path) != inode)
		path = "etc/os-release";
	return favo_tree_put_file(job->tree, path, 0644, changed, strlen(changed), mtime,
				  err);
}

static int clean(struct job *job, struct favo_err *err)
{
	struct favo_inode *inode;
	int ret;

	if ((ret = favo_clean_secrets(job->tree, note_secret, job, err)) < 0 ||
	    (ret = favo_clean_transient(job->tree, err)) < 0 ||
	    (ret = favo_tree_remove_matching(job->tree, job->import->drop,
					     job->import->n_drop, NULL, NULL, err)) < 0)
		return ret;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(folders); i++) {
		if (favo_tree_find(job->tree, folders[i].path))
			continue;
		ret = favo_tree_put(job->tree, folders[i].path, S_IFDIR | folders[i].mode,
				    &inode, err);
		if (ret < 0)
			return ret;
	}
	/* Empty, not absent: systemd then makes one at each boot. */
	return favo_tree_put_file(job->tree, "etc/machine-id", 0444, "", 0, 0, err);
}

static int64_t newest(const struct favo_inode *dir)
{
	int64_t time = dir->mtime, other;

	for (size_t i = 0; i < dir->n_entries; i++) {
		const struct favo_inode *inode = dir->entries[i].inode;

		other = S_ISDIR(inode->mode) ? newest(inode) : inode->mtime;
		time = FAVO_MAX(time, other);
	}
	return time;
}

/* ---- kernel and initramfs ---- */

static int put_boot(struct job *job, const struct favo_tree *modules_tree,
		    const char *modules, struct favo_err *err)
{
	favo_autocpio struct favo_cpio *cpio = NULL;
	const void *data;
	size_t len;
	int ret;

	if ((ret = favo_initramfs_build(&cpio, modules_tree, modules, err)) < 0 ||
	    (ret = favo_cpio_finish(cpio, &data, &len, err)) < 0 ||
	    (ret = favo_store_put(job->tx, data, len, &job->initramfs_digest, NULL,
				  err)) < 0)
		return ret;
	job->result->initramfs_bytes = len;
	return favo_store_put(job->tx, job->kernel.data, job->kernel.len,
			      &job->kernel_digest, NULL, err);
}

/* Kernel from a file and modules from a folder, both of the host. */
static int use_site_kernel(struct job *job, const char *kernel, const char *modules,
			   struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	favo_autofree char *path = NULL;
	char *release, *end;
	int ret;

	if (!modules)
		return favo_fail(err, EINVAL,
				 "kernel %s: say with --modules where its modules are",
				 kernel);
	path = realpath(modules, NULL);
	if (!path)
		return favo_fail(err, errno, "modules %s: %m", modules);
	for (end = path + strlen(path); end > path + 1 && end[-1] == '/';)
		*--end = '\0';
	release = strrchr(path, '/') + 1;
	if ((ret = favo_kernel_from_file(&job->kernel, kernel, release, err)) < 0 ||
	    (ret = favo_tree_load_dir(&tree, path, err)) < 0)
		return ret;
	note(job, "kernel of the site: ", kernel);
	memcpy(job->result->kernel_source, "site", sizeof("site"));
	return put_boot(job, tree, "", err);
}

/* Kernel and initramfs that are in the site's store already. */
static int use_site_boot(struct job *job, struct favo_err *err)
{
	const json_t *boot = job->import->site_boot;
	const char *kernel, *initramfs, *release;
	json_int_t kernel_size, initramfs_size;
	size_t len;

	if (json_unpack((json_t *)boot, "{s:{s:s, s:I, s:s}, s:{s:s, s:I}}", "kernel",
			"digest", &kernel, "size", &kernel_size, "release", &release,
			"initramfs", "digest", &initramfs, "size", &initramfs_size) < 0)
		return favo_fail(err, EBADMSG, "malformed kernel of the site");
	len = strlen(release);
	if (len >= sizeof(job->kernel.release))
		return favo_fail(err, EBADMSG, "malformed release of the site's kernel");
	memcpy(job->kernel.release, release, len + 1);
	job->kernel.len = (size_t)kernel_size;
	job->result->initramfs_bytes = (uint64_t)initramfs_size;
	memcpy(job->result->kernel_source, "site", sizeof("site"));
	note(job, "kernel of the site: ", release);
	if (favo_digest_parse(&job->kernel_digest, kernel, err) < 0 ||
	    favo_digest_parse(&job->initramfs_digest, initramfs, err) < 0)
		return favo_wrap(err, -EBADMSG, "kernel of the site");
	return 0;
}

/*
 * What real machines need to begin: the kernel file as their firmware takes it,
 * and modules for their devices.
 */
static int put_netboot(struct job *job, const char *modules, struct favo_err *err)
{
	const struct favo_inode *inode = favo_tree_find(job->tree, job->kernel.path);
	favo_autocpio struct favo_cpio *cpio = NULL;
	favo_autofree char *data = NULL;
	struct favo_digest kernel, part;
	char kernel_text[FAVO_DIGEST_TEXT_SIZE], part_text[FAVO_DIGEST_TEXT_SIZE];
	const void *cpio_data;
	size_t len, cpio_len;
	int ret;

	if (!inode)
		return favo_fail(err, ENOENT, "kernel %s is not in the image",
				 job->kernel.path);
	if ((ret = favo_tree_read_all(job->tree, inode, FAVO_KERNEL_MAX, &data, &len,
				      err)) < 0 ||
	    (ret = favo_initramfs_build_metal(&cpio, job->tree, modules, err)) < 0 ||
	    (ret = favo_cpio_finish(cpio, &cpio_data, &cpio_len, err)) < 0 ||
	    (ret = favo_store_put(job->tx, data, len, &kernel, NULL, err)) < 0 ||
	    (ret = favo_store_put(job->tx, cpio_data, cpio_len, &part, NULL, err)) < 0)
		return ret;
	json_decref(job->netboot);
	job->netboot = json_pack("{s:{s:s, s:I}, s:{s:s, s:I}}", "kernel", "digest",
				 favo_digest_format(&kernel, kernel_text), "size",
				 (json_int_t)len, "initramfs", "digest",
				 favo_digest_format(&part, part_text), "size",
				 (json_int_t)cpio_len);
	return job->netboot ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

/* The kernel in job->kernel with its modules in the tree; does it fit? */
static int use_own_kernel(struct job *job, struct favo_err *err)
{
	favo_autofree char *modules =
		favo_asprintf("usr/lib/modules/%s", job->kernel.release);
	int ret;

	if (!modules)
		return favo_fail(err, ENOMEM, "out of memory");
	/* A root without merged /usr. */
	if (!favo_tree_find(job->tree, modules))
		memmove(modules, modules + strlen("usr/"),
			strlen(modules + strlen("usr/")) + 1);
	ret = put_boot(job, job->tree, modules, err);
	if (ret == 0 && job->import->netboot)
		ret = put_netboot(job, modules, err);
	if (ret == 0)
		memcpy(job->result->kernel_source, "image", sizeof("image"));
	return ret;
}

/*
 * The newest kernel of the image that fits. -ENOENT: none does, and *why says
 * why the newest does not; "" when there is none at all.
 */
static int choose_own_kernel(struct job *job, char why[256], struct favo_err *err)
{
	char below[FAVO_RELEASE_SIZE] = "";

	for (;;) {
		struct favo_err reason = {0};
		int ret = favo_kernel_older(&job->kernel, job->tree,
					    *below ? below : NULL, &reason);

		if (ret == -ENOENT && !*job->kernel.release)
			return -ENOENT;
		if (ret == 0)
			ret = use_own_kernel(job, &reason);
		if (ret == 0) {
			note(job, "kernel of the image: /", job->kernel.path);
			return 0;
		}
		/* Only what is wrong with this kernel lets us go on. */
		if (ret != -ENOENT && ret != -EBADMSG)
			return favo_fail(err, -ret, "%s", reason.msg);
		note(job, "a kernel of the image does not fit: ", reason.msg);
		if (!*why)
			memcpy(why, reason.msg, sizeof(reason.msg));
		memcpy(below, job->kernel.release, sizeof(below));
		favo_kernel_fini(&job->kernel);
		job->kernel = (struct favo_kernel){0};
	}
}

static int choose_kernel(struct job *job, struct favo_err *err)
{
	const struct favo_import *import = job->import;
	char why[sizeof(err->msg)] = "";
	int ret;

	if (import->kernel) {
		note(job, "kernel: the one asked for", "");
		return use_site_kernel(job, import->kernel, import->modules, err);
	}
	ret = choose_own_kernel(job, why, err);
	if (ret != -ENOENT)
		return ret;
	if (import->site_boot || import->site_kernel)
		note(job, "kernel of the site, because the image has none",
		     *why ? " that fits" : "");
	if (import->site_boot)
		return use_site_boot(job, err);
	if (import->site_kernel)
		return use_site_kernel(job, import->site_kernel, import->site_modules,
				       err);
	if (*why)
		return favo_fail(err, ENOENT,
				 "no kernel of the image fits, and the site has none: %s",
				 why);
	return favo_fail(err, ENOENT,
			 "the image has no kernel (/boot/vmlinuz-* with "
			 "/usr/lib/modules/*) "
			 "and the site has none; install one in the image, or give "
			 "--kernel and --modules, or set site_kernel in favo.conf");
}

/* ---- root ---- */

static int put_root(struct job *job, struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s/tmp", favo_store_path(job->store));
	favo_autoclose int fd = -1;
	struct favo_erofs_stats stats;
	int64_t start = favo_now_ms();
	int ret;

	if (!tmp)
		return favo_fail(err, ENOMEM, "out of memory");
	fd = open(tmp, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", tmp);
	ret = favo_erofs_write(job->tree, fd, &stats, err);
	if (ret < 0)
		return ret;
	job->result->erofs_ms = favo_now_ms() - start;
	start = favo_now_ms();
	ret = favo_pack_root(job->tx, fd, &job->root, job->import->progress,
			     job->import->user, err);
	if (ret < 0)
		return ret;
	job->result->pack = job->root.stats;
	job->result->root_bytes = job->root.size;
	job->result->chunks = job->root.chunks;
	job->result->store_ms = favo_now_ms() - start;
	return 0;
}

/* ---- manifest ---- */

static json_t *digest_json(const struct favo_digest *digest)
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	return json_string(favo_digest_format(digest, text));
}

static int commit(struct job *job, int64_t created, struct favo_err *err)
{
	const struct favo_import *import = job->import;
	struct favo_import_result *r = job->result;
	favo_autojson json_t *manifest = NULL, *source = NULL;
	int64_t start = favo_now_ms();
	int ret;

	source = import->source ? json_copy((json_t *)import->source) : json_object();
	if (!source ||
	    (job->dropped && json_object_set(source, "dropped", job->dropped) < 0))
		return favo_fail(err, ENOMEM, "out of memory");
	manifest =
		json_pack("{s:i, s:s, s:s, s:s, s:I, s:O, s:o, "
			  "s:{s:o, s:I, s:s, s:s}, s:{s:o, s:I}}",
			  "format", FAVO_MANIFEST_FORMAT, "name", job->name.name, "arch",
			  "x86_64", "cmdline", import->cmdline ? import->cmdline : "",
			  "created", (json_int_t)FAVO_MAX(created, 0), "os", job->os,
			  "root", favo_packed_root_json(&job->root), "kernel", "digest",
			  digest_json(&job->kernel_digest), "size",
			  (json_int_t)job->kernel.len, "release", job->kernel.release,
			  "source", r->kernel_source, "initramfs", "digest",
			  digest_json(&job->initramfs_digest), "size",
			  (json_int_t)r->initramfs_bytes);
	if (!manifest ||
	    (json_object_size(source) &&
	     json_object_set(manifest, "source", source) < 0) ||
	    (job->netboot && json_object_set(manifest, "netboot", job->netboot) < 0) ||
	    (import->extra &&
	     json_object_update_missing(manifest, (json_t *)import->extra) < 0) ||
	    (import->config && json_object_size(import->config) &&
	     json_object_set(manifest, "config", (json_t *)import->config) < 0))
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_store_commit(job->tx, manifest, &job->name, &r->id, err);
	r->store_ms += favo_now_ms() - start;
	return ret;
}

static int run(struct job *job, struct favo_err *err)
{
	struct favo_import_result *r = job->result;
	int64_t created;
	int ret;

	ret = favo_image_name_parse(&job->name, job->import->name, err);
	if (ret < 0)
		return ret;
	if (job->name.has_digest)
		return favo_fail(err, EINVAL,
				 "image name '%s': a new image has no digest yet",
				 job->import->name);
	if ((ret = favo_store_begin(&job->tx, job->store, err)) < 0 ||
	    (ret = choose_kernel(job, err)) < 0 || (ret = clean(job, err)) < 0 ||
	    (ret = identify(job, err)) < 0)
		return ret;
	r->kernel_bytes = job->kernel.len;
	r->kernel_is_vmlinux = job->kernel.is_vmlinux;
	memcpy(r->kernel_release, job->kernel.release, sizeof(r->kernel_release));
	if (job->import->netboot && !job->netboot)
		return favo_fail(err, EINVAL,
				 "nodes cannot boot an image without a kernel of its "
				 "own: install one in it");
	created = newest(job->tree->root);
	ret = put_root(job, err);
	return ret < 0 ? ret : commit(job, created, err);
}

int favo_import_tree(struct favo_store *store, struct favo_tree *tree,
		     const struct favo_import *import, struct favo_import_result *result,
		     struct favo_err *err)
{
	struct favo_import_result filled = {0};
	struct job job = {
		.import = import, .store = store, .tree = tree, .result = &filled};
	int ret = run(&job, err);

	favo_store_tx_free(job.tx);
	favo_kernel_fini(&job.kernel);
	json_decref(job.os);
	json_decref(job.dropped);
	json_decref(job.netboot);
	if (ret == 0) {
		filled.tree_ms = result->tree_ms;
		*result = filled;
	}
	return ret;
}

int favo_import_path(struct favo_store *store, const char *path,
		     const struct favo_import *import, struct favo_import_result *result,
		     struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s/tmp", favo_store_path(store));
	struct favo_source source = {.tmp_dir = tmp,
				     .partition = import->partition,
				     .registry_http = import->registry_http,
				     .max_bytes = import->max_bytes,
				     .note = import->note,
				     .progress = import->progress,
				     .user = import->user};
	struct favo_import full = *import;
	int64_t start = favo_now_ms();
	int ret;

	if (!tmp)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_source_load(&source, path, err);
	if (ret == 0) {
		result->tree_ms = favo_now_ms() - start;
		if (!full.source)
			full.source = source.origin;
		if (!full.config)
			full.config = source.config;
		ret = favo_import_tree(store, source.tree, &full, result, err);
	}
	favo_source_fini(&source);
	return ret;
}

/* Was the image of the site's kernel made after kernel and modules? */
static bool is_boot_fresh(struct favo_store *store, const char *kernel,
			  const char *modules)
{
	favo_autofree char *ref = favo_asprintf("%s/refs/" FAVO_SITE_BOOT "/latest",
						favo_store_path(store));
	struct stat made, k, m;

	return ref && stat(ref, &made) == 0 && stat(kernel, &k) == 0 &&
	       stat(modules, &m) == 0 && made.st_mtime > k.st_mtime &&
	       made.st_mtime > m.st_mtime && made.st_mtime > k.st_ctime &&
	       made.st_mtime > m.st_ctime;
}

static int import_boot(struct favo_store *store, const char *kernel, const char *modules,
		       struct favo_digest *id, struct favo_err *err)
{
	struct favo_import import = {
		.name = FAVO_SITE_BOOT, .kernel = kernel, .modules = modules};
	favo_autotree struct favo_tree *tree = NULL;
	struct favo_import_result result = {0};
	int ret = favo_tree_new(&tree, err);

	if (ret == 0)
		ret = favo_import_tree(store, tree, &import, &result, err);
	*id = result.id;
	return ret;
}

int favo_import_site_boot(struct favo_store *store, const char *kernel,
			  const char *modules, json_t **boot, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *manifest = NULL;
	struct favo_digest id;
	const json_t *parts;
	int ret = -ENOENT;

	if (is_boot_fresh(store, kernel, modules))
		ret = favo_store_resolve(store, FAVO_SITE_BOOT, &id, err);
	if (ret < 0)
		ret = import_boot(store, kernel, modules, &id, err);
	if (ret == 0)
		ret = favo_store_manifest(store, &id, &manifest, err);
	if (ret < 0)
		return ret;
	parts = manifest->json;
	*boot = json_pack("{s:O, s:O}", "kernel", json_object_get(parts, "kernel"),
			  "initramfs", json_object_get(parts, "initramfs"));
	return *boot ? 0 : favo_fail(err, ENOMEM, "out of memory");
}
