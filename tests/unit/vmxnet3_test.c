/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vmxnet3 card, with a driver that is played here and a socket pair in the
 * place of the tap. Each CVE of other vmxnet3 models has a row or a test.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_net.h>

#include "common/util.h"
#include "hypervisor/pci.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/vmxnet3/abi.h"
#include "hypervisor/vmxnet3/device.h"
#include "tests/unit/fake_kvm.h"

#define MEM (1 << 20)
#define HDR 12
#define N 64 /* descriptors of each ring */

/* Where the driver has its things. */
#define SHARED 0x1000
#define QUEUES 0x2000
#define TX_RING 0x3000
#define TX_COMP 0x4000
#define RX_RING0 0x5000
#define RX_RING1 0x6000
#define RX_COMP 0x7000
#define TX_DATA 0x20000
#define RX_DATA 0x40000
#define RX_LEN 2048

static const uint8_t mac[6] = {0x02, 0xfa, 0, 1, 0, 9};

struct fixture {
	struct favo_vm *vm;
	pthread_t thread;
	int wire;
	uint64_t ecam, pt, vd;
	uint32_t tx_next, tx_gen, txc_next, rxc_next;
};

static void *run_loop(void *arg)
{
	favo_loop_run(arg, NULL);
	return NULL;
}

static uint8_t *mem(struct fixture *f, uint64_t gpa)
{
	return favo_guest_ptr(f->vm->mem, gpa, 1);
}

static void put32(struct fixture *f, uint64_t gpa, uint32_t v)
{
	__atomic_store_n((uint32_t *)mem(f, gpa), v, __ATOMIC_RELEASE);
}

static uint32_t get32(struct fixture *f, uint64_t gpa)
{
	return __atomic_load_n((uint32_t *)mem(f, gpa), __ATOMIC_ACQUIRE);
}

static void put64(struct fixture *f, uint64_t gpa, uint64_t v)
{
	memcpy(mem(f, gpa), &v, sizeof(v));
}

static uint32_t rd(struct fixture *f, uint64_t addr)
{
	return (uint32_t)favo_iobus_read(f->vm->mmio, addr, 4);
}

static void wr(struct fixture *f, uint64_t addr, uint32_t v)
{
	favo_iobus_write(f->vm->mmio, addr, v, 4);
}

static uint32_t command(struct fixture *f, uint32_t cmd)
{
	wr(f, f->vd + VD_CMD, cmd);
	return rd(f, f->vd + VD_CMD);
}

static void set_master(struct fixture *f, bool on)
{
	favo_iobus_write(f->vm->mmio, f->ecam + 4, on ? 6 : 2, 2);
}

/* All vectors on, with messages of their own. */
static void enable_msix(struct fixture *f)
{
	uint64_t table = rd(f, f->ecam + 0x18) & ~15u;
	unsigned cap = (unsigned)favo_iobus_read(f->vm->mmio, f->ecam + 0x34, 1);

	for (unsigned v = 0; v < 25; v++) {
		wr(f, table + 16 * v, 0xfee00000);
		wr(f, table + 16 * v + 8, v);
		wr(f, table + 16 * v + 12, 0);
	}
	favo_iobus_write(f->vm->mmio, f->ecam + cap + 2, 0x8000, 2);
}

