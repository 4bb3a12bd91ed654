// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Registry of favod; see registry.h.
 *
 * One connection under a mutex: statements are short, and SQLite writes one
 * at a time in any case. Statements are prepared once. Every change of the
 * tables raises SCHEMA and adds a step to migrations[].
 */
#include "provision/favod/registry.h"

#include <pthread.h>
#include <sqlite3.h>
#include <string.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"

/* migrations[i] leads from schema i to i + 1. */
static const char *const migrations[] = {
	"CREATE TABLE grants(id TEXT PRIMARY KEY, uid INTEGER NOT NULL, gid INTEGER NOT "
	"NULL,"
	" user TEXT NOT NULL, image TEXT NOT NULL, digest TEXT NOT NULL, cpus INTEGER "
	"NOT NULL,"
	" mem_mb INTEGER NOT NULL, per_node INTEGER NOT NULL, network TEXT NOT NULL,"
	" issued INTEGER NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE nodes(name TEXT PRIMARY KEY, version TEXT NOT NULL,"
	" updated INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TABLE vms(job INTEGER NOT NULL, idx INTEGER NOT NULL, node TEXT NOT NULL,"
	" name TEXT NOT NULL, address TEXT NOT NULL, uid INTEGER NOT NULL,"
	" grant_id TEXT NOT NULL, state TEXT NOT NULL, timeline TEXT NOT NULL, error "
	"TEXT,"
	" log TEXT, since INTEGER NOT NULL, updated INTEGER NOT NULL,"
	" PRIMARY KEY(job, idx)) WITHOUT ROWID;"
	"CREATE INDEX vms_node ON vms(node);"
	"CREATE INDEX vms_grant ON vms(grant_id);"
	"CREATE INDEX vms_uid ON vms(uid);",
};
#define SCHEMA ((int)FAVO_ARRAY_SIZE(migrations))

enum query {
	Q_BEGIN,
	Q_COMMIT,
	Q_ROLLBACK,
	Q_GRANT_ADD,
	Q_NODE_PUT,
	Q_VM_OLD,
	Q_VM_PUT,
	Q_VM_END,
	Q_VCS,
	Q_VC,
	Q_NODES,
	Q_PRUNE_VMS,
	Q_PRUNE_GRANTS,
	Q_COUNT,
};

#define STATE_AT(now)                                                                    \
	"CASE WHEN state IN ('ended','failed') OR updated >= " now " - 120"              \
	" THEN state ELSE 'lost' END"

