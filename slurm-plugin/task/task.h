/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of favo-task; private to this folder. One thread. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "images/guest/loop.h"
#include "images/guest/run.h"

/* What Slurm told this task through its environment. */
struct favo_task {
	const char *node; /* name of this node */
	const char *socket; /* of the node agent */
	uint64_t job;
	const char *step; /* "batch" or a number */
	uint64_t task; /* rank in the step */
	uint64_t local; /* rank on this node: 0 speaks for all */
	const char *program;
	char **argv; /* argv[0] is this program's own */
	int pmi_fd; /* PMI-1 or PMI-2, -1 */
	bool sandbox; /* no Slurm commands for the guest */
	int pmix_port; /* of the PMIx server on 127.0.0.1, 0 */
};

/* env.c: environment of the process in the guest, and its relays. */
int favo_task_env(struct favo_run *run, struct favo_task *task, char *const *env,
		  struct favo_err *err) favo_must_check;
/* Environment of a Slurm command on the host that a guest process asked for. */
int favo_task_command_env(char ***out, char *const *host, char *const *guest,
			  struct favo_err *err) favo_must_check;

/*
 * attach.c: wait until the node agent hands out the agent's stream. Runs the
 * loop. A failure of the cluster is -ECANCELED and a sentence that is ready
 * for the user.
 */
int favo_task_attach(int *out, char vm[64], struct favo_loop *loop,
		     struct favo_task *task, bool progress, int timeout_ms,
		     struct favo_err *err) favo_must_check;
