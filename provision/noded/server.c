// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-noded's socket: who may ask, and the answers (favo-noded(8) has the
 * protocol). Each connection is one request and has a thread of its own, so
 * that a slow peer delays nobody; connections are counted per user, so that
 * no user takes them all.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "config.h"
#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/util.h"
#include "provision/noded/health.h"
#include "provision/noded/noded.h"

#define REQUEST_MS 5000 /* for a whole request line to come */
#define REPLY_MS 5000 /* for a reply line to leave */
#define DESTROY_MS 19000 /* the plugin waits for 20 s */
#define AGENT_MS 10000
#define PROGRESS_MS 1000
#define VERDICT_MS 1000
/* A node runs a few hundred tasks of a user at most; 1,024 leaves room. */
#define CLIENTS_PER_USER 1024
#define CLIENTS_MAX 4096

struct client_count {
	struct client_count *next;
	uid_t uid;
	unsigned int n;
};

struct client {
	struct noded *nd;
	int fd;
	struct ucred peer;
};

/* ---- counting ---- */

/* False: this user has enough. Root is never refused. */
static bool count_in(struct noded *nd, uid_t uid)
{
	struct client_count *c;
	bool good;

	pthread_mutex_lock(&nd->lock);
	for (c = nd->clients; c && c->uid != uid; c = c->next)
		;
	if (!c && (c = calloc(1, sizeof(*c)))) {
		c->uid = uid;
		c->next = nd->clients;
		nd->clients = c;
	}
	good = c && (uid == 0 || (c->n < CLIENTS_PER_USER && nd->nclients < CLIENTS_MAX));
	if (good) {
		c->n++;
		nd->nclients++;
	}
	pthread_mutex_unlock(&nd->lock);
	return good;
}

static void count_out(struct noded *nd, uid_t uid)
{
	struct client_count **p, *c;

	pthread_mutex_lock(&nd->lock);
	for (p = &nd->clients; *p && (*p)->uid != uid; p = &(*p)->next)
		;
	c = *p;
	if (c) {
		nd->nclients--;
		if (!--c->n) {
			*p = c->next;
			free(c);
		}
	}
	pthread_mutex_unlock(&nd->lock);
}

/* ---- replies ---- */

/* Send one line, with a descriptor unless fd is -1; takes over obj. */
static int reply(struct client *c, json_t *obj, int fd)
{
	favo_autojson json_t *owned = obj;
	favo_autofree char *text = owned ? json_dumps(owned, JSON_COMPACT) : NULL;
	favo_autofree char *line = text ? favo_asprintf("%s\n", text) : NULL;

	if (!line)
		return -ENOMEM;
	if (fd >= 0)
		return favo_send_fds(c->fd, line, strlen(line), &fd, 1, NULL);
	return favo_write_all(c->fd, line, strlen(line), REPLY_MS, NULL);
}

static json_t *error_json(const struct favo_failure *f, const char *node, const char *vm)
{
	return json_pack("{s:b, s:{s:s, s:s, s:s, s:s, s:s}}", "ok", 0, "error", "node",
			 node, "vm", vm, "phase", f->phase, "cause", f->cause, "remedy",
			 f->remedy);
}

static void reply_error(struct client *c, const char *remedy, const char *cause)
{
	struct favo_failure f = {0};

	snprintf(f.cause, sizeof(f.cause), "%s", cause);
	snprintf(f.remedy, sizeof(f.remedy), "%s", remedy);
	(void)!reply(c, error_json(&f, c->nd->hostname, ""), -1);
}

static void reply_ok(struct client *c)
{
	(void)!reply(c, json_pack("{s:b}", "ok", 1), -1);
}

static void reply_result(struct client *c, int ret, const struct favo_err *err)
{
	if (ret < 0)
		reply_error(c, "", err->msg);
	else
		reply_ok(c);
}

/* ---- what is shown ---- */

static const char *state_name(const struct job *job)
{
	if (job->destroy)
		return "ending";
	if (favo_job_failed(job))
		return "failed";
	if (job->vm.ready)
		return "ready";
	if (job->vm.started)
		return "booting";
	return job->s.timeline.reached_ms[FAVO_PHASE_IMAGE] ? "prepared" : "preparing";
}

