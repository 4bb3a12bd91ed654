// SPDX-License-Identifier: GPL-2.0-or-later
/* See the header. Failures of the host end the program: these are tests. */
#include "tests/unit/hca_driver.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "hypervisor/hca/ring.h"

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #what);       \
			abort();                                                         \
		}                                                                        \
	} while (0)

#define RING_PAGES 4u
#define SERVICE_EVERY 64u

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (uint64_t)ts.tv_sec * 1000 + (uint64_t)ts.tv_nsec / 1000000;
}

static void *shared_memory(int *fd, uint64_t size)
{
	void *p;

	*fd = memfd_create("hca-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	CHECK(*fd >= 0 && ftruncate(*fd, (off_t)size) == 0);
	CHECK(fcntl(*fd, F_ADD_SEALS, F_SEAL_SHRINK) == 0);
	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, *fd, 0);
	CHECK(p != MAP_FAILED);
	return p;
}

void drv_open(struct drv_vm *vm, int sock, uint64_t ram_bytes)
{
	memset(vm, 0, sizeof(*vm));
	vm->sock = sock;
	vm->size = vm->next = ram_bytes;
	vm->ram = shared_memory(&vm->ram_fd, ram_bytes);
	vm->shared = shared_memory(&vm->shared_fd, sizeof(*vm->shared));
	vm->kick = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	for (unsigned i = 0; i < FAVO_HCA_VECTORS; i++)
		vm->vectors[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vm->events = -1;
}

void drv_close(struct drv_vm *vm)
{
	close(vm->sock);
	close(vm->ram_fd);
	close(vm->shared_fd);
	close(vm->kick);
	if (vm->events >= 0)
		close(vm->events);
	for (unsigned i = 0; i < FAVO_HCA_VECTORS; i++)
		close(vm->vectors[i]);
	munmap(vm->ram, vm->size);
	munmap(vm->shared, sizeof(*vm->shared));
}

static int reply(struct drv_vm *vm, uint32_t type, uint32_t *flags)
{
	struct pollfd p = {.fd = vm->sock, .events = POLLIN};
	struct favo_hca_reply r;

	if (poll(&p, 1, 20000) != 1 || recv(vm->sock, &r, sizeof(r), 0) != sizeof(r))
		return -1;
	CHECK(r.type == type && r.seq == vm->seq);
	if (flags)
		*flags = r.flags;
	return (int)r.status;
}

int drv_hello(struct drv_vm *vm, uint8_t last_mac_byte)
{
	struct favo_hca_hello h = {
		.version = FAVO_HCA_VERSION,
		.type = FAVO_HCA_HELLO,
		.seq = ++vm->seq,
		.nslots = 1,
		.mac = {2, 0, 0, 0, 0, last_mac_byte},
		.slots = {{.size = vm->size}},
	};
	int pair[2], fds[FAVO_HCA_FD_RAM + 1];
	int ret;

	CHECK(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) == 0);
	vm->events = pair[0];
	fds[FAVO_HCA_FD_SHARED] = vm->shared_fd;
	for (unsigned i = 0; i < FAVO_HCA_VECTORS; i++)
		fds[FAVO_HCA_FD_VECTORS + i] = vm->vectors[i];
	fds[FAVO_HCA_FD_KICK] = vm->kick;
	fds[FAVO_HCA_FD_EVENTS] = pair[1];
	fds[FAVO_HCA_FD_RAM] = vm->ram_fd;
	ret = favo_send_fds(vm->sock, &h, sizeof(h), fds, FAVO_HCA_FD_RAM + 1, NULL);
	close(pair[1]);
	return ret < 0 ? -1 : reply(vm, FAVO_HCA_HELLO, NULL);
}

int drv_request(struct drv_vm *vm, uint32_t type, uint64_t arg, uint32_t *flags)
{
	struct favo_hca_request q = {.type = type, .seq = ++vm->seq, .arg = arg};

	if (send(vm->sock, &q, sizeof(q), MSG_NOSIGNAL) != sizeof(q))
		return -1;
	return reply(vm, type, flags);
}

void *drv_ptr(struct drv_vm *vm, uint64_t gpa)
{
	CHECK(gpa < vm->size);
	return vm->ram + gpa;
}

