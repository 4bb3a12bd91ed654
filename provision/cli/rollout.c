// SPDX-License-Identifier: GPL-2.0-or-later
/* favo rollout: bring an image to nodes step by step, and back. */
#include "provision/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/cli/node_list.h"

#define WATCH_S 2
#define UNDO_TRIES 600

struct args {
	uint64_t canaries, batch, concurrency, budget;
	uint64_t drain_ms, boot_ms, health_ms;
	char *reboot;
	char *probe;
	bool slurm, test;
	bool wait;
	bool json;
};

#define ROW_JSON FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON")

static const struct favo_opt start_rows[] = {
	FAVO_OPT_U64("canaries", "N", struct args, canaries, FAVO_FROM_CLI, "1",
		     "nodes before all others; one that fails stops the rollout"),
	FAVO_OPT_U64("batch", "N", struct args, batch, FAVO_FROM_CLI, "16",
		     "nodes of a wave; the next wave waits until this one is through"),
	FAVO_OPT_U64("concurrency", "N", struct args, concurrency, FAVO_FROM_CLI, "16",
		     "nodes at work at a time (at most 64)"),
	FAVO_OPT_U64("budget", "N", struct args, budget, FAVO_FROM_CLI, "0",
		     "nodes that may fail; one more stops the rollout"),
	FAVO_OPT_DURATION("drain-time", "TIME", struct args, drain_ms, FAVO_FROM_CLI,
			  "7d",
			  "how long jobs may go on; then the node counts as failed"),
	FAVO_OPT_DURATION("boot-time", "TIME", struct args, boot_ms, FAVO_FROM_CLI, "20m",
			  "how long a node may take to come up"),
	FAVO_OPT_DURATION("health-time", "TIME", struct args, health_ms, FAVO_FROM_CLI,
			  "3m", "how long slurmd, probe and test job may take each"),
	FAVO_OPT_STR("reboot", "COMMAND", struct args, reboot, FAVO_FROM_CLI, NULL,
		     "in place of rollout_reboot in favo.conf"),
	FAVO_OPT_STR("probe", "COMMAND", struct args, probe, FAVO_FROM_CLI, NULL,
		     "in place of rollout_probe in favo.conf"),
	FAVO_OPT_BOOL("slurm", NULL, struct args, slurm, FAVO_FROM_CLI, "yes",
		      "--no-slurm: the nodes are not Slurm's"),
	FAVO_OPT_BOOL("test", NULL, struct args, test, FAVO_FROM_CLI, "yes",
		      "--no-test: no test job"),
	FAVO_OPT_FLAG("wait", struct args, wait, FAVO_FROM_CLI,
		      "show progress until it is over; the status tells how it ended"),
	ROW_JSON,
};

static const struct favo_opt status_rows[] = {
	FAVO_OPT_FLAG("wait", struct args, wait, FAVO_FROM_CLI,
		      "show progress until it is over; the status tells how it ended"),
	ROW_JSON,
};

static const char *text_of(const json_t *obj, const char *key)
{
	return json_string_value(json_object_get(obj, key));
}

static int64_t number_of(const json_t *obj, const char *key)
{
	return json_integer_value(json_object_get(obj, key));
}

static bool is_step(const json_t *node, const char *step)
{
	return strcmp(text_of(node, "step"), step) == 0;
}

/* "12 of 128 done, 1 failed, 3 at work" */
static void summarize(char *buf, size_t size, const json_t *r)
{
	const json_t *nodes = json_object_get(r, "nodes"), *n;
	size_t i, done = 0, failed = 0, skipped = 0, waiting = 0;

	json_array_foreach(nodes, i, n)
	{
		done += is_step(n, "done");
		failed += is_step(n, "failed");
		skipped += is_step(n, "skipped");
		waiting += is_step(n, "waiting");
	}
	snprintf(buf, size,
		 "%s: %zu of %zu done, %zu failed, %zu skipped, %zu at work, %zu waiting",
		 text_of(r, "state"), done, json_array_size(nodes), failed, skipped,
		 json_array_size(nodes) - done - failed - skipped - waiting, waiting);
}

