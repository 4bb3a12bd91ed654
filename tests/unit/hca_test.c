// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-hca as guests use it: every command and opcode, notifications, the gaits
 * of the loop, and what peers see of a VM that ends.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util.h"
#include "tests/unit/hca_world.h"

#define SPIN_US 200

static struct world world;
#define A (&world.s[0])
#define B (&world.s[1])

static int set_up(void **state)
{
	(void)state;
	world_open(&world, 2, SPIN_US);
	world_connect(&world, DRV_RNR_FOREVER);
	return 0;
}

static int tear_down(void **state)
{
	(void)state;
	world_close(&world);
	return 0;
}

static void fill(uint8_t *p, size_t n, uint8_t seed)
{
	for (size_t i = 0; i < n; i++)
		p[i] = (uint8_t)(seed + i * 7 + (i >> 8));
}

static void recv_is(struct side *s, uint64_t wr_id, uint32_t opcode, uint32_t bytes,
		    uint32_t flags)
{
	struct pvrdma_cqe cqe;

	assert_true(drv_wait(&s->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_SUCCESS);
	assert_true(cqe.wr_id == wr_id);
	assert_int_equal(cqe.opcode, opcode);
	assert_int_equal(cqe.byte_len, bytes);
	assert_int_equal(cqe.wc_flags, flags);
	assert_int_equal(cqe.qp, s->qp.handle);
}

static void test_caps_and_queries(void **state)
{
	struct pvrdma_dsr *dsr = drv_ptr(&A->vm, A->vm.dsr);
	union pvrdma_req q = {0};
	union pvrdma_resp r;

	(void)state;
	assert_int_equal(dsr->caps.mode, 0);
	assert_int_equal(dsr->caps.gid_types, 2);
	assert_true(dsr->caps.max_qp_wr >= 512 && dsr->caps.max_cqe >= 1024);
	assert_int_equal(dsr->caps.max_uar & (dsr->caps.max_uar - 1), 0);
	q.query.port_num = 1;
	assert_int_equal(drv_command(&A->vm, PVRDMA_CMD_QUERY_PORT, &q, &r), 0);
	assert_int_equal(r.query_port.attrs.state, 4);
	assert_int_equal(r.query_port.attrs.gid_tbl_len, dsr->caps.gid_tbl_len);
	assert_int_equal(drv_command(&A->vm, PVRDMA_CMD_QUERY_PKEY, &q, &r), 0);
	assert_int_equal(r.query_pkey.pkey, 0xffff);
	q.query.port_num = 2;
	assert_int_not_equal(drv_command(&A->vm, PVRDMA_CMD_QUERY_PORT, &q, NULL), 0);
	memset(&q, 0, sizeof(q));
	q.by_handle.handle = A->qp.handle;
	assert_int_equal(drv_command(&A->vm, PVRDMA_CMD_QUERY_QP, &q, &r), 0);
	assert_int_equal(r.query_qp.attrs.qp_state, PVRDMA_RTS);
	assert_int_equal(r.query_qp.attrs.dest_qp_num, B->qp.qpn);
	assert_int_equal(r.query_qp.attrs.cap.max_send_wr, 64);
}

static void test_send(void **state)
{
	static const uint32_t sizes[] = {0, 1, 7, 8, 9, 4095, 4096, 70001, 1 << 20};
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);

	(void)state;
	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(sizes); i++) {
		struct pvrdma_sge to[2] = {side_sge(B, 4000, 100),
					   side_sge(B, 100001, 1 << 20)};
		uint32_t n = sizes[i], head = FAVO_MIN(n, 100u);

		fill(side_mem(A, 13), n, (uint8_t)i);
		memset(side_mem(B, 0), 0x77, WORLD_MR);
		drv_post_recv(&B->qp, 40 + i, to, 2);
		assert_int_equal(side_do(A, &w, side_sge(A, 13, n)), PVRDMA_WC_SUCCESS);
		recv_is(B, 40 + i, PVRDMA_WC_RECV, n, 0);
		assert_memory_equal(side_mem(A, 13), side_mem(B, 4000), head);
		assert_memory_equal(side_mem(A, 13 + head), side_mem(B, 100001),
				    n - head);
		assert_int_equal(*side_mem(B, 3999), 0x77);
		assert_int_equal(*side_mem(B, 100001 + n - head), 0x77);
	}
	w.opcode = PVRDMA_WR_SEND_IMM;
	w.ex = 0x01020304;
	drv_post_recv(&B->qp, 1, (struct pvrdma_sge[]){side_sge(B, 0, 8)}, 1);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	recv_is(B, 1, PVRDMA_WC_RECV, 8, PVRDMA_WCF_IMM);
}

