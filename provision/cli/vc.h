/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of "favo vc"; private to this folder. */
#pragma once

#include "provision/cli/cli.h"

/* One cluster as favod tells it; word is the job id as typed. */
int favo_cli_vc_fetch(json_t **vc, struct favo_cli *cli, const char *word,
		      struct favo_err *err);

/* vc_exec.c */
favo_cli_run_fn favo_cli_vc_exec;
favo_cli_run_fn favo_cli_vc_shell;

/* Some VMs of a job, in the order of the tasks that a step in them has. */
struct favo_vc_place {
	const char *vm, *node; /* in the answer of favod */
	long position; /* of the node in the job */
};

struct favo_vc_target {
	json_t *vc;
	struct favo_vc_place *places;
	size_t n;
	char *nodes; /* n1,n2 */
};

/* vms: "vm0", "vm[0-2,5]" or "all". */
int favo_vc_target_find(struct favo_vc_target *t, struct favo_cli *cli, const char *job,
			const char *vms, struct favo_err *err);
void favo_vc_target_fini(struct favo_vc_target *t);
#define favo_autovctarget __attribute__((cleanup(favo_vc_target_fini)))

/* A line of output with its newline; place is t->n for a line of nobody's. */
typedef int favo_vc_line_fn(void *user, const struct favo_vc_target *t, size_t place,
			    const char *line, struct favo_err *err);

/*
 * Run a command in the VMs, as the job's user: root becomes him. The exit
 * status, or -errno, also that of fn, which ends it.
 */
int favo_vc_run(const struct favo_vc_target *t, char **command, favo_vc_line_fn *fn,
		void *user, struct favo_err *err);

/* vc_top.c */
favo_cli_run_fn favo_cli_vc_top;
