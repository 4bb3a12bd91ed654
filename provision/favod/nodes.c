// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Node database of favod: the file, looking up, what nodes report. Changes of
 * definitions are in nodes_change.c, answers for REST in nodes_json.c.
 *
 * One connection under a mutex, as in the registry. A definition is stored as
 * JSON text; what must be unique has a table of its own.
 */
#include "provision/favod/nodes.h"

#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <string.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/favod/node_def.h"
#include "provision/favod/nodes_internal.h"

#define MESSAGE_MAX 500
#define KERNEL_MAX 200

/* migrations[i] leads from schema i to i + 1. */
static const char *const migrations[] = {
	/* kind: enum favo_def_kind */
	"CREATE TABLE definitions(kind INTEGER NOT NULL, name TEXT NOT NULL,"
	" def TEXT NOT NULL, revision INTEGER NOT NULL, PRIMARY KEY(kind, name))"
	" WITHOUT ROWID;"
	/* what: mac, uuid, address */
	"CREATE TABLE ids(what TEXT NOT NULL, value TEXT NOT NULL, node TEXT NOT NULL,"
	" PRIMARY KEY(what, value)) WITHOUT ROWID;"
	"CREATE INDEX ids_node ON ids(node);"
	"CREATE TABLE states(node TEXT PRIMARY KEY, booted TEXT, good TEXT, kernel TEXT,"
	" phase TEXT, message TEXT, boot_id TEXT, boot_time INTEGER NOT NULL DEFAULT 0,"
	" reported INTEGER NOT NULL DEFAULT 0) WITHOUT ROWID;"
	"CREATE TABLE unknown(mac TEXT PRIMARY KEY, uuid TEXT, address TEXT, arch TEXT,"
	" first INTEGER NOT NULL, last INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE revision(n INTEGER NOT NULL);"
	"INSERT INTO revision VALUES(0);"
	/* spec, and state of the whole: docs/api-favod.md, /v1/rollouts */
	"CREATE TABLE rollouts(id INTEGER PRIMARY KEY AUTOINCREMENT, spec TEXT NOT NULL,"
	" state TEXT NOT NULL, reason TEXT NOT NULL, created INTEGER NOT NULL,"
	" updated INTEGER NOT NULL);"
	"CREATE TABLE rollout_nodes(rollout INTEGER NOT NULL, pos INTEGER NOT NULL,"
	" node TEXT NOT NULL, state TEXT NOT NULL, since INTEGER NOT NULL,"
	" image TEXT, former TEXT, mark TEXT, note TEXT NOT NULL,"
	" PRIMARY KEY(rollout, pos)) WITHOUT ROWID;",
};
#define SCHEMA ((int)FAVO_ARRAY_SIZE(migrations))

#define SELECT_NODE                                                                      \
	"SELECT d.name, d.def, d.revision, s.booted, s.good, s.kernel, s.phase,"         \
	" s.message, s.boot_id, s.boot_time, s.reported FROM definitions d"              \
	" LEFT JOIN states s ON s.node = d.name WHERE d.kind = 0 "

int favo_nodes_db_error(struct favo_nodes *nodes, struct favo_err *err)
{
	return favo_fail(err, sqlite3_errcode(nodes->db) == SQLITE_FULL ? ENOSPC : EIO,
			 "node database: %s", sqlite3_errmsg(nodes->db));
}

static int bind_all(sqlite3_stmt *stmt, const char *types, va_list ap)
{
	int ret = SQLITE_OK;

	for (int i = 0; types[i] && ret == SQLITE_OK; i++) {
		if (types[i] == 's')
			ret = sqlite3_bind_text(stmt, i + 1, va_arg(ap, const char *), -1,
						SQLITE_TRANSIENT);
		else
			ret = sqlite3_bind_int64(stmt, i + 1, va_arg(ap, int64_t));
	}
	return ret;
}

static int prepare(struct favo_nodes *nodes, sqlite3_stmt **stmt, const char *sql,
		   struct favo_err *err, const char *types, va_list ap)
{
	sqlite3_stmt *made = NULL;

	if (sqlite3_prepare_v2(nodes->db, sql, -1, &made, NULL) != SQLITE_OK ||
	    bind_all(made, types, ap) != SQLITE_OK) {
		favo_nodes_db_error(nodes, err);
		sqlite3_finalize(made);
		return err && err->code ? -err->code : -EIO;
	}
	*stmt = made;
	return 0;
}

