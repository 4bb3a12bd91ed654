/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtqueue against a good driver and against hostile ones. Each hostile
 * case must end in a broken queue that touches nothing any more, or in a
 * request that stays inside guest RAM.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <linux/virtio_config.h>

#include "common/util.h"
#include "hypervisor/virtio/virtqueue.h"
#include "virtio_testdrv.h"

#define MEM_SIZE (1 << 20)
#define RING 0x1000
#define DATA 0x20000
#define TABLE 0x40000
#define SIZE 16
#define INDIRECT (1ULL << VIRTIO_RING_F_INDIRECT_DESC)
#define EVENT_IDX (1ULL << VIRTIO_RING_F_EVENT_IDX)

struct fixture {
	struct favo_memory *mem;
	struct drv_queue drv;
	struct favo_vq vq;
	struct iovec iov[64];
	struct favo_vq_req req;
};

static void start(struct fixture *f, uint64_t features)
{
	drv_queue_init(&f->drv, f->mem, RING, SIZE);
	f->vq.mem = f->mem;
	f->vq.max_size = 256;
	favo_vq_reset(&f->vq);
	f->vq.size = SIZE;
	f->vq.desc_gpa = f->drv.desc_gpa;
	f->vq.avail_gpa = f->drv.avail_gpa;
	f->vq.used_gpa = f->drv.used_gpa;
	f->req.iov = f->iov;
	f->req.max_segs = 64;
	assert_int_equal(favo_vq_start(&f->vq, features), 0);
}

static int setup(void **state)
{
	static struct fixture f;
	struct favo_memory_opts opts = {.size = MEM_SIZE, .huge = FAVO_HUGE_OFF};

	memset(&f, 0, sizeof(f));
	assert_int_equal(favo_memory_new(&f.mem, &opts, NULL), 0);
	start(&f, INDIRECT);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_memory_free(f->mem);
	return 0;
}

static void assert_broken(struct fixture *f, const char *why)
{
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), -EIO);
	assert_true(f->vq.broken);
	assert_string_equal(f->vq.why, why);
	/* Broken for good, and silent. */
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), -EIO);
	favo_vq_push(&f->vq, 0, 1);
	assert_int_equal(f->drv.used->idx, 0);
	assert_false(favo_vq_need_interrupt(&f->vq));
	assert_false(favo_vq_enable_notify(&f->vq));
}

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	struct drv_seg segs[] = {
		{DATA, 16, false}, {DATA + 64, 512, true}, {DATA + 0x1000, 1, true}};
	uint32_t id, len;

	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 0);
	/* More rounds than 16-bit indices have values, so that everything wraps. */
	for (unsigned i = 0; i < 70000; i++) {
		uint16_t head = drv_add(&f->drv, segs, 3);

		assert_true(favo_vq_pending(&f->vq));
		assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
		assert_int_equal(f->req.head, head);
		assert_int_equal(f->req.nout, 1);
		assert_int_equal(f->req.nin, 2);
		assert_int_equal(f->req.out_len, 16);
		assert_int_equal(f->req.in_len, 513);
		assert_int_equal(favo_vq_pop(&f->vq, &f->req), 0);
		favo_vq_push(&f->vq, head, i);
		assert_true(favo_vq_need_interrupt(&f->vq));
		assert_true(drv_used(&f->drv, &id, &len));
		assert_int_equal(id, head);
		assert_int_equal(len, i);
	}
	assert_int_equal(f->vq.requests, 70000);
}

static void test_full_queue_and_unpop(void **state)
{
	struct fixture *f = *state;
	struct drv_seg seg = {DATA, 64, true};

	for (unsigned i = 0; i < SIZE; i++)
		drv_add(&f->drv, &seg, 1);
	for (unsigned i = 0; i < SIZE; i++)
		assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 0);
	favo_vq_unpop(&f->vq, 3);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
	assert_int_equal(f->req.head, SIZE - 3);
	/* Several at once become visible together. */
	favo_vq_fill(&f->vq, 0, 1, 0);
	favo_vq_fill(&f->vq, 1, 2, 1);
	assert_false(drv_used(&f->drv, NULL, NULL));
	favo_vq_flush(&f->vq, 2);
	assert_int_equal(f->drv.used->idx, 2);
}

