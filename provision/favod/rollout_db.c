// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rollouts in the node database: each step of a node is a row that changes in
 * the same transaction as the image that the node is to boot.
 */
#include "provision/favod/rollout_db.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>

#include "common/json.h"
#include "common/util.h"
#include "provision/favod/nodes_internal.h"

static int get_number(uint64_t *out, const json_t *spec, const char *key, uint64_t def,
		      uint64_t min, uint64_t max, struct favo_err *err)
{
	*out = def;
	return json_object_get(spec, key) ? favo_json_u64(out, spec, key, min, max, err)
					  : 0;
}

int favo_rollout_rules_parse(struct favo_rollout_rules *r, const json_t *spec,
			     struct favo_err *err)
{
	int ret = get_number(&r->canaries, spec, "canaries", 1, 0, 100000, err);

	if (ret == 0)
		ret = get_number(&r->batch, spec, "batch", 16, 1, 100000, err);
	if (ret == 0)
		ret = get_number(&r->concurrency, spec, "concurrency", 16, 1, 64, err);
	if (ret == 0)
		ret = get_number(&r->budget, spec, "budget", 0, 0, 100000, err);
	if (ret == 0)
		ret = get_number(&r->drain_s, spec, "drain_s", 7 * 86400, 1, 365 * 86400,
				 err);
	if (ret == 0)
		ret = get_number(&r->boot_s, spec, "boot_s", 1200, 1, 86400, err);
	if (ret == 0) /* kept by resume */
		ret = get_number(&r->forgiven, spec, "forgiven", 0, 0, 100000, err);
	return ret;
}

static int insert_all(struct favo_nodes *nodes, struct favo_rollout *r, const char *spec,
		      int64_t now, struct favo_err *err)
{
	int ret = favo_nodes_exec(nodes,
				  "INSERT INTO rollouts(spec, state, reason, created, "
				  "updated) VALUES(?1,?2,?3,?4,?4)",
				  err, "sssi", spec, favo_rollout_state_name(r->state),
				  r->reason, now);

	r->id = sqlite3_last_insert_rowid(nodes->db);
	for (size_t i = 0; ret == 0 && i < r->n; i++)
		ret = favo_nodes_exec(
			nodes,
			"INSERT INTO rollout_nodes VALUES(?1,?2,?3,?4,?5,?6,"
			"?7,NULL,'')",
			err, "iississ", r->id, (int64_t)i, r->nodes[i].name,
			favo_rollout_step_name(r->nodes[i].step), now, r->nodes[i].image,
			r->nodes[i].former);
	return ret;
}

/* What favo_rollout_set_undone() does, on the disk. */
static int end_undone(struct favo_nodes *nodes, int64_t id, int64_t by, int64_t now,
		      struct favo_err *err)
{
	int ret = favo_nodes_exec(nodes,
				  "UPDATE rollouts SET state = 'undone', reason = "
				  "'by rollout ' || ?2, updated = ?3 WHERE id = ?1",
				  err, "iii", id, by, now);

	if (ret == 0)
		ret = favo_nodes_exec(
			nodes,
			"UPDATE rollout_nodes SET state = 'failed', note = 'left to undo'"
			" WHERE rollout = ?1 AND state IN"
			" ('reboot', 'booting', 'health', 'resume')",
			err, "i", id);
	return ret;
}

int favo_rollout_db_add(struct favo_nodes *nodes, struct favo_rollout *r,
			const json_t *spec, int64_t undoes, int64_t now,
			struct favo_err *err)
{
	favo_autofree char *text = NULL;
	int ret = favo_json_canonical(&text, NULL, spec, err);
	favo_nodes_hold(nodes);

	if (ret == 0)
		ret = favo_nodes_begin(nodes, true, err);
	if (ret < 0)
		return ret;
	ret = insert_all(nodes, r, text, now, err);
	if (ret == 0 && undoes)
		ret = end_undone(nodes, undoes, r->id, now, err);
	return favo_nodes_end(nodes, ret, err);
}

