// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Push of an image over favod's REST interface; see push.h. Small blobs go in
 * batches of 8 MiB, since each request costs a MUNGE credential on both sides.
 */
#include "provision/push.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"

#define ASK_MAX 4096 /* digests in one question */
#define BATCH_SIZE (8u << 20)
#define BUSY_TRIES 60
#define ROUNDS 3 /* gc may take what nobody named yet */

struct push {
	struct favo_http *http;
	struct favo_store *from;
	const char *name;
	favo_progress_fn *progress;
	void *user;
	uint64_t done, total; /* stored bytes */
	unsigned char *batch;
	size_t used;
};

/* What favod says against it, as an error. */
static int refuse(const struct favo_http_reply *reply, const char *path,
		  struct favo_err *err)
{
	favo_autojson json_t *answer = NULL;
	const char *sentence = NULL, *remedy = NULL;
	int code = reply->status == 403	  ? EACCES
		   : reply->status == 404 ? ENOENT
		   : reply->status == 409 ? EAGAIN
		   : reply->status < 500  ? EINVAL
					  : EIO;

	if (favo_json_parse(&answer, reply->body, reply->len, NULL) < 0 ||
	    favo_json_str(&sentence, answer, "error", NULL) < 0)
		return favo_fail(err, code, "favod answers %s with HTTP %ld", path,
				 reply->status);
	if (favo_json_str(&remedy, answer, "remedy", NULL) < 0)
		return favo_fail(err, code, "%s", sentence);
	return favo_fail(err, code, "%s; %s", sentence, remedy);
}

/* One request; while favod is busy, again. *out may be NULL. */
static int ask(struct push *p, const char *method, const char *path, const void *body,
	       size_t len, json_t **out, struct favo_err *err)
{
	const struct timespec second = {.tv_sec = 1};
	struct favo_http_reply reply = {0};
	int ret;

	for (int i = 0;; i++) {
		ret = favo_http_request(p->http, method, path, body, len, &reply, err);
		if (ret < 0)
			return ret;
		if ((reply.status != 429 && reply.status != 503) || i == BUSY_TRIES)
			break;
		favo_http_reply_fini(&reply);
		nanosleep(&second, NULL);
	}
	if (reply.status >= 400)
		ret = refuse(&reply, path, err);
	else if (out)
		ret = favo_json_parse(out, reply.body, reply.len, err);
	favo_http_reply_fini(&reply);
	return ret;
}

static int ask_json(struct push *p, const char *method, const char *path,
		    const json_t *body, json_t **out, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0;
	int ret = body ? favo_json_canonical(&text, &len, body, err)
		       : favo_fail(err, ENOMEM, "push: out of memory");

	return ret < 0 ? ret : ask(p, method, path, text, len, out, err);
}

/* ---- blobs ---- */

static int flush(struct push *p, struct favo_err *err)
{
	int ret = 0;

	if (p->used)
		ret = ask(p, "PUT", "/v1/blobs", p->batch, p->used, NULL, err);
	p->done += p->used;
	p->used = 0;
	if (ret == 0 && p->progress)
		p->progress("push", FAVO_MIN(p->done, p->total), p->total, p->user);
	return ret;
}

static int send_alone(struct push *p, const struct favo_digest *digest, int fd,
		      size_t size, struct favo_err *err)
{
	char text[FAVO_DIGEST_TEXT_SIZE], path[128];
	favo_autofree void *bytes = malloc(size);
	int ret;

	if (!bytes)
		return favo_fail(err, ENOMEM, "push: out of memory");
	snprintf(path, sizeof(path), "/v1/blobs/%s", favo_digest_format(digest, text));
	ret = favo_read_all(fd, bytes, size, -1, err);
	if (ret == 0)
		ret = ask(p, "PUT", path, bytes, size, NULL, err);
	p->done += size;
	return ret;
}

static int send_blob(struct push *p, const struct favo_digest *digest,
		     struct favo_err *err)
{
	uint64_t size = 0;
	favo_autoclose int fd = favo_store_open_blob(p->from, digest, &size, err);
	unsigned char *at;
	int ret;

	if (fd < 0)
		return favo_wrap(err, fd,
				 "the site's store lacks a blob that is not here either");
	if (size + 4 > BATCH_SIZE)
		return send_alone(p, digest, fd, size, err);
	if (p->used + size + 4 > BATCH_SIZE) {
		ret = flush(p, err);
		if (ret < 0)
			return ret;
	}
	at = p->batch + p->used;
	for (int i = 0; i < 4; i++)
		at[i] = (unsigned char)(size >> (8 * i));
	ret = favo_read_all(fd, at + 4, size, -1, err);
	if (ret == 0)
		p->used += size + 4;
	return ret;
}

