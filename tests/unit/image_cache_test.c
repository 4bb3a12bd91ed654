// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Node cache filled from a store, as favo-noded does it from favod: with
 * wrong answers, interruptions, damage on disk, pins and eviction.
 */
#include "images/cache.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>

#include "images/index.h"
#include "images/pack.h"
#include "tests/unit/images_util.h"

#define ROOT_LEN (3 * 1024 * 1024)

struct fixture {
	char *dir, *cache_dir;
	struct favo_store *store;
	struct favo_cache *cache;
	unsigned char *root; /* of image 0 */
	struct favo_digest id[2];
	char *manifest[2];
	size_t manifest_len[2];
};

static json_t *digest_json(const struct favo_digest *digest)
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	return json_string(favo_digest_format(digest, text));
}

/* An image with the given root; kernel and initramfs are any bytes. */
static void make_image(struct fixture *f, int number, const char *name)
{
	struct favo_digest index_digest, kernel, initramfs;
	favo_autotx struct favo_store_tx *tx = NULL;
	favo_autoindex struct favo_index *index = NULL;
	favo_autoclose int fd = open(f->dir, O_TMPFILE | O_RDWR, 0600);
	favo_autofree void *bytes = NULL;
	struct favo_image_name image;
	struct favo_err err = {0};
	json_t *manifest;
	size_t len;

	assert_int_equal(write(fd, f->root, ROOT_LEN), ROOT_LEN);
	assert_ok(favo_image_name_parse(&image, name, &err), &err);
	assert_ok(favo_store_begin(&tx, f->store, &err), &err);
	assert_ok(favo_pack(tx, fd, &index, NULL, NULL, NULL, &err), &err);
	assert_ok(favo_index_format(index, &bytes, &len, &err), &err);
	assert_ok(favo_store_put(tx, bytes, len, &index_digest, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "kernel", 6, &kernel, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "\x28\xb5\x2f\xfd no frame", 13, &initramfs, NULL,
				 &err),
		  &err);
	manifest =
		json_pack("{s:i,s:s,s:s,s:s,s:i,s:{},s:{s:s,s:i,s:o},s:{s:o,s:i,s:s,s:s},"
			  "s:{s:o,s:i}}",
			  "format", 1, "name", name, "arch", "x86_64", "cmdline", "",
			  "created", 1, "os", "root", "fstype", "erofs", "size", ROOT_LEN,
			  "index", digest_json(&index_digest), "kernel", "digest",
			  digest_json(&kernel), "size", 6, "release", "6.1", "source",
			  "image", "initramfs", "digest", digest_json(&initramfs), "size",
			  13);
	assert_non_null(manifest);
	assert_ok(favo_store_commit(tx, manifest, &image, &f->id[number], &err), &err);
	assert_ok(favo_manifest_format(manifest, &f->manifest[number],
				       &f->manifest_len[number], &err),
		  &err);
	json_decref(manifest);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));
	favo_autofree char *store_dir = NULL;
	struct favo_err err = {0};

	f->dir = scratch_dir();
	store_dir = favo_asprintf("%s/store", f->dir);
	f->cache_dir = favo_asprintf("%s/cache", f->dir);
	assert_ok(favo_store_open(&f->store, store_dir, FAVO_STORE_CREATE, &err), &err);
	assert_ok(favo_cache_open(&f->cache, f->cache_dir, &err), &err);
	f->root = malloc(ROOT_LEN);
	fill_random(f->root, ROOT_LEN, 1);
	memset(f->root + 1024 * 1024, 0, 1024 * 1024);
	make_image(f, 0, "one");
	/* The second image differs in one place. */
	fill_random(f->root + 100000, 10, 2);
	make_image(f, 1, "two");
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_cache_close(f->cache);
	favo_store_close(f->store);
	scratch_free(f->dir);
	free(f->cache_dir);
	free(f->manifest[0]);
	free(f->manifest[1]);
	free(f->root);
	free(f);
	return 0;
}

