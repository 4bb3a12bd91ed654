// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of the kernel loaders and of what they put into guest memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <asm/bootparam.h>
#include <elf.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/boot.h"

#define MIB (1ULL << 20)

static struct favo_memory *memory(uint64_t size)
{
	const struct favo_memory_opts opts = {.size = size, .huge = FAVO_HUGE_OFF};
	struct favo_memory *mem = NULL;

	assert_int_equal(favo_memory_new(&mem, &opts, NULL), 0);
	return mem;
}

static int file_of(const void *bytes, size_t n)
{
	int fd = memfd_create("test", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, bytes, n, 0), (ssize_t)n);
	return fd;
}

/* A small, right PVH kernel, which rows of the tables below spoil. */
struct elf_image {
	Elf64_Ehdr eh;
	Elf64_Phdr ph[2];
	struct {
		Elf64_Nhdr nh;
		char name[4];
		uint32_t desc;
	} note;
	uint8_t code[64];
};

static struct elf_image good_elf(void)
{
	struct elf_image e = {
		.eh =
			{
				.e_ident = {0x7f, 'E', 'L', 'F', ELFCLASS64, ELFDATA2LSB,
					    EV_CURRENT},
				.e_type = ET_EXEC,
				.e_machine = EM_X86_64,
				.e_phoff = offsetof(struct elf_image, ph),
				.e_phentsize = sizeof(Elf64_Phdr),
				.e_phnum = 2,
			},
		.ph =
			{
				{
					.p_type = PT_LOAD,
					.p_offset = offsetof(struct elf_image, code),
					.p_paddr = 16 * MIB,
					.p_filesz = sizeof(e.code),
					.p_memsz = 1 * MIB,
				},
				{
					.p_type = PT_NOTE,
					.p_offset = offsetof(struct elf_image, note),
					.p_filesz = sizeof(e.note),
				},
			},
		.note = {{4, 4, 18}, {'X', 'e', 'n', 0}, 16 * MIB + 8},
		.code = {1, 2, 3},
	};

	return e;
}

static int load(struct favo_memory *mem, const void *bytes, size_t n,
		struct favo_kernel *k)
{
	int fd = file_of(bytes, n), ret;
	struct favo_err err = {0};

	ret = favo_kernel_load(k, mem, fd, &err);
	assert_int_equal(ret < 0, err.msg[0] != '\0');
	close(fd);
	return ret;
}

static void elf_good(void **state)
{
	struct favo_memory *mem = memory(32 * MIB);
	struct elf_image e = good_elf();
	struct favo_kernel k = {0};

	(void)state;
	assert_int_equal(load(mem, &e, sizeof(e), &k), 0);
	assert_int_equal(k.entry, FAVO_ENTRY_PVH);
	assert_true(k.address == 16 * MIB + 8);
	assert_true(k.end == 17 * MIB);
	assert_memory_equal(favo_guest_ptr(mem, 16 * MIB, 3), e.code, 3);
	favo_memory_free(mem);
}

