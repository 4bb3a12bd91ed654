// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reader of partition tables and file system signatures; see partition.h.
 * Takes the primary GPT and, when its sums are wrong, the backup at the end
 * of the disk. Sectors are 512 bytes, or 4096 where the GPT is at 4096.
 * Extended partitions: the chain of EBRs must go forward, so it ends.
 */
#include "images/partition.h"

#include <ctype.h>
#include <endian.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

#define MBR_TABLE 446
#define MBR_ENTRY 16
#define GPT_HEADER 92
#define GPT_ENTRIES_MAX 1024
#define GPT_ENTRY_MAX 4096
#define MAGIC_AREA (68 * 1024)

struct disk {
	uint64_t size;
	favo_disk_read_fn *read;
	void *user;
	uint64_t sector;
	struct favo_partition *parts;
	size_t n;
};

static uint32_t le32_at(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

static uint64_t le64_at(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return le64toh(value);
}

/* CRC-32 of UEFI 2.10 section 5.3: the one of Ethernet. */
static uint32_t crc32_of(const uint8_t *p, size_t len)
{
	uint32_t crc = UINT32_MAX;

	for (size_t i = 0; i < len; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320u : 0);
	}
	return ~crc;
}

/* ---- file systems ---- */

static const struct {
	size_t offset;
	const char *magic;
	size_t len;
	enum favo_fs fs;
} signatures[] = {
	{0, "LUKS\xba\xbe", 6, FAVO_FS_LUKS},
	{512, "LABELONE", 8, FAVO_FS_LVM},
	{0, "LABELONE", 8, FAVO_FS_LVM},
	{4096, "\xfc\x4e\x2b\xa9", 4, FAVO_FS_RAID},
	{0, "\xfc\x4e\x2b\xa9", 4, FAVO_FS_RAID},
	{0, "XFSB", 4, FAVO_FS_XFS},
	{65536 + 64, "_BHRfS_M", 8, FAVO_FS_BTRFS},
	{1024 + 56, "\x53\xef", 2, FAVO_FS_EXT},
	{0, "hsqs", 4, FAVO_FS_SQUASHFS},
	{1024, "\xe2\xe1\xf5\xe0", 4, FAVO_FS_EROFS},
	{1024, "\x10\x20\xf5\xf2", 4, FAVO_FS_F2FS},
	{4086, "SWAPSPACE2", 10, FAVO_FS_SWAP},
	{3, "NTFS    ", 8, FAVO_FS_NTFS},
	{82, "FAT32   ", 8, FAVO_FS_VFAT},
	{54, "FAT16   ", 8, FAVO_FS_VFAT},
	{54, "FAT12   ", 8, FAVO_FS_VFAT},
};

static const char *const fs_names[] = {
	[FAVO_FS_UNKNOWN] = "unknown",
	[FAVO_FS_EXT] = "ext4",
	[FAVO_FS_XFS] = "xfs",
	[FAVO_FS_BTRFS] = "btrfs",
	[FAVO_FS_SQUASHFS] = "squashfs",
	[FAVO_FS_EROFS] = "erofs",
	[FAVO_FS_F2FS] = "f2fs",
	[FAVO_FS_NTFS] = "NTFS",
	[FAVO_FS_VFAT] = "FAT",
	[FAVO_FS_SWAP] = "swap",
	[FAVO_FS_LVM] = "LVM physical volume",
	[FAVO_FS_LUKS] = "LUKS, encrypted",
	[FAVO_FS_RAID] = "software RAID",
};

const char *favo_fs_name(enum favo_fs fs)
{
	return fs_names[fs];
}

static void format_uuid(char text[37], const uint8_t *b)
{
	snprintf(text, 37,
		 "%02x%02x%02x%02x-%02x%02x-%02x%02x-%02x%02x-%02x%02x%02x%02x%02x%02x",
		 b[0], b[1], b[2], b[3], b[4], b[5], b[6], b[7], b[8], b[9], b[10], b[11],
		 b[12], b[13], b[14], b[15]);
}

/* GPT stores the first three fields in little endian. */
static void format_guid(char text[37], const uint8_t *b)
{
	const uint8_t turned[16] = {b[3], b[2], b[1],  b[0],  b[5],  b[4],  b[7],  b[6],
				    b[8], b[9], b[10], b[11], b[12], b[13], b[14], b[15]};

	format_uuid(text, turned);
}

static void copy_label(char label[33], const uint8_t *from, size_t max)
{
	size_t n = 0;

	for (; n < max && n < 32 && isgraph(from[n]); n++)
		label[n] = (char)from[n];
	label[n] = '\0';
}