static void test_indirect(void **state)
{
	struct fixture *f = *state;
	struct vring_desc *table = favo_guest_ptr(f->mem, TABLE, 4096);
	struct drv_seg first = {DATA, 8, false};
	uint16_t head;

	drv_desc(&table[0], DATA + 16, 16, VRING_DESC_F_NEXT, 2);
	drv_desc(&table[2], DATA + 64, 100, VRING_DESC_F_WRITE, 0);
	/* A normal descriptor may come before the indirect one. */
	head = drv_chain(&f->drv, &first, 1);
	f->drv.desc[head].flags = VRING_DESC_F_NEXT;
	f->drv.desc[head].next = 1;
	drv_desc(&f->drv.desc[1], TABLE, 48, VRING_DESC_F_INDIRECT | VRING_DESC_F_WRITE,
		 0);
	drv_offer(&f->drv, head);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
	assert_int_equal(f->req.nout, 2);
	assert_int_equal(f->req.nin, 1);
	assert_ptr_equal(f->iov[2].iov_base, favo_guest_ptr(f->mem, DATA + 64, 100));
	/* A table may be unaligned, and longer than the queue. */
	table = favo_guest_ptr(f->mem, TABLE + 1, 4096);
	for (uint16_t i = 0; i < 40; i++) {
		struct vring_desc d;

		drv_desc(&d, DATA + i, 1, i < 39 ? VRING_DESC_F_NEXT : 0, i + 1);
		memcpy((char *)table + i * sizeof(d), &d, sizeof(d));
	}
	drv_desc(&f->drv.desc[5], TABLE + 1, 40 * 16, VRING_DESC_F_INDIRECT, 0);
	drv_offer(&f->drv, 5);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
	assert_int_equal(f->req.nout, 40);
}

/*
 * One descriptor chain each, built by hand, and what it must be refused for. Among
 * them CVE-2016-6490 (length zero), CVE-2016-7422 (address that is not mapped),
 * CVE-2018-20216 (loop), CVE-2021-3582 (length that overflows) and CVE-2024-3446
 * (a BAR as target: DMA knows RAM only).
 */
