// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: head of an HTTP answer, as a node that boots reads it. */
#include "netboot/http.h"

#include <stdint.h>
#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	size_t body;
	int status;

	if (favo_web_parse_head((const char *)data, size, &status, &body, NULL) == 0 &&
	    (status < 0 || status > 999))
		abort();
	return 0;
}
