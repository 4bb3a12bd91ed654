/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Devices that give pages to the host or take them from files: balloon with
 * free-page reporting, and persistent memory; driven and misused.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/virtio_balloon.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "virtio_testdrv.h"

#define MEM (4 << 20)
#define PFNS 0x40000
#define DATA 0x200000
#define BAD VIRTIO_CONFIG_S_NEEDS_RESET

enum { INFLATE, DEFLATE, REPORT };

static int file_of(size_t size)
{
	int fd = memfd_create("image", MFD_CLOEXEC);

	assert_true(fd >= 0);
	assert_int_equal(ftruncate(fd, (off_t)size), 0);
	return fd;
}

static void new_vm(struct drv *d)
{
	struct favo_vm *vm;

	assert_int_equal(fake_vm_new(&vm, MEM, NULL), 0);
	drv_start(d, vm);
}

static int teardown(void **state)
{
	drv_stop(*state);
	return 0;
}

/* ---- balloon ---- */

static int setup_balloon(void **state)
{
	static struct drv d;

	new_vm(&d);
	assert_int_equal(favo_balloon_add(d.vm, NULL), 0);
	assert_true(drv_find(&d, VIRTIO_ID_BALLOON));
	*state = &d;
	return 0;
}

static void fill(struct drv *d, uint64_t gpa, size_t len)
{
	memset(drv_ptr(d, gpa), 0x5a, len);
}

static bool is_filled(struct drv *d, uint64_t gpa, uint8_t value)
{
	const uint8_t *p = drv_ptr(d, gpa);

	for (unsigned i = 0; i < FAVO_PAGE_SIZE; i++)
		if (p[i] != value)
			return false;
	return true;
}

static void test_reported_pages_go_back(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = {DATA, 16 * FAVO_PAGE_SIZE, true};

	assert_true(drv_init(d, ~0ULL));
	assert_true(drv_offered(d) & 1ULL << VIRTIO_BALLOON_F_REPORTING);
	fill(d, DATA - FAVO_PAGE_SIZE, 18 * FAVO_PAGE_SIZE);
	assert_int_equal(drv_do(d, REPORT, &seg, 1), 0);
	for (unsigned i = 0; i < 16; i++)
		assert_true(is_filled(d, DATA + i * FAVO_PAGE_SIZE, 0));
	assert_true(is_filled(d, DATA - FAVO_PAGE_SIZE, 0x5a));
	assert_true(is_filled(d, DATA + 16 * FAVO_PAGE_SIZE, 0x5a));
}

/* A piece that begins and ends inside pages gives back whole ones only. */
static void test_partial_pages_stay(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = {DATA + 8, 3 * FAVO_PAGE_SIZE, true};

	assert_true(drv_init(d, ~0ULL));
	fill(d, DATA, 5 * FAVO_PAGE_SIZE);
	assert_int_equal(drv_do(d, REPORT, &seg, 1), 0);
	assert_true(is_filled(d, DATA, 0x5a));
	assert_true(is_filled(d, DATA + FAVO_PAGE_SIZE, 0));
	assert_true(is_filled(d, DATA + 2 * FAVO_PAGE_SIZE, 0));
	assert_true(is_filled(d, DATA + 3 * FAVO_PAGE_SIZE, 0x5a));
}

/* What the driver only lets the device read was not reported as free. */
static void test_readable_segments_are_not_taken(void **state)
{
	struct drv *d = *state;
	const struct drv_seg segs[] = {{DATA, FAVO_PAGE_SIZE, false},
				       {DATA + FAVO_PAGE_SIZE, FAVO_PAGE_SIZE, true}};

	assert_true(drv_init(d, ~0ULL));
	fill(d, DATA, 2 * FAVO_PAGE_SIZE);
	assert_int_equal(drv_do(d, REPORT, segs, 2), 0);
	assert_true(is_filled(d, DATA, 0x5a));
	assert_true(is_filled(d, DATA + FAVO_PAGE_SIZE, 0));
}

static void test_report_outside_of_memory_breaks_the_queue(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = {MEM - FAVO_PAGE_SIZE, 2 * FAVO_PAGE_SIZE, true};

	assert_true(drv_init(d, ~0ULL));
	fill(d, MEM - FAVO_PAGE_SIZE, FAVO_PAGE_SIZE);
	drv_add(&d->q[REPORT], &seg, 1);
	drv_kick(d, REPORT);
	for (int i = 0; i < 20000 && !(drv_status(d) & BAD); i++)
		usleep(100);
	assert_true(drv_status(d) & BAD);
	assert_true(is_filled(d, MEM - FAVO_PAGE_SIZE, 0x5a));
}

