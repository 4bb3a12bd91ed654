// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo image export: the root file system of an image as a tar, an OCI image
 * layout, or the EROFS itself. Whoever may ask favod may export; the bytes are
 * checked against the image's id here.
 */
#include "provision/cli/image_export.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/blobs.h"
#include "provision/cli/target.h"

const char *favo_cli_spool_dir(void)
{
	const char *dir = getenv("TMPDIR");

	return dir && *dir ? dir : "/var/tmp";
}

/* A line per percent is enough. */
void favo_cli_image_progress(const char *step, uint64_t done, uint64_t total, void *user)
{
	char a[32], b[32];

	if (!isatty(STDERR_FILENO))
		return;
	fprintf(stderr, "\r  %s: %s %s of %s   %s", (const char *)user, step,
		favo_format_size(a, sizeof(a), done),
		favo_format_size(b, sizeof(b), total), done >= total ? "\n" : "");
}

/* ---- images of favod ---- */

struct wanted {
	size_t max;
	void *data;
	size_t len;
};

static int keep_blob(const struct favo_digest *digest, const void *stored, size_t len,
		     void *user, struct favo_err *err)
{
	struct wanted *w = user;

	return favo_blob_decode(digest, stored, len, w->max, &w->data, &w->len, err);
}

static int read_favod(const struct favo_digest *digest, size_t max, void **data,
		      size_t *len, void *user, struct favo_err *err)
{
	struct favo_http_reply reply = {0};
	struct wanted w = {.max = max};
	int ret = favo_blobs_get(user, digest, 1, &reply, err);

	if (ret == 0)
		ret = favo_blobs_each(digest, 1, reply.body, reply.len, keep_blob, &w,
				      err);
	favo_http_reply_fini(&reply);
	if (ret < 0) {
		free(w.data);
		return ret;
	}
	*data = w.data;
	*len = w.len;
	return 0;
}

/* favod's word for what a name means; the manifest must have that digest. */
static int open_favod(struct favo_cli *cli, const char *name,
		      struct favo_cli_image *image, struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("/v1/images/%s", name), *text = NULL;
	favo_autojson json_t *reply = NULL;
	char digest[FAVO_DIGEST_TEXT_SIZE];
	struct favo_http *http;
	const char *said;
	size_t len = 0;
	int ret = favo_cli_http(cli, &http, err);

	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = favo_http_json(http, "GET", path, NULL, &reply, err);
	if (ret == 0)
		ret = favo_json_str(&said, reply, "digest", err);
	if (ret == 0)
		ret = favo_json_canonical(&text, &len, json_object_get(reply, "manifest"),
					  err);
	if (ret >= 0)
		ret = favo_manifest_parse(&image->manifest, text, len, err);
	if (ret < 0)
		return ret;
	if (strcmp(favo_digest_format(&image->manifest->id, digest), said) != 0)
		return favo_fail(err, EBADMSG,
				 "favod's manifest of %s is not the one "
				 "with the digest that it says",
				 name);
	image->export.read = read_favod;
	image->export.user = http;
	return 0;
}

static int open_store(struct favo_cli *cli, const char *name,
		      struct favo_cli_image *image, struct favo_err *err)
{
	struct favo_digest id;
	int ret = favo_store_open(&image->store, cli->conf.store_dir, 0, err);

	if (ret == 0)
		ret = favo_store_resolve(image->store, name, &id, err);
	if (ret == 0)
		ret = favo_store_manifest(image->store, &id, &image->manifest, err);
	image->export.read = favo_export_read_store;
	image->export.user = image->store;
	return ret == -ENOENT
		       ? favo_fail(err, ENOENT, "no image %s; see: favo image ls", name)
		       : ret;
}

int favo_cli_image_open(struct favo_cli *cli, const char *name,
			struct favo_cli_image *image, struct favo_err *err)
{
	int ret;

