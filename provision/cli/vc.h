/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of "favo vc"; private to this folder. */
#pragma once

#include "provision/cli/cli.h"

/* One cluster as favod tells it; word is the job id as typed. */
int favo_cli_vc_fetch(json_t **vc, struct favo_cli *cli, const char *word,
		      struct favo_err *err);

/* vc_exec.c */
favo_cli_run_fn favo_cli_vc_exec;
favo_cli_run_fn favo_cli_vc_shell;
