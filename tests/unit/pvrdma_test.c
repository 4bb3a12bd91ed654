/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The PVRDMA function in favo-vmm. The driver is played here, favo-hca by a
 * thread that notes what it is asked and answers as the test wants.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/hca_proto.h"
#include "hypervisor/pci.h"
#include "hypervisor/pvrdma.h"
#include "hypervisor/virtio/devices.h"
#include "tests/unit/fake_kvm.h"

#define LOG_MAX 64

struct hca {
	pthread_t thread;
	int fd, event_fd, kick_fd;
	int fds[FAVO_HCA_FD_RAM + FAVO_HCA_SLOTS_MAX];
	size_t nfds;
	struct favo_hca_hello hello;
	struct favo_hca_shared *shared;
	uint32_t hello_status, status, flags;
	bool die_on_request, bad_seq;
	struct favo_hca_request log[LOG_MAX];
	_Atomic unsigned nlog;
};

struct fixture {
	struct favo_vm *vm;
	pthread_t loop;
	struct hca hca;
	int card_wire;
	uint64_t ecam, regs, uar;
};

static void answer(struct hca *h, uint32_t type, uint32_t seq, uint32_t status)
{
	struct favo_hca_reply reply = {type, seq + h->bad_seq, status, h->flags};

	(void)!send(h->fd, &reply, sizeof(reply), MSG_NOSIGNAL);
}

static void *play_hca(void *arg)
{
	struct hca *h = arg;
	struct favo_hca_request r;

	if (favo_recv_fds(h->fd, &h->hello, sizeof(h->hello), h->fds,
			  FAVO_ARRAY_SIZE(h->fds), &h->nfds, NULL) != sizeof(h->hello))
		return NULL;
	h->shared = mmap(NULL, sizeof(*h->shared), PROT_READ | PROT_WRITE, MAP_SHARED,
			 h->fds[FAVO_HCA_FD_SHARED], 0);
	h->event_fd = h->fds[FAVO_HCA_FD_EVENTS];
	h->kick_fd = h->fds[FAVO_HCA_FD_KICK];
	answer(h, FAVO_HCA_HELLO, h->hello.seq, h->hello_status);
	while (recv(h->fd, &r, sizeof(r), 0) == (ssize_t)sizeof(r)) {
		h->log[h->nlog % LOG_MAX] = r;
		h->nlog++;
		if (h->die_on_request)
			break;
		answer(h, r.type, r.seq, h->status);
	}
	favo_close(&h->fd);
	for (size_t i = 0; i < h->nfds; i++)
		close(h->fds[i]);
	return NULL;
}

static void *run_loop(void *arg)
{
	favo_loop_run(arg, NULL);
	return NULL;
}

static const struct favo_hca_request *last(struct fixture *f)
{
	assert_true(f->hca.nlog > 0);
	return &f->hca.log[(f->hca.nlog - 1) % LOG_MAX];
}

static uint32_t rd(struct fixture *f, uint64_t addr)
{
	return (uint32_t)favo_iobus_read(f->vm->mmio, addr, 4);
}

static void wr(struct fixture *f, uint64_t addr, uint32_t v)
{
	favo_iobus_write(f->vm->mmio, addr, v, 4);
}

static void put32(struct fixture *f, uint64_t gpa, uint32_t v)
{
	assert_int_equal(favo_guest_write(f->vm->mem, gpa, &v, sizeof(v)), 0);
}

static uint32_t get32(struct fixture *f, uint64_t gpa)
{
	uint32_t v;

	assert_int_equal(favo_guest_read(f->vm->mem, gpa, &v, sizeof(v)), 0);
	return v;
}

static void set_command(struct fixture *f, uint16_t v)
{
	favo_iobus_write(f->vm->mmio, f->ecam + 4, v, 2);
}

static void add_card(struct fixture *f)
{
	char spec[64];
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	f->card_wire = pair[0];
	snprintf(spec, sizeof(spec), "fd=%d,mac=02:fa:00:01:00:09,model=vmxnet3",
		 pair[1]);
	assert_int_equal(favo_net_add(f->vm, spec, NULL), 0);
}