static void identify(const struct disk *disk, struct favo_partition *part, uint8_t *area)
{
	size_t len = (size_t)FAVO_MIN(part->length, (uint64_t)MAGIC_AREA);

	memset(area, 0, MAGIC_AREA);
	if (disk->read(disk->user, area, len, part->start) < 0)
		return;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(signatures); i++) {
		if (memcmp(area + signatures[i].offset, signatures[i].magic,
			   signatures[i].len) != 0)
			continue;
		part->fs = signatures[i].fs;
		break;
	}
	if (part->fs == FAVO_FS_EXT) {
		format_uuid(part->fs_uuid, area + 1024 + 104);
		copy_label(part->label, area + 1024 + 120, 16);
	} else if (part->fs == FAVO_FS_XFS) {
		format_uuid(part->fs_uuid, area + 32);
		copy_label(part->label, area + 108, 12);
	}
}

/* ---- tables ---- */

/* first and count are sectors. */
static int add(struct disk *disk, unsigned int number, uint64_t first, uint64_t count,
	       struct favo_err *err)
{
	uint64_t sectors = disk->size / disk->sector;
	struct favo_partition *part;

	if (disk->n == FAVO_PARTITIONS_MAX)
		return favo_fail(err, EBADMSG, "partition table: more than %d partitions",
				 FAVO_PARTITIONS_MAX);
	if (count == 0 || first == 0 || first > sectors || count > sectors - first)
		return favo_fail(err, EBADMSG,
				 "partition %u lies beyond the end of the disk; was the "
				 "file cut?",
				 number);
	for (size_t i = 0; i < disk->n; i++)
		if (first * disk->sector < disk->parts[i].start + disk->parts[i].length &&
		    disk->parts[i].start < (first + count) * disk->sector)
			return favo_fail(err, EBADMSG, "partitions %u and %u overlap",
					 disk->parts[i].number, number);
	part = &disk->parts[disk->n++];
	part->number = number;
	part->start = first * disk->sector;
	part->length = count * disk->sector;
	return 0;
}

/* 1: a good header with its entries was read; 0: none here. */
static int read_gpt(struct disk *disk, uint64_t lba, struct favo_err *err)
{
	static const uint8_t root_x86_64[16] = {0xe3, 0xbc, 0x68, 0x4f, 0xcd, 0xe8,
						0xb1, 0x4d, 0x96, 0xe7, 0xfb, 0xca,
						0xf9, 0x84, 0xb7, 0x09};
	static const uint8_t zero[16];
	uint8_t header[GPT_HEADER];
	favo_autofree uint8_t *entries = NULL;
	uint32_t count, size, sum;
	uint64_t at;
	int ret;

	if (disk->read(disk->user, header, sizeof(header), lba * disk->sector) < 0 ||
	    memcmp(header, "EFI PART", 8) != 0 || le32_at(header + 12) != GPT_HEADER)
		return 0;
	sum = le32_at(header + 16);
	memset(header + 16, 0, 4);
	if (crc32_of(header, sizeof(header)) != sum)
		return 0;
	at = le64_at(header + 72);
	count = le32_at(header + 80);
	size = le32_at(header + 84);
	if (count > GPT_ENTRIES_MAX || size < 128 || size > GPT_ENTRY_MAX || size % 8 ||
	    at > disk->size / disk->sector ||
	    (uint64_t)count * size > disk->size - at * disk->sector)
		return favo_fail(err, EBADMSG,
				 "GPT: %u entries of %u bytes are out of range", count,
				 size);
	entries = calloc(count ? count : 1, size);
	if (!entries)
		return favo_fail(err, ENOMEM, "GPT: out of memory");
	if (disk->read(disk->user, entries, (size_t)count * size, at * disk->sector) <
		    0 ||
	    crc32_of(entries, (size_t)count * size) != le32_at(header + 88))
		return 0;
	for (uint32_t i = 0; i < count; i++) {
		const uint8_t *entry = entries + (size_t)i * size;
		uint64_t first = le64_at(entry + 32), last = le64_at(entry + 40);

		if (memcmp(entry, zero, sizeof(zero)) == 0)
			continue;
		if (last < first || last - first == UINT64_MAX)
			return favo_fail(err, EBADMSG,
					 "partition %u ends before it begins", i + 1);
		ret = add(disk, i + 1, first, last - first + 1, err);
		if (ret < 0)
			return ret;
		format_guid(disk->parts[disk->n - 1].uuid, entry + 16);
		disk->parts[disk->n - 1].root_type = memcmp(entry, root_x86_64, 16) == 0;
	}
	return 1;
}

static bool is_extended(uint8_t type)
{
	return type == 0x05 || type == 0x0f || type == 0x85;
}

/* Logical partitions, numbered from 5: a chain of tables with two entries. */
static int read_logical(struct disk *disk, uint64_t base, uint32_t id,
			struct favo_err *err)
{
	uint64_t at = base, next;
	uint8_t sector[512];
	int ret;

