// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Commands of queue pairs: create, modify (IBTA 11.2.5, table of required and
 * optional attributes: the guest's kernel checks it, so here only what would
 * harm), query.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hca/hca.h"

static uint32_t wqe_shift(uint32_t head, uint32_t sge)
{
	uint32_t size = head + sge * (uint32_t)sizeof(struct pvrdma_sge), shift = 0;

	while (1u << shift < size)
		shift++;
	return shift;
}

static bool bad_ring(uint32_t n, uint32_t sge)
{
	return !n || (n & (n - 1)) || n > PVRDMA_MAX_WR || !sge || sge > PVRDMA_MAX_SGE;
}

/* What the command says about rings, and whether its pages are enough. */
static int check_rings(struct hca_qp *qp, const union pvrdma_req *q)
{
	const uint32_t send_pages = q->create_qp.send_chunks;
	const uint32_t total = q->create_qp.total_chunks;
	bool srq = q->create_qp.is_srq;

	if (bad_ring(q->create_qp.max_send_wr, q->create_qp.max_send_sge) ||
	    (!srq && bad_ring(q->create_qp.max_recv_wr, q->create_qp.max_recv_sge)))
		return -EINVAL;
	if (total < 1 + send_pages)
		return -EINVAL;
	qp->sq.n = q->create_qp.max_send_wr;
	qp->sq.max_sge = q->create_qp.max_send_sge;
	qp->sq.shift = wqe_shift(sizeof(struct pvrdma_sq_wqe), qp->sq.max_sge);
	qp->sq.first_page = 1;
	if ((uint64_t)qp->sq.n << qp->sq.shift > (uint64_t)send_pages * PVRDMA_PAGE)
		return -EINVAL;
	if (srq)
		return 0;
	qp->rq.n = q->create_qp.max_recv_wr;
	qp->rq.max_sge = q->create_qp.max_recv_sge;
	qp->rq.shift = wqe_shift(sizeof(struct pvrdma_rq_wqe), qp->rq.max_sge);
	qp->rq.first_page = 1 + send_pages;
	if ((uint64_t)qp->rq.n << qp->rq.shift >
	    (uint64_t)(total - 1 - send_pages) * PVRDMA_PAGE)
		return -EINVAL;
	return 0;
}

/* All objects that one call names belong to one context. */
static int find_objects(struct hca_qp *qp, const union pvrdma_req *q)
{
	struct hca_vm *vm = qp->obj.vm;

	qp->pd = hca_get(&vm->pds, q->create_qp.pd_handle);
	qp->scq = hca_get(&vm->cqs, q->create_qp.send_cq);
	qp->rcq = hca_get(&vm->cqs, q->create_qp.recv_cq);
	qp->srq =
		q->create_qp.is_srq ? hca_get(&vm->srqs, q->create_qp.srq_handle) : NULL;
	if (!qp->pd || !qp->scq || !qp->rcq || (q->create_qp.is_srq && !qp->srq))
		return -EINVAL;
	qp->obj.ctx = qp->pd->obj.ctx;
	if (qp->scq->obj.ctx != qp->obj.ctx || qp->rcq->obj.ctx != qp->obj.ctx ||
	    (qp->srq && qp->srq->obj.ctx != qp->obj.ctx))
		return -EACCES;
	return 0;
}

static int check_type(const struct hca_vm *vm, const struct hca_qp *qp)
{
	switch (qp->type) {
	case PVRDMA_QPT_RC:
	case PVRDMA_QPT_UD:
		return 0;
	case PVRDMA_QPT_GSI:
		if (qp->obj.ctx != HCA_KERNEL)
			return -EACCES;
		return vm->gsi ? -EBUSY : 0;
	default:
		return -EOPNOTSUPP;
	}
}

static void hold(struct hca_qp *qp, uint32_t by)
{
	qp->pd->obj.refs += by;
	qp->scq->obj.refs += by;
	qp->rcq->obj.refs += by;
	if (qp->srq)
		qp->srq->obj.refs += by;
}

