/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event loop over poll(2): descriptors, timers, and work put off to the end
 * of a round. poll, not epoll, because standard input and output may be
 * regular files, which epoll refuses. One thread.
 *
 * Watches, timers and deferred works are embedded in the objects they belong
 * to. Any of them may be removed in any callback, also its own.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct favo_loop;
struct favo_watch;
struct favo_timer;
struct favo_deferred;

typedef void favo_watch_fn(struct favo_watch *watch, short revents);
typedef void favo_timer_fn(struct favo_timer *timer);
typedef void favo_deferred_fn(struct favo_deferred *work);

struct favo_watch {
	int fd;
	short events; /* 0: not watched at all, not even for POLLHUP */
	favo_watch_fn *fn;
	void *user;
	struct favo_loop *loop; /* NULL when not added */
	size_t slot;
};

struct favo_timer {
	int64_t due_ms;
	favo_timer_fn *fn;
	void *user;
	struct favo_timer *next;
	struct favo_loop *loop; /* NULL when not set */
};

struct favo_deferred {
	favo_deferred_fn *fn;
	void *user;
	struct favo_deferred *next;
	struct favo_loop *loop; /* NULL when not put off */
};

int favo_loop_new(struct favo_loop **out, struct favo_err *err) favo_must_check;
void favo_loop_free(struct favo_loop *loop);

/* Until favo_loop_stop(); returns its code, or -errno when poll fails. */
int favo_loop_run(struct favo_loop *loop, struct favo_err *err);
/* One round that waits at most timeout_ms (< 0: for ever); 0 or -errno. */
int favo_loop_once(struct favo_loop *loop, int timeout_ms, struct favo_err *err);
void favo_loop_stop(struct favo_loop *loop, int code);

/* Set fd, events, fn and user first. The fd stays the caller's. */
int favo_watch_add(struct favo_loop *loop, struct favo_watch *watch,
		   struct favo_err *err) favo_must_check;
void favo_watch_del(struct favo_watch *watch);

/* Set fn and user first; setting a timer again moves it. */
void favo_timer_set(struct favo_loop *loop, struct favo_timer *timer, int delay_ms);
void favo_timer_cancel(struct favo_timer *timer);

/* Call work->fn once after the callbacks of this round; twice is once. */
void favo_defer(struct favo_loop *loop, struct favo_deferred *work);
void favo_defer_cancel(struct favo_deferred *work);
