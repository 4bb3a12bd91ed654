// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The store: names, near names, blobs, garbage collection; hostile manifests
 * and indexes; and what kill -9 in the middle of an import leaves.
 */
#include "images/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/json.h"
#include "images/index.h"
#include "images/pack.h"
#include "tests/unit/images_util.h"

#define PATTERN_LEN (600 * 1024)

static json_t *digest_json(const struct favo_digest *digest)
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	return json_string(favo_digest_format(digest, text));
}

static json_t *make_manifest(const char *name, uint64_t size,
			     const struct favo_digest *index,
			     const struct favo_digest *kernel)
{
	return json_pack(
		"{s:i,s:s,s:s,s:s,s:i,s:{s:s},s:{s:s,s:I,s:o},s:{s:o,s:i,s:s,s:s},"
		"s:{s:o,s:i},s:{s:s}}",
		"format", 1, "name", name, "arch", "x86_64", "cmdline", "", "created", 1,
		"os", "PRETTY_NAME", "Test 1", "root", "fstype", "erofs", "size",
		(json_int_t)size, "index", digest_json(index), "kernel", "digest",
		digest_json(kernel), "size", 6, "release", "6.1", "source", "image",
		"initramfs", "digest", digest_json(kernel), "size", 6, "later", "member",
		"of a newer version");
}

/* Import len bytes of a seed as the root of an image; returns its id. */
static struct favo_digest add_image(struct favo_store *store, const char *name,
				    size_t len, uint64_t seed)
{
	favo_autotx struct favo_store_tx *tx = NULL;
	favo_autoindex struct favo_index *index = NULL;
	favo_autofree unsigned char *data = malloc(len);
	favo_autofree void *bytes = NULL;
	favo_autoclose int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	struct favo_digest index_digest, kernel, id;
	struct favo_image_name parsed;
	struct favo_err err = {0};
	json_t *manifest;
	size_t n;

	fill_random(data, len, seed);
	assert_int_equal(write(fd, data, len), len);
	assert_ok(favo_image_name_parse(&parsed, name, &err), &err);
	assert_ok(favo_store_begin(&tx, store, &err), &err);
	assert_ok(favo_pack(tx, fd, &index, NULL, NULL, NULL, &err), &err);
	assert_ok(favo_index_format(index, &bytes, &n, &err), &err);
	assert_ok(favo_store_put(tx, bytes, n, &index_digest, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "kernel", 6, &kernel, NULL, &err), &err);
	manifest = make_manifest(parsed.name, len, &index_digest, &kernel);
	assert_ok(favo_store_commit(tx, manifest, &parsed, &id, &err), &err);
	json_decref(manifest);
	return id;
}

static size_t count_files(const char *dir, const char *below)
{
	favo_autofree char *path = favo_asprintf("%s/%s", dir, below);
	DIR *d = opendir(path);
	struct dirent *entry;
	size_t n = 0;

	if (!d)
		return 0;
	while ((entry = readdir(d))) {
		favo_autofree char *child = favo_asprintf("%s/%s", below, entry->d_name);

		if (entry->d_name[0] == '.')
			continue;
		n += entry->d_type == DT_DIR ? count_files(dir, child) : 1;
	}
	closedir(d);
	return n;
}

/* Everything that a name reaches must be there and right. */
static void assert_consistent(struct favo_store *store)
{
	struct favo_store_ref *refs = NULL;
	struct favo_err err = {0};
	size_t n = 0, len;

	assert_ok(favo_store_list(store, &refs, &n, &err), &err);
	for (size_t i = 0; i < n; i++) {
		favo_automanifest struct favo_manifest *m = NULL;
		favo_autoindex struct favo_index *index = NULL;
		favo_autofree void *data = NULL;

		assert_ok(favo_store_manifest(store, &refs[i].id, &m, &err), &err);
		assert_ok(favo_store_read_blob(store, &m->root.index, 1 << 24, &data,
					       &len, &err),
			  &err);
		assert_ok(favo_index_parse(&index, data, len, m->root.size, &err), &err);
		for (size_t j = 0; j < index->n_chunks; j++) {
			favo_autofree void *chunk = NULL;

			assert_ok(favo_store_read_blob(store, &index->chunks[j].digest,
						       FAVO_CHUNK_MAX, &chunk, &len,
						       &err),
				  &err);
			assert_int_equal(len, index->chunks[j].length);
		}
	}
	favo_store_refs_free(refs, n);
}

