/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Life cycle and PCI transport with the entropy device, then what is special to
 * the entropy device and the console. The loop runs in a second thread, as in
 * favo-vmm.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>
#include <linux/virtio_pci.h>

#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/sink.h"
#include "virtio_testdrv.h"

#define DATA 0x40000
#define OK VIRTIO_CONFIG_S_DRIVER_OK
#define BAD VIRTIO_CONFIG_S_NEEDS_RESET
#define HELLO (VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER)

static const struct drv_seg rng_seg = {DATA, 64, true};

static void new_vm(struct drv *d)
{
	struct favo_vm *vm;

	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	drv_start(d, vm);
}

static int setup_rng(void **state)
{
	static struct drv d;

	new_vm(&d);
	assert_int_equal(favo_rng_add(d.vm, NULL), 0);
	assert_true(drv_find(&d, VIRTIO_ID_RNG));
	*state = &d;
	return 0;
}

static int teardown(void **state)
{
	drv_stop(*state);
	return 0;
}

static void assert_works(struct drv *d)
{
	assert_true(drv_init(d, ~0ULL));
	memset(drv_ptr(d, DATA), 0, 64);
	assert_int_equal(drv_do(d, 0, &rng_seg, 1), 64);
	assert_true(memcmp(drv_ptr(d, DATA), (char[64]){0}, 64) != 0);
	assert_int_equal(drv_status(d) & BAD, 0);
}

static void wait_bad(struct drv *d)
{
	for (int i = 0; i < 20000 && !(drv_status(d) & BAD); i++)
		usleep(100);
	assert_true(drv_status(d) & BAD);
}

static void test_round_trip_and_interrupt(void **state)
{
	struct drv *d = *state;
	unsigned msis = fake_kvm.msis;

	assert_works(d);
	for (int i = 0; i < 20000 && fake_kvm.msis == msis; i++)
		usleep(100);
	assert_int_equal(fake_kvm.msis, msis + 1);
	assert_int_equal(fake_kvm.last_msi.data, 0x41);
	assert_int_equal(drv_read(d, d->isr, 1), 1);
	assert_int_equal(drv_read(d, d->isr, 1), 0);
	assert_int_equal(fake_kvm.nioevents, 1);
}

static void test_reset_and_again(void **state)
{
	struct drv *d = *state;

	for (int i = 0; i < 50; i++) {
		assert_works(d);
		assert_true(drv_reset(d));
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
		assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 2),
				 0);
		assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 2),
				 0xffff);
	}
}

static void test_features(void **state)
{
	struct drv *d = *state;

	drv_set_status(d, HELLO);
	/* Without VERSION_1, and with a feature that was never offered. */
	drv_accept(d, 0);
	drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(drv_status(d), HELLO);
	drv_accept(d, 1ULL << VIRTIO_F_VERSION_1 | 1ULL << 50);
	drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(drv_status(d), HELLO);
	/* DRIVER_OK means nothing before FEATURES_OK. */
	drv_set_status(d, HELLO | OK);
	assert_int_equal(drv_status(d), HELLO);
	drv_accept(d, 1ULL << VIRTIO_F_VERSION_1);
	drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
	assert_int_equal(drv_status(d), HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
	/* Now they are fixed. */
	drv_accept(d, 0);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, 1, 4);
	assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_GF, 4), 1);
	/* Selectors beyond 64 bits read as nothing. */
	drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 7, 4);
	assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4), 0);
	/* The driver cannot set or clear NEEDS_RESET, nor take bits back. */
	drv_set_status(d, BAD);
	assert_int_equal(drv_status(d), HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
}

/* CVE-2016-6833, CVE-2022-1050: doorbells of a device that is not active. */
static void test_notify_before_driver_ok(void **state)
{
	struct drv *d = *state;

	drv_kick(d, 0);
	drv_kick(d, 900);
	drv_set_status(d, HELLO);
	drv_accept(d, 1ULL << VIRTIO_F_VERSION_1);
	drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
	drv_setup_queue(d, 0, 0x1000, 16);
	drv_add(&d->q[0], &rng_seg, 1);
	drv_kick(d, 0);
	usleep(20000);
	assert_int_equal(d->q[0].used->idx, 0);
	/* What waits at DRIVER_OK is served without a further notification. */
	drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK | OK);
	assert_true(drv_wait(d, 0, NULL, NULL));
}

