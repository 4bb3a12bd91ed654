// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lazy start without a kernel: a partial image filled from two sides, requests
 * of guests against it, the order of chunks, pins of partial images.
 */
#include "images/lazy.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "common/json.h"
#include "images/cache.h"
#include "images/pack.h"
#include "images/partial.h"
#include "tests/unit/images_util.h"

#define ROOT_LEN (2 * 1024 * 1024)
#define LIMIT_MS 1000

struct fixture {
	char *dir, *folder;
	struct favo_store *store;
	struct favo_cache *cache;
	struct favo_fetch *fetch;
	unsigned char *root;
	struct favo_digest id;
	struct favo_partial *partial;
	struct favo_lazy *lazy;
};

static json_t *digest_json(const struct favo_digest *digest)
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	return json_string(favo_digest_format(digest, text));
}

/* A store with one image; the first and the last MiB quarter are equal. */
static void make_image(struct fixture *f, char **manifest, size_t *manifest_len)
{
	struct favo_digest index_digest, kernel, initramfs;
	favo_autotx struct favo_store_tx *tx = NULL;
	favo_autoindex struct favo_index *index = NULL;
	favo_autoclose int fd = open(f->dir, O_TMPFILE | O_RDWR, 0600);
	favo_autofree void *bytes = NULL;
	favo_autojson json_t *json = NULL;
	struct favo_err err = {0};
	size_t len;

	assert_int_equal(write(fd, f->root, ROOT_LEN), ROOT_LEN);
	assert_ok(favo_store_begin(&tx, f->store, &err), &err);
	assert_ok(favo_pack(tx, fd, &index, NULL, NULL, NULL, &err), &err);
	assert_ok(favo_index_format(index, &bytes, &len, &err), &err);
	assert_ok(favo_store_put(tx, bytes, len, &index_digest, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "kernel", 6, &kernel, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "initramfs", 9, &initramfs, NULL, &err), &err);
	json = json_pack("{s:i,s:s,s:s,s:s,s:i,s:{},s:{s:s,s:i,s:o},s:{s:o,s:i,s:s,s:s},"
			 "s:{s:o,s:i}}",
			 "format", 1, "name", "one", "arch", "x86_64", "cmdline", "",
			 "created", 1, "os", "root", "fstype", "erofs", "size", ROOT_LEN,
			 "index", digest_json(&index_digest), "kernel", "digest",
			 digest_json(&kernel), "size", 6, "release", "6.1", "source",
			 "image", "initramfs", "digest", digest_json(&initramfs), "size",
			 9);
	assert_non_null(json);
	assert_ok(favo_store_commit(tx, json, NULL, &f->id, &err), &err);
	assert_ok(favo_manifest_format(json, manifest, manifest_len, &err), &err);
}

static char *stored(struct fixture *f, const struct favo_digest *digest, size_t *len)
{
	struct favo_err err = {0};
	uint64_t size = 0;
	favo_autoclose int fd = favo_store_open_blob(f->store, digest, &size, &err);
	char *bytes = malloc(size);

	assert_ok(fd, &err);
	assert_ok(favo_read_all(fd, bytes, size, -1, &err), &err);
	*len = size;
	return bytes;
}

static int put_fetch(struct fixture *f, const struct favo_digest *digest)
{
	struct favo_err err = {0};
	size_t len;
	favo_autofree char *bytes = stored(f, digest, &len);

	return favo_fetch_put(f->fetch, digest, bytes, len, &err);
}

static int put_partial(struct fixture *f, const struct favo_digest *digest)
{
	struct favo_err err = {0};
	size_t len;
	favo_autofree char *bytes = stored(f, digest, &len);

	return favo_partial_put(f->partial, digest, bytes, len, &err);
}

