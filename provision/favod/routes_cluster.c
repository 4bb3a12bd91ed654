// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Routes of virtual clusters: grants for users, and what runs where. Nodes
 * report it (routes_node.c).
 */
#include "config.h"
#include "provision/favod/favod.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"

static void get_version(struct favo_favod *d, struct favo_call *call)
{
	favo_call_json(call, MHD_HTTP_OK,
		       json_pack("{s:s s:s s:I}", "program", "favod", "version",
				 PACKAGE_VERSION, "started", (json_int_t)d->started));
}

static int fill_random(char *hex, size_t bytes, struct favo_err *err)
{
	unsigned char raw[32];

	if (getrandom(raw, bytes, 0) != (ssize_t)bytes)
		return favo_fail(err, EIO, "getrandom: %m");
	favo_hex_encode(hex, raw, bytes);
	return 0;
}

static int fill_user(struct favo_grant *g, uid_t uid, gid_t gid, struct favo_err *err)
{
	g->uid = uid;
	g->gid = gid;
	return favo_policy_user(uid, g->user, sizeof(g->user), err);
}

/* Shape of the cluster out of the request's body. */
static int fill_shape(struct favo_grant *g, const json_t *body, struct favo_err *err)
{
	static const char *const known[] = {"image",	"cpus",	   "mem_mb",
					    "per_node", "network", NULL};
	const char *network;
	uint64_t cpus, per_node;
	int ret = favo_json_only(body, known, err);

	if (ret == 0)
		ret = favo_json_u64(&cpus, body, "cpus", 0, 4096, err);
	if (ret == 0)
		ret = favo_json_u64(&g->mem_mb, body, "mem_mb", 0, UINT64_C(1) << 32,
				    err);
	if (ret == 0)
		ret = favo_json_u64(&per_node, body, "per_node", 1, 256, err);
	if (ret == 0)
		ret = favo_json_str(&network, body, "network", err);
	if (ret < 0)
		return ret;
	if (strlen(network) >= sizeof(g->network))
		return favo_fail(err, EINVAL,
				 "network \"%.40s\" is none of private, none", network);
	snprintf(g->network, sizeof(g->network), "%s", network);
	g->cpus = (uint32_t)cpus;
	g->per_node = (uint32_t)per_node;
	return 0;
}

/* Pin the image: what a tag means later does not change this job. */
static int fill_image(struct favo_grant *g, struct favo_favod *d, const char *text,
		      struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_image_name name;
	struct favo_digest id;
	int ret, n;

	ret = favo_image_name_parse(&name, text, err);
	if (ret == 0)
		ret = favo_store_resolve(d->store, text, &id, err);
	if (ret == 0) {
		ret = favo_store_manifest(d->store, &id, &m, err);
		if (ret < 0) {
			/* the name is there, so it is the store that is damaged */
			if (err && ret == -ENOENT)
				err->code = EIO;
			return ret == -ENOENT ? -EIO : ret;
		}
	}
	if (ret < 0)
		return ret;
	n = snprintf(g->image, sizeof(g->image), "%s:%s", name.name, name.tag);
	if (n < 0 || (size_t)n >= sizeof(g->image))
		return favo_fail(err, EINVAL, "image name %.60s... is too long", text);
	favo_digest_format(&id, g->digest);
	return 0;
}

static int make_grant(struct favo_favod *d, struct favo_call *call, const json_t *body,
		      const char *image, struct favo_grant *g, char **text,
		      struct favo_err *err)
{
	int ret = fill_shape(g, body, err);

	if (ret == 0)
		ret = fill_user(g, call->uid, call->gid, err);
	if (ret == 0)
		ret = fill_image(g, d, image, err);
	if (ret == 0)
		ret = favo_policy_may_run(d, g, err);
	if (ret == 0)
		ret = fill_random(g->id, 8, err);
	if (ret == 0)
		ret = fill_random(g->secret, 32, err);
	g->issued = time(NULL);
	g->expires = g->issued + (int64_t)(d->conf.grant_lifetime_ms / 1000);
	if (ret == 0)
		ret = favo_grant_sign(d->key, g, text, err);
	if (ret == 0)
		ret = favo_registry_add_grant(d->registry, g, err);
	return ret;
}

static void post_grant(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *body = NULL;
	favo_autofree char *text = NULL;
	struct favo_err err = {0};
	struct favo_grant g = {0};
	const char *image = NULL;
	int ret;

	ret = favo_json_parse(&body, call->body, call->len, &err);
	if (ret == 0)
		ret = favo_json_str(&image, body, "image", &err);
	if (ret == 0)
		ret = make_grant(d, call, body, image, &g, &text, &err);
	if (ret == -ENOENT) {
		favo_image_unknown(d, call, image);
		return;
	}
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	favo_log(FAVO_INFO, "grant id=%s uid=%u user=%s image=%s digest=%.19s", g.id,
		 (unsigned int)g.uid, g.user, g.image, g.digest);
	favo_call_json(call, MHD_HTTP_CREATED,
		       json_pack("{s:s s:s s:s s:s s:I}", "grant", text, "id", g.id,
				 "image", g.image, "digest", g.digest, "expires",
				 (json_int_t)g.expires));
}

static void list_vcs(struct favo_favod *d, struct favo_call *call)
{
	const char *all = MHD_lookup_connection_value(call->connection,
						      MHD_GET_ARGUMENT_KIND, "all");
	int64_t uid = call->uid == 0 ? -1 : (int64_t)call->uid;
	struct favo_err err = {0};
	json_t *list = NULL;

	if (favo_registry_vcs(d->registry, uid, all && strcmp(all, "1") == 0, time(NULL),
			      &list, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_pack("{s:o}", "vcs", list));
}

static void show_vc(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	favo_autojson json_t *vc = NULL;
	int64_t owner = -1;
	uint64_t job;
	int ret = favo_parse_u64(&job, call->tail, 1, UINT32_MAX, &err);

	if (ret == 0)
		ret = favo_registry_vc(d->registry, (uint32_t)job, time(NULL), &vc,
				       &owner, &err);
	/* Not telling a stranger's job from none gives away nothing. */
	if (ret == 0 && call->uid != 0 && owner != (int64_t)call->uid)
		ret = favo_fail(&err, ENOENT, "job %" PRIu64 " has no virtual cluster",
				job);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_incref(vc));
}

const struct favo_route favo_cluster_routes[] = {
	{"GET", "/v1/version", 0, false, get_version},
	{"POST", "/v1/grants", 8u << 10, false, post_grant},
	{"GET", "/v1/vcs", 0, false, list_vcs},
	{"GET", "/v1/vcs/", 0, false, show_vc},
	{0},
};
