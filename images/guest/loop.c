// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Event loop; see loop.h. Each round polls every watch with events, then runs
 * due timers, then deferred works. Removal clears the slot, so that a round
 * in progress never touches a removed watch.
 */
#include "images/guest/loop.h"

#include <errno.h>
#include <poll.h>
#include <string.h>

#include "common/util.h"

struct favo_loop {
	struct favo_watch **watches;
	struct pollfd *polls;
	size_t n, cap;
	struct favo_timer *timers; /* sorted by due_ms */
	struct favo_deferred *deferred;
	bool stopped;
	int code;
};

int favo_loop_new(struct favo_loop **out, struct favo_err *err)
{
	struct favo_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return favo_fail(err, ENOMEM, "allocate event loop");
	*out = loop;
	return 0;
}

void favo_loop_free(struct favo_loop *loop)
{
	if (!loop)
		return;
	free(loop->watches);
	free(loop->polls);
	free(loop);
}

void favo_loop_stop(struct favo_loop *loop, int code)
{
	loop->stopped = true;
	loop->code = code;
}

static int grow(struct favo_loop *loop)
{
	size_t cap = loop->cap ? 2 * loop->cap : 16;
	struct favo_watch **watches;
	struct pollfd *polls;

	watches = reallocarray(loop->watches, cap, sizeof(*watches));
	if (!watches)
		return -ENOMEM;
	loop->watches = watches;
	polls = reallocarray(loop->polls, cap, sizeof(*polls));
	if (!polls)
		return -ENOMEM;
	loop->polls = polls;
	loop->cap = cap;
	return 0;
}

int favo_watch_add(struct favo_loop *loop, struct favo_watch *watch, struct favo_err *err)
{
	size_t slot = 0;

	while (slot < loop->n && loop->watches[slot])
		slot++;
	if (slot == loop->n) {
		if (loop->n == loop->cap && grow(loop) < 0)
			return favo_fail(err, ENOMEM, "allocate watch");
		loop->n++;
	}
	loop->watches[slot] = watch;
	/* A slot that is filled in mid-round must not see the old result. */
	loop->polls[slot].revents = 0;
	watch->slot = slot;
	watch->loop = loop;
	return 0;
}

void favo_watch_del(struct favo_watch *watch)
{
	if (!watch->loop)
		return;
	watch->loop->watches[watch->slot] = NULL;
	watch->loop = NULL;
}

void favo_timer_cancel(struct favo_timer *timer)
{
	if (!timer->loop)
		return;
	for (struct favo_timer **p = &timer->loop->timers; *p; p = &(*p)->next) {
		if (*p == timer) {
			*p = timer->next;
			break;
		}
	}
	timer->loop = NULL;
}

void favo_timer_set(struct favo_loop *loop, struct favo_timer *timer, int delay_ms)
{
	struct favo_timer **p = &loop->timers;

	favo_timer_cancel(timer);
	timer->due_ms = favo_now_ms() + delay_ms;
	timer->loop = loop;
	while (*p && (*p)->due_ms <= timer->due_ms)
		p = &(*p)->next;
	timer->next = *p;
	*p = timer;
}

void favo_defer(struct favo_loop *loop, struct favo_deferred *work)
{
	if (work->loop)
		return;
	work->loop = loop;
	work->next = loop->deferred;
	loop->deferred = work;
}

void favo_defer_cancel(struct favo_deferred *work)
{
	if (!work->loop)
		return;
	for (struct favo_deferred **p = &work->loop->deferred; *p; p = &(*p)->next) {
		if (*p == work) {
			*p = work->next;
			break;
		}
	}
	work->loop = NULL;
}

static void run_timers(struct favo_loop *loop)
{
	int64_t now = favo_now_ms();

	while (loop->timers && loop->timers->due_ms <= now) {
		struct favo_timer *timer = loop->timers;

		favo_timer_cancel(timer);
		timer->fn(timer);
	}
}

static void run_deferred(struct favo_loop *loop)
{
	while (loop->deferred) {
		struct favo_deferred *work = loop->deferred;

		loop->deferred = work->next;
		work->loop = NULL;
		work->fn(work);
	}
}

int favo_loop_once(struct favo_loop *loop, int timeout_ms, struct favo_err *err)
{
	size_t n;
	int ret;

	run_deferred(loop);
	if (loop->timers) {
		int64_t left = FAVO_MAX(loop->timers->due_ms - favo_now_ms(), 0);

		if (timeout_ms < 0 || left < timeout_ms)
			timeout_ms = (int)left;
	}
	for (size_t i = 0; i < loop->n; i++) {
		struct favo_watch *w = loop->watches[i];

		loop->polls[i] = (struct pollfd){
			.fd = w && w->events ? w->fd : -1,
			.events = w ? w->events : (short)0,
		};
	}
	ret = poll(loop->polls, loop->n, timeout_ms);
	if (ret < 0 && errno != EINTR)
		return favo_fail(err, errno, "poll: %m");
	n = ret > 0 ? loop->n : 0;
	for (size_t i = 0; i < n; i++) {
		short revents = loop->polls[i].revents;
		struct favo_watch *w = loop->watches[i];

		if (revents && w)
			w->fn(w, revents);
	}
	run_timers(loop);
	run_deferred(loop);
	return 0;
}

int favo_loop_run(struct favo_loop *loop, struct favo_err *err)
{
	loop->stopped = false;
	while (!loop->stopped) {
		int ret = favo_loop_once(loop, -1, err);

		if (ret < 0)
			return ret;
	}
	return loop->code;
}
