// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Attach to the guest through the node agent; see task.h. Its replies are
 * lines of JSON; the last one comes with the agent's stream as a descriptor.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "slurm-plugin/task/task.h"

#define REPLY_MAX 65536
/* A start shorter than this needs no words. */
#define PROGRESS_AFTER_MS 2000

struct attach {
	struct favo_loop *loop;
	const struct favo_task *task;
	struct favo_watch watch;
	struct favo_timer timer;
	struct favo_timer limit;
	struct favo_err err;
	struct favo_buf in;
	int stream; /* from the node agent, -1 */
	char *vm;
	bool progress, shown;
	int64_t start_ms;
	char phase[64], detail[128], last[64], note[400];
	bool sandbox;
};

static void finish(struct attach *a, int ret)
{
	favo_watch_del(&a->watch);
	favo_timer_cancel(&a->timer);
	favo_timer_cancel(&a->limit);
	if (a->shown && isatty(STDERR_FILENO))
		fprintf(stderr, "\r\033[K");
	favo_loop_stop(a->loop, ret);
}

static void show_progress(struct attach *a)
{
	int seconds = (int)((favo_now_ms() - a->start_ms) / 1000);
	const char *sep = a->detail[0] ? ": " : "";

	if (isatty(STDERR_FILENO)) {
		fprintf(stderr, "\r\033[Kfavo: %s: %s%s%s (%d s)", a->task->node,
			a->phase, sep, a->detail, seconds);
	} else if (strcmp(a->last, a->phase) != 0) {
		fprintf(stderr, "favo: %s: %s%s%s (%d s)\n", a->task->node, a->phase, sep,
			a->detail, seconds);
		snprintf(a->last, sizeof(a->last), "%s", a->phase);
	}
	a->shown = true;
}

static void on_timer(struct favo_timer *timer)
{
	struct attach *a = timer->user;

	if (!a->phase[0])
		snprintf(a->phase, sizeof(a->phase), "waiting for the virtual cluster");
	show_progress(a);
	favo_timer_set(a->loop, timer, 1000);
}

static void on_limit(struct favo_timer *timer)
{
	struct attach *a = timer->user;

	finish(a,
	       favo_fail(&a->err, ETIMEDOUT, "%s: node agent: no answer", a->task->node));
}

static const char *text_of(const json_t *obj, const char *key)
{
	const char *s = json_string_value(json_object_get(obj, key));

	return s ? s : "";
}

/* What comes from elsewhere goes to the user's terminal as plain text. */
static void copy_text(char *out, size_t size, const char *s)
{
	size_t i;

	for (i = 0; s[i] && i + 1 < size; i++)
		out[i] = (unsigned char)s[i] < ' ' || s[i] == 0x7f ? '?' : s[i];
	out[i] = '\0';
}

static int on_error(struct attach *a, const json_t *e)
{
	static const char *const keys[] = {"node", "vm", "phase", "cause"};
	char text[480] = "", part[400];
	size_t n = 0;

	if (json_is_string(e)) {
		copy_text(text, sizeof(text), json_string_value(e));
		return favo_fail(&a->err, ECANCELED, "%s: %s", a->task->node, text);
	}
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(keys); i++) {
		copy_text(part, sizeof(part), text_of(e, keys[i]));
		if (part[0] && n < sizeof(text))
			n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s",
					      n ? ": " : "", part);
	}
	copy_text(part, 200, text_of(e, "remedy"));
	return favo_fail(&a->err, ECANCELED, "%s%s%s",
			 n ? text : "the node agent gives no reason", part[0] ? "; " : "",
			 part);
}

static int on_line(struct attach *a, const char *line, size_t len)
{
	favo_autojson json_t *obj = NULL;
	const json_t *p;
	int ret = favo_json_parse(&obj, line, len, &a->err);

	if (ret < 0)
		return favo_wrap(&a->err, ret, "%s: node agent", a->task->node);
	p = json_object_get(obj, "progress");
	if (p) {
		copy_text(a->phase, sizeof(a->phase), text_of(p, "phase"));
		copy_text(a->detail, sizeof(a->detail), text_of(p, "detail"));
		if (a->shown)
			show_progress(a);
		return 0;
	}
	if (!json_is_true(json_object_get(obj, "ok")))
		return on_error(a, json_object_get(obj, "error"));
	if (a->stream < 0)
		return favo_fail(&a->err, EPROTO,
				 "%s: node agent: no stream in its answer",
				 a->task->node);
	copy_text(a->vm, 64, text_of(obj, "vm"));
	a->sandbox = json_is_true(json_object_get(obj, "sandbox"));
	copy_text(a->note, sizeof(a->note), text_of(obj, "note"));
	finish(a, 1);
	return 1;
}

