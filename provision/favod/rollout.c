// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rollout of an image over nodes: the decisions; see rollout.h. Each node is a
 * small state machine of its own (table below); who may start is decided over
 * all of them.
 */
#include "provision/favod/rollout.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

#define POLL_S 2 /* between two looks at a node */

static const char *const step_names[FAVO_STEPS] = {
	[FAVO_STEP_WAITING] = "waiting",   [FAVO_STEP_DRAIN] = "drain",
	[FAVO_STEP_DRAINING] = "draining", [FAVO_STEP_REBOOT] = "reboot",
	[FAVO_STEP_BOOTING] = "booting",   [FAVO_STEP_HEALTH] = "health",
	[FAVO_STEP_RESUME] = "resume",	   [FAVO_STEP_RELEASE] = "release",
	[FAVO_STEP_GIVE_UP] = "give-up",   [FAVO_STEP_DONE] = "done",
	[FAVO_STEP_SKIPPED] = "skipped",   [FAVO_STEP_FAILED] = "failed",
};

static const char *const state_names[FAVO_ROLLOUT_STATES] = {
	[FAVO_ROLLOUT_RUNNING] = "running", [FAVO_ROLLOUT_PAUSED] = "paused",
	[FAVO_ROLLOUT_STOPPED] = "stopped", [FAVO_ROLLOUT_UNDONE] = "undone",
	[FAVO_ROLLOUT_DONE] = "done",
};

/*
 * What is done in a step and where it leads. Steps that are not here are those
 * in which nothing is done.
 */
static const struct transition {
	enum favo_rollout_action action;
	enum favo_rollout_step ok, failed;
	bool acts;
} table[FAVO_STEPS] = {
	[FAVO_STEP_DRAIN] = {FAVO_DO_DRAIN, FAVO_STEP_DRAINING, FAVO_STEP_GIVE_UP, true},
	[FAVO_STEP_DRAINING] = {FAVO_DO_SEE_IDLE, FAVO_STEP_REBOOT, FAVO_STEP_GIVE_UP,
				true},
	[FAVO_STEP_REBOOT] = {FAVO_DO_REBOOT, FAVO_STEP_BOOTING, FAVO_STEP_FAILED, true},
	[FAVO_STEP_BOOTING] = {FAVO_DO_SEE_UP, FAVO_STEP_HEALTH, FAVO_STEP_FAILED, true},
	[FAVO_STEP_HEALTH] = {FAVO_DO_HEALTH, FAVO_STEP_RESUME, FAVO_STEP_FAILED, true},
	[FAVO_STEP_RESUME] = {FAVO_DO_RESUME, FAVO_STEP_DONE, FAVO_STEP_FAILED, true},
	[FAVO_STEP_RELEASE] = {FAVO_DO_RESUME, FAVO_STEP_WAITING, FAVO_STEP_FAILED, true},
	[FAVO_STEP_GIVE_UP] = {FAVO_DO_RESUME, FAVO_STEP_FAILED, FAVO_STEP_FAILED, true},
};

const char *favo_rollout_step_name(enum favo_rollout_step step)
{
	return step_names[step];
}

const char *favo_rollout_state_name(enum favo_rollout_state state)
{
	return state_names[state];
}

int favo_rollout_step_parse(enum favo_rollout_step *out, const char *text)
{
	for (int i = 0; i < FAVO_STEPS; i++) {
		if (strcmp(text, step_names[i]) == 0) {
			*out = (enum favo_rollout_step)i;
			return 0;
		}
	}
	return -EINVAL;
}

int favo_rollout_state_parse(enum favo_rollout_state *out, const char *text)
{
	for (int i = 0; i < FAVO_ROLLOUT_STATES; i++) {
		if (strcmp(text, state_names[i]) == 0) {
			*out = (enum favo_rollout_state)i;
			return 0;
		}
	}
	return -EINVAL;
}

void favo_rollout_free(struct favo_rollout *r)
{
	if (!r)
		return;
	for (size_t i = 0; r->nodes && i < r->n; i++) {
		free(r->nodes[i].name);
		free(r->nodes[i].image);
		free(r->nodes[i].former);
		free(r->nodes[i].mark);
	}
	free(r->nodes);
	free(r);
}

bool favo_rollout_is_final(enum favo_rollout_step step)
{
	return step == FAVO_STEP_DONE || step == FAVO_STEP_SKIPPED ||
	       step == FAVO_STEP_FAILED;
}

/* The step alone does not tell for one that failed: pinning is what leaves a mark. */
bool favo_rollout_touched(const struct favo_rollout_node *node)
{
	switch (node->step) {
	case FAVO_STEP_REBOOT:
	case FAVO_STEP_BOOTING:
	case FAVO_STEP_HEALTH:
	case FAVO_STEP_RESUME:
	case FAVO_STEP_DONE:
		return true;
	case FAVO_STEP_FAILED:
		return node->mark != NULL;
	default:
		return false;
	}
}

