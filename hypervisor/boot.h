/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Direct kernel boot: what is put into guest memory before the first
 * instruction, and the registers of the first vCPU. Main thread, before the VM
 * runs. Kernel and initrd files are foreign bytes: every figure in them is
 * checked against the file's size and the guest's RAM.
 */
#pragma once

#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "hypervisor/memory.h"

/*
 * Low memory. Linux copies what it needs from here before it frees it.
 * 0x472 is the BIOS's reset flag (PLATFORM_RESET_FLAG in platform.h).
 */
#define FAVO_BOOT_GDT 0x1000ULL
#define FAVO_BOOT_START_INFO 0x2000ULL /* hvm_start_info and what it points to */
#define FAVO_BOOT_ZERO_PAGE 0x3000ULL /* struct boot_params */
#define FAVO_BOOT_PAGE_TABLES 0x4000ULL /* 6 pages */
#define FAVO_BOOT_CMDLINE 0x10000ULL
#define FAVO_BOOT_CMDLINE_MAX 0x10000ULL
#define FAVO_BOOT_LOW_END 0x9fc00ULL
#define FAVO_BOOT_ACPI 0xe0000ULL
#define FAVO_BOOT_ACPI_MAX 0x20000ULL
#define FAVO_BOOT_KERNEL_MIN 0x100000ULL

enum favo_entry {
	FAVO_ENTRY_PVH, /* 32-bit, paging off, ebx = hvm_start_info */
	FAVO_ENTRY_LINUX64, /* 64-bit, rsi = boot_params */
};

struct favo_kernel {
	enum favo_entry entry;
	uint64_t address; /* first instruction */
	uint64_t end; /* first byte above the kernel and what it will use */
	uint64_t initrd_max; /* highest byte an initrd may use */
	uint64_t cmdline_max; /* without the final NUL */
	/* FAVO_ENTRY_LINUX64: setup header of the file, at its offset 0x1f1. */
	uint8_t setup_header[0x290 - 0x1f1];
	unsigned setup_header_len;
};

/* Load an ELF (PVH) or bzImage kernel, told apart by its magic. ENOEXEC. */
int favo_kernel_load(struct favo_kernel *out, struct favo_memory *mem, int fd,
		     struct favo_err *err);
int favo_elf_load(struct favo_kernel *out, struct favo_memory *mem, int fd,
		  uint64_t file_size, struct favo_err *err);
int favo_bzimage_load(struct favo_kernel *out, struct favo_memory *mem, int fd,
		      uint64_t file_size, struct favo_err *err);

/* pread() of all len bytes; a short file is ENOEXEC. */
int favo_boot_read(int fd, uint64_t offset, void *buf, uint64_t len,
		   struct favo_err *err);

struct favo_boot {
	const struct favo_kernel *kernel;
	const char *cmdline;
	const int *initrds; /* concatenated in this order, each padded to 4 bytes */
	unsigned ninitrds;
	uint64_t rsdp; /* 0: none */
};

/* Initrds, command line, memory map, start info and page tables. */
int favo_boot_prepare(struct favo_memory *mem, const struct favo_boot *boot,
		      struct favo_err *err);

/* One row of the memory map, in E820 terms. */
struct favo_e820 {
	uint64_t addr, size;
	uint32_t type;
};
#define FAVO_E820_RAM 1
#define FAVO_E820_RESERVED 2
#define FAVO_E820_MAX (FAVO_MEM_REGIONS_MAX + 4)

unsigned favo_boot_e820(const struct favo_memory *mem, struct favo_e820 *rows);

/* Registers of vCPU 0 for this kernel. 0 or -errno. */
int favo_boot_set_registers(int vcpu_fd, const struct favo_kernel *kernel,
			    struct favo_err *err);