/* What a right driver prepares; tests then spoil it. */
static void prepare(struct fixture *f)
{
	const uint64_t tx = QUEUES, rx = QUEUES + QUEUE_DESC_SIZE;

	memset(mem(f, SHARED), 0, RX_DATA - SHARED);
	put32(f, SHARED + S_MAGIC, SHARED_MAGIC);
	put64(f, SHARED + S_QUEUES_PA, QUEUES);
	put32(f, SHARED + S_QUEUES_LEN, 2 * QUEUE_DESC_SIZE);
	*mem(f, SHARED + S_NUM_TX) = 1;
	*mem(f, SHARED + S_NUM_RX) = 1;
	*mem(f, SHARED + S_AUTO_MASK) = 1;
	*mem(f, SHARED + S_NUM_INTRS) = 3;
	*mem(f, SHARED + S_EVENT_INTR) = 2;
	put32(f, SHARED + S_RX_MODE,
	      RX_MODE_UNICAST | RX_MODE_BROADCAST | RX_MODE_MULTICAST);
	put64(f, tx + TQ_RING_PA, TX_RING);
	put64(f, tx + TQ_COMP_PA, TX_COMP);
	put32(f, tx + TQ_RING_SIZE, N);
	put32(f, tx + TQ_COMP_SIZE, N);
	*mem(f, tx + TQ_INTR) = 0;
	put64(f, rx + RQ_RING_PA, RX_RING0);
	put64(f, rx + RQ_RING_PA + 8, RX_RING1);
	put64(f, rx + RQ_COMP_PA, RX_COMP);
	put32(f, rx + RQ_RING_SIZE, N);
	put32(f, rx + RQ_RING_SIZE + 4, N);
	put32(f, rx + RQ_COMP_SIZE, 2 * N);
	*mem(f, rx + RQ_INTR) = 1;
	f->tx_next = f->txc_next = f->rxc_next = 0;
	f->tx_gen = 1;
}

static uint32_t activate(struct fixture *f)
{
	uint32_t ret;

	wr(f, f->vd + VD_DSAL, SHARED);
	wr(f, f->vd + VD_DSAH, 0);
	ret = command(f, CMD_ACTIVATE);
	for (unsigned v = 0; v < 3; v++)
		wr(f, f->pt + PT_IMR + 8 * v, 0);
	return ret;
}

