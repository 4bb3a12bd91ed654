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
	[FAVO_PO_MOUNT] = {"vm-mount", "FAVO_VM_MOUNT", "SRC[:DST[:ro]]",
			   "directory of the node in the VMs; as often as wanted"},
	[FAVO_PO_SANDBOX] = {"vm-sandbox", "FAVO_VM_SANDBOX", NULL,
			     "no files of the node and no Slurm commands in the VMs"},
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
			.has_arg = rows[i].arg != NULL,
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

/*
 * Slurm puts the options of a component into its own environment and reads them
 * there again for the next one, after the options of the script: they would
 * win over those.
 */
void favo_plugin_next_component(struct favo_plugin *p)
{
	char name[96];

	for (int i = 0; i < FAVO_PO_COUNT; i++) {
		snprintf(name, sizeof(name), "SLURM_SPANK__SLURM_SPANK_OPTION_favo_%s",
			 rows[i].name);
		for (char *c = name; *c; c++)
			if (*c == '-')
				*c = '_';
		unsetenv(name);
		p->given[i] = false;
	}
	p->component_done = false;
}

/* --vm-mount adds to what was given before, the others replace it. */
int favo_plugin_set(struct favo_plugin *p, int row, const char *value)
{
	size_t len = 0;

	if (row < 0 || row >= FAVO_PO_COUNT)
		return -1;
	if (!rows[row].arg)
		value = "yes";
	if (!value || !*value) {
		slurm_error("favo: --%s needs a value", rows[row].name);
		return -1;
	}
	if (row == FAVO_PO_MOUNT && p->given[row])
		len = strlen(p->value[row]);
	if (len + 1 + strlen(value) >= FAVO_VALUE_MAX) {
		slurm_error("favo: --%s: the value is longer than %d characters",
			    rows[row].name, FAVO_VALUE_MAX - 1);
		return -1;
	}
	snprintf(p->value[row] + len, FAVO_VALUE_MAX - len, "%s%s", len ? "," : "",
		 value);
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
