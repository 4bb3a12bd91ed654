// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * SPANK plugin of Favo: dispatcher from Slurm's hooks to the contexts.
 *
 * Each hook answers "is this job ours?" from memory or with one access(2)
 * before it does anything. Return codes: nothing here returns < 0 on a node
 * but from a task hook, as that would drain the node (see docs/slurm-plugin.md).
 */
#include "slurm-plugin/plugin.h"

#include <string.h>

#define FAVO_EXPORT __attribute__((visibility("default")))

/* SPANK looks these up by name; the header declares only the hooks. */
extern FAVO_EXPORT const char plugin_name[];
extern FAVO_EXPORT const char plugin_type[];
extern FAVO_EXPORT const unsigned int plugin_version;
extern FAVO_EXPORT const unsigned int spank_plugin_version;
SPANK_PLUGIN(favo, 1)

/*
 * The one object of the process: SPANK's option callbacks have no user
 * pointer. Written by the hooks up to init_post_opt, which Slurm calls one
 * after the other; read only afterwards.
 */
static struct favo_plugin plugin;

static int option_cb(int val, const char *optarg, int remote)
{
	(void)remote;
	if (plugin.component_done)
		favo_plugin_next_component(&plugin);
	return favo_plugin_set(&plugin, val, optarg);
}

static void take_dir(char *out, size_t size, const char *value)
{
	if (*value == '/' && strlen(value) < size)
		snprintf(out, size, "%s", value);
	else
		slurm_error("favo: plugstack.conf: %s is no absolute path of less than "
			    "%zu bytes",
			    value, size);
}

/* "libexec=DIR", "run=DIR" after the plugin's path in plugstack.conf. */
static void read_args(int ac, char **av)
{
	snprintf(plugin.libexec, sizeof(plugin.libexec), "%s", FAVO_LIBEXECDIR);
	snprintf(plugin.run_dir, sizeof(plugin.run_dir), "%s", FAVO_RUNDIR);
	for (int i = 0; i < ac; i++) {
		if (strncmp(av[i], "libexec=", 8) == 0)
			take_dir(plugin.libexec, sizeof(plugin.libexec), av[i] + 8);
		else if (strncmp(av[i], "run=", 4) == 0)
			take_dir(plugin.run_dir, sizeof(plugin.run_dir), av[i] + 4);
		else
			slurm_error("favo: plugstack.conf: unknown argument %s", av[i]);
	}
}

FAVO_EXPORT int slurm_spank_init(spank_t sp, int ac, char **av)
{
	if (spank_context() == S_CTX_SLURMD)
		return 0;
	memset(&plugin, 0, sizeof(plugin));
	read_args(ac, av);
	return favo_plugin_register(sp, option_cb);
}

FAVO_EXPORT int slurm_spank_init_post_opt(spank_t sp, int ac, char **av)
{
	spank_context_t ctx = spank_context();

	(void)ac;
	(void)av;
	if (ctx == S_CTX_LOCAL || ctx == S_CTX_ALLOCATOR) {
		plugin.component_done = true;
		return favo_submit_check(&plugin, sp, ctx);
	}
	if (ctx == S_CTX_REMOTE)
		return favo_node_boot(&plugin, sp, false);
	return 0;
}

/* Called for the extern step, too, once that has its control groups. */
FAVO_EXPORT int slurm_spank_task_post_fork(spank_t sp, int ac, char **av)
{
	(void)ac;
	(void)av;
	return favo_node_boot(&plugin, sp, true);
}

FAVO_EXPORT int slurm_spank_local_user_init(spank_t sp, int ac, char **av)
{
	(void)ac;
	(void)av;
	return favo_submit_step(&plugin, sp);
}

FAVO_EXPORT int slurm_spank_task_init(spank_t sp, int ac, char **av)
{
	(void)ac;
	(void)av;
	return favo_step_task(&plugin, sp);
}

/* init is not called in the context of prolog and epilog. */
FAVO_EXPORT int slurm_spank_job_prolog(spank_t sp, int ac, char **av)
{
	read_args(ac, av);
	return favo_node_prolog(&plugin, sp);
}

FAVO_EXPORT int slurm_spank_job_epilog(spank_t sp, int ac, char **av)
{
	read_args(ac, av);
	return favo_node_epilog(&plugin, sp);
}
