// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A task, in the forked child right before exec, as the user: favo-task takes
 * the place of the program and runs it in the guest. Slurm 22.05 has no call
 * for this; the argv that S_JOB_ARGV hands out is the live one, and changing
 * argv[0] keeps TaskProlog, PATH look-up of others, TMPDIR and limits as they
 * are.
 */
#include "slurm-plugin/plugin.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Special steps are numbered down from the top; batch runs in the guest. */
#define STEP_SPECIAL_MIN 0xfffffff0u
#define STEP_BATCH 0xfffffffbu
#define JOB_GRANT "SLURM_SPANK_FAVO_GRANT"

static bool is_first_task(spank_t sp)
{
	int task = 0;

	return spank_get_item(sp, S_TASK_ID, &task) != ESPANK_SUCCESS || task == 0;
}

/*
 * End the task. Returning -1 does it only in a required plugin, and a task
 * that was meant for a VM must not run on the node in an optional one.
 */
static void __attribute__((noreturn)) refuse(spank_t sp, const char *why)
{
	if (is_first_task(sp))
		fprintf(stderr, "favo: %s\n", why);
	fflush(stderr);
	_exit(1);
}

static bool has_job_env(spank_t sp, const char *name)
{
	char start[8];
	spank_err_t ret = spank_getenv(sp, name, start, sizeof(start));

	return ret == ESPANK_SUCCESS || ret == ESPANK_NOSPACE;
}

int favo_step_task(const struct favo_plugin *p, spank_t sp)
{
	char path[sizeof(p->libexec) + 16];
	uint32_t job = 0, step = 0;
	char **argv = NULL;
	char *launcher, number[16];
	int argc = 0;

	if (spank_get_item(sp, S_JOB_ID, &job) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS)
		return 0;
	if (step >= STEP_SPECIAL_MIN && step != STEP_BATCH)
		return 0;
	if (!p->given[FAVO_PO_IMAGE] && !favo_job_has_vms(p, job) &&
	    !has_job_env(sp, JOB_GRANT))
		return 0;
	if (spank_get_item(sp, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS || argc < 1 ||
	    !argv || !argv[0])
		refuse(sp, "Slurm gives no command to run in the guest");
	snprintf(path, sizeof(path), "%s/favo-task", p->libexec);
	/* In a heterogeneous job SLURM_JOB_ID is the first component's, everywhere. */
	snprintf(number, sizeof(number), "%u", job);
	if (spank_setenv(sp, "FAVO_TASK_JOB", number, 1) != ESPANK_SUCCESS)
		refuse(sp, "out of memory");
	if (has_job_env(sp, FAVO_MULTI_PROG)) {
		if (argc > 1 && argv[1] && favo_multi_prog_is_ours(argv[1], path))
			return 0;
		refuse(sp, "--multi-prog with --jobid: srun does not know that this job "
			   "has virtual machines; tell it by --vm-image");
	}
	launcher = strdup(path);
	if (!launcher ||
	    spank_setenv(sp, "FAVO_TASK_ARGV0", argv[0], 1) != ESPANK_SUCCESS)
		refuse(sp, "out of memory");
	argv[0] = launcher;
	return 0;
}
