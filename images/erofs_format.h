/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * On-disk structures of EROFS as far as plain images need them: kernel
 * documentation filesystems/erofs.rst and fs/erofs/erofs_fs.h. Little-endian.
 */
#pragma once

#include <stdint.h>

#define EROFS_MAGIC 0xE0F5E1E2u
#define EROFS_SUPER_OFFSET 1024
#define EROFS_BLOCK_BITS 12
#define EROFS_BLOCK 4096u
#define EROFS_SLOT 32u /* unit of inode numbers */

#define EROFS_COMPAT_SB_CHKSUM 1u
#define EROFS_COMPAT_MTIME 2u

struct erofs_super {
	uint32_t magic;
	uint32_t checksum; /* crc32c from here to the end of the block */
	uint32_t feature_compat;
	uint8_t block_bits;
	uint8_t ext_slots;
	uint16_t root_nid;
	uint64_t inodes;
	uint64_t build_time;
	uint32_t build_time_ns;
	uint32_t blocks;
	uint32_t meta_block;
	uint32_t xattr_block;
	uint8_t uuid[16];
	uint8_t volume_name[16];
	uint32_t feature_incompat;
	uint8_t reserved[44];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_super) == 128, "superblock");

#define EROFS_EXTENDED 1u
#define EROFS_LAYOUT_PLAIN 0u
#define EROFS_LAYOUT_INLINE 2u
#define EROFS_FORMAT(layout) (EROFS_EXTENDED | (layout) << 1)

struct erofs_inode {
	uint16_t format;
	uint16_t xattr_count; /* 0, or 1 + 4-byte words behind the header */
	uint16_t mode;
	uint16_t reserved;
	uint64_t size;
	uint32_t block_or_rdev;
	uint32_t ino;
	uint32_t uid;
	uint32_t gid;
	uint64_t mtime;
	uint32_t mtime_ns;
	uint32_t nlink;
	uint8_t reserved2[16];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_inode) == 64, "extended inode");

struct erofs_xattr_header {
	uint32_t name_filter;
	uint8_t shared_count;
	uint8_t reserved[7];
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_xattr_header) == 12, "xattr header");

struct erofs_xattr_entry {
	uint8_t name_len;
	uint8_t name_index;
	uint16_t value_size;
} __attribute__((packed));

struct erofs_dirent {
	uint64_t nid;
	uint16_t name_offset;
	uint8_t file_type;
	uint8_t reserved;
} __attribute__((packed));
_Static_assert(sizeof(struct erofs_dirent) == 12, "directory entry");
