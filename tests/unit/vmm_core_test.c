// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of the VMM's base: guest memory, I/O bus, event loop. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pthread.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/iobus.h"
#include "hypervisor/loop.h"
#include "hypervisor/memory.h"

#define MIB (1ULL << 20)

static struct favo_memory *memory(uint64_t size)
{
	const struct favo_memory_opts opts = {.size = size, .huge = FAVO_HUGE_OFF};
	struct favo_memory *mem = NULL;
	struct favo_err err = {0};

	if (favo_memory_new(&mem, &opts, &err) < 0)
		fail_msg("%s", err.msg);
	return mem;
}

static void memory_bounds(void **state)
{
	/* Sparse: only touched pages take room. */
	struct favo_memory *mem = memory(6ULL << 30);
	static const struct {
		uint64_t gpa, len;
		bool ok;
	} rows[] = {
		{0, 1, true},
		{0, 0, false},
		{0, FAVO_GPA_HOLE_START, true},
		{0, FAVO_GPA_HOLE_START + 1, false},
		{FAVO_GPA_HOLE_START - 1, 1, true},
		{FAVO_GPA_HOLE_START - 1, 2, false},
		{FAVO_GPA_HOLE_START, 1, false},
		{FAVO_GPA_ECAM, 4, false},
		{FAVO_GPA_LAPIC, 4, false},
		{FAVO_GPA_HIGH - 1, 1, false},
		{FAVO_GPA_HIGH - 1, 2, false},
		{FAVO_GPA_HIGH, 1, true},
		{FAVO_GPA_HIGH, 3ULL << 30, true},
		{FAVO_GPA_HIGH, (3ULL << 30) + 1, false},
		{FAVO_GPA_HIGH + (3ULL << 30), 1, false},
		{FAVO_GPA_HIGH, UINT64_MAX, false},
		{16, UINT64_MAX, false},
		{16, UINT64_MAX - 15, false},
		{UINT64_MAX, 1, false},
		{UINT64_MAX, 2, false},
	};
	unsigned i;

	(void)state;
	assert_int_equal(mem->nregions, 2);
	assert_true(favo_memory_end(mem) == FAVO_GPA_HIGH + (3ULL << 30));
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		if (!!favo_guest_ptr(mem, rows[i].gpa, rows[i].len) != rows[i].ok)
			fail_msg("row %u", i);
	favo_memory_free(mem);
}

static void memory_copy_and_dirty(void **state)
{
	struct favo_memory *mem = memory(4 * MIB);
	uint64_t v = 0x1122334455667788, w = 0;

	(void)state;
	assert_int_equal(favo_guest_write(mem, 0xffc, &v, sizeof(v)), 0);
	assert_int_equal(favo_guest_read(mem, 0xffc, &w, sizeof(w)), 0);
	assert_true(v == w);
	assert_int_equal(favo_guest_write(mem, 4 * MIB - 4, &v, sizeof(v)), -EFAULT);
	assert_int_equal(favo_guest_read(mem, 4 * MIB, &v, 1), -EFAULT);
	assert_false(favo_memory_fetch_dirty(mem, 0));
	assert_int_equal(favo_memory_log(mem, true, NULL), 0);
	assert_int_equal(favo_guest_write(mem, 0xffc, &v, sizeof(v)), 0);
	assert_true(favo_memory_fetch_dirty(mem, 0));
	assert_false(favo_memory_fetch_dirty(mem, 0));
	assert_true(favo_memory_fetch_dirty(mem, 0x1000));
	assert_false(favo_memory_fetch_dirty(mem, 0x2000));
	/* The last page, and a range that claims to be longer than memory. */
	favo_guest_dirty(mem, favo_guest_ptr(mem, 4 * MIB - 1, 1), 1ULL << 40);
	assert_true(favo_memory_fetch_dirty(mem, 4 * MIB - 4096));
	assert_int_equal(favo_memory_log(mem, false, NULL), 0);
	favo_memory_free(mem);
}

static void memory_bad_size(void **state)
{
	static const uint64_t sizes[] = {0, 1, 4095, 4097, 1ULL << 47, UINT64_MAX};
	unsigned i;

	(void)state;
	for (i = 0; i < FAVO_ARRAY_SIZE(sizes); i++) {
		const struct favo_memory_opts opts = {.size = sizes[i]};
		struct favo_memory *mem = NULL;

		assert_int_equal(favo_memory_new(&mem, &opts, NULL), -EINVAL);
		assert_null(mem);
	}
}

static void memory_prealloc(void **state)
{
	const struct favo_memory_opts opts = {
		.size = 8 * MIB, .huge = FAVO_HUGE_OFF, .prealloc = true};
	struct favo_memory *mem = NULL;

	(void)state;
	assert_int_equal(favo_memory_new(&mem, &opts, NULL), 0);
	favo_memory_free(mem);
}

static uint64_t last_offset, last_value;
static unsigned last_len;

static uint64_t note_read(void *opaque, uint64_t offset, unsigned len)
{
	last_offset = offset;
	last_len = len;
	return (uintptr_t)opaque | 0xffffffff00000000;
}

