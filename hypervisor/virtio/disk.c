/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Disk image with copy on write: each request is a small state machine that is
 * stepped when its file operation ends.
 *
 * Write order with an overlay: data goes to its place first, the bit of its
 * cluster is set in memory when the write ended, and a flush makes both durable
 * in that order (overlay.h). A cluster that is written in part for the first
 * time gets the rest from the base before; two requests that bring in the same
 * cluster wait for each other.
 */
#include "hypervisor/virtio/disk.h"

#include <fcntl.h>
#include <linux/fs.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>

#include "common/util.h"

enum phase {
	START,
	FILL_READ, /* the part of a cluster that the request does not cover */
	FILL_WRITE,
	FILL_DONE,
	DATA,
	SYNC_DATA,
	WRITE_MAP,
	SYNC_MAP,
};

struct list {
	struct favo_disk_req *first, **last;
};

struct favo_disk {
	struct favo_aio *aio;
	int fd;
	bool temp; /* nobody reads it after this VM: flushes mean nothing */
	uint64_t size;
	struct favo_overlay *ov; /* NULL: fd is the disk */
	struct list allocating; /* requests that bring in clusters */
	struct list waiting; /* for one of those, or for the flush */
	struct favo_disk_req *flush; /* the one under way */
	uint64_t writes, flushed; /* writes ended; how many of them are durable */
};

static void step(struct favo_disk_req *req);

static void list_init(struct list *l)
{
	l->first = NULL;
	l->last = &l->first;
}

static void list_add(struct list *l, struct favo_disk_req *req)
{
	req->next = NULL;
	*l->last = req;
	l->last = &req->next;
}

static void list_del(struct list *l, struct favo_disk_req *req)
{
	struct favo_disk_req **p = &l->first;

	while (*p && *p != req)
		p = &(*p)->next;
	if (!*p)
		return;
	*p = req->next;
	if (l->last == &req->next)
		l->last = p;
}

/* ---- opening ----------------------------------------------------------- */

static int file_size(uint64_t *size, int fd, struct favo_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "disk: %m");
	if (S_ISREG(st.st_mode)) {
		*size = (uint64_t)st.st_size;
		return 0;
	}
	if (!S_ISBLK(st.st_mode))
		return favo_fail(err, EINVAL,
				 "disk: neither a regular file nor a block device");
	if (ioctl(fd, BLKGETSIZE64, size) < 0)
		return favo_fail(err, errno, "disk: size of the device: %m");
	return 0;
}

/* An opened disk must be writable, or the guest learns it at its first write. */
static int check_access(int fd, bool write, struct favo_err *err)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return favo_fail(err, errno, "disk: %m");
	if ((flags & O_ACCMODE) == O_WRONLY || (write && (flags & O_ACCMODE) != O_RDWR))
		return favo_fail(err, EACCES, "disk: the descriptor is not open for %s",
				 write ? "reading and writing (or say ro)" : "reading");
	return 0;
}

/*
 * Two VMs that write to one disk destroy it. File systems without locks are let
 * pass.
 */
static int lock_file(int fd, short type, struct favo_err *err)
{
	struct flock lock = {.l_type = type, .l_whence = SEEK_SET};

	if (fcntl(fd, F_OFD_SETLK, &lock) < 0 && (errno == EAGAIN || errno == EACCES))
		return favo_fail(err, EBUSY, "disk: another VM or program has it open");
	return 0;
}

static int open_parts(struct favo_disk *disk, const struct favo_disk_opts *opts,
		      struct favo_err *err)
{
	int overlay_fd = opts->overlay_fd, ret;
	bool write = !opts->readonly && overlay_fd < 0;

	disk->fd = opts->fd;
	ret = check_access(disk->fd, write, err);
	if (ret == 0)
		ret = lock_file(disk->fd, write ? F_WRLCK : F_RDLCK, err);
	if (ret == 0)
		ret = file_size(&disk->size, disk->fd, err);
	disk->size &= ~511ULL;
	if (ret == 0 && disk->size == 0)
		ret = favo_fail(err, EINVAL, "disk: is empty");
	if (overlay_fd < 0)
		return ret;
	if (ret == 0)
		ret = check_access(overlay_fd, true, err);
	if (ret < 0) {
		close(overlay_fd);
		return ret;
	}
	return favo_overlay_open(&disk->ov, overlay_fd, disk->size, disk->size, err);
}

int favo_disk_open(struct favo_disk **out, const struct favo_disk_opts *opts,
		   struct favo_err *err)
{
	struct favo_disk *disk = calloc(1, sizeof(*disk));
	int ret;

