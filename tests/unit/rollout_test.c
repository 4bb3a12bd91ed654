// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rollout of an image over nodes: the decisions. Many orders of events by a
 * seeded generator, with a restart (only what is stored survives) after any
 * step, and the promises of docs/rollout.md checked after each.
 */
#include "provision/favod/rollout.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/util.h"

#define NODES 11
#define RUNS 3000
#define STEPS_MAX 20000

static struct favo_rollout *new_rollout(size_t n, struct favo_rollout_rules rules)
{
	struct favo_rollout *r = calloc(1, sizeof(*r));

	r->id = 1;
	r->rules = rules;
	r->n = n;
	r->nodes = calloc(n, sizeof(*r->nodes));
	for (size_t i = 0; i < n; i++) {
		r->nodes[i].name = favo_asprintf("n%zu", i);
		r->nodes[i].image = strdup("x:1@d");
	}
	return r;
}

/* As rollout_db.c writes: a pin leaves a mark. */
static void save(struct favo_rollout *r)
{
	r->dirty = false;
	for (size_t i = 0; i < r->n; i++) {
		if (r->nodes[i].pin && !r->nodes[i].mark)
			r->nodes[i].mark = strdup("boot");
		r->nodes[i].pin = r->nodes[i].dirty = false;
	}
}

/* What is stored, and nothing else. */
static struct favo_rollout *restart(struct favo_rollout *old)
{
	struct favo_rollout *r = new_rollout(old->n, old->rules);

	r->state = old->state;
	memcpy(r->reason, old->reason, sizeof(r->reason));
	for (size_t i = 0; i < r->n; i++) {
		r->nodes[i].step = old->nodes[i].step;
		r->nodes[i].since = old->nodes[i].since;
		r->nodes[i].mark = old->nodes[i].mark ? strdup(old->nodes[i].mark) : NULL;
		memcpy(r->nodes[i].note, old->nodes[i].note, sizeof(r->nodes[i].note));
	}
	favo_rollout_free(old);
	return r;
}

static unsigned int seed;
static unsigned int roll(unsigned int n)
{
	seed = seed * 1103515245u + 12345u;
	return (seed >> 16) % n;
}

/* Promises that hold at every moment. */
static void check(const struct favo_rollout *r)
{
	uint64_t working = 0;
	size_t first_open = SIZE_MAX;

	for (size_t i = 0; i < r->n; i++) {
		enum favo_rollout_step step = r->nodes[i].step;

		if (!favo_rollout_is_final(step) && first_open == SIZE_MAX)
			first_open = favo_rollout_wave(&r->rules, i);
		working += step != FAVO_STEP_WAITING && !favo_rollout_is_final(step);
		/* nobody is ahead of a wave that is not through */
		if (step != FAVO_STEP_WAITING && first_open != SIZE_MAX)
			assert_true(favo_rollout_wave(&r->rules, i) <= first_open);
	}
	assert_true(working <= r->rules.concurrency);
}

struct world {
	bool drained[NODES], rebooted[NODES];
};

/* Carry an action out in a world where some of it fails. */
static void act(struct favo_rollout *r, struct world *w, struct favo_rollout_todo todo,
		unsigned int bad, int64_t now)
{
	enum favo_rollout_result result = FAVO_RESULT_OK;
	size_t i = todo.node;

	if (roll(100) < bad)
		result = FAVO_RESULT_FAILED;
	else if (todo.action == FAVO_DO_DRAIN && roll(20) == 0)
		result = roll(2) ? FAVO_RESULT_SKIP : FAVO_RESULT_ALREADY;
	else if ((todo.action == FAVO_DO_SEE_IDLE || todo.action == FAVO_DO_SEE_UP) &&
		 roll(3) == 0)
		result = FAVO_RESULT_NOT_YET;
	if (result == FAVO_RESULT_OK && todo.action == FAVO_DO_DRAIN)
		w->drained[i] = true;
	if (todo.action == FAVO_DO_REBOOT) {
		/* never a node that works for Slurm, never before its image is set */
		assert_true(w->drained[i]);
		assert_non_null(r->nodes[i].mark);
		w->rebooted[i] = true;
	}
	if (result == FAVO_RESULT_OK && todo.action == FAVO_DO_RESUME)
		w->drained[i] = false;
	favo_rollout_done(r, i, result, "why", now);
}

