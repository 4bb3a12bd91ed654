/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Agent protocol between a host program and favo-init in a guest: framing,
 * the HELLO exchange and its constants. docs/format-agent.md has the byte
 * tables. Connections with channels are in conn.h, requests in run.h.
 *
 * Nothing here allocates. Thread-safe; a socket belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_AGENT_PORT 64001 /* vsock: the agent listens in the guest */
#define FAVO_REPORT_PORT 64000 /* vsock: the host listens for phase reports */

#define FAVO_AGENT_VERSION 1
#define FAVO_AGENT_SECRET_SIZE 32

#define FAVO_FRAME_HEADER 12
#define FAVO_FRAME_PAYLOAD_MAX 65536
#define FAVO_HELLO_PAYLOAD 48

/* Bytes that may be on the way in each direction of each stream. */
#define FAVO_STREAM_WINDOW (256 * 1024)
/* Largest RUN request over all its frames: batch script, argv, environment. */
#define FAVO_RUN_MAX (16 * 1024 * 1024)

enum favo_frame_type {
	FAVO_FRAME_HELLO = 1, /* version and secret, first frame both ways */
	FAVO_FRAME_ERROR = 2, /* sentence; the sender closes after it */
	FAVO_FRAME_RUN = 3, /* part of a request; opens the channel */
	FAVO_FRAME_STARTED = 4, /* pid and notes */
	FAVO_FRAME_EXIT = 5, /* how the process ended; closes the channel */
	FAVO_FRAME_OPEN = 6, /* byte stream to a named endpoint */
	FAVO_FRAME_CLOSE = 7, /* abort: closes the channel, kills its process */
	FAVO_FRAME_DATA = 8, /* bytes of a stream, within the credit */
	FAVO_FRAME_EOF = 9, /* no more DATA on the stream */
	FAVO_FRAME_STOP = 10, /* receiver wants no more DATA on the stream */
	FAVO_FRAME_CREDIT = 11, /* receiver takes that many more bytes */
	FAVO_FRAME_SIGNAL = 12, /* signal number and target */
	FAVO_FRAME_WINSIZE = 13, /* size of the pseudo-terminal */
	FAVO_FRAME_SHUTDOWN = 14, /* sync and power off or reset */
	FAVO_FRAME_TYPES
};

/* Flag of RUN: another RUN frame of the same request follows. */
#define FAVO_FRAME_MORE 0x01

enum favo_stream {
	FAVO_STREAM_IN, /* opener to acceptor: standard input */
	FAVO_STREAM_OUT, /* acceptor to opener: standard output, a pty, a relay */
	FAVO_STREAM_ERR,
	FAVO_STREAMS
};

enum favo_signal_target {
	FAVO_SIGNAL_PROCESS,
	FAVO_SIGNAL_GROUP, /* process group of the process */
	FAVO_SIGNAL_SESSION, /* every process of its session */
};

enum favo_shutdown { FAVO_SHUTDOWN_POWEROFF = 1, FAVO_SHUTDOWN_RESET = 2 };

/* One frame; data is borrowed from the buffer that was parsed. */
struct favo_frame {
	enum favo_frame_type type;
	uint8_t stream;
	uint8_t flags;
	uint32_t channel;
	uint32_t len;
	const uint8_t *data;
};

void favo_frame_put_header(uint8_t out[FAVO_FRAME_HEADER],
			   const struct favo_frame *frame);

/*
 * Parse the frame at the start of buf. Returns its whole size, 0 when more
 * bytes are needed, -EPROTO with a sentence when no such frame can exist.
 */
int favo_frame_parse(struct favo_frame *out, const uint8_t *buf, size_t len,
		     struct favo_err *err) favo_must_check;

void favo_hello_format(uint8_t out[FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD],
		       const uint8_t secret[FAVO_AGENT_SECRET_SIZE]);
/*
 * -EPROTO for anything but a HELLO of a version that we speak, -EACCES for a
 * wrong secret; the comparison takes the same time wherever it differs.
 */
int favo_hello_check(const struct favo_frame *frame,
		     const uint8_t secret[FAVO_AGENT_SECRET_SIZE],
		     struct favo_err *err) favo_must_check;

/*
 * The host's half of the HELLO exchange on a fresh connection to an agent:
 * sends ours, waits for the agent's, checks it. Takes not one byte more than
 * the answer from the socket, which can then be handed to another process.
 * Blocks up to timeout_ms (< 0: for ever).
 */
int favo_agent_hello(int fd, const uint8_t secret[FAVO_AGENT_SECRET_SIZE], int timeout_ms,
		     struct favo_err *err) favo_must_check;

/* Little-endian fields. */
static inline void favo_put_le16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)v;
	p[1] = (uint8_t)(v >> 8);
}

static inline void favo_put_le32(uint8_t *p, uint32_t v)
{
	favo_put_le16(p, (uint16_t)v);
	favo_put_le16(p + 2, (uint16_t)(v >> 16));
}

static inline void favo_put_le64(uint8_t *p, uint64_t v)
{
	favo_put_le32(p, (uint32_t)v);
	favo_put_le32(p + 4, (uint32_t)(v >> 32));
}

static inline uint16_t favo_get_le16(const uint8_t *p)
{
	return (uint16_t)(p[0] | p[1] << 8);
}

static inline uint32_t favo_get_le32(const uint8_t *p)
{
	return favo_get_le16(p) | (uint32_t)favo_get_le16(p + 2) << 16;
}

static inline uint64_t favo_get_le64(const uint8_t *p)
{
	return favo_get_le32(p) | (uint64_t)favo_get_le32(p + 4) << 32;
}
