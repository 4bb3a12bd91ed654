/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Start of favo-vmm and its helpers as the job's user with exactly the descriptors that it
 * is meant to have, and what is known of its process afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "provision/noded/cgroup.h"

#define FAVO_LAUNCH_FD0 3 /* fds[i] becomes descriptor 3 + i of the program */

struct favo_launch {
	const char *path;
	char *const *argv;
	const int *fds;
	size_t nfds;
	int log_fd; /* stdout and stderr */
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t ngroups;
	const struct favo_job_cgroup *cgroup; /* NULL: stays in the caller's */
	uint64_t nofile; /* limit of open files; 0: the daemon's */
	const char *cores; /* bind to these CPUs where it can be done; may be "" */
	bool die_with_us; /* is killed when the calling thread ends */
};

struct favo_process {
	pid_t pid;
	uint64_t start_time;
	int pidfd;
};

/*
 * Fork the program up to a gate behind which it execs; it is in its cgroup
 * already. *gate is the descriptor to open it with. The caller saves what it
 * must know, then calls favo_launch_go(); closing the gate (or dying) ends
 * the child instead. It is a session leader and a child of the caller.
 */
int favo_launch_begin(const struct favo_launch *launch, struct favo_process *process,
		      int *gate, struct favo_err *err);

/* Let it exec; -errno of a failed exec or set-up step, named. Closes *gate. */
int favo_launch_go(int *gate, const char *path, struct favo_err *err);

/* Start time of a process, or 0 when there is none (zombies count as gone). */
uint64_t favo_process_start_time(pid_t pid);

/*
 * Open a process that was started in an earlier life of the daemon; -ESRCH
 * when the pid is free or belongs to another process by now.
 */
int favo_process_adopt(struct favo_process *process, pid_t pid, uint64_t start_time,
		       struct favo_err *err);

/* Wait for and reap a child that is about to end. */
void favo_process_reap(const struct favo_process *process);

/* Wait for its end; true when it is gone. Reaps nothing. */
bool favo_process_wait(const struct favo_process *process, int timeout_ms);
