/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File descriptors: whole reads and writes with a deadline, atomic file
 * replacement, unix sockets and descriptor passing (unix(7), SCM_RIGHTS).
 * All are thread-safe. Timeouts are in milliseconds; < 0 waits for ever.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

#define FAVO_MAX_FDS 16 /* most descriptors in one message */

/* Write all of buf; works on blocking and non-blocking fds. */
int favo_write_all(int fd, const void *buf, size_t len, int timeout_ms,
		   struct favo_err *err) favo_must_check;

/* Read exactly len bytes. End of file before that is -ENODATA. */
int favo_read_all(int fd, void *buf, size_t len, int timeout_ms,
		  struct favo_err *err) favo_must_check;

/*
 * Read a whole file of at most max bytes (more is -EFBIG). *out is
 * NUL-terminated one byte past *len, the caller frees it; len may be NULL.
 */
int favo_file_read(const char *path, size_t max, char **out, size_t *len,
		   struct favo_err *err) favo_must_check;

/*
 * Replace path by the given bytes: temporary file in the same directory,
 * fsync, rename, fsync of the directory. After a crash the old or the new
 * content is there, never a mixture.
 */
int favo_file_replace(const char *path, const void *buf, size_t len, mode_t mode,
		      struct favo_err *err) favo_must_check;

/* mkdir -p; existing directories are left as they are. */
int favo_mkdirs(const char *path, mode_t mode, struct favo_err *err) favo_must_check;

/* rm -rf, never following symlinks nor crossing mounts; absent is success. */
int favo_remove_tree(const char *path, struct favo_err *err) favo_must_check;

int favo_set_nonblock(int fd, bool on) favo_must_check;
int favo_set_cloexec(int fd, bool on) favo_must_check;

/*
 * Listen on a unix stream socket; a stale socket file is replaced. The new
 * descriptor is close-on-exec and non-blocking.
 */
int favo_unix_listen(int *out, const char *path, mode_t mode,
		     struct favo_err *err) favo_must_check;

/* Connect to a unix stream socket; blocking fd, close-on-exec. */
int favo_unix_connect(int *out, const char *path, int timeout_ms,
		      struct favo_err *err) favo_must_check;

/* Send len > 0 bytes with n descriptors; they stay open here. */
int favo_send_fds(int sock, const void *buf, size_t len, const int *fds, size_t n,
		  struct favo_err *err) favo_must_check;

/*
 * Receive up to len bytes; returns the count, 0 at end of file. Descriptors
 * are close-on-exec and owned by the caller; *n is their number, at most max.
 * Surplus descriptors are closed.
 */
ssize_t favo_recv_fds(int sock, void *buf, size_t len, int *fds, size_t max, size_t *n,
		      struct favo_err *err) favo_must_check;
