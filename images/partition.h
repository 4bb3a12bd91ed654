/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Partitions of a disk, and what file system is in each, from a stranger's
 * bytes: GPT (UEFI 2.10 section 5) and MBR with logical partitions. Bounded:
 * never more than FAVO_PARTITIONS_MAX, never a loop.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_PARTITIONS_MAX 128

enum favo_fs {
	FAVO_FS_UNKNOWN,
	FAVO_FS_EXT, /* ext2, ext3, ext4 */
	FAVO_FS_XFS,
	FAVO_FS_BTRFS,
	FAVO_FS_SQUASHFS,
	FAVO_FS_EROFS,
	FAVO_FS_F2FS,
	FAVO_FS_NTFS,
	FAVO_FS_VFAT,
	FAVO_FS_SWAP,
	FAVO_FS_LVM,
	FAVO_FS_LUKS,
	FAVO_FS_RAID,
};

struct favo_partition {
	unsigned int number; /* as Linux counts; 0: the disk has no table */
	uint64_t start, length; /* bytes */
	bool root_type; /* its GPT type says: root of x86-64 Linux */
	char uuid[37]; /* of the partition, lower case; "" when unknown */
	enum favo_fs fs;
	char fs_uuid[37]; /* of the file system: ext and xfs only */
	char label[33]; /* of the file system; printable */
};

/* Reads len bytes at offset of the disk: 0 or -errno; short is -ENODATA. */
typedef int favo_disk_read_fn(void *user, void *buf, size_t len, uint64_t offset);

/*
 * The partitions of a disk of size bytes; a disk without table gives one
 * entry, numbered 0, with all of it. Empty entries are left out. *out is freed
 * by the caller. -EBADMSG with a sentence for tables that lie: beyond the
 * end, overlapping, damaged.
 */
int favo_partitions_read(struct favo_partition **out, size_t *n, uint64_t size,
			 favo_disk_read_fn *read, void *user, struct favo_err *err);

/* "ext4", "LVM physical volume". */
const char *favo_fs_name(enum favo_fs fs);