static const struct hostile {
	const char *why;
	uint64_t features;
	struct {
		uint64_t addr;
		uint32_t len;
		uint16_t flags, next;
	} desc[3], table[2];
	uint16_t head;
} hostile[] = {
	{"loop in a descriptor chain", 0, {{DATA, 1, VRING_DESC_F_NEXT, 0}}, {{0}}, 0},
	{"loop in a descriptor chain",
	 0,
	 {{DATA, 1, VRING_DESC_F_NEXT, 1}, {DATA, 1, VRING_DESC_F_NEXT, 0}},
	 {{0}},
	 0},
	{"descriptor index outside of its table", 0, {{0}}, {{0}}, SIZE},
	{"descriptor index outside of its table", 0, {{0}}, {{0}}, 0xffff},
	{"descriptor index outside of its table",
	 0,
	 {{DATA, 1, VRING_DESC_F_NEXT, 0x8000}},
	 {{0}},
	 0},
	{"descriptor of length zero", 0, {{DATA, 0, 0, 0}}, {{0}}, 0},
	{"descriptor outside of guest RAM", 0, {{MEM_SIZE, 1, 0, 0}}, {{0}}, 0},
	{"descriptor outside of guest RAM", 0, {{MEM_SIZE - 1, 2, 0, 0}}, {{0}}, 0},
	{"descriptor outside of guest RAM", 0, {{~0ULL, 1, 0, 0}}, {{0}}, 0},
	{"descriptor outside of guest RAM", 0, {{~0ULL - 4, 0xffffffff, 0, 0}}, {{0}}, 0},
	{"descriptor outside of guest RAM", 0, {{0, 0xffffffff, 0, 0}}, {{0}}, 0},
	{"descriptor outside of guest RAM",
	 0,
	 {{0xfee00000, 4, VRING_DESC_F_WRITE, 0}},
	 {{0}},
	 0},
	{"descriptor outside of guest RAM",
	 0,
	 {{0xc0000000, 4, VRING_DESC_F_WRITE, 0}},
	 {{0}},
	 0},
	{"readable descriptor after a writable one",
	 0,
	 {{DATA, 1, VRING_DESC_F_WRITE | VRING_DESC_F_NEXT, 1}, {DATA, 1, 0, 0}},
	 {{0}},
	 0},
	{"indirect descriptor without the feature",
	 0,
	 {{TABLE, 16, VRING_DESC_F_INDIRECT, 0}},
	 {{DATA, 1, 0, 0}},
	 0},
	{"indirect descriptor with next",
	 INDIRECT,
	 {{TABLE, 16, VRING_DESC_F_INDIRECT | VRING_DESC_F_NEXT, 1}},
	 {{DATA, 1, 0, 0}},
	 0},
	{"indirect table inside an indirect table",
	 INDIRECT,
	 {{TABLE, 16, VRING_DESC_F_INDIRECT, 0}},
	 {{TABLE, 16, VRING_DESC_F_INDIRECT, 0}},
	 0},
	{"length of an indirect table",
	 INDIRECT,
	 {{TABLE, 0, VRING_DESC_F_INDIRECT, 0}},
	 {{0}},
	 0},
	{"length of an indirect table",
	 INDIRECT,
	 {{TABLE, 15, VRING_DESC_F_INDIRECT, 0}},
	 {{0}},
	 0},
	{"length of an indirect table",
	 INDIRECT,
	 {{TABLE, 16 * (FAVO_VQ_MAX_SEGS + 1), VRING_DESC_F_INDIRECT, 0}},
	 {{0}},
	 0},
	{"length of an indirect table",
	 INDIRECT,
	 {{TABLE, 0xfffffff0, VRING_DESC_F_INDIRECT, 0}},
	 {{0}},
	 0},
	{"indirect table outside of guest RAM",
	 INDIRECT,
	 {{MEM_SIZE - 16, 32, VRING_DESC_F_INDIRECT, 0}},
	 {{0}},
	 0},
	{"indirect table outside of guest RAM",
	 INDIRECT,
	 {{~0ULL - 15, 32, VRING_DESC_F_INDIRECT, 0}},
	 {{0}},
	 0},
	{"descriptor index outside of its table",
	 INDIRECT,
	 {{TABLE, 32, VRING_DESC_F_INDIRECT, 0}},
	 {{DATA, 1, VRING_DESC_F_NEXT, 2}},
	 0},
	{"loop in a descriptor chain",
	 INDIRECT,
	 {{TABLE, 32, VRING_DESC_F_INDIRECT, 0}},
	 {{DATA, 1, VRING_DESC_F_NEXT, 0}},
	 0},
};

static void test_hostile_chains(void **state)
{
	struct fixture *f = *state;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(hostile); i++) {
		const struct hostile *h = &hostile[i];
		struct vring_desc *table = favo_guest_ptr(f->mem, TABLE, 4096);

		start(f, h->features);
		for (unsigned k = 0; k < 3; k++)
			drv_desc(&f->drv.desc[k], h->desc[k].addr, h->desc[k].len,
				 h->desc[k].flags, h->desc[k].next);
		for (unsigned k = 0; k < 2; k++)
			drv_desc(&table[k], h->table[k].addr, h->table[k].len,
				 h->table[k].flags, h->table[k].next);
		drv_offer(&f->drv, h->head);
		assert_broken(f, h->why);
	}
}

