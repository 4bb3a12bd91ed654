// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The side of a swarm that receives; see swarm.h and docs/fan-out.md. What
 * the source decides is in swarm_source.c.
 *
 * The time of a fan-out beyond that of one client is spent in the depth of
 * the way (each hop costs what is queued before a unit) and at its end (units
 * that wait for a slow neighbour). Hence: few requests in flight, as many as
 * keep the answers coming within a few tens of milliseconds; and when nothing
 * is left to ask for, what is due from one neighbour is asked of another.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/swarm.h"

#define DEPTH_FIRST 2u
#define FAST_US 40000 /* answers within this: one more request in flight */
#define SLOW_US 120000 /* answers beyond this: one fewer */
#define SILENT_US 4000000 /* no byte for so long of a neighbour that owes some */
#define AGAIN_MIN_US 30000 /* no second request for a unit before */
#define SAMPLE 512u /* units looked at for the rarest */
#define COPIES_MAX 2u

struct flight {
	uint32_t unit;
	int64_t since_us;
};

struct peer {
	bool used;
	bool source;
	bool dry; /* source: all units are handed out */
	uint64_t *has;
	uint32_t n_has;
	unsigned int depth; /* requests that may be in flight */
	unsigned int n_flights;
	struct flight flights[FAVO_SWARM_DEPTH_MAX];
	int64_t heard_us;
	int64_t answer_us; /* time of an answer, smoothed */
};

struct favo_swarm {
	uint32_t n;
	uint32_t missing;
	uint64_t random;
	uint64_t *here; /* bitmaps of units */
	uint64_t *open; /* neither here nor asked for */
	uint32_t n_open;
	uint8_t *copies; /* requests in flight per unit */
	uint8_t *holders; /* neighbours that have it, without sources */
	uint32_t *demanded; /* waited for, first come first served */
	uint32_t n_demanded;
	uint32_t *preferred;
	uint32_t n_preferred, preferred_at;
	struct favo_swarm_ask *cancels;
	unsigned int n_cancels, room_cancels;
	unsigned int slots; /* no neighbour is in use from here on */
	unsigned int turn; /* neighbour to begin with */
	uint32_t duplicates;
	struct peer peers[FAVO_SWARM_PEERS_MAX];
};

static bool bit(const uint64_t *map, uint32_t i)
{
	return map[i / 64] >> i % 64 & 1;
}

static void bit_set(uint64_t *map, uint32_t i)
{
	map[i / 64] |= UINT64_C(1) << i % 64;
}

static void bit_clear(uint64_t *map, uint32_t i)
{
	map[i / 64] &= ~(UINT64_C(1) << i % 64);
}

static uint64_t *map_new(uint32_t n)
{
	return calloc(n / 64 + 1, sizeof(uint64_t));
}

/* xorshift64*: only ties hang from it. */
static uint32_t random_next(struct favo_swarm *s)
{
	s->random ^= s->random >> 12;
	s->random ^= s->random << 25;
	s->random ^= s->random >> 27;
	return (uint32_t)(s->random * UINT64_C(2685821657736338717) >> 32);
}

int favo_swarm_new(struct favo_swarm **out, uint32_t units, uint64_t seed,
		   struct favo_err *err)
{
	favo_autoswarm struct favo_swarm *s = NULL;

	if (!units || units > FAVO_SWARM_UNITS_MAX)
		return favo_fail(err, EINVAL, "swarm: %u units", units);
	s = calloc(1, sizeof(*s));
	if (!s)
		return favo_fail(err, ENOMEM, "swarm: out of memory");
	s->n = s->missing = s->n_open = units;
	s->random = seed * UINT64_C(0x9e3779b97f4a7c15) + 1;
	s->here = map_new(units);
	s->open = map_new(units);
	s->copies = calloc(units, 1);
	s->holders = calloc(units, 1);
	if (!s->here || !s->open || !s->copies || !s->holders)
		return favo_fail(err, ENOMEM, "swarm: out of memory");
	for (uint32_t i = 0; i < units; i++)
		bit_set(s->open, i);
	for (int i = 0; i < 8; i++)
		random_next(s);
	*out = favo_steal_ptr(&s);
	return 0;
}

