// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One question to favo-noded over its unix socket, with a deadline over the
 * whole of it, and the little JSON that the questions need. The plugin looks
 * only at "ok" in an answer; what went wrong is told by favo-task.
 */
#include "slurm-plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* 0 when fd is ready for events, -ETIMEDOUT at the deadline. */
static int wait_for(int fd, short events, int64_t deadline)
{
	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = events};
		int64_t left = deadline - now_ms();
		int n;

		if (left <= 0)
			return -ETIMEDOUT;
		n = poll(&pfd, 1, (int)left);
		if (n > 0)
			return 0;
		if (n < 0 && errno != EINTR)
			return -errno;
	}
}

static int open_socket(const struct favo_plugin *p, int64_t deadline)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd, n;

	n = snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/noded.sock", p->run_dir);
	if (n < 0 || (size_t)n >= sizeof(sun.sun_path))
		return -ENAMETOOLONG;
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return -errno;
	while (connect(fd, (struct sockaddr *)&sun, sizeof(sun)) < 0) {
		int ret = -errno;

		/* EAGAIN: noded's queue is full (unix(7)); poll cannot wait for it. */
		if (ret == -EINTR || (ret == -EAGAIN && now_ms() < deadline)) {
			nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
			continue;
		}
		close(fd);
		return ret;
	}
	return fd;
}

static int exchange(int fd, const char *request, char *answer, size_t size,
		    int64_t deadline)
{
	size_t len = strlen(request), done = 0;
	int ret;

	while (done < len) {
		ssize_t n = send(fd, request + done, len - done, MSG_NOSIGNAL);

		if (n > 0) {
			done += (size_t)n;
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return -errno;
		ret = wait_for(fd, POLLOUT, deadline);
		if (ret < 0)
			return ret;
	}
	for (done = 0; done < size - 1;) {
		ssize_t n = recv(fd, answer + done, size - 1 - done, 0);

		if (n == 0)
			return -ECONNRESET;
		if (n > 0) {
			done += (size_t)n;
			answer[done] = '\0';
			if (strchr(answer, '\n'))
				return 0;
			continue;
		}
		if (errno != EAGAIN && errno != EINTR)
			return -errno;
		ret = wait_for(fd, POLLIN, deadline);
		if (ret < 0)
			return ret;
	}
	return -EMSGSIZE;
}

int favo_noded_call(const struct favo_plugin *p, const char *request, char *answer,
		    size_t size, int timeout_ms)
{
	int64_t deadline = now_ms() + timeout_ms;
	int fd, ret;

	answer[0] = '\0';
	fd = open_socket(p, deadline);
	if (fd < 0)
		return fd;
	ret = exchange(fd, request, answer, size, deadline);
	close(fd);
	if (ret == 0 && !strstr(answer, "\"ok\":true") && !strstr(answer, "\"ok\": true"))
		ret = -EREMOTEIO;
	return ret;
}

bool favo_job_has_vms(const struct favo_plugin *p, uint32_t job)
{
	char path[sizeof(p->run_dir) + 32];
	int saved = errno;
	bool has;

	snprintf(path, sizeof(path), "%s/job/%u", p->run_dir, job);
	has = access(path, F_OK) == 0;
	errno = saved;
	return has;
}

void favo_json_raw(struct favo_json_text *j, const char *text)
{
	size_t len = strlen(text);

	if (j->overflow || len >= j->size - j->len) {
		j->overflow = true;
		return;
	}
	memcpy(j->buf + j->len, text, len + 1);
	j->len += len;
}

static void put_key(struct favo_json_text *j, const char *key)
{
	favo_json_raw(j, ",\"");
	favo_json_raw(j, key);
	favo_json_raw(j, "\":");
}

void favo_json_put(struct favo_json_text *j, const char *key, const char *value)
{
	if (!value)
		return;
	put_key(j, key);
	favo_json_raw(j, "\"");
	for (; *value; value++) {
		unsigned char c = (unsigned char)*value;
		char one[8] = {(char)c};

		if (c == '"' || c == '\\')
			snprintf(one, sizeof(one), "\\%c", c);
		else if (c < ' ' || c > '~') /* not UTF-8 for sure: nobody's real value */
			snprintf(one, sizeof(one), "\\u%04x", c);
		favo_json_raw(j, one);
	}
	favo_json_raw(j, "\"");
}

void favo_json_put_u64(struct favo_json_text *j, const char *key, uint64_t value)
{
	char text[24];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)value);
	put_key(j, key);
	favo_json_raw(j, text);
}
