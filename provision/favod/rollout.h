/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rollout of an image over nodes: the decisions. Pure: no I/O and no clock;
 * the caller brings what happened and the time in seconds, carries out the
 * actions that it is given, and stores what is marked dirty before it asks for
 * the next one. docs/rollout.md tells how it works.
 *
 *	while (favo_rollout_next(r, now, &todo)) carry todo out elsewhere;
 *	favo_rollout_done(r, todo.node, result, note, now);
 *
 * Nothing but what is stored counts: after a restart every action that was
 * under way is asked for again, so actions must be repeatable. One thread at a
 * time.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Where a node is. The names are stored: favo_rollout_step_name(). */
enum favo_rollout_step {
	FAVO_STEP_WAITING,
	FAVO_STEP_DRAIN, /* being taken out of Slurm */
	FAVO_STEP_DRAINING, /* jobs on it still run */
	FAVO_STEP_REBOOT, /* its image is set; about to be rebooted */
	FAVO_STEP_BOOTING,
	FAVO_STEP_HEALTH,
	FAVO_STEP_RESUME, /* good; being given back to Slurm */
	FAVO_STEP_RELEASE, /* never rebooted; given back, then waiting */
	FAVO_STEP_GIVE_UP, /* never rebooted; given back, then failed */
	FAVO_STEP_DONE,
	FAVO_STEP_SKIPPED,
	FAVO_STEP_FAILED, /* stays drained if it was rebooted */
	FAVO_STEPS,
};

enum favo_rollout_state {
	FAVO_ROLLOUT_RUNNING,
	FAVO_ROLLOUT_PAUSED, /* by an admin */
	FAVO_ROLLOUT_STOPPED, /* by itself */
	FAVO_ROLLOUT_UNDONE, /* its nodes belong to the rollout that undoes it */
	FAVO_ROLLOUT_DONE,
	FAVO_ROLLOUT_STATES,
};

/* What the caller does for a node; each is over after a bounded time. */
enum favo_rollout_action {
	FAVO_DO_DRAIN, /* OK; ALREADY: it runs the image; SKIP: not ours to touch */
	FAVO_DO_SEE_IDLE, /* OK; NOT_YET: jobs run */
	FAVO_DO_REBOOT, /* OK: it was told to reboot, or has */
	FAVO_DO_SEE_UP, /* OK: it came up anew with the right image; NOT_YET */
	FAVO_DO_HEALTH, /* OK */
	FAVO_DO_RESUME, /* OK */
};

enum favo_rollout_result {
	FAVO_RESULT_OK,
	FAVO_RESULT_NOT_YET,
	FAVO_RESULT_FAILED,
	FAVO_RESULT_ALREADY,
	FAVO_RESULT_SKIP,
};

#define FAVO_ROLLOUT_NOTE 400

struct favo_rollout_node {
	char *name;
	char *image; /* what it is to boot: "name:tag@digest" */
	char *former; /* what undo brings back, or NULL */
	char *mark; /* boot id before the reboot, or NULL */
	enum favo_rollout_step step;
	int64_t since; /* when it came to this step */
	char note[FAVO_ROLLOUT_NOTE];
	/* not stored */
	bool dirty;
	bool busy; /* an action is under way */
	bool pin; /* the image must be set in the same transaction */
	int64_t next; /* when to look again */
};

struct favo_rollout_rules {
	uint64_t canaries; /* nodes before all others; one failure stops */
	uint64_t batch; /* nodes of a wave; the next one waits for its end */
	uint64_t concurrency; /* nodes at work at a time */
	uint64_t budget; /* failures that do not stop it yet */
	uint64_t forgiven; /* failures before the last resume */
	uint64_t drain_s, boot_s; /* how long a node may take */
};

struct favo_rollout {
	int64_t id;
	struct favo_rollout_rules rules;
	enum favo_rollout_state state;
	char reason[FAVO_ROLLOUT_NOTE];
	bool dirty;
	size_t n;
	struct favo_rollout_node *nodes; /* in their order */
};

struct favo_rollout_todo {
	size_t node;
	enum favo_rollout_action action;
};

/*
 * Decide anew, and give one action that is due, marking its node busy. False:
 * nothing to do before favo_rollout_wake(). Store what is dirty before the
 * action starts.
 */
bool favo_rollout_next(struct favo_rollout *r, int64_t now,
		       struct favo_rollout_todo *todo);
/* What came of it; note says why for anything but OK (may be NULL). */
void favo_rollout_done(struct favo_rollout *r, size_t node,
		       enum favo_rollout_result result, const char *note, int64_t now);
/* When to ask again at the latest; INT64_MAX: only after an event. */
int64_t favo_rollout_wake(const struct favo_rollout *r);

/* Admins' commands; -EINVAL with a sentence when it is not the time for it. */
int favo_rollout_pause(struct favo_rollout *r, struct favo_err *err);
/* From paused or stopped; failures so far are forgiven. */
int favo_rollout_resume(struct favo_rollout *r, struct favo_err *err);
/* Nodes that were rebooted are left to the one that undoes it. */
void favo_rollout_set_undone(struct favo_rollout *r, int64_t by, int64_t now);

bool favo_rollout_is_final(enum favo_rollout_step step);
/* Did the rollout set this node's image? */
bool favo_rollout_touched(const struct favo_rollout_node *node);
/* Anything left to do for it? */
bool favo_rollout_is_live(const struct favo_rollout *r);
/* 0: canaries, 1: the first batch, ... */
size_t favo_rollout_wave(const struct favo_rollout_rules *rules, size_t node);

const char *favo_rollout_step_name(enum favo_rollout_step step);
const char *favo_rollout_state_name(enum favo_rollout_state state);
/* -EINVAL: no such name. */
int favo_rollout_step_parse(enum favo_rollout_step *out, const char *text);
int favo_rollout_state_parse(enum favo_rollout_state *out, const char *text);

/* Free what it holds, and it. */
void favo_rollout_free(struct favo_rollout *r);
static inline void favo_cleanup_rollout(struct favo_rollout **r)
{
	favo_rollout_free(*r);
}
#define favo_autorollout __attribute__((cleanup(favo_cleanup_rollout)))
