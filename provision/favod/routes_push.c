// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Routes by which users bring images into the store: what is missing, blobs,
 * the manifest, and at last the name, which alone makes an image of it. All
 * parsing of foreign file formats happened on the user's machine; favod checks
 * digests, sizes, ownership and quota (images/stage.h).
 */
#include "provision/favod/favod.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/util.h"
#include "images/stage.h"

#define MISSING_MAX 4096
#define BATCH_MAX (17u << 20)
#define BLOB_MAX (128u << 20) /* stored bytes of a kernel or an index */
#define MANIFEST_MAX (1u << 20)

/* The caller's own stage; users without images of their own have none. */
static int open_stage(struct favo_favod *d, const struct favo_call *call,
		      struct favo_stage **stage, struct favo_err *err)
{
	char owner[16];

	if (call->uid != 0 && d->conf.image_quota_bytes == 0)
		return favo_fail(err, EACCES,
				 "users of this site have no images of their own");
	snprintf(owner, sizeof(owner), "%u", (unsigned int)call->uid);
	return favo_stage_open(stage, d->store, owner,
			       call->uid == 0 ? UINT64_MAX : d->conf.image_quota_bytes,
			       err);
}

/* Bytes that the caller sent and that are wrong are his error, not favod's. */
static int foreign(int ret, struct favo_err *err)
{
	if (ret != -EBADMSG)
		return ret;
	err->code = EINVAL;
	return -EINVAL;
}

static int parse_name(const char *text, struct favo_image_name *name,
		      struct favo_err *err)
{
	int ret = favo_image_name_parse(name, text, err);

	if (ret == 0 && name->has_digest)
		ret = favo_fail(err, EINVAL, "image name '%.200s': give no digest", text);
	return ret;
}

/* ---- POST /v1/blobs/missing ---- */

static int find_missing(struct favo_stage *stage, const json_t *digests, json_t *missing,
			struct favo_err *err)
{
	struct favo_digest digest;
	const json_t *item;
	size_t i;

	json_array_foreach(digests, i, item)
	{
		const char *text = json_string_value(item);
		int ret = text ? favo_digest_parse(&digest, text, err)
			       : favo_fail(err, EINVAL, "not a text");

		if (ret < 0)
			return favo_wrap(err, ret, "digests[%zu]", i);
		if (!favo_stage_has(stage, &digest))
			json_array_append(missing, (json_t *)item);
	}
	return 0;
}

/* With "name", the question is also whether the caller may call an image so. */
static int check_name(struct favo_favod *d, const struct favo_call *call,
		      const json_t *body, struct favo_err *err)
{
	struct favo_image_name name;
	const char *text;
	int ret;

	if (!json_object_get(body, "name"))
		return 0;
	ret = favo_json_str(&text, body, "name", err);
	if (ret == 0)
		ret = parse_name(text, &name, err);
	return ret < 0 ? ret
		       : favo_policy_may_change(d, call->uid, call->gid, &name, NULL,
						err);
}

static void post_missing(struct favo_favod *d, struct favo_call *call)
{
	static const char *const known[] = {"digests", "name", NULL};
	favo_autostage struct favo_stage *stage = NULL;
	favo_autojson json_t *body = NULL, *missing = json_array();
	struct favo_err err = {0};
	json_t *digests = NULL;
	int ret;

	ret = favo_json_parse(&body, call->body, call->len, &err);
	if (ret == 0)
		ret = favo_json_only(body, known, &err);
	if (ret == 0)
		ret = favo_json_array(&digests, body, "digests", &err);
	if (ret == 0 && json_array_size(digests) > MISSING_MAX)
		ret = favo_fail(&err, EINVAL, "digests: at most %d can be asked for",
				MISSING_MAX);
	if (ret == 0)
		ret = check_name(d, call, body, &err);
	if (ret == 0)
		ret = open_stage(d, call, &stage, &err);
	if (ret == 0)
		ret = find_missing(stage, digests, missing, &err);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_pack("{s:O}", "missing", missing));
}

/* ---- PUT /v1/blobs, PUT /v1/blobs/DIGEST ---- */

static void put_blob(struct favo_favod *d, struct favo_call *call)
{
	favo_autostage struct favo_stage *stage = NULL;
	struct favo_err err = {0};
	struct favo_digest digest;
	int ret = favo_digest_parse(&digest, call->tail, &err);

	if (ret == 0)
		ret = open_stage(d, call, &stage, &err);
	if (ret == 0)
		ret = foreign(favo_stage_put(stage, &digest, call->body, call->len, &err),
			      &err);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_CREATED, json_pack("{s:i}", "blobs", 1));
}

/* The form of the answer of POST /v1/blobs: length (u32le) and bytes, repeated. */
static int put_all(struct favo_stage *stage, const char *body, size_t len, int *count,
		   struct favo_err *err)
{
	const unsigned char *p = (const unsigned char *)body;
	size_t at = 0, size;
	int ret;

	while (at < len) {
		if (len - at < 4)
			return favo_fail(err, EINVAL, "blob %d is cut short", *count);
		size = (size_t)p[at] | (size_t)p[at + 1] << 8 | (size_t)p[at + 2] << 16 |
		       (size_t)p[at + 3] << 24;
		at += 4;
		if (size > len - at)
			return favo_fail(err, EINVAL, "blob %d is cut short", *count);
		ret = foreign(favo_stage_put(stage, NULL, body + at, size, err), err);
		if (ret < 0)
			return favo_wrap(err, ret, "blob %d", *count);
		at += size;
		*count += 1;
	}
	return 0;
}

