// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The verity tree: its layout, its hashes (judged by veritysetup(8)), and what
 * a manifest may say of it. Reading through the kernel's dm-verity needs root
 * and a node: tests/system/t2700-verified-reads.t.
 */
#include "images/verity.h"

#include <errno.h>
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "common/json.h"
#include "images/manifest.h"
#include "images/pack.h"
#include "tests/unit/images_util.h"

#define KIB 1024ull
#define DIGEST "sha256:5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9"

static void test_layout(void **state)
{
	static const struct {
		uint64_t size, blocks, offset, hash_size;
		unsigned int levels;
		uint64_t first; /* level_block[0] */
	} cases[] = {
		{1, 1, 4096, 0, 0, 0},
		{4096, 1, 4096, 0, 0, 0},
		{4097, 2, 8192, 4096, 1, 0},
		{128 * 4096, 128, 128 * 4096, 4096, 1, 0},
		{129 * 4096, 129, 129 * 4096, 3 * 4096, 2, 1},
		{1ull << 30, 1 << 18, 1ull << 30, (2048 + 16 + 1) * 4096, 3, 17},
		/* the largest root */
		{1ull << 40, 1 << 28, 1ull << 40, (2097152ull + 16384 + 128 + 1) * 4096,
		 4, 16513},
	};
	struct favo_verity_layout layout;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_verity_layout(cases[i].size, &layout);
		assert_int_equal(layout.data_blocks, cases[i].blocks);
		assert_int_equal(layout.hash_offset, cases[i].offset);
		assert_int_equal(layout.hash_size, cases[i].hash_size);
		assert_int_equal(layout.levels, cases[i].levels);
		assert_int_equal(layout.level_block[0], cases[i].first);
	}
}

/* Exit status of veritysetup verify, -1 when the program is not installed. */
static int veritysetup(const char *path, uint64_t size, const struct favo_digest *salt,
		       const struct favo_digest *root_hash)
{
	char hash[FAVO_DIGEST_HEX_SIZE], salt_text[FAVO_DIGEST_HEX_SIZE + 16];
	char offset[64], blocks[64], hex[FAVO_DIGEST_HEX_SIZE];
	struct favo_verity_layout layout;
	char *argv[] = {(char *)"veritysetup",
			(char *)"verify",
			(char *)path,
			(char *)path,
			hash,
			(char *)"--no-superblock",
			(char *)"--format=1",
			(char *)"--hash=sha256",
			(char *)"--data-block-size=4096",
			(char *)"--hash-block-size=4096",
			salt_text,
			offset,
			blocks,
			NULL};
	static const char *const where[] = {"/usr/sbin/veritysetup", "/sbin/veritysetup"};
	const char *program = NULL;
	extern char **environ;
	int status = 0;
	pid_t pid;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(where); i++)
		if (access(where[i], X_OK) == 0)
			program = where[i];
	if (!program)
		return -1;
	favo_verity_layout(size, &layout);
	favo_digest_format_hex(root_hash, hash);
	snprintf(salt_text, sizeof(salt_text), "--salt=%s",
		 favo_digest_format_hex(salt, hex));
	snprintf(offset, sizeof(offset), "--hash-offset=%llu",
		 (unsigned long long)layout.hash_offset);
	snprintf(blocks, sizeof(blocks), "--data-blocks=%llu",
		 (unsigned long long)layout.data_blocks);
	assert_int_equal(posix_spawn(&pid, program, NULL, NULL, argv, environ), 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 255;
}

static void flip(int fd, off_t at)
{
	unsigned char byte;

	assert_int_equal(pread(fd, &byte, 1, at), 1);
	byte ^= 0x10;
	assert_int_equal(pwrite(fd, &byte, 1, at), 1);
}

