// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File descriptors; see fd.h. A deadline is turned into poll(2) waits, so
 * blocking descriptors may exceed it by one system call.
 */
#include "common/fd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include "common/util.h"

/* Wait for events until deadline_ms of favo_now_ms(); < 0 waits for ever. */
static int wait_fd(int fd, short events, int64_t deadline_ms)
{
	struct pollfd pfd = {.fd = fd, .events = events};

	for (;;) {
		int64_t left = deadline_ms < 0 ? -1 : deadline_ms - favo_now_ms();
		int ret;

		if (deadline_ms >= 0 && left < 0)
			left = 0;
		ret = poll(&pfd, 1, left > INT_MAX ? INT_MAX : (int)left);
		if (ret > 0)
			return 0;
		if (ret == 0)
			return -ETIMEDOUT;
		if (errno != EINTR)
			return -errno;
	}
}

static int64_t deadline_of(int timeout_ms)
{
	return timeout_ms < 0 ? -1 : favo_now_ms() + timeout_ms;
}

int favo_write_all(int fd, const void *buf, size_t len, int timeout_ms,
		   struct favo_err *err)
{
	int64_t deadline = deadline_of(timeout_ms);
	const char *p = buf;

	while (len > 0) {
		ssize_t n;
		int ret = 0;

		if (timeout_ms >= 0)
			ret = wait_fd(fd, POLLOUT, deadline);
		if (ret < 0)
			return favo_fail(err, -ret, "write: %m");
		n = write(fd, p, len);
		if (n >= 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (errno == EAGAIN)
			ret = wait_fd(fd, POLLOUT, deadline);
		else if (errno != EINTR)
			ret = -errno;
		if (ret < 0)
			return favo_fail(err, -ret, "write: %m");
	}
	return 0;
}

int favo_read_all(int fd, void *buf, size_t len, int timeout_ms, struct favo_err *err)
{
	int64_t deadline = deadline_of(timeout_ms);
	char *p = buf;

	while (len > 0) {
		ssize_t n;
		int ret = 0;

		if (timeout_ms >= 0)
			ret = wait_fd(fd, POLLIN, deadline);
		if (ret < 0)
			return favo_fail(err, -ret, "read: %m");
		n = read(fd, p, len);
		if (n > 0) {
			p += n;
			len -= (size_t)n;
			continue;
		}
		if (n == 0)
			return favo_fail(err, ENODATA,
					 "read: end of file, %zu bytes short", len);
		if (errno == EAGAIN)
			ret = wait_fd(fd, POLLIN, deadline);
		else if (errno != EINTR)
			ret = -errno;
		if (ret < 0)
			return favo_fail(err, -ret, "read: %m");
	}
	return 0;
}

int favo_file_read(const char *path, size_t max, char **out, size_t *len,
		   struct favo_err *err)
{
	favo_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	favo_autofree char *buf = NULL;
	size_t size = 0, room = 0;

	if (fd < 0)
		return favo_fail(err, errno, "open %s: %m", path);
	for (;;) {
		ssize_t n;

		if (room - size < 4096) {
			char *bigger;

			room = room ? room * 2 : 8192;
			bigger = realloc(buf, room + 1);
			if (!bigger)
				return favo_fail(err, ENOMEM, "read %s: %m", path);
			buf = bigger;
		}
		n = read(fd, buf + size, room - size);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "read %s: %m", path);
		if (n == 0)
			break;
		size += (size_t)n;
		if (size > max)
			return favo_fail(err, EFBIG, "%s: larger than %zu bytes", path,
					 max);
	}
	buf[size] = '\0';
	if (len)
		*len = size;
	*out = favo_steal_ptr(&buf);
	return 0;
}

/* fsync the directory that holds path, so that a rename in it is durable. */
static int sync_parent(const char *path, struct favo_err *err)
{
	favo_autofree char *dir = strdup(path);
	favo_autoclose int fd = -1;
	char *slash;

	if (!dir)
		return favo_fail(err, ENOMEM, "replace %s: %m", path);
	slash = strrchr(dir, '/');
	if (slash)
		slash[slash == dir] = '\0';
	fd = open(slash ? dir : ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0 || fsync(fd) < 0)
		return favo_fail(err, errno, "sync directory of %s: %m", path);
	return 0;
}

