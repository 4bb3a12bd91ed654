// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The giving side of a session: which request of which neighbour is answered
 * next. A few units are under way at a time; the neighbour that has least
 * comes first, so that no node falls behind for long. The source serves the
 * neighbour whose earlier units have spread best.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/util.h"
#include "images/peer_internal.h"

#define SENDING_MAX 3
#define STALLED_US 100000 /* who takes no byte for so long is not counted */
#define KEPT_BYTES (32u << 20) /* units as they came, for the neighbours */

/* ---- frames ---- */

static void keep_drop(struct favo_peer *p)
{
	uint32_t unit = p->kept[p->kept_at];

	p->kept_at = (p->kept_at + 1) % p->units->n;
	p->n_kept--;
	p->kept_bytes -= p->frames[unit]->len;
	favo_frame_unref(p->frames[unit]);
	p->frames[unit] = NULL;
}

static struct favo_frame *frame_new(unsigned char *data, size_t len)
{
	struct favo_frame *frame = calloc(1, sizeof(*frame));

	if (!frame) {
		free(data);
		return NULL;
	}
	*frame = (struct favo_frame){.refs = 1, .len = len, .data = data};
	return frame;
}

/* Into the ring; the oldest go. Borrows frame. */
static void keep(struct favo_peer *p, uint32_t unit, struct favo_frame *frame)
{
	if (p->frames[unit] || frame->len > KEPT_BYTES / 4)
		return;
	while (p->n_kept && p->kept_bytes + frame->len > KEPT_BYTES)
		keep_drop(p);
	frame->refs++;
	p->frames[unit] = frame;
	p->kept[(p->kept_at + p->n_kept++) % p->units->n] = unit;
	p->kept_bytes += frame->len;
}

void favo_peer_keep(struct favo_peer *p, uint32_t unit, unsigned char *data, size_t len)
{
	struct favo_frame *frame = frame_new(data, len);

	if (frame)
		keep(p, unit, frame);
	favo_frame_unref(frame);
}

void favo_peer_forget(struct favo_peer *p)
{
	while (p->n_kept)
		keep_drop(p);
	free(p->frames);
	free(p->kept);
	p->frames = NULL;
	p->kept = NULL;
}

/* A growing frame: head, unit, then blobs. */
static int append_blob(unsigned char **data, size_t *len, const void *blob, size_t n,
		       struct favo_err *err)
{
	unsigned char *more = realloc(*data, *len + 4 + n);

	if (!more || n > UINT32_MAX - *len - 64)
		return favo_fail(err, ENOMEM, "out of memory");
	*data = more;
	favo_wire_put_u32(more + *len, (uint32_t)n);
	memcpy(more + *len + 4, blob, n);
	*len += 4 + n;
	return 0;
}

/* Read a unit (or the index) from the disk. */
static int frame_read(struct favo_peer *p, uint32_t unit, struct favo_frame **out,
		      struct favo_err *err)
{
	size_t len = FAVO_WIRE_HEAD + 4;
	unsigned char *data = malloc(len);
	int ret = data ? 0 : favo_fail(err, ENOMEM, "out of memory");
	uint32_t i = unit == FAVO_WIRE_INDEX ? 0 : p->units->first[unit];
	uint32_t end = unit == FAVO_WIRE_INDEX ? 1 : p->units->first[unit + 1];

	for (; ret == 0 && i < end; i++) {
		favo_autofree void *blob = NULL;
		size_t n = 0;

		ret = unit == FAVO_WIRE_INDEX
			      ? p->params.ops->read_index(p->params.user, &blob, &n, err)
			      : p->params.ops->read(p->params.user, &p->units->items[i],
						    &blob, &n, err);
		if (ret == 0)
			ret = append_blob(&data, &len, blob, n, err);
	}
	if (ret < 0) {
		free(data);
		return ret;
	}
	favo_wire_format_head(data, FAVO_WIRE_UNIT, (uint32_t)(len - FAVO_WIRE_HEAD));
	favo_wire_put_u32(data + FAVO_WIRE_HEAD, unit);
	if (p->params.lie && unit != FAVO_WIRE_INDEX && len > 100)
		data[len - 40] ^= 0x10;
	*out = frame_new(data, len);
	return *out ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int frame_of(struct favo_peer *p, uint32_t unit, struct favo_frame **out,
		    struct favo_err *err)
{
	int ret;

