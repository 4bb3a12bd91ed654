// SPDX-License-Identifier: GPL-2.0-or-later
#include "tests/unit/hca_world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <cmocka.h>

static void *serve(void *arg)
{
	struct world *w = arg;
	struct favo_err err = {0};

	if (favo_hca_server_run(w->srv, &w->stop, &err) < 0)
		fprintf(stderr, "favo-hca: %s\n", err.msg);
	return NULL;
}

static struct sockaddr_un address(const struct world *w)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};

	memcpy(sa.sun_path, w->path, sizeof(sa.sun_path));
	return sa;
}

int world_dial(struct world *w)
{
	struct sockaddr_un sa = address(w);
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	assert_true(fd >= 0);
	assert_int_equal(connect(fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	return fd;
}

void world_add(struct world *w, unsigned i)
{
	struct side *s = &w->s[i];

	drv_open(&s->vm, world_dial(w), WORLD_RAM);
	s->open = true;
	assert_int_equal(drv_hello(&s->vm, (uint8_t)i), 0);
	assert_int_equal(drv_activate(&s->vm), 0);
	assert_int_equal(drv_uc(&s->vm, WORLD_UAR), 0);
	assert_int_equal(drv_pd(&s->vm, WORLD_UAR, &s->pd), 0);
	assert_int_equal(drv_cq(&s->vm, WORLD_UAR, 256, &s->cq), 0);
	assert_int_equal(drv_mr(&s->vm, s->pd, WORLD_MR, ALL_ACCESS, &s->mr), 0);
	s->gid = drv_gid((uint8_t)(i + 1));
	assert_int_equal(drv_bind(&s->vm, 0, &s->gid), 0);
}

void world_open(struct world *w, unsigned n, int64_t spin_us)
{
	struct favo_hca_server_opts opts = {.spin_us = spin_us};
	struct sockaddr_un sa;

	memset(w, 0, sizeof(*w));
	snprintf(w->path, sizeof(w->path), "/tmp/favo-hca-test.%d", (int)getpid());
	unlink(w->path);
	sa = address(w);
	opts.listen_fd =
		socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	assert_int_equal(bind(opts.listen_fd, (struct sockaddr *)&sa, sizeof(sa)), 0);
	assert_int_equal(listen(opts.listen_fd, 8), 0);
	assert_int_equal(favo_hca_server_new(&w->srv, &opts, NULL), 0);
	assert_int_equal(pthread_create(&w->thread, NULL, serve, w), 0);
	for (unsigned i = 0; i < n; i++)
		world_add(w, i);
}

void side_leave(struct side *s)
{
	if (s->open)
		drv_close(&s->vm);
	s->open = false;
}

void world_close(struct world *w)
{
	w->stop = 1;
	/* A new connection wakes it. */
	close(world_dial(w));
	pthread_join(w->thread, NULL);
	favo_hca_server_free(w->srv);
	unlink(w->path);
	for (unsigned i = 0; i < WORLD_VMS; i++)
		side_leave(&w->s[i]);
}

struct drv_qp_opts side_qp_opts(const struct side *s, uint8_t type)
{
	return (struct drv_qp_opts){.pd = s->pd,
				    .scq = s->cq.handle,
				    .rcq = s->cq.handle,
				    .uar = WORLD_UAR,
				    .send_wr = 64,
				    .recv_wr = 64,
				    .sge = 4,
				    .type = type,
				    .signal_all = true};
}

void world_connect(struct world *w, uint8_t rnr_retry)
{
	for (unsigned i = 0; i < 2; i++) {
		struct drv_qp_opts o = side_qp_opts(&w->s[i], PVRDMA_QPT_RC);

		assert_int_equal(drv_qp(&w->s[i].vm, &o, &w->s[i].qp), 0);
	}
	for (unsigned i = 0; i < 2; i++)
		assert_int_equal(drv_connect(&w->s[i].qp, &w->s[!i].gid, w->s[!i].qp.qpn,
					     rnr_retry),
				 0);
}

struct pvrdma_sge side_sge(const struct side *s, uint64_t at, uint32_t length)
{
	return (struct pvrdma_sge){
		.addr = s->mr.addr + at, .length = length, .lkey = s->mr.lkey};
}

uint8_t *side_mem(struct side *s, uint64_t at)
{
	return (uint8_t *)drv_ptr(&s->vm, s->mr.gpa) + at;
}

uint32_t side_do(struct side *s, const struct pvrdma_sq_wqe *w, struct pvrdma_sge sge)
{
	struct pvrdma_sq_wqe copy = *w;
	struct pvrdma_cqe cqe;

	copy.num_sge = 1;
	copy.wr_id = 0x1234567890abcdefULL;
	drv_post_send(&s->qp, &copy, &sge);
	assert_true(drv_wait(&s->cq, &cqe, WAIT_MS));
	assert_true(cqe.wr_id == copy.wr_id);
	assert_int_equal(cqe.qp, s->qp.handle);
	return cqe.status;
}

struct pvrdma_sq_wqe wqe(uint32_t opcode)
{
	struct pvrdma_sq_wqe w;

	/* Providers leave what an opcode does not use as it was. */
	memset(&w, 0xa5, sizeof(w));
	w.opcode = opcode;
	w.num_sge = 1;
	w.send_flags = PVRDMA_SEND_SIGNALED;
	return w;
}

struct pvrdma_sq_wqe wqe_rdma(uint32_t opcode, const struct side *to, uint64_t at)
{
	struct pvrdma_sq_wqe w = wqe(opcode);

	w.rdma.remote_addr = to->mr.addr + at;
	w.rdma.rkey = to->mr.rkey;
	return w;
}
