/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The jail: what is left to favo-vmm once everything it needs is open. Layers,
 * each of which a test proves: no core dumps, limits, own user, mount, network,
 * IPC, UTS and PID-less namespaces, an empty read-only root, no capabilities,
 * no_new_privs, and a seccomp filter that kills the process at any system call
 * or ioctl that running a VM does not need.
 */
#pragma once

#include "common/err.h"

/*
 * Enter the jail for good. Main thread, before any other thread exists; vCPU
 * threads inherit it. Works as root and as a plain user. EPERM and a sentence
 * when the host does not allow user namespaces.
 */
int favo_jail_enter(struct favo_err *err);

/*
 * Only the filter, for tests: loads it in the calling process.
 */
int favo_jail_filter(struct favo_err *err);