int favo_file_replace(const char *path, const void *buf, size_t len, mode_t mode,
		      struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s.XXXXXX", path);
	favo_autoclose int fd = -1;
	int ret;

	if (!tmp)
		return favo_fail(err, ENOMEM, "replace %s: %m", path);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "create %s: %m", tmp);
	ret = favo_write_all(fd, buf, len, -1, err);
	if (ret == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0 || rename(tmp, path) < 0))
		ret = favo_fail(err, errno, "%m");
	if (ret < 0) {
		unlink(tmp);
		return favo_wrap(err, ret, "replace %s", path);
	}
	return sync_parent(path, err);
}

int favo_mkdirs(const char *path, mode_t mode, struct favo_err *err)
{
	favo_autofree char *dir = strdup(path);
	char *p;

	if (!dir)
		return favo_fail(err, ENOMEM, "mkdir %s: %m", path);
	for (p = dir + 1;; p++) {
		char c = *p;

		if (c != '/' && c != '\0')
			continue;
		*p = '\0';
		if (mkdir(dir, mode) < 0 && errno != EEXIST)
			return favo_fail(err, errno, "mkdir %s: %m", dir);
		if (c == '\0')
			return 0;
		*p = '/';
	}
}

/* Empty the directory behind fd (taken over), staying on device dev. */
static int remove_children(int fd, dev_t dev)
{
	DIR *dir = fdopendir(fd);
	struct dirent *ent;
	int ret = 0;

	if (!dir) {
		ret = -errno;
		close(fd);
		return ret;
	}
	while (ret == 0 && (ent = readdir(dir))) {
		struct stat st;
		int sub;

		if (!strcmp(ent->d_name, ".") || !strcmp(ent->d_name, ".."))
			continue;
		if (unlinkat(dirfd(dir), ent->d_name, 0) == 0 || errno == ENOENT)
			continue;
		if (errno != EISDIR && errno != EPERM) {
			ret = -errno;
			break;
		}
		sub = openat(dirfd(dir), ent->d_name,
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0) {
			ret = -errno;
			break;
		}
		if (fstat(sub, &st) < 0 || st.st_dev != dev) {
			close(sub);
			ret = -EXDEV;
			break;
		}
		ret = remove_children(sub, dev);
		if (ret == 0 && unlinkat(dirfd(dir), ent->d_name, AT_REMOVEDIR) < 0)
			ret = -errno;
	}
	closedir(dir);
	return ret;
}

int favo_remove_tree(const char *path, struct favo_err *err)
{
	struct stat st;
	int fd, ret;

	if (unlink(path) == 0 || errno == ENOENT)
		return 0;
	if (errno != EISDIR && errno != EPERM)
		return favo_fail(err, errno, "remove %s: %m", path);
	fd = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "remove %s: %m", path);
	if (fstat(fd, &st) < 0) {
		ret = -errno;
		close(fd);
		return favo_fail(err, -ret, "remove %s: %m", path);
	}
	ret = remove_children(fd, st.st_dev);
	if (ret == 0 && rmdir(path) < 0)
		ret = -errno;
	if (ret < 0)
		return favo_fail(err, -ret, "remove %s: %m", path);
	return 0;
}

static int set_flag(int fd, int get, int set, int flag, bool on)
{
	int flags = fcntl(fd, get);

	if (flags < 0)
		return -errno;
	flags = on ? flags | flag : flags & ~flag;
	return fcntl(fd, set, flags) < 0 ? -errno : 0;
}

int favo_set_nonblock(int fd, bool on)
{
	return set_flag(fd, F_GETFL, F_SETFL, O_NONBLOCK, on);
}

int favo_set_cloexec(int fd, bool on)
{
	return set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC, on);
}

static int unix_address(struct sockaddr_un *sun, const char *path, struct favo_err *err)
{
	if (strlen(path) >= sizeof(sun->sun_path))
		return favo_fail(err, ENAMETOOLONG, "socket %s: path longer than %zu",
				 path, sizeof(sun->sun_path) - 1);
	memset(sun, 0, sizeof(*sun));
	sun->sun_family = AF_UNIX;
	memcpy(sun->sun_path, path, strlen(path));
	return 0;
}

