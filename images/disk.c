// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Disk images; see disk.h. Detection by content: names of files say nothing.
 */
#include "images/disk.h"

#include <endian.h>
#include <errno.h>
#include <stdint.h>
#include <string.h>

#include "common/util.h"

static bool has(const void *head, size_t len, size_t offset, const void *magic, size_t n)
{
	return offset + n <= len && memcmp((const char *)head + offset, magic, n) == 0;
}

enum favo_disk_kind favo_disk_detect(const void *head, size_t len)
{
	static const struct {
		size_t offset;
		const char *magic;
		size_t len;
		enum favo_disk_kind kind;
	} rows[] = {
		{0, "hsqs", 4, FAVO_DISK_SQUASHFS},
		{0, "QFI\xfb", 4, FAVO_DISK_QCOW2},
		{0, "KDMV", 4, FAVO_DISK_VMDK},
		{0, "COWD", 4, FAVO_DISK_OTHER},
		{0, "# Disk DescriptorFile", 21, FAVO_DISK_VMDK_TEXT},
		{0, "vhdxfile", 8, FAVO_DISK_OTHER},
		{0, "conectix", 8, FAVO_DISK_OTHER},
		{64, "\x7f\x10\xda\xbe", 4, FAVO_DISK_VDI},
		/* Before what may stand by chance in compressed data. */
		{257, "ustar", 5, FAVO_DISK_NONE},
		{0, "\x1f\x8b", 2, FAVO_DISK_NONE},
		{0, "BZh", 3, FAVO_DISK_NONE},
		{0,
		 "\xfd"
		 "7zXZ",
		 5, FAVO_DISK_NONE},
		{0, "\x28\xb5\x2f\xfd", 4, FAVO_DISK_NONE},
		{0, "\x04\x22\x4d\x18", 4, FAVO_DISK_NONE},
		{512, "EFI PART", 8, FAVO_DISK_RAW},
		{4096, "EFI PART", 8, FAVO_DISK_RAW},
		{510, "\x55\xaa", 2, FAVO_DISK_RAW},
		{1024 + 56, "\x53\xef", 2, FAVO_DISK_RAW}, /* ext2 and later */
		{0, "XFSB", 4, FAVO_DISK_RAW},
		{65536 + 64, "_BHRfS_M", 8, FAVO_DISK_RAW},
		{512, "LABELONE", 8, FAVO_DISK_RAW}, /* LVM */
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		if (has(head, len, rows[i].offset, rows[i].magic, rows[i].len))
			return rows[i].kind;
	return FAVO_DISK_NONE;
}

int favo_disk_load(struct favo_source *source, const char *path, enum favo_disk_kind kind,
		   struct favo_err *err)
{
	(void)source;
	(void)path;
	(void)kind;
	return favo_fail(err, ENOTSUP, "disk images are not read by this version");
}