static const char *const queries[Q_COUNT] = {
	[Q_BEGIN] = "BEGIN IMMEDIATE",
	[Q_COMMIT] = "COMMIT",
	[Q_ROLLBACK] = "ROLLBACK",
	[Q_GRANT_ADD] =
		"INSERT INTO grants VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12)",
	[Q_NODE_PUT] = "INSERT INTO nodes VALUES(?1,?2,?3) ON CONFLICT(name)"
		       " DO UPDATE SET version=?2, updated=?3",
	/* Members of an earlier job of this number, which Slurm's state has lost. */
	[Q_VM_OLD] = "DELETE FROM vms WHERE job=?1 AND grant_id<>?2 AND"
		     " (state IN ('ended','failed') OR updated < ?3 - 120)",
	/* A requeued job starts again under its number: then since is new. */
	[Q_VM_PUT] =
		"INSERT INTO vms VALUES(?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?12)"
		" ON CONFLICT(job, idx) DO UPDATE SET node=?3, name=?4, address=?5, "
		"uid=?6,"
		" since=CASE WHEN grant_id=?7 AND NOT (state IN ('ended','failed') AND"
		"  ?8 NOT IN ('ended','failed')) THEN since ELSE ?12 END,"
		" grant_id=?7, state=?8, timeline=?9, error=coalesce(?10, CASE WHEN "
		"?8='ended'"
		"  THEN error END), log=coalesce(?11, CASE WHEN ?8='ended' THEN log END),"
		" updated=?12",
	/* The report marks what it names with its time; the rest has ended. */
	[Q_VM_END] =
		"UPDATE vms SET state='ended', updated=?2 WHERE node=?1 AND"
		" state NOT IN ('ended','failed') AND"
		" NOT EXISTS (SELECT 1 FROM json_each(?3) WHERE value = job*65536+idx)",
	/* A node that is silent for four reports is not believed any more. */
	[Q_VCS] = "SELECT v.job, v.uid, coalesce(g.user, v.uid), coalesce(g.image, '?'),"
		  " count(*), sum(v.state='ready'), sum(v.state='failed'),"
		  " sum(v.state='ended'), min(v.since), sum(v.state='lost')"
		  " FROM (SELECT job, uid, grant_id, since, " STATE_AT(
			  "?3") " AS state FROM vms) v"
				" LEFT JOIN grants g ON g.id = v.grant_id"
				" WHERE (?1 < 0 OR v.uid = ?1) GROUP BY v.job"
				" HAVING ?2 OR sum(v.state NOT IN ('ended','failed')) > "
				"0 ORDER BY v.job",
	[Q_VC] = "SELECT v.idx, v.name, v.node, v.address, " STATE_AT(
		"?2") ", v.timeline,"
		      " v.error, v.log, v.since, v.updated, v.uid, coalesce(g.user, "
		      "v.uid),"
		      " coalesce(g.image, '?'), coalesce(g.digest, '?'), "
		      "coalesce(g.network, '?'),"
		      " v.grant_id FROM vms v LEFT JOIN grants g ON g.id = v.grant_id "
		      "WHERE v.job=?1"
		      " ORDER BY v.idx",
	[Q_NODES] =
		"SELECT n.name, n.version, n.updated, (SELECT count(*) FROM vms v WHERE"
		" v.node=n.name AND v.state NOT IN ('ended','failed')) FROM nodes n"
		" ORDER BY n.name",
	[Q_PRUNE_VMS] =
		"DELETE FROM vms WHERE state IN ('ended','failed') AND updated < ?1",
	[Q_PRUNE_GRANTS] = "DELETE FROM grants WHERE expires < ?1 AND"
			   " NOT EXISTS (SELECT 1 FROM vms WHERE grant_id = grants.id)",
};

struct favo_registry {
	pthread_mutex_t lock;
	sqlite3 *db;
	sqlite3_stmt *stmt[Q_COUNT];
};

static int fail_db(struct favo_registry *reg, struct favo_err *err)
{
	return favo_fail(err, sqlite3_errcode(reg->db) == SQLITE_FULL ? ENOSPC : EIO,
			 "registry: %s", sqlite3_errmsg(reg->db));
}

static void unlock(pthread_mutex_t **lock)
{
	pthread_mutex_unlock(*lock);
}

#define hold_lock(reg)                                                                   \
	__attribute__((cleanup(unlock), unused)) pthread_mutex_t *held = &(reg)->lock;   \
	pthread_mutex_lock(held)

/* A statement in use: reset when its scope ends, so that no read stays open. */
static void reset(sqlite3_stmt **stmt)
{
	if (!*stmt)
		return;
	sqlite3_reset(*stmt);
	sqlite3_clear_bindings(*stmt);
}
#define autostmt __attribute__((cleanup(reset))) sqlite3_stmt *

static int step_done(struct favo_registry *reg, sqlite3_stmt *stmt, struct favo_err *err)
{
	return sqlite3_step(stmt) == SQLITE_DONE ? 0 : fail_db(reg, err);
}

static int run_plain(struct favo_registry *reg, enum query q, struct favo_err *err)
{
	autostmt stmt = reg->stmt[q];

	return step_done(reg, stmt, err);
}

/* Text is copied: it may go before the statement is reset. NULL binds NULL. */
static void bind_text(sqlite3_stmt *stmt, int i, const char *text)
{
	sqlite3_bind_text(stmt, i, text, -1, SQLITE_TRANSIENT);
}

