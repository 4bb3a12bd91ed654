// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Connection and channels of the agent protocol; see conn.h and
 * docs/format-agent.md, "Channels" and "Credit". Every violation by the peer
 * ends the connection with a sentence; nothing the peer sends makes us keep
 * more than the windows, the requests in transit, and OUTPUT_MAX. What we send
 * on channels is in channel.c.
 */
#include "images/guest/conn_internal.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/util.h"

/* Sources pause while more than this is queued, so streams share fairly. */
#define OUTPUT_PAUSE (256 * 1024)
/* A peer that makes us queue more than this does not read: give up. */
#define OUTPUT_MAX (64u * 1024 * 1024)
/* Bytes of unfinished RUN requests over all channels. */
#define REQUESTS_MAX (4u * FAVO_RUN_MAX)
#define HELLO_TIMEOUT_MS 10000
void favo_conn_fail(struct favo_conn *conn, const char *reason)
{
	if (conn->failed)
		return;
	conn->failed = true;
	conn->watch.events = 0;
	snprintf(conn->reason, sizeof(conn->reason), "%s", reason);
	favo_defer(conn->loop, &conn->end);
}

static void flush_output(struct favo_conn *conn)
{
	while (conn->out.len && !conn->failed) {
		ssize_t n = send(conn->watch.fd, favo_buf_data(&conn->out), conn->out.len,
				 MSG_DONTWAIT | MSG_NOSIGNAL);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0 && errno == EAGAIN)
			break;
		if (n < 0) {
			favo_conn_fail(conn, strerror(errno));
			return;
		}
		favo_buf_take(&conn->out, (size_t)n);
	}
	if (!conn->failed)
		conn->watch.events = (short)(POLLIN | (conn->out.len ? POLLOUT : 0));
}

void favo_conn_send(struct favo_conn *conn, const struct favo_frame *frame)
{
	uint8_t *p;

	if (conn->failed)
		return;
	p = favo_buf_reserve(&conn->out, FAVO_FRAME_HEADER + frame->len);
	if (!p) {
		favo_conn_fail(conn, "out of memory");
		return;
	}
	favo_frame_put_header(p, frame);
	if (frame->len)
		memcpy(p + FAVO_FRAME_HEADER, frame->data, frame->len);
	favo_buf_commit(&conn->out, FAVO_FRAME_HEADER + frame->len);
	if (conn->out.len > OUTPUT_MAX)
		favo_conn_fail(conn, "the other side does not read");
	else
		conn->watch.events = POLLIN | POLLOUT;
	if (conn->out.len > OUTPUT_PAUSE)
		conn->paused = true;
}

static struct favo_channel *find_channel(struct favo_conn *conn, uint32_t id)
{
	struct favo_channel *ch = conn->channels;

	while (ch && ch->id != id)
		ch = ch->next;
	return ch;
}

static bool is_peers_id(const struct favo_conn *conn, uint32_t id)
{
	return (id & 1) == (conn->initiator ? 0 : 1);
}

/* Frames for a channel that is closed already are late, not wrong. */
static bool is_past_id(const struct favo_conn *conn, uint32_t id)
{
	return is_peers_id(conn, id) ? id <= conn->last_id : id < conn->next_id;
}

static int new_peer_channel(struct favo_channel **out, struct favo_conn *conn,
			    const struct favo_frame *f, struct favo_err *err)
{
	struct favo_channel *ch;

	if (!is_peers_id(conn, f->channel) || f->channel <= conn->last_id)
		return favo_fail(err, EPROTO, "channel %u opened out of turn",
				 f->channel);
	if (conn->n_channels >= FAVO_CHANNELS_MAX)
		return favo_fail(err, EMFILE, "more than %d channels", FAVO_CHANNELS_MAX);
	ch = favo_channel_add(conn, f->channel, f->type == FAVO_FRAME_RUN, false);
	if (!ch)
		return favo_fail(err, ENOMEM, "out of memory");
	conn->last_id = f->channel;
	*out = ch;
	return 0;
}

