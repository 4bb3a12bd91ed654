// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Neighbours of this node; see peers.h and docs/fan-out.md. The session of an
 * image belongs to the thread that fetches it; a second thread asks favod for
 * neighbours, so that a slow answer holds up no bytes.
 */
#include "provision/noded/peers.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/http.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/peer_disk.h"
#include "images/peer_hub.h"
#include "provision/noded/noded.h"

#define ASK_TIMEOUT_MS 5000
#define ASK_EVERY_MS 5000
#define ASK_SOON_MS 1000
#define STALL_US 4000000 /* no unit for so long: the plain fetch goes on */
#define RUN_MS 200
#define SERVE_MAX_MS 300000

struct peers_session {
	struct peers_session *next; /* under nd->peers_lock */
	struct noded *nd;
	struct favo_peer_disk disk;
	struct favo_peer *peer; /* NULL until favod answered */
	struct favo_peer_stats shown;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, alone; /* under lock */
	int answered; /* under lock: 0 not yet, 1, or -errno */
	unsigned char token[FAVO_WIRE_TOKEN]; /* before answered */
	struct favo_neighbour *found; /* under lock */
	size_t n_found;
};

/* ---- the door ---- */

static void on_guest(void *user, int fd, const struct favo_wire_hello *hello)
{
	struct noded *nd = user;
	struct peers_session *s;

	pthread_mutex_lock(&nd->peers_lock);
	for (s = nd->peers; s; s = s->next)
		if (favo_digest_equal(&s->disk.manifest->id, &hello->image))
			break;
	if (s)
		favo_peer_accept(s->peer, fd, hello);
	else
		close(fd);
	pthread_mutex_unlock(&nd->peers_lock);
}

void favo_peers_start(struct noded *nd)
{
	struct favo_err err = {0};

	pthread_mutex_init(&nd->peers_lock, NULL);
	if (!nd->conf->peer_port)
		return;
	if (favo_hub_start(&nd->hub, (uint16_t)nd->conf->peer_port, on_guest, nd, &err) <
	    0)
		favo_log(FAVO_WARN, "%s; images come from favod alone", err.msg);
}

static void enlist(struct peers_session *s)
{
	pthread_mutex_lock(&s->nd->peers_lock);
	s->next = s->nd->peers;
	s->nd->peers = s;
	pthread_mutex_unlock(&s->nd->peers_lock);
}

static void strike_off(struct peers_session *s)
{
	struct peers_session **p;

	pthread_mutex_lock(&s->nd->peers_lock);
	for (p = &s->nd->peers; *p; p = &(*p)->next) {
		if (*p == s) {
			*p = s->next;
			break;
		}
	}
	pthread_mutex_unlock(&s->nd->peers_lock);
}

/* ---- neighbours, from favod ---- */

static int parse_neighbour(struct favo_neighbour *n, const json_t *obj,
			   struct favo_err *err)
{
	const char *name, *address;
	uint64_t port;
	int ret;

	memset(n, 0, sizeof(*n));
	if ((ret = favo_json_str(&name, obj, "name", err)) < 0 ||
	    (ret = favo_json_str(&address, obj, "address", err)) < 0 ||
	    (ret = favo_json_u64(&port, obj, "port", 1, 65535, err)) < 0 ||
	    (ret = favo_json_bool(&n->source, obj, "source", err)) < 0)
		return ret;
	snprintf(n->name, sizeof(n->name), "%s", name);
	snprintf(n->address, sizeof(n->address), "%s", address);
	n->port = (uint16_t)port;
	return 0;
}

static int take_answer(struct peers_session *s, const json_t *answer,
		       struct favo_err *err)
{
	unsigned char token[FAVO_WIRE_TOKEN];
	struct favo_neighbour *list;
	const char *hex;
	json_t *array;
	size_t n;
	int ret;

