// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Verbs of favo node that change something. favod checks what they send, as a
 * whole, and refuses what was changed by somebody else meanwhile.
 */
#include "provision/cli/node_edit.h"

#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/options.h"
#include "common/util.h"
#include "provision/cli/node_list.h"
#include "provision/cli/warewulf.h"

#define FILE_MAX (16u << 20)
#define WORDS_MAX 200

struct args {
	bool profile;
	bool dry_run;
	bool warewulf;
};

#define ROW_PROFILE                                                                      \
	FAVO_OPT_FLAG("profile", struct args, profile, FAVO_FROM_CLI,                    \
		      "NODES are profiles, not nodes")
#define ROW_DRY                                                                          \
	FAVO_OPT_FLAG("dry-run", struct args, dry_run, FAVO_FROM_CLI,                    \
		      "check only; nothing is changed")

static const struct favo_opt rows[] = {ROW_PROFILE, ROW_DRY};
static const struct favo_opt import_rows[] = {
	FAVO_OPT_FLAG("warewulf", struct args, warewulf, FAVO_FROM_CLI,
		      "the file is a nodes.conf of Warewulf"),
	ROW_DRY,
};

static const struct {
	const char *word, *field;
	bool list;
} fields[] = {
	{"mac", "macs", true},
	{"macs", "macs", true},
	{"uuid", "uuid", false},
	{"address", "addresses", true},
	{"addresses", "addresses", true},
	{"gateway", "gateway", false},
	{"group", "groups", true},
	{"groups", "groups", true},
	{"profile", "profiles", true},
	{"profiles", "profiles", true},
	{"console", "console", false},
	{"power", "power", false},
	{"image", "image", false},
	{"kernel_args", "kernel_args", false},
};

static size_t find_text(const json_t *list, const char *text)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		if (strcmp(json_string_value(one), text) == 0)
			return i;
	}
	return SIZE_MAX;
}

/* "=": these words; "+": those it has and these; "-": without these. */
static void set_list(json_t *def, const char *field, char op, const char *value)
{
	json_t *list =
		op == '=' ? json_array() : json_deep_copy(json_object_get(def, field));
	size_t len;

	if (!list)
		list = json_array();
	for (; *value; value += len + (value[len] == ',')) {
		favo_autofree char *word = NULL;
		size_t at;

		len = strcspn(value, ",");
		word = strndup(value, len);
		if (!word || !len)
			continue;
		at = find_text(list, word);
		if (op == '-' && at != SIZE_MAX)
			json_array_remove(list, at);
		else if (op != '-' && at == SIZE_MAX)
			json_array_append_new(list, json_string(word));
	}
	json_object_set_new(def, field, list);
}

static int set_tag(json_t *def, const char *key, const char *value)
{
	json_t *tags = json_object_get(def, "tags");

	if (!tags) {
		tags = json_object();
		json_object_set_new(def, "tags", tags);
	}
	return *value ? json_object_set_new(tags, key, json_string(value))
		      : (json_object_del(tags, key), 0);
}

/* "image=NAME", "groups+=a,b", "tag.rack=7" */
static int set_field(json_t *def, const char *word, struct favo_err *err)
{
	size_t len = strcspn(word, "=");
	char op = len && word[len] && strchr("+-", word[len - 1]) ? word[len - 1] : '=';
	favo_autofree char *key = strndup(word, len - (op != '='));
	const char *value = word + len + 1;

	if (!word[len] || !key || !*key)
		return favo_cli_usage(err, "\"%s\" is no FIELD=VALUE", word);
	if (strncmp(key, "tag.", 4) == 0 && op == '=') {
		set_tag(def, key + 4, value);
		return 0;
	}
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(fields); i++) {
		if (strcmp(fields[i].word, key) != 0)
			continue;
		if (fields[i].list)
			set_list(def, fields[i].field, op, value);
		else if (op == '=')
			json_object_set_new(def, fields[i].field, json_string(value));
		else
			return favo_cli_usage(err, "%s holds one value: use %s=", key,
					      key);
		return 0;
	}
	return favo_cli_usage(err,
			      "there is no field \"%s\"; there are mac, uuid, address, "
			      "gateway, groups, profiles, console, power, image, "
			      "kernel_args and tag.NAME",
			      key);
}

