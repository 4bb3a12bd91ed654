/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Event loop: epoll in one thread, with callbacks per descriptor and timers.
 *
 * A VM has one loop, run by its main thread; a device may get loops of its own
 * for more queues. favo_watch_* and favo_loop_post/stop may be called from any
 * thread; callbacks run in the loop's thread only, without any lock held.
 *
 * Late calls: when another thread than the loop's deletes a watch, one callback
 * that was already on its way can still run. So the struct favo_watch must stay
 * allocated until the loop ends or until it was deleted in the loop's thread,
 * and callbacks check their device's state under its lock. A watch deleted in
 * the loop's thread is never called again.
 */
#pragma once

#include <stdint.h>
#include <sys/epoll.h>

#include "common/err.h"

struct favo_loop;
struct favo_watch;

/* events: the EPOLL* bits that came. */
typedef void favo_watch_fn(struct favo_watch *watch, uint32_t events);

/* Embedded in its owner (favo_container_of); zero it before first use. */
struct favo_watch {
	struct favo_loop *loop; /* NULL while not added */
	favo_watch_fn *fn;
	int fd;
};

int favo_loop_new(struct favo_loop **out, struct favo_err *err);
void favo_loop_free(struct favo_loop *loop);

/* Run until favo_loop_stop(); 0 or -errno of epoll. */
int favo_loop_run(struct favo_loop *loop, struct favo_err *err);
/* Async-signal-safe. */
void favo_loop_stop(struct favo_loop *loop);

/*
 * Watch fd (borrowed) for events (EPOLLIN, EPOLLOUT; EPOLLET allowed). An
 * eventfd is not read by the loop: the callback does it.
 */
int favo_watch_add(struct favo_loop *loop, struct favo_watch *watch, int fd,
		   uint32_t events, favo_watch_fn *fn, struct favo_err *err);
int favo_watch_set(struct favo_watch *watch, uint32_t events);
/* No-op on a watch that was not added. Before the fd is closed. */
void favo_watch_del(struct favo_watch *watch);

/* Run fn(arg) once in the loop's thread, soon. -ENOMEM. */
int favo_loop_post(struct favo_loop *loop, void (*fn)(void *arg), void *arg);

/* One-shot timer, a timerfd under a watch. Embedded; zero it before first use. */
struct favo_timer {
	struct favo_watch watch;
	void (*fn)(struct favo_timer *timer);
};

int favo_timer_init(struct favo_loop *loop, struct favo_timer *timer,
		    void (*fn)(struct favo_timer *timer), struct favo_err *err);
/* Fire after delay_ms (0: as soon as possible); < 0 disarms. */
void favo_timer_set(struct favo_timer *timer, int64_t delay_ms);
void favo_timer_fini(struct favo_timer *timer);
