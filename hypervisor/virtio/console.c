/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Console: virtio 1.2 section 5.3, port 0 only (hvc0). Output goes to a sink
 * that never blocks, input comes from a descriptor if there is one.
 */
#include <fcntl.h>
#include <string.h>

#include "common/str.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/sink.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define RX 0
#define TX 1
#define SEGS 64
#define CHUNK 4096
#define TURN_BYTES (64 * 1024) /* output before others get their turn */
#define DEFAULT_CAP (4ULL << 20)

struct console {
	struct favo_virtio dev;
	struct favo_sink out;
	int in_fd; /* -1: no input */
	struct favo_watch in_watch;
	bool in_on; /* EPOLLIN is asked for */
	uint64_t in_bytes;
	struct iovec iov[SEGS];
};

static struct console *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct console, dev);
}

static size_t put_request(struct console *con, const struct favo_vq_req *req)
{
	char buf[CHUNK];
	size_t off = 0, n;

	/* One request is cut at a turn's size: nobody prints that in one go. */
	while (off < TURN_BYTES &&
	       (n = favo_iov_read(req->iov, req->nout, off, buf, sizeof(buf))) > 0) {
		favo_sink_write(&con->out, buf, n);
		off += n;
	}
	return off;
}

static void transmit(struct console *con)
{
	struct favo_vq *vq = favo_virtio_vq(&con->dev, TX);
	struct favo_vq_req req = {.iov = con->iov, .max_segs = SEGS};
	size_t done = 0;

	favo_vq_disable_notify(vq);
	do {
		while (done < TURN_BYTES && favo_vq_pop(vq, &req) > 0) {
			done += 1 + put_request(con, &req);
			favo_vq_push(vq, req.head, 0);
		}
		if (done >= TURN_BYTES) {
			favo_virtio_requeue(&con->dev, TX);
			break;
		}
	} while (favo_vq_enable_notify(vq));
	favo_virtio_interrupt(&con->dev, TX);
}

static void on_input(struct favo_watch *watch, uint32_t events);

/*
 * A watch that waits for nothing would still report a hang-up, over and over, so
 * it is taken away while the driver has no buffer.
 */
static void want_input(struct console *con, bool on)
{
	if (con->in_fd < 0 || con->in_on == on)
		return;
	if (!on)
		favo_watch_del(&con->in_watch);
	else if (favo_watch_add(con->dev.loop, &con->in_watch, con->in_fd, EPOLLIN,
				on_input, NULL) < 0)
		return;
	con->in_on = on;
}

static void end_input(struct console *con)
{
	want_input(con, false);
	favo_close(&con->in_fd);
}

/* Move what is there into the driver's buffers; in the loop's thread. */
static void receive(struct console *con)
{
	struct favo_vq *vq = favo_virtio_vq(&con->dev, RX);
	struct favo_vq_req req = {.iov = con->iov, .max_segs = SEGS};
	ssize_t n;

	if (favo_vq_pop(vq, &req) <= 0) {
		want_input(con, false);
		/* The driver's next buffer comes with a kick. */
		if (favo_vq_enable_notify(vq))
			favo_virtio_requeue(&con->dev, RX);
		favo_virtio_interrupt(&con->dev, RX);
		return;
	}
	n = readv(con->in_fd, req.iov + req.nout, req.nin);
	if (n <= 0) {
		favo_vq_unpop(vq, 1);
		if (n == 0 || (errno != EAGAIN && errno != EINTR))
			end_input(con);
		return;
	}
	favo_vq_dirty(vq, req.iov + req.nout, req.nin, (size_t)n);
	con->in_bytes += (uint64_t)n;
	favo_vq_push(vq, req.head, (uint32_t)n);
	favo_virtio_interrupt(&con->dev, RX);
}

static void on_input(struct favo_watch *watch, uint32_t events)
{
	struct console *con = favo_container_of(watch, struct console, in_watch);

	(void)events;
	favo_virtio_lock(&con->dev);
	if (con->in_on && favo_virtio_running(&con->dev))
		receive(con);
	favo_virtio_unlock(&con->dev);
}

