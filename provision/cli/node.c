// SPDX-License-Identifier: GPL-2.0-or-later
/* favo node: the nodes that report to favod. */
#include "provision/cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <time.h>

#include "common/json.h"
#include "common/options.h"
#include "common/util.h"

struct args {
	bool json;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
};

static void print_age(char *buf, size_t size, int64_t then)
{
	int64_t age = (int64_t)time(NULL) - then;

	if (age < 120)
		snprintf(buf, size, "%" PRId64 " s ago", age < 0 ? 0 : age);
	else if (age < 7200)
		snprintf(buf, size, "%" PRId64 " min ago", age / 60);
	else
		snprintf(buf, size, "%" PRId64 " h ago", age / 3600);
}

static int print_nodes(const json_t *reply, struct favo_err *err)
{
	static const char *const heads[] = {"NODE", "VERSION", ">VMS", "REPORTED", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *nodes = json_object_get(reply, "nodes"), *n;
	char vms[16], age[32];
	size_t i;

	json_array_foreach(nodes, i, n)
	{
		if (!json_object_get(n, "version"))
			continue;
		snprintf(vms, sizeof(vms), "%" JSON_INTEGER_FORMAT,
			 json_integer_value(json_object_get(n, "vms")));
		print_age(age, sizeof(age),
			  json_integer_value(json_object_get(n, "updated")));
		favo_table_row(table, json_string_value(json_object_get(n, "name")),
			       json_string_value(json_object_get(n, "version")), vms,
			       age);
	}
	return favo_table_print(table, err);
}

static int run_ls(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json]",
		.about = "List the nodes that have reported to favod.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autojson json_t *reply = NULL;
	struct favo_http *http;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 0, 0, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_http(cli, &http, err);
	if (ret == 0)
		ret = favo_http_json(http, "GET", "/v1/nodes", NULL, &reply, err);
	if (ret < 0)
		return ret;
	return args.json ? favo_cli_print_json(reply, err) : print_nodes(reply, err);
}

static const struct favo_cli_verb verbs[] = {
	{"ls", "[--json]", "nodes that report to favod, and how many VMs they run",
	 run_ls},
	{0},
};

const struct favo_cli_noun favo_cli_node = {
	.name = "node",
	.about = "compute nodes",
	.verbs = verbs,
};