int favo_nodes_query(struct favo_nodes *nodes, sqlite3_stmt **stmt, const char *sql,
		     struct favo_err *err, const char *types, ...)
{
	va_list ap;
	int ret;

	va_start(ap, types);
	ret = prepare(nodes, stmt, sql, err, types, ap);
	va_end(ap);
	return ret;
}

int favo_nodes_step(struct favo_nodes *nodes, sqlite3_stmt *stmt, struct favo_err *err)
{
	int step = sqlite3_step(stmt);

	if (step == SQLITE_ROW)
		return 1;
	return step == SQLITE_DONE ? 0 : favo_nodes_db_error(nodes, err);
}

int favo_nodes_exec(struct favo_nodes *nodes, const char *sql, struct favo_err *err,
		    const char *types, ...)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	va_list ap;
	int ret;

	va_start(ap, types);
	ret = prepare(nodes, &stmt, sql, err, types, ap);
	va_end(ap);
	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1)
		ret = 0;
	return ret;
}

int favo_nodes_begin(struct favo_nodes *nodes, bool durable, struct favo_err *err)
{
	/* In WAL mode NORMAL leaves out the fsync of each commit. */
	int ret = favo_nodes_exec(
		nodes, durable ? "PRAGMA synchronous=FULL" : "PRAGMA synchronous=NORMAL",
		err, "");

	return ret < 0 ? ret : favo_nodes_exec(nodes, "BEGIN IMMEDIATE", err, "");
}

int favo_nodes_end(struct favo_nodes *nodes, int ret, struct favo_err *err)
{
	if (ret >= 0)
		ret = favo_nodes_exec(nodes, "COMMIT", err, "");
	if (ret < 0)
		favo_nodes_exec(nodes, "ROLLBACK", NULL, "");
	return ret;
}

static int run_script(struct favo_nodes *nodes, const char *sql, struct favo_err *err)
{
	return sqlite3_exec(nodes->db, sql, NULL, NULL, NULL) == SQLITE_OK
		       ? 0
		       : favo_nodes_db_error(nodes, err);
}

static int read_schema(struct favo_nodes *nodes, int *schema, struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	int ret = favo_nodes_query(nodes, &stmt, "PRAGMA user_version", err, "");

	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 1)
		*schema = sqlite3_column_int(stmt, 0);
	return FAVO_MIN(ret, 0);
}

static int migrate(struct favo_nodes *nodes, struct favo_err *err)
{
	int schema = 0;
	int ret = read_schema(nodes, &schema, err);

	if (ret == 0 && schema > SCHEMA)
		return favo_fail(err, EPROTONOSUPPORT,
				 "the node database has schema %d, this favod knows %d: "
				 "it was written by a newer favod",
				 schema, SCHEMA);
	for (; ret == 0 && schema < SCHEMA; schema++) {
		char version[48];

		snprintf(version, sizeof(version), "PRAGMA user_version=%d", schema + 1);
		ret = favo_nodes_begin(nodes, true, err);
		if (ret < 0)
			break;
		ret = run_script(nodes, migrations[schema], err);
		if (ret == 0)
			ret = run_script(nodes, version, err);
		ret = favo_nodes_end(nodes, ret, err);
	}
	return ret;
}

int favo_nodes_open(struct favo_nodes **out, const char *path, struct favo_store *store,
		    struct favo_err *err)
{
	favo_autonodes struct favo_nodes *nodes = calloc(1, sizeof(*nodes));
	int ret;

