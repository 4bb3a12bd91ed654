/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A disk image as devices see it: one file or block device, or a base that is
 * never written under a copy-on-write overlay.
 *
 * Requests end in any order by their done callback, called from
 * favo_disk_run() or favo_disk_wait(). One user at a time (the device's lock).
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/virtio/aio.h"
#include "hypervisor/virtio/overlay.h"

struct favo_disk;
struct favo_disk_req;

enum favo_disk_op {
	FAVO_DISK_READ,
	FAVO_DISK_WRITE,
	FAVO_DISK_FLUSH,
	FAVO_DISK_DISCARD,
	FAVO_DISK_ZERO,
};

typedef void favo_disk_fn(struct favo_disk_req *req, int result);

struct favo_disk_req {
	/* Set by the caller; the range lies in the disk, in whole sectors. */
	enum favo_disk_op op;
	uint64_t off, len;
	const struct iovec *data; /* len bytes, for READ and WRITE */
	unsigned ndata;
	struct iovec *scratch; /* room for ndata of them */
	bool may_unmap;
	bool durable; /* WRITE and ZERO end only when they are on the disk */
	favo_disk_fn *done;

	/* Private. */
	struct favo_io io;
	struct favo_disk *disk;
	struct favo_disk_req *next;
	unsigned phase;
	uint64_t pos;
	uint64_t first, last; /* clusters that an allocating request covers */
	uint64_t fill_off, fill_len;
	void *bounce;
	struct iovec bounce_iov;
	struct favo_overlay_page *pages;
	unsigned npages, page;
	uint64_t covers; /* a flush: writes up to this number are in it */
	int result;
};

struct favo_disk_opts {
	int fd; /* taken over */
	int overlay_fd; /* taken over; -1: none */
	bool readonly;
	bool temp; /* of no use after this VM: flushes need not reach the disk */
	bool uring; /* false forces the synchronous fallback */
	unsigned depth;
};

int favo_disk_open(struct favo_disk **out, const struct favo_disk_opts *opts,
		   struct favo_err *err);
/* Only when no request is under way. Flushes an overlay. */
void favo_disk_free(struct favo_disk *disk);

uint64_t favo_disk_size(const struct favo_disk *disk);
/* Bytes in which discard should be aligned. */
uint64_t favo_disk_grain(const struct favo_disk *disk);
bool favo_disk_is_uring(const struct favo_disk *disk);

void favo_disk_submit(struct favo_disk *disk, struct favo_disk_req *req);
void favo_disk_run(struct favo_disk *disk);
void favo_disk_wait(struct favo_disk *disk);
int favo_disk_event_fd(const struct favo_disk *disk); /* as favo_aio_fd() */
