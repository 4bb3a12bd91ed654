/* SPDX-License-Identifier: GPL-2.0-or-later */
/* One body for the fuzz targets of the kernel loaders. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "hypervisor/boot.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/*
 * Load data as a kernel file of one kind into 8 MiB of guest memory, and if it
 * is accepted put what a boot needs beside it.
 */
int fuzz_kernel(const uint8_t *data, size_t size,
		int (*load)(struct favo_kernel *, struct favo_memory *, int, uint64_t,
			    struct favo_err *));
