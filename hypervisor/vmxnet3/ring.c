/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmxnet3: rings, and the set-up that the driver leaves in its shared area. The
 * set-up is copied once and checked as a whole; nothing of it is looked at again
 * while the device is active, except for the receive mode.
 */
#include <endian.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/memory.h"
#include "hypervisor/vmxnet3/abi.h"
#include "hypervisor/vmxnet3/vmxnet3.h"

#define DESC_SIZE 16

static uint32_t get32(const uint8_t *p)
{
	uint32_t value;

	memcpy(&value, p, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const uint8_t *p)
{
	uint64_t value;

	memcpy(&value, p, sizeof(value));
	return le64toh(value);
}

bool favo_vmxnet3_peek(const struct vmxnet3_ring *ring, unsigned gen_bit,
		       struct vmxnet3_desc *desc)
{
	const uint8_t *at = ring->base + ring->next * DESC_SIZE;

	/* The driver sets the generation last: it comes first here. */
	desc->w2 = le32toh(__atomic_load_n((const uint32_t *)(at + 8), __ATOMIC_ACQUIRE));
	if ((desc->w2 >> gen_bit & 1) != ring->gen)
		return false;
	desc->w3 =
		le32toh(__atomic_load_n((const uint32_t *)(at + 12), __ATOMIC_RELAXED));
	desc->addr = le64toh(__atomic_load_n((const uint64_t *)at, __ATOMIC_RELAXED));
	return true;
}

void favo_vmxnet3_advance(struct vmxnet3_ring *ring)
{
	if (++ring->next == ring->size) {
		ring->next = 0;
		ring->gen ^= 1;
	}
}

void favo_vmxnet3_complete(struct vmxnet3 *dev, struct vmxnet3_ring *comp,
			   const uint32_t words[4])
{
	uint32_t *at = (uint32_t *)(comp->base + comp->next * DESC_SIZE);
	uint32_t last = (words[3] & ~(1u << COMP_GEN)) | (uint32_t)comp->gen << COMP_GEN;

	for (unsigned i = 0; i < 3; i++)
		__atomic_store_n(&at[i], htole32(words[i]), __ATOMIC_RELAXED);
	__atomic_store_n(&at[3], htole32(last), __ATOMIC_RELEASE);
	favo_guest_dirty(dev->mem, at, DESC_SIZE);
	favo_vmxnet3_advance(comp);
}

/* ---- set-up -------------------------------------------------------------- */

static int refuse(struct vmxnet3 *dev, const char *why)
{
	dev->faults++;
	dev->why = why;
	return -EINVAL;
}

static bool find_ring(struct vmxnet3 *dev, struct vmxnet3_ring *ring, uint64_t gpa,
		      uint32_t size, uint32_t max)
{
	if (size == 0 || size > max || size % RING_STEP || gpa % RING_ALIGN)
		return false;
	*ring = (struct vmxnet3_ring){
		.base = favo_guest_ptr(dev->mem, gpa, (uint64_t)size * DESC_SIZE),
		.size = size,
		.gen = 1,
	};
	return ring->base != NULL;
}

static bool find_tx(struct vmxnet3 *dev, struct vmxnet3_queue *q, const uint8_t *copy)
{
	q->vector = copy[TQ_INTR];
	return find_ring(dev, &q->ring[0], get64(copy + TQ_RING_PA),
			 get32(copy + TQ_RING_SIZE), RING_MAX) &&
	       find_ring(dev, &q->comp, get64(copy + TQ_COMP_PA),
			 get32(copy + TQ_COMP_SIZE), COMP_MAX);
}

static bool find_rx(struct vmxnet3 *dev, struct vmxnet3_queue *q, const uint8_t *copy)
{
	uint32_t second = get32(copy + RQ_RING_SIZE + 4);

	q->vector = copy[RQ_INTR];
	/* A driver that never needs a second buffer may leave ring 1 out. */
	return find_ring(dev, &q->ring[0], get64(copy + RQ_RING_PA),
			 get32(copy + RQ_RING_SIZE), RING_MAX) &&
	       (second == 0 || find_ring(dev, &q->ring[1], get64(copy + RQ_RING_PA + 8),
					 second, RING_MAX)) &&
	       find_ring(dev, &q->comp, get64(copy + RQ_COMP_PA),
			 get32(copy + RQ_COMP_SIZE), COMP_MAX);
}

static int find_queues(struct vmxnet3 *dev, uint8_t *descs, unsigned nintrs)
{
	uint8_t copy[QUEUE_DESC_SIZE];

	for (unsigned i = 0; i < (unsigned)dev->ntx + dev->nrx; i++) {
		bool tx = i < dev->ntx;
		struct vmxnet3_queue *q = tx ? &dev->tx[i] : &dev->rx[i - dev->ntx];

		*q = (struct vmxnet3_queue){.desc = descs + i * QUEUE_DESC_SIZE};
		memcpy(copy, q->desc, sizeof(copy));
		if (!(tx ? find_tx(dev, q, copy) : find_rx(dev, q, copy)))
			return refuse(dev, "a ring of bad size, alignment or place");
		if (q->vector >= nintrs)
			return refuse(dev, "a queue with an interrupt that is not there");
		q->desc[TQ_STOPPED] = 0;
		favo_guest_dirty(dev->mem, q->desc, QUEUE_DESC_SIZE);
	}
	return 0;
}

int favo_vmxnet3_read_setup(struct vmxnet3 *dev)
{
	uint8_t copy[SHARED_SIZE], *descs;
	unsigned nintrs, nqueues;
	int ret;

	dev->shared = dev->shared_gpa % 8
			      ? NULL
			      : favo_guest_ptr(dev->mem, dev->shared_gpa, SHARED_SIZE);
	if (!dev->shared)
		return refuse(dev, "a shared area outside of memory");
	memcpy(copy, dev->shared, sizeof(copy));
	nintrs = copy[S_NUM_INTRS];
	nqueues = (unsigned)copy[S_NUM_TX] + copy[S_NUM_RX];
	if (get32(copy + S_MAGIC) != SHARED_MAGIC)
		return refuse(dev, "a shared area without its magic number");
	if (!copy[S_NUM_TX] || copy[S_NUM_TX] > VMXNET3_QUEUES_MAX || !copy[S_NUM_RX] ||
	    copy[S_NUM_RX] > VMXNET3_QUEUES_MAX ||
	    get32(copy + S_QUEUES_LEN) < nqueues * QUEUE_DESC_SIZE)
		return refuse(dev, "a bad number of queues");
	if (!nintrs || nintrs > VMXNET3_VECTORS || copy[S_EVENT_INTR] >= nintrs)
		return refuse(dev, "a bad number of interrupts");
	descs = get64(copy + S_QUEUES_PA) % 8
			? NULL
			: favo_guest_ptr(dev->mem, get64(copy + S_QUEUES_PA),
					 nqueues * QUEUE_DESC_SIZE);
	if (!descs)
		return refuse(dev, "queue descriptions outside of memory");
	dev->ntx = copy[S_NUM_TX];
	dev->nrx = copy[S_NUM_RX];
	dev->event_vector = copy[S_EVENT_INTR];
	dev->auto_mask = copy[S_AUTO_MASK] != 0;
	ret = find_queues(dev, descs, nintrs);
	if (ret < 0)
		return ret;
	dev->rx_mode = get32(copy + S_RX_MODE);
	return 0;
}

void favo_vmxnet3_read_rx_mode(struct vmxnet3 *dev)
{
	dev->rx_mode = get32(dev->shared + S_RX_MODE);
}

void favo_vmxnet3_put_stats(struct vmxnet3 *dev)
{
	for (unsigned i = 0; i < (unsigned)dev->ntx + dev->nrx; i++) {
		struct vmxnet3_queue *q =
			i < dev->ntx ? &dev->tx[i] : &dev->rx[i - dev->ntx];

		_Static_assert((int)STAT_COUNT == STATS_WORDS, "one word each");
		for (unsigned k = 0; k < STAT_COUNT; k++) {
			uint64_t value = htole64(q->stats[k]);

			memcpy(q->desc + TQ_STATS + k * sizeof(value), &value,
			       sizeof(value));
		}
		favo_guest_dirty(dev->mem, q->desc, QUEUE_DESC_SIZE);
	}
}
