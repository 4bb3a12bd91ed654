/* SPDX-License-Identifier: GPL-2.0-or-later */
/* favo image save, and what it needs of image.c. */
#pragma once

#include "provision/cli/cli.h"

int favo_cli_image_save(struct favo_cli *cli, int argc, char **argv,
			struct favo_err *err);

/*
 * Import the tar on stdin, and push it where that is needed; extra are more
 * members of the manifest (borrowed).
 */
int favo_cli_import_stdin(struct favo_cli *cli, const char *name, const char *cmdline,
			  const json_t *extra, bool quiet, struct favo_err *err);
