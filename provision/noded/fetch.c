// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Images on their way from favod to this node. One thread per image; jobs
 * that want the same image wait for the same fetch. What was fetched stays in
 * the cache's partial image, so that a later try goes on where this one
 * stopped. Every chunk is verified by images/cache.c before it counts.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/http.h"
#include "common/log.h"
#include "common/util.h"
#include "images/digest.h"
#include "provision/noded/noded.h"
#include "provision/noded/peers.h"

#define BATCH 64 /* blobs per request: 16 MiB at most of chunks */
#define REQUEST_TIMEOUT_MS 300000 /* a kernel over a slow link */
#define REPLY_MAX ((size_t)1100 << 20)
#define GIVE_UP_MS 60000 /* without any progress */
#define BACKOFF_FIRST_MS 500
#define BACKOFF_LAST_MS 8000
#define SETTLE_MS 5000
#define SERVE_MS 20000 /* for nodes that start a little later */
#define RATE_BYTES (16u << 20) /* less tells no rate */
#define WRONG_MAX 5 /* damaged answers in a row */

struct
try {
	struct fetch *fetch;
	struct favo_http *http;
	struct favo_fetch *fill;
	struct peers_session *peers; /* NULL: from favod alone */
	int64_t start_ms;
	int64_t progress_ms; /* when something last moved */
	unsigned int wrong;
	bool final; /* trying again cannot help */
};

static int final_fail(struct try *t, struct favo_err *err, int code, const char *text)
{
	t->final = true;
	return favo_fail(err, code, "%s", text);
}

static bool unwanted(struct try *t)
{
	bool unwanted;

	pthread_mutex_lock(&t->fetch->nd->lock);
	unwanted = t->fetch->waiters == 0;
	pthread_mutex_unlock(&t->fetch->nd->lock);
	return unwanted;
}

/* VMs that run on what is here: they can wait for the rest. */
static bool has_riders(struct try *t)
{
	bool riders;

	pthread_mutex_lock(&t->fetch->nd->lock);
	riders = t->fetch->riders > 0;
	pthread_mutex_unlock(&t->fetch->nd->lock);
	return riders;
}

static void show_progress(struct try *t)
{
	struct favo_fetch_progress now;

	favo_fetch_progress(t->fill, &now);
	t->progress_ms = favo_now_ms();
	pthread_mutex_lock(&t->fetch->nd->lock);
	t->fetch->progress = now;
	t->fetch->trouble[0] = '\0';
	favo_noded_changed(t->fetch->nd);
	pthread_mutex_unlock(&t->fetch->nd->lock);
	favo_lazy_step(t->fetch, t->fill);
}

/* Status >= 400 as a sentence; a 4xx will not change by asking again. */
static int check_status(struct try *t, const struct favo_http_reply *reply,
			const char *what, struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	const char *text = NULL;

	if (reply->status == 200)
		return 0;
	if (favo_json_parse(&obj, reply->body, reply->len, NULL) == 0)
		text = json_string_value(json_object_get(obj, "error"));
	if (reply->status >= 400 && reply->status < 500 && reply->status != 429)
		t->final = true;
	return favo_fail(err, reply->status == 404 ? ENOENT : EIO,
			 "%s: favod answers %ld: %s", what, reply->status,
			 text ? text : "no reason given");
}

static int begin(struct try *t, struct favo_err *err)
{
	struct noded *nd = t->fetch->nd;
	struct favo_http_reply reply = {0};
	char id[FAVO_DIGEST_TEXT_SIZE], path[128];
	int ret;

	snprintf(path, sizeof(path), "/v1/manifests/%s",
		 favo_digest_format(&t->fetch->id, id));
	ret = favo_http_request(t->http, "GET", path, NULL, 0, &reply, err);
	if (ret >= 0)
		ret = check_status(t, &reply, "manifest", err);
	if (ret >= 0) {
		ret = favo_fetch_begin(&t->fill, nd->cache, &t->fetch->id, reply.body,
				       reply.len, err);
		if (ret == -ENOSPC) {
			/* Whatever no VM uses may go for one that is needed now. */
			pthread_mutex_lock(&nd->cache_lock);
			(void)favo_cache_evict(nd->cache, 0, false, NULL);
			pthread_mutex_unlock(&nd->cache_lock);
			ret = favo_fetch_begin(&t->fill, nd->cache, &t->fetch->id,
					       reply.body, reply.len, err);
			t->final = ret == -ENOSPC;
		}
	}
	favo_http_reply_fini(&reply);
	return ret;
}

