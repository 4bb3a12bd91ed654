// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo doctor: checks the whole chain and says what mends it. Without words
 * this host, Slurm and all nodes; with a node's name that node; with a job's
 * number the job and its nodes. The exit status is 1 when anything failed.
 */
#include "config.h"
#include "provision/cli/doctor.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"

#define SILENT_S 120 /* nodes report every 30 s */
#define SKEW_MS 10000 /* far below MUNGE's 300 s, far above a slow report */

struct args {
	bool json;
	bool test_job;
	char *image;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
	FAVO_OPT_FLAG("test-job", struct args, test_job, FAVO_FROM_CLI,
		      "run a small job in VMs on up to two nodes, too"),
	FAVO_OPT_STR("image", "NAME", struct args, image, FAVO_FROM_CLI, "",
		     "image of the test job (default: the first of the store)"),
};

void favo_doctor_add(json_t *results, const char *where, const char *check,
		     enum favo_verdict verdict, const char *remedy, const char *what, ...)
{
	static const char *const words[] = {"ok", "-", "FAILED"};
	char text[700];
	json_t *row;
	va_list ap;

	va_start(ap, what);
	vsnprintf(text, sizeof(text), what, ap);
	va_end(ap);
	row = json_pack("{s:s, s:s, s:s, s:s}", "where", where, "check", check, "result",
			words[verdict], "what", text);
	if (row && remedy)
		json_object_set_new(row, "remedy", json_string(remedy));
	json_array_append_new(results, row);
}

static const char *text_of(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text ? text : "";
}

static int64_t number_of(const json_t *object, const char *key)
{
	return json_integer_value(json_object_get(object, key));
}

/* ---- nodes ---- */

/* What favod knows of a node: all of its checks, or only those that failed. */
static void show_node(const json_t *node, int64_t now, bool all, json_t *results)
{
	const json_t *checks = json_object_get(node, "checks");
	const char *name = text_of(node, "name"), *version = text_of(node, "version");
	int64_t age = now - number_of(node, "updated");
	int64_t skew = number_of(node, "skew_ms");
	json_t *row;
	size_t i;

	if (age > SILENT_S)
		favo_doctor_add(results, name, "report", FAVO_CHECK_FAULT,
				"on the node: systemctl status favo-noded",
				"favod heard of it %" PRId64 " s ago", age);
	else if (strcmp(version, PACKAGE_VERSION) != 0)
		favo_doctor_add(results, name, "report", FAVO_CHECK_FAULT,
				"install one version on all hosts",
				"favo-noded has version %s, this host %s", version,
				PACKAGE_VERSION);
	else if (all)
		favo_doctor_add(results, name, "report", FAVO_CHECK_GOOD, NULL,
				"version %s, %" PRId64 " s ago", version, age);
	if (llabs(skew) > SKEW_MS)
		favo_doctor_add(results, name, "clock", FAVO_CHECK_FAULT,
				"run an NTP client on the node and on favod's host",
				"%" PRId64 " s %s favod's", (int64_t)llabs(skew) / 1000,
				skew < 0 ? "behind" : "before");
	json_array_foreach(checks, i, row)
	{
		if (!all && strcmp(text_of(row, "result"), "FAILED") != 0)
			continue;
		json_object_set_new(row, "where", json_string(name));
		json_array_append(results, row);
	}
}

static int get_nodes(struct favo_cli *cli, json_t **reply, struct favo_err *err)
{
	struct favo_http *http;
	int ret = favo_cli_http(cli, &http, err);

	return ret < 0 ? ret : favo_http_json(http, "GET", "/v1/nodes", NULL, reply, err);
}

/* A line for each fault, and one for all that is well. */
static void all_nodes(struct favo_cli *cli, json_t *results)
{
	favo_autojson json_t *reply = NULL;
	struct favo_err err = {0};
	const json_t *nodes, *node;
	size_t i, before, good = 0, agents = 0;

	if (get_nodes(cli, &reply, &err) < 0)
		return; /* the check of favod said so */
	nodes = json_object_get(reply, "nodes");
	json_array_foreach(nodes, i, node)
	{
		/* in the database, but no agent of it ever reported */
		if (!json_object_get(node, "version"))
			continue;
		agents++;
		before = json_array_size(results);
		show_node(node, number_of(reply, "now"), false, results);
		good += json_array_size(results) == before;
	}
	if (agents == 0)
		favo_doctor_add(results, "nodes", "report", FAVO_CHECK_FAULT,
				"on each compute node: systemctl start favo-noded",
				"no node has reported to favod");
	else
		favo_doctor_add(results, "nodes", "report",
				good ? FAVO_CHECK_GOOD : FAVO_CHECK_NOTE, NULL,
				"%zu of %zu are well", good, agents);
}

static int one_node(struct favo_cli *cli, const char *name, json_t *results,
		    struct favo_err *err)
{
	favo_autojson json_t *reply = NULL;
	const json_t *node;
	size_t i;
	int ret = get_nodes(cli, &reply, err);