static int on_run(struct favo_conn *conn, const struct favo_frame *f,
		  struct favo_err *err)
{
	struct favo_channel *ch = find_channel(conn, f->channel);
	struct favo_run *run = NULL;
	int ret;

	if (!ch) {
		ret = new_peer_channel(&ch, conn, f, err);
		if (ret < 0)
			return ret;
	} else if (ch->ours || !ch->is_run || ch->complete) {
		return favo_fail(err, EPROTO, "RUN on channel %u in use", f->channel);
	}
	if (ch->request.len + f->len > FAVO_RUN_MAX ||
	    conn->request_bytes + f->len > REQUESTS_MAX)
		return favo_fail(err, EPROTO, "RUN request too large");
	if (favo_buf_append(&ch->request, f->data, f->len) < 0)
		return favo_fail(err, ENOMEM, "out of memory");
	conn->request_bytes += f->len;
	if (f->flags & FAVO_FRAME_MORE)
		return 0;
	ch->complete = true;
	ret = favo_run_decode(&run, favo_buf_data(&ch->request), ch->request.len, err);
	conn->request_bytes -= ch->request.len;
	favo_buf_fini(&ch->request);
	if (ret < 0)
		return ret;
	if (conn->ops->run) {
		conn->ops->run(conn, ch, run);
		return 0;
	}
	favo_run_free(run);
	favo_channel_exit(ch, &(struct favo_exit){.kind = FAVO_EXIT_FAILED,
						  .number = EOPNOTSUPP,
						  .reason = "nothing can be run here"});
	return 0;
}

static int on_open(struct favo_conn *conn, const struct favo_frame *f,
		   struct favo_err *err)
{
	struct favo_channel *ch;
	char endpoint[33];
	int ret;

	if (memchr(f->data, '\0', f->len))
		return favo_fail(err, EPROTO, "OPEN with a bad name");
	ret = new_peer_channel(&ch, conn, f, err);
	if (ret < 0)
		return ret;
	memcpy(endpoint, f->data, f->len);
	endpoint[f->len] = '\0';
	ch->complete = true;
	if (conn->ops->open)
		conn->ops->open(conn, ch, endpoint);
	else
		favo_channel_close(ch, "no byte streams here");
	return 0;
}

/* DATA, EOF: sent by the peer on a stream that runs our way. */
static int on_stream(struct favo_channel *ch, const struct favo_frame *f,
		     struct favo_err *err)
{
	struct favo_stream_state *s = &ch->s[f->stream];
	bool towards_us = (f->stream == FAVO_STREAM_IN) != ch->ours;

	if (!towards_us || s->eof_got || (f->stream == FAVO_STREAM_ERR && !ch->is_run))
		return favo_fail(err, EPROTO, "channel %u: data on stream %u", f->channel,
				 f->stream);
	if (f->type == FAVO_FRAME_EOF) {
		s->eof_got = true;
		if (ch->ops->eof)
			ch->ops->eof(ch, f->stream);
		return 0;
	}
	if (f->len > s->window)
		return favo_fail(err, EPROTO, "channel %u: stream %u: beyond its credit",
				 f->channel, f->stream);
	s->window -= f->len;
	if (ch->ops->data)
		ch->ops->data(ch, f->stream, f->data, f->len);
	else
		favo_channel_consumed(ch, f->stream, f->len);
	return 0;
}

/* STOP, CREDIT: sent by the receiver of a stream. */
static int on_receiver(struct favo_channel *ch, const struct favo_frame *f,
		       struct favo_err *err)
{
	struct favo_stream_state *s = &ch->s[f->stream];
	bool from_us = (f->stream == FAVO_STREAM_IN) == ch->ours;
	uint32_t n;

