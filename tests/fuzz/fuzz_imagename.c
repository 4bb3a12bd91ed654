// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: the name of an image, as users type it. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "images/store.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_image_name name;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	/* Names become paths of the store. */
	if (favo_image_name_parse(&name, text, NULL) == 0 &&
	    (name.name[0] == '/' || name.name[0] == '.' || strstr(name.name, "/.") ||
	     strchr(name.tag, '/') || name.tag[0] == '.'))
		abort();
	free(text);
	return 0;
}
