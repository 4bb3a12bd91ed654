// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One connection between nodes: frames in, frames out, never blocking. Small
 * frames go before the next unit. The kernel is given few bytes ahead of what
 * the network takes (tcp(7), TCP_NOTSENT_LOWAT), so that whom to serve next
 * is decided late and small frames wait for little.
 */
#include <errno.h>
#include <netinet/tcp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "images/peer_internal.h"

#define NOTSENT 32768
#define SILENCE_MS 8000 /* unacknowledged bytes for so long: it is gone */
#define OUT_MAX (4u << 20) /* small frames that wait for one neighbour */
#define FRAME_FIRST (128u << 10)
#define READ_MAX (512u << 10) /* of one neighbour before the others */

int64_t favo_now_us(void)
{
	return favo_now_ns() / 1000;
}

void favo_frame_unref(struct favo_frame *frame)
{
	if (!frame || --frame->refs)
		return;
	free(frame->data);
	free(frame);
}

void favo_conn_setup(int fd)
{
	int one = 1, lowat = NOTSENT, silence = SILENCE_MS;

	/* Each is a help only: without it the exchange works, too. */
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &lowat, sizeof(lowat));
	(void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &silence, sizeof(silence));
	(void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof(one));
}

void favo_conn_free(struct favo_conn *c)
{
	if (!c)
		return;
	favo_close(&c->fd);
	favo_frame_unref(c->unit);
	free(c->frame);
	free(c->out);
	free(c->map);
	free(c);
}

/* ---- out ---- */

bool favo_conn_send(struct favo_conn *c, enum favo_wire_type type, const void *payload,
		    size_t len)
{
	size_t need;

	if (c->out_at) {
		memmove(c->out, c->out + c->out_at, c->out_len - c->out_at);
		c->out_len -= c->out_at;
		c->out_at = 0;
	}
	need = c->out_len + FAVO_WIRE_HEAD + len;
	if (need > OUT_MAX)
		return false;
	if (need > c->out_room) {
		size_t room = FAVO_MAX(need, c->out_room * 2 + 512);
		unsigned char *more = realloc(c->out, room);

		if (!more)
			return false;
		c->out = more;
		c->out_room = room;
	}
	favo_wire_format_head(c->out + c->out_len, type, (uint32_t)len);
	memcpy(c->out + c->out_len + FAVO_WIRE_HEAD, payload, len);
	c->out_len = need;
	return true;
}

