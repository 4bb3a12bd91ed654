// SPDX-License-Identifier: GPL-2.0-or-later
/* HTTP of nodes that start; see http.h. RFC 9112, without chunked bodies. */
#include "netboot/http.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"

#define HEAD_MAX 8192

int favo_web_parse_url(struct sockaddr_in *out, const char *url, struct favo_err *err)
{
	static const char scheme[] = "http://";
	char host[INET_ADDRSTRLEN];
	const char *colon;
	uint64_t port;
	int ret;

	*out = (struct sockaddr_in){.sin_family = AF_INET};
	colon = strncmp(url, scheme, strlen(scheme)) == 0
			? strchr(url + strlen(scheme), ':')
			: NULL;
	if (!colon || (size_t)(colon - url) - strlen(scheme) >= sizeof(host))
		return favo_fail(err, EINVAL, "\"%s\" is no http://ADDRESS:PORT", url);
	memcpy(host, url + strlen(scheme), (size_t)(colon - url) - strlen(scheme));
	host[(size_t)(colon - url) - strlen(scheme)] = '\0';
	ret = favo_parse_u64(&port, colon + 1, 1, 65535, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", url);
	if (inet_pton(AF_INET, host, &out->sin_addr) != 1)
		return favo_fail(err, EINVAL, "\"%s\" is no http://ADDRESS:PORT", url);
	out->sin_port = htons((uint16_t)port);
	return 0;
}

/* Value of a Content-Length: digits and blanks, nothing else. */
static int parse_length(const char *text, const char *end, size_t *out)
{
	size_t n = 0;

	while (text < end && (*text == ' ' || *text == '\t'))
		text++;
	if (text == end || *text < '0' || *text > '9')
		return -EBADMSG;
	for (; text < end && *text >= '0' && *text <= '9'; text++) {
		if (n > SIZE_MAX / 16)
			return -EBADMSG;
		n = n * 10 + (size_t)(*text - '0');
	}
	while (text < end && (*text == ' ' || *text == '\t'))
		text++;
	*out = n;
	return text == end ? 0 : -EBADMSG;
}

int favo_web_parse_head(const char *head, size_t len, int *status, size_t *body,
			struct favo_err *err)
{
	static const char field[] = "Content-Length:";
	const char *end = head + len, *line, *next;
	bool found = false;

	if (len < 13 || memcmp(head, "HTTP/1.", 7) != 0 || head[8] != ' ')
		return favo_fail(err, EBADMSG, "the answer is not HTTP");
	*status = 0;
	for (int i = 9; i < 12; i++) {
		if (head[i] < '0' || head[i] > '9')
			return favo_fail(err, EBADMSG, "the answer has no status");
		*status = *status * 10 + (head[i] - '0');
	}
	for (line = memchr(head, '\n', len); line && ++line < end; line = next) {
		const char *stop;

		next = memchr(line, '\n', (size_t)(end - line));
		stop = next ? next : end;
		if (stop > line && stop[-1] == '\r')
			stop--;
		if ((size_t)(stop - line) < strlen(field) ||
		    strncasecmp(line, field, strlen(field)) != 0)
			continue;
		if (found || parse_length(line + strlen(field), stop, body) < 0)
			return favo_fail(err, EBADMSG, "the answer's length is bad");
		found = true;
	}
	return found ? 0 : favo_fail(err, EBADMSG, "the answer has no length");
}

static int wait_for(int fd, short events, int ms, struct favo_err *err)
{
	struct pollfd p = {.fd = fd, .events = events};
	int n;

	do {
		n = poll(&p, 1, ms);
	} while (n < 0 && errno == EINTR);
	if (n < 0)
		return favo_fail(err, errno, "poll: %m");
	return n ? 0 : favo_fail(err, ETIMEDOUT, "no answer for %d s", ms / 1000);
}

static int open_connection(int *out, const struct favo_web_ask *ask, struct favo_err *err)
{
	favo_autoclose int fd =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct sockaddr_in any = {.sin_family = AF_INET};
	socklen_t len = sizeof(int);
	char text[INET_ADDRSTRLEN] = "";
	int code = 0, ret;

	if (fd < 0)
		return favo_fail(err, errno, "socket: %m");
	if (ask->privileged && bindresvport(fd, &any) < 0)
		return favo_fail(err, errno, "no privileged port: %m");
	inet_ntop(AF_INET, &ask->server.sin_addr, text, sizeof(text));
	if (connect(fd, (const struct sockaddr *)&ask->server, sizeof(ask->server)) < 0 &&
	    errno != EINPROGRESS)
		return favo_fail(err, errno, "connect to %s: %m", text);
	ret = wait_for(fd, POLLOUT, ask->idle_ms, err);
	if (ret < 0)
		return favo_wrap(err, ret, "connect to %s", text);
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 || code)
		return favo_fail(err, code ? code : errno, "connect to %s port %d: %s",
				 text, ntohs(ask->server.sin_port), strerror(code));
	*out = favo_steal_fd(&fd);
	return 0;
}

