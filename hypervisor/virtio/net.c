/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Network device: virtio 1.2 section 5.1, one queue pair, no control queue.
 *
 * With vhost-net the kernel moves the frames. Otherwise they go between tap and
 * guest here: a frame is read straight into the first buffer of the driver, and
 * what does not fit there (mergeable buffers) goes through a bounce buffer. The
 * offload header is the kernel's to judge in both directions; only its
 * num_buffers is ours.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vhost.h>
#include <linux/virtio_net.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/str.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/net_spec.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/virtio/tap.h"
#include "hypervisor/virtio/vhost.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"
#include "hypervisor/vmxnet3/device.h"

#define RX 0
#define TX 1
#define QUEUE_SIZE 256
#define SEGS 256
#define HEADER sizeof(struct virtio_net_hdr_mrg_rxbuf)
#define FRAME_MAX (HEADER + 65536 + 64)
#define TURN 128 /* frames before other devices get their turn */
#define BUFFERS_MAX 128 /* of one frame */

struct net {
	struct favo_virtio dev;
	struct favo_tap tap;
	struct favo_vhost vhost;
	struct favo_watch watch;
	bool watching;
	uint8_t *bounce; /* FRAME_MAX bytes */
	uint64_t rx_frames, rx_bytes, rx_dropped, tx_frames, tx_bytes, tx_dropped;
	struct iovec iov[SEGS + 1], more[SEGS];
};

static struct net *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct net, dev);
}

/* ---- to the network ------------------------------------------------------ */

static void send_frame(struct net *net, const struct favo_vq_req *req)
{
	ssize_t n = -1;

	/* A frame shorter than an Ethernet header is refused by the kernel. */
	if (req->out_len > HEADER && req->out_len <= FRAME_MAX)
		n = writev(net->tap.fd, req->iov, req->nout);
	if (n < 0) {
		net->tx_dropped++;
		return;
	}
	net->tx_frames++;
	net->tx_bytes += (uint64_t)n - HEADER;
}

static void transmit(struct net *net)
{
	struct favo_vq *vq = favo_virtio_vq(&net->dev, TX);
	struct favo_vq_req req = {.iov = net->iov, .max_segs = SEGS};
	unsigned budget = TURN;

	favo_vq_disable_notify(vq);
	do {
		while (budget && favo_vq_pop(vq, &req) > 0) {
			send_frame(net, &req);
			favo_vq_push(vq, req.head, 0);
			budget--;
		}
		if (!budget) {
			favo_virtio_requeue(&net->dev, TX);
			break;
		}
	} while (favo_vq_enable_notify(vq));
	favo_virtio_interrupt(&net->dev, TX);
}

/* ---- from the network ---------------------------------------------------- */

static void on_frames(struct favo_watch *watch, uint32_t events);

/* Frames are waited for only while the driver has buffers. */
static void want_frames(struct net *net, bool on)
{
	if (net->watching == on)
		return;
	if (!on)
		favo_watch_del(&net->watch);
	else if (favo_watch_add(net->dev.loop, &net->watch, net->tap.fd, EPOLLIN,
				on_frames, NULL) < 0)
		return;
	net->watching = on;
}

/*
 * Spread the rest of a frame, left bytes at rest, over further buffers of the
 * driver. The number of buffers used, or 0 when they did not suffice.
 */
static unsigned spread(struct net *net, const uint8_t *rest, size_t left)
{
	struct favo_vq *vq = favo_virtio_vq(&net->dev, RX);
	struct favo_vq_req req = {.iov = net->more, .max_segs = SEGS};
	unsigned n = 1;

	while (left) {
		size_t part;

		if (n == BUFFERS_MAX || favo_vq_pop(vq, &req) <= 0) {
			favo_vq_unpop(vq, (uint16_t)(n - 1));
			return 0;
		}
		part = favo_iov_write(req.iov + req.nout, req.nin, 0, rest, left);
		favo_vq_dirty(vq, req.iov + req.nout, req.nin, part);
		favo_vq_fill(vq, req.head, (uint32_t)part, (uint16_t)n);
		if (part == 0) {
			/* A buffer without writable part: it would never end. */
			favo_vq_break(vq, "receive buffer that cannot be written");
			return 0;
		}
		rest += part;
		left -= part;
		n++;
	}
	return n;
}

