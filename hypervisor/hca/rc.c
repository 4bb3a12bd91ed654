// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reliable connections between VMs of this process: requester and responder in
 * one step, one copy from guest to guest. A message longer than HCA_SLICE goes
 * on in later turns, and all keys and both ends are looked up again then.
 * PSNs are not used: memory loses and reorders nothing.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/hca/hca.h"
#include "hypervisor/hca/ring.h"

#define MS 1000000ULL
#define GIVE_UP_MIN_NS (20 * MS) /* hosts stall longer than networks */
#define GIVE_UP_MAX_NS (30000 * MS)

enum outcome { DONE, MORE, WAIT, FAILED };

/* One request and both its ends. */
struct job {
	struct hca_qp *qp, *to;
	struct hca_send *s;
	struct pvrdma_sge remote; /* of one-sided requests */
};

static struct hca_vm *peer_of(struct favo_hca *hca, struct hca_qp *qp)
{
	if (!qp->peer)
		qp->peer = favo_hca_find_gid(hca, &qp->attr.ah_attr.dgid);
	return qp->peer;
}

/* The other end, if it is connected to us and can take part now. */
static struct hca_qp *responder(struct favo_hca *hca, struct hca_qp *qp)
{
	struct hca_vm *peer = peer_of(hca, qp);
	struct hca_qp *to;

	if (!peer || !hca_vm_runs(peer))
		return NULL;
	to = hca_get(&peer->qps, qp->attr.dest_qp_num & 0xffff);
	if (!to || to->qpn != qp->attr.dest_qp_num || to->type != PVRDMA_QPT_RC ||
	    to->state < PVRDMA_RTR || to->state > PVRDMA_SQE ||
	    to->attr.dest_qp_num != qp->qpn || peer_of(hca, to) != qp->obj.vm)
		return NULL;
	return to;
}

static enum outcome fail(struct job *j, uint32_t status)
{
	favo_hca_complete_send(j->qp, j->s, status, 0);
	favo_hca_qp_error(j->qp, -1);
	return FAILED;
}

/* Responder's fault or the requester's attack on it: both ends are lost. */
static enum outcome refuse(struct job *j, uint32_t status, int event)
{
	favo_hca_qp_error(j->to, event);
	return fail(j, status);
}

/* for_ns 0: for ever. */
static enum outcome wait_for(struct job *j, uint64_t for_ns, uint32_t status)
{
	struct hca_qp *qp = j->qp;

	if (!qp->waiting) {
		qp->waiting = true;
		qp->give_up_ns = for_ns ? favo_hca_clock() + for_ns : 0;
	}
	if (!for_ns)
		qp->give_up_ns = 0;
	else if (qp->give_up_ns && qp->obj.vm->hca->now_ns >= qp->give_up_ns)
		return fail(j, status);
	return WAIT;
}

static uint64_t clamp_wait(uint64_t ns)
{
	return FAVO_MAX(GIVE_UP_MIN_NS, FAVO_MIN(ns, GIVE_UP_MAX_NS));
}

static enum outcome no_answer(struct job *j)
{
	const struct pvrdma_qp_attr *a = &j->qp->attr;
	uint64_t ns = a->timeout ? 4096ULL << (a->timeout & 31) : GIVE_UP_MAX_NS;

	/* A paused peer is neither there nor gone. */
	if (j->qp->peer && j->qp->peer->paused)
		return wait_for(j, 0, 0);
	return wait_for(j, clamp_wait(ns * (a->retry_cnt + 1ULL)), PVRDMA_WC_RETRY_EXC);
}

static enum outcome not_ready(struct job *j)
{
	unsigned retries = j->qp->attr.rnr_retry & 7;

	/* The RNR NAK timer reaches 655 ms; the least wait is enough for us. */
	return wait_for(j, retries == 7 ? 0 : clamp_wait(retries * 10 * MS),
			PVRDMA_WC_RNR_RETRY_EXC);
}

/* Have a receive request in to->recv. */
static enum outcome take_recv(struct job *j)
{
	int ret;

	if (j->to->recv.held)
		return DONE;
	ret = favo_hca_recv_take(j->to, &j->to->recv);
	if (ret > 0)
		return DONE;
	if (ret == 0)
		return not_ready(j);
	return refuse(j, PVRDMA_WC_REM_OP, PVRDMA_EVENT_QP_FATAL);
}

static struct hca_span local_span(const struct job *j, uint32_t need)
{
	return (struct hca_span){.vm = j->qp->obj.vm,
				 .pd = j->qp->pd,
				 .need = need,
				 .sge = j->s->sge,
				 .nsge = j->s->nsge};
}