static void elf_hostile(void **state)
{
	static const struct {
		size_t offset, size;
		uint64_t value;
	} rows[] = {
#define E(field, value)                                                                  \
	{offsetof(struct elf_image, field), sizeof(((struct elf_image *)0)->field), value}
		E(eh.e_ident[EI_CLASS], ELFCLASS32),
		E(eh.e_ident[EI_DATA], ELFDATA2MSB),
		E(eh.e_machine, EM_386),
		E(eh.e_phentsize, 1),
		E(eh.e_phnum, 0),
		E(eh.e_phnum, 65),
		E(eh.e_phnum, 64), /* past the end of the file */
		E(eh.e_phoff, UINT64_MAX),
		E(eh.e_phoff, INT64_MAX),
		E(ph[0].p_offset, UINT64_MAX),
		E(ph[0].p_offset, sizeof(struct elf_image) - 1),
		E(ph[0].p_filesz, UINT64_MAX),
		E(ph[0].p_filesz, 128),
		E(ph[0].p_filesz, 2 * MIB), /* more than p_memsz */
		E(ph[0].p_memsz, UINT64_MAX),
		E(ph[0].p_memsz, 16 * MIB + 1),
		E(ph[0].p_paddr, UINT64_MAX),
		E(ph[0].p_paddr, UINT64_MAX - MIB + 1),
		E(ph[0].p_paddr, 0),
		E(ph[0].p_paddr, 0x1000),
		E(ph[0].p_paddr, 32 * MIB),
		E(ph[0].p_paddr, FAVO_GPA_HOLE_START),
		E(ph[0].p_paddr, FAVO_GPA_LAPIC),
		E(ph[1].p_offset, UINT64_MAX),
		E(ph[1].p_filesz, UINT64_MAX),
		E(ph[1].p_filesz, 0),
		E(ph[1].p_filesz, 11),
		E(ph[1].p_filesz, 65537),
		E(ph[1].p_type, PT_NULL),
		E(note.nh.n_namesz, UINT32_MAX),
		E(note.nh.n_namesz, UINT32_MAX - 3),
		E(note.nh.n_namesz, 5),
		E(note.nh.n_descsz, UINT32_MAX),
		E(note.nh.n_descsz, 8),
		E(note.nh.n_descsz, 0),
		E(note.nh.n_type, 17),
		E(note.name[0], 'Y'),
		E(note.desc, 0),
		E(note.desc, 17 * MIB),
		E(note.desc, UINT32_MAX),
#undef E
	};
	struct favo_memory *mem = memory(32 * MIB);
	unsigned i;

	(void)state;
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct elf_image e = good_elf();
		struct favo_kernel k = {0};

		memcpy((uint8_t *)&e + rows[i].offset, &rows[i].value, rows[i].size);
		if (load(mem, &e, sizeof(e), &k) >= 0)
			fail_msg("row %u was accepted", i);
		assert_true(k.end == 0);
	}
	/* Cut at every length. */
	for (i = 0; i < offsetof(struct elf_image, code) + 64; i++) {
		struct elf_image e = good_elf();
		struct favo_kernel k = {0};

		assert_true(load(mem, &e, i, &k) < 0);
	}
	favo_memory_free(mem);
}

#define BZ_SIZE (5 * 512 + 0x1000)

static void good_bz(uint8_t *b)
{
	struct setup_header h = {
		.setup_sects = 4,
		.jump = 0x6aeb, /* the header ends at 0x202 + 0x6a */
		.header = 0x53726448,
		.version = 0x20f,
		.loadflags = 1,
		.initrd_addr_max = 0x7fffffff,
		.kernel_alignment = 2 * MIB,
		.xloadflags = 1,
		.cmdline_size = 2047,
		.pref_address = 16 * MIB,
		.init_size = 8 * MIB,
	};

	memset(b, 0, BZ_SIZE);
	memcpy(b + 0x1f1, &h, sizeof(h));
	memset(b + 5 * 512, 0xaa, 0x1000);
}

static void bz_good(void **state)
{
	struct favo_memory *mem = memory(32 * MIB);
	struct favo_kernel k = {0};
	uint8_t b[BZ_SIZE];

	(void)state;
	good_bz(b);
	assert_int_equal(load(mem, b, sizeof(b), &k), 0);
	assert_int_equal(k.entry, FAVO_ENTRY_LINUX64);
	assert_true(k.address == 16 * MIB + 0x200);
	assert_true(k.end == 24 * MIB);
	assert_int_equal(k.setup_header_len, 0x26c - 0x1f1);
	assert_int_equal(*(uint8_t *)favo_guest_ptr(mem, 16 * MIB + 0xfff, 1), 0xaa);
	favo_memory_free(mem);
}

static void bz_hostile(void **state)
{
	static const struct {
		size_t offset, size;
		uint64_t value;
	} rows[] = {
#define H(field, value)                                                                  \
	{0x1f1 + offsetof(struct setup_header, field),                                   \
	 sizeof(((struct setup_header *)0)->field), value}
		H(setup_sects, 255),
		H(header, 0),
		H(version, 0x20b),
		H(loadflags, 0),
		H(xloadflags, 0),
		H(pref_address, 0),
		H(pref_address, UINT64_MAX),
		H(pref_address, 31 * MIB),
		H(pref_address, FAVO_GPA_HOLE_START),
		H(pref_address, FAVO_GPA_HIGH),
		H(init_size, UINT32_MAX),
		H(init_size, 16 * MIB + 1),
#undef H
	};
	struct favo_memory *mem = memory(32 * MIB);
	uint8_t b[BZ_SIZE];
	unsigned i;

	(void)state;
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct favo_kernel k = {0};

		good_bz(b);
		memcpy(b + rows[i].offset, &rows[i].value, rows[i].size);
		if (load(mem, b, sizeof(b), &k) >= 0)
			fail_msg("row %u was accepted", i);
	}
	good_bz(b);
	for (i = 0; i < 5 * 512 + 0x200; i += 13) {
		struct favo_kernel k = {0};

		assert_true(load(mem, b, i, &k) < 0);
	}
	/* A header that claims to be longer than the field for it. */
	b[0x201] = 0xff;
	{
		struct favo_kernel k = {0};

		assert_int_equal(load(mem, b, sizeof(b), &k), 0);
		assert_true(k.setup_header_len <= sizeof(k.setup_header));
	}
	favo_memory_free(mem);
}

