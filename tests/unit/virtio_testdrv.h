/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The other side of the virtqueue for tests: a small guest driver that works on
 * flat guest memory, and can also misbehave, since every field is in reach.
 */
#pragma once

#include <endian.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#include <linux/virtio_ring.h>

#include "hypervisor/memory.h"
#include "hypervisor/vm.h"
#include "tests/unit/fake_kvm.h"

struct drv_queue {
	struct favo_memory *mem;
	uint16_t size;
	uint64_t desc_gpa, avail_gpa, used_gpa;
	struct vring_desc *desc;
	struct vring_avail *avail;
	struct vring_used *used;
	uint16_t free; /* next descriptor that chain() takes */
	uint16_t avail_idx; /* as published */
	uint16_t last_used;
};

struct drv_seg {
	uint64_t gpa;
	uint32_t len;
	bool write;
};

/* Bytes of guest memory that a queue takes, and where its parts lie. */
static inline uint64_t drv_queue_bytes(uint16_t size)
{
	return (16ULL * size + 6 + 2ULL * size + 63) / 64 * 64 + 6 + 8ULL * size;
}

static inline void drv_queue_init(struct drv_queue *q, struct favo_memory *mem,
				  uint64_t gpa, uint16_t size)
{
	memset(q, 0, sizeof(*q));
	q->mem = mem;
	q->size = size;
	q->desc_gpa = gpa;
	q->avail_gpa = gpa + 16ULL * size;
	q->used_gpa = gpa + (16ULL * size + 6 + 2ULL * size + 63) / 64 * 64;
	q->desc = favo_guest_ptr(mem, q->desc_gpa, 16ULL * size);
	q->avail = favo_guest_ptr(mem, q->avail_gpa, 6 + 2ULL * size);
	q->used = favo_guest_ptr(mem, q->used_gpa, 6 + 8ULL * size);
	memset(q->desc, 0, 16ULL * size);
	memset(q->avail, 0, 6 + 2ULL * size);
	memset(q->used, 0, 6 + 8ULL * size);
}

static inline void drv_desc(struct vring_desc *d, uint64_t gpa, uint32_t len,
			    uint16_t flags, uint16_t next)
{
	d->addr = htole64(gpa);
	d->len = htole32(len);
	d->flags = htole16(flags);
	d->next = htole16(next);
}

/* Publish head in the available ring. */
static inline void drv_offer(struct drv_queue *q, uint16_t head)
{
	q->avail->ring[q->avail_idx % q->size] = htole16(head);
	q->avail_idx++;
	__atomic_store_n(&q->avail->idx, htole16(q->avail_idx), __ATOMIC_RELEASE);
}

/* Build a chain from the next free descriptors; returns its head. */
static inline uint16_t drv_chain(struct drv_queue *q, const struct drv_seg *segs,
				 unsigned n)
{
	uint16_t head = q->free % q->size;

	for (unsigned i = 0; i < n; i++) {
		uint16_t at = q->free++ % q->size;

		drv_desc(&q->desc[at], segs[i].gpa, segs[i].len,
			 (uint16_t)((segs[i].write ? VRING_DESC_F_WRITE : 0) |
				    (i + 1 < n ? VRING_DESC_F_NEXT : 0)),
			 (uint16_t)(q->free % q->size));
	}
	return head;
}

static inline uint16_t drv_add(struct drv_queue *q, const struct drv_seg *segs,
			       unsigned n)
{
	uint16_t head = drv_chain(q, segs, n);

	drv_offer(q, head);
	return head;
}

/* Take the next used element; false if there is none. */
static inline bool drv_used(struct drv_queue *q, uint32_t *id, uint32_t *len)
{
	uint16_t idx = le16toh(__atomic_load_n(&q->used->idx, __ATOMIC_ACQUIRE));
	struct vring_used_elem *e = &q->used->ring[q->last_used % q->size];

	if (idx == q->last_used)
		return false;
	q->last_used++;
	if (id)
		*id = le32toh(e->id);
	if (len)
		*len = le32toh(e->len);
	return true;
}

/* ---- a whole device over PCI, with the VM's loop in a thread of its own ---- */

struct drv {
	struct favo_vm *vm;
	pthread_t thread;
	bool threaded;
	unsigned devfn;
	uint64_t common, isr, device, notify; /* addresses of the structures */
	uint32_t notify_step;
	unsigned nqueues;
	struct drv_queue q[8];
};

/* Take over a VM; drv_stop() ends its loop's thread and frees it. */
void drv_start(struct drv *d, struct favo_vm *vm);
void drv_stop(struct drv *d);
/*
 * Find the first virtio device of that type, enable it, read its capabilities.
 * The first call starts the loop's thread: devices are added before.
 */
bool drv_find(struct drv *d, uint16_t virtio_id);

uint64_t drv_read(struct drv *d, uint64_t addr, unsigned len);
void drv_write(struct drv *d, uint64_t addr, uint64_t value, unsigned len);
uint8_t drv_status(struct drv *d);
void drv_set_status(struct drv *d, uint8_t status);
uint64_t drv_offered(struct drv *d);
void drv_accept(struct drv *d, uint64_t features);
/* Queue q of that size at gpa, enabled, with its interrupt on vector 1 + q. */
void drv_setup_queue(struct drv *d, unsigned q, uint64_t gpa, uint16_t size);
void drv_kick(struct drv *d, unsigned q);
/* Reset; false if the status does not become 0 within two seconds. */
bool drv_reset(struct drv *d);
/*
 * The whole of section 3.1.1 with as many queues as the device has, each of
 * size 16 from gpa 0x1000 on. want: features taken if offered. False: refused.
 */
bool drv_init(struct drv *d, uint64_t want);
/* Wait up to two seconds for a used element of queue q. */
bool drv_wait(struct drv *d, unsigned q, uint32_t *id, uint32_t *len);
/* Add one request and wait for it; the written length or -1. */
int64_t drv_do(struct drv *d, unsigned q, const struct drv_seg *segs, unsigned n);
void *drv_ptr(struct drv *d, uint64_t gpa);