/* 1: all of it is gone; 0: the kernel takes no more now. */
static int put_bytes(struct favo_conn *c, const unsigned char *data, size_t *at,
		     size_t len, struct favo_err *err)
{
	while (*at < len) {
		ssize_t n = send(c->fd, data + *at, len - *at, MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		if (n < 0)
			return favo_fail(err, errno, "%s: %m", c->name);
		*at += (size_t)n;
		c->progress_us = favo_now_us();
	}
	return 1;
}

int favo_conn_flush(struct favo_conn *c, struct favo_err *err)
{
	int ret = 1;

	if (c->connecting)
		return 0;
	/* A unit that was begun has to be ended first. */
	if (c->unit && c->unit_at) {
		ret = put_bytes(c, c->unit->data, &c->unit_at, c->unit->len, err);
		if (ret > 0) {
			favo_frame_unref(c->unit);
			c->unit = NULL;
		}
	}
	if (ret > 0 && c->out_len > c->out_at)
		ret = put_bytes(c, c->out, &c->out_at, c->out_len, err);
	if (ret > 0 && c->unit) {
		ret = put_bytes(c, c->unit->data, &c->unit_at, c->unit->len, err);
		if (ret > 0) {
			favo_frame_unref(c->unit);
			c->unit = NULL;
		}
	}
	return FAVO_MIN(ret, 0);
}

/* ---- in ---- */

static int receive(struct favo_conn *c, void *buf, size_t len, struct favo_err *err)
{
	for (;;) {
		ssize_t n = recv(c->fd, buf, len, 0);

		if (n > 0)
			return (int)n;
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			return 0;
		return n < 0 ? favo_fail(err, errno, "%s: %m", c->name)
			     : favo_fail(err, ECONNRESET, "%s: it hung up", c->name);
	}
}

/* More room for a long frame, as its bytes come. */
static int frame_grow(struct favo_conn *c, struct favo_err *err)
{
	size_t room =
		FAVO_MIN(c->frame_len, FAVO_MAX(c->frame_room * 2, (size_t)FRAME_FIRST));
	unsigned char *more = realloc(c->frame, room);

	if (!more)
		return favo_fail(err, ENOMEM, "%s: out of memory", c->name);
	c->frame = more;
	c->frame_room = room;
	return 0;
}

/* The rest of a long frame straight into its place; 1: it is whole. */
static int read_long(struct favo_conn *c, size_t *budget, struct favo_err *err)
{
	while (c->frame_at < c->frame_len) {
		int n;

		if (c->frame_at == c->frame_room) {
			n = frame_grow(c, err);
			if (n < 0)
				return n;
		}
		n = receive(c, c->frame + c->frame_at, c->frame_room - c->frame_at, err);
		if (n <= 0)
			return n;
		c->frame_at += (size_t)n;
		c->received += (uint64_t)n;
		*budget -= FAVO_MIN(*budget, (size_t)n);
		if (!*budget && c->frame_at < c->frame_len)
			return 0;
	}
	return 1;
}

/* A long frame begins in small: move what is there. */
static int begin_long(struct favo_conn *c, const struct favo_wire_head *head,
		      struct favo_err *err)
{
	int ret;

	c->frame_len = FAVO_WIRE_HEAD + (size_t)head->len;
	c->frame_at = c->frame_room = 0;
	ret = frame_grow(c, err);
	if (ret < 0)
		return ret;
	c->frame_at = FAVO_MIN(c->small_len - c->small_at, c->frame_len);
	memcpy(c->frame, c->small + c->small_at, c->frame_at);
	c->small_at += c->frame_at;
	return 0;
}

/* Hand on a long frame that is whole. */
static int end_long(struct favo_conn *c, favo_conn_frame_fn *on_frame, uint32_t map_max,
		    uint64_t unit_max, struct favo_err *err)
{
	struct favo_wire_head head;
	unsigned char *frame = favo_steal_ptr(&c->frame);
	int ret = favo_wire_parse_head(&head, frame, map_max, unit_max, err);

	if (ret == 0)
		ret = on_frame(c, &head, frame + FAVO_WIRE_HEAD, &frame, err);
	free(frame);
	return ret;
}

int favo_conn_read(struct favo_conn *c, uint32_t map_max, uint64_t unit_max,
		   favo_conn_frame_fn *on_frame, struct favo_err *err)
{
	size_t budget = READ_MAX;
	int ret;

	for (;;) {
		struct favo_wire_head head;
		size_t have = c->small_len - c->small_at;

		if (c->frame) {
			ret = c->frame_at < c->frame_len ? read_long(c, &budget, err) : 1;
			if (ret > 0)
				ret = end_long(c, on_frame, map_max, unit_max, err);
			else
				return ret;
			if (ret < 0)
				return ret;
			continue;
		}
		if (have >= FAVO_WIRE_HEAD) {
			unsigned char *none = NULL;

			ret = favo_wire_parse_head(&head, c->small + c->small_at, map_max,
						   unit_max, err);
			if (ret == 0 && head.type != FAVO_WIRE_UNIT &&
			    have >= FAVO_WIRE_HEAD + (size_t)head.len) {
				c->small_at += FAVO_WIRE_HEAD + (size_t)head.len;
				ret = on_frame(c, &head,
					       c->small + c->small_at - head.len, &none,
					       err);
			} else if (ret == 0 &&
				   (head.type == FAVO_WIRE_UNIT ||
				    head.len + FAVO_WIRE_HEAD > FAVO_CONN_SMALL)) {
				ret = begin_long(c, &head, err);
			} else if (ret == 0) {
				goto more;
			}
			if (ret < 0)
				return ret;
			continue;
		}
	more:
		memmove(c->small, c->small + c->small_at, have);
		c->small_at = 0;
		c->small_len = have;
		if (!budget)
			return 0;
		ret = receive(c, c->small + have, sizeof(c->small) - have, err);
		if (ret <= 0)
			return ret;
		c->small_len += (size_t)ret;
		budget -= FAVO_MIN(budget, (size_t)ret);
	}
}
