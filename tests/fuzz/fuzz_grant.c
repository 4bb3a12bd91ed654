// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: the text of a grant. The key never fits, so the fields are
 * reached through favo_grant_peek(), which shares all but the signature.
 */
#include "provision/grant.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_grant grant;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (favo_grant_peek(text, &grant, NULL) == 0 && grant.per_node == 0)
		abort();
	free(text);
	return 0;
}
