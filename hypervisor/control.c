// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Control socket. Requests are short lines; what is longer, or no JSON object,
 * is answered with an error and the connection stays.
 */
#include "hypervisor/control.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "hypervisor/pci.h"
#include "hypervisor/platform.h"
#include "hypervisor/snapshot.h"
#include "hypervisor/vcpu.h"

#define CLIENTS_MAX 8
#define LINE_MAX_BYTES 4096
#define PASSED_MAX 2

struct client {
	struct favo_control *control;
	struct favo_watch watch;
	int fd; /* -1: free */
	int passed[PASSED_MAX]; /* descriptors that came with the next line */
	size_t npassed;
	size_t len;
	char line[LINE_MAX_BYTES];
};

struct favo_control {
	struct favo_vm *vm;
	const char *name;
	int fd;
	struct favo_watch watch;
	struct client *clients[CLIENTS_MAX];
};

const char *favo_end_name(enum favo_end end)
{
	static const char *const names[] = {
		[FAVO_END_NONE] = "running",	[FAVO_END_SHUTDOWN] = "shutdown",
		[FAVO_END_STOPPED] = "stopped", [FAVO_END_RESET] = "reset",
		[FAVO_END_PANIC] = "panic",	[FAVO_END_ERROR] = "error",
	};

	return (unsigned)end < FAVO_ARRAY_SIZE(names) ? names[end] : "error";
}

static json_t *bus_stats(struct favo_iobus *bus)
{
	struct favo_iobus_stats st;

	favo_iobus_get_stats(bus, &st);
	return json_pack("{s:I, s:I, s:I, s:I}", "unknown_reads",
			 (json_int_t)st.unknown_reads, "unknown_writes",
			 (json_int_t)st.unknown_writes, "forbidden",
			 (json_int_t)st.forbidden, "last_unknown",
			 (json_int_t)st.last_unknown);
}

static json_t *status(struct favo_vm *vm, const char *name)
{
	return json_pack("{s:b, s:s, s:s, s:i, s:I, s:i}", "ok", 1, "name",
			 name ? name : "", "state",
			 favo_end_name(favo_vm_ended(vm) ? vm->end : FAVO_END_NONE),
			 "cpus", (int)vm->ncpus, "mem", (json_int_t)vm->mem->size, "pid",
			 (int)getpid());
}

static json_t *stats(struct favo_vm *vm)
{
	return json_pack("{s:b, s:o, s:o, s:o, s:o, s:o}", "ok", 1, "exits",
			 favo_vcpu_exits(vm), "top", favo_vcpu_top(vm), "pio",
			 bus_stats(vm->pio), "mmio", bus_stats(vm->mmio), "devices",
			 favo_pci_bus_stats(vm->pci));
}

static json_t *refuse(const char *sentence)
{
	return json_pack("{s:b, s:s}", "ok", 0, "error", sentence);
}

json_t *favo_control_answer(struct favo_vm *vm, const char *name, const char *line,
			    size_t len)
{
	favo_autojson json_t *req = NULL;
	struct favo_err err = {0};
	const char *op;

	if (favo_json_parse(&req, line, len, &err) < 0 ||
	    favo_json_str(&op, req, "op", &err) < 0)
		return refuse(err.msg);
	if (!strcmp(op, "status"))
		return status(vm, name);
	if (!strcmp(op, "stats"))
		return stats(vm);
	if (!strcmp(op, "stop")) {
		favo_vm_end(vm, FAVO_END_STOPPED, "stopped through the control socket");
		return json_pack("{s:b}", "ok", 1);
	}
	if (!strcmp(op, "powerbutton")) {
		favo_platform_power_button(vm->platform);
		return json_pack("{s:b}", "ok", 1);
	}
	return refuse("op is none of status, stats, stop, powerbutton, snapshot");
}

static void drop_passed(struct client *c)
{
	while (c->npassed)
		favo_close(&c->passed[--c->npassed]);
}

/* The state goes to the first descriptor that came with the request, memory to the
 * second. */
static json_t *snapshot(struct client *c, const json_t *req)
{
	const char *then = json_string_value(json_object_get(req, "then"));
	struct favo_snapshot_target t = {.stop = then && !strcmp(then, "stop")};
	struct favo_vm *vm = c->control->vm;
	struct favo_err err = {0};

	if (then && !t.stop && strcmp(then, "resume"))
		return refuse("then is none of resume, stop");
	if (c->npassed != PASSED_MAX)
		return refuse("snapshot needs two descriptors: state and memory");
	t.state_fd = c->passed[0];
	t.memory_fd = c->passed[1];
	if (favo_snapshot_save(vm, &t, &err) < 0)
		return refuse(err.msg);
	if (t.stop)
		favo_vm_end(vm, FAVO_END_STOPPED, "stopped after a snapshot");
	return json_pack("{s:b, s:I, s:I, s:I}", "ok", 1, "state_bytes",
			 (json_int_t)t.state_bytes, "memory_bytes",
			 (json_int_t)t.memory_bytes, "paused_ms",
			 (json_int_t)t.paused_ms);
}

