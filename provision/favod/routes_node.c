// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Routes of the site's nodes: their definitions, and what they report. What
 * runs on them as virtual machines is in the registry (routes_cluster.c).
 */
#include "config.h"
#include "provision/favod/favod.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"

#define CHANGE_MAX (16u << 20)
#define REPORT_MAX (1u << 20)

static bool may_write(struct favo_favod *d, struct favo_call *call)
{
	if (favo_policy_is_node_admin(d, call->uid, call->gid))
		return true;
	favo_call_error(call, MHD_HTTP_FORBIDDEN,
			"root and the users of node_admins in favo.conf may", NULL,
			"uid %u may not change nodes", (unsigned int)call->uid);
	return false;
}

/* BMC passwords and the like are not for everybody who may see the nodes. */
static void hide_secrets(json_t *node)
{
	static const char *const keys[] = {"power", "kernel_args"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(keys); i++) {
		json_object_del(json_object_get(node, "definition"), keys[i]);
		json_object_del(json_object_get(node, "effective"), keys[i]);
	}
}

/* ---- lists ---- */

/* What the registry has on a node goes into the node; the others come behind. */
static void join(json_t *list, json_t *reported)
{
	favo_autojson json_t *by_name = json_object();
	json_t *one, *node;
	size_t i;

	json_array_foreach(list, i, one)
	{
		json_object_set(by_name, json_string_value(json_object_get(one, "name")),
				one);
	}
	json_array_foreach(reported, i, one)
	{
		node = json_object_get(by_name,
				       json_string_value(json_object_get(one, "name")));
		if (node)
			json_object_update(node, one);
		else
			json_array_append(list, one);
	}
}

static void list_nodes(struct favo_favod *d, struct favo_call *call)
{
	bool admin = favo_policy_is_node_admin(d, call->uid, call->gid);
	favo_autojson json_t *nodes = NULL, *reported = NULL, *reply = NULL;
	json_t *profiles = NULL, *unknown = NULL, *node;
	struct favo_err err = {0};
	size_t i;
	int ret = favo_nodes_json_all(d->nodes, &nodes, &err);

	if (ret == 0)
		ret = favo_registry_nodes(d->registry, &reported, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	join(nodes, reported);
	json_array_foreach(nodes, i, node)
	{
		favo_node_health_add(d->health,
				     json_string_value(json_object_get(node, "name")),
				     node);
		if (!admin)
			hide_secrets(node);
	}
	reply = json_pack("{s:I s:O}", "now", (json_int_t)time(NULL), "nodes", nodes);
	if (admin) {
		ret = favo_nodes_profiles(d->nodes, &profiles, &err);
		if (ret == 0)
			ret = favo_nodes_unknown(d->nodes, &unknown, &err);
		json_object_set_new(reply, "profiles", profiles);
		json_object_set_new(reply, "unknown", unknown);
	}
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_incref(reply));
}

static void show_node(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	json_t *node = NULL;

	if (favo_nodes_json(d->nodes, call->tail, &node, &err) < 0) {
		favo_call_fail(call, &err);
		return;
	}
	favo_node_health_add(d->health, call->tail, node);
	if (!favo_policy_is_node_admin(d, call->uid, call->gid))
		hide_secrets(node);
	favo_call_json(call, MHD_HTTP_OK, node);
}

/* ---- changes ---- */

static void change(struct favo_favod *d, struct favo_call *call, const json_t *body)
{
	struct favo_err err = {0};
	int64_t revision = 0;

	if (favo_nodes_change(d->nodes, body, &revision, &err) < 0) {
		favo_call_fail(call, &err);
		return;
	}
	favo_log(FAVO_INFO, "nodes changed by uid=%u revision=%lld%s",
		 (unsigned int)call->uid, (long long)revision,
		 json_is_true(json_object_get(body, "dry_run")) ? " (dry run)" : "");
	favo_call_json(call, MHD_HTTP_OK,
		       json_pack("{s:I}", "revision", (json_int_t)revision));
}

static void post_change(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *body = NULL;
	struct favo_err err = {0};

	if (!may_write(d, call))
		return;
	if (favo_json_parse(&body, call->body, call->len, &err) < 0)
		favo_call_fail(call, &err);
	else
		change(d, call, body);
}

static void put_node(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *def = NULL, *body = NULL;
	struct favo_err err = {0};

	if (!may_write(d, call))
		return;
	if (favo_json_parse(&def, call->body, call->len, &err) < 0) {
		favo_call_fail(call, &err);
		return;
	}
	body = json_pack("{s:{s:{s:O}}}", "put", "nodes", call->tail, def);
	if (body)
		change(d, call, body);
	else
		favo_call_error(call, MHD_HTTP_BAD_REQUEST, NULL, NULL,
				"the node's name is not UTF-8 text");
}

