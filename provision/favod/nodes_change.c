// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Changes of the node database: definitions are checked one by one for their
 * form and then as a whole against everything else, inside one transaction;
 * nothing of a change that has a fault anywhere is kept.
 */
#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/util.h"
#include "provision/favod/node_def.h"
#include "provision/favod/nodes_internal.h"

static const char *kind_name(enum favo_def_kind kind)
{
	return kind == FAVO_DEF_NODE ? "node" : "profile";
}

/* *revision is that of the definition, 0 when there is none. */
static int old_revision(struct favo_nodes *nodes, enum favo_def_kind kind,
			const char *name, int64_t *revision, struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	int ret = favo_nodes_query(
		nodes, &stmt,
		"SELECT revision FROM definitions WHERE kind = ?1 AND name = ?2", err,
		"is", (int64_t)kind, name);

	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	*revision = ret == 1 ? sqlite3_column_int64(stmt, 0) : 0;
	return FAVO_MIN(ret, 0);
}

/* base < 0: whatever it was before is overwritten. */
static int check_base(struct favo_nodes *nodes, enum favo_def_kind kind, const char *name,
		      int64_t base, struct favo_err *err)
{
	int64_t revision;
	int ret = old_revision(nodes, kind, name, &revision, err);

	if (ret < 0 || base < 0 || revision <= base)
		return ret;
	return favo_fail(err, EBUSY,
			 "%s %s was changed by somebody else meanwhile; look at it and "
			 "try again",
			 kind_name(kind), name);
}

/* Who has it already? The sentence is what an admin needs to find the mistake. */
static int claim(struct favo_nodes *nodes, const char *node, const char *what,
		 const char *value, struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	int ret = favo_nodes_query(nodes, &stmt,
				   "SELECT node FROM ids WHERE what = ?1 AND value = ?2",
				   err, "ss", what, value);

	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 1)
		return favo_fail(err, EEXIST, "node %s: %s %s belongs to node %s", node,
				 what, value, favo_nodes_text(stmt, 0));
	if (ret < 0)
		return ret;
	return favo_nodes_exec(nodes, "INSERT INTO ids VALUES(?1,?2,?3)", err, "sss",
			       what, value, node);
}

static int claim_all(struct favo_nodes *nodes, const char *node, const json_t *def,
		     struct favo_err *err)
{
	const char *uuid = json_string_value(json_object_get(def, "uuid"));
	const json_t *one;
	int ret = uuid ? claim(nodes, node, "uuid", uuid, err) : 0;
	size_t i;

	json_array_foreach(json_object_get(def, "macs"), i, one)
	{
		if (ret == 0)
			ret = claim(nodes, node, "mac", json_string_value(one), err);
	}
	json_array_foreach(json_object_get(def, "addresses"), i, one)
	{
		char address[64];

		snprintf(address, sizeof(address), "%s", json_string_value(one));
		address[strcspn(address, "/")] = '\0';
		if (ret == 0)
			ret = claim(nodes, node, "address", address, err);
	}
	return ret;
}

static int drop(struct favo_nodes *nodes, enum favo_def_kind kind, const char *name,
		struct favo_err *err)
{
	int ret = favo_nodes_exec(nodes,
				  "DELETE FROM definitions WHERE kind = ?1 AND name = ?2",
				  err, "is", (int64_t)kind, name);

	if (ret == 0 && kind == FAVO_DEF_NODE)
		ret = favo_nodes_exec(nodes, "DELETE FROM ids WHERE node = ?1", err, "s",
				      name);
	return ret;
}

static int drop_list(struct favo_nodes *nodes, enum favo_def_kind kind,
		     const json_t *list, int64_t base, struct favo_err *err)
{
	const json_t *one;
	int64_t revision;
	int ret = 0;
	size_t i;

	json_array_foreach(list, i, one)
	{
		const char *name = json_string_value(one);

		if (!name)
			return favo_fail(err, EINVAL, "delete: a name is text");
		ret = old_revision(nodes, kind, name, &revision, err);
		if (ret == 0 && !revision)
			ret = favo_fail(err, ENOENT, "there is no %s %.63s",
					kind_name(kind), name);
		if (ret == 0)
			ret = check_base(nodes, kind, name, base, err);
		if (ret == 0)
			ret = drop(nodes, kind, name, err);
		if (ret == 0 && kind == FAVO_DEF_NODE)
			ret = favo_nodes_exec(nodes, "DELETE FROM states WHERE node = ?1",
					      err, "s", name);
		if (ret < 0)
			return ret;
	}
	return ret;
}