/* CVE-2021-20203: sizes that overflow or lie outside. */
static void test_bad_queue_geometry(void **state)
{
	struct drv *d = *state;
	static const struct {
		uint16_t size;
		uint64_t desc;
	} rows[] = {
		{0, 0x1000},	  {3, 0x1000},	{128, 0x1000}, /* above the 64 offered */
		{0xffff, 0x1000}, {16, 0x1008}, {16, 0xffffffffffffff00},
		{16, 0xfec00000},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		assert_true(drv_reset(d));
		drv_set_status(d, HELLO);
		drv_accept(d, 1ULL << VIRTIO_F_VERSION_1);
		drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
		drv_setup_queue(d, 0, 0x1000, 16);
		assert_true(drv_reset(d));
		drv_set_status(d, HELLO);
		drv_accept(d, 1ULL << VIRTIO_F_VERSION_1);
		drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, rows[i].size, 2);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_DESCLO, rows[i].desc, 8);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_AVAILLO, 0x2000, 8);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_USEDLO, 0x3000, 8);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		drv_set_status(d, HELLO | VIRTIO_CONFIG_S_FEATURES_OK | OK);
		assert_true(drv_status(d) & BAD);
		drv_kick(d, 0);
	}
	assert_works(d);
}

static void test_broken_queue_needs_reset(void **state)
{
	struct drv *d = *state;
	struct drv_seg bad = {~0ULL - 100, 64, true};

	assert_works(d);
	drv_add(&d->q[0], &bad, 1);
	drv_kick(d, 0);
	wait_bad(d);
	/* Silent from now on, and as good as new after a reset. */
	drv_add(&d->q[0], &rng_seg, 1);
	drv_kick(d, 0);
	usleep(5000);
	assert_false(drv_used(&d->q[0], NULL, NULL));
	assert_works(d);
}

/* CVE-2011-2512, CVE-2013-4544: queue and vector numbers that are not there. */
static void test_queue_select_out_of_range(void **state)
{
	struct drv *d = *state;
	static const uint16_t rows[] = {1, 64, 0x7fff, 0xffff};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SELECT, rows[i], 2);
		assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, 2), 0);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, 16, 2);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 1, 2);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_DESCLO, 0x1000, 4);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
		assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 2),
				 0);
	}
	/* A vector that is not there reads back as none. */
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SELECT, 0, 2);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 2, 2);
	assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 2), 0xffff);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_MSIX, 0x8000, 2);
	assert_int_equal(drv_read(d, d->common + VIRTIO_PCI_COMMON_MSIX, 2), 0xffff);
}

/* Every byte of the BAR at every width; CVE-2018-20191, CVE-2015-8745. */
static void test_every_register(void **state)
{
	struct drv *d = *state;

	for (unsigned len = 1; len <= 8; len *= 2) {
		for (uint64_t off = 0; off < 0x8000; off += len) {
			if (off >= 0x4000 && off < 0x6000)
				continue;
			drv_read(d, d->common + off, len);
			drv_write(d, d->common + off, 0xa5a5a5a5a5a5a5a5, len);
			drv_read(d, d->common + off, len);
		}
	}
	assert_works(d);
}