/* Hand over a frame of n bytes that begins in req's buffer. */
static void deliver(struct net *net, const struct favo_vq_req *req, size_t n)
{
	struct favo_vq *vq = favo_virtio_vq(&net->dev, RX);
	struct iovec *in = req->iov + req->nout;
	size_t first = FAVO_MIN(n, (size_t)req->in_len);
	unsigned buffers = 1;
	uint16_t num;

	if (first < n) {
		buffers = 0;
		if (favo_virtio_has(&net->dev, VIRTIO_NET_F_MRG_RXBUF))
			buffers = spread(net, net->bounce, n - first);
	}
	if (n < HEADER || buffers == 0) {
		net->rx_dropped++;
		favo_vq_unpop(vq, 1);
		return;
	}
	num = htole16((uint16_t)buffers);
	favo_iov_write(in, req->nin,
		       offsetof(struct virtio_net_hdr_mrg_rxbuf, num_buffers), &num,
		       sizeof(num));
	favo_vq_dirty(vq, in, req->nin, first);
	favo_vq_fill(vq, req->head, (uint32_t)first, 0);
	favo_vq_flush(vq, (uint16_t)buffers);
	net->rx_frames++;
	net->rx_bytes += n - HEADER;
}

/* One frame; false when there are no more buffers or frames now. */
static bool receive_one(struct net *net)
{
	struct favo_vq *vq = favo_virtio_vq(&net->dev, RX);
	struct favo_vq_req req = {.iov = net->iov, .max_segs = SEGS};
	ssize_t n;

	if (favo_vq_pop(vq, &req) <= 0) {
		want_frames(net, false);
		if (favo_vq_enable_notify(vq))
			favo_virtio_requeue(&net->dev, RX);
		return false;
	}
	if (req.in_len < HEADER || req.nout) {
		favo_vq_break(vq, "receive buffer too small for the header");
		return false;
	}
	/* The driver's buffer, and behind it room for what is longer. */
	req.iov[req.nin] = (struct iovec){net->bounce, FRAME_MAX};
	n = readv(net->tap.fd, req.iov, req.nin + 1);
	if (n <= 0) {
		favo_vq_unpop(vq, 1);
		/* An interface that went away would be ready, and fail, for ever. */
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			want_frames(net, false);
		return false;
	}
	deliver(net, &req, (size_t)n);
	return true;
}

static void on_frames(struct favo_watch *watch, uint32_t events)
{
	struct net *net = favo_container_of(watch, struct net, watch);

	(void)events;
	favo_virtio_lock(&net->dev);
	if (net->watching && favo_virtio_running(&net->dev)) {
		for (unsigned i = 0; i < TURN && receive_one(net); i++)
			;
		favo_virtio_interrupt(&net->dev, RX);
	}
	favo_virtio_unlock(&net->dev);
}

static void net_kick(struct favo_virtio *dev, unsigned q)
{
	struct net *net = from_dev(dev);

	if (q == TX) {
		transmit(net);
		return;
	}
	favo_vq_disable_notify(favo_virtio_vq(dev, RX));
	want_frames(net, true);
}

/* ---- life cycle ---------------------------------------------------------- */

static int set_backend(struct net *net, int fd)
{
	for (unsigned q = RX; q <= TX; q++) {
		struct vhost_vring_file file = {.index = q, .fd = fd};

		if (net->dev.queues[q].vq.started &&
		    ioctl(net->vhost.fd, VHOST_NET_SET_BACKEND, &file) < 0)
			return -errno;
	}
	return 0;
}

static bool net_stop(struct favo_virtio *dev, bool wait)
{
	struct net *net = from_dev(dev);

	(void)wait;
	want_frames(net, false);
	if (net->vhost.started) {
		set_backend(net, -1);
		favo_vhost_stop(&net->vhost);
	}
	return true;
}

static int net_start(struct favo_virtio *dev, struct favo_err *err)
{
	struct net *net = from_dev(dev);
	int ret = favo_tap_set_features(&net->tap, dev->features);

	if (ret < 0)
		return favo_fail(err, -ret, "TUNSETOFFLOAD: %m");
	if (net->vhost.fd < 0)
		return 0;
	ret = favo_vhost_start(&net->vhost, dev->features, err);
	if (ret < 0)
		return ret;
	ret = set_backend(net, net->tap.fd);
	if (ret < 0) {
		net_stop(dev, true);
		return favo_fail(err, -ret, "VHOST_NET_SET_BACKEND: %m");
	}
	return 0;
}

static void net_stats(struct favo_virtio *dev, json_t *object)
{
	struct net *net = from_dev(dev);
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"rx_frames", net->rx_frames},	 {"rx_bytes", net->rx_bytes},
		{"rx_dropped", net->rx_dropped}, {"tx_frames", net->tx_frames},
		{"tx_bytes", net->tx_bytes},	 {"tx_dropped", net->tx_dropped},
	};

	json_object_set_new(object, "vhost", json_boolean(net->vhost.fd >= 0));
	/* The kernel's frames are counted at the tap interface. */
	for (size_t i = 0; net->vhost.fd < 0 && i < FAVO_ARRAY_SIZE(rows); i++)
		json_object_set_new(object, rows[i].name,
				    json_integer((json_int_t)rows[i].value));
}