static int put_one(struct favo_nodes *nodes, enum favo_def_kind kind, const char *name,
		   const json_t *in, int64_t revision, struct favo_err *err)
{
	favo_autojson json_t *def = NULL;
	favo_autofree char *text = NULL;
	const char *image;
	struct favo_digest id;
	int ret;

	if (kind == FAVO_DEF_NODE ? !favo_node_name_ok(name) : !favo_node_word_ok(name))
		return favo_fail(err, EINVAL, "\"%.80s\" is no name of a %s: %s", name,
				 kind_name(kind),
				 kind == FAVO_DEF_NODE
					 ? "at most 63 small letters, digits and -"
					 : "at most 63 letters, digits, - _ and .");
	ret = favo_node_def_check(&def, in, kind == FAVO_DEF_PROFILE, err);
	image = json_string_value(json_object_get(def, "image"));
	if (ret == 0 && image)
		ret = favo_nodes_find_image(nodes, image, &id, err);
	if (ret < 0)
		return favo_wrap(err, ret == -ENOENT ? -EINVAL : ret, "%s %s",
				 kind_name(kind), name);
	ret = favo_json_canonical(&text, NULL, def, err);
	if (ret == 0)
		ret = drop(nodes, kind, name, err);
	if (ret == 0)
		ret = favo_nodes_exec(nodes,
				      "INSERT INTO definitions VALUES(?1,?2,?3,?4)", err,
				      "issi", (int64_t)kind, name, text, revision);
	return ret;
}

/*
 * The old ids of all the nodes go first and the new ones come last, so that
 * two nodes may swap their addresses in one change.
 */
