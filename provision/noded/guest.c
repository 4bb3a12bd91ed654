// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The two ways between this daemon and its guests, both over vsock: reports
 * of a starting guest to port 64000 here, and the agent's port 64001 there
 * (images/guest/agent.h). The kernel vouches for the peer's context id, which
 * names the VM; the cluster's secret is asked for on top, since a context id
 * may come from a VM that is not ours.
 *
 * A guest is hostile until proven otherwise: one line is bounded, the lines
 * of a VM are counted, its connections too, and none of its words is ever
 * more than text that is shown.
 */
#include <errno.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/random.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/agent.h"
#include "images/guest/guest_config.h"
#include "provision/noded/noded.h"
#include "provision/noded/warm.h"

#define LINE_MAX_BYTES 2048
#define LINKS_PER_GUEST 4
#define IDENTITY_MS 1000 /* the guest does nothing but read it */
#define REPORTS_MAX 256 /* a sane guest sends one per phase and connection */

struct link {
	struct watch watch;
	struct link *next;
	uint32_t cid;
	size_t len;
	char buf[LINE_MAX_BYTES];
};

static void link_close(struct noded *nd, struct link *link)
{
	struct link **p;

	for (p = &nd->links; *p && *p != link; p = &(*p)->next)
		;
	if (*p)
		*p = link->next;
	favo_noded_unwatch(nd, &link->watch);
	favo_close(&link->watch.fd);
	free(link);
}

/* The running VM with this context id; with the lock held, no reference. */
static struct job *job_of_cid(struct noded *nd, uint32_t cid)
{
	for (struct job *job = nd->jobs; job; job = job->next)
		if (job->vm.started && job->vm.s.cid == cid)
			return job;
	return NULL;
}

/* Compares in the same time wherever the texts differ. */
static bool same_secret(const char *a, const char *b)
{
	unsigned char diff = 0;

	if (strlen(a) != strlen(b))
		return false;
	for (; *a; a++, b++)
		diff |= (unsigned char)(*a ^ *b);
	return !diff;
}

static void apply_report(struct job *job, const char *phase, const char *detail)
{
	enum favo_phase reached = favo_phase_parse(phase);

	json_decref(job->vm.identity);
	job->vm.identity = NULL;

	if (!strcmp(phase, "failed")) {
		favo_text_printable(job->vm.guest_failure, sizeof(job->vm.guest_failure),
				    *detail ? detail : "start failed", strlen(detail));
		if (!job->vm.guest_failure[0])
			snprintf(job->vm.guest_failure, sizeof(job->vm.guest_failure),
				 "start failed");
		favo_noded_changed(job->nd);
		return;
	}
	if (!strcmp(phase, "note")) {
		char text[200];

		favo_text_printable(text, sizeof(text), detail, strlen(detail));
		favo_job_note(job, "%s", text);
		return;
	}
	/* The others are ours to say, not the guest's. */
	if (reached < FAVO_PHASE_KERNEL || reached > FAVO_PHASE_READY)
		return;
	favo_text_printable(job->detail, sizeof(job->detail), detail, strlen(detail));
	if (reached == FAVO_PHASE_READY)
		job->vm.ready = true;
	favo_job_reach(job, reached);
}

/*
 * A guest that came from a snapshot asks who it is. Only pid 1 runs in it then,
 * so it reads what it asked for; from its first report with the secret on,
 * nobody gets another answer.
 */
static bool give_identity(struct job *job, int fd)
{
	favo_autofree char *text = NULL;
	char seed[2 * FAVO_GUEST_SEED_SIZE + 1];
	uint8_t raw[FAVO_GUEST_SEED_SIZE], size[4];
	struct favo_err err = {0};

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		return false;
	favo_hex_encode(seed, raw, sizeof(raw));
	json_object_set_new(job->vm.identity, "seed", json_string(seed));
	json_object_set_new(job->vm.identity, "time_ns",
			    json_integer((json_int_t)favo_realtime_ns()));
	text = json_dumps(job->vm.identity, JSON_COMPACT);
	json_object_del(job->vm.identity, "seed");
	explicit_bzero(seed, sizeof(seed));
	if (!text)
		return false;
	favo_put_le32(size, (uint32_t)strlen(text));
	if (favo_write_all(fd, size, sizeof(size), IDENTITY_MS, &err) == 0 &&
	    favo_write_all(fd, text, strlen(text), IDENTITY_MS, &err) == 0)
		return true;
	favo_log(FAVO_WARN, "job %u: identity of its guest: %s", job->s.job, err.msg);
	return false;
}