static int setup(void **state)
{
	static struct fixture f;
	struct favo_err err = {0};
	struct favo_pci_device *pci;
	char spec[80];
	int pair[2];

	memset(&f, 0, sizeof(f));
	assert_int_equal(fake_vm_new(&f.vm, MEM, NULL), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	f.wire = pair[0];
	snprintf(spec, sizeof(spec), "fd=%d,mac=02:fa:00:01:00:09,model=vmxnet3",
		 pair[1]);
	if (favo_net_add(f.vm, spec, &err) < 0)
		fail_msg("%s", err.msg);
	pci = favo_vmxnet3_find(f.vm, mac);
	assert_non_null(pci);
	f.ecam = FAVO_GPA_ECAM + pci->devfn * 4096ULL;
	set_master(&f, true);
	f.pt = rd(&f, f.ecam + 0x10) & ~15u;
	f.vd = rd(&f, f.ecam + 0x14) & ~15u;
	enable_msix(&f);
	assert_int_equal(pthread_create(&f.thread, NULL, run_loop, f.vm->loop), 0);
	prepare(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_loop_stop(f->vm->loop);
	pthread_join(f->thread, NULL);
	fake_vm_free(f->vm);
	close(f->wire);
	return 0;
}

/* ---- the driver's work --------------------------------------------------- */

/* One descriptor; the flags of dw2 without generation, of dw3 whole. */
static void tx_desc(struct fixture *f, uint64_t gpa, uint32_t w2, uint32_t w3)
{
	uint64_t at = TX_RING + f->tx_next * 16;

	put64(f, at, gpa);
	put32(f, at + 12, w3);
	put32(f, at + 8, w2 | f->tx_gen << TXD_GEN);
	if (++f->tx_next == N) {
		f->tx_next = 0;
		f->tx_gen ^= 1;
	}
}

static void kick(struct fixture *f)
{
	wr(f, f->pt + PT_TXPROD, f->tx_next);
}

static bool wait_gen(struct fixture *f, uint64_t gpa, uint32_t gen)
{
	for (int i = 0; i < 50000; i++) {
		if (get32(f, gpa) >> COMP_GEN == gen)
			return true;
		usleep(100);
	}
	return false;
}

/* The index in the next transmit completion. */
static uint32_t tx_done(struct fixture *f)
{
	uint64_t at = TX_COMP + f->txc_next % N * 16;

	assert_true(wait_gen(f, at + 12, f->txc_next / N % 2 == 0));
	/* CVE-2016-6836: nothing of the host's memory comes along. */
	assert_int_equal(get32(f, at + 4) | get32(f, at + 8), 0);
	f->txc_next++;
	return get32(f, at) & 0xfff;
}

static void rx_desc(struct fixture *f, unsigned ring, unsigned i, uint64_t gpa,
		    uint32_t len, bool body)
{
	uint64_t at = (ring ? RX_RING1 : RX_RING0) + i * 16;

	put64(f, at, gpa);
	put32(f, at + 8, len | (body ? RXD_BODY : 0) | 1u << RXD_GEN);
}

struct rx_comp {
	uint32_t w0, len, w3;
};

static struct rx_comp rx_done(struct fixture *f)
{
	uint64_t at = RX_COMP + f->rxc_next % (2 * N) * 16;

	assert_true(wait_gen(f, at + 12, f->rxc_next / (2 * N) % 2 == 0));
	f->rxc_next++;
	return (struct rx_comp){get32(f, at), get32(f, at + 8), get32(f, at + 12)};
}

static void send_frame(struct fixture *f, const uint8_t *to, size_t len)
{
	uint8_t frame[HDR + 20000] = {0};

	for (size_t i = 0; i < len; i++)
		frame[HDR + i] = (uint8_t)(i * 7);
	memcpy(frame + HDR, to, 6);
	assert_int_equal(write(f->wire, frame, HDR + len), HDR + len);
}

static size_t get_frame(struct fixture *f, uint8_t *buf, size_t size)
{
	struct pollfd p = {.fd = f->wire, .events = POLLIN};

	assert_int_equal(poll(&p, 1, 5000), 1);
	return (size_t)read(f->wire, buf, size);
}

static bool is_silent(struct fixture *f)
{
	return poll(&(struct pollfd){f->wire, POLLIN, 0}, 1, 20) == 0;
}

/* ---- tests --------------------------------------------------------------- */

static void test_registers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, f->ecam), 0x07b015ad);
	assert_int_equal(rd(f, f->ecam + 8), 0x02000001);
	assert_int_equal(rd(f, f->vd + VD_VRRS), 1);
	assert_int_equal(rd(f, f->vd + VD_UVRS), 1);
	assert_int_equal(command(f, CMD_GET_MAC_LO), 0x0100fa02);
	assert_int_equal(command(f, CMD_GET_MAC_HI), 0x0900);
	assert_int_equal(command(f, CMD_GET_LINK) & 1, 1);
	assert_int_equal(command(f, CMD_GET_CONF_INTR), 3);
	assert_int_equal(command(f, 0xf00d0042), 0);
	wr(f, f->vd + VD_MACL, 0x44332211);
	assert_int_equal(rd(f, f->vd + VD_MACL), 0x44332211);
	/* The burnt-in address stays, and comes back. */
	assert_int_equal(command(f, CMD_GET_MAC_LO), 0x0100fa02);
	command(f, CMD_RESET);
	assert_int_equal(rd(f, f->vd + VD_MACL), 0x0100fa02);
	/* CVE-2015-8745: masks can be read; every offset and width has an answer. */
	assert_int_equal(rd(f, f->pt + PT_IMR), 1);
	for (unsigned off = 0; off < 4096; off += 8)
		for (unsigned len = 1; len <= 8; len *= 2) {
			(void)favo_iobus_read(f->vm->mmio, f->pt + off, len);
			(void)favo_iobus_read(f->vm->mmio, f->vd + off, len);
			favo_iobus_write(f->vm->mmio, f->pt + off, ~0ULL, len);
			if (off != VD_CMD)
				favo_iobus_write(f->vm->mmio, f->vd + off, ~0ULL, len);
		}
}

static void test_send(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[4096], *p = mem(f, TX_DATA);

	assert_int_equal(activate(f), 0);
	for (unsigned i = 0; i < 200; i++)
		p[i] = (uint8_t)(i * 3);
	/* Several times around the ring, one piece and three pieces. */
	for (unsigned i = 0; i < 3 * N; i++) {
		uint32_t last = f->tx_next;

		if (i % 2) {
			tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
		} else {
			tx_desc(f, TX_DATA, 20, 0);
			tx_desc(f, TX_DATA + 20, 20, 0);
			last = f->tx_next;
			tx_desc(f, TX_DATA + 40, 20, TXD_EOP | TXD_WANTS_COMP);
		}
		kick(f);
		assert_int_equal(tx_done(f), last);
		assert_int_equal(get_frame(f, buf, sizeof(buf)), HDR + 60);
		assert_memory_equal(buf + HDR, p, 60);
	}
	command(f, CMD_GET_STATS);
	assert_int_equal(get32(f, QUEUES + TQ_STATS + 8 * 2), 3 * N);
}