json_t *favo_job_json(struct job *job)
{
	json_t *obj = json_pack("{s:I, s:I, s:s, s:s, s:o}", "job",
				(json_int_t)job->s.job, "uid", (json_int_t)job->s.uid,
				"state", state_name(job), "nodelist", job->s.nodelist,
				"timeline", favo_timeline_json(&job->s.timeline));

	if (!obj)
		return NULL;
	if (job->detail[0])
		json_object_set_new(obj, "detail", json_string(job->detail));
	if (favo_job_failed(job))
		json_object_set_new(obj, "failure",
				    json_pack("{s:s, s:s, s:s}", "phase",
					      job->s.failure.phase, "cause",
					      job->s.failure.cause, "remedy",
					      job->s.failure.remedy));
	if (!job->cluster)
		return obj;
	json_object_set_new(obj, "image", json_string(job->grant.image));
	json_object_set_new(obj, "digest", json_string(job->grant.digest));
	if (job->vm.from_snapshot)
		json_object_set_new(obj, "snapshot", json_string(job->vm.warm_key));
	json_object_set_new(obj, "vms",
			    json_pack("[{s:s, s:i, s:s, s:I, s:I, s:I, s:I, s:b}]",
				      "name", job->cluster->members[job->index].name,
				      "index", (int)job->index, "address",
				      job->cluster->members[job->index].address, "pid",
				      (json_int_t)(job->vm.started ? job->vm.s.pid : 0),
				      "cid", (json_int_t)job->vm.s.cid, "mem_mb",
				      (json_int_t)job->vm.s.mem_mb, "cpus",
				      (json_int_t)job->vm.s.cpus, "running",
				      job->vm.started && !job->vm.exited));
	return obj;
}

static bool may_see(const struct client *c, const struct job *job)
{
	return c->peer.uid == 0 || c->peer.uid == job->s.uid;
}

/*
 * The peer's job, or an answer that there is none: the same one whether it is
 * absent or somebody else's.
 */
static struct job *find_job(struct client *c, uint32_t id)
{
	struct job *job;
	char text[96];

	pthread_mutex_lock(&c->nd->lock);
	job = favo_job_find(c->nd, id);
	if (job && !may_see(c, job)) {
		favo_job_unref(job);
		job = NULL;
	}
	pthread_mutex_unlock(&c->nd->lock);
	if (!job) {
		snprintf(text, sizeof(text), "job %u has no VM on this node", id);
		reply_error(c, "was it submitted with --vm-image?", text);
	}
	return job;
}

static void drop_job(struct client *c, struct job *job)
{
	pthread_mutex_lock(&c->nd->lock);
	favo_job_unref(job);
	pthread_mutex_unlock(&c->nd->lock);
}

static void do_list(struct client *c)
{
	json_t *list = json_array();

	pthread_mutex_lock(&c->nd->lock);
	for (struct job *job = c->nd->jobs; job; job = job->next)
		if (may_see(c, job))
			json_array_append_new(list, favo_job_json(job));
	pthread_mutex_unlock(&c->nd->lock);
	(void)!reply(c, json_pack("{s:b, s:o}", "ok", 1, "jobs", list), -1);
}

static void do_show(struct client *c, const struct favo_request *req)
{
	struct job *job = find_job(c, req->job);
	json_t *obj;

	if (!job)
		return;
	pthread_mutex_lock(&c->nd->lock);
	obj = favo_job_json(job);
	favo_job_unref(job);
	pthread_mutex_unlock(&c->nd->lock);
	if (obj)
		json_object_set_new(obj, "ok", json_true());
	(void)!reply(c, obj, -1);
}

static void do_console(struct client *c, const struct favo_request *req)
{
	struct job *job = find_job(c, req->job);
	favo_autoclose int fd = -1;
	char path[512], name[32];
	unsigned int index;

	if (!job)
		return;
	pthread_mutex_lock(&c->nd->lock);
	index = job->index;
	favo_job_unref(job);
	pthread_mutex_unlock(&c->nd->lock);
	snprintf(name, sizeof(name), "vm%u", index);
	if (*req->vm && strcmp(req->vm, name)) {
		reply_error(c, "", "that VM does not run on this node");
		return;
	}
	favo_vm_dir(c->nd, req->job, index, "console.log", path, sizeof(path));
	fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0)
		reply_error(c, "", "the VM has no console yet");
	else
		(void)!reply(c, json_pack("{s:b}", "ok", 1), fd);
}

/* ---- attach ---- */

static bool peer_gone(const struct client *c)
{
	struct pollfd p = {.fd = c->fd, .events = POLLRDHUP};

	return poll(&p, 1, 0) > 0 && (p.revents & (POLLHUP | POLLERR | POLLRDHUP));
}

static json_t *progress_json(const struct job *job)
{
	enum favo_phase phase = favo_timeline_current(&job->s.timeline);
	char vm[16];

	snprintf(vm, sizeof(vm), "vm%u", job->index);
	return json_pack("{s:{s:s, s:s, s:s, s:I}}", "progress", "vm", vm, "phase",
			 favo_phase_name(phase), "detail", job->detail, "elapsed_ms",
			 (json_int_t)(favo_now_ms() - job->s.timeline.start_ms));
}

