/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writer of plain (uncompressed) EROFS file systems.
 *
 * Layout, chosen so that images share chunks: superblock, then the contents
 * of all files in path order, each from a 4 KiB boundary on and without
 * inline tails, then all metadata. Equal trees give equal bytes: entries are
 * sorted, UUID and build time are fixed. Needs no feature of EROFS newer than
 * Linux 5.4 and sets no incompatible feature bit.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "images/tree.h"

struct favo_erofs_stats {
	uint64_t bytes; /* of the image */
	uint64_t data_bytes; /* of them file contents, with padding */
	uint64_t inodes;
};

/*
 * Write tree to the empty file fd. Extended attributes of a kind that EROFS
 * does not know are left out. stats may be NULL. Blocks on disk.
 */
int favo_erofs_write(struct favo_tree *tree, int fd, struct favo_erofs_stats *stats,
		     struct favo_err *err);
