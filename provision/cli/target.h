/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a verb that makes an image puts it: who owns the site's store (root on
 * favod's host) writes it, everybody else makes the image in a store of his own and
 * pushes what the site's lacks (provision/push.h).
 */
#pragma once

#include "images/store.h"
#include "provision/cli/cli.h"
#include "provision/push.h"

/* May the caller write the site's store itself? */
bool favo_cli_has_store(const struct favo_cli *cli);

struct favo_cli_target {
	struct favo_store *store; /* to make the image in */
	char *name; /* what the image is called there */
	char *dir; /* of a store of one's own, or NULL */
};

/*
 * A default name gets "USER/" before it when the image will be pushed. Asks
 * favod for leave to use the name before any work is done.
 */
int favo_cli_target_open(struct favo_cli *cli, const char *name, bool is_default,
			 struct favo_cli_target *target, struct favo_err *err);

/* The image is made: push it if need be. */
int favo_cli_target_finish(struct favo_cli *cli, struct favo_cli_target *target,
			   const struct favo_digest *id, uint64_t *moved,
			   favo_progress_fn *progress, void *user, struct favo_err *err);

/* Removes a store of one's own. */
void favo_cli_target_fini(struct favo_cli_target *target);
