/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Definitions of nodes and profiles: their form, and how profiles and a
 * node's own fields make what counts. Pure; JSON values in and out.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "common/err.h"

#define FAVO_NODE_NAME_MAX 63 /* it is a host name */

/* A host's name in lower-case letters, digits and '-', as Slurm and DNS take it. */
bool favo_node_name_ok(const char *name);
/* Names of profiles and groups: also capitals, '_' and '.'. */
bool favo_node_word_ok(const char *word);

/*
 * Check a definition and make its normal form: MACs and UUID in lower case,
 * fields that are null, "" or empty left out. -EINVAL names the field and
 * what it may hold. The caller drops *out.
 */
int favo_node_def_check(json_t **out, const json_t *def, bool profile,
			struct favo_err *err);

/*
 * Put def over base, which is changed: text replaces, "groups" gains what is
 * new, "tags" replaces key by key.
 */
int favo_node_def_over(json_t *base, const json_t *def, struct favo_err *err);

/* "52-54-00-0A-00-01" to "52:54:00:0a:00:01"; -EINVAL with a sentence. */
int favo_node_mac(char out[18], const char *text, struct favo_err *err);
int favo_node_uuid(char out[37], const char *text, struct favo_err *err);
