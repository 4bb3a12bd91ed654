/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmxnet3: frames to the network. A frame's pieces go to the tap as they lie in
 * guest memory; only when an offload or a tag changes its headers, those are
 * copied first. Checksums and segmentation are the kernel's work, asked for in
 * the virtio header of the tap.
 */
#include <arpa/inet.h>
#include <endian.h>
#include <linux/virtio_net.h>
#include <net/ethernet.h>
#include <netinet/in.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/memory.h"
#include "hypervisor/vmxnet3/abi.h"
#include "hypervisor/vmxnet3/vmxnet3.h"

#define FRAME_MIN 14
#define HEADERS_MAX 1024 /* what hlen, 10 bits, can name */
#define TAG_SIZE 4
#define TCP_CSUM_OFFSET 16

struct frame {
	unsigned n; /* descriptors */
	bool bad;
	uint32_t first_w2, first_w3; /* offloads */
	uint32_t eop_index, eop_w3;
	size_t len;
	struct virtio_net_hdr_mrg_rxbuf header;
	uint8_t copy[HEADERS_MAX + TAG_SIZE];
	struct iovec iov[VMXNET3_SEGS + 2]; /* header, copied headers, pieces */
	unsigned niov;
};

static void add_piece(struct vmxnet3 *dev, struct frame *f,
		      const struct vmxnet3_desc *desc)
{
	uint32_t len = TXD_LEN(desc->w2) ? TXD_LEN(desc->w2) : 16384;
	void *at = favo_guest_ptr(dev->mem, desc->addr, len);

	f->len += len;
	if (!at || f->n > VMXNET3_SEGS || f->len > VMXNET3_FRAME_MAX) {
		f->bad = true;
		return;
	}
	f->iov[f->niov++] = (struct iovec){at, len};
}

/*
 * Take the descriptors of one frame off the ring. False, with the ring as it
 * was, when no whole frame is there.
 */
static bool take_frame(struct vmxnet3 *dev, struct vmxnet3_queue *q, struct frame *f)
{
	struct vmxnet3_ring ring = q->ring[0];
	struct vmxnet3_desc desc;

	f->n = 0;
	f->len = 0;
	f->bad = false;
	f->niov = 2;
	do {
		if (f->n == ring.size) {
			favo_vmxnet3_queue_error(dev, q, EVENT_TQ_ERROR,
						 "a frame as long as its ring");
			return false;
		}
		if (!favo_vmxnet3_peek(&ring, TXD_GEN, &desc))
			return false;
		if (f->n++ == 0) {
			f->first_w2 = desc.w2;
			f->first_w3 = desc.w3;
		}
		add_piece(dev, f, &desc);
		f->eop_index = ring.next;
		favo_vmxnet3_advance(&ring);
	} while (!(desc.w3 & TXD_EOP));
	f->eop_w3 = desc.w3;
	q->ring[0] = ring;
	return true;
}

/* ---- offloads ------------------------------------------------------------ */

/* Move the first len bytes of the frame to f->copy. */
static bool copy_headers(struct frame *f, size_t len)
{
	size_t done = 0;
	unsigned i = 2;

	if (len > HEADERS_MAX || len > f->len)
		return false;
	for (; done < len; i++) {
		size_t part = FAVO_MIN(len - done, f->iov[i].iov_len);

		memcpy(f->copy + done, f->iov[i].iov_base, part);
		done += part;
		f->iov[i].iov_base = (uint8_t *)f->iov[i].iov_base + part;
		f->iov[i].iov_len -= part;
	}
	f->iov[1] = (struct iovec){f->copy, len};
	return true;
}

static uint32_t sum16(const uint8_t *p, size_t len)
{
	uint32_t sum = 0;

	for (size_t i = 0; i + 1 < len; i += 2)
		sum += (uint32_t)p[i] << 8 | p[i + 1];
	return sum;
}

static uint16_t fold(uint32_t sum)
{
	while (sum >> 16)
		sum = (sum & 0xffff) + (sum >> 16);
	return (uint16_t)sum;
}

/* Where IP and TCP begin in copied headers of hlen bytes; false: no TCP. */
static bool find_tcp(const uint8_t *p, size_t hlen, size_t *ip, size_t *tcp, bool *v6)
{
	uint16_t type = (uint16_t)(p[12] << 8 | p[13]);

	*ip = ETHER_HDR_LEN;
	if (type == ETHERTYPE_VLAN && hlen >= *ip + TAG_SIZE) {
		type = (uint16_t)(p[16] << 8 | p[17]);
		*ip += TAG_SIZE;
	}
	*v6 = type == ETHERTYPE_IPV6;
	if (type == ETHERTYPE_IP && hlen >= *ip + 20 && p[*ip + 9] == IPPROTO_TCP)
		*tcp = *ip + (p[*ip] & 0xfu) * 4;
	else if (*v6 && hlen >= *ip + 40 && p[*ip + 6] == IPPROTO_TCP)
		*tcp = *ip + 40;
	else
		return false;
	return *tcp >= *ip + 20 && *tcp + 20 <= hlen;
}

/*
 * The driver leaves the length out of the pseudo header's sum, the kernel wants
 * it in.
 */
