// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-hca under guests (and a favo-vmm that one took over) that lie: each row
 * of QEMU's pvrdma CVEs, limits, foreign keys and handles, impossible indices,
 * and memory that must not be touched any more.
 */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util.h"
#include "tests/unit/hca_world.h"

static struct world world;
#define A (&world.s[0])
#define B (&world.s[1])
#define NEVER_RAM (1ULL << 40)

static int set_up(void **state)
{
	(void)state;
	world_open(&world, 2, 200);
	world_connect(&world, 0);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	world_close(&world);
	return 0;
}

/* Whatever happened before: the pair of queue pairs still works. */
static void all_well(void)
{
	struct pvrdma_sq_wqe w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);

	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
}

static int status(struct side *s, uint32_t cmd, union pvrdma_req *q)
{
	return drv_command(&s->vm, cmd, q, NULL);
}

static void test_wrong_state(void **state)
{
	union pvrdma_req q = {0};
	struct pvrdma_dsr *dsr;

	(void)state;
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_ACTIVATE, 0, NULL), EINVAL);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_RESET, 0, NULL), 0);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_RESET, 0, NULL), 0);
	assert_int_equal(status(B, PVRDMA_CMD_DESTROY_QP, &q), ENODEV);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_ACTIVATE, 0, NULL), EINVAL);
	dsr = drv_ptr(&B->vm, B->vm.dsr);
	for (unsigned i = 0; i < 9; i++) {
		struct pvrdma_dsr good = *dsr;

		switch (i) {
		case 0:
			dsr->cmd_slot_dma += 8;
			break;
		case 1:
			dsr->resp_slot_dma = NEVER_RAM;
			break;
		case 2:
			dsr->async_ring.num_pages = 1;
			break;
		case 3:
			dsr->cq_ring.num_pages = 0xffffffff;
			break;
		case 4:
			dsr->cq_ring.pdir_dma = WORLD_RAM;
			break;
		case 5:
			dsr->async_ring.pdir_dma = UINT64_MAX - 4095;
			break;
		case 6:
			dsr->async_ring.num_pages = 0;
			break;
		case 7:
			dsr->cmd_slot_dma = WORLD_RAM - 1;
			break;
		case 8:
			dsr->cq_ring.num_pages = 65;
			break;
		}
		assert_int_not_equal(drv_request(&B->vm, FAVO_HCA_DSR, B->vm.dsr, NULL),
				     0);
		*dsr = good;
		assert_int_not_equal(drv_request(&B->vm, FAVO_HCA_ACTIVATE, 0, NULL), 0);
	}
	assert_int_not_equal(drv_request(&B->vm, FAVO_HCA_DSR, WORLD_RAM - 8, NULL), 0);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_DSR, B->vm.dsr, NULL), 0);
	assert_int_equal(drv_request(&B->vm, 99, 0, NULL), ENOSYS);
	/* Without bus mastering the device reads no command. */
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_ACTIVATE, 0, NULL), 0);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_BUS_MASTER, 0, NULL), 0);
	assert_int_equal(status(B, PVRDMA_CMD_QUERY_PORT, &q), ENODEV);
}

/* The connection ends, everybody else's goes on. */
static void test_bad_messages(void **state)
{
	struct favo_hca_request q = {.type = FAVO_HCA_RESET};
	struct drv_vm vm;
	uint8_t byte;
	int fd = world_dial(&world);

	(void)state;
	assert_int_equal(send(fd, &q, sizeof(q), 0), sizeof(q)); /* before HELLO */
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
	fd = world_dial(&world);
	assert_int_equal(send(fd, &q, 3, 0), 3);
	assert_int_equal(recv(fd, &byte, 1, 0), 0);
	close(fd);
	/* Memory that could shrink under favo-hca. */
	drv_open(&vm, world_dial(&world), WORLD_RAM);
	close(vm.ram_fd);
	vm.ram_fd = memfd_create("unsealed", MFD_CLOEXEC);
	assert_int_equal(ftruncate(vm.ram_fd, WORLD_RAM), 0);
	assert_int_equal(drv_hello(&vm, 9), -1);
	drv_close(&vm);
	/* Shorter than said. */
	drv_open(&vm, world_dial(&world), WORLD_RAM);
	vm.size *= 2;
	assert_int_equal(drv_hello(&vm, 9), -1);
	vm.size /= 2;
	drv_close(&vm);
	all_well();
}

