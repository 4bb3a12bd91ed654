// SPDX-License-Identifier: GPL-2.0-or-later
/* FastCDC: lengths, stability of cuts under edits, and a fixed result. */
#include "images/chunker.h"

#include "images/digest.h"
#include "tests/unit/images_util.h"

#define LEN (8u * 1024 * 1024)
#define CUTS_MAX (LEN / FAVO_CHUNKER_MIN + 1)

static size_t cut_all(const unsigned char *data, size_t len, struct favo_digest *digests,
		      size_t *lengths)
{
	struct favo_chunker chunker;
	size_t n = 0, at = 0;

	favo_chunker_init(&chunker);
	while (at < len) {
		lengths[n] = favo_chunker_next(&chunker, data + at, len - at);
		assert_true(lengths[n] > 0 && lengths[n] <= len - at);
		assert_int_equal(favo_digest_of(&digests[n], data + at, lengths[n], NULL),
				 0);
		at += lengths[n++];
	}
	return n;
}

static void test_lengths(void **state)
{
	favo_autofree unsigned char *data = malloc(LEN);
	favo_autofree struct favo_digest *digests = calloc(CUTS_MAX, sizeof(*digests));
	favo_autofree size_t *lengths = calloc(CUTS_MAX, sizeof(*lengths));
	size_t n, average;

	(void)state;
	fill_random(data, LEN, 7);
	n = cut_all(data, LEN, digests, lengths);
	for (size_t i = 0; i + 1 < n; i++)
		assert_in_range(lengths[i], FAVO_CHUNKER_MIN, FAVO_CHUNKER_MAX);
	average = LEN / n;
	assert_in_range(average, FAVO_CHUNKER_AVG * 3 / 4, FAVO_CHUNKER_AVG * 3 / 2);
}

static void test_short_input(void **state)
{
	static unsigned char data[FAVO_CHUNKER_MIN + 1];
	struct favo_chunker chunker;

	(void)state;
	favo_chunker_init(&chunker);
	assert_int_equal(favo_chunker_next(&chunker, data, 0), 0);
	assert_int_equal(favo_chunker_next(&chunker, data, 1), 1);
	assert_int_equal(favo_chunker_next(&chunker, data, FAVO_CHUNKER_MIN),
			 FAVO_CHUNKER_MIN);
}

/* A long file gives the same cuts, however much of it is shown at once. */
static void test_window_is_enough(void **state)
{
	favo_autofree unsigned char *data = malloc(LEN);
	struct favo_chunker chunker;
	size_t at = 0, len;

	(void)state;
	fill_random(data, LEN, 8);
	favo_chunker_init(&chunker);
	for (; at + FAVO_CHUNKER_MAX <= LEN; at += len) {
		len = favo_chunker_next(&chunker, data + at, LEN - at);
		assert_int_equal(favo_chunker_next(&chunker, data + at, FAVO_CHUNKER_MAX),
				 len);
	}
}

/* Inserting, deleting and changing bytes touches the chunks around only. */
static void test_edits_are_local(void **state)
{
	favo_autofree unsigned char *data = malloc(LEN + 100),
				    *edited = malloc(LEN + 100);
	favo_autofree struct favo_digest *a = calloc(CUTS_MAX + 8, sizeof(*a));
	favo_autofree struct favo_digest *b = calloc(CUTS_MAX + 8, sizeof(*b));
	favo_autofree size_t *lengths = calloc(CUTS_MAX + 8, sizeof(*lengths));
	size_t n_a, n_b, fresh, where;

	(void)state;
	fill_random(data, LEN, 9);
	n_a = cut_all(data, LEN, a, lengths);
	for (int edit = 0; edit < 30; edit++) {
		size_t len = LEN;

		where = (size_t)edit * (LEN / 30) + 12345;
		memcpy(edited, data, LEN);
		if (edit % 3 == 0) {
			memmove(edited + where + 13, edited + where, LEN - where);
			len += 13;
		} else if (edit % 3 == 1) {
			memmove(edited + where, edited + where + 13, LEN - where - 13);
			len -= 13;
		} else {
			edited[where] ^= 1;
		}
		n_b = cut_all(edited, len, b, lengths);
		fresh = 0;
		for (size_t i = 0; i < n_b; i++) {
			bool known = false;

			for (size_t j = 0; j < n_a && !known; j++)
				known = favo_digest_equal(&b[i], &a[j]);
			fresh += !known;
		}
		assert_in_range(fresh, 1, 6);
	}
}

/*
 * Images share chunks across versions of Favo only as long as the cuts stay.
 * This fails when table, masks or limits change.
 */
static void test_cuts_never_change(void **state)
{
	favo_autofree unsigned char *data = malloc(1024 * 1024);
	struct favo_chunker chunker;
	size_t at = 0, n = 0, cuts[8] = {0};

	(void)state;
	fill_random(data, 1024 * 1024, 1);
	favo_chunker_init(&chunker);
	for (; n < 8; n++)
		at += cuts[n] = favo_chunker_next(&chunker, data + at, 1024 * 1024 - at);
	assert_int_equal(cuts[0], 79433);
	assert_int_equal(cuts[1], 18584);
	assert_int_equal(cuts[2], 79701);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_lengths),
		cmocka_unit_test(test_short_input),
		cmocka_unit_test(test_window_is_enough),
		cmocka_unit_test(test_edits_are_local),
		cmocka_unit_test(test_cuts_never_change),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
