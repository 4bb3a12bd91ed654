// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The two rings to the guest's kernel: asynchronous events and completion
 * notifications. The guest empties both in interrupt handlers. A queue that is
 * owed a notification has at most one entry; async events beyond the ring's
 * room are dropped, as nothing in the guest waits for them.
 */
#include <errno.h>
#include <unistd.h>

#include "hypervisor/hca/hca.h"
#include "hypervisor/hca/ring.h"

#define RING_PAGES_MAX 64u

enum { VECTOR_ASYNC = 1, VECTOR_CQ = 2 };

int favo_hca_event_ring_load(struct hca_event_ring *ring, const struct favo_hca_guest *g,
			     const struct pvrdma_ring_page_info *info, uint32_t entry)
{
	int ret;

	if (info->num_pages < 2 || info->num_pages > RING_PAGES_MAX)
		return -EINVAL;
	ret = favo_hca_pages_load(&ring->pages, g, info->pdir_dma, info->num_pages);
	if (ret < 0)
		return ret;
	ring->ring = &((struct pvrdma_ring_state *)favo_hca_page(g, &ring->pages, 0))->rx;
	ring->n = favo_hca_ring_slots((info->num_pages - 1) * (PVRDMA_PAGE / entry));
	ring->entry = entry;
	ring->tail = 0;
	return 0;
}

/* Where the next entry goes; NULL: no room, or the guest's index is bad. */
static void *next_entry(struct hca_vm *vm, struct hca_event_ring *ring)
{
	uint32_t head, at = (ring->tail & (ring->n - 1)) * ring->entry;

	if (!ring->ring)
		return NULL;
	head = atomic_load_explicit(&ring->ring->cons_head, memory_order_acquire);
	if (!favo_hca_ring_valid(head, ring->n) ||
	    favo_hca_ring_used(ring->tail, head, ring->n) >= ring->n - 1)
		return NULL;
	return favo_hca_page(&vm->guest, &ring->pages, 1 + at / PVRDMA_PAGE) +
	       at % PVRDMA_PAGE;
}

static void publish(struct hca_vm *vm, struct hca_event_ring *ring, unsigned vector)
{
	const uint64_t one = 1;

	ring->tail = favo_hca_ring_next(ring->tail, ring->n);
	atomic_store_explicit(&ring->ring->prod_tail, ring->tail, memory_order_release);
	if (atomic_load(&vm->shared->imr) & 1u << vector)
		return;
	/* Full (EAGAIN) means that it is pending anyway. */
	if (write(vm->vectors[vector], &one, sizeof(one)) < 0)
		return;
}

void favo_hca_async(struct hca_vm *vm, uint32_t type, uint32_t info)
{
	struct pvrdma_eqe *eqe;

	if (!hca_vm_runs(vm))
		return;
	eqe = next_entry(vm, &vm->async_ring);
	if (!eqe)
		return;
	*eqe = (struct pvrdma_eqe){type, info};
	publish(vm, &vm->async_ring, VECTOR_ASYNC);
}

bool favo_hca_notify(struct hca_cq *cq)
{
	struct hca_vm *vm = cq->obj.vm;
	uint32_t *entry = next_entry(vm, &vm->cq_ring);

	cq->notify = !entry;
	if (!entry) {
		vm->notify_owed = true;
		return false;
	}
	*entry = cq->obj.handle;
	publish(vm, &vm->cq_ring, VECTOR_CQ);
	return true;
}

void favo_hca_notify_owed(struct hca_vm *vm)
{
	vm->notify_owed = false;
	for (uint32_t i = 0; i < vm->cqs.max; i++) {
		struct hca_cq *cq = hca_get(&vm->cqs, i);

		if (cq && cq->notify && !favo_hca_notify(cq))
			return;
	}
}
