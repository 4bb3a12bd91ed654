// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pumps between descriptors and channel streams; see pump.h. STOP travels
 * against the bytes: a sink whose reader is gone stops the source, which
 * closes its end, so that the writer gets EPIPE as it would without us.
 */
#include "images/guest/pump.h"

#include <errno.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"

#define READ_SIZE (32 * 1024)
/* A pty that others still hold open is drained when it is quiet this long. */
#define TTY_SILENCE_MS 50

static void source_finish(struct favo_source *src)
{
	favo_watch_del(&src->watch);
	favo_timer_cancel(&src->silence);
	favo_close(&src->watch.fd);
	src->active = false;
	if (src->ch)
		favo_channel_eof(src->ch, src->stream);
	favo_defer(src->finish.user, &src->finish);
}

static void source_done(struct favo_deferred *work)
{
	struct favo_source *src = favo_container_of(work, struct favo_source, finish);

	if (src->done)
		src->done(src);
}

static size_t source_room(const struct favo_source *src)
{
	size_t room = READ_SIZE;

	if (src->ch)
		room = FAVO_MIN(room, favo_channel_room(src->ch, src->stream));
	if (src->draining && !src->is_tty)
		room = FAVO_MIN(room, src->left);
	return room;
}

void favo_source_ready(struct favo_source *src)
{
	if (src->active)
		src->watch.events = source_room(src) ? POLLIN : 0;
}

static void source_read(struct favo_watch *watch, short revents)
{
	struct favo_source *src = watch->user;
	uint8_t buf[READ_SIZE];
	size_t room = source_room(src);
	ssize_t n;

	(void)revents;
	if (!room) {
		watch->events = 0;
		return;
	}
	n = read(watch->fd, buf, room);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	/* A pty master gives EIO when the last slave is closed. */
	if (n <= 0) {
		source_finish(src);
		return;
	}
	if (src->ch)
		favo_channel_send(src->ch, src->stream, buf, (size_t)n);
	if (src->draining && src->is_tty)
		favo_timer_set(src->finish.user, &src->silence, TTY_SILENCE_MS);
	if (src->draining && !src->is_tty) {
		src->left -= (size_t)n;
		if (!src->left) {
			source_finish(src);
			return;
		}
	}
	favo_source_ready(src);
}

static void source_silent(struct favo_timer *timer)
{
	struct favo_source *src = favo_container_of(timer, struct favo_source, silence);

	/* Not silent but out of credit: ask again. */
	if (!source_room(src))
		favo_timer_set(src->finish.user, timer, TTY_SILENCE_MS);
	else
		source_finish(src);
}

int favo_source_start(struct favo_source *src, struct favo_loop *loop, int fd,
		      struct favo_channel *ch, unsigned stream, struct favo_err *err)
{
	int ret;

	src->ch = ch;
	src->stream = stream;
	src->is_tty = isatty(fd);
	src->finish = (struct favo_deferred){.fn = source_done, .user = loop};
	src->silence = (struct favo_timer){.fn = source_silent};
	src->watch = (struct favo_watch){
		.fd = fd, .events = POLLIN, .fn = source_read, .user = src};
	ret = favo_watch_add(loop, &src->watch, err);
	if (ret < 0) {
		favo_close(&src->watch.fd);
		return ret;
	}
	src->active = true;
	return 0;
}

void favo_source_drain(struct favo_source *src)
{
	int n = 0;

	if (!src->active || src->draining)
		return;
	src->draining = true;
	if (src->is_tty) {
		favo_timer_set(src->finish.user, &src->silence, TTY_SILENCE_MS);
		return;
	}
	if (ioctl(src->watch.fd, FIONREAD, &n) < 0)
		n = 0;
	src->left = (size_t)n;
	if (!n)
		source_finish(src);
}

void favo_source_end(struct favo_source *src)
{
	if (src->active)
		source_finish(src);
}

void favo_source_fini(struct favo_source *src)
{
	favo_watch_del(&src->watch);
	favo_timer_cancel(&src->silence);
	favo_defer_cancel(&src->finish);
	if (src->active)
		favo_close(&src->watch.fd);
	src->active = false;
	src->ch = NULL;
}

static void sink_finish(struct favo_sink *sink)
{
	favo_watch_del(&sink->watch);
	/* The other direction of a socket goes on in a duplicate. */
	if (sink->shut)
		shutdown(sink->watch.fd, SHUT_WR);
	favo_close(&sink->watch.fd);
	sink->active = false;
	favo_defer(sink->finish.user, &sink->finish);
}

static void sink_done(struct favo_deferred *work)
{
	struct favo_sink *sink = favo_container_of(work, struct favo_sink, finish);

	if (sink->done)
		sink->done(sink);
}

static void sink_consumed(struct favo_sink *sink, size_t n)
{
	if (sink->ch)
		favo_channel_consumed(sink->ch, sink->stream, n);
}

static void sink_break(struct favo_sink *sink)
{
	sink->broken = true;
	sink_consumed(sink, sink->buf.len);
	favo_buf_fini(&sink->buf);
	if (sink->ch)
		favo_channel_stop(sink->ch, sink->stream);
	sink_finish(sink);
}

static void sink_write(struct favo_sink *sink)
{
	while (sink->buf.len) {
		ssize_t n =
			write(sink->watch.fd, favo_buf_data(&sink->buf), sink->buf.len);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			sink_break(sink);
			return;
		}
		favo_buf_take(&sink->buf, (size_t)n);
		sink_consumed(sink, (size_t)n);
	}
	sink->watch.events = sink->buf.len ? POLLOUT : 0;
	if (!sink->buf.len && sink->eof)
		sink_finish(sink);
}

static void on_sink(struct favo_watch *watch, short revents)
{
	(void)revents;
	sink_write(watch->user);
}

int favo_sink_start(struct favo_sink *sink, struct favo_loop *loop, int fd,
		    struct favo_channel *ch, unsigned stream, struct favo_err *err)
{
	int ret;

	sink->ch = ch;
	sink->stream = stream;
	sink->finish = (struct favo_deferred){.fn = sink_done, .user = loop};
	sink->watch = (struct favo_watch){.fd = fd, .fn = on_sink, .user = sink};
	ret = favo_watch_add(loop, &sink->watch, err);
	if (ret < 0) {
		favo_close(&sink->watch.fd);
		return ret;
	}
	sink->active = true;
	return 0;
}

void favo_sink_data(struct favo_sink *sink, const uint8_t *p, size_t n)
{
	if (!sink->active || sink->broken || sink->eof) {
		sink_consumed(sink, n);
		return;
	}
	if (favo_buf_append(&sink->buf, p, n) < 0) {
		sink_break(sink);
		return;
	}
	sink_write(sink);
}

void favo_sink_eof(struct favo_sink *sink)
{
	if (!sink->active || sink->eof)
		return;
	sink->eof = true;
	if (!sink->buf.len)
		sink_finish(sink);
}

void favo_sink_fini(struct favo_sink *sink)
{
	favo_watch_del(&sink->watch);
	favo_defer_cancel(&sink->finish);
	if (sink->active)
		favo_close(&sink->watch.fd);
	sink->active = false;
	sink->ch = NULL;
	favo_buf_fini(&sink->buf);
}