static void test_checksum_and_tag(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[4096], *p = mem(f, TX_DATA);
	struct virtio_net_hdr h;

	assert_int_equal(activate(f), 0);
	memset(p, 0x11, 100);
	tx_desc(f, TX_DATA, 100 | 50u << 18,
		34 | TXD_OM_CSUM << 10 | TXD_EOP | TXD_WANTS_COMP | TXD_TAG | 5u << 16);
	kick(f);
	assert_int_equal(get_frame(f, buf, sizeof(buf)), HDR + 104);
	memcpy(&h, buf, sizeof(h));
	assert_int_equal(h.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
	assert_int_equal(h.csum_start, 38);
	assert_int_equal(h.csum_offset, 16);
	assert_memory_equal(buf + HDR + 12, ((uint8_t[]){0x81, 0, 0, 5, 0x11}), 5);
	/* The driver's copy is as it was. */
	assert_int_equal(p[12], 0x11);
}

/* One IPv4 TCP frame of 3000 bytes, to be cut by the kernel. */
static void test_segments(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[4096], *p = mem(f, TX_DATA);
	struct virtio_net_hdr h;
	uint32_t sum = 0x0a00 + 0x0001 + 0x0a00 + 0x0002 + 6 + 2980 - 14;

	assert_int_equal(activate(f), 0);
	memset(p, 0, 3000);
	p[12] = 8;
	p[14] = 0x45;
	p[23] = 6;
	memcpy(p + 26, ((uint8_t[]){10, 0, 0, 1, 10, 0, 0, 2}), 8);
	tx_desc(f, TX_DATA, 54, 54 | TXD_OM_TSO << 10);
	f->tx_next--; /* the first descriptor says what is asked */
	tx_desc(f, TX_DATA, 54 | 1000u << 18, 54 | TXD_OM_TSO << 10);
	tx_desc(f, TX_DATA + 54, 2946, TXD_EOP | TXD_WANTS_COMP);
	kick(f);
	assert_int_equal(get_frame(f, buf, sizeof(buf)), HDR + 3000);
	memcpy(&h, buf, sizeof(h));
	assert_int_equal(h.gso_type, VIRTIO_NET_HDR_GSO_TCPV4);
	assert_int_equal(h.gso_size, 1000);
	assert_int_equal(h.hdr_len, 54);
	assert_int_equal(h.csum_start, 34);
	assert_int_equal(buf[HDR + 50] << 8 | buf[HDR + 51], sum);
}

static void test_receive(void **state)
{
	struct fixture *f = *state;
	struct rx_comp c;

	assert_int_equal(activate(f), 0);
	for (unsigned i = 0; i < N; i++) {
		rx_desc(f, 0, i, RX_DATA + i * RX_LEN, RX_LEN, false);
		rx_desc(f, 1, i, RX_DATA + (N + i) * RX_LEN, RX_LEN, true);
	}
	send_frame(f, mac, 100);
	c = rx_done(f);
	assert_int_equal(c.w0, 0 | RXC_SOP | RXC_EOP | RXC_NO_CSUM);
	assert_int_equal(c.len, 100);
	assert_int_equal(c.w3 >> 24, 0x83);
	assert_int_equal(mem(f, RX_DATA)[99], (uint8_t)(99 * 7));
	/* A long frame goes on in ring 1, whose queue number is another. */
	send_frame(f, mac, 5000);
	c = rx_done(f);
	assert_int_equal(c.w0, 1 | RXC_SOP | RXC_NO_CSUM);
	assert_int_equal(c.len, RX_LEN);
	c = rx_done(f);
	assert_int_equal(c.w0, 0 | RXC_QUEUE(1) | RXC_NO_CSUM);
	c = rx_done(f);
	assert_int_equal(c.w0, 1 | RXC_QUEUE(1) | RXC_EOP | RXC_NO_CSUM);
	assert_int_equal(c.len, 5000 - 2 * RX_LEN);
	assert_int_equal(mem(f, RX_DATA + (N + 1) * RX_LEN)[c.len - 1],
			 (uint8_t)(4999 * 7));
	/* For others, and too short: not delivered. */
	send_frame(f, (const uint8_t[]){2, 2, 2, 2, 2, 2}, 100);
	assert_int_equal(write(f->wire, (uint8_t[20]){0}, 20), 20);
	send_frame(f, (const uint8_t[]){255, 255, 255, 255, 255, 255}, 60);
	c = rx_done(f);
	assert_int_equal(c.w0 & 0xfff, 2);
	put32(f, SHARED + S_RX_MODE, RX_MODE_PROMISC);
	command(f, CMD_UPDATE_RX_MODE);
	send_frame(f, (const uint8_t[]){2, 2, 2, 2, 2, 2}, 70);
	assert_int_equal(rx_done(f).len, 70);
}

/* Frames wait for buffers, without a doorbell that tells of them. */
static void test_no_buffers(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(activate(f), 0);
	send_frame(f, mac, 80);
	usleep(10000);
	rx_desc(f, 0, 0, RX_DATA, RX_LEN, false);
	assert_int_equal(rx_done(f).len, 80);
	/* Longer than all that is there: dropped, and the next one comes. */
	rx_desc(f, 0, 1, RX_DATA, RX_LEN, false);
	send_frame(f, mac, 9000);
	send_frame(f, mac, 90);
	assert_int_equal(rx_done(f).len, 90);
}

/* The device masks what it raised; what comes meanwhile is not lost. */
static void test_interrupts(void **state)
{
	struct fixture *f = *state;
	unsigned before;

	assert_int_equal(activate(f), 0);
	before = fake_kvm.msis;
	for (unsigned i = 0; i < 3; i++) {
		tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
		kick(f);
		tx_done(f);
		command(f, CMD_GET_LINK); /* takes the lock: the loop is done */
	}
	assert_int_equal(fake_kvm.msis, before + 1);
	assert_int_equal(rd(f, f->pt + PT_IMR), 1);
	wr(f, f->pt + PT_IMR, 0);
	assert_int_equal(fake_kvm.msis, before + 2);
	wr(f, f->pt + PT_IMR, 0);
	assert_int_equal(fake_kvm.msis, before + 2);
}

/*
 * CVE-2013-4544, CVE-2016-6888, CVE-2021-20203, CVE-2020-16092: sizes and
 * numbers of the set-up; CVE-2021-3416: DMA to what is no memory.
 */
static void test_bad_setup(void **state)
{
	struct fixture *f = *state;
	const uint64_t tx = QUEUES, rx = QUEUES + QUEUE_DESC_SIZE;
	const struct {
		uint64_t gpa;
		unsigned len;
		uint64_t value;
	} rows[] = {
		{SHARED + S_MAGIC, 4, 0},
		{SHARED + S_NUM_TX, 1, 0},
		{SHARED + S_NUM_TX, 1, 9},
		{SHARED + S_NUM_TX, 1, 255},
		{SHARED + S_NUM_RX, 1, 0},
		{SHARED + S_NUM_RX, 1, 200},
		{SHARED + S_NUM_RX, 1, 2}, /* more than the description is long */
		{SHARED + S_NUM_INTRS, 1, 0},
		{SHARED + S_NUM_INTRS, 1, 26},
		{SHARED + S_NUM_INTRS, 1, 2}, /* the event's is then not there */
		{SHARED + S_EVENT_INTR, 1, 255},
		{SHARED + S_QUEUES_LEN, 4, 511},
		{SHARED + S_QUEUES_PA, 8, MEM - 256},
		{SHARED + S_QUEUES_PA, 8, QUEUES + 1},
		{SHARED + S_QUEUES_PA, 8, UINT64_MAX - 7},
		{tx + TQ_RING_PA, 8, f->pt},
		{tx + TQ_RING_PA, 8, FAVO_GPA_ECAM},
		{tx + TQ_RING_PA, 8, TX_RING + 16},
		{tx + TQ_RING_PA, 8, MEM - 512},
		{tx + TQ_RING_SIZE, 4, 0},
		{tx + TQ_RING_SIZE, 4, 33},
		{tx + TQ_RING_SIZE, 4, 4128},
		{tx + TQ_RING_SIZE, 4, 0x80000000},
		{tx + TQ_COMP_SIZE, 4, 0},
		{tx + TQ_COMP_SIZE, 4, 8224},
		{tx + TQ_INTR, 1, 3},
		{rx + RQ_RING_SIZE, 4, 0},
		{rx + RQ_RING_SIZE, 4, 0xffffffe0},
		{rx + RQ_RING_SIZE + 4, 4, 16},
		{rx + RQ_RING_PA + 8, 8, MEM},
		{rx + RQ_COMP_PA, 8, 8},
		{rx + RQ_COMP_SIZE, 4, 1},
		{rx + RQ_INTR, 1, 25},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		prepare(f);
		memcpy(mem(f, rows[i].gpa), &rows[i].value, rows[i].len);
		if (activate(f) == 0)
			fail_msg("row %zu was accepted", i);
		kick(f);
	}
	prepare(f);
	for (unsigned i = 0; i < 4; i++) {
		static const uint64_t bad[] = {0x1004, MEM - 8, MEM, UINT64_MAX - 7};

		wr(f, f->vd + VD_DSAL, (uint32_t)bad[i]);
		wr(f, f->vd + VD_DSAH, (uint32_t)(bad[i] >> 32));
		assert_int_not_equal(command(f, CMD_ACTIVATE), 0);
	}
	assert_int_equal(activate(f), 0);
}

/* CVE-2015-8744, CVE-2016-6834 and others: frames that are none. */
static void test_bad_frames(void **state)
{
	struct fixture *f = *state;
	uint8_t buf[4096];
	const struct {
		uint64_t gpa;
		uint32_t w2, w3;
	} rows[] = {
		{TX_DATA, 13, 0}, /* shorter than a header */
		{TX_DATA, 1, 0},
		{MEM - 8, 60, 0}, /* past the end of memory */
		{FAVO_GPA_ECAM, 60, 0},
		{UINT64_MAX - 4, 60, 0},
		{TX_DATA, 60, 1000 | TXD_OM_TSO << 10}, /* headers longer than it */
		{TX_DATA, 60, 54 | TXD_OM_TSO << 10}, /* no segment size */
		{TX_DATA, 60 | 500u << 18, 54 | TXD_OM_TSO << 10}, /* no TCP */
		{TX_DATA, 60 | 500u << 18, 3 | TXD_OM_TSO << 10},
		{TX_DATA, 60 | 59u << 18, 34 | TXD_OM_CSUM << 10}, /* at the end */
		{TX_DATA, 60 | 20u << 18, 34 | TXD_OM_CSUM << 10}, /* backwards */
		{TX_DATA, 60 | 8000u << 18, 34 | TXD_OM_CSUM << 10},
		{TX_DATA, 60 | 10u << 18, 2 | TXD_OM_CSUM << 10},
	};

	assert_int_equal(activate(f), 0);
	memset(mem(f, TX_DATA), 0xee, 100);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		tx_desc(f, rows[i].gpa, rows[i].w2,
			rows[i].w3 | TXD_EOP | TXD_WANTS_COMP);
		kick(f);
		tx_done(f);
	}
	assert_true(is_silent(f));
	/* Too many pieces, too long a frame: dropped, their end told. */
	for (unsigned i = 0; i < N - 1; i++)
		tx_desc(f, TX_DATA, 0, i == N - 2 ? TXD_EOP | TXD_WANTS_COMP : 0);
	kick(f);
	tx_done(f);
	assert_true(is_silent(f));
	tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
	kick(f);
	tx_done(f);
	assert_int_equal(get_frame(f, buf, sizeof(buf)), HDR + 60);
}

