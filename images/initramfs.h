/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The image's part of the guest's initramfs: the kernel modules that the
 * agent needs before it has the root file system, and /favo/modules, the
 * paths of them in load order, one per line.
 */
#pragma once

#include "common/err.h"
#include "images/cpio.h"
#include "images/tree.h"

/*
 * modules is the folder of one kernel release in tree (modules.dep and
 * modules.builtin in it). -ENOENT with a sentence when a module without
 * which no guest starts is neither there nor built in. The archive is not
 * finished.
 */
int favo_initramfs_build(struct favo_cpio **out, const struct favo_tree *tree,
			 const char *modules, struct favo_err *err);

/*
 * The same for real machines that boot over the network: /favo/modules holds
 * what every node needs, /favo/drivers has one line "NAME /path /path" for each
 * network card and disk controller (in load order), /favo/aliases "PATTERN
 * NAME" from modules.alias for them. Drivers that the kernel lacks are left
 * out; -ENOENT when it has no EROFS, overlayfs or loop device.
 */
int favo_initramfs_build_metal(struct favo_cpio **out, const struct favo_tree *tree,
			       const char *modules, struct favo_err *err);
