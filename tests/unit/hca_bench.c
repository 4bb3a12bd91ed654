// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * hca-bench: favo-hca at native speed, for tests/bench/hca. The program plays
 * two guests in one thread against a real favo-hca process (argument 1), so two
 * processors are enough; peers are a ping-pong through shared memory between
 * two processes, and memcpy(). All are measured in blocks of about a millisecond
 * of which the best counts, so that others on the machine disturb little. Prints
 * one "NAME VALUE" a line.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"
#include "tests/unit/hca_driver.h"

#define RAM (256ULL << 20)
#define UAR 1u
#define MR_SIZE (4u << 20)
#define QPS_MAX 4096u
#define WARM_UP 20000u
#define BLOCKS 60u
#define BLOCK_ROUNDS 1000u /* round trips */
#define BLOCK_COPIES 32u
#define BLOCK_MESSAGES 16384u
#define DEPTH 32u
#define WAIT_MS 20000

#define CHECK(what)                                                                      \
	do {                                                                             \
		if (!(what)) {                                                           \
			fprintf(stderr, "hca-bench: %s:%d: %s failed\n", __FILE__,       \
				__LINE__, #what);                                        \
			exit(1);                                                         \
		}                                                                        \
	} while (0)

struct guest {
	struct drv_vm vm;
	uint32_t pd;
	struct drv_cq cq;
	struct drv_mr mr;
	struct pvrdma_gid gid;
	struct drv_qp *qps;
};

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec * 1e9 + (double)ts.tv_nsec;
}

/* Two processes, one line each way: what 8 bytes cost at best. */
static double shm_ping_pong(void)
{
	volatile uint64_t *a = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
				    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	volatile uint64_t *b = a + 512;
	double best = 1e18, start = 0;
	pid_t pid;

	CHECK(a != MAP_FAILED);
	pid = fork();
	CHECK(pid >= 0);
	for (uint64_t i = 1; i <= BLOCKS * BLOCK_ROUNDS; i++) {
		if (pid == 0) {
			while (*a != i)
				;
			*b = i;
			continue;
		}
		if (i % BLOCK_ROUNDS == 1)
			start = now();
		*a = i;
		while (*b != i)
			;
		if (i % BLOCK_ROUNDS == 0)
			best = FAVO_MIN(best, (now() - start) / BLOCK_ROUNDS / 2);
	}
	if (pid == 0)
		_exit(0);
	waitpid(pid, NULL, 0);
	munmap((void *)a, 8192);
	return best;
}

