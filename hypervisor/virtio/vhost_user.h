/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Queues served by another process: the front end of the vhost-user protocol
 * (docs/interop/vhost-user.rst of QEMU), as much of it as a device without
 * device-specific messages needs. The back end gets the guest's memory as
 * descriptors, and each queue's eventfds, as vhost.h gives them to the kernel.
 *
 * The other process is trusted as far as guest memory goes, and with nothing
 * else: it cannot make this one wait for long, and when it goes away the device
 * asks the driver for a reset.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/loop.h"

struct favo_virtio;

struct favo_vhost_user {
	int fd; /* owned; -1: not there */
	uint64_t features; /* what the back end offers, with bit 30 (PROTOCOL) */
	uint64_t protocol;
	unsigned nqueues;
	bool started, gone;
	int no_call_fd;
	struct favo_watch watch; /* for the end of the connection */
	struct favo_virtio *dev;
};

/*
 * Take over a connected socket and agree on the protocol. Zero vu and set vu->fd
 * to -1 before. ETIMEDOUT: no answer within two seconds.
 */
int favo_vhost_user_init(struct favo_vhost_user *vu, struct favo_virtio *dev, int fd,
			 unsigned nqueues, struct favo_loop *loop, struct favo_err *err);
void favo_vhost_user_fini(struct favo_vhost_user *vu);

/* Hand over the enabled queues, and take them back with their place in the rings. */
int favo_vhost_user_start(struct favo_vhost_user *vu, uint64_t features,
			  struct favo_err *err);
void favo_vhost_user_stop(struct favo_vhost_user *vu);
