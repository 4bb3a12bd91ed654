// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo vc: virtual clusters. ls and show come from favod; console and the
 * log of a VM that runs come from the favo-noded of this node; exec, shell
 * and top are in files of their own.
 */
#include "provision/cli/vc.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"

#define NODED_TIMEOUT_MS 5000

struct args {
	bool json;
	bool all;
	bool follow;
};

#define JSON_ROW FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON")

static const char *str(const json_t *obj, const char *key)
{
	return json_string_value(json_object_get(obj, key));
}

static int64_t num(const json_t *obj, const char *key)
{
	return json_integer_value(json_object_get(obj, key));
}

static const char *format_num(char buf[24], int64_t n)
{
	snprintf(buf, 24, "%" PRId64, n);
	return buf;
}

static const char *format_time(char buf[32], int64_t when)
{
	time_t t = (time_t)when;
	struct tm tm;

	if (!when || !localtime_r(&t, &tm) ||
	    !strftime(buf, 32, "%Y-%m-%d %H:%M:%S", &tm))
		return NULL;
	return buf;
}

static int print_list(const json_t *reply, struct favo_err *err)
{
	static const char *const heads[] = {">JOB",  "USER",  "IMAGE", ">VMS",
					    "STATE", "SINCE", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *vc;
	size_t i;

	json_array_foreach(json_object_get(reply, "vcs"), i, vc)
	{
		char job[24], vms[24], since[32];

		favo_table_row(table, format_num(job, num(vc, "job")), str(vc, "user"),
			       str(vc, "image"), format_num(vms, num(vc, "vms")),
			       str(vc, "state"), format_time(since, num(vc, "since")));
	}
	return favo_table_print(table, err);
}

static int run_ls(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		JSON_ROW,
		FAVO_OPT_FLAG("all", struct args, all, FAVO_FROM_CLI,
			      "clusters that have ended, too"),
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--all] [--json]",
		.about = "List your virtual clusters; root sees everybody's.",
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
		ret = favo_http_json(http, "GET", args.all ? "/v1/vcs?all=1" : "/v1/vcs",
				     NULL, &reply, err);
	if (ret < 0)
		return ret;
	return args.json ? favo_cli_print_json(reply, err) : print_list(reply, err);
}

int favo_cli_vc_fetch(json_t **vc, struct favo_cli *cli, const char *word,
		      struct favo_err *err)
{
	struct favo_http *http;
	char path[64];
	uint64_t job;
	int ret;

	if (favo_parse_u64(&job, word, 1, UINT32_MAX, err) < 0)
		return favo_cli_usage(err, "%s is no job id", word);
	ret = favo_cli_http(cli, &http, err);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "/v1/vcs/%" PRIu64, job);
	return favo_http_json(http, "GET", path, NULL, vc, err);
}

/* Seconds since prepare with two digits, or NULL when not reached. */
static const char *format_phase(char buf[24], const json_t *member, const char *phase)
{
	const json_t *v = json_object_get(json_object_get(member, "timeline"), phase);

	if (!json_is_integer(v))
		return NULL;
	snprintf(buf, 24, "%.2f s", (double)json_integer_value(v) / 1000);
	return buf;
}

