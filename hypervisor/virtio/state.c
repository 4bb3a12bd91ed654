// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Virtio devices in a snapshot: what the driver set, where the queues are, and
 * what the device adds. The rings themselves are in guest memory. A restored
 * device starts as one whose driver just said DRIVER_OK: queues are looked at
 * once more, and each gets an interrupt, so that nothing that was on its way
 * between the two sides is waited for in vain.
 */
#include <errno.h>
#include <string.h>

#include "hypervisor/state.h"
#include "hypervisor/virtio/virtio.h"

#define STATUS_KNOWN                                                                     \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                          \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |                       \
	 VIRTIO_CONFIG_S_FAILED | VIRTIO_CONFIG_S_NEEDS_RESET)
#define QUEUE_ENABLED 0x1
#define QUEUE_BROKEN 0x2

void favo_virtio_pause(struct favo_virtio *dev, bool pause)
{
	dev->paused = pause;
	/* A reset by the driver may wait for requests: they end now. */
	if (pause && dev->stopping && dev->ops->stop(dev, true))
		favo_virtio_stopped(dev);
	favo_virtio_update(dev);
	if (pause || !dev->restored)
		return;
	dev->restored = false;
	for (unsigned q = 0; favo_virtio_running(dev) && q < dev->nqueues; q++)
		if (dev->queues[q].vector != 0xffff)
			favo_pci_notify(&dev->pci, dev->queues[q].vector);
}

static void save_queue(const struct favo_virtio_queue *queue, struct favo_state_out *out)
{
	const struct favo_vq *vq = &queue->vq;

	favo_state_put_u8(out, (vq->enabled ? QUEUE_ENABLED : 0) |
				       (vq->broken ? QUEUE_BROKEN : 0));
	favo_state_put_u16(out, queue->vector);
	favo_state_put_u16(out, vq->size);
	favo_state_put_u16(out, vq->last_avail);
	favo_state_put_u16(out, vq->used_idx);
	favo_state_put_u64(out, vq->desc_gpa);
	favo_state_put_u64(out, vq->avail_gpa);
	favo_state_put_u64(out, vq->used_gpa);
}

int favo_virtio_save(struct favo_virtio *dev, struct favo_state_out *out,
		     struct favo_err *err)
{
	if (dev->running || dev->stopping)
		return favo_fail(err, EBUSY, "it is still at work");
	favo_state_put_u64(out, dev->features);
	favo_state_put_u8(out, dev->status);
	favo_state_put_u8(out, dev->isr);
	favo_state_put_u8(out, dev->generation);
	favo_state_put_u16(out, dev->config_vector);
	favo_state_put_u16(out, dev->queue_select);
	favo_state_put_u32(out, dev->device_feature_select);
	favo_state_put_u32(out, dev->driver_feature_select);
	favo_state_put_blob(out, dev->config, dev->config_len);
	favo_state_put_u16(out, (uint16_t)dev->nqueues);
	for (unsigned q = 0; q < dev->nqueues; q++)
		save_queue(&dev->queues[q], out);
	return dev->ops->save ? dev->ops->save(dev, out, err) : 0;
}

static bool good_vector(const struct favo_virtio *dev, uint16_t vector)
{
	return vector == 0xffff || vector <= dev->nqueues;
}

static int load_queue(struct favo_virtio *dev, unsigned q, struct favo_state_in *in,
		      struct favo_err *err)
{
	struct favo_virtio_queue *queue = &dev->queues[q];
	struct favo_vq *vq = &queue->vq;
	uint8_t flags = favo_state_get_u8(in);

	favo_vq_reset(vq);
	queue->vector = favo_state_get_u16(in);
	vq->size = favo_state_get_u16(in);
	vq->last_avail = favo_state_get_u16(in);
	vq->used_idx = favo_state_get_u16(in);
	vq->desc_gpa = favo_state_get_u64(in);
	vq->avail_gpa = favo_state_get_u64(in);
	vq->used_gpa = favo_state_get_u64(in);
	if (in->failed)
		return favo_state_get_end(in, err);
	vq->enabled = flags & QUEUE_ENABLED;
	/* Size and addresses are the driver's words: favo_vq_start() checks them. */
	if (flags & ~(QUEUE_ENABLED | QUEUE_BROKEN) || !good_vector(dev, queue->vector))
		return favo_fail(err, EINVAL, "queue %u: bad flags or vector", q);
	if (flags & QUEUE_BROKEN)
		favo_vq_break(vq, "was broken when it was saved");
	return 0;
}

static int load_driver(struct favo_virtio *dev, struct favo_state_in *in,
		       struct favo_err *err)
{
	uint64_t features = favo_state_get_u64(in);
	uint8_t status = favo_state_get_u8(in);
	uint8_t started = VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK;

	if (features & ~dev->offered)
		return favo_fail(err, EINVAL,
				 "the driver uses features %#llx that this device does "
				 "not offer",
				 (unsigned long long)(features & ~dev->offered));
	if (status & ~STATUS_KNOWN || (status & started) == VIRTIO_CONFIG_S_DRIVER_OK)
		return favo_fail(err, EINVAL, "impossible status %#x", status);
	dev->features = features;
	dev->status = status;
	dev->isr = favo_state_get_u8(in);
	dev->generation = favo_state_get_u8(in);
	dev->config_vector = favo_state_get_u16(in);
	dev->queue_select = favo_state_get_u16(in);
	dev->device_feature_select = favo_state_get_u32(in);
	dev->driver_feature_select = favo_state_get_u32(in);
	if (!good_vector(dev, dev->config_vector))
		return favo_fail(err, EINVAL, "bad interrupt vector");
	if (status & VIRTIO_CONFIG_S_NEEDS_RESET)
		dev->why = "had failed when it was saved";
	return 0;
}

/* The driver may remember what it read: the device must be the same. */
static int check_config(struct favo_virtio *dev, struct favo_state_in *in,
			struct favo_err *err)
{
	size_t len;
	const uint8_t *saved = favo_state_get_blob(in, &len);

	if (!saved || len != dev->config_len)
		return favo_fail(err, EINVAL, "a device configuration of another size");
	for (size_t i = 0; i < len; i++)
		if (saved[i] != dev->config[i] &&
		    !(dev->ops->may_differ && dev->ops->may_differ(dev, (unsigned)i)))
			return favo_fail(err, EINVAL,
					 "the device is another one (byte %zu of its "
					 "configuration differs)",
					 i);
	return 0;
}

int favo_virtio_load(struct favo_virtio *dev, struct favo_state_in *in,
		     struct favo_err *err)
{
	int ret;

	dev->paused = true;
	favo_virtio_reset(dev);
	ret = load_driver(dev, in, err);
	ret = ret ? ret : check_config(dev, in, err);
	if (ret == 0 && favo_state_get_u16(in) != dev->nqueues)
		ret = favo_fail(err, EINVAL, "another number of queues");
	for (unsigned q = 0; ret == 0 && q < dev->nqueues; q++)
		ret = load_queue(dev, q, in, err);
	if (ret == 0 && dev->ops->load)
		ret = dev->ops->load(dev, in, err);
	if (ret < 0)
		favo_virtio_reset(dev);
	dev->restored = ret == 0;
	return ret;
}