static json_t *digests_json(const struct favo_digest *want, int n)
{
	json_t *list = json_array();
	char text[FAVO_DIGEST_TEXT_SIZE];

	for (int i = 0; i < n; i++)
		json_array_append_new(list,
				      json_string(favo_digest_format(&want[i], text)));
	return json_pack("{s:o}", "digests", list);
}

/* The answer: u32le length and bytes for each digest, in the order asked. */
static int put_blobs(struct try *t, const struct favo_digest *want, int n,
		     const char *body, size_t len, struct favo_err *err)
{
	size_t at = 0;

	for (int i = 0; i < n; i++) {
		const unsigned char *p = (const unsigned char *)body + at;
		size_t size;
		int ret;

		if (len - at < 4)
			return favo_fail(err, EBADMSG, "favod's answer is cut short");
		size = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 |
		       (size_t)p[3] << 24;
		at += 4;
		if (size > len - at)
			return favo_fail(err, EBADMSG, "favod's answer is cut short");
		ret = favo_fetch_put(t->fill, &want[i], body + at, size, err);
		if (ret < 0)
			return ret;
		at += size;
	}
	return 0;
}

/* One request and its answer, on the way in a thread of its own. */
struct batch {
	struct try *try;
	pthread_t thread;
	bool running;
	struct favo_digest want[BATCH];
	int n;
	struct favo_http_reply reply;
	int ret;
	struct favo_err err;
};

static void *download(void *arg)
{
	struct batch *b = arg;
	favo_autojson json_t *ask = digests_json(b->want, b->n);
	favo_autofree char *text = NULL;
	size_t len;

	b->ret = favo_json_canonical(&text, &len, ask, &b->err);
	if (b->ret >= 0)
		b->ret = favo_http_request(b->try->http, "POST", "/v1/blobs", text, len,
					   &b->reply, &b->err);
	return NULL;
}

/* Ask for what is missing, if anything. */
static int batch_start(struct batch *b, struct try *t, struct favo_err *err)
{
	int ret;

	memset(b, 0, sizeof(*b));
	b->try = t;
	b->n = favo_fetch_missing(t->fill, b->want, BATCH);
	if (!b->n)
		return 0;
	ret = pthread_create(&b->thread, NULL, download, b);
	if (ret)
		return favo_fail(err, ret, "start download: %m");
	b->running = true;
	return 0;
}

static void batch_join(struct batch *b)
{
	if (b->running)
		pthread_join(b->thread, NULL);
	b->running = false;
}

static void batch_fini(struct batch *b)
{
	batch_join(b);
	favo_http_reply_fini(&b->reply);
}

/* Put what came, while the next batch is on its way. */
static int batch_put(struct batch *b, struct try *t, struct favo_err *err)
{
	int ret = b->ret;

	if (ret < 0)
		*err = b->err;
	else
		ret = check_status(t, &b->reply, "image data", err);
	if (ret >= 0)
		ret = put_blobs(t, b->want, b->n, b->reply.body, b->reply.len, err);
	if (ret == -EBADMSG && ++t->wrong >= WRONG_MAX)
		t->final = true;
	if (ret >= 0)
		t->wrong = 0;
	t->final |= ret == -ENOSPC || ret == -EROFS;
	return ret;
}

/*
 * Download one batch while the one before is decompressed, checked and
 * written: both cost a processor in the same order.
 */
static int fill_batches(struct try *t, struct favo_err *err)
{
	struct batch batches[2] = {{.n = 0}};
	struct batch *now = &batches[0], *next = &batches[1], *swap;
	int ret = batch_start(now, t, err);

	while (ret >= 0 && now->n) {
		batch_join(now);
		ret = batch_start(next, t, err);
		if (ret >= 0)
			ret = batch_put(now, t, err);
		batch_fini(now);
		if (ret < 0)
			break;
		show_progress(t);
		if (unwanted(t))
			ret = final_fail(t, err, ECANCELED,
					 "nobody waits for it any more");
		swap = now;
		now = next;
		next = swap;
		/* Only what was put told what else there is (the index). */
		if (ret >= 0 && !now->n)
			ret = batch_start(now, t, err);
	}
	batch_fini(now);
	batch_fini(next);
	return ret;
}

/* The index alone, which tells whether the start will be lazy. */
static int fill_index(struct try *t, struct favo_err *err)
{
	struct batch first;
	int ret = batch_start(&first, t, err);

	batch_join(&first);
	if (ret >= 0 && first.n)
		ret = batch_put(&first, t, err);
	batch_fini(&first);
	if (ret >= 0)
		show_progress(t);
	return ret;
}

