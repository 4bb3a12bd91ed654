// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Listener of the exchange between nodes; see peer_hub.h. Whoever connects
 * has five seconds to say who he is; only so many may be about it at a time.
 */
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "images/peer_hub.h"

#define WAITING_MAX 64
#define GREET_MS 5000
#define BACKLOG 256

struct guest {
	int fd;
	int64_t since_ms;
	size_t len;
	unsigned char buf[FAVO_WIRE_HEAD + FAVO_WIRE_HELLO_MAX];
};

struct favo_hub {
	int listen_fd, stop_fd;
	uint16_t port;
	pthread_t thread;
	favo_hub_fn *fn;
	void *user;
	unsigned int n;
	struct guest guests[WAITING_MAX];
};

static void guest_end(struct favo_hub *hub, unsigned int i)
{
	favo_close(&hub->guests[i].fd);
	hub->guests[i] = hub->guests[--hub->n];
}

/* 1: the greeting is whole; 0: more has to come; < 0: it is none. */
static int guest_read(struct guest *g, struct favo_wire_hello *hello)
{
	struct favo_wire_head head;
	size_t want = FAVO_WIRE_HEAD;
	ssize_t n;

	for (;;) {
		if (g->len >= FAVO_WIRE_HEAD) {
			if (favo_wire_parse_head(&head, g->buf, 0, 0, NULL) < 0 ||
			    head.type != FAVO_WIRE_HELLO)
				return -EBADMSG;
			want = FAVO_WIRE_HEAD + (size_t)head.len;
			if (g->len == want)
				break;
		}
		/* Never more than the greeting: the rest is the session's. */
		n = recv(g->fd, g->buf + g->len, want - g->len, 0);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			return 0;
		if (n <= 0)
			return -ECONNRESET;
		g->len += (size_t)n;
	}
	return favo_wire_parse_hello(hello, g->buf + FAVO_WIRE_HEAD, head.len, NULL) < 0
		       ? -EBADMSG
		       : 1;
}

static void guest_ready(struct favo_hub *hub, unsigned int i)
{
	struct favo_wire_hello hello;
	int ret = guest_read(&hub->guests[i], &hello);

	if (ret == 0)
		return;
	if (ret > 0)
		hub->fn(hub->user, favo_steal_fd(&hub->guests[i].fd), &hello);
	guest_end(hub, i);
}

static void take_guests(struct favo_hub *hub)
{
	int fd;

	while (hub->n < WAITING_MAX && (fd = accept4(hub->listen_fd, NULL, NULL,
						     SOCK_CLOEXEC | SOCK_NONBLOCK)) >= 0)
		hub->guests[hub->n++] =
			(struct guest){.fd = fd, .since_ms = favo_now_ms()};
}

static void *run(void *arg)
{
	struct favo_hub *hub = arg;

	for (;;) {
		struct pollfd fds[WAITING_MAX + 2] = {
			{.fd = hub->stop_fd, .events = POLLIN},
			{.fd = hub->n < WAITING_MAX ? hub->listen_fd : -1,
			 .events = POLLIN},
		};
		unsigned int n = hub->n;

		for (unsigned int i = 0; i < n; i++)
			fds[i + 2] = (struct pollfd){.fd = hub->guests[i].fd,
						     .events = POLLIN};
		if (poll(fds, n + 2, n ? 1000 : -1) < 0 && errno != EINTR)
			return NULL;
		if (fds[0].revents)
			return NULL;
		/* From the end: an end moves the last one here. */
		for (unsigned int i = n; i-- > 0;) {
			if (fds[i + 2].revents)
				guest_ready(hub, i);
			else if (favo_now_ms() - hub->guests[i].since_ms > GREET_MS)
				guest_end(hub, i);
		}
		if (fds[1].revents)
			take_guests(hub);
	}
}

static int open_listener(struct favo_hub *hub, uint16_t port, struct favo_err *err)
{
	struct sockaddr_in6 any = {.sin6_family = AF_INET6, .sin6_port = htons(port)};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(port)};
	struct sockaddr_storage bound;
	socklen_t len = sizeof(bound);
	int off = 0, one = 1, ret;

	hub->listen_fd = socket(AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (hub->listen_fd >= 0) {
		(void)setsockopt(hub->listen_fd, IPPROTO_IPV6, IPV6_V6ONLY, &off,
				 sizeof(off));
		(void)setsockopt(hub->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one,
				 sizeof(one));
		ret = bind(hub->listen_fd, (struct sockaddr *)&any, sizeof(any));
	} else {
		/* A kernel without IPv6. */
		hub->listen_fd =
			socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		(void)setsockopt(hub->listen_fd, SOL_SOCKET, SO_REUSEADDR, &one,
				 sizeof(one));
		ret = bind(hub->listen_fd, (struct sockaddr *)&four, sizeof(four));
	}
	if (ret < 0 || listen(hub->listen_fd, BACKLOG) < 0 ||
	    getsockname(hub->listen_fd, (struct sockaddr *)&bound, &len) < 0)
		return favo_fail(err, errno, "listen for nodes on port %u: %m", port);
	hub->port = bound.ss_family == AF_INET6
			    ? ntohs(((struct sockaddr_in6 *)&bound)->sin6_port)
			    : ntohs(((struct sockaddr_in *)&bound)->sin_port);
	return 0;
}

int favo_hub_start(struct favo_hub **out, uint16_t port, favo_hub_fn *fn, void *user,
		   struct favo_err *err)
{
	struct favo_hub *hub = calloc(1, sizeof(*hub));
	int ret;

	if (!hub)
		return favo_fail(err, ENOMEM, "listen for nodes: out of memory");
	hub->listen_fd = -1;
	hub->fn = fn;
	hub->user = user;
	hub->stop_fd = eventfd(0, EFD_CLOEXEC);
	ret = hub->stop_fd < 0 ? favo_fail(err, errno, "eventfd: %m")
			       : open_listener(hub, port, err);
	if (ret == 0) {
		ret = pthread_create(&hub->thread, NULL, run, hub);
		ret = ret ? favo_fail(err, ret, "listen for nodes: no thread") : 0;
	}
	if (ret < 0) {
		favo_close(&hub->listen_fd);
		favo_close(&hub->stop_fd);
		free(hub);
		return ret;
	}
	*out = hub;
	return 0;
}

uint16_t favo_hub_port(const struct favo_hub *hub)
{
	return hub->port;
}

void favo_hub_stop(struct favo_hub *hub)
{
	uint64_t one = 1;

	if (!hub)
		return;
	(void)!write(hub->stop_fd, &one, sizeof(one));
	pthread_join(hub->thread, NULL);
	while (hub->n)
		guest_end(hub, 0);
	favo_close(&hub->listen_fd);
	favo_close(&hub->stop_fd);
	free(hub);
}
