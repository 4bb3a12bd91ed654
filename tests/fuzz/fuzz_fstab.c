// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: the fstab of a system in a disk image. */
#include "images/disk_internal.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const struct favo_partition parts[] = {
		{.number = 1, .uuid = "01010101", .label = "data"},
		{.number = 2, .fs_uuid = "01010101-0101-0101-0101-010101010101"},
	};
	static struct favo_disk disk = {
		.parts = {{.p = &parts[0]}, {.p = &parts[1]}},
		.n = 2,
	};
	char *text = malloc(size + 1), *mended;
	struct favo_fstab_line line;
	const char *at = text;
	unsigned int n;

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	while (favo_fstab_next(&at, &line))
		favo_fstab_device(&disk, line.device);
	mended = favo_fstab_without_disks(text, &n);
	if (mended && strlen(mended) != strlen(text) + n)
		abort();
	free(mended);
	free(text);
	return 0;
}
