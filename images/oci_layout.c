// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Container images in files: OCI image layouts, the same in a tar, and what
 * "docker save" writes. All are a tree of files (an archive is read into a
 * spool file first), so that symlinks in them lead nowhere outside.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/util.h"
#include "images/oci_internal.h"

struct layout {
	struct favo_oci_source source;
	struct favo_tree *tree;
	bool docker; /* docker save */
	const struct favo_inode **layers;
	size_t n_layers;
};

static struct layout *layout_of(struct favo_oci_source *source)
{
	return favo_container_of(source, struct layout, source);
}

static int find_blob(const struct favo_inode **out, struct layout *layout,
		     const struct favo_oci_blob *blob, struct favo_err *err)
{
	char hex[FAVO_DIGEST_HEX_SIZE], path[16 + FAVO_DIGEST_HEX_SIZE];
	const char *name = blob->path;

	if (blob->has_digest) {
		snprintf(path, sizeof(path), "blobs/sha256/%s",
			 favo_digest_format_hex(&blob->digest, hex));
		name = path;
	}
	*out = favo_tree_find(layout->tree, name);
	if (!*out || !S_ISREG((*out)->mode))
		return favo_fail(err, ENOENT, "no file %.200s", name);
	return 0;
}

static int read_named(struct layout *layout, const char *name, char **text, size_t *len,
		      struct favo_err *err)
{
	const struct favo_inode *inode = favo_tree_find(layout->tree, name);
	int ret;

	if (!inode)
		return favo_fail(err, ENOENT, "no %s: not %s", name,
				 layout->docker ? "an archive of docker save"
						: "an OCI image layout");
	ret = favo_tree_read_all(layout->tree, inode, FAVO_OCI_JSON_MAX, text, len, err);
	return ret < 0 ? favo_wrap(err, ret, "%s", name) : 0;
}

static int layout_top(struct favo_oci_source *source, char **text, size_t *len,
		      struct favo_err *err)
{
	struct layout *layout = layout_of(source);
	favo_autojson json_t *root = NULL;
	favo_autofree char *version = NULL;
	const char *number;
	int ret;

	if (layout->docker)
		return read_named(layout, "manifest.json", text, len, err);
	if ((ret = read_named(layout, "oci-layout", &version, len, err)) < 0 ||
	    (ret = favo_json_parse(&root, version, *len, err)) < 0 ||
	    (ret = favo_json_str(&number, root, "imageLayoutVersion", err)) < 0)
		return favo_wrap(err, ret, "oci-layout");
	if (strcmp(number, "1.0.0") != 0)
		return favo_fail(err, ENOTSUP, "oci-layout: version %.20s is not 1.0.0",
				 number);
	return read_named(layout, "index.json", text, len, err);
}

static int layout_small(struct favo_oci_source *source, const struct favo_oci_blob *blob,
			bool is_blob, char **text, size_t *len, struct favo_err *err)
{
	struct layout *layout = layout_of(source);
	const struct favo_inode *inode;
	int ret = find_blob(&inode, layout, blob, err);

	(void)is_blob;
	if (ret < 0)
		return ret;
	return favo_tree_read_all(layout->tree, inode, FAVO_OCI_JSON_MAX, text, len, err);
}

static int layout_start(struct favo_oci_source *source,
			const struct favo_oci_manifest *manifest,
			struct favo_spool *spool, struct favo_err *err)
{
	struct layout *layout = layout_of(source);
	int ret = 0;

	(void)spool;
	layout->layers = calloc(manifest->n_layers + 1, sizeof(struct favo_inode *));
	if (!layout->layers)
		return favo_fail(err, ENOMEM, "out of memory");
	layout->n_layers = manifest->n_layers;
	for (size_t i = 0; ret == 0 && i < manifest->n_layers; i++)
		ret = find_blob(&layout->layers[i], layout, &manifest->layers[i], err);
	return ret;
}

static ssize_t layout_read(struct favo_oci_source *source, size_t i, uint64_t offset,
			   void *buf, size_t len, struct favo_err *err)
{
	struct layout *layout = layout_of(source);
	const struct favo_inode *inode = layout->layers[i];
	int ret;

	if (offset >= inode->size)
		return 0;
	len = FAVO_MIN(len, inode->size - offset);
	ret = favo_tree_read(layout->tree, inode, buf, len, offset, err);
	return ret < 0 ? ret : (ssize_t)len;
}

static uint64_t layout_size(struct favo_oci_source *source, size_t i)
{
	return layout_of(source)->layers[i]->size;
}

static void layout_drop(struct favo_oci_source *source, size_t i)
{
	(void)source;
	(void)i;
}

static void layout_free(struct favo_oci_source *source)
{
	struct layout *layout = layout_of(source);

	favo_tree_free(layout->tree);
	free(layout->layers);
	free(layout);
}

static const struct favo_oci_source_ops layout_ops = {
	.top = layout_top,
	.small = layout_small,
	.start = layout_start,
	.read = layout_read,
	.size = layout_size,
	.drop = layout_drop,
	.free = layout_free,
};

int favo_oci_open_layout(struct favo_oci_source **out, const struct favo_oci_ref *ref,
			 const struct favo_oci_params *params, struct favo_err *err)
{
	struct layout *layout = calloc(1, sizeof(*layout));
	favo_autoclose int fd = -1;
	int ret;

	if (!layout)
		return favo_fail(err, ENOMEM, "out of memory");
	layout->source.ops = &layout_ops;
	layout->docker = ref->kind == FAVO_OCI_DOCKER_ARCHIVE;
	if (ref->kind == FAVO_OCI_LAYOUT) {
		ret = favo_tree_load_dir(&layout->tree, ref->path, err);
	} else {
		fd = open(ref->path, O_RDONLY | O_CLOEXEC);
		ret = fd < 0 ? favo_fail(err, errno, "%s: %m", ref->path)
			     : favo_tree_load_tar(&layout->tree, fd, params->spool_dir,
						  err);
	}
	if (ret < 0) {
		layout_free(&layout->source);
		return ret;
	}
	*out = &layout->source;
	return 0;
}
