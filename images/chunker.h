/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Content-defined chunking: cuts follow the content, so that an insertion
 * changes the chunks around it and no others. FastCDC (Xia et al., USENIX
 * ATC 2016) with normalized chunking of level 2: at least 16 KiB, 64 KiB on
 * average, at most 256 KiB.
 *
 * The cuts are part of what makes two images share chunks: table and masks
 * never change without a new format number.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define FAVO_CHUNKER_MIN (16u * 1024)
#define FAVO_CHUNKER_AVG (64u * 1024)
#define FAVO_CHUNKER_MAX (256u * 1024)

/*
 * The verity tree behind a root file system is cut eight times finer: one
 * changed file changes a few of its hashes, which stand together.
 */
#define FAVO_CHUNKER_TREE_MIN (2u * 1024)

struct favo_chunker {
	size_t min, avg, max;
	unsigned int bits_before_avg, bits_after_avg; /* zero bits that make a cut */
	uint64_t gear[256];
};

void favo_chunker_init(struct favo_chunker *chunker);
void favo_chunker_init_tree(struct favo_chunker *chunker);

/*
 * Length of the first chunk of data. len is all that is left of the file, or
 * at least FAVO_CHUNKER_MAX. 0 only for len 0. Thread-safe.
 */
size_t favo_chunker_next(const struct favo_chunker *chunker, const void *data,
			 size_t len);
