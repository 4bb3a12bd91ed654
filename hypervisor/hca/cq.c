// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Completion queues: the device produces, the guest consumes. Notification is
 * edge: the first completion after arming tells once.
 */
#include <string.h>

#include "hypervisor/hca/hca.h"
#include "hypervisor/hca/ring.h"

uint32_t favo_hca_cq_used(const struct hca_cq *cq)
{
	uint32_t head = atomic_load_explicit(&cq->ring->cons_head, memory_order_acquire);

	if (!favo_hca_ring_valid(head, cq->n))
		return UINT32_MAX;
	return favo_hca_ring_used(cq->tail, head, cq->n);
}

/* The queue is lost, and so is every queue pair that would complete into it. */
void favo_hca_cq_fail(struct hca_cq *cq)
{
	struct hca_vm *vm = cq->obj.vm;

	if (cq->failed)
		return;
	cq->failed = true;
	favo_hca_async(vm, PVRDMA_EVENT_CQ_ERR, cq->obj.handle);
	for (uint32_t i = 0; i < vm->qps.max; i++) {
		struct hca_qp *qp = hca_get(&vm->qps, i);

		if (qp && (qp->scq == cq || qp->rcq == cq))
			favo_hca_qp_error(qp, PVRDMA_EVENT_QP_FATAL);
	}
}

static void tell(struct hca_cq *cq, bool solicited)
{
	if (cq->arm == HCA_ARMED || (cq->arm == HCA_ARMED_SOLICITED && solicited)) {
		cq->arm = HCA_DISARMED;
		cq->unsure = false;
		favo_hca_notify(cq);
	} else if (cq->obj.ctx != HCA_KERNEL &&
		   cq->obj.vm->uars[cq->obj.ctx].state != HCA_UAR_TRAP) {
		/* It may have been armed and the word overwritten: poll.c. */
		cq->unsure = true;
		favo_hca_stall_add(cq);
	}
}

void favo_hca_complete(struct hca_cq *cq, const struct pvrdma_cqe *cqe, bool solicited)
{
	struct hca_vm *vm = cq->obj.vm;
	uint32_t at = (cq->tail & (cq->n - 1)) * (uint32_t)sizeof(*cqe);

	if (cq->failed || !hca_vm_runs(vm))
		return;
	/* Full as well as a lie about it. */
	if (favo_hca_cq_used(cq) >= cq->n) {
		favo_hca_cq_fail(cq);
		return;
	}
	memcpy(favo_hca_page(&vm->guest, &cq->pages, 1 + at / PVRDMA_PAGE) +
		       at % PVRDMA_PAGE,
	       cqe, sizeof(*cqe));
	cq->tail = favo_hca_ring_next(cq->tail, cq->n);
	atomic_store_explicit(&cq->ring->prod_tail, cq->tail, memory_order_release);
	tell(cq, solicited || cqe->status != PVRDMA_WC_SUCCESS);
}

/*
 * The doorbell is read some time after it was written, so a completion in the
 * queue may be younger: it is told at once, else its reader sleeps for ever.
 */
void favo_hca_arm(struct hca_cq *cq, enum hca_arm arm)
{
	if (favo_hca_cq_used(cq) && hca_vm_runs(cq->obj.vm)) {
		cq->arm = HCA_DISARMED;
		cq->unsure = false;
		favo_hca_notify(cq);
		return;
	}
	/* Arming for all completions is not weakened by a later "solicited". */
	if (arm > cq->arm)
		cq->arm = arm;
}
