// SPDX-License-Identifier: GPL-2.0-or-later
/* Channels of a connection: opening, sending, ending; see conn.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/guest/conn_internal.h"

/* Give credit back in steps of this, not for every byte. */
#define CREDIT_STEP (FAVO_STREAM_WINDOW / 4)

static const struct favo_channel_ops no_channel_ops;

static void send_on(struct favo_channel *ch, enum favo_frame_type type, unsigned stream,
		    const void *data, size_t len)
{
	const struct favo_frame frame = {
		.type = type,
		.channel = ch->id,
		.stream = (uint8_t)stream,
		.data = data,
		.len = (uint32_t)len,
	};

	favo_conn_send(ch->conn, &frame);
}

struct favo_channel *favo_channel_add(struct favo_conn *conn, uint32_t id, bool is_run,
				      bool ours)
{
	struct favo_channel *ch = calloc(1, sizeof(*ch));

	if (!ch)
		return NULL;
	ch->conn = conn;
	ch->id = id;
	ch->is_run = is_run;
	ch->ours = ours;
	ch->ops = &no_channel_ops;
	for (unsigned i = 0; i < FAVO_STREAMS; i++) {
		/* Which way a stream runs is fixed by who opened the channel. */
		bool we_send = (i == FAVO_STREAM_IN) == ours;

		if (i == FAVO_STREAM_ERR && !is_run)
			continue;
		*(we_send ? &ch->s[i].credit : &ch->s[i].window) = FAVO_STREAM_WINDOW;
	}
	ch->next = conn->channels;
	conn->channels = ch;
	conn->n_channels++;
	return ch;
}

void favo_channel_drop(struct favo_channel *ch)
{
	struct favo_conn *conn = ch->conn;

	for (struct favo_channel **p = &conn->channels; *p; p = &(*p)->next) {
		if (*p == ch) {
			*p = ch->next;
			break;
		}
	}
	conn->n_channels--;
	conn->request_bytes -= ch->request.len;
	favo_buf_fini(&ch->request);
	free(ch);
}

static int open_channel(struct favo_channel **out, struct favo_conn *conn, bool is_run,
			const struct favo_channel_ops *ops, void *user,
			struct favo_err *err)
{
	struct favo_channel *ch;

	if (conn->failed)
		return favo_fail(err, ENOTCONN, "%s", conn->reason);
	if (conn->n_channels >= FAVO_CHANNELS_MAX)
		return favo_fail(err, EMFILE, "more than %d channels", FAVO_CHANNELS_MAX);
	if (conn->next_id > UINT32_MAX - 2)
		return favo_fail(err, EOVERFLOW, "channel numbers are used up");
	ch = favo_channel_add(conn, conn->next_id, is_run, true);
	if (!ch)
		return favo_fail(err, ENOMEM, "out of memory");
	conn->next_id += 2;
	ch->complete = true;
	ch->ops = ops;
	ch->user = user;
	*out = ch;
	return 0;
}

int favo_channel_run(struct favo_channel **out, struct favo_conn *conn,
		     const struct favo_run *run, const struct favo_channel_ops *ops,
		     void *user, struct favo_err *err)
{
	favo_autobuf struct favo_buf wire = {0};
	struct favo_channel *ch;
	int ret = favo_run_encode(&wire, run, err);

	if (ret == 0)
		ret = open_channel(&ch, conn, true, ops, user, err);
	if (ret < 0)
		return ret;
	while (wire.len) {
		size_t n = FAVO_MIN(wire.len, (size_t)FAVO_FRAME_PAYLOAD_MAX);
		const struct favo_frame frame = {
			.type = FAVO_FRAME_RUN,
			.channel = ch->id,
			.flags = n < wire.len ? FAVO_FRAME_MORE : 0,
			.data = favo_buf_data(&wire),
			.len = (uint32_t)n,
		};

		favo_conn_send(conn, &frame);
		favo_buf_take(&wire, n);
	}
	*out = ch;
	return 0;
}

int favo_channel_open(struct favo_channel **out, struct favo_conn *conn,
		      const char *endpoint, const struct favo_channel_ops *ops,
		      void *user, struct favo_err *err)
{
	struct favo_channel *ch;
	int ret = open_channel(&ch, conn, false, ops, user, err);

	if (ret < 0)
		return ret;
	send_on(ch, FAVO_FRAME_OPEN, 0, endpoint, strlen(endpoint));
	*out = ch;
	return 0;
}