static int add_rdma(struct fixture *f, struct favo_err *err)
{
	char spec[64];
	int pair[2], ret;

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	f->hca.fd = pair[0];
	snprintf(spec, sizeof(spec), "hca-fd=%d,mac=02:fa:00:01:00:09", pair[1]);
	assert_int_equal(pthread_create(&f->hca.thread, NULL, play_hca, &f->hca), 0);
	ret = favo_pvrdma_add(f->vm, spec, err);
	return ret;
}

static void start(struct fixture *f)
{
	struct favo_err err = {0};

	memset(f, 0, sizeof(*f));
	assert_int_equal(fake_vm_new(&f->vm, 1 << 20, NULL), 0);
	add_card(f);
	if (add_rdma(f, &err) < 0)
		fail_msg("%s", err.msg);
	f->ecam = FAVO_GPA_ECAM + 4096; /* slot 0, function 1 */
	set_command(f, 6);
	f->regs = rd(f, f->ecam + 0x14) & ~15u;
	f->uar = (rd(f, f->ecam + 0x18) & ~15u) | (uint64_t)rd(f, f->ecam + 0x1c) << 32;
	assert_int_equal(pthread_create(&f->loop, NULL, run_loop, f->vm->loop), 0);
}

static int setup(void **state)
{
	static struct fixture f;

	start(&f);
	*state = &f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_loop_stop(f->vm->loop);
	pthread_join(f->loop, NULL);
	fake_vm_free(f->vm);
	pthread_join(f->hca.thread, NULL);
	munmap(f->hca.shared, sizeof(*f->hca.shared));
	close(f->card_wire);
	return 0;
}

/* Number of KVM memory slots that show the page at gpa. */
static unsigned mapped(uint64_t gpa)
{
	unsigned n = 0;

	for (unsigned i = 0; i < FAVO_VM_SLOTS; i++)
		n += fake_kvm.slots[i].size == 4096 && fake_kvm.slots[i].gpa == gpa;
	return n;
}

static uint32_t change(struct fixture *f, uint32_t generation, uint32_t uar,
		       uint32_t mode)
{
	struct favo_hca_uar_mode m = {FAVO_HCA_UAR_MODE, generation, uar, mode};
	struct pollfd p = {.fd = f->hca.event_fd, .events = POLLIN};

	assert_int_equal(send(f->hca.event_fd, &m, sizeof(m), MSG_NOSIGNAL), sizeof(m));
	assert_int_equal(poll(&p, 1, 5000), 1);
	if (recv(f->hca.event_fd, &m, sizeof(m), 0) != (ssize_t)sizeof(m))
		return ~0u;
	assert_int_equal(m.uar, uar);
	return m.mode;
}

/* ---- tests --------------------------------------------------------------- */

static void test_introduction(void **state)
{
	struct fixture *f = *state;

	assert_int_equal(rd(f, f->ecam), 0x082015ad);
	assert_int_equal(rd(f, f->ecam - 4096), 0x07b015ad);
	assert_int_equal(favo_iobus_read(f->vm->mmio, f->ecam - 4096 + 0xe, 1), 0x80);
	assert_int_equal(f->hca.hello.version, FAVO_HCA_VERSION);
	assert_int_equal(f->hca.hello.nslots, 1);
	assert_int_equal(f->hca.hello.slots[0].size, 1 << 20);
	assert_int_equal(f->hca.hello.mac[5], 9);
	assert_int_equal(f->hca.nfds, FAVO_HCA_FD_RAM + 1);
	assert_int_equal(rd(f, f->regs), 20);
	assert_int_equal(rd(f, f->regs + 0x1c), 0xffffffff);
	/* BARs and bus mastering came on in one write: both were told. */
	assert_int_equal(f->hca.nlog, 2);
}

static void test_requests(void **state)
{
	struct fixture *f = *state;
	static const struct {
		uint32_t reg, value, type;
	} rows[] = {
		{0x0c, 0, FAVO_HCA_ACTIVATE},
		{0x0c, 1, FAVO_HCA_UNQUIESCE},
		{0x10, 0, FAVO_HCA_COMMAND},
		{0x0c, 2, FAVO_HCA_RESET},
	};

	wr(f, f->regs + 4, 0x1000);
	wr(f, f->regs + 8, 0x2);
	assert_int_equal(last(f)->type, FAVO_HCA_DSR);
	assert_int_equal(last(f)->arg, 0x200001000);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		f->hca.status = 0;
		wr(f, f->regs + rows[i].reg, rows[i].value);
		assert_int_equal(last(f)->type, rows[i].type);
		assert_int_equal(rd(f, f->regs + 0x14), 0);
		f->hca.status = ENOMEM;
		wr(f, f->regs + rows[i].reg, rows[i].value);
		assert_int_equal(rd(f, f->regs + 0x14), ENOMEM);
	}
	wr(f, f->regs + 0x0c, 3);
	assert_int_equal(rd(f, f->regs + 0x14), EINVAL);
	set_command(f, 2);
	assert_int_equal(last(f)->type, FAVO_HCA_BUS_MASTER);
	assert_int_equal(last(f)->arg, 0);
}

