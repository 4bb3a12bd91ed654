// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Chunk index: entries of 36 bytes, little-endian length and digest, without
 * a header (docs/format-image.md). The reader trusts nothing: the index comes
 * from the network, and its lengths steer writes to root.img.
 */
#include "images/index.h"

#include <endian.h>
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>

#include "common/util.h"

int favo_index_parse(struct favo_index **out, const void *data, size_t len, uint64_t size,
		     struct favo_err *err)
{
	favo_autoindex struct favo_index *index = NULL;
	const unsigned char *p = data;
	size_t n = len / FAVO_INDEX_ENTRY_LEN;
	uint64_t offset = 0;
	uint32_t length;

	if (len % FAVO_INDEX_ENTRY_LEN)
		return favo_fail(err, EBADMSG,
				 "chunk index: %zu bytes are not whole entries", len);
	index = calloc(1, sizeof(*index));
	if (!index)
		return favo_fail(err, ENOMEM, "chunk index: out of memory");
	index->chunks = calloc(n ? n : 1, sizeof(*index->chunks));
	if (!index->chunks)
		return favo_fail(err, ENOMEM, "chunk index: out of memory");
	for (size_t i = 0; i < n; i++, p += FAVO_INDEX_ENTRY_LEN) {
		memcpy(&length, p, sizeof(length));
		length = le32toh(length);
		if (length == 0 || length > FAVO_CHUNK_MAX)
			return favo_fail(err, EBADMSG,
					 "chunk index: entry %zu: length %" PRIu32, i,
					 length);
		if (length > size - offset)
			return favo_fail(err, EBADMSG,
					 "chunk index: entry %zu goes beyond %" PRIu64
					 " bytes",
					 i, size);
		index->chunks[i].offset = offset;
		index->chunks[i].length = length;
		memcpy(index->chunks[i].digest.bytes, p + 4, FAVO_DIGEST_LEN);
		offset += length;
	}
	if (offset != size)
		return favo_fail(err, EBADMSG,
				 "chunk index: chunks make %" PRIu64
				 " bytes, not %" PRIu64,
				 offset, size);
	index->n_chunks = n;
	index->size = size;
	*out = favo_steal_ptr(&index);
	return 0;
}

int favo_index_format(const struct favo_index *index, void **data, size_t *len,
		      struct favo_err *err)
{
	unsigned char *bytes = malloc(index->n_chunks * FAVO_INDEX_ENTRY_LEN + 1);
	unsigned char *p = bytes;
	uint32_t length;

	if (!bytes)
		return favo_fail(err, ENOMEM, "chunk index: out of memory");
	for (size_t i = 0; i < index->n_chunks; i++, p += FAVO_INDEX_ENTRY_LEN) {
		length = htole32(index->chunks[i].length);
		memcpy(p, &length, sizeof(length));
		memcpy(p + 4, index->chunks[i].digest.bytes, FAVO_DIGEST_LEN);
	}
	*data = bytes;
	*len = index->n_chunks * FAVO_INDEX_ENTRY_LEN;
	return 0;
}

void favo_index_free(struct favo_index *index)
{
	if (!index)
		return;
	free(index->chunks);
	free(index);
}