	if (!disk) {
		close(opts->fd);
		if (opts->overlay_fd >= 0)
			close(opts->overlay_fd);
		return favo_fail(err, ENOMEM, "disk: allocate");
	}
	list_init(&disk->allocating);
	list_init(&disk->waiting);
	disk->temp = opts->temp;
	ret = open_parts(disk, opts, err);
	if (ret == 0)
		ret = favo_aio_new(&disk->aio, opts->depth, opts->uring, err);
	if (ret < 0) {
		favo_disk_free(disk);
		return ret;
	}
	*out = disk;
	return 0;
}

static void note_done(struct favo_disk_req *req, int result)
{
	req->result = result;
	req->phase = SYNC_MAP + 1;
}

/* What the guest wrote and never flushed is kept too, if all goes well. */
static void last_flush(struct favo_disk *disk)
{
	struct favo_disk_req req = {.op = FAVO_DISK_FLUSH, .done = note_done};

	favo_disk_submit(disk, &req);
	while (req.phase <= SYNC_MAP)
		favo_disk_wait(disk);
}

void favo_disk_free(struct favo_disk *disk)
{
	if (!disk)
		return;
	if (disk->ov && disk->aio)
		last_flush(disk);
	favo_aio_free(disk->aio);
	favo_overlay_free(disk->ov);
	favo_close(&disk->fd);
	free(disk);
}

uint64_t favo_disk_size(const struct favo_disk *disk)
{
	return disk->size;
}

uint64_t favo_disk_grain(const struct favo_disk *disk)
{
	return disk->ov ? favo_overlay_cluster_size(disk->ov) : 4096;
}

bool favo_disk_is_uring(const struct favo_disk *disk)
{
	return favo_aio_is_uring(disk->aio);
}

int favo_disk_event_fd(const struct favo_disk *disk)
{
	return favo_aio_fd(disk->aio);
}

void favo_disk_run(struct favo_disk *disk)
{
	favo_aio_run(disk->aio);
}

void favo_disk_wait(struct favo_disk *disk)
{
	favo_aio_wait(disk->aio);
}

/* ---- helpers of the steps ---------------------------------------------- */

static void io_done(struct favo_io *io, int result)
{
	struct favo_disk_req *req = favo_container_of(io, struct favo_disk_req, io);

	if (result < 0)
		req->result = result;
	step(req);
}

static void queue_io(struct favo_disk_req *req, enum favo_io_op op, int fd, uint64_t off,
		     uint64_t len)
{
	req->io.op = op;
	req->io.fd = fd;
	req->io.off = off;
	req->io.len = len;
	req->io.may_unmap = req->may_unmap;
	req->io.done = io_done;
	favo_aio_queue(req->disk->aio, &req->io);
}

/* Point the operation at data[pos .. pos + len) through the scratch iovecs. */
static void aim_data(struct favo_disk_req *req, uint64_t pos, uint64_t len)
{
	unsigned n = 0;

	for (unsigned i = 0; i < req->ndata && len; i++) {
		const struct iovec *v = &req->data[i];
		uint64_t part;

		if (pos >= v->iov_len) {
			pos -= v->iov_len;
			continue;
		}
		part = FAVO_MIN(len, v->iov_len - pos);
		req->scratch[n++] = (struct iovec){
			.iov_base = (char *)v->iov_base + pos,
			.iov_len = part,
		};
		len -= part;
		pos = 0;
	}
	req->io.iov = req->scratch;
	req->io.niov = n;
}

static void finish(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;
	struct favo_disk_req *waiting;

	list_del(&disk->allocating, req);
	if (disk->flush == req)
		disk->flush = NULL;
	free(req->bounce);
	free(req->pages);
	req->bounce = NULL;
	req->pages = NULL;
	req->done(req, req->result);
	/* Let all that waited look again, in the order in which they came. */
	waiting = disk->waiting.first;
	list_init(&disk->waiting);
	while (waiting) {
		struct favo_disk_req *next = waiting->next;

		step(waiting);
		waiting = next;
	}
}

static void wait_in_line(struct favo_disk_req *req)
{
	list_add(&req->disk->waiting, req);
}

/* ---- flush ------------------------------------------------------------- */

