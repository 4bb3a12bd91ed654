/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * SPANK plugin: what its contexts share. Inside the plugin only.
 *
 * The plugin is loaded into every srun, sbatch, salloc, slurmd, slurmstepd and
 * prolog, with the flag and without it. So it links nothing but libc (loading
 * libcurl alone would cost every step several milliseconds), and every call
 * that leaves the process has a hard time limit. HTTP is done by favo-submit,
 * a child that lives only when a job asks for VMs.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h> /* before spank.h, which relies on it and on stdint.h */
#include <sys/types.h>

#include <slurm/spank.h>

#define FAVO_VALUE_MAX 2048
/* In the environment of a --multi-prog step: srun has prepared its file. */
#define FAVO_MULTI_PROG "FAVO_STEP_MULTI_PROG"

/* One row of the option table; the values travel as text. */
enum favo_plugin_opt {
	FAVO_PO_IMAGE,
	FAVO_PO_CPUS,
	FAVO_PO_MEM,
	FAVO_PO_NETWORK,
	FAVO_PO_MOUNT,
	FAVO_PO_SANDBOX,
	FAVO_PO_COUNT,
};

struct favo_plugin {
	/* From plugstack.conf: "spank_favo.so libexec=DIR run=DIR". */
	char libexec[256];
	char run_dir[128];
	/* The --vm-... options; value[i] holds text when given[i]. */
	bool given[FAVO_PO_COUNT];
	char value[FAVO_PO_COUNT][FAVO_VALUE_MAX];
	/* The options are those of a component that is done: see below. */
	bool component_done;
};

/*
 * options.c
 *
 * Register the options; cb gets the row number as val. Returns 0 or -1.
 */
int favo_plugin_register(spank_t sp, spank_opt_cb_f cb);
/* Take one value; -1 after a message if it cannot be one. */
int favo_plugin_set(struct favo_plugin *p, int row, const char *value);
/*
 * The first option of a further component of a heterogeneous job: it starts
 * with none of the former one's. A component without any has the former's.
 */
void favo_plugin_next_component(struct favo_plugin *p);
/* Fill options that were not given from FAVO_VM_...; -1 after a message. */
int favo_plugin_env_defaults(struct favo_plugin *p);
const char *favo_plugin_opt_name(int row);

/* submit.c: srun, sbatch and salloc, as the user. */
int favo_submit_check(struct favo_plugin *p, spank_t sp, spank_context_t ctx);
int favo_submit_step(struct favo_plugin *p, spank_t sp);

/* node.c: prolog, epilog and slurmstepd, as root. */
int favo_node_prolog(const struct favo_plugin *p, spank_t sp);
int favo_node_epilog(const struct favo_plugin *p, spank_t sp);
int favo_node_boot(const struct favo_plugin *p, spank_t sp, bool post_fork);

/* step.c: a task, as the user, right before its exec. */
int favo_step_task(const struct favo_plugin *p, spank_t sp);

/*
 * multi_prog.c: the text of a --multi-prog file with the launcher before each
 * program that has not got it yet; the caller frees; NULL without memory.
 */
char *favo_multi_prog_rewrite(const char *config, const char *launcher);
/* Is there a program, and the launcher before every one? */
bool favo_multi_prog_is_ours(const char *config, const char *launcher);

/*
 * noded.c: one request line to favo-noded and the first line of its answer.
 * Returns 0 when noded answered {"ok":true...}, else -errno; the whole call
 * takes at most timeout_ms.
 */
int favo_noded_call(const struct favo_plugin *p, const char *request, char *answer,
		    size_t size, int timeout_ms);

/* JSON text under construction; overflow is kept as a flag. */
struct favo_json_text {
	char *buf;
	size_t size, len;
	bool overflow;
};
void favo_json_raw(struct favo_json_text *j, const char *text);
/* ,"key":"value" with all that JSON wants escaped; NULL value: nothing. */
void favo_json_put(struct favo_json_text *j, const char *key, const char *value);
void favo_json_put_u64(struct favo_json_text *j, const char *key, uint64_t value);

/* Does noded hold VMs for this job on this node? One access(2). */
bool favo_job_has_vms(const struct favo_plugin *p, uint32_t job);