static bool is_idle(enum favo_rollout_step step)
{
	return step == FAVO_STEP_WAITING || favo_rollout_is_final(step);
}

bool favo_rollout_is_live(const struct favo_rollout *r)
{
	if (r->state == FAVO_ROLLOUT_RUNNING)
		return true;
	for (size_t i = 0; i < r->n; i++)
		if (!is_idle(r->nodes[i].step))
			return true;
	return false;
}

size_t favo_rollout_wave(const struct favo_rollout_rules *rules, size_t node)
{
	if (node < rules->canaries)
		return 0;
	return 1 + (node - rules->canaries) / rules->batch;
}

static void set_note(struct favo_rollout_node *node, const char *note)
{
	snprintf(node->note, sizeof(node->note), "%s", note ? note : "");
	node->dirty = true;
}

static void move(struct favo_rollout_node *node, enum favo_rollout_step step, int64_t now)
{
	node->step = step;
	node->since = now;
	node->next = now;
	node->dirty = true;
	/* From here on the node boots the new image, whatever it is that reboots it. */
	if (step == FAVO_STEP_REBOOT)
		node->pin = true;
}

static void set_state(struct favo_rollout *r, enum favo_rollout_state state,
		      const char *reason)
{
	r->state = state;
	snprintf(r->reason, sizeof(r->reason), "%s", reason);
	r->dirty = true;
}

static uint64_t count_failed(const struct favo_rollout *r, size_t *first)
{
	uint64_t failed = 0;

	for (size_t i = 0; i < r->n; i++) {
		if (r->nodes[i].step != FAVO_STEP_FAILED &&
		    r->nodes[i].step != FAVO_STEP_GIVE_UP)
			continue;
		if (!failed++)
			*first = i;
	}
	return failed;
}

/* Too many failures, or one among the canaries. */
static void judge(struct favo_rollout *r)
{
	char reason[FAVO_ROLLOUT_NOTE];
	size_t first = 0;
	uint64_t failed = count_failed(r, &first);

	if (r->state != FAVO_ROLLOUT_RUNNING || failed <= r->rules.forgiven)
		return;
	if (first < r->rules.canaries && !r->rules.forgiven) {
		snprintf(reason, sizeof(reason), "canary %s failed: %.300s",
			 r->nodes[first].name, r->nodes[first].note);
		set_state(r, FAVO_ROLLOUT_STOPPED, reason);
	} else if (failed - r->rules.forgiven > r->rules.budget) {
		snprintf(reason, sizeof(reason),
			 "%" PRIu64 " nodes failed, %" PRIu64
			 " may; the first was %s: %.200s",
			 failed - r->rules.forgiven, r->rules.budget,
			 r->nodes[first].name, r->nodes[first].note);
		set_state(r, FAVO_ROLLOUT_STOPPED, reason);
	}
}

/* Nodes start in their order, wave by wave. */
static void admit(struct favo_rollout *r, int64_t now)
{
	uint64_t working = 0;
	size_t wave = SIZE_MAX;

	for (size_t i = 0; i < r->n; i++) {
		enum favo_rollout_step step = r->nodes[i].step;

		working += !is_idle(step);
		/* the wave of the first node that is not through */
		if (wave == SIZE_MAX && !favo_rollout_is_final(step))
			wave = favo_rollout_wave(&r->rules, i);
	}
	for (size_t i = 0; i < r->n && working < r->rules.concurrency; i++) {
		if (r->nodes[i].step != FAVO_STEP_WAITING)
			continue;
		if (favo_rollout_wave(&r->rules, i) != wave)
			return;
		set_note(&r->nodes[i], NULL);
		move(&r->nodes[i], FAVO_STEP_DRAIN, now);
		working++;
	}
}

/* Who was not rebooted yet goes back to work. */
static void release(struct favo_rollout *r, int64_t now)
{
	for (size_t i = 0; i < r->n; i++) {
		struct favo_rollout_node *node = &r->nodes[i];

		if (!node->busy &&
		    (node->step == FAVO_STEP_DRAIN || node->step == FAVO_STEP_DRAINING))
			move(node, FAVO_STEP_RELEASE, now);
	}
}

static void finish(struct favo_rollout *r)
{
	char reason[FAVO_ROLLOUT_NOTE];
	uint64_t done = 0, failed = 0, skipped = 0;

	for (size_t i = 0; i < r->n; i++) {
		done += r->nodes[i].step == FAVO_STEP_DONE;
		failed += r->nodes[i].step == FAVO_STEP_FAILED;
		skipped += r->nodes[i].step == FAVO_STEP_SKIPPED;
	}
	if (done + failed + skipped < r->n)
		return;
	snprintf(reason, sizeof(reason),
		 "%" PRIu64 " done, %" PRIu64 " failed, %" PRIu64 " skipped", done,
		 failed, skipped);
	set_state(r, FAVO_ROLLOUT_DONE, reason);
}

