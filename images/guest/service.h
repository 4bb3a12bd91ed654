/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The agent proper: accepts the host's connections, serves their requests,
 * and takes the Slurm commands of the job's processes. Runs in favo-init
 * after the guest is set up, and in an ordinary process for tests. One thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"
#include "images/guest/agent.h"
#include "images/guest/loop.h"

struct favo_service_config {
	uint8_t secret[FAVO_AGENT_SECRET_SIZE];
	uid_t uid; /* of the job: all processes run as it */
	gid_t gid;
	bool switch_ids;
	const char *home;
	const char *cgroup_root; /* NULL: no cgroups */
	const char *command_socket; /* NULL: no Slurm commands from inside */
	const char *command_dir;
	void (*shutdown)(void *user, enum favo_shutdown how);
	void *user;
};

struct favo_service;
/* listen_fd is taken over; vsock peers other than the host are turned away. */
int favo_service_new(struct favo_service **out, struct favo_loop *loop, int listen_fd,
		     const struct favo_service_config *config,
		     struct favo_err *err) favo_must_check;
void favo_service_free(struct favo_service *svc);
/* From a SIGCHLD handler on the loop: reap all children that ended. */
void favo_service_reap(struct favo_service *svc);