static int take_lines(struct attach *a)
{
	int ret = 0;

	while (ret == 0) {
		const uint8_t *line = a->in.len ? favo_buf_data(&a->in) : NULL;
		const uint8_t *end = line ? memchr(line, '\n', a->in.len) : NULL;

		if (!end)
			break;
		ret = on_line(a, (const char *)line, (size_t)(end - line));
		favo_buf_take(&a->in, (size_t)(end + 1 - line));
	}
	return ret;
}

static void on_reply(struct favo_watch *watch, short revents)
{
	struct attach *a = watch->user;
	struct favo_err err = {0};
	char buf[4096];
	size_t n_fds = 0;
	int fd = -1;
	ssize_t n = favo_recv_fds(watch->fd, buf, sizeof(buf), &fd, 1, &n_fds, &err);
	int ret;

	(void)revents;
	if (n_fds) {
		favo_close(&a->stream);
		a->stream = fd;
	}
	if (n <= 0) {
		finish(a,
		       favo_fail(&a->err, ECONNRESET,
				 "%s: node agent: %s while the virtual cluster was "
				 "starting",
				 a->task->node, n < 0 ? err.msg : "connection closed"));
		return;
	}
	if (a->in.len + (size_t)n > REPLY_MAX ||
	    favo_buf_append(&a->in, buf, (size_t)n) < 0) {
		finish(a, favo_fail(&a->err, EPROTO, "%s: node agent: answer too long",
				    a->task->node));
		return;
	}
	ret = take_lines(a);
	if (ret < 0)
		finish(a, ret);
}

static int send_request(struct attach *a, int *out)
{
	const struct favo_task *t = a->task;
	favo_autofree char *text = favo_asprintf(
		"{\"op\":\"attach\",\"job\":%llu,\"step\":\"%s\",\"task\":%llu}\n",
		(unsigned long long)t->job, t->step, (unsigned long long)t->task);
	favo_autoclose int fd = -1;
	struct favo_err why = {0};
	int ret = favo_unix_connect(&fd, t->socket, 10000, &why);

	if (ret == 0)
		ret = text ? favo_write_all(fd, text, strlen(text), 10000, &why)
			   : favo_fail(&why, ENOMEM, "out of memory");
	if (ret < 0)
		return favo_fail(&a->err, -ret,
				 "%s: node agent: %s; is favo-noded running there?",
				 t->node, why.msg);
	*out = favo_steal_fd(&fd);
	return 0;
}

int favo_task_attach(int *out, char vm[64], struct favo_loop *loop,
		     struct favo_task *task, bool progress, int timeout_ms,
		     struct favo_err *err)
{
	struct attach a = {.loop = loop,
			   .task = task,
			   .stream = -1,
			   .vm = vm,
			   .progress = progress,
			   .start_ms = favo_now_ms()};
	favo_autoclose int fd = -1;
	int ret = send_request(&a, &fd);

	a.watch = (struct favo_watch){
		.fd = fd, .events = POLLIN, .fn = on_reply, .user = &a};
	a.timer = (struct favo_timer){.fn = on_timer, .user = &a};
	a.limit = (struct favo_timer){.fn = on_limit, .user = &a};
	if (ret == 0)
		ret = favo_watch_add(loop, &a.watch, &a.err);
	if (ret == 0) {
		if (progress)
			favo_timer_set(loop, &a.timer, PROGRESS_AFTER_MS);
		if (timeout_ms >= 0)
			favo_timer_set(loop, &a.limit, timeout_ms);
		ret = favo_loop_run(loop, &a.err);
		finish(&a, ret);
	}
	favo_buf_fini(&a.in);
	if (ret < 0) {
		favo_close(&a.stream);
		if (err)
			*err = a.err;
		return ret;
	}
	task->sandbox = a.sandbox;
	if (a.note[0])
		fprintf(stderr, "favo: %s: %s: %s\n", task->node, vm, a.note);
	*out = a.stream;
	return 0;
}
