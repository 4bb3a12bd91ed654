// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Relays; see relay.h. Half-closes are passed on in both directions: PMIx
 * needs them. The identity of a loopback peer comes from /proc/net/tcp (uid
 * and inode of its socket) and from the process that has the socket open.
 */
#include "images/guest/relay.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "images/guest/pump.h"

struct relay {
	struct favo_loop *loop;
	struct favo_channel *ch;
	struct favo_source source;
	struct favo_sink sink;
	struct favo_deferred end;
	bool source_done, sink_done;
};

static void relay_free(struct favo_deferred *work)
{
	struct relay *r = work->user;

	favo_source_fini(&r->source);
	favo_sink_fini(&r->sink);
	free(r);
}

static void relay_check_end(struct relay *r)
{
	if (!r->source_done || !r->sink_done)
		return;
	if (r->ch)
		favo_channel_close(r->ch, "");
	r->ch = NULL;
	r->source.ch = NULL;
	r->sink.ch = NULL;
	favo_defer(r->loop, &r->end);
}

static void relay_source_done(struct favo_source *src)
{
	struct relay *r = src->user;

	r->source_done = true;
	relay_check_end(r);
}

static void relay_sink_done(struct favo_sink *sink)
{
	struct relay *r = sink->user;

	r->sink_done = true;
	/* A broken peer takes nothing and sends nothing. */
	if (sink->broken)
		favo_source_end(&r->source);
	relay_check_end(r);
}

static void relay_data(struct favo_channel *ch, unsigned stream, const uint8_t *p,
		       size_t n)
{
	struct relay *r = favo_channel_user(ch);

	(void)stream;
	favo_sink_data(&r->sink, p, n);
}

static void relay_eof(struct favo_channel *ch, unsigned stream)
{
	struct relay *r = favo_channel_user(ch);

	(void)stream;
	favo_sink_eof(&r->sink);
}

static void relay_stop(struct favo_channel *ch, unsigned stream)
{
	struct relay *r = favo_channel_user(ch);

	(void)stream;
	favo_source_end(&r->source);
}

static void relay_ready(struct favo_channel *ch)
{
	struct relay *r = favo_channel_user(ch);

	favo_source_ready(&r->source);
}

/* The other side ended: what it sent still reaches the socket. */
static void relay_closed(struct favo_channel *ch, const char *reason)
{
	struct relay *r = favo_channel_user(ch);

	(void)reason;
	r->ch = NULL;
	r->source.ch = NULL;
	r->sink.ch = NULL;
	favo_source_end(&r->source);
	favo_sink_eof(&r->sink);
}

static const struct favo_channel_ops relay_ops = {
	.data = relay_data,
	.eof = relay_eof,
	.stop = relay_stop,
	.ready = relay_ready,
	.closed = relay_closed,
};

int favo_relay_attach(struct favo_loop *loop, struct favo_channel *ch, int fd, bool ours,
		      struct favo_err *err)
{
	favo_autoclose int in = fd;
	favo_autoclose int out = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	favo_autofree struct relay *r = calloc(1, sizeof(*r));
	int ret;

	if (out < 0 || !r)
		return favo_fail(err, out < 0 ? errno : ENOMEM, "relay: %m");
	if (favo_set_nonblock(fd, true) < 0)
		return favo_fail(err, errno, "relay: %m");
	r->loop = loop;
	r->ch = ch;
	r->end = (struct favo_deferred){.fn = relay_free, .user = r};
	r->source.done = relay_source_done;
	r->source.user = r;
	r->sink.done = relay_sink_done;
	r->sink.user = r;
	r->sink.shut = true;
	ret = favo_source_start(&r->source, loop, favo_steal_fd(&in), ch,
				ours ? FAVO_STREAM_IN : FAVO_STREAM_OUT, err);
	if (ret < 0)
		return ret;
	ret = favo_sink_start(&r->sink, loop, favo_steal_fd(&out), ch,
			      ours ? FAVO_STREAM_OUT : FAVO_STREAM_IN, err);
	if (ret < 0) {
		favo_source_fini(&r->source);
		return ret;
	}
	favo_channel_set(ch, &relay_ops, r);
	favo_steal_ptr(&r);
	return 0;
}

int favo_relay_open(struct favo_loop *loop, struct favo_conn *conn, int fd,
		    const char *endpoint, struct favo_err *err)
{
	static const struct favo_channel_ops none;
	favo_autoclose int sock = fd;
	struct favo_channel *ch;
	int ret = favo_channel_open(&ch, conn, endpoint, &none, NULL, err);

	if (ret < 0)
		return ret;
	ret = favo_relay_attach(loop, ch, favo_steal_fd(&sock), true, err);
	if (ret < 0)
		favo_channel_close(ch, "no resources");
	return ret;
}

/* uid and inode of the socket whose local address is ours and remote theirs. */
static int find_socket(const struct sockaddr_in *local, const struct sockaddr_in *remote,
		       unsigned *uid, unsigned long *inode)
{
	favo_autofclose FILE *f = fopen("/proc/net/tcp", "re");
	char line[512];

	while (f && fgets(line, sizeof(line), f)) {
		unsigned la, lp, ra, rp;

		if (sscanf(line,
			   " %*d: %8X:%4X %8X:%4X %*X %*X:%*X %*X:%*X %*X %u %*d %lu",
			   &la, &lp, &ra, &rp, uid, inode) != 6)
			continue;
		if (la == local->sin_addr.s_addr && lp == ntohs(local->sin_port) &&
		    ra == remote->sin_addr.s_addr && rp == ntohs(remote->sin_port))
			return 0;
	}
	return -ENOENT;
}

