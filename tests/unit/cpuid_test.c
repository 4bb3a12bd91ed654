// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of the CPUID of vCPUs, from sets as Intel and AMD hosts give. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdlib.h>
#include <string.h>

#include "hypervisor/cpuid.h"

static void add(struct favo_cpuid *c, uint32_t fn, uint32_t index, uint32_t eax,
		uint32_t ebx, uint32_t ecx, uint32_t edx)
{
	c->entries[c->nent++] = (struct kvm_cpuid_entry2){.function = fn,
							  .index = index,
							  .eax = eax,
							  .ebx = ebx,
							  .ecx = ecx,
							  .edx = edx};
}

static void adapt(struct favo_cpuid *c, unsigned cpu, unsigned ncpus)
{
	const struct favo_cpuid_opts o = {
		.cpu = cpu, .ncpus = ncpus, .tsc_khz = 2500000, .tsc_deadline = true};

	favo_cpuid_adapt(c, &o);
}

static void intel(void **state)
{
	struct favo_cpuid c = {0};
	const struct kvm_cpuid_entry2 *e;

	(void)state;
	add(&c, 0, 0, 0x1f, 0, 0, 0);
	add(&c, 1, 0, 0, 0x12345678, 1 << 5, 0);
	add(&c, 4, 0, 1 << 5 | 1, 0, 0, 0);
	add(&c, 4, 1, 3 << 5 | 3, 0, 0, 0);
	add(&c, 6, 0, 0, 0, 0, 0);
	add(&c, 0xb, 0, 1, 2, 3, 4);
	add(&c, 0x1f, 0, 1, 2, 3, 4);
	add(&c, 0x40000000, 0, 0x40000001, 0, 0, 0);
	adapt(&c, 5, 6);
	e = favo_cpuid_find(&c, 1, 0);
	assert_int_equal(e->ebx, 5 << 24 | 8 << 16 | 0x5678);
	assert_true(e->ecx & 1U << 31);
	assert_true(e->ecx & 1U << 24);
	assert_false(e->ecx & 1U << 5); /* no VMX */
	assert_true(e->edx & 1U << 28);
	assert_true(favo_cpuid_find(&c, 6, 0)->eax & 4);
	e = favo_cpuid_find(&c, 0xb, 1);
	assert_int_equal(e->eax, 3);
	assert_int_equal(e->ebx, 6);
	assert_int_equal(e->ecx, 0x201);
	assert_int_equal(e->edx, 5);
	assert_int_equal(favo_cpuid_find(&c, 0x1f, 0)->eax, 0);
	/* A core's own cache, and one for all. */
	assert_int_equal(favo_cpuid_find(&c, 4, 0)->eax >> 14 & 0xfff, 0);
	assert_int_equal(favo_cpuid_find(&c, 4, 1)->eax >> 14 & 0xfff, 7);
	e = favo_cpuid_find(&c, 0x15, 0);
	assert_true((uint64_t)e->ecx * e->ebx / e->eax == 2500000000ULL);
	assert_int_equal(favo_cpuid_find(&c, 0x40000000, 0)->eax, 0x40000010);
	assert_int_equal(favo_cpuid_find(&c, 0x40000010, 0)->eax, 2500000);
}

static void amd(void **state)
{
	struct favo_cpuid c = {0};
	const struct kvm_cpuid_entry2 *e;

	(void)state;
	add(&c, 0, 0, 0xd, 0, 0, 0);
	add(&c, 1, 0, 0, 0, 0, 1 << 28);
	add(&c, 0x80000001, 0, 0, 0, 1 << 2, 0);
	add(&c, 0x80000008, 0, 0x3028, 0, 0x10ff, 0);
	add(&c, 0x8000000a, 0, 1, 1, 1, 1);
	add(&c, 0x8000001e, 0, 9, 0x109, 9, 9);
	adapt(&c, 0, 1);
	assert_false(favo_cpuid_find(&c, 1, 0)->edx & 1U << 28);
	assert_false(favo_cpuid_find(&c, 0x80000001, 0)->ecx & 6);
	assert_int_equal(favo_cpuid_find(&c, 0x80000008, 0)->ecx, 0);
	assert_int_equal(favo_cpuid_find(&c, 0x80000008, 0)->eax, 0x3028);
	assert_null(favo_cpuid_find(&c, 0x8000000a, 0));
	e = favo_cpuid_find(&c, 0x8000001e, 0);
	assert_int_equal(e->eax | e->ebx | e->ecx, 0);
	assert_null(favo_cpuid_find(&c, 0x15, 0));
	assert_int_equal(favo_cpuid_find(&c, 0xb, 1)->ebx, 1);
	adapt(&c, 2, 3);
	assert_true(favo_cpuid_find(&c, 0x80000001, 0)->ecx & 2);
	assert_int_equal(favo_cpuid_find(&c, 0x80000008, 0)->ecx, 2 << 12 | 2);
}

static void full_and_empty(void **state)
{
	struct favo_cpuid c = {0};
	uint32_t i;

	(void)state;
	adapt(&c, 0, 1);
	assert_int_equal(c.nent, 0);
	/* No room for new leaves: those that are there stay right. */
	add(&c, 0, 0, 0x1f, 0, 0, 0);
	for (i = 1; i < FAVO_CPUID_MAX; i++)
		add(&c, 0x20000000 + i, 0, 0, 0, 0, 0);
	adapt(&c, 0, 2);
	assert_int_equal(c.nent, FAVO_CPUID_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(intel),
		cmocka_unit_test(amd),
		cmocka_unit_test(full_and_empty),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