static void note_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	(void)opaque;
	last_offset = offset;
	last_value = value;
	last_len = len;
}

static void iobus_decode(void **state)
{
	static const struct favo_io_ops ops = {note_read, note_write};
	struct favo_iobus_stats st;
	struct favo_iobus *bus = NULL;
	struct favo_io_range r = {.ops = &ops};
	unsigned i;

	(void)state;
	assert_int_equal(favo_iobus_new(&bus, NULL), 0);
	for (i = 0; i < 40; i++) {
		r.base = 0x1000 * ((i * 7) % 40 + 1);
		r.size = 0x100;
		r.opaque = (void *)(uintptr_t)r.base;
		assert_int_equal(favo_iobus_add(bus, &r), 0);
	}
	r.base = 0x10ff;
	assert_int_equal(favo_iobus_add(bus, &r), -EEXIST);
	r.base = 0xf01;
	assert_int_equal(favo_iobus_add(bus, &r), -EEXIST);
	r.base = 0xf00;
	assert_int_equal(favo_iobus_add(bus, &r), 0);
	r.base = UINT64_MAX - 8;
	assert_int_equal(favo_iobus_add(bus, &r), -EINVAL);
	r.size = 0;
	assert_int_equal(favo_iobus_add(bus, &r), -EINVAL);

	assert_true(favo_iobus_read(bus, 0x2004, 4) == 0x2000);
	assert_int_equal(last_offset, 4);
	favo_iobus_write(bus, 0x28080, 0x1ff, 1);
	assert_int_equal(last_offset, 0x80);
	assert_int_equal(last_value, 0xff);
	/* Nobody there: all ones; so is what is crooked or too long. */
	assert_true(favo_iobus_read(bus, 0x2100, 2) == 0xffff);
	assert_true(favo_iobus_read(bus, 0x2001, 2) == 0xffff);
	assert_true(favo_iobus_read(bus, 0x2000, 3) == 0xffffff);
	last_len = 0;
	favo_iobus_write(bus, 0x20fc, 1, 8);
	favo_iobus_write(bus, 0x2000, 1, 7);
	favo_iobus_write(bus, UINT64_MAX, 1, 8);
	assert_int_equal(last_len, 0);
	favo_iobus_get_stats(bus, &st);
	assert_int_equal(st.unknown_reads, 1);
	assert_int_equal(st.unknown_writes, 1);
	assert_int_equal(st.forbidden, 4);
	favo_iobus_del(bus, 0x2000);
	assert_true(favo_iobus_read(bus, 0x2000, 1) == 0xff);
	favo_iobus_free(bus);
}

struct looper {
	struct favo_loop *loop;
	struct favo_watch a, b;
	struct favo_timer timer;
	int calls_a, calls_b, posts;
};

static void on_b(struct favo_watch *w, uint32_t events)
{
	struct looper *l = favo_container_of(w, struct looper, b);

	(void)events;
	l->calls_b++;
}

/* Deletes the other watch, which is ready too: it must not be called. */
static void on_a(struct favo_watch *w, uint32_t events)
{
	struct looper *l = favo_container_of(w, struct looper, a);

	(void)events;
	l->calls_a++;
	favo_watch_del(l->calls_b ? &l->a : &l->b);
	favo_watch_del(&l->a);
	favo_timer_set(&l->timer, 1);
}

static void on_timer(struct favo_timer *t)
{
	struct looper *l = favo_container_of(t, struct looper, timer);

	favo_loop_stop(l->loop);
}

static void on_post(void *arg)
{
	struct looper *l = arg;

	l->posts++;
}

static void loop_watches(void **state)
{
	struct looper l = {0};
	int fd_a = eventfd(1, EFD_CLOEXEC), fd_b = eventfd(1, EFD_CLOEXEC);

	(void)state;
	assert_int_equal(favo_loop_new(&l.loop, NULL), 0);
	assert_int_equal(favo_timer_init(l.loop, &l.timer, on_timer, NULL), 0);
	assert_int_equal(favo_watch_add(l.loop, &l.a, fd_a, EPOLLIN, on_a, NULL), 0);
	assert_int_equal(
		favo_watch_add(l.loop, &l.b, fd_b, EPOLLIN | EPOLLET, on_b, NULL), 0);
	assert_int_equal(favo_loop_post(l.loop, on_post, &l), 0);
	assert_int_equal(favo_loop_post(l.loop, on_post, &l), 0);
	assert_int_equal(favo_loop_run(l.loop, NULL), 0);
	assert_int_equal(l.calls_a, 1);
	assert_true(l.calls_b <= 1);
	assert_int_equal(l.posts, 2);
	favo_watch_del(&l.b);
	assert_int_equal(favo_watch_set(&l.b, EPOLLIN), -EINVAL);
	favo_timer_fini(&l.timer);
	favo_loop_free(l.loop);
	close(fd_a);
	close(fd_b);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(memory_bounds),
		cmocka_unit_test(memory_copy_and_dirty),
		cmocka_unit_test(memory_bad_size),
		cmocka_unit_test(memory_prealloc),
		cmocka_unit_test(iobus_decode),
		cmocka_unit_test(loop_watches),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
