// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Connections, and the three gaits of the loop:
 * - spin: turn after turn, descriptors looked at every EPOLL_TURNS turns;
 * - nap: guests poll in mapped pages, but no message went for a while, or there
 *   is one processor only: turns every NAP_US;
 * - sleep: all pages are trapped, a doorbell wakes by the eventfd. First
 *   "sleeping" is set, then everything is looked at once more, so a doorbell
 *   between the last look and the wait is either seen or kicks.
 * A guest may keep favo-hca from sleeping only as long as it spins itself.
 */
#include "hypervisor/hca/server.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "hypervisor/hca/hca.h"

#define US 1000ULL
#define MS (1000 * US)
#define SPIN_DEFAULT (200 * US) /* without any doorbell */
#define SPIN_POLLED (20 * MS) /* while guests poll */
#define NAP_US 50
#define EPOLL_TURNS 256u
#define EVENTS 64

enum source { LISTEN, SOCK, EVENTS_SOCK, KICK };

struct favo_hca_server {
	struct favo_hca hca;
	struct favo_hca_server_opts opts;
	int epoll;
	bool served; /* there was a connection */
};

/* epoll data: who, and which of its descriptors. */
static uint64_t tag(enum source source, unsigned index)
{
	return (uint64_t)source << 32 | index;
}

static int watch(struct favo_hca_server *srv, int fd, enum source source, unsigned index,
		 struct favo_err *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = tag(source, index)};

	if (epoll_ctl(srv->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
		return favo_fail(err, errno, "watch a descriptor: %m");
	return 0;
}

static uint64_t default_spin(void)
{
	cpu_set_t set;

	/* Spinning on the only processor keeps the guests from it. */
	if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) < 2)
		return 0;
	return SPIN_DEFAULT;
}

int favo_hca_server_new(struct favo_hca_server **out,
			const struct favo_hca_server_opts *opts, struct favo_err *err)
{
	struct favo_hca_server *srv = calloc(1, sizeof(*srv));

	if (!srv)
		return favo_fail(err, ENOMEM, "server");
	srv->opts = *opts;
	srv->epoll = epoll_create1(EPOLL_CLOEXEC);
	srv->hca.spin_ns =
		opts->spin_us < 0 ? default_spin() : (uint64_t)opts->spin_us * US;
	srv->hca.now_ns = favo_hca_clock();
	if (srv->epoll < 0 ||
	    (opts->listen_fd >= 0 && watch(srv, opts->listen_fd, LISTEN, 0, err) < 0)) {
		int code = errno;

		favo_hca_server_free(srv);
		return favo_fail(err, code, "epoll: %m");
	}
	*out = srv;
	return 0;
}

void favo_hca_server_free(struct favo_hca_server *srv)
{
	if (!srv)
		return;
	for (unsigned i = 0; i < HCA_VMS_MAX; i++)
		favo_hca_vm_free(srv->hca.vms[i]);
	free(srv->hca.hot);
	free(srv->hca.stalled);
	if (srv->epoll >= 0)
		close(srv->epoll);
	if (srv->opts.listen_fd >= 0)
		close(srv->opts.listen_fd);
	free(srv);
}

int favo_hca_server_add(struct favo_hca_server *srv, int sock, struct favo_err *err)
{
	struct hca_vm *vm = NULL;
	int ret = favo_hca_vm_new(&vm, &srv->hca, err);

	if (ret < 0) {
		close(sock);
		return ret;
	}
	vm->sock = sock;
	ret = watch(srv, sock, SOCK, vm->index, err);
	if (ret < 0)
		favo_hca_vm_free(vm);
	else
		srv->served = true;
	return ret;
}