	if (!from_us)
		return favo_fail(err, EPROTO, "channel %u: credit on stream %u",
				 f->channel, f->stream);
	if (f->type == FAVO_FRAME_STOP) {
		s->stop_got = true;
		if (ch->ops->stop)
			ch->ops->stop(ch, f->stream);
		return 0;
	}
	n = favo_get_le32(f->data);
	if (n == 0 || n > FAVO_STREAM_WINDOW - s->credit)
		return favo_fail(err, EPROTO, "channel %u: credit of %u", f->channel, n);
	s->credit += n;
	if (ch->ops->credit)
		ch->ops->credit(ch, f->stream, n);
	else if (ch->ops->ready)
		ch->ops->ready(ch);
	return 0;
}

static int on_started(struct favo_channel *ch, const struct favo_frame *f,
		      struct favo_err *err)
{
	char note[1025];
	size_t n = f->len - 4;

	if (!ch->is_run || !ch->ours || ch->started)
		return favo_fail(err, EPROTO, "channel %u: STARTED unasked", f->channel);
	ch->started = true;
	for (size_t i = 0; i < n; i++)
		note[i] = f->data[4 + i] < ' ' ? '?' : (char)f->data[4 + i];
	note[n] = '\0';
	if (ch->ops->started)
		ch->ops->started(ch, favo_get_le32(f->data), note);
	return 0;
}

static int on_end(struct favo_channel *ch, const struct favo_frame *f,
		  struct favo_err *err)
{
	struct favo_exit ex;
	char reason[1025];
	int ret;

	if (f->type == FAVO_FRAME_EXIT) {
		if (!ch->is_run || !ch->ours)
			return favo_fail(err, EPROTO, "channel %u: EXIT unasked",
					 f->channel);
		ret = favo_exit_decode(&ex, f->data, f->len, err);
		if (ret < 0)
			return ret;
		if (ch->ops->exited)
			ch->ops->exited(ch, &ex);
	} else {
		for (size_t i = 0; i < f->len; i++)
			reason[i] = f->data[i] < ' ' ? '?' : (char)f->data[i];
		reason[f->len] = '\0';
		if (ch->ops->closed)
			ch->ops->closed(ch, reason);
	}
	favo_channel_drop(ch);
	return 0;
}

static int on_control(struct favo_channel *ch, const struct favo_frame *f,
		      struct favo_err *err)
{
	struct winsize ws;

	if (!ch->is_run || ch->ours)
		return favo_fail(err, EPROTO,
				 "channel %u: SIGNAL or WINSIZE from the wrong side",
				 f->channel);
	if (f->type == FAVO_FRAME_SIGNAL) {
		if (f->data[0] < 1 || f->data[0] > 64 || f->data[1] > FAVO_SIGNAL_SESSION)
			return favo_fail(err, EPROTO, "signal %u to %u", f->data[0],
					 f->data[1]);
		if (ch->ops->signal)
			ch->ops->signal(ch, f->data[0],
					(enum favo_signal_target)f->data[1]);
		return 0;
	}
	ws = (struct winsize){
		.ws_row = favo_get_le16(f->data),
		.ws_col = favo_get_le16(f->data + 2),
		.ws_xpixel = favo_get_le16(f->data + 4),
		.ws_ypixel = favo_get_le16(f->data + 6),
	};
	if (ch->ops->winsize)
		ch->ops->winsize(ch, &ws);
	return 0;
}

static int on_channel_frame(struct favo_conn *conn, const struct favo_frame *f,
			    struct favo_err *err)
{
	struct favo_channel *ch = find_channel(conn, f->channel);

