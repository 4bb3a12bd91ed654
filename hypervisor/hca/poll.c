// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Which queue pairs are looked at, and doorbells.
 *
 * Hot queue pairs (work within HOT_NS) are looked at in each turn: one load of
 * the guest's index when there is nothing. The others get hot by a doorbell. In
 * a trapped UAR page each doorbell comes through the ring and none is lost. In a
 * mapped page only the last value of each register is seen; a send doorbell that
 * was overwritten is made good by looking at COLD_SCAN cold queue pairs every
 * now and then, an arming one as follows:
 *
 * - contexts start trapped and are mapped only after many doorbells without
 *   arming; an arming that is seen in a mapped page has it trapped again;
 * - a completion while the page is mapped makes its queue "unsure". When the
 *   page is trapped again, which happens before favo-hca sleeps, each unsure queue
 *   is notified once, and the others count as armed;
 * - an unsure queue whose completions the guest leaves alone for STALL_NS is
 *   notified once as well: its owner may wait for that. After a few of these the
 *   page is trapped, which shows whether its owner arms.
 * So an arming that was overwritten costs STALL_NS and not the wake-up, and a
 * guest that never arms gets no more than one needless event for each time that
 * it stops polling.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "common/util.h"
#include "hypervisor/hca/hca.h"
#include "hypervisor/hca/ring.h"

#define US 1000ULL
#define HOT_NS (500 * US)
#define STALL_NS (200 * US)
#define COLD_SCAN 32u
#define SLOW_TURNS 32u /* mapped pages and cold queue pairs: every so many turns */
#define CLOCK_TURNS 8u /* of well below a microsecond each, when idle */
#define BELLS_MIN 128u /* doorbells without arming before a page is mapped */
#define BELLS_MAX 65536u
#define STALLS_MIN 4u /* stalls before a page is trapped to see whether it arms */
#define STALLS_MAX 1024u

uint64_t favo_hca_clock(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000000000ULL + (uint64_t)ts.tv_nsec;
}

/* Room for one more pointer; false: out of memory. */
static bool grow(void *list, uint32_t n, uint32_t *size)
{
	uint32_t want = *size ? 2 * *size : 64;
	void **array = list, *bigger;

	if (n < *size)
		return true;
	bigger = realloc(*array, want * sizeof(void *));
	if (!bigger)
		return false;
	*array = bigger;
	*size = want;
	return true;
}

void favo_hca_heat(struct hca_qp *qp)
{
	struct favo_hca *hca = qp->obj.vm->hca;

	qp->last_work_ns = hca->now_ns;
	if (qp->in_hot || !grow(&hca->hot, hca->nhot, &hca->hot_size))
		return; /* the scan of cold ones finds it */
	qp->in_hot = true;
	qp->hot_at = hca->nhot;
	hca->hot[hca->nhot++] = qp;
}

void favo_hca_cool(struct hca_qp *qp)
{
	struct favo_hca *hca = qp->obj.vm->hca;

	if (!qp->in_hot)
		return;
	qp->in_hot = false;
	hca->hot[qp->hot_at] = hca->hot[--hca->nhot];
	hca->hot[qp->hot_at]->hot_at = qp->hot_at;
}

void favo_hca_stall_add(struct hca_cq *cq)
{
	struct favo_hca *hca = cq->obj.vm->hca;

	if (cq->watched || !grow(&hca->stalled, hca->nstalled, &hca->stalled_size))
		return;
	cq->watched = true;
	cq->stall_head = UINT32_MAX;
	hca->stalled[hca->nstalled++] = cq;
}

static void stall_del_at(struct favo_hca *hca, uint32_t i)
{
	hca->stalled[i]->watched = false;
	hca->stalled[i] = hca->stalled[--hca->nstalled];
}

void favo_hca_stall_del(struct hca_cq *cq)
{
	struct favo_hca *hca = cq->obj.vm->hca;

	for (uint32_t i = 0; cq->watched && i < hca->nstalled; i++)
		if (hca->stalled[i] == cq)
			stall_del_at(hca, i);
}

static bool posted(const struct hca_queue *q)
{
	return atomic_load_explicit(&q->ring->prod_tail, memory_order_relaxed) != q->head;
}

