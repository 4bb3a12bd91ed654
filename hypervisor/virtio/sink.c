/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Console output that never blocks. O_NONBLOCK belongs to the open file, which
 * a terminal or pipe shares with other processes, so it is opened once more
 * through /proc where that works.
 */
#include "hypervisor/virtio/sink.h"

#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/util.h"

static const char cut_line[] = "[older console output dropped]\n";
static const char full_line[] = "\n[console log full]\n";

/* A description of our own for a pipe or terminal, with O_NONBLOCK. */
static int own_description(int *fd, struct favo_err *err)
{
	char path[32];
	int fresh;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", *fd);
	fresh = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC | O_NOCTTY);
	if (fresh >= 0) {
		favo_close(fd);
		*fd = fresh;
		return 0;
	}
	if (favo_set_nonblock(*fd, true) < 0)
		return favo_fail(err, errno, "console output: %m");
	return 0;
}

int favo_sink_init(struct favo_sink *sink, int fd, uint64_t cap, struct favo_err *err)
{
	favo_autoclose int owned = fd;
	struct stat st;

	memset(sink, 0, sizeof(*sink));
	sink->fd = -1;
	if (fstat(owned, &st) < 0)
		return favo_fail(err, errno, "console output: %m");
	sink->is_file = S_ISREG(st.st_mode);
	sink->is_socket = S_ISSOCK(st.st_mode);
	if (sink->is_file) {
		sink->size = (uint64_t)st.st_size;
		sink->cap = cap;
	} else if (!sink->is_socket) {
		int ret = own_description(&owned, err);

		if (ret < 0)
			return ret;
	}
	sink->fd = favo_steal_fd(&owned);
	return 0;
}

void favo_sink_fini(struct favo_sink *sink)
{
	favo_close(&sink->fd);
}

/* What one call takes; 0 when nothing goes now. */
static size_t put(struct favo_sink *sink, const char *buf, size_t len)
{
	ssize_t n;

	do {
		n = sink->is_socket
			    ? send(sink->fd, buf, len, MSG_DONTWAIT | MSG_NOSIGNAL)
			    : write(sink->fd, buf, len);
	} while (n < 0 && errno == EINTR);
	return n > 0 ? (size_t)n : 0;
}

static void put_all(struct favo_sink *sink, const char *buf, size_t len)
{
	while (len) {
		size_t n = put(sink, buf, len);

		if (n == 0)
			break;
		sink->written += n;
		sink->size += n;
		buf += n;
		len -= n;
	}
	sink->dropped += len;
}

/* Keep the newer half of the file; false if that cannot be done. */
static bool cut_file(struct favo_sink *sink)
{
	size_t keep = sink->cap / 2;
	favo_autofree char *tail = malloc(keep);
	const char *line;
	ssize_t got;

	if (!tail)
		return false;
	got = pread(sink->fd, tail, keep, (off_t)(sink->size - keep));
	if (got < 0 || ftruncate(sink->fd, 0) < 0)
		return false;
	lseek(sink->fd, 0, SEEK_SET);
	sink->size = 0;
	put_all(sink, cut_line, sizeof(cut_line) - 1);
	/* Begin with a whole line. */
	line = memchr(tail, '\n', (size_t)got);
	line = line ? line + 1 : tail;
	put_all(sink, line, (size_t)(tail + got - line));
	return true;
}

void favo_sink_write(struct favo_sink *sink, const void *buf, size_t len)
{
	if (sink->fd < 0 || sink->full) {
		sink->dropped += len;
		return;
	}
	if (sink->cap && sink->size + len > sink->cap && !cut_file(sink)) {
		sink->full = true;
		put_all(sink, full_line, sizeof(full_line) - 1);
		sink->dropped += len;
		return;
	}
	put_all(sink, buf, len);
}
