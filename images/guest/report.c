// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Phase reports to the host, for the node agent: one JSON line each
 * on one vsock connection. docs/format-agent.md, "Phase reports". A host that
 * does not listen never holds up the start; lines are kept and sent when it
 * does, all of them again after a reconnect.
 */
#include <errno.h>
#include <jansson.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/agent.h"
#include "images/guest/init.h"

#define LINES_MAX 16
#define CONNECT_MS 500
#define RETRY_MIN_MS 100
#define RETRY_MAX_MS 5000

struct favo_report {
	char *lines[LINES_MAX];
	size_t n, sent;
	const struct favo_guest_config *config;
	int fd, retry_ms;
	struct favo_loop *loop;
	struct favo_watch watch;
	struct favo_timer retry;
};

int favo_report_connect(void)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_HOST,
				   .svm_port = FAVO_REPORT_PORT};
	favo_autoclose int fd =
		socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	socklen_t len = sizeof(int);
	int code = 0;

	if (fd < 0)
		return -errno;
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 &&
	    errno != EINPROGRESS)
		return -errno;
	if (poll(&p, 1, CONNECT_MS) <= 0)
		return -ETIMEDOUT;
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 || code)
		return -(code ? code : errno);
	return favo_steal_fd(&fd);
}

static void disconnect(struct favo_report *r)
{
	favo_watch_del(&r->watch);
	favo_close(&r->fd);
	r->sent = 0;
}

static void watch_connection(struct favo_report *r)
{
	struct favo_err err = {0};

	r->watch.fd = r->fd;
	if (favo_watch_add(r->loop, &r->watch, &err) < 0)
		favo_log(FAVO_WARN, "reports: %s", err.msg);
}

static void send_lines(struct favo_report *r)
{
	struct favo_err err = {0};

	if (r->fd < 0) {
		r->fd = favo_report_connect();
		if (r->fd >= 0 && r->loop)
			watch_connection(r);
	}
	while (r->fd >= 0 && r->sent < r->n) {
		const char *line = r->lines[r->sent];

		if (favo_write_all(r->fd, line, strlen(line), CONNECT_MS, &err) < 0)
			disconnect(r);
		else
			r->sent++;
	}
	if (r->fd >= 0) {
		r->retry_ms = RETRY_MIN_MS;
	} else if (r->loop) {
		favo_timer_set(r->loop, &r->retry, r->retry_ms);
		r->retry_ms = FAVO_MIN(2 * r->retry_ms, RETRY_MAX_MS);
	}
}

static void on_host(struct favo_watch *watch, short revents)
{
	struct favo_report *r = watch->user;
	char byte;

	(void)revents;
	/* The host says nothing here: readable means closed. */
	if (recv(watch->fd, &byte, 1, MSG_DONTWAIT) < 0 &&
	    (errno == EAGAIN || errno == EINTR))
		return;
	disconnect(r);
	favo_timer_set(r->loop, &r->retry, r->retry_ms);
}

static void on_retry(struct favo_timer *timer)
{
	send_lines(timer->user);
}

char *favo_report_line(const struct favo_guest_config *config, const char *phase,
		       const char *detail)
{
	char secret[2 * FAVO_AGENT_SECRET_SIZE + 1];
	favo_autojson json_t *obj = NULL;
	favo_autofree char *text = NULL;
	struct timespec up;

	favo_hex_encode(secret, config->secret, sizeof(config->secret));
	clock_gettime(CLOCK_BOOTTIME, &up);
	obj = json_pack("{s:I, s:I, s:s, s:s, s:s, s:I}", "job", (json_int_t)config->job,
			"index", (json_int_t)config->index, "secret", secret, "phase",
			phase, "detail", detail, "uptime_ms",
			(json_int_t)(up.tv_sec * 1000LL + up.tv_nsec / 1000000));
	text = obj ? json_dumps(obj, JSON_COMPACT) : NULL;
	return text ? favo_asprintf("%s\n", text) : NULL;
}

void favo_report_phase(struct favo_report *r, const char *phase, const char *detail)
{
	favo_log(FAVO_INFO, "%s%s%s", phase, *detail ? ": " : "", detail);
	if (r->n == LINES_MAX)
		return;
	r->lines[r->n] = favo_report_line(r->config, phase, detail);
	if (r->lines[r->n])
		r->n++;
	send_lines(r);
}

int favo_report_new(struct favo_report **out, const struct favo_guest_config *config,
		    struct favo_err *err)
{
	struct favo_report *r = calloc(1, sizeof(*r));

	if (!r)
		return favo_fail(err, ENOMEM, "allocate reports");
	r->fd = -1;
	r->retry_ms = RETRY_MIN_MS;
	r->config = config;
	r->watch = (struct favo_watch){.events = POLLIN, .fn = on_host, .user = r};
	r->retry = (struct favo_timer){.fn = on_retry, .user = r};
	*out = r;
	return 0;
}

void favo_report_free(struct favo_report *r)
{
	favo_close(&r->fd);
	while (r->n)
		free(r->lines[--r->n]);
	free(r);
}

int favo_report_attach(struct favo_report *r, struct favo_loop *loop,
		       struct favo_err *err)
{
	(void)err;
	r->loop = loop;
	if (r->fd >= 0)
		watch_connection(r);
	else
		favo_timer_set(loop, &r->retry, r->retry_ms);
	return 0;
}