static void delete_node(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *body = NULL;

	if (!may_write(d, call))
		return;
	body = json_pack("{s:{s:[s]}}", "delete", "nodes", call->tail);
	if (body)
		change(d, call, body);
	else
		favo_call_error(call, MHD_HTTP_BAD_REQUEST, NULL, NULL,
				"the node's name is not UTF-8 text");
}

/* ---- reports ---- */

static int optional_text(const char **out, const json_t *body, const char *key,
			 struct favo_err *err)
{
	*out = NULL;
	return json_object_get(body, key) ? favo_json_str(out, body, key, err) : 0;
}

/* The node's word on its health, once the rest of its report was taken. */
static int put_health(struct favo_favod *d, const char *node, const json_t *body,
		      struct favo_err *err)
{
	json_t *checks = NULL;
	uint64_t node_ms = 0;
	int ret = 0;

	if (json_object_get(body, "checks"))
		ret = favo_json_array(&checks, body, "checks", err);
	if (ret == 0 && json_object_get(body, "time_ms"))
		ret = favo_json_u64(&node_ms, body, "time_ms", 0, INT64_MAX, err);
	if (ret == 0)
		ret = favo_node_health_put(d->health, node, checks, (int64_t)node_ms,
					   favo_realtime_ns() / 1000000, err);
	return ret;
}

/* What it runs as virtual machines: from a running node agent. */
static int put_vms(struct favo_favod *d, const char *node, const json_t *body,
		   struct favo_err *err)
{
	const char *version;
	json_t *vms;
	int ret = favo_json_str(&version, body, "version", err);

	if (ret == 0)
		ret = favo_json_array(&vms, body, "vms", err);
	if (ret == 0)
		ret = favo_registry_report(d->registry, node, version, vms, time(NULL),
					   err);
	return ret == 0 ? put_health(d, node, body, err) : ret;
}

/* What it runs as a node. One that is not in the database says so in vain. */
static int put_state(struct favo_favod *d, const char *node, const json_t *body,
		     struct favo_err *err)
{
	struct favo_node_report report = {0};
	uint64_t boot_time = 0;
	int ret = optional_text(&report.digest, body, "digest", err);

	if (ret == 0)
		ret = optional_text(&report.kernel, body, "kernel", err);
	if (ret == 0)
		ret = optional_text(&report.phase, body, "phase", err);
	if (ret == 0)
		ret = optional_text(&report.message, body, "message", err);
	if (ret == 0)
		ret = optional_text(&report.boot_id, body, "boot_id", err);
	if (ret == 0 && json_object_get(body, "boot_time"))
		ret = favo_json_u64(&boot_time, body, "boot_time", 0, INT64_MAX, err);
	report.boot_time = (int64_t)boot_time;
	if (ret == 0)
		ret = favo_nodes_report(d->nodes, node, &report, time(NULL), err);
	return ret;
}

static void post_report(struct favo_favod *d, struct favo_call *call)
{
	const char *slash = strchr(call->tail, '/');
	favo_autofree char *node = strndup(call->tail, strcspn(call->tail, "/"));
	favo_autojson json_t *body = NULL;
	struct favo_err err = {0};
	int ret;

	if (!slash || strcmp(slash, "/report") != 0 || !node) {
		favo_call_error(call, MHD_HTTP_NOT_FOUND, NULL, NULL,
				"favod has no path /v1/nodes/%.100s", call->tail);
		return;
	}
	if (call->uid != 0) {
		favo_call_error(call, MHD_HTTP_FORBIDDEN, NULL, NULL,
				"only root may report for a node, not uid %u",
				(unsigned int)call->uid);
		return;
	}
	if (!favo_is_name(node, "-_.", 253)) {
		favo_call_error(call, MHD_HTTP_BAD_REQUEST, NULL, NULL,
				"\"%.100s\" is no name of a node", node);
		return;
	}
	ret = favo_json_parse(&body, call->body, call->len, &err);
	if (ret == 0 && json_object_get(body, "vms"))
		ret = put_vms(d, node, body, &err);
	if (ret == 0) {
		ret = put_state(d, node, body, &err);
		if (ret == -ENOENT && json_object_get(body, "vms"))
			ret = 0;
	}
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_pack("{s:b}", "ok", 1));
}

const struct favo_route favo_node_routes[] = {
	{"GET", "/v1/nodes", 0, false, list_nodes},
	{"POST", "/v1/nodes", CHANGE_MAX, false, post_change},
	{"GET", "/v1/nodes/", 0, false, show_node},
	{"PUT", "/v1/nodes/", 64u << 10, false, put_node},
	{"DELETE", "/v1/nodes/", 0, false, delete_node},
	{"POST", "/v1/nodes/", REPORT_MAX, false, post_report},
	{0},
};
