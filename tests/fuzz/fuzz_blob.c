// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: the stored form of a blob. The digest hardly ever fits; what
 * is tried is the decoder in front of it, and its limit.
 */
#include <stdint.h>
#include <stdlib.h>

#include "images/store.h"

#define MAX 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_digest digest;
	void *plain = NULL;
	size_t len;

	if (favo_digest_of(&digest, data, size, NULL) < 0)
		return 0;
	if (favo_blob_decode(&digest, data, size, MAX, &plain, &len, NULL) == 0 &&
	    len > MAX)
		abort();
	free(plain);
	return 0;
}
