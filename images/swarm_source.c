// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The source of a swarm, who is whose neighbour, and the rate limit; see
 * swarm.h. The source's link is the bottleneck of the whole: it sends each
 * unit once, to whichever neighbour asks next, before it sends any twice.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/swarm.h"

#define NOBODY 0xff /* the unit was not handed out */
#define SPREAD 0xfe /* another neighbour of ours has it, too */
#define KEPT_MAX 32u /* units to one neighbour that spread no further */

struct favo_swarm_source {
	uint32_t n;
	uint32_t cursor; /* no unit before it in order is NOBODY's */
	uint32_t *order;
	uint8_t *holder; /* neighbour that was handed the unit, NOBODY or SPREAD */
	/* units that a neighbour was handed and no other says to have */
	uint32_t kept[FAVO_SWARM_PEERS_MAX];
};

int favo_source_new(struct favo_swarm_source **out, uint32_t units, struct favo_err *err)
{
	struct favo_swarm_source *s;

	if (!units || units > FAVO_SWARM_UNITS_MAX)
		return favo_fail(err, EINVAL, "swarm: %u units", units);
	s = calloc(1, sizeof(*s));
	if (s) {
		s->n = units;
		s->order = calloc(units, sizeof(*s->order));
		s->holder = malloc(units);
	}
	if (!s || !s->order || !s->holder) {
		favo_source_free(s);
		return favo_fail(err, ENOMEM, "swarm: out of memory");
	}
	memset(s->holder, NOBODY, units);
	for (uint32_t i = 0; i < units; i++)
		s->order[i] = i;
	*out = s;
	return 0;
}

void favo_source_free(struct favo_swarm_source *s)
{
	if (!s)
		return;
	free(s->order);
	free(s->holder);
	free(s);
}

int favo_source_prefer(struct favo_swarm_source *s, const uint32_t *units, uint32_t n,
		       struct favo_err *err)
{
	favo_autofree uint8_t *named = calloc(s->n, 1);
	uint32_t at = 0;

	if (!named)
		return favo_fail(err, ENOMEM, "swarm: out of memory");
	for (uint32_t i = 0; i < n; i++)
		if (units[i] >= s->n)
			return favo_fail(err, EINVAL, "swarm: there is no unit %u",
					 units[i]);
	for (uint32_t i = 0; i < n; i++) {
		if (!named[units[i]])
			s->order[at++] = units[i];
		named[units[i]] = 1;
	}
	for (uint32_t i = 0; i < s->n; i++)
		if (!named[i])
			s->order[at++] = i;
	s->cursor = 0;
	return 0;
}

bool favo_source_is_behind(const struct favo_swarm_source *s, unsigned int peer)
{
	return peer < FAVO_SWARM_PEERS_MAX && s->kept[peer] >= KEPT_MAX;
}

uint32_t favo_source_kept(const struct favo_swarm_source *s, unsigned int peer)
{
	return peer < FAVO_SWARM_PEERS_MAX ? s->kept[peer] : 0;
}

uint32_t favo_source_any(struct favo_swarm_source *s, unsigned int peer)
{
	uint32_t unit;

	if (peer >= FAVO_SWARM_PEERS_MAX)
		return FAVO_SWARM_ANY;
	while (s->cursor < s->n && s->holder[s->order[s->cursor]] != NOBODY)
		s->cursor++;
	if (s->cursor == s->n)
		return FAVO_SWARM_ANY;
	unit = s->order[s->cursor++];
	s->holder[unit] = (uint8_t)peer;
	s->kept[peer]++;
	return unit;
}

void favo_source_sends(struct favo_swarm_source *s, unsigned int peer, uint32_t unit)
{
	if (peer >= FAVO_SWARM_PEERS_MAX || unit >= s->n || s->holder[unit] != NOBODY)
		return;
	s->holder[unit] = (uint8_t)peer;
	s->kept[peer]++;
}

void favo_source_has(struct favo_swarm_source *s, unsigned int peer, uint32_t unit)
{
	if (unit >= s->n || s->holder[unit] == SPREAD || s->holder[unit] == peer)
		return;
	if (s->holder[unit] != NOBODY)
		s->kept[s->holder[unit]]--;
	s->holder[unit] = SPREAD;
}

void favo_source_leave(struct favo_swarm_source *s, unsigned int peer)
{
	if (peer >= FAVO_SWARM_PEERS_MAX)
		return;
	for (uint32_t unit = 0; unit < s->n; unit++)
		if (s->holder[unit] == peer)
			s->holder[unit] = NOBODY;
	s->kept[peer] = 0;
	s->cursor = 0;
}

bool favo_source_all_out(const struct favo_swarm_source *s)
{
	for (uint32_t i = s->cursor; i < s->n; i++)
		if (s->holder[s->order[i]] == NOBODY)
			return false;
	return true;
}

/* ---- who is whose neighbour ---- */

/* Place of a node in the ring: by rack, then by number. */
static unsigned int place_of(unsigned int node, unsigned int n, const unsigned int *racks)
{
	unsigned int place = 0;

	for (unsigned int i = 0; i < n; i++)
		if (racks ? racks[i] < racks[node] ||
				    (racks[i] == racks[node] && i < node)
			  : i < node)
			place++;
	return place;
}

static unsigned int node_at(unsigned int place, unsigned int n, const unsigned int *racks)
{
	for (unsigned int i = 0; racks && i < n; i++)
		if (place_of(i, n, racks) == place)
			return i;
	return place;
}

unsigned int favo_swarm_neighbours(unsigned int self, unsigned int n,
				   const unsigned int *racks, unsigned int degree,
				   unsigned int *out, unsigned int max)
{
	unsigned int place = place_of(self, n, racks), count = 0, step = 1;

	/* Each node names half of its neighbours; others name it. */
	for (unsigned int k = 0; k < (degree + 1) / 2 && count < max; k++) {
		unsigned int node;
		bool known = false;

		if (k > 0)
			step = FAVO_MAX(n >> k, 1u) + (place * 7 + k * 13) % (n / 8 + 1);
		if (n < 2 || step % n == 0)
			continue;
		node = node_at((place + step) % n, n, racks);
		for (unsigned int i = 0; i < count; i++)
			known |= out[i] == node;
		if (!known && node != self)
			out[count++] = node;
	}
	return count;
}

/* ---- rate ---- */

#define BURST_US 100000

void favo_rate_init(struct favo_rate *rate, uint64_t bytes_per_s, int64_t now_us)
{
	*rate = (struct favo_rate){.bytes_per_s = bytes_per_s, .last_us = now_us};
}

bool favo_rate_take(struct favo_rate *rate, uint64_t n, int64_t now_us, int64_t *wait_us)
{
	int64_t most, elapsed;

	if (!rate->bytes_per_s)
		return true;
	elapsed = FAVO_MIN(now_us - rate->last_us, (int64_t)10000000);
	most = (int64_t)(rate->bytes_per_s * BURST_US / 1000000) + 1;
	if (elapsed > 0) {
		rate->tokens +=
			(int64_t)(rate->bytes_per_s * (uint64_t)elapsed / 1000000);
		rate->tokens = FAVO_MIN(rate->tokens, most);
		rate->last_us = now_us;
	}
	if (rate->tokens < 0) {
		*wait_us = -rate->tokens * 1000000 / (int64_t)rate->bytes_per_s + 1;
		return false;
	}
	rate->tokens -= (int64_t)n;
	return true;
}