static void test_write_and_read(void **state)
{
	struct pvrdma_sq_wqe w = wqe_rdma(PVRDMA_WR_WRITE, B, 5001);

	(void)state;
	fill(side_mem(A, 3), 300000, 1);
	assert_int_equal(side_do(A, &w, side_sge(A, 3, 300000)), PVRDMA_WC_SUCCESS);
	assert_memory_equal(side_mem(A, 3), side_mem(B, 5001), 300000);
	w = wqe_rdma(PVRDMA_WR_READ, B, 5001);
	assert_int_equal(side_do(A, &w, side_sge(A, 700000, 300000)), PVRDMA_WC_SUCCESS);
	assert_memory_equal(side_mem(A, 700000), side_mem(B, 5001), 300000);
	w = wqe_rdma(PVRDMA_WR_WRITE_IMM, B, 0);
	drv_post_recv(&B->qp, 9, (struct pvrdma_sge[]){side_sge(B, 0, 0)}, 0);
	assert_int_equal(side_do(A, &w, side_sge(A, 3, 77)), PVRDMA_WC_SUCCESS);
	recv_is(B, 9, PVRDMA_WC_RECV_IMM, 77, PVRDMA_WCF_IMM);
	assert_memory_equal(side_mem(A, 3), side_mem(B, 0), 77);
}

static void test_atomics(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_FETCH_ADD);
	uint64_t *at = (uint64_t *)(void *)side_mem(B, 64);
	uint64_t *got = (uint64_t *)(void *)side_mem(A, 0);

	(void)state;
	*at = 100;
	w.atomic.remote_addr = B->mr.addr + 64;
	w.atomic.rkey = B->mr.rkey;
	w.atomic.compare_add = 11;
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(*at == 111 && *got == 100);
	w.opcode = PVRDMA_WR_CMP_SWP;
	w.atomic.compare_add = 111;
	w.atomic.swap = 5;
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(*at == 5 && *got == 111);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(*at == 5 && *got == 5);
}

static void test_unsignalled_moves_ring(void **state)
{
	struct drv_qp_opts o = side_qp_opts(A, PVRDMA_QPT_RC);
	struct pvrdma_sq_wqe w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
	struct pvrdma_sge sge = side_sge(A, 0, 8);
	struct pvrdma_cqe cqe;

	(void)state;
	o.signal_all = false;
	assert_int_equal(drv_qp(&A->vm, &o, &A->qp), 0);
	assert_int_equal(drv_connect(&A->qp, &B->gid, B->qp.qpn, 0), 0);
	assert_int_equal(drv_modify(&B->qp, PVRDMA_RESET), 0);
	assert_int_equal(drv_connect(&B->qp, &A->gid, A->qp.qpn, 0), 0);
	for (unsigned i = 1; i <= 1000; i++) {
		w.wr_id = i;
		w.send_flags = i % 50 ? 0 : PVRDMA_SEND_SIGNALED;
		drv_post_send(&A->qp, &w, &sge);
		if (i % 50)
			continue;
		assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
		assert_true(cqe.wr_id == i && cqe.status == PVRDMA_WC_SUCCESS);
		assert_int_equal(atomic_load(&A->qp.state->tx.cons_head), A->qp.stail);
	}
}