static struct hca_span remote_span(struct job *j, uint32_t need)
{
	j->remote = (struct pvrdma_sge){.addr = j->s->w.rdma.remote_addr,
					.length = j->s->length,
					.lkey = j->s->w.rdma.rkey};
	return (struct hca_span){.vm = j->to->obj.vm,
				 .pd = j->to->pd,
				 .need = need,
				 .sge = &j->remote,
				 .nsge = 1};
}

/* The next slice of a message; DONE after the last one, FAILED: look who. */
static enum outcome copy_slice(struct job *j, struct hca_span *to, struct hca_span *from)
{
	uint32_t n = FAVO_MIN(j->s->length - j->qp->done, HCA_SLICE);

	if (j->qp->done) {
		favo_hca_span_skip(to, j->qp->done);
		favo_hca_span_skip(from, j->qp->done);
	}
	if (favo_hca_copy(to, from, n) < 0)
		return FAILED;
	j->qp->done += n;
	j->qp->obj.vm->hca->bytes += n;
	return j->qp->done == j->s->length ? DONE : MORE;
}

static void received(struct job *j, uint32_t opcode, uint32_t status)
{
	struct hca_send *s = j->s;
	bool imm =
		s->w.opcode == PVRDMA_WR_SEND_IMM || s->w.opcode == PVRDMA_WR_WRITE_IMM;
	struct pvrdma_cqe cqe = {
		.opcode = opcode,
		.status = status,
		.byte_len = s->length,
		.imm_data_be = imm ? s->w.ex : 0,
		.src_qp = j->qp->qpn,
		.wc_flags = imm ? PVRDMA_WCF_IMM : 0,
	};

	j->to->recv.held = false;
	favo_hca_complete_recv(j->to, &j->to->recv, &cqe,
			       s->w.send_flags & PVRDMA_SEND_SOLICITED);
}

static enum outcome do_send(struct job *j)
{
	struct hca_span from = local_span(j, 0), to;
	enum outcome o = take_recv(j);

	if (o != DONE)
		return o;
	if (j->s->length > j->to->recv.length) {
		received(j, PVRDMA_WC_RECV, PVRDMA_WC_LOC_LEN);
		return refuse(j, PVRDMA_WC_REM_INV_REQ, -1);
	}
	to = (struct hca_span){.vm = j->to->obj.vm,
			       .pd = j->to->pd,
			       .need = PVRDMA_LOCAL_WRITE,
			       .sge = j->to->recv.sge,
			       .nsge = j->to->recv.nsge};
	o = copy_slice(j, &to, &from);
	if (o == FAILED) {
		from = local_span(j, 0);
		if (!favo_hca_span_check(&from))
			return fail(j, PVRDMA_WC_LOC_PROT);
		received(j, PVRDMA_WC_RECV, PVRDMA_WC_LOC_PROT);
		return refuse(j, PVRDMA_WC_REM_OP, -1);
	}
	if (o == DONE)
		received(j, PVRDMA_WC_RECV, PVRDMA_WC_SUCCESS);
	return o;
}

static bool remote_allowed(struct job *j, uint32_t need)
{
	struct hca_send *s = j->s;

	return (j->to->attr.qp_access_flags & need) &&
	       (!s->length || favo_hca_mr_get(j->to->obj.vm, j->to->pd, s->w.rdma.rkey,
					      s->w.rdma.remote_addr, s->length, need));
}

static enum outcome do_write(struct job *j)
{
	struct hca_span from = local_span(j, 0);
	struct hca_span to = remote_span(j, PVRDMA_REMOTE_WRITE);
	bool imm = j->s->w.opcode == PVRDMA_WR_WRITE_IMM;
	enum outcome o;

	if (!remote_allowed(j, PVRDMA_REMOTE_WRITE))
		return refuse(j, PVRDMA_WC_REM_ACCESS, PVRDMA_EVENT_QP_ACCESS_ERR);
	o = imm ? take_recv(j) : DONE;
	if (o != DONE)
		return o;
	o = copy_slice(j, &to, &from);
	/* The whole remote range was allowed just now. */
	if (o == FAILED)
		return fail(j, PVRDMA_WC_LOC_PROT);
	if (o == DONE && imm)
		received(j, PVRDMA_WC_RECV_IMM, PVRDMA_WC_SUCCESS);
	return o;
}

static enum outcome do_read(struct job *j)
{
	struct hca_span from = remote_span(j, PVRDMA_REMOTE_READ);
	struct hca_span to = local_span(j, PVRDMA_LOCAL_WRITE);
	enum outcome o;

