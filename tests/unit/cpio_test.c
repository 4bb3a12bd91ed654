// SPDX-License-Identifier: GPL-2.0-or-later
/* The cpio writer, judged by cpio(1) and by byte comparison. */
#include "images/cpio.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/util.h"

static struct favo_cpio *sample(void)
{
	struct favo_cpio *cpio = NULL;
	struct favo_err err = {0};

	assert_int_equal(favo_cpio_new(&cpio, &err), 0);
	assert_int_equal(
		favo_cpio_file(cpio, "favo/a/config.json", 0600, "{}\n", 3, &err), 0);
	assert_int_equal(favo_cpio_file(cpio, "favo/a/empty", 0644, NULL, 0, &err), 0);
	assert_int_equal(favo_cpio_symlink(cpio, "sbin/init", "../init", &err), 0);
	assert_int_equal(favo_cpio_device(cpio, "dev/console", S_IFCHR, 0600, 5, 1, &err),
			 0);
	assert_int_equal(favo_cpio_dir(cpio, "proc", 0555, &err), 0);
	assert_int_equal(
		favo_cpio_copy(cpio, "self", 0755, "/proc/self/exe", 1 << 28, &err), 0);
	return cpio;
}

static void test_cpio_lists_it(void **state)
{
	favo_autocpio struct favo_cpio *cpio = sample();
	struct favo_err err = {0};
	char cmd[128], out[4096] = {0};
	favo_autoclose int fd = favo_cpio_finish_memfd(cpio, "test", &err);
	FILE *pipe;

	(void)state;
	assert_true(fd >= 0);
	if (access("/usr/bin/cpio", X_OK) != 0 && access("/bin/cpio", X_OK) != 0) {
		print_message("skipped: no cpio program\n");
		skip();
	}
	snprintf(cmd, sizeof(cmd), "cpio -itv --numeric-uid-gid --quiet </proc/%d/fd/%d",
		 getpid(), fd);
	pipe = popen(cmd, "r");
	assert_non_null(pipe);
	assert_true(fread(out, 1, sizeof(out) - 1, pipe) > 0);
	assert_int_equal(pclose(pipe), 0);
	assert_non_null(strstr(out, "favo/a/config.json"));
	assert_non_null(strstr(out, "sbin/init -> ../init"));
	assert_non_null(strstr(out, "5,   1"));
	assert_non_null(strstr(out, "dr-xr-xr-x"));
	assert_true(ftruncate(fd, 0) < 0);
}

static void test_deterministic_and_padded(void **state)
{
	favo_autocpio struct favo_cpio *a = sample(), *b = sample();
	const void *data_a, *data_b;
	size_t len_a, len_b;

	(void)state;
	assert_int_equal(favo_cpio_finish(a, &data_a, &len_a, NULL), 0);
	assert_int_equal(favo_cpio_finish(b, &data_b, &len_b, NULL), 0);
	assert_int_equal(len_a, len_b);
	assert_int_equal(len_a % 512, 0);
	assert_memory_equal(data_a, data_b, len_a);
	assert_int_equal(favo_cpio_finish(a, &data_b, &len_b, NULL), 0);
	assert_ptr_equal(data_a, data_b);
}

static void test_refusals(void **state)
{
	static const char *const bad[] = {"",	 "/abs", "a/../b", "..",
					  "./a", "a//b", "a/"};
	favo_autocpio struct favo_cpio *cpio = NULL;
	struct favo_err err = {0};
	const void *data;
	size_t len;

	(void)state;
	assert_int_equal(favo_cpio_new(&cpio, &err), 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++)
		assert_int_equal(favo_cpio_file(cpio, bad[i], 0644, "x", 1, &err),
				 -EINVAL);
	assert_int_equal(favo_cpio_device(cpio, "d", S_IFREG, 0600, 0, 0, &err), -EINVAL);
	assert_int_equal(favo_cpio_copy(cpio, "x", 0644, "/nonexistent", 10, &err),
			 -ENOENT);
	assert_int_equal(favo_cpio_copy(cpio, "x", 0644, "/proc/self/exe", 10, &err),
			 -EFBIG);
	assert_int_equal(favo_cpio_finish(cpio, &data, &len, &err), 0);
	assert_int_equal(favo_cpio_file(cpio, "late", 0644, "x", 1, &err), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_cpio_lists_it),
		cmocka_unit_test(test_deterministic_and_padded),
		cmocka_unit_test(test_refusals),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