/* A fetch that is held after what a VM needs to begin, and its server. */
static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	favo_autofree char *manifest = NULL, *path = NULL;
	struct favo_cache_image image;
	struct favo_digest want[8];
	struct favo_err err = {0};
	size_t len;
	int n;

	f->dir = scratch_dir();
	path = favo_asprintf("%s/store", f->dir);
	assert_ok(favo_store_open(&f->store, path, FAVO_STORE_CREATE, &err), &err);
	assert_ok(favo_cache_open(&f->cache, f->dir, &err), &err);
	f->root = malloc(ROOT_LEN);
	fill_random(f->root, ROOT_LEN, 1);
	memcpy(f->root + 3 * ROOT_LEN / 4, f->root, ROOT_LEN / 4);
	make_image(f, &manifest, &len);
	assert_ok(favo_fetch_begin(&f->fetch, f->cache, &f->id, manifest, len, &err),
		  &err);
	favo_fetch_hold(f->fetch, true);
	assert_int_equal(favo_fetch_chunks(f->fetch), 0);
	while ((n = favo_fetch_missing(f->fetch, want, 8)) > 0)
		for (int i = 0; i < n; i++)
			assert_ok(put_fetch(f, &want[i]), &err);
	assert_true(favo_fetch_is_bootable(f->fetch));
	assert_ok(favo_cache_get_partial(f->cache, &f->id, "1.0", &image, &f->folder,
					 &err),
		  &err);
	favo_cache_image_fini(&image);
	assert_ok(favo_partial_open(&f->partial, f->folder, &err), &err);
	assert_ok(favo_lazy_new(&f->lazy, f->partial, LIMIT_MS, &err), &err);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_lazy_free(f->lazy);
	favo_partial_free(f->partial);
	favo_fetch_free(f->fetch);
	favo_cache_close(f->cache);
	favo_store_close(f->store);
	scratch_free(f->dir);
	free(f->folder);
	free(f->root);
	free(f);
	return 0;
}

static void ask(struct fixture *f, uint64_t cookie, uint64_t offset, uint32_t length,
		int64_t now)
{
	const struct favo_lazy_request r = {cookie, offset, length};
	struct favo_err err = {0};

	assert_ok(favo_lazy_ask(f->lazy, &r, now, &err), &err);
}

/* The next answer is this one, with the image's bytes. */
static void expect_answer(struct fixture *f, uint64_t cookie, int64_t now)
{
	struct favo_lazy_request r;
	struct favo_err err = {0};
	favo_autofree unsigned char *buf = NULL;
	bool late = true;

	assert_true(favo_lazy_next(f->lazy, now, &r, &late));
	assert_int_equal(r.cookie, cookie);
	assert_false(late);
	buf = malloc(r.length);
	assert_ok(favo_partial_read(f->partial, buf, r.length, r.offset, &err), &err);
	assert_memory_equal(buf, f->root + r.offset, r.length);
}

static void expect_nothing(struct fixture *f, int64_t now)
{
	struct favo_lazy_request r;
	bool late;

	assert_false(favo_lazy_next(f->lazy, now, &r, &late));
}

static void read_miss(void **state)
{
	struct fixture *f = *state;
	struct favo_digest want[4];
	int n;

	ask(f, 7, 1000, 100, 0);
	expect_nothing(f, 0);
	assert_int_equal(favo_lazy_waiting(f->lazy), 1);
	n = favo_lazy_want(f->lazy, want, 4);
	assert_int_equal(n, 1);
	/* Nobody else gets it meanwhile. */
	assert_int_equal(favo_lazy_want(f->lazy, want + 1, 3), 0);
	assert_int_equal(put_partial(f, want), 0);
	favo_lazy_settle(f->lazy, want, n);
	expect_answer(f, 7, 0);
	assert_int_equal(favo_lazy_waiting(f->lazy), 0);
	/* Now it is here. */
	ask(f, 8, 1000, 100, 0);
	expect_answer(f, 8, 0);
	assert_int_equal(favo_lazy_want(f->lazy, want, 4), 0);
}

static void read_across_chunks(void **state)
{
	struct fixture *f = *state;
	struct favo_digest want[64];
	int n;

	ask(f, 1, 0, ROOT_LEN, 0);
	while ((n = favo_lazy_want(f->lazy, want, 2)) > 0) {
		expect_nothing(f, 0);
		for (int i = 0; i < n; i++)
			assert_int_equal(put_partial(f, &want[i]), 0);
		favo_lazy_settle(f->lazy, want, n);
	}
	expect_answer(f, 1, 0);
	/* Equal chunks came once for all their places. */
	assert_true(favo_partial_state(f->partial)->moved < ROOT_LEN * 7 / 8);
}

static void source_away(void **state)
{
	struct fixture *f = *state;
	struct favo_lazy_request r;
	struct favo_digest want[4];
	bool late = false;

	ask(f, 1, 0, 10, 0);
	ask(f, 2, ROOT_LEN / 2, 10, 500);
	assert_int_equal(favo_lazy_deadline(f->lazy), LIMIT_MS);
	for (int i = 0; i < 3; i++) {
		/* Each try fails, and is made again. */
		assert_int_equal(favo_lazy_want(f->lazy, want, 4), 2);
		favo_lazy_settle(f->lazy, want, 2);
	}
	expect_nothing(f, LIMIT_MS - 1);
	assert_true(favo_lazy_next(f->lazy, LIMIT_MS, &r, &late));
	assert_true(late);
	assert_int_equal(r.cookie, 1);
	expect_nothing(f, LIMIT_MS);
	/* The source is back in time for the second. */
	assert_int_equal(favo_lazy_want(f->lazy, want, 4), 1);
	assert_int_equal(put_partial(f, want), 0);
	favo_lazy_settle(f->lazy, want, 1);
	expect_answer(f, 2, LIMIT_MS);
	assert_int_equal(favo_lazy_deadline(f->lazy), INT64_MAX);
}

