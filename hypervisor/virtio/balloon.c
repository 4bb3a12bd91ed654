// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory balloon: virtio 1.2 section 5.5, for free-page reporting: the guest
 * names memory that it has free, in pieces of 2 MiB and more, and the host takes
 * the pages back at once; a later touch gets new ones. The device never asks the
 * guest to inflate, but a driver that does gets what the specification says.
 *
 * What a guest can do with it is lose the content of its own RAM: every address
 * goes through favo_guest_ptr(), which knows nothing else.
 */
#include <endian.h>
#include <string.h>

#include <linux/virtio_balloon.h>

#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define SEGS 64
#define PFNS_MAX 1024 /* of one request; Linux sends 256 */
#define TURN_MAX 64 /* requests before others have their turn */

enum { INFLATE, DEFLATE, REPORT, QUEUES };

struct balloon {
	struct favo_virtio dev;
	uint64_t inflated, deflated; /* pages */
	uint64_t reported; /* bytes */
	struct iovec iov[SEGS];
};

static struct balloon *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct balloon, dev);
}

/* Pages by number; those that are no RAM are passed over. */
static void inflate(struct balloon *b, const struct favo_vq_req *req)
{
	size_t n = FAVO_MIN(req->out_len / sizeof(uint32_t), (uint64_t)PFNS_MAX);
	uint32_t pfn;

	for (size_t i = 0; i < n; i++) {
		void *page;

		favo_iov_read(req->iov, req->nout, i * sizeof(pfn), &pfn, sizeof(pfn));
		page = favo_guest_ptr(b->dev.mem,
				      (uint64_t)le32toh(pfn) << VIRTIO_BALLOON_PFN_SHIFT,
				      FAVO_PAGE_SIZE);
		if (!page)
			continue;
		favo_memory_discard(b->dev.mem, page, FAVO_PAGE_SIZE);
		b->inflated++;
	}
}

static void report(struct balloon *b, const struct favo_vq_req *req)
{
	const struct iovec *in = req->iov + req->nout;

	for (unsigned i = 0; i < req->nin; i++) {
		favo_memory_discard(b->dev.mem, in[i].iov_base, in[i].iov_len);
		b->reported += in[i].iov_len;
	}
}

static void balloon_kick(struct favo_virtio *dev, unsigned q)
{
	struct balloon *b = from_dev(dev);
	struct favo_vq *vq = favo_virtio_vq(dev, q);
	struct favo_vq_req req = {.iov = b->iov, .max_segs = SEGS};
	unsigned turns = 0;

	favo_vq_disable_notify(vq);
	do {
		while (turns < TURN_MAX && favo_vq_pop(vq, &req) > 0) {
			turns++;
			if (q == INFLATE)
				inflate(b, &req);
			else if (q == DEFLATE)
				b->deflated += req.out_len / sizeof(uint32_t);
			else
				report(b, &req);
			favo_vq_push(vq, req.head, 0);
		}
		if (turns == TURN_MAX) {
			favo_virtio_requeue(dev, q);
			break;
		}
	} while (favo_vq_enable_notify(vq));
	favo_virtio_interrupt(dev, q);
}

static void balloon_stats(struct favo_virtio *dev, json_t *object)
{
	const struct balloon *b = from_dev(dev);

	json_object_set_new(object, "inflated", json_integer((json_int_t)b->inflated));
	json_object_set_new(object, "deflated", json_integer((json_int_t)b->deflated));
	json_object_set_new(object, "reported_bytes",
			    json_integer((json_int_t)b->reported));
}

static void balloon_free(struct favo_virtio *dev)
{
	favo_virtio_fini(dev);
	free(from_dev(dev));
}

static const struct favo_virtio_ops balloon_ops = {
	.name = "balloon",
	.id = VIRTIO_ID_BALLOON,
	.class_code = 0x00ff00,
	.kick = balloon_kick,
	.stats = balloon_stats,
	.free = balloon_free,
};

int favo_balloon_add(struct favo_vm *vm, struct favo_err *err)
{
	struct balloon *b = calloc(1, sizeof(*b));
	int ret;

	if (!b)
		return favo_fail(err, ENOMEM, "allocate device");
	/* Without statistics and hints the reporting queue is the third. */
	b->dev.nqueues = QUEUES;
	b->dev.queue_size = 64;
	b->dev.config_len = offsetof(struct virtio_balloon_config, free_page_hint_cmd_id);
	if (!vm->mem->fixed)
		b->dev.offered = FAVO_VIRTIO_BIT(VIRTIO_BALLOON_F_REPORTING);
	ret = favo_virtio_add(&b->dev, vm, &balloon_ops, err);
	if (ret < 0)
		balloon_free(&b->dev);
	return ret;
}