static void test_names(void **state)
{
	static const char *const good[] = {"a", "debian12", "site/debian12:v1.2",
					   "A_b.c-d:x", "a/b/c:tag"};
	static const char *const bad[] = {"",	  ":tag",      "a:",	      "/a",
					  "a/",	  "a//b",      "../a",	      ".a",
					  "a b",  "a:b/c:d:e", "a@sha256:12", "a;b",
					  "a\nb", "-a"};
	struct favo_image_name name;
	struct favo_err err = {0};
	char long_name[400];

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(good); i++)
		assert_ok(favo_image_name_parse(&name, good[i], &err), &err);
	assert_string_equal(name.name, "a/b/c");
	assert_string_equal(name.tag, "tag");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++)
		assert_int_equal(favo_image_name_parse(&name, bad[i], &err), -EINVAL);
	memset(long_name, 'a', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = '\0';
	assert_int_equal(favo_image_name_parse(&name, long_name, &err), -EINVAL);
	assert_ok(favo_image_name_parse(&name,
					"x:y@sha256:"
					"00000000000000000000000000000000"
					"000000000000000000000000000000ff",
					&err),
		  &err);
	assert_true(name.has_digest && name.has_tag);
	assert_int_equal(name.digest.bytes[31], 0xff);
}

static void test_refs_and_gc(void **state)
{
	char *dir = scratch_dir(), text[FAVO_DIGEST_TEXT_SIZE + 8];
	favo_autostore struct favo_store *store = NULL;
	struct favo_gc_stats stats;
	struct favo_digest a, b, found;
	struct favo_image_name name;
	struct favo_err err = {0};
	char *near[5];
	size_t blobs, all;
	int n;

	(void)state;
	assert_int_equal(favo_store_open(&store, dir, 0, &err), -ENOENT);
	assert_ok(favo_store_open(&store, dir, FAVO_STORE_CREATE, &err), &err);
	a = add_image(store, "debian12", PATTERN_LEN, 1);
	blobs = count_files(dir, "blobs");
	assert_true(blobs > 5);
	/* The same again stores nothing; another one shares the kernel. */
	found = add_image(store, "debian12", PATTERN_LEN, 1);
	assert_true(favo_digest_equal(&a, &found));
	assert_int_equal(count_files(dir, "blobs"), blobs);
	b = add_image(store, "site/debian12-mpi:v2", PATTERN_LEN, 2);
	all = count_files(dir, "blobs");
	assert_true(all > blobs + 5);
	assert_ok(favo_store_resolve(store, "debian12", &found, &err), &err);
	assert_true(favo_digest_equal(&a, &found));
	assert_ok(favo_store_resolve(store, "site/debian12-mpi:v2", &found, &err), &err);
	assert_true(favo_digest_equal(&b, &found));
	assert_int_equal(favo_store_resolve(store, "any@", &found, &err), -EINVAL);
	memcpy(text, "any@", 4);
	favo_digest_format(&b, text + 4);
	assert_ok(favo_store_resolve(store, text, &found, &err), &err);
	assert_ok(favo_store_resolve(store, favo_digest_format(&b, text), &found, &err),
		  &err);
	assert_int_equal(favo_store_resolve(store, "debian12:none", &found, &err),
			 -ENOENT);
	assert_int_equal(favo_store_resolve(store, "site/debian12-mpi", &found, &err),
			 -ENOENT);

	n = favo_store_near(store, "debain12", near, 5, &err);
	assert_int_equal(n, 1);
	assert_string_equal(near[0], "debian12:latest");
	free(near[0]);
	n = favo_store_near(store, "debian12-mpi", near, 5, &err);
	assert_int_equal(n, 2);
	free(near[0]);
	free(near[1]);
	assert_int_equal(favo_store_near(store, "zzzzzzzz", near, 5, &err), 0);
	assert_int_equal(favo_store_near(store, "../..", near, 5, &err), 0);

	assert_ok(favo_store_gc(store, &stats, &err), &err);
	assert_int_equal(stats.blobs + stats.manifests, 0);
	assert_ok(favo_image_name_parse(&name, "debian12", &err), &err);
	assert_ok(favo_store_untag(store, &name, &err), &err);
	assert_int_equal(favo_store_untag(store, &name, &err), -ENOENT);
	assert_ok(favo_store_gc(store, &stats, &err), &err);
	assert_int_equal(stats.blobs, blobs - 1);
	assert_int_equal(count_files(dir, "blobs"), all - blobs + 1);
	assert_int_equal(stats.manifests, 1);
	assert_consistent(store);
	assert_int_equal(favo_store_tag(store, &name, &a, &err), -ENOENT);
	scratch_free(dir);
}

