/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where console output goes: a descriptor that is never waited for.
 *
 * Bytes that a full pipe, a closed reader or a full disk does not take are
 * dropped and counted. A regular file is kept below a cap: at the cap its older
 * half goes if the descriptor can be read, else it ends with a line that says so.
 * One thread at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/err.h"

struct favo_sink {
	int fd; /* owned; -1: nowhere */
	bool is_file, is_socket, full;
	uint64_t size, cap; /* of a regular file, in bytes */
	uint64_t written, dropped;
};

/* Take over fd. Opens it anew without blocking where it is shared with others. */
int favo_sink_init(struct favo_sink *sink, int fd, uint64_t cap, struct favo_err *err);
void favo_sink_fini(struct favo_sink *sink);
void favo_sink_write(struct favo_sink *sink, const void *buf, size_t len);
