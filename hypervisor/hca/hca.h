/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * favo-hca inside: one process, one thread, all VMs of a virtual cluster on a
 * node. Nothing here is shared between threads, so nothing is locked; what the
 * guests write meanwhile is copied before it is checked.
 *
 * Layers, upper ones call lower ones: server (sockets, sleep) > poll (which
 * queue pair is looked at) > device, command (control) and rc, ud (data) > qp, cq,
 * mr > guest. docs/rdma.md tells why it is built so.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/hca/abi.h"
#include "hypervisor/hca/guest.h"
#include "hypervisor/hca_proto.h"

#define HCA_VMS_MAX 64
#define HCA_SLICE (256u << 10) /* bytes copied before others get their turn */
#define HCA_BURST 16u /* work requests of a queue pair in one turn */
#define HCA_KERNEL 0u /* handle of the context that the guest's kernel is */

struct hca_vm;

/* Objects of one kind by handle; all begin with struct hca_obj. */
struct hca_obj {
	struct hca_vm *vm;
	uint32_t handle;
	uint32_t ctx; /* owning context: HCA_KERNEL or UAR number */
	uint32_t refs; /* by other objects: destroying fails while > 0 */
};

struct hca_table {
	struct hca_obj **objs;
	uint32_t max; /* handles are first .. max - 1 */
	uint32_t first, used, next; /* next: where the search starts */
};

struct hca_pd {
	struct hca_obj obj;
};

struct hca_mr {
	struct hca_obj obj;
	struct hca_pd *pd;
	uint32_t key; /* local and remote: generation, handle, low byte */
	uint32_t access, flags;
	uint64_t start, length;
	struct favo_hca_pages pages;
};

enum hca_arm { HCA_DISARMED, HCA_ARMED_SOLICITED, HCA_ARMED };

struct hca_cq {
	struct hca_obj obj;
	struct favo_hca_pages pages; /* page 0: state */
	struct pvrdma_ring *ring;
	uint32_t n; /* entries */
	uint32_t tail; /* ours; the guest's copy is only written */
	enum hca_arm arm;
	bool notify; /* an entry of the notification ring is owed */
	bool failed; /* overflow or bad index: no more entries */
	bool unsure; /* completed while its UAR page was RAM, see poll.c */
	bool watched; /* on the list of stalled queues, see poll.c */
	uint32_t stall_head; /* where the guest was then */
	uint64_t stall_ns;
};

/* Receive or send side of a queue pair, or a shared receive queue. */
struct hca_queue {
	struct pvrdma_ring *ring;
	uint32_t first_page; /* of its entries in pages */
	uint32_t n, shift, max_sge; /* entries, log2 of their size */
	uint32_t head; /* ours */
};

struct hca_srq {
	struct hca_obj obj;
	struct hca_pd *pd;
	struct favo_hca_pages pages;
	struct hca_queue rq;
	uint32_t limit; /* 0: no event wanted */
	bool failed;
};

/* Private copies of a guest's entries. */
struct hca_send {
	struct pvrdma_sq_wqe w;
	uint32_t nsge, length;
	struct pvrdma_sge sge[PVRDMA_MAX_SGE];
};

struct hca_recv {
	bool held; /* taken from the ring, not completed */
	uint64_t wr_id;
	uint32_t nsge;
	uint64_t length;
	struct pvrdma_sge sge[PVRDMA_MAX_SGE];
};

struct hca_qp {
	struct hca_obj obj;
	uint32_t qpn;
	uint8_t type, state;
	bool sig_all, in_hot, fatal_sent;
	struct hca_pd *pd;
	struct hca_cq *scq, *rcq;
	struct hca_srq *srq;
	struct favo_hca_pages pages;
	struct hca_queue sq, rq;
	struct pvrdma_qp_attr attr;
	struct pvrdma_qp_cap cap;
	struct hca_vm *peer; /* RC: VM that has the GID; NULL: not known */
	struct hca_recv recv; /* RC: of the message that arrives */
	uint32_t done; /* bytes of the first send that are through */
	bool waiting; /* for its peer, perhaps without limit */
	uint64_t give_up_ns; /* when the wait ends with an error; 0: never */
	uint64_t last_work_ns;
	uint32_t hot_at; /* place in the list of hot queue pairs */
};

enum hca_uar_state { HCA_UAR_TRAP, HCA_UAR_TO_RAM, HCA_UAR_RAM, HCA_UAR_TO_TRAP };

struct hca_uar {
	enum hca_uar_state state;
	bool open; /* a context owns it */
	bool refused; /* favo-vmm could not map it: never asked again */
	bool arms; /* its owner armed since it was trapped last */
	uint32_t stalls, stalls_wanted; /* before it is worth trapping */
	uint32_t bells; /* trapped since the last arming */
	uint32_t bells_wanted; /* before it is worth mapping */
};

/* A ring that the device fills for the guest's kernel. */
struct hca_event_ring {
	struct favo_hca_pages pages;
	struct pvrdma_ring *ring;
	uint32_t n, tail, entry; /* slots, ours, bytes of an entry */
};

