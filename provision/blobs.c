// SPDX-License-Identifier: GPL-2.0-or-later
/* Many blobs of favod's store in one request; see blobs.h. */
#include "provision/blobs.h"

#include <errno.h>

#include "common/json.h"
#include "common/util.h"

static json_t *digests_json(const struct favo_digest *want, int n)
{
	json_t *list = json_array();
	char text[FAVO_DIGEST_TEXT_SIZE];

	for (int i = 0; i < n; i++)
		json_array_append_new(list,
				      json_string(favo_digest_format(&want[i], text)));
	return json_pack("{s:o}", "digests", list);
}

static int check_status(const struct favo_http_reply *reply, struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	const char *text = NULL;
	int code = EIO;

	if (reply->status == 200)
		return 0;
	if (favo_json_parse(&obj, reply->body, reply->len, NULL) == 0)
		text = json_string_value(json_object_get(obj, "error"));
	if (reply->status == 404)
		code = ENOENT;
	else if (reply->status == 401 || reply->status == 403)
		code = EACCES;
	else if (reply->status >= 400 && reply->status < 500 && reply->status != 429)
		code = EINVAL;
	return favo_fail(err, code, "favod answers %ld: %s", reply->status,
			 text ? text : "no reason given");
}

int favo_blobs_get(struct favo_http *http, const struct favo_digest *want, int n,
		   struct favo_http_reply *reply, struct favo_err *err)
{
	favo_autojson json_t *ask = digests_json(want, n);
	favo_autofree char *text = NULL;
	size_t len = 0;
	int ret = favo_json_canonical(&text, &len, ask, err);

	if (ret >= 0)
		ret = favo_http_request(http, "POST", "/v1/blobs", text, len, reply, err);
	return ret < 0 ? ret : check_status(reply, err);
}

int favo_blobs_each(const struct favo_digest *want, int n, const void *body, size_t len,
		    favo_blobs_fn *fn, void *user, struct favo_err *err)
{
	const unsigned char *bytes = body;
	size_t at = 0;

	for (int i = 0; i < n; i++) {
		const unsigned char *p = bytes + at;
		size_t size;
		int ret;

		if (len - at < 4)
			return favo_fail(err, EBADMSG, "favod's answer is cut short");
		size = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 |
		       (size_t)p[3] << 24;
		at += 4;
		if (size > len - at)
			return favo_fail(err, EBADMSG, "favod's answer is cut short");
		ret = fn(&want[i], bytes + at, size, user, err);
		if (ret < 0)
			return ret;
		at += size;
	}
	return 0;
}