static void put_blobs(struct favo_favod *d, struct favo_call *call)
{
	favo_autostage struct favo_stage *stage = NULL;
	struct favo_err err = {0};
	int count = 0, ret = open_stage(d, call, &stage, &err);

	if (ret == 0)
		ret = put_all(stage, call->body, call->len, &count, &err);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_CREATED,
			       json_pack("{s:i}", "blobs", count));
}

/* ---- PUT /v1/manifests/DIGEST ---- */

static void answer_missing(struct favo_call *call, const struct favo_err *err,
			   const struct favo_digest *missing, size_t n)
{
	json_t *list = json_array();
	char text[FAVO_DIGEST_TEXT_SIZE];

	for (size_t i = 0; i < n && i < MISSING_MAX; i++)
		json_array_append_new(list,
				      json_string(favo_digest_format(&missing[i], text)));
	favo_call_json(call, MHD_HTTP_CONFLICT,
		       json_pack("{s:s s:s s:o}", "error", err->msg, "remedy",
				 "PUT them with /v1/blobs first", "missing", list));
}

static void put_manifest(struct favo_favod *d, struct favo_call *call)
{
	favo_autostage struct favo_stage *stage = NULL;
	favo_autofree struct favo_digest *missing = NULL;
	struct favo_err err = {0};
	struct favo_digest id;
	size_t n = 0;
	int ret = favo_digest_parse(&id, call->tail, &err);

	if (ret == 0)
		ret = open_stage(d, call, &stage, &err);
	if (ret == 0)
		ret = foreign(favo_stage_manifest(stage, &id, call->body, call->len,
						  &missing, &n, &err),
			      &err);
	if (ret == -ENODATA)
		answer_missing(call, &err, missing, n);
	else if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_CREATED,
			       json_pack("{s:s}", "digest", call->tail));
}

/* ---- PUT and DELETE /v1/images/NAME ---- */

static int publish(struct favo_favod *d, struct favo_call *call, struct favo_err *err)
{
	static const char *const known[] = {"digest", NULL};
	favo_autostage struct favo_stage *stage = NULL;
	favo_autojson json_t *body = NULL;
	const char *text = NULL;
	struct favo_image_name name;
	struct favo_digest id;
	uint64_t quota = 0;
	int ret;

	if ((ret = favo_json_parse(&body, call->body, call->len, err)) < 0 ||
	    (ret = favo_json_only(body, known, err)) < 0 ||
	    (ret = favo_json_str(&text, body, "digest", err)) < 0 ||
	    (ret = favo_digest_parse(&id, text, err)) < 0 ||
	    (ret = parse_name(call->tail, &name, err)) < 0 ||
	    (ret = favo_policy_may_change(d, call->uid, call->gid, &name, &quota, err)) <
		    0 ||
	    (ret = favo_policy_may_name(d, call->uid, call->gid, &name, &id, err)) < 0 ||
	    (ret = open_stage(d, call, &stage, err)) < 0)
		return ret;
	ret = favo_stage_publish(stage, &id, &name, quota, err);
	if (ret < 0)
		return ret;
	/* The signature takes the store's lock for itself. */
	favo_stage_free(favo_steal_ptr(&stage));
	/* A bounded quota: a user's own name. */
	if (d->image_key && (quota == UINT64_MAX || d->conf.image_sign_users))
		ret = favo_store_sign(d->store, &id, d->image_key, err);
	if (ret == 0)
		favo_log(FAVO_INFO, "image name=%s:%s digest=%.19s uid=%u", name.name,
			 name.tag, text, (unsigned int)call->uid);
	return ret;
}

static void put_image(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};

	if (publish(d, call, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_CREATED,
			       json_pack("{s:s}", "name", call->tail));
}

static void delete_image(struct favo_favod *d, struct favo_call *call)
{
	struct favo_image_name name;
	struct favo_err err = {0};
	int ret = parse_name(call->tail, &name, &err);

	if (ret == 0)
		ret = favo_policy_may_change(d, call->uid, call->gid, &name, NULL, &err);
	if (ret == 0)
		ret = favo_store_untag(d->store, &name, &err);
	if (ret == -ENOENT) {
		favo_image_unknown(d, call, call->tail);
	} else if (ret < 0) {
		favo_call_fail(call, &err);
	} else {
		favo_log(FAVO_INFO, "image removed name=%s:%s uid=%u", name.name,
			 name.tag, (unsigned int)call->uid);
		favo_call_json(call, MHD_HTTP_OK, json_pack("{s:b}", "ok", 1));
	}
}

const struct favo_route favo_push_routes[] = {
	{"POST", "/v1/blobs/missing", 512u << 10, false, post_missing},
	{"PUT", "/v1/blobs", BATCH_MAX, false, put_blobs},
	{"PUT", "/v1/blobs/", BLOB_MAX, false, put_blob},
	{"PUT", "/v1/manifests/", MANIFEST_MAX, false, put_manifest},
	{"PUT", "/v1/images/", 4096, false, put_image},
	{"DELETE", "/v1/images/", 0, false, delete_image},
	{0},
};