/* Only commands with a response raise vector 0, unless it is masked. */
static void test_response(void **state)
{
	struct fixture *f = *state;

	f->hca.flags = FAVO_HCA_RAISE;
	wr(f, f->regs + 0x10, 0);
	assert_int_equal(rd(f, f->regs + 0x18), 1);
	assert_int_equal(rd(f, f->regs + 0x18), 0);
	f->hca.flags = 0;
	wr(f, f->regs + 0x10, 0);
	assert_int_equal(rd(f, f->regs + 0x18), 0);
	f->hca.flags = FAVO_HCA_RAISE;
	f->hca.status = EINVAL;
	wr(f, f->regs + 0x10, 0);
	assert_int_equal(rd(f, f->regs + 0x18), 0);
	wr(f, f->regs + 0x1c, 0);
	assert_int_equal(atomic_load(&f->hca.shared->imr), 0);
}

/* CVE-2018-20191: reads of doorbells have an answer. */
static void test_doorbells(void **state)
{
	struct fixture *f = *state;
	struct favo_hca_shared *s = f->hca.shared;
	struct pollfd p = {.fd = f->hca.kick_fd, .events = POLLIN};

	assert_int_equal(favo_iobus_read(f->vm->mmio, f->uar, 4), 0);
	assert_int_equal(favo_iobus_read(f->vm->mmio, f->uar + 0xff008, 8), 0);
	wr(f, f->uar + 0x3004, 0x40000007);
	assert_int_equal(atomic_load(&s->head), 1);
	assert_int_equal(s->bells[0].offset, 0x3004);
	assert_int_equal(s->bells[0].value, 0x40000007);
	/* Awake: no kick. Asleep: one. */
	assert_int_equal(poll(&p, 1, 0), 0);
	atomic_store(&s->sleeping, 1);
	wr(f, f->uar, 1);
	assert_int_equal(poll(&p, 1, 0), 1);
	/* Other widths mean nothing. */
	favo_iobus_write(f->vm->mmio, f->uar, 1, 8);
	favo_iobus_write(f->vm->mmio, f->uar, 1, 2);
	assert_int_equal(atomic_load(&s->head), 2);
	/* A ring that nobody empties is not overrun. */
	for (unsigned i = 0; i < 2 * FAVO_HCA_BELLS; i++)
		wr(f, f->uar, i);
	assert_int_equal(atomic_load(&s->head), FAVO_HCA_BELLS);
	assert_int_equal(atomic_load(&s->overflow), 1);
	/* None without bus mastering. */
	atomic_store(&s->tail, FAVO_HCA_BELLS);
	set_command(f, 2);
	wr(f, f->uar, 1);
	assert_int_equal(atomic_load(&s->head), FAVO_HCA_BELLS);
}