static bool ask_segments(struct frame *f, uint16_t hlen, uint16_t mss)
{
	struct virtio_net_hdr *h = &f->header.hdr;
	uint8_t *p = f->copy;
	uint32_t sum;
	size_t ip, tcp;
	bool v6;

	if (mss == 0 || hlen < ETHER_HDR_LEN || !copy_headers(f, hlen) ||
	    !find_tcp(p, hlen, &ip, &tcp, &v6))
		return false;
	sum = v6 ? sum16(p + ip + 8, 32) : sum16(p + ip + 12, 8);
	sum = fold(sum + IPPROTO_TCP + (uint32_t)(f->len - tcp));
	p[tcp + TCP_CSUM_OFFSET] = (uint8_t)(sum >> 8);
	p[tcp + TCP_CSUM_OFFSET + 1] = (uint8_t)sum;
	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->csum_start = htole16((uint16_t)tcp);
	h->csum_offset = htole16(TCP_CSUM_OFFSET);
	h->gso_type = v6 ? VIRTIO_NET_HDR_GSO_TCPV6 : VIRTIO_NET_HDR_GSO_TCPV4;
	h->hdr_len = htole16(hlen);
	h->gso_size = htole16(mss);
	return true;
}

static bool ask_checksum(struct frame *f, uint16_t start, uint16_t field)
{
	struct virtio_net_hdr *h = &f->header.hdr;

	if (start < ETHER_HDR_LEN || field < start || (size_t)field + 2 > f->len)
		return false;
	h->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
	h->csum_start = htole16(start);
	h->csum_offset = htole16((uint16_t)(field - start));
	return true;
}

/* Put an 802.1Q tag behind the addresses. */
static bool insert_tag(struct frame *f, uint16_t tci)
{
	struct virtio_net_hdr *h = &f->header.hdr;

	if (f->iov[1].iov_len == 0 && !copy_headers(f, ETHER_HDR_LEN))
		return false;
	memmove(f->copy + 16, f->copy + 12, f->iov[1].iov_len - 12);
	f->copy[12] = ETHERTYPE_VLAN >> 8;
	f->copy[13] = ETHERTYPE_VLAN & 0xff;
	f->copy[14] = (uint8_t)(tci >> 8);
	f->copy[15] = (uint8_t)tci;
	f->iov[1].iov_len += TAG_SIZE;
	f->len += TAG_SIZE;
	if (h->flags & VIRTIO_NET_HDR_F_NEEDS_CSUM)
		h->csum_start = htole16((uint16_t)(le16toh(h->csum_start) + TAG_SIZE));
	if (h->gso_type)
		h->hdr_len = htole16((uint16_t)(le16toh(h->hdr_len) + TAG_SIZE));
	return true;
}

static bool prepare(struct frame *f)
{
	uint16_t hlen = TXD_HLEN(f->first_w3);
	uint16_t msscof = (uint16_t)TXD_MSSCOF(f->first_w2);
	bool good = true;

	memset(&f->header, 0, sizeof(f->header));
	f->iov[0] = (struct iovec){&f->header, VMXNET3_HEADER};
	f->iov[1] = (struct iovec){f->copy, 0};
	if (TXD_OM(f->first_w3) == TXD_OM_TSO)
		good = ask_segments(f, hlen, msscof);
	else if (TXD_OM(f->first_w3) == TXD_OM_CSUM)
		good = ask_checksum(f, hlen, msscof);
	if (good && f->first_w3 & TXD_TAG)
		good = insert_tag(f, (uint16_t)TXD_TCI(f->first_w3));
	return good;
}

/* ---- the queue ----------------------------------------------------------- */

static void count(struct vmxnet3_queue *q, const struct frame *f)
{
	uint8_t first = 0;
	unsigned kind = STAT_UNICAST, i = f->iov[1].iov_len ? 1 : 2;

	/* The tap has a copy of its own by now: this is for the statistics only. */
	memcpy(&first, f->iov[i].iov_base, 1);
	if (f->header.hdr.gso_type)
		kind = STAT_LRO_FRAMES;
	else if (first & 1)
		kind = first == 0xff ? STAT_BROADCAST : STAT_MULTICAST;
	q->stats[kind]++;
	q->stats[kind + 1] += f->len;
}

static void send_frame(struct vmxnet3 *dev, struct vmxnet3_queue *q, struct frame *f)
{
	if (f->bad || f->len < FRAME_MIN || !prepare(f)) {
		q->stats[STAT_NO_BUFFER]++;
		dev->faults++;
		dev->why = "a frame that cannot be sent";
		return;
	}
	if (writev(dev->tap.fd, f->iov, (int)f->niov) < 0)
		q->stats[STAT_ERRORS]++;
	else
		count(q, f);
}

void favo_vmxnet3_send(struct vmxnet3 *dev, struct vmxnet3_queue *q, unsigned *budget)
{
	struct frame f;
	bool told = false;

	while (!q->stopped && *budget && take_frame(dev, q, &f)) {
		send_frame(dev, q, &f);
		(*budget)--;
		if (!(f.eop_w3 & TXD_WANTS_COMP))
			continue;
		favo_vmxnet3_complete(dev, &q->comp, (uint32_t[4]){f.eop_index});
		told = true;
	}
	if (told)
		favo_vmxnet3_raise(dev, q->vector);
}