static double memcpy_gbps(uint32_t bytes)
{
	uint8_t *from = mmap(NULL, 2 * MR_SIZE, PROT_READ | PROT_WRITE,
			     MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	double best = 0;

	CHECK(from != MAP_FAILED);
	memset(from, 1, 2 * MR_SIZE);
	for (unsigned i = 0; i < BLOCKS; i++) {
		double start = now();

		for (unsigned k = 0; k < BLOCK_COPIES; k++) {
			memcpy(from + MR_SIZE, from, bytes);
			__asm__ volatile("" : : "r"(from) : "memory");
		}
		best = FAVO_MAX(best, (double)bytes * BLOCK_COPIES / (now() - start));
	}
	munmap(from, 2 * MR_SIZE);
	return best;
}

static void guest_open(struct guest *g, const char *path, uint8_t n)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	snprintf(sa.sun_path, sizeof(sa.sun_path), "%s", path);
	for (unsigned i = 0; connect(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0; i++) {
		CHECK(i < 10000);
		usleep(1000);
	}
	drv_open(&g->vm, fd, RAM);
	CHECK(drv_hello(&g->vm, n) == 0 && drv_activate(&g->vm) == 0);
	CHECK(drv_uc(&g->vm, UAR) == 0 && drv_pd(&g->vm, UAR, &g->pd) == 0);
	CHECK(drv_cq(&g->vm, UAR, 8192, &g->cq) == 0);
	CHECK(drv_mr(&g->vm, g->pd, MR_SIZE, 15, &g->mr) == 0);
	memset(drv_ptr(&g->vm, g->mr.gpa), n, MR_SIZE);
	g->gid = drv_gid(n);
	CHECK(drv_bind(&g->vm, 0, &g->gid) == 0);
	g->qps = calloc(QPS_MAX, sizeof(*g->qps));
	CHECK(g->qps);
}

/* Queue pairs number from .. to - 1 of both, connected pairwise. */
static void add_qps(struct guest *g, unsigned from, unsigned to)
{
	for (unsigned n = from; n < to; n++) {
		for (unsigned i = 0; i < 2; i++) {
			struct drv_qp_opts o = {.pd = g[i].pd,
						.scq = g[i].cq.handle,
						.rcq = g[i].cq.handle,
						.uar = UAR,
						.send_wr = 2 * DEPTH,
						.recv_wr = 2 * DEPTH,
						.sge = 1,
						.type = PVRDMA_QPT_RC};

			CHECK(drv_qp(&g[i].vm, &o, &g[i].qps[n]) == 0);
		}
		for (unsigned i = 0; i < 2; i++)
			CHECK(drv_connect(&g[i].qps[n], &g[!i].gid, g[!i].qps[n].qpn,
					  DRV_RNR_FOREVER) == 0);
	}
}

static struct pvrdma_sge sge_of(const struct guest *g, uint32_t at, uint32_t length)
{
	return (struct pvrdma_sge){g->mr.addr + at, length, g->mr.lkey};
}

static void complete(struct guest *g)
{
	struct pvrdma_cqe cqe;

	CHECK(drv_wait(&g->cq, &cqe, WAIT_MS));
	CHECK(cqe.status == PVRDMA_WC_SUCCESS);
}

/* Half a round trip, as ib_send_lat counts it. */
static double send_latency(struct guest *g, unsigned rounds)
{
	struct pvrdma_sq_wqe w = {.opcode = PVRDMA_WR_SEND, .num_sge = 1};
	struct pvrdma_sge out[2] = {sge_of(&g[0], 0, 8), sge_of(&g[1], 0, 8)};
	struct pvrdma_sge in[2] = {sge_of(&g[0], 4096, 8), sge_of(&g[1], 4096, 8)};
	double start = now();

	for (unsigned i = 0; i < 2; i++)
		drv_post_recv(&g[i].qps[0], 0, &in[i], 1);
	for (unsigned n = 0; n < rounds; n++)
		for (unsigned i = 0; i < 2; i++) {
			drv_post_send(&g[i].qps[0], &w, &out[i]);
			complete(&g[!i]);
			drv_post_recv(&g[!i].qps[0], 0, &in[!i], 1);
		}
	start = (now() - start) / rounds / 2;
	/* Leave no receive behind that a later message would take. */
	for (unsigned i = 0; i < 2; i++) {
		drv_post_send(&g[i].qps[0], &w, &out[i]);
		complete(&g[!i]);
	}
	return start;
}

/* The receiver polls its buffer, as ib_write_lat does. */
static double write_latency(struct guest *g, unsigned rounds)
{
	static uint64_t number; /* of messages so far: each has its own */
	struct pvrdma_sq_wqe w = {.opcode = PVRDMA_WR_WRITE, .num_sge = 1};
	double start = now();

	for (unsigned k = 0; k < rounds; k++)
		for (unsigned i = 0; i < 2; i++) {
			struct pvrdma_sge sge = sge_of(&g[i], 0, 8);
			volatile uint64_t *at = drv_ptr(&g[!i].vm, g[!i].mr.gpa + 8192);
			uint64_t n = ++number;

			memcpy(drv_ptr(&g[i].vm, g[i].mr.gpa), &n, sizeof(n));
			w.rdma.remote_addr = g[!i].mr.addr + 8192;
			w.rdma.rkey = g[!i].mr.rkey;
			drv_post_send(&g[i].qps[0], &w, &sge);
			for (unsigned spun = 1; *at != n; spun++)
				if (spun % 65536 == 0)
					drv_service(&g[i].vm);
		}
	return (now() - start) / rounds / 2;
}

static double write_gbps(struct guest *g, uint32_t bytes)
{
	struct pvrdma_sq_wqe w = {.opcode = PVRDMA_WR_WRITE, .num_sge = 1};
	struct pvrdma_sge sge = sge_of(&g[0], 0, bytes);
	double start = now();

	w.send_flags = PVRDMA_SEND_SIGNALED;
	w.rdma.remote_addr = g[1].mr.addr;
	w.rdma.rkey = g[1].mr.rkey;
	for (unsigned n = 0; n < BLOCK_COPIES; n++) {
		drv_post_send(&g[0].qps[0], &w, &sge);
		if (n >= 8)
			complete(&g[0]);
	}
	for (unsigned n = 0; n < 8; n++)
		complete(&g[0]);
	return (double)bytes * BLOCK_COPIES / (now() - start);
}

/* 8 B writes round-robin over n queue pairs, DEPTH at most in each. */
static double messages_per_second(struct guest *g, unsigned n)
{
	struct pvrdma_sq_wqe w = {.opcode = PVRDMA_WR_WRITE, .num_sge = 1};
	struct pvrdma_sge sge = sge_of(&g[0], 0, 8);
	unsigned flying = 0, most = FAVO_MIN(n * DEPTH, 4096u);
	double start = now();

	w.send_flags = PVRDMA_SEND_SIGNALED;
	w.rdma.remote_addr = g[1].mr.addr;
	w.rdma.rkey = g[1].mr.rkey;
	for (unsigned i = 0; i < BLOCK_MESSAGES; i++, flying++) {
		/* To the last: else one of the rings may overflow. */
		if (flying == most)
			for (; flying; flying--)
				complete(&g[0]);
		drv_post_send(&g[0].qps[i % n], &w, &sge);
	}
	for (; flying; flying--)
		complete(&g[0]);
	return BLOCK_MESSAGES / (now() - start) * 1e9;
}

/* Least or largest of many blocks. */
static double best_latency(struct guest *g, double (*fn)(struct guest *, unsigned),
			   unsigned blocks)
{
	double best = 1e18;

	for (unsigned i = 0; i < blocks; i++)
		best = FAVO_MIN(best, fn(g, BLOCK_ROUNDS));
	return best;
}

static double best_rate(struct guest *g, double (*fn)(struct guest *, unsigned),
			unsigned arg, unsigned blocks)
{
	double best = 0;

	for (unsigned i = 0; i < blocks; i++)
		best = FAVO_MAX(best, fn(g, arg));
	return best;
}

static pid_t start_hca(const char *program, const char *path)
{
	char listen[128];
	pid_t pid = fork();

	CHECK(pid >= 0);
	if (pid)
		return pid;
	snprintf(listen, sizeof(listen), "path=%s", path);
	execl(program, program, "--listen", listen, "--spin", "20000", (char *)NULL);
	_exit(127);
}

int main(int argc, char **argv)
{
	static const unsigned counts[] = {1, 16, 256, 1024, 4096};
	static struct guest g[2];
	char path[64];
	unsigned have = 1;
	pid_t hca;

	CHECK(argc == 2);
	setvbuf(stdout, NULL, _IOLBF, 0);
	printf("shm_ns %.1f\n", shm_ping_pong());
	printf("memcpy_1m_gbps %.3f\n", memcpy_gbps(1 << 20));
	snprintf(path, sizeof(path), "/tmp/favo-hca-bench.%d", (int)getpid());
	hca = start_hca(argv[1], path);
	for (uint8_t i = 0; i < 2; i++)
		guest_open(&g[i], path, i + 1);
	unlink(path);
	add_qps(g, 0, 1);
	send_latency(g, WARM_UP);
	CHECK(g[0].vm.mapped && g[1].vm.mapped);
	printf("send_8_ns %.1f\n", best_latency(g, send_latency, BLOCKS));
	printf("write_8_ns %.1f\n", best_latency(g, write_latency, BLOCKS));
	printf("write_1m_gbps %.3f\n", best_rate(g, write_gbps, 1 << 20, BLOCKS));
	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(counts); i++) {
		add_qps(g, have, counts[i]);
		have = FAVO_MAX(have, counts[i]);
		printf("messages_%u %.0f\n", counts[i],
		       best_rate(g, messages_per_second, counts[i], BLOCKS / 5));
	}
	printf("latency_4096_ns %.1f\n", best_latency(g, send_latency, BLOCKS / 5));
	kill(hca, SIGTERM);
	waitpid(hca, NULL, 0);
	return 0;
}