static bool has_work(const struct hca_qp *qp)
{
	return posted(&qp->sq) || (qp->state == PVRDMA_ERR &&
				   (qp->recv.held || (!qp->srq && posted(&qp->rq))));
}

static bool qp_turn(struct favo_hca *hca, struct hca_qp *qp)
{
	if (!hca_vm_runs(qp->obj.vm) || !has_work(qp))
		return false;
	return qp->type == PVRDMA_QPT_RC ? favo_hca_rc_turn(hca, qp)
					 : favo_hca_ud_turn(hca, qp);
}

static bool hot_turns(struct favo_hca *hca)
{
	bool did = false;

	for (uint32_t i = 0; i < hca->nhot; i++) {
		struct hca_qp *qp = hca->hot[i];

		if (qp_turn(hca, qp)) {
			qp->last_work_ns = hca->now_ns;
			did = true;
		} else if (!qp->waiting && hca->now_ns - qp->last_work_ns > HOT_NS) {
			favo_hca_cool(qp);
			i--; /* another one took its place; 0 wraps and comes back */
		}
	}
	return did;
}

static bool ask(struct hca_vm *vm, unsigned uar, enum favo_hca_uar mode)
{
	const struct favo_hca_uar_mode m = {
		.type = FAVO_HCA_UAR_MODE,
		.generation = vm->generation,
		.uar = uar,
		.mode = mode,
	};

	return send(vm->events, &m, sizeof(m), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(m);
}

static void set_state(struct hca_vm *vm, unsigned uar, enum hca_uar_state state)
{
	vm->uars[uar].state = state;
	if (state == HCA_UAR_TRAP)
		vm->mapped[uar / 64] &= ~(1ULL << uar % 64);
	else
		vm->mapped[uar / 64] |= 1ULL << uar % 64;
}

static void map_uar(struct hca_vm *vm, unsigned uar)
{
	struct hca_uar *u = &vm->uars[uar];

	/* Trapped: no guest writes to the page now. */
	memset(vm->shared->uars[uar], 0, 16);
	if (!ask(vm, uar, FAVO_HCA_UAR_RAM))
		return;
	set_state(vm, uar, HCA_UAR_TO_RAM);
	/* Who stalls and does not arm, computes: do not look so soon again. */
	if (!u->arms)
		u->stalls_wanted =
			FAVO_MAX(STALLS_MIN, FAVO_MIN(2 * u->stalls_wanted, STALLS_MAX));
	u->arms = false;
	u->stalls = 0;
}

static void trap_uar(struct hca_vm *vm, unsigned uar)
{
	if (vm->uars[uar].state == HCA_UAR_RAM && ask(vm, uar, FAVO_HCA_UAR_TRAP))
		set_state(vm, uar, HCA_UAR_TO_TRAP);
}

static void arm(struct hca_vm *vm, unsigned uar, uint32_t value)
{
	struct hca_cq *cq = hca_get(&vm->cqs, value & PVRDMA_UAR_HANDLE);
	struct hca_uar *u = &vm->uars[uar];

	u->bells = 0;
	u->arms = true;
	u->stalls_wanted = 1;
	if (u->state == HCA_UAR_RAM) {
		u->bells_wanted = FAVO_MIN(2 * u->bells_wanted, BELLS_MAX);
		trap_uar(vm, uar);
	}
	if (cq && cq->obj.ctx == uar)
		favo_hca_arm(cq,
			     value & PVRDMA_UAR_CQ_ARM ? HCA_ARMED : HCA_ARMED_SOLICITED);
}

/* A context reaches its own objects only (two processes in one guest). */
static void doorbell(struct hca_vm *vm, unsigned uar, unsigned reg, uint32_t value)
{
	struct hca_qp *qp;

	if (reg == PVRDMA_UAR_QP) {
		qp = hca_get(&vm->qps, value & PVRDMA_UAR_HANDLE);
		if (qp && qp->obj.ctx == uar)
			favo_hca_heat(qp);
	} else if (reg == PVRDMA_UAR_CQ &&
		   (value & (PVRDMA_UAR_CQ_ARM | PVRDMA_UAR_CQ_ARM_SOL))) {
		arm(vm, uar, value);
	}
	/* A shared receive queue is looked at when a message comes. */
}

/* Bells were dropped: look at everything, take everything as armed. */
static void overflowed(struct hca_vm *vm)
{
	for (uint32_t i = 0; i < vm->qps.max; i++)
		if (vm->qps.objs[i])
			favo_hca_heat(hca_get(&vm->qps, i));
	for (uint32_t i = 0; i < vm->cqs.max; i++)
		if (vm->cqs.objs[i])
			favo_hca_arm(hca_get(&vm->cqs, i), HCA_ARMED);
}

static void consider_mapping(struct hca_vm *vm, unsigned uar)
{
	struct hca_uar *u = &vm->uars[uar];

	if (!u->bells_wanted)
		u->bells_wanted = BELLS_MIN;
	if (++u->bells >= u->bells_wanted && u->open && !u->refused &&
	    u->state == HCA_UAR_TRAP) {
		u->bells = 0;
		map_uar(vm, uar);
	}
}

void favo_hca_bells(struct hca_vm *vm)
{
	struct favo_hca_shared *s = vm->shared;
	uint32_t tail = atomic_load_explicit(&s->tail, memory_order_relaxed);
	uint32_t head = atomic_load_explicit(&s->head, memory_order_acquire);

	if (head == tail && !atomic_load_explicit(&s->overflow, memory_order_relaxed))
		return;
	if (head - tail > FAVO_HCA_BELLS) /* nonsense */
		tail = head - FAVO_HCA_BELLS;
	for (; tail != head; tail++) {
		struct favo_hca_bell b = s->bells[tail % FAVO_HCA_BELLS];
		unsigned uar = b.offset / FAVO_HCA_UAR_SIZE;

		if (uar >= FAVO_HCA_UARS || !hca_vm_runs(vm))
			continue;
		doorbell(vm, uar, b.offset % FAVO_HCA_UAR_SIZE, b.value);
		if (uar != HCA_KERNEL)
			consider_mapping(vm, uar);
	}
	atomic_store_explicit(&s->tail, tail, memory_order_release);
	vm->hca->last_bell_ns = vm->hca->now_ns;
	if (atomic_load(&s->overflow) && atomic_exchange(&s->overflow, 0))
		overflowed(vm);
}

/* Take what stands in the registers of a mapped page. */
static void read_page(struct hca_vm *vm, unsigned uar)
{
	static const unsigned regs[] = {PVRDMA_UAR_QP, PVRDMA_UAR_CQ};

	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(regs); i++) {
		uint32_t *at = (uint32_t *)(void *)(vm->shared->uars[uar] + regs[i]);

		if (!__atomic_load_n(at, __ATOMIC_RELAXED))
			continue;
		vm->hca->last_bell_ns = vm->hca->now_ns;
		doorbell(vm, uar, regs[i], __atomic_exchange_n(at, 0, __ATOMIC_ACQ_REL));
	}
}