static bool is_over(const json_t *r)
{
	const json_t *n;
	size_t i;

	if (strcmp(text_of(r, "state"), "running") == 0)
		return false;
	json_array_foreach(json_object_get(r, "nodes"), i, n)
	{
		if (!is_step(n, "done") && !is_step(n, "failed") &&
		    !is_step(n, "skipped") && !is_step(n, "waiting"))
			return false;
	}
	return true;
}

static int print_rollout(const json_t *r, struct favo_err *err)
{
	static const char *const heads[] = {"NODE",  ">WAVE",  "STEP", "SINCE",
					    "IMAGE", "FORMER", "NOTE", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	char line[200], wave[24], age[32], image[20], former[20];
	const json_t *n;
	size_t i;

	summarize(line, sizeof(line), r);
	printf("rollout %" PRId64 " of %s\n%s\n", number_of(r, "id"),
	       json_object_get(r, "spec") ? text_of(json_object_get(r, "spec"), "image")
					  : "an image",
	       line);
	if (*text_of(r, "reason"))
		printf("%s\n", text_of(r, "reason"));
	json_array_foreach(json_object_get(r, "nodes"), i, n)
	{
		const char *was = text_of(n, "former");

		snprintf(wave, sizeof(wave), "%" PRId64, number_of(n, "wave"));
		favo_cli_short_digest(image, strchr(text_of(n, "image"), '@'));
		favo_cli_short_digest(former, was ? strchr(was, '@') : NULL);
		favo_table_row(table, text_of(n, "name"), wave, text_of(n, "step"),
			       favo_cli_age(age, number_of(n, "since"),
					    number_of(r, "now")),
			       image, former, text_of(n, "note"));
	}
	return favo_table_print(table, err);
}

static int get_rollout(struct favo_cli *cli, int64_t id, json_t **out,
		       struct favo_err *err)
{
	struct favo_http *http;
	char path[64];
	int ret = favo_cli_http(cli, &http, err);

	snprintf(path, sizeof(path), "/v1/rollouts/%" PRId64, id);
	return ret < 0 ? ret : favo_http_json(http, "GET", path, NULL, out, err);
}

/* Until it is over; a favod that restarts meanwhile is waited for. */
static int wait_over(struct favo_cli *cli, int64_t id, json_t **out, struct favo_err *err)
{
	char line[200] = "", before[200] = "";

	for (;;) {
		struct favo_err away = {0};
		json_t *r = NULL;
		int ret = get_rollout(cli, id, &r, &away);

		if (ret == -ENOENT || ret == -EACCES || ret == -EINVAL) {
			*err = away;
			return ret;
		}
		if (ret == 0)
			summarize(line, sizeof(line), r);
		else
			snprintf(line, sizeof(line), "waiting for favod");
		if (strcmp(line, before) != 0)
			fprintf(stderr, "%s\n", line);
		snprintf(before, sizeof(before), "%s", line);
		if (ret == 0 && is_over(r)) {
			*out = r;
			return 0;
		}
		json_decref(r);
		sleep(WATCH_S);
	}
}

/* Exit status: was it all well? */
static int ended_well(const json_t *r)
{
	const json_t *n;
	size_t i;

	json_array_foreach(json_object_get(r, "nodes"), i, n)
	{
		if (is_step(n, "failed"))
			return 1;
	}
	return strcmp(text_of(r, "state"), "done") != 0;
}

static int show(struct favo_cli *cli, json_t *first, const struct args *args,
		struct favo_err *err)
{
	favo_autojson json_t *r = first;
	int ret = 0;

	if (args->wait) {
		int64_t id = number_of(r, "id");

		json_decref(r);
		r = NULL;
		ret = wait_over(cli, id, &r, err);
	}
	if (ret == 0)
		ret = args->json ? favo_cli_print_json(r, err) : print_rollout(r, err);
	return ret < 0 ? ret : args->wait ? ended_well(r) : 0;
}

static json_t *make_body(const struct args *a, const char *image, const json_t *names,
			 bool dry)
{
	json_t *body = json_pack(
		"{s:s s:O s:I s:I s:I s:I s:I s:I s:I s:b s:b}", "image", image, "nodes",
		names, "canaries", (json_int_t)a->canaries, "batch", (json_int_t)a->batch,
		"concurrency", (json_int_t)a->concurrency, "budget",
		(json_int_t)a->budget, "drain_s", (json_int_t)(a->drain_ms / 1000),
		"boot_s", (json_int_t)(a->boot_ms / 1000), "health_s",
		(json_int_t)(a->health_ms / 1000), "slurm", a->slurm, "dry_run", dry);

	if (body && !a->test) /* else as favo.conf has it */
		json_object_set_new(body, "test", json_false());
	if (body && a->reboot)
		json_object_set_new(body, "reboot", json_string(a->reboot));
	if (body && a->probe)
		json_object_set_new(body, "probe", json_string(a->probe));
	return body;
}

/* What would happen to each node, and how long it may take at most. */
static int print_plan(const json_t *r, const json_t *nodes, const struct args *a,
		      struct favo_err *err)
{
	static const char *const heads[] = {">WAVE",  "NODE",  "RUNS", "WOULD RUN",
					    "REBOOT", "PHASE", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	int64_t waves = 0, rounds, reboots = 0;
	char wave[24], runs[20], would[20];
	const json_t *n;
	size_t i;

	json_array_foreach(json_object_get(r, "nodes"), i, n)
	{
		const json_t *node = favo_cli_nodes_find(nodes, text_of(n, "name"));
		const char *image = strchr(text_of(n, "image"), '@');
		const char *booted = text_of(node, "booted");
		bool same = image && booted && strcmp(booted, image + 1) == 0;

		reboots += !same;
		waves = FAVO_MAX(waves, number_of(n, "wave") + 1);
		snprintf(wave, sizeof(wave), "%" PRId64, number_of(n, "wave"));
		favo_table_row(table, wave, text_of(n, "name"),
			       favo_cli_short_digest(runs, booted),
			       favo_cli_short_digest(would, image), same ? "no" : "yes",
			       text_of(node, "phase"));
	}
	printf("%s\n", text_of(json_object_get(r, "spec"), "image"));
	if (favo_table_print(table, err) < 0)
		return -EIO;
	rounds = waves * (int64_t)((a->batch + a->concurrency - 1) / a->concurrency);
	printf("%" PRId64 " of %zu nodes reboot, in %" PRId64
	       " waves; after the jobs on them have ended it takes at most %" PRId64
	       " min\n",
	       reboots, json_array_size(json_object_get(r, "nodes")), waves,
	       rounds * (int64_t)(a->boot_ms + 2 * a->health_ms) / 60000);
	return 0;
}

static int begin(struct favo_cli *cli, int argc, char **argv, bool dry,
		 struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[OPTION]... IMAGE NODES",
		.about = dry ? "Show what a rollout would do; nothing is changed."
			     : "Bring an image to nodes: canaries first, each node "
			       "drained, "
			       "rebooted, checked and given back.",
		.table = start_rows,
		.n = FAVO_ARRAY_SIZE(start_rows),
		.target = &args,
	};
	favo_autojson json_t *nodes = NULL, *names = NULL, *body = NULL, *r = NULL;
	struct favo_http *http;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 2, 2, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_nodes_get(cli, &nodes, err);
	if (ret == 0)
		ret = favo_cli_nodes_expand(&names, nodes, argv[first + 1], true, err);
	if (ret == 0) {
		body = make_body(&args, argv[first], names, dry);
		ret = body ? favo_cli_http(cli, &http, err)
			   : favo_fail(err, EINVAL, "the words are not UTF-8 text");
	}
	if (ret == 0)
		ret = favo_http_json(http, "POST", "/v1/rollouts", body, &r, err);
	if (ret == 0 && dry)
		ret = args.json ? favo_cli_print_json(r, err)
				: print_plan(r, nodes, &args, err);
	else if (ret == 0)
		ret = show(cli, favo_steal_ptr(&r), &args, err);
	favo_opts_fini(&opts);
	return ret;
}

static int run_plan(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return begin(cli, argc, argv, true, err);
}

static int run_start(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return begin(cli, argc, argv, false, err);
}

static int print_list(const json_t *reply, struct favo_err *err)
{
	static const char *const heads[] = {">ID",   "STATE",	">NODES",
					    ">DONE", ">FAILED", "BEGUN",
					    "IMAGE", "REASON",	NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *r;
	size_t i;

	json_array_foreach(json_object_get(reply, "rollouts"), i, r)
	{
		static const char *const keys[] = {"id", "nodes", "done", "failed"};
		char numbers[4][24], age[32], image[64];

		for (size_t k = 0; k < 4; k++)
			snprintf(numbers[k], sizeof(numbers[k]), "%" PRId64,
				 number_of(r, keys[k]));
		snprintf(image, sizeof(image), "%.*s",
			 (int)FAVO_MIN(strcspn(text_of(r, "image"), "@") + 13,
				       sizeof(image) - 1),
			 text_of(r, "image"));
		image[strcspn(image, "@")] = '\0';
		favo_table_row(table, numbers[0], text_of(r, "state"), numbers[1],
			       numbers[2], numbers[3],
			       favo_cli_age(age, number_of(r, "created"),
					    number_of(reply, "now")),
			       image, text_of(r, "reason"));
	}
	return favo_table_print(table, err);
}

static int parse_id(int64_t *id, const char *text, struct favo_err *err)
{
	uint64_t value;

	if (favo_parse_u64(&value, text, 1, INT64_MAX, err) < 0)
		return favo_cli_usage(err, "\"%s\" is no number of a rollout", text);
	*id = (int64_t)value;
	return 0;
}

static int run_status(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--wait] [--json] [ID]",
		.about = "List the rollouts, or show where each node of one is.",
		.table = status_rows,
		.n = FAVO_ARRAY_SIZE(status_rows),
		.target = &args,
	};
	favo_autojson json_t *r = NULL;
	struct favo_http *http;
	int64_t id = 0;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 0, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (first == argc) {
		ret = favo_cli_http(cli, &http, err);
		if (ret == 0)
			ret = favo_http_json(http, "GET", "/v1/rollouts", NULL, &r, err);
		if (ret < 0)
			return ret;
		return args.json ? favo_cli_print_json(r, err) : print_list(r, err);
	}
	ret = parse_id(&id, argv[first], err);
	if (ret == 0)
		ret = get_rollout(cli, id, &r, err);
	return ret < 0 ? ret : show(cli, favo_steal_ptr(&r), &args, err);
}