static void close_fds(int *fds, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

static int hello(struct favo_hca_server *srv, struct hca_vm *vm,
		 const struct favo_hca_hello *h, int *fds, size_t nfds,
		 struct favo_err *err)
{
	int ret = favo_hca_vm_hello(vm, h, fds, (unsigned)nfds, err);

	ret = ret ? ret : watch(srv, vm->kick, KICK, vm->index, err);
	return ret ? ret : watch(srv, vm->events, EVENTS_SOCK, vm->index, err);
}

static int answer(struct hca_vm *vm, uint32_t type, uint32_t seq, int status,
		  uint32_t flags)
{
	const struct favo_hca_reply r = {
		.type = type,
		.seq = seq,
		.status = (uint32_t)-status,
		.flags = flags,
	};

	return send(vm->sock, &r, sizeof(r), MSG_DONTWAIT | MSG_NOSIGNAL) == sizeof(r)
		       ? 0
		       : -EPIPE;
}

/* One message of favo-vmm. < 0: the connection is to be ended. */
static int message(struct favo_hca_server *srv, struct hca_vm *vm, struct favo_err *err)
{
	union {
		struct favo_hca_hello hello;
		struct favo_hca_request req;
	} m;
	int fds[FAVO_MAX_FDS];
	size_t nfds = 0;
	ssize_t n = favo_recv_fds(vm->sock, &m, sizeof(m), fds, FAVO_MAX_FDS, &nfds, err);
	uint32_t flags = 0;
	int ret;

	if (n <= 0)
		return n == 0 ? -EPIPE : (int)n;
	if (!vm->greeted) {
		ret = n == sizeof(m.hello)
			      ? hello(srv, vm, &m.hello, fds, nfds, err)
			      : favo_fail(err, EPROTO, "no HELLO, but %zd bytes", n);
		close_fds(fds, nfds);
		return ret ? ret : answer(vm, FAVO_HCA_HELLO, m.hello.seq, 0, 0);
	}
	close_fds(fds, nfds);
	if (n != sizeof(m.req) || nfds)
		return favo_fail(err, EPROTO, "request of %zd bytes, %zu descriptors", n,
				 nfds);
	srv->hca.now_ns = favo_hca_clock();
	ret = favo_hca_vm_request(vm, &m.req, &flags);
	if (ret < 0)
		favo_log(FAVO_DEBUG, "vm %u: request %u: %s", vm->index, m.req.type,
			 strerror(-ret));
	return answer(vm, m.req.type, m.req.seq, ret, flags);
}

static void drain_kick(struct hca_vm *vm)
{
	uint64_t n;

	if (read(vm->kick, &n, sizeof(n)) < 0)
		return; /* EAGAIN: somebody else's reading; the turn looks anyway */
}

/* Returns < 0 when the other end is gone. */
static int uar_answers(struct hca_vm *vm)
{
	struct favo_hca_uar_mode m;
	ssize_t n;

	while ((n = recv(vm->events, &m, sizeof(m), MSG_DONTWAIT)) == sizeof(m))
		favo_hca_uar_answer(vm, &m);
	return n < 0 && errno == EAGAIN ? 0 : -EPIPE;
}

static void accept_vm(struct favo_hca_server *srv)
{
	struct favo_err err = {0};
	int sock = accept4(srv->opts.listen_fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

	if (sock >= 0 && favo_hca_server_add(srv, sock, &err) < 0)
		favo_log(FAVO_ERROR, "%s", err.msg);
}

static void serve(struct favo_hca_server *srv, uint64_t data)
{
	unsigned index = (uint32_t)data;
	struct hca_vm *vm = index < HCA_VMS_MAX ? srv->hca.vms[index] : NULL;
	struct favo_err err = {0};
	int ret = 0;

	switch ((enum source)(data >> 32)) {
	case LISTEN:
		accept_vm(srv);
		return;
	case SOCK:
		ret = vm ? message(srv, vm, &err) : 0;
		break;
	case EVENTS_SOCK:
		ret = vm ? uar_answers(vm) : 0;
		break;
	case KICK:
		if (vm)
			drain_kick(vm);
		return;
	}
	if (ret == 0 || ret == -EAGAIN)
		return;
	if (err.code)
		favo_log(FAVO_ERROR, "vm %u: %s", index, err.msg);
	vm->dead = true;
	favo_hca_vm_free(vm);
}

/* Wait at most timeout_us (< 0: for ever) and serve what came. */
static int wait_events(struct favo_hca_server *srv, int64_t timeout_us,
		       struct favo_err *err)
{
	const struct timespec ts = {timeout_us / 1000000, timeout_us % 1000000 * 1000};
	struct epoll_event ev[EVENTS];
	int n = epoll_pwait2(srv->epoll, ev, EVENTS, timeout_us < 0 ? NULL : &ts, NULL);

	if (n < 0 && errno != EINTR)
		return favo_fail(err, errno, "epoll_wait: %m");
	for (int i = 0; i < n; i++)
		serve(srv, ev[i].data.u64);
	return 0;
}

static void set_sleeping(struct favo_hca *hca, uint32_t value)
{
	for (unsigned i = 0; i < hca->vms_end; i++)
		if (hca->vms[i] && hca->vms[i]->shared)
			atomic_store(&hca->vms[i]->shared->sleeping, value);
}

static bool any_bells(struct favo_hca *hca)
{
	for (unsigned i = 0; i < hca->vms_end; i++) {
		struct favo_hca_shared *s = hca->vms[i] ? hca->vms[i]->shared : NULL;

		if (s && (atomic_load(&s->head) != atomic_load(&s->tail) ||
			  atomic_load(&s->overflow)))
			return true;
	}
	return false;
}

/* A guest's notification ring is full: ask again soon. */
static bool notify_owed(const struct favo_hca *hca)
{
	for (unsigned i = 0; i < hca->vms_end; i++)
		if (hca->vms[i] && hca->vms[i]->notify_owed)
			return true;
	return false;
}

static int sleep_well(struct favo_hca_server *srv, struct favo_err *err)
{
	struct favo_hca *hca = &srv->hca;
	uint64_t deadline;
	int64_t us = -1;
	int ret = 0;

	set_sleeping(hca, 1);
	favo_hca_poll_all(hca);
	if (!any_bells(hca) && !favo_hca_poll(hca)) {
		deadline = favo_hca_deadline(hca);
		if (deadline)
			us = deadline > hca->now_ns
				     ? (int64_t)((deadline - hca->now_ns) / US) + 1
				     : 0;
		if (notify_owed(hca))
			us = NAP_US;
		/* The poll may have asked for a mapping. */
		ret = wait_events(srv, favo_hca_uars_mapped(hca) ? 0 : us, err);
	}
	set_sleeping(hca, 0);
	/* Waking takes long: what is new is not idle. */
	hca->now_ns = favo_hca_clock();
	return ret;
}

/* Nothing was done in the last turn: go on spinning, nap or sleep. */
static int rest(struct favo_hca_server *srv, struct favo_err *err)
{
	struct favo_hca *hca = &srv->hca;
	uint64_t work = hca->now_ns - hca->last_work_ns;
	uint64_t bell = hca->now_ns - FAVO_MAX(hca->last_bell_ns, hca->last_work_ns);
	bool mapped = favo_hca_uars_mapped(hca);

	if (bell < hca->spin_ns && (work < SPIN_POLLED || !mapped)) {
		__builtin_ia32_pause();
		return 0;
	}
	if (!mapped)
		return sleep_well(srv, err);
	favo_hca_poll_all(hca);
	if (bell >= SPIN_POLLED)
		favo_hca_uars_trap(hca);
	return wait_events(srv, NAP_US, err);
}

static bool deserted(const struct favo_hca_server *srv)
{
	for (unsigned i = 0; i < HCA_VMS_MAX; i++)
		if (srv->hca.vms[i])
			return false;
	return srv->served;
}

int favo_hca_server_run(struct favo_hca_server *srv, volatile sig_atomic_t *stop,
			struct favo_err *err)
{
	struct favo_hca *hca = &srv->hca;
	int ret = 0;

	while (ret == 0 && !*stop && !(srv->opts.once && deserted(srv))) {
		if (favo_hca_poll(hca))
			hca->last_work_ns = hca->now_ns;
		else
			ret = rest(srv, err);
		if (ret == 0 && hca->turn % EPOLL_TURNS == 0)
			ret = wait_events(srv, 0, err);
	}
	return ret;
}
