/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Nodes by name on the command line: "n[1-4],n9", "@GROUP", "all". */
#pragma once

#include "provision/cli/cli.h"

#define FAVO_CLI_NODES_MAX 100000

/* GET /v1/nodes; the caller drops *reply. */
int favo_cli_nodes_get(struct favo_cli *cli, json_t **reply, struct favo_err *err);

/* The node of that name in the reply, if the database has it; borrowed. */
json_t *favo_cli_nodes_find(const json_t *reply, const char *name);

/*
 * Names that text stands for, in their order, each once. known: each must be
 * in the database. The caller drops *names, an array of text.
 */
int favo_cli_nodes_expand(json_t **names, const json_t *reply, const char *text,
			  bool known, struct favo_err *err);

/* "sha256:0123456789ab" as far as people compare it; "-" for NULL. */
const char *favo_cli_short_digest(char buf[20], const char *digest);
/* "12 s ago"; "-" for 0. */
const char *favo_cli_age(char buf[32], int64_t then, int64_t now);