static bool has_socket(const char *pid, unsigned long inode)
{
	char path[64], want[64], name[64];
	struct dirent *d;
	bool found = false;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%.20s/fd", pid);
	snprintf(want, sizeof(want), "socket:[%lu]", inode);
	dir = opendir(path);
	while (dir && !found && (d = readdir(dir))) {
		ssize_t n = readlinkat(dirfd(dir), d->d_name, name, sizeof(name) - 1);

		if (n > 0) {
			name[n] = '\0';
			found = strcmp(name, want) == 0;
		}
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Effective ids of a process, and whether it lives in our user namespace. */
static int check_process(const char *pid, uid_t uid, gid_t gid)
{
	char path[64], line[256];
	unsigned euid = ~0u, egid = ~0u;
	struct stat own, its;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%.20s/status", pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		sscanf(line, "Uid: %*u %u", &euid);
		sscanf(line, "Gid: %*u %u", &egid);
	}
	if (f)
		fclose(f);
	snprintf(path, sizeof(path), "/proc/%.20s/ns/user", pid);
	/* A kernel without user namespaces has neither file. */
	if (stat("/proc/self/ns/user", &own) == 0 &&
	    (stat(path, &its) < 0 || its.st_ino != own.st_ino))
		return -EACCES;
	return euid == uid && egid == gid ? 0 : -EACCES;
}

int favo_peer_check(int fd, uid_t uid, gid_t gid, struct favo_err *err)
{
	struct sockaddr_in ours, theirs;
	socklen_t len = sizeof(ours), len2 = sizeof(theirs);
	unsigned long inode = 0;
	unsigned owner = 0;
	struct dirent *d;
	int ret = -ENOENT;
	DIR *dir;

	if (getsockname(fd, (struct sockaddr *)&ours, &len) < 0 ||
	    getpeername(fd, (struct sockaddr *)&theirs, &len2) < 0)
		return favo_fail(err, errno, "relay: peer: %m");
	if (find_socket(&theirs, &ours, &owner, &inode) < 0)
		return favo_fail(err, EACCES,
				 "relay: peer's socket is not in /proc/net/tcp");
	if (owner != uid)
		return favo_fail(err, EACCES, "relay: peer has uid %u, the job has %u",
				 owner, uid);
	dir = opendir("/proc");
	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] < '1' || d->d_name[0] > '9' ||
		    !has_socket(d->d_name, inode))
			continue;
		ret = check_process(d->d_name, uid, gid);
		if (ret < 0)
			break;
	}
	if (dir)
		closedir(dir);
	if (ret < 0)
		return favo_fail(err, EACCES, "relay: peer does not run as %u:%u", uid,
				 gid);
	return 0;
}

struct favo_listener {
	struct favo_loop *loop;
	struct favo_watch watch;
	struct favo_conn *conn;
	uid_t uid;
	gid_t gid;
	uint16_t port;
	char endpoint[33];
};

static void on_accept(struct favo_watch *watch, short revents)
{
	struct favo_listener *l = watch->user;
	favo_autoclose int fd =
		accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct favo_err err = {0};
	int one = 1;

	(void)revents;
	if (fd < 0)
		return;
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (favo_peer_check(fd, l->uid, l->gid, &err) < 0 ||
	    favo_relay_open(l->loop, l->conn, favo_steal_fd(&fd), l->endpoint, &err) < 0)
		favo_log(FAVO_WARN, "%s: connection refused: %s", l->endpoint, err.msg);
}

int favo_listener_new(struct favo_listener **out, struct favo_loop *loop,
		      struct favo_conn *conn, const char *endpoint, uid_t uid, gid_t gid,
		      struct favo_err *err)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	favo_autofree struct favo_listener *l = calloc(1, sizeof(*l));
	favo_autoclose int fd =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, IPPROTO_TCP);
	int ret;

	if (!l || fd < 0)
		return favo_fail(err, l ? errno : ENOMEM, "relay %s: %m", endpoint);
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (struct sockaddr *)&addr, &len) < 0)
		return favo_fail(err, errno, "relay %s: listen on 127.0.0.1: %m",
				 endpoint);
	l->loop = loop;
	l->conn = conn;
	l->uid = uid;
	l->gid = gid;
	l->port = ntohs(addr.sin_port);
	snprintf(l->endpoint, sizeof(l->endpoint), "%s", endpoint);
	l->watch = (struct favo_watch){
		.fd = fd, .events = POLLIN, .fn = on_accept, .user = l};
	ret = favo_watch_add(loop, &l->watch, err);
	if (ret < 0)
		return ret;
	favo_steal_fd(&fd);
	*out = favo_steal_ptr(&l);
	return 0;
}

uint16_t favo_listener_port(const struct favo_listener *l)
{
	return l->port;
}

void favo_listener_free(struct favo_listener *l)
{
	if (!l)
		return;
	favo_watch_del(&l->watch);
	favo_close(&l->watch.fd);
	free(l);
}