static bool peers_progress(void *user)
{
	struct try *t = user;

	show_progress(t);
	return !unwanted(t);
}

/* What other nodes give first, then the rest from favod. */
static int fill_parts(struct try *t, struct favo_err *err)
{
	struct noded *nd = t->fetch->nd;
	int ret = 0;

	if (strcmp(nd->conf->image_lazy, "never") != 0 && !favo_fetch_index(t->fill))
		ret = fill_index(t, err);
	if (ret >= 0 && !favo_fetch_is_held(t->fill))
		ret = favo_peers_fill(nd, t->fill, &t->peers, peers_progress, t, err);
	t->final |= ret == -ENOSPC || ret == -EROFS;
	return ret < 0 ? ret : fill_batches(t, err);
}

/* One pass until complete or the first error; progress is kept. */
static int fill(struct try *t, struct favo_err *err)
{
	int ret;

	if (!t->fill) {
		ret = begin(t, err);
		if (ret == -EEXIST)
			return 0;
		if (ret < 0)
			return ret;
		show_progress(t);
	}
	favo_fetch_retry(t->fill);
	do {
		ret = fill_parts(t, err);
	} while (ret >= 0 && favo_lazy_rest(t->fetch, t->fill));
	return ret < 0 ? ret : favo_fetch_commit(t->fill, err);
}

static void show_trouble(struct try *t, const struct favo_err *err)
{
	pthread_mutex_lock(&t->fetch->nd->lock);
	snprintf(t->fetch->trouble, sizeof(t->fetch->trouble), "%.180s", err->msg);
	favo_noded_changed(t->fetch->nd);
	pthread_mutex_unlock(&t->fetch->nd->lock);
}

/* Wait before the next try, but not when nobody waits for us. */
static void back_off(struct try *t, int *ms)
{
	struct noded *nd = t->fetch->nd;
	int64_t until = favo_now_ms() + *ms;

	*ms = FAVO_MIN(*ms * 2, BACKOFF_LAST_MS);
	pthread_mutex_lock(&nd->lock);
	while (t->fetch->waiters && favo_now_ms() < until)
		favo_noded_wait_until(nd, until);
	pthread_mutex_unlock(&nd->lock);
}

static int fetch_image(struct try *t, struct favo_err *err)
{
	const struct favo_conf *conf = t->fetch->nd->conf;
	const struct favo_http_params params = {
		.base_url = conf->favod_url,
		.munge_socket = *conf->munge_socket ? conf->munge_socket : NULL,
		.timeout_ms = REQUEST_TIMEOUT_MS,
		.max_reply = REPLY_MAX,
	};
	int ret, backoff_ms = BACKOFF_FIRST_MS;

	ret = favo_http_new(&t->http, &params, err);
	if (ret < 0)
		return ret;
	t->progress_ms = favo_now_ms();
	for (;;) {
		ret = fill(t, err);
		if (ret >= 0 || t->final || unwanted(t) ||
		    (!has_riders(t) && favo_now_ms() - t->progress_ms > GIVE_UP_MS))
			return ret;
		favo_log(FAVO_INFO, "image fetch: %s; trying again", err->msg);
		show_trouble(t, err);
		back_off(t, &backoff_ms);
	}
}

static void describe(struct favo_failure *f, int ret, const struct favo_err *err,
		     const struct favo_conf *conf)
{
	const char *remedy = "ask the administrator to look at favod";

	if (ret == -ECONNREFUSED || ret == -ETIMEDOUT || ret == -EHOSTUNREACH) {
		snprintf(f->cause, sizeof(f->cause),
			 "image is not on this node and favod at %.100s does not answer: "
			 "%.200s",
			 conf->favod_url, err->msg);
	} else if (ret == -ENOSPC) {
		snprintf(f->cause, sizeof(f->cause), "no room for the image: %.300s",
			 err->msg);
		remedy = "ask the administrator to free space in the node's image cache";
	} else if (ret == -ENOENT) {
		snprintf(f->cause, sizeof(f->cause), "image cannot be fetched: %.300s",
			 err->msg);
		remedy = "build or import the image again: favo image ls";
	} else {
		snprintf(f->cause, sizeof(f->cause), "image cannot be fetched: %.300s",
			 err->msg);
	}
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy);
}

void favo_fetch_release(struct fetch *fetch)
{
	/* Off the list, and nobody waits for it. */
	if (fetch->done && !fetch->waiters)
		free(fetch);
}

