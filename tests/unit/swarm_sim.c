// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The network around images/swarm.c, in one event loop over a heap; see
 * swarm_sim.h. Node number n (one past the nodes) is the source.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/swarm.h"
#include "tests/unit/swarm_sim.h"

#define SEGMENT 16384u
#define CONTROL 80u /* bytes of a small message with its headers */
#define WIRE_US 50 /* from link to link */
#define BREAK_US 1000 /* until a broken connection is known */

enum msg_kind {
	MSG_HAS,
	MSG_ASK,
	MSG_UNIT,
	MSG_NONE, /* "any" cannot be answered any more */
	MSG_CANCEL,
};

struct msg {
	struct msg *next;
	enum msg_kind kind;
	uint32_t unit;
	bool any; /* of MSG_UNIT: the answer to "any" */
	bool urgent;
	uint32_t left; /* bytes not yet handed to the network */
	uint32_t under_way;
	struct conn *conn;
};

/* One direction of a connection. */
struct conn {
	unsigned int from, to;
	unsigned int peer_at_to; /* number of the sender at the receiver */
	struct conn *back;
	struct msg *head, **tail;
	struct msg *asked, **asked_tail; /* units to send when it is their turn */
	uint32_t under_way;
	bool broken;
};

/* A piece of a message in a queue of a link. */
struct seg {
	struct seg *next;
	struct msg *msg;
	uint32_t bytes;
};

struct link {
	struct seg *head, **tail;
	uint64_t rate;
	bool busy;
};

struct node {
	struct link up, down;
	struct favo_swarm *swarm; /* NULL: the source */
	struct conn *conns[FAVO_SWARM_PEERS_MAX]; /* to them, by peer number */
	bool dead, silent, shown;
	unsigned int sending; /* units that are partly handed to the network */
	unsigned int turn;
	int64_t wake_us;
};

enum event_kind {
	EV_UP,
	EV_DOWN,
	EV_ARRIVE,
	EV_VERIFIED,
	EV_WAKE,
	EV_BREAK,
	EV_KILL,
	EV_START,
};

struct event {
	int64_t at;
	uint64_t order;
	enum event_kind kind;
	unsigned int node;
	void *what;
};

/* All memory of a run, freed at its end. */
struct chunk {
	struct chunk *next;
	size_t used;
	char bytes[1 << 20];
};

struct sim {
	struct chunk *chunks;
	struct seg *spare;
	const struct favo_sim_params *p;
	struct favo_sim_result *r;
	struct node *nodes;
	struct favo_swarm_source *source;
	struct event *heap;
	size_t n_heap, room;
	uint64_t order;
	int64_t now;
	unsigned int left; /* nodes not done */
};

static void *must(void *p)
{
	if (!p) {
		perror("swarm simulation");
		exit(1);
	}
	return p;
}

static void *get(struct sim *sim, size_t size)
{
	struct chunk *chunk = sim->chunks;

	size = (size + 15) & ~(size_t)15;
	if (!chunk || sizeof(chunk->bytes) - chunk->used < size) {
		chunk = must(malloc(sizeof(*chunk)));
		chunk->next = sim->chunks;
		chunk->used = 0;
		sim->chunks = chunk;
	}
	chunk->used += size;
	return memset(chunk->bytes + chunk->used - size, 0, size);
}

static struct seg *seg_new(struct sim *sim)
{
	struct seg *seg = sim->spare;

	if (!seg)
		return get(sim, sizeof(*seg));
	sim->spare = seg->next;
	return seg;
}

static void seg_free(struct sim *sim, struct seg *seg)
{
	seg->next = sim->spare;
	sim->spare = seg;
}

/* ---- events ---- */

