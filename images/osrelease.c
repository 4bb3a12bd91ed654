// SPDX-License-Identifier: GPL-2.0-or-later
/* os-release of images; see osrelease.h. */
#include "images/osrelease.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

#define VALUE_MAX 1024

static bool is_key(const char *text, size_t len)
{
	if (len == 0 || len > 64)
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isupper((unsigned char)text[i]) &&
		    !isdigit((unsigned char)text[i]) && text[i] != '_')
			return false;
	return true;
}

/* Shell quoting, as far as os-release(5) allows it, and printable only. */
static bool unquote(const char *text, size_t len, char value[VALUE_MAX])
{
	size_t n = 0, i = 0;
	char quote = 0;

	if (len && (text[0] == '"' || text[0] == '\'')) {
		quote = text[0];
		if (len < 2 || text[len - 1] != quote)
			return false;
		i = 1;
		len--;
	}
	for (; i < len; i++) {
		if (text[i] == '\\' && quote != '\'' && i + 1 < len)
			i++;
		if (n + 1 >= VALUE_MAX || (unsigned char)text[i] < ' ' || text[i] == 0x7f)
			return false;
		value[n++] = text[i];
	}
	value[n] = '\0';
	return true;
}

json_t *favo_osrelease_parse(const char *text, size_t len)
{
	json_t *fields = json_object();
	const char *end = text + len, *line_end, *equals;
	char key[65], value[VALUE_MAX];

	for (; fields && text < end; text = line_end + 1) {
		line_end = memchr(text, '\n', (size_t)(end - text));
		if (!line_end)
			line_end = end;
		equals = memchr(text, '=', (size_t)(line_end - text));
		if (!equals || !is_key(text, (size_t)(equals - text)) ||
		    !unquote(equals + 1, (size_t)(line_end - equals - 1), value))
			continue;
		memcpy(key, text, (size_t)(equals - text));
		key[equals - text] = '\0';
		/* Text that is not UTF-8 is refused by jansson and left out. */
		json_object_set_new(fields, key, json_string(value));
	}
	return fields;
}

char *favo_osrelease_identify(const char *text, const char *id, const char *version)
{
	favo_autofree char *kept = malloc(strlen(text) + 2);
	size_t n = 0, len;

	if (!kept)
		return NULL;
	for (; *text; text += len) {
		len = strcspn(text, "\n");
		len += text[len] == '\n';
		if (strncmp(text, "IMAGE_ID=", 9) == 0 ||
		    strncmp(text, "IMAGE_VERSION=", 14) == 0)
			continue;
		memcpy(kept + n, text, len);
		n += len;
	}
	if (n && kept[n - 1] != '\n')
		kept[n++] = '\n';
	kept[n] = '\0';
	return favo_asprintf("%sIMAGE_ID=\"%s\"\nIMAGE_VERSION=\"%s\"\n", kept, id,
			     version);
}