	if (!ch) {
		if (is_past_id(conn, f->channel))
			return 0;
		return favo_fail(err, EPROTO, "channel %u unknown", f->channel);
	}
	if (!ch->complete && f->type != FAVO_FRAME_CLOSE)
		return favo_fail(err, EPROTO, "channel %u: request not complete",
				 f->channel);
	switch (f->type) {
	case FAVO_FRAME_DATA:
	case FAVO_FRAME_EOF:
		return on_stream(ch, f, err);
	case FAVO_FRAME_STOP:
	case FAVO_FRAME_CREDIT:
		return on_receiver(ch, f, err);
	case FAVO_FRAME_STARTED:
		return on_started(ch, f, err);
	case FAVO_FRAME_EXIT:
	case FAVO_FRAME_CLOSE:
		return on_end(ch, f, err);
	case FAVO_FRAME_SIGNAL:
	case FAVO_FRAME_WINSIZE:
		return on_control(ch, f, err);
	default:
		return favo_fail(err, EPROTO, "frame of type %d here", (int)f->type);
	}
}

static int on_first_frame(struct favo_conn *conn, const struct favo_frame *f,
			  struct favo_err *err)
{
	uint8_t hello[FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD];
	int ret = favo_hello_check(f, conn->secret, err);

	if (ret < 0)
		return ret;
	favo_hello_format(hello, conn->secret);
	if (favo_buf_append(&conn->out, hello, sizeof(hello)) < 0)
		return favo_fail(err, ENOMEM, "out of memory");
	conn->ready = true;
	favo_timer_cancel(&conn->hello_timer);
	if (conn->ops->ready)
		conn->ops->ready(conn);
	return 0;
}

static int on_frame(struct favo_conn *conn, const struct favo_frame *f,
		    struct favo_err *err)
{
	if (!conn->ready)
		return on_first_frame(conn, f, err);
	switch (f->type) {
	case FAVO_FRAME_HELLO:
		return favo_fail(err, EPROTO, "second HELLO");
	case FAVO_FRAME_ERROR:
		return favo_fail(err, ECONNABORTED, "%.*s", (int)f->len,
				 (const char *)f->data);
	case FAVO_FRAME_RUN:
		return on_run(conn, f, err);
	case FAVO_FRAME_OPEN:
		return on_open(conn, f, err);
	case FAVO_FRAME_SHUTDOWN:
		if (f->data[0] != FAVO_SHUTDOWN_POWEROFF &&
		    f->data[0] != FAVO_SHUTDOWN_RESET)
			return favo_fail(err, EPROTO, "shutdown of kind %u", f->data[0]);
		if (conn->ops->shutdown)
			conn->ops->shutdown(conn, (enum favo_shutdown)f->data[0]);
		return 0;
	default:
		return on_channel_frame(conn, f, err);
	}
}

/* Tell the peer why, as well as the socket takes it, and end. */
static void protocol_error(struct favo_conn *conn, const struct favo_err *err)
{
	const struct favo_frame frame = {
		.type = FAVO_FRAME_ERROR,
		.data = (const uint8_t *)err->msg,
		.len = (uint32_t)strlen(err->msg),
	};

	favo_conn_send(conn, &frame);
	flush_output(conn);
	favo_conn_fail(conn, err->msg);
}

static void read_input(struct favo_conn *conn)
{
	const size_t want = FAVO_FRAME_HEADER + FAVO_FRAME_PAYLOAD_MAX;
	struct favo_err err = {0};
	uint8_t *p = favo_buf_reserve(&conn->in, want);
	ssize_t n;

	if (!p) {
		favo_conn_fail(conn, "out of memory");
		return;
	}
	n = recv(conn->watch.fd, p, want, MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		favo_conn_fail(conn, n < 0 ? strerror(errno) : "connection closed");
		return;
	}
	favo_buf_commit(&conn->in, (size_t)n);
	while (!conn->failed) {
		struct favo_frame frame;
		int used = favo_frame_parse(&frame, favo_buf_data(&conn->in),
					    conn->in.len, &err);
		int ret = used > 0 ? on_frame(conn, &frame, &err) : used;

		if (ret < 0)
			protocol_error(conn, &err);
		if (ret < 0 || used <= 0)
			return;
		favo_buf_take(&conn->in, (size_t)used);
	}
}

