/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Asynchronous file operations over io_uring(7), with a synchronous fallback.
 *
 * Completions that are there right after a submission (page cache hits) are
 * taken at once, with the ring's eventfd off meanwhile, so that they cost no
 * wake-up.
 */
#include "hypervisor/virtio/aio.h"

#include <fcntl.h>
#include <liburing.h>
#include <linux/falloc.h>
#include <string.h>
#include <sys/eventfd.h>

#include "common/util.h"
#include "hypervisor/virtio/virtqueue.h"

#define ZERO_CHUNK (64 * 1024)

struct favo_aio {
	bool uring;
	struct io_uring ring;
	int event_fd;
	unsigned under_way; /* submitted to the ring */
	struct favo_io *first, **last; /* queued, not started */
	void *zeros;
};

int favo_aio_new(struct favo_aio **out, unsigned depth, bool uring, struct favo_err *err)
{
	struct favo_aio *aio = calloc(1, sizeof(*aio));

	if (!aio)
		return favo_fail(err, ENOMEM, "allocate I/O engine");
	aio->event_fd = -1;
	aio->last = &aio->first;
	/* Any failure means that this host has no io_uring for us. */
	if (uring && io_uring_queue_init(depth, &aio->ring, 0) == 0) {
		aio->uring = true;
		aio->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		if (aio->event_fd < 0 ||
		    io_uring_register_eventfd(&aio->ring, aio->event_fd) < 0) {
			io_uring_queue_exit(&aio->ring);
			favo_close(&aio->event_fd);
			aio->uring = false;
		}
	}
	*out = aio;
	return 0;
}

void favo_aio_free(struct favo_aio *aio)
{
	if (!aio)
		return;
	if (aio->uring)
		io_uring_queue_exit(&aio->ring);
	favo_close(&aio->event_fd);
	free(aio->zeros);
	free(aio);
}

bool favo_aio_is_uring(const struct favo_aio *aio)
{
	return aio->uring;
}

int favo_aio_fd(const struct favo_aio *aio)
{
	return aio->event_fd;
}

static void append(struct favo_aio *aio, struct favo_io *io)
{
	io->next = NULL;
	*aio->last = io;
	aio->last = &io->next;
}

static struct favo_io *take(struct favo_aio *aio)
{
	struct favo_io *io = aio->first;

	if (!io)
		return NULL;
	aio->first = io->next;
	if (!aio->first)
		aio->last = &aio->first;
	return io;
}

void favo_aio_queue(struct favo_aio *aio, struct favo_io *io)
{
	io->by_writing = false;
	append(aio, io);
}

static int fallocate_mode(const struct favo_io *io)
{
	if (io->op == FAVO_IO_PUNCH || io->may_unmap)
		return FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;
	return FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE;
}

/* The next piece of a ZERO that is done by writing. */
static int aim_zeros(struct favo_aio *aio, struct favo_io *io)
{
	if (!aio->zeros)
		aio->zeros = calloc(1, ZERO_CHUNK);
	if (!aio->zeros)
		return -ENOMEM;
	io->zero.iov_base = aio->zeros;
	io->zero.iov_len = FAVO_MIN(io->len, (uint64_t)ZERO_CHUNK);
	return 0;
}

static void fill_zeros(struct favo_io *io)
{
	for (unsigned i = 0; i < io->niov; i++)
		memset(io->iov[i].iov_base, 0, io->iov[i].iov_len);
}

/*
 * Judge what the kernel said about one step. True: io has ended, with its result
 * set; false: the rest is to be submitted again.
 */
static bool finish_step(struct favo_aio *aio, struct favo_io *io, int res)
{
	unsigned used;

	if (res == -EINTR || res == -EAGAIN)
		return false;
	io->result = FAVO_MIN(res, 0);
	if (res == -EOPNOTSUPP && io->op == FAVO_IO_PUNCH) {
		io->result = 0; /* a hint only */
		return true;
	}
	if (res == -EOPNOTSUPP && io->op == FAVO_IO_ZERO && !io->by_writing) {
		io->by_writing = true;
		io->result = aim_zeros(aio, io);
		return io->result < 0;
	}
	if (res < 0 || io->op == FAVO_IO_SYNC || io->op == FAVO_IO_PUNCH)
		return true;
	if (io->op == FAVO_IO_ZERO) {
		if (!io->by_writing)
			return true;
		io->off += (unsigned)res;
		io->len -= (unsigned)res;
		aim_zeros(aio, io);
		return io->len == 0;
	}
	if (res == 0 && io->len) {
		if (io->op == FAVO_IO_READ)
			fill_zeros(io);
		else
			io->result = -EIO;
		return true;
	}
	used = (unsigned)favo_iov_skip(io->iov, io->niov, (size_t)res);
	io->iov += used;
	io->niov -= used;
	io->off += (unsigned)res;
	io->len -= (unsigned)res;
	return io->len == 0;
}

