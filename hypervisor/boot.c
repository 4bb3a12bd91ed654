// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Puts initrds, command line and the boot protocol's structures into guest
 * memory: hvm_start_info version 1 (xen/include/public/arch-x86/hvm/
 * start_info.h) for PVH kernels, the zero page and an identity map of 4 GiB for
 * the 64-bit Linux entry.
 */
#include "hypervisor/boot.h"

#include <asm/bootparam.h>
#include <errno.h>
#include <stdbool.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"

#define PVH_MAGIC 0x336ec578
#define LOADER_OTHER 0xff
#define INITRD_ALIGN 0x1000ULL

struct start_info {
	uint32_t magic, version, flags, nr_modules;
	uint64_t modlist, cmdline, rsdp, memmap;
	uint32_t memmap_entries, reserved;
};

struct start_module {
	uint64_t address, size, cmdline, reserved;
};

struct start_memmap {
	uint64_t addr, size;
	uint32_t type, reserved;
};

struct start_page {
	struct start_info info;
	struct start_module module;
	struct start_memmap memmap[FAVO_E820_MAX];
};

int favo_boot_read(int fd, uint64_t offset, void *buf, uint64_t len, struct favo_err *err)
{
	uint8_t *to = buf;

	if (offset > INT64_MAX)
		return favo_fail(err, ENOEXEC, "kernel: offset outside the file");
	while (len) {
		ssize_t n = pread(fd, to, len, (off_t)offset);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "kernel: read: %m");
		if (n == 0)
			return favo_fail(err, ENOEXEC, "kernel: file is cut short");
		to += n;
		offset += (uint64_t)n;
		len -= (uint64_t)n;
	}
	return 0;
}

int favo_kernel_load(struct favo_kernel *out, struct favo_memory *mem, int fd,
		     struct favo_err *err)
{
	struct stat st;
	char magic[4];
	int ret;

	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "kernel: stat: %m");
	if (!S_ISREG(st.st_mode) || st.st_size < 0)
		return favo_fail(err, ENOEXEC, "kernel: not a regular file");
	ret = favo_boot_read(fd, 0, magic, sizeof(magic), err);
	if (ret < 0)
		return ret;
	if (!memcmp(magic, "\177ELF", 4))
		return favo_elf_load(out, mem, fd, (uint64_t)st.st_size, err);
	return favo_bzimage_load(out, mem, fd, (uint64_t)st.st_size, err);
}

unsigned favo_boot_e820(const struct favo_memory *mem, struct favo_e820 *rows)
{
	const struct favo_mem_region *low = &mem->regions[0];
	unsigned n = 0, i;

	rows[n++] = (struct favo_e820){0, FAVO_BOOT_LOW_END, FAVO_E820_RAM};
	rows[n++] = (struct favo_e820){FAVO_BOOT_LOW_END,
				       FAVO_BOOT_KERNEL_MIN - FAVO_BOOT_LOW_END,
				       FAVO_E820_RESERVED};
	rows[n++] = (struct favo_e820){FAVO_BOOT_KERNEL_MIN,
				       low->size - FAVO_BOOT_KERNEL_MIN, FAVO_E820_RAM};
	rows[n++] =
		(struct favo_e820){FAVO_GPA_ECAM, FAVO_GPA_ECAM_SIZE, FAVO_E820_RESERVED};
	for (i = 1; i < mem->nregions; i++)
		rows[n++] = (struct favo_e820){mem->regions[i].gpa, mem->regions[i].size,
					       FAVO_E820_RAM};
	return n;
}

struct initrd {
	uint64_t gpa, size;
};

/* The initrds go as high as they may, so that the kernel has room to grow. */
static int load_initrds(struct favo_memory *mem, const struct favo_boot *boot,
			struct initrd *out, struct favo_err *err)
{
	uint64_t top = FAVO_MIN(boot->kernel->initrd_max + 1, mem->regions[0].size);
	uint64_t sizes[64], total = 0, at;
	struct stat st;
	unsigned i;
	int ret;

	if (boot->ninitrds > FAVO_ARRAY_SIZE(sizes))
		return favo_fail(err, E2BIG, "initrd: more than %zu files",
				 FAVO_ARRAY_SIZE(sizes));
	for (i = 0; i < boot->ninitrds; i++) {
		if (fstat(boot->initrds[i], &st) < 0 || !S_ISREG(st.st_mode))
			return favo_fail(err, EINVAL, "initrd: not a regular file");
		if ((uint64_t)st.st_size > mem->size)
			return favo_fail(err, ENOMEM, "initrd: larger than guest memory");
		sizes[i] = (uint64_t)st.st_size;
		total += (sizes[i] + 3) & ~3ULL;
	}
	if (!total)
		return 0;
	if (boot->kernel->end > top || total + INITRD_ALIGN > top - boot->kernel->end)
		return favo_fail(
			err, ENOMEM,
			"initrd: %llu bytes do not fit guest memory beside the kernel",
			(unsigned long long)total);
	at = (top - total) & ~(INITRD_ALIGN - 1);
	*out = (struct initrd){at, total};
	for (i = 0; i < boot->ninitrds; i++) {
		void *to = favo_guest_ptr(mem, at, FAVO_MAX(sizes[i], 1ULL));

		ret = favo_boot_read(boot->initrds[i], 0, to, sizes[i], err);
		if (ret < 0)
			return favo_wrap(err, ret, "initrd");
		at += (sizes[i] + 3) & ~3ULL;
	}
	return 0;
}

