/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Device side of the split virtqueue (virtio 1.2, section 2.7) with indirect
 * descriptors and event index.
 *
 * The rings live in guest memory and the guest may change any byte at any
 * time. So each field is read once into a private copy, every address goes
 * through favo_guest_ptr(), every walk is bounded, and whatever breaks a rule
 * marks the queue broken: from then on pop returns -EIO and nothing more is
 * written to the rings until the driver resets the device.
 *
 * No locks here: the caller holds the lock of the device.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#include <linux/virtio_ring.h>

#include "common/err.h"
#include "hypervisor/memory.h"

/* Largest queue a device may offer, and longest chain that a device may take. */
#define FAVO_VQ_MAX_SIZE 1024
#define FAVO_VQ_MAX_SEGS 1024

struct favo_vq {
	struct favo_memory *mem;
	/* What the driver wrote; checked in favo_vq_start(). */
	uint64_t desc_gpa, avail_gpa, used_gpa;
	uint16_t size, max_size;
	bool enabled; /* the driver's queue_enable */

	/* Valid between start and stop. */
	bool started, broken;
	bool event_idx, indirect; /* negotiated features */
	const struct vring_desc *desc;
	const struct vring_avail *avail;
	struct vring_used *used;
	uint16_t last_avail; /* next entry of the available ring to take */
	uint16_t used_idx; /* next entry of the used ring to fill */
	uint16_t signalled; /* used_idx at the last notification decision */
	const char *why; /* what broke the queue; a constant */
	uint64_t requests; /* taken since the VM started */
};

/*
 * One request: iov[0..nout) is what the device reads, iov[nout..nout+nin) what
 * it may write. The caller sets iov and max_segs; the pointers stay valid as
 * long as the guest's memory does.
 */
struct favo_vq_req {
	struct iovec *iov;
	uint16_t max_segs;
	uint16_t head;
	uint16_t nout, nin;
	uint64_t out_len, in_len;
};

/* Forget all that a driver set; max_size stays. */
void favo_vq_reset(struct favo_vq *vq);

/*
 * Map the rings of an enabled queue. -EINVAL: size or alignment not allowed by
 * the specification, -EFAULT: a ring is not wholly in guest RAM. last_avail and
 * used_idx are kept, so a restored queue goes on where it was.
 */
int favo_vq_start(struct favo_vq *vq, uint64_t features);
void favo_vq_stop(struct favo_vq *vq);

/* Break the queue for a reason that only the device sees; why is a constant. */
int favo_vq_break(struct favo_vq *vq, const char *why);

/*
 * Take the next request. 1: req is filled. 0: none. -EIO: the queue is broken
 * (now or before). favo_vq_unpop() gives the last n popped ones back; legal
 * only if none of them, and none popped later, was used.
 */
int favo_vq_pop(struct favo_vq *vq, struct favo_vq_req *req);
void favo_vq_unpop(struct favo_vq *vq, uint16_t n);

/* True if the guest made requests available that were not taken yet. */
bool favo_vq_pending(const struct favo_vq *vq);

/*
 * Return requests to the driver. fill writes the used element at position
 * used_idx + at, flush makes count of them visible at once; push does both for
 * one. written is the number of bytes the device wrote to the request.
 */
void favo_vq_fill(struct favo_vq *vq, uint16_t head, uint32_t written, uint16_t at);
void favo_vq_flush(struct favo_vq *vq, uint16_t count);
void favo_vq_push(struct favo_vq *vq, uint16_t head, uint32_t written);

/*
 * Note for migration that the device wrote the first len bytes of iov; to be
 * called before the request is returned.
 */
void favo_vq_dirty(struct favo_vq *vq, const struct iovec *iov, size_t n, size_t len);

/* True if the driver wants an interrupt for what was flushed since last asked. */
bool favo_vq_need_interrupt(struct favo_vq *vq);

/*
 * Ask the driver to notify, or not to bother. enable returns true if requests
 * came in meanwhile, so that the caller must look again before it sleeps.
 */
bool favo_vq_enable_notify(struct favo_vq *vq);
void favo_vq_disable_notify(struct favo_vq *vq);

/*
 * Copy len bytes between buf and the iovec starting at offset off. Returns the
 * bytes copied, less than len when the iovec ends early. from_iov is a private
 * copy: the source is read exactly once.
 */
size_t favo_iov_read(const struct iovec *iov, size_t n, size_t off, void *buf,
		     size_t len);
size_t favo_iov_write(const struct iovec *iov, size_t n, size_t off, const void *buf,
		      size_t len);
/* Drop len bytes at the front (returns the number of leading iovecs used up). */
size_t favo_iov_skip(struct iovec *iov, size_t n, size_t len);
/* Keep only the first len bytes; returns the number of iovecs left. */
size_t favo_iov_trim(struct iovec *iov, size_t n, size_t len);