static void bad_requests(void **state)
{
	static const struct favo_lazy_request bad[] = {
		{1, 0, 0},
		{1, ROOT_LEN, 1},
		{1, ROOT_LEN - 1, 2},
		{1, UINT64_MAX, 1},
		{1, UINT64_MAX - 10, UINT32_MAX},
	};
	struct fixture *f = *state;
	const struct favo_lazy_request good = {1, ROOT_LEN - 1, 1};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++)
		assert_int_equal(favo_lazy_ask(f->lazy, &bad[i], 0, NULL), -EINVAL);
	for (int i = 0; i < FAVO_LAZY_REQUESTS; i++)
		assert_int_equal(favo_lazy_ask(f->lazy, &good, 0, NULL), 0);
	assert_int_equal(favo_lazy_ask(f->lazy, &good, 0, NULL), -EBUSY);
}

static void wrong_bytes(void **state)
{
	struct fixture *f = *state;
	struct favo_digest want[1];
	size_t len;
	favo_autofree char *bytes = NULL;

	ask(f, 1, 0, 10, 0);
	assert_int_equal(favo_lazy_want(f->lazy, want, 1), 1);
	bytes = stored(f, want, &len);
	bytes[len / 2] ^= 1;
	assert_int_equal(favo_partial_put(f->partial, want, bytes, len, NULL), -EBADMSG);
	favo_lazy_settle(f->lazy, want, 1);
	expect_nothing(f, 0);
	memset(want, 1, sizeof(want));
	assert_int_equal(favo_partial_put(f->partial, want, bytes, len, NULL), -ENOENT);
}

/* What the server put is not asked for by the fetch, and the other way round. */
static void two_fillers(void **state)
{
	struct fixture *f = *state;
	const struct favo_index *index = favo_partial_index(f->partial);
	size_t half = index->n_chunks / 2, asked = 0;
	struct favo_fetch_progress progress;
	struct favo_cache_image image;
	struct favo_digest want[4];
	struct favo_err err = {0};
	int n;

	for (size_t i = 0; i < half; i++)
		assert_int_equal(put_partial(f, &index->chunks[i].digest), 0);
	assert_int_equal(favo_fetch_commit(f->fetch, NULL), -EAGAIN);
	favo_fetch_hold(f->fetch, false);
	favo_fetch_retry(f->fetch);
	while ((n = favo_fetch_missing(f->fetch, want, 4)) > 0) {
		for (int i = 0; i < n; i++)
			assert_ok(put_fetch(f, &want[i]), &err);
		asked += (size_t)n;
	}
	assert_true(asked <= index->n_chunks - half);
	assert_true(favo_partial_has(f->partial, index->n_chunks - 1));
	favo_fetch_progress(f->fetch, &progress);
	assert_int_equal(progress.done, progress.total);
	assert_ok(favo_fetch_commit(f->fetch, &err), &err);
	/* Its users go on; the pin went with it. */
	ask(f, 1, 0, ROOT_LEN, 0);
	expect_answer(f, 1, 0);
	assert_int_equal(favo_cache_remove(f->cache, &f->id, NULL), -EBUSY);
	assert_ok(favo_cache_verify(f->cache, &f->id, &err), &err);
	assert_ok(favo_cache_get(f->cache, &f->id, NULL, &image, &err), &err);
	favo_cache_image_fini(&image);
	assert_ok(favo_cache_unpin(f->cache, &f->id, "1.0", &err), &err);
	assert_ok(favo_cache_remove(f->cache, &f->id, &err), &err);
}