static void put_from_store(struct fixture *f, struct favo_fetch *fetch,
			   const struct favo_digest *digest)
{
	favo_autoclose int fd = -1;
	struct favo_err err = {0};
	favo_autofree char *bytes = NULL;
	uint64_t size = 0;

	fd = favo_store_open_blob(f->store, digest, &size, &err);
	assert_ok(fd, &err);
	bytes = malloc(size + 1);
	assert_ok(favo_read_all(fd, bytes, size, -1, &err), &err);
	assert_ok(favo_fetch_put(fetch, digest, bytes, size, &err), &err);
}

/* Returns how many blobs were asked for. */
static int fetch_all(struct fixture *f, struct favo_fetch *fetch, int batch)
{
	struct favo_digest want[256];
	int n, total = 0;

	while ((n = favo_fetch_missing(fetch, want, batch)) > 0) {
		total += n;
		for (int i = 0; i < n; i++)
			put_from_store(f, fetch, &want[i]);
	}
	return total;
}

static void begin(struct fixture *f, int number, struct favo_fetch **fetch)
{
	struct favo_err err = {0};

	assert_ok(favo_fetch_begin(fetch, f->cache, &f->id[number], f->manifest[number],
				   f->manifest_len[number], &err),
		  &err);
}

static void fill(struct fixture *f, int number)
{
	favo_autofetch struct favo_fetch *fetch = NULL;
	struct favo_err err = {0};

	begin(f, number, &fetch);
	fetch_all(f, fetch, 7);
	assert_ok(favo_fetch_commit(fetch, &err), &err);
}

static void test_fill_and_get(void **state)
{
	struct fixture *f = *state;
	favo_autofetch struct favo_fetch *fetch = NULL, *other = NULL;
	favo_autofree char *root = malloc(ROOT_LEN);
	struct favo_fetch_progress progress;
	struct favo_cache_image image;
	struct favo_err err = {0};
	struct stat st;

	assert_int_equal(favo_cache_get(f->cache, &f->id[1], "1.0", &image, &err),
			 -ENOENT);
	begin(f, 1, &fetch);
	assert_int_equal(favo_fetch_commit(fetch, &err), -EAGAIN);
	assert_true(fetch_all(f, fetch, 5) > 20);
	favo_fetch_progress(fetch, &progress);
	assert_int_equal(progress.total, ROOT_LEN + 6 + 13);
	assert_int_equal(progress.done, progress.total);
	assert_int_equal(progress.reused, 0);
	assert_true(progress.moved > 2 * 1024 * 1024 && progress.moved < ROOT_LEN);
	assert_ok(favo_fetch_commit(fetch, &err), &err);
	assert_ok(favo_cache_get(f->cache, &f->id[1], "1.0", &image, &err), &err);
	assert_ok(favo_read_all(image.root_fd, root, ROOT_LEN, -1, &err), &err);
	assert_memory_equal(root, f->root, ROOT_LEN);
	/* The zero megabyte takes no room. */
	assert_int_equal(fstat(image.root_fd, &st), 0);
	assert_true(st.st_blocks * 512 < ROOT_LEN - 512 * 1024);
	assert_string_equal(image.manifest->name, "two");
	favo_cache_image_fini(&image);
	assert_ok(favo_cache_verify(f->cache, &f->id[1], &err), &err);
	assert_int_equal(favo_fetch_begin(&other, f->cache, &f->id[1], f->manifest[1],
					  f->manifest_len[1], &err),
			 -EEXIST);
}

static void test_second_image_moves_little(void **state)
{
	struct fixture *f = *state;
	favo_autofetch struct favo_fetch *fetch = NULL;
	struct favo_fetch_progress progress;
	struct favo_err err = {0};

	fill(f, 0);
	begin(f, 1, &fetch);
	/* index, kernel, initramfs, and the chunk or two around the change */
	assert_in_range(fetch_all(f, fetch, 256), 4, 6);
	favo_fetch_progress(fetch, &progress);
	assert_true(progress.reused > ROOT_LEN - 2 * FAVO_CHUNK_MAX);
	assert_ok(favo_fetch_commit(fetch, &err), &err);
	assert_ok(favo_cache_verify(f->cache, &f->id[1], &err), &err);
}