/* The page is trapped from now on: make good what its registers lost. */
static void trapped(struct hca_vm *vm, unsigned uar)
{
	set_state(vm, uar, HCA_UAR_TRAP);
	read_page(vm, uar);
	for (uint32_t i = 0; i < vm->qps.max; i++) {
		struct hca_qp *qp = hca_get(&vm->qps, i);

		if (qp && qp->obj.ctx == uar)
			favo_hca_heat(qp);
	}
	for (uint32_t i = 0; i < vm->cqs.max; i++) {
		struct hca_cq *cq = hca_get(&vm->cqs, i);

		if (!cq || cq->obj.ctx != uar)
			continue;
		if (cq->unsure)
			favo_hca_notify(cq);
		else
			cq->arm = HCA_ARMED;
		cq->unsure = false;
	}
}

void favo_hca_uar_answer(struct hca_vm *vm, const struct favo_hca_uar_mode *m)
{
	struct hca_uar *u;

	if (m->type != FAVO_HCA_UAR_MODE || m->generation != vm->generation ||
	    m->uar >= FAVO_HCA_UARS)
		return;
	u = &vm->uars[m->uar];
	if (u->state == HCA_UAR_TO_RAM && m->mode == FAVO_HCA_UAR_RAM) {
		set_state(vm, m->uar, HCA_UAR_RAM);
	} else if (u->state == HCA_UAR_TO_RAM || u->state == HCA_UAR_TO_TRAP) {
		u->refused = u->state == HCA_UAR_TO_RAM || m->mode != FAVO_HCA_UAR_TRAP;
		trapped(vm, m->uar);
	}
}