	if (unit != FAVO_WIRE_INDEX && p->frames[unit] && !p->params.lie) {
		*out = p->frames[unit];
		(*out)->refs++;
		return 0;
	}
	ret = frame_read(p, unit, out, err);
	if (ret == 0 && unit != FAVO_WIRE_INDEX)
		keep(p, unit, *out);
	return ret;
}

/* ---- requests ---- */

static void say_none(struct favo_conn *c, uint32_t unit)
{
	unsigned char payload[4];

	favo_wire_put_u32(payload, unit);
	c->doomed |= !favo_conn_send(c, FAVO_WIRE_NONE, payload, sizeof(payload));
}

void favo_peer_send_map(struct favo_conn *c)
{
	struct favo_peer *p = c->p;
	size_t len = (p->units->n + 7) / 8;
	favo_autofree unsigned char *map = calloc(len, 1);

	if (!map) {
		c->doomed = true;
		return;
	}
	for (uint32_t u = 0; u < p->units->n; u++)
		if (p->swarm ? favo_swarm_is_here(p->swarm, u) : p->shown)
			map[u / 8] |= (unsigned char)(1u << u % 8);
	c->map_sent = true;
	c->doomed |= !favo_conn_send(c, FAVO_WIRE_HAVE_MAP, map, len);
}

static bool is_here(const struct favo_peer *p, uint32_t unit)
{
	if (!p->units)
		return false;
	if (unit == FAVO_WIRE_INDEX)
		return true;
	if (unit == FAVO_SWARM_ANY)
		return p->source && !p->shown;
	if (unit >= p->units->n)
		return false;
	return p->source || favo_swarm_is_here(p->swarm, unit);
}

int favo_peer_asked(struct favo_conn *c, uint32_t unit, bool urgent, struct favo_err *err)
{
	unsigned int at = c->n_asks;

	if (!is_here(c->p, unit)) {
		say_none(c, unit);
		return 0;
	}
	if (c->n_asks == FAVO_CONN_ASKS_MAX)
		return favo_fail(err, EBADMSG, "more than %d requests at a time",
				 FAVO_CONN_ASKS_MAX);
	if (urgent || unit == FAVO_WIRE_INDEX) {
		memmove(&c->asks[1], &c->asks[0], c->n_asks * sizeof(c->asks[0]));
		at = 0;
	}
	c->asks[at] = (struct favo_ask){unit, urgent || unit == FAVO_WIRE_INDEX};
	c->n_asks++;
	return 0;
}

static void ask_take(struct favo_conn *c, unsigned int at)
{
	memmove(&c->asks[at], &c->asks[at + 1], (--c->n_asks - at) * sizeof(c->asks[0]));
}

void favo_peer_cancelled(struct favo_conn *c, uint32_t unit)
{
	for (unsigned int i = 0; i < c->n_asks; i++) {
		if (c->asks[i].unit == unit) {
			ask_take(c, i);
			return;
		}
	}
}

/* ---- whose turn ---- */

/* Lower comes first. */
static uint64_t rank(const struct favo_peer *p, const struct favo_conn *c)
{
	if (c->asks[0].urgent)
		return 0;
	return 1 +
	       (uint64_t)(p->source ? favo_source_kept(p->source, c->slot) : c->n_has);
}

static struct favo_conn *next_conn(const struct favo_peer *p)
{
	struct favo_conn *best = NULL;
	bool others = false;

	for (unsigned int k = 0; k < FAVO_SWARM_PEERS_MAX; k++) {
		struct favo_conn *c = p->conns[(p->turn + k) % FAVO_SWARM_PEERS_MAX];

		if (!c || !c->greeted || c->doomed)
			continue;
		if (p->source)
			others |= !favo_source_is_behind(p->source, c->slot);
		if (c->n_asks && !c->unit && (!best || rank(p, c) < rank(p, best)))
			best = c;
	}
	/* One that keeps everything to itself waits while another may come. */
	if (best && p->source && !p->shown && others && !best->asks[0].urgent &&
	    favo_source_is_behind(p->source, best->slot))
		return NULL;
	return best;
}

static void show_all(struct favo_peer *p)
{
	p->shown = true;
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		if (p->conns[i] && p->conns[i]->greeted)
			favo_peer_send_map(p->conns[i]);
}

/* Answer the first request of a neighbour. */
static void begin_unit(struct favo_peer *p, struct favo_conn *c, int64_t now_us)
{
	uint32_t unit = c->asks[0].unit;
	struct favo_err err = {0};

	ask_take(c, 0);
	if (unit == FAVO_SWARM_ANY) {
		unit = p->source ? favo_source_any(p->source, c->slot) : FAVO_SWARM_ANY;
		if (unit == FAVO_SWARM_ANY) {
			if (p->source && !p->shown)
				show_all(p);
			say_none(c, unit);
			return;
		}
	} else if (p->source && unit != FAVO_WIRE_INDEX) {
		favo_source_sends(p->source, c->slot, unit);
	}
	if (frame_of(p, unit, &c->unit, &err) < 0) {
		/* Ours to mend: the neighbour asks another. */
		favo_log(FAVO_WARN, "image %s: unit %u cannot be read: %s", p->label,
			 unit, err.msg);
		say_none(c, unit);
		return;
	}
	c->unit_at = 0;
	c->progress_us = now_us;
	p->stats.sent += c->unit->len;
	p->turn = c->slot + 1;
}

void favo_peer_serve(struct favo_peer *p, int64_t now_us)
{
	unsigned int sending = 0;
	struct favo_conn *c;
	int64_t wait;

	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++) {
		c = p->conns[i];
		if (c && c->unit && now_us - c->progress_us < STALLED_US)
			sending++;
	}
	while (sending < SENDING_MAX && (c = next_conn(p)) != NULL) {
		if (!favo_rate_take(&p->send_rate, 0, now_us, &wait)) {
			p->wake_us = FAVO_MIN(p->wake_us, now_us + wait);
			return;
		}
		begin_unit(p, c, now_us);
		if (!c->unit)
			continue;
		p->send_rate.tokens -= (int64_t)c->unit->len;
		if (favo_conn_flush(c, NULL) < 0)
			c->doomed = true;
		if (c->unit)
			sending++;
	}
}