	if (ret < 0)
		return ret;
	json_array_foreach(json_object_get(reply, "nodes"), i, node)
	{
		if (strcmp(text_of(node, "name"), name) != 0)
			continue;
		show_node(node, number_of(reply, "now"), true, results);
		return 0;
	}
	return favo_fail(err, ENOENT,
			 "no node %s has reported to favod; is its name right, and does "
			 "favo-noded run there?",
			 name);
}

/* ---- jobs ---- */

static void show_member(const json_t *member, json_t *results)
{
	const json_t *error = json_object_get(member, "error");
	favo_autofree char *where = favo_asprintf("%s on %s", text_of(member, "name"),
						  text_of(member, "node"));

	if (error)
		favo_doctor_add(results, where ? where : "VM", text_of(error, "phase"),
				FAVO_CHECK_FAULT, text_of(error, "remedy"), "%s",
				text_of(error, "cause"));
	else
		favo_doctor_add(results, where ? where : "VM", "state", FAVO_CHECK_GOOD,
				NULL, "%s", text_of(member, "state"));
}

static int one_job(struct favo_cli *cli, const char *job, json_t *results,
		   struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("/v1/vcs/%s", job);
	favo_autojson json_t *vc = NULL;
	struct favo_http *http;
	const json_t *member;
	size_t i;
	int ret;

	if (!path)
		return favo_fail(err, ENOMEM, "job %s: %m", job);
	ret = favo_cli_http(cli, &http, err);
	if (ret == 0)
		ret = favo_http_json(http, "GET", path, NULL, &vc, err);
	if (ret < 0)
		return ret;
	if (json_array_size(json_object_get(vc, "members")) == 0)
		favo_doctor_add(results, "job", "state", FAVO_CHECK_NOTE,
				"squeue says why a job waits",
				"no node has reported VMs of it: %s",
				text_of(vc, "state"));
	json_array_foreach(json_object_get(vc, "members"), i, member)
	{
		show_member(member, results);
		ret = one_node(cli, text_of(member, "node"), results, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

/* ---- the verb ---- */

/* Any image will do; without one there is nothing to start. */
static int first_image(struct favo_cli *cli, char **out, struct favo_err *err)
{
	favo_autojson json_t *reply = NULL;
	struct favo_http *http;
	const json_t *image;
	int ret = favo_cli_http(cli, &http, err);

	if (ret == 0)
		ret = favo_http_json(http, "GET", "/v1/images", NULL, &reply, err);
	if (ret < 0)
		return ret;
	image = json_array_get(json_object_get(reply, "images"), 0);
	if (!image)
		return favo_fail(
			err, ENOENT,
			"the store has no image for a test job; favo image build "
			"makes one");
	*out = favo_asprintf("%s:%s", text_of(image, "name"), text_of(image, "tag"));
	return *out ? 0 : favo_fail(err, ENOMEM, "test job: %m");
}

static int test_job(struct favo_cli *cli, const char *image, json_t *results,
		    struct favo_err *err)
{
	favo_autofree char *found = NULL;
	int ret = *image ? 0 : first_image(cli, &found, err);

	if (ret == 0)
		favo_doctor_test_job(*image ? image : found, results);
	return ret;
}

static int print_table(const json_t *results, struct favo_err *err)
{
	static const char *const heads[] = {"WHERE", "CHECK", "RESULT", "WHAT", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *row;
	size_t i;

	json_array_foreach(results, i, row)
	{
		const char *remedy = text_of(row, "remedy");
		favo_autofree char *what = favo_asprintf("%s%s%s", text_of(row, "what"),
							 *remedy ? "; " : "", remedy);

		favo_table_row(table, text_of(row, "where"), text_of(row, "check"),
			       text_of(row, "result"), what ? what : "");
	}
	return favo_table_print(table, err);
}

static bool any_fault(const json_t *results)
{
	const json_t *row;
	size_t i;

	json_array_foreach(results, i, row)
	{
		if (strcmp(text_of(row, "result"), "FAILED") == 0)
			return true;
	}
	return false;
}

static int run(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	favo_autojson json_t *results = json_array();
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] [--test-job [--image NAME]] [NODE|JOB]",
		.about = "Check this host, Slurm and the nodes, or one node, or one job; "
			 "what fails is named with its remedy.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	const char *word;
	uint64_t job;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 0, 1, &first, err);
	if (ret != 0) {
		favo_opts_fini(&opts);
		return ret > 0 ? 0 : ret;
	}
	word = first < argc ? argv[first] : NULL;
	if (!word) {
		favo_doctor_host(cli, results);
		favo_doctor_slurm(cli, results);
		all_nodes(cli, results);
	} else if (favo_parse_u64(&job, word, 1, UINT32_MAX, NULL) == 0) {
		ret = one_job(cli, word, results, err);
	} else {
		ret = one_node(cli, word, results, err);
	}
	if (ret == 0 && args.test_job)
		ret = test_job(cli, args.image, results, err);
	if (ret == 0)
		ret = args.json ? favo_cli_print_json(results, err)
				: print_table(results, err);
	favo_opts_fini(&opts);
	return ret < 0 ? ret : any_fault(results);
}

const struct favo_cli_verb favo_cli_doctor = {
	"doctor",
	"[--json] [--test-job] [NODE|JOB]",
	"check this host, Slurm and the nodes, and say what mends them",
	run,
};
