// SPDX-License-Identifier: GPL-2.0-or-later
/* Configurations of guests that are booted before they have a job. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "images/guest/guest_config.h"
#include "images/guest/init.h"

#define CONFIG_TEXT                                                                      \
	"{\"format\":1,\"hostname\":\"vm0\",\"job\":12,\"index\":0,"                     \
	"\"secret\":"                                                                    \
	"\"0102030405060708000000000000000000000000000000000000000000000000\","          \
	"\"time_ns\":5,\"prefix_len\":16,\"mtu\":1450,\"mac\":\"02:fa:00:0c:00:00\","    \
	"\"address\":\"10.128.0.1\",\"members\":[],\"user\":{\"name\":\"alice\","        \
	"\"uid\":1000,\"gid\":1000,\"home\":\"/home/alice\",\"shell\":\"\","             \
	"\"groups\":[]},\"root\":{\"device\":\"/dev/vda\",\"fstype\":\"erofs\"},"        \
	"\"network\":\"private\"}"

/* The configuration of a guest without a job, and the seed of one that gets a job. */
static void warm_config(void **state)
{
	static const char text[] =
		"{\"format\":1,\"secret\":\"00112233445566778899aabbccddeeff"
		"00112233445566778899aabbccddeeff\",\"time_ns\":5,\"warm\":true,"
		"\"root\":{\"device\":\"/dev/vda\",\"fstype\":\"erofs\"}}";
	static const char *const bad[][2] = {
		{"\"warm\":true", "\"warm\":false"},
		{"\"warm\":true", "\"warm\":1"},
		{"\"warm\":true", "\"warm\":true,\"hostname\":\"a\""},
		{"\"warm\":true,", ""},
		{"\"time_ns\":5,", ""},
	};
	struct favo_guest_config c = {0};
	struct favo_err err = {0};

	(void)state;
	assert_int_equal(favo_guest_config_parse(&c, text, strlen(text), &err), 0);
	assert_true(c.warm);
	assert_false(c.has_seed);
	assert_string_equal(c.root_device, "/dev/vda");
	assert_int_equal(c.time_ns, 5);
	favo_guest_config_fini(&c);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		const char *at = strstr(text, bad[i][0]);
		favo_autofree char *t = favo_asprintf("%.*s%s%s", (int)(at - text), text,
						      bad[i][1], at + strlen(bad[i][0]));

		assert_int_equal(favo_guest_config_parse(&c, t, strlen(t), &err),
				 -EINVAL);
	}
}

static void seed_config(void **state)
{
	static const char hex[] = "ff112233445566778899aabbccddeeff";
	favo_autofree char *good = favo_asprintf("{\"seed\":\"%s%s%s%s\",%s", hex, hex,
						 hex, hex, strchr(CONFIG_TEXT, '"'));
	favo_autofree char *bad = favo_asprintf("{\"seed\":\"%s%s%s\",%s", hex, hex, hex,
						strchr(CONFIG_TEXT, '"'));
	struct favo_guest_config c = {0};
	struct favo_err err = {0};

	(void)state;
	assert_int_equal(favo_guest_config_parse(&c, good, strlen(good), &err), 0);
	assert_true(c.has_seed);
	assert_int_equal(c.seed[0], 0xff);
	assert_false(c.warm);
	favo_guest_config_fini(&c);
	assert_int_equal(favo_guest_config_parse(&c, bad, strlen(bad), &err), -EINVAL);
	assert_non_null(strstr(err.msg, "seed: not 128 hex digits"));
}

/* A slow start makes the kernel's own clock later than the one written down. */
static void clock_of_a_slow_start(void **state)
{
	const int64_t s = 1000000000LL, written = 1700000000 * s;

	(void)state;
	assert_false(favo_clock_is_wrong(written, written));
	assert_false(favo_clock_is_wrong(written + 7 * s, written));
	assert_false(favo_clock_is_wrong(written - s, written));
	assert_true(favo_clock_is_wrong(written - 3 * s, written));
	assert_true(favo_clock_is_wrong(60 * s, written));
	assert_true(favo_clock_is_wrong(written + 86400 * s, written));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(warm_config),
		cmocka_unit_test(seed_config),
		cmocka_unit_test(clock_of_a_slow_start),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