	if (!nodes)
		return favo_fail(err, ENOMEM, "node database: %m");
	pthread_mutex_init(&nodes->lock, NULL);
	nodes->store = store;
	if (sqlite3_open_v2(path, &nodes->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
				    SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return favo_wrap(err, favo_nodes_db_error(nodes, err), "%s", path);
	sqlite3_busy_timeout(nodes->db, 5000);
	ret = run_script(nodes, "PRAGMA journal_mode=WAL", err);
	if (ret == 0)
		ret = migrate(nodes, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", path);
	*out = favo_steal_ptr(&nodes);
	return 0;
}

void favo_nodes_close(struct favo_nodes *nodes)
{
	if (!nodes)
		return;
	sqlite3_close(nodes->db);
	pthread_mutex_destroy(&nodes->lock);
	free(nodes);
}

void favo_nodes_watch(struct favo_nodes *nodes, enum favo_nodes_place place,
		      favo_nodes_changed_fn *fn, void *user)
{
	nodes->watch[place].fn = fn;
	nodes->watch[place].user = user;
}

void favo_nodes_tell(struct favo_nodes *nodes)
{
	for (int i = 0; i < FAVO_NODES_PLACES; i++)
		if (nodes->watch[i].fn)
			nodes->watch[i].fn(nodes->watch[i].user);
}

/* ---- from rows to nodes ---- */

void favo_node_free(struct favo_node *node)
{
	int saved = errno;

	if (!node)
		return;
	favo_strv_free(node->macs);
	favo_strv_free(node->addresses);
	favo_strv_free(node->groups);
	favo_strv_free(node->profiles);
	json_decref(node->tags);
	free(node->name);
	free(node->uuid);
	free(node->gateway);
	free(node->console);
	free(node->power);
	free(node->image);
	free(node->kernel_args);
	free(node->booted);
	free(node->good);
	free(node->kernel);
	free(node->phase);
	free(node->message);
	free(node->boot_id);
	free(node);
	errno = saved;
}

static char **dup_list(const json_t *list)
{
	size_t n = json_array_size(list);
	char **v = calloc(n + 1, sizeof(*v));

	for (size_t i = 0; v && i < n; i++)
		v[i] = strdup(json_string_value(json_array_get(list, i)));
	return v;
}

static char *dup_text(const char *text)
{
	return text ? strdup(text) : NULL;
}

static char *dup_member(const json_t *def, const char *key)
{
	return dup_text(json_string_value(json_object_get(def, key)));
}

/* Definitions of all profiles by name. */
static int load_profiles(struct favo_nodes *nodes, json_t **out, struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autojson json_t *all = json_object();
	int ret = favo_nodes_query(nodes, &stmt,
				   "SELECT name, def FROM definitions WHERE kind = 1",
				   err, "");

	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1) {
		json_object_set_new(all, favo_nodes_text(stmt, 0),
				    json_loads(favo_nodes_text(stmt, 1), 0, NULL));
		ret = 0;
	}
	if (ret == 0)
		*out = favo_steal_ptr(&all);
	return ret;
}

/* A node's own fields over those of its profiles, in their order. */
static int merge(json_t **out, const json_t *profiles, const char *text,
		 struct favo_err *err)
{
	favo_autojson json_t *own = json_loads(text, 0, NULL);
	favo_autojson json_t *all = json_object();
	const json_t *name;
	size_t i;
	int ret = 0;

	if (!own)
		return favo_fail(err, EIO, "node database: a definition is damaged");
	json_array_foreach(json_object_get(own, "profiles"), i, name)
	{
		const json_t *one = json_object_get(profiles, json_string_value(name));

		if (ret == 0 && one)
			ret = favo_node_def_over(all, one, err);
	}
	if (ret == 0)
		ret = favo_node_def_over(all, own, err);
	if (ret == 0)
		*out = favo_steal_ptr(&all);
	return ret;
}

/* stmt stands on a row of SELECT_NODE. */
static int make_node(struct favo_node **out, sqlite3_stmt *stmt, const json_t *profiles,
		     struct favo_err *err)
{
	favo_autonode struct favo_node *node = calloc(1, sizeof(*node));
	favo_autojson json_t *def = NULL;
	int ret;

	if (!node)
		return favo_fail(err, ENOMEM, "node: %m");
	ret = merge(&def, profiles, favo_nodes_text(stmt, 1), err);
	if (ret < 0)
		return ret;
	node->name = dup_text(favo_nodes_text(stmt, 0));
	node->revision = sqlite3_column_int64(stmt, 2);
	node->macs = dup_list(json_object_get(def, "macs"));
	node->uuid = dup_member(def, "uuid");
	node->addresses = dup_list(json_object_get(def, "addresses"));
	node->gateway = dup_member(def, "gateway");
	node->groups = dup_list(json_object_get(def, "groups"));
	node->profiles = dup_list(json_object_get(def, "profiles"));
	node->console = dup_member(def, "console");
	node->power = dup_member(def, "power");
	node->image = dup_member(def, "image");
	node->kernel_args = dup_member(def, "kernel_args");
	node->tags = json_incref(json_object_get(def, "tags"));
	if (!node->tags)
		node->tags = json_object();
	node->booted = dup_text(favo_nodes_text(stmt, 3));
	node->good = dup_text(favo_nodes_text(stmt, 4));
	node->kernel = dup_text(favo_nodes_text(stmt, 5));
	node->phase = dup_text(favo_nodes_text(stmt, 6));
	node->message = dup_text(favo_nodes_text(stmt, 7));
	node->boot_id = dup_text(favo_nodes_text(stmt, 8));
	node->boot_time = sqlite3_column_int64(stmt, 9);
	node->reported = sqlite3_column_int64(stmt, 10);
	if (!node->name || !node->macs || !node->addresses || !node->groups ||
	    !node->profiles || !node->tags)
		return favo_fail(err, ENOMEM, "node: %m");
	*out = favo_steal_ptr(&node);
	return 0;
}

/* The one node of a query with one text parameter; -ENOENT without words. */
static int find_node(struct favo_nodes *nodes, const char *sql, const char *key,
		     struct favo_node **out, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autojson json_t *profiles = NULL;
	int ret = load_profiles(nodes, &profiles, err);

	if (ret == 0)
		ret = favo_nodes_query(nodes, &stmt, sql, err, "s", key);
	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 0)
		return -ENOENT;
	return ret < 0 ? ret : make_node(out, stmt, profiles, err);
}

int favo_nodes_get(struct favo_nodes *nodes, const char *name, struct favo_node **out,
		   struct favo_err *err)
{
	int ret = find_node(nodes, SELECT_NODE "AND d.name = ?1", name, out, err);

