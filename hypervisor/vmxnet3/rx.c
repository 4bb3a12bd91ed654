/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmxnet3: frames from the network. The kernel is asked for whole frames without
 * offloads (they are no longer than the interface's MTU), so that a guest may
 * also forward what it gets. A frame begins in a HEAD buffer of ring 0 and goes
 * on in BODY buffers, of ring 0 if they are next there, else of ring 1. Drivers
 * trust completions blindly, so all places are found before one is written.
 */
#include <endian.h>
#include <errno.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/memory.h"
#include "hypervisor/vmxnet3/abi.h"
#include "hypervisor/vmxnet3/vmxnet3.h"

struct place {
	uint8_t *at;
	uint32_t len, index;
	unsigned ring;
};

struct plan {
	struct vmxnet3_ring ring[2]; /* after the frame */
	struct place places[VMXNET3_SEGS];
	unsigned n;
};

enum found { FOUND, NONE, BROKEN };

static enum found use(struct vmxnet3 *dev, struct plan *plan, unsigned r,
		      const struct vmxnet3_desc *desc)
{
	struct place *place = &plan->places[plan->n];

	place->len = RXD_LEN(desc->w2);
	place->at = favo_guest_ptr(dev->mem, desc->addr, place->len);
	place->index = plan->ring[r].next;
	place->ring = r;
	favo_vmxnet3_advance(&plan->ring[r]);
	return place->at ? FOUND : BROKEN;
}

/* Buffers for bodies that lie before it were not needed: they are skipped. */
static enum found find_head(struct vmxnet3 *dev, struct plan *plan)
{
	struct vmxnet3_desc desc;

	for (uint32_t i = 0; i < plan->ring[0].size; i++) {
		if (!favo_vmxnet3_peek(&plan->ring[0], RXD_GEN, &desc))
			return NONE;
		if (!(desc.w2 & RXD_BODY))
			return use(dev, plan, 0, &desc);
		favo_vmxnet3_advance(&plan->ring[0]);
	}
	return BROKEN;
}

static enum found find_body(struct vmxnet3 *dev, struct plan *plan)
{
	struct vmxnet3_desc desc;

	for (unsigned r = 0; r < 2; r++)
		if (plan->ring[r].size &&
		    favo_vmxnet3_peek(&plan->ring[r], RXD_GEN, &desc) &&
		    desc.w2 & RXD_BODY)
			return use(dev, plan, r, &desc);
	return NONE;
}

/* Find room for len bytes. */
static enum found make_plan(struct vmxnet3 *dev, const struct vmxnet3_queue *q,
			    struct plan *plan, size_t len)
{
	enum found found = FOUND;
	size_t room = 0;

	plan->n = 0;
	memcpy(plan->ring, q->ring, sizeof(plan->ring));
	while (room < len && found == FOUND) {
		if (plan->n == VMXNET3_SEGS)
			return NONE;
		found = plan->n ? find_body(dev, plan) : find_head(dev, plan);
		room += found == FOUND ? plan->places[plan->n++].len : 0;
	}
	return found;
}

/* What the kernel says about checksums, in the words of the completion. */
static uint32_t checksum_flags(const uint8_t *p, size_t len, uint8_t header_flags)
{
	uint16_t type = (uint16_t)(p[12] << 8 | p[13]);
	uint8_t proto;
	uint32_t flags;

	if (!(header_flags & VIRTIO_NET_HDR_F_DATA_VALID))
		return 0;
	if (type == ETHERTYPE_IP && len >= 34 && !(p[20] & 0x3f) && !p[21]) {
		proto = p[23];
		flags = RXC_V4 | RXC_IP_OK;
	} else if (type == ETHERTYPE_IPV6 && len >= 54) {
		proto = p[20];
		flags = RXC_V6;
	} else {
		return 0;
	}
	if (proto != IPPROTO_TCP && proto != IPPROTO_UDP)
		return 0;
	return flags | RXC_L4_OK | (proto == IPPROTO_TCP ? RXC_TCP : RXC_UDP);
}

static void carry_out(struct vmxnet3 *dev, struct vmxnet3_queue *q,
		      const struct plan *plan, const uint8_t *frame, size_t len,
		      uint32_t csum)
{
	unsigned id = (unsigned)(q - dev->rx);

	for (unsigned i = 0; i < plan->n; i++) {
		const struct place *place = &plan->places[i];
		uint32_t part = (uint32_t)FAVO_MIN(len, (size_t)place->len);
		bool last = i + 1 == plan->n;

		memcpy(place->at, frame, part);
		favo_guest_dirty(dev->mem, place->at, part);
		frame += part;
		len -= part;
		favo_vmxnet3_complete(
			dev, &q->comp,
			(uint32_t[4]){
				place->index | (i == 0 ? RXC_SOP : 0) |
					(last ? RXC_EOP : 0) |
					RXC_QUEUE(id + (place->ring ? dev->nrx : 0)) |
					(csum ? 0 : RXC_NO_CSUM),
				0, part, RXC_TYPE | (last ? csum : 0)});
	}
	memcpy(q->ring, plan->ring, sizeof(q->ring));
}

static bool is_wanted(const struct vmxnet3 *dev, const uint8_t *to)
{
	static const uint8_t broadcast[6] = {0xff, 0xff, 0xff, 0xff, 0xff, 0xff};

	if (dev->rx_mode & RX_MODE_PROMISC)
		return true;
	if (memcmp(to, broadcast, 6) == 0)
		return dev->rx_mode & RX_MODE_BROADCAST;
	/* The driver's list of groups is a hint: its stack looks again. */
	if (to[0] & 1)
		return dev->rx_mode & (RX_MODE_MULTICAST | RX_MODE_ALL_MULTI);
	return dev->rx_mode & RX_MODE_UNICAST && memcmp(to, dev->mac, 6) == 0;
}

static void count(struct vmxnet3_queue *q, const uint8_t *frame, size_t len)
{
	unsigned kind = !(frame[0] & 1)	   ? STAT_UNICAST
			: frame[0] == 0xff ? STAT_BROADCAST
					   : STAT_MULTICAST;

	q->stats[kind]++;
	q->stats[kind + 1] += len;
}

/* Is there a buffer at all? The frame then stays in the interface's queue. */
static bool is_starved(const struct vmxnet3_queue *q)
{
	struct vmxnet3_desc desc;

	return !favo_vmxnet3_peek(&q->ring[0], RXD_GEN, &desc);
}

enum vmxnet3_rx favo_vmxnet3_receive(struct vmxnet3 *dev, struct vmxnet3_queue *q)
{
	const uint8_t *frame = dev->bounce + VMXNET3_HEADER;
	const struct virtio_net_hdr *header = (const void *)dev->bounce;
	struct plan plan;
	ssize_t n;
	size_t len;

	if (is_starved(q))
		return VMXNET3_RX_STARVED;
	n = read(dev->tap.fd, dev->bounce, VMXNET3_HEADER + VMXNET3_FRAME_MAX);
	if (n <= 0)
		return n < 0 && (errno == EAGAIN || errno == EINTR) ? VMXNET3_RX_EMPTY
								    : VMXNET3_RX_GONE;
	if ((size_t)n < VMXNET3_HEADER + ETHER_HDR_LEN)
		return VMXNET3_RX_DONE;
	len = (size_t)n - VMXNET3_HEADER;
	if (!is_wanted(dev, frame))
		return VMXNET3_RX_DONE;
	switch (make_plan(dev, q, &plan, len)) {
	case FOUND:
		carry_out(dev, q, &plan, frame, len,
			  checksum_flags(frame, len, header->flags));
		count(q, frame, len);
		break;
	case NONE:
		q->stats[STAT_NO_BUFFER]++;
		break;
	case BROKEN:
		q->stats[STAT_ERRORS]++;
		favo_vmxnet3_queue_error(dev, q, EVENT_RQ_ERROR,
					 "a receive buffer outside of memory");
		break;
	}
	return VMXNET3_RX_DONE;
}
