/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The dm-verity hash tree of a root file system: SHA-256 over blocks of 4 KiB,
 * format version 1 without superblock, as `veritysetup --no-superblock` makes
 * it. The tree stands behind the file system in the same file. Making it
 * (verity.c) needs nothing; reading through it (verity_open.c) needs root and
 * the kernel's dm-verity.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"

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