static void test_bad_objects(void **state)
{
	union pvrdma_req q;
	struct drv_mr mr;
	struct drv_cq cq;
	struct drv_qp qp;
	struct drv_qp_opts o;
	uint32_t pd;

	(void)state;
	/* Contexts: the frame of the UAR page decides. */
	assert_int_not_equal(drv_uc(&A->vm, 0), 0);
	assert_int_not_equal(drv_uc(&A->vm, FAVO_HCA_UARS), 0);
	assert_int_not_equal(drv_uc(&A->vm, (uint32_t)-1), 0);
	assert_int_not_equal(drv_uc(&A->vm, WORLD_UAR), 0); /* taken */
	assert_int_not_equal(drv_pd(&A->vm, 7, &pd), 0); /* no such context */
	assert_int_not_equal(drv_cq(&A->vm, 7, 16, &cq), 0);
	/* Completion queues. */
	assert_int_not_equal(drv_cq(&A->vm, WORLD_UAR, 100, &cq), 0);
	assert_int_not_equal(drv_cq(&A->vm, WORLD_UAR, 0, &cq), 0);
	memset(&q, 0, sizeof(q));
	q.create_cq.pdir_dma = drv_dir(&A->vm, A->cq.state, 2);
	q.create_cq.ctx_handle = WORLD_UAR;
	q.create_cq.cqe = 1u << 26; /* bytes wrap in 32 bits */
	q.create_cq.nchunks = 1;
	assert_int_not_equal(status(A, PVRDMA_CMD_CREATE_CQ, &q), 0);
	q.create_cq.cqe = 128; /* needs three pages */
	q.create_cq.nchunks = 2;
	assert_int_not_equal(status(A, PVRDMA_CMD_CREATE_CQ, &q), 0);
	q.create_cq.nchunks = 3; /* the third entry of the directory is stale */
	assert_int_equal(status(A, PVRDMA_CMD_CREATE_CQ, &q), EFAULT);
	q.create_cq.pdir_dma = 8;
	assert_int_equal(status(A, PVRDMA_CMD_CREATE_CQ, &q), EFAULT);
	/* Memory regions (CVE-2021-3582). */
	memset(&q, 0, sizeof(q));
	q.create_mr.pd_handle = A->pd;
	q.create_mr.start = UINT64_MAX - 4096;
	q.create_mr.length = 8192;
	q.create_mr.nchunks = 3;
	q.create_mr.pdir_dma = drv_dir(&A->vm, A->mr.gpa, 3);
	assert_int_not_equal(status(A, PVRDMA_CMD_CREATE_MR, &q), 0);
	q.create_mr.start = 4095;
	q.create_mr.length = 2;
	q.create_mr.nchunks = 1; /* two pages */
	assert_int_not_equal(status(A, PVRDMA_CMD_CREATE_MR, &q), 0);
	q.create_mr.flags = PVRDMA_MR_DMA; /* not for a process */
	assert_int_equal(status(A, PVRDMA_CMD_CREATE_MR, &q), EACCES);
	q.create_mr.flags = PVRDMA_MR_FRMR;
	assert_int_not_equal(status(A, PVRDMA_CMD_CREATE_MR, &q), 0);
	assert_int_not_equal(drv_mr(&A->vm, 4000, 4096, 1, &mr), 0);
	/* Queue pairs. */
	o = side_qp_opts(A, 3);
	assert_int_not_equal(drv_qp(&A->vm, &o, &qp), 0);
	o.type = PVRDMA_QPT_GSI;
	assert_int_equal(drv_qp(&A->vm, &o, &qp), EACCES);
	o = side_qp_opts(A, PVRDMA_QPT_RC);
	o.send_wr = 3;
	assert_int_not_equal(drv_qp(&A->vm, &o, &qp), 0);
	o.send_wr = 64;
	o.sge = 33; /* CVE-2018-20124 */
	assert_int_not_equal(drv_qp(&A->vm, &o, &qp), 0);
	o.sge = 1;
	o.use_srq = true;
	o.srq = 5;
	assert_int_not_equal(drv_qp(&A->vm, &o, &qp), 0);
	/* Another process's completion queue. */
	assert_int_equal(drv_uc(&A->vm, 2), 0);
	assert_int_equal(drv_cq(&A->vm, 2, 16, &cq), 0);
	o = side_qp_opts(A, PVRDMA_QPT_RC);
	o.rcq = cq.handle;
	assert_int_equal(drv_qp(&A->vm, &o, &qp), EACCES);
	/* Objects in use, or unknown, do not go. */
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_PD, A->pd), EBUSY);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_CQ, A->cq.handle), EBUSY);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_UC, 2), EBUSY);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_QP, 0xffffffff), EINVAL);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_MR, 65535), EINVAL);
	assert_int_equal(drv_destroy(&A->vm, 12345, 1), ENOSYS);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_RESIZE_CQ, 1), ENOSYS);
	/* An address that another VM speaks for. */
	assert_int_equal(drv_bind(&A->vm, 1, &B->gid), EADDRINUSE);
	assert_int_not_equal(drv_bind(&A->vm, PVRDMA_MAX_GID, &A->gid), 0);
	/* Steps that skip a state. */
	assert_int_not_equal(drv_modify(&A->qp, PVRDMA_INIT), 0);
	assert_int_not_equal(drv_modify(&A->qp, 77), 0);
	all_well();
}

