/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What favo-noded must know again after its own crash, as files.
 *
 *   RUN_DIR/job/<job>                  one per job, on tmpfs, 0600
 *   STATE_DIR/vm/<job>.<index>/state.json   one per VM, 0600
 *
 * Both are JSON, replaced as a whole. Loading trusts nothing: a file that is
 * not exactly what was saved is -EBADMSG. Functions block on the disk; an
 * object belongs to one thread (the caller's lock).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "provision/noded/timeline.h"

/* Why a job has no VM; empty phase: it did not fail. */
struct favo_failure {
	char phase[16];
	char cause[400];
	char remedy[200];
};

struct favo_job_state {
	uint32_t job;
	uint32_t restart;
	uid_t uid;
	gid_t gid;
	char *nodelist;
	char *node;
	char *grant;
	char *mounts; /* --vm-mount */
	char *workdir;
	bool sandbox;
	/* The first boot request. */
	bool boot_asked;
	uint64_t mem_mb;
	unsigned int ncpus;
	char *cores;
	struct favo_timeline timeline;
	struct favo_failure failure;
};

/* A VM's process; pid 0: not started yet. */
struct favo_vm_state {
	uint32_t job;
	uint32_t index;
	uid_t uid;
	char node[256];
	char boot_id[37]; /* of the node's kernel */
	pid_t pid;
	uint64_t start_time; /* field 22 of /proc/PID/stat: makes pid unique */
	uint32_t cid;
	uint64_t mem_mb;
	uint32_t cpus;
	char digest[72]; /* image; its pin is held as "<job>.<index>" */
};

int favo_job_state_save(const struct favo_job_state *s, const char *path,
			struct favo_err *err);
int favo_job_state_load(struct favo_job_state *s, const char *path, struct favo_err *err);
void favo_job_state_fini(struct favo_job_state *s);

int favo_vm_state_save(const struct favo_vm_state *s, const char *path,
		       struct favo_err *err);
int favo_vm_state_load(struct favo_vm_state *s, const char *path, struct favo_err *err);

/* "12" of a job's file, "12.0" of a VM's directory; false for any other name. */
bool favo_job_name_parse(const char *name, uint32_t *job);
bool favo_vm_name_parse(const char *name, uint32_t *job, uint32_t *index);
