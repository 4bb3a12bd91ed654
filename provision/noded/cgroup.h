/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The cgroup of a job's VMs on this node: a child "favo" of Slurm's own
 * cgroup of the job, so that Slurm's limits hold for the VMs. One interface
 * over the layouts of Slurm 22.05 with cgroup v1 and v2; a node without
 * Slurm's cgroup plugins gets the same directories made by us.
 *
 * Functions may block for two seconds on a lock that Slurm shares. A group
 * is plain data; two threads must not work on the same job at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

struct favo_job_cgroup {
	char root[256]; /* "/sys/fs/cgroup" */
	char node[256]; /* Slurm's name of this node */
	char base[128]; /* Slurm's directory below each hierarchy; "": find it */
	uid_t uid;
	uint32_t job;
};

struct favo_job_cgroup_limits {
	uint64_t mem_bytes; /* 0: no limit of our own */
	const char *cores; /* "0-1"; used where Slurm constrains none; may be "" */
	/* Slurm has an extern step for the job: be counted and suspended with it. */
	bool extern_step;
};

/*
 * Make the group, with its limits, in every controller that the node has.
 * Existing directories are used. -ENOTSUP: the node has no usable cgroups.
 */
int favo_job_cgroup_create(const struct favo_job_cgroup *cg,
			   const struct favo_job_cgroup_limits *limits,
			   struct favo_err *err);

/* Move a process into the group; call before it execs anything. */
int favo_job_cgroup_add(const struct favo_job_cgroup *cg, pid_t pid,
			struct favo_err *err);

/* How many processes of the group the kernel killed for lack of memory. */
uint64_t favo_job_cgroup_oom_kills(const struct favo_job_cgroup *cg);

/* Let a group that "scontrol suspend" froze go on, so that it can end. */
void favo_job_cgroup_thaw(const struct favo_job_cgroup *cg);

/* Is it frozen, by "scontrol suspend"? */
bool favo_job_cgroup_is_frozen(const struct favo_job_cgroup *cg);

/* Kill all that is in the group; true when it was empty. */
bool favo_job_cgroup_kill(const struct favo_job_cgroup *cg);

/*
 * Remove the group and those of Slurm's directories above it that are empty.
 * Absent is success; -EBUSY while a process is left in it.
 */
int favo_job_cgroup_remove(const struct favo_job_cgroup *cg, struct favo_err *err);

/*
 * Path of the group for a v1 controller, or for v2 with controller NULL.
 * Depth 0 is the group itself, 1 the job's directory, 2 the user's (v1) or
 * the scope (v2). Returns buf.
 */
char *favo_job_cgroup_path(const struct favo_job_cgroup *cg, const char *controller,
			   int depth, char *buf, size_t size);