/*
 * A callback may drop any channel, so the list is searched again after each
 * one; the mark says who had its turn.
 */
static void wake_sources(struct favo_conn *conn)
{
	struct favo_channel *ch;

	conn->paused = false;
	conn->turn++;
	do {
		ch = conn->channels;
		while (ch && ch->turn == conn->turn)
			ch = ch->next;
		if (!ch)
			break;
		ch->turn = conn->turn;
		if (ch->ops->ready)
			ch->ops->ready(ch);
	} while (!conn->paused);
}

static void on_socket(struct favo_watch *watch, short revents)
{
	struct favo_conn *conn = watch->user;

	if (revents & (POLLIN | POLLHUP | POLLERR))
		read_input(conn);
	flush_output(conn);
	if (conn->paused && conn->out.len <= OUTPUT_PAUSE / 2 && !conn->failed)
		wake_sources(conn);
}

static void on_hello_timeout(struct favo_timer *timer)
{
	favo_conn_fail(timer->user, "no HELLO in time");
}

static void on_conn_end(struct favo_deferred *work)
{
	struct favo_conn *conn = work->user;

	while (conn->channels) {
		struct favo_channel *ch = conn->channels;

		if (ch->ops->closed)
			ch->ops->closed(ch, conn->reason);
		favo_channel_drop(ch);
	}
	if (conn->ops->lost)
		conn->ops->lost(conn, conn->reason);
	else
		favo_conn_free(conn);
}

int favo_conn_new(struct favo_conn **out, struct favo_loop *loop, int fd, bool initiator,
		  const uint8_t *secret, const struct favo_conn_ops *ops, void *user,
		  struct favo_err *err)
{
	struct favo_conn *conn = calloc(1, sizeof(*conn));
	int ret;

	if (!conn)
		return favo_fail(err, ENOMEM, "allocate connection");
	conn->loop = loop;
	conn->initiator = initiator;
	conn->next_id = initiator ? 1 : 2;
	conn->ops = ops;
	conn->user = user;
	conn->ready = !secret;
	if (secret)
		memcpy(conn->secret, secret, sizeof(conn->secret));
	conn->watch = (struct favo_watch){
		.fd = fd, .events = POLLIN, .fn = on_socket, .user = conn};
	conn->end = (struct favo_deferred){.fn = on_conn_end, .user = conn};
	conn->hello_timer = (struct favo_timer){.fn = on_hello_timeout, .user = conn};
	ret = favo_watch_add(loop, &conn->watch, err);
	if (ret < 0) {
		free(conn);
		return ret;
	}
	if (secret)
		favo_timer_set(loop, &conn->hello_timer, HELLO_TIMEOUT_MS);
	*out = conn;
	return 0;
}

void favo_conn_free(struct favo_conn *conn)
{
	if (!conn)
		return;
	while (conn->channels)
		favo_channel_drop(conn->channels);
	favo_watch_del(&conn->watch);
	favo_timer_cancel(&conn->hello_timer);
	favo_defer_cancel(&conn->end);
	favo_close(&conn->watch.fd);
	favo_buf_fini(&conn->in);
	favo_buf_fini(&conn->out);
	free(conn);
}

void *favo_conn_user(const struct favo_conn *conn)
{
	return conn->user;
}

bool favo_conn_is_ready(const struct favo_conn *conn)
{
	return conn->ready && !conn->failed;
}

bool favo_conn_has_output(const struct favo_conn *conn)
{
	return conn->out.len > 0 && !conn->failed;
}

int favo_conn_shutdown_peer(struct favo_conn *conn, enum favo_shutdown how,
			    struct favo_err *err)
{
	uint8_t byte = (uint8_t)how;
	const struct favo_frame frame = {
		.type = FAVO_FRAME_SHUTDOWN, .data = &byte, .len = 1};

	if (conn->failed)
		return favo_fail(err, ENOTCONN, "%s", conn->reason);
	favo_conn_send(conn, &frame);
	return 0;
}