void favo_swarm_free(struct favo_swarm *s)
{
	if (!s)
		return;
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		free(s->peers[i].has);
	free(s->here);
	free(s->open);
	free(s->copies);
	free(s->holders);
	free(s->demanded);
	free(s->preferred);
	free(s->cancels);
	free(s);
}

/* ---- what is here ---- */

static void open_clear(struct favo_swarm *s, uint32_t unit)
{
	if (bit(s->open, unit)) {
		bit_clear(s->open, unit);
		s->n_open--;
	}
}

static void open_set(struct favo_swarm *s, uint32_t unit)
{
	if (!bit(s->open, unit) && !bit(s->here, unit)) {
		bit_set(s->open, unit);
		s->n_open++;
	}
}

void favo_swarm_here(struct favo_swarm *s, uint32_t unit)
{
	if (unit >= s->n || bit(s->here, unit))
		return;
	bit_set(s->here, unit);
	open_clear(s, unit);
	s->missing--;
	for (uint32_t i = 0; i < s->n_demanded; i++) {
		if (s->demanded[i] != unit)
			continue;
		memmove(&s->demanded[i], &s->demanded[i + 1],
			(--s->n_demanded - i) * sizeof(*s->demanded));
		break;
	}
}

bool favo_swarm_is_here(const struct favo_swarm *s, uint32_t unit)
{
	return unit < s->n && bit(s->here, unit);
}

uint32_t favo_swarm_units(const struct favo_swarm *s)
{
	return s->n;
}

uint32_t favo_swarm_missing(const struct favo_swarm *s)
{
	return s->missing;
}

void favo_swarm_demand(struct favo_swarm *s, uint32_t unit)
{
	uint32_t *more;

	if (unit >= s->n || bit(s->here, unit))
		return;
	for (uint32_t i = 0; i < s->n_demanded; i++)
		if (s->demanded[i] == unit)
			return;
	/* Without memory the unit comes all the same, only later. */
	more = realloc(s->demanded, (s->n_demanded + 1) * sizeof(*more));
	if (!more)
		return;
	s->demanded = more;
	s->demanded[s->n_demanded++] = unit;
}

int favo_swarm_prefer(struct favo_swarm *s, const uint32_t *units, uint32_t n,
		      struct favo_err *err)
{
	uint32_t *copy;

	for (uint32_t i = 0; i < n; i++)
		if (units[i] >= s->n)
			return favo_fail(err, EINVAL, "swarm: there is no unit %u",
					 units[i]);
	copy = calloc(n + 1, sizeof(*copy));
	if (!copy)
		return favo_fail(err, ENOMEM, "swarm: out of memory");
	memcpy(copy, units, n * sizeof(*copy));
	free(s->preferred);
	s->preferred = copy;
	s->n_preferred = n;
	s->preferred_at = 0;
	return 0;
}

/* ---- neighbours ---- */

int favo_swarm_join(struct favo_swarm *s, unsigned int peer, enum favo_swarm_kind kind,
		    int64_t now_us, struct favo_err *err)
{
	struct peer *p = &s->peers[peer];

	if (peer >= FAVO_SWARM_PEERS_MAX || p->used)
		return favo_fail(err, EINVAL, "swarm: no place %u for a neighbour", peer);
	*p = (struct peer){
		.used = true,
		.source = kind == FAVO_SWARM_SOURCE,
		.depth = DEPTH_FIRST,
		.heard_us = now_us,
		.answer_us = FAST_US,
		.has = map_new(s->n),
	};
	if (!p->has) {
		p->used = false;
		return favo_fail(err, ENOMEM, "swarm: out of memory");
	}
	s->slots = FAVO_MAX(s->slots, peer + 1);
	return 0;
}

static struct peer *peer_of(struct favo_swarm *s, unsigned int peer)
{
	return peer < FAVO_SWARM_PEERS_MAX && s->peers[peer].used ? &s->peers[peer]
								  : NULL;
}

