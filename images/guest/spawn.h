/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start a process as a run request says: descriptors, pseudo-terminal,
 * identity, limits, files, working directory. Does not wait for the exec;
 * its outcome arrives on a pipe. One thread per process (fork).
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"
#include "images/guest/run.h"

struct favo_spawn {
	const struct favo_run *run;
	char *const *env; /* instead of run->env */
	const char *program; /* instead of a search for argv[0] on PATH */
	const char *home; /* where to start when there is no run->cwd */
	const char *cgroup_dir; /* join it, or NULL */
	const int *keep; /* descriptors that the process inherits as they are */
	size_t n_keep;
	bool switch_ids; /* else the ids must be ours */
	bool keep_cwd; /* stay where we are when there is no run->cwd */
};

/* Our ends; all non-blocking and close-on-exec. */
struct favo_spawned {
	pid_t pid;
	int status; /* for favo_spawn_result() */
	int in, out, err; /* -1 where there is none; with a pty only in and out */
};

/* One line about the start: code 0 is a note, else an errno value. */
struct favo_spawn_report {
	int code;
	char text[508];
};

int favo_spawn(struct favo_spawned *out, const struct favo_spawn *spawn,
	       struct favo_err *err) favo_must_check;

/*
 * Next report from the status pipe: 1 and *report, 0 at the end (the program
 * runs, unless a report said otherwise), -EAGAIN when it is not decided yet.
 */
int favo_spawn_result(int status_fd, struct favo_spawn_report *report);