/* A digest anywhere in a manifest keeps its blob: later versions add members. */
static void test_gc_keeps_unknown_members(void **state)
{
	char *dir = scratch_dir();
	favo_autostore struct favo_store *store = NULL;
	favo_autotx struct favo_store_tx *tx = NULL;
	struct favo_digest index, kernel, verity, id;
	struct favo_image_name name;
	struct favo_err err = {0};
	json_t *manifest;

	(void)state;
	assert_ok(favo_store_open(&store, dir, FAVO_STORE_CREATE, &err), &err);
	assert_ok(favo_image_name_parse(&name, "x", &err), &err);
	assert_ok(favo_store_begin(&tx, store, &err), &err);
	assert_ok(favo_store_put(tx, "", 0, &index, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "kernel", 6, &kernel, NULL, &err), &err);
	assert_ok(favo_store_put(tx, "verity", 6, &verity, NULL, &err), &err);
	manifest = make_manifest("x", 0, &index, &kernel);
	json_object_set_new(manifest, "verity",
			    json_pack("[{s:o}]", "tree", digest_json(&verity)));
	assert_ok(favo_store_commit(tx, manifest, &name, &id, &err), &err);
	json_decref(manifest);
	favo_store_tx_free(favo_steal_ptr(&tx));
	assert_ok(favo_store_gc(store, NULL, &err), &err);
	assert_true(favo_store_has_blob(store, &verity));
	/* Without its index nothing is known of an image: nothing is removed. */
	assert_true(favo_store_has_blob(store, &index));
	scratch_free(dir);
}

static void test_blob_forms(void **state)
{
	static unsigned char data[200000];
	struct favo_digest digest, other;
	struct favo_err err = {0};
	favo_autofree void *stored = NULL, *plain = NULL;
	size_t stored_len, len;

	(void)state;
	/* text packs, noise does not, and noise that looks like zstd is framed */
	for (int kind = 0; kind < 3; kind++) {
		fill_random(data, sizeof(data), 5);
		if (kind == 0)
			memset(data, 'a', sizeof(data));
		if (kind == 2)
			memcpy(data, "\x28\xb5\x2f\xfd", 4);
		free(favo_steal_ptr(&stored));
		free(favo_steal_ptr(&plain));
		assert_ok(favo_digest_of(&digest, data, sizeof(data), &err), &err);
		assert_ok(favo_blob_encode(data, sizeof(data), &stored, &stored_len,
					   &err),
			  &err);
		if (kind == 0)
			assert_true(stored_len < 1000);
		if (kind == 1)
			assert_int_equal(stored_len, sizeof(data));
		if (kind == 2)
			assert_true(stored_len > sizeof(data));
		assert_ok(favo_blob_decode(&digest, stored, stored_len, sizeof(data),
					   &plain, &len, &err),
			  &err);
		assert_int_equal(len, sizeof(data));
		assert_memory_equal(plain, data, len);
		/* one byte less than it has is refused, before memory is taken */
		assert_int_equal(favo_blob_decode(&digest, stored, stored_len,
						  sizeof(data) - 1, &plain, &len, &err),
				 -EBADMSG);
		assert_ok(favo_digest_of(&other, data, sizeof(data) - 1, &err), &err);
		assert_int_equal(favo_blob_decode(&other, stored, stored_len,
						  sizeof(data), &plain, &len, &err),
				 -EBADMSG);
		for (size_t i = 0; i < stored_len; i += stored_len / 50 + 1) {
			favo_autofree void *bad = NULL;
			int ret;

			((unsigned char *)stored)[i] ^= 0x10;
			ret = favo_blob_decode(&digest, stored, stored_len, sizeof(data),
					       &bad, &len, &err);
			/* Some bits of a zstd header say nothing. */
			assert_true(ret == -EBADMSG ||
				    (ret == 0 && memcmp(bad, data, sizeof(data)) == 0));
			((unsigned char *)stored)[i] ^= 0x10;
		}
	}
}

