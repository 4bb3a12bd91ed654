/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Life cycle of a virtio device: virtio 1.2 sections 2.1 (status), 2.2
 * (features), 2.4 (reset) and 3.1 (initialisation), seen from the device.
 *
 * A driver may do everything in the wrong order. What the specification forbids
 * it is ignored; what makes the queues unusable sets DEVICE_NEEDS_RESET and
 * silences the device until it is reset.
 */
#include "hypervisor/virtio/virtio.h"

#include <string.h>
#include <sys/eventfd.h>

#include "common/log.h"
#include "common/util.h"
#include "hypervisor/vm.h"

#define STATUS_FROM_DRIVER                                                               \
	(VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER |                          \
	 VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK |                       \
	 VIRTIO_CONFIG_S_FAILED)

static void clear_driver_state(struct favo_virtio *dev)
{
	dev->status = 0;
	dev->features = 0;
	dev->device_feature_select = 0;
	dev->driver_feature_select = 0;
	dev->queue_select = 0;
	dev->config_vector = 0xffff;
	dev->isr = 0;
	dev->why = NULL;
	dev->resetting = false;
	for (unsigned q = 0; q < dev->nqueues; q++) {
		favo_vq_reset(&dev->queues[q].vq);
		dev->queues[q].vector = 0xffff;
	}
}

static void kick_self(struct favo_virtio *dev, unsigned q)
{
	eventfd_write(dev->queues[q].kick_fd, 1);
}

static int start_queues(struct favo_virtio *dev, struct favo_err *err)
{
	for (unsigned q = 0; q < dev->nqueues; q++) {
		struct favo_vq *vq = &dev->queues[q].vq;
		int ret;

		if (!vq->enabled)
			continue;
		ret = favo_vq_start(vq, dev->features);
		if (ret < 0)
			return favo_fail(err, -ret, "queue %u: %s", q,
					 ret == -EFAULT ? "a ring is not in guest RAM"
							: "size or alignment");
	}
	return 0;
}

static void stop_queues(struct favo_virtio *dev)
{
	for (unsigned q = 0; q < dev->nqueues; q++)
		favo_vq_stop(&dev->queues[q].vq);
}

static void start(struct favo_virtio *dev)
{
	struct favo_err err = {0};
	int ret;

	ret = start_queues(dev, &err);
	if (ret == 0) {
		dev->running = true;
		if (dev->ops->start)
			ret = dev->ops->start(dev, &err);
	}
	if (ret < 0) {
		dev->running = false;
		stop_queues(dev);
		favo_log(FAVO_DEBUG, "virtio-%s: start: %s", dev->ops->name, err.msg);
		favo_virtio_fail(dev, "start failed");
		return;
	}
	/* What the driver queued before DRIVER_OK or while we were stopped. */
	for (unsigned q = 0; q < dev->nqueues; q++)
		if (dev->queues[q].vq.started)
			kick_self(dev, q);
}

/* True when the device is idle now. */
static bool stop(struct favo_virtio *dev, bool wait)
{
	if (!dev->running && !dev->stopping)
		return true;
	dev->running = false;
	dev->stopping = dev->ops->stop && !dev->ops->stop(dev, wait);
	if (dev->stopping)
		return false;
	stop_queues(dev);
	return true;
}

static bool should_run(const struct favo_virtio *dev)
{
	return (dev->status & VIRTIO_CONFIG_S_DRIVER_OK) &&
	       !(dev->status & VIRTIO_CONFIG_S_FAILED) && !dev->why && !dev->paused &&
	       !dev->resetting && favo_pci_may_dma(&dev->pci);
}

void favo_virtio_update(struct favo_virtio *dev)
{
	bool want = should_run(dev);

	if (want && !dev->running)
		start(dev);
	else if (!want && dev->running && !dev->resetting)
		stop(dev, true);
}

void favo_virtio_stopped(struct favo_virtio *dev)
{
	if (!dev->stopping)
		return;
	dev->stopping = false;
	stop_queues(dev);
	if (dev->resetting)
		clear_driver_state(dev);
}

void favo_virtio_reset(struct favo_virtio *dev)
{
	stop(dev, true);
	clear_driver_state(dev);
}

void favo_virtio_set_status(struct favo_virtio *dev, uint8_t status)
{
	uint8_t added;

	if (status == 0) {
		/* The driver polls until it reads 0, which may be later. */
		dev->resetting = true;
		if (stop(dev, false))
			clear_driver_state(dev);
		return;
	}
	if (dev->resetting)
		return;
	added = status & STATUS_FROM_DRIVER & ~dev->status;
	if (added & VIRTIO_CONFIG_S_FEATURES_OK) {
		bool ok = !(dev->features & ~dev->offered) &&
			  favo_virtio_has(dev, VIRTIO_F_VERSION_1);

		if (!ok)
			added &= (uint8_t)~VIRTIO_CONFIG_S_FEATURES_OK;
	}
	if (!((dev->status | added) & VIRTIO_CONFIG_S_FEATURES_OK))
		added &= (uint8_t)~VIRTIO_CONFIG_S_DRIVER_OK;
	dev->status |= added;
	favo_virtio_update(dev);
}

