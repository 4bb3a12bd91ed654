// SPDX-License-Identifier: GPL-2.0-or-later
/* Which directories of the node a VM sees: lists of users, and the defaults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "common/util.h"
#include "provision/mounts.h"

static void test_lists(void **state)
{
	struct favo_mounts m = {0};

	(void)state;
	assert_int_equal(favo_mounts_parse(&m, "/a", NULL), 0);
	assert_int_equal(favo_mounts_parse(&m, "//b/:/c//d/:ro,/e:/f:rw", NULL), 0);
	assert_int_equal(m.n, 3);
	assert_string_equal(m.v[0].source, "/a");
	assert_string_equal(m.v[0].target, "/a");
	assert_false(m.v[0].read_only);
	assert_true(m.v[0].wanted);
	assert_string_equal(m.v[1].source, "/b");
	assert_string_equal(m.v[1].target, "/c/d");
	assert_true(m.v[1].read_only);
	assert_false(m.v[2].read_only);
	assert_int_equal(favo_mounts_parse(&m, "", NULL), 0);
	assert_int_equal(m.n, 3);
}

static void test_refused(void **state)
{
	static const char *const bad[] = {
		"a",	    "./a",	  "/a/../b", "/a/..",	 "/.",		"/a:b",
		"/a:/b:rx", "/a:/b:ro:x", "/a:/",    "/a:/proc", "/a:/dev/shm", "/sys",
		"/a:/run",  "/a\n:/b",	  "/a,/a",   ":",	 "/a:/x,/b:/x",
	};
	char longest[FAVO_MOUNT_PATH_MAX + 2];

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		struct favo_mounts m = {0};
		struct favo_err err = {0};

		assert_int_equal(favo_mounts_parse(&m, bad[i], &err), -EINVAL);
		assert_true(err.msg[0]);
	}
	memset(longest, '/', sizeof(longest));
	longest[sizeof(longest) - 1] = '\0';
	assert_int_equal(favo_mounts_parse(&(struct favo_mounts){0}, longest, NULL),
			 -EINVAL);
}

static void test_too_many(void **state)
{
	struct favo_mounts m = {0};
	char text[16];

	(void)state;
	for (int i = 0; i < FAVO_MOUNTS_MAX; i++) {
		snprintf(text, sizeof(text), "/m%d", i);
		assert_int_equal(favo_mounts_parse(&m, text, NULL), 0);
	}
	assert_int_equal(favo_mounts_parse(&m, "/more", NULL), -E2BIG);
	favo_mounts_add_defaults(&m, "/home/a", NULL);
	assert_int_equal(m.n, FAVO_MOUNTS_MAX);
}

static size_t defaults(struct favo_mounts *m, const char *list, const char *home,
		       const char *workdir)
{
	memset(m, 0, sizeof(*m));
	assert_int_equal(favo_mounts_parse(m, list, NULL), 0);
	favo_mounts_add_defaults(m, home, workdir);
	favo_mounts_sort(m);
	return m->n;
}

static void test_defaults(void **state)
{
	struct favo_mounts m;

	(void)state;
	assert_int_equal(defaults(&m, "", "/home/a", "/home/a/b"), 1);
	assert_string_equal(m.v[0].source, "/home/a");
	assert_false(m.v[0].wanted);
	assert_int_equal(defaults(&m, "", "/home/a", "/home/ab"), 2);
	assert_int_equal(defaults(&m, "", "/home/a", "/data/x"), 2);
	/* What every system has of its own stays the guest's. */
	assert_int_equal(defaults(&m, "", "/home/a", "/tmp/x"), 1);
	assert_int_equal(defaults(&m, "", "/home/a", "/"), 1);
	assert_int_equal(defaults(&m, "", "/var/lib/x", "/etc"), 0);
	assert_int_equal(defaults(&m, "", "/", NULL), 0);
	assert_int_equal(defaults(&m, "", "/home/../etc", ""), 0);
	/* The user's own mount on home wins. */
	assert_int_equal(defaults(&m, "/x:/home/a:ro", "/home/a", "/home/a/b"), 1);
	assert_string_equal(m.v[0].source, "/x");
	/* Parents first. */
	assert_int_equal(defaults(&m, "/x:/home/a/deep", "/home/a", ""), 2);
	assert_string_equal(m.v[0].target, "/home/a");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lists),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_too_many),
		cmocka_unit_test(test_defaults),
	};

	return cmocka_run_group_tests_name("mounts", tests, NULL, NULL);
}
