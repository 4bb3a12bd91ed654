// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: what a file is, and the partition table of a disk. The first 8
 * bytes are the disk's size, little-endian; what follows stands at its begin,
 * the rest is zero.
 */
#include "images/partition.h"

#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "images/disk.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *data;
	size_t len;
	uint64_t size;
};

static int read_input(void *user, void *buf, size_t len, uint64_t offset)
{
	const struct input *in = user;

	if (offset > in->size || len > in->size - offset)
		return -ENODATA;
	memset(buf, 0, len);
	if (offset < in->len)
		memcpy(buf, in->data + offset,
		       len < in->len - offset ? len : in->len - offset);
	return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_partition *parts = NULL;
	struct input in;
	size_t n = 0;

	if (size < sizeof(in.size))
		return 0;
	memcpy(&in.size, data, sizeof(in.size));
	in.size = le64toh(in.size) & INT64_MAX;
	in.data = data + sizeof(in.size);
	in.len = size - sizeof(in.size);
	favo_disk_detect(in.data, in.len);
	if (favo_partitions_read(&parts, &n, in.size, read_input, &in, NULL) < 0)
		return 0;
	if (n > FAVO_PARTITIONS_MAX)
		abort();
	for (size_t i = 0; i < n; i++) {
		if (parts[i].length == 0 || parts[i].start > in.size ||
		    parts[i].length > in.size - parts[i].start)
			abort();
		for (size_t j = 0; j < i; j++)
			if (parts[i].start < parts[j].start + parts[j].length &&
			    parts[j].start < parts[i].start + parts[i].length)
				abort();
	}
	free(parts);
	return 0;
}