/* Two kinds of datagram queue pairs: QP 1, and a user's. */
static void datagram(struct side *from, struct drv_qp *src, struct side *to,
		     struct drv_qp *dst, uint32_t qkey)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_sge sge = side_sge(from, 0, 256), into = side_sge(to, 8192, 512);
	struct pvrdma_cqe cqe;
	uint8_t *got = side_mem(to, 8192);
	uint32_t sum = 0;

	w.ud.remote_qpn = dst->qpn;
	w.ud.remote_qkey = qkey;
	memset(&w.ud.av, 0, sizeof(w.ud.av));
	w.ud.av.dgid = to->gid;
	fill(side_mem(from, 0), 256, 3);
	drv_post_recv(dst, 5, &into, 1);
	drv_post_send(src, &w, &sge);
	assert_true(drv_wait(&from->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_SUCCESS);
	assert_true(drv_wait(&to->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_SUCCESS);
	assert_int_equal(cqe.byte_len, 256 + PVRDMA_GRH);
	assert_int_equal(cqe.src_qp, src->qpn);
	assert_int_equal(cqe.wc_flags, PVRDMA_WCF_GRH | PVRDMA_WCF_NETHDR);
	assert_int_equal(cqe.network_hdr_type, PVRDMA_NET_IPV4);
	assert_memory_equal(got + PVRDMA_GRH, side_mem(from, 0), 256);
	/* The kernel checks the IPv4 header before it believes the addresses. */
	assert_int_equal(got[20], 0x45);
	assert_memory_equal(got + 32, from->gid.raw + 12, 4);
	assert_memory_equal(got + 36, to->gid.raw + 12, 4);
	for (unsigned i = 20; i < 40; i += 2)
		sum += (uint32_t)got[i] << 8 | got[i + 1];
	assert_int_equal((sum & 0xffff) + (sum >> 16), 0xffff);
}

static void test_datagrams(void **state)
{
	struct drv_qp a, b;
	struct drv_qp_opts oa = side_qp_opts(A, PVRDMA_QPT_UD);
	struct drv_qp_opts ob = side_qp_opts(B, PVRDMA_QPT_UD);

	(void)state;
	assert_int_equal(drv_qp(&A->vm, &oa, &a), 0);
	assert_int_equal(drv_qp(&B->vm, &ob, &b), 0);
	assert_int_equal(drv_ready_ud(&a, 0x1111), 0);
	assert_int_equal(drv_ready_ud(&b, 0x2222), 0);
	datagram(A, &a, B, &b, 0x2222);
}

static void test_gsi(void **state)
{
	struct drv_qp gsi[2];

	(void)state;
	for (unsigned i = 0; i < 2; i++) {
		struct side *s = &world.s[i];
		struct drv_qp_opts o;
		union pvrdma_req q = {0};
		union pvrdma_resp r;

		/* The kernel's: context 0, memory by its DMA region. */
		assert_int_equal(drv_pd(&s->vm, 0, &s->pd), 0);
		assert_int_equal(drv_cq(&s->vm, 0, 256, &s->cq), 0);
		q.create_mr.pd_handle = s->pd;
		q.create_mr.flags = PVRDMA_MR_DMA;
		q.create_mr.access_flags = PVRDMA_LOCAL_WRITE;
		assert_int_equal(drv_command(&s->vm, PVRDMA_CMD_CREATE_MR, &q, &r), 0);
		s->mr.lkey = r.create.lkey;
		s->mr.addr = s->mr.gpa;
		o = side_qp_opts(s, PVRDMA_QPT_GSI);
		o.uar = 0;
		assert_int_equal(drv_qp(&s->vm, &o, &gsi[i]), 0);
		assert_int_equal(gsi[i].qpn, 1);
		assert_true(gsi[i].handle >= 2);
		assert_int_not_equal(drv_qp(&s->vm, &o, &s->qp), 0); /* one only */
		assert_int_equal(drv_ready_ud(&gsi[i], 0x80010000), 0);
	}
	/* The high bit means the key of the queue pair. */
	datagram(A, &gsi[0], B, &gsi[1], 0x80010000);
	datagram(B, &gsi[1], A, &gsi[0], 0x80010000);
}

static void test_srq(void **state)
{
	struct drv_qp_opts o = side_qp_opts(B, PVRDMA_QPT_RC);
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_eqe eqe;
	struct drv_qp srq;

	(void)state;
	assert_int_equal(drv_srq(&B->vm, B->pd, 64, 3, &srq), 0);
	srq.uar = WORLD_UAR;
	o.use_srq = true;
	o.srq = srq.handle;
	assert_int_equal(drv_qp(&B->vm, &o, &B->qp), 0);
	assert_int_equal(drv_modify(&A->qp, PVRDMA_RESET), 0);
	assert_int_equal(drv_connect(&A->qp, &B->gid, B->qp.qpn, 7), 0);
	assert_int_equal(drv_connect(&B->qp, &A->gid, A->qp.qpn, 7), 0);
	for (unsigned i = 0; i < 4; i++) {
		struct pvrdma_sge sge = side_sge(B, 4096 * i, 4096);

		drv_post_srq(&srq, 100 + i, &sge);
	}
	for (unsigned i = 0; i < 4; i++) {
		fill(side_mem(A, 0), 500, (uint8_t)i);
		assert_int_equal(side_do(A, &w, side_sge(A, 0, 500)), PVRDMA_WC_SUCCESS);
		recv_is(B, 100 + i, PVRDMA_WC_RECV, 500, 0);
		assert_memory_equal(side_mem(A, 0), side_mem(B, 4096 * i), 500);
	}
	/* Below the limit: told once. */
	assert_true(drv_next_async(&B->vm, &eqe));
	assert_int_equal(eqe.type, PVRDMA_EVENT_SRQ_LIMIT);
	assert_int_equal(eqe.info, srq.handle);
	assert_false(drv_next_async(&B->vm, &eqe));
	assert_int_not_equal(drv_destroy(&B->vm, PVRDMA_CMD_DESTROY_SRQ, srq.handle), 0);
	assert_int_equal(drv_destroy(&B->vm, PVRDMA_CMD_DESTROY_QP, B->qp.handle), 0);
	assert_int_equal(drv_destroy(&B->vm, PVRDMA_CMD_DESTROY_SRQ, srq.handle), 0);
}

/* No receive posted: the sender waits, and goes on by the receiver's doorbell. */
static void test_receiver_not_ready(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_sge sge = side_sge(A, 0, 8), into = side_sge(B, 0, 8);
	struct pvrdma_cqe cqe;

	(void)state;
	drv_post_send(&A->qp, &w, &sge);
	assert_false(drv_wait(&A->cq, &cqe, 50));
	drv_post_recv(&B->qp, 1, &into, 1);
	assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_SUCCESS);
	recv_is(B, 1, PVRDMA_WC_RECV, 8, 0);
}

