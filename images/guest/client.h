/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The process that stands for one which runs elsewhere: its stdio, terminal
 * and signals go there, the end there is its own end. favo-task stands on the
 * host for a task in the guest, a command link in the guest for a Slurm
 * command on the host. One per process: it takes over descriptors 0, 1, 2,
 * the terminal and all signals.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "images/guest/conn.h"
#include "images/guest/loop.h"
#include "images/guest/run.h"

struct favo_client;

struct favo_client_ops {
	/* It runs; note is "" or a sentence for the user. */
	void (*started)(void *user, const char *note);
	/* A child of ours may have ended (SIGCHLD). */
	void (*child)(void *user);
};

/*
 * Take the signals: from now on they are kept, and passed on once started.
 * Before favo_client_start() a terminating signal ends this process.
 */
int favo_client_new(struct favo_client **out, struct favo_loop *loop,
		    const struct favo_client_ops *ops, void *user,
		    struct favo_err *err) favo_must_check;

/*
 * Fill the parts of run that are our own process's: env is borrowed by the
 * caller's choice and not touched; cwd, umask, ids, groups, rlimits, pty and
 * window size are set.
 */
int favo_client_describe(struct favo_run *run, struct favo_err *err) favo_must_check;

/* Ask for run on conn and pump; the loop stops when it has ended. */
int favo_client_start(struct favo_client *c, struct favo_conn *conn,
		      const struct favo_run *run, struct favo_err *err) favo_must_check;

/* How it ended: NULL when the connection was lost, *reason says why. */
const struct favo_exit *favo_client_result(const struct favo_client *c,
					   const char **reason);

/* Give the terminal and descriptors back as they were. */
void favo_client_restore(struct favo_client *c);
void favo_client_free(struct favo_client *c);

/* Exit with the status, or die of the signal without a core dump. */
_Noreturn void favo_client_mirror(const struct favo_exit *ex);

/* Open /dev/null on those of 0, 1, 2 that are closed; close all from 3 on but keep. */
int favo_client_clean_fds(int keep, struct favo_err *err) favo_must_check;