/* Some bytes; 0 at the end. */
static ssize_t read_some(int fd, char *buf, size_t len, int ms, struct favo_err *err)
{
	ssize_t n;
	int ret;

	do {
		ret = wait_for(fd, POLLIN, ms, err);
		if (ret < 0)
			return ret;
		n = read(fd, buf, len);
	} while (n < 0 && (errno == EINTR || errno == EAGAIN));
	return n < 0 ? favo_fail(err, errno, "read: %m") : n;
}

static int take_reply(int fd, const struct favo_web_ask *ask,
		      struct favo_web_reply *reply, struct favo_err *err)
{
	favo_autofree char *body = NULL;
	char head[HEAD_MAX], *blank = NULL;
	size_t have = 0, head_len, len = 0;
	int ret, status;

	while (!blank) {
		ssize_t n;

		if (have == sizeof(head))
			return favo_fail(err, EBADMSG, "the answer's head is too long");
		n = read_some(fd, head + have, sizeof(head) - have, ask->idle_ms, err);
		if (n <= 0)
			return n < 0 ? (int)n
				     : favo_fail(err, ENODATA, "the connection broke");
		have += (size_t)n;
		blank = memmem(head, have, "\r\n\r\n", 4);
	}
	head_len = (size_t)(blank - head) + 4;
	ret = favo_web_parse_head(head, head_len, &status, &len, err);
	if (ret < 0)
		return ret;
	if (len > ask->max_reply || have - head_len > len)
		return favo_fail(err, EBADMSG, "the answer has %zu bytes, too many", len);
	body = malloc(len + 1);
	if (!body)
		return favo_fail(err, ENOMEM, "no memory for %zu bytes", len);
	memcpy(body, head + head_len, have - head_len);
	for (have -= head_len; have < len;) {
		ssize_t n = read_some(fd, body + have, len - have, ask->idle_ms, err);

		if (n <= 0)
			return n < 0 ? (int)n
				     : favo_fail(err, ENODATA, "the connection broke");
		have += (size_t)n;
	}
	body[len] = '\0';
	*reply = (struct favo_web_reply){status, favo_steal_ptr(&body), len};
	return 0;
}

int favo_web_request(const struct favo_web_ask *ask, struct favo_web_reply *reply,
		     struct favo_err *err)
{
	favo_autofree char *head = NULL;
	favo_autoclose int fd = -1;
	char host[INET_ADDRSTRLEN] = "";
	int ret = open_connection(&fd, ask, err);

	*reply = (struct favo_web_reply){0};
	if (ret < 0)
		return ret;
	inet_ntop(AF_INET, &ask->server.sin_addr, host, sizeof(host));
	head = favo_asprintf("%s %s HTTP/1.1\r\nHost: %s:%d\r\nContent-Length: %zu\r\n"
			     "Connection: close\r\n\r\n",
			     ask->method, ask->path, host, ntohs(ask->server.sin_port),
			     ask->len);
	if (!head)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_write_all(fd, head, strlen(head), ask->idle_ms, err);
	if (ret == 0 && ask->len)
		ret = favo_write_all(fd, ask->body, ask->len, ask->idle_ms, err);
	if (ret == 0)
		ret = take_reply(fd, ask, reply, err);
	return ret < 0 ? favo_wrap(err, ret, "%s %s", ask->method, ask->path) : 0;
}
