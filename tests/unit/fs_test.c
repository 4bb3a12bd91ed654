/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Shared directory device and vhost-user front end, against a small back end in
 * a thread: it maps the guest's memory from the descriptors it gets, and answers
 * each request by turning its bytes round. Also back ends that lie or are silent.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/virtqueue.h"
#include "virtio_testdrv.h"

#define DATA 0x40000
#define QUEUES 2

enum mood {
	GOOD,
	SILENT, /* reads and never answers */
	GONE, /* closes at the first request */
	WRONG_KIND, /* answers another request */
	WRONG_SIZE,
	REFUSES, /* acknowledges nothing */
	NO_VIRTIO_1,
};

struct msg {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, padding;
			struct {
				uint64_t gpa, size, user, offset;
			} r[8];
		} mem;
	};
} __attribute__((packed));

struct backend {
	enum mood mood;
	int sock, end_fd;
	pthread_t thread;
	struct favo_memory mem;
	uint64_t user[8];
	struct favo_vq vq[QUEUES];
	int kick[QUEUES], call[QUEUES];
	unsigned starts, stops;
};

static void answer(struct backend *b, const struct msg *msg, uint64_t value)
{
	struct msg a = {.request = msg->request, .flags = 5, .size = 8, .u64 = value};

	if (b->mood == WRONG_KIND)
		a.request++;
	if (b->mood == WRONG_SIZE)
		a.size = 4000;
	if (write(b->sock, &a, 20) != 20)
		return;
}

static uint64_t to_gpa(const struct backend *b, uint64_t user)
{
	for (unsigned i = 0; i < b->mem.nregions; i++)
		if (user >= b->user[i] && user < b->user[i] + b->mem.regions[i].size)
			return b->mem.regions[i].gpa + (user - b->user[i]);
	return ~0ULL;
}

static void map_memory(struct backend *b, const struct msg *msg, const int *fds)
{
	b->mem.nregions = msg->mem.n;
	for (unsigned i = 0; i < msg->mem.n; i++) {
		struct favo_mem_region *r = &b->mem.regions[i];

		r->gpa = msg->mem.r[i].gpa;
		r->size = msg->mem.r[i].size;
		b->user[i] = msg->mem.r[i].user;
		if (r->hva)
			munmap(r->hva, r->size);
		r->hva = mmap(NULL, r->size, PROT_READ | PROT_WRITE, MAP_SHARED, fds[i],
			      (off_t)msg->mem.r[i].offset);
		close(fds[i]);
	}
}

static void set_fd(int *slot, int fd)
{
	favo_close(slot);
	*slot = fd;
}

/* False at the end of the connection. */
static bool serve_message(struct backend *b)
{
	struct msg msg = {0};
	int fds[8] = {-1, -1, -1, -1, -1, -1, -1, -1};
	struct favo_vq *vq;
	uint64_t refuse = b->mood == REFUSES;
	size_t nfds = 0;

	if (favo_recv_fds(b->sock, &msg, 12, fds, 8, &nfds, NULL) != 12)
		return false;
	if (msg.size && favo_read_all(b->sock, &msg.u64, msg.size, 1000, NULL) < 0)
		return false;
	if (b->mood == SILENT)
		return true;
	if (b->mood == GONE)
		return false;
	vq = &b->vq[msg.state.index % QUEUES];
	switch (msg.request) {
	case 1:
		answer(b, &msg,
		       1ULL << 30 | 1ULL << 28 | 1ULL << 29 |
			       (b->mood == NO_VIRTIO_1 ? 0 : 1ULL << 32));
		return true;
	case 15:
		answer(b, &msg, 1 << 3 | 1 << 11);
		return true;
	case 5:
		map_memory(b, &msg, fds);
		break;
	case 8:
		vq->mem = &b->mem;
		vq->max_size = vq->size = (uint16_t)msg.state.num;
		break;
	case 9:
		vq->desc_gpa = to_gpa(b, msg.addr.desc);
		vq->avail_gpa = to_gpa(b, msg.addr.avail);
		vq->used_gpa = to_gpa(b, msg.addr.used);
		break;
	case 10:
		vq->last_avail = vq->used_idx = (uint16_t)msg.state.num;
		break;
	case 11:
		favo_vq_stop(vq);
		b->stops++;
		answer(b, &msg, (uint64_t)vq->last_avail << 32 | msg.state.index);
		return true;
	case 12:
		set_fd(&b->kick[msg.u64 % QUEUES], fds[0]);
		break;
	case 13:
		set_fd(&b->call[msg.u64 % QUEUES], fds[0]);
		break;
	case 18:
		if (favo_vq_start(vq, 0) < 0)
			abort();
		b->starts++;
		break;
	}
	if (msg.flags & 8)
		answer(b, &msg, refuse);
	return true;
}

/* Each request: the bytes the driver gave, in reverse. */
static void serve_queue(struct backend *b, unsigned q)
{
	struct iovec iov[8];
	struct favo_vq_req req = {.iov = iov, .max_segs = 8};
	uint8_t buf[64], back[64];
	eventfd_t count;

	eventfd_read(b->kick[q], &count);
	while (favo_vq_pop(&b->vq[q], &req) > 0) {
		size_t n = favo_iov_read(iov, req.nout, 0, buf, sizeof(buf));

		for (size_t i = 0; i < n; i++)
			back[i] = buf[n - 1 - i];
		n = favo_iov_write(iov + req.nout, req.nin, 0, back, n);
		favo_vq_push(&b->vq[q], req.head, (uint32_t)n);
		eventfd_write(b->call[q], 1);
	}
}