uint64_t drv_alloc(struct drv_vm *vm, uint32_t pages)
{
	CHECK(vm->next >= (uint64_t)pages * PVRDMA_PAGE);
	vm->next -= (uint64_t)pages * PVRDMA_PAGE;
	memset(vm->ram + vm->next, 0, (size_t)pages * PVRDMA_PAGE);
	return vm->next;
}

uint64_t drv_dir(struct drv_vm *vm, uint64_t gpa, uint32_t pages)
{
	uint64_t dir = drv_alloc(vm, 1), *table = NULL;

	for (uint32_t i = 0; i < pages; i++) {
		if (i % PVRDMA_DIR_ENTRIES == 0) {
			uint64_t t = drv_alloc(vm, 1);

			((uint64_t *)drv_ptr(vm, dir))[i / PVRDMA_DIR_ENTRIES] = t;
			table = drv_ptr(vm, t);
			/* What follows the last entry is stale in real drivers. */
			memset(table, 0xee, PVRDMA_PAGE);
		}
		table[i % PVRDMA_DIR_ENTRIES] = gpa + (uint64_t)i * PVRDMA_PAGE;
	}
	return dir;
}

int drv_activate(struct drv_vm *vm)
{
	struct pvrdma_dsr *dsr;
	int ret;

	vm->dsr = drv_alloc(vm, 1);
	vm->cmd = drv_alloc(vm, 1);
	vm->resp = drv_alloc(vm, 1);
	vm->async = drv_alloc(vm, RING_PAGES);
	vm->notify = drv_alloc(vm, RING_PAGES);
	vm->async_dir = drv_dir(vm, vm->async, RING_PAGES);
	vm->notify_dir = drv_dir(vm, vm->notify, RING_PAGES);
	vm->async_head = vm->notify_head = 0;
	dsr = drv_ptr(vm, vm->dsr);
	dsr->driver_version = 20;
	dsr->cmd_slot_dma = vm->cmd;
	dsr->resp_slot_dma = vm->resp;
	dsr->async_ring.num_pages = dsr->cq_ring.num_pages = RING_PAGES;
	dsr->async_ring.pdir_dma = vm->async_dir;
	dsr->cq_ring.pdir_dma = vm->notify_dir;
	ret = drv_request(vm, FAVO_HCA_UAR_BASE, DRV_UAR_BASE, NULL);
	ret = ret ? ret : drv_request(vm, FAVO_HCA_BUS_MASTER, 1, NULL);
	ret = ret ? ret : drv_request(vm, FAVO_HCA_DSR, vm->dsr, NULL);
	return ret ? ret : drv_request(vm, FAVO_HCA_ACTIVATE, 0, NULL);
}

int drv_command(struct drv_vm *vm, uint32_t cmd, union pvrdma_req *q,
		union pvrdma_resp *r)
{
	uint32_t flags = 0;
	int ret;

	q->hdr.cmd = cmd;
	q->hdr.response = vm->seq;
	memcpy(drv_ptr(vm, vm->cmd), q, sizeof(*q));
	ret = drv_request(vm, FAVO_HCA_COMMAND, 0, &flags);
	if (ret)
		return ret;
	/* Response and interrupt come for those that have one, and no others. */
	if (flags & FAVO_HCA_RAISE) {
		union pvrdma_resp copy;

		memcpy(&copy, drv_ptr(vm, vm->resp), sizeof(copy));
		CHECK(copy.hdr.ack == (PVRDMA_CMD_RESP | cmd));
		if (r)
			*r = copy;
	} else {
		CHECK(!r);
	}
	return 0;
}

static union pvrdma_req request(void)
{
	union pvrdma_req q;

	memset(&q, 0, sizeof(q));
	return q;
}

int drv_uc(struct drv_vm *vm, uint32_t uar)
{
	union pvrdma_req q = request();
	union pvrdma_resp r;
	int ret;

	q.create_uc.pfn = (DRV_UAR_BASE >> 12) + uar;
	ret = drv_command(vm, PVRDMA_CMD_CREATE_UC, &q, &r);
	CHECK(ret || r.create.handle == uar);
	return ret;
}

int drv_pd(struct drv_vm *vm, uint32_t uar, uint32_t *pd)
{
	union pvrdma_req q = request();
	union pvrdma_resp r;
	int ret;

	q.create_pd.ctx_handle = uar;
	ret = drv_command(vm, PVRDMA_CMD_CREATE_PD, &q, &r);
	if (ret == 0)
		*pd = r.create.handle;
	return ret;
}