/*
 * Put a new image on the disk for good and make room behind it, when the
 * VMs that waited for it are up: they should not wait for the disk as well.
 */
static void settle(struct noded *nd, const struct favo_digest *id,
		   struct peers_session *peers)
{
	struct favo_err err = {0};
	int ret;

	favo_peers_serve(peers, SETTLE_MS);
	ret = favo_cache_settle(nd->cache, id, &err);
	if (ret < 0 && ret != -ENOENT)
		favo_log(FAVO_WARN, "%s", err.msg);
	pthread_mutex_lock(&nd->cache_lock);
	(void)favo_cache_evict(nd->cache, nd->conf->cache_bytes, false, NULL);
	pthread_mutex_unlock(&nd->cache_lock);
}

/* How fast images come here, for the choice of lazy starts; with the lock held. */
static void note_rate(struct noded *nd, const struct try *t)
{
	const struct favo_fetch_progress *p = &t->fetch->progress;
	uint64_t ms = (uint64_t)(favo_now_ms() - t->start_ms) + 1;

	if (!t->fetch->lazy && p->done - p->reused > RATE_BYTES)
		nd->fetch_rate = (p->done - p->reused) * 1000 / ms;
}

static void *fetch_thread(void *arg)
{
	struct fetch *fetch = arg;
	struct noded *nd = fetch->nd;
	struct try t = {.fetch = fetch, .start_ms = favo_now_ms()};
	struct favo_err err = {0};
	struct favo_digest id;
	struct fetch **p;
	int ret;

	ret = fetch_image(&t, &err);
	favo_peers_complete(t.peers);
	favo_fetch_free(t.fill);
	favo_http_free(t.http);
	id = fetch->id;
	pthread_mutex_lock(&nd->lock);
	if (ret < 0)
		describe(&fetch->failure, ret, &err, nd->conf);
	else
		note_rate(nd, &t);
	for (p = &nd->fetches; *p != fetch; p = &(*p)->next)
		;
	*p = fetch->next;
	fetch->done = true;
	favo_noded_changed(nd);
	favo_fetch_release(fetch);
	pthread_mutex_unlock(&nd->lock);
	if (ret >= 0) {
		settle(nd, &id, t.peers);
		if (t.peers)
			favo_peers_serve(t.peers, SERVE_MS);
	}
	favo_peers_end(t.peers);
	return NULL;
}

struct fetch *favo_fetch_join(struct noded *nd, const struct favo_digest *id,
			      struct favo_err *err)
{
	struct fetch *fetch;

	for (fetch = nd->fetches; fetch; fetch = fetch->next) {
		if (favo_digest_equal(&fetch->id, id)) {
			fetch->waiters++;
			return fetch;
		}
	}
	fetch = calloc(1, sizeof(*fetch));
	if (!fetch) {
		favo_fail(err, ENOMEM, "allocate image fetch");
		return NULL;
	}
	fetch->nd = nd;
	fetch->id = *id;
	fetch->waiters = 1;
	fetch->next = nd->fetches;
	nd->fetches = fetch;
	if (favo_noded_thread(fetch_thread, fetch, err) < 0) {
		nd->fetches = fetch->next;
		free(fetch);
		return NULL;
	}
	return fetch;
}

static void job_progress(struct job *job, const struct fetch *fetch)
{
	const struct favo_fetch_progress *p = &fetch->progress;

	if (fetch->trouble[0])
		snprintf(job->detail, sizeof(job->detail), "%.119s", fetch->trouble);
	else if (p->total)
		snprintf(job->detail, sizeof(job->detail), "%llu %% of %llu MiB",
			 (unsigned long long)(p->done * 100 / p->total),
			 (unsigned long long)(p->total >> 20));
	else
		snprintf(job->detail, sizeof(job->detail), "asking favod");
}

/*
 * Wait for the fetch with everybody else. 1: not complete, but a VM can start
 * on it, and the job rides on the fetch now.
 */
static int await_fetch(struct job *job, const struct favo_digest *id,
		       struct favo_failure *f)
{
	struct noded *nd = job->nd;
	struct favo_err err = {0};
	struct fetch *fetch;
	int ret = 0;