static int send_change(struct favo_cli *cli, json_t *change, bool dry,
		       struct favo_err *err)
{
	struct favo_http *http;
	int ret = favo_cli_http(cli, &http, err);

	if (dry)
		json_object_set_new(change, "dry_run", json_true());
	return ret < 0 ? ret
		       : favo_http_json(http, "POST", "/v1/nodes", change, NULL, err);
}

/* What is there now: a node or a profile, with "definition" and "revision". */
static json_t *find_old(const json_t *reply, const char *name, bool profile)
{
	return profile ? json_object_get(json_object_get(reply, "profiles"), name)
		       : favo_cli_nodes_find(reply, name);
}

/* Latest revision that we have seen of any of them. */
static int64_t base_of(const json_t *reply, const json_t *names, bool profile)
{
	const json_t *one;
	int64_t base = 0;
	size_t i;

	json_array_foreach(names, i, one)
	{
		const json_t *old = find_old(reply, json_string_value(one), profile);
		int64_t revision = json_integer_value(json_object_get(old, "revision"));

		base = FAVO_MAX(base, revision);
	}
	return base;
}

static int get_names(json_t **names, const json_t *reply, const char *text, bool profile,
		     bool known, struct favo_err *err)
{
	const json_t *one;
	size_t i;
	int ret;

	if (!json_object_get(reply, "profiles"))
		return favo_fail(
			err, EACCES,
			"only root and the users of node_admins in favo.conf may "
			"change nodes");
	ret = favo_cli_nodes_expand(names, reply, text, known && !profile, err);
	if (ret < 0 || !profile || !known)
		return ret;
	json_array_foreach(*names, i, one)
	{
		if (!find_old(reply, json_string_value(one), true))
			return favo_fail(err, ENOENT, "there is no profile %s",
					 json_string_value(one));
	}
	return 0;
}

/* Change every one of names by words, and send it. */
static int put_all(struct favo_cli *cli, const json_t *reply, const json_t *names,
		   const struct args *args, char **words, struct favo_err *err)
{
	favo_autojson json_t *map = json_object(), *change = NULL;
	const json_t *one;
	size_t i;

	json_array_foreach(names, i, one)
	{
		const char *name = json_string_value(one);
		const json_t *old = json_object_get(find_old(reply, name, args->profile),
						    "definition");
		json_t *def = old ? json_deep_copy(old) : json_object();

		json_object_set_new(map, name, def);
		for (char **w = words; *w; w++) {
			int ret = set_field(def, *w, err);

			if (ret < 0)
				return ret;
		}
	}
	change = json_pack("{s:{s:O} s:I}", "put", args->profile ? "profiles" : "nodes",
			   map, "base", (json_int_t)base_of(reply, names, args->profile));
	return change ? send_change(cli, change, args->dry_run, err)
		      : favo_fail(err, EINVAL, "the words are not UTF-8 text");
}

static int add_or_set(struct favo_cli *cli, int argc, char **argv, bool add,
		      struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = add ? "[OPTION]... NODES [FIELD=VALUE]..."
				: "[OPTION]... NODES FIELD=VALUE...",
		.about = add ? "Make nodes with these fields."
			     : "Change fields of nodes. An empty value takes a field "
			       "away; "
			       "groups+=NAME and groups-=NAME change a list.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autojson json_t *reply = NULL, *names = NULL;
	const json_t *one;
	int first, ret;
	size_t i;

	ret = favo_cli_options(&opts, argc, argv, add ? 1 : 2, WORDS_MAX, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0)
		ret = get_names(&names, reply, argv[first], args.profile, !add, err);
	json_array_foreach(names, i, one)
	{
		if (ret == 0 && add &&
		    find_old(reply, json_string_value(one), args.profile))
			ret = favo_fail(err, EEXIST,
					"%s exists; favo node set changes it",
					json_string_value(one));
	}
	return ret < 0 ? ret : put_all(cli, reply, names, &args, argv + first + 1, err);
}

int favo_cli_node_add(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return add_or_set(cli, argc, argv, true, err);
}

