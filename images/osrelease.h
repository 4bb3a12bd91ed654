/* SPDX-License-Identifier: GPL-2.0-or-later */
/* os-release(5): read its fields, and give an image its own identity. */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "common/err.h"

/* Fields of foreign text as a JSON object; lines that make no sense are skipped. */
json_t *favo_osrelease_parse(const char *text, size_t len);

/*
 * text with IMAGE_ID and IMAGE_VERSION set (other lines of these are
 * dropped); the caller frees the result. NULL when memory is out.
 */
char *favo_osrelease_identify(const char *text, const char *id, const char *version);