static int do_now(struct favo_io *io)
{
	ssize_t n = 0;

	switch (io->op) {
	case FAVO_IO_READ:
		n = preadv(io->fd, io->iov, (int)io->niov, (off_t)io->off);
		break;
	case FAVO_IO_WRITE:
		n = pwritev(io->fd, io->iov, (int)io->niov, (off_t)io->off);
		break;
	case FAVO_IO_SYNC:
		n = fdatasync(io->fd);
		break;
	case FAVO_IO_ZERO:
	case FAVO_IO_PUNCH:
		if (io->by_writing)
			n = pwritev(io->fd, &io->zero, 1, (off_t)io->off);
		else
			n = fallocate(io->fd, fallocate_mode(io), (off_t)io->off,
				      (off_t)io->len);
		break;
	}
	return n < 0 ? -errno : (int)n;
}

static void run_now(struct favo_aio *aio)
{
	struct favo_io *io;

	while ((io = take(aio)) != NULL) {
		while (!finish_step(aio, io, do_now(io)))
			;
		io->done(io, io->result);
	}
}

static void prepare(struct io_uring_sqe *sqe, struct favo_io *io)
{
	switch (io->op) {
	case FAVO_IO_READ:
		io_uring_prep_readv(sqe, io->fd, io->iov, io->niov, io->off);
		break;
	case FAVO_IO_WRITE:
		io_uring_prep_writev(sqe, io->fd, io->iov, io->niov, io->off);
		break;
	case FAVO_IO_SYNC:
		io_uring_prep_fsync(sqe, io->fd, IORING_FSYNC_DATASYNC);
		break;
	case FAVO_IO_ZERO:
	case FAVO_IO_PUNCH:
		if (io->by_writing)
			io_uring_prep_writev(sqe, io->fd, &io->zero, 1, io->off);
		else
			io_uring_prep_fallocate(sqe, io->fd, fallocate_mode(io),
						(off_t)io->off, (off_t)io->len);
		break;
	}
	io_uring_sqe_set_data(sqe, io);
}

/* Put what is queued into the ring; what does not fit stays queued. */
static void fill_ring(struct favo_aio *aio)
{
	while (aio->first) {
		struct io_uring_sqe *sqe = io_uring_get_sqe(&aio->ring);

		if (!sqe)
			return;
		prepare(sqe, take(aio));
		aio->under_way++;
	}
}

/* Take what has ended; true if there was anything. */
static bool reap(struct favo_aio *aio)
{
	struct io_uring_cqe *cqe;
	bool any = false;

	while (io_uring_peek_cqe(&aio->ring, &cqe) == 0) {
		struct favo_io *io = io_uring_cqe_get_data(cqe);
		int res = cqe->res;

		io_uring_cqe_seen(&aio->ring, cqe);
		aio->under_way--;
		any = true;
		if (finish_step(aio, io, res))
			io->done(io, io->result);
		else
			append(aio, io);
	}
	return any;
}

static void run_ring(struct favo_aio *aio)
{
	io_uring_cq_eventfd_toggle(&aio->ring, false);
	do {
		fill_ring(aio);
		if (io_uring_sq_ready(&aio->ring))
			io_uring_submit(&aio->ring);
	} while (reap(aio));
	io_uring_cq_eventfd_toggle(&aio->ring, true);
	/*
	 * Something may have ended just before the eventfd came on again, or the
	 * kernel was out of memory at submission: look again soon.
	 */
	if (io_uring_cq_ready(&aio->ring) || io_uring_sq_ready(&aio->ring) || aio->first)
		eventfd_write(aio->event_fd, 1);
}

void favo_aio_run(struct favo_aio *aio)
{
	if (aio->uring)
		run_ring(aio);
	else
		run_now(aio);
}

void favo_aio_wait(struct favo_aio *aio)
{
	struct io_uring_cqe *cqe;

	favo_aio_run(aio);
	if (aio->uring && aio->under_way && !io_uring_cq_ready(&aio->ring))
		io_uring_wait_cqe(&aio->ring, &cqe);
	favo_aio_run(aio);
}
