/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The jail: what is left to favo-vmm once everything it needs is open.
 * man favo-vmm, JAIL, lists the promises; tests/unit/jail_test.c proves them.
 */
#pragma once

#include "common/err.h"

/*
 * Leave the host for good: own user, mount, network, IPC, UTS and cgroup
 * namespaces, an empty read-only root, no capability, no_new_privs, no core
 * dump, few limits. Main thread, while it is the only one. Works as root and as
 * a plain user; EPERM when the host does not allow user namespaces. Descriptors
 * that are open stay so.
 */
int favo_jail_enter(struct favo_err *err);

/*
 * Load the seccomp filter for all threads: whatever running a VM does not need,
 * a new thread among it, kills the process.
 */
int favo_jail_filter(struct favo_err *err);