static int put_cmdline(struct favo_memory *mem, const struct favo_boot *boot,
		       struct favo_err *err)
{
	size_t len = strlen(boot->cmdline);

	if (len > boot->kernel->cmdline_max || len >= FAVO_BOOT_CMDLINE_MAX)
		return favo_fail(
			err, E2BIG,
			"kernel: command line of %zu bytes, the kernel takes %llu", len,
			(unsigned long long)boot->kernel->cmdline_max);
	return favo_guest_write(mem, FAVO_BOOT_CMDLINE, boot->cmdline, len + 1);
}

static int put_start_info(struct favo_memory *mem, const struct favo_boot *boot,
			  const struct initrd *initrd)
{
	struct favo_e820 rows[FAVO_E820_MAX];
	struct start_page p = {
		.info =
			{
				.magic = PVH_MAGIC,
				.version = 1,
				.nr_modules = initrd->size ? 1 : 0,
				.modlist = FAVO_BOOT_START_INFO +
					   offsetof(struct start_page, module),
				.cmdline = FAVO_BOOT_CMDLINE,
				.rsdp = boot->rsdp,
				.memmap = FAVO_BOOT_START_INFO +
					  offsetof(struct start_page, memmap),
				.memmap_entries = favo_boot_e820(mem, rows),
			},
		.module = {.address = initrd->gpa, .size = initrd->size},
	};
	unsigned i;

	for (i = 0; i < p.info.memmap_entries; i++)
		p.memmap[i] = (struct start_memmap){
			.addr = rows[i].addr, .size = rows[i].size, .type = rows[i].type};
	return favo_guest_write(mem, FAVO_BOOT_START_INFO, &p, sizeof(p));
}

static int put_zero_page(struct favo_memory *mem, const struct favo_boot *boot,
			 const struct initrd *initrd)
{
	struct favo_e820 rows[FAVO_E820_MAX];
	struct boot_params bp = {0};
	unsigned i;

	memcpy((uint8_t *)&bp + offsetof(struct boot_params, hdr),
	       boot->kernel->setup_header,
	       FAVO_MIN(boot->kernel->setup_header_len, sizeof(bp.hdr)));
	bp.hdr.type_of_loader = LOADER_OTHER;
	bp.hdr.cmd_line_ptr = FAVO_BOOT_CMDLINE;
	bp.hdr.ramdisk_image = (uint32_t)initrd->gpa;
	bp.hdr.ramdisk_size = (uint32_t)initrd->size;
	bp.acpi_rsdp_addr = boot->rsdp;
	bp.e820_entries = (uint8_t)favo_boot_e820(mem, rows);
	for (i = 0; i < bp.e820_entries; i++)
		bp.e820_table[i] = (struct boot_e820_entry){
			.addr = rows[i].addr, .size = rows[i].size, .type = rows[i].type};
	return favo_guest_write(mem, FAVO_BOOT_ZERO_PAGE, &bp, sizeof(bp));
}

/* Flat segments behind the selectors that boot_regs.c loads. */
static int put_gdt(struct favo_memory *mem, bool longmode)
{
	const uint64_t gdt[5] = {
		0,
		0,
		longmode ? 0x00af9b000000ffff : 0x00cf9b000000ffff,
		0x00cf93000000ffff,
		0x00008b0000000067, /* TSS at 0 */
	};

	return favo_guest_write(mem, FAVO_BOOT_GDT, gdt, sizeof(gdt));
}

/* One level-4 page, one level-3 page, four level-2 pages of 2 MiB entries. */
static int put_page_tables(struct favo_memory *mem)
{
	enum { PRESENT_WRITE = 0x3, LARGE = 0x80, N = 512 };
	uint64_t *t = favo_guest_ptr(mem, FAVO_BOOT_PAGE_TABLES, 6 * FAVO_PAGE_SIZE);
	uint64_t i;

	if (!t)
		return -EFAULT;
	t[0] = (FAVO_BOOT_PAGE_TABLES + FAVO_PAGE_SIZE) | PRESENT_WRITE;
	for (i = 0; i < 4; i++)
		t[N + i] = (FAVO_BOOT_PAGE_TABLES + (2 + i) * FAVO_PAGE_SIZE) |
			   PRESENT_WRITE;
	for (i = 0; i < 4 * N; i++)
		t[2 * N + i] = i << 21 | LARGE | PRESENT_WRITE;
	return 0;
}

int favo_boot_prepare(struct favo_memory *mem, const struct favo_boot *boot,
		      struct favo_err *err)
{
	struct initrd initrd = {0};
	int ret = load_initrds(mem, boot, &initrd, err);

	ret = ret ? ret : put_cmdline(mem, boot, err);
	if (ret < 0)
		return ret;
	if (boot->kernel->entry == FAVO_ENTRY_PVH)
		ret = put_start_info(mem, boot, &initrd);
	else
		ret = put_zero_page(mem, boot, &initrd) ? -EFAULT : put_page_tables(mem);
	ret = ret ? ret : put_gdt(mem, boot->kernel->entry == FAVO_ENTRY_LINUX64);
	return ret < 0 ? favo_fail(err, ENOMEM, "guest memory: too small to boot") : 0;
}