static void first_chunks(void **state)
{
	static const uint32_t first[] = {5, 2, 999999, 2, 7};
	static const size_t order[] = {5, 2, 7};
	struct fixture *f = *state;
	const struct favo_index *index = favo_partial_index(f->partial);
	struct favo_digest want[8];
	struct favo_err err = {0};

	assert_ok(favo_fetch_first(f->fetch, first, FAVO_ARRAY_SIZE(first), &err), &err);
	assert_int_equal(favo_fetch_missing(f->fetch, want, 8), 3);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(order); i++)
		assert_true(favo_digest_equal(&want[i], &index->chunks[order[i]].digest));
	/* Held: nothing behind them. */
	assert_int_equal(favo_fetch_missing(f->fetch, want, 8), 0);
	favo_fetch_hold(f->fetch, false);
	assert_int_equal(favo_fetch_missing(f->fetch, want, 8), 8);
	assert_true(favo_digest_equal(&want[0], &index->chunks[0].digest));
}

static void trace(void **state)
{
	struct fixture *f = *state;
	favo_autofree char *path = favo_asprintf("%s/trace", f->folder), *data = NULL;
	favo_autofree uint32_t *chunks = NULL;
	size_t len, n, total = favo_partial_index(f->partial)->n_chunks;
	struct favo_err err = {0};

	ask(f, 1, ROOT_LEN - 1, 1, 0);
	ask(f, 2, 0, 1, 0);
	ask(f, 3, ROOT_LEN - 1, 1, 0);
	assert_ok(favo_file_read(path, FAVO_TRACE_MAX, &data, &len, &err), &err);
	assert_ok(favo_trace_parse(&chunks, &n, data, len, total, &err), &err);
	assert_int_equal(n, 2);
	assert_int_equal(chunks[0], total - 1);
	assert_int_equal(chunks[1], 0);
	assert_int_equal(favo_trace_parse(&chunks, &n, data, len - 1, total, NULL),
			 -EBADMSG);
	assert_int_equal(favo_trace_parse(&chunks, &n, data, len, total - 1, NULL),
			 -EBADMSG);
}

/* A map that lies is put right when the fetch is taken up again. */
static void damaged_after_crash(void **state)
{
	struct fixture *f = *state;
	const struct favo_digest digest =
		favo_partial_index(f->partial)->chunks[0].digest;
	favo_autofree char *path = favo_asprintf("%s/root.img", f->folder);
	favo_autofree char *file = favo_asprintf("%s/manifest.json", f->folder);
	favo_autofree char *manifest = NULL;
	favo_autoclose int fd = open(path, O_WRONLY);
	struct favo_err err = {0};
	size_t len;

	assert_int_equal(put_partial(f, &digest), 0);
	assert_true(favo_partial_has(f->partial, 0));
	assert_int_equal(pwrite(fd, "damage", 6, 0), 6);
	favo_fetch_free(f->fetch);
	f->fetch = NULL;
	assert_ok(favo_file_read(file, 1 << 20, &manifest, &len, &err), &err);
	assert_ok(favo_fetch_begin(&f->fetch, f->cache, &f->id, manifest, len, &err),
		  &err);
	assert_false(favo_partial_has(f->partial, 0));
}

static void one_server(void **state)
{
	struct fixture *f = *state;
	struct favo_partial *other = NULL;
	struct favo_partial_state seen;

	assert_int_equal(favo_partial_open(&other, f->folder, NULL), -EBUSY);
	assert_int_equal(favo_partial_open(&other, f->dir, NULL), -EINVAL);
	assert_int_equal(favo_partial_state_load(&seen, f->folder, NULL), -ENOENT);
	favo_partial_state(f->partial)->device = 3;
	memcpy(favo_partial_state(f->partial)->magic, FAVO_PARTIAL_MAGIC, 8);
	assert_int_equal(favo_partial_state_load(&seen, f->folder, NULL), 0);
	assert_int_equal(seen.device, 3);
}

static bool nobody(const char *holder, void *user)
{
	(void)holder;
	(void)user;
	return false;
}

static void pins_of_partial_images(void **state)
{
	struct fixture *f = *state;
	struct favo_err err = {0};

	assert_int_equal(favo_cache_remove(f->cache, &f->id, NULL), -EBUSY);
	assert_ok(favo_cache_evict(f->cache, 0, true, &err), &err);
	assert_int_equal(access(f->folder, F_OK), 0);
	assert_ok(favo_cache_prune_pins(f->cache, nobody, NULL, &err), &err);
	assert_ok(favo_cache_evict(f->cache, 0, true, &err), &err);
	assert_int_equal(access(f->folder, F_OK), -1);
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, setup, teardown)

int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(read_miss),
		TEST(read_across_chunks),
		TEST(source_away),
		TEST(bad_requests),
		TEST(wrong_bytes),
		TEST(two_fillers),
		TEST(first_chunks),
		TEST(trace),
		TEST(damaged_after_crash),
		TEST(one_server),
		TEST(pins_of_partial_images),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