void favo_channel_set(struct favo_channel *ch, const struct favo_channel_ops *ops,
		      void *user)
{
	ch->ops = ops;
	ch->user = user;
}

void *favo_channel_user(const struct favo_channel *ch)
{
	return ch->user;
}

struct favo_conn *favo_channel_conn(const struct favo_channel *ch)
{
	return ch->conn;
}

size_t favo_channel_room(const struct favo_channel *ch, unsigned stream)
{
	const struct favo_stream_state *s = &ch->s[stream];

	if (s->eof_sent || s->stop_got || ch->conn->paused || ch->conn->failed)
		return 0;
	return s->credit;
}

void favo_channel_send(struct favo_channel *ch, unsigned stream, const void *p, size_t n)
{
	struct favo_stream_state *s = &ch->s[stream];

	if (s->eof_sent || n > s->credit)
		return;
	s->credit -= (uint32_t)n;
	while (n) {
		size_t part = FAVO_MIN(n, (size_t)FAVO_FRAME_PAYLOAD_MAX);

		send_on(ch, FAVO_FRAME_DATA, stream, p, part);
		p = (const uint8_t *)p + part;
		n -= part;
	}
}

void favo_channel_consumed(struct favo_channel *ch, unsigned stream, size_t n)
{
	struct favo_stream_state *s = &ch->s[stream];
	uint8_t buf[4];

	s->consumed += (uint32_t)n;
	/* Wait for a step, unless the sender may be out of credit. */
	if (s->consumed < CREDIT_STEP && s->window > 0)
		return;
	if (s->consumed == 0 || s->eof_got)
		return;
	favo_put_le32(buf, s->consumed);
	s->window += s->consumed;
	s->consumed = 0;
	send_on(ch, FAVO_FRAME_CREDIT, stream, buf, sizeof(buf));
}

void favo_channel_eof(struct favo_channel *ch, unsigned stream)
{
	if (ch->s[stream].eof_sent)
		return;
	ch->s[stream].eof_sent = true;
	send_on(ch, FAVO_FRAME_EOF, stream, NULL, 0);
}

void favo_channel_stop(struct favo_channel *ch, unsigned stream)
{
	if (ch->s[stream].stop_sent || ch->s[stream].eof_got)
		return;
	ch->s[stream].stop_sent = true;
	send_on(ch, FAVO_FRAME_STOP, stream, NULL, 0);
}

void favo_channel_started(struct favo_channel *ch, uint32_t pid, const char *note)
{
	uint8_t buf[4 + 1024];
	size_t n = strnlen(note, 1024);

	favo_put_le32(buf, pid);
	memcpy(buf + 4, note, n);
	send_on(ch, FAVO_FRAME_STARTED, 0, buf, 4 + n);
}

void favo_channel_signal(struct favo_channel *ch, int signo,
			 enum favo_signal_target target)
{
	uint8_t buf[2] = {(uint8_t)signo, (uint8_t)target};

	send_on(ch, FAVO_FRAME_SIGNAL, 0, buf, sizeof(buf));
}

void favo_channel_winsize(struct favo_channel *ch, const struct winsize *ws)
{
	uint8_t buf[8];

	favo_put_le16(buf, ws->ws_row);
	favo_put_le16(buf + 2, ws->ws_col);
	favo_put_le16(buf + 4, ws->ws_xpixel);
	favo_put_le16(buf + 6, ws->ws_ypixel);
	send_on(ch, FAVO_FRAME_WINSIZE, 0, buf, sizeof(buf));
}

void favo_channel_exit(struct favo_channel *ch, const struct favo_exit *ex)
{
	uint8_t buf[FAVO_EXIT_WIRE_MAX];

	send_on(ch, FAVO_FRAME_EXIT, 0, buf, favo_exit_encode(buf, ex));
	favo_channel_drop(ch);
}

void favo_channel_close(struct favo_channel *ch, const char *reason)
{
	send_on(ch, FAVO_FRAME_CLOSE, 0, reason, strnlen(reason, 1024));
	favo_channel_drop(ch);
}
