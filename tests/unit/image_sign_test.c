// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Signature files: what is taken and refused. signify(1) judges the same code
 * in tests/system/t0160-image-trust.t.
 */
#include "images/sign.h"

#include <errno.h>
#include <sys/stat.h>

#include "tests/unit/images_util.h"

#define LINE "untrusted comment: a\n"
/* 74 bytes: "Ed" and zeros */
#define SIG                                                                              \
	"RWQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"                   \
	"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA="

static void test_parse(void **state)
{
	static const struct {
		const char *text;
		int result;
	} cases[] = {
		{LINE SIG "\n", 1},
		{LINE SIG, 1},
		{LINE SIG "\n" LINE SIG "\n", 2},
		{"", -EBADMSG},
		{"\n", -EBADMSG},
		{"comment: a\n" SIG "\n", -EBADMSG},
		{LINE, -EBADMSG},
		{"untrusted comment: a", -EBADMSG},
		{LINE SIG "\n\n", -EBADMSG},
		{LINE SIG " \n", -EBADMSG},
		{LINE "RWQ=\n", -EBADMSG},
		{LINE SIG SIG "\n", -EBADMSG},
		{LINE SIG "\n" LINE, -EBADMSG},
		{LINE SIG "\n" LINE SIG "\n" LINE SIG "\n" LINE SIG "\n" LINE SIG
			  "\n" LINE SIG "\n" LINE SIG "\n" LINE SIG "\n" LINE SIG "\n",
		 -EBADMSG},
	};
	struct favo_signature sigs[FAVO_SIGN_MAX];

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++)
		assert_int_equal(favo_signature_parse(cases[i].text,
						      strlen(cases[i].text), sigs, NULL),
				 cases[i].result);
}

static void test_sign(void **state)
{
	char *dir = scratch_dir();
	favo_autofree char *secret = favo_asprintf("%s/a.key", dir);
	favo_autofree char *public = favo_asprintf("%s/a.pub", dir);
	favo_autofree char *other_secret = favo_asprintf("%s/b.key", dir);
	favo_autofree char *other = favo_asprintf("%s/b.pub", dir);
	favo_autosignkey struct favo_sign_key *key = NULL, *none = NULL;
	favo_autosignkeys struct favo_sign_keys *all = NULL, *one = NULL;
	favo_autofree char *text = NULL;
	const char *name = NULL;
	struct favo_err err = {0};
	char data[] = "manifest";

	(void)state;
	assert_ok(favo_sign_keygen(secret, public, "test", &err), &err);
	assert_ok(favo_sign_keygen(other_secret, other, "test", &err), &err);
	assert_int_equal(favo_sign_keygen(secret, public, "test", NULL), -EEXIST);
	assert_ok(favo_sign_key_load(&key, secret, &err), &err);
	assert_ok(favo_sign(key, "c", data, sizeof(data), &text, &err), &err);
	assert_ok(favo_sign_keys_load(&all, dir, &err), &err);
	assert_int_equal(favo_sign_keys_count(all), 2);
	assert_ok(favo_sign_verify(all, text, strlen(text), data, sizeof(data), &name,
				   &err),
		  &err);
	assert_string_equal(name, "a.pub");
	assert_ok(favo_sign_keys_load_file(&one, other, &err), &err);
	assert_int_equal(favo_sign_verify(one, text, strlen(text), data, sizeof(data),
					  NULL, NULL),
			 -EKEYREJECTED);
	/* Any bit of the data. */
	for (size_t bit = 0; bit < sizeof(data) * 8; bit++) {
		data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
		assert_int_equal(favo_sign_verify(all, text, strlen(text), data,
						  sizeof(data), NULL, NULL),
				 -EKEYREJECTED);
		data[bit / 8] = (char)(data[bit / 8] ^ 1 << bit % 8);
	}
	assert_int_equal(chmod(secret, 0640), 0);
	assert_int_equal(favo_sign_key_load(&none, secret, NULL), -EPERM);
	assert_int_equal(favo_sign_keys_load(&one, "/nonexistent", NULL), -ENOENT);
	scratch_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_parse),
		cmocka_unit_test(test_sign),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