int favo_cli_node_set(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return add_or_set(cli, argc, argv, false, err);
}

int favo_cli_node_rm(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[OPTION]... NODES",
		.about = "Forget nodes, or profiles that no node has.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autojson json_t *reply = NULL, *names = NULL, *change = NULL;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0)
		ret = get_names(&names, reply, argv[first], args.profile, true, err);
	if (ret < 0)
		return ret;
	change = json_pack("{s:{s:O}}", "delete", args.profile ? "profiles" : "nodes",
			   names);
	return send_change(cli, change, args.dry_run, err);
}

int favo_cli_node_adopt(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "MAC NODE [FIELD=VALUE]...",
		.about = "Make a node of a machine that favo node ls --unknown shows.",
		.table = rows + 1,
		.n = 1,
		.target = &args,
	};
	favo_autojson json_t *reply = NULL, *names = NULL;
	const json_t *one, *found = NULL;
	char *words[WORDS_MAX + 3] = {0};
	favo_autofree char *mac = NULL, *uuid = NULL;
	int first, ret, n = 0;
	size_t i;

	ret = favo_cli_options(&opts, argc, argv, 2, WORDS_MAX, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0)
		ret = get_names(&names, reply, argv[first + 1], false, false, err);
	if (ret < 0)
		return ret;
	json_array_foreach(json_object_get(reply, "unknown"), i, one)
	{
		if (strcasecmp(json_string_value(json_object_get(one, "mac")),
			       argv[first]) == 0)
			found = one;
	}
	if (!found)
		return favo_fail(
			err, ENOENT,
			"no unknown machine has the MAC address %s; favo node ls "
			"--unknown lists them",
			argv[first]);
	if (json_array_size(names) != 1 || favo_cli_nodes_find(reply, argv[first + 1]))
		return favo_fail(
			err, EEXIST,
			"%s is not one new name; favo node set gives a node that "
			"exists another MAC address",
			argv[first + 1]);
	mac = favo_asprintf("mac=%s", json_string_value(json_object_get(found, "mac")));
	words[n++] = mac;
	if (json_is_string(json_object_get(found, "uuid"))) {
		uuid = favo_asprintf("uuid=%s",
				     json_string_value(json_object_get(found, "uuid")));
		words[n++] = uuid;
	}
	for (int w = first + 2; w < argc; w++)
		words[n++] = argv[w];
	if (!mac)
		return favo_fail(err, ENOMEM, "adopt: %m");
	return put_all(cli, reply, names, &args, words, err);
}

/* {"nodes":{..},"profiles":{..}}: what import takes. */
static json_t *definitions(const json_t *reply, const json_t *names, bool profiles)
{
	favo_autojson json_t *nodes = json_object(), *defs = json_object();
	const char *name;
	const json_t *one;
	json_t *profile;
	size_t i;

	json_array_foreach(names, i, one)
	{
		json_object_set(nodes, json_string_value(one),
				json_object_get(favo_cli_nodes_find(
							reply, json_string_value(one)),
						"definition"));
	}
	json_object_foreach(json_object_get(reply, "profiles"), name, profile)
	{
		json_object_set(defs, name, json_object_get(profile, "definition"));
	}
	return profiles ? json_pack("{s:O s:O}", "nodes", nodes, "profiles", defs)
			: json_pack("{s:O}", "nodes", nodes);
}

int favo_cli_node_export(struct favo_cli *cli, int argc, char **argv,
			 struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[NODES]",
		.about =
			"Print definitions of nodes, and without NODES also of profiles, "
			"as favo node import takes them.",
	};
	favo_autojson json_t *reply = NULL, *names = NULL, *out = NULL;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 0, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0)
		ret = get_names(&names, reply, first < argc ? argv[first] : "all", false,
				true, err);
	if (ret == -ENOENT && first == argc) {
		names = json_array();
		ret = 0;
	}
	if (ret < 0)
		return ret;
	out = definitions(reply, names, first == argc);
	return favo_cli_print_json(out, err);
}

