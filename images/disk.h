/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Import of disk images: raw, qcow2, VMDK and VDI with a partition table or
 * a bare file system. No kernel but a guest's ever mounts them: qemu-img and
 * favo-readfs read them, each in a jail (confine.h).
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "images/source.h"

/* What a file is, from its first bytes. */
enum favo_disk_kind {
	FAVO_DISK_NONE, /* perhaps a tar */
	FAVO_DISK_RAW,
	FAVO_DISK_QCOW2,
	FAVO_DISK_VMDK,
	FAVO_DISK_VDI,
	FAVO_DISK_SQUASHFS,
	FAVO_DISK_VMDK_TEXT, /* the part that only names other files */
	FAVO_DISK_OTHER, /* known, and not read by us */
};

#define FAVO_DISK_HEAD (68 * 1024)

/* head: the first bytes of the file, FAVO_DISK_HEAD or all there are. */
enum favo_disk_kind favo_disk_detect(const void *head, size_t len);

/* Tree of the root file system in a disk image, as kind says. */
int favo_disk_load(struct favo_source *source, const char *path, enum favo_disk_kind kind,
		   struct favo_err *err);