	if (!remote_allowed(j, PVRDMA_REMOTE_READ))
		return refuse(j, PVRDMA_WC_REM_ACCESS, PVRDMA_EVENT_QP_ACCESS_ERR);
	o = copy_slice(j, &to, &from);
	return o == FAILED ? fail(j, PVRDMA_WC_LOC_PROT) : o;
}

/* Atomic towards the guests' own processors as well. */
static enum outcome do_atomic(struct job *j)
{
	struct hca_span to = local_span(j, PVRDMA_LOCAL_WRITE);
	const struct pvrdma_sq_wqe *w = &j->s->w;
	uint64_t addr = w->atomic.remote_addr, len, old, *p;
	struct hca_mr *mr;

	if (j->s->length != sizeof(old))
		return fail(j, PVRDMA_WC_LOC_LEN);
	if (!favo_hca_span_check(&to))
		return fail(j, PVRDMA_WC_LOC_PROT);
	if (addr & 7)
		return refuse(j, PVRDMA_WC_REM_INV_REQ, PVRDMA_EVENT_QP_REQ_ERR);
	mr = j->to->attr.qp_access_flags & PVRDMA_REMOTE_ATOMIC
		     ? favo_hca_mr_get(j->to->obj.vm, j->to->pd, w->atomic.rkey, addr,
				       sizeof(old), PVRDMA_REMOTE_ATOMIC)
		     : NULL;
	if (!mr)
		return refuse(j, PVRDMA_WC_REM_ACCESS, PVRDMA_EVENT_QP_ACCESS_ERR);
	/* Aligned in the region's addresses, and pages keep the low bits. */
	p = (uint64_t *)(void *)favo_hca_mr_ptr(mr, addr, sizeof(old), &len);
	if (w->opcode == PVRDMA_WR_FETCH_ADD) {
		old = __atomic_fetch_add(p, w->atomic.compare_add, __ATOMIC_SEQ_CST);
	} else {
		old = w->atomic.compare_add;
		__atomic_compare_exchange_n(p, &old, w->atomic.swap, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);
	}
	if (favo_hca_span_write(&to, &old, sizeof(old)) < 0)
		return fail(j, PVRDMA_WC_LOC_PROT);
	return DONE;
}

static enum outcome execute(struct job *j)
{
	switch (j->s->w.opcode) {
	case PVRDMA_WR_SEND:
	case PVRDMA_WR_SEND_IMM:
		return do_send(j);
	case PVRDMA_WR_WRITE:
	case PVRDMA_WR_WRITE_IMM:
		return do_write(j);
	case PVRDMA_WR_READ:
		return do_read(j);
	case PVRDMA_WR_CMP_SWP:
	case PVRDMA_WR_FETCH_ADD:
		return do_atomic(j);
	default:
		return fail(j, PVRDMA_WC_LOC_QP_OP);
	}
}

static enum outcome one(struct favo_hca *hca, struct hca_qp *qp)
{
	struct job j = {.qp = qp, .s = &hca->send};
	uint32_t status, length;
	enum outcome o;
	int ret = favo_hca_send_peek(qp, j.s, &status);

	if (ret == 0)
		return WAIT;
	if (ret < 0) {
		favo_hca_qp_error(qp, PVRDMA_EVENT_QP_FATAL);
		return FAILED;
	}
	if (status != PVRDMA_WC_SUCCESS)
		return fail(&j, status);
	/* The ring is the guest's: the request may have changed under way. */
	if (qp->done > j.s->length)
		return fail(&j, PVRDMA_WC_LOC_QP_OP);
	if (j.s->w.opcode > PVRDMA_WR_FETCH_ADD)
		return fail(&j, PVRDMA_WC_LOC_QP_OP);
	j.to = responder(hca, qp);
	if (!j.to)
		return no_answer(&j);
	o = execute(&j);
	length = j.s->length;
	if (o == MORE)
		qp->waiting = false;
	if (o == DONE) {
		favo_hca_complete_send(qp, j.s, PVRDMA_WC_SUCCESS, length);
		hca->messages++;
	}
	return o;
}

bool favo_hca_rc_turn(struct favo_hca *hca, struct hca_qp *qp)
{
	uint64_t start = hca->bytes;
	bool did = false;

	for (unsigned i = 0; i < HCA_BURST && hca->bytes - start < HCA_SLICE; i++) {
		enum outcome o;

		if (qp->state == PVRDMA_ERR)
			return favo_hca_qp_flush(qp) || did;
		if (qp->state != PVRDMA_RTS)
			return did;
		o = one(hca, qp);
		if (o == WAIT)
			return did;
		did = true;
		if (o == MORE)
			return true;
	}
	return did;
}