	*image = (struct favo_cli_image){0};
	ret = favo_cli_has_store(cli) ? open_store(cli, name, image, err)
				      : open_favod(cli, name, image, err);
	if (ret < 0) {
		favo_cli_image_close(image);
		return ret;
	}
	image->export.manifest = image->manifest;
	image->export.progress = favo_cli_image_progress;
	image->export.progress_user = (void *)image->manifest->name;
	return 0;
}

void favo_cli_image_close(struct favo_cli_image *image)
{
	favo_manifest_free(image->manifest);
	favo_store_close(image->store);
	*image = (struct favo_cli_image){0};
}

/* ---- where to ---- */

/* tree is NULL: the file system as it is. */
static int write_file(const struct favo_export *export, const struct favo_tree *tree,
		      int fd, struct favo_err *err)
{
	if (!tree)
		return favo_export_root(export, fd, err);
	return favo_export_tar(tree, fd, export->progress, export->progress_user, err);
}

/* A new file that gets its name when it is whole. */
static int to_file(const struct favo_export *export, const struct favo_tree *tree,
		   const char *path, struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s.part", path);
	favo_autoclose int fd = -1;
	int ret;

	if (!tmp)
		return favo_fail(err, ENOMEM, "out of memory");
	if (access(path, F_OK) == 0)
		return favo_fail(err, EEXIST, "%s is there already; remove it first",
				 path);
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", tmp);
	ret = write_file(export, tree, fd, err);
	if (ret == 0 && (fsync(fd) < 0 || rename(tmp, path) < 0))
		ret = favo_fail(err, errno, "%s: %m", path);
	if (ret < 0)
		unlink(tmp);
	return ret;
}

/* "DIR[:TAG]"; the tag has no '/'. */
static int to_layout(const struct favo_export *export, const struct favo_tree *tree,
		     const char *text, struct favo_err *err)
{
	favo_autofree char *path = strdup(text);
	char *colon = path ? strrchr(path, ':') : NULL;
	const char *tag = "latest";

	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	if (colon && !strchr(colon, '/')) {
		*colon = '\0';
		tag = colon + 1;
	}
	if (!*path || !*tag)
		return favo_cli_usage(err, "oci:%s: the form is oci:DIR[:TAG]", text);
	return favo_export_layout(export, tree, path, tag, err);
}

static const char *without(const char *text, const char *scheme)
{
	size_t len = strlen(scheme);

	return strncmp(text, scheme, len) == 0 ? text + len : NULL;
}

static int export_to(struct favo_cli *cli, const char *name, const char *text,
		     struct favo_err *err)
{
	favo_autoimage struct favo_cli_image image = {0};
	favo_autotree struct favo_tree *tree = NULL;
	const char *layout = without(text, "oci:"), *erofs = without(text, "erofs:");
	const char *file = without(text, "tar:") ? without(text, "tar:") : text;
	int ret;

	if (strcmp(file, "-") == 0 && isatty(STDOUT_FILENO))
		return favo_cli_usage(err, "a tar does not belong on a terminal");
	ret = favo_cli_image_open(cli, name, &image, err);
	if (ret < 0)
		return ret;
	if (erofs)
		return to_file(&image.export, NULL, erofs, err);
	ret = favo_export_tree(&tree, &image.export, favo_cli_spool_dir(), err);
	if (ret < 0)
		return favo_wrap(err, ret, "image %s", name);
	if (layout)
		return to_layout(&image.export, tree, layout, err);
	return strcmp(file, "-") == 0
		       ? write_file(&image.export, tree, STDOUT_FILENO, err)
		       : to_file(&image.export, tree, file, err);
}

int favo_cli_image_export(struct favo_cli *cli, int argc, char **argv,
			  struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "IMAGE FILE|-|oci:DIR[:TAG]|erofs:FILE",
		.about =
			"Write the root file system of an image: as a tar (- is "
			"stdout), as an OCI image layout of one layer, which skopeo "
			"copies to any registry, or as the EROFS file that guests mount. "
			"Import takes the first two back.",
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 2, 2, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	return export_to(cli, argv[first], argv[first + 1], err);
}