/*
 * Wait until the job's VM is ready, has failed, or ends; tell the peer about
 * progress. With the lock held, which is given up for sending. 0: decided.
 */
static int await_ready(struct client *c, struct job *job)
{
	struct noded *nd = c->nd;
	int64_t next_ms = favo_now_ms() + PROGRESS_MS;
	int64_t give_up_ms = favo_now_ms() + (int64_t)nd->conf->boot_timeout_ms;
	enum favo_phase told = FAVO_PHASE_COUNT;
	int ret = 0;

	while (ret >= 0 && !job->vm.ready && !favo_job_failed(job) && !job->destroy &&
	       !job->gone) {
		enum favo_phase phase = favo_timeline_current(&job->s.timeline);

		if (!job->s.boot_asked && favo_now_ms() > give_up_ms) {
			favo_job_fail(job, FAVO_PHASE_BOOT,
				      "is the plugin in plugstack.conf of this node?",
				      "slurmstepd never asked for the VM's start");
			break;
		}
		if (phase != told || favo_now_ms() >= next_ms) {
			json_t *line = progress_json(job);

			told = phase;
			next_ms = favo_now_ms() + PROGRESS_MS;
			pthread_mutex_unlock(&nd->lock);
			ret = peer_gone(c) ? -EPIPE : reply(c, line, -1);
			pthread_mutex_lock(&nd->lock);
			continue;
		}
		favo_noded_wait_until(nd, next_ms);
	}
	return ret;
}

static void attach_failed(struct client *c, struct job *job, const struct favo_err *err)
{
	struct favo_failure f = {0};
	char vm[16], node[256];
	int64_t until_ms = favo_now_ms() + VERDICT_MS;

	pthread_mutex_lock(&c->nd->lock);
	/* When the VM died just now, its job's thread is finding out why. */
	while (!favo_job_failed(job) && !job->destroy && favo_now_ms() < until_ms)
		favo_noded_wait_until(c->nd, until_ms);
	snprintf(vm, sizeof(vm), "vm%u", job->index);
	snprintf(node, sizeof(node), "%s", job->s.node);
	if (favo_job_failed(job)) {
		f = job->s.failure;
	} else {
		snprintf(f.phase, sizeof(f.phase), "%s",
			 favo_phase_name(favo_timeline_current(&job->s.timeline)));
		snprintf(f.cause, sizeof(f.cause), "%.399s",
			 job->destroy ? "the job is ending" : err->msg);
		snprintf(f.remedy, sizeof(f.remedy), "see: favo vc logs %u", job->s.job);
	}
	pthread_mutex_unlock(&c->nd->lock);
	(void)!reply(c, error_json(&f, node, vm), -1);
}

static void do_attach(struct client *c, const struct favo_request *req)
{
	struct job *job = find_job(c, req->job);
	struct noded *nd = c->nd;
	struct favo_err err = {0};
	favo_autoclose int fd = -1;
	bool ready;
	json_t *answer = NULL;
	int ret;

	if (!job)
		return;
	pthread_mutex_lock(&nd->lock);
	ret = await_ready(c, job);
	ready = ret >= 0 && job->vm.ready && !job->vm.exited && !favo_job_failed(job) &&
		!job->destroy;
	if (ready)
		answer = json_pack("{s:b, s:s, s:i, s:i}", "ok", 1, "vm",
				   job->cluster->members[job->index].name, "index",
				   (int)job->index, "members", (int)job->cluster->count);
	if (answer && (job->s.sandbox || nd->conf->sandbox))
		json_object_set_new(answer, "sandbox", json_true());
	/* Once: the first task tells it. */
	if (answer && job->note[0]) {
		json_object_set_new(answer, "note", json_string(job->note));
		job->note[0] = '\0';
	}
	pthread_mutex_unlock(&nd->lock);
	if (ready)
		ret = favo_guest_connect(job->vm.s.cid, job->grant.secret, AGENT_MS, &fd,
					 &err);
	if (ready && ret >= 0) {
		pthread_mutex_lock(&nd->lock);
		favo_job_reach(job, FAVO_PHASE_TASK);
		pthread_mutex_unlock(&nd->lock);
		(void)!reply(c, favo_steal_ptr(&answer), fd);
	} else if (ret != -EPIPE) {
		attach_failed(c, job, &err);
	}
	json_decref(answer);
	drop_job(c, job);
}

/* ---- requests ---- */

static void do_boot(struct client *c, const struct favo_request *req)
{
	struct job *job = find_job(c, req->job);
	struct favo_err err = {0};
	int ret;

	if (!job)
		return;
	pthread_mutex_lock(&c->nd->lock);
	ret = favo_job_boot(job, req, &err);
	favo_job_unref(job);
	pthread_mutex_unlock(&c->nd->lock);
	reply_result(c, ret, &err);
}