void favo_hca_free_qp(struct hca_qp *qp)
{
	favo_hca_cool(qp);
	if (qp->obj.vm->gsi == qp)
		qp->obj.vm->gsi = NULL;
	hold(qp, (uint32_t)-1);
	favo_hca_drop_pages(qp->obj.vm, &qp->pages);
	free(qp);
}

static int init_qp(struct hca_qp *qp, const union pvrdma_req *q)
{
	struct hca_vm *vm = qp->obj.vm;
	int ret = find_objects(qp, q);

	qp->type = q->create_qp.qp_type;
	qp->sig_all = q->create_qp.sq_sig_all;
	ret = ret ? ret : check_type(vm, qp);
	ret = ret ? ret : check_rings(qp, q);
	ret = ret ? ret
		  : favo_hca_take_pages(vm, &qp->pages, q->create_qp.pdir_dma,
					q->create_qp.total_chunks);
	ret = ret ? ret : favo_hca_table_add(&vm->qps, &qp->obj);
	if (ret < 0)
		favo_hca_drop_pages(vm, &qp->pages);
	return ret;
}

int favo_hca_create_qp(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	struct hca_qp *qp = calloc(1, sizeof(*qp));
	struct pvrdma_ring_state *state;
	int ret;

	if (!qp)
		return -ENOMEM;
	qp->obj.vm = vm;
	ret = init_qp(qp, q);
	if (ret < 0) {
		free(qp);
		return ret;
	}
	hold(qp, 1);
	state = (struct pvrdma_ring_state *)favo_hca_page(&vm->guest, &qp->pages, 0);
	qp->sq.ring = &state->tx;
	qp->rq.ring = &state->rx;
	/* Messages to one that is gone do not reach the next with its handle. */
	qp->qpn = (uint32_t)++vm->qp_generation << 16 | qp->obj.handle;
	if (qp->type == PVRDMA_QPT_GSI) {
		qp->qpn = PVRDMA_GSI_QPN;
		vm->gsi = qp;
	}
	qp->cap = (struct pvrdma_qp_cap){
		.max_send_wr = qp->sq.n,
		.max_recv_wr = qp->rq.n,
		.max_send_sge = qp->sq.max_sge,
		.max_recv_sge = qp->rq.max_sge,
	};
	r->create_qp.qpn = qp->qpn;
	r->create_qp.qp_handle = qp->obj.handle;
	r->create_qp.max_send_wr = qp->cap.max_send_wr;
	r->create_qp.max_recv_wr = qp->cap.max_recv_wr;
	r->create_qp.max_send_sge = qp->cap.max_send_sge;
	r->create_qp.max_recv_sge = qp->cap.max_recv_sge;
	return 0;
}

/* Steps that do not lead to RESET or ERR, which every state allows. */
static bool step_allowed(unsigned from, unsigned to)
{
	static const uint8_t next[] = {
		[PVRDMA_RESET] = 1 << PVRDMA_INIT,
		[PVRDMA_INIT] = 1 << PVRDMA_INIT | 1 << PVRDMA_RTR,
		[PVRDMA_RTR] = 1 << PVRDMA_RTS,
		[PVRDMA_RTS] = 1 << PVRDMA_RTS | 1 << PVRDMA_SQD,
		[PVRDMA_SQD] = 1 << PVRDMA_RTS | 1 << PVRDMA_SQD,
		[PVRDMA_SQE] = 1 << PVRDMA_RTS,
		[PVRDMA_ERR] = 0,
	};

	return to == PVRDMA_RESET || to == PVRDMA_ERR || (next[from] & 1 << to);
}

#define TAKE(bit, field)                                                                 \
	do {                                                                             \
		if (mask & (bit))                                                        \
			qp->attr.field = a->field;                                       \
	} while (0)

