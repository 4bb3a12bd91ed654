// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Queue pairs: completions, errors, flushing, and who answers to a GID.
 */
#include <string.h>

#include "hypervisor/hca/hca.h"
#include "hypervisor/hca/ring.h"

static uint32_t wc_opcode(uint32_t wr)
{
	switch (wr) {
	case PVRDMA_WR_WRITE:
	case PVRDMA_WR_WRITE_IMM:
		return PVRDMA_WC_WRITE;
	case PVRDMA_WR_READ:
		return PVRDMA_WC_READ;
	case PVRDMA_WR_CMP_SWP:
		return PVRDMA_WC_CMP_SWP;
	case PVRDMA_WR_FETCH_ADD:
		return PVRDMA_WC_FETCH_ADD;
	case PVRDMA_WR_LOCAL_INV:
		return PVRDMA_WC_LOCAL_INV;
	case PVRDMA_WR_FAST_REG:
		return PVRDMA_WC_FAST_REG;
	default:
		return PVRDMA_WC_SEND;
	}
}

/* Ends the first send request: every one moves the ring, signalled or not. */
void favo_hca_complete_send(struct hca_qp *qp, const struct hca_send *s, uint32_t status,
			    uint32_t bytes)
{
	qp->done = 0;
	qp->waiting = false;
	qp->give_up_ns = 0;
	favo_hca_send_pop(qp);
	if (status != PVRDMA_WC_SUCCESS || qp->sig_all ||
	    (s->w.send_flags & PVRDMA_SEND_SIGNALED)) {
		struct pvrdma_cqe cqe = {
			.wr_id = s->w.wr_id,
			.qp = qp->obj.handle,
			.opcode = wc_opcode(s->w.opcode),
			.status = status,
			.byte_len = bytes,
			.port_num = 1,
		};

		favo_hca_complete(qp->scq, &cqe, false);
	}
}

void favo_hca_complete_recv(struct hca_qp *qp, const struct hca_recv *r,
			    struct pvrdma_cqe *cqe, bool solicited)
{
	cqe->wr_id = r->wr_id;
	cqe->qp = qp->obj.handle;
	cqe->port_num = 1;
	favo_hca_complete(qp->rcq, cqe, solicited);
}

void favo_hca_qp_error(struct hca_qp *qp, int event)
{
	if (qp->state == PVRDMA_ERR || qp->state == PVRDMA_RESET)
		return;
	qp->state = PVRDMA_ERR;
	if (event >= 0)
		favo_hca_async(qp->obj.vm, (uint32_t)event, qp->obj.handle);
	favo_hca_heat(qp); /* flush with the next turn */
}

static bool flush_recvs(struct hca_qp *qp, unsigned *left)
{
	struct hca_recv r = qp->recv;

	while (*left && (r.held || favo_hca_recv_take(qp, &r) > 0)) {
		struct pvrdma_cqe cqe = {.opcode = PVRDMA_WC_RECV,
					 .status = PVRDMA_WC_WR_FLUSH};

		qp->recv.held = r.held = false;
		favo_hca_complete_recv(qp, &r, &cqe, true);
		(*left)--;
		/* A shared queue goes on to serve others. */
		if (qp->srq)
			return false;
	}
	return *left == 0;
}

/*
 * A burst of flushes. In the state SQE only sends are flushed; a shared receive
 * queue keeps its entries but the one that this queue pair had taken.
 */
bool favo_hca_qp_flush(struct hca_qp *qp)
{
	struct hca_send *s = &qp->obj.vm->hca->send;
	unsigned left = 4 * HCA_BURST;
	uint32_t status;

	while (left && favo_hca_send_peek(qp, s, &status) > 0) {
		favo_hca_complete_send(qp, s, PVRDMA_WC_WR_FLUSH, 0);
		left--;
	}
	if (qp->state != PVRDMA_ERR || (qp->srq && !qp->recv.held))
		return left == 0;
	return flush_recvs(qp, &left) || left == 0;
}

void favo_hca_qp_reset(struct hca_qp *qp)
{
	favo_hca_cool(qp);
	qp->sq.head = qp->rq.head = 0; /* the guest zeroes its indices, too */
	qp->recv.held = false;
	qp->done = 0;
	qp->waiting = false;
	qp->give_up_ns = 0;
	qp->peer = NULL;
	memset(&qp->attr, 0, sizeof(qp->attr));
}

struct hca_vm *favo_hca_find_gid(const struct favo_hca *hca, const struct pvrdma_gid *gid)
{
	for (unsigned v = 0; v < HCA_VMS_MAX; v++) {
		struct hca_vm *vm = hca->vms[v];

		for (unsigned i = 0; vm && !vm->dead && i < vm->gids_end; i++)
			if (vm->gids[i].used &&
			    !memcmp(&vm->gids[i].gid, gid, sizeof(*gid)))
				return vm;
	}
	return NULL;
}

void favo_hca_peer_gone(struct favo_hca *hca, struct hca_vm *vm)
{
	for (unsigned v = 0; v < HCA_VMS_MAX; v++) {
		struct hca_vm *other = hca->vms[v];

		for (uint32_t i = 0; other && other != vm && i < other->qps.max; i++) {
			struct hca_qp *qp = hca_get(&other->qps, i);
			uint32_t status;

			if (!qp || qp->peer != vm)
				continue;
			qp->peer = NULL;
			if (qp->state < PVRDMA_RTR || qp->state == PVRDMA_ERR)
				continue;
			/* The request under way says why; the rest is flushed. */
			if (qp->state >= PVRDMA_RTS && hca_vm_runs(other) &&
			    favo_hca_send_peek(qp, &hca->send, &status) > 0)
				favo_hca_complete_send(qp, &hca->send,
						       PVRDMA_WC_RETRY_EXC, 0);
			favo_hca_qp_error(qp, PVRDMA_EVENT_QP_FATAL);
		}
	}
}