static void test_chain_longer_than_device(void **state)
{
	struct fixture *f = *state;
	struct drv_seg segs[5] = {{DATA, 1, false},
				  {DATA, 1, false},
				  {DATA, 1, false},
				  {DATA, 1, false},
				  {DATA, 1, true}};

	f->req.max_segs = 4;
	drv_add(&f->drv, segs, 5);
	assert_broken(f, "chain longer than the device allows");
}

static void test_index_jump(void **state)
{
	struct fixture *f = *state;

	f->drv.avail->idx = htole16(SIZE + 1);
	assert_broken(f, "available index jumped");
	start(f, 0);
	f->drv.avail->idx = htole16(0xffff); /* backwards */
	assert_broken(f, "available index jumped");
}

static void test_start_checks(void **state)
{
	struct fixture *f = *state;
	static const struct {
		uint16_t size;
		uint64_t desc, avail, used;
		int ret;
	} rows[] = {
		{0, RING, RING, RING, -EINVAL},
		{3, RING, RING, RING, -EINVAL},
		{512, RING, RING, RING, -EINVAL}, /* above max_size */
		{0x8000, RING, RING, RING, -EINVAL},
		{16, RING + 8, RING, RING, -EINVAL},
		{16, RING, RING + 1, RING, -EINVAL},
		{16, RING, RING, RING + 2, -EINVAL},
		{16, MEM_SIZE - 16, RING, RING, -EFAULT},
		{16, RING, MEM_SIZE - 36, RING, -EFAULT}, /* used_event sticks out */
		{16, RING, RING, MEM_SIZE - 132, -EFAULT},
		{16, ~0ULL - 15, RING, RING, -EFAULT},
		{16, RING, ~0ULL - 1, RING, -EFAULT},
		{16, RING, RING, MEM_SIZE - 136, 0},
		{256, RING, RING, RING, 0}, /* overlap is the driver's own problem */
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		favo_vq_stop(&f->vq);
		f->vq.size = rows[i].size;
		f->vq.desc_gpa = rows[i].desc;
		f->vq.avail_gpa = rows[i].avail;
		f->vq.used_gpa = rows[i].used;
		assert_int_equal(favo_vq_start(&f->vq, 0), rows[i].ret);
		assert_int_equal(f->vq.started, rows[i].ret == 0);
	}
}

static void test_stopped_queue_is_silent(void **state)
{
	struct fixture *f = *state;
	struct drv_seg seg = {DATA, 64, true};

	drv_add(&f->drv, &seg, 1);
	favo_vq_stop(&f->vq);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 0);
	assert_false(favo_vq_pending(&f->vq));
	favo_vq_push(&f->vq, 0, 64);
	favo_vq_disable_notify(&f->vq);
	assert_false(favo_vq_enable_notify(&f->vq));
	assert_false(favo_vq_need_interrupt(&f->vq));
	assert_int_equal(f->drv.used->idx, 0);
}

static void test_notify_flags(void **state)
{
	struct fixture *f = *state;
	struct drv_seg seg = {DATA, 64, true};

	favo_vq_disable_notify(&f->vq);
	assert_int_equal(f->drv.used->flags, VRING_USED_F_NO_NOTIFY);
	drv_add(&f->drv, &seg, 1);
	assert_true(favo_vq_enable_notify(&f->vq)); /* came in while off */
	assert_int_equal(f->drv.used->flags, 0);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
	assert_false(favo_vq_enable_notify(&f->vq));
	f->drv.avail->flags = htole16(VRING_AVAIL_F_NO_INTERRUPT);
	favo_vq_push(&f->vq, 0, 0);
	assert_false(favo_vq_need_interrupt(&f->vq));
}

