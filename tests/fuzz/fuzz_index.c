// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: a chunk index; the first 8 bytes are the size that the
 * manifest says, little-endian.
 */
#include "images/index.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_index *index = NULL;
	uint64_t total, end = 0;

	if (size < sizeof(total))
		return 0;
	memcpy(&total, data, sizeof(total));
	total = le64toh(total);
	if (favo_index_parse(&index, data + 8, size - 8, total, NULL) < 0)
		return 0;
	for (size_t i = 0; i < index->n_chunks; i++) {
		if (index->chunks[i].offset != end || index->chunks[i].length == 0 ||
		    index->chunks[i].length > FAVO_CHUNK_MAX)
			abort();
		end += index->chunks[i].length;
	}
	if (end != total)
		abort();
	favo_index_free(index);
	return 0;
}