/* One request less for the unit; nobody else asked for it: it is open again. */
static void flight_end(struct favo_swarm *s, struct peer *p, unsigned int i)
{
	uint32_t unit = p->flights[i].unit;

	p->flights[i] = p->flights[--p->n_flights];
	if (unit == FAVO_SWARM_ANY)
		return;
	if (--s->copies[unit] == 0)
		open_set(s, unit);
}

static bool flight_find(const struct peer *p, uint32_t unit, unsigned int *at)
{
	for (unsigned int i = 0; i < p->n_flights; i++) {
		if (p->flights[i].unit == unit) {
			*at = i;
			return true;
		}
	}
	return false;
}

void favo_swarm_leave(struct favo_swarm *s, unsigned int peer)
{
	struct peer *p = peer_of(s, peer);
	unsigned int kept = 0;

	if (!p)
		return;
	while (p->n_flights)
		flight_end(s, p, p->n_flights - 1);
	for (uint32_t unit = 0; !p->source && p->n_has && unit < s->n; unit++)
		if (bit(p->has, unit))
			s->holders[unit]--;
	for (unsigned int i = 0; i < s->n_cancels; i++)
		if (s->cancels[i].peer != peer)
			s->cancels[kept++] = s->cancels[i];
	s->n_cancels = kept;
	free(p->has);
	memset(p, 0, sizeof(*p));
	s->preferred_at = 0;
}

void favo_swarm_has(struct favo_swarm *s, unsigned int peer, uint32_t unit)
{
	struct peer *p = peer_of(s, peer);

	if (!p || unit >= s->n || bit(p->has, unit))
		return;
	bit_set(p->has, unit);
	p->n_has++;
	if (!p->source)
		s->holders[unit]++;
}

uint32_t favo_swarm_count(const struct favo_swarm *s, unsigned int peer)
{
	return peer < FAVO_SWARM_PEERS_MAX ? s->peers[peer].n_has : 0;
}

bool favo_swarm_wants(const struct favo_swarm *s, unsigned int peer)
{
	const struct peer *p = &s->peers[peer];

	if (peer >= FAVO_SWARM_PEERS_MAX || !p->used || !s->missing)
		return false;
	if (p->source)
		return true;
	for (uint32_t i = 0; i <= s->n / 64; i++)
		if (p->has[i] & ~s->here[i])
			return true;
	return false;
}

/* ---- choosing ---- */

/* May this neighbour be asked for this unit? Of the source only what no other has. */
static bool may_ask(const struct favo_swarm *s, const struct peer *p, uint32_t unit)
{
	return bit(p->has, unit) && (!p->source || !s->holders[unit]);
}

static bool choose_demanded(struct favo_swarm *s, const struct peer *p, uint32_t *unit)
{
	unsigned int at;

	for (uint32_t i = 0; i < s->n_demanded; i++) {
		*unit = s->demanded[i];
		/* The source has all, whether it shows it or not. */
		if (s->copies[*unit] == 0 && (p->source || bit(p->has, *unit)) &&
		    !flight_find(p, *unit, &at))
			return true;
	}
	return false;
}

static bool choose_preferred(struct favo_swarm *s, const struct peer *p, uint32_t *unit)
{
	while (s->preferred_at < s->n_preferred &&
	       bit(s->here, s->preferred[s->preferred_at]))
		s->preferred_at++;
	for (uint32_t i = s->preferred_at; i < s->n_preferred; i++) {
		*unit = s->preferred[i];
		if (bit(s->open, *unit) && may_ask(s, p, *unit))
			return true;
	}
	return false;
}

/* The rarest of a sample that begins anywhere. */
static bool choose_rarest(struct favo_swarm *s, const struct peer *p, uint32_t *unit)
{
	uint32_t words = s->n / 64 + 1, start = random_next(s) % words, seen = 0;
	unsigned int best = UINT_MAX;

	for (uint32_t k = 0; k < words && seen < SAMPLE && best > 1; k++) {
		uint32_t w = (start + k) % words;
		uint64_t map = p->has[w] & s->open[w];
		unsigned int turn = random_next(s) % 64;

		while (map) {
			uint64_t high = map >> turn << turn;
			unsigned int b = (unsigned int)__builtin_ctzll(high ? high : map);
			uint32_t u = w * 64 + b;

			map &= ~(UINT64_C(1) << b);
			turn = b;
			seen++;
			if (s->holders[u] >= best || (p->source && s->holders[u]))
				continue;
			best = s->holders[u];
			*unit = u;
		}
	}
	return best != UINT_MAX;
}

