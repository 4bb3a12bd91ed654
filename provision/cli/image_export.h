/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verbs of favo image that read whole images: export and diff. */
#pragma once

#include "images/export.h"
#include "provision/cli/cli.h"

favo_cli_run_fn favo_cli_image_export, favo_cli_image_diff;

/* An image to read, from the store or, where there is none, from favod. */
struct favo_cli_image {
	struct favo_manifest *manifest;
	struct favo_export export;
	struct favo_store *store;
};

/* -ENOENT: no such image. Asks favod through cli, which must stay. */
int favo_cli_image_open(struct favo_cli *cli, const char *name,
			struct favo_cli_image *image, struct favo_err *err);
void favo_cli_image_close(struct favo_cli_image *image);
#define favo_autoimage __attribute__((cleanup(favo_cli_image_close)))

/* Folder for unlinked files as large as an image. */
const char *favo_cli_spool_dir(void);

/* Progress on stderr, when that is a terminal; user: const char * to call it. */
void favo_cli_image_progress(const char *step, uint64_t done, uint64_t total, void *user);