/* Section 2.7.7.2 for each distance between event and index, across the wrap. */
static void test_event_index(void **state)
{
	struct fixture *f = *state;
	uint16_t *used_event = &f->drv.avail->ring[SIZE];
	uint16_t *avail_event = (uint16_t *)(void *)&f->drv.used->ring[SIZE];

	start(f, EVENT_IDX);
	for (uint32_t base = 0xfff0; base < 0x10010; base++) {
		for (uint16_t batch = 1; batch <= SIZE; batch++) {
			for (int event = -2; event < batch + 2; event++) {
				f->vq.used_idx = f->vq.signalled = (uint16_t)base;
				*used_event = htole16((uint16_t)(base + (uint32_t)event));
				favo_vq_flush(&f->vq, batch);
				assert_int_equal(favo_vq_need_interrupt(&f->vq),
						 event >= 0 && event < batch);
			}
		}
	}
	f->vq.last_avail = 7;
	f->drv.avail->idx = htole16(7);
	assert_false(favo_vq_enable_notify(&f->vq));
	assert_int_equal(*avail_event, 7);
	favo_vq_disable_notify(&f->vq);
	assert_int_equal(f->drv.used->flags, 0);
}

static void test_restored_queue_goes_on(void **state)
{
	struct fixture *f = *state;
	struct drv_seg seg = {DATA, 64, true};

	for (int i = 0; i < 5; i++)
		drv_add(&f->drv, &seg, 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
		favo_vq_push(&f->vq, f->req.head, 0);
	}
	favo_vq_stop(&f->vq);
	assert_int_equal(favo_vq_start(&f->vq, 0), 0);
	assert_int_equal(favo_vq_pop(&f->vq, &f->req), 1);
	assert_int_equal(f->req.head, 3);
	favo_vq_push(&f->vq, 3, 0);
	assert_int_equal(f->drv.used->idx, 4);
}

static void test_iovecs(void **state)
{
	char a[4] = "abcd", b[1] = "e", c[5] = "fghij", out[16] = "";
	struct iovec iov[] = {{a, 4}, {b, 1}, {c, 5}};

	(void)state;
	assert_int_equal(favo_iov_read(iov, 3, 0, out, 16), 10);
	assert_memory_equal(out, "abcdefghij", 10);
	assert_int_equal(favo_iov_read(iov, 3, 3, out, 3), 3);
	assert_memory_equal(out, "def", 3);
	assert_int_equal(favo_iov_read(iov, 3, 10, out, 1), 0);
	assert_int_equal(favo_iov_write(iov, 3, 4, "XYZ", 3), 3);
	assert_memory_equal(c, "YZhij", 5);
	assert_int_equal(b[0], 'X');
	assert_int_equal(favo_iov_write(iov, 3, 9, "12", 2), 1);
	assert_int_equal(favo_iov_skip(iov, 3, 5), 2);
	assert_int_equal(iov[2].iov_len, 5);
	assert_int_equal(favo_iov_skip(iov + 2, 1, 2), 0);
	assert_int_equal(iov[2].iov_len, 3);
	assert_int_equal(favo_iov_trim(iov, 3, 2), 3);
	assert_int_equal(iov[2].iov_len, 2);
	assert_int_equal(favo_iov_trim(iov, 3, 0), 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_full_queue_and_unpop, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_indirect, setup, teardown),
		cmocka_unit_test_setup_teardown(test_hostile_chains, setup, teardown),
		cmocka_unit_test_setup_teardown(test_chain_longer_than_device, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_index_jump, setup, teardown),
		cmocka_unit_test_setup_teardown(test_start_checks, setup, teardown),
		cmocka_unit_test_setup_teardown(test_stopped_queue_is_silent, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_notify_flags, setup, teardown),
		cmocka_unit_test_setup_teardown(test_event_index, setup, teardown),
		cmocka_unit_test_setup_teardown(test_restored_queue_goes_on, setup,
						teardown),
		cmocka_unit_test(test_iovecs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
