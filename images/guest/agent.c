// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Frames and the HELLO exchange of the agent protocol; see agent.h and
 * docs/format-agent.md. Does no channel bookkeeping (conn.c) and knows no
 * request (run.c).
 */
#include "images/guest/agent.h"

#include <errno.h>
#include <string.h>

#include "common/fd.h"
#include "common/util.h"

/* First bytes of every HELLO: what is not an agent is seen at once. */
static const char hello_magic[8] = "FAVOAGT";

/* Allowed payload sizes and whether the frame names a channel or a stream. */
static const struct {
	uint32_t min, max;
	bool channel, stream, more;
} rules[FAVO_FRAME_TYPES] = {
	[FAVO_FRAME_HELLO] = {FAVO_HELLO_PAYLOAD, FAVO_HELLO_PAYLOAD, .channel = false},
	[FAVO_FRAME_ERROR] = {1, 1024, .channel = false},
	[FAVO_FRAME_RUN] = {1, FAVO_FRAME_PAYLOAD_MAX, .channel = true, .more = true},
	[FAVO_FRAME_STARTED] = {4, 4 + 1024, .channel = true},
	[FAVO_FRAME_EXIT] = {12, 12 + 1024, .channel = true},
	[FAVO_FRAME_OPEN] = {1, 32, .channel = true},
	[FAVO_FRAME_CLOSE] = {0, 1024, .channel = true},
	[FAVO_FRAME_DATA] = {1, FAVO_FRAME_PAYLOAD_MAX, .channel = true, .stream = true},
	[FAVO_FRAME_EOF] = {0, 0, .channel = true, .stream = true},
	[FAVO_FRAME_STOP] = {0, 0, .channel = true, .stream = true},
	[FAVO_FRAME_CREDIT] = {4, 4, .channel = true, .stream = true},
	[FAVO_FRAME_SIGNAL] = {2, 2, .channel = true},
	[FAVO_FRAME_WINSIZE] = {8, 8, .channel = true},
	[FAVO_FRAME_SHUTDOWN] = {1, 1, .channel = false},
};

void favo_frame_put_header(uint8_t out[FAVO_FRAME_HEADER], const struct favo_frame *frame)
{
	favo_put_le32(out, frame->len);
	favo_put_le32(out + 4, frame->channel);
	out[8] = (uint8_t)frame->type;
	out[9] = frame->stream;
	out[10] = frame->flags;
	out[11] = 0;
}

int favo_frame_parse(struct favo_frame *out, const uint8_t *buf, size_t len,
		     struct favo_err *err)
{
	struct favo_frame f;
	unsigned type;

	if (len < FAVO_FRAME_HEADER)
		return 0;
	type = buf[8];
	f.len = favo_get_le32(buf);
	f.channel = favo_get_le32(buf + 4);
	f.stream = buf[9];
	f.flags = buf[10];
	if (type == 0 || type >= FAVO_FRAME_TYPES)
		return favo_fail(err, EPROTO, "agent frame: type %u unknown", type);
	f.type = (enum favo_frame_type)type;
	if (f.len < rules[type].min || f.len > rules[type].max)
		return favo_fail(err, EPROTO,
				 "agent frame: type %u: length %u not in %u..%u", type,
				 f.len, rules[type].min, rules[type].max);
	if ((f.channel != 0) != rules[type].channel)
		return favo_fail(err, EPROTO, "agent frame: type %u: channel %u", type,
				 f.channel);
	if (f.stream >= FAVO_STREAMS || (f.stream && !rules[type].stream))
		return favo_fail(err, EPROTO, "agent frame: type %u: stream %u", type,
				 f.stream);
	if ((f.flags & ~FAVO_FRAME_MORE) || (f.flags && !rules[type].more) || buf[11])
		return favo_fail(err, EPROTO, "agent frame: type %u: flags %#x", type,
				 f.flags | (unsigned)buf[11] << 8);
	if (len - FAVO_FRAME_HEADER < f.len)
		return 0;
	f.data = buf + FAVO_FRAME_HEADER;
	*out = f;
	return (int)(FAVO_FRAME_HEADER + f.len);
}