/* Requests that need the connection; the others are favo_control_answer()'s. */
static json_t *answer(struct client *c, const char *line, size_t len)
{
	favo_autojson json_t *req = NULL;
	const char *op;
	json_t *reply;

	if (favo_json_parse(&req, line, len, NULL) == 0 &&
	    favo_json_str(&op, req, "op", NULL) == 0 && !strcmp(op, "snapshot"))
		reply = snapshot(c, req);
	else
		reply = favo_control_answer(c->control->vm, c->control->name, line, len);
	drop_passed(c);
	return reply;
}

static void drop(struct client *c)
{
	unsigned i;

	for (i = 0; i < CLIENTS_MAX; i++)
		if (c->control->clients[i] == c)
			c->control->clients[i] = NULL;
	favo_watch_del(&c->watch);
	favo_close(&c->fd);
	drop_passed(c);
	free(c);
}

/* False: the client is gone. */
static bool reply(struct client *c, json_t *answer)
{
	favo_autofree char *text = NULL;
	size_t len;
	ssize_t n;

	text = answer ? json_dumps(answer, JSON_COMPACT) : NULL;
	json_decref(answer);
	if (!text)
		return false;
	len = strlen(text);
	text[len++] = '\n'; /* over the NUL */
	n = send(c->fd, text, len, MSG_NOSIGNAL | MSG_DONTWAIT);
	return n == (ssize_t)len;
}

static bool take_lines(struct client *c)
{
	const char *end;

	while ((end = memchr(c->line, '\n', c->len))) {
		size_t len = (size_t)(end - c->line);

		if (!reply(c, answer(c, c->line, len)))
			return false;
		c->len -= len + 1;
		memmove(c->line, end + 1, c->len);
	}
	if (c->len < sizeof(c->line))
		return true;
	c->len = 0;
	return reply(c, refuse("line is too long"));
}

static void on_client(struct favo_watch *w, uint32_t events)
{
	struct client *c = favo_container_of(w, struct client, watch);
	int fds[PASSED_MAX];
	size_t nfds = 0;
	ssize_t n;

	(void)events;
	n = favo_recv_fds(c->fd, c->line + c->len, sizeof(c->line) - c->len, fds,
			  PASSED_MAX, &nfds, NULL);
	if (n == -EAGAIN || n == -EINTR)
		return;
	if (nfds) {
		drop_passed(c);
		memcpy(c->passed, fds, nfds * sizeof(fds[0]));
		c->npassed = nfds;
	}
	if (n <= 0) {
		drop(c);
		return;
	}
	c->len += (size_t)n;
	if (!take_lines(c))
		drop(c);
}

static void on_listen(struct favo_watch *w, uint32_t events)
{
	struct favo_control *control = favo_container_of(w, struct favo_control, watch);
	favo_autoclose int fd =
		accept4(control->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct client *c;
	unsigned i;

	(void)events;
	for (i = 0; i < CLIENTS_MAX && control->clients[i]; i++)
		;
	if (fd < 0 || i == CLIENTS_MAX)
		return;
	c = calloc(1, sizeof(*c));
	if (!c)
		return;
	c->control = control;
	if (favo_watch_add(control->vm->loop, &c->watch, fd, EPOLLIN, on_client, NULL) <
	    0) {
		free(c);
		return;
	}
	c->fd = favo_steal_fd(&fd);
	control->clients[i] = c;
}

int favo_control_new(struct favo_control **out, struct favo_vm *vm, const char *name,
		     int listen_fd, struct favo_err *err)
{
	struct favo_control *c = calloc(1, sizeof(*c));
	int ret;

	if (!c)
		return favo_fail(err, ENOMEM, "control socket: out of memory");
	c->vm = vm;
	c->name = name;
	c->fd = listen_fd;
	ret = favo_set_nonblock(listen_fd, true);
	if (ret < 0)
		favo_fail(err, -ret, "control socket: %m");
	else
		ret = favo_watch_add(vm->loop, &c->watch, c->fd, EPOLLIN, on_listen, err);
	if (ret < 0) {
		free(c);
		return ret;
	}
	*out = c;
	return 0;
}

void favo_control_free(struct favo_control *c)
{
	unsigned i;

	if (!c)
		return;
	for (i = 0; i < CLIENTS_MAX; i++)
		if (c->clients[i])
			drop(c->clients[i]);
	favo_watch_del(&c->watch);
	favo_close(&c->fd);
	free(c);
}