enum hca_state { HCA_STATE_RESET, HCA_STATE_CONFIGURED, HCA_STATE_ACTIVE };

struct hca_gid {
	struct pvrdma_gid gid;
	bool used;
};

struct favo_hca;

struct hca_vm {
	struct favo_hca *hca;
	unsigned index;
	struct favo_hca_guest guest;
	struct favo_hca_shared *shared;
	uint8_t mac[6];
	int sock, events, kick, vectors[FAVO_HCA_VECTORS];
	enum hca_state state;
	bool bus_master, paused, greeted, dead;
	uint64_t uar_base;
	uint32_t generation; /* of shared->generation */
	uint8_t *cmd_slot, *resp_slot;
	struct hca_event_ring async_ring, cq_ring;
	struct hca_table pds, mrs, cqs, qps, srqs;
	uint8_t mr_generation, qp_generation;
	uint64_t pages_held, pages_max; /* translated pages, all objects */
	struct hca_uar uars[FAVO_HCA_UARS];
	uint64_t mapped[FAVO_HCA_UARS / 64]; /* bits of those not in TRAP */
	struct hca_gid gids[PVRDMA_MAX_GID];
	unsigned gids_end; /* none is used from here on */
	struct hca_qp *gsi;
	uint32_t scan_at; /* next cold queue pair to look at */
	bool notify_owed; /* some cq->notify is set */
};

struct favo_hca {
	struct hca_vm *vms[HCA_VMS_MAX];
	unsigned vms_end; /* none was ever at or after it */
	struct hca_qp **hot; /* queue pairs that are looked at each turn */
	uint32_t nhot, hot_size;
	struct hca_cq **stalled; /* see poll.c */
	uint32_t nstalled, stalled_size;
	uint64_t now_ns;
	uint32_t turn;
	uint64_t last_work_ns, last_bell_ns;
	uint64_t spin_ns; /* how long to spin without work; 0: never */
	uint64_t messages, bytes; /* done, for status */
	struct hca_send send; /* scratch */
};

/* Can this VM's memory be touched now? */
static inline bool hca_vm_runs(const struct hca_vm *vm)
{
	return vm->state == HCA_STATE_ACTIVE && vm->bus_master && !vm->paused &&
	       !vm->dead;
}

/* table.c: -ENOSPC, -ENOMEM; get returns NULL for anything but a live handle. */
int favo_hca_table_init(struct hca_table *t, uint32_t first, uint32_t max);
void favo_hca_table_fini(struct hca_table *t);
int favo_hca_table_add(struct hca_table *t, struct hca_obj *obj);
void favo_hca_table_del(struct hca_table *t, struct hca_obj *obj);
static inline void *hca_get(const struct hca_table *t, uint32_t handle)
{
	return handle < t->max ? t->objs[handle] : NULL;
}

/* device.c: what the registers ask for. 0 or -errno, for register ERR. */
int favo_hca_vm_new(struct hca_vm **out, struct favo_hca *hca, struct favo_err *err);
void favo_hca_vm_free(struct hca_vm *vm);
int favo_hca_vm_hello(struct hca_vm *vm, const struct favo_hca_hello *hello, int *fds,
		      unsigned nfds, struct favo_err *err);
int favo_hca_vm_dsr(struct hca_vm *vm, uint64_t gpa);
int favo_hca_vm_activate(struct hca_vm *vm);
void favo_hca_vm_reset(struct hca_vm *vm);
/* One request of favo-vmm; flags of the reply. */
int favo_hca_vm_request(struct hca_vm *vm, const struct favo_hca_request *req,
			uint32_t *flags);

/* command.c: the command in the slot. *raise: the guest waits for vector 0. */
int favo_hca_command(struct hca_vm *vm, bool *raise);
/* command_queue.c, command_qp.c */
int favo_hca_create_mr(struct hca_vm *vm, const union pvrdma_req *q,
		       union pvrdma_resp *r);
int favo_hca_create_cq(struct hca_vm *vm, const union pvrdma_req *q,
		       union pvrdma_resp *r);
int favo_hca_create_srq(struct hca_vm *vm, const union pvrdma_req *q,
			union pvrdma_resp *r);
int favo_hca_modify_srq(struct hca_vm *vm, const union pvrdma_req *q,
			union pvrdma_resp *r);
int favo_hca_query_srq(struct hca_vm *vm, const union pvrdma_req *q,
		       union pvrdma_resp *r);
int favo_hca_create_qp(struct hca_vm *vm, const union pvrdma_req *q,
		       union pvrdma_resp *r);
int favo_hca_modify_qp(struct hca_vm *vm, const union pvrdma_req *q,
		       union pvrdma_resp *r);
int favo_hca_query_qp(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r);
void favo_hca_free_mr(struct hca_mr *mr);
void favo_hca_free_cq(struct hca_cq *cq);
void favo_hca_free_srq(struct hca_srq *srq);
void favo_hca_free_qp(struct hca_qp *qp);
/* Translate pages for an object within the VM's limit; give them back. */
int favo_hca_take_pages(struct hca_vm *vm, struct favo_hca_pages *pages, uint64_t pdir,
			uint64_t n);