static void test_hostile_manifests(void **state)
{
	static const char *const bad[] = {
		"",
		"[]",
		"{}",
		"{\"format\":2}",
		"{\"format\":\"1\"}",
		"{\"format\":1,\"format\":1}",
	};
	struct favo_digest digest = {{0}};
	json_t *manifest = make_manifest("x", 5, &digest, &digest);
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *text = NULL;
	struct favo_err err = {0};
	const char *key;
	json_t *value;
	size_t len;

	(void)state;
	assert_ok(favo_manifest_format(manifest, &text, &len, &err), &err);
	assert_ok(favo_manifest_parse(&m, text, len, &err), &err);
	assert_string_equal(m->os_pretty, "Test 1");
	assert_int_equal(favo_manifest_total_size(m), 5 + 6 + 6);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		struct favo_manifest *none = NULL;

		assert_int_equal(favo_manifest_parse(&none, bad[i], strlen(bad[i]), &err),
				 -EBADMSG);
	}
	/* Without any one member, or with another type, it is refused. */
	json_object_foreach(manifest, key, value)
	{
		favo_autojson json_t *copy = json_deep_copy(manifest);
		favo_autofree char *json = NULL;
		struct favo_manifest *none = NULL;

		if (strcmp(key, "later") == 0)
			continue;
		json_object_set_new(copy, key, json_true());
		assert_ok(favo_manifest_format(copy, &json, &len, &err), &err);
		assert_int_equal(favo_manifest_parse(&none, json, len, &err), -EBADMSG);
		free(favo_steal_ptr(&json));
		json_object_del(copy, key);
		assert_ok(favo_manifest_format(copy, &json, &len, &err), &err);
		assert_int_equal(favo_manifest_parse(&none, json, len, &err), -EBADMSG);
	}
	json_object_set_new(manifest, "cmdline", json_string("quiet\nroot=/dev/evil"));
	free(favo_steal_ptr(&text));
	assert_ok(favo_manifest_format(manifest, &text, &len, &err), &err);
	{
		struct favo_manifest *none = NULL;

		assert_int_equal(favo_manifest_parse(&none, text, len, &err), -EBADMSG);
	}
	json_decref(manifest);
}

static void test_hostile_indexes(void **state)
{
	unsigned char bytes[3 * FAVO_INDEX_ENTRY_LEN] = {0};
	struct favo_index *index = NULL;
	struct favo_err err = {0};

	(void)state;
	bytes[0] = 10;
	bytes[36] = 20;
	bytes[72] = 30;
	assert_ok(favo_index_parse(&index, bytes, sizeof(bytes), 60, &err), &err);
	assert_int_equal(index->chunks[2].offset, 30);
	favo_index_free(index);
	assert_ok(favo_index_parse(&index, bytes, 0, 0, &err), &err);
	favo_index_free(index);
	assert_int_equal(favo_index_parse(&index, bytes, sizeof(bytes) - 1, 60, &err),
			 -EBADMSG);
	assert_int_equal(favo_index_parse(&index, bytes, sizeof(bytes), 59, &err),
			 -EBADMSG);
	assert_int_equal(favo_index_parse(&index, bytes, sizeof(bytes), 61, &err),
			 -EBADMSG);
	bytes[36] = 0;
	assert_int_equal(favo_index_parse(&index, bytes, sizeof(bytes), 40, &err),
			 -EBADMSG);
	memset(bytes + 36, 0xff, 4);
	assert_int_equal(favo_index_parse(&index, bytes, sizeof(bytes), UINT64_MAX, &err),
			 -EBADMSG);
}

