// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The image into the cache: manifest and signature first, then what favod's
 * source and other nodes give, then the rest by plain requests. Nothing counts
 * before its digest was checked (images/cache_fetch.c); an image that nobody
 * trusted has signed is not even begun.
 */
#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/sign.h"
#include "netboot/initramfs/netinit.h"

#define BATCH 64 /* 16 MiB at most */
#define REPLY_MAX ((size_t)600 << 20)
#define SHOW_MS 2000

static int check_signature(const struct favo_net_config *c,
			   const struct favo_web_reply *manifest, struct favo_err *err)
{
	favo_autosignkeys struct favo_sign_keys *keys = NULL;
	struct favo_web_reply sig = {0};
	int ret;

	if (!c->trust_signed)
		return 0;
	ret = favo_sign_keys_load(&keys, FAVO_NET_KEYS, err);
	if (ret == 0)
		ret = favo_net_ask(c, "GET", "signature", NULL, 0, FAVO_SIGN_FILE_MAX,
				   &sig, err);
	if (ret == 0)
		ret = favo_sign_verify(keys, sig.body, sig.len, manifest->body,
				       manifest->len, NULL, err);
	free(sig.body);
	return ret < 0 ? favo_wrap(err, ret, "image %s is not trusted", c->image_name)
		       : 0;
}

static int begin(const struct favo_net_config *c, struct favo_cache *cache,
		 struct favo_fetch **out, struct favo_err *err)
{
	struct favo_web_reply manifest = {0};
	int ret = favo_net_ask(c, "GET", "manifest", NULL, 0, FAVO_MANIFEST_MAX,
			       &manifest, err);

	if (ret == 0)
		ret = check_signature(c, &manifest, err);
	if (ret == 0)
		ret = favo_fetch_begin(out, cache, &c->image, manifest.body, manifest.len,
				       err);
	free(manifest.body);
	return ret;
}

/* {"digests": [...]} */
static char *format_wish(const struct favo_digest *want, int n)
{
	favo_autojson json_t *obj = json_object();
	char text[FAVO_DIGEST_TEXT_SIZE];
	json_t *list = json_array();

	for (int i = 0; i < n; i++)
		json_array_append_new(list,
				      json_string(favo_digest_format(&want[i], text)));
	json_object_set_new(obj, "digests", list);
	return json_dumps(obj, JSON_COMPACT);
}

/* u32le length and bytes for each digest, in the order asked. */
static int put_blobs(struct favo_fetch *fetch, const struct favo_digest *want, int n,
		     const struct favo_web_reply *reply, struct favo_err *err)
{
	const unsigned char *p = (const unsigned char *)reply->body;
	size_t left = reply->len;

	for (int i = 0; i < n; i++) {
		size_t size;
		int ret;

		if (left < 4)
			return favo_fail(err, EBADMSG, "favod's answer is cut short");
		size = (size_t)p[0] | (size_t)p[1] << 8 | (size_t)p[2] << 16 |
		       (size_t)p[3] << 24;
		p += 4;
		left -= 4;
		if (size > left)
			return favo_fail(err, EBADMSG, "favod's answer is cut short");
		ret = favo_fetch_put(fetch, &want[i], p, size, err);
		if (ret < 0)
			return ret;
		p += size;
		left -= size;
	}
	return 0;
}

static void show(const struct favo_net_config *c, struct favo_fetch *fetch,
		 int64_t *shown_ms)
{
	struct favo_fetch_progress now;
	char done[32], total[32], text[80];

	if (favo_now_ms() - *shown_ms < SHOW_MS)
		return;
	*shown_ms = favo_now_ms();
	favo_fetch_progress(fetch, &now);
	snprintf(text, sizeof(text), "%s of %s",
		 favo_format_size(done, sizeof(done), now.done),
		 favo_format_size(total, sizeof(total), now.total));
	favo_net_report(c, "fetch", text);
}

static int fill(const struct favo_net_config *c, struct favo_fetch *fetch,
		struct favo_err *err)
{
	struct favo_digest want[BATCH];
	int64_t shown_ms = favo_now_ms();
	int ret = 0, n;

	favo_fetch_retry(fetch);
	while (ret == 0 && (n = favo_fetch_missing(fetch, want, BATCH)) > 0) {
		favo_autofree char *wish = format_wish(want, n);
		struct favo_web_reply reply = {0};

		if (!wish)
			return favo_fail(err, ENOMEM, "out of memory");
		ret = favo_net_ask(c, "POST", "blobs", wish, strlen(wish), REPLY_MAX,
				   &reply, err);
		if (ret == 0)
			ret = put_blobs(fetch, want, n, &reply, err);
		free(reply.body);
		show(c, fetch, &shown_ms);
	}
	return ret;
}

int favo_net_fetch(const struct favo_net_config *c, struct favo_cache *cache,
		   struct favo_err *err)
{
	favo_autofetch struct favo_fetch *fetch = NULL;
	int ret = begin(c, cache, &fetch, err);

	if (ret == -EEXIST)
		return 0;
	if (ret == 0 && c->peer_port)
		ret = favo_net_fetch_peers(c, fetch, err);
	if (ret == 0)
		ret = fill(c, fetch, err);
	return ret < 0 ? ret : favo_fetch_commit(fetch, err);
}