/* Who else was asked for it, and when first. */
static int64_t asked_since(const struct favo_swarm *s, uint32_t unit, bool *of_slow,
			   const struct peer *than)
{
	int64_t since = INT64_MAX;
	unsigned int at;

	*of_slow = false;
	for (unsigned int i = 0; i < s->slots; i++) {
		const struct peer *p = &s->peers[i];

		if (!p->used || !flight_find(p, unit, &at))
			continue;
		since = FAVO_MIN(since, p->flights[at].since_us);
		*of_slow |= p->answer_us > 2 * than->answer_us;
	}
	return since;
}

/*
 * Nothing is open: the unit that is due for the longest from another, when it
 * takes longer than this neighbour's answers do.
 */
static bool choose_late(struct favo_swarm *s, const struct peer *p, int64_t now_us,
			uint32_t *unit)
{
	int64_t oldest = now_us - FAVO_MAX((int64_t)AGAIN_MIN_US, p->answer_us / 2);
	bool found = false, of_slow;
	unsigned int at;

	for (unsigned int i = 0; i < s->slots; i++) {
		const struct peer *other = &s->peers[i];

		for (unsigned int k = 0; other->used && k < other->n_flights; k++) {
			uint32_t u = other->flights[k].unit;
			int64_t since;

			if (u == FAVO_SWARM_ANY || other == p ||
			    s->copies[u] >= COPIES_MAX || !bit(p->has, u) ||
			    flight_find(p, u, &at))
				continue;
			since = asked_since(s, u, &of_slow, p);
			if (of_slow && since < now_us - p->answer_us)
				since -= AGAIN_MIN_US;
			if (since < oldest) {
				oldest = since;
				*unit = u;
				found = true;
			}
		}
	}
	return found;
}

static bool choose(struct favo_swarm *s, struct peer *p, int64_t now_us,
		   struct favo_swarm_ask *ask)
{
	ask->urgent = s->n_demanded && choose_demanded(s, p, &ask->unit);
	if (ask->urgent)
		return true;
	if (p->source && !p->dry && s->n_open) {
		ask->unit = FAVO_SWARM_ANY;
		return true;
	}
	if (s->n_open &&
	    (choose_preferred(s, p, &ask->unit) || choose_rarest(s, p, &ask->unit)))
		return true;
	return !s->n_open && choose_late(s, p, now_us, &ask->unit);
}

bool favo_swarm_next(struct favo_swarm *s, int64_t now_us, struct favo_swarm_ask *ask)
{
	if (s->n_cancels) {
		*ask = s->cancels[--s->n_cancels];
		return true;
	}
	for (unsigned int k = 0; s->missing && k < s->slots; k++) {
		unsigned int i = (s->turn + k) % s->slots;
		struct peer *p = &s->peers[i];
		unsigned int urgent = s->n_demanded ? 1 : 0;

		if (!p->used ||
		    p->n_flights >= FAVO_MIN(p->depth + urgent, FAVO_SWARM_DEPTH_MAX))
			continue;
		*ask = (struct favo_swarm_ask){.what = FAVO_SWARM_ASK, .peer = i};
		if (!choose(s, p, now_us, ask) ||
		    (p->n_flights >= p->depth && !ask->urgent))
			continue;
		/* Who owes nothing has not been silent. */
		if (!p->n_flights)
			p->heard_us = now_us;
		p->flights[p->n_flights++] = (struct flight){ask->unit, now_us};
		if (ask->unit != FAVO_SWARM_ANY) {
			s->copies[ask->unit]++;
			open_clear(s, ask->unit);
		}
		s->turn = i + 1;
		return true;
	}
	return false;
}

/* ---- answers ---- */