/* Copy the map pages that changed: later writes do not belong to this flush. */
static int take_pages(struct favo_disk_req *req)
{
	struct favo_overlay *ov = req->disk->ov;
	unsigned n = 0;

	req->npages = req->page = 0;
	if (!ov || !ov->any_dirty)
		return 0;
	for (uint64_t i = 0; i < ov->map_pages; i++)
		n += ov->dirty[i];
	req->pages = malloc(n * sizeof(*req->pages));
	if (!req->pages)
		return -ENOMEM;
	while (req->npages < n && favo_overlay_next_page(ov, &req->pages[req->npages]))
		req->npages++;
	return 0;
}

static void flush_failed(struct favo_disk_req *req)
{
	for (unsigned i = 0; i < req->npages; i++)
		favo_overlay_undo(req->disk->ov, &req->pages[i]);
	finish(req);
}

static int data_fd(const struct favo_disk *disk)
{
	return disk->ov ? disk->ov->fd : disk->fd;
}

static void flush_start(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;

	if (disk->temp || disk->flushed == disk->writes) {
		finish(req);
		return;
	}
	if (disk->flush) {
		wait_in_line(req);
		return;
	}
	req->covers = disk->writes;
	req->result = take_pages(req);
	if (req->result < 0) {
		finish(req);
		return;
	}
	disk->flush = req;
	req->phase = SYNC_DATA;
	queue_io(req, FAVO_IO_SYNC, data_fd(disk), 0, 0);
}

static void flush_step(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;

	if (req->result < 0) {
		flush_failed(req);
		return;
	}
	if (req->phase == SYNC_DATA && req->npages)
		req->phase = WRITE_MAP;
	if (req->phase == WRITE_MAP && req->page < req->npages) {
		struct favo_overlay_page *page = &req->pages[req->page++];

		req->bounce_iov = (struct iovec){page->bytes, sizeof(page->bytes)};
		req->io.iov = &req->bounce_iov;
		req->io.niov = 1;
		queue_io(req, FAVO_IO_WRITE, disk->ov->fd, page->off,
			 sizeof(page->bytes));
		return;
	}
	if (req->phase == WRITE_MAP) {
		req->phase = SYNC_MAP;
		queue_io(req, FAVO_IO_SYNC, disk->ov->fd, 0, 0);
		return;
	}
	for (unsigned i = 0; i < req->npages; i++)
		favo_overlay_written(disk->ov, &req->pages[i]);
	disk->flushed = req->covers;
	finish(req);
}

/* ---- read -------------------------------------------------------------- */

/* Read the next run of clusters that lie in the same file. */
static void read_step(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;
	const struct favo_overlay *ov = disk->ov;
	uint64_t at = req->off + req->pos, len = req->len - req->pos, first, last;
	bool there = false;

	if (req->result < 0 || len == 0) {
		finish(req);
		return;
	}
	if (ov) {
		first = at >> ov->cluster_bits;
		last = (at + len - 1) >> ov->cluster_bits;
		there = favo_overlay_has(ov, first);
		len = FAVO_MIN(len, ((first + favo_overlay_run(ov, first, last))
				     << ov->cluster_bits) -
					    at);
	}
	aim_data(req, req->pos, len);
	req->pos += len;
	queue_io(req, FAVO_IO_READ, there ? ov->fd : disk->fd,
		 there ? ov->data_off + at : at, len);
}

/* ---- write ------------------------------------------------------------- */

static bool conflicts(const struct favo_disk_req *req)
{
	for (const struct favo_disk_req *r = req->disk->allocating.first; r; r = r->next)
		if (req->first <= r->last && r->first <= req->last)
			return true;
	return false;
}

/*
 * The next part of a new cluster that the request leaves out: before it, then
 * behind it. False: none.
 */
static bool next_fill(struct favo_disk_req *req)
{
	const struct favo_overlay *ov = req->disk->ov;
	uint64_t size = favo_overlay_cluster_size(ov);
	uint64_t start = req->first * size, end = req->off + req->len;
	uint64_t stop = FAVO_MIN((req->last + 1) * size, req->disk->size);

	if (req->pos == 0) {
		req->pos = 1;
		if (start < req->off && !favo_overlay_has(ov, req->first)) {
			req->fill_off = start;
			req->fill_len = req->off - start;
			return true;
		}
	}
	if (req->pos == 1) {
		req->pos = 2;
		if (end < stop && !favo_overlay_has(ov, req->last)) {
			req->fill_off = end;
			req->fill_len = stop - end;
			return true;
		}
	}
	return false;
}

static void write_data(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;
	uint64_t off = disk->ov ? disk->ov->data_off + req->off : req->off;

	req->phase = DATA;
	if (req->op == FAVO_DISK_ZERO) {
		queue_io(req, FAVO_IO_ZERO, data_fd(disk), off, req->len);
		return;
	}
	aim_data(req, 0, req->len);
	queue_io(req, FAVO_IO_WRITE, data_fd(disk), off, req->len);
}

