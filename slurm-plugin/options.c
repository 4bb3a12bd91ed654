// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The plugin's option table: --vm-NAME on srun, sbatch and salloc, with the
 * default from FAVO_VM_NAME. Values are carried as text and judged by
 * favo-submit at submission; a node only asks whether an image was named.
 */
#include "slurm-plugin/plugin.h"

#include <stdlib.h>
#include <string.h>

static const struct {
	const char *name;
	const char *env;
	const char *arg;
	const char *usage;
} rows[FAVO_PO_COUNT] = {
	[FAVO_PO_IMAGE] =
		{"vm-image", "FAVO_VM_IMAGE", "NAME[:TAG][@DIGEST]|docker://IMAGE|./PATH",
		 "run the job in its own virtual machines, booted from this image"},
	[FAVO_PO_CPUS] = {"vm-cpus", "FAVO_VM_CPUS", "N",
			  "virtual CPUs of each VM (default: the allocation's)"},
	[FAVO_PO_MEM] =
		{"vm-mem", "FAVO_VM_MEM", "SIZE",
		 "memory of each VM (default: the allocation's, less the VMM's need)"},
	[FAVO_PO_NETWORK] = {"vm-network", "FAVO_VM_NETWORK", "private|none",
			     "network of the VMs (default: private)"},
};

const char *favo_plugin_opt_name(int row)
{
	return rows[row].name;
}

int favo_plugin_register(spank_t sp, spank_opt_cb_f cb)
{
	for (int i = 0; i < FAVO_PO_COUNT; i++) {
		/* Slurm copies the row; its members are not const by neglect only. */
		struct spank_option opt = {
			.name = (char *)rows[i].name,
			.arginfo = (char *)rows[i].arg,
			.usage = (char *)rows[i].usage,
			.has_arg = 1,
			.val = i,
			.cb = cb,
		};

		if (spank_option_register(sp, &opt) != ESPANK_SUCCESS) {
			slurm_error("favo: another SPANK plugin has the option --%s",
				    rows[i].name);
			return -1;
		}
	}
	return 0;
}

int favo_plugin_set(struct favo_plugin *p, int row, const char *value)
{
	if (row < 0 || row >= FAVO_PO_COUNT)
		return -1;
	if (!value || !*value) {
		slurm_error("favo: --%s needs a value", rows[row].name);
		return -1;
	}
	if (strlen(value) >= FAVO_VALUE_MAX) {
		slurm_error("favo: --%s: the value is longer than %d characters",
			    rows[row].name, FAVO_VALUE_MAX - 1);
		return -1;
	}
	snprintf(p->value[row], FAVO_VALUE_MAX, "%s", value);
	p->given[row] = true;
	return 0;
}

int favo_plugin_env_defaults(struct favo_plugin *p)
{
	for (int i = 0; i < FAVO_PO_COUNT; i++) {
		const char *value = p->given[i] ? NULL : getenv(rows[i].env);

		/* An empty variable is the same as none. */
		if (value && *value && favo_plugin_set(p, i, value) < 0)
			return -1;
	}
	return 0;
}
