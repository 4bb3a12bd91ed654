/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * In-kernel vhost: memory table, queue addresses and eventfds. All checks of
 * the rings' contents are the kernel's; what it gives up on comes back through
 * error_fd and asks the driver for a reset.
 */
#include "hypervisor/virtio/vhost.h"

#include <linux/vhost.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include "common/util.h"
#include "hypervisor/virtio/virtio.h"

static void on_error(struct favo_watch *watch, uint32_t events)
{
	struct favo_vhost *vhost =
		favo_container_of(watch, struct favo_vhost, error_watch);
	eventfd_t count;

	(void)events;
	eventfd_read(vhost->error_fd, &count);
	favo_virtio_lock(vhost->dev);
	if (vhost->started)
		favo_virtio_fail(vhost->dev, "vhost gave up on a queue");
	favo_virtio_unlock(vhost->dev);
}

int favo_vhost_init(struct favo_vhost *vhost, struct favo_virtio *dev, int fd,
		    unsigned nqueues, struct favo_loop *loop, struct favo_err *err)
{
	vhost->fd = fd;
	vhost->dev = dev;
	vhost->nqueues = nqueues;
	vhost->no_call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	vhost->error_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vhost->no_call_fd < 0 || vhost->error_fd < 0)
		return favo_fail(err, errno, "eventfd: %m");
	if (ioctl(fd, VHOST_SET_OWNER) < 0)
		return favo_fail(err, errno, "VHOST_SET_OWNER: %m");
	if (ioctl(fd, VHOST_GET_FEATURES, &vhost->features) < 0)
		return favo_fail(err, errno, "VHOST_GET_FEATURES: %m");
	return favo_watch_add(loop, &vhost->error_watch, vhost->error_fd, EPOLLIN,
			      on_error, err);
}

void favo_vhost_fini(struct favo_vhost *vhost)
{
	/* Half-built: the eventfds are still 0, never opened. */
	if (vhost->dev) {
		favo_watch_del(&vhost->error_watch);
		favo_close(&vhost->no_call_fd);
		favo_close(&vhost->error_fd);
	}
	favo_close(&vhost->fd);
	vhost->dev = NULL;
}

static int set_memory(struct favo_vhost *vhost, struct favo_err *err)
{
	const struct favo_memory *mem = vhost->dev->mem;
	favo_autofree struct vhost_memory *table = calloc(
		1, sizeof(*table) + mem->nregions * sizeof(struct vhost_memory_region));

	if (!table)
		return favo_fail(err, ENOMEM, "vhost: allocate memory table");
	table->nregions = mem->nregions;
	for (unsigned i = 0; i < mem->nregions; i++)
		table->regions[i] = (struct vhost_memory_region){
			.guest_phys_addr = mem->regions[i].gpa,
			.memory_size = mem->regions[i].size,
			.userspace_addr = (uint64_t)(uintptr_t)mem->regions[i].hva,
		};
	if (ioctl(vhost->fd, VHOST_SET_MEM_TABLE, table) < 0)
		return favo_fail(err, errno, "VHOST_SET_MEM_TABLE: %m");
	return 0;
}

/* The eventfd that fires the vector, or one that nobody listens to. */
static int call_fd(struct favo_vhost *vhost, unsigned q)
{
	struct favo_virtio_queue *queue = &vhost->dev->queues[q];
	int fd = queue->vector == 0xffff
			 ? -1
			 : favo_pci_notify_fd(&vhost->dev->pci, queue->vector, NULL);

	return fd < 0 ? vhost->no_call_fd : fd;
}

static int set_file(struct favo_vhost *vhost, unsigned long request, const char *what,
		    unsigned q, int fd, struct favo_err *err)
{
	struct vhost_vring_file file = {.index = q, .fd = fd};

	if (ioctl(vhost->fd, request, &file) < 0)
		return favo_fail(err, errno, "%s: %m", what);
	return 0;
}

static int start_queue(struct favo_vhost *vhost, unsigned q, struct favo_err *err)
{
	struct favo_virtio_queue *queue = &vhost->dev->queues[q];
	struct vhost_vring_state num = {.index = q, .num = queue->vq.size};
	struct vhost_vring_state base = {.index = q, .num = queue->vq.last_avail};
	struct vhost_vring_addr addr = {
		.index = q,
		.desc_user_addr = (uint64_t)(uintptr_t)queue->vq.desc,
		.avail_user_addr = (uint64_t)(uintptr_t)queue->vq.avail,
		.used_user_addr = (uint64_t)(uintptr_t)queue->vq.used,
		.log_guest_addr = queue->vq.used_gpa,
	};
	int ret;

	if (ioctl(vhost->fd, VHOST_SET_VRING_NUM, &num) < 0 ||
	    ioctl(vhost->fd, VHOST_SET_VRING_BASE, &base) < 0 ||
	    ioctl(vhost->fd, VHOST_SET_VRING_ADDR, &addr) < 0)
		return favo_fail(err, errno, "vhost: set up queue %u: %m", q);
	ret = set_file(vhost, VHOST_SET_VRING_ERR, "VHOST_SET_VRING_ERR", q,
		       vhost->error_fd, err);
	if (ret == 0)
		ret = set_file(vhost, VHOST_SET_VRING_CALL, "VHOST_SET_VRING_CALL", q,
			       call_fd(vhost, q), err);
	if (ret == 0)
		ret = set_file(vhost, VHOST_SET_VRING_KICK, "VHOST_SET_VRING_KICK", q,
			       queue->kick_fd, err);
	return ret;
}

int favo_vhost_start(struct favo_vhost *vhost, uint64_t features, struct favo_err *err)
{
	int ret;

	/* Only bits that the kernel knows; the others are ours to serve. */
	features &= vhost->features;
	if (ioctl(vhost->fd, VHOST_SET_FEATURES, &features) < 0)
		return favo_fail(err, errno, "VHOST_SET_FEATURES: %m");
	ret = set_memory(vhost, err);
	for (unsigned q = 0; ret == 0 && q < vhost->nqueues; q++)
		if (vhost->dev->queues[q].vq.started)
			ret = start_queue(vhost, q, err);
	vhost->started = true;
	if (ret < 0)
		favo_vhost_stop(vhost);
	return ret;
}

void favo_vhost_stop(struct favo_vhost *vhost)
{
	if (!vhost->started)
		return;
	vhost->started = false;
	for (unsigned q = 0; q < vhost->nqueues; q++) {
		struct vhost_vring_state base = {.index = q};
		struct favo_vq *vq = &vhost->dev->queues[q].vq;

		if (!vq->started)
			continue;
		set_file(vhost, VHOST_SET_VRING_KICK, "", q, -1, NULL);
		set_file(vhost, VHOST_SET_VRING_CALL, "", q, -1, NULL);
		if (ioctl(vhost->fd, VHOST_GET_VRING_BASE, &base) == 0) {
			/* All that was taken is done: both sides are at the same place. */
			vq->last_avail = (uint16_t)base.num;
			vq->used_idx = (uint16_t)base.num;
		}
	}
}