	if (ret == -ENOENT)
		return favo_fail(err, ENOENT, "there is no node %.63s", name);
	return ret;
}

int favo_nodes_by_mac(struct favo_nodes *nodes, const char *mac, struct favo_node **out,
		      struct favo_err *err)
{
	char normal[18];
	int ret = favo_node_mac(normal, mac, err);

	if (ret < 0)
		return ret;
	ret = find_node(nodes,
			SELECT_NODE "AND d.name = (SELECT node FROM ids WHERE"
				    " what = 'mac' AND value = ?1)",
			normal, out, err);
	if (ret == -ENOENT)
		return favo_fail(err, ENOENT, "no node has the MAC address %s", normal);
	return ret;
}

int favo_nodes_by_uuid(struct favo_nodes *nodes, const char *uuid, struct favo_node **out,
		       struct favo_err *err)
{
	char normal[37];
	int ret = favo_node_uuid(normal, uuid, err);

	if (ret < 0)
		return ret;
	ret = find_node(nodes,
			SELECT_NODE "AND d.name = (SELECT node FROM ids WHERE"
				    " what = 'uuid' AND value = ?1)",
			normal, out, err);
	if (ret == -ENOENT)
		return favo_fail(err, ENOENT, "no node has the UUID %s", normal);
	return ret;
}

int favo_nodes_list(struct favo_nodes *nodes, favo_node_fn *fn, void *user,
		    struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autojson json_t *profiles = NULL;
	int ret = load_profiles(nodes, &profiles, err);

	if (ret == 0)
		ret = favo_nodes_query(nodes, &stmt, SELECT_NODE "ORDER BY d.name", err,
				       "");
	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1) {
		favo_autonode struct favo_node *node = NULL;

		ret = make_node(&node, stmt, profiles, err);
		if (ret == 0)
			ret = fn(user, node);
	}
	return ret;
}

int favo_nodes_find_image(struct favo_nodes *nodes, const char *image,
			  struct favo_digest *id, struct favo_err *err)
{
	char *near = NULL;
	int ret;

	if (!nodes->store) {
		memset(id, 0, sizeof(*id));
		return 0;
	}
	ret = favo_store_resolve(nodes->store, image, id, err);
	if (ret != -ENOENT)
		return ret;
	if (favo_store_near(nodes->store, image, &near, 1, NULL) > 0)
		favo_fail(err, ENOENT, "there is no image %.100s; there is %.100s", image,
			  near);
	else
		favo_fail(err, ENOENT,
			  "there is no image %.100s; favo image ls lists them", image);
	free(near);
	return -ENOENT;
}

int favo_nodes_wanted(struct favo_nodes *nodes, const struct favo_node *node,
		      struct favo_digest *id, struct favo_err *err)
{
	if (!node->image)
		return favo_fail(err, ENOENT,
				 "node %s has no image; favo node set %s image=NAME "
				 "gives it one",
				 node->name, node->name);
	return favo_nodes_find_image(nodes, node->image, id, err);
}

/* ---- what nodes say ---- */