struct pvrdma_gid drv_gid(uint8_t n)
{
	return (struct pvrdma_gid){
		{[10] = 0xff, [11] = 0xff, [12] = 10, [15] = n},
	};
}

int drv_bind(struct drv_vm *vm, uint32_t index, const struct pvrdma_gid *gid)
{
	union pvrdma_req q = request();

	q.create_bind.mtu = 1024;
	q.create_bind.vlan = 0xfff;
	q.create_bind.index = index;
	q.create_bind.gid = *gid;
	q.create_bind.gid_type = 2;
	return drv_command(vm, PVRDMA_CMD_CREATE_BIND, &q, NULL);
}

int drv_mr(struct drv_vm *vm, uint32_t pd, uint64_t bytes, uint32_t access,
	   struct drv_mr *mr)
{
	uint32_t pages = (uint32_t)((bytes + PVRDMA_PAGE - 1) / PVRDMA_PAGE);
	union pvrdma_req q = request();
	union pvrdma_resp r;
	int ret;

	mr->gpa = drv_alloc(vm, pages);
	mr->addr = 0x7f0000000000ULL + mr->gpa;
	mr->length = bytes;
	q.create_mr.start = mr->addr;
	q.create_mr.length = bytes;
	q.create_mr.pdir_dma = drv_dir(vm, mr->gpa, pages);
	q.create_mr.pd_handle = pd;
	q.create_mr.access_flags = access;
	q.create_mr.nchunks = pages;
	ret = drv_command(vm, PVRDMA_CMD_CREATE_MR, &q, &r);
	if (ret == 0) {
		mr->handle = r.create.handle;
		mr->lkey = r.create.lkey;
		mr->rkey = r.create.rkey;
	}
	return ret;
}

int drv_cq(struct drv_vm *vm, uint32_t uar, uint32_t n, struct drv_cq *cq)
{
	uint32_t pages = 1 + (n * 64 + PVRDMA_PAGE - 1) / PVRDMA_PAGE;
	union pvrdma_req q = request();
	union pvrdma_resp r;
	int ret;

	*cq = (struct drv_cq){.vm = vm, .n = n, .uar = uar};
	cq->state = drv_alloc(vm, pages);
	cq->entries = cq->state + PVRDMA_PAGE;
	cq->ring = &((struct pvrdma_ring_state *)drv_ptr(vm, cq->state))->rx;
	q.create_cq.pdir_dma = drv_dir(vm, cq->state, pages);
	q.create_cq.ctx_handle = uar;
	q.create_cq.cqe = n;
	q.create_cq.nchunks = pages;
	ret = drv_command(vm, PVRDMA_CMD_CREATE_CQ, &q, &r);
	if (ret == 0)
		cq->handle = r.create.handle;
	return ret;
}

static uint32_t shift_of(uint32_t size)
{
	uint32_t shift = 0;

	while (1u << shift < size)
		shift++;
	return shift;
}

static uint32_t pages_of(uint32_t n, uint32_t shift)
{
	return ((n << shift) + PVRDMA_PAGE - 1) / PVRDMA_PAGE;
}

int drv_srq(struct drv_vm *vm, uint32_t pd, uint32_t n, uint32_t limit,
	    struct drv_qp *srq)
{
	union pvrdma_req q = request();
	union pvrdma_resp r;
	uint64_t gpa;
	int ret;

	*srq = (struct drv_qp){.vm = vm, .rn = n, .rshift = 5};
	q.create_srq.nchunks = 1 + pages_of(n, srq->rshift);
	gpa = drv_alloc(vm, q.create_srq.nchunks);
	q.create_srq.pdir_dma = drv_dir(vm, gpa, q.create_srq.nchunks);
	q.create_srq.pd_handle = pd;
	q.create_srq.max_wr = n;
	q.create_srq.max_sge = 1;
	q.create_srq.srq_limit = limit;
	ret = drv_command(vm, PVRDMA_CMD_CREATE_SRQ, &q, &r);
	srq->state = drv_ptr(vm, gpa);
	srq->rq = (uint8_t *)srq->state + PVRDMA_PAGE;
	if (ret == 0)
		srq->handle = r.create.handle;
	return ret;
}

