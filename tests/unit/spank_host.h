/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A host for SPANK plugins: the part of Slurm that a plugin sees, made of one
 * struct in memory that a forked child shares with the test.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include <slurm/spank.h>

#define HOST_OPTS 16
#define HOST_ENV 32

struct host_var {
	char name[128];
	char value[8192];
};

struct spank_host {
	spank_context_t ctx;
	/* items; an item that the context does not have is answered with an error */
	bool has_job, has_step, has_task;
	uint32_t job, step;
	uid_t uid;
	gid_t gid;
	uint64_t mem;
	uint16_t ncpus;
	char cores[8192];
	int task, argc;
	char words[4][128];
	char *argv[5];
	/* what the plugin did */
	unsigned int options;
	char option_names[HOST_OPTS][64];
	int option_vals[HOST_OPTS];
	struct host_var env[HOST_ENV]; /* of the job */
	struct host_var control[HOST_ENV]; /* of prolog and epilog */
	char log[16384]; /* slurm_error() */
	char argv0[256]; /* of the task, after the hook */
};

/* The one host of the process, in shared memory; cleared by host_reset(). */
extern struct spank_host *host;

void host_reset(spank_context_t ctx);
const char *host_get(struct host_var *vars, const char *name);
void host_set(struct host_var *vars, const char *name, const char *value);
/* Give an option as Slurm would; returns what the callback returns. */
int host_give(const char *option, const char *value);
