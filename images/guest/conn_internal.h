/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Connections and channels from within: conn.c receives, channel.c sends. */
#pragma once

#include "images/guest/conn.h"

#define FAVO_CHANNELS_MAX 1024

struct favo_stream_state {
	uint32_t credit; /* bytes that we may send */
	uint32_t window; /* bytes that the peer may send */
	uint32_t consumed; /* taken by us, not yet told to the peer */
	bool eof_sent, eof_got, stop_sent, stop_got;
};

struct favo_channel {
	struct favo_conn *conn;
	struct favo_channel *next;
	const struct favo_channel_ops *ops;
	void *user;
	uint32_t id;
	uint32_t turn; /* see wake_sources() */
	bool is_run, ours, complete, started;
	struct favo_buf request; /* RUN frames until the last one */
	struct favo_stream_state s[FAVO_STREAMS];
};

struct favo_conn {
	struct favo_loop *loop;
	struct favo_watch watch;
	struct favo_timer hello_timer;
	struct favo_deferred end;
	const struct favo_conn_ops *ops;
	void *user;
	struct favo_channel *channels;
	unsigned n_channels;
	uint32_t next_id; /* of the next channel that we open */
	uint32_t last_id; /* of the last channel that the peer opened */
	uint32_t turn;
	size_t request_bytes;
	struct favo_buf in, out;
	uint8_t secret[FAVO_AGENT_SECRET_SIZE];
	bool initiator, ready, failed, paused;
	char reason[256];
};

/* Queue a frame; the connection fails when the peer does not read. */
void favo_conn_send(struct favo_conn *conn, const struct favo_frame *frame);
/* A new channel in the list of conn, NULL when memory is out. */
struct favo_channel *favo_channel_add(struct favo_conn *conn, uint32_t id, bool is_run,
				      bool ours);
void favo_channel_drop(struct favo_channel *ch);
