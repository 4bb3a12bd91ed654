// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Work requests out of the guest's rings, as private copies. The guest's index
 * is a claim: an impossible one ends the queue, and no pass takes more entries
 * than the ring has.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/hca/hca.h"
#include "hypervisor/hca/ring.h"

/* 1: *entry is the next one; 0: empty; -EPROTO. */
static int next(const struct hca_vm *vm, const struct favo_hca_pages *pages,
		const struct hca_queue *q, const uint8_t **entry)
{
	uint32_t tail = atomic_load_explicit(&q->ring->prod_tail, memory_order_acquire);
	uint64_t at;

	if (tail == q->head)
		return 0;
	if (!favo_hca_ring_valid(tail, q->n) ||
	    favo_hca_ring_used(tail, q->head, q->n) > q->n)
		return -EPROTO;
	at = (uint64_t)(q->head & (q->n - 1)) << q->shift;
	*entry = favo_hca_page(&vm->guest, pages,
			       q->first_page + (uint32_t)(at / PVRDMA_PAGE)) +
		 at % PVRDMA_PAGE;
	return 1;
}

static void advance(struct hca_queue *q)
{
	q->head = favo_hca_ring_next(q->head, q->n);
	atomic_store_explicit(&q->ring->cons_head, q->head, memory_order_release);
}

static uint64_t copy_sges(struct pvrdma_sge *to, const uint8_t *from, uint32_t n)
{
	uint64_t length = 0;

	memcpy(to, from, n * sizeof(*to));
	for (uint32_t i = 0; i < n; i++)
		length += to[i].length;
	return length;
}

int favo_hca_send_peek(struct hca_qp *qp, struct hca_send *out, uint32_t *status)
{
	const uint8_t *entry = NULL;
	uint64_t length;
	int ret = next(qp->obj.vm, &qp->pages, &qp->sq, &entry);

	if (ret <= 0)
		return ret;
	memcpy(&out->w, entry, sizeof(out->w));
	*status = PVRDMA_WC_SUCCESS;
	out->nsge = 0;
	out->length = 0;
	if (out->w.num_sge > qp->sq.max_sge) {
		*status = PVRDMA_WC_LOC_QP_OP;
		return 1;
	}
	out->nsge = out->w.num_sge;
	length = copy_sges(out->sge, entry + sizeof(out->w), out->nsge);
	if (length > PVRDMA_MAX_MSG)
		*status = PVRDMA_WC_LOC_LEN;
	else
		out->length = (uint32_t)length;
	return 1;
}

void favo_hca_send_pop(struct hca_qp *qp)
{
	advance(&qp->sq);
}

static void srq_taken(struct hca_srq *srq)
{
	uint32_t tail =
		atomic_load_explicit(&srq->rq.ring->prod_tail, memory_order_relaxed);

	if (!srq->limit || !favo_hca_ring_valid(tail, srq->rq.n) ||
	    favo_hca_ring_used(tail, srq->rq.head, srq->rq.n) >= srq->limit)
		return;
	srq->limit = 0; /* told once */
	favo_hca_async(srq->obj.vm, PVRDMA_EVENT_SRQ_LIMIT, srq->obj.handle);
}

int favo_hca_recv_take(struct hca_qp *qp, struct hca_recv *out)
{
	struct hca_queue *q = qp->srq ? &qp->srq->rq : &qp->rq;
	const struct favo_hca_pages *pages = qp->srq ? &qp->srq->pages : &qp->pages;
	const uint8_t *entry = NULL;
	struct pvrdma_rq_wqe w;
	int ret;

	if (qp->srq && qp->srq->failed)
		return -EPROTO;
	ret = next(qp->obj.vm, pages, q, &entry);
	if (ret < 0 && qp->srq) {
		qp->srq->failed = true;
		favo_hca_async(qp->obj.vm, PVRDMA_EVENT_SRQ_ERR, qp->srq->obj.handle);
	}
	if (ret <= 0)
		return ret;
	memcpy(&w, entry, sizeof(w));
	out->wr_id = w.wr_id;
	/* Too many: none; the message then does not fit. */
	out->nsge = w.num_sge <= q->max_sge ? w.num_sge : 0;
	out->length = copy_sges(out->sge, entry + sizeof(w), out->nsge);
	out->held = true;
	advance(q);
	if (qp->srq)
		srq_taken(qp->srq);
	return 1;
}