/* One life of a rollout; returns how it ended. */
static enum favo_rollout_state live(struct favo_rollout_rules rules, unsigned int bad,
				    bool restarts, bool pauses, struct world *w,
				    struct favo_rollout **out)
{
	struct favo_rollout *r = new_rollout(NODES, rules);
	struct favo_rollout_todo open[NODES];
	size_t n_open = 0;
	int64_t now = 1000;

	memset(w, 0, sizeof(*w));
	for (int step = 0; step < STEPS_MAX && (favo_rollout_is_live(r) || n_open);
	     step++) {
		struct favo_rollout_todo todo;

		/* begin what is due, or end any of what is under way */
		if (n_open < NODES && roll(2) && favo_rollout_next(r, now, &todo)) {
			save(r);
			open[n_open++] = todo;
		} else if (n_open && roll(4)) {
			size_t pick = roll((unsigned int)n_open);

			todo = open[pick];
			open[pick] = open[--n_open];
			act(r, w, todo, bad, now);
			save(r);
		} else {
			now++;
		}
		if (restarts && roll(10) == 0) {
			/* actions under way are lost, perhaps after their effect */
			save(r);
			r = restart(r);
			n_open = 0;
		}
		if (pauses && r->state == FAVO_ROLLOUT_RUNNING && roll(30) == 0)
			assert_int_equal(favo_rollout_pause(r, NULL), 0);
		else if (pauses && r->state == FAVO_ROLLOUT_PAUSED && roll(2) == 0)
			assert_int_equal(favo_rollout_resume(r, NULL), 0);
		if (pauses && r->state == FAVO_ROLLOUT_PAUSED &&
		    !favo_rollout_is_live(r) && !n_open)
			assert_int_equal(favo_rollout_resume(r, NULL), 0);
		check(r);
	}
	assert_false(favo_rollout_is_live(r));
	assert_int_equal(favo_rollout_wake(r), INT64_MAX);
	*out = r;
	return r->state;
}

static const struct favo_rollout_rules usual = {.canaries = 1,
						.batch = 4,
						.concurrency = 3,
						.budget = 1,
						.drain_s = 1000,
						.boot_s = 1000};

static void test_all_good(void **state)
{
	(void)state;
	for (unsigned int run = 0; run < RUNS; run++) {
		favo_autorollout struct favo_rollout *r = NULL;
		struct world w;

		seed = run;
		assert_int_equal(live(usual, 0, run % 2, run % 3 == 0, &w, &r),
				 FAVO_ROLLOUT_DONE);
		for (size_t i = 0; i < r->n; i++) {
			assert_true(favo_rollout_is_final(r->nodes[i].step));
			assert_int_not_equal(r->nodes[i].step, FAVO_STEP_FAILED);
			if (r->nodes[i].step == FAVO_STEP_DONE)
				assert_false(w.drained[i]);
		}
	}
}

static void test_failures(void **state)
{
	(void)state;
	for (unsigned int run = 0; run < RUNS; run++) {
		favo_autorollout struct favo_rollout *r = NULL;
		enum favo_rollout_state end;
		struct world w;
		size_t failed = 0;

		seed = run;
		end = live(usual, 5, run % 2, false, &w, &r);
		for (size_t i = 0; i < r->n; i++) {
			failed += r->nodes[i].step == FAVO_STEP_FAILED;
			/* what stays away was touched; it is not lost from view */
			if (r->nodes[i].step == FAVO_STEP_WAITING)
				assert_false(w.rebooted[i]);
		}
		if (r->nodes[0].step == FAVO_STEP_FAILED) {
			assert_int_equal(end, FAVO_ROLLOUT_STOPPED);
			assert_non_null(strstr(r->reason, "canary n0"));
		} else if (failed > usual.budget) {
			assert_int_equal(end, FAVO_ROLLOUT_STOPPED);
		} else {
			assert_int_equal(end, FAVO_ROLLOUT_DONE);
		}
	}
}

/* Drive node 0 alone up to a step. */
static struct favo_rollout *at_step(enum favo_rollout_step step, int64_t now)
{
	struct favo_rollout_rules rules = usual;
	struct favo_rollout_todo todo;
	struct favo_rollout *r;

	rules.concurrency = 1;
	r = new_rollout(2, rules);
	while (r->nodes[0].step != step) {
		assert_true(favo_rollout_next(r, now, &todo));
		if (r->nodes[0].step == step)
			r->nodes[0].busy = false;
		else
			favo_rollout_done(r, 0, FAVO_RESULT_OK, NULL, now);
		save(r);
	}
	return r;
}