static void test_bus_master_off(void **state)
{
	struct drv *d = *state;
	uint64_t command = FAVO_GPA_ECAM + d->devfn * 4096ULL + PCI_COMMAND;

	assert_works(d);
	drv_write(d, command, PCI_COMMAND_MEMORY, 2);
	drv_add(&d->q[0], &rng_seg, 1);
	drv_kick(d, 0);
	usleep(10000);
	assert_false(drv_used(&d->q[0], NULL, NULL));
	/* Back on, it goes on where it was, without another notification. */
	drv_write(d, command, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
	assert_true(drv_wait(d, 0, NULL, NULL));
}

static void test_config_window(void **state)
{
	struct drv *d = *state;
	uint64_t base = FAVO_GPA_ECAM + d->devfn * 4096ULL, cap;

	cap = drv_read(d, base + PCI_CAPABILITY_LIST, 1);
	while (cap && !(drv_read(d, base + cap, 1) == PCI_CAP_ID_VNDR &&
			drv_read(d, base + cap + 3, 1) == VIRTIO_PCI_CAP_PCI_CFG))
		cap = drv_read(d, base + cap + 1, 1);
	assert_true(cap);
	drv_write(d, base + cap + 8, VIRTIO_PCI_COMMON_NUMQ, 4);
	drv_write(d, base + cap + 12, 2, 4);
	assert_int_equal(drv_read(d, base + cap + 16, 2), 1);
	drv_write(d, base + cap + 8, VIRTIO_PCI_COMMON_STATUS, 4);
	drv_write(d, base + cap + 12, 1, 4);
	drv_write(d, base + cap + 16, HELLO, 1);
	assert_int_equal(drv_status(d), HELLO);
	/* Nonsense in the window reaches nothing. */
	static const uint32_t offsets[] = {0x14,       0x7ffc,	   0x8000,
					   0xfffffffc, 0xffffffff, 1};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(offsets); i++) {
		for (uint32_t len = 0; len < 9; len++) {
			drv_write(d, base + cap + 4, i, 1);
			drv_write(d, base + cap + 8, offsets[i], 4);
			drv_write(d, base + cap + 12, len, 4);
			drv_write(d, base + cap + 16, 0, 4);
		}
	}
}

static void test_rng_rate(void **state)
{
	struct drv *d = *state;
	struct drv_seg big = {DATA, 0x10000, true};
	int64_t start = favo_now_ms();
	uint64_t bytes = 0;

	assert_true(drv_init(d, ~0ULL));
	while (favo_now_ms() - start < 300) {
		int64_t n = drv_do(d, 0, &big, 1);

		assert_in_range(n, 1, 4096);
		bytes += (uint64_t)n;
	}
	/* Burst and rate, with room for a slow clock. */
	assert_in_range(bytes, 65536, 65536 + 1024 * 600);
}

/* ---- console ------------------------------------------------------------ */

/* in < 0: no input. */
static void add_console(struct drv *d, int out, int in)
{
	char spec[128];
	struct favo_err err = {0};

	new_vm(d);
	if (in < 0)
		snprintf(spec, sizeof(spec), "fd=%d", out);
	else
		snprintf(spec, sizeof(spec), "fd=%d,in=%d", out, in);
	if (favo_console_add(d->vm, spec, &err) < 0)
		fail_msg("%s", err.msg);
	assert_true(drv_find(d, VIRTIO_ID_CONSOLE));
	assert_true(drv_init(d, ~0ULL));
}

static void test_console_both_ways(void **state)
{
	struct drv d;
	int out[2], in[2];
	char buf[16];
	struct drv_seg tx[] = {{DATA, 3, false}, {DATA + 100, 2, false}};
	struct drv_seg rx = {DATA + 200, 4, true};
	uint32_t len;

	(void)state;
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	assert_int_equal(pipe2(in, O_CLOEXEC), 0);
	add_console(&d, out[1], in[0]);
	memcpy(drv_ptr(&d, DATA), "abc", 3);
	memcpy(drv_ptr(&d, DATA + 100), "de", 2);
	assert_int_equal(drv_do(&d, 1, tx, 2), 0);
	assert_int_equal(read(out[0], buf, sizeof(buf)), 5);
	assert_memory_equal(buf, "abcde", 5);
	/* Six bytes of input do not fit into the first buffer of four. */
	assert_int_equal(write(in[1], "uvwxyz", 6), 6);
	drv_add(&d.q[0], &rx, 1);
	drv_kick(&d, 0);
	assert_true(drv_wait(&d, 0, NULL, &len));
	assert_int_equal(len, 4);
	assert_memory_equal(drv_ptr(&d, DATA + 200), "uvwx", 4);
	assert_int_equal(drv_do(&d, 0, &rx, 1), 2);
	/* The writer goes away while the driver waits: no busy loop, no fault. */
	close(in[1]);
	drv_add(&d.q[0], &rx, 1);
	drv_kick(&d, 0);
	assert_int_equal(drv_do(&d, 1, tx, 2), 0);
	drv_stop(&d);
	close(out[0]);
}

