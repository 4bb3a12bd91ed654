// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * bzImage by the 64-bit boot protocol (Linux Documentation/arch/x86/boot.rst,
 * "64-bit Boot Protocol"): the setup header says where the protected-mode part
 * wants to be; its 64-bit entry is 0x200 above the load address. The real-mode
 * part never runs. The kernel unpacks itself, which costs the guest time that an
 * uncompressed ELF kernel saves.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/boot.h"

#define SECTOR 512
#define HDR_OFFSET 0x1f1 /* setup_sects, first field of the header */
#define HDR_SETUP_SECTS 0x1f1
#define HDR_JUMP_LEN 0x201 /* header ends at 0x202 + this byte */
#define HDR_MAGIC 0x202 /* "HdrS" */
#define HDR_VERSION 0x206
#define HDR_LOADFLAGS 0x211
#define HDR_INITRD_MAX 0x22c
#define HDR_ALIGNMENT 0x230
#define HDR_XLOADFLAGS 0x236
#define HDR_CMDLINE_SIZE 0x238
#define HDR_PREF_ADDRESS 0x258
#define HDR_INIT_SIZE 0x260
#define HDR_END_MAX 0x290u /* where struct boot_params has other things */
#define LOADED_HIGH 0x1
#define XLF_KERNEL_64 0x1
#define VERSION_64BIT 0x20c
#define ENTRY_64 0x200

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, sizeof(v));
	return v;
}

static int check_header(const uint8_t *h, struct favo_err *err)
{
	unsigned version = h[HDR_VERSION] | h[HDR_VERSION + 1] << 8;
	unsigned xlf = h[HDR_XLOADFLAGS];

	if (memcmp(h + HDR_MAGIC, "HdrS", 4))
		return favo_fail(err, ENOEXEC, "kernel: not a bzImage");
	if (version < VERSION_64BIT || !(xlf & XLF_KERNEL_64) ||
	    !(h[HDR_LOADFLAGS] & LOADED_HIGH))
		return favo_fail(
			err, ENOEXEC,
			"kernel: bzImage without 64-bit entry (boot protocol %u.%02u)",
			version >> 8, version & 0xff);
	return 0;
}

int favo_bzimage_load(struct favo_kernel *out, struct favo_memory *mem, int fd,
		      uint64_t file_size, struct favo_err *err)
{
	struct favo_kernel k = {.entry = FAVO_ENTRY_LINUX64};
	uint64_t start, size, load, room;
	uint8_t h[HDR_END_MAX];
	int ret = favo_boot_read(fd, 0, h, sizeof(h), err);
	void *to;

	ret = ret ? ret : check_header(h, err);
	if (ret < 0)
		return ret;
	start = ((h[HDR_SETUP_SECTS] ? h[HDR_SETUP_SECTS] : 4) + 1ULL) * SECTOR;
	if (start >= file_size)
		return favo_fail(err, ENOEXEC, "kernel: bzImage ends before its kernel");
	size = file_size - start;
	load = get64(h + HDR_PREF_ADDRESS);
	room = FAVO_MAX(size, get32(h + HDR_INIT_SIZE));
	to = favo_guest_ptr(mem, load, room);
	/* The identity map of favo_boot_prepare() ends at 4 GiB. */
	if (load < FAVO_BOOT_KERNEL_MIN || load >= FAVO_GPA_HOLE_START || !to)
		return favo_fail(err, ENOMEM,
				 "kernel: bzImage wants %llu bytes at %#llx, which guest "
				 "memory has not",
				 (unsigned long long)room, (unsigned long long)load);
	if (size < ENTRY_64)
		return favo_fail(err, ENOEXEC, "kernel: bzImage ends before its entry");
	ret = favo_boot_read(fd, start, to, size, err);
	if (ret < 0)
		return ret;
	k.address = load + ENTRY_64;
	k.end = load + room;
	k.initrd_max =
		FAVO_MIN((uint64_t)get32(h + HDR_INITRD_MAX), FAVO_GPA_HOLE_START - 1);
	k.cmdline_max = get32(h + HDR_CMDLINE_SIZE);
	k.setup_header_len =
		FAVO_MIN(HDR_MAGIC + (unsigned)h[HDR_JUMP_LEN], HDR_END_MAX) - HDR_OFFSET;
	memcpy(k.setup_header, h + HDR_OFFSET, k.setup_header_len);
	*out = k;
	return 0;
}
