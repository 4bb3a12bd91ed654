/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Of disk.c and disk_fstab.c only. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "images/partition.h"
#include "images/source.h"

struct favo_disk_part {
	const struct favo_partition *p;
	bool is_root; /* has an os-release */
	bool own; /* its fstab names it as / */
	bool used;
	char os[128];
	char *fstab; /* NULL: none */
};

struct favo_disk {
	struct favo_source *source;
	const char *path; /* of the raw file */
	int fd;
	struct favo_disk_part parts[FAVO_PARTITIONS_MAX];
	size_t n;
};

struct favo_fstab_line {
	char device[256], folder[256];
};

/*
 * The next line of fstab(5) at *text that mounts something; false at the end
 * (and when *text is NULL). Fields that are too long are skipped.
 */
bool favo_fstab_next(const char **text, struct favo_fstab_line *line);

/* The partition that a device of fstab is: UUID=, PARTUUID=, LABEL=, /dev/..N. */
struct favo_disk_part *favo_fstab_device(struct favo_disk *disk, const char *device);

/*
 * The text with those lines commented out that need a disk; *n is their
 * number. The caller frees it; NULL: out of memory.
 */
char *favo_fstab_without_disks(const char *text, unsigned int *n);