static void test_wrong_bytes(void **state)
{
	struct fixture *f = *state;
	favo_autofetch struct favo_fetch *fetch = NULL;
	struct favo_digest want[256], other;
	struct favo_err err = {0};
	char bytes[] = "not what was asked for";
	int n;

	assert_int_equal(favo_fetch_begin(&fetch, f->cache, &f->id[0], f->manifest[1],
					  f->manifest_len[1], &err),
			 -EBADMSG);
	begin(f, 0, &fetch);
	assert_int_equal(favo_fetch_missing(fetch, want, 256), 1);
	assert_int_equal(favo_fetch_missing(fetch, want + 1, 255), 0);
	assert_int_equal(favo_fetch_put(fetch, &want[0], bytes, sizeof(bytes), &err),
			 -EBADMSG);
	favo_fetch_retry(fetch);
	assert_int_equal(favo_fetch_missing(fetch, want, 256), 1);
	put_from_store(f, fetch, &want[0]);
	n = favo_fetch_missing(fetch, want, 256);
	assert_true(n > 20);
	for (int i = 0; i < n; i++)
		assert_int_equal(favo_fetch_put(fetch, &want[i], bytes, sizeof(bytes),
						&err),
				 -EBADMSG);
	assert_ok(favo_digest_of(&other, bytes, sizeof(bytes), &err), &err);
	assert_int_equal(favo_fetch_put(fetch, &other, bytes, sizeof(bytes), &err),
			 -ENOENT);
	assert_int_equal(favo_fetch_commit(fetch, &err), -EAGAIN);
	favo_fetch_retry(fetch);
	assert_int_equal(fetch_all(f, fetch, 256), n);
	assert_ok(favo_fetch_commit(fetch, &err), &err);
}

static void test_resume(void **state)
{
	struct fixture *f = *state;
	favo_autofetch struct favo_fetch *fetch = NULL;
	struct favo_fetch_progress progress;
	struct favo_digest want[256];
	struct favo_err err = {0};
	char hex[FAVO_DIGEST_HEX_SIZE];
	favo_autofree char *path =
		favo_asprintf("%s/images/%s.part/root.img", f->cache_dir,
			      favo_digest_format_hex(&f->id[0], hex));
	favo_autoclose int fd = -1;
	int n;

	begin(f, 0, &fetch);
	assert_int_equal(favo_fetch_missing(fetch, want, 256), 1);
	put_from_store(f, fetch, &want[0]);
	n = favo_fetch_missing(fetch, want, 256);
	for (int i = 0; i < n - 3; i++)
		put_from_store(f, fetch, &want[i]);
	favo_fetch_free(favo_steal_ptr(&fetch));
	/* A crash tore the first chunk: "have" lies, the digest does not. */
	fd = open(path, O_WRONLY);
	assert_int_equal(pwrite(fd, "torn", 4, 5000), 4);
	favo_cache_close(favo_steal_ptr(&f->cache));
	assert_ok(favo_cache_open(&f->cache, f->cache_dir, &err), &err);
	begin(f, 0, &fetch);
	favo_fetch_progress(fetch, &progress);
	assert_true(progress.reused > ROOT_LEN / 2);
	assert_int_equal(fetch_all(f, fetch, 256), 3 + 1);
	assert_ok(favo_fetch_commit(fetch, &err), &err);
	assert_ok(favo_cache_verify(f->cache, &f->id[0], &err), &err);
}

static void flip(struct fixture *f, const char *name)
{
	char hex[FAVO_DIGEST_HEX_SIZE], byte = 0;
	favo_autofree char *path =
		favo_asprintf("%s/images/%s/%s", f->cache_dir,
			      favo_digest_format_hex(&f->id[0], hex), name);
	favo_autoclose int fd = open(path, O_RDWR);

	assert_int_equal(pread(fd, &byte, 1, 3), 1);
	byte ^= 1;
	assert_int_equal(pwrite(fd, &byte, 1, 3), 1);
}