static const char *column_text(sqlite3_stmt *stmt, int i)
{
	return (const char *)sqlite3_column_text(stmt, i);
}

static int read_schema(struct favo_registry *reg, int *schema, struct favo_err *err)
{
	sqlite3_stmt *stmt = NULL;
	int ret = 0;

	if (sqlite3_prepare_v2(reg->db, "PRAGMA user_version", -1, &stmt, NULL) !=
		    SQLITE_OK ||
	    sqlite3_step(stmt) != SQLITE_ROW)
		ret = fail_db(reg, err);
	else
		*schema = sqlite3_column_int(stmt, 0);
	sqlite3_finalize(stmt);
	return ret;
}

static int exec(struct favo_registry *reg, const char *sql, struct favo_err *err)
{
	return sqlite3_exec(reg->db, sql, NULL, NULL, NULL) == SQLITE_OK
		       ? 0
		       : fail_db(reg, err);
}

static int migrate(struct favo_registry *reg, struct favo_err *err)
{
	int schema = 0;
	int ret = read_schema(reg, &schema, err);

	if (ret == 0 && schema > SCHEMA)
		return favo_fail(
			err, EPROTONOSUPPORT,
			"registry has schema %d, this favod knows %d: it was written by "
			"a newer favod",
			schema, SCHEMA);
	for (; ret == 0 && schema < SCHEMA; schema++) {
		char version[48];

		snprintf(version, sizeof(version), "PRAGMA user_version=%d; COMMIT",
			 schema + 1);
		ret = exec(reg, "BEGIN IMMEDIATE", err);
		if (ret == 0)
			ret = exec(reg, migrations[schema], err);
		if (ret == 0)
			ret = exec(reg, version, err);
	}
	return ret;
}

static int prepare_all(struct favo_registry *reg, struct favo_err *err)
{
	for (int q = 0; q < Q_COUNT; q++)
		if (sqlite3_prepare_v3(reg->db, queries[q], -1, SQLITE_PREPARE_PERSISTENT,
				       &reg->stmt[q], NULL) != SQLITE_OK)
			return fail_db(reg, err);
	return 0;
}