/* Errors that each end must see, and no others. */
static void test_error_statuses(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_sge into = side_sge(B, 0, 8);
	struct pvrdma_cqe cqe;

	(void)state;
	/* Too long for the receive request. */
	drv_post_recv(&B->qp, 1, &into, 1);
	drv_post_recv(&B->qp, 2, &into, 1);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 9)), PVRDMA_WC_REM_INV_REQ);
	assert_true(drv_wait(&B->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_LOC_LEN);
	/* The rest is flushed, and what is posted later, too. */
	assert_true(drv_wait(&B->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_WR_FLUSH);
	assert_true(cqe.wr_id == 2);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_WR_FLUSH);
	/* After reset the pair works again. */
	for (unsigned i = 0; i < 2; i++) {
		assert_int_equal(drv_modify(&world.s[i].qp, PVRDMA_RESET), 0);
		assert_int_equal(drv_connect(&world.s[i].qp, &world.s[!i].gid,
					     world.s[!i].qp.qpn, 0),
				 0);
	}
	drv_post_recv(&B->qp, 3, &into, 1);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	recv_is(B, 3, PVRDMA_WC_RECV, 8, 0);
	/* No receive, no patience. */
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_RNR_RETRY_EXC);
}

static void test_unconnected_peer(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_cqe cqe;

	(void)state;
	assert_int_equal(drv_destroy(&B->vm, PVRDMA_CMD_DESTROY_QP, B->qp.handle), 0);
	/* 4 ms, 8 tries. */
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_RETRY_EXC);
	assert_false(drv_wait(&B->cq, &cqe, 10));
}

/* Until favo-hca has seen what was rung: its loop turns between two requests. */
static void seen(struct side *s)
{
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(drv_request(&s->vm, FAVO_HCA_RESUME, 0, NULL), 0);
}