/* Set its image, and note which boot it must outlive. */
static int pin(struct favo_nodes *nodes, struct favo_rollout_node *node,
	       struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	const char *boot_id = NULL;
	int ret = favo_nodes_set_image_held(nodes, node->name, node->image, err);

	if (ret == -ENOENT) /* deleted meanwhile; its next action says so */
		return 0;
	if (ret == 0)
		ret = favo_nodes_query(nodes, &stmt,
				       "SELECT boot_id FROM states WHERE node = ?1", err,
				       "s", node->name);
	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret < 0)
		return ret;
	if (ret == 1)
		boot_id = favo_nodes_text(stmt, 0);
	free(node->mark);
	node->mark = strdup(boot_id ? boot_id : "");
	return node->mark ? 0 : favo_fail(err, ENOMEM, "rollout: %m");
}

static int save_all(struct favo_nodes *nodes, struct favo_rollout *r, int64_t now,
		    struct favo_err *err)
{
	int ret = 0;

	if (r->dirty)
		ret = favo_nodes_exec(nodes,
				      "UPDATE rollouts SET state = ?2, reason = ?3, "
				      "updated = ?4, spec ="
				      " json_set(spec, '$.forgiven', ?5) WHERE id = ?1",
				      err, "issii", r->id,
				      favo_rollout_state_name(r->state), r->reason, now,
				      (int64_t)r->rules.forgiven);
	for (size_t i = 0; ret == 0 && i < r->n; i++) {
		struct favo_rollout_node *node = &r->nodes[i];

		if (!node->dirty)
			continue;
		if (node->pin)
			ret = pin(nodes, node, err);
		if (ret == 0)
			ret = favo_nodes_exec(
				nodes,
				"UPDATE rollout_nodes SET state = ?3, since = ?4, mark = "
				"?5, note = ?6 WHERE rollout = ?1 AND pos = ?2",
				err, "iisiss", r->id, (int64_t)i,
				favo_rollout_step_name(node->step), node->since,
				node->mark, node->note);
	}
	return ret;
}

int favo_rollout_db_save(struct favo_nodes *nodes, struct favo_rollout *r, int64_t now,
			 struct favo_err *err)
{
	bool pinned = false, dirty = r->dirty;
	int ret;

	for (size_t i = 0; i < r->n; i++)
		dirty |= r->nodes[i].dirty;
	if (!dirty)
		return 0;
	{
		favo_nodes_hold(nodes);
		ret = favo_nodes_begin(nodes, true, err);
		if (ret < 0)
			return ret;
		ret = save_all(nodes, r, now, err);
		ret = favo_nodes_end(nodes, ret, err);
	}
	if (ret < 0)
		return ret;
	r->dirty = false;
	for (size_t i = 0; i < r->n; i++) {
		pinned |= r->nodes[i].pin;
		r->nodes[i].dirty = r->nodes[i].pin = false;
	}
	if (pinned)
		favo_nodes_tell(nodes);
	return 0;
}

static char *dup_column(sqlite3_stmt *stmt, int i)
{
	const char *text = favo_nodes_text(stmt, i);

	return text ? strdup(text) : NULL;
}

static int load_nodes(struct favo_nodes *nodes, struct favo_rollout *r,
		      struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	int ret = favo_nodes_query(nodes, &stmt,
				   "SELECT node, state, since, image, former, mark, note "
				   "FROM rollout_nodes WHERE rollout = ?1 ORDER BY pos",
				   err, "i", r->id);

	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1) {
		struct favo_rollout_node *node, *grown;

		grown = reallocarray(r->nodes, r->n + 1, sizeof(*r->nodes));
		if (!grown)
			return favo_fail(err, ENOMEM, "rollout: %m");
		r->nodes = grown;
		node = &r->nodes[r->n++];
		memset(node, 0, sizeof(*node));
		node->name = dup_column(stmt, 0);
		node->since = sqlite3_column_int64(stmt, 2);
		node->image = dup_column(stmt, 3);
		node->former = dup_column(stmt, 4);
		node->mark = dup_column(stmt, 5);
		snprintf(node->note, sizeof(node->note), "%s", favo_nodes_text(stmt, 6));
		if (favo_rollout_step_parse(&node->step, favo_nodes_text(stmt, 1)) < 0)
			return favo_fail(err, EIO, "rollout %" PRId64 " is damaged",
					 r->id);
		if (!node->name || !node->image)
			return favo_fail(err, ENOMEM, "rollout: %m");
		ret = 0;
	}
	return ret;
}

