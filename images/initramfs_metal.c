// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Modules for real machines that boot over the network; see initramfs.h. The
 * drivers below are those of network cards and disk controllers of servers;
 * which of them a machine loads, its devices say (modalias). Firmware files
 * are not brought along.
 */
#include <errno.h>
#include <limits.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/initramfs_internal.h"

/* In load order; a node cannot do without the required ones. */
static const struct {
	const char *name;
	bool required;
} base[] = {
	{"crc32c_intel", false}, {"crc32c_generic", false},
	{"erofs", true},	 {"overlay", true},
	{"loop", true},		 {"af_packet", false},
	{"ext4", false},	 {"dm_verity", false},
};

/* Each with a module that it only asks for while it runs. */
static const struct {
	const char *name, *soft;
} drivers[] = {
	{"virtio_pci", NULL},
	{"virtio_net", NULL},
	{"virtio_blk", NULL},
	{"virtio_rng", NULL},
	{"e1000", NULL},
	{"e1000e", NULL},
	{"igb", NULL},
	{"igc", NULL},
	{"ixgbe", NULL},
	{"i40e", NULL},
	{"ice", NULL},
	{"r8169", "realtek"},
	{"tg3", "broadcom"},
	{"bnxt_en", NULL},
	{"bnx2x", NULL},
	{"mlx4_en", "mlx4_core"},
	{"mlx4_core", "mlx4_en"},
	{"mlx5_core", NULL},
	{"vmxnet3", NULL},
	{"be2net", NULL},
	{"qede", NULL},
	{"sfc", NULL},
	{"ena", NULL},
	{"atlantic", NULL},
	{"cxgb4", NULL},
	{"nvme", NULL},
	{"ahci", "sd_mod"},
	{"megaraid_sas", "sd_mod"},
	{"mpt3sas", "sd_mod"},
	{"virtio_scsi", "sd_mod"},
};

static int append_path(struct favo_module_builder *b, const char *path, size_t len,
		       void *user, struct favo_err *err)
{
	char target[NAME_MAX + 32];
	int ret = favo_modules_add(b, path, len, NULL, err);

	if (ret == 0)
		ret = favo_modules_target(target, sizeof(target), path, len, err);
	if (ret == 0)
		fprintf(user, " /%s", target);
	return ret;
}

static int add_named(struct favo_module_builder *b, const char *name, FILE *out,
		     struct favo_err *err)
{
	char *line = favo_modules_find(b->dep, name);

	if (!line)
		return 0;
	return favo_modules_each(b, line, append_path, out, err);
}

/* One line of favo/drivers for each driver that the kernel has as a module. */
static int add_drivers(struct favo_module_builder *b, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0;
	FILE *out = open_memstream(&text, &len);
	int ret = 0;

	if (!out)
		return favo_fail(err, ENOMEM, "initramfs: out of memory");
	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(drivers); i++) {
		if (!favo_modules_find(b->dep, drivers[i].name))
			continue;
		fputs(drivers[i].name, out);
		if (drivers[i].soft)
			ret = add_named(b, drivers[i].soft, out, err);
		if (ret == 0)
			ret = add_named(b, drivers[i].name, out, err);
		fputc('\n', out);
	}
	fclose(out);
	return ret < 0 ? ret
		       : favo_cpio_file(b->cpio, "favo/drivers", 0644, text, len, err);
}

static bool is_driver(const char *name)
{
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(drivers); i++)
		if (strcmp(drivers[i].name, name) == 0)
			return true;
	return false;
}

/* modules.alias has lines "alias PATTERN NAME". */
static int add_aliases(struct favo_module_builder *b, struct favo_err *err)
{
	favo_autofree char *all = NULL, *text = NULL;
	char *save = NULL;
	size_t len = 0;
	FILE *out;
	int ret = favo_modules_text(b, "modules.alias", &all, err);

	if (ret < 0)
		return ret;
	out = open_memstream(&text, &len);
	if (!out)
		return favo_fail(err, ENOMEM, "initramfs: out of memory");
	for (char *line = strtok_r(all, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		char pattern[256], name[64];

		if (sscanf(line, "alias %255s %63s", pattern, name) == 2 &&
		    is_driver(name))
			fprintf(out, "%s %s\n", pattern, name);
	}
	fclose(out);
	return favo_cpio_file(b->cpio, "favo/aliases", 0644, text, len, err);
}

static int fill(struct favo_module_builder *b, struct favo_err *err)
{
	size_t base_len;
	char *line;
	int ret;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(base); i++) {
		if (favo_modules_find(b->builtin, base[i].name))
			continue;
		line = favo_modules_find(b->dep, base[i].name);
		ret = line ? favo_modules_each(b, line, favo_modules_add, NULL, err) : 0;
		if (ret < 0)
			return ret;
		if (!line && base[i].required)
			return favo_fail(err, ENOENT, "%s: the kernel has no module %s",
					 b->folder, base[i].name);
	}
	base_len = b->list_len;
	ret = add_drivers(b, err);
	if (ret == 0)
		ret = add_aliases(b, err);
	return ret < 0 ? ret
		       : favo_cpio_file(b->cpio, "favo/modules", 0644, b->list, base_len,
					err);
}

int favo_initramfs_build_metal(struct favo_cpio **out, const struct favo_tree *tree,
			       const char *modules, struct favo_err *err)
{
	struct favo_module_builder b;
	int ret = favo_modules_begin(&b, tree, modules, err);

	if (ret == 0)
		ret = fill(&b, err);
	if (ret == 0)
		*out = favo_steal_ptr(&b.cpio);
	favo_modules_end(&b);
	return ret < 0 ? favo_wrap(err, ret, "initramfs of nodes") : 0;
}