static void test_time_limits(void **state)
{
	static const struct {
		enum favo_rollout_step at, then;
		const char *says;
	} cases[] = {
		{FAVO_STEP_DRAINING, FAVO_STEP_GIVE_UP, "jobs did not end"},
		{FAVO_STEP_BOOTING, FAVO_STEP_FAILED, "did not come up"},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_autorollout struct favo_rollout *r = at_step(cases[i].at, 1000);
		struct favo_rollout_todo todo;

		assert_true(favo_rollout_next(r, 1999, &todo));
		favo_rollout_done(r, 0, FAVO_RESULT_NOT_YET, "job 7 runs", 1999);
		assert_int_equal(r->nodes[0].step, cases[i].at);
		assert_false(favo_rollout_next(r, 1999, &todo));
		assert_int_equal(favo_rollout_wake(r), 2001);
		assert_true(favo_rollout_next(r, 2001, &todo));
		favo_rollout_done(r, 0, FAVO_RESULT_NOT_YET, "job 7 runs", 2001);
		assert_int_equal(r->nodes[0].step, cases[i].then);
		assert_non_null(strstr(r->nodes[0].note, cases[i].says));
		assert_non_null(strstr(r->nodes[0].note, "job 7 runs"));
		assert_int_equal(r->state, FAVO_ROLLOUT_STOPPED);
	}
}

static void test_commands(void **state)
{
	favo_autorollout struct favo_rollout *r = at_step(FAVO_STEP_DRAINING, 1000);
	favo_autorollout struct favo_rollout *s = at_step(FAVO_STEP_BOOTING, 1000);
	struct favo_rollout_todo todo;
	struct favo_err err = {0};

	(void)state;
	/* not rebooted yet: given back, and waits */
	assert_int_equal(favo_rollout_resume(r, &err), -EINVAL);
	assert_int_equal(favo_rollout_pause(r, NULL), 0);
	assert_int_equal(favo_rollout_pause(r, &err), -EINVAL);
	assert_true(favo_rollout_next(r, 1000, &todo));
	assert_int_equal(todo.action, FAVO_DO_RESUME);
	favo_rollout_done(r, 0, FAVO_RESULT_OK, NULL, 1000);
	assert_int_equal(r->nodes[0].step, FAVO_STEP_WAITING);
	assert_false(favo_rollout_is_live(r));
	/* rebooted: brought to its end also in a pause, but nobody else begins */
	assert_int_equal(favo_rollout_pause(s, NULL), 0);
	for (int i = 0; i < 3; i++) {
		assert_true(favo_rollout_next(s, 1000, &todo));
		favo_rollout_done(s, 0, FAVO_RESULT_OK, NULL, 1000);
	}
	assert_int_equal(s->nodes[0].step, FAVO_STEP_DONE);
	assert_false(favo_rollout_next(s, 1000, &todo));
	assert_int_equal(s->nodes[1].step, FAVO_STEP_WAITING);
}

static void test_undo(void **state)
{
	favo_autorollout struct favo_rollout *r = at_step(FAVO_STEP_HEALTH, 1000);
	struct favo_rollout_todo todo;

	(void)state;
	assert_true(favo_rollout_touched(&r->nodes[0]));
	assert_false(favo_rollout_touched(&r->nodes[1]));
	assert_true(favo_rollout_next(r, 1000, &todo));
	favo_rollout_set_undone(r, 2, 1000);
	/* the word of an action that was under way comes too late */
	favo_rollout_done(r, 0, FAVO_RESULT_OK, NULL, 1001);
	assert_int_equal(r->nodes[0].step, FAVO_STEP_FAILED);
	assert_true(favo_rollout_touched(&r->nodes[0]));
	assert_false(favo_rollout_next(r, 1001, &todo));
	assert_int_equal(favo_rollout_resume(r, NULL), -EINVAL);
}

static void test_names(void **state)
{
	(void)state;
	for (int i = 0; i < FAVO_STEPS; i++) {
		enum favo_rollout_step step;

		assert_int_equal(
			favo_rollout_step_parse(
				&step, favo_rollout_step_name((enum favo_rollout_step)i)),
			0);
		assert_int_equal((int)step, i);
	}
	for (int i = 0; i < FAVO_ROLLOUT_STATES; i++) {
		enum favo_rollout_state s;

		assert_int_equal(
			favo_rollout_state_parse(
				&s, favo_rollout_state_name((enum favo_rollout_state)i)),
			0);
		assert_int_equal((int)s, i);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_all_good),    cmocka_unit_test(test_failures),
		cmocka_unit_test(test_time_limits), cmocka_unit_test(test_commands),
		cmocka_unit_test(test_undo),	    cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