/* A frame without an end: the queue stops, the driver is told, and starts anew. */
static void test_endless_frame(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(activate(f), 0);
	for (unsigned i = 0; i < N; i++)
		put32(f, TX_RING + 16 * i + 8, 60 | 1u << TXD_GEN);
	kick(f);
	for (int i = 0; i < 50000 && !*mem(f, QUEUES + TQ_STOPPED); i++)
		usleep(100);
	assert_int_equal(*mem(f, QUEUES + TQ_STOPPED), 1);
	command(f, CMD_GET_LINK);
	assert_int_equal(get32(f, SHARED + S_ECR), EVENT_TQ_ERROR);
	wr(f, f->vd + VD_ECR, EVENT_TQ_ERROR);
	assert_int_equal(get32(f, SHARED + S_ECR), 0);
	prepare(f);
	assert_int_equal(activate(f), 0);
	tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
	kick(f);
	assert_int_equal(tx_done(f), 0);
}

/* Receive buffers that are none: no completion, which a driver would trust. */
static void test_bad_buffers(void **state)
{
	struct fixture *f = *state;
	const uint64_t rx = QUEUES + QUEUE_DESC_SIZE;

	for (unsigned i = 0; i < 3; i++) {
		static const uint64_t bad[] = {MEM - 8, FAVO_GPA_ECAM, RX_DATA};

		prepare(f);
		assert_int_equal(activate(f), 0);
		rx_desc(f, 0, 0, bad[i], i == 2 ? 0 : RX_LEN, false);
		send_frame(f, mac, 100);
		for (int k = 0; k < 50000 && !*mem(f, rx + RQ_STOPPED); k++)
			usleep(100);
		assert_int_equal(*mem(f, rx + RQ_STOPPED), 1);
		assert_int_equal(get32(f, RX_COMP + 12), 0);
	}
}

