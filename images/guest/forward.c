// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Forwarding of run requests between connections; see forward.h. Both sides
 * have the same window, so what one may send the other may pass on: nothing
 * is kept here, and a slow reader at one end stops the writer at the other.
 */
#include "images/guest/forward.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "common/util.h"

struct forward {
	struct favo_channel *asker; /* opened by the peer of that connection */
	struct favo_channel *asked; /* opened by us */
};

static struct favo_channel *other(struct favo_channel *ch)
{
	struct forward *f = favo_channel_user(ch);

	return ch == f->asker ? f->asked : f->asker;
}

static void on_data(struct favo_channel *ch, unsigned stream, const uint8_t *p, size_t n)
{
	favo_channel_send(other(ch), stream, p, n);
}

static void on_eof(struct favo_channel *ch, unsigned stream)
{
	favo_channel_eof(other(ch), stream);
}

static void on_stop(struct favo_channel *ch, unsigned stream)
{
	favo_channel_stop(other(ch), stream);
}

static void on_credit(struct favo_channel *ch, unsigned stream, uint32_t n)
{
	favo_channel_consumed(other(ch), stream, n);
}

static void on_started(struct favo_channel *ch, uint32_t pid, const char *note)
{
	favo_channel_started(other(ch), pid, note);
}

static void on_exited(struct favo_channel *ch, const struct favo_exit *ex)
{
	struct forward *f = favo_channel_user(ch);

	favo_channel_exit(f->asker, ex);
	free(f);
}

static void on_signal(struct favo_channel *ch, int signo, enum favo_signal_target target)
{
	favo_channel_signal(other(ch), signo, target);
}

static void on_winsize(struct favo_channel *ch, const struct winsize *ws)
{
	favo_channel_winsize(other(ch), ws);
}

static void on_closed(struct favo_channel *ch, const char *reason)
{
	struct forward *f = favo_channel_user(ch);

	favo_channel_close(other(ch), reason);
	free(f);
}

static const struct favo_channel_ops forward_ops = {
	.data = on_data,
	.eof = on_eof,
	.stop = on_stop,
	.credit = on_credit,
	.started = on_started,
	.exited = on_exited,
	.signal = on_signal,
	.winsize = on_winsize,
	.closed = on_closed,
};

void favo_forward_run(struct favo_channel *ch, struct favo_conn *target,
		      struct favo_run *run)
{
	favo_autorun __attribute__((unused)) struct favo_run *owned = run;
	struct forward *f = calloc(1, sizeof(*f));
	struct favo_exit ex = {.kind = FAVO_EXIT_FAILED, .number = ENOMEM};
	struct favo_err err = {0};

	if (f && favo_channel_run(&f->asked, target, run, &forward_ops, f, &err) == 0) {
		f->asker = ch;
		favo_channel_set(ch, &forward_ops, f);
		return;
	}
	free(f);
	if (err.code)
		ex.number = (uint32_t)err.code;
	snprintf(ex.reason, sizeof(ex.reason), "%.500s",
		 err.code ? err.msg : "out of memory");
	favo_channel_exit(ch, &ex);
}
