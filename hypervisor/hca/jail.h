/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The jail of favo-hca; favo-hca(8), JAIL, lists what it promises. */
#pragma once

#include "common/err.h"

/*
 * Keep descriptors 0 to 2 and *fd, which moves to 3 (-1: none); close all
 * others. Main thread, before anything else is opened.
 */
int favo_hca_jail_fds(int *fd, struct favo_err *err);

/*
 * Load the seccomp filter: what serving VMs does not need kills the process.
 * After favo_jail_enter().
 */
int favo_hca_jail_filter(struct favo_err *err);