/* One line; false: nothing more is wanted from this connection. */
static bool take_report(struct noded *nd, struct link *link, const char *line, size_t len)
{
	favo_autojson json_t *obj = NULL;
	const char *secret, *phase, *detail;
	uint64_t job_id, index;
	struct job *job;
	bool good;

	if (favo_json_parse(&obj, line, len, NULL) < 0 ||
	    favo_json_u64(&job_id, obj, "job", 0, UINT32_MAX, NULL) < 0 ||
	    favo_json_u64(&index, obj, "index", 0, UINT32_MAX, NULL) < 0 ||
	    favo_json_str(&secret, obj, "secret", NULL) < 0 ||
	    favo_json_str(&phase, obj, "phase", NULL) < 0)
		return false;
	detail = json_string_value(json_object_get(obj, "detail"));
	pthread_mutex_lock(&nd->lock);
	if (favo_warm_is_cid(nd, link->cid)) {
		if (!strcmp(phase, "warm"))
			favo_warm_asked(nd, link->cid);
		pthread_mutex_unlock(&nd->lock);
		return true;
	}
	job = job_of_cid(nd, link->cid);
	if (job && job->vm.identity && !strcmp(phase, "warm")) {
		good = give_identity(job, link->watch.fd);
		pthread_mutex_unlock(&nd->lock);
		return good;
	}
	good = job && job_id == job->s.job && index == job->index &&
	       same_secret(secret, job->grant.secret) && job->vm.reports++ < REPORTS_MAX;
	if (good)
		apply_report(job, phase, detail ? detail : "");
	pthread_mutex_unlock(&nd->lock);
	return good;
}

static void link_ready(struct noded *nd, struct watch *w, uint32_t events)
{
	struct link *link = favo_container_of(w, struct link, watch);
	ssize_t n;

	(void)events;
	n = recv(w->fd, link->buf + link->len, sizeof(link->buf) - link->len,
		 MSG_DONTWAIT);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return;
	if (n <= 0) {
		link_close(nd, link);
		return;
	}
	link->len += (size_t)n;
	for (;;) {
		char *end = memchr(link->buf, '\n', link->len);
		size_t used;

		if (!end)
			break;
		used = (size_t)(end - link->buf) + 1;
		if (!take_report(nd, link, link->buf, used - 1)) {
			link_close(nd, link);
			return;
		}
		memmove(link->buf, link->buf + used, link->len - used);
		link->len -= used;
	}
	if (link->len == sizeof(link->buf))
		link_close(nd, link);
}

static bool too_many(const struct noded *nd, uint32_t cid)
{
	unsigned int n = 0;

	for (const struct link *l = nd->links; l; l = l->next)
		n += l->cid == cid;
	return n >= LINKS_PER_GUEST;
}

static void accept_guest(struct noded *nd, struct watch *w, uint32_t events)
{
	struct sockaddr_vm peer = {0};
	socklen_t len = sizeof(peer);
	favo_autoclose int fd = -1;
	struct link *link;
	bool known;

	(void)events;
	fd = accept4(w->fd, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (fd < 0)
		return;
	pthread_mutex_lock(&nd->lock);
	known = job_of_cid(nd, peer.svm_cid) || favo_warm_is_cid(nd, peer.svm_cid);
	pthread_mutex_unlock(&nd->lock);
	if (!known || too_many(nd, peer.svm_cid))
		return;
	link = calloc(1, sizeof(*link));
	if (!link)
		return;
	link->watch.ready = link_ready;
	link->watch.fd = fd;
	link->cid = peer.svm_cid;
	if (favo_noded_watch(nd, &link->watch, NULL) < 0) {
		free(link);
		return;
	}
	favo_steal_fd(&fd);
	link->next = nd->links;
	nd->links = link;
}

int favo_guest_listen(struct noded *nd, struct favo_err *err)
{
	const struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = FAVO_REPORT_PORT,
	};
	favo_autoclose int fd =
		socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	struct watch *w;
	int ret;

	if (fd < 0)
		return favo_fail(err, errno,
				 "vsock socket: %m (is kernel module vsock loaded?)");
	if (bind(fd, (const struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 64) < 0)
		return favo_fail(err, errno, "listen on vsock port %d: %m",
				 FAVO_REPORT_PORT);
	w = calloc(1, sizeof(*w));
	if (!w)
		return favo_fail(err, ENOMEM, "allocate watch");
	w->ready = accept_guest;
	w->fd = fd;
	ret = favo_noded_watch(nd, w, err);
	if (ret < 0) {
		free(w);
		return ret;
	}
	favo_steal_fd(&fd);
	return 0;
}

static int connect_within(int fd, const struct sockaddr_vm *addr, int timeout_ms,
			  struct favo_err *err)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};
	int code = 0;
	socklen_t len = sizeof(code);

	if (connect(fd, (const struct sockaddr *)addr, sizeof(*addr)) == 0)
		return 0;
	if (errno != EINPROGRESS)
		return favo_fail(err, errno, "connect to the guest's agent: %m");
	if (poll(&p, 1, timeout_ms) <= 0)
		return favo_fail(err, ETIMEDOUT, "the guest's agent does not answer");
	if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &code, &len) < 0 || code)
		return favo_fail(err, code ? code : errno,
				 "connect to the guest's agent: %m");
	return 0;
}

int favo_guest_connect(uint32_t cid, const char *secret, int timeout_ms, int *out,
		       struct favo_err *err)
{
	const struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK,
		.svm_cid = cid,
		.svm_port = FAVO_AGENT_PORT,
	};
	favo_autoclose int fd =
		socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	uint8_t bytes[FAVO_AGENT_SECRET_SIZE];
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "vsock socket: %m");
	ret = favo_hex_decode(bytes, sizeof(bytes), secret, err);
	if (ret >= 0)
		ret = connect_within(fd, &addr, timeout_ms, err);
	if (ret >= 0)
		ret = favo_set_nonblock(fd, false);
	if (ret >= 0)
		ret = favo_agent_hello(fd, bytes, timeout_ms, err);
	if (ret < 0)
		return ret;
	*out = favo_steal_fd(&fd);
	return 0;
}
