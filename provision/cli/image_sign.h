/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verbs of favo image that are about signatures and history. */
#pragma once

#include "images/store.h"
#include "provision/cli/cli.h"

favo_cli_run_fn favo_cli_image_keygen, favo_cli_image_sign, favo_cli_image_verify,
	favo_cli_image_history;

/* Sign with the site's key what root imported on favod's host; 0 without a key. */
int favo_cli_sign_new(struct favo_cli *cli, struct favo_store *store,
		      const struct favo_digest *id, struct favo_err *err);
