/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside favo doctor: the list of results, and who adds to it. A result is an
 * object as compute nodes make it (provision/noded/health.h), with "where": the
 * host, node or job that it is about. Single-threaded.
 */
#pragma once

#include <jansson.h>

#include "provision/cli/cli.h"

enum favo_verdict {
	FAVO_CHECK_GOOD,
	FAVO_CHECK_NOTE, /* worth knowing, no fault: "-" */
	FAVO_CHECK_FAULT, /* "FAILED" */
};

/* One result. remedy: what a person does about it, or NULL. */
void favo_doctor_add(json_t *results, const char *where, const char *check,
		     enum favo_verdict verdict, const char *remedy, const char *what, ...)
	favo_printf(6, 7);

/* doctor_host.c: everything that this host needs, whatever its role. */
void favo_doctor_host(struct favo_cli *cli, json_t *results);

/* doctor_slurm.c: Slurm's configuration as far as Favo depends on it. */
void favo_doctor_slurm(struct favo_cli *cli, json_t *results);

/*
 * doctor_slurm.c: a job with VMs of image on up to two nodes, from submission
 * to a task's output. Blocks for minutes when it hangs; progress on stderr.
 */
void favo_doctor_test_job(const char *image, json_t *results);
