/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scheduling of an image's way to many nodes at once: who asks whom for what.
 * Pure: no I/O and no clock; the caller brings events and the time in
 * microseconds, and carries out what is decided. A struct belongs to one
 * thread at a time. docs/fan-out.md tells how it works.
 *
 * An image is moved in units 0..n-1 (images/units.h). Each node has a few
 * neighbours; each side tells the other what it has. A node that receives is
 * a struct favo_swarm: it asks its neighbours for what it lacks, the rarest
 * first, a few requests at a time. The source (favod) is a struct
 * favo_swarm_source: its neighbours ask it for "any" unit, and it hands out
 * each unit once before it shows all that it has.
 *
 *	favo_swarm_join(s, peer, FAVO_SWARM_PEER, now);
 *	favo_swarm_has(s, peer, unit);        what the neighbour says
 *	while (favo_swarm_next(s, now, &ask)) send ask to ask.peer;
 *	favo_swarm_got(s, peer, unit, now);   verified: tell all neighbours
 *	favo_swarm_leave(s, peer);            gone, or it lied
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_SWARM_ANY UINT32_MAX /* in place of a unit: the source chooses */
#define FAVO_SWARM_PEERS_MAX 64 /* neighbours of one node */
#define FAVO_SWARM_DEPTH_MAX 16 /* requests in flight to one neighbour */
#define FAVO_SWARM_UNITS_MAX (16u << 20)

struct favo_swarm;

enum favo_swarm_kind {
	FAVO_SWARM_PEER,
	FAVO_SWARM_SOURCE, /* answers "any"; asked for a certain unit only at need */
};

enum favo_swarm_do {
	FAVO_SWARM_ASK,
	FAVO_SWARM_CANCEL, /* the unit came from somebody else */
};

struct favo_swarm_ask {
	enum favo_swarm_do what;
	unsigned int peer;
	uint32_t unit; /* or FAVO_SWARM_ANY */
	bool urgent; /* something waits for it: before all others */
};

/* seed makes ties fall differently on each node. -EINVAL: no or too many units. */
int favo_swarm_new(struct favo_swarm **out, uint32_t units, uint64_t seed,
		   struct favo_err *err);
void favo_swarm_free(struct favo_swarm *s);

/* ---- what this node has and wants ---- */

/* The unit is here already (an earlier try, another image). */
void favo_swarm_here(struct favo_swarm *s, uint32_t unit);
bool favo_swarm_is_here(const struct favo_swarm *s, uint32_t unit);
uint32_t favo_swarm_units(const struct favo_swarm *s);
uint32_t favo_swarm_missing(const struct favo_swarm *s);

/* Something waits for this unit: it is asked for next, even of the source. */
void favo_swarm_demand(struct favo_swarm *s, uint32_t unit);
/* Rather these, in this order, than the rarest; copied. 0 or -ENOMEM, -EINVAL. */
int favo_swarm_prefer(struct favo_swarm *s, const uint32_t *units, uint32_t n,
		      struct favo_err *err);

/* ---- neighbours ---- */

/* peer: a number below FAVO_SWARM_PEERS_MAX that is free; -EINVAL else, -ENOMEM. */
int favo_swarm_join(struct favo_swarm *s, unsigned int peer, enum favo_swarm_kind kind,
		    int64_t now_us, struct favo_err *err);
/* What it was asked for is asked of others. */
void favo_swarm_leave(struct favo_swarm *s, unsigned int peer);
void favo_swarm_has(struct favo_swarm *s, unsigned int peer, uint32_t unit);
/* How many units it has: whoever sends serves first who has least. */
uint32_t favo_swarm_count(const struct favo_swarm *s, unsigned int peer);
/* Is there anything that this neighbour has and we lack? */
bool favo_swarm_wants(const struct favo_swarm *s, unsigned int peer);

/* ---- asking ---- */

/*
 * What to send next; false when there is nothing to do before the next event
 * or favo_swarm_wake().
 */
