/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Reader of Warewulf's nodes.conf (version 4). Pure. */
#pragma once

#include <jansson.h>
#include <stddef.h>

#include "common/err.h"

/*
 * Definitions as favo node import takes them: {"nodes","profiles"}. What has
 * no place among the fields of a node is left out; an image's name becomes the
 * tag "warewulf_image", because favod's store does not have it. -EINVAL with
 * the line for what is no YAML, or not of that form.
 */
int favo_warewulf_parse(json_t **out, const char *text, size_t len, struct favo_err *err);