static void fill_io(struct favo_disk_req *req, enum favo_io_op op)
{
	struct favo_disk *disk = req->disk;
	bool read = op == FAVO_IO_READ;

	req->bounce_iov = (struct iovec){req->bounce, req->fill_len};
	req->io.iov = &req->bounce_iov;
	req->io.niov = 1;
	req->phase = read ? FILL_READ : FILL_WRITE;
	queue_io(req, op, read ? disk->fd : disk->ov->fd,
		 read ? req->fill_off : disk->ov->data_off + req->fill_off,
		 req->fill_len);
}

static void write_start(struct favo_disk_req *req)
{
	const struct favo_overlay *ov = req->disk->ov;

	if (!ov) {
		write_data(req);
		return;
	}
	req->first = req->off >> ov->cluster_bits;
	req->last = (req->off + req->len - 1) >> ov->cluster_bits;
	if (favo_overlay_has(ov, req->first) &&
	    favo_overlay_run(ov, req->first, req->last) == req->last - req->first + 1) {
		write_data(req);
		return;
	}
	if (conflicts(req)) {
		wait_in_line(req);
		return;
	}
	list_add(&req->disk->allocating, req);
	req->phase = FILL_DONE;
	step(req);
}

static void write_ended(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;

	if (req->result == 0) {
		disk->writes++;
		if (disk->ov)
			favo_overlay_set(disk->ov, req->first, req->last);
	}
	if (req->result < 0 || !req->durable) {
		finish(req);
		return;
	}
	/* Others may bring in their clusters while this one is flushed. */
	list_del(&disk->allocating, req);
	req->op = FAVO_DISK_FLUSH;
	req->phase = START;
	step(req);
}

static void write_step(struct favo_disk_req *req)
{
	if (req->result < 0 || req->phase == DATA) {
		write_ended(req);
		return;
	}
	if (req->phase == FILL_READ) {
		fill_io(req, FAVO_IO_WRITE);
		return;
	}
	if (!next_fill(req)) {
		write_data(req);
		return;
	}
	if (!req->bounce)
		req->bounce = malloc(favo_overlay_cluster_size(req->disk->ov));
	if (!req->bounce) {
		req->result = -ENOMEM;
		finish(req);
		return;
	}
	fill_io(req, FAVO_IO_READ);
}

/* ---- discard ----------------------------------------------------------- */

/*
 * Space of whole clusters goes back. The bits stay: a discarded cluster that
 * was written reads as zeros, another one as the base, and both are allowed.
 */
static void discard_start(struct favo_disk_req *req)
{
	struct favo_disk *disk = req->disk;
	uint64_t grain = favo_disk_grain(disk), off = req->off, end = req->off + req->len;

	req->phase = DATA;
	if (disk->ov) {
		off = (off + grain - 1) / grain * grain;
		end = end / grain * grain;
		if (off >= end) {
			finish(req);
			return;
		}
		off += disk->ov->data_off;
		end += disk->ov->data_off;
	}
	queue_io(req, FAVO_IO_PUNCH, data_fd(disk), off, end - off);
}

static void start(struct favo_disk_req *req)
{
	switch (req->op) {
	case FAVO_DISK_READ:
		req->phase = DATA;
		read_step(req);
		break;
	case FAVO_DISK_WRITE:
	case FAVO_DISK_ZERO:
		write_start(req);
		break;
	case FAVO_DISK_FLUSH:
		flush_start(req);
		break;
	case FAVO_DISK_DISCARD:
		discard_start(req);
		break;
	}
}

static void step(struct favo_disk_req *req)
{
	if (req->phase == START) {
		start(req);
		return;
	}
	switch (req->op) {
	case FAVO_DISK_READ:
		read_step(req);
		break;
	case FAVO_DISK_WRITE:
	case FAVO_DISK_ZERO:
		write_step(req);
		break;
	case FAVO_DISK_FLUSH:
		flush_step(req);
		break;
	case FAVO_DISK_DISCARD:
		if (req->result == 0)
			req->disk->writes++;
		finish(req);
		break;
	}
}

void favo_disk_submit(struct favo_disk *disk, struct favo_disk_req *req)
{
	req->disk = disk;
	req->phase = START;
	req->pos = 0;
	req->result = 0;
	req->bounce = NULL;
	req->pages = NULL;
	step(req);
}