static void console_kick(struct favo_virtio *dev, unsigned q)
{
	struct console *con = from_dev(dev);

	if (q == TX)
		transmit(con);
	else
		want_input(con, true);
}

static bool console_stop(struct favo_virtio *dev, bool wait)
{
	(void)wait;
	want_input(from_dev(dev), false);
	return true;
}

static void console_stats(struct favo_virtio *dev, json_t *object)
{
	struct console *con = from_dev(dev);

	json_object_set_new(object, "out_bytes",
			    json_integer((json_int_t)con->out.written));
	json_object_set_new(object, "out_dropped",
			    json_integer((json_int_t)con->out.dropped));
	json_object_set_new(object, "in_bytes", json_integer((json_int_t)con->in_bytes));
}

static void console_free(struct favo_virtio *dev)
{
	struct console *con = from_dev(dev);

	end_input(con);
	favo_sink_fini(&con->out);
	favo_virtio_fini(dev);
	free(con);
}

static const struct favo_virtio_ops console_ops = {
	.name = "console",
	.id = VIRTIO_ID_CONSOLE,
	.class_code = 0x078000,
	.stop = console_stop,
	.kick = console_kick,
	.stats = console_stats,
	.free = console_free,
};

struct console_spec {
	const char *fd, *file, *in, *cap;
	bool use_stdio;
};

static int open_output(int *fd, const struct console_spec *spec, struct favo_err *err)
{
	if (!!spec->fd + !!spec->file + spec->use_stdio != 1)
		return favo_fail(err, EINVAL,
				 "one of fd=N, file=PATH and stdio is needed");
	if (spec->fd)
		return favo_spec_fd(fd, spec->fd, err);
	if (spec->use_stdio)
		*fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else
		*fd = open(spec->file, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
	if (*fd < 0)
		return favo_fail(err, errno, "open %s: %m",
				 spec->file ? spec->file : "standard output");
	return 0;
}

static int open_input(struct console *con, const struct console_spec *spec,
		      struct favo_err *err)
{
	if (spec->in) {
		int ret = favo_spec_fd(&con->in_fd, spec->in, err);

		if (ret < 0)
			return ret;
	} else if (spec->use_stdio) {
		con->in_fd = fcntl(STDIN_FILENO, F_DUPFD_CLOEXEC, 3);
	}
	if (con->in_fd < 0)
		return 0;
	/* A regular file or /dev/null cannot be waited for: then there is no input. */
	want_input(con, true);
	if (!con->in_on)
		favo_close(&con->in_fd);
	want_input(con, false);
	return 0;
}

static int open_console(struct console *con, const char *text, struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	struct console_spec spec = {0};
	const struct favo_spec_key keys[] = {
		{.name = "fd", .value = &spec.fd},
		{.name = "file", .value = &spec.file},
		{.name = "stdio", .flag = &spec.use_stdio},
		{.name = "in", .value = &spec.in},
		{.name = "cap", .value = &spec.cap},
	};
	uint64_t cap = DEFAULT_CAP;
	int fd = -1, ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "allocate option");
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret == 0 && spec.cap)
		ret = favo_parse_size(&cap, spec.cap, err);
	if (ret == 0)
		ret = open_output(&fd, &spec, err);
	if (ret == 0)
		ret = favo_sink_init(&con->out, fd, cap, err);
	if (ret == 0)
		ret = open_input(con, &spec, err);
	return ret;
}

int favo_console_add(struct favo_vm *vm, const char *spec, struct favo_err *err)
{
	struct console *con = calloc(1, sizeof(*con));
	int ret;

	if (!con)
		return favo_fail(err, ENOMEM, "allocate device");
	con->in_fd = -1;
	con->out.fd = -1;
	con->dev.loop = vm->loop;
	con->dev.nqueues = 2;
	con->dev.queue_size = 128;
	/* cols, rows, max_nr_ports, emerg_wr: unused without their features. */
	con->dev.config_len = 12;
	ret = open_console(con, spec, err);
	if (ret == 0)
		ret = favo_virtio_add(&con->dev, vm, &console_ops, err);
	if (ret < 0)
		console_free(&con->dev);
	return ret;
}
