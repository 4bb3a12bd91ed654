// SPDX-License-Identifier: GPL-2.0-or-later
/* favo node: the site's nodes, what they should boot and what they run. */
#include "provision/cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/options.h"
#include "common/util.h"
#include "provision/cli/node_edit.h"
#include "provision/cli/node_list.h"

struct args {
	bool json;
	bool unknown;
	bool profiles;
};

static const struct favo_opt ls_rows[] = {
	FAVO_OPT_FLAG("unknown", struct args, unknown, FAVO_FROM_CLI,
		      "machines that asked to boot and are no nodes"),
	FAVO_OPT_FLAG("profiles", struct args, profiles, FAVO_FROM_CLI, "profiles"),
	FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
};

static const struct favo_opt show_rows[] = {
	FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
};

static const char *text_of(const json_t *obj, const char *key)
{
	return json_string_value(json_object_get(obj, key));
}

static int64_t number_of(const json_t *obj, const char *key)
{
	return json_integer_value(json_object_get(obj, key));
}

/* What a reboot would do, in a word. */
static const char *reboot_word(const json_t *node)
{
	const char *word = text_of(node, "reboot");

	if (!word || strcmp(word, "none") == 0)
		return NULL;
	return strcmp(word, "same") == 0     ? "same"
	       : strcmp(word, "change") == 0 ? "CHANGES"
					     : "?";
}

static bool is_wanted(const json_t *names, const char *name)
{
	const json_t *one;
	size_t i;

	json_array_foreach(names, i, one)
	{
		if (strcmp(json_string_value(one), name) == 0)
			return true;
	}
	return !names;
}

static int print_nodes(const json_t *reply, const json_t *names, struct favo_err *err)
{
	static const char *const heads[] = {"NODE",   "IMAGE",	  "WANTED",
					    "BOOTED", "REBOOT",	  "PHASE",
					    ">VMS",   "REPORTED", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *n;
	size_t i;

	json_array_foreach(json_object_get(reply, "nodes"), i, n)
	{
		char wanted[20], booted[20], vms[24], age[32], image[80];
		const char *name = text_of(n, "name");
		const char *full = text_of(json_object_get(n, "effective"), "image");
		int64_t heard =
			FAVO_MAX(number_of(n, "reported"), number_of(n, "updated"));

		if (!is_wanted(names, name))
			continue;
		snprintf(image, sizeof(image), "%s", full ? full : "-");
		/* the digest has a column of its own */
		image[strcspn(image, "@")] = '\0';
		snprintf(vms, sizeof(vms), "%" PRId64, number_of(n, "vms"));
		favo_table_row(table, name, image,
			       text_of(n, "fault")
				       ? "MISSING"
				       : favo_cli_short_digest(wanted,
							       text_of(n, "wanted")),
			       favo_cli_short_digest(booted, text_of(n, "booted")),
			       reboot_word(n), text_of(n, "phase"),
			       json_object_get(n, "version") ? vms : NULL,
			       favo_cli_age(age, heard, number_of(reply, "now")));
	}
	return favo_table_print(table, err);
}

static int print_unknown(const json_t *reply, struct favo_err *err)
{
	static const char *const heads[] = {"MAC",  "UUID", "ADDRESS",
					    "ARCH", "SEEN", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *n;
	char age[32];
	size_t i;

	json_array_foreach(json_object_get(reply, "unknown"), i, n)
	{
		favo_table_row(table, text_of(n, "mac"), text_of(n, "uuid"),
			       text_of(n, "address"), text_of(n, "arch"),
			       favo_cli_age(age, number_of(n, "last"),
					    number_of(reply, "now")));
	}
	return favo_table_print(table, err);
}

/* "key  value" for every member, nested ones as JSON. */
static void print_members(const json_t *obj, const char *indent)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)obj, key, value)
	{
		favo_autofree char *text =
			json_is_string(value)
				? strdup(json_string_value(value))
				: json_dumps(value, JSON_ENCODE_ANY | JSON_SORT_KEYS);

		if (!json_is_null(value))
			printf("%s%-12s %s\n", indent, key, text ? text : "?");
	}
}

static int print_profiles(const json_t *reply)
{
	const char *name;
	json_t *profile;

	json_object_foreach(json_object_get(reply, "profiles"), name, profile)
	{
		printf("%s\n", name);
		print_members(json_object_get(profile, "definition"), "  ");
	}
	return 0;
}

static int run_ls(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[OPTION]... [NODES]",
		.about =
			"List nodes: what they should boot, what they run, and whether a "
			"reboot would change that.",
		.table = ls_rows,
		.n = FAVO_ARRAY_SIZE(ls_rows),
		.target = &args,
	};
	favo_autojson json_t *reply = NULL, *names = NULL;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 0, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0 && first < argc)
		ret = favo_cli_nodes_expand(&names, reply, argv[first], true, err);
	if (ret < 0)
		return ret;
	if ((args.unknown || args.profiles) && !json_object_get(reply, "unknown"))
		return favo_fail(err, EACCES, "root and node_admins may see this");
	if (args.json)
		return favo_cli_print_json(reply, err);
	if (args.unknown)
		return print_unknown(reply, err);
	return args.profiles ? print_profiles(reply) : print_nodes(reply, names, err);
}

static int run_show(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] NODES",
		.about = "Show all that is known of nodes, profiles applied.",
		.table = show_rows,
		.n = FAVO_ARRAY_SIZE(show_rows),
		.target = &args,
	};
	favo_autojson json_t *reply = NULL, *names = NULL, *list = json_array();
	const json_t *one;
	int first, ret;
	size_t i;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &reply, err);
	if (ret == 0)
		ret = favo_cli_nodes_expand(&names, reply, argv[first], true, err);
	if (ret < 0)
		return ret;
	json_array_foreach(names, i, one)
	{
		json_t *node = favo_cli_nodes_find(reply, json_string_value(one));

		json_array_append(list, node);
		if (args.json)
			continue;
		printf("%s\n", json_string_value(one));
		print_members(json_object_get(node, "effective"), "  ");
		json_object_del(node, "effective");
		json_object_del(node, "definition");
		json_object_del(node, "checks");
		json_object_del(node, "name");
		print_members(node, "  ");
	}
	return args.json ? favo_cli_print_json(list, err) : 0;
}

static const struct favo_cli_verb verbs[] = {
	{"ls", "[--json] [--unknown] [NODES]",
	 "nodes, what they should boot and what they run", run_ls},
	{"show", "[--json] NODES", "all that is known of nodes", run_show},
	{"add", "NODES [FIELD=VALUE]...", "make nodes", favo_cli_node_add},
	{"set", "NODES FIELD=VALUE...", "change fields of nodes", favo_cli_node_set},
	{"edit", "NODES", "change nodes in an editor", favo_cli_node_edit},
	{"rm", "NODES", "forget nodes", favo_cli_node_rm},
	{"adopt", "MAC NODE [FIELD=VALUE]...", "make a node of an unknown machine",
	 favo_cli_node_adopt},
	{"export", "[NODES]", "print definitions as JSON", favo_cli_node_export},
	{"import", "[--warewulf] FILE", "take definitions from a file",
	 favo_cli_node_import},
	{0},
};

const struct favo_cli_noun favo_cli_node = {
	.name = "node",
	.about = "compute nodes",
	.verbs = verbs,
};
