/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Everything that a process started: signalled and killed as a whole, through
 * a cgroup of its own where the kernel has cgroup2, else by its session and
 * its descendants. One thread.
 */
#pragma once

#include <sys/types.h>

#include "common/err.h"
#include "images/guest/agent.h"

/* Processes that are gone are no error. */
void favo_tree_signal(pid_t leader, int signo, enum favo_signal_target target);

/*
 * SIGKILL for leader, its session and all descendants that can be found, and
 * for all in cgroup_dir unless that is NULL.
 */
void favo_tree_kill(pid_t leader, const char *cgroup_dir);

/* Make an empty cgroup; -errno when there is no cgroup2 to use. */
int favo_cgroup_make(const char *dir, struct favo_err *err) favo_must_check;
/* Kill all in dir and remove it; -EBUSY while processes are still dying. */
int favo_cgroup_remove(const char *dir);