int favo_unix_listen(int *out, const char *path, mode_t mode, struct favo_err *err)
{
	favo_autoclose int fd = -1;
	struct sockaddr_un sun;
	int ret = unix_address(&sun, path, err);

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return favo_fail(err, errno, "socket %s: %m", path);
	if (unlink(path) < 0 && errno != ENOENT)
		return favo_fail(err, errno, "remove stale %s: %m", path);
	/* No one may connect between bind and chmod: 0 until then. */
	if (fchmod(fd, 0) < 0 || bind(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0 ||
	    chmod(path, mode) < 0 || listen(fd, 128) < 0)
		return favo_fail(err, errno, "listen on %s: %m", path);
	*out = favo_steal_fd(&fd);
	return 0;
}

int favo_unix_connect(int *out, const char *path, int timeout_ms, struct favo_err *err)
{
	int64_t deadline = deadline_of(timeout_ms);
	favo_autoclose int fd = -1;
	struct sockaddr_un sun;
	int ret = unix_address(&sun, path, err);

	if (ret < 0)
		return ret;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return favo_fail(err, errno, "socket %s: %m", path);
	/* A full backlog is EAGAIN and cannot be polled for on unix sockets. */
	while (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		if (errno == EINTR)
			continue;
		if (errno != EAGAIN)
			return favo_fail(err, errno, "connect to %s: %m", path);
		if (deadline >= 0 && favo_now_ms() >= deadline)
			return favo_fail(err, ETIMEDOUT, "connect to %s: %m", path);
		usleep(2000);
	}
	ret = favo_set_nonblock(fd, false);
	if (ret < 0)
		return favo_fail(err, -ret, "connect to %s: %m", path);
	*out = favo_steal_fd(&fd);
	return 0;
}

int favo_send_fds(int sock, const void *buf, size_t len, const int *fds, size_t n,
		  struct favo_err *err)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * FAVO_MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = (void *)(uintptr_t)buf, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t sent;

	if (n > FAVO_MAX_FDS || len == 0)
		return favo_fail(err, EINVAL, "send of %zu descriptors with %zu bytes", n,
				 len);
	memset(&control, 0, sizeof(control));
	if (n > 0) {
		struct cmsghdr *cmsg;

		msg.msg_control = control.bytes;
		msg.msg_controllen = CMSG_SPACE(sizeof(int) * n);
		cmsg = CMSG_FIRSTHDR(&msg);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int) * n);
		memcpy(CMSG_DATA(cmsg), fds, sizeof(int) * n);
	}
	do
		sent = sendmsg(sock, &msg, MSG_NOSIGNAL);
	while (sent < 0 && errno == EINTR);
	if (sent < 0)
		return favo_fail(err, errno, "send descriptors: %m");
	if ((size_t)sent < len) /* the descriptors went with the first bytes */
		return favo_write_all(sock, (const char *)buf + sent, len - (size_t)sent,
				      -1, err);
	return 0;
}

/* Keep up to max descriptors of cmsg, close the others. */
static void take_fds(struct cmsghdr *cmsg, int *fds, size_t max, size_t *n)
{
	size_t count = (cmsg->cmsg_len - CMSG_LEN(0)) / sizeof(int);

	for (size_t i = 0; i < count; i++) {
		int fd;

		memcpy(&fd, CMSG_DATA(cmsg) + i * sizeof(int), sizeof(fd));
		if (*n < max)
			fds[(*n)++] = fd;
		else
			close(fd);
	}
}

ssize_t favo_recv_fds(int sock, void *buf, size_t len, int *fds, size_t max, size_t *n,
		      struct favo_err *err)
{
	union {
		char bytes[CMSG_SPACE(sizeof(int) * FAVO_MAX_FDS)];
		struct cmsghdr align;
	} control;
	struct iovec iov = {.iov_base = buf, .iov_len = len};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = control.bytes,
			     .msg_controllen = sizeof(control.bytes)};
	struct cmsghdr *cmsg;
	ssize_t got;

	*n = 0;
	do
		got = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);
	while (got < 0 && errno == EINTR);
	if (got < 0)
		return favo_fail(err, errno, "receive descriptors: %m");
	for (cmsg = CMSG_FIRSTHDR(&msg); cmsg; cmsg = CMSG_NXTHDR(&msg, cmsg))
		if (cmsg->cmsg_level == SOL_SOCKET && cmsg->cmsg_type == SCM_RIGHTS)
			take_fds(cmsg, fds, max, n);
	return got;
}
