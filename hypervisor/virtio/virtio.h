/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What all virtio devices share: life cycle, features, queues, interrupts, and
 * the PCI transport below them (virtio 1.2, sections 2.1-2.4, 3.1 and 4.1).
 *
 * A device embeds struct favo_virtio as its first member, fills the set-up
 * fields, and calls favo_virtio_add(). From then on it lives in its ops, each
 * called with dev->pci.lock held; a device's own loop callbacks take the lock by
 * favo_virtio_lock() and ask favo_virtio_running() before they touch a queue.
 *
 * start and stop come in pairs: start when the driver is ready (DRIVER_OK) and
 * the device may do DMA; stop at reset, when bus mastering goes off, and before
 * a snapshot. Between stop and the next start the queues keep their place, so a
 * stopped device can go on.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include <linux/virtio_config.h>
#include <linux/virtio_ids.h>

#include "hypervisor/loop.h"
#include "hypervisor/pci.h"
#include "hypervisor/virtio/virtqueue.h"

#define FAVO_VIRTIO_QUEUES_MAX 64
#define FAVO_VIRTIO_CONFIG_MAX 256
#define FAVO_VIRTIO_BIT(n) (1ULL << (n))

struct favo_virtio;

struct favo_virtio_ops {
	const char *name; /* "blk"; also the name on the PCI bus */
	uint16_t id; /* VIRTIO_ID_* */
	uint32_t class_code;

	/*
	 * Features and queues are final. A failure shows to the driver as
	 * DEVICE_NEEDS_RESET. Optional.
	 */
	int (*start)(struct favo_virtio *dev, struct favo_err *err);
	/*
	 * Take nothing more from the queues. True when no request is under way
	 * any more; else the device calls favo_virtio_stopped() once the last
	 * one ended. With wait set it blocks until then and returns true.
	 * Optional: a device that ends all requests in kick has nothing to do.
	 */
	bool (*stop)(struct favo_virtio *dev, bool wait);
	/* The driver's notification of queue q, in the loop's thread. */
	void (*kick)(struct favo_virtio *dev, unsigned q);
	/* After the driver wrote dev->config[off..off+len). Optional. */
	void (*config_written)(struct favo_virtio *dev, unsigned off, unsigned len);
	void (*stats)(struct favo_virtio *dev, json_t *object); /* optional */
	/*
	 * May this byte of the device configuration be another one after a restore?
	 * Without it the configuration must be equal. Optional.
	 */
	bool (*may_differ)(const struct favo_virtio *dev, unsigned off);
	/* State beyond queues, features and config, device stopped. Optional. */
	int (*save)(struct favo_virtio *dev, struct favo_state_out *out,
		    struct favo_err *err);
	int (*load)(struct favo_virtio *dev, struct favo_state_in *in,
		    struct favo_err *err);
	/* Release what the device owns, and the struct itself. Takes half-built ones. */
	void (*free)(struct favo_virtio *dev);
};

struct favo_virtio_queue {
	struct favo_vq vq;
	struct favo_virtio *dev;
	struct favo_watch watch;
	int kick_fd; /* eventfd that the driver's notification signals */
	uint16_t vector;
	uint64_t kicks, interrupts;
};

struct favo_virtio {
	struct favo_pci_device pci;
	const struct favo_virtio_ops *ops;
	struct favo_loop *loop;
	struct favo_memory *mem;

	/* Set-up: before favo_virtio_add(). */
	uint64_t offered; /* features, without the transport's own */
	unsigned nqueues;
	uint16_t queue_size; /* maximum, a power of two */
	unsigned config_len;
	uint8_t config[FAVO_VIRTIO_CONFIG_MAX]; /* device configuration, little-endian */
	uint64_t external; /* bit per queue that somebody else serves (vhost) */
	uint64_t ring_features; /* and what that one can do with rings */

	/* The driver's side. */
	uint8_t status;
	uint64_t features; /* accepted */
	uint32_t device_feature_select, driver_feature_select;
	uint16_t queue_select;
	uint16_t config_vector;
	uint8_t isr;
	uint8_t generation;
	uint8_t pci_cfg_cap; /* offset of the configuration access window */

	bool running; /* between start and stop */
	bool stopping; /* stop answered false */
	bool resetting; /* the driver waits for status to become 0 */
	bool paused; /* held for a snapshot */
	bool restored; /* and not yet started again */
	bool on_pci; /* favo_pci_init() was done */
	const char *why; /* why it needs a reset; a constant, or NULL */
	uint64_t failures;
	struct favo_virtio_queue *queues; /* nqueues of them */
};

/* ---- for devices ------------------------------------------------------ */

/*
 * Build the transport around dev for vm and hand it to the PCI bus. On failure
 * the caller still owns dev and calls ops->free.
 */
int favo_virtio_add(struct favo_virtio *dev, struct favo_vm *vm,
		    const struct favo_virtio_ops *ops, struct favo_err *err);
/* The part of ops->free that undoes favo_virtio_add(); takes half-built ones. */
void favo_virtio_fini(struct favo_virtio *dev);

static inline void favo_virtio_lock(struct favo_virtio *dev)
{
	pthread_mutex_lock(&dev->pci.lock);
}

static inline void favo_virtio_unlock(struct favo_virtio *dev)
{
	pthread_mutex_unlock(&dev->pci.lock);
}

static inline bool favo_virtio_running(const struct favo_virtio *dev)
{
	return dev->running && !dev->why;
}

static inline bool favo_virtio_has(const struct favo_virtio *dev, unsigned feature)
{
	return dev->features & FAVO_VIRTIO_BIT(feature);
}

static inline struct favo_vq *favo_virtio_vq(struct favo_virtio *dev, unsigned q)
{
	return &dev->queues[q].vq;
}

/*
 * To be called after a turn on queue q: interrupts the driver if there is something
 * new that it wants to know, and fails the device if the queue broke.
 */
void favo_virtio_interrupt(struct favo_virtio *dev, unsigned q);
/* dev->config was changed: new generation, configuration interrupt. */
void favo_virtio_config_changed(struct favo_virtio *dev);
/* Unrecoverable for the driver without a reset; why is a constant. */
void favo_virtio_fail(struct favo_virtio *dev, const char *why);
/* The last request ended after stop returned false. */
void favo_virtio_stopped(struct favo_virtio *dev);
/* Have kick(q) called again soon, after others had their turn. */
void favo_virtio_requeue(struct favo_virtio *dev, unsigned q);

/* ---- between life cycle and transport --------------------------------- */

void favo_virtio_set_status(struct favo_virtio *dev, uint8_t status);
/* Start if everything allows it, stop (waiting) if it does not any more. */
void favo_virtio_update(struct favo_virtio *dev);
/* To power-on state at once, waiting for requests under way. */
void favo_virtio_reset(struct favo_virtio *dev);
/* state.c: hold still or go on, write down, take over (and stay paused). */
void favo_virtio_pause(struct favo_virtio *dev, bool pause);
int favo_virtio_save(struct favo_virtio *dev, struct favo_state_out *out,
		     struct favo_err *err);
int favo_virtio_load(struct favo_virtio *dev, struct favo_state_in *in,
		     struct favo_err *err);
int favo_virtio_transport_add(struct favo_virtio *dev, struct favo_vm *vm,
			      struct favo_err *err);
void favo_virtio_transport_fini(struct favo_virtio *dev);