static void interrupt_vector(struct favo_virtio *dev, uint16_t vector, uint8_t isr)
{
	dev->isr |= isr;
	if (vector != 0xffff)
		favo_pci_notify(&dev->pci, vector);
}

void favo_virtio_interrupt(struct favo_virtio *dev, unsigned q)
{
	struct favo_virtio_queue *queue = &dev->queues[q];

	if (queue->vq.broken)
		favo_virtio_fail(dev, queue->vq.why);
	if (!favo_vq_need_interrupt(&queue->vq))
		return;
	queue->interrupts++;
	interrupt_vector(dev, queue->vector, 1);
}

void favo_virtio_config_changed(struct favo_virtio *dev)
{
	dev->generation++;
	if (dev->status & VIRTIO_CONFIG_S_DRIVER_OK)
		interrupt_vector(dev, dev->config_vector, 2);
}

void favo_virtio_fail(struct favo_virtio *dev, const char *why)
{
	if (dev->why)
		return;
	dev->why = why;
	dev->failures++;
	dev->status |= VIRTIO_CONFIG_S_NEEDS_RESET;
	favo_virtio_config_changed(dev);
}

void favo_virtio_requeue(struct favo_virtio *dev, unsigned q)
{
	kick_self(dev, q);
}

static void on_kick(struct favo_watch *watch, uint32_t events)
{
	struct favo_virtio_queue *queue =
		favo_container_of(watch, struct favo_virtio_queue, watch);
	struct favo_virtio *dev = queue->dev;

	(void)events;
	favo_virtio_lock(dev);
	queue->kicks++;
	/* A notification before DRIVER_OK, or after a reset, means nothing. */
	if (favo_virtio_running(dev) && queue->vq.started)
		dev->ops->kick(dev, (unsigned)(queue - dev->queues));
	favo_virtio_unlock(dev);
}

static int add_queues(struct favo_virtio *dev, struct favo_err *err)
{
	dev->queues = calloc(dev->nqueues, sizeof(*dev->queues));
	if (!dev->queues)
		return favo_fail(err, ENOMEM, "allocate queues");
	for (unsigned q = 0; q < dev->nqueues; q++)
		dev->queues[q].kick_fd = -1;
	for (unsigned q = 0; q < dev->nqueues; q++) {
		struct favo_virtio_queue *queue = &dev->queues[q];
		int ret;

		queue->dev = dev;
		queue->vq.mem = dev->mem;
		queue->vq.max_size = dev->queue_size;
		queue->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (queue->kick_fd < 0)
			return favo_fail(err, errno, "eventfd: %m");
		if (dev->external & FAVO_VIRTIO_BIT(q))
			continue;
		/* Edge-triggered: each signal comes through, and none needs a read. */
		ret = favo_watch_add(dev->loop, &queue->watch, queue->kick_fd,
				     EPOLLIN | EPOLLET, on_kick, err);
		if (ret < 0)
			return ret;
	}
	clear_driver_state(dev);
	return 0;
}

int favo_virtio_add(struct favo_virtio *dev, struct favo_vm *vm,
		    const struct favo_virtio_ops *ops, struct favo_err *err)
{
	uint64_t ring = FAVO_VIRTIO_BIT(VIRTIO_RING_F_INDIRECT_DESC) |
			FAVO_VIRTIO_BIT(VIRTIO_RING_F_EVENT_IDX);
	int ret;

	dev->ops = ops;
	dev->loop = vm->loop;
	dev->mem = vm->mem;
	if (dev->external)
		ring &= dev->ring_features;
	dev->offered |= ring | FAVO_VIRTIO_BIT(VIRTIO_F_VERSION_1);
	ret = add_queues(dev, err);
	if (ret == 0)
		ret = favo_virtio_transport_add(dev, vm, err);
	return ret < 0 ? favo_wrap(err, ret, "virtio-%s", ops->name) : 0;
}

void favo_virtio_fini(struct favo_virtio *dev)
{
	for (unsigned q = 0; dev->queues && q < dev->nqueues; q++) {
		favo_watch_del(&dev->queues[q].watch);
		favo_close(&dev->queues[q].kick_fd);
	}
	free(dev->queues);
	dev->queues = NULL;
	favo_virtio_transport_fini(dev);
}