bool favo_swarm_next(struct favo_swarm *s, int64_t now_us, struct favo_swarm_ask *ask);

/* Bytes of an answer came: the neighbour lives. */
void favo_swarm_heard(struct favo_swarm *s, unsigned int peer, int64_t now_us);
/* A unit came and is right; true when it is new. */
bool favo_swarm_got(struct favo_swarm *s, unsigned int peer, uint32_t unit,
		    int64_t now_us);
/* It does not have the unit; for "any": nothing is left that was not handed out. */
void favo_swarm_refused(struct favo_swarm *s, unsigned int peer, uint32_t unit);

/* When favo_swarm_silent() or favo_swarm_next() may have something to say. */
int64_t favo_swarm_wake(const struct favo_swarm *s, int64_t now_us);
/* A neighbour that owes an answer and sends nothing; to be left. */
bool favo_swarm_silent(const struct favo_swarm *s, int64_t now_us, unsigned int *peer);

struct favo_swarm_stats {
	uint32_t duplicates; /* units that came twice */
	uint32_t in_flight;
	unsigned int peers;
};
void favo_swarm_stats(const struct favo_swarm *s, struct favo_swarm_stats *out);

/* ---- the source ---- */

struct favo_swarm_source;

int favo_source_new(struct favo_swarm_source **out, uint32_t units, struct favo_err *err);
void favo_source_free(struct favo_swarm_source *s);

/* Hand out units in this order (a prefetch list) before the others. */
int favo_source_prefer(struct favo_swarm_source *s, const uint32_t *units, uint32_t n,
		       struct favo_err *err);

/*
 * Answer to "any" of a neighbour (its number is the caller's); FAVO_SWARM_ANY
 * when each unit is out: then the source shows all its units to its
 * neighbours, and serves what they ask for.
 */
uint32_t favo_source_any(struct favo_swarm_source *s, unsigned int peer);
/*
 * Units that a neighbour was handed and that no other neighbour got since:
 * among those that ask, the one with the fewest is served first. One that is
 * behind (it keeps all to itself, or its link up is slow) waits while another
 * neighbour is not.
 */
uint32_t favo_source_kept(const struct favo_swarm_source *s, unsigned int peer);
bool favo_source_is_behind(const struct favo_swarm_source *s, unsigned int peer);
/* A neighbour asked for this very unit and gets it. */
void favo_source_sends(struct favo_swarm_source *s, unsigned int peer, uint32_t unit);
/* A neighbour says that it has the unit. */
void favo_source_has(struct favo_swarm_source *s, unsigned int peer, uint32_t unit);
/* What it did not get, or took along, is handed out again. */
void favo_source_leave(struct favo_swarm_source *s, unsigned int peer);
bool favo_source_all_out(const struct favo_swarm_source *s);

/* ---- who is whose neighbour ---- */

/*
 * Neighbours of node self among n nodes, whose racks are equal numbers (NULL:
 * one rack): the next in the ring of all nodes, ordered by rack, and chords
 * over 1/2, 1/4, ... of the ring. Each pair is named by one side; a node has
 * about degree of them in all. Writes at most max indices, returns the count.
 */
unsigned int favo_swarm_neighbours(unsigned int self, unsigned int n,
				   const unsigned int *racks, unsigned int degree,
				   unsigned int *out, unsigned int max);

/* ---- rate limit: a token bucket ---- */

struct favo_rate {
	uint64_t bytes_per_s; /* 0: no limit */
	int64_t tokens; /* may go below zero by one message */
	int64_t last_us;
};

void favo_rate_init(struct favo_rate *rate, uint64_t bytes_per_s, int64_t now_us);
/* Take n bytes if the bucket is not empty; else *wait_us is how long to wait. */
bool favo_rate_take(struct favo_rate *rate, uint64_t n, int64_t now_us, int64_t *wait_us);

static inline void favo_cleanup_swarm(struct favo_swarm **s)
{
	favo_swarm_free(*s);
}
#define favo_autoswarm __attribute__((cleanup(favo_cleanup_swarm)))
