/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What the files of the vmxnet3 device share. All of it is used with the
 * device's PCI lock held: by vCPU threads (registers) and the loop (frames).
 *
 * Rings are found and checked once, when the driver activates the device; their
 * pointers are good until it is deactivated. What they hold is read afresh, each
 * descriptor once and into a copy.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/uio.h>

#include "hypervisor/loop.h"
#include "hypervisor/pci.h"
#include "hypervisor/virtio/tap.h"

#define VMXNET3_QUEUES_MAX 8
#define VMXNET3_VECTORS 25
#define VMXNET3_HEADER 12 /* struct virtio_net_hdr_mrg_rxbuf of the tap */
#define VMXNET3_FRAME_MAX (65536 + 64)
#define VMXNET3_SEGS 64 /* descriptors of one frame */
#define VMXNET3_TURN 128 /* frames before other devices get their turn */

/* A ring of 16-byte descriptors and a place in it. */
struct vmxnet3_ring {
	uint8_t *base;
	uint32_t size, next;
	uint8_t gen; /* what a descriptor has that is the device's to take */
};

/* Counters in the order of UPT1_TxStats and UPT1_RxStats. */
enum {
	STAT_LRO_FRAMES, /* TSO frames when sending */
	STAT_LRO_BYTES,
	STAT_UNICAST,
	STAT_UNICAST_BYTES,
	STAT_MULTICAST,
	STAT_MULTICAST_BYTES,
	STAT_BROADCAST,
	STAT_BROADCAST_BYTES,
	STAT_NO_BUFFER, /* errors when sending */
	STAT_ERRORS, /* discarded when sending */
	STAT_COUNT,
};

struct vmxnet3_queue {
	struct vmxnet3_ring ring[2]; /* a transmit queue has one */
	struct vmxnet3_ring comp;
	uint8_t *desc; /* in guest memory: status and statistics go there */
	uint8_t vector;
	bool stopped; /* by an error, until the driver starts anew */
	uint64_t stats[STAT_COUNT];
};

struct vmxnet3 {
	struct favo_pci_device pci;
	struct favo_loop *loop;
	struct favo_memory *mem;
	struct favo_tap tap;
	struct favo_watch tap_watch, kick_watch;
	struct favo_timer retry; /* looks for receive buffers again */
	bool watching, paused;
	int kick_fd;

	uint8_t mac[6], permanent_mac[6];
	uint64_t shared_gpa;
	uint32_t result; /* of the last command */

	bool active;
	uint8_t *shared; /* SHARED_SIZE bytes of guest memory while active */
	bool auto_mask;
	uint8_t ntx, nrx, event_vector;
	uint32_t rx_mode;
	struct vmxnet3_queue tx[VMXNET3_QUEUES_MAX], rx[VMXNET3_QUEUES_MAX];
	bool masked[VMXNET3_VECTORS], unseen[VMXNET3_VECTORS];

	uint64_t faults; /* what a right driver never does */
	const char *why; /* the last of them */
	uint8_t *bounce; /* header and a frame */
};

/* May the device touch guest memory now? */
bool favo_vmxnet3_runs(const struct vmxnet3 *dev);

/* ---- rings (ring.c) ------------------------------------------------------ */

struct vmxnet3_desc {
	uint64_t addr;
	uint32_t w2, w3;
};

/*
 * Copy the descriptor at the ring's place; false while it is not the device's.
 * gen_bit: where in w2 its generation is.
 */
bool favo_vmxnet3_peek(const struct vmxnet3_ring *ring, unsigned gen_bit,
		       struct vmxnet3_desc *desc);
void favo_vmxnet3_advance(struct vmxnet3_ring *ring);
/* Write a completion, its generation last, and advance. */
void favo_vmxnet3_complete(struct vmxnet3 *dev, struct vmxnet3_ring *comp,
			   const uint32_t words[4]);

/*
 * Read and check what the driver prepared in its shared area. -EINVAL, with
 * dev->why set, leaves nothing active.
 */
int favo_vmxnet3_read_setup(struct vmxnet3 *dev);
void favo_vmxnet3_read_rx_mode(struct vmxnet3 *dev);
/* Statistics into the descriptions of the queues. */
void favo_vmxnet3_put_stats(struct vmxnet3 *dev);

/* ---- interrupts (vmxnet3.c) ---------------------------------------------- */

void favo_vmxnet3_raise(struct vmxnet3 *dev, unsigned vector);
/* A queue that cannot go on: the driver is told and has to start anew. */
void favo_vmxnet3_queue_error(struct vmxnet3 *dev, struct vmxnet3_queue *queue,
			      uint32_t event, const char *why);

/* ---- frames (tx.c, rx.c) ------------------------------------------------- */

/* Send what is in the queue, at most *budget frames. */
void favo_vmxnet3_send(struct vmxnet3 *dev, struct vmxnet3_queue *queue,
		       unsigned *budget);

enum vmxnet3_rx {
	VMXNET3_RX_DONE, /* delivered, or not for this guest */
	VMXNET3_RX_EMPTY, /* no frame is there */
	VMXNET3_RX_STARVED, /* no buffer is there */
	VMXNET3_RX_GONE, /* the interface went away */
};

enum vmxnet3_rx favo_vmxnet3_receive(struct vmxnet3 *dev, struct vmxnet3_queue *queue);
