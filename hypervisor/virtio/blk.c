/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Block device: virtio 1.2 section 5.2. Requests are checked here on a private
 * copy of their header and carried out by disk.c, several at a time.
 *
 * Not offered: barriers, SCSI commands, zones, lifetime, secure erase; the write
 * cache is always on and flushed on request.
 */
#include <fcntl.h>
#include <string.h>

#include <linux/virtio_blk.h>

#include "common/str.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/disk.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define SECTOR 512
#define QUEUE_SIZE 256
#define QUEUES_MAX 32 /* all served by one thread: they spare locks in the guest */
#define SEGS 128 /* header and status beside SEG_MAX of data */
#define REQUESTS 128
#define TURN 512 /* requests before other devices get their turn */
#define RANGE_MAX (1U << 22) /* sectors in one discard or write-zeroes: 2 GiB */

struct request {
	struct favo_disk_req disk;
	struct blk *blk;
	struct request *next; /* free list */
	unsigned queue;
	uint16_t head;
	uint8_t *status; /* where the driver waits for it */
	uint32_t written; /* bytes of data for the driver if all goes well */
	unsigned nout, nin;
	struct iovec iov[SEGS], scratch[SEGS];
};

struct blk {
	struct favo_virtio dev;
	struct favo_disk *disk;
	struct favo_watch watch;
	bool readonly;
	char serial[VIRTIO_BLK_ID_BYTES];
	struct request *requests, *free;
	unsigned under_way, budget;
	uint64_t waiting; /* queues that wait for a free request */
	uint64_t touched; /* queues with something new for the driver */
	uint64_t reads, writes, flushes, errors, read_bytes, written_bytes;
};

static struct blk *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct blk, dev);
}

static void give_back(struct blk *blk, struct request *r)
{
	r->next = blk->free;
	blk->free = r;
	blk->under_way--;
}

/* ---- end of a request --------------------------------------------------- */

static void complete(struct request *r, uint8_t status)
{
	struct blk *blk = r->blk;
	struct favo_vq *vq = favo_virtio_vq(&blk->dev, r->queue);
	struct iovec status_iov = {r->status, 1};
	uint32_t written = status == VIRTIO_BLK_S_OK ? r->written : 0;

	*r->status = status;
	favo_vq_dirty(vq, r->iov + r->nout, r->nin, written);
	favo_vq_dirty(vq, &status_iov, 1, 1);
	favo_vq_push(vq, r->head, written + 1);
	blk->errors += status != VIRTIO_BLK_S_OK;
	blk->touched |= FAVO_VIRTIO_BIT(r->queue);
	give_back(blk, r);
}

static void disk_done(struct favo_disk_req *req, int result)
{
	struct request *r = favo_container_of(req, struct request, disk);

	complete(r, result < 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_OK);
}

/* ---- start of a request ------------------------------------------------- */

/* Is the range inside the disk? Sizes of the guest, so no sum may wrap. */
static bool in_disk(const struct blk *blk, uint64_t sector, uint64_t bytes)
{
	uint64_t size = favo_disk_size(blk->disk);

	return sector <= size / SECTOR && bytes <= size - sector * SECTOR;
}

static void submit(struct request *r, enum favo_disk_op op, uint64_t sector,
		   uint64_t bytes)
{
	r->disk.op = op;
	r->disk.off = sector * SECTOR;
	r->disk.len = bytes;
	r->disk.durable = !favo_virtio_has(&r->blk->dev, VIRTIO_BLK_F_FLUSH);
	r->disk.done = disk_done;
	favo_disk_submit(r->blk->disk, &r->disk);
}