	pthread_mutex_lock(&nd->lock);
	fetch = favo_fetch_join(nd, id, &err);
	while (fetch && !fetch->done && !fetch->bootable && !job->destroy) {
		job_progress(job, fetch);
		favo_noded_wait_until(nd, INT64_MAX);
	}
	job->detail[0] = '\0';
	if (!fetch) {
		snprintf(f->cause, sizeof(f->cause), "%.399s", err.msg);
		ret = -ENOMEM;
	} else if (!fetch->done && fetch->bootable && !job->destroy) {
		fetch->riders++;
		job->ride = favo_steal_ptr(&fetch);
		ret = 1;
	} else if (!fetch->done) {
		ret = -ECANCELED;
	} else if (fetch->failure.cause[0]) {
		*f = fetch->failure;
		ret = -EIO;
	}
	if (fetch) {
		fetch->waiters--;
		favo_noded_changed(nd);
		favo_fetch_release(fetch);
	}
	pthread_mutex_unlock(&nd->lock);
	return ret;
}

/* ---- the cache ---- */

/*
 * Images that were on their way to the disk when the machine went down are
 * checked, which may take minutes: nobody but jobs with an image waits.
 */
static void *cache_thread(void *arg)
{
	struct noded *nd = arg;
	struct favo_cache *cache = NULL;
	int64_t start_ms = favo_now_ms();
	struct favo_err err = {0};
	char path[512];
	int ret;

	snprintf(path, sizeof(path), "%s/cache", nd->conf->state_dir);
	ret = favo_cache_open(&cache, path, &err);
	if (ret < 0)
		favo_log(FAVO_ERROR, "%s; no VM can start", err.msg);
	else
		favo_log(FAVO_INFO, "image cache open after %lld ms",
			 (long long)(favo_now_ms() - start_ms));
	pthread_mutex_lock(&nd->cache_lock);
	pthread_mutex_lock(&nd->lock);
	nd->cache = cache;
	if (ret < 0)
		snprintf(nd->cache_trouble, sizeof(nd->cache_trouble), "%.199s", err.msg);
	favo_noded_changed(nd);
	pthread_mutex_unlock(&nd->lock);
	if (ret >= 0) {
		favo_recover_pins(nd);
		favo_lazy_resume(nd);
	}
	pthread_mutex_unlock(&nd->cache_lock);
	return NULL;
}

int favo_image_start(struct noded *nd, struct favo_err *err)
{
	return favo_noded_thread(cache_thread, nd, err);
}

static int await_cache(struct job *job, struct favo_err *err)
{
	struct noded *nd = job->nd;
	int ret = 0;

	pthread_mutex_lock(&nd->lock);
	while (!nd->cache && !nd->cache_trouble[0] && !job->destroy) {
		snprintf(job->detail, sizeof(job->detail), "checking the image cache");
		favo_noded_wait_until(nd, INT64_MAX);
	}
	job->detail[0] = '\0';
	if (job->destroy)
		ret = -ECANCELED;
	else if (!nd->cache)
		ret = favo_fail(err, EIO, "%s", nd->cache_trouble);
	pthread_mutex_unlock(&nd->lock);
	return ret;
}

int favo_image_get(struct job *job, struct favo_failure *failure)
{
	struct noded *nd = job->nd;
	struct favo_err err = {0};
	struct favo_digest id;
	char holder[32];
	int ret;

	ret = await_cache(job, &err);
	if (ret == -ECANCELED)
		return ret;
	if (ret >= 0)
		ret = favo_digest_parse(&id, job->grant.digest, &err);
	if (ret >= 0) {
		ret = favo_trust_check(nd, &id, &err);
		if (ret < 0) {
			snprintf(failure->cause, sizeof(failure->cause),
				 "image %.80s is not trusted by this node: %.250s",
				 job->grant.image, err.msg);
			snprintf(failure->remedy, sizeof(failure->remedy),
				 "the administrator can sign it: favo image sign");
			return ret;
		}
	}
	snprintf(holder, sizeof(holder), "%u.%u", job->s.job, job->index);
	/* More than once only if it is evicted between its arrival and our pin. */
	for (int i = 0; ret >= 0; i++) {
		pthread_mutex_lock(&nd->cache_lock);
		ret = favo_cache_get(nd->cache, &id, holder, &job->image, &err);
		pthread_mutex_unlock(&nd->cache_lock);
		if (ret != -ENOENT || i == 3)
			break;
		ret = await_fetch(job, &id, failure);
		if (ret < 0)
			return ret;
		if (ret > 0 && favo_lazy_get(job, &id, holder, &err) >= 0)
			return 0;
		ret = 0;
	}
	if (ret < 0)
		snprintf(failure->cause, sizeof(failure->cause), "image %.80s: %.300s",
			 job->grant.image, err.msg);
	return ret;
}
