// SPDX-License-Identifier: GPL-2.0-or-later
/* The node database as JSON, for the REST interface; docs/api-favod.md. */
#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/util.h"
#include "provision/favod/nodes_internal.h"

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static void set_text(json_t *obj, const char *key, const char *text)
{
	if (text)
		json_object_set_new(obj, key, json_string(text));
}

static void set_list(json_t *obj, const char *key, char **list)
{
	json_t *array;

	if (!*list)
		return;
	array = json_array();
	for (; *list; list++)
		json_array_append_new(array, json_string(*list));
	json_object_set_new(obj, key, array);
}

static json_t *effective(const struct favo_node *n)
{
	json_t *obj = json_object();

	set_list(obj, "macs", n->macs);
	set_text(obj, "uuid", n->uuid);
	set_list(obj, "addresses", n->addresses);
	set_text(obj, "gateway", n->gateway);
	set_list(obj, "groups", n->groups);
	set_list(obj, "profiles", n->profiles);
	set_text(obj, "console", n->console);
	set_text(obj, "power", n->power);
	set_text(obj, "image", n->image);
	set_text(obj, "kernel_args", n->kernel_args);
	if (json_object_size(n->tags))
		json_object_set(obj, "tags", n->tags);
	return obj;
}

/* The last image looked up: neighbours in a list mostly have the same. */
struct resolved {
	char image[FAVO_IMAGE_NAME_MAX + 80];
	int ret;
	char digest[FAVO_DIGEST_TEXT_SIZE];
	struct favo_err err;
};

static void resolve(struct favo_nodes *nodes, const struct favo_node *node,
		    struct resolved *r)
{
	struct favo_digest id;

	if (node->image && strcmp(node->image, r->image) == 0)
		return;
	memset(r, 0, sizeof(*r));
	r->ret = favo_nodes_wanted(nodes, node, &id, &r->err);
	if (r->ret == 0)
		favo_digest_format(&id, r->digest);
	if (node->image)
		snprintf(r->image, sizeof(r->image), "%s", node->image);
}

/* Would a reboot change what runs? By content: digests are all that is compared. */
static const char *reboot_word(const struct favo_node *node, const struct resolved *r)
{
	if (r->ret < 0)
		return "none";
	if (!node->booted)
		return "unknown";
	return strcmp(node->booted, r->digest) == 0 ? "same" : "change";
}

static json_t *node_json(struct favo_nodes *nodes, const struct favo_node *n,
			 struct resolved *r)
{
	json_t *obj;

	resolve(nodes, n, r);
	obj = json_pack("{s:s s:I s:o s:o s:o s:o s:o s:o s:o s:o s:I s:I s:s}", "name",
			n->name, "revision", (json_int_t)n->revision, "effective",
			effective(n), "wanted",
			text_or_null(r->ret == 0 ? r->digest : NULL), "booted",
			text_or_null(n->booted), "good", text_or_null(n->good), "kernel",
			text_or_null(n->kernel), "phase", text_or_null(n->phase),
			"message", text_or_null(n->message), "boot_id",
			text_or_null(n->boot_id), "boot_time", (json_int_t)n->boot_time,
			"reported", (json_int_t)n->reported, "reboot", reboot_word(n, r));
	if (obj && r->ret < 0 && n->image)
		json_object_set_new(obj, "fault", json_string(r->err.msg));
	return obj;
}

/* The definition as it was given, without the profiles. */
static int add_definition(struct favo_nodes *nodes, json_t *obj, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	const char *name = json_string_value(json_object_get(obj, "name"));
	int ret = favo_nodes_query(
		nodes, &stmt, "SELECT def FROM definitions WHERE kind = 0 AND name = ?1",
		err, "s", name);

	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 1)
		json_object_set_new(obj, "definition",
				    json_loads(favo_nodes_text(stmt, 0), 0, NULL));
	return FAVO_MIN(ret, 0);
}

int favo_nodes_json(struct favo_nodes *nodes, const char *name, json_t **out,
		    struct favo_err *err)
{
	favo_autonode struct favo_node *node = NULL;
	favo_autofree struct resolved *r = calloc(1, sizeof(*r));
	favo_autojson json_t *obj = NULL;
	int ret = favo_nodes_get(nodes, name, &node, err);

	if (ret < 0)
		return ret;
	if (r)
		obj = node_json(nodes, node, r);
	if (!obj)
		return favo_fail(err, ENOMEM, "node %s: %m", name);
	ret = add_definition(nodes, obj, err);
	if (ret == 0)
		*out = favo_steal_ptr(&obj);
	return ret;
}

struct collect {
	struct favo_nodes *nodes;
	json_t *list;
	struct resolved last;
};

static int collect_one(void *user, const struct favo_node *node)
{
	struct collect *c = user;

	return json_array_append_new(c->list, node_json(c->nodes, node, &c->last)) < 0
		       ? -ENOMEM
		       : 0;
}

int favo_nodes_json_all(struct favo_nodes *nodes, json_t **out, struct favo_err *err)
{
	favo_autofree struct collect *c = calloc(1, sizeof(*c));
	favo_autojson json_t *list = json_array();
	json_t *one;
	size_t i;
	int ret;

	if (!c || !list)
		return favo_fail(err, ENOMEM, "nodes: %m");
	c->nodes = nodes;
	c->list = list;
	ret = favo_nodes_list(nodes, collect_one, c, err);
	json_array_foreach(list, i, one)
	{
		if (ret == 0)
			ret = add_definition(nodes, one, err);
	}
	if (ret == 0)
		*out = favo_steal_ptr(&list);
	return ret;
}

int favo_nodes_profiles(struct favo_nodes *nodes, json_t **out, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autojson json_t *all = json_object();
	int ret = favo_nodes_query(
		nodes, &stmt,
		"SELECT name, def, revision FROM definitions WHERE kind = 1", err, "");

	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1) {
		json_object_set_new(
			all, favo_nodes_text(stmt, 0),
			json_pack("{s:o s:I}", "definition",
				  json_loads(favo_nodes_text(stmt, 1), 0, NULL),
				  "revision", (json_int_t)sqlite3_column_int64(stmt, 2)));
		ret = 0;
	}
	if (ret == 0)
		*out = favo_steal_ptr(&all);
	return ret;
}

int favo_nodes_unknown(struct favo_nodes *nodes, json_t **out, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autojson json_t *list = json_array();
	int ret = favo_nodes_query(nodes, &stmt,
				   "SELECT mac, uuid, address, arch, first, last FROM "
				   "unknown ORDER BY last DESC, mac",
				   err, "");

	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1) {
		json_array_append_new(
			list, json_pack("{s:s s:o s:o s:o s:I s:I}", "mac",
					favo_nodes_text(stmt, 0), "uuid",
					text_or_null(favo_nodes_text(stmt, 1)), "address",
					text_or_null(favo_nodes_text(stmt, 2)), "arch",
					text_or_null(favo_nodes_text(stmt, 3)), "first",
					(json_int_t)sqlite3_column_int64(stmt, 4), "last",
					(json_int_t)sqlite3_column_int64(stmt, 5)));
		ret = 0;
	}
	if (ret == 0)
		*out = favo_steal_ptr(&list);
	return ret;
}