static void transfer(struct request *r, bool write, uint64_t sector, struct iovec *data,
		     unsigned n, uint64_t bytes)
{
	struct blk *blk = r->blk;

	if (bytes % SECTOR || !in_disk(blk, sector, bytes) || (write && blk->readonly)) {
		complete(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (bytes == 0) {
		complete(r, VIRTIO_BLK_S_OK);
		return;
	}
	if (write) {
		blk->writes++;
		blk->written_bytes += bytes;
	} else {
		blk->reads++;
		blk->read_bytes += bytes;
		r->written = (uint32_t)bytes;
	}
	r->disk.data = data;
	r->disk.ndata = n;
	submit(r, write ? FAVO_DISK_WRITE : FAVO_DISK_READ, sector, bytes);
}

static void get_id(struct request *r, struct iovec *in, unsigned n, uint64_t bytes)
{
	if (bytes < VIRTIO_BLK_ID_BYTES) {
		complete(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	favo_iov_write(in, n, 0, r->blk->serial, VIRTIO_BLK_ID_BYTES);
	r->written = VIRTIO_BLK_ID_BYTES;
	complete(r, VIRTIO_BLK_S_OK);
}

/* Discard and write-zeroes name one range (section 5.2.6.2). */
static void change_range(struct request *r, bool zero, uint64_t bytes)
{
	struct virtio_blk_discard_write_zeroes range;
	uint64_t sector, sectors;
	uint32_t flags;

	if (r->blk->readonly || bytes != sizeof(range)) {
		complete(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	favo_iov_read(r->iov, r->nout, sizeof(struct virtio_blk_outhdr), &range,
		      sizeof(range));
	sector = le64toh(range.sector);
	sectors = le32toh(range.num_sectors);
	flags = le32toh(range.flags);
	if (flags & ~(zero ? VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP : 0U)) {
		complete(r, VIRTIO_BLK_S_UNSUPP);
		return;
	}
	if (sectors > RANGE_MAX || !in_disk(r->blk, sector, sectors * SECTOR)) {
		complete(r, VIRTIO_BLK_S_IOERR);
		return;
	}
	if (sectors == 0) {
		complete(r, VIRTIO_BLK_S_OK);
		return;
	}
	r->disk.may_unmap = flags & VIRTIO_BLK_WRITE_ZEROES_FLAG_UNMAP;
	submit(r, zero ? FAVO_DISK_ZERO : FAVO_DISK_DISCARD, sector, sectors * SECTOR);
}

static void dispatch(struct request *r, const struct virtio_blk_outhdr *hdr,
		     uint64_t out_bytes, uint64_t in_bytes)
{
	struct iovec *in = r->iov + r->nout;
	uint64_t sector = le64toh(hdr->sector);
	unsigned skip;

	switch (le32toh(hdr->type)) {
	case VIRTIO_BLK_T_IN:
		transfer(r, false, sector, in, r->nin, in_bytes);
		break;
	case VIRTIO_BLK_T_OUT:
		skip = (unsigned)favo_iov_skip(r->iov, r->nout, sizeof(*hdr));
		transfer(r, true, sector, r->iov + skip, r->nout - skip, out_bytes);
		break;
	case VIRTIO_BLK_T_FLUSH:
		r->blk->flushes++;
		submit(r, FAVO_DISK_FLUSH, 0, 0);
		break;
	case VIRTIO_BLK_T_GET_ID:
		get_id(r, in, r->nin, in_bytes);
		break;
	case VIRTIO_BLK_T_DISCARD:
		change_range(r, false, out_bytes);
		break;
	case VIRTIO_BLK_T_WRITE_ZEROES:
		change_range(r, true, out_bytes);
		break;
	default:
		complete(r, VIRTIO_BLK_S_UNSUPP);
	}
}

/*
 * Take one request from a queue. Framing is free (section 2.7.4): the header is
 * the first 16 readable bytes, the status the last writable byte.
 */
static bool take(struct blk *blk, unsigned q)
{
	struct favo_vq *vq = favo_virtio_vq(&blk->dev, q);
	struct request *r = blk->free;
	struct favo_vq_req req = {.iov = r->iov, .max_segs = SEGS};
	struct virtio_blk_outhdr hdr;
	struct iovec *last;

	if (favo_vq_pop(vq, &req) <= 0)
		return false;
	if (req.out_len < sizeof(hdr) || req.nin == 0) {
		favo_vq_break(vq, "block request without header or status");
		return false;
	}
	favo_iov_read(r->iov, req.nout, 0, &hdr, sizeof(hdr));
	last = &r->iov[req.nout + req.nin - 1];
	last->iov_len--;
	blk->free = r->next;
	blk->under_way++;
	r->queue = q;
	r->head = req.head;
	r->status = (uint8_t *)last->iov_base + last->iov_len;
	r->written = 0;
	r->nout = req.nout;
	r->nin = req.nin - (last->iov_len == 0);
	r->disk.may_unmap = false;
	r->disk.scratch = r->scratch;
	dispatch(r, &hdr, req.out_len - sizeof(hdr), req.in_len - 1);
	return true;
}

/* Take what there is and what there is room for. */
static void drain_queue(struct blk *blk, unsigned q)
{
	struct favo_vq *vq = favo_virtio_vq(&blk->dev, q);

	favo_vq_disable_notify(vq);
	do {
		while (blk->free && blk->budget && take(blk, q))
			blk->budget--;
		if (!blk->free) {
			/* Completions bring us back. */
			blk->waiting |= FAVO_VIRTIO_BIT(q);
			return;
		}
		if (!blk->budget) {
			favo_virtio_requeue(&blk->dev, q);
			break;
		}
	} while (favo_vq_enable_notify(vq));
	blk->waiting &= ~FAVO_VIRTIO_BIT(q);
	blk->touched |= FAVO_VIRTIO_BIT(q);
}

static void tell_driver(struct blk *blk)
{
	for (unsigned q = 0; blk->touched; q++, blk->touched >>= 1)
		if (blk->touched & 1)
			favo_virtio_interrupt(&blk->dev, q);
}

/* Push on until nothing more ends at once. */
static void run(struct blk *blk)
{
	favo_disk_run(blk->disk);
	while (blk->waiting && blk->free && favo_virtio_running(&blk->dev)) {
		for (unsigned q = 0; q < blk->dev.nqueues; q++)
			if (blk->waiting & FAVO_VIRTIO_BIT(q))
				drain_queue(blk, q);
		favo_disk_run(blk->disk);
	}
	tell_driver(blk);
	if (blk->dev.stopping && blk->under_way == 0)
		favo_virtio_stopped(&blk->dev);
}

static void blk_kick(struct favo_virtio *dev, unsigned q)
{
	struct blk *blk = from_dev(dev);

	blk->budget = TURN;
	drain_queue(blk, q);
	run(blk);
}

static void on_disk(struct favo_watch *watch, uint32_t events)
{
	struct blk *blk = favo_container_of(watch, struct blk, watch);

	(void)events;
	favo_virtio_lock(&blk->dev);
	blk->budget = TURN;
	run(blk);
	favo_virtio_unlock(&blk->dev);
}

static bool blk_stop(struct favo_virtio *dev, bool wait)
{
	struct blk *blk = from_dev(dev);

	blk->waiting = 0;
	while (wait && blk->under_way)
		favo_disk_wait(blk->disk);
	tell_driver(blk);
	return blk->under_way == 0;
}

static void blk_stats(struct favo_virtio *dev, json_t *object)
{
	struct blk *blk = from_dev(dev);
	const struct {
		const char *name;
		uint64_t value;
	} rows[] = {
		{"reads", blk->reads},	       {"read_bytes", blk->read_bytes},
		{"writes", blk->writes},       {"written_bytes", blk->written_bytes},
		{"flushes", blk->flushes},     {"errors", blk->errors},
		{"under_way", blk->under_way},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		json_object_set_new(object, rows[i].name,
				    json_integer((json_int_t)rows[i].value));
	json_object_set_new(object, "engine",
			    json_string(favo_disk_is_uring(blk->disk) ? "io_uring"
								      : "sync"));
}

struct flush {
	struct favo_disk_req req;
	bool done;
	int result;
};

static void flush_done(struct favo_disk_req *req, int result)
{
	struct flush *f = favo_container_of(req, struct flush, req);

	f->result = result;
	f->done = true;
}

/* The content is no part of the state; what a copy of the files shows must be whole. */
static int blk_save(struct favo_virtio *dev, struct favo_state_out *out,
		    struct favo_err *err)
{
	struct flush f = {.req = {.op = FAVO_DISK_FLUSH, .done = flush_done}};
	struct blk *blk = from_dev(dev);

	(void)out;
	if (blk->readonly)
		return 0;
	favo_disk_submit(blk->disk, &f.req);
	favo_disk_run(blk->disk);
	while (!f.done)
		favo_disk_wait(blk->disk);
	return f.result < 0 ? favo_fail(err, -f.result, "flush the disk: %m") : 0;
}

static void blk_free(struct favo_virtio *dev)
{
	struct blk *blk = from_dev(dev);

	if (blk->disk)
		blk_stop(dev, true);
	favo_watch_del(&blk->watch);
	favo_virtio_fini(dev);
	favo_disk_free(blk->disk);
	free(blk->requests);
	free(blk);
}

static const struct favo_virtio_ops blk_ops = {
	.name = "blk",
	.id = VIRTIO_ID_BLOCK,
	.class_code = 0x010000,
	.stop = blk_stop,
	.kick = blk_kick,
	.stats = blk_stats,
	.save = blk_save,
	.free = blk_free,
};

/* ---- set-up -------------------------------------------------------------- */

static void set_config(struct blk *blk)
{
	uint64_t grain = favo_disk_grain(blk->disk) / SECTOR;
	struct virtio_blk_config c = {
		.capacity = htole64(favo_disk_size(blk->disk) / SECTOR),
		.seg_max = htole32(SEGS - 2),
		.blk_size = htole32(SECTOR),
		.physical_block_exp = 3,
		.num_queues = htole16((uint16_t)blk->dev.nqueues),
		.max_discard_sectors = htole32(RANGE_MAX),
		.max_discard_seg = htole32(1),
		.discard_sector_alignment = htole32((uint32_t)grain),
		.max_write_zeroes_sectors = htole32(RANGE_MAX),
		.max_write_zeroes_seg = htole32(1),
		.write_zeroes_may_unmap = 1,
	};

	blk->dev.config_len = sizeof(c);
	memcpy(blk->dev.config, &c, sizeof(c));
	blk->dev.offered = FAVO_VIRTIO_BIT(VIRTIO_BLK_F_SEG_MAX) |
			   FAVO_VIRTIO_BIT(VIRTIO_BLK_F_BLK_SIZE) |
			   FAVO_VIRTIO_BIT(VIRTIO_BLK_F_TOPOLOGY);
	if (blk->dev.nqueues > 1)
		blk->dev.offered |= FAVO_VIRTIO_BIT(VIRTIO_BLK_F_MQ);
	if (blk->readonly)
		blk->dev.offered |= FAVO_VIRTIO_BIT(VIRTIO_BLK_F_RO);
	else
		blk->dev.offered |= FAVO_VIRTIO_BIT(VIRTIO_BLK_F_FLUSH) |
				    FAVO_VIRTIO_BIT(VIRTIO_BLK_F_DISCARD) |
				    FAVO_VIRTIO_BIT(VIRTIO_BLK_F_WRITE_ZEROES);
}

struct blk_spec {
	const char *path, *fd, *overlay, *overlay_fd, *id, *io, *queues;
	bool ro, temp;
};

static int open_file(int *fd, const char *path, const char *number, int flags,
		     struct favo_err *err)
{
	if (path && number)
		return favo_fail(err, EINVAL, "a path and a descriptor for one file");
	if (number)
		return favo_spec_fd(fd, number, err);
	*fd = open(path, flags | O_CLOEXEC, 0600);
	return *fd < 0 ? favo_fail(err, errno, "open %s: %m", path) : 0;
}

static int open_disk(struct blk *blk, const struct blk_spec *spec, struct favo_err *err)
{
	bool overlay = spec->overlay || spec->overlay_fd;
	struct favo_disk_opts opts = {
		.overlay_fd = -1,
		.readonly = spec->ro,
		.temp = spec->temp,
		.uring = !spec->io || strcmp(spec->io, "uring") == 0,
		.depth = REQUESTS,
	};
	int ret;

	if (!spec->path && !spec->fd)
		return favo_fail(err, EINVAL, "path=PATH or fd=N is needed");
	if (spec->ro && overlay)
		return favo_fail(err, EINVAL, "\"ro\" and an overlay exclude each other");
	if (spec->io && !opts.uring && strcmp(spec->io, "sync") != 0)
		return favo_fail(err, EINVAL, "io is uring or sync, not \"%s\"",
				 spec->io);
	ret = open_file(&opts.fd, spec->path, spec->fd,
			spec->ro || overlay ? O_RDONLY : O_RDWR, err);
	if (ret < 0)
		return ret;
	if (overlay)
		ret = open_file(&opts.overlay_fd, spec->overlay, spec->overlay_fd,
				O_RDWR | O_CREAT, err);
	if (ret < 0) {
		close(opts.fd);
		return ret;
	}
	blk->readonly = spec->ro;
	return favo_disk_open(&blk->disk, &opts, err);
}

static int set_up(struct blk *blk, const char *text, struct favo_loop *loop,
		  struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	struct blk_spec spec = {0};
	const struct favo_spec_key keys[] = {
		{.name = "path", .value = &spec.path},
		{.name = "fd", .value = &spec.fd},
		{.name = "overlay", .value = &spec.overlay},
		{.name = "overlay-fd", .value = &spec.overlay_fd},
		{.name = "id", .value = &spec.id},
		{.name = "io", .value = &spec.io},
		{.name = "queues", .value = &spec.queues},
		{.name = "ro", .flag = &spec.ro},
		{.name = "temp", .flag = &spec.temp},
	};
	uint64_t queues = 1;
	int ret;

	blk->requests = calloc(REQUESTS, sizeof(*blk->requests));
	if (!copy || !blk->requests)
		return favo_fail(err, ENOMEM, "allocate device");
	for (unsigned i = REQUESTS; i-- > 0;) {
		blk->requests[i].blk = blk;
		blk->requests[i].next = blk->free;
		blk->free = &blk->requests[i];
	}
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret == 0 && spec.queues)
		ret = favo_parse_u64(&queues, spec.queues, 1, QUEUES_MAX, err);
	if (ret == 0)
		ret = open_disk(blk, &spec, err);
	if (ret < 0)
		return ret;
	blk->dev.nqueues = (unsigned)queues;
	/* The field holds 20 bytes, without an end mark when all are used. */
	if (spec.id)
		memcpy(blk->serial, spec.id, strnlen(spec.id, sizeof(blk->serial)));
	set_config(blk);
	if (favo_disk_event_fd(blk->disk) < 0)
		return 0;
	return favo_watch_add(loop, &blk->watch, favo_disk_event_fd(blk->disk),
			      EPOLLIN | EPOLLET, on_disk, err);
}

int favo_disk_add(struct favo_vm *vm, const char *spec, struct favo_err *err)
{
	struct blk *blk = calloc(1, sizeof(*blk));
	int ret;

	if (!blk)
		return favo_fail(err, ENOMEM, "allocate device");
	blk->dev.queue_size = QUEUE_SIZE;
	ret = set_up(blk, spec, vm->loop, err);
	if (ret == 0)
		ret = favo_virtio_add(&blk->dev, vm, &blk_ops, err);
	if (ret < 0)
		blk_free(&blk->dev);
	return ret;
}
