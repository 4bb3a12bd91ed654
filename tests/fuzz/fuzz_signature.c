// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: a signature file, as it comes from favod. */
#include "images/sign.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_signature sigs[FAVO_SIGN_MAX];
	int n = favo_signature_parse((const char *)data, size, sigs, NULL);

	if (n == 0 || n > FAVO_SIGN_MAX)
		abort();
	return 0;
}
