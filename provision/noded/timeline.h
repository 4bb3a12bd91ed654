/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The time line of a VM's start: when each phase was reached, on the node's
 * monotonic clock (which all processes of the node share, so that a daemon
 * that was restarted goes on with it). Not thread-safe; nothing blocks.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum favo_phase {
	FAVO_PHASE_IMAGE, /* image complete on the node */
	FAVO_PHASE_BOOT, /* favo-vmm started */
	FAVO_PHASE_KERNEL, /* guest kernel runs pid 1 */
	FAVO_PHASE_ROOT, /* guest has its root file system */
	FAVO_PHASE_NETWORK, /* guest has its network */
	FAVO_PHASE_READY, /* agent takes tasks */
	FAVO_PHASE_TASK, /* first task attached */
	FAVO_PHASE_COUNT,
};

struct favo_timeline {
	int64_t start_ms; /* prepare, monotonic */
	int64_t start_unix_ms; /* the same on the wall clock */
	int64_t reached_ms[FAVO_PHASE_COUNT]; /* monotonic; 0: not yet */
};

void favo_timeline_start(struct favo_timeline *t, int64_t now_ms, int64_t unix_ms);

/* Note that a phase was reached; the first time counts. True if it was news. */
bool favo_timeline_reach(struct favo_timeline *t, enum favo_phase phase, int64_t now_ms);

/*
 * The phase that is under way: the first one after the last that was reached.
 * A job that waits for its image is in phase image.
 */
enum favo_phase favo_timeline_current(const struct favo_timeline *t);

const char *favo_phase_name(enum favo_phase phase);
/* The phase of that name, or FAVO_PHASE_COUNT. */
enum favo_phase favo_phase_parse(const char *name);

/* {"start_unix_ms":..,"image_ms":..,...} with ms since start; new reference or NULL. */
json_t *favo_timeline_json(const struct favo_timeline *t);

/* For state files, where absolute times are kept. Load is -EINVAL on bad input. */
json_t *favo_timeline_save(const struct favo_timeline *t);
int favo_timeline_load(struct favo_timeline *t, const json_t *obj);
