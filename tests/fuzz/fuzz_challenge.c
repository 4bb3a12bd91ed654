// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: the WWW-Authenticate header of a registry. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "images/registry.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_challenge c = {0};
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (favo_challenge_parse(&c, text, NULL) == 0 && c.bearer && !c.realm)
		abort();
	favo_challenge_fini(&c);
	free(text);
	return 0;
}
