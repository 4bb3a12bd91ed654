// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Event loop on epoll. One event is taken per epoll_wait(): a callback may
 * delete and free any other watch, and no batch can then hold a stale pointer.
 * The extra system calls do not matter, as data moves in callbacks that take
 * all there is.
 */
#include "hypervisor/loop.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "common/util.h"

struct post {
	struct post *next;
	void (*fn)(void *arg);
	void *arg;
};

struct favo_loop {
	int epoll_fd;
	int wake_fd; /* in epoll with a NULL pointer */
	atomic_bool stop;
	pthread_mutex_t lock;
	struct post *posts, **posts_end;
};

int favo_loop_new(struct favo_loop **out, struct favo_err *err)
{
	struct epoll_event ev = {.events = EPOLLIN};
	struct favo_loop *loop = calloc(1, sizeof(*loop));

	if (!loop)
		return favo_fail(err, ENOMEM, "event loop: out of memory");
	loop->posts_end = &loop->posts;
	pthread_mutex_init(&loop->lock, NULL);
	loop->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	loop->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (loop->epoll_fd < 0 || loop->wake_fd < 0 ||
	    epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, loop->wake_fd, &ev) < 0) {
		int ret = favo_fail(err, errno, "event loop: %m");

		favo_loop_free(loop);
		return ret;
	}
	*out = loop;
	return 0;
}

void favo_loop_free(struct favo_loop *loop)
{
	struct post *p, *next;

	if (!loop)
		return;
	for (p = loop->posts; p; p = next) {
		next = p->next;
		free(p);
	}
	favo_close(&loop->epoll_fd);
	favo_close(&loop->wake_fd);
	pthread_mutex_destroy(&loop->lock);
	free(loop);
}

static void wake(struct favo_loop *loop)
{
	uint64_t one = 1;
	ssize_t n = write(loop->wake_fd, &one, sizeof(one));

	(void)n; /* only fails when it is awake already */
}

static void run_posts(struct favo_loop *loop)
{
	struct post *p, *next;
	uint64_t count;
	ssize_t n = read(loop->wake_fd, &count, sizeof(count));

	(void)n;
	pthread_mutex_lock(&loop->lock);
	p = loop->posts;
	loop->posts = NULL;
	loop->posts_end = &loop->posts;
	pthread_mutex_unlock(&loop->lock);
	for (; p; p = next) {
		next = p->next;
		p->fn(p->arg);
		free(p);
	}
}

int favo_loop_run(struct favo_loop *loop, struct favo_err *err)
{
	while (!atomic_load(&loop->stop)) {
		struct epoll_event ev;
		int n = epoll_wait(loop->epoll_fd, &ev, 1, -1);

		if (n < 0 && errno != EINTR)
			return favo_fail(err, errno, "event loop: epoll_wait: %m");
		if (n <= 0)
			continue;
		if (ev.data.ptr) {
			struct favo_watch *w = ev.data.ptr;

			w->fn(w, ev.events);
		} else {
			run_posts(loop);
		}
	}
	return 0;
}

void favo_loop_stop(struct favo_loop *loop)
{
	atomic_store(&loop->stop, true);
	wake(loop);
}

int favo_watch_add(struct favo_loop *loop, struct favo_watch *watch, int fd,
		   uint32_t events, favo_watch_fn *fn, struct favo_err *err)
{
	struct epoll_event ev = {.events = events, .data.ptr = watch};

	watch->loop = loop;
	watch->fn = fn;
	watch->fd = fd;
	if (epoll_ctl(loop->epoll_fd, EPOLL_CTL_ADD, fd, &ev) < 0) {
		watch->loop = NULL;
		return favo_fail(err, errno, "event loop: add descriptor %d: %m", fd);
	}
	return 0;
}

int favo_watch_set(struct favo_watch *watch, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.ptr = watch};

	if (!watch->loop)
		return -EINVAL;
	return epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_MOD, watch->fd, &ev) < 0
		       ? -errno
		       : 0;
}

void favo_watch_del(struct favo_watch *watch)
{
	if (!watch->loop)
		return;
	epoll_ctl(watch->loop->epoll_fd, EPOLL_CTL_DEL, watch->fd, NULL);
	watch->loop = NULL;
}

int favo_loop_post(struct favo_loop *loop, void (*fn)(void *arg), void *arg)
{
	struct post *p = malloc(sizeof(*p));

	if (!p)
		return -ENOMEM;
	*p = (struct post){.fn = fn, .arg = arg};
	pthread_mutex_lock(&loop->lock);
	*loop->posts_end = p;
	loop->posts_end = &p->next;
	pthread_mutex_unlock(&loop->lock);
	wake(loop);
	return 0;
}

static void timer_fired(struct favo_watch *watch, uint32_t events)
{
	struct favo_timer *timer = favo_container_of(watch, struct favo_timer, watch);
	uint64_t count;

	(void)events;
	/* Nothing to read: it was set anew in the meantime. */
	if (read(watch->fd, &count, sizeof(count)) == (ssize_t)sizeof(count))
		timer->fn(timer);
}

int favo_timer_init(struct favo_loop *loop, struct favo_timer *timer,
		    void (*fn)(struct favo_timer *timer), struct favo_err *err)
{
	favo_autoclose int fd =
		timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "event loop: timerfd_create: %m");
	timer->fn = fn;
	ret = favo_watch_add(loop, &timer->watch, fd, EPOLLIN, timer_fired, err);
	if (ret == 0)
		favo_steal_fd(&fd);
	return ret;
}

void favo_timer_set(struct favo_timer *timer, int64_t delay_ms)
{
	struct itimerspec its = {0};

	if (!timer->watch.loop)
		return;
	if (delay_ms >= 0) {
		its.it_value.tv_sec = delay_ms / 1000;
		/* All zero would disarm. */
		its.it_value.tv_nsec = delay_ms % 1000 * 1000000 + 1;
	}
	timerfd_settime(timer->watch.fd, 0, &its, NULL);
}

void favo_timer_fini(struct favo_timer *timer)
{
	if (!timer->watch.loop)
		return;
	favo_watch_del(&timer->watch);
	favo_close(&timer->watch.fd);
}
