/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Serves run requests of the agent protocol: starts processes, pumps their
 * stdio, passes signals in and exits out, kills what a lost connection leaves
 * behind. favo-init serves the host with it, favo-task the guest. One thread.
 */
#pragma once

#include <stdbool.h>
#include <sys/types.h>

#include "common/err.h"
#include "images/guest/conn.h"
#include "images/guest/loop.h"
#include "images/guest/run.h"

/* What check() may choose; the callee takes both over. */
struct favo_choice {
	char *program; /* instead of a search for argv[0] on PATH */
	int fd; /* inherited by the program as it is, or -1 */
	bool stops_others; /* resume() is called at its end, however it ends */
};

struct favo_server_config {
	bool switch_ids; /* become the uid and gid of the request */
	bool relays; /* requests may ask for relays and files */
	const char *home; /* of the user; may be NULL */
	const char *cgroup_root; /* directory for cgroups of processes, or NULL */
	const char *command_dir; /* put in front of PATH with FAVO_RUN_COMMANDS */
	/*
	 * Policy: refuse with -errno and a sentence, or change the request and
	 * choose what is executed.
	 */
	int (*check)(void *user, struct favo_run *run, struct favo_choice *choice,
		     struct favo_err *err);
	void (*resume)(void); /* may be NULL */
	void *user;
};

struct favo_server;
int favo_server_new(struct favo_server **out, struct favo_loop *loop,
		    const struct favo_server_config *config,
		    struct favo_err *err) favo_must_check;
/* Kills what runs. */
void favo_server_free(struct favo_server *srv);

/* For favo_conn_ops.run: takes run over. */
void favo_server_run(struct favo_server *srv, struct favo_channel *ch,
		     struct favo_run *run);
/* From favo_conn_ops.lost: kills the processes of this connection. */
void favo_server_conn_lost(struct favo_server *srv, const struct favo_conn *conn);
/* A child ended, as wait(2) tells; other children than ours are ignored. */
void favo_server_reaped(struct favo_server *srv, pid_t pid, int wait_status);
/* Connection whose process has this session token (env FAVO_SESSION), or NULL. */
struct favo_conn *favo_server_find(const struct favo_server *srv, const char *session);
/* Processes that have not ended. */
size_t favo_server_running(const struct favo_server *srv);