	if ((ret = favo_json_str(&hex, answer, "token", err)) < 0 ||
	    (ret = favo_hex_decode(token, sizeof(token), hex, err)) < 0 ||
	    (ret = favo_json_array(&array, answer, "neighbours", err)) < 0)
		return ret;
	n = FAVO_MIN(json_array_size(array), (size_t)64);
	list = calloc(n + 1, sizeof(*list));
	if (!list)
		return favo_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; ret == 0 && i < n; i++)
		ret = parse_neighbour(&list[i], json_array_get(array, i), err);
	pthread_mutex_lock(&s->lock);
	if (ret == 0) {
		free(s->found);
		s->found = favo_steal_ptr(&list);
		s->n_found = n;
		if (!s->answered)
			memcpy(s->token, token, sizeof(token));
		s->answered = 1;
	}
	pthread_mutex_unlock(&s->lock);
	free(list);
	return ret;
}

static int ask_favod(struct peers_session *s, struct favo_http *http,
		     struct favo_err *err)
{
	favo_autojson json_t *body = NULL, *answer = NULL;
	char path[128], id[FAVO_DIGEST_TEXT_SIZE], name[FAVO_WIRE_NAME_MAX + 1];
	bool alone;
	int ret;

	pthread_mutex_lock(&s->lock);
	alone = s->alone;
	pthread_mutex_unlock(&s->lock);
	snprintf(name, sizeof(name), "%.63s", s->nd->hostname);
	snprintf(path, sizeof(path), "/v1/swarms/%s",
		 favo_digest_format(&s->disk.manifest->id, id));
	body = json_pack("{s:s, s:i, s:b}", "node", name, "port",
			 s->nd->hub ? (int)favo_hub_port(s->nd->hub) : 0, "alone", alone);
	ret = favo_http_json(http, "POST", path, body, &answer, err);
	return ret < 0 ? ret : take_answer(s, answer, err);
}

static void *ask_thread(void *arg)
{
	struct peers_session *s = arg;
	const struct favo_http_params params = {
		.base_url = s->nd->conf->favod_url,
		.munge_socket =
			*s->nd->conf->munge_socket ? s->nd->conf->munge_socket : NULL,
		.timeout_ms = ASK_TIMEOUT_MS,
	};
	favo_autohttp struct favo_http *http = NULL;
	struct favo_err err = {0};
	int ret = favo_http_new(&http, &params, &err);

	pthread_mutex_lock(&s->lock);
	for (unsigned int round = 0; !s->stop; round++) {
		struct timespec until;
		int64_t wait_ms = round < 2 || s->alone ? ASK_SOON_MS : ASK_EVERY_MS;

		pthread_mutex_unlock(&s->lock);
		if (http)
			ret = ask_favod(s, http, &err);
		pthread_mutex_lock(&s->lock);
		if (ret < 0) {
			favo_log(FAVO_DEBUG, "neighbours: %s", err.msg);
			if (!s->answered)
				s->answered = ret;
		}
		pthread_cond_broadcast(&s->changed);
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_sec += wait_ms / 1000;
		if (!s->stop)
			pthread_cond_timedwait(&s->changed, &s->lock, &until);
	}
	pthread_mutex_unlock(&s->lock);
	return NULL;
}

/* Hand what was found to the session's own thread. */
static void take_found(struct peers_session *s)
{
	pthread_mutex_lock(&s->lock);
	for (size_t i = 0; i < s->n_found; i++)
		favo_peer_connect(s->peer, &s->found[i]);
	s->n_found = 0;
	s->alone = !s->shown.neighbours && !s->shown.sources;
	pthread_mutex_unlock(&s->lock);
}

/* ---- sessions ---- */

/* Wait for favod's first word. */
static int await_answer(struct peers_session *s, struct favo_err *err)
{
	int ret;

	pthread_mutex_lock(&s->lock);
	while (!s->answered)
		pthread_cond_wait(&s->changed, &s->lock);
	ret = s->answered;
	pthread_mutex_unlock(&s->lock);
	return ret < 0 ? favo_fail(err, -ret, "favod names no neighbours") : 0;
}

static int session_open(struct peers_session *s, struct favo_fetch *fetch,
			struct favo_err *err)
{
	struct favo_peer_params params = {
		.name = s->nd->hostname,
		.send_rate = s->nd->conf->peer_rate,
		.receive_rate = s->nd->conf->fetch_rate,
		.ops = &favo_peer_disk_ops,
		.user = &s->disk,
	};
	pthread_condattr_t attr;
	int ret = favo_peer_disk_fetch(&s->disk, fetch, err);

