/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Chunk index of an image root: which chunks, in order, make the file.
 * Bytes: docs/format-image.md. All functions are thread-safe for readers.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"

#define FAVO_CHUNK_MAX (256u * 1024) /* no chunk is longer */
#define FAVO_INDEX_ENTRY_LEN 36

struct favo_chunk {
	uint64_t offset;
	uint32_t length;
	struct favo_digest digest;
};

struct favo_index {
	struct favo_chunk *chunks;
	size_t n_chunks;
	uint64_t size; /* sum of the lengths */
};

/*
 * Parse foreign bytes. size is what the manifest says of the file; the chunks
 * must add up to it. -EBADMSG for anything else than an exact index.
 */
int favo_index_parse(struct favo_index **out, const void *data, size_t len, uint64_t size,
		     struct favo_err *err);
/* The caller frees *data. */
int favo_index_format(const struct favo_index *index, void **data, size_t *len,
		      struct favo_err *err);
void favo_index_free(struct favo_index *index);

static inline void favo_cleanup_index(struct favo_index **index)
{
	favo_index_free(*index);
}
#define favo_autoindex __attribute__((cleanup(favo_cleanup_index)))
