/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Layers of container images (OCI image-spec, layer.md): one layer becomes a
 * tree of its own, so that layers are read in parallel; merging puts the
 * trees one above the other, as overlayfs would.
 *
 *   .wh.NAME        hides NAME of the layers below
 *   .wh..wh..opq    hides everything that the layers below have in its folder
 *
 * Both concern lower layers only, wherever they stand in their own layer. In
 * a layer's tree they are flags of inodes:
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "images/digest.h"
#include "images/tree.h"

enum favo_layer_flag {
	/* A folder that the layer does not list: a lower one keeps its metadata. */
	FAVO_LAYER_IMPLICIT = 1,
	/* A folder that hides what is below it. */
	FAVO_LAYER_OPAQUE = 2,
	/* Not there at all; set together with the other two, on a folder. */
	FAVO_LAYER_WHITEOUT = 4,
	/* Hard link to a file of a lower layer, whose path is data. */
	FAVO_LAYER_LINK = 8,
};

/* Contents of all layers of an image in one unlinked file, and their limits. */
struct favo_spool {
	int fd;
	_Atomic uint64_t len;
	_Atomic uint64_t members;
	uint64_t max_bytes; /* of contents, holes counted */
	uint64_t max_members;
	atomic_bool stop; /* makes every reader give up with -ECANCELED */
};

int favo_spool_open(struct favo_spool *spool, const char *dir, uint64_t max_bytes,
		    uint64_t max_members, struct favo_err *err);

/* A stream of bytes: a count, 0 at its end, or -errno. */
typedef ssize_t favo_read_fn(void *user, void *buf, size_t len, struct favo_err *err);

struct favo_layer_source {
	favo_read_fn *read;
	void *user;
	bool has_digest; /* of the bytes read, with size */
	struct favo_digest digest;
	uint64_t size;
	struct favo_digest diff_id; /* of the tar inside */
	_Atomic uint64_t *done; /* bytes read are added; may be NULL */
};

/*
 * Read one layer: plain tar, gzip or zstd, told apart by their first bytes.
 * Blocks; starts a thread of its own. The tree has no spool_fd: its contents
 * are in spool. -EBADMSG for a wrong digest or a damaged stream, -EFBIG when
 * a limit is passed or the data expands like a bomb.
 */
int favo_layer_load(struct favo_tree **out, const struct favo_layer_source *source,
		    struct favo_spool *spool, struct favo_err *err);

/*
 * Put layer above tree; its inodes move over and layer is left empty. -ELOOP
 * and -ENOTDIR for members below something of a lower layer that is no folder.
 */
int favo_tree_merge(struct favo_tree *tree, struct favo_tree *layer,
		    struct favo_err *err);

/* The same from a tar stream; for favo_layer_load() and the fuzz target. */
int favo_tree_load_layer(struct favo_tree **out, favo_read_fn *read, void *user,
			 struct favo_spool *spool, struct favo_err *err);