static void *run_backend(void *arg)
{
	struct backend *b = arg;

	for (;;) {
		struct pollfd p[] = {{b->sock, POLLIN, 0},
				     {b->end_fd, POLLIN, 0},
				     {b->kick[0], POLLIN, 0},
				     {b->kick[1], POLLIN, 0}};

		if (poll(p, 4, -1) < 0 || p[1].revents)
			break;
		if (p[0].revents && !serve_message(b))
			break;
		for (unsigned q = 0; q < QUEUES; q++)
			if (p[2 + q].revents & POLLIN)
				serve_queue(b, q);
	}
	favo_close(&b->sock);
	return NULL;
}

static int start_backend(struct backend *b, enum mood mood)
{
	int pair[2];

	memset(b, 0, sizeof(*b));
	b->mood = mood;
	for (unsigned q = 0; q < QUEUES; q++)
		b->kick[q] = b->call[q] = -1;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	b->sock = pair[0];
	b->end_fd = eventfd(0, EFD_CLOEXEC);
	assert_int_equal(pthread_create(&b->thread, NULL, run_backend, b), 0);
	return pair[1];
}

static void stop_backend(struct backend *b)
{
	eventfd_write(b->end_fd, 1);
	pthread_join(b->thread, NULL);
	close(b->end_fd);
	for (unsigned q = 0; q < QUEUES; q++) {
		favo_close(&b->kick[q]);
		favo_close(&b->call[q]);
	}
	for (unsigned i = 0; i < b->mem.nregions; i++)
		munmap(b->mem.regions[i].hva, b->mem.regions[i].size);
}

static int add_fs(struct favo_vm *vm, struct backend *b, enum mood mood,
		  struct favo_err *err)
{
	char *spec = favo_asprintf("fd=%d,tag=home", start_backend(b, mood));
	int ret = favo_fs_add(vm, spec, err);

	free(spec);
	return ret;
}

static void start(struct drv *d, struct backend *b)
{
	struct favo_err err = {0};
	struct favo_vm *vm;

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	drv_start(d, vm);
	if (add_fs(vm, b, GOOD, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(drv_find(d, VIRTIO_ID_FS));
	assert_true(drv_init(d, ~0ULL));
}

static void echo(struct drv *d, unsigned q)
{
	struct drv_seg segs[] = {{DATA, 5, false}, {DATA + 64, 16, true}};

	memcpy(drv_ptr(d, DATA), "abcde", 5);
	assert_int_equal(drv_do(d, q, segs, 2), 5);
	assert_memory_equal(drv_ptr(d, DATA + 64), "edcba", 5);
}

static void test_requests(void **state)
{
	struct drv d;
	struct backend b;
	char tag[5] = "";

	(void)state;
	start(&d, &b);
	for (unsigned i = 0; i < 4; i++)
		tag[i] = (char)drv_read(&d, d.device + i, 1);
	assert_string_equal(tag, "home");
	assert_int_equal(drv_read(&d, d.device + 36, 4), 1);
	/* What the back end does not know of rings is not offered: event index is. */
	assert_true(drv_offered(&d) & 1ULL << 29);
	for (unsigned i = 0; i < 100; i++)
		echo(&d, i % 2);
	drv_stop(&d);
	stop_backend(&b);
}

static void test_reset_and_again(void **state)
{
	struct drv d;
	struct backend b;

	(void)state;
	start(&d, &b);
	for (unsigned i = 0; i < 20; i++) {
		echo(&d, 1);
		assert_true(drv_init(&d, ~0ULL));
	}
	echo(&d, 0);
	drv_stop(&d);
	assert_int_equal(b.starts, 42);
	assert_int_equal(b.stops, 42);
	stop_backend(&b);
}

static void test_backend_dies(void **state)
{
	struct drv d;
	struct backend b;

	(void)state;
	start(&d, &b);
	echo(&d, 1);
	stop_backend(&b);
	for (int i = 0; i < 20000 && !(drv_status(&d) & VIRTIO_CONFIG_S_NEEDS_RESET); i++)
		usleep(100);
	assert_true(drv_status(&d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	/* Nobody is there any more: the driver learns it, at once. */
	assert_false(drv_init(&d, ~0ULL));
	assert_true(drv_status(&d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	drv_stop(&d);
}

static void test_bad_backends(void **state)
{
	static const enum mood moods[] = {SILENT,     GONE,    WRONG_KIND,
					  WRONG_SIZE, REFUSES, NO_VIRTIO_1};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(moods); i++) {
		int64_t begin = favo_now_ms();
		struct favo_err err = {0};
		struct favo_vm *vm;
		struct backend b;

		assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
		assert_true(add_fs(vm, &b, moods[i], &err) < 0);
		assert_true(err.msg[0] != '\0');
		assert_true(favo_now_ms() - begin < 5000);
		stop_backend(&b);
		fake_vm_free(vm);
	}
}

static void test_bad_specs(void **state)
{
	static const char *const rows[] = {
		"",
		"tag=x",
		"socket=/nonexistent/favo,tag=x",
		"fd=1,socket=/x,tag=x",
		"fd=4000,tag=x",
		"socket=/x",
		"socket=/x,tag=a-tag-that-is-longer-than-the-36-bytes",
		"socket=/x,tag=x,queues=0",
		"socket=/x,tag=x,queues=17",
	};
	struct favo_vm *vm;

	(void)state;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct favo_err err = {0};

		assert_true(favo_fs_add(vm, rows[i], &err) < 0);
		assert_true(err.msg[0] != '\0');
	}
	fake_vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_requests),
		cmocka_unit_test(test_reset_and_again),
		cmocka_unit_test(test_backend_dies),
		cmocka_unit_test(test_bad_backends),
		cmocka_unit_test(test_bad_specs),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