static int print_members(const json_t *vc, struct favo_err *err)
{
	static const char *const heads[] = {"VM",     "NODE",  "ADDRESS",  "STATE",
					    ">IMAGE", ">BOOT", ">NETWORK", ">READY",
					    ">TASK",  NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	const json_t *m;
	size_t i;

	json_array_foreach(json_object_get(vc, "members"), i, m)
	{
		char image[24], boot[24], network[24], ready[24], task[24];

		favo_table_row(table, str(m, "name"), str(m, "node"), str(m, "address"),
			       str(m, "state"), format_phase(image, m, "image_ms"),
			       format_phase(boot, m, "boot_ms"),
			       format_phase(network, m, "network_ms"),
			       format_phase(ready, m, "ready_ms"),
			       format_phase(task, m, "task_ms"));
	}
	return favo_table_print(table, err);
}

static void print_errors(const json_t *vc)
{
	const json_t *m;
	size_t i;

	json_array_foreach(json_object_get(vc, "members"), i, m)
	{
		const json_t *e = json_object_get(m, "error");

		if (!json_is_object(e))
			continue;
		printf("\n%s on %s failed in phase %s: %s\n", str(m, "name"),
		       str(m, "node"), str(e, "phase") ? str(e, "phase") : "?",
		       str(e, "cause") ? str(e, "cause") : "?");
		if (str(e, "remedy"))
			printf("  %s\n", str(e, "remedy"));
	}
}

static int run_show(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {JSON_ROW};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] JOB",
		.about =
			"Show the members of a job's virtual cluster, and how long after "
			"the allocation each phase of their start was reached.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autojson json_t *vc = NULL;
	char since[32];
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_vc_fetch(&vc, cli, argv[first], err);
	if (ret < 0)
		return ret;
	if (args.json)
		return favo_cli_print_json(vc, err);
	printf("job      %" PRId64
	       "\nuser     %s\nimage    %s\ndigest   %s\nnetwork  %s\n"
	       "state    %s\nsince    %s\n\n",
	       num(vc, "job"), str(vc, "user"), str(vc, "image"), str(vc, "digest"),
	       str(vc, "network"), str(vc, "state"),
	       format_time(since, num(vc, "since")) ? since : "-");
	ret = print_members(vc, err);
	print_errors(vc);
	return ret;
}

/*
 * Ask the noded of this host for a VM's console log; *fd is open for reading.
 * vm NULL: the one of the job that runs here.
 */
static int open_console(int *fd, const struct favo_conf *conf, uint64_t job,
			const char *vm, struct favo_err *err)
{
	favo_autoclose int sock = -1;
	favo_autofree char *request = NULL;
	favo_autojson json_t *body = NULL, *reply = NULL;
	char answer[4096];
	int fds[1] = {-1};
	size_t n = 0;
	ssize_t len;
	int ret = favo_unix_connect(&sock, conf->noded_socket, NODED_TIMEOUT_MS, err);

	if (ret < 0)
		return ret;
	body = json_pack("{s:s s:I s:s*}", "op", "console", "job", (json_int_t)job, "vm",
			 vm);
	ret = body ? favo_json_canonical(&request, NULL, body, err)
		   : favo_fail(err, EINVAL, "that is no name of a VM");
	if (ret == 0)
		ret = favo_write_all(sock, request, strlen(request), NODED_TIMEOUT_MS,
				     err);
	if (ret == 0)
		ret = favo_write_all(sock, "\n", 1, NODED_TIMEOUT_MS, err);
	if (ret < 0)
		return ret;
	if (poll(&(struct pollfd){.fd = sock, .events = POLLIN}, 1, NODED_TIMEOUT_MS) !=
	    1)
		return favo_fail(err, ETIMEDOUT, "favo-noded does not answer");
	len = favo_recv_fds(sock, answer, sizeof(answer), fds, 1, &n, err);
	if (len <= 0)
		return len < 0 ? (int)len
			       : favo_fail(err, EIO, "favo-noded closed the connection");
	if (n == 1) {
		*fd = fds[0];
		return 0;
	}
	if (favo_json_parse(&reply, answer, (size_t)len, NULL) == 0) {
		const json_t *e = json_object_get(reply, "error");
		const char *cause = str(e, "cause");

		if (!cause)
			cause = json_string_value(e);
		if (cause)
			return favo_fail(err, ENOENT, "%s", cause);
	}
	return favo_fail(err, EIO, "favo-noded gives no console of job %" PRIu64, job);
}

/* Guests write what they like: nothing but text, tabs and line ends gets out. */
static int print_clean(const char *text, size_t len, struct favo_err *err)
{
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)text[i];

		if (c == '\r')
			continue;
		if ((c < ' ' && c != '\n' && c != '\t') || c == 0x7f)
			c = '?';
		if (putchar(c) == EOF)
			return favo_fail(err, errno, "write to stdout: %m");
	}
	return fflush(stdout) == 0 ? 0 : favo_fail(err, errno, "write to stdout: %m");
}

static int copy_console(int fd, bool follow, struct favo_err *err)
{
	char buf[65536];
	off_t pos = 0;

	for (;;) {
		ssize_t n = pread(fd, buf, sizeof(buf), pos);
		int ret;

		if (n < 0)
			return favo_fail(err, errno, "read the console log: %m");
		if (n == 0 && !follow)
			return 0;
		if (n == 0) {
			nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
			continue;
		}
		ret = print_clean(buf, (size_t)n, err);
		if (ret < 0)
			return ret;
		pos += n;
	}
}