static void test_ram_pages(void **state)
{
	struct fixture *f = *state;
	uint32_t gen = atomic_load(&f->hca.shared->generation);

	assert_int_equal(change(f, gen, 5, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_RAM);
	assert_int_equal(mapped(f->uar + 5 * 4096), 1);
	assert_int_equal(change(f, gen, 5, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_RAM);
	assert_int_equal(mapped(f->uar + 5 * 4096), 1);
	assert_int_equal(change(f, gen, 5, FAVO_HCA_UAR_TRAP), FAVO_HCA_UAR_TRAP);
	assert_int_equal(mapped(f->uar + 5 * 4096), 0);
	/* Reset, and an answer for the time before it. */
	assert_int_equal(change(f, gen, 6, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_RAM);
	wr(f, f->regs + 0x0c, 2);
	assert_int_equal(mapped(f->uar + 6 * 4096), 0);
	assert_int_not_equal(atomic_load(&f->hca.shared->generation), gen);
	change(f, gen, 6, FAVO_HCA_UAR_RAM);
	assert_int_equal(mapped(f->uar + 6 * 4096), 0);
	/* The BAR goes away with a page in it. */
	gen = atomic_load(&f->hca.shared->generation);
	assert_int_equal(change(f, gen, 7, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_RAM);
	set_command(f, 4);
	assert_int_equal(mapped(f->uar + 7 * 4096), 0);
	assert_int_equal(last(f)->type, FAVO_HCA_UAR_BASE);
	assert_int_equal(last(f)->arg, 0);
	gen = atomic_load(&f->hca.shared->generation);
	assert_int_equal(change(f, gen, 7, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_TRAP);
	/* KVM refuses. */
	set_command(f, 6);
	gen = atomic_load(&f->hca.shared->generation);
	fake_kvm.fail = ENOMEM;
	assert_int_equal(change(f, gen, 8, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_TRAP);
	fake_kvm.fail = 0;
}

/* What is no request ends the event socket, and with it all RAM pages. */
static void test_bad_events(void **state)
{
	struct fixture *f = *state;
	uint32_t gen = atomic_load(&f->hca.shared->generation);
	struct favo_hca_uar_mode bad = {FAVO_HCA_UAR_MODE, gen, 0, FAVO_HCA_UAR_RAM};

	assert_int_equal(change(f, gen, 255, FAVO_HCA_UAR_RAM), FAVO_HCA_UAR_RAM);
	assert_int_equal(send(f->hca.event_fd, &bad, sizeof(bad), 0), sizeof(bad));
	for (int i = 0; i < 50000 && mapped(f->uar + 255 * 4096); i++)
		usleep(100);
	assert_int_equal(mapped(f->uar + 255 * 4096), 0);
	assert_int_equal(mapped(f->uar), 0);
}

/* favo-hca dies: the device fails for good, the VM goes on. */
static void test_death(void **state)
{
	struct fixture *f = *state;

	f->hca.die_on_request = true;
	wr(f, f->regs + 0x10, 0);
	assert_int_not_equal(rd(f, f->regs + 0x14), 0);
	wr(f, f->regs + 0x0c, 0);
	assert_int_not_equal(rd(f, f->regs + 0x14), 0);
	wr(f, f->uar, 1);
	assert_int_equal(f->vm->end, FAVO_END_NONE);
}

/* One that talks nonsense may still be at work on the guest's memory. */
static void test_nonsense(void **state)
{
	struct fixture *f = *state;

	f->hca.bad_seq = true;
	wr(f, f->regs + 0x0c, 2);
	assert_int_not_equal(rd(f, f->regs + 0x14), 0);
	assert_int_equal(f->vm->end, FAVO_END_ERROR);
}

static void test_no_snapshot(void **state)
{
	struct fixture *f = *state;
	struct favo_pci_device *dev = favo_pci_device_at(f->vm->pci, 1);
	struct favo_err err = {0};

	assert_int_equal(dev->ops->save(dev, NULL, &err), -ENOTSUP);
	assert_non_null(strstr(err.msg, "RDMA"));
}

/* ---- with the real favo-hca ---------------------------------------------- */

static pid_t start_favo_hca(int *fd)
{
	char path[64];
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	pid_t pid;

	snprintf(path, sizeof(path), "favo-hca-test.%d", (int)getpid());
	memcpy(sa.sun_path, path, strlen(path));
	*fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	pid = fork();
	if (pid == 0) {
		char listen[80];

		snprintf(listen, sizeof(listen), "path=%s", path);
		execl(FAVO_HCA, FAVO_HCA, "--listen", listen, NULL);
		_exit(127);
	}
	for (int i = 0; i < 1000; i++) {
		if (connect(*fd, (struct sockaddr *)&sa, sizeof(sa)) == 0)
			break;
		usleep(10000);
	}
	unlink(path);
	return pid;
}

/* Shared region, slots and event rings as the driver sets them up. */
static void fill_dsr(struct fixture *f, uint64_t dsr)
{
	put32(f, dsr, 20);
	put32(f, dsr + 8, 2 | 1 << 2);
	put32(f, dsr + 16, (uint32_t)dsr + 0x1000);
	put32(f, dsr + 24, (uint32_t)dsr + 0x2000);
	for (unsigned ring = 0; ring < 2; ring++) {
		uint32_t dir = (uint32_t)dsr + 0x3000 + ring * 0x8000;

		put32(f, dsr + 32 + 16 * ring, 4);
		put32(f, dsr + 40 + 16 * ring, dir);
		put32(f, dir, dir + 0x1000);
		for (unsigned i = 0; i < 4; i++)
			put32(f, dir + 0x1000 + 8 * i, dir + 0x2000 + 0x1000 * i);
	}
}

static void test_with_favo_hca(void **state)
{
	static struct fixture f;
	struct favo_err err = {0};
	const uint64_t dsr = 0x10000;
	char spec[64];
	pid_t pid;
	int fd;

	(void)state;
	memset(&f, 0, sizeof(f));
	assert_int_equal(fake_vm_new(&f.vm, 1 << 20, NULL), 0);
	add_card(&f);
	pid = start_favo_hca(&fd);
	snprintf(spec, sizeof(spec), "hca-fd=%d", fd);
	if (favo_pvrdma_add(f.vm, spec, &err) < 0)
		fail_msg("%s", err.msg);
	f.ecam = FAVO_GPA_ECAM + 4096;
	set_command(&f, 6);
	f.regs = rd(&f, f.ecam + 0x14) & ~15u;
	fill_dsr(&f, dsr);
	/* CVE-2022-1050: a command before the device is active. */
	wr(&f, f.regs + 0x10, 0);
	assert_int_not_equal(rd(&f, f.regs + 0x14), 0);
	wr(&f, f.regs + 4, (uint32_t)dsr);
	wr(&f, f.regs + 8, 0);
	assert_int_equal(rd(&f, f.regs + 0x14), 0);
	/* Capabilities are there when the write retires: RoCE, a power of two. */
	assert_true(get32(&f, dsr + 72 + 188) > 0);
	wr(&f, f.regs + 0x1c, 0);
	wr(&f, f.regs + 0x0c, 0);
	assert_int_equal(rd(&f, f.regs + 0x14), 0);
	/* QUERY_PORT */
	put32(&f, dsr + 0x1000 + 8, 0);
	put32(&f, dsr + 0x1000 + 16, 1);
	wr(&f, f.regs + 0x10, 0);
	assert_int_equal(rd(&f, f.regs + 0x14), 0);
	assert_int_equal(get32(&f, dsr + 0x2000 + 8), 0x80000000);
	assert_int_equal(rd(&f, f.regs + 0x18), 1);
	wr(&f, f.regs + 0x0c, 2);
	assert_int_equal(rd(&f, f.regs + 0x14), 0);
	/* Killed in the middle: an error at once, and the VM lives. */
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	wr(&f, f.regs + 0x0c, 0);
	assert_int_not_equal(rd(&f, f.regs + 0x14), 0);
	assert_int_equal(f.vm->end, FAVO_END_NONE);
	fake_vm_free(f.vm);
	close(f.card_wire);
}

static void test_set_up(void **state)
{
	static struct fixture f;
	struct favo_err err = {0};

	(void)state;
	memset(&f, 0, sizeof(f));
	assert_int_equal(fake_vm_new(&f.vm, 1 << 20, NULL), 0);
	assert_int_equal(favo_pvrdma_add(f.vm, "mac=02:fa:00:01:00:09", &err), -EINVAL);
	err = (struct favo_err){0};
	assert_int_equal(favo_pvrdma_add(f.vm, "hca-fd=0", &err), -EINVAL);
	assert_non_null(strstr(err.msg, "model=vmxnet3"));
	add_card(&f);
	f.hca.hello_status = ENOSPC;
	err = (struct favo_err){0};
	assert_int_equal(add_rdma(&f, &err), -ENOSPC);
	assert_non_null(strstr(err.msg, "favo-hca refuses"));
	pthread_join(f.hca.thread, NULL);
	munmap(f.hca.shared, sizeof(*f.hca.shared));
	fake_vm_free(f.vm);
	close(f.card_wire);
}

int main(void)
{
#define T(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
	const struct CMUnitTest tests[] = {
		T(test_introduction),
		T(test_requests),
		T(test_response),
		T(test_doorbells),
		T(test_ram_pages),
		T(test_bad_events),
		T(test_death),
		T(test_nonsense),
		T(test_no_snapshot),
		cmocka_unit_test(test_set_up),
		cmocka_unit_test(test_with_favo_hca),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
