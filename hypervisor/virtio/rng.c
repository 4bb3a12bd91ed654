/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Entropy device: virtio 1.2 section 5.4, fed by getrandom(2).
 *
 * A request gets at most REQUEST_MAX bytes (fewer than asked for is allowed),
 * and a token bucket keeps a guest that asks in a loop from burning a host CPU.
 */
#include <string.h>
#include <sys/random.h>

#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define REQUEST_MAX 4096
#define BURST (64 * 1024)
#define BYTES_PER_MS 1024
#define SEGS 64

struct rng {
	struct favo_virtio dev;
	struct favo_timer refill; /* wakes the queue when tokens are back */
	bool refill_ready;
	int64_t last_ms;
	uint64_t tokens; /* bytes that may be given out now */
	uint64_t bytes;
	uint64_t throttled;
	struct iovec iov[SEGS];
};

static struct rng *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct rng, dev);
}

static void add_tokens(struct rng *rng)
{
	int64_t now = favo_now_ms(), passed = now - rng->last_ms;

	rng->last_ms = now;
	if (passed <= 0)
		return;
	if (passed > BURST / BYTES_PER_MS)
		passed = BURST / BYTES_PER_MS;
	rng->tokens =
		FAVO_MIN(rng->tokens + (uint64_t)passed * BYTES_PER_MS, (uint64_t)BURST);
}

/* Fill a request; the bytes written. */
static uint32_t fill(struct favo_vq *vq, const struct favo_vq_req *req)
{
	uint8_t buf[REQUEST_MAX];
	size_t len = FAVO_MIN(req->in_len, (uint64_t)REQUEST_MAX);
	const struct iovec *in = req->iov + req->nout;
	ssize_t got = getrandom(buf, len, GRND_NONBLOCK);

	if (got <= 0)
		return 0;
	favo_iov_write(in, req->nin, 0, buf, (size_t)got);
	favo_vq_dirty(vq, in, req->nin, (size_t)got);
	explicit_bzero(buf, sizeof(buf));
	return (uint32_t)got;
}

static void rng_kick(struct favo_virtio *dev, unsigned q)
{
	struct rng *rng = from_dev(dev);
	struct favo_vq *vq = favo_virtio_vq(dev, q);
	struct favo_vq_req req = {.iov = rng->iov, .max_segs = SEGS};

	add_tokens(rng);
	favo_vq_disable_notify(vq);
	do {
		while (rng->tokens >= REQUEST_MAX && favo_vq_pop(vq, &req) > 0) {
			uint32_t n = fill(vq, &req);

			rng->tokens -= n;
			rng->bytes += n;
			favo_vq_push(vq, req.head, n);
		}
		if (rng->tokens < REQUEST_MAX) {
			rng->throttled++;
			favo_timer_set(&rng->refill, REQUEST_MAX / BYTES_PER_MS + 1);
			break;
		}
	} while (favo_vq_enable_notify(vq));
	favo_virtio_interrupt(dev, q);
}

static void on_refill(struct favo_timer *timer)
{
	struct rng *rng = favo_container_of(timer, struct rng, refill);

	favo_virtio_requeue(&rng->dev, 0);
}

static void rng_stats(struct favo_virtio *dev, json_t *object)
{
	struct rng *rng = from_dev(dev);

	json_object_set_new(object, "bytes", json_integer((json_int_t)rng->bytes));
	json_object_set_new(object, "throttled",
			    json_integer((json_int_t)rng->throttled));
}

static void rng_free(struct favo_virtio *dev)
{
	struct rng *rng = from_dev(dev);

	if (rng->refill_ready)
		favo_timer_fini(&rng->refill);
	favo_virtio_fini(dev);
	free(rng);
}

static const struct favo_virtio_ops rng_ops = {
	.name = "rng",
	.id = VIRTIO_ID_RNG,
	.class_code = 0x00ff00,
	.kick = rng_kick,
	.stats = rng_stats,
	.free = rng_free,
};

int favo_rng_add(struct favo_vm *vm, struct favo_err *err)
{
	struct rng *rng = calloc(1, sizeof(*rng));
	int ret;

	if (!rng)
		return favo_fail(err, ENOMEM, "allocate device");
	rng->dev.nqueues = 1;
	rng->dev.queue_size = 64;
	rng->tokens = BURST;
	rng->last_ms = favo_now_ms();
	ret = favo_timer_init(vm->loop, &rng->refill, on_refill, err);
	rng->refill_ready = ret == 0;
	if (ret == 0)
		ret = favo_virtio_add(&rng->dev, vm, &rng_ops, err);
	if (ret < 0)
		rng_free(&rng->dev);
	return ret;
}