static int command(struct favo_cli *cli, int argc, char **argv, const char *word,
		   const char *about, struct favo_err *err)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--wait] [--json] ID",
		.about = about,
		.table = status_rows,
		.n = FAVO_ARRAY_SIZE(status_rows),
		.target = &args,
	};
	favo_autojson json_t *r = NULL;
	struct favo_http *http;
	char path[64];
	int64_t id = 0;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = parse_id(&id, argv[first], err);
	if (ret == 0)
		ret = favo_cli_http(cli, &http, err);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "/v1/rollouts/%" PRId64 "/%s", id, word);
	ret = favo_http_json(http, "POST", path, NULL, &r, err);
	/* a node is in the middle of a step: it ends by itself, soon */
	for (int i = 0; i < UNDO_TRIES && ret < 0 && strstr(err->msg, "in a moment");
	     i++) {
		if (i == 0)
			fprintf(stderr, "%s\n", err->msg);
		sleep(1);
		memset(err, 0, sizeof(*err));
		ret = favo_http_json(http, "POST", path, NULL, &r, err);
	}
	return ret < 0 ? ret : show(cli, favo_steal_ptr(&r), &args, err);
}

static int run_pause(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return command(
		cli, argc, argv, "pause",
		"Begin no more nodes; those that were rebooted are brought to their "
		"end.",
		err);
}

static int run_resume(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return command(cli, argc, argv, "resume",
		       "Go on after a pause or a stop; failures so far are forgiven.",
		       err);
}

static int run_undo(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	return command(cli, argc, argv, "undo",
		       "Bring back what the nodes ran before, in the same way.", err);
}

static const struct favo_cli_verb verbs[] = {
	{"plan", "[OPTION]... IMAGE NODES", "what a rollout would do", run_plan},
	{"start", "[OPTION]... IMAGE NODES", "bring an image to nodes", run_start},
	{"status", "[--wait] [--json] [ID]", "rollouts, or where the nodes of one are",
	 run_status},
	{"pause", "ID", "begin no more nodes", run_pause},
	{"resume", "ID", "go on after a pause or a stop", run_resume},
	{"undo", "ID", "bring back what the nodes ran before", run_undo},
	{0},
};

const struct favo_cli_noun favo_cli_rollout = {
	.name = "rollout",
	.about = "images of nodes, step by step and with a way back",
	.verbs = verbs,
};
