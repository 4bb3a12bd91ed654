/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Directories of the node that a job's VMs see: what the user asks for with
 * --vm-mount, and what every job gets. Pure text; nothing here looks at a
 * file or blocks. The paths are the user's own words: whoever opens one does
 * it as that user.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

#define FAVO_MOUNTS_MAX 12
#define FAVO_MOUNT_PATH_MAX 1024

struct favo_mount {
	char source[FAVO_MOUNT_PATH_MAX]; /* on the node */
	char target[FAVO_MOUNT_PATH_MAX]; /* in the guest */
	bool read_only;
	bool wanted; /* asked for by name: the job fails without it */
};

struct favo_mounts {
	size_t n;
	struct favo_mount v[FAVO_MOUNTS_MAX];
};

/*
 * Add the entries of a list "SRC[:DST[:ro|rw]],...": absolute paths without
 * "." and ".." parts, colons, commas and control characters. A target that
 * the guest needs itself (/, /proc, /sys, /dev, /run/favo) or that is there
 * twice is -EINVAL with a sentence; -E2BIG: more than FAVO_MOUNTS_MAX.
 */
int favo_mounts_parse(struct favo_mounts *m, const char *list, struct favo_err *err);

/*
 * Add the default mounts: home, and the job's working directory where the
 * guest would lack it. What the user mounts there himself wins; directories
 * that every system has of its own (/, /tmp, /usr, ...) are left alone. Paths
 * that favo_mounts_parse() would refuse are left out.
 */
void favo_mounts_add_defaults(struct favo_mounts *m, const char *home,
			      const char *workdir);

/* In the order in which they can be mounted: what is below another comes later. */
void favo_mounts_sort(struct favo_mounts *m);