static bool before(const struct event *a, const struct event *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void at(struct sim *sim, int64_t when, enum event_kind kind, unsigned int node,
	       void *what)
{
	struct event e = {when, sim->order++, kind, node, what};
	size_t i = sim->n_heap++;

	if (sim->n_heap > sim->room) {
		sim->room = sim->room * 2 + 1024;
		sim->heap = must(realloc(sim->heap, sim->room * sizeof(e)));
	}
	for (; i && before(&e, &sim->heap[(i - 1) / 2]); i = (i - 1) / 2)
		sim->heap[i] = sim->heap[(i - 1) / 2];
	sim->heap[i] = e;
}

static struct event take(struct sim *sim)
{
	struct event first = sim->heap[0], last = sim->heap[--sim->n_heap];
	size_t i = 0, child;

	while ((child = 2 * i + 1) < sim->n_heap) {
		if (child + 1 < sim->n_heap &&
		    before(&sim->heap[child + 1], &sim->heap[child]))
			child++;
		if (!before(&sim->heap[child], &last))
			break;
		sim->heap[i] = sim->heap[child];
		i = child;
	}
	sim->heap[i] = last;
	return first;
}

/* ---- links ---- */

static void link_start(struct sim *sim, struct link *l, enum event_kind kind,
		       unsigned int node)
{
	if (l->busy || !l->head)
		return;
	l->busy = true;
	at(sim, sim->now + (int64_t)(l->head->bytes * UINT64_C(1000000) / l->rate), kind,
	   node, NULL);
}

static void link_put(struct link *l, struct seg *seg)
{
	seg->next = NULL;
	*l->tail = seg;
	l->tail = &seg->next;
}

static struct seg *link_take(struct link *l)
{
	struct seg *seg = l->head;

	l->head = seg->next;
	if (!l->head)
		l->tail = &l->head;
	l->busy = false;
	return seg;
}

/* Each calls the other: what is handed over makes room for the next unit. */
static void next_unit(struct sim *sim, unsigned int i);

/* Hand to the network what the window lets through. */
static void pump(struct sim *sim, struct conn *c)
{
	struct node *from = &sim->nodes[c->from];

	while (c->head && c->under_way < sim->p->window && !c->broken) {
		struct msg *m = c->head;
		struct seg *seg = seg_new(sim);

		seg->bytes = FAVO_MIN(m->left, SEGMENT);
		seg->msg = m;
		m->left -= seg->bytes;
		m->under_way += seg->bytes;
		c->under_way += seg->bytes;
		if (c->from == sim->p->nodes)
			sim->r->source_bytes += seg->bytes;
		link_put(&from->up, seg);
		if (!m->left) {
			c->head = m->next;
			if (!c->head)
				c->tail = &c->head;
			if (m->kind == MSG_UNIT) {
				from->sending--;
				next_unit(sim, c->from);
			}
		}
	}
	link_start(sim, &from->up, EV_UP, c->from);
}

static void show_all(struct sim *sim)
{
	struct node *src = &sim->nodes[sim->p->nodes];

	src->shown = true;
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		for (uint32_t u = 0; src->conns[i] && u < sim->p->units; u++)
			favo_swarm_has(sim->nodes[src->conns[i]->to].swarm,
				       src->conns[i]->peer_at_to, u);
}

/* As peer.c does: a few units at a time, first to whom has least. */
static void next_unit(struct sim *sim, unsigned int i)
{
	struct node *node = &sim->nodes[i];

	while (node->sending < sim->p->sending) {
		struct conn *best = NULL;
		uint32_t least = UINT32_MAX;
		bool others = false;
		struct msg *m;

		for (unsigned int k = 0; k < FAVO_SWARM_PEERS_MAX; k++) {
			unsigned int at_k = (node->turn + k) % FAVO_SWARM_PEERS_MAX;
			struct conn *c = node->conns[at_k];
			uint32_t count;

			if (!c || c->broken)
				continue;
			if (!node->swarm)
				others |= !favo_source_is_behind(sim->source, at_k);
			if (!c->asked)
				continue;
			count = node->swarm ? favo_swarm_count(node->swarm, at_k)
					    : favo_source_kept(sim->source, at_k);
			if (count >= least)
				continue;
			best = c;
			least = count;
		}
		if (!best)
			return;
		if (!node->swarm && others && !node->shown &&
		    favo_source_is_behind(sim->source, best->back->peer_at_to))
			return;
		m = best->asked;
		if (m->any) {
			m->unit = favo_source_any(sim->source, best->back->peer_at_to);
			if (m->unit == FAVO_SWARM_ANY) {
				m->kind = MSG_NONE;
				m->left = CONTROL;
			}
		}
		best->asked = m->next;
		if (!best->asked)
			best->asked_tail = &best->asked;
		m->next = NULL;
		node->turn = best->back->peer_at_to + 1;
		node->sending += m->kind == MSG_UNIT;
		*best->tail = m;
		best->tail = &m->next;
		if (m->kind == MSG_NONE && !node->shown)
			show_all(sim);
		pump(sim, best);
	}
}

static void send(struct sim *sim, struct conn *c, enum msg_kind kind, uint32_t unit,
		 bool any)
{
	struct msg *m;

	if (c->broken || sim->nodes[c->from].silent)
		return;
	m = get(sim, sizeof(*m));
	m->kind = kind;
	m->unit = unit;
	m->any = any;
	m->left = kind == MSG_UNIT ? sim->p->unit_bytes + CONTROL : CONTROL;
	m->conn = c;
	if (kind == MSG_UNIT) {
		*c->asked_tail = m;
		c->asked_tail = &m->next;
		next_unit(sim, c->from);
		return;
	}
	*c->tail = m;
	c->tail = &m->next;
	pump(sim, c);
}

/* ---- nodes ---- */

static void drop(struct sim *sim, unsigned int i, unsigned int peer);

static void act(struct sim *sim, unsigned int i)
{
	struct node *node = &sim->nodes[i];
	struct favo_swarm_ask ask;
	unsigned int silent;
	int64_t wake;

	if (!node->swarm || node->dead || node->silent)
		return;
	while (favo_swarm_silent(node->swarm, sim->now, &silent)) {
		sim->r->dropped++;
		drop(sim, i, silent);
	}
	while (favo_swarm_next(node->swarm, sim->now, &ask))
		send(sim, node->conns[ask.peer],
		     ask.what == FAVO_SWARM_ASK ? MSG_ASK : MSG_CANCEL, ask.unit, false);
	wake = favo_swarm_wake(node->swarm, sim->now);
	if (wake != INT64_MAX && (wake < node->wake_us || node->wake_us <= sim->now)) {
		node->wake_us = wake;
		at(sim, wake, EV_WAKE, i, NULL);
	}
}

static void answer(struct sim *sim, const struct msg *m)
{
	struct conn *back = m->conn->back;
	struct node *node = &sim->nodes[back->from];
	uint32_t unit = m->unit;

	if (!node->swarm) {
		if (unit != FAVO_SWARM_ANY)
			favo_source_sends(sim->source, m->conn->peer_at_to, unit);
		send(sim, back, MSG_UNIT, unit, unit == FAVO_SWARM_ANY);
		return;
	}
	if (favo_swarm_is_here(node->swarm, unit))
		send(sim, back, MSG_UNIT, unit, false);
}

/* The unit is not sent if nothing of it went out. */
static void cancel(struct conn *c, uint32_t unit)
{
	for (struct msg **m = &c->asked; *m; m = &(*m)->next) {
		if ((*m)->unit != unit)
			continue;
		if (c->asked_tail == &(*m)->next)
			c->asked_tail = m;
		*m = (*m)->next;
		return;
	}
}

static void drop(struct sim *sim, unsigned int i, unsigned int peer)
{
	struct node *node = &sim->nodes[i];

	if (!node->conns[peer])
		return;
	node->conns[peer]->broken = true;
	for (struct msg *m = node->conns[peer]->head; m; m = m->next)
		if (m->kind == MSG_UNIT && m->left)
			node->sending--;
	node->conns[peer] = NULL;
	if (node->swarm)
		favo_swarm_leave(node->swarm, peer);
	else
		favo_source_leave(sim->source, peer);
	next_unit(sim, i);
	act(sim, i);
}

static void got_unit(struct sim *sim, struct msg *m)
{
	unsigned int i = m->conn->to, peer = m->conn->peer_at_to;
	struct node *node = &sim->nodes[i];

	if (m->conn->broken || node->dead || !node->conns[peer])
		return;
	if ((int)m->conn->from == sim->p->liar) {
		sim->r->dropped++;
		m->conn->broken = true;
		drop(sim, m->conn->from, m->conn->back->peer_at_to);
		drop(sim, i, peer);
		return;
	}
	if (favo_swarm_got(node->swarm, peer, m->unit, sim->now)) {
		for (unsigned int k = 0; k < FAVO_SWARM_PEERS_MAX; k++)
			if (node->conns[k])
				send(sim, node->conns[k], MSG_HAS, m->unit, false);
		if (i == 0 && sim->p->demand && m->unit == sim->p->units - 1)
			sim->r->demand_us = sim->now;
		if (!favo_swarm_missing(node->swarm)) {
			sim->r->done_us[i] = sim->now;
			sim->left--;
		}
	}
	act(sim, i);
}

static void deliver(struct sim *sim, struct msg *m)
{
	unsigned int i = m->conn->to;
	struct node *node = &sim->nodes[i];

	if (m->conn->broken || node->dead || node->silent)
		return;
	switch (m->kind) {
	case MSG_HAS:
		if (node->swarm)
			favo_swarm_has(node->swarm, m->conn->peer_at_to, m->unit);
		else
			favo_source_has(sim->source, m->conn->peer_at_to, m->unit);
		if (!node->swarm)
			next_unit(sim, i);
		break;
	case MSG_ASK:
		answer(sim, m);
		return;
	case MSG_CANCEL:
		cancel(m->conn->back, m->unit);
		return;
	case MSG_NONE:
		favo_swarm_refused(node->swarm, m->conn->peer_at_to, m->unit);
		break;
	case MSG_UNIT:
		at(sim, sim->now + sim->p->verify_us, EV_VERIFIED, i, m);
		return;
	}
	act(sim, i);
}

static void arrived(struct sim *sim, struct seg *seg)
{
	struct msg *m = seg->msg;
	struct conn *c = m->conn;
	struct node *to = &sim->nodes[c->to];

	m->under_way -= seg->bytes;
	c->under_way -= seg->bytes;
	if (m->kind == MSG_UNIT && to->swarm && to->conns[c->peer_at_to])
		favo_swarm_heard(to->swarm, c->peer_at_to, sim->now);
	if (!m->left && !m->under_way)
		deliver(sim, m);
	if (!c->broken)
		pump(sim, c);
	seg_free(sim, seg);
}

/* ---- the world ---- */

static void connect(struct sim *sim, unsigned int a, unsigned int b)
{
	struct conn *ab = get(sim, sizeof(*ab)), *ba = get(sim, sizeof(*ba));
	unsigned int pa = 0, pb = 0;

	while (sim->nodes[a].conns[pa])
		pa++;
	while (sim->nodes[b].conns[pb])
		pb++;
	if (sim->nodes[a].swarm)
		favo_swarm_join(sim->nodes[a].swarm, pa, FAVO_SWARM_PEER, 0, NULL);
	favo_swarm_join(sim->nodes[b].swarm, pb,
			sim->nodes[a].swarm ? FAVO_SWARM_PEER : FAVO_SWARM_SOURCE, 0,
			NULL);
	*ab = (struct conn){.from = a, .to = b, .peer_at_to = pb, .back = ba};
	*ba = (struct conn){.from = b, .to = a, .peer_at_to = pa, .back = ab};
	ab->tail = &ab->head;
	ba->tail = &ba->head;
	ab->asked_tail = &ab->asked;
	ba->asked_tail = &ba->asked;
	sim->nodes[a].conns[pa] = ab;
	sim->nodes[b].conns[pb] = ba;
}

static void build(struct sim *sim)
{
	const struct favo_sim_params *p = sim->p;
	unsigned int others[FAVO_SWARM_PEERS_MAX];

	sim->nodes = must(calloc(p->nodes + 1, sizeof(*sim->nodes)));
	for (unsigned int i = 0; i <= p->nodes; i++) {
		struct node *node = &sim->nodes[i];

		node->up.tail = &node->up.head;
		node->down.tail = &node->down.head;
		node->up.rate = node->down.rate =
			(int)i == p->slow ? p->link / 4 : p->link;
		if (i < p->nodes && favo_swarm_new(&node->swarm, p->units,
						   p->seed * 1000003 + i, NULL) < 0)
			must(NULL);
	}
	if (favo_source_new(&sim->source, p->units, NULL) < 0)
		must(NULL);
	for (unsigned int i = 0; i < p->nodes; i++) {
		unsigned int n = favo_swarm_neighbours(i, p->nodes, NULL, p->degree,
						       others, FAVO_SWARM_PEERS_MAX);

		for (unsigned int k = 0; k < n; k++)
			connect(sim, i, others[k]);
	}
	for (unsigned int k = 0; k < FAVO_MIN(p->source_degree, p->nodes); k++)
		connect(sim, p->nodes,
			k * p->nodes / FAVO_MIN(p->source_degree, p->nodes));
}

static void start(struct sim *sim, unsigned int i)
{
	if (sim->p->demand && i == 0)
		favo_swarm_demand(sim->nodes[i].swarm, sim->p->units - 1);
	act(sim, i);
}

static void lose(struct sim *sim, unsigned int i)
{
	struct node *node = &sim->nodes[i];

	if ((int)i == sim->p->vanishing) {
		node->silent = true;
	} else {
		node->dead = true;
		for (unsigned int k = 0; k < FAVO_SWARM_PEERS_MAX; k++)
			if (node->conns[k])
				at(sim, sim->now + BREAK_US, EV_BREAK, i, node->conns[k]);
	}
	if (favo_swarm_missing(node->swarm))
		sim->left--;
}

static void step(struct sim *sim, const struct event *e)
{
	struct node *node = &sim->nodes[e->node];
	struct conn *c = e->what;
	struct seg *seg;

	switch (e->kind) {
	case EV_UP:
		seg = link_take(&node->up);
		if (node->dead || node->silent)
			seg_free(sim, seg);
		else
			at(sim, sim->now + WIRE_US, EV_ARRIVE, seg->msg->conn->to, seg);
		link_start(sim, &node->up, EV_UP, e->node);
		break;
	case EV_ARRIVE:
		link_put(&node->down, e->what);
		link_start(sim, &node->down, EV_DOWN, e->node);
		break;
	case EV_DOWN:
		seg = link_take(&node->down);
		link_start(sim, &node->down, EV_DOWN, e->node);
		arrived(sim, seg);
		break;
	case EV_VERIFIED:
		got_unit(sim, e->what);
		break;
	case EV_WAKE:
		act(sim, e->node);
		break;
	case EV_BREAK:
		c->broken = true;
		drop(sim, c->to, c->peer_at_to);
		break;
	case EV_KILL:
		lose(sim, e->node);
		break;
	case EV_START:
		start(sim, e->node);
		break;
	}
}

void favo_sim_defaults(struct favo_sim_params *p, unsigned int nodes)
{
	*p = (struct favo_sim_params){
		.nodes = nodes,
		.units = 1024,
		.unit_bytes = 64 * 1024,
		.link = 12500000,
		.degree = 6,
		.source_degree = 12,
		.window = 96 * 1024,
		.verify_us = 300,
		.sending = 3,
		.seed = 1,
		.slow = -1,
		.killed = -1,
		.vanishing = -1,
		.liar = -1,
		.kill_us = 3000000,
	};
}

void favo_sim_run(const struct favo_sim_params *p, struct favo_sim_result *r)
{
	struct sim sim = {.p = p, .r = r, .left = p->nodes};

	*r = (struct favo_sim_result){.demand_us = FAVO_SIM_NEVER};
	r->bound_us = (int64_t)((uint64_t)p->units * (p->unit_bytes + CONTROL) *
				UINT64_C(1000000) / p->link);
	r->done_us = must(calloc(p->nodes, sizeof(*r->done_us)));
	for (unsigned int i = 0; i < p->nodes; i++)
		r->done_us[i] = FAVO_SIM_NEVER;
	build(&sim);
	for (unsigned int i = 0; i < p->nodes; i++)
		at(&sim, i * p->stagger_us, EV_START, i, NULL);
	if (p->killed >= 0)
		at(&sim, p->kill_us, EV_KILL, (unsigned int)p->killed, NULL);
	if (p->vanishing >= 0)
		at(&sim, p->kill_us, EV_KILL, (unsigned int)p->vanishing, NULL);
	while (sim.n_heap && sim.left && sim.now < 100 * r->bound_us) {
		struct event e = take(&sim);

		sim.now = e.at;
		step(&sim, &e);
	}
	for (unsigned int i = 0; i < p->nodes; i++) {
		struct favo_swarm_stats stats;

		favo_swarm_stats(sim.nodes[i].swarm, &stats);
		r->duplicates += stats.duplicates;
		favo_swarm_free(sim.nodes[i].swarm);
	}
	favo_source_free(sim.source);
	while (sim.chunks) {
		struct chunk *next = sim.chunks->next;

		free(sim.chunks);
		sim.chunks = next;
	}
	free(sim.nodes);
	free(sim.heap);
}