static void do_prepare(struct client *c, const struct favo_request *req)
{
	struct favo_err err = {0};
	int ret = favo_job_prepare(c->nd, req, &err);

	reply_result(c, ret, &err);
}

static void do_destroy(struct client *c, const struct favo_request *req)
{
	char text[96];

	if (favo_job_destroy(c->nd, req->job, DESTROY_MS)) {
		reply_ok(c);
		return;
	}
	snprintf(text, sizeof(text), "job %u is still being removed", req->job);
	reply_error(c, "favo-noded goes on with it", text);
}

static void do_doctor(struct client *c)
{
	json_t *checks;

	pthread_mutex_lock(&c->nd->lock);
	checks = favo_health_get(c->nd);
	pthread_mutex_unlock(&c->nd->lock);
	(void)!reply(c,
		     json_pack("{s:b, s:s, s:o}", "ok", 1, "version", PACKAGE_VERSION,
			       "checks", checks),
		     -1);
}

static void dispatch(struct client *c, const struct favo_request *req)
{
	if (!favo_request_allowed(req, c->peer.uid)) {
		reply_error(c, "", "only root may ask this");
		return;
	}
	switch (req->op) {
	case FAVO_OP_PREPARE:
		do_prepare(c, req);
		break;
	case FAVO_OP_BOOT:
		do_boot(c, req);
		break;
	case FAVO_OP_ATTACH:
		do_attach(c, req);
		break;
	case FAVO_OP_DESTROY:
		do_destroy(c, req);
		break;
	case FAVO_OP_LIST:
		do_list(c);
		break;
	case FAVO_OP_SHOW:
		do_show(c, req);
		break;
	case FAVO_OP_CONSOLE:
		do_console(c, req);
		break;
	case FAVO_OP_DOCTOR:
		do_doctor(c);
		break;
	}
}

/* The line without its newline; 0 when the peer sent none in time. */
static size_t read_line(int fd, char *buf, size_t size)
{
	int64_t end = favo_now_ms() + REQUEST_MS;
	size_t len = 0;

	while (len < size) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = end - favo_now_ms();
		char *newline;
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) < 0)
			return 0;
		n = recv(fd, buf + len, size - len, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN && errno != EINTR))
			return 0;
		if (n < 0)
			continue;
		newline = memchr(buf + len, '\n', (size_t)n);
		if (newline)
			return (size_t)(newline - buf);
		len += (size_t)n;
	}
	return size; /* too long: the parser says so */
}

static void *client_thread(void *arg)
{
	struct client *c = arg;
	favo_autofree char *buf = malloc(FAVO_REQUEST_MAX);
	struct favo_request req = {0};
	struct favo_err err = {0};
	size_t len = buf ? read_line(c->fd, buf, FAVO_REQUEST_MAX) : 0;

	if (len) {
		if (favo_request_parse(&req, buf, len, &err) < 0) {
			reply_error(c, "", err.msg);
		} else {
			dispatch(c, &req);
			favo_request_fini(&req);
		}
	}
	count_out(c->nd, c->peer.uid);
	close(c->fd);
	free(c);
	return NULL;
}

static void accept_client(struct noded *nd, struct watch *w, uint32_t events)
{
	static const char busy[] =
		"{\"ok\":false,\"error\":{\"node\":\"\",\"vm\":\"\","
		"\"phase\":\"\",\"cause\":\"too many requests at once\","
		"\"remedy\":\"try again\"}}\n";
	struct client *c = calloc(1, sizeof(*c));
	socklen_t len = sizeof(c->peer);

	(void)events;
	if (!c)
		return;
	c->nd = nd;
	c->fd = accept4(w->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (c->fd < 0) {
		free(c);
		return;
	}
	if (getsockopt(c->fd, SOL_SOCKET, SO_PEERCRED, &c->peer, &len) == 0 &&
	    count_in(nd, c->peer.uid)) {
		if (favo_noded_thread(client_thread, c, NULL) == 0)
			return;
		count_out(nd, c->peer.uid);
	}
	(void)!send(c->fd, busy, sizeof(busy) - 1, MSG_NOSIGNAL | MSG_DONTWAIT);
	close(c->fd);
	free(c);
}

int favo_server_listen(struct noded *nd, struct favo_err *err)
{
	struct watch *w = calloc(1, sizeof(*w));
	int ret;

	if (!w)
		return favo_fail(err, ENOMEM, "allocate watch");
	w->ready = accept_client;
	ret = favo_unix_listen(&w->fd, nd->conf->noded_socket, 0666, err);
	if (ret >= 0)
		ret = favo_noded_watch(nd, w, err);
	if (ret < 0)
		free(w);
	return ret;
}
