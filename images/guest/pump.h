/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Pumps between a descriptor and one stream of a channel. A source reads the
 * descriptor and sends within the credit; a sink keeps at most a window of
 * bytes, writes them as the descriptor takes them and gives the credit back.
 *
 * Both are embedded; zero-initialised means not started. They own their
 * descriptor, which should be non-blocking. done is called once, when the
 * descriptor is closed, never from within a call of the owner except
 * favo_source_start() and favo_sink_start(). One thread.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "images/guest/buf.h"
#include "images/guest/conn.h"
#include "images/guest/loop.h"

struct favo_source;
struct favo_sink;
typedef void favo_source_fn(struct favo_source *src);
typedef void favo_sink_fn(struct favo_sink *sink);

struct favo_source {
	struct favo_watch watch;
	struct favo_timer silence;
	struct favo_deferred finish;
	struct favo_channel *ch; /* NULL: detached, bytes are dropped */
	unsigned stream;
	favo_source_fn *done;
	void *user;
	size_t left; /* bytes to read yet when draining */
	bool active, draining, is_tty;
};

/* Start, taking fd over; it is closed also on failure. Set done and user first. */
int favo_source_start(struct favo_source *src, struct favo_loop *loop, int fd,
		      struct favo_channel *ch, unsigned stream,
		      struct favo_err *err) favo_must_check;
/* The channel may have room again. */
void favo_source_ready(struct favo_source *src);
/* Read what is there now, then end: the writer is gone or does not matter. */
void favo_source_drain(struct favo_source *src);
/* End at once, without reading on. done is called. */
void favo_source_end(struct favo_source *src);
/* End at once; no callback, nothing is sent. */
void favo_source_fini(struct favo_source *src);

struct favo_sink {
	struct favo_watch watch;
	struct favo_deferred finish;
	struct favo_channel *ch; /* NULL: detached, no credit is given */
	unsigned stream;
	favo_sink_fn *done;
	void *user;
	struct favo_buf buf;
	bool active, eof, broken;
	bool shut; /* set first: end a socket's sending side, not just this fd */
};

int favo_sink_start(struct favo_sink *sink, struct favo_loop *loop, int fd,
		    struct favo_channel *ch, unsigned stream,
		    struct favo_err *err) favo_must_check;
void favo_sink_data(struct favo_sink *sink, const uint8_t *p, size_t n);
/* Close the descriptor (shut down a socket's sending side) once all is out. */
void favo_sink_eof(struct favo_sink *sink);
void favo_sink_fini(struct favo_sink *sink);
