/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Runs favo-task against favo-init without Slurm: starts the agent as an
 * ordinary process and a stand-in for the node agent. For one thread; what
 * fails, fails the cmocka test that called.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "images/guest/buf.h"

/* Jobs by what the stand-in does for them. */
#define JOB_OK "12"
#define JOB_ERROR "13"
#define JOB_SLOW "14"
#define JOB_CLOSE "15"

struct task {
	const char *job, *local, *program;
	const char *argv[6]; /* from argv[1] on */
	const char *env[4][2]; /* more variables */
	int keep_fd; /* stays open in it when > 2 */
};

struct result {
	int status;
	struct favo_buf out, err;
};

extern pid_t favo_e2e_noded_pid;
extern unsigned favo_e2e_guest_cid; /* 0: no guest, the agent is a process here */

/* cmocka's fixture of the group. */
int favo_e2e_set_up(void **state);
int favo_e2e_tear_down(void **state);

/* Path in the scratch folder; the caller frees it. */
char *favo_e2e_path(const char *name);
void favo_e2e_script(const char *name, const char *text);

/* Start a task with this stdio; the caller waits for it. */
pid_t favo_e2e_start(const struct task *t, int in, int out, int err);

/* Become favo-task; for a child that made its own stdio. */
_Noreturn void favo_e2e_exec(const struct task *t);

/* Run a task with this input to its end; output ends with a NUL. */
void favo_e2e_run(struct result *r, const struct task *t, const void *in, size_t len);
void favo_e2e_result_fini(struct result *r);
const char *favo_e2e_text(const struct favo_buf *b);
/* Move what there is from *fd to b; closes it and returns false at its end. */
bool favo_e2e_take(int *fd, struct favo_buf *b);

/* Run and compare exit code and both outputs. */
void favo_e2e_expect(const struct task *t, const char *in, int code, const char *out,
		     const char *err);