int favo_registry_open(struct favo_registry **out, const char *path, struct favo_err *err)
{
	favo_autoregistry struct favo_registry *reg = calloc(1, sizeof(*reg));
	int ret;

	if (!reg)
		return favo_fail(err, ENOMEM, "registry: %m");
	pthread_mutex_init(&reg->lock, NULL);
	if (sqlite3_open_v2(path, &reg->db,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE |
				    SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		return favo_wrap(err, fail_db(reg, err), "%s", path);
	sqlite3_busy_timeout(reg->db, 5000);
	ret = exec(reg, "PRAGMA journal_mode=WAL; PRAGMA synchronous=NORMAL", err);
	if (ret == 0)
		ret = migrate(reg, err);
	if (ret == 0)
		ret = prepare_all(reg, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", path);
	*out = favo_steal_ptr(&reg);
	return 0;
}

void favo_registry_close(struct favo_registry *reg)
{
	if (!reg)
		return;
	for (int q = 0; q < Q_COUNT; q++)
		sqlite3_finalize(reg->stmt[q]);
	sqlite3_close(reg->db);
	pthread_mutex_destroy(&reg->lock);
	free(reg);
}

int favo_registry_add_grant(struct favo_registry *reg, const struct favo_grant *g,
			    struct favo_err *err)
{
	hold_lock(reg);
	autostmt stmt = reg->stmt[Q_GRANT_ADD];

	bind_text(stmt, 1, g->id);
	sqlite3_bind_int64(stmt, 2, g->uid);
	sqlite3_bind_int64(stmt, 3, g->gid);
	bind_text(stmt, 4, g->user);
	bind_text(stmt, 5, g->image);
	bind_text(stmt, 6, g->digest);
	sqlite3_bind_int64(stmt, 7, g->cpus);
	sqlite3_bind_int64(stmt, 8, (sqlite3_int64)g->mem_mb);
	sqlite3_bind_int64(stmt, 9, g->per_node);
	bind_text(stmt, 10, g->network);
	sqlite3_bind_int64(stmt, 11, g->issued);
	sqlite3_bind_int64(stmt, 12, g->expires);
	return step_done(reg, stmt, err);
}

static bool is_state(const char *state)
{
	static const char *const states[] = {"preparing", "booting", "ready", "failed",
					     "ended"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(states); i++)
		if (strcmp(state, states[i]) == 0)
			return true;
	return false;
}

static int drop_old(struct favo_registry *reg, int64_t job, const char *grant,
		    int64_t now, struct favo_err *err)
{
	autostmt stmt = reg->stmt[Q_VM_OLD];

	sqlite3_bind_int64(stmt, 1, job);
	bind_text(stmt, 2, grant);
	sqlite3_bind_int64(stmt, 3, now);
	return step_done(reg, stmt, err);
}

/* One VM of a report; *key tells it from all others of the site. */
static int put_vm(struct favo_registry *reg, const char *node, const json_t *vm,
		  int64_t now, int64_t *key, struct favo_err *err)
{
	autostmt stmt = reg->stmt[Q_VM_PUT];
	favo_autofree char *timeline = NULL;
	favo_autofree char *error = NULL;
	const char *name, *address, *grant, *state;
	const char *log = json_string_value(json_object_get(vm, "log"));
	json_t *obj;
	uint64_t job, idx, uid;
	int ret;

	ret = favo_json_u64(&job, vm, "job", 1, UINT32_MAX, err);
	if (ret == 0)
		ret = favo_json_u64(&idx, vm, "index", 0, UINT16_MAX, err);
	if (ret == 0)
		ret = favo_json_u64(&uid, vm, "uid", 0, UINT32_MAX, err);
	if (ret == 0)
		ret = favo_json_str(&name, vm, "name", err);
	if (ret == 0)
		ret = favo_json_str(&address, vm, "address", err);
	if (ret == 0)
		ret = favo_json_str(&grant, vm, "grant", err);
	if (ret == 0)
		ret = favo_json_str(&state, vm, "state", err);
	if (ret == 0)
		ret = favo_json_object(&obj, vm, "timeline", err);
	if (ret == 0)
		ret = favo_json_canonical(&timeline, NULL, obj, err);
	if (ret == 0 && json_is_object(json_object_get(vm, "error")))
		ret = favo_json_canonical(&error, NULL, json_object_get(vm, "error"),
					  err);
	if (ret < 0)
		return ret;
	if (!is_state(state))
		return favo_fail(err, EINVAL, "state \"%.40s\" is none that a VM has",
				 state);
	/* A VM that failed is told of as failed also when its job is over. */
	if (error && strcmp(state, "ended") == 0)
		state = "failed";
	ret = drop_old(reg, (int64_t)job, grant, now, err);
	if (ret < 0)
		return ret;
	sqlite3_bind_int64(stmt, 1, (sqlite3_int64)job);
	sqlite3_bind_int64(stmt, 2, (sqlite3_int64)idx);
	bind_text(stmt, 3, node);
	bind_text(stmt, 4, name);
	bind_text(stmt, 5, address);
	sqlite3_bind_int64(stmt, 6, (sqlite3_int64)uid);
	bind_text(stmt, 7, grant);
	bind_text(stmt, 8, state);
	bind_text(stmt, 9, timeline);
	bind_text(stmt, 10, error);
	bind_text(stmt, 11, log);
	sqlite3_bind_int64(stmt, 12, now);
	*key = (int64_t)job * 65536 + (int64_t)idx;
	return step_done(reg, stmt, err);
}

static int put_report(struct favo_registry *reg, const char *node, const char *version,
		      const json_t *vms, int64_t now, struct favo_err *err)
{
	favo_autojson json_t *keys = json_array();
	favo_autofree char *text = NULL;
	const json_t *vm;
	size_t i;
	int ret;

	{
		autostmt stmt = reg->stmt[Q_NODE_PUT];

		bind_text(stmt, 1, node);
		bind_text(stmt, 2, version);
		sqlite3_bind_int64(stmt, 3, now);
		ret = step_done(reg, stmt, err);
	}
	json_array_foreach(vms, i, vm)
	{
		int64_t key = 0;

		if (ret < 0)
			return ret;
		ret = put_vm(reg, node, vm, now, &key, err);
		if (ret < 0)
			return favo_wrap(err, ret, "vms[%zu]", i);
		json_array_append_new(keys, json_integer(key));
	}
	if (ret < 0)
		return ret;
	text = json_dumps(keys, JSON_COMPACT);
	if (!text)
		return favo_fail(err, ENOMEM, "registry: %m");
	{
		autostmt stmt = reg->stmt[Q_VM_END];

		bind_text(stmt, 1, node);
		sqlite3_bind_int64(stmt, 2, now);
		bind_text(stmt, 3, text);
		ret = step_done(reg, stmt, err);
	}
	return ret;
}

int favo_registry_report(struct favo_registry *reg, const char *node, const char *version,
			 const json_t *vms, int64_t now, struct favo_err *err)
{
	hold_lock(reg);
	int ret = run_plain(reg, Q_BEGIN, err);

	if (ret < 0)
		return ret;
	ret = put_report(reg, node, version, vms, now, err);
	if (ret == 0)
		ret = run_plain(reg, Q_COMMIT, err);
	if (ret < 0)
		run_plain(reg, Q_ROLLBACK, NULL);
	return ret;
}

/* One word for a cluster out of its members' states. */
static const char *sum_state(int64_t all, int64_t ready, int64_t failed, int64_t ended,
			     int64_t lost)
{
	if (failed)
		return "failed";
	if (lost)
		return "lost";
	if (ended == all)
		return "ended";
	if (ready == all)
		return "ready";
	return ended ? "ending" : "starting";
}

int favo_registry_vcs(struct favo_registry *reg, int64_t uid, bool ended, int64_t now,
		      json_t **out, struct favo_err *err)
{
	hold_lock(reg);
	autostmt stmt = reg->stmt[Q_VCS];
	favo_autojson json_t *list = json_array();
	int step;

	sqlite3_bind_int64(stmt, 1, uid);
	sqlite3_bind_int(stmt, 2, ended);
	sqlite3_bind_int64(stmt, 3, now);
	while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
		int64_t all = sqlite3_column_int64(stmt, 4);
		int64_t ready = sqlite3_column_int64(stmt, 5);
		const char *state = sum_state(all, ready, sqlite3_column_int64(stmt, 6),
					      sqlite3_column_int64(stmt, 7),
					      sqlite3_column_int64(stmt, 9));

		json_array_append_new(
			list,
			json_pack("{s:I s:I s:s s:s s:I s:I s:s s:I}", "job",
				  (json_int_t)sqlite3_column_int64(stmt, 0), "uid",
				  (json_int_t)sqlite3_column_int64(stmt, 1), "user",
				  column_text(stmt, 2), "image", column_text(stmt, 3),
				  "vms", (json_int_t)all, "ready", (json_int_t)ready,
				  "state", state, "since",
				  (json_int_t)sqlite3_column_int64(stmt, 8)));
	}
	if (step != SQLITE_DONE)
		return fail_db(reg, err);
	if (!list)
		return favo_fail(err, ENOMEM, "registry: %m");
	*out = favo_steal_ptr(&list);
	return 0;
}

/* Stored JSON text as a value; null for NULL and for what does not parse. */
static json_t *load_json(const char *text)
{
	json_t *value = text ? json_loads(text, 0, NULL) : NULL;

	return value ? value : json_null();
}

static json_t *member_of(sqlite3_stmt *stmt)
{
	const char *log = column_text(stmt, 7);

	return json_pack("{s:I s:s s:s s:s s:s s:o s:o s:o s:I s:I}", "index",
			 (json_int_t)sqlite3_column_int64(stmt, 0), "name",
			 column_text(stmt, 1), "node", column_text(stmt, 2), "address",
			 column_text(stmt, 3), "state", column_text(stmt, 4), "timeline",
			 load_json(column_text(stmt, 5)), "error",
			 load_json(column_text(stmt, 6)), "log",
			 log ? json_string(log) : json_null(), "since",
			 (json_int_t)sqlite3_column_int64(stmt, 8), "updated",
			 (json_int_t)sqlite3_column_int64(stmt, 9));
}

int favo_registry_vc(struct favo_registry *reg, uint32_t job, int64_t now, json_t **out,
		     int64_t *owner, struct favo_err *err)
{
	hold_lock(reg);
	autostmt stmt = reg->stmt[Q_VC];
	favo_autojson json_t *vc = NULL, *members = json_array();
	int64_t all = 0, ready = 0, failed = 0, ended = 0, lost = 0;
	int64_t since = INT64_MAX;
	int step;

	sqlite3_bind_int64(stmt, 1, job);
	sqlite3_bind_int64(stmt, 2, now);
	while ((step = sqlite3_step(stmt)) == SQLITE_ROW) {
		const char *state = column_text(stmt, 4);

		all++;
		ready += strcmp(state, "ready") == 0;
		failed += strcmp(state, "failed") == 0;
		ended += strcmp(state, "ended") == 0;
		lost += strcmp(state, "lost") == 0;
		since = FAVO_MIN(since, sqlite3_column_int64(stmt, 8));
		json_array_append_new(members, member_of(stmt));
		if (vc)
			continue;
		*owner = sqlite3_column_int64(stmt, 10);
		vc = json_pack("{s:I s:I s:s s:s s:s s:s s:s}", "job", (json_int_t)job,
			       "uid", (json_int_t)*owner, "user", column_text(stmt, 11),
			       "image", column_text(stmt, 12), "digest",
			       column_text(stmt, 13), "network", column_text(stmt, 14),
			       "grant", column_text(stmt, 15));
		if (!vc)
			return favo_fail(err, ENOMEM, "registry: %m");
	}
	if (step != SQLITE_DONE)
		return fail_db(reg, err);
	if (!vc)
		return favo_fail(err, ENOENT, "job %u has no virtual cluster", job);
	json_object_set_new(vc, "state",
			    json_string(sum_state(all, ready, failed, ended, lost)));
	json_object_set_new(vc, "since", json_integer(since));
	json_object_set(vc, "members", members);
	*out = favo_steal_ptr(&vc);
	return 0;
}

int favo_registry_nodes(struct favo_registry *reg, json_t **out, struct favo_err *err)
{
	hold_lock(reg);
	autostmt stmt = reg->stmt[Q_NODES];
	favo_autojson json_t *list = json_array();
	int step;

	while ((step = sqlite3_step(stmt)) == SQLITE_ROW)
		json_array_append_new(
			list, json_pack("{s:s s:s s:I s:I}", "name", column_text(stmt, 0),
					"version", column_text(stmt, 1), "updated",
					(json_int_t)sqlite3_column_int64(stmt, 2), "vms",
					(json_int_t)sqlite3_column_int64(stmt, 3)));
	if (step != SQLITE_DONE)
		return fail_db(reg, err);
	if (!list)
		return favo_fail(err, ENOMEM, "registry: %m");
	*out = favo_steal_ptr(&list);
	return 0;
}

int favo_registry_prune(struct favo_registry *reg, int64_t before, struct favo_err *err)
{
	hold_lock(reg);
	int ret = 0;

	for (enum query q = Q_PRUNE_VMS; ret == 0 && q <= Q_PRUNE_GRANTS; q++) {
		autostmt stmt = reg->stmt[q];

		sqlite3_bind_int64(stmt, 1, before);
		ret = step_done(reg, stmt, err);
	}
	return ret;
}