static int load_file(json_t **out, const char *path, bool warewulf, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len;
	int ret = favo_file_read(path, FILE_MAX, &text, &len, err);

	if (ret < 0)
		return ret;
	ret = warewulf ? favo_warewulf_parse(out, text, len, err)
		       : favo_json_parse(out, text, len, err);
	return ret < 0 ? favo_wrap(err, ret, "%s", path) : 0;
}

int favo_cli_node_import(struct favo_cli *cli, int argc, char **argv,
			 struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[OPTION]... FILE",
		.about = "Take definitions of nodes and profiles from a file, all or "
			 "none. "
			 "Those of the same name are replaced, others stay.",
		.table = import_rows,
		.n = FAVO_ARRAY_SIZE(import_rows),
		.target = &args,
	};
	static const char *const known[] = {"nodes", "profiles", NULL};
	favo_autojson json_t *file = NULL, *change = NULL;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = load_file(&file, argv[first], args.warewulf, err);
	if (ret == 0)
		ret = favo_json_only(file, known, err);
	if (ret < 0)
		return ret;
	change = json_pack("{s:O}", "put", file);
	ret = send_change(cli, change, args.dry_run, err);
	if (ret == 0)
		printf("%zu nodes and %zu profiles %s\n",
		       json_object_size(json_object_get(file, "nodes")),
		       json_object_size(json_object_get(file, "profiles")),
		       args.dry_run ? "are good" : "taken");
	return ret;
}

/* EDITOR may have words, as "emacs -nw" has; no shell looks at them. */
static int run_editor(const char *path, struct favo_err *err)
{
	const char *editor = getenv("VISUAL") ? getenv("VISUAL") : getenv("EDITOR");
	favo_autofree char *words = strdup(editor && *editor ? editor : "vi");
	char *argv[16] = {0}, *save = NULL, *word;
	size_t n = 0;
	pid_t pid;
	int status, ret;

	word = words ? strtok_r(words, " ", &save) : NULL;
	for (; word && n < FAVO_ARRAY_SIZE(argv) - 2; word = strtok_r(NULL, " ", &save))
		argv[n++] = word;
	if (!n)
		return favo_fail(err, EINVAL, "VISUAL or EDITOR holds no program");
	argv[n] = (char *)(uintptr_t)path;
	ret = posix_spawnp(&pid, argv[0], NULL, NULL, argv, environ);
	if (ret)
		return favo_fail(err, ret, "%s: %m", argv[0]);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (status != 0)
		return favo_fail(err, ECANCELED,
				 "%s did not end well; nothing is changed", argv[0]);
	return 0;
}

/* Write, edit, read back. The file stays when favod refuses what is in it. */
static int edit_file(struct favo_cli *cli, const json_t *defs, int64_t base,
		     const char *path, struct favo_err *err)
{
	favo_autofree char *text = json_dumps(defs, JSON_INDENT(2) | JSON_SORT_KEYS);
	favo_autojson json_t *edited = NULL, *change = NULL;
	int ret = text ? favo_file_replace(path, text, strlen(text), 0600, err)
		       : favo_fail(err, ENOMEM, "edit: %m");

	if (ret == 0)
		ret = run_editor(path, err);
	if (ret < 0)
		return ret;
	ret = load_file(&edited, path, false, err);
	if (ret == 0 && json_equal(edited, defs)) {
		printf("nothing is changed\n");
	} else if (ret == 0) {
		change = json_pack("{s:O s:I}", "put", edited, "base", (json_int_t)base);
		ret = send_change(cli, change, false, err);
	}
	if (ret < 0)
		fprintf(stderr, "your text is still in %s\n", path);
	else
		unlink(path);
	return ret;
}

int favo_cli_node_edit(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "NODES",
		.about = "Change definitions of nodes in $VISUAL or $EDITOR.",
	};
	favo_autojson json_t *reply = NULL, *names = NULL, *defs = NULL;
	char path[] = "/tmp/favo-nodes-XXXXXX";
	favo_autoclose int fd = -1;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0)
		ret = get_names(&names, reply, argv[first], false, true, err);
	if (ret < 0)
		return ret;
	fd = mkstemp(path);
	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", path);
	defs = definitions(reply, names, false);
	return edit_file(cli, defs, base_of(reply, names, false), path, err);
}
