// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * An image of the store as an OCI image layout (image-spec, image-layout.md):
 * one plain tar layer, so that its digest and its diff_id are the same.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "images/export.h"

#define TYPE "application/vnd.oci.image."

struct blob {
	char digest[FAVO_DIGEST_TEXT_SIZE];
	uint64_t size;
};

static char *blob_path(const char *dir, const char *digest)
{
	return favo_asprintf("%s/blobs/sha256/%s", dir, strchr(digest, ':') + 1);
}

static int put_layer(const struct favo_export *export, const struct favo_tree *tree,
		     const char *dir, struct blob *blob, struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s/layer", dir), *path = NULL;
	favo_autoclose int fd = -1;
	struct favo_digest digest;
	struct stat st;
	int ret;

	if (!tmp)
		return favo_fail(err, ENOMEM, "out of memory");
	fd = open(tmp, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", tmp);
	ret = favo_export_tar(tree, fd, export->progress, export->progress_user, err);
	if (ret == 0)
		ret = favo_digest_of_fd(&digest, fd, err);
	if (ret < 0)
		return ret;
	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "%s: %m", tmp);
	blob->size = (uint64_t)st.st_size;
	path = blob_path(dir, favo_digest_format(&digest, blob->digest));
	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	return rename(tmp, path) < 0 ? favo_fail(err, errno, "%s: %m", path) : 0;
}

/* Takes value. With path, the file's name; else the name is the digest. */
static int put_json(json_t *value, const char *dir, const char *name, struct blob *blob,
		    struct favo_err *err)
{
	favo_autojson json_t *json = value;
	favo_autofree char *text = NULL, *path = NULL;
	struct favo_digest digest;
	size_t len = 0;
	int ret = json ? favo_json_canonical(&text, &len, json, err)
		       : favo_fail(err, ENOMEM, "out of memory");

	if (ret >= 0)
		ret = favo_digest_of(&digest, text, len, err);
	if (ret < 0)
		return ret;
	blob->size = len;
	favo_digest_format(&digest, blob->digest);
	path = name ? favo_asprintf("%s/%s", dir, name) : blob_path(dir, blob->digest);
	return path ? favo_file_replace(path, text, len, 0644, err)
		    : favo_fail(err, ENOMEM, "out of memory");
}

/* What a container's process gets, with the names of the specification. */
static json_t *config_json(const json_t *config)
{
	return json_pack("{s:O*, s:O*, s:O*, s:O*}", "Env",
			 json_object_get(config, "env"), "Entrypoint",
			 json_object_get(config, "entrypoint"), "Cmd",
			 json_object_get(config, "cmd"), "WorkingDir",
			 json_object_get(config, "workdir"));
}

static int put_config(const struct favo_manifest *m, const char *dir,
		      const struct blob *layer, struct blob *blob, struct favo_err *err)
{
	char created[32] = "1970-01-01T00:00:00Z", id[FAVO_DIGEST_TEXT_SIZE];
	time_t when = (time_t)m->created;
	struct tm tm;

	if (gmtime_r(&when, &tm))
		strftime(created, sizeof(created), "%Y-%m-%dT%H:%M:%SZ", &tm);
	return put_json(
		json_pack("{s:s, s:s, s:s, s:o, s:{s:s, s:[s]}, s:[{s:s, s:s, s:s}]}",
			  "architecture", "amd64", "os", "linux", "created", created,
			  "config", config_json(m->config), "rootfs", "type", "layers",
			  "diff_ids", layer->digest, "history", "created", created,
			  "created_by", "favo image export", "comment",
			  favo_digest_format(&m->id, id)),
		dir, NULL, blob, err);
}

static int fill_layout(const struct favo_export *export, const struct favo_tree *tree,
		       const char *dir, const char *tag, struct favo_err *err)
{
	struct blob layer, config, manifest, other;
	favo_autofree char *blobs = favo_asprintf("%s/blobs/sha256", dir);
	int ret = blobs ? favo_mkdirs(blobs, 0755, err)
			: favo_fail(err, ENOMEM, "out of memory");

	if (ret == 0)
		ret = put_layer(export, tree, dir, &layer, err);
	if (ret == 0)
		ret = put_config(export->manifest, dir, &layer, &config, err);
	if (ret == 0)
		ret = put_json(json_pack("{s:i, s:s, s:{s:s, s:s, s:I}, "
					 "s:[{s:s, s:s, s:I}]}",
					 "schemaVersion", 2, "mediaType",
					 TYPE "manifest.v1+json", "config", "mediaType",
					 TYPE "config.v1+json", "digest", config.digest,
					 "size", (json_int_t)config.size, "layers",
					 "mediaType", TYPE "layer.v1.tar", "digest",
					 layer.digest, "size", (json_int_t)layer.size),
			       dir, NULL, &manifest, err);
	if (ret == 0)
		ret = put_json(json_pack("{s:i, s:s, s:[{s:s, s:s, s:I, s:{s:s}}]}",
					 "schemaVersion", 2, "mediaType",
					 TYPE "index.v1+json", "manifests", "mediaType",
					 TYPE "manifest.v1+json", "digest",
					 manifest.digest, "size",
					 (json_int_t)manifest.size, "annotations",
					 "org.opencontainers.image.ref.name", tag),
			       dir, "index.json", &other, err);
	if (ret == 0)
		ret = put_json(json_pack("{s:s}", "imageLayoutVersion", "1.0.0"), dir,
			       "oci-layout", &other, err);
	return ret;
}

int favo_export_layout(const struct favo_export *export, const struct favo_tree *tree,
		       const char *path, const char *tag, struct favo_err *err)
{
	int ret;

	if (mkdir(path, 0755) < 0)
		return favo_fail(err, errno, "%s: %m", path);
	ret = fill_layout(export, tree, path, tag, err);
	if (ret < 0 && favo_remove_tree(path, NULL) < 0)
		favo_wrap(err, ret, "%s stays, unfinished", path);
	return ret;
}