void favo_hca_drop_pages(struct hca_vm *vm, struct favo_hca_pages *pages);

/* event.c */
int favo_hca_event_ring_load(struct hca_event_ring *ring, const struct favo_hca_guest *g,
			     const struct pvrdma_ring_page_info *info, uint32_t entry);
void favo_hca_async(struct hca_vm *vm, uint32_t type, uint32_t info);
/* Write cq's entry of the notification ring; false: no room, try later. */
bool favo_hca_notify(struct hca_cq *cq);
/* What favo_hca_notify() could not write. */
void favo_hca_notify_owed(struct hca_vm *vm);

/* cq.c: one completion; the queue notifies when it is armed. */
void favo_hca_complete(struct hca_cq *cq, const struct pvrdma_cqe *cqe, bool solicited);
void favo_hca_arm(struct hca_cq *cq, enum hca_arm arm);
void favo_hca_cq_fail(struct hca_cq *cq);
/* Entries that the guest has not taken; > n: its index is bad. */
uint32_t favo_hca_cq_used(const struct hca_cq *cq);

/* mr.c: scatter and gather. status is a PVRDMA_WC_* value. */
struct hca_span {
	struct hca_vm *vm;
	struct hca_pd *pd;
	uint32_t need; /* access bits */
	const struct pvrdma_sge *sge;
	uint32_t nsge, at; /* sge under way */
	uint32_t offset; /* in it */
};
/* Check a remote address: NULL when not allowed. */
struct hca_mr *favo_hca_mr_get(struct hca_vm *vm, struct hca_pd *pd, uint32_t key,
			       uint64_t addr, uint64_t len, uint32_t need);
/* Host memory at addr, as long as it is contiguous; *len <= max. */
uint8_t *favo_hca_mr_ptr(struct hca_mr *mr, uint64_t addr, uint64_t max, uint64_t *len);
bool favo_hca_span_check(const struct hca_span *s);
void favo_hca_span_skip(struct hca_span *s, uint64_t bytes);
/*
 * Copy n bytes between checked spans. The last eight bytes are written last, as
 * guests that poll a buffer expect. -EFAULT: a key is gone.
 */
int favo_hca_copy(struct hca_span *to, struct hca_span *from, uint64_t n);
int favo_hca_span_write(struct hca_span *to, const void *buf, uint64_t n);

/* queue.c: take work requests. 1: got one, 0: empty, -EPROTO: bad index. */
int favo_hca_send_peek(struct hca_qp *qp, struct hca_send *out, uint32_t *status);
void favo_hca_send_pop(struct hca_qp *qp);
int favo_hca_recv_take(struct hca_qp *qp, struct hca_recv *out);

/* qp.c */
void favo_hca_qp_error(struct hca_qp *qp, int event); /* event < 0: none */
bool favo_hca_qp_flush(struct hca_qp *qp); /* true: more is left */
void favo_hca_qp_reset(struct hca_qp *qp);
void favo_hca_complete_send(struct hca_qp *qp, const struct hca_send *s, uint32_t status,
			    uint32_t bytes);
void favo_hca_complete_recv(struct hca_qp *qp, const struct hca_recv *r,
			    struct pvrdma_cqe *cqe, bool solicited);
/* Look for the VM that has a GID; NULL. */
struct hca_vm *favo_hca_find_gid(const struct favo_hca *hca,
				 const struct pvrdma_gid *gid);
/* A VM goes: connections to it fail at once. */
void favo_hca_peer_gone(struct favo_hca *hca, struct hca_vm *vm);

/* rc.c, ud.c: work on the send queue. True: something was done. */
bool favo_hca_rc_turn(struct favo_hca *hca, struct hca_qp *qp);
bool favo_hca_ud_turn(struct favo_hca *hca, struct hca_qp *qp);

/* poll.c */
void favo_hca_heat(struct hca_qp *qp);
void favo_hca_cool(struct hca_qp *qp);
void favo_hca_stall_add(struct hca_cq *cq);
void favo_hca_stall_del(struct hca_cq *cq);
bool favo_hca_poll(struct favo_hca *hca); /* one turn; true: something was done */
void favo_hca_poll_all(struct favo_hca *hca); /* the next turn leaves nothing out */
void favo_hca_bells(struct hca_vm *vm); /* trapped doorbells */
void favo_hca_uar_answer(struct hca_vm *vm, const struct favo_hca_uar_mode *m);
void favo_hca_uars_forget(struct hca_vm *vm); /* all pages are TRAP */
/* Ask for TRAP of all pages; true when all are. */
bool favo_hca_uars_trap(struct favo_hca *hca);
bool favo_hca_uars_mapped(const struct favo_hca *hca);
/* When the first waiting queue pair gives up; 0: never. */
uint64_t favo_hca_deadline(const struct favo_hca *hca);
uint64_t favo_hca_clock(void);
