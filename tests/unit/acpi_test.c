// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the ACPI tables: checksums and links, limits, and what iasl
 * (acpica-tools) says to them.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/acpi.h"
#include "hypervisor/boot.h"

static const struct favo_pci_windows windows = {0xc0000000, 0x28000000, 0x8000000000,
						0x4000000000};

static struct favo_memory *memory(void)
{
	const struct favo_memory_opts opts = {.size = 16 << 20, .huge = FAVO_HUGE_OFF};
	struct favo_memory *mem = NULL;

	assert_int_equal(favo_memory_new(&mem, &opts, NULL), 0);
	return mem;
}

static uint64_t build(struct favo_memory *mem, unsigned ncpus, uint32_t first,
		      bool serial)
{
	uint32_t ids[512];
	struct favo_acpi acpi = {
		.apic_ids = ids, .ncpus = ncpus, .windows = windows, .serial = serial};
	struct favo_err err = {0};
	uint64_t rsdp = 0;
	unsigned i;

	for (i = 0; i < ncpus; i++)
		ids[i] = first + i;
	if (favo_acpi_build(mem, &acpi, &rsdp, &err) < 0)
		fail_msg("%s", err.msg);
	return rsdp;
}

static unsigned sum(const uint8_t *p, size_t n)
{
	unsigned s = 0;

	while (n--)
		s += *p++;
	return s & 0xff;
}

static uint32_t get32(const uint8_t *p)
{
	uint32_t v;

	memcpy(&v, p, 4);
	return v;
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t v;

	memcpy(&v, p, 8);
	return v;
}

/* A table by its signature, through RSDP and XSDT; checks every sum on the way. */
static const uint8_t *find(struct favo_memory *mem, uint64_t rsdp, const char *signature)
{
	const uint8_t *r = favo_guest_ptr(mem, rsdp, 36), *x, *t;
	uint32_t len, i;

	assert_memory_equal(r, "RSD PTR ", 8);
	assert_int_equal(sum(r, 20), 0);
	assert_int_equal(sum(r, 36), 0);
	x = favo_guest_ptr(mem, get64(r + 24), 36);
	len = get32(x + 4);
	assert_int_equal(sum(x, len), 0);
	for (i = 36; i < len; i += 8) {
		t = favo_guest_ptr(mem, get64(x + i), 36);
		assert_non_null(t);
		assert_int_equal(sum(t, get32(t + 4)), 0);
		if (!memcmp(t, "FACP", 4) && !strcmp(signature, "DSDT"))
			return favo_guest_ptr(mem, get64(t + 140), 36);
		if (!memcmp(t, signature, 4))
			return t;
	}
	return NULL;
}

static void links_and_sums(void **state)
{
	struct favo_memory *mem = memory();
	uint64_t rsdp = build(mem, 4, 0, true);
	const uint8_t *t;

	(void)state;
	t = find(mem, rsdp, "DSDT");
	assert_memory_equal(t, "DSDT", 4);
	assert_int_equal(sum(t, get32(t + 4)), 0);
	t = find(mem, rsdp, "FACP");
	assert_int_equal(get32(t + 4), 276);
	/* Hardware-reduced, reset register at port 0xcf9. */
	assert_true(get32(t + 112) & 1 << 20);
	assert_int_equal(get64(t + 120), 0xcf9);
	t = find(mem, rsdp, "MCFG");
	assert_true(get64(t + 44) == FAVO_GPA_ECAM);
	t = find(mem, rsdp, "APIC");
	assert_int_equal(get32(t + 4), 44 + 12 + 4 * 8);
	favo_memory_free(mem);
}

static void many_cpus(void **state)
{
	struct favo_memory *mem = memory();
	const uint8_t *t = find(mem, build(mem, 512, 0, false), "APIC");

	(void)state;
	/* Ids from 255 on need the longer entry. */
	assert_int_equal(get32(t + 4), 44 + 12 + 255 * 8 + 257 * 16);
	favo_memory_free(mem);
}

static void too_small(void **state)
{
	const struct favo_memory_opts opts = {.size = 64 << 10, .huge = FAVO_HUGE_OFF};
	const uint32_t id = 0;
	const struct favo_acpi acpi = {.apic_ids = &id, .ncpus = 1, .windows = windows};
	struct favo_memory *mem = NULL;
	uint64_t rsdp;

	(void)state;
	assert_int_equal(favo_memory_new(&mem, &opts, NULL), 0);
	assert_int_equal(favo_acpi_build(mem, &acpi, &rsdp, NULL), -ENOMEM);
	favo_memory_free(mem);
}

static void run(const char *command)
{
	int rc = system(command); /* fixed words only */

	if (rc)
		fail_msg("%s: exit %d", command, rc);
}

static void iasl_accepts(void **state)
{
	static const char *const names[] = {"DSDT", "FACP", "APIC", "MCFG"};
	char dir[] = "/tmp/favo-acpi-XXXXXX", path[64], command[256];
	struct favo_memory *mem;
	uint64_t rsdp;
	unsigned i;

	(void)state;
	if (system("command -v iasl >/dev/null")) {
		const char *must = getenv("FAVO_MUST_RUN");

		if (must && strstr(must, "iasl"))
			fail_msg("iasl is missing");
		print_message("skipped: no iasl (acpica-tools)\n");
		skip();
	}
	assert_non_null(mkdtemp(dir));
	mem = memory();
	rsdp = build(mem, 3, 253, true);
	for (i = 0; i < FAVO_ARRAY_SIZE(names); i++) {
		const uint8_t *t = find(mem, rsdp, names[i]);

		snprintf(path, sizeof(path), "%s/%s.dat", dir, names[i]);
		assert_int_equal(favo_file_replace(path, t, get32(t + 4), 0600, NULL), 0);
		snprintf(command, sizeof(command),
			 "cd %s && iasl -d %s.dat >%s.log 2>&1 && "
			 "iasl -we -tc %s.dsl >>%s.log 2>&1 || { cat %s.log; exit 1; }",
			 dir, names[i], names[i], names[i], names[i], names[i]);
		run(command);
	}
	favo_memory_free(mem);
	assert_int_equal(favo_remove_tree(dir, NULL), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(links_and_sums),
		cmocka_unit_test(many_cpus),
		cmocka_unit_test(too_small),
		cmocka_unit_test(iasl_accepts),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