static const json_t *find_member(const json_t *vc, const char *vm)
{
	const json_t *m;
	size_t i;

	json_array_foreach(json_object_get(vc, "members"), i,
			   m) if (str(m, "name") &&
				  strcmp(str(m, "name"), vm) == 0) return m;
	return NULL;
}

static int run_console(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		FAVO_OPT_FLAG("follow", struct args, follow, FAVO_FROM_CLI,
			      "go on with what the guest writes, until interrupted"),
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--follow] JOB [VM]",
		.about = "Print what a guest has written to its console. Works on the "
			 "node "
			 "that runs the VM.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autojson json_t *vc = NULL;
	favo_autoclose int fd = -1;
	const char *vm = NULL;
	const json_t *member;
	uint64_t job;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 2, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (favo_parse_u64(&job, argv[first], 1, UINT32_MAX, err) < 0)
		return favo_cli_usage(err, "%s is no job id", argv[first]);
	if (argc - first == 2)
		vm = argv[first + 1];
	ret = open_console(&fd, &cli->conf, job, vm, err);
	if (ret == 0)
		return copy_console(fd, args.follow, err);
	if (!vm)
		vm = "vm0";
	/* Not here: say where. */
	if (favo_cli_vc_fetch(&vc, cli, argv[first], NULL) == 0 &&
	    (member = find_member(vc, vm)) != NULL)
		return favo_fail(err, ENOENT,
				 "%s runs on node %s; run this command there (%s)", vm,
				 str(member, "node"), argv[0]);
	return ret;
}

static int run_logs(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "JOB [VM]",
		.about = "Print why VMs of a job failed, and the end of their consoles.",
		.target = &(struct args){0},
	};
	favo_autojson json_t *vc = NULL;
	const json_t *m;
	bool any = false;
	int first, ret;
	size_t i;

	ret = favo_cli_options(&opts, argc, argv, 1, 2, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = favo_cli_vc_fetch(&vc, cli, argv[first], err);
	if (ret < 0)
		return ret;
	json_array_foreach(json_object_get(vc, "members"), i, m)
	{
		const json_t *e = json_object_get(m, "error");
		const char *log = str(m, "log");

		if (argc - first == 2 &&
		    (!str(m, "name") || strcmp(str(m, "name"), argv[first + 1])))
			continue;
		any = true;
		printf("==> %s on %s: %s\n", str(m, "name"), str(m, "node"),
		       str(m, "state"));
		if (json_is_object(e))
			printf("    %s: %s\n", str(e, "phase") ? str(e, "phase") : "?",
			       str(e, "cause") ? str(e, "cause") : "?");
		if (log && *log) {
			ret = print_clean(log, strlen(log), err);
			if (ret < 0)
				return ret;
		} else {
			printf("    no log was kept; while the VM runs: favo vc console "
			       "%s %s on "
			       "node %s\n",
			       argv[first], str(m, "name"), str(m, "node"));
		}
	}
	if (!any)
		return favo_fail(err, ENOENT, "job %s has no such VM", argv[first]);
	return 0;
}

static const struct favo_cli_verb verbs[] = {
	{"ls", "[--all] [--json]", "your virtual clusters", run_ls},
	{"show", "[--json] JOB", "members, states and the time line of their start",
	 run_show},
	{"console", "[--follow] JOB [VM]", "what a guest wrote to its console",
	 run_console},
	{"logs", "JOB [VM]", "why VMs failed, and the end of their consoles", run_logs},
	{"exec", "JOB VMS COMMAND [ARGUMENT]...", "run a command in VMs of a job",
	 favo_cli_vc_exec},
	{"top", "[--json] [--interval=SECONDS] [--count=N] JOB",
	 "what the VMs of a job use: CPU, memory, network", favo_cli_vc_top},
	{"shell", "JOB [VM]", "a shell in a VM of a job", favo_cli_vc_shell},
	{0},
};

const struct favo_cli_noun favo_cli_vc = {
	.name = "vc",
	.about = "virtual clusters of jobs",
	.verbs = verbs,
};
