/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dm-verity hash tree of a root file system: SHA-256 over blocks of 4 KiB,
 * format version 1 without superblock, as `veritysetup --no-superblock` makes
 * it. The tree stands behind the file system in the same file. Making it
 * (verity.c) needs nothing; reading through it (verity_open.c) needs root and
 * the kernel's dm-verity.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/manifest.h"

#define FAVO_VERITY_BLOCK 4096u
#define FAVO_VERITY_LEVELS 16

/* All of it follows from the size of the file system. */
struct favo_verity_layout {
	uint64_t data_blocks;
	uint64_t hash_offset; /* bytes; the file system is padded up to it */
	uint64_t hash_size; /* bytes of all levels; 0 for a single block */
	unsigned int levels;
	/* First block of each level from hash_offset on; level 0 hashes data. */
	uint64_t level_block[FAVO_VERITY_LEVELS];
	uint64_t level_blocks[FAVO_VERITY_LEVELS];
};

void favo_verity_layout(uint64_t size, struct favo_verity_layout *layout);

/* One salt for all images: equal data have equal trees, and chunks of them dedup. */
void favo_verity_salt(struct favo_digest *salt);

/*
 * Hash the first size bytes of fd (padded with zeros to a whole block) on all
 * cores and write the tree behind them; the file then ends with the tree.
 */
int favo_verity_build(int fd, uint64_t size, const struct favo_digest *salt,
		      struct favo_digest *root_hash, struct favo_err *err);

/* ---- reading (verity_open.c) ---- */

#define FAVO_VERITY_NAME_SIZE 96

enum favo_verity_flags {
	FAVO_VERITY_NO_READAHEAD = 1, /* the source fetches what is read */
};

/*
 * Open a file system through dm-verity, whatever its source is: a regular file
 * (through a loop device) or a block device, open for reading. *out is a
 * read-only descriptor of the block device; each block is checked when it
 * enters the page cache, and a read of a damaged one fails with EIO. All who
 * open the same source of the same image share one device, also after a
 * restart of the caller; the kernel removes it when its last descriptor is
 * closed. name, unless NULL, gets the device's name.
 *
 * -EOPNOTSUPP: the kernel has no dm-verity, or we are not root. -EBADMSG: the
 * first block is damaged already. Callers take turns.
 */
int favo_verity_open(int *out, const struct favo_digest *id, int source_fd, uint64_t size,
		     const struct favo_manifest_verity *verity, unsigned int flags,
		     char name[FAVO_VERITY_NAME_SIZE], struct favo_err *err);

/* Open again what is there for an image; -ENOENT when nothing is. */
int favo_verity_find(int *out, const struct favo_digest *id,
		     char name[FAVO_VERITY_NAME_SIZE], struct favo_err *err);

/* Has the device met a damaged block since it was made? */
bool favo_verity_is_damaged(const char *name);
