// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Grants: what is signed is read back; any change, a foreign key, a wrong
 * time and malformed text are refused with the right errno.
 */
#include "provision/grant.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define NOW 1800000000

struct fixture {
	char dir[64];
	char private_path[96];
	char public_path[96];
	struct favo_grant_key *private_key;
	struct favo_grant_key *public_key;
	struct favo_grant_key *other_key;
	struct favo_grant grant;
};

static struct favo_grant sample(void)
{
	struct favo_grant g = {.uid = 1000,
			       .gid = 100,
			       .cpus = 2,
			       .mem_mb = 512,
			       .per_node = 1,
			       .issued = NOW,
			       .expires = NOW + 3600};

	strcpy(g.id, "00112233aabbccdd");
	strcpy(g.user, "alice");
	strcpy(g.image, "debian12-mpi:latest");
	strcpy(g.network, "private");
	strcpy(g.digest, "sha256:");
	memset(g.digest + 7, 'a', 64);
	memset(g.secret, '5', 64);
	return g;
}

static void make_key(const char *dir, const char *name, struct favo_grant_key **priv,
		     struct favo_grant_key **pub)
{
	char a[96], b[96];

	snprintf(a, sizeof(a), "%s/%s.key", dir, name);
	snprintf(b, sizeof(b), "%s/%s.pub", dir, name);
	assert_int_equal(favo_grant_key_init(a, b, NULL, NULL), 0);
	if (priv)
		assert_int_equal(favo_grant_key_load_private(priv, a, NULL), 0);
	if (pub)
		assert_int_equal(favo_grant_key_load_public(pub, b, NULL), 0);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	strcpy(f->dir, "/tmp/favo-grant-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->private_path, sizeof(f->private_path), "%s/site.key", f->dir);
	snprintf(f->public_path, sizeof(f->public_path), "%s/site.pub", f->dir);
	make_key(f->dir, "site", &f->private_key, &f->public_key);
	make_key(f->dir, "other", NULL, &f->other_key);
	f->grant = sample();
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;
	char path[128];

	favo_grant_key_free(f->private_key);
	favo_grant_key_free(f->public_key);
	favo_grant_key_free(f->other_key);
	unlink(f->private_path);
	unlink(f->public_path);
	snprintf(path, sizeof(path), "%s/other.key", f->dir);
	unlink(path);
	snprintf(path, sizeof(path), "%s/other.pub", f->dir);
	unlink(path);
	rmdir(f->dir);
	free(f);
	return 0;
}

static char *sign(struct fixture *f)
{
	struct favo_err err = {0};
	char *text = NULL;

	if (favo_grant_sign(f->private_key, &f->grant, &text, &err) < 0)
		fail_msg("%s", err.msg);
	return text;
}

static void test_round_trip(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *text = sign(f);
	struct favo_grant got, peeked;

	assert_int_equal(favo_grant_verify(f->public_key, text, NOW + 10, &got, NULL), 0);
	assert_string_equal(got.id, f->grant.id);
	assert_string_equal(got.user, "alice");
	assert_string_equal(got.image, f->grant.image);
	assert_string_equal(got.digest, f->grant.digest);
	assert_string_equal(got.network, "private");
	assert_string_equal(got.secret, f->grant.secret);
	assert_int_equal(got.uid, 1000);
	assert_int_equal(got.gid, 100);
	assert_int_equal(got.cpus, 2);
	assert_int_equal(got.mem_mb, 512);
	assert_int_equal(got.per_node, 1);
	assert_int_equal(got.issued, NOW);
	assert_int_equal(got.expires, NOW + 3600);
	assert_int_equal(favo_grant_peek(text, &peeked, NULL), 0);
	assert_string_equal(peeked.id, got.id);
	/* The text goes into an environment variable as it is. */
	assert_null(strpbrk(text, " =\n\"'$\\,"));
}

static void test_every_changed_character_is_refused(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *text = sign(f);
	size_t len = strlen(text);
	struct favo_grant got;

	for (size_t i = 0; i < len; i++) {
		char was = text[i];

		for (unsigned int bit = 0; bit < 8; bit++) {
			text[i] = (char)((unsigned char)was ^ 1U << bit);
			assert_true(favo_grant_verify(f->public_key, text, NOW, &got,
						      NULL) < 0);
		}
		text[i] = was;
	}
	assert_int_equal(favo_grant_verify(f->public_key, text, NOW, &got, NULL), 0);
}

static void test_every_truncation_is_refused(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *text = sign(f);
	struct favo_grant got;

	for (size_t len = strlen(text); len-- > 0;) {
		text[len] = '\0';
		assert_true(favo_grant_verify(f->public_key, text, NOW, &got, NULL) < 0);
	}
}

static void test_time(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *text = sign(f);
	struct favo_grant got;
	static const struct {
		int64_t now;
		int ret;
	} rows[] = {
		{NOW, 0},
		{NOW - 299, 0},
		{NOW - 301, -EKEYEXPIRED},
		{NOW + 3599, 0},
		{NOW + 3600, -EKEYEXPIRED},
		{0, -EKEYEXPIRED},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		assert_int_equal(favo_grant_verify(f->public_key, text, rows[i].now, &got,
						   NULL),
				 rows[i].ret);
}

static void test_foreign_key(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *text = sign(f);
	struct favo_err err = {0};
	struct favo_grant got;

	assert_int_equal(favo_grant_verify(f->other_key, text, NOW, &got, &err),
			 -EKEYREJECTED);
	assert_non_null(strstr(err.msg, "not signed by this site's favod"));
}

static void test_bad_texts(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *huge = malloc(FAVO_GRANT_TEXT_MAX + 100);
	struct favo_grant got;
	static const char *const rows[] = {
		"",
		".",
		"a",
		"a.b",
		"eyJ2IjoxfQ",
		"eyJ2IjoxfQ.",
		"eyJ2IjoxfQ.AAAA",
		"..",
		" ",
		"\xff\xfe.\x01",
		"eyJ2IjoxfQ==.AAAA",
		"%s%n.%s",
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		assert_int_equal(favo_grant_verify(f->public_key, rows[i], NOW, &got,
						   NULL),
				 -EBADMSG);
		assert_int_equal(favo_grant_peek(rows[i], &got, NULL), -EBADMSG);
	}
	memset(huge, 'A', FAVO_GRANT_TEXT_MAX + 99);
	huge[FAVO_GRANT_TEXT_MAX + 99] = '\0';
	assert_int_equal(favo_grant_verify(f->public_key, huge, NOW, &got, NULL),
			 -EBADMSG);
}

static void test_bad_fields_are_not_signed(void **state)
{
	struct fixture *f = *state;
	struct favo_err err = {0};
	char *text = NULL;
	struct favo_grant rows[14];

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		rows[i] = f->grant;
	strcpy(rows[0].id, "xyz");
	strcpy(rows[1].user, "a b");
	strcpy(rows[2].user, "../root");
	strcpy(rows[3].image, "");
	strcpy(rows[4].digest, "sha256:00");
	strcpy(rows[5].network, "bridge:br0");
	rows[6].secret[63] = '\0';
	rows[7].uid = UINT32_MAX;
	rows[8].per_node = 0;
	rows[9].cpus = 5000;
	rows[10].mem_mb = UINT64_MAX;
	rows[11].expires = rows[11].issued;
	strcpy(rows[12].image, "a\"b");
	rows[13].secret[0] = 'A';
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		assert_int_equal(favo_grant_sign(f->private_key, &rows[i], &text, &err),
				 -EINVAL);
	assert_null(text);
}

static void test_key_files(void **state)
{
	struct fixture *f = *state;
	struct favo_grant_key *key = NULL;
	struct favo_err err = {0};
	struct stat st;
	bool made = true;

	assert_int_equal(stat(f->private_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0600);
	assert_int_equal(stat(f->public_path, &st), 0);
	assert_int_equal(st.st_mode & 07777, 0644);

	/* A second call keeps the pair; a lost public half comes back. */
	assert_int_equal(unlink(f->public_path), 0);
	assert_int_equal(
		favo_grant_key_init(f->private_path, f->public_path, &made, NULL), 0);
	assert_false(made);
	assert_int_equal(favo_grant_key_load_public(&key, f->public_path, NULL), 0);
	{
		favo_autofree char *text = sign(f);
		struct favo_grant got;

		assert_int_equal(favo_grant_verify(key, text, NOW, &got, NULL), 0);
	}
	favo_grant_key_free(key);
	key = NULL;

	assert_int_equal(chmod(f->private_path, 0644), 0);
	assert_int_equal(favo_grant_key_load_private(&key, f->private_path, &err),
			 -EPERM);
	assert_int_equal(chmod(f->private_path, 0600), 0);
	assert_int_equal(favo_grant_key_load_private(&key, f->public_path, NULL), -EPERM);
	assert_int_equal(favo_grant_key_load_public(&key, "/dev/null", NULL), -EINVAL);
	assert_int_equal(favo_grant_key_load_public(&key, "/nowhere/key", NULL), -ENOENT);
	assert_null(key);
}

int main(void)
{
	static const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_round_trip, setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_changed_character_is_refused,
						setup, teardown),
		cmocka_unit_test_setup_teardown(test_every_truncation_is_refused, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_time, setup, teardown),
		cmocka_unit_test_setup_teardown(test_foreign_key, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_texts, setup, teardown),
		cmocka_unit_test_setup_teardown(test_bad_fields_are_not_signed, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_key_files, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
