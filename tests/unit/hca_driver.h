/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Plays favo-vmm and the guest's PVRDMA driver towards favo-hca, without a
 * guest: a memfd is the RAM, pages are handed out in descending order, so that
 * no two of an object are neighbours by chance. One thread per struct drv_vm:
 * it answers favo-hca's wishes for doorbell pages whenever it rings or waits.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "hypervisor/hca/abi.h"
#include "hypervisor/hca_proto.h"

#define DRV_UAR_BASE 0xd0000000ULL
#define DRV_RNR_FOREVER 7

struct drv_vm {
	int sock, ram_fd, shared_fd, kick, events, vectors[FAVO_HCA_VECTORS];
	uint8_t *ram;
	uint64_t size, next; /* pages above next are taken */
	struct favo_hca_shared *shared;
	uint64_t dsr, cmd, resp, async, notify; /* GPA */
	uint8_t modes[FAVO_HCA_UARS]; /* enum favo_hca_uar */
	uint32_t seq, rung;
	unsigned mapped, trapped, kicks; /* changes of pages and kicks, counted */
	bool refuse_ram; /* as a favo-vmm without memory slots */
	uint32_t async_head, notify_head;
	uint64_t async_dir, notify_dir;
};

struct drv_cq {
	struct drv_vm *vm;
	uint32_t handle, n, head, uar;
	uint64_t state, entries; /* GPA; entries are contiguous */
	struct pvrdma_ring *ring;
};

struct drv_qp {
	struct drv_vm *vm;
	uint32_t handle, qpn, uar;
	uint32_t sn, rn, sshift, rshift, stail, rtail;
	uint8_t *sq, *rq;
	struct pvrdma_ring_state *state;
};

struct drv_mr {
	uint32_t handle, lkey, rkey;
	uint64_t addr, length; /* the guest's virtual address is made up */
	uint64_t gpa; /* of the first page; contiguous */
};

struct drv_qp_opts {
	uint32_t pd, scq, rcq, uar, send_wr, recv_wr, sge, srq;
	uint8_t type;
	bool signal_all, use_srq;
};

/* Memory and descriptors; then drv_hello() over sock (owned). */
void drv_open(struct drv_vm *vm, int sock, uint64_t ram_bytes);
void drv_close(struct drv_vm *vm);
/* These return the status of the reply, or -1 when favo-hca hung up. */
int drv_hello(struct drv_vm *vm, uint8_t last_mac_byte);
int drv_request(struct drv_vm *vm, uint32_t type, uint64_t arg, uint32_t *flags);
/* DSR, rings, ACTIVATE. */
int drv_activate(struct drv_vm *vm);
/* hdr.cmd is set from cmd. Response may be NULL. */
int drv_command(struct drv_vm *vm, uint32_t cmd, union pvrdma_req *q,
		union pvrdma_resp *r);
void *drv_ptr(struct drv_vm *vm, uint64_t gpa);
uint64_t drv_alloc(struct drv_vm *vm, uint32_t pages); /* zeroed, contiguous */
uint64_t drv_dir(struct drv_vm *vm, uint64_t gpa, uint32_t pages);

int drv_uc(struct drv_vm *vm, uint32_t uar);
int drv_pd(struct drv_vm *vm, uint32_t uar, uint32_t *pd);
int drv_bind(struct drv_vm *vm, uint32_t index, const struct pvrdma_gid *gid);
struct pvrdma_gid drv_gid(uint8_t n); /* ::ffff:10.0.0.n */
int drv_mr(struct drv_vm *vm, uint32_t pd, uint64_t bytes, uint32_t access,
	   struct drv_mr *mr);
int drv_cq(struct drv_vm *vm, uint32_t uar, uint32_t n, struct drv_cq *cq);
int drv_srq(struct drv_vm *vm, uint32_t pd, uint32_t n, uint32_t limit,
	    struct drv_qp *srq);
int drv_qp(struct drv_vm *vm, const struct drv_qp_opts *o, struct drv_qp *qp);
int drv_modify(struct drv_qp *qp, uint32_t state);
/* INIT, RTR, RTS towards dest_qpn at gid, with all access. */
int drv_connect(struct drv_qp *qp, const struct pvrdma_gid *gid, uint32_t dest_qpn,
		uint8_t rnr_retry);
int drv_ready_ud(struct drv_qp *qp, uint32_t qkey);
int drv_destroy(struct drv_vm *vm, uint32_t cmd, uint32_t handle);

/* The ring must have room. They ring the doorbell. */
void drv_post_send(struct drv_qp *qp, const struct pvrdma_sq_wqe *w,
		   const struct pvrdma_sge *sge);
void drv_post_recv(struct drv_qp *qp, uint64_t wr_id, const struct pvrdma_sge *sge,
		   uint32_t nsge);
/* On a queue whose entries belong to drv_srq(). */
void drv_post_srq(struct drv_qp *srq, uint64_t wr_id, const struct pvrdma_sge *sge);
void drv_ring(struct drv_vm *vm, uint32_t uar, unsigned reg, uint32_t value);
void drv_arm(struct drv_cq *cq, bool solicited);
/* True: *cqe is the next one. An empty queue is polled as providers do. */
bool drv_poll(struct drv_cq *cq, struct pvrdma_cqe *cqe);
/* Poll until one comes; false after ms. */
bool drv_wait(struct drv_cq *cq, struct pvrdma_cqe *cqe, unsigned ms);
/* Sleep until vector v fires; false after ms. */
bool drv_wait_vector(struct drv_vm *vm, unsigned v, unsigned ms);
/* Next entry of the notification ring / async ring; false: empty. */
bool drv_next_notify(struct drv_vm *vm, uint32_t *cq);
bool drv_next_async(struct drv_vm *vm, struct pvrdma_eqe *eqe);
/* Answer what favo-hca asked for. */
void drv_service(struct drv_vm *vm);