static void test_console_full_pipe_and_closed_reader(void **state)
{
	struct drv d;
	int out[2];
	struct drv_seg tx = {DATA, 0x8000, false};

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	assert_int_equal(pipe2(out, O_CLOEXEC), 0);
	add_console(&d, out[1], -1);
	for (int i = 0; i < 10; i++)
		assert_int_equal(drv_do(&d, 1, &tx, 1), 0);
	close(out[0]);
	assert_int_equal(drv_do(&d, 1, &tx, 1), 0);
	drv_stop(&d);
}

static void test_sink_cap(void **state)
{
	char path[] = "/tmp/favo-sink-XXXXXX", line[64], *text;
	int fd = mkstemp(path), reader = open(path, O_RDONLY | O_CLOEXEC);
	struct favo_sink sink;
	ssize_t n;

	(void)state;
	unlink(path);
	assert_int_equal(favo_sink_init(&sink, fd, 4096, NULL), 0);
	for (int i = 0; i < 1000; i++) {
		snprintf(line, sizeof(line), "line %d\n", i);
		favo_sink_write(&sink, line, strlen(line));
		assert_in_range(lseek(reader, 0, SEEK_END), 1, 4096 + 64);
	}
	text = calloc(1, 8192);
	n = pread(reader, text, 8191, 0);
	assert_true(n > 0);
	assert_non_null(strstr(text, "[older console output dropped]\nline "));
	assert_string_equal(text + n - 9, "line 999\n");
	free(text);
	favo_sink_fini(&sink);
	close(reader);
}

static void test_sink_write_only(void **state)
{
	char path[] = "/tmp/favo-sink-XXXXXX", text[256] = "";
	int reader = mkstemp(path), fd = open(path, O_WRONLY | O_APPEND | O_CLOEXEC);
	struct favo_sink sink;

	(void)state;
	unlink(path);
	assert_int_equal(favo_sink_init(&sink, fd, 64, NULL), 0);
	for (int i = 0; i < 100; i++)
		favo_sink_write(&sink, "0123456789\n", 11);
	assert_true(pread(reader, text, sizeof(text) - 1, 0) > 0);
	assert_string_equal(text + strlen(text) - 19, "[console log full]\n");
	assert_int_equal(sink.dropped, 1100 - 55);
	favo_sink_fini(&sink);
	close(reader);
}

static void test_bad_specs(void **state)
{
	static const char *const console[] = {
		"",	      "fd=",	      "fd=77",
		"fd=-1",      "stdio,fd=1",   "stdio=1",
		"nonsense=1", "fd=1,fd=2",    "file=/nonexistent/x",
		"fd=1,cap=x", "fd=1,in=99999"};
	struct favo_vm *vm;

	(void)state;
	assert_int_equal(fake_vm_new(&vm, 1 << 20, NULL), 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(console); i++) {
		struct favo_err err = {0};

		/* Only open descriptors may be named: give them one that they own. */
		int fd = dup(2);
		char spec[64];

		if (strstr(console[i], "fd=1,")) {
			snprintf(spec, sizeof(spec), "fd=%d,%s", fd, console[i] + 5);
			assert_true(favo_console_add(vm, spec, &err) < 0);
		} else {
			close(fd);
			assert_true(favo_console_add(vm, console[i], &err) < 0);
		}
		assert_true(err.msg[0] != '\0');
	}
	fake_vm_free(vm);
}

int main(void)
{
#define RNG(t) cmocka_unit_test_setup_teardown(t, setup_rng, teardown)
	const struct CMUnitTest tests[] = {
		RNG(test_round_trip_and_interrupt),
		RNG(test_reset_and_again),
		RNG(test_features),
		RNG(test_notify_before_driver_ok),
		RNG(test_bad_queue_geometry),
		RNG(test_broken_queue_needs_reset),
		RNG(test_queue_select_out_of_range),
		RNG(test_every_register),
		RNG(test_bus_master_off),
		RNG(test_config_window),
		RNG(test_rng_rate),
		cmocka_unit_test(test_console_both_ways),
		cmocka_unit_test(test_console_full_pipe_and_closed_reader),
		cmocka_unit_test(test_sink_cap),
		cmocka_unit_test(test_sink_write_only),
		cmocka_unit_test(test_bad_specs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
