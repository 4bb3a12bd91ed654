// SPDX-License-Identifier: GPL-2.0-or-later
/* Site configuration: favo.conf(5) describes exactly the keys that there are. */
#include "provision/conf.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "common/fd.h"
#include "common/util.h"

static void test_every_key_is_in_the_man_page(void **state)
{
	favo_autofree char *page = NULL;
	const struct favo_opt *rows;
	size_t n, documented = 0;

	(void)state;
	assert_int_equal(favo_file_read(MAN_PAGE, 1 << 20, &page, NULL, NULL), 0);
	rows = favo_conf_table(&n);
	for (size_t i = 0; i < n; i++) {
		favo_autofree char *line = NULL;
		char key[64] = "", *p = key;

		for (const char *c = rows[i].name; *c && p < key + 62; c++)
			*p++ = *c == '-' ? '_' : *c;
		line = favo_asprintf("\n.BI %s \" = ", key);
		if (!strstr(page, line))
			fail_msg("man/favo.conf.5 lacks %s", key);
	}
	for (char *p = page; (p = strstr(p, "\n.BI ")) != NULL; p++)
		documented++;
	assert_int_equal(documented, n);
}

static void test_defaults_load(void **state)
{
	struct favo_conf conf;
	struct favo_err err = {0};

	(void)state;
	assert_int_equal(favo_conf_load(&conf, "/dev/null", false, &err), 0);
	assert_string_equal(conf.run_dir, "/run/favo");
	favo_conf_fini(&conf);
	assert_int_equal(favo_conf_load(&conf, "/nowhere/favo.conf", false, &err),
			 -ENOENT);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_every_key_is_in_the_man_page),
		cmocka_unit_test(test_defaults_load),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