static void test_inflate_takes_ram_only(void **state)
{
	struct drv *d = *state;
	const uint32_t pfns[] = {htole32(DATA >> 12), htole32(MEM >> 12),
				 htole32(FAVO_GPA_ECAM >> 12), htole32(0xffffffff),
				 htole32((DATA >> 12) + 2)};
	const struct drv_seg seg = {PFNS, sizeof(pfns), false};
	/* A length that is no multiple of a number: the rest is passed over. */
	const struct drv_seg odd = {PFNS, 3, false};

	assert_true(drv_init(d, ~0ULL));
	fill(d, DATA, 3 * FAVO_PAGE_SIZE);
	memcpy(drv_ptr(d, PFNS), pfns, sizeof(pfns));
	assert_int_equal(drv_do(d, INFLATE, &seg, 1), 0);
	assert_true(is_filled(d, DATA, 0));
	assert_true(is_filled(d, DATA + FAVO_PAGE_SIZE, 0x5a));
	assert_true(is_filled(d, DATA + 2 * FAVO_PAGE_SIZE, 0));
	assert_int_equal(drv_do(d, INFLATE, &odd, 1), 0);
	assert_int_equal(drv_do(d, DEFLATE, &seg, 1), 0);
	assert_int_equal(drv_status(d) & BAD, 0);
	/* The host never asks for pages. */
	assert_int_equal(drv_read(d, d->device, 4), 0);
}

/* A flood of requests: all are answered, none is lost between turns. */
static void test_many_requests(void **state)
{
	struct drv *d = *state;
	const struct drv_seg seg = {DATA, FAVO_PAGE_SIZE, true};

	assert_true(drv_init(d, ~0ULL));
	for (unsigned i = 0; i < 40; i++) {
		for (unsigned j = 0; j < 16; j++)
			drv_add(&d->q[REPORT], &seg, 1);
		drv_kick(d, REPORT);
		for (unsigned j = 0; j < 16; j++)
			assert_true(drv_wait(d, REPORT, NULL, NULL));
	}
}

static void test_private_memory_too(void **state)
{
	const struct favo_memory_opts opts = {.size = 1 << 20, .huge = FAVO_HUGE_OFF};
	const struct favo_memory_opts fixed = {
		.size = 1 << 20, .huge = FAVO_HUGE_OFF, .prealloc = true};
	struct favo_memory *mem;

	(void)state;
	assert_int_equal(favo_memory_new(&mem, &opts, NULL), 0);
	memset(mem->regions[0].hva, 1, 8192);
	favo_memory_discard(mem, mem->regions[0].hva, 4096);
	assert_int_equal(mem->regions[0].hva[0], 0);
	assert_int_equal(mem->regions[0].hva[4096], 1);
	/* Outside: nothing happens. */
	favo_memory_discard(mem, mem->regions[0].hva + 4096, UINT64_MAX);
	favo_memory_discard(mem, mem->regions[0].hva - 4096, 8192);
	assert_int_equal(mem->regions[0].hva[4096], 1);
	favo_memory_free(mem);
	/* Who asked for all memory at start keeps it. */
	assert_int_equal(favo_memory_new(&mem, &fixed, NULL), 0);
	memset(mem->regions[0].hva, 1, 4096);
	favo_memory_discard(mem, mem->regions[0].hva, 4096);
	assert_int_equal(mem->regions[0].hva[0], 1);
	favo_memory_free(mem);
}

/* ---- persistent memory ---- */

static int setup_pmem(void **state)
{
	static struct drv d;
	char spec[32];
	int fd = file_of((2 << 20) + 12288);

	assert_int_equal(pwrite(fd, "image", 5, 0), 5);
	new_vm(&d);
	snprintf(spec, sizeof(spec), "fd=%d", fd);
	assert_int_equal(favo_pmem_add(d.vm, spec, NULL), 0);
	assert_true(drv_find(&d, VIRTIO_ID_PMEM));
	*state = &d;
	return 0;
}