void favo_hca_uars_forget(struct hca_vm *vm)
{
	vm->generation = atomic_load(&vm->shared->generation);
	for (unsigned i = 0; i < FAVO_HCA_UARS; i++)
		if (vm->uars[i].state != HCA_UAR_TRAP)
			trapped(vm, i);
}

/* Call fn for each page that is not trapped. */
static unsigned each_mapped(struct hca_vm *vm, void (*fn)(struct hca_vm *, unsigned))
{
	unsigned n = 0;

	for (unsigned w = 0; w < FAVO_ARRAY_SIZE(vm->mapped); w++)
		for (uint64_t bits = vm->mapped[w]; bits; bits &= bits - 1, n++)
			fn(vm, 64 * w + (unsigned)__builtin_ctzll(bits));
	return n;
}

static void nothing(struct hca_vm *vm, unsigned uar)
{
	(void)vm;
	(void)uar;
}

bool favo_hca_uars_mapped(const struct favo_hca *hca)
{
	for (unsigned i = 0; i < hca->vms_end; i++)
		if (hca->vms[i] && each_mapped(hca->vms[i], nothing))
			return true;
	return false;
}

bool favo_hca_uars_trap(struct favo_hca *hca)
{
	for (unsigned i = 0; i < hca->vms_end; i++)
		if (hca->vms[i])
			each_mapped(hca->vms[i], trap_uar);
	return !favo_hca_uars_mapped(hca);
}

static void scan_cold(struct hca_vm *vm)
{
	for (uint32_t i = 0; i < COLD_SCAN; i++) {
		struct hca_qp *qp;

		if (++vm->scan_at >= vm->qps.max)
			vm->scan_at = 0;
		qp = hca_get(&vm->qps, vm->scan_at);
		if (qp && !qp->in_hot && has_work(qp))
			favo_hca_heat(qp);
	}
}

/* See the head of this file. */
static void check_stalls(struct favo_hca *hca)
{
	for (uint32_t i = 0; i < hca->nstalled; i++) {
		struct hca_cq *cq = hca->stalled[i];
		struct hca_vm *vm = cq->obj.vm;
		struct hca_uar *u;
		uint32_t head;

		if (!hca_vm_runs(vm))
			continue;
		head = atomic_load_explicit(&cq->ring->cons_head, memory_order_relaxed);
		if (head == cq->tail || cq->failed || !cq->unsure) {
			stall_del_at(hca, i--);
		} else if (head != cq->stall_head) {
			cq->stall_head = head;
			cq->stall_ns = hca->now_ns;
		} else if (hca->now_ns - cq->stall_ns > STALL_NS) {
			cq->unsure = false;
			stall_del_at(hca, i--);
			favo_hca_notify(cq);
			u = &vm->uars[cq->obj.ctx];
			if (++u->stalls >= u->stalls_wanted)
				trap_uar(vm, cq->obj.ctx);
		}
	}
}

static void slow_turn(struct favo_hca *hca)
{
	for (unsigned i = 0; i < hca->vms_end; i++) {
		struct hca_vm *vm = hca->vms[i];

		if (!vm || !hca_vm_runs(vm))
			continue;
		if (each_mapped(vm, read_page))
			scan_cold(vm);
		if (vm->notify_owed)
			favo_hca_notify_owed(vm);
	}
	check_stalls(hca);
}

void favo_hca_poll_all(struct favo_hca *hca)
{
	hca->turn |= SLOW_TURNS - 1;
}

bool favo_hca_poll(struct favo_hca *hca)
{
	if (++hca->turn % CLOCK_TURNS == 0)
		hca->now_ns = favo_hca_clock();
	for (unsigned i = 0; i < hca->vms_end; i++)
		if (hca->vms[i] && hca->vms[i]->shared)
			favo_hca_bells(hca->vms[i]);
	if (hca->turn % SLOW_TURNS == 0)
		slow_turn(hca);
	return hot_turns(hca);
}

uint64_t favo_hca_deadline(const struct favo_hca *hca)
{
	uint64_t first = 0;

	for (uint32_t i = 0; i < hca->nhot; i++) {
		const struct hca_qp *qp = hca->hot[i];

		if (qp->waiting && qp->give_up_ns && (!first || qp->give_up_ns < first))
			first = qp->give_up_ns;
	}
	return first;
}