static int check_report(const struct favo_node_report *r, struct favo_err *err)
{
	struct favo_digest id;

	if (r->digest && favo_digest_parse(&id, r->digest, err) < 0)
		return -EINVAL;
	if (r->phase) {
		size_t len = strspn(r->phase, "abcdefghijklmnopqrstuvwxyz0123456789-");

		if (!len || r->phase[len] || len > 32)
			return favo_fail(err, EINVAL, "\"%.40s\" is no phase", r->phase);
	}
	if (r->boot_id && !favo_is_name(r->boot_id, "-_.", 64))
		return favo_fail(err, EINVAL, "\"%.70s\" is no boot id", r->boot_id);
	if (r->kernel && !favo_is_name(r->kernel, "-_.+~:", KERNEL_MAX))
		return favo_fail(err, EINVAL, "\"%.70s\" is no release of a kernel",
				 r->kernel);
	if (r->message && strlen(r->message) > MESSAGE_MAX)
		return favo_fail(err, EINVAL, "the message has more than %d bytes",
				 MESSAGE_MAX);
	return 0;
}

int favo_nodes_report(struct favo_nodes *nodes, const char *name,
		      const struct favo_node_report *r, int64_t now, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *known = NULL;
	int ret = check_report(r, err);

	if (ret == 0)
		ret = favo_nodes_query(nodes, &known,
				       "SELECT 1 FROM definitions WHERE kind = 0 AND "
				       "name = ?1",
				       err, "s", name);
	if (ret == 0)
		ret = favo_nodes_step(nodes, known, err);
	if (ret == 0)
		return favo_fail(err, ENOENT, "there is no node %.63s", name);
	sqlite3_finalize(favo_steal_ptr(&known));
	if (ret > 0)
		ret = favo_nodes_begin(nodes, false, err);
	if (ret < 0)
		return ret;
	ret = favo_nodes_exec(
		nodes,
		"INSERT INTO states(node, booted, kernel, phase, message, boot_id,"
		" boot_time, reported) VALUES(?1,?2,?3,?4,?5,?6,?7,?8)"
		" ON CONFLICT(node) DO UPDATE SET booted = coalesce(?2, booted),"
		" kernel = coalesce(?3, kernel), phase = coalesce(?4, phase),"
		" message = CASE WHEN ?5 IS NOT NULL THEN ?5 WHEN ?6 IS NOT boot_id AND"
		"  ?6 IS NOT NULL THEN NULL ELSE message END,"
		" boot_id = coalesce(?6, boot_id),"
		" boot_time = CASE WHEN ?7 THEN ?7 ELSE boot_time END, reported = ?8",
		err, "ssssssii", name, r->digest, r->kernel, r->phase, r->message,
		r->boot_id, r->boot_time, now);
	if (ret == 0)
		ret = favo_nodes_exec(nodes,
				      "UPDATE states SET good = booted WHERE node = ?1 "
				      "AND phase = 'up'",
				      err, "s", name);
	return favo_nodes_end(nodes, ret, err);
}

int favo_nodes_seen(struct favo_nodes *nodes, const char *mac, const char *uuid,
		    const char *address, const char *arch, int64_t now,
		    struct favo_err *err)
{
	favo_nodes_hold(nodes);
	char normal[18], id[37];
	int ret = favo_node_mac(normal, mac, err);

	/* All of it comes from a machine that nobody knows: keep what has a form. */
	if (uuid && favo_node_uuid(id, uuid, NULL) < 0)
		uuid = NULL;
	if (address && !favo_is_name(address, ".:", 45))
		address = NULL;
	if (arch && !favo_is_name(arch, "-_.", 32))
		arch = NULL;
	if (ret == 0)
		ret = favo_nodes_begin(nodes, false, err);
	if (ret < 0)
		return ret;
	ret = favo_nodes_exec(
		nodes,
		"INSERT INTO unknown VALUES(?1,?2,?3,?4,?5,?5) ON CONFLICT(mac) DO UPDATE"
		" SET uuid = coalesce(?2, uuid), address = coalesce(?3, address),"
		" arch = coalesce(?4, arch), last = ?5",
		err, "ssssi", normal, uuid ? id : NULL, address, arch, now);
	if (ret == 0)
		ret = favo_nodes_exec(
			nodes,
			"DELETE FROM unknown WHERE mac IN (SELECT mac FROM "
			"unknown ORDER BY last DESC, mac LIMIT -1 OFFSET ?1)",
			err, "i", (int64_t)FAVO_NODE_UNKNOWN_MAX);
	return favo_nodes_end(nodes, ret, err);
}
