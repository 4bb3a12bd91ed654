// SPDX-License-Identifier: GPL-2.0-or-later
/* See kernel_target.h. File and memory are made once and used again. */
#include "tests/fuzz/kernel_target.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define MEM_SIZE (8u << 20)

static struct favo_memory *memory(void)
{
	static const struct favo_memory_opts opts = {.size = MEM_SIZE,
						     .huge = FAVO_HUGE_OFF};
	static struct favo_memory *mem; /* lives as long as the process */

	if (!mem && favo_memory_new(&mem, &opts, NULL) < 0)
		abort();
	return mem;
}

int fuzz_kernel(const uint8_t *data, size_t size,
		int (*load)(struct favo_kernel *, struct favo_memory *, int, uint64_t,
			    struct favo_err *))
{
	static int fd = -1; /* as above */
	struct favo_kernel k = {0};
	struct favo_boot boot = {
		.kernel = &k, .cmdline = "quiet", .initrds = &fd, .ninitrds = 1};

	if (fd < 0)
		fd = memfd_create("fuzz", MFD_CLOEXEC);
	if (ftruncate(fd, 0) < 0 || pwrite(fd, data, size, 0) != (ssize_t)size)
		return 0;
	if (load(&k, memory(), fd, size, NULL) < 0)
		return 0;
	/* What was accepted lies in memory, above the boot structures. */
	if (k.end > MEM_SIZE || k.address >= k.end || k.address < FAVO_BOOT_KERNEL_MIN ||
	    k.setup_header_len > sizeof(k.setup_header))
		abort();
	favo_boot_prepare(memory(), &boot, NULL);
	return 0;
}
