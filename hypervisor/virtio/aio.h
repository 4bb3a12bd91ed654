/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * File operations that end later: io_uring where the kernel and the seccomp
 * filter of the site allow it, else pread/pwrite in the caller's thread.
 *
 * One user at a time (the device's lock). Operations are queued by
 * favo_aio_queue() and start with favo_aio_run(), which also calls done for
 * whatever has ended; done may queue more, which run() takes along. When
 * favo_aio_fd() becomes readable, something ended: call run() again.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "common/err.h"

struct favo_aio;
struct favo_io;

enum favo_io_op {
	FAVO_IO_READ, /* short at the end of the file: the rest becomes zeros */
	FAVO_IO_WRITE,
	FAVO_IO_SYNC, /* fdatasync */
	FAVO_IO_PUNCH, /* give [off, off + len) back; reads as zeros or stays */
	FAVO_IO_ZERO, /* [off, off + len) reads as zeros afterwards */
};

/* result: 0 or -errno. Everything that was asked for is done, or it is an error. */
typedef void favo_io_fn(struct favo_io *io, int result);

struct favo_io {
	enum favo_io_op op;
	int fd;
	uint64_t off, len;
	struct iovec *iov; /* used up on the way; READ and WRITE only */
	unsigned niov;
	bool may_unmap; /* ZERO may leave a hole */
	favo_io_fn *done;

	/* Private. */
	struct favo_io *next;
	struct iovec zero;
	bool by_writing; /* ZERO that the file system does not know */
	int result;
};

/* depth: operations that may be under way at once. uring false forces the fallback. */
int favo_aio_new(struct favo_aio **out, unsigned depth, bool uring, struct favo_err *err);
/* Only when nothing is under way. */
void favo_aio_free(struct favo_aio *aio);

bool favo_aio_is_uring(const struct favo_aio *aio);
/*
 * To be watched for EPOLLIN | EPOLLET: it is never read, each end of something is
 * an edge. -1 for the fallback, which never has anything late.
 */
int favo_aio_fd(const struct favo_aio *aio);

void favo_aio_queue(struct favo_aio *aio, struct favo_io *io);
void favo_aio_run(struct favo_aio *aio);
/* Like run, but blocks until something ended, if anything is under way. */
void favo_aio_wait(struct favo_aio *aio);
