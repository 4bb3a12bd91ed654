// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * images/swarm.c: single decisions, and whole fan-outs in the simulated
 * network of swarm_sim.c, with bounds on the last node's time.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <cmocka.h>

#include "common/util.h"
#include "images/swarm.h"
#include "tests/unit/swarm_sim.h"

static struct favo_swarm *swarm(uint32_t units)
{
	struct favo_swarm *s = NULL;

	assert_int_equal(favo_swarm_new(&s, units, 7, NULL), 0);
	return s;
}

static unsigned int join(struct favo_swarm *s, enum favo_swarm_kind kind)
{
	struct favo_swarm_stats stats;

	favo_swarm_stats(s, &stats);
	assert_int_equal(favo_swarm_join(s, stats.peers, kind, 0, NULL), 0);
	return stats.peers;
}

static void has_all(struct favo_swarm *s, unsigned int peer)
{
	for (uint32_t u = 0; u < favo_swarm_units(s); u++)
		favo_swarm_has(s, peer, u);
}

static void test_bounds(void **state)
{
	struct favo_swarm *s = NULL;
	uint32_t far = 8;

	(void)state;
	assert_int_equal(favo_swarm_new(&s, 0, 0, NULL), -EINVAL);
	assert_int_equal(favo_swarm_new(&s, FAVO_SWARM_UNITS_MAX + 1, 0, NULL), -EINVAL);
	s = swarm(8);
	for (int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		join(s, FAVO_SWARM_PEER);
	assert_int_equal(favo_swarm_join(s, 0, FAVO_SWARM_PEER, 0, NULL), -EINVAL);
	assert_int_equal(favo_swarm_join(s, FAVO_SWARM_PEERS_MAX, FAVO_SWARM_PEER, 0,
					 NULL),
			 -EINVAL);
	/* What neighbours say is foreign: nothing of this may do harm. */
	favo_swarm_has(s, 0, 8);
	favo_swarm_has(s, 99, 1);
	favo_swarm_leave(s, 99);
	favo_swarm_heard(s, 99, 1);
	favo_swarm_refused(s, 3, 5);
	assert_false(favo_swarm_got(s, 0, 8, 0));
	assert_false(favo_swarm_is_here(s, 8));
	favo_swarm_demand(s, 8);
	assert_int_equal(favo_swarm_prefer(s, &far, 1, NULL), -EINVAL);
	assert_int_equal(favo_swarm_missing(s), 8);
	favo_swarm_free(s);
}

/* The one that fewer neighbours have is asked for first. */
static void test_rarest(void **state)
{
	struct favo_swarm *s = swarm(100);
	unsigned int a = join(s, FAVO_SWARM_PEER), b = join(s, FAVO_SWARM_PEER);
	struct favo_swarm_ask ask;
	bool seen = false;

	(void)state;
	has_all(s, a);
	for (uint32_t u = 0; u < 100; u++)
		if (u != 42)
			favo_swarm_has(s, b, u);
	for (int i = 0; i < 2; i++) {
		assert_true(favo_swarm_next(s, 0, &ask));
		seen |= ask.unit == 42 && ask.peer == a;
	}
	assert_true(seen);
	favo_swarm_free(s);
}

static void test_order(void **state)
{
	static const uint32_t list[] = {60, 3, 59};
	struct favo_swarm *s = swarm(64);
	unsigned int a = join(s, FAVO_SWARM_PEER);
	struct favo_swarm_ask ask;

	(void)state;
	has_all(s, a);
	assert_int_equal(favo_swarm_prefer(s, list, 3, NULL), 0);
	favo_swarm_demand(s, 17);
	/* The demanded one, then the list, in whatever order they are answered. */
	assert_true(favo_swarm_next(s, 0, &ask) && ask.unit == 17 && ask.urgent);
	assert_true(favo_swarm_got(s, a, 17, 1000));
	for (int i = 0; i < 3; i++) {
		assert_true(favo_swarm_next(s, 1000, &ask));
		assert_int_equal(ask.unit, list[i]);
		assert_true(favo_swarm_got(s, a, ask.unit, 2000));
	}
	favo_swarm_free(s);
}

/* A demanded unit is asked of the source although it hands out what it wants. */
static void test_demand_source(void **state)
{
	struct favo_swarm *s = swarm(16);
	unsigned int src = join(s, FAVO_SWARM_SOURCE);
	struct favo_swarm_ask ask;

	(void)state;
	assert_true(favo_swarm_next(s, 0, &ask) && ask.unit == FAVO_SWARM_ANY);
	assert_true(favo_swarm_next(s, 0, &ask) && ask.unit == FAVO_SWARM_ANY);
	assert_false(favo_swarm_next(s, 0, &ask));
	favo_swarm_demand(s, 9);
	assert_true(favo_swarm_next(s, 0, &ask) && ask.unit == 9 && ask.urgent);
	assert_int_equal(ask.peer, src);
	assert_false(favo_swarm_next(s, 0, &ask));
	assert_true(favo_swarm_got(s, src, 9, 10));
	favo_swarm_free(s);
}

/* Requests in flight have a bound; one that is gone gives them back. */
static void test_leave(void **state)
{
	struct favo_swarm *s = swarm(500);
	unsigned int a = join(s, FAVO_SWARM_PEER), b;
	struct favo_swarm_stats stats;
	struct favo_swarm_ask ask;
	unsigned int n = 0;

	(void)state;
	has_all(s, a);
	while (favo_swarm_next(s, 0, &ask))
		n++;
	assert_in_range(n, 1, FAVO_SWARM_DEPTH_MAX);
	favo_swarm_leave(s, a);
	favo_swarm_stats(s, &stats);
	assert_int_equal(stats.in_flight, 0);
	b = join(s, FAVO_SWARM_PEER);
	has_all(s, b);
	for (uint32_t i = 0; favo_swarm_missing(s); i++) {
		assert_in_range(i, 0, 499);
		assert_true(favo_swarm_next(s, i, &ask));
		assert_true(favo_swarm_got(s, b, ask.unit, i));
	}
	assert_false(favo_swarm_next(s, 1000, &ask));
	favo_swarm_free(s);
}

/* The last unit: after a while of another one too, and then one is called off. */
static void test_end_game(void **state)
{
	struct favo_swarm *s = swarm(1);
	unsigned int a = join(s, FAVO_SWARM_PEER), b = join(s, FAVO_SWARM_PEER);
	struct favo_swarm_ask ask;
	unsigned int silent;

	(void)state;
	has_all(s, a);
	has_all(s, b);
	assert_true(favo_swarm_next(s, 0, &ask) && ask.peer == a);
	assert_false(favo_swarm_next(s, 1000, &ask));
	assert_true(favo_swarm_next(s, 500000, &ask) && ask.peer == b && ask.unit == 0);
	assert_false(favo_swarm_next(s, 900000, &ask));
	assert_false(favo_swarm_silent(s, 900000, &silent));
	assert_true(favo_swarm_wake(s, 900000) < 5000000);
	assert_true(favo_swarm_silent(s, 5000000, &silent) && silent == a);
	assert_true(favo_swarm_got(s, b, 0, 1000000));
	assert_true(favo_swarm_next(s, 1000000, &ask) && ask.what == FAVO_SWARM_CANCEL &&
		    ask.peer == a);
	assert_false(favo_swarm_got(s, a, 0, 1000001));
	favo_swarm_free(s);
}

static void test_source(void **state)
{
	static const uint32_t list[] = {5, 2};
	struct favo_swarm_source *s = NULL;
	bool out[8] = {false};

	(void)state;
	assert_int_equal(favo_source_new(&s, 8, NULL), 0);
	assert_int_equal(favo_source_prefer(s, list, 2, NULL), 0);
	assert_int_equal(favo_source_any(s, 0), 5);
	assert_int_equal(favo_source_any(s, 1), 2);
	favo_source_sends(s, 1, 0);
	favo_source_has(s, 0, 5);
	favo_source_has(s, 1, 5);
	assert_int_equal(favo_source_kept(s, 0), 0);
	assert_int_equal(favo_source_kept(s, 1), 2);
	/* What the one took along is handed out again; what spread is not. */
	favo_source_leave(s, 1);
	favo_source_leave(s, 0);
	for (int i = 0; i < 7; i++) {
		uint32_t unit = favo_source_any(s, 2);

		assert_in_range(unit, 0, 7);
		assert_false(out[unit]);
		out[unit] = true;
	}
	assert_false(out[5]);
	assert_true(favo_source_all_out(s));
	assert_int_equal(favo_source_any(s, 2), FAVO_SWARM_ANY);
	favo_source_free(s);
}

/* Every node can be reached from every other, and none has too many. */
static void test_neighbours(void **state)
{
	static const unsigned int sizes[] = {1, 2, 3, 4, 5, 16, 17, 64, 200};

	(void)state;
	for (size_t k = 0; k < FAVO_ARRAY_SIZE(sizes); k++) {
		unsigned int n = sizes[k], degree[200] = {0}, group[200], racks[200];
		unsigned int far = 0, all = 0;

		for (unsigned int i = 0; i < n; i++) {
			group[i] = i;
			racks[i] = i % 4;
		}
		for (unsigned int i = 0; i < n; i++) {
			unsigned int out[8];
			unsigned int m = favo_swarm_neighbours(i, n, racks, 6, out, 8);

			assert_in_range(m, 0, 3);
			for (unsigned int j = 0; j < m; j++) {
				unsigned int from = group[out[j]];

				assert_in_range(out[j], 0, n - 1);
				assert_int_not_equal(out[j], i);
				degree[i]++;
				degree[out[j]]++;
				all++;
				far += j == 0 && racks[i] != racks[out[j]];
				for (unsigned int g = 0; g < n; g++)
					if (group[g] == from)
						group[g] = group[i];
			}
		}
		for (unsigned int i = 0; i < n; i++) {
			assert_int_equal(group[i], group[0]);
			assert_in_range(degree[i], n > 1 ? 1 : 0, 14);
		}
		/* The ring crosses from rack to rack once for each. */
		assert_in_range(far, 0, FAVO_MIN(n, 4));
		assert_in_range(all, n > 1 ? n - 1 : 0, 3 * n);
	}
}

static void test_rate(void **state)
{
	struct favo_rate rate;
	int64_t now = 0, wait;
	uint64_t sent = 0;

	(void)state;
	favo_rate_init(&rate, 0, 0);
	assert_true(favo_rate_take(&rate, UINT64_C(1) << 40, 0, &wait));
	favo_rate_init(&rate, 1000000, 0);
	while (now < 10000000) {
		wait = 100;
		if (favo_rate_take(&rate, 65536, now, &wait))
			sent += 65536;
		else
			assert_in_range(wait, 1, 1000000);
		now += wait;
	}
	assert_in_range(sent, 9500000, 10300000);
}

/* ---- whole fan-outs ---- */

static const struct world {
	const char *name;
	unsigned int nodes;
	uint32_t units;
	int slow, killed, vanishing, liar;
	int64_t stagger_us;
	double last; /* of the others, in times of one client */
} worlds[] = {
	{"one node", 1, 1024, -1, -1, -1, -1, 0, 1.01},
	{"two nodes", 2, 1024, -1, -1, -1, -1, 0, 1.05},
	{"16 nodes", 16, 1024, -1, -1, -1, -1, 0, 1.10},
	{"16 nodes, one slow", 16, 1024, 5, -1, -1, -1, 0, 1.10},
	{"16 nodes, one slow that the source feeds", 16, 1024, 0, -1, -1, -1, 0, 1.10},
	{"16 nodes, one killed", 16, 1024, -1, 4, -1, -1, 0, 1.10},
	{"16 nodes, one falls silent", 16, 1024, -1, -1, 4, -1, 0, 1.10},
	{"16 nodes, one lies", 16, 1024, -1, -1, -1, 7, 0, 1.15},
	{"16 nodes, a liar that the source feeds", 16, 1024, -1, -1, -1, 0, 0, 1.15},
	{"16 nodes, all of it", 16, 1024, 1, 4, 9, 12, 0, 1.25},
	{"16 nodes, one after the other", 16, 1024, -1, -1, -1, -1, 20000, 1.15},
	{"64 nodes", 64, 1024, -1, -1, -1, -1, 0, 1.20},
	{"200 nodes", 200, 512, -1, -1, -1, -1, 0, 1.45},
};

static bool is_well(const struct world *w, int node)
{
	return node != w->slow && node != w->killed && node != w->vanishing &&
	       node != w->liar;
}

static void test_worlds(void **state)
{
	(void)state;
	for (size_t k = 0; k < FAVO_ARRAY_SIZE(worlds); k++) {
		const struct world *w = &worlds[k];
		struct favo_sim_params p;
		struct favo_sim_result r;
		double last = 0, source;
		uint64_t dup;

		favo_sim_defaults(&p, w->nodes);
		p.units = w->units;
		p.slow = w->slow;
		p.killed = w->killed;
		p.vanishing = w->vanishing;
		p.liar = w->liar;
		p.stagger_us = w->stagger_us;
		favo_sim_run(&p, &r);
		for (int i = 0; i < (int)w->nodes; i++)
			if (is_well(w, i))
				last = FAVO_MAX(last, (double)r.done_us[i] /
							      (double)r.bound_us);
		source = (double)r.source_bytes / ((double)p.units * p.unit_bytes);
		dup = r.duplicates * 100 / ((uint64_t)p.units * w->nodes);
		print_message("%s: last %.3f (limit %.2f), source %.3f, dropped %u\n",
			      w->name, last, w->last, source, r.dropped);
		assert_true(last > 0.99 && last <= w->last);
		/* A liar stays alone, and only the source serves it. */
		assert_true(source <= (w->liar >= 0 ? 2.3 : 1.3));
		assert_true(dup <= 2);
		if (w->slow >= 0)
			assert_true(r.done_us[w->slow] <= 44 * r.bound_us / 10);
		assert_true(w->liar >= 0 || w->vanishing >= 0 || r.dropped == 0);
		free(r.done_us);
	}
}

/* A unit that something waits for comes at once, not when its turn comes. */
static void test_world_demand(void **state)
{
	struct favo_sim_params p;
	struct favo_sim_result r;

	(void)state;
	favo_sim_defaults(&p, 16);
	p.demand = true;
	favo_sim_run(&p, &r);
	assert_true(r.demand_us < r.bound_us / 10);
	free(r.done_us);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_bounds),	     cmocka_unit_test(test_rarest),
		cmocka_unit_test(test_order),	     cmocka_unit_test(test_demand_source),
		cmocka_unit_test(test_leave),	     cmocka_unit_test(test_end_game),
		cmocka_unit_test(test_source),	     cmocka_unit_test(test_neighbours),
		cmocka_unit_test(test_rate),	     cmocka_unit_test(test_worlds),
		cmocka_unit_test(test_world_demand),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
