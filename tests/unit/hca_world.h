/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A cluster for tests: favo-hca's loop in a thread of this process, and guests
 * that hca_driver.h plays, each with one context, protection domain, completion
 * queue, memory region and address.
 */
#pragma once

#include <pthread.h>
#include <signal.h>

#include "hypervisor/hca/server.h"
#include "tests/unit/hca_driver.h"

#define WORLD_RAM (32ULL << 20)
#define WORLD_UAR 1
#define WORLD_MR (2u << 20)
#define WORLD_VMS 3
#define WAIT_MS 20000 /* for what must happen */
#define ALL_ACCESS 15u

struct side {
	struct drv_vm vm;
	uint32_t pd;
	struct drv_cq cq;
	struct drv_mr mr;
	struct pvrdma_gid gid;
	struct drv_qp qp;
	bool open;
};

struct world {
	struct favo_hca_server *srv;
	pthread_t thread;
	volatile sig_atomic_t stop;
	int listen_fd;
	char path[108];
	struct side s[WORLD_VMS];
};

/* n VMs, up to address and memory. spin_us as --spin. */
void world_open(struct world *w, unsigned n, int64_t spin_us);
void world_close(struct world *w);
/* A connected socket of favo-hca. */
int world_dial(struct world *w);
/* Add VM i. */
void world_add(struct world *w, unsigned i);
void side_leave(struct side *s);
/* RC queue pairs of the first two VMs, connected. */
void world_connect(struct world *w, uint8_t rnr_retry);
struct drv_qp_opts side_qp_opts(const struct side *s, uint8_t type);
struct pvrdma_sge side_sge(const struct side *s, uint64_t at, uint32_t length);
uint8_t *side_mem(struct side *s, uint64_t at);
/* Post and wait for the completion; returns its status. */
uint32_t side_do(struct side *s, const struct pvrdma_sq_wqe *w, struct pvrdma_sge sge);
struct pvrdma_sq_wqe wqe(uint32_t opcode);
struct pvrdma_sq_wqe wqe_rdma(uint32_t opcode, const struct side *to, uint64_t at);