	for (unsigned int number = 5;; number++) {
		const uint8_t *first = sector + MBR_TABLE, *link = first + MBR_ENTRY;

		if (disk->read(disk->user, sector, sizeof(sector), at * 512) < 0 ||
		    sector[510] != 0x55 || sector[511] != 0xaa)
			return favo_fail(err, EBADMSG,
					 "extended partition table is damaged");
		if (first[4]) {
			ret = add(disk, number, at + le32_at(first + 8),
				  le32_at(first + 12), err);
			if (ret < 0)
				return ret;
			snprintf(disk->parts[disk->n - 1].uuid, 37, "%08x-%02x", id,
				 number);
		}
		if (!is_extended(link[4]))
			return 0;
		next = base + le32_at(link + 8);
		if (next <= at || number > FAVO_PARTITIONS_MAX)
			return favo_fail(err, EBADMSG,
					 "extended partition table goes in a "
					 "loop or is too long");
		at = next;
	}
}

static int read_mbr(struct disk *disk, const uint8_t *sector, struct favo_err *err)
{
	uint32_t id = le32_at(sector + 440);
	uint64_t extended = 0;
	int ret;

	for (unsigned int i = 0; i < 4; i++) {
		const uint8_t *entry = sector + MBR_TABLE + i * MBR_ENTRY;

		if (entry[4] == 0)
			continue;
		if (is_extended(entry[4])) {
			if (extended)
				return favo_fail(err, EBADMSG,
						 "MBR: two extended partitions");
			extended = le32_at(entry + 8);
			continue;
		}
		ret = add(disk, i + 1, le32_at(entry + 8), le32_at(entry + 12), err);
		if (ret < 0)
			return ret;
		snprintf(disk->parts[disk->n - 1].uuid, 37, "%08x-%02x", id, i + 1);
	}
	return extended ? read_logical(disk, extended, id, err) : 0;
}

static bool has_mbr(const uint8_t *sector)
{
	bool any = false;

	if (sector[510] != 0x55 || sector[511] != 0xaa)
		return false;
	/* A boot sector of a file system has code where the table would be. */
	for (unsigned int i = 0; i < 4; i++) {
		const uint8_t *entry = sector + MBR_TABLE + i * MBR_ENTRY;

		if (entry[0] & 0x7f)
			return false;
		any = any || entry[4];
	}
	return any;
}

static bool is_protective(const uint8_t *sector)
{
	for (unsigned int i = 0; i < 4; i++)
		if (sector[MBR_TABLE + i * MBR_ENTRY + 4] == 0xee)
			return true;
	return false;
}

/* Tries both copies with both sizes of sector; 1 when one was good. */
static int find_gpt(struct disk *disk, struct favo_err *err)
{
	static const uint64_t sizes[] = {512, 4096};

	for (size_t i = 0; i < 2 * FAVO_ARRAY_SIZE(sizes); i++) {
		uint64_t lba = 1;
		int ret;

		disk->sector = sizes[i / 2];
		if (disk->size < 4 * disk->sector)
			continue;
		if (i % 2)
			lba = disk->size / disk->sector - 1;
		disk->n = 0;
		ret = read_gpt(disk, lba, err);
		if (ret != 0)
			return ret;
	}
	disk->sector = 512;
	return 0;
}

static int read_tables(struct disk *disk, struct favo_err *err)
{
	uint8_t sector[512];
	int ret;

	if (disk->size < sizeof(sector) ||
	    disk->read(disk->user, sector, sizeof(sector), 0) < 0)
		return favo_fail(err, EBADMSG, "too short for a disk");
	ret = find_gpt(disk, err);
	if (ret != 0)
		return ret < 0 ? ret : 0;
	if (!has_mbr(sector)) {
		disk->parts[0] = (struct favo_partition){.length = disk->size};
		disk->n = 1;
		return 0;
	}
	if (is_protective(sector))
		return favo_fail(err, EBADMSG,
				 "GPT is damaged, and so is its backup; was the file "
				 "cut?");
	return read_mbr(disk, sector, err);
}

int favo_partitions_read(struct favo_partition **out, size_t *n, uint64_t size,
			 favo_disk_read_fn *read, void *user, struct favo_err *err)
{
	favo_autofree struct favo_partition *parts =
		calloc(FAVO_PARTITIONS_MAX, sizeof(*parts));
	favo_autofree uint8_t *area = malloc(MAGIC_AREA);
	struct disk disk = {
		.size = size, .read = read, .user = user, .sector = 512, .parts = parts};
	int ret;

	if (!parts || !area)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = read_tables(&disk, err);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < disk.n; i++)
		identify(&disk, &parts[i], area);
	*n = disk.n;
	*out = favo_steal_ptr(&parts);
	return 0;
}