	if (ret < 0)
		return ret;
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	s->alone = true;
	ret = pthread_create(&s->thread, NULL, ask_thread, s);
	if (ret)
		return favo_fail(err, ret, "no thread for neighbours");
	ret = await_answer(s, err);
	params.manifest = s->disk.manifest;
	memcpy(params.token, s->token, sizeof(params.token));
	if (ret == 0)
		ret = favo_peer_new(&s->peer, &params, err);
	if (ret == 0) {
		enlist(s);
		return 0;
	}
	pthread_mutex_lock(&s->lock);
	s->stop = true;
	pthread_cond_broadcast(&s->changed);
	pthread_mutex_unlock(&s->lock);
	pthread_join(s->thread, NULL);
	return ret;
}

static void session_free(struct peers_session *s)
{
	favo_peer_free(s->peer);
	favo_peer_disk_fini(&s->disk);
	free(s->found);
	free(s);
}

void favo_peers_end(struct peers_session *session)
{
	if (!session)
		return;
	strike_off(session);
	pthread_mutex_lock(&session->lock);
	session->stop = true;
	pthread_cond_broadcast(&session->changed);
	pthread_mutex_unlock(&session->lock);
	pthread_join(session->thread, NULL);
	session_free(session);
}

static int session_get(struct noded *nd, struct favo_fetch *fetch,
		       struct peers_session **session, struct favo_err *err)
{
	struct peers_session *s;
	int ret;

	if (*session)
		return 0;
	if (!nd->conf->peer_port)
		return -ENOTCONN;
	s = calloc(1, sizeof(*s));
	if (!s)
		return favo_fail(err, ENOMEM, "out of memory");
	s->nd = nd;
	ret = session_open(s, fetch, err);
	if (ret < 0)
		session_free(s);
	else
		*session = s;
	return ret;
}

static void log_stats(const struct peers_session *s)
{
	char peers[32], source[32];

	favo_log(
		FAVO_INFO,
		"image %.19s: %s came from other nodes, %s from favod's source, %u nodes "
		"dropped",
		s->disk.manifest->name,
		favo_format_size(peers, sizeof(peers), s->shown.from_peers),
		favo_format_size(source, sizeof(source), s->shown.from_source),
		s->shown.dropped);
}

int favo_peers_fill(struct noded *nd, struct favo_fetch *fetch,
		    struct peers_session **session, favo_peers_progress_fn *progress,
		    void *user, struct favo_err *err)
{
	struct peers_session *s;
	int64_t start_us = favo_now_ns() / 1000;
	int ret = session_get(nd, fetch, session, NULL);

	/* Nobody else to ask: the plain fetch needs no session. */
	if (ret < 0)
		return 0;
	s = *session;
	while (ret == 0 && favo_peer_missing(s->peer)) {
		int64_t last_us = FAVO_MAX(start_us, s->shown.progress_us);

		if (favo_now_ns() / 1000 - last_us > STALL_US)
			break;
		take_found(s);
		ret = favo_peer_run(s->peer, RUN_MS, err);
		favo_peer_stats(s->peer, &s->shown);
		if (s->shown.progress_us > last_us && !progress(user))
			break;
	}
	log_stats(s);
	if (ret < 0 || favo_peer_missing(s->peer)) {
		/* Who asks us would wait in vain. */
		favo_peers_end(favo_steal_ptr(session));
	}
	return ret;
}

void favo_peers_complete(struct peers_session *session)
{
	if (session)
		session->disk.fetch = NULL;
}

void favo_peers_serve(struct peers_session *session, int least_ms)
{
	const struct timespec pause = {.tv_sec = least_ms / 1000};
	int64_t start_ms = favo_now_ms(), now_ms = start_ms;

	if (!session) {
		nanosleep(&pause, NULL);
		return;
	}
	while (now_ms - start_ms < least_ms ||
	       (!favo_peer_idle(session->peer) && now_ms - start_ms < SERVE_MAX_MS)) {
		take_found(session);
		if (favo_peer_run(session->peer, RUN_MS, NULL) < 0)
			break;
		favo_peer_stats(session->peer, &session->shown);
		now_ms = favo_now_ms();
	}
}
