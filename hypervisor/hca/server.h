/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The program around the data plane: connections of favo-vmm processes, the
 * loop that polls and sleeps.
 */
#pragma once

#include <signal.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct favo_hca_server;

struct favo_hca_server_opts {
	int listen_fd; /* seqpacket, owned from now on; -1: only accept() below */
	int64_t spin_us; /* < 0: by the number of processors */
	bool once; /* end when the last connection ended */
};

int favo_hca_server_new(struct favo_hca_server **out,
			const struct favo_hca_server_opts *opts, struct favo_err *err);
void favo_hca_server_free(struct favo_hca_server *srv);
/* Serve a connected socket, which is owned from now on. */
int favo_hca_server_add(struct favo_hca_server *srv, int sock, struct favo_err *err);
/* Until *stop is set (by a signal handler) or, with once, the last VM left. */
int favo_hca_server_run(struct favo_hca_server *srv, volatile sig_atomic_t *stop,
			struct favo_err *err);