int drv_qp(struct drv_vm *vm, const struct drv_qp_opts *o, struct drv_qp *qp)
{
	union pvrdma_req q = request();
	union pvrdma_resp r;
	uint32_t spages, rpages;
	uint64_t gpa;
	int ret;

	*qp = (struct drv_qp){.vm = vm,
			      .uar = o->uar,
			      .sn = o->send_wr,
			      .rn = o->recv_wr,
			      .sshift = shift_of(80 + 16 * o->sge),
			      .rshift = shift_of(16 + 16 * o->sge)};
	spages = pages_of(qp->sn, qp->sshift);
	rpages = o->use_srq ? 0 : pages_of(qp->rn, qp->rshift);
	gpa = drv_alloc(vm, 1 + spages + rpages);
	qp->state = drv_ptr(vm, gpa);
	qp->sq = (uint8_t *)qp->state + PVRDMA_PAGE;
	qp->rq = qp->sq + (size_t)spages * PVRDMA_PAGE;
	q.create_qp.pdir_dma = drv_dir(vm, gpa, 1 + spages + rpages);
	q.create_qp.pd_handle = o->pd;
	q.create_qp.send_cq = o->scq;
	q.create_qp.recv_cq = o->rcq;
	q.create_qp.srq_handle = o->srq;
	q.create_qp.is_srq = o->use_srq;
	q.create_qp.max_send_wr = o->send_wr;
	q.create_qp.max_recv_wr = o->recv_wr;
	q.create_qp.max_send_sge = q.create_qp.max_recv_sge = o->sge;
	q.create_qp.total_chunks = (uint16_t)(1 + spages + rpages);
	q.create_qp.send_chunks = (uint16_t)spages;
	q.create_qp.sq_sig_all = o->signal_all;
	q.create_qp.qp_type = o->type;
	ret = drv_command(vm, PVRDMA_CMD_CREATE_QP, &q, &r);
	if (ret == 0) {
		qp->handle = r.create_qp.qp_handle;
		qp->qpn = r.create_qp.qpn;
	}
	return ret;
}

static int modify(struct drv_qp *qp, uint32_t mask, struct pvrdma_qp_attr *a)
{
	union pvrdma_req q = request();
	union pvrdma_resp r;

	q.modify_qp.qp_handle = qp->handle;
	q.modify_qp.attr_mask = mask;
	q.modify_qp.attrs = *a;
	return drv_command(qp->vm, PVRDMA_CMD_MODIFY_QP, &q, &r);
}

int drv_modify(struct drv_qp *qp, uint32_t state)
{
	struct pvrdma_qp_attr a = {.qp_state = state};
	int ret = modify(qp, PVRDMA_QP_STATE, &a);

	if (ret == 0 && state == PVRDMA_RESET) {
		memset((void *)qp->state, 0, sizeof(*qp->state));
		qp->stail = qp->rtail = 0;
	}
	return ret;
}

int drv_connect(struct drv_qp *qp, const struct pvrdma_gid *gid, uint32_t dest_qpn,
		uint8_t rnr_retry)
{
	struct pvrdma_qp_attr a = {
		.qp_state = PVRDMA_INIT,
		.qp_access_flags = 15,
		.port_num = 1,
		.path_mtu = 3,
		.dest_qp_num = dest_qpn,
		.ah_attr = {.dgid = *gid, .ah_flags = 1, .port_num = 1},
		.timeout = 10, /* 4 ms */
		.retry_cnt = 7,
		.rnr_retry = rnr_retry,
	};
	int ret = modify(
		qp, PVRDMA_QP_STATE | PVRDMA_QP_ACCESS | PVRDMA_QP_PORT | PVRDMA_QP_PKEY,
		&a);

	a.qp_state = PVRDMA_RTR;
	ret = ret ? ret
		  : modify(qp,
			   PVRDMA_QP_STATE | PVRDMA_QP_AV | PVRDMA_QP_PATH_MTU |
				   PVRDMA_QP_DEST_QPN | PVRDMA_QP_RQ_PSN |
				   PVRDMA_QP_MAX_DEST_RD | PVRDMA_QP_MIN_RNR,
			   &a);
	a.qp_state = PVRDMA_RTS;
	return ret ? ret
		   : modify(qp,
			    PVRDMA_QP_STATE | PVRDMA_QP_TIMEOUT | PVRDMA_QP_RETRY |
				    PVRDMA_QP_RNR_RETRY | PVRDMA_QP_SQ_PSN |
				    PVRDMA_QP_MAX_RD,
			    &a);
}

