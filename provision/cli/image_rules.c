// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo image allow and rules: who may run which images. Root on favod's host
 * writes the store itself, everybody else asks favod, who lets owners and
 * image_admins.
 */
#include "provision/cli/image_rules.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/json.h"
#include "common/options.h"
#include "common/util.h"
#include "images/store.h"
#include "provision/cli/target.h"

#define HISTORY_MAX FAVO_STORE_HISTORY_MAX

/* "alice,@staff" of the words alice and @staff; NULL when memory is out. */
static char *join(char **words, int n)
{
	char *all = strdup(words[0]), *longer;

	for (int i = 1; all && i < n; i++) {
		longer = favo_asprintf("%s,%s", all, words[i]);
		free(all);
		all = longer;
	}
	return all;
}

static int allow(struct favo_cli *cli, const char *pattern, const char *who,
		 struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("/v1/rules/%s", pattern);
	favo_autojson json_t *body = json_pack("{s:s}", "allow", who);
	favo_autostore struct favo_store *store = NULL;
	const struct passwd *pw = getpwuid(geteuid());
	struct favo_http *http;
	int ret;

	if (!path || !body)
		return favo_fail(err, ENOMEM, "out of memory");
	if (favo_cli_has_store(cli)) {
		ret = favo_store_open(&store, cli->conf.store_dir, 0, err);
		return ret < 0 ? ret
			       : favo_store_allow(store, pattern, who,
						  pw ? pw->pw_name : "root", err);
	}
	ret = favo_cli_http(cli, &http, err);
	return ret < 0 ? ret : favo_http_json(http, "PUT", path, body, NULL, err);
}

int favo_cli_image_allow(struct favo_cli *cli, int argc, char **argv,
			 struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "NAME|REPO/ USER|@GROUP...|all",
		.about = "Say who may start VMs of an image, or of all images of a "
			 "repository; the rule takes the place of the former one. Its "
			 "owner always may.",
	};
	favo_autofree char *who = NULL;
	struct favo_image_name name;
	struct favo_err reason = {0};
	int first, ret = favo_cli_options(&opts, argc, argv, 2, 200, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_store_rule_name(argv[first], &name, &reason);
	if (ret < 0)
		return favo_cli_usage(err, "%s", reason.msg);
	who = join(argv + first + 1, argc - first - 1);
	return who ? allow(cli, argv[first], who, err)
		   : favo_fail(err, ENOMEM, "out of memory");
}

/* ---- rules ---- */

static int add_rule(const struct favo_store_rule *rule, void *user, struct favo_err *err)
{
	json_t *entry =
		json_pack("{s:s s:s s:s s:I}", "image", rule->pattern, "allow", rule->who,
			  "by", rule->by, "time", (json_int_t)rule->time);

	return entry && json_array_append_new(user, entry) == 0
		       ? 0
		       : favo_fail(err, ENOMEM, "out of memory");
}

/* All rules, or with a pattern what this one was before, too. */
static int store_rules(struct favo_cli *cli, const char *pattern, json_t *list,
		       struct favo_err *err)
{
	favo_autostore struct favo_store *store = NULL;
	favo_autofree struct favo_store_rule *rules = calloc(HISTORY_MAX, sizeof(*rules));
	size_t n = 0;
	int ret = rules ? favo_store_open(&store, cli->conf.store_dir, 0, err)
			: favo_fail(err, ENOMEM, "out of memory");

	if (ret < 0)
		return ret;
	if (!pattern)
		return favo_store_rules(store, add_rule, list, err);
	ret = favo_store_rule_history(store, pattern, rules, HISTORY_MAX, &n, err);
	if (ret == -ENOENT)
		return favo_fail(err, ENOENT, "%s has no rule: everybody may run it",
				 pattern);
	for (size_t i = 0; ret == 0 && i < n; i++)
		ret = add_rule(&rules[i], list, err);
	return ret;
}

/* favod tells the rules that count now. */
static int favod_rules(struct favo_cli *cli, const char *pattern, json_t *list,
		       struct favo_err *err)
{
	favo_autojson json_t *reply = NULL;
	struct favo_http *http;
	json_t *rule;
	size_t i;
	int ret = favo_cli_http(cli, &http, err);

	if (ret == 0)
		ret = favo_http_json(http, "GET", "/v1/rules", NULL, &reply, err);
	if (ret < 0)
		return ret;
	json_array_foreach(json_object_get(reply, "rules"), i, rule)
	{
		const char *image = json_string_value(json_object_get(rule, "image"));

		if (!pattern || (image && strcmp(image, pattern) == 0))
			json_array_append(list, rule);
	}
	return 0;
}

static int print_rules(const json_t *list, struct favo_err *err)
{
	static const char *const heads[] = {"IMAGE", "ALLOW", "BY", "SINCE", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *rule;
	size_t i;

	if (!table)
		return favo_fail(err, ENOMEM, "out of memory");
	json_array_foreach(list, i, rule)
	{
		time_t when = (time_t)json_integer_value(json_object_get(rule, "time"));
		char date[32] = "-";
		struct tm tm;

		if (localtime_r(&when, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
		favo_table_row(table, json_string_value(json_object_get(rule, "image")),
			       json_string_value(json_object_get(rule, "allow")),
			       json_string_value(json_object_get(rule, "by")), date);
	}
	return favo_table_print(table, err);
}

int favo_cli_image_rules(struct favo_cli *cli, int argc, char **argv,
			 struct favo_err *err)
{
	struct args {
		bool json;
	} args = {0};
	static const struct favo_opt rows[] = {
		FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
	};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] [NAME|REPO/]",
		.about = "Who may run which images; everybody, where there is no rule. "
			 "With a name on favod's host, also what its rule was before.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autojson json_t *list = json_array(), *all = NULL;
	const char *pattern;
	int first, ret = favo_cli_options(&opts, argc, argv, 0, 1, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	pattern = first < argc ? argv[first] : NULL;
	if (!list)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_cli_has_store(cli) ? store_rules(cli, pattern, list, err)
				      : favod_rules(cli, pattern, list, err);
	if (ret < 0)
		return ret;
	if (!args.json)
		return print_rules(list, err);
	all = json_pack("{s:O}", "rules", list);
	return all ? favo_cli_print_json(all, err)
		   : favo_fail(err, ENOMEM, "out of memory");
}