/* The address belongs to the VM's new identity; the guest's agent sets it. */
static bool net_may_differ(const struct favo_virtio *dev, unsigned off)
{
	(void)dev;
	return off < 6;
}

static void net_free(struct favo_virtio *dev)
{
	struct net *net = from_dev(dev);

	net_stop(dev, true);
	favo_vhost_fini(&net->vhost);
	favo_virtio_fini(dev);
	favo_tap_fini(&net->tap);
	free(net->bounce);
	free(net);
}

static const struct favo_virtio_ops net_ops = {
	.name = "net",
	.id = VIRTIO_ID_NET,
	.class_code = 0x020000,
	.start = net_start,
	.stop = net_stop,
	.kick = net_kick,
	.stats = net_stats,
	.may_differ = net_may_differ,
	.free = net_free,
};

/* ---- set-up -------------------------------------------------------------- */

static int open_vhost(struct net *net, const char *how, struct favo_loop *loop,
		      struct favo_err *err)
{
	bool automatic = !*how || strcmp(how, "auto") == 0;
	int fd = -1, ret;

	if (strcmp(how, "off") == 0)
		return 0;
	if (automatic) {
		fd = net->tap.is_tap ? open("/dev/vhost-net", O_RDWR | O_CLOEXEC) : -1;
		if (fd < 0)
			return 0;
	} else {
		ret = favo_spec_fd(&fd, how, err);
		if (ret < 0)
			return ret;
		if (!net->tap.is_tap) {
			close(fd);
			return favo_fail(err, EINVAL, "vhost needs a tap interface");
		}
	}
	ret = favo_vhost_init(&net->vhost, &net->dev, fd, 2, loop, err);
	if (ret == 0) {
		net->dev.external = FAVO_VIRTIO_BIT(RX) | FAVO_VIRTIO_BIT(TX);
		net->dev.ring_features = net->vhost.features;
	}
	return ret;
}

static void set_config(struct net *net, const uint8_t mac[6], uint16_t mtu)
{
	struct virtio_net_config c = {
		.status = htole16(VIRTIO_NET_S_LINK_UP),
		.max_virtqueue_pairs = htole16(1),
		.mtu = htole16(mtu),
	};

	memcpy(c.mac, mac, sizeof(c.mac));
	net->dev.config_len = offsetof(struct virtio_net_config, speed);
	memcpy(net->dev.config, &c, net->dev.config_len);
	net->dev.offered = favo_tap_features(&net->tap) |
			   FAVO_VIRTIO_BIT(VIRTIO_NET_F_MAC) |
			   FAVO_VIRTIO_BIT(VIRTIO_NET_F_STATUS) |
			   FAVO_VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
	if (mtu)
		net->dev.offered |= FAVO_VIRTIO_BIT(VIRTIO_NET_F_MTU);
	if (net->vhost.fd >= 0 &&
	    !(net->vhost.features & FAVO_VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF)))
		net->dev.offered &= ~FAVO_VIRTIO_BIT(VIRTIO_NET_F_MRG_RXBUF);
}

static int add_virtio(struct favo_vm *vm, struct favo_net_spec *spec,
		      struct favo_err *err)
{
	struct net *net = calloc(1, sizeof(*net));
	int ret = 0;

	if (!net)
		return favo_fail(err, ENOMEM, "allocate device");
	net->tap = spec->tap;
	spec->tap.fd = -1;
	net->vhost.fd = -1;
	net->dev.nqueues = 2;
	net->dev.queue_size = QUEUE_SIZE;
	net->bounce = malloc(FRAME_MAX);
	if (!net->bounce)
		ret = favo_fail(err, ENOMEM, "allocate device");
	if (ret == 0)
		ret = open_vhost(net, spec->vhost, vm->loop, err);
	if (ret == 0) {
		set_config(net, spec->mac, spec->mtu);
		ret = favo_virtio_add(&net->dev, vm, &net_ops, err);
	}
	if (ret < 0)
		net_free(&net->dev);
	return ret;
}

int favo_net_add(struct favo_vm *vm, const char *text, struct favo_err *err)
{
	struct favo_net_spec spec;
	int ret = favo_net_spec_open(&spec, text, err);

	if (ret == 0)
		ret = spec.vmxnet3 ? favo_vmxnet3_add(vm, &spec, err)
				   : add_virtio(vm, &spec, err);
	favo_net_spec_close(&spec);
	return ret;
}