static void prepare_pvh(void **state)
{
	struct favo_memory *mem = memory(64 * MIB);
	int initrds[3] = {file_of("abcde", 5), file_of("", 0), file_of("xyz", 3)};
	struct favo_kernel k = {0};
	struct favo_boot boot = {.kernel = &k,
				 .cmdline = "a=b",
				 .initrds = initrds,
				 .ninitrds = 3,
				 .rsdp = 0xe0000};
	struct elf_image e = good_elf();
	const uint32_t *si;
	const uint64_t *mod;

	(void)state;
	assert_int_equal(load(mem, &e, sizeof(e), &k), 0);
	assert_int_equal(favo_boot_prepare(mem, &boot, NULL), 0);
	si = favo_guest_ptr(mem, FAVO_BOOT_START_INFO, 56);
	assert_int_equal(si[0], 0x336ec578);
	assert_int_equal(si[3], 1);
	mod = favo_guest_ptr(mem, *(const uint64_t *)(const void *)&si[4], 32);
	assert_int_equal(mod[1], 12);
	assert_memory_equal(favo_guest_ptr(mem, mod[0], 12), "abcde\0\0\0xyz\0", 12);
	assert_string_equal(favo_guest_ptr(mem, FAVO_BOOT_CMDLINE, 4), "a=b");
	/* Too large for what is left beside the kernel. */
	assert_int_equal(ftruncate(initrds[1], 47 * MIB), 0);
	assert_int_equal(favo_boot_prepare(mem, &boot, NULL), -ENOMEM);
	assert_int_equal(ftruncate(initrds[1], 1ULL << 40), 0);
	assert_int_equal(favo_boot_prepare(mem, &boot, NULL), -ENOMEM);
	close(initrds[0]);
	close(initrds[1]);
	close(initrds[2]);
	favo_memory_free(mem);
}

static void prepare_linux64(void **state)
{
	struct favo_memory *mem = memory(5ULL << 30);
	char line[2049];
	uint8_t b[BZ_SIZE];
	struct favo_kernel k = {0};
	struct favo_boot boot = {.kernel = &k, .cmdline = line, .rsdp = 0xe0000};
	const struct boot_params *bp;

	(void)state;
	good_bz(b);
	assert_int_equal(load(mem, b, sizeof(b), &k), 0);
	memset(line, 'x', sizeof(line));
	line[2048] = '\0';
	assert_int_equal(favo_boot_prepare(mem, &boot, NULL), -E2BIG);
	line[2047] = '\0';
	assert_int_equal(favo_boot_prepare(mem, &boot, NULL), 0);
	bp = favo_guest_ptr(mem, FAVO_BOOT_ZERO_PAGE, sizeof(*bp));
	assert_int_equal(bp->hdr.header, 0x53726448);
	assert_int_equal(bp->hdr.type_of_loader, 0xff);
	assert_int_equal(bp->acpi_rsdp_addr, 0xe0000);
	assert_int_equal(bp->e820_entries, 5);
	assert_true(bp->e820_table[2].addr + bp->e820_table[2].size ==
		    FAVO_GPA_HOLE_START);
	assert_true(bp->e820_table[4].addr == FAVO_GPA_HIGH);
	assert_true(bp->e820_table[4].size == 2ULL << 30);
	favo_memory_free(mem);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(elf_good),    cmocka_unit_test(elf_hostile),
		cmocka_unit_test(bz_good),     cmocka_unit_test(bz_hostile),
		cmocka_unit_test(prepare_pvh), cmocka_unit_test(prepare_linux64),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