static void test_limits(void **state)
{
	struct drv_mr big;
	struct drv_cq cq;
	unsigned n = 0, regions = 0;
	uint64_t next;
	union pvrdma_req q = {0};
	union pvrdma_resp r;

	(void)state;
	next = A->vm.next;
	while (drv_cq(&A->vm, WORLD_UAR, 16, &cq) == 0) {
		n++;
		A->vm.next = next; /* favo-hca does not mind shared pages */
	}
	assert_int_equal(n + 1, PVRDMA_MAX_CQ - 1);
	/* Translations: four times the memory, and some. */
	A->vm.next = next;
	assert_int_equal(drv_mr(&A->vm, A->pd, 8 << 20, 1, &big), 0);
	q.create_mr.start = 0;
	q.create_mr.length = 8 << 20;
	q.create_mr.pdir_dma = drv_dir(&A->vm, big.gpa, 2048);
	q.create_mr.pd_handle = A->pd;
	q.create_mr.nchunks = 2048;
	while (drv_command(&A->vm, PVRDMA_CMD_CREATE_MR, &q, &r) == 0)
		assert_true(++regions < 1000);
	assert_true(regions > 10);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_MR, big.handle), 0);
	assert_int_equal(drv_command(&A->vm, PVRDMA_CMD_CREATE_MR, &q, &r), 0);
	all_well();
}

static void reconnect(void)
{
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(drv_modify(&world.s[i].qp, PVRDMA_RESET), 0);
		assert_int_equal(drv_connect(&world.s[i].qp, &world.s[!i].gid,
					     world.s[!i].qp.qpn, 0),
				 0);
	}
}

