/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The way out of the store: the root file system of an image as a file, a
 * tree, a tar, or a container image. Equal images give equal bytes.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"
#include "images/index.h"
#include "images/manifest.h"
#include "images/pack.h"
#include "images/store.h"
#include "images/tree.h"

/*
 * Plain bytes of one blob, at most max; the caller frees *data. Where images
 * are read from: a store, or favod.
 */
typedef int favo_export_read_fn(const struct favo_digest *digest, size_t max, void **data,
				size_t *len, void *user, struct favo_err *err);

/* favo_export_read_fn of a struct favo_store. */
int favo_export_read_store(const struct favo_digest *digest, size_t max, void **data,
			   size_t *len, void *user, struct favo_err *err);

struct favo_export {
	const struct favo_manifest *manifest;
	favo_export_read_fn *read;
	void *user; /* of read */
	favo_progress_fn *progress; /* may be NULL */
	void *progress_user;
};

/* Chunks of root.img; free with favo_index_free(). */
int favo_export_index(struct favo_index **out, const struct favo_export *export,
		      struct favo_err *err);

/*
 * Write the file system alone, root.size bytes, to the empty file fd; zeros
 * become holes. Every chunk is checked against its digest. Blocks.
 */
int favo_export_root(const struct favo_export *export, int fd, struct favo_err *err);

/* The same as a tree, whose contents are in an unlinked file in dir. */
int favo_export_tree(struct favo_tree **out, const struct favo_export *export,
		     const char *dir, struct favo_err *err);

/*
 * Write a tree as a pax tar, in path order. What a tar cannot hold (sockets)
 * is left out. progress hears of the contents' bytes; may be NULL.
 */
int favo_export_tar(const struct favo_tree *tree, int fd, favo_progress_fn *progress,
		    void *user, struct favo_err *err);

/*
 * Make the folder path, which must not be there, an OCI image layout of one
 * layer, called tag. On an error nothing stays.
 */
int favo_export_layout(const struct favo_export *export, const struct favo_tree *tree,
		       const char *path, const char *tag, struct favo_err *err);