static void decide(struct favo_rollout *r, int64_t now)
{
	judge(r);
	if (r->state == FAVO_ROLLOUT_RUNNING) {
		admit(r, now);
		finish(r);
	} else {
		release(r, now);
	}
}

bool favo_rollout_next(struct favo_rollout *r, int64_t now,
		       struct favo_rollout_todo *todo)
{
	decide(r, now);
	for (size_t i = 0; i < r->n; i++) {
		struct favo_rollout_node *node = &r->nodes[i];

		if (node->busy || !table[node->step].acts || node->next > now)
			continue;
		node->busy = true;
		todo->node = i;
		todo->action = table[node->step].action;
		return true;
	}
	return false;
}

/* NOT_YET: until the step has taken too long. */
static void not_yet(const struct favo_rollout *r, struct favo_rollout_node *node,
		    const char *note, int64_t now)
{
	bool draining = node->step == FAVO_STEP_DRAINING;
	uint64_t limit = draining ? r->rules.drain_s : r->rules.boot_s;
	char text[FAVO_ROLLOUT_NOTE];

	node->next = now + POLL_S;
	if (now - node->since < (int64_t)limit) {
		if (note && strcmp(note, node->note) != 0)
			set_note(node, note);
		return;
	}
	snprintf(text, sizeof(text), "%s within %" PRIu64 " s%s%.200s",
		 draining ? "its jobs did not end" : "it did not come up", limit,
		 note && *note ? ": " : "", note ? note : "");
	set_note(node, text);
	move(node, table[node->step].failed, now);
}

void favo_rollout_done(struct favo_rollout *r, size_t i, enum favo_rollout_result result,
		       const char *note, int64_t now)
{
	struct favo_rollout_node *node = &r->nodes[i];
	const struct transition *t = &table[node->step];

	node->busy = false;
	if (!t->acts)
		return; /* taken over meanwhile, by undo */
	switch (result) {
	case FAVO_RESULT_OK:
		/* who gives up keeps the word on why */
		if (node->step != FAVO_STEP_GIVE_UP)
			set_note(node, note);
		move(node, t->ok, now);
		break;
	case FAVO_RESULT_NOT_YET:
		not_yet(r, node, note, now);
		break;
	case FAVO_RESULT_ALREADY:
		set_note(node, note);
		move(node, FAVO_STEP_DONE, now);
		node->pin = true;
		break;
	case FAVO_RESULT_SKIP:
		set_note(node, note);
		move(node, FAVO_STEP_SKIPPED, now);
		break;
	case FAVO_RESULT_FAILED:
		if (node->step != FAVO_STEP_GIVE_UP)
			set_note(node, note ? note : "failed");
		move(node, t->failed, now);
		break;
	}
	decide(r, now);
}

int64_t favo_rollout_wake(const struct favo_rollout *r)
{
	int64_t wake = INT64_MAX;

	for (size_t i = 0; i < r->n; i++)
		if (!r->nodes[i].busy && table[r->nodes[i].step].acts)
			wake = FAVO_MIN(wake, r->nodes[i].next);
	return wake;
}

int favo_rollout_pause(struct favo_rollout *r, struct favo_err *err)
{
	if (r->state != FAVO_ROLLOUT_RUNNING)
		return favo_fail(err, EINVAL, "rollout %" PRId64 " is %s, not running",
				 r->id, state_names[r->state]);
	set_state(r, FAVO_ROLLOUT_PAUSED, "by an admin");
	return 0;
}

int favo_rollout_resume(struct favo_rollout *r, struct favo_err *err)
{
	size_t first;

	if (r->state != FAVO_ROLLOUT_PAUSED && r->state != FAVO_ROLLOUT_STOPPED)
		return favo_fail(err, EINVAL,
				 "rollout %" PRId64 " is %s, neither paused nor stopped",
				 r->id, state_names[r->state]);
	r->rules.forgiven = count_failed(r, &first);
	set_state(r, FAVO_ROLLOUT_RUNNING, "");
	return 0;
}

void favo_rollout_set_undone(struct favo_rollout *r, int64_t by, int64_t now)
{
	char reason[FAVO_ROLLOUT_NOTE];

	for (size_t i = 0; i < r->n; i++) {
		struct favo_rollout_node *node = &r->nodes[i];

		if (is_idle(node->step) || !favo_rollout_touched(node))
			continue;
		set_note(node, "left to undo");
		move(node, FAVO_STEP_FAILED, now);
	}
	snprintf(reason, sizeof(reason), "by rollout %" PRId64, by);
	set_state(r, FAVO_ROLLOUT_UNDONE, reason);
}