static void test_bad_requests(void **state)
{
	static const uint32_t opcodes[] = {7, 8, 9, 10, 11, 12, 14, 15, 0xffffffff};
	struct pvrdma_sq_wqe w;
	struct pvrdma_sge bad;
	struct pvrdma_cqe cqe;
	struct drv_mr mr;
	uint32_t pd;

	(void)state;
	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(opcodes); i++) {
		w = wqe(opcodes[i]);
		assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_LOC_QP_OP);
		reconnect();
	}
	/* Local keys: none, of another domain, beyond the end, wrapping. */
	assert_int_equal(drv_pd(&A->vm, WORLD_UAR, &pd), 0);
	assert_int_equal(drv_mr(&A->vm, pd, 4096, ALL_ACCESS, &mr), 0);
	for (unsigned i = 0; i < 5; i++) {
		bad = side_sge(A, 0, 8);
		if (i == 0)
			bad.lkey ^= 1;
		else if (i == 1)
			bad = (struct pvrdma_sge){mr.addr, 8, mr.lkey};
		else if (i == 2)
			bad = side_sge(A, WORLD_MR - 4, 8);
		else if (i == 3)
			bad.addr = UINT64_MAX - 3;
		else
			bad.lkey = 0xffffffff;
		w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
		assert_int_equal(side_do(A, &w, bad), PVRDMA_WC_LOC_PROT);
		reconnect();
	}
	/* Remote keys, and rights that were not given. */
	assert_int_equal(drv_pd(&B->vm, WORLD_UAR, &pd), 0);
	for (unsigned i = 0; i < 6; i++) {
		w = wqe_rdma(i & 1 ? PVRDMA_WR_READ : PVRDMA_WR_WRITE, B, 0);
		if (i < 2) {
			w.rdma.remote_addr = B->mr.addr + WORLD_MR - 7;
		} else {
			assert_int_equal(drv_mr(&B->vm, i < 4 ? pd : B->pd, 4096,
						i < 4 ? ALL_ACCESS : PVRDMA_LOCAL_WRITE,
						&mr),
					 0);
			w.rdma.remote_addr = mr.addr;
			w.rdma.rkey = mr.rkey;
		}
		assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_REM_ACCESS);
		reconnect();
	}
	/* More segments than the queue pair has. */
	w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
	bad = side_sge(A, 0, 8);
	drv_post_send(&A->qp, &w, &bad);
	assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	w.num_sge = 0xffffffff;
	memcpy(A->qp.sq + ((size_t)A->qp.stail << A->qp.sshift), &w, sizeof(w));
	A->qp.stail++;
	atomic_store(&A->qp.state->tx.prod_tail, A->qp.stail);
	drv_ring(&A->vm, WORLD_UAR, PVRDMA_UAR_QP, PVRDMA_UAR_QP_SEND | A->qp.handle);
	assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_LOC_QP_OP);
	reconnect();
	all_well();
}

static void test_bad_indices(void **state)
{
	static const uint32_t tails[] = {0xffffffff, 128, 127, 65, 0x80000001};
	struct pvrdma_eqe eqe;
	struct pvrdma_cqe cqe;
	unsigned n;

	(void)state;
	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(tails); i++) {
		reconnect();
		while (drv_next_async(&A->vm, &eqe) || drv_poll(&A->cq, &cqe))
			;
		atomic_store(&A->qp.state->tx.prod_tail, tails[i]);
		drv_ring(&A->vm, WORLD_UAR, PVRDMA_UAR_QP,
			 PVRDMA_UAR_QP_SEND | A->qp.handle);
		assert_true(drv_wait_vector(&A->vm, 1, WAIT_MS));
		assert_true(drv_next_async(&A->vm, &eqe));
		assert_int_equal(eqe.type, PVRDMA_EVENT_QP_FATAL);
		assert_int_equal(eqe.info, A->qp.handle);
	}
	reconnect();
	/* A completion queue whose reader lies, or does not read. */
	atomic_store(&A->cq.ring->cons_head, 0x12345678);
	for (n = 0; n < 2; n++) {
		struct pvrdma_sq_wqe w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
		struct pvrdma_sge sge = side_sge(A, 0, 8);

		drv_post_send(&A->qp, &w, &sge);
	}
	assert_true(drv_wait_vector(&A->vm, 1, WAIT_MS));
	assert_true(drv_next_async(&A->vm, &eqe));
	assert_int_equal(eqe.type, PVRDMA_EVENT_CQ_ERR);
	assert_int_equal(eqe.info, A->cq.handle);
}

/* Two processes in one guest: one cannot arm or ring the other's queues. */
static void test_foreign_doorbell(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_sge into = side_sge(B, 0, 8);
	struct pvrdma_cqe cqe;
	uint32_t cq;

	(void)state;
	assert_int_equal(drv_uc(&B->vm, 2), 0);
	drv_ring(&B->vm, 2, PVRDMA_UAR_CQ, PVRDMA_UAR_CQ_ARM | B->cq.handle);
	drv_ring(&B->vm, 2, PVRDMA_UAR_CQ, PVRDMA_UAR_CQ_ARM | 0xffffff);
	drv_ring(&B->vm, 2, PVRDMA_UAR_QP, PVRDMA_UAR_QP_SEND | 0xffffff);
	drv_ring(&B->vm, 255, 4092, 0xffffffff);
	drv_post_recv(&B->qp, 1, &into, 1);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(drv_wait(&B->cq, &cqe, WAIT_MS));
	assert_false(drv_next_notify(&B->vm, &cq));
}