void favo_swarm_heard(struct favo_swarm *s, unsigned int peer, int64_t now_us)
{
	struct peer *p = peer_of(s, peer);

	if (p)
		p->heard_us = now_us;
}

/* Keep as many requests in flight as are answered soon. */
static void adapt(struct peer *p, int64_t took_us)
{
	p->answer_us = (7 * p->answer_us + took_us) / 8;
	if (took_us < FAST_US && p->n_flights + 1 >= p->depth)
		p->depth = FAVO_MIN(p->depth + 1, FAVO_SWARM_DEPTH_MAX);
	else if (took_us > SLOW_US)
		p->depth = FAVO_MAX(p->depth - 1, 1u);
}

static void cancel_others(struct favo_swarm *s, const struct peer *from, uint32_t unit)
{
	unsigned int at;

	for (unsigned int i = 0; s->copies[unit] && i < s->slots; i++) {
		struct peer *p = &s->peers[i];

		if (!p->used || p == from || !flight_find(p, unit, &at))
			continue;
		flight_end(s, p, at);
		if (s->n_cancels == s->room_cancels) {
			unsigned int room = s->room_cancels * 2 + 8;
			struct favo_swarm_ask *more =
				realloc(s->cancels, room * sizeof(*more));

			/* Without memory the unit comes twice, that is all. */
			if (!more)
				continue;
			s->cancels = more;
			s->room_cancels = room;
		}
		s->cancels[s->n_cancels++] = (struct favo_swarm_ask){
			.what = FAVO_SWARM_CANCEL, .peer = i, .unit = unit};
	}
}

bool favo_swarm_got(struct favo_swarm *s, unsigned int peer, uint32_t unit,
		    int64_t now_us)
{
	struct peer *p = peer_of(s, peer);
	unsigned int at;
	bool fresh;

	if (unit >= s->n)
		return false;
	fresh = !bit(s->here, unit);
	favo_swarm_here(s, unit);
	if (!fresh)
		s->duplicates++;
	if (!p)
		return fresh;
	p->heard_us = now_us;
	if (flight_find(p, unit, &at) ||
	    (p->source && flight_find(p, FAVO_SWARM_ANY, &at))) {
		adapt(p, now_us - p->flights[at].since_us);
		flight_end(s, p, at);
	}
	cancel_others(s, p, unit);
	return fresh;
}

void favo_swarm_refused(struct favo_swarm *s, unsigned int peer, uint32_t unit)
{
	struct peer *p = peer_of(s, peer);
	unsigned int at;

	if (!p || !flight_find(p, unit, &at))
		return;
	flight_end(s, p, at);
	if (unit == FAVO_SWARM_ANY) {
		p->dry = true;
		return;
	}
	if (bit(p->has, unit)) {
		bit_clear(p->has, unit);
		p->n_has--;
		if (!p->source)
			s->holders[unit]--;
	}
}

/* ---- time ---- */

int64_t favo_swarm_wake(const struct favo_swarm *s, int64_t now_us)
{
	int64_t wake = INT64_MAX;

	for (unsigned int i = 0; i < s->slots; i++) {
		const struct peer *p = &s->peers[i];

		if (p->used && p->n_flights)
			wake = FAVO_MIN(wake, p->heard_us + SILENT_US);
	}
	/* The end game: look again soon. */
	if (wake != INT64_MAX && !s->n_open && s->missing)
		wake = FAVO_MIN(wake, now_us + AGAIN_MIN_US / 2);
	return wake;
}

bool favo_swarm_silent(const struct favo_swarm *s, int64_t now_us, unsigned int *peer)
{
	for (unsigned int i = 0; i < s->slots; i++) {
		const struct peer *p = &s->peers[i];

		if (p->used && p->n_flights && now_us - p->heard_us >= SILENT_US) {
			*peer = i;
			return true;
		}
	}
	return false;
}

void favo_swarm_stats(const struct favo_swarm *s, struct favo_swarm_stats *out)
{
	*out = (struct favo_swarm_stats){.duplicates = s->duplicates};
	for (unsigned int i = 0; i < s->slots; i++) {
		out->peers += s->peers[i].used;
		out->in_flight += s->peers[i].n_flights;
	}
}
