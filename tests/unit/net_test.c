/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Network device in user space, with a socket pair in the place of the tap:
 * both directions, mergeable buffers, lack of buffers, and hostile rings.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_net.h>

#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "virtio_testdrv.h"

#define RX 0
#define TX 1
#define DATA 0x40000
#define HDR 12

struct net_fixture {
	struct drv d;
	int wire;
};

static void start(struct net_fixture *f, uint64_t features)
{
	struct favo_err err = {0};
	struct favo_vm *vm;
	char spec[64];
	int pair[2];

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	drv_start(&f->d, vm);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	f->wire = pair[0];
	snprintf(spec, sizeof(spec), "fd=%d,mac=02:fa:00:01:00:07,mtu=1450", pair[1]);
	if (favo_net_add(vm, spec, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(drv_find(&f->d, VIRTIO_ID_NET));
	assert_true(drv_init(&f->d, features));
}

static int setup(void **state)
{
	static struct net_fixture f;

	start(&f, ~0ULL);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct net_fixture *f = *state;

	drv_stop(&f->d);
	close(f->wire);
	return 0;
}

static void put_frame(struct net_fixture *f, size_t len)
{
	uint8_t frame[70000] = {0};

	for (size_t i = HDR; i < len; i++)
		frame[i] = (uint8_t)(i * 11);
	assert_int_equal(write(f->wire, frame, len), len);
}

static void add_buffer(struct net_fixture *f, uint64_t gpa, uint32_t len)
{
	struct drv_seg seg = {gpa, len, true};

	drv_add(&f->d.q[RX], &seg, 1);
	drv_kick(&f->d, RX);
}

static void test_config(void **state)
{
	struct net_fixture *f = *state;
	static const uint8_t mac[] = {0x02, 0xfa, 0, 1, 0, 7};

	for (unsigned i = 0; i < 6; i++)
		assert_int_equal(drv_read(&f->d, f->d.device + i, 1), mac[i]);
	assert_int_equal(drv_read(&f->d, f->d.device + 6, 2), VIRTIO_NET_S_LINK_UP);
	assert_int_equal(drv_read(&f->d, f->d.device + 10, 2), 1450);
	/* No offloads without a kernel behind it. */
	assert_false(drv_offered(&f->d) & 1ULL << VIRTIO_NET_F_HOST_TSO4);
	assert_true(drv_offered(&f->d) & 1ULL << VIRTIO_NET_F_MTU);
}

static void test_both_ways(void **state)
{
	struct net_fixture *f = *state;
	struct drv_seg tx[] = {{DATA, HDR, false}, {DATA + 0x100, 60, false}};
	uint8_t buf[2048], *p = drv_ptr(&f->d, DATA);
	uint32_t len;

	memset(p, 0, HDR);
	memset(p + 0x100, 0x77, 60);
	assert_int_equal(drv_do(&f->d, TX, tx, 2), 0);
	assert_int_equal(read(f->wire, buf, sizeof(buf)), HDR + 60);
	assert_int_equal(buf[HDR], 0x77);
	/* Buffers may come before the frame or after it. */
	for (unsigned i = 0; i < 100; i++) {
		if (i & 1)
			put_frame(f, HDR + 100);
		add_buffer(f, DATA, 1600);
		if (!(i & 1))
			put_frame(f, HDR + 100);
		assert_true(drv_wait(&f->d, RX, NULL, &len));
		assert_int_equal(len, HDR + 100);
		assert_int_equal(p[10], 1); /* num_buffers */
		assert_int_equal(p[HDR + 99], (uint8_t)((HDR + 99) * 11));
	}
}

/* CVE-2017-5931, CVE-2021-3748: the count is written with its buffers. */
static void test_mergeable(void **state)
{
	struct net_fixture *f = *state;
	uint8_t *p = drv_ptr(&f->d, DATA);
	uint32_t len, total = 0;

	for (unsigned i = 0; i < 5; i++)
		add_buffer(f, DATA + i * 0x1000, 100 + 200 * i);
	put_frame(f, HDR + 1000);
	for (unsigned i = 0; i < 4; i++) {
		assert_true(drv_wait(&f->d, RX, NULL, &len));
		for (uint32_t k = i ? 0 : HDR; k < len; k++)
			assert_int_equal(p[i * 0x1000 + k], (uint8_t)((total + k) * 11));
		total += len;
	}
	assert_int_equal(total, HDR + 1000);
	assert_int_equal(p[10], 4);
	usleep(2000);
	assert_false(drv_used(&f->d.q[RX], NULL, NULL));
	/* The fifth is still ours: a small frame goes there. */
	put_frame(f, HDR + 64);
	assert_true(drv_wait(&f->d, RX, NULL, &len));
	assert_int_equal(len, HDR + 64);
}

/* A frame that does not fit in what is there is dropped, buffers stay. */
static void test_too_few_buffers(void **state)
{
	struct net_fixture *f = *state;
	uint32_t len;

	add_buffer(f, DATA, 200);
	add_buffer(f, DATA + 0x1000, 200);
	put_frame(f, HDR + 5000);
	put_frame(f, HDR + 300);
	assert_true(drv_wait(&f->d, RX, NULL, &len));
	assert_int_equal(len, 200);
	assert_true(drv_wait(&f->d, RX, NULL, &len));
	assert_int_equal(len, HDR + 100);
}

static void test_not_mergeable(void **state)
{
	struct net_fixture *f = *state;
	uint32_t len;

	assert_true(drv_init(&f->d, 0));
	add_buffer(f, DATA, 1526);
	put_frame(f, HDR + 2000);
	put_frame(f, HDR + 64);
	assert_true(drv_wait(&f->d, RX, NULL, &len));
	assert_int_equal(len, HDR + 64);
}

static void wait_bad(struct net_fixture *f)
{
	for (int i = 0; i < 20000 && !(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
	     i++)
		usleep(100);
	assert_true(drv_status(&f->d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

/* CVE-2015-8744, CVE-2015-7295: buffers too short for what goes in or out. */
static void test_hostile(void **state)
{
	struct net_fixture *f = *state;
	static const struct drv_seg tx[] = {{DATA, 1, false},
					    {DATA, HDR, false},
					    {DATA, 0x20000, false},
					    {DATA, 512, true}};
	struct drv_seg readable = {DATA, 1600, false};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(tx); i++)
		assert_int_equal(drv_do(&f->d, TX, &tx[i], 1), 0);
	assert_int_equal(poll(&(struct pollfd){f->wire, POLLIN, 0}, 1, 20), 0);
	add_buffer(f, DATA, HDR - 1);
	put_frame(f, HDR + 64);
	wait_bad(f);
	/* Receive buffers that cannot be written, first or as a later one. */
	assert_true(drv_init(&f->d, ~0ULL));
	drv_add(&f->d.q[RX], &readable, 1);
	drv_kick(&f->d, RX);
	put_frame(f, HDR + 64);
	wait_bad(f);
	assert_true(drv_init(&f->d, ~0ULL));
	add_buffer(f, DATA, 64);
	usleep(5000);
	while (recv(f->wire, (char[1]){0}, 1, MSG_DONTWAIT) > 0)
		;
	drv_add(&f->d.q[RX], &readable, 1);
	drv_kick(&f->d, RX);
	put_frame(f, HDR + 640);
	wait_bad(f);
	assert_true(drv_init(&f->d, ~0ULL));
	add_buffer(f, DATA, 1600);
	put_frame(f, HDR + 64);
	assert_true(drv_wait(&f->d, RX, NULL, NULL));
}

/* Reset while frames come in: after status 0 nothing is written any more. */
static void test_reset_in_traffic(void **state)
{
	struct net_fixture *f = *state;
	uint8_t *p = drv_ptr(&f->d, DATA);

	for (unsigned round = 0; round < 100; round++) {
		for (unsigned i = 0; i < 8; i++)
			add_buffer(f, DATA + i * 0x1000, 1600);
		for (unsigned i = 0; i < 6; i++)
			put_frame(f, HDR + 600);
		assert_true(drv_reset(&f->d));
		memset(p, 0xc5, 8 * 0x1000);
		usleep(200);
		for (unsigned i = 0; i < 8 * 0x1000; i++)
			assert_int_equal(p[i], 0xc5);
		assert_true(drv_init(&f->d, ~0ULL));
		/* Empty the wire. */
		for (unsigned i = 0; i < 8; i++)
			add_buffer(f, DATA + i * 0x1000, 1600);
		put_frame(f, HDR + 1);
		for (uint32_t len = 0; len != HDR + 1;)
			assert_true(drv_wait(&f->d, RX, NULL, &len));
		assert_true(drv_init(&f->d, ~0ULL));
	}
}

static void test_peer_gone(void **state)
{
	struct net_fixture *f = *state;
	struct drv_seg tx = {DATA, 100, false};

	signal(SIGPIPE, SIG_IGN);
	add_buffer(f, DATA, 1600);
	close(f->wire);
	f->wire = -1;
	assert_int_equal(drv_do(&f->d, TX, &tx, 1), 0);
}

static void test_bad_specs(void **state)
{
	static const char *const rows[] = {
		"",
		"fd=1,tap=x",
		"tap=a-name-that-is-far-too-long",
		"fd=3000",
		"mac=02:00:00:00:00",
		"tap=x,mac=01:00:00:00:00:00",
		"tap=x,mac=02:fa:00:01:00:0",
		"tap=x,mac=02:fa:00:01:00:0x",
		"tap=x,mac=02:fa:00:01:00:021",
		"tap=x,mtu=10",
		"tap=x,mtu=70000",
	};
	struct favo_vm *vm;

	(void)state;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct favo_err err = {0};

		assert_true(favo_net_add(vm, rows[i], &err) < 0);
		assert_true(err.msg[0] != '\0');
	}
	assert_true(favo_vsock_add(vm, "cid=2", NULL) < 0);
	assert_true(favo_vsock_add(vm, "cid=4294967295", NULL) < 0);
	assert_true(favo_vsock_add(vm, "fd=3", NULL) < 0);
	fake_vm_free(vm);
}

int main(void)
{
#define NET(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		NET(test_config),
		NET(test_both_ways),
		NET(test_mergeable),
		NET(test_too_few_buffers),
		NET(test_not_mergeable),
		NET(test_hostile),
		NET(test_reset_in_traffic),
		NET(test_peer_gone),
		cmocka_unit_test(test_bad_specs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
