/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Sockets between host and guest: virtio 1.2 section 5.10, data plane in the
 * kernel (vhost-vsock). The event queue stays here: its only event says that
 * the transport was reset, which a restored VM hears.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_vsock.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/str.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/virtio/vhost.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define EVENT_QUEUE 2
#define EVENT_SEGS 4
#define SEQPACKET 1 /* feature bit; the headers of older kernels lack it */

struct vsock {
	struct favo_virtio dev;
	struct favo_vhost vhost;
	uint64_t cid;
	bool tell_reset; /* the driver must hear that all connections are gone */
};

static struct vsock *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct vsock, dev);
}

static int set_running(struct vsock *vsock, int on)
{
	return ioctl(vsock->vhost.fd, VHOST_VSOCK_SET_RUNNING, &on) < 0 ? -errno : 0;
}

/*
 * Section 5.10.6.7: connections are gone and the guest may have another context
 * id. Stays due until the driver has given a buffer.
 */
static void tell_reset(struct vsock *vsock)
{
	const struct virtio_vsock_event event = {
		.id = htole32(VIRTIO_VSOCK_EVENT_TRANSPORT_RESET)};
	struct favo_vq *vq = favo_virtio_vq(&vsock->dev, EVENT_QUEUE);
	struct iovec iov[EVENT_SEGS];
	struct favo_vq_req req = {.iov = iov, .max_segs = EVENT_SEGS};
	size_t n;

	if (!vsock->tell_reset || !vq->started || favo_vq_pop(vq, &req) <= 0)
		return;
	n = favo_iov_write(req.iov + req.nout, req.nin, 0, &event, sizeof(event));
	favo_vq_dirty(vq, req.iov + req.nout, req.nin, n);
	favo_vq_push(vq, req.head, (uint32_t)n);
	vsock->tell_reset = false;
	favo_virtio_interrupt(&vsock->dev, EVENT_QUEUE);
}

static int vsock_start(struct favo_virtio *dev, struct favo_err *err)
{
	struct vsock *vsock = from_dev(dev);
	int ret = favo_vhost_start(&vsock->vhost, dev->features, err);

	if (ret < 0)
		return ret;
	ret = set_running(vsock, 1);
	if (ret < 0) {
		favo_vhost_stop(&vsock->vhost);
		return favo_fail(err, -ret, "VHOST_VSOCK_SET_RUNNING: %m");
	}
	tell_reset(vsock);
	return 0;
}

static bool vsock_stop(struct favo_virtio *dev, bool wait)
{
	struct vsock *vsock = from_dev(dev);

	(void)wait;
	set_running(vsock, 0);
	favo_vhost_stop(&vsock->vhost);
	return true;
}

/* The driver's event buffers stay where they are until there is an event. */
static void vsock_kick(struct favo_virtio *dev, unsigned q)
{
	(void)q;
	tell_reset(from_dev(dev));
}

static int vsock_load(struct favo_virtio *dev, struct favo_state_in *in,
		      struct favo_err *err)
{
	(void)in;
	(void)err;
	from_dev(dev)->tell_reset = true;
	return 0;
}

/* The context id: the driver reads it again after the event above. */
static bool vsock_may_differ(const struct favo_virtio *dev, unsigned off)
{
	(void)dev;
	(void)off;
	return true;
}

static void vsock_stats(struct favo_virtio *dev, json_t *object)
{
	json_object_set_new(object, "cid", json_integer((json_int_t)from_dev(dev)->cid));
}

static void vsock_free(struct favo_virtio *dev)
{
	struct vsock *vsock = from_dev(dev);

	if (vsock->vhost.started)
		vsock_stop(dev, true);
	favo_vhost_fini(&vsock->vhost);
	favo_virtio_fini(dev);
	free(vsock);
}

static const struct favo_virtio_ops vsock_ops = {
	.name = "vsock",
	.id = VIRTIO_ID_VSOCK,
	.class_code = 0x078000,
	.start = vsock_start,
	.stop = vsock_stop,
	.kick = vsock_kick,
	.stats = vsock_stats,
	.may_differ = vsock_may_differ,
	.load = vsock_load,
	.free = vsock_free,
};

static int set_up(struct vsock *vsock, const char *text, struct favo_loop *loop,
		  struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	const char *cid = NULL, *number = NULL;
	const struct favo_spec_key keys[] = {
		{.name = "cid", .value = &cid},
		{.name = "fd", .value = &number},
	};
	struct virtio_vsock_config config;
	int fd = -1, ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "allocate option");
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret == 0 && !cid)
		ret = favo_fail(err, EINVAL, "cid=N is needed");
	/* 0 to 2 have other meanings, all ones is "any". */
	if (ret == 0)
		ret = favo_parse_u64(&vsock->cid, cid, 3, UINT32_MAX - 1, err);
	if (ret == 0 && number)
		ret = favo_spec_fd(&fd, number, err);
	if (ret < 0)
		return ret;
	if (!number)
		fd = open("/dev/vhost-vsock", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "open /dev/vhost-vsock: %m");
	ret = favo_vhost_init(&vsock->vhost, &vsock->dev, fd, EVENT_QUEUE, loop, err);
	if (ret < 0)
		return ret;
	if (ioctl(fd, VHOST_VSOCK_SET_GUEST_CID, &vsock->cid) < 0) {
		if (errno == EADDRINUSE)
			return favo_fail(err, errno,
					 "another VM of this node has this cid");
		return favo_fail(err, errno, "VHOST_VSOCK_SET_GUEST_CID: %m");
	}
	config.guest_cid = htole64(vsock->cid);
	memcpy(vsock->dev.config, &config, sizeof(config));
	vsock->dev.config_len = sizeof(config);
	return 0;
}

int favo_vsock_add(struct favo_vm *vm, const char *spec, struct favo_err *err)
{
	struct vsock *vsock = calloc(1, sizeof(*vsock));
	int ret;

	if (!vsock)
		return favo_fail(err, ENOMEM, "allocate device");
	vsock->vhost.fd = -1;
	vsock->dev.nqueues = 3;
	vsock->dev.queue_size = 256;
	vsock->dev.external = FAVO_VIRTIO_BIT(0) | FAVO_VIRTIO_BIT(1);
	ret = set_up(vsock, spec, vm->loop, err);
	if (ret == 0) {
		vsock->dev.ring_features = vsock->vhost.features;
		vsock->dev.offered = vsock->vhost.features & FAVO_VIRTIO_BIT(SEQPACKET);
		ret = favo_virtio_add(&vsock->dev, vm, &vsock_ops, err);
	}
	if (ret < 0)
		vsock_free(&vsock->dev);
	return ret;
}
