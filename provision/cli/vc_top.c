// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo vc top: what the guests of a job use, as they see it. One step in all
 * VMs runs a small script that writes its counters every few seconds
 * (vc_top_sample.c); a table is printed when each VM has sent them anew.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/cli/vc.h"
#include "provision/cli/vc_top.h"

struct args {
	bool json;
	uint64_t interval, count;
};

struct top {
	bool json, screen;
	json_int_t job;
	struct favo_top_vm *vms;
	unsigned int shown; /* rounds */
};

static const char *format_rate(char buf[40], uint64_t bytes)
{
	char size[32];

	snprintf(buf, 40, "%s/s", favo_format_size(size, sizeof(size), bytes));
	return buf;
}

static int print_table(const struct top *top, size_t n, struct favo_err *err)
{
	static const char *const heads[] = {"VM",      "NODE", ">CPUS", ">CPU", ">USED",
					    ">MEMORY", ">RX",  ">TX",	NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);

	if (top->screen)
		printf("\033[H\033[J");
	for (size_t i = 0; i < n; i++) {
		const struct favo_top_vm *vm = &top->vms[i];
		char cpus[16], cpu[32], used[32], total[32], rx[40], tx[40];

		snprintf(cpus, sizeof(cpus), "%u", vm->now.cpus);
		snprintf(cpu, sizeof(cpu), "%.0f %%", favo_top_cpu_percent(vm));
		favo_format_size(used, sizeof(used), favo_top_mem_used(vm));
		favo_format_size(total, sizeof(total), vm->now.mem_total * 1024);
		favo_table_row(table, vm->name, vm->node, cpus, cpu, used, total,
			       format_rate(rx, favo_top_rx_rate(vm)),
			       format_rate(tx, favo_top_tx_rate(vm)));
	}
	return favo_table_print(table, err);
}

static int print_json(const struct top *top, size_t n, struct favo_err *err)
{
	favo_autojson json_t *list = json_array(), *all = NULL;

	for (size_t i = 0; i < n; i++)
		json_array_append_new(list, favo_top_json(&top->vms[i]));
	all = json_pack("{s:I, s:O}", "job", top->job, "vms", list);
	if (!all)
		return favo_fail(err, ENOMEM, "out of memory");
	return favo_cli_print_json(all, err);
}

/* Each VM has its figures for the next round? */
static bool is_round(const struct top *top, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (top->vms[i].samples < top->shown + 2)
			return false;
	return true;
}

static int on_line(void *user, const struct favo_vc_target *t, size_t place,
		   const char *line, struct favo_err *err)
{
	struct top *top = user;
	int ret;

	if (place >= t->n || !favo_top_line(&top->vms[place], line) ||
	    !is_round(top, t->n))
		return 0;
	top->shown++;
	ret = top->json ? print_json(top, t->n, err) : print_table(top, t->n, err);
	if (ret == 0 && fflush(stdout) != 0)
		ret = favo_fail(err, errno, "write to stdout: %m");
	return ret;
}

static int run_top(const struct favo_vc_target *t, const struct args *args,
		   struct favo_err *err)
{
	struct top top = {.json = args->json,
			  .screen = !args->json && !args->count && isatty(STDOUT_FILENO),
			  .job = json_integer_value(json_object_get(t->vc, "job"))};
	unsigned int rounds = args->count || top.screen ? (unsigned int)args->count : 1;
	/* Figures are differences: the first sample gives none. */
	favo_autofree char *script =
		favo_top_script((unsigned int)args->interval, rounds ? rounds + 1 : 0);
	char *command[] = {"sh", "-c", script, NULL};
	int ret;

	top.vms = calloc(t->n, sizeof(*top.vms));
	if (!top.vms || !script) {
		free(top.vms);
		return favo_fail(err, ENOMEM, "out of memory");
	}
	for (size_t i = 0; i < t->n; i++) {
		top.vms[i].name = t->places[i].vm;
		top.vms[i].node = t->places[i].node;
	}
	ret = favo_vc_run(t, command, on_line, &top, err);
	free(top.vms);
	return ret;
}

int favo_cli_vc_top(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
		FAVO_OPT_U64("interval", "SECONDS", struct args, interval, FAVO_FROM_CLI,
			     "2", "time between two rounds"),
		FAVO_OPT_U64("count", "N", struct args, count, FAVO_FROM_CLI, "0",
			     "rounds; 0: until interrupted on a terminal, else one"),
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] [--interval=SECONDS] [--count=N] JOB",
		.about = "What the VMs of a job use, as their guests see it: CPU (100 % "
			 "is one processor), memory and network.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	favo_autovctarget struct favo_vc_target t = {0};
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (args.interval < 1 || args.interval > 3600 || args.count > 1000000)
		return favo_cli_usage(err, "--interval is 1 to 3600, --count at most "
					   "1000000");
	ret = favo_vc_target_find(&t, cli, argv[first], "all", err);
	return ret < 0 ? ret : run_top(&t, &args, err);
}