static void test_notification(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_sge into = side_sge(B, 0, 8);
	struct pvrdma_cqe cqe;
	uint32_t cq;

	(void)state;
	for (unsigned i = 0; i < 4; i++)
		drv_post_recv(&B->qp, i, &into, 1);
	/* Not armed: nothing is told. */
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(drv_wait(&B->cq, &cqe, WAIT_MS));
	assert_false(drv_next_notify(&B->vm, &cq));
	/* Armed: once. */
	drv_arm(&B->cq, false);
	seen(B);
	assert_false(drv_next_notify(&B->vm, &cq));
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(drv_wait_vector(&B->vm, 2, WAIT_MS));
	assert_true(drv_next_notify(&B->vm, &cq));
	assert_int_equal(cq, B->cq.handle);
	assert_false(drv_next_notify(&B->vm, &cq));
	/* Armed with a completion that was not taken: at once. */
	drv_arm(&B->cq, false);
	assert_true(drv_wait_vector(&B->vm, 2, WAIT_MS));
	assert_true(drv_next_notify(&B->vm, &cq));
	assert_true(drv_poll(&B->cq, &cqe));
	/* Armed for solicited ones: the first is none. */
	drv_arm(&B->cq, true);
	seen(B);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_false(drv_next_notify(&B->vm, &cq));
	w.send_flags |= PVRDMA_SEND_SOLICITED;
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
	assert_true(drv_wait_vector(&B->vm, 2, WAIT_MS));
	assert_true(drv_next_notify(&B->vm, &cq));
	assert_false(drv_next_notify(&B->vm, &cq));
}

static void test_peer_vm_ends(void **state)
{
	struct pvrdma_sq_wqe w = wqe(PVRDMA_WR_SEND);
	struct pvrdma_sge sge = side_sge(A, 0, 8);
	struct pvrdma_cqe cqe;
	struct pvrdma_eqe eqe;

	(void)state;
	/* One send waits for a receive, a receive waits for a send. */
	drv_post_recv(&A->qp, 77, &sge, 1);
	drv_post_send(&A->qp, &w, &sge);
	assert_false(drv_wait(&A->cq, &cqe, 10));
	side_leave(B);
	assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_RETRY_EXC);
	assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_WR_FLUSH);
	assert_true(cqe.wr_id == 77);
	assert_true(drv_wait_vector(&A->vm, 1, WAIT_MS));
	assert_true(drv_next_async(&A->vm, &eqe));
	assert_int_equal(eqe.type, PVRDMA_EVENT_QP_FATAL);
	/* Its address is free for a new VM, and that can be reached. */
	world_add(&world, 1);
	assert_int_equal(drv_modify(&A->qp, PVRDMA_RESET), 0);
	assert_int_equal(drv_destroy(&A->vm, PVRDMA_CMD_DESTROY_QP, A->qp.handle), 0);
	world_connect(&world, 0);
	w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
	assert_int_equal(side_do(A, &w, side_sge(A, 0, 8)), PVRDMA_WC_SUCCESS);
}

static void test_paused_peer(void **state)
{
	struct pvrdma_sq_wqe w = wqe_rdma(PVRDMA_WR_WRITE, B, 0);
	struct pvrdma_sge sge = side_sge(A, 0, 8);
	struct pvrdma_cqe cqe;

	(void)state;
	memset(side_mem(A, 0), 0x33, 8);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_PAUSE, 0, NULL), 0);
	drv_post_send(&A->qp, &w, &sge);
	/* Longer than all retries: a pause is no failure. */
	assert_false(drv_wait(&A->cq, &cqe, 100));
	assert_int_equal(*side_mem(B, 0), 0);
	assert_int_equal(drv_request(&B->vm, FAVO_HCA_RESUME, 0, NULL), 0);
	assert_true(drv_wait(&A->cq, &cqe, WAIT_MS));
	assert_int_equal(cqe.status, PVRDMA_WC_SUCCESS);
	assert_int_equal(*side_mem(B, 0), 0x33);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
	const struct CMUnitTest tests[] = {
		T(test_caps_and_queries),
		T(test_send),
		T(test_write_and_read),
		T(test_atomics),
		T(test_unsignalled_moves_ring),
		T(test_datagrams),
		T(test_gsi),
		T(test_srq),
		T(test_receiver_not_ready),
		T(test_error_statuses),
		T(test_unconnected_peer),
		T(test_notification),
		T(test_peer_vm_ends),
		T(test_paused_peer),
	};

	alarm(300);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