static void test_shown_read_only_above_ram(void **state)
{
	struct drv *d = *state;
	uint64_t gpa = drv_read(d, d->device, 8), size = drv_read(d, d->device + 8, 8);
	const struct favo_vm_file *f = &d->vm->files[0];

	assert_int_equal(d->vm->nfiles, 1);
	assert_int_equal(gpa, f->gpa);
	assert_int_equal(size, f->size);
	assert_true(gpa >= favo_memory_end(d->vm->mem));
	assert_int_equal(gpa % (2 << 20), 0);
	assert_int_equal(size, 4 << 20); /* rounded up to whole sections */
	assert_memory_equal(f->hva, "image", 5);
	assert_int_equal(f->hva[size - 1], 0); /* there, and zero, behind the end */
	assert_true(fake_kvm.slots[f->slot].readonly);
	assert_int_equal(fake_kvm.slots[f->slot].gpa, gpa);
	/* No device can be pointed at it. */
	assert_null(favo_guest_ptr(d->vm->mem, gpa, 1));
}

static void test_flush_is_answered(void **state)
{
	struct drv *d = *state;
	const struct drv_seg segs[] = {{DATA, 4, false}, {DATA + 64, 4, true}};
	const struct drv_seg no_answer = {DATA, 4, false};

	assert_true(drv_init(d, ~0ULL));
	memset(drv_ptr(d, DATA + 64), 0xff, 8);
	assert_int_equal(drv_do(d, 0, segs, 2), 4);
	assert_memory_equal(drv_ptr(d, DATA + 64), "\0\0\0\0\377\377\377\377", 8);
	assert_int_equal(drv_do(d, 0, &no_answer, 1), 0);
	assert_int_equal(drv_status(d) & BAD, 0);
}

static void test_bad_page_is_named(void **state)
{
	struct drv *d = *state;
	char text[160];
	int fd = file_of(3 << 20), copy = dup(fd);
	char spec[32];

	assert_false(favo_vm_find_bad_page(d->vm, text, sizeof(text)));
	snprintf(spec, sizeof(spec), "fd=%d", fd);
	assert_int_equal(favo_pmem_add(d->vm, spec, NULL), 0);
	assert_int_equal(ftruncate(copy, 8192), 0);
	close(copy);
	assert_true(favo_vm_find_bad_page(d->vm, text, sizeof(text)));
	assert_non_null(strstr(text, "image cannot be read at byte 8192"));
}

static void test_refused_specs(void **state)
{
	static const struct {
		const char *spec;
		int code;
	} rows[] = {
		{"", -EINVAL},
		{"path=/dev/null,fd=3", -EINVAL},
		{"path=/dev/null", -EINVAL},
		{"path=/nonexistent", -ENOENT},
		{"fd=900", -EBADF},
		{"rw", -EINVAL},
	};
	struct drv *d = *state;
	char spec[32];

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct favo_err err = {0};

		assert_int_equal(favo_pmem_add(d->vm, rows[i].spec, &err), rows[i].code);
		assert_true(err.msg[0]);
	}
	snprintf(spec, sizeof(spec), "fd=%d", file_of(0));
	assert_int_equal(favo_pmem_add(d->vm, spec, NULL), -EINVAL);
	/* More than the CPU can address; what was mapped is undone. */
	d->vm->files_end = d->vm->files_gpa + (1 << 20);
	snprintf(spec, sizeof(spec), "fd=%d", file_of(2 << 20));
	assert_int_equal(favo_pmem_add(d->vm, spec, NULL), -ENOSPC);
	d->vm->readonly_slots = false;
	snprintf(spec, sizeof(spec), "fd=%d", file_of(4096));
	assert_int_equal(favo_pmem_add(d->vm, spec, NULL), -ENOTSUP);
	assert_int_equal(d->vm->nfiles, 1);
}

int main(void)
{
#define BALLOON(t) cmocka_unit_test_setup_teardown(t, setup_balloon, teardown)
#define PMEM(t) cmocka_unit_test_setup_teardown(t, setup_pmem, teardown)
	const struct CMUnitTest tests[] = {
		BALLOON(test_reported_pages_go_back),
		BALLOON(test_partial_pages_stay),
		BALLOON(test_readable_segments_are_not_taken),
		BALLOON(test_report_outside_of_memory_breaks_the_queue),
		BALLOON(test_inflate_takes_ram_only),
		BALLOON(test_many_requests),
		cmocka_unit_test(test_private_memory_too),
		PMEM(test_shown_read_only_above_ram),
		PMEM(test_flush_is_answered),
		PMEM(test_bad_page_is_named),
		PMEM(test_refused_specs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