/* CVE-2015-8567/8568, CVE-2016-6833: twice active, doorbells while inactive. */
static void test_state(void **state)
{
	struct fixture *f = *state;

	tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
	kick(f);
	assert_true(is_silent(f));
	for (unsigned i = 0; i < 100; i++) {
		prepare(f);
		assert_int_equal(activate(f), 0);
	}
	command(f, CMD_QUIESCE);
	tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
	kick(f);
	assert_true(is_silent(f));
	command(f, CMD_GET_STATS);
	command(f, CMD_UPDATE_RX_MODE);
	wr(f, f->vd + VD_ECR, ~0u);
	/* Without bus mastering it cannot be activated, and an active one rests. */
	prepare(f);
	set_master(f, false);
	assert_int_not_equal(activate(f), 0);
	set_master(f, true);
	assert_int_equal(activate(f), 0);
	set_master(f, false);
	tx_desc(f, TX_DATA, 60, TXD_EOP | TXD_WANTS_COMP);
	kick(f);
	assert_true(is_silent(f));
	set_master(f, true);
	assert_int_equal(tx_done(f), 0);
}

/* After QUIESCE returned, nothing is written any more. */
static void test_quiesce_in_traffic(void **state)
{
	struct fixture *f = *state;
	uint8_t frame[HDR + 600] = {0};

	memcpy(frame + HDR, mac, sizeof(mac));
	for (unsigned round = 0; round < 50; round++) {
		prepare(f);
		assert_int_equal(activate(f), 0);
		for (unsigned i = 0; i < N; i++)
			rx_desc(f, 0, i, RX_DATA + i * RX_LEN, RX_LEN, false);
		/* What an earlier round left may still fill the wire. */
		for (unsigned i = 0; i < 8; i++)
			send(f->wire, frame, sizeof(frame), MSG_DONTWAIT);
		command(f, round % 2 ? CMD_QUIESCE : CMD_RESET);
		memset(mem(f, RX_DATA), 0xc5, 8 * RX_LEN);
		usleep(200);
		for (unsigned i = 0; i < 8 * RX_LEN; i++)
			assert_int_equal(mem(f, RX_DATA)[i], 0xc5);
	}
}

static void test_specs(void **state)
{
	struct fixture *f = *state;
	struct favo_err err = {0};

	assert_int_equal(favo_net_add(f->vm, "tap=x,model=e1000", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "vmxnet3"));
	assert_int_equal(favo_net_add(f->vm, "tap=x,model=vmxnet3,vhost=7", &err),
			 -EINVAL);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_registers),	    T(test_send),	 T(test_checksum_and_tag),
		T(test_segments),	    T(test_receive),	 T(test_no_buffers),
		T(test_interrupts),	    T(test_bad_setup),	 T(test_bad_frames),
		T(test_endless_frame),	    T(test_bad_buffers), T(test_state),
		T(test_quiesce_in_traffic), T(test_specs),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