/* The ring of doorbells itself, which a favo-vmm that was taken over writes. */
static void test_doorbell_ring(void **state)
{
	const uint64_t one = 1;
	struct favo_hca_shared *s = A->vm.shared;

	(void)state;
	memset(s->bells, 0xff, sizeof(s->bells));
	atomic_fetch_add(&s->head, 0x7fffffff);
	assert_int_equal(write(A->vm.kick, &one, 8), 8);
	all_well();
	atomic_store(&s->overflow, 1);
	assert_int_equal(write(A->vm.kick, &one, 8), 8);
	all_well();
}

/* The first MiB of A, COUNT times. */
static void post_mib(const struct pvrdma_sq_wqe *w, unsigned count)
{
	for (unsigned i = 0; i < count; i++) {
		struct pvrdma_sge sge = side_sge(A, 0, 1 << 20);

		drv_post_send(&A->qp, w, &sge);
	}
}

/* A region that goes in the middle of traffic: canary pages stay as they are. */
static void test_destroyed_region(void **state)
{
	struct pvrdma_sq_wqe w;
	struct pvrdma_cqe cqe;
	struct drv_mr mr;
	uint8_t *canary;

	(void)state;
	assert_int_equal(drv_mr(&B->vm, B->pd, 1 << 20, ALL_ACCESS, &mr), 0);
	w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
	w.rdma.remote_addr = mr.addr;
	w.rdma.rkey = mr.rkey;
	memset(side_mem(A, 0), 0x42, 1 << 20);
	post_mib(&w, 32);
	assert_int_equal(drv_destroy(&B->vm, PVRDMA_CMD_DESTROY_MR, mr.handle), 0);
	canary = drv_ptr(&B->vm, mr.gpa);
	memset(canary, 0xc5, 1 << 20);
	/* Of those before, all may have gone through in time. */
	post_mib(&w, 1);
	do {
		assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	} while (cqe.status == PVRDMA_WC_SUCCESS);
	assert_int_equal(cqe.status, PVRDMA_WC_REM_ACCESS);
	for (unsigned i = 0; i < 1 << 20; i++)
		assert_int_equal(canary[i], 0xc5);
	/* The next region has another key. */
	assert_int_equal(drv_mr(&B->vm, B->pd, 4096, ALL_ACCESS, &mr), 0);
	assert_int_not_equal(mr.rkey, w.rdma.rkey);
}

/* Reset of a guest (kexec, driver unload) while the peer writes into it. */
static void test_reset_in_traffic(void **state)
{
	struct pvrdma_sq_wqe w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
	struct pvrdma_cqe cqe;

	(void)state;
	memset(side_mem(A, 0), 0x42, 1 << 20);
	post_mib(&w, 32);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_RESET, 0, NULL), 0);
	memset(B->vm.ram, 0xc5, WORLD_RAM);
	/* When all the others were through in time, this one is flushed. */
	post_mib(&w, 1);
	do {
		assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	} while (cqe.status == PVRDMA_WC_SUCCESS);
	assert_true(cqe.status == PVRDMA_WC_RETRY_EXC ||
		    cqe.status == PVRDMA_WC_WR_FLUSH);
	for (uint64_t i = 0; i < WORLD_RAM; i++)
		if (B->vm.ram[i] != 0xc5)
			fail_msg("byte %#llx was written after RESET",
				 (unsigned long long)i);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(test_wrong_state),	  T(test_bad_messages),	 T(test_bad_objects),
		T(test_limits),		  T(test_bad_requests),	 T(test_bad_indices),
		T(test_foreign_doorbell), T(test_doorbell_ring), T(test_destroyed_region),
		T(test_reset_in_traffic),
	};

	alarm(300);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