static void test_damage_is_found(void **state)
{
	static const char *const parts[] = {"root.img", "kernel", "initramfs", "index",
					    "manifest.json"};
	struct fixture *f = *state;
	struct favo_cache_image image;
	struct favo_err err = {0};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(parts); i++) {
		fill(f, 0);
		flip(f, parts[i]);
		assert_int_equal(favo_cache_verify(f->cache, &f->id[0], &err), -EBADMSG);
		/* After a crash of the machine the next use drops it. */
		flip(f, "unsynced");
		favo_cache_close(favo_steal_ptr(&f->cache));
		assert_ok(favo_cache_open(&f->cache, f->cache_dir, &err), &err);
		assert_int_equal(favo_cache_get(f->cache, &f->id[0], NULL, &image, &err),
				 -ENOENT);
	}
	/* What get reads itself is found without a crash, too. */
	fill(f, 0);
	flip(f, "manifest.json");
	assert_int_equal(favo_cache_get(f->cache, &f->id[0], "1.0", &image, &err),
			 -ENOENT);
	/* An undamaged one stays, and is not looked at twice. */
	fill(f, 0);
	flip(f, "unsynced");
	favo_cache_close(favo_steal_ptr(&f->cache));
	assert_ok(favo_cache_open(&f->cache, f->cache_dir, &err), &err);
	assert_ok(favo_cache_get(f->cache, &f->id[0], NULL, &image, &err), &err);
	favo_cache_image_fini(&image);
	flip(f, "root.img");
	assert_ok(favo_cache_get(f->cache, &f->id[0], NULL, &image, &err), &err);
	favo_cache_image_fini(&image);
	assert_ok(favo_cache_remove(f->cache, &f->id[0], &err), &err);
	/* Nor is one that was settled. */
	fill(f, 0);
	assert_ok(favo_cache_settle(f->cache, &f->id[0], &err), &err);
	flip(f, "root.img");
	assert_ok(favo_cache_get(f->cache, &f->id[0], NULL, &image, &err), &err);
	favo_cache_image_fini(&image);
	assert_int_equal(favo_cache_settle(f->cache, &f->id[1], &err), -ENOENT);
}

static bool only_second(const char *holder, void *user)
{
	(void)user;
	return strcmp(holder, "2.0") == 0;
}

static void test_pins_and_eviction(void **state)
{
	struct fixture *f = *state;
	struct favo_cache_entry *entries = NULL;
	struct favo_cache_image image;
	struct favo_err err = {0};
	size_t n = 0;

	fill(f, 0);
	fill(f, 1);
	assert_ok(favo_cache_get(f->cache, &f->id[0], "1.0", &image, &err), &err);
	favo_cache_image_fini(&image);
	assert_ok(favo_cache_pin(f->cache, &f->id[0], "2.0", &err), &err);
	assert_int_equal(favo_cache_pin(f->cache, &f->id[0], "../x", &err), -EINVAL);
	assert_int_equal(favo_cache_remove(f->cache, &f->id[0], &err), -EBUSY);
	assert_ok(favo_cache_evict(f->cache, 0, true, &err), &err);
	assert_ok(favo_cache_list(f->cache, &entries, &n, &err), &err);
	assert_int_equal(n, 1);
	assert_true(favo_digest_equal(&entries[0].id, &f->id[0]));
	assert_int_equal(entries[0].pins, 2);
	assert_true(entries[0].complete && entries[0].bytes > 2 * 1024 * 1024);
	free(entries);
	assert_ok(favo_cache_prune_pins(f->cache, only_second, NULL, &err), &err);
	assert_int_equal(favo_cache_remove(f->cache, &f->id[0], &err), -EBUSY);
	assert_ok(favo_cache_unpin(f->cache, &f->id[0], "2.0", &err), &err);
	assert_ok(favo_cache_unpin(f->cache, &f->id[0], "2.0", &err), &err);
	assert_ok(favo_cache_remove(f->cache, &f->id[0], &err), &err);
	assert_int_equal(favo_cache_remove(f->cache, &f->id[0], &err), -ENOENT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup_teardown(test_fill_and_get, setup, teardown),
		cmocka_unit_test_setup_teardown(test_second_image_moves_little, setup,
						teardown),
		cmocka_unit_test_setup_teardown(test_wrong_bytes, setup, teardown),
		cmocka_unit_test_setup_teardown(test_resume, setup, teardown),
		cmocka_unit_test_setup_teardown(test_damage_is_found, setup, teardown),
		cmocka_unit_test_setup_teardown(test_pins_and_eviction, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