static void take_attrs(struct hca_qp *qp, const struct pvrdma_qp_attr *a, uint32_t mask)
{
	TAKE(PVRDMA_QP_ACCESS, qp_access_flags);
	TAKE(PVRDMA_QP_PKEY, pkey_index);
	TAKE(PVRDMA_QP_PORT, port_num);
	TAKE(PVRDMA_QP_QKEY, qkey);
	TAKE(PVRDMA_QP_AV, ah_attr);
	TAKE(PVRDMA_QP_PATH_MTU, path_mtu);
	TAKE(PVRDMA_QP_TIMEOUT, timeout);
	TAKE(PVRDMA_QP_RETRY, retry_cnt);
	TAKE(PVRDMA_QP_RNR_RETRY, rnr_retry);
	TAKE(PVRDMA_QP_RQ_PSN, rq_psn);
	TAKE(PVRDMA_QP_SQ_PSN, sq_psn);
	TAKE(PVRDMA_QP_MAX_RD, max_rd_atomic);
	TAKE(PVRDMA_QP_MAX_DEST_RD, max_dest_rd_atomic);
	TAKE(PVRDMA_QP_MIN_RNR, min_rnr_timer);
	TAKE(PVRDMA_QP_DEST_QPN, dest_qp_num);
	/* If nobody has it yet, it is looked up with the next message. */
	if (mask & PVRDMA_QP_AV)
		qp->peer = favo_hca_find_gid(qp->obj.vm->hca, &a->ah_attr.dgid);
}

static bool attrs_bad(const struct hca_qp *qp, const struct pvrdma_qp_attr *a,
		      uint32_t mask)
{
	return ((mask & PVRDMA_QP_CUR_STATE) && a->cur_qp_state != qp->state) ||
	       ((mask & PVRDMA_QP_PORT) && a->port_num != 1) ||
	       ((mask & PVRDMA_QP_PKEY) && a->pkey_index != 0) ||
	       ((mask & PVRDMA_QP_PATH_MTU) &&
		(a->path_mtu < 1 || a->path_mtu > PVRDMA_MTU)) ||
	       ((mask & PVRDMA_QP_AV) && a->ah_attr.sgid_index >= PVRDMA_MAX_GID) ||
	       (mask & (PVRDMA_QP_ALT | PVRDMA_QP_CAP));
}

static void enter(struct hca_qp *qp, uint8_t state)
{
	switch (state) {
	case PVRDMA_RESET:
		favo_hca_qp_reset(qp);
		break;
	case PVRDMA_ERR:
		if (qp->state == PVRDMA_RESET)
			break; /* nothing is posted yet */
		favo_hca_qp_error(qp, -1);
		return;
	}
	qp->state = state;
	favo_hca_heat(qp); /* what was posted before waits for this */
}

int favo_hca_modify_qp(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	struct hca_qp *qp = hca_get(&vm->qps, q->modify_qp.qp_handle);
	const struct pvrdma_qp_attr *a = &q->modify_qp.attrs;
	uint32_t mask = q->modify_qp.attr_mask;

	(void)r;
	if (!qp || attrs_bad(qp, a, mask))
		return -EINVAL;
	if ((mask & PVRDMA_QP_STATE) &&
	    (a->qp_state > PVRDMA_ERR || !step_allowed(qp->state, a->qp_state)))
		return -EINVAL;
	take_attrs(qp, a, mask);
	if (mask & PVRDMA_QP_STATE)
		enter(qp, (uint8_t)a->qp_state);
	return 0;
}

int favo_hca_query_qp(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	struct hca_qp *qp = hca_get(&vm->qps, q->by_handle.handle);

	if (!qp)
		return -EINVAL;
	r->query_qp.attrs = qp->attr;
	r->query_qp.attrs.qp_state = r->query_qp.attrs.cur_qp_state = qp->state;
	r->query_qp.attrs.cap = qp->cap;
	return 0;
}