static int put_map(struct favo_nodes *nodes, enum favo_def_kind kind, const json_t *map,
		   int64_t base, int64_t revision, struct favo_err *err)
{
	const char *name;
	json_t *def;
	int ret;

	json_object_foreach((json_t *)map, name, def)
	{
		ret = check_base(nodes, kind, name, base, err);
		if (ret == 0)
			ret = put_one(nodes, kind, name, def, revision, err);
		if (ret < 0)
			return ret;
	}
	if (kind != FAVO_DEF_NODE)
		return 0;
	json_object_foreach((json_t *)map, name, def)
	{
		favo_autojson json_t *normal = NULL;

		ret = favo_node_def_check(&normal, def, false, err);
		if (ret == 0)
			ret = claim_all(nodes, name, normal, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* What only the whole can tell: profiles that nodes name must be there. */
static int check_whole(struct favo_nodes *nodes, struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	int ret = favo_nodes_query(
		nodes, &stmt,
		"SELECT d.name, p.value FROM definitions d, "
		"json_each(d.def,'$.profiles') "
		"p WHERE d.kind = 0 AND NOT EXISTS (SELECT 1 FROM definitions q WHERE"
		" q.kind = 1 AND q.name = p.value) LIMIT 1",
		err, "");

	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 1)
		return favo_fail(err, EINVAL,
				 "node %s has the profile %s, which does not exist",
				 favo_nodes_text(stmt, 0), favo_nodes_text(stmt, 1));
	if (ret < 0)
		return ret;
	/* a node now is no unknown machine any more */
	return favo_nodes_exec(nodes,
			       "DELETE FROM unknown WHERE mac IN (SELECT value FROM ids "
			       "WHERE what = 'mac')",
			       err, "");
}

static int next_revision(struct favo_nodes *nodes, int64_t *revision,
			 struct favo_err *err)
{
	favo_autostmt sqlite3_stmt *stmt = NULL;
	int ret = favo_nodes_query(nodes, &stmt,
				   "UPDATE revision SET n = n + 1 RETURNING n", err, "");

	if (ret == 0)
		ret = favo_nodes_step(nodes, stmt, err);
	if (ret == 1)
		*revision = sqlite3_column_int64(stmt, 0);
	return ret == 1 ? favo_nodes_step(nodes, stmt, err) : FAVO_MIN(ret, 0);
}

/* An optional member of one type, with the members it may have in turn. */
static int get_part(const json_t **out, const json_t *change, const char *key,
		    struct favo_err *err)
{
	static const char *const known[] = {"nodes", "profiles", NULL};
	json_t *part;
	int ret;

	*out = NULL;
	if (!json_object_get(change, key))
		return 0;
	ret = favo_json_object(&part, change, key, err);
	if (ret == 0)
		ret = favo_json_only(part, known, err);
	if (ret == 0)
		*out = part;
	return ret;
}

static int check_types(const json_t *put, const json_t *del, struct favo_err *err)
{
	static const char *const keys[] = {"nodes", "profiles"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(keys); i++) {
		const json_t *map = json_object_get(put, keys[i]);
		const json_t *list = json_object_get(del, keys[i]);

		if (map && !json_is_object(map))
			return favo_fail(err, EINVAL, "put: %s is an object", keys[i]);
		if (list && !json_is_array(list))
			return favo_fail(err, EINVAL, "delete: %s is an array", keys[i]);
	}
	return 0;
}

int favo_nodes_change_held(struct favo_nodes *nodes, const json_t *change,
			   int64_t *revision, struct favo_err *err)
{
	static const char *const known[] = {"base", "put", "delete", "dry_run", NULL};
	const json_t *put = NULL, *del = NULL;
	uint64_t base = UINT64_MAX;
	int ret = favo_json_only(change, known, err);

	if (ret == 0 && json_object_get(change, "base"))
		ret = favo_json_u64(&base, change, "base", 0, INT64_MAX, err);
	if (ret == 0)
		ret = get_part(&put, change, "put", err);
	if (ret == 0)
		ret = get_part(&del, change, "delete", err);
	if (ret == 0)
		ret = check_types(put, del, err);
	if (ret == 0)
		ret = next_revision(nodes, revision, err);
	if (ret == 0)
		ret = drop_list(nodes, FAVO_DEF_NODE, json_object_get(del, "nodes"),
				(int64_t)base, err);
	if (ret == 0)
		ret = drop_list(nodes, FAVO_DEF_PROFILE, json_object_get(del, "profiles"),
				(int64_t)base, err);
	if (ret == 0)
		ret = put_map(nodes, FAVO_DEF_PROFILE, json_object_get(put, "profiles"),
			      (int64_t)base, *revision, err);
	if (ret == 0)
		ret = put_map(nodes, FAVO_DEF_NODE, json_object_get(put, "nodes"),
			      (int64_t)base, *revision, err);
	if (ret == 0)
		ret = check_whole(nodes, err);
	return ret;
}

int favo_nodes_change(struct favo_nodes *nodes, const json_t *change, int64_t *revision,
		      struct favo_err *err)
{
	bool dry = json_is_true(json_object_get(change, "dry_run"));
	int64_t now = 0;
	int ret;

	{
		favo_nodes_hold(nodes);
		ret = favo_nodes_begin(nodes, true, err);
		if (ret < 0)
			return ret;
		ret = favo_nodes_change_held(nodes, change, &now, err);
		if (ret == 0 && dry)
			favo_nodes_end(nodes, -ECANCELED, NULL);
		else
			ret = favo_nodes_end(nodes, ret, err);
	}
	if (ret == 0 && !dry)
		favo_nodes_tell(nodes);
	if (ret == 0 && revision)
		*revision = now;
	return ret;
}

int favo_nodes_set_image_held(struct favo_nodes *nodes, const char *name,
			      const char *image, struct favo_err *err)
{
	favo_autojson json_t *def = NULL;
	favo_autofree char *text = NULL;
	int64_t revision = 0;
	int ret;

	{
		favo_autostmt sqlite3_stmt *stmt = NULL;

		ret = favo_nodes_query(nodes, &stmt,
				       "SELECT def FROM definitions WHERE kind = 0 AND "
				       "name = ?1",
				       err, "s", name);
		if (ret == 0)
			ret = favo_nodes_step(nodes, stmt, err);
		if (ret == 0)
			return favo_fail(err, ENOENT, "there is no node %.63s", name);
		if (ret == 1)
			def = json_loads(favo_nodes_text(stmt, 0), 0, NULL);
	}
	if (ret > 0)
		ret = next_revision(nodes, &revision, err);
	if (ret < 0)
		return ret;
	if (image)
		json_object_set_new(def, "image", json_string(image));
	else
		json_object_del(def, "image");
	ret = favo_json_canonical(&text, NULL, def, err);
	if (ret == 0)
		ret = favo_nodes_exec(
			nodes,
			"UPDATE definitions SET def = ?2, revision = ?3 WHERE "
			"kind = 0 AND name = ?1",
			err, "ssi", name, text, revision);
	return ret;
}

int favo_nodes_set_image(struct favo_nodes *nodes, const char *name, const char *image,
			 struct favo_err *err)
{
	struct favo_digest id;
	int ret = image ? favo_nodes_find_image(nodes, image, &id, err) : 0;

	if (ret < 0)
		return ret;
	{
		favo_nodes_hold(nodes);
		ret = favo_nodes_begin(nodes, true, err);
		if (ret < 0)
			return ret;
		ret = favo_nodes_set_image_held(nodes, name, image, err);
		ret = favo_nodes_end(nodes, ret, err);
	}
	if (ret == 0)
		favo_nodes_tell(nodes);
	return ret;
}
