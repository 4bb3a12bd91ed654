// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: bzImage kernels. */
#include "tests/fuzz/kernel_target.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	return fuzz_kernel(data, size, favo_bzimage_load);
}