int drv_ready_ud(struct drv_qp *qp, uint32_t qkey)
{
	struct pvrdma_qp_attr a = {.qp_state = PVRDMA_INIT, .port_num = 1, .qkey = qkey};
	int ret =
		modify(qp,
		       PVRDMA_QP_STATE | PVRDMA_QP_PORT | PVRDMA_QP_PKEY | PVRDMA_QP_QKEY,
		       &a);

	ret = ret ? ret : drv_modify(qp, PVRDMA_RTR);
	return ret ? ret : drv_modify(qp, PVRDMA_RTS);
}

int drv_destroy(struct drv_vm *vm, uint32_t cmd, uint32_t handle)
{
	union pvrdma_req q = request();

	q.by_handle.handle = handle;
	return drv_command(vm, cmd, &q, NULL);
}

void drv_service(struct drv_vm *vm)
{
	struct favo_hca_uar_mode m;

	while (vm->events >= 0 &&
	       recv(vm->events, &m, sizeof(m), MSG_DONTWAIT) == sizeof(m)) {
		CHECK(m.type == FAVO_HCA_UAR_MODE && m.uar > 0 && m.uar < FAVO_HCA_UARS);
		if (m.mode == FAVO_HCA_UAR_RAM && vm->refuse_ram)
			m.mode = FAVO_HCA_UAR_TRAP;
		vm->modes[m.uar] = (uint8_t)m.mode;
		vm->mapped += m.mode == FAVO_HCA_UAR_RAM;
		vm->trapped += m.mode == FAVO_HCA_UAR_TRAP;
		if (send(vm->events, &m, sizeof(m), MSG_NOSIGNAL) < 0)
			return; /* favo-hca ended: tests do that */
	}
}

void drv_ring(struct drv_vm *vm, uint32_t uar, unsigned reg, uint32_t value)
{
	const uint64_t one = 1;

	if (++vm->rung % SERVICE_EVERY == 0)
		drv_service(vm);
	if (vm->modes[uar] == FAVO_HCA_UAR_RAM) {
		uint32_t *at = (uint32_t *)(void *)(vm->shared->uars[uar] + reg);

		__atomic_store_n(at, value, __ATOMIC_RELEASE);
		return;
	}
	if (!favo_hca_bell_push(vm->shared, uar * FAVO_HCA_UAR_SIZE + reg, value))
		return;
	vm->kicks++;
	CHECK(write(vm->kick, &one, sizeof(one)) == sizeof(one));
}

void drv_post_send(struct drv_qp *qp, const struct pvrdma_sq_wqe *w,
		   const struct pvrdma_sge *sge)
{
	uint8_t *at = qp->sq + ((size_t)(qp->stail & (qp->sn - 1)) << qp->sshift);

	memcpy(at, w, sizeof(*w));
	memcpy(at + sizeof(*w), sge, w->num_sge * sizeof(*sge));
	qp->stail = favo_hca_ring_next(qp->stail, qp->sn);
	atomic_store_explicit(&qp->state->tx.prod_tail, qp->stail, memory_order_release);
	drv_ring(qp->vm, qp->uar, PVRDMA_UAR_QP, PVRDMA_UAR_QP_SEND | qp->handle);
}

static void put_recv(struct drv_qp *qp, uint64_t wr_id, const struct pvrdma_sge *sge,
		     uint32_t nsge)
{
	uint8_t *at = qp->rq + ((size_t)(qp->rtail & (qp->rn - 1)) << qp->rshift);
	struct pvrdma_rq_wqe w = {.wr_id = wr_id, .num_sge = nsge};

	memcpy(at, &w, sizeof(w));
	memcpy(at + sizeof(w), sge, nsge * sizeof(*sge));
	qp->rtail = favo_hca_ring_next(qp->rtail, qp->rn);
	atomic_store_explicit(&qp->state->rx.prod_tail, qp->rtail, memory_order_release);
}

void drv_post_recv(struct drv_qp *qp, uint64_t wr_id, const struct pvrdma_sge *sge,
		   uint32_t nsge)
{
	put_recv(qp, wr_id, sge, nsge);
	drv_ring(qp->vm, qp->uar, PVRDMA_UAR_QP, PVRDMA_UAR_QP_RECV | qp->handle);
}