static void test_tree(void **state)
{
	static const uint64_t sizes[] = {4097, 128 * 4096, 129 * 4096, 700 * 4096 - 5,
					 20000 * 4096};
	char *dir = scratch_dir();
	struct favo_digest salt, root_hash, again;
	struct favo_verity_layout layout;
	struct favo_err err = {0};
	struct stat st;

	(void)state;
	favo_verity_salt(&salt);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(sizes); i++) {
		favo_autofree char *path = favo_asprintf("%s/%zu", dir, i);
		favo_autofree unsigned char *data = malloc(sizes[i]);
		favo_autoclose int fd = open(path, O_RDWR | O_CREAT, 0600);

		fill_random(data, sizes[i], i);
		assert_ok(favo_write_all(fd, data, sizes[i], -1, &err), &err);
		assert_ok(favo_verity_build(fd, sizes[i], &salt, &root_hash, &err), &err);
		favo_verity_layout(sizes[i], &layout);
		assert_int_equal(fstat(fd, &st), 0);
		assert_int_equal(st.st_size, layout.hash_offset + layout.hash_size);
		/* Over an old tree: the same. */
		assert_ok(favo_verity_build(fd, sizes[i], &salt, &again, &err), &err);
		assert_true(favo_digest_equal(&root_hash, &again));
		if (veritysetup(path, sizes[i], &salt, &root_hash) == -1) {
			print_message("veritysetup is not installed: hashes unjudged\n");
			continue;
		}
		assert_int_equal(veritysetup(path, sizes[i], &salt, &root_hash), 0);
		flip(fd, (off_t)sizes[i] / 2);
		assert_int_not_equal(veritysetup(path, sizes[i], &salt, &root_hash), 0);
		flip(fd, (off_t)sizes[i] / 2);
		flip(fd, (off_t)layout.hash_offset + 40);
		assert_int_not_equal(veritysetup(path, sizes[i], &salt, &root_hash), 0);
	}
	assert_int_equal(favo_verity_build(-1, 0, &salt, &root_hash, &err), -EINVAL);
	scratch_free(dir);
}

static json_t *manifest(uint64_t size, const char *verity)
{
	favo_autojson json_t *m =
		json_pack("{s:i s:s s:s s:{} s:I s:s s:{s:s s:I s:s} s:{s:s s:I s:s s:s} "
			  "s:{s:s s:I}}",
			  "format", 1, "name", "a", "arch", "x86_64", "os", "created",
			  (json_int_t)0, "cmdline", "", "root", "fstype", "erofs", "size",
			  (json_int_t)size, "index", DIGEST, "kernel", "digest", DIGEST,
			  "size", (json_int_t)1, "release", "6.1", "source", "site",
			  "initramfs", "digest", DIGEST, "size", (json_int_t)1);

	if (verity) {
		json_t *value = json_loads(verity, 0, NULL);

		assert_non_null(value);
		json_object_set_new(json_object_get(m, "root"), "verity", value);
	}
	return json_incref(m);
}

static void make_image(struct favo_store_tx *tx, const struct favo_packed_root *root)
{
	favo_autojson json_t *json = manifest(0, NULL);
	struct favo_err err = {0};
	struct favo_digest id;

	json_object_set_new(json, "root", favo_packed_root_json(root));
	assert_ok(favo_store_commit(tx, json, NULL, &id, &err), &err);
}

/* One file in the middle changes: most chunks of the tree stay. */
static void test_tree_dedups(void **state)
{
	const size_t size = 32u << 20, insert = 3 * 4096, at = 10u << 20;
	char *dir = scratch_dir();
	favo_autofree char *path = favo_asprintf("%s/store", dir);
	favo_autofree unsigned char *data = malloc(size + insert);
	favo_autostore struct favo_store *store = NULL;
	struct favo_packed_root first, second;
	struct favo_err err = {0};

	(void)state;
	fill_random(data, size + insert, 7);
	assert_ok(favo_store_open(&store, path, FAVO_STORE_CREATE, &err), &err);
	for (int i = 0; i < 2; i++) {
		favo_autotx struct favo_store_tx *tx = NULL;
		favo_autoclose int fd = open(dir, O_TMPFILE | O_RDWR, 0600);

		assert_ok(favo_write_all(fd, data, at, -1, &err), &err);
		if (i == 1)
			assert_ok(favo_write_all(fd, data + size, insert, -1, &err),
				  &err);
		assert_ok(favo_write_all(fd, data + at, size - at, -1, &err), &err);
		assert_ok(favo_store_begin(&tx, store, &err), &err);
		assert_ok(favo_pack_root(tx, fd, i ? &second : &first, NULL, NULL, &err),
			  &err);
		make_image(tx, i ? &second : &first);
	}
	assert_int_equal(second.size, size + insert);
	/* The chunks around the change, and at most a handful of the tree's. */
	assert_true(second.stats.new_bytes < 800 * KIB);
	scratch_free(dir);
}