int favo_rollout_db_load(struct favo_nodes *nodes, int64_t id, struct favo_rollout **out,
			 json_t **spec, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autorollout struct favo_rollout *r = calloc(1, sizeof(*r));
	favo_autojson json_t *value = NULL;
	int ret;

	if (!r)
		return favo_fail(err, ENOMEM, "rollout: %m");
	r->id = id;
	ret = favo_nodes_query(
		nodes, &stmt,
		"SELECT spec, state, reason, created, updated FROM rollouts "
		"WHERE id = ?1",
		err, "i", id);
	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 0)
		return favo_fail(err, ENOENT, "there is no rollout %" PRId64, id);
	if (ret < 0)
		return ret;
	value = json_loads(favo_nodes_text(stmt, 0), 0, NULL);
	if (!value || favo_rollout_state_parse(&r->state, favo_nodes_text(stmt, 1)) < 0)
		return favo_fail(err, EIO, "rollout %" PRId64 " is damaged", id);
	snprintf(r->reason, sizeof(r->reason), "%s", favo_nodes_text(stmt, 2));
	json_object_set_new(value, "created",
			    json_integer(sqlite3_column_int64(stmt, 3)));
	json_object_set_new(value, "updated",
			    json_integer(sqlite3_column_int64(stmt, 4)));
	ret = favo_rollout_rules_parse(&r->rules, value, err);
	if (ret == 0)
		ret = load_nodes(nodes, r, err);
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&r);
	*spec = favo_steal_ptr(&value);
	return 0;
}

int favo_rollout_db_list(struct favo_nodes *nodes, json_t **out, struct favo_err *err)
{
	favo_nodes_hold(nodes);
	favo_autostmt sqlite3_stmt *stmt = NULL;
	favo_autojson json_t *list = json_array();
	int ret = favo_nodes_query(
		nodes, &stmt,
		"SELECT r.id, json_extract(r.spec, '$.image'), r.state, r.reason, "
		"r.created, r.updated, count(n.pos), sum(n.state = 'done'),"
		" sum(n.state = 'failed'), sum(n.state = 'skipped'),"
		" sum(n.state = 'waiting') FROM rollouts r LEFT JOIN rollout_nodes n ON"
		" n.rollout = r.id GROUP BY r.id ORDER BY r.id DESC LIMIT 1000",
		err, "");

	while (ret == 0 && (ret = favo_nodes_step(nodes, stmt, err)) == 1) {
		static const char *const keys[] = {"created", "updated", "nodes",  "done",
						   "failed",  "skipped", "waiting"};
		json_t *one = json_pack("{s:I s:s s:s s:s}", "id",
					(json_int_t)sqlite3_column_int64(stmt, 0),
					"image", favo_nodes_text(stmt, 1), "state",
					favo_nodes_text(stmt, 2), "reason",
					favo_nodes_text(stmt, 3));

		for (size_t i = 0; one && i < FAVO_ARRAY_SIZE(keys); i++)
			json_object_set_new(
				one, keys[i],
				json_integer(sqlite3_column_int64(stmt, 4 + (int)i)));
		json_array_append_new(list, one);
		ret = 0;
	}
	if (ret == 0)
		*out = favo_steal_ptr(&list);
	return ret;
}