void drv_post_srq(struct drv_qp *srq, uint64_t wr_id, const struct pvrdma_sge *sge)
{
	put_recv(srq, wr_id, sge, 1);
	drv_ring(srq->vm, srq->uar, PVRDMA_UAR_SRQ, PVRDMA_UAR_QP_SEND | srq->handle);
}

void drv_arm(struct drv_cq *cq, bool solicited)
{
	drv_ring(cq->vm, cq->uar, PVRDMA_UAR_CQ,
		 cq->handle | (solicited ? PVRDMA_UAR_CQ_ARM_SOL : PVRDMA_UAR_CQ_ARM));
}

bool drv_poll(struct drv_cq *cq, struct pvrdma_cqe *cqe)
{
	uint32_t tail = atomic_load_explicit(&cq->ring->prod_tail, memory_order_acquire);

	if (tail == cq->head) {
		drv_ring(cq->vm, cq->uar, PVRDMA_UAR_CQ, cq->handle | PVRDMA_UAR_CQ_POLL);
		return false;
	}
	memcpy(cqe,
	       cq->vm->ram + cq->entries +
		       (size_t)(cq->head & (cq->n - 1)) * sizeof(*cqe),
	       sizeof(*cqe));
	cq->head = favo_hca_ring_next(cq->head, cq->n);
	atomic_store_explicit(&cq->ring->cons_head, cq->head, memory_order_release);
	return true;
}

bool drv_wait(struct drv_cq *cq, struct pvrdma_cqe *cqe, unsigned ms)
{
	uint64_t end = now_ms() + ms;

	for (uint32_t i = 1; !drv_poll(cq, cqe); i++)
		if (i % 256 == 0) {
			if (now_ms() > end)
				return false;
			drv_service(cq->vm);
		}
	return true;
}

bool drv_wait_vector(struct drv_vm *vm, unsigned v, unsigned ms)
{
	uint64_t end = now_ms() + ms, n;

	for (;;) {
		struct pollfd p[2] = {{.fd = vm->vectors[v], .events = POLLIN},
				      {.fd = vm->events, .events = POLLIN}};
		uint64_t now = now_ms();

		if (now > end || poll(p, 2, (int)(end - now) + 1) < 0)
			return false;
		drv_service(vm);
		if (p[0].revents)
			return read(vm->vectors[v], &n, sizeof(n)) == sizeof(n);
		if (p[1].revents & POLLHUP)
			return false;
	}
}

/* As Linux: masks of n - 1 and 2n - 1 with an n that is no power of two. */
static void *next(struct drv_vm *vm, uint64_t ring_gpa, uint32_t *head, uint32_t entry)
{
	struct pvrdma_ring_state *state = drv_ptr(vm, ring_gpa);
	uint32_t n = (RING_PAGES - 1) * PVRDMA_PAGE / entry;
	uint32_t tail = atomic_load_explicit(&state->rx.prod_tail, memory_order_acquire);
	uint32_t slot = *head & (n - 1);

	CHECK((tail & ~(2 * n - 1)) == 0);
	if (tail == *head)
		return NULL;
	*head = (*head + 1) & (2 * n - 1);
	return drv_ptr(vm, ring_gpa + PVRDMA_PAGE + slot * entry);
}

bool drv_next_notify(struct drv_vm *vm, uint32_t *cq)
{
	struct pvrdma_ring_state *state = drv_ptr(vm, vm->notify);
	uint32_t *entry = next(vm, vm->notify, &vm->notify_head, sizeof(*entry));

	if (!entry)
		return false;
	*cq = *entry;
	atomic_store_explicit(&state->rx.cons_head, vm->notify_head,
			      memory_order_release);
	return true;
}

bool drv_next_async(struct drv_vm *vm, struct pvrdma_eqe *eqe)
{
	struct pvrdma_ring_state *state = drv_ptr(vm, vm->async);
	struct pvrdma_eqe *entry = next(vm, vm->async, &vm->async_head, sizeof(*eqe));

	if (!entry)
		return false;
	*eqe = *entry;
	atomic_store_explicit(&state->rx.cons_head, vm->async_head, memory_order_release);
	return true;
}
