/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Queues served by the kernel: the part of the vhost ioctl interface
 * (linux/vhost.h) that all its devices share. A device embeds struct
 * favo_vhost, marks the queues external in struct favo_virtio, calls
 * favo_vhost_start() in its start op and favo_vhost_stop() in its stop op.
 *
 * The kernel gets the guest's memory table and each queue's kick eventfd; its
 * call eventfd is the irqfd of the queue's MSI-X vector, so that neither way
 * passes through this process.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/loop.h"

struct favo_virtio;

#define FAVO_VHOST_QUEUES_MAX 32

struct favo_vhost {
	int fd; /* owned; -1: not there */
	uint64_t features; /* what the kernel offers */
	unsigned nqueues; /* the first ones of the device */
	bool started;
	int no_call_fd; /* signalled for queues without a vector; nobody listens */
	int error_fd; /* the kernel gave up on a queue */
	struct favo_watch error_watch;
	struct favo_virtio *dev;
};

/*
 * Take over an opened vhost device, make this process its owner, and read its
 * features. Zero vhost and set vhost->fd to -1 before.
 */
int favo_vhost_init(struct favo_vhost *vhost, struct favo_virtio *dev, int fd,
		    unsigned nqueues, struct favo_loop *loop, struct favo_err *err);
void favo_vhost_fini(struct favo_vhost *vhost);

/* Hand the enabled queues to the kernel. It works on them once its back end is set. */
int favo_vhost_start(struct favo_vhost *vhost, uint64_t features, struct favo_err *err);
/*
 * Take the queues back, with their place in the rings. The back end must have
 * been taken off before.
 */
void favo_vhost_stop(struct favo_vhost *vhost);