void favo_hello_format(uint8_t out[FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD],
		       const uint8_t secret[FAVO_AGENT_SECRET_SIZE])
{
	const struct favo_frame frame = {.type = FAVO_FRAME_HELLO,
					 .len = FAVO_HELLO_PAYLOAD};
	uint8_t *p = out + FAVO_FRAME_HEADER;

	favo_frame_put_header(out, &frame);
	memset(p, 0, FAVO_HELLO_PAYLOAD);
	memcpy(p, hello_magic, sizeof(hello_magic));
	favo_put_le16(p + 8, FAVO_AGENT_VERSION);
	memcpy(p + 16, secret, FAVO_AGENT_SECRET_SIZE);
}

static bool secrets_equal(const uint8_t *a, const uint8_t *b)
{
	volatile uint8_t diff = 0;

	for (size_t i = 0; i < FAVO_AGENT_SECRET_SIZE; i++)
		diff = (uint8_t)(diff | (a[i] ^ b[i]));
	return diff == 0;
}

int favo_hello_check(const struct favo_frame *frame,
		     const uint8_t secret[FAVO_AGENT_SECRET_SIZE], struct favo_err *err)
{
	const uint8_t *p = frame->data;
	static const uint8_t zero[6];

	if (frame->type == FAVO_FRAME_ERROR)
		return favo_fail(err, ECONNREFUSED, "agent: %.*s", (int)frame->len,
				 (const char *)p);
	if (frame->type != FAVO_FRAME_HELLO)
		return favo_fail(err, EPROTO, "agent: frame of type %d before HELLO",
				 (int)frame->type);
	if (memcmp(p, hello_magic, sizeof(hello_magic)) != 0)
		return favo_fail(err, EPROTO, "agent: HELLO without its magic");
	if (favo_get_le16(p + 8) != FAVO_AGENT_VERSION)
		return favo_fail(err, EPROTO, "agent: protocol version %u, ours is %d",
				 favo_get_le16(p + 8), FAVO_AGENT_VERSION);
	if (memcmp(p + 10, zero, sizeof(zero)) != 0)
		return favo_fail(err, EPROTO, "agent: HELLO with reserved bits set");
	if (!secrets_equal(p + 16, secret))
		return favo_fail(err, EACCES, "agent: wrong secret");
	return 0;
}

int favo_agent_hello(int fd, const uint8_t secret[FAVO_AGENT_SECRET_SIZE], int timeout_ms,
		     struct favo_err *err)
{
	uint8_t buf[FAVO_FRAME_HEADER + 1024];
	int64_t end_ms = favo_now_ms() + timeout_ms;
	struct favo_frame frame;
	uint32_t len;
	int ret;

	favo_hello_format(buf, secret);
	ret = favo_write_all(fd, buf, FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD, timeout_ms,
			     err);
	if (ret < 0)
		return favo_wrap(err, ret, "agent: send HELLO");
	if (timeout_ms >= 0)
		timeout_ms = (int)FAVO_MAX(end_ms - favo_now_ms(), 0);
	ret = favo_read_all(fd, buf, FAVO_FRAME_HEADER, timeout_ms, err);
	if (ret < 0)
		return favo_wrap(err, ret, "agent: wait for HELLO");
	len = favo_get_le32(buf);
	if (len > sizeof(buf) - FAVO_FRAME_HEADER)
		return favo_fail(err, EPROTO, "agent: HELLO of %u bytes", len);
	if (timeout_ms >= 0)
		timeout_ms = (int)FAVO_MAX(end_ms - favo_now_ms(), 0);
	ret = favo_read_all(fd, buf + FAVO_FRAME_HEADER, len, timeout_ms, err);
	if (ret < 0)
		return favo_wrap(err, ret, "agent: wait for HELLO");
	ret = favo_frame_parse(&frame, buf, FAVO_FRAME_HEADER + len, err);
	if (ret <= 0)
		return ret < 0 ? ret : favo_fail(err, EPROTO, "agent: HELLO cut short");
	return favo_hello_check(&frame, secret, err);
}