static int parse(struct favo_manifest **out, const json_t *json, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0;

	assert_int_equal(favo_manifest_format(json, &text, &len, err), 0);
	return favo_manifest_parse(out, text, len, err);
}

#define HASH "\"5feceb66ffc86f38d952786c6d696c79c2dbc239dd4e91b46729d73a27fb57e9\""
#define VERITY(offset, size)                                                             \
	"{\"root_hash\":" HASH ",\"salt\":" HASH ",\"hash_offset\":" offset              \
	",\"hash_size\":" size "}"

static void test_manifest_verity(void **state)
{
	static const struct {
		uint64_t size;
		const char *verity;
		bool good;
		uint64_t bytes;
	} cases[] = {
		{12345, NULL, true, 12345},
		{8192, VERITY("8192", "4096"), true, 12288},
		{8191, VERITY("8192", "4096"), true, 12288},
		{8192, VERITY("4096", "4096"), false, 0},
		{8192, VERITY("8192", "8192"), false, 0},
		{8192, VERITY("8192", "-4096"), false, 0},
		{0, VERITY("0", "0"), false, 0},
		{8192, "[]", false, 0},
		{8192, "{\"root_hash\":" HASH "}", false, 0},
		{8192,
		 "{\"root_hash\":\"5F\",\"salt\":" HASH
		 ",\"hash_offset\":8192,\"hash_size\":4096}",
		 false, 0},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_autojson json_t *json = manifest(cases[i].size, cases[i].verity);
		favo_automanifest struct favo_manifest *m = NULL;
		struct favo_err err = {0};

		if (!cases[i].good) {
			assert_int_equal(parse(&m, json, &err), -EBADMSG);
			continue;
		}
		assert_ok(parse(&m, json, &err), &err);
		assert_int_equal(m->root.has_verity, cases[i].verity != NULL);
		assert_int_equal(m->root.size, cases[i].size);
		assert_int_equal(m->root.bytes, cases[i].bytes);
		assert_int_equal(favo_manifest_total_size(m), cases[i].bytes + 2);
	}
}

static void test_manifest_members(void **state)
{
	static const struct {
		const char *key, *value;
		bool good;
	} cases[] = {
		{"prefetch", "\"" DIGEST "\"", true},
		{"prefetch", "[1]", false},
		{"parent", "\"" DIGEST "\"", true},
		{"parent", "\"debian12\"", false},
		{"history", "[{\"by\":\"alice\",\"time\":5}]", true},
		{"history", "{}", false},
		{"history", "[3]", false},
		{"history", "[{\"by\":\"a\\u001b[2J\"}]", false},
		{"config",
		 "{\"env\":[\"A=b\\nc\"],\"entrypoint\":[\"/x\"],\"cmd\":[],"
		 "\"workdir\":\"/\",\"later\":1}",
		 true},
		{"config", "[]", false},
		{"config", "{\"env\":\"A=b\"}", false},
		{"config", "{\"cmd\":[\"a\\u0000b\"]}", false},
		{"config", "{\"cmd\":[1]}", false},
		{"config", "{\"workdir\":\"/\\n\"}", false},
		{"unknown", "[{}]", true},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_autojson json_t *json = manifest(5, NULL);
		favo_automanifest struct favo_manifest *m = NULL;
		struct favo_err err = {0};
		bool is;

		json_object_set_new(json, cases[i].key,
				    json_loads(cases[i].value,
					       JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL));
		if (!cases[i].good) {
			assert_int_equal(parse(&m, json, &err), -EBADMSG);
			continue;
		}
		assert_ok(parse(&m, json, &err), &err);
		is = strcmp(cases[i].key, "prefetch") == 0;
		assert_int_equal(m->has_prefetch, is);
		is = strcmp(cases[i].key, "parent") == 0;
		assert_int_equal(m->has_parent, is);
		is = strcmp(cases[i].key, "config") == 0;
		assert_int_equal(m->config != NULL, is);
		is = strcmp(cases[i].key, "history") == 0;
		assert_int_equal(m->history != NULL, is);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_layout),
		cmocka_unit_test(test_tree),
		cmocka_unit_test(test_tree_dedups),
		cmocka_unit_test(test_manifest_verity),
		cmocka_unit_test(test_manifest_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