/* Ask about n digests; the answer's list is added to missing. */
static int ask_missing(struct push *p, const struct favo_digest *digests, size_t n,
		       json_t *missing, struct favo_err *err)
{
	favo_autojson json_t *list = json_array(), *body = NULL, *reply = NULL;
	char text[FAVO_DIGEST_TEXT_SIZE];
	json_t *some = NULL;
	int ret;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list,
				      json_string(favo_digest_format(&digests[i], text)));
	body = json_pack("{s:O}", "digests", list);
	if (body && p->name)
		json_object_set_new(body, "name", json_string(p->name));
	ret = ask_json(p, "POST", "/v1/blobs/missing", body, &reply, err);
	if (ret == 0)
		ret = favo_json_array(&some, reply, "missing", err);
	if (ret == 0 && json_array_extend(missing, some) < 0)
		ret = favo_fail(err, ENOMEM, "push: out of memory");
	return ret;
}

static int send_missing(struct push *p, const json_t *missing, struct favo_err *err)
{
	struct favo_digest digest;
	const json_t *item;
	size_t i;
	int ret = 0;

	json_array_foreach(missing, i, item)
	{
		favo_autoclose int fd = -1;
		uint64_t size = 0;

		ret = favo_digest_parse(
			&digest, json_is_string(item) ? json_string_value(item) : "",
			err);
		if (ret < 0)
			return favo_wrap(err, ret, "favod's answer");
		fd = favo_store_open_blob(p->from, &digest, &size, NULL);
		p->total += fd < 0 ? 0 : size + 4;
	}
	json_array_foreach(missing, i, item)
	{
		ret = favo_digest_parse(&digest, json_string_value(item), err);
		if (ret == 0)
			ret = send_blob(p, &digest, err);
		if (ret < 0)
			return ret;
	}
	return flush(p, err);
}

static int send_blobs(struct push *p, const struct favo_digest *blobs, size_t n,
		      struct favo_err *err)
{
	favo_autojson json_t *missing = json_array();
	int ret = missing ? 0 : favo_fail(err, ENOMEM, "push: out of memory");

	for (size_t i = 0; ret == 0 && i < n; i += ASK_MAX)
		ret = ask_missing(p, blobs + i, FAVO_MIN((size_t)ASK_MAX, n - i), missing,
				  err);
	return ret < 0 ? ret : send_missing(p, missing, err);
}

/* ---- the image ---- */

static int send_image(struct push *p, const struct favo_digest *id, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree struct favo_digest *blobs = NULL;
	favo_autofree char *text = NULL, *path = NULL, *name = NULL;
	favo_autojson json_t *body = NULL;
	char digest[FAVO_DIGEST_TEXT_SIZE];
	size_t n = 0, len = 0;
	int ret;

	favo_digest_format(id, digest);
	path = favo_asprintf("/v1/manifests/%s", digest);
	name = favo_asprintf("/v1/images/%s", p->name);
	body = json_pack("{s:s}", "digest", digest);
	p->batch = malloc(BATCH_SIZE);
	if (!path || !name || !body || !p->batch)
		return favo_fail(err, ENOMEM, "push: out of memory");
	if ((ret = favo_store_manifest(p->from, id, &m, err)) < 0 ||
	    (ret = favo_manifest_format(m->json, &text, &len, err)) < 0 ||
	    (ret = favo_store_blobs(p->from, id, &blobs, &n, err)) < 0)
		return ret;
	for (int i = 0;; i++) {
		ret = send_blobs(p, blobs, n, err);
		if (ret == 0)
			ret = ask(p, "PUT", path, text, len, NULL, err);
		if (ret == 0)
			ret = ask_json(p, "PUT", name, body, NULL, err);
		if ((ret != -EAGAIN && ret != -ENOENT) || i == ROUNDS)
			return ret;
	}
}

int favo_push_allowed(struct favo_http *http, const char *name, struct favo_err *err)
{
	struct push p = {.http = http, .name = name};
	favo_autojson json_t *missing = json_array();

	return ask_missing(&p, NULL, 0, missing, err);
}

int favo_push_image(struct favo_http *http, struct favo_store *from,
		    const struct favo_digest *id, const char *name, uint64_t *moved,
		    favo_progress_fn *progress, void *user, struct favo_err *err)
{
	struct push p = {.http = http,
			 .from = from,
			 .name = name,
			 .progress = progress,
			 .user = user};
	int ret = send_image(&p, id, err);

	free(p.batch);
	if (moved)
		*moved = p.done;
	return ret;
}

int favo_push_site_boot(struct favo_http *http, json_t **boot, struct favo_err *err)
{
	return favo_http_json(http, "GET", "/v1/site-boot", NULL, boot, err);
}