/* kill -9 at some moment of an import: the store stays right, gc cleans. */
static void test_kill_while_writing(void **state)
{
	char *dir = scratch_dir();
	favo_autostore struct favo_store *store = NULL;
	struct favo_err err = {0};

	(void)state;
	assert_ok(favo_store_open(&store, dir, FAVO_STORE_CREATE, &err), &err);
	add_image(store, "first", PATTERN_LEN, 1);
	for (int i = 0; i < 25; i++) {
		pid_t pid = fork();

		assert_true(pid >= 0);
		if (pid == 0) {
			for (uint64_t seed = 0;; seed++)
				add_image(store, "other", PATTERN_LEN,
					  100 + (uint64_t)i * 1000 + seed);
		}
		usleep(1000u * (unsigned int)(3 + 7 * i));
		kill(pid, SIGKILL);
		assert_int_equal(waitpid(pid, NULL, 0), pid);
		assert_consistent(store);
	}
	assert_ok(favo_store_gc(store, NULL, &err), &err);
	assert_int_equal(count_files(dir, "tmp"), 0);
	assert_consistent(store);
	scratch_free(dir);
}

static void test_damaged_store(void **state)
{
	char *dir = scratch_dir(), path[200], hex[FAVO_DIGEST_HEX_SIZE];
	favo_autostore struct favo_store *store = NULL;
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_digest id;
	struct favo_err err = {0};
	struct favo_gc_stats stats;
	void *data;
	size_t len, before;

	(void)state;
	assert_ok(favo_store_open(&store, dir, FAVO_STORE_CREATE, &err), &err);
	id = add_image(store, "image", PATTERN_LEN, 1);
	add_image(store, "image", PATTERN_LEN, 2);
	before = count_files(dir, "blobs");
	assert_ok(favo_store_manifest(store, &id, &m, &err), &err);
	assert_ok(favo_store_resolve(store, "image", &id, &err), &err);
	favo_manifest_free(favo_steal_ptr(&m));
	assert_ok(favo_store_manifest(store, &id, &m, &err), &err);
	favo_digest_format_hex(&m->root.index, hex);
	snprintf(path, sizeof(path), "%s/blobs/%.2s/%s", dir, hex, hex);
	assert_int_equal(truncate(path, 40), 0);
	assert_int_equal(favo_store_read_blob(store, &m->root.index, 1 << 20, &data, &len,
					      &err),
			 -EBADMSG);
	/* gc cannot know what belongs to the damaged image: it removes nothing. */
	assert_int_equal(favo_store_gc(store, &stats, &err), -EBADMSG);
	assert_int_equal(count_files(dir, "blobs"), before);
	snprintf(path, sizeof(path), "%s/manifests/%s.json", dir,
		 favo_digest_format_hex(&id, hex));
	assert_int_equal(truncate(path, 40), 0);
	favo_manifest_free(favo_steal_ptr(&m));
	assert_int_equal(favo_store_manifest(store, &id, &m, &err), -EBADMSG);
	assert_int_equal(favo_store_resolve(store, "image", &id, &err), -EBADMSG);
	scratch_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_names),
		cmocka_unit_test(test_refs_and_gc),
		cmocka_unit_test(test_gc_keeps_unknown_members),
		cmocka_unit_test(test_blob_forms),
		cmocka_unit_test(test_hostile_manifests),
		cmocka_unit_test(test_hostile_indexes),
		cmocka_unit_test(test_damaged_store),
		cmocka_unit_test(test_kill_while_writing),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
