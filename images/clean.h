/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What no image may hold: secrets, and what belongs to a running system. */
#pragma once

#include "common/err.h"
#include "images/tree.h"

/* Remove keys, identities and passwords; seen() hears of each. */
int favo_clean_secrets(struct favo_tree *tree, favo_tree_seen_fn *seen, void *user,
		       struct favo_err *err);

/* Empty /dev, /proc, /sys, /run, /tmp and /var/tmp. */
int favo_clean_transient(struct favo_tree *tree, struct favo_err *err);

/*
 * Remove what differs between two builds of the same packages: logs, caches,
 * backups of package tools; and let no time be newer than epoch.
 */
int favo_clean_build(struct favo_tree *tree, int64_t epoch, struct favo_err *err);
