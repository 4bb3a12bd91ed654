// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The store after a crash or a full disk at every step: each call that changes
 * the file system is, once, the one at which the process dies or the disk is
 * full (linker --wrap). Whatever a name reaches must be whole then, and the same
 * import must work afterwards.
 */
#include <errno.h>
#include <sys/wait.h>

#include "common/json.h"
#include "images/stage.h"
#include "tests/unit/images_util.h"

#define INDEX_ENTRY 36

/* In the child: calls to go; what happens then. */
static long calls_left = -1;
static bool dies;

static bool strikes(void)
{
	if (calls_left < 0 || calls_left-- > 0)
		return false;
	if (dies)
		_exit(99);
	calls_left = 0; /* a full disk stays full */
	errno = ENOSPC;
	return true;
}

ssize_t __real_write(int fd, const void *buf, size_t len);
ssize_t __wrap_write(int fd, const void *buf, size_t len);
int __real_fsync(int fd);
int __wrap_fsync(int fd);
int __real_syncfs(int fd);
int __wrap_syncfs(int fd);
int __real_rename(const char *from, const char *to);
int __wrap_rename(const char *from, const char *to);
int __real_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to);
int __real_mkdirat(int fd, const char *path, mode_t mode);
int __wrap_mkdirat(int fd, const char *path, mode_t mode);

/* Half of the bytes arrive. */
ssize_t __wrap_write(int fd, const void *buf, size_t len)
{
	if (calls_left == 0 && len > 1)
		(void)!__real_write(fd, buf, len / 2);
	return strikes() ? -1 : __real_write(fd, buf, len);
}

int __wrap_fsync(int fd)
{
	return strikes() ? -1 : __real_fsync(fd);
}

/* The real one waits for all of the machine. */
int __wrap_syncfs(int fd)
{
	(void)fd;
	return strikes() ? -1 : 0;
}

int __wrap_rename(const char *from, const char *to)
{
	return strikes() ? -1 : __real_rename(from, to);
}

int __wrap_renameat(int from_fd, const char *from, int to_fd, const char *to)
{
	return strikes() ? -1 : __real_renameat(from_fd, from, to_fd, to);
}

int __wrap_mkdirat(int fd, const char *path, mode_t mode)
{
	return strikes() ? -1 : __real_mkdirat(fd, path, mode);
}

/* An image of one kernel, one initramfs and two chunks; generation differs. */
static int import(struct favo_store *store, int generation, struct favo_digest *id)
{
	favo_autotx struct favo_store_tx *tx = NULL;
	favo_autojson json_t *m = NULL;
	unsigned char index[2 * INDEX_ENTRY] = {0}, chunk[2][5000];
	struct favo_digest chunks[2], kernel, index_digest;
	char a[FAVO_DIGEST_TEXT_SIZE], b[FAVO_DIGEST_TEXT_SIZE];
	const uint32_t length = sizeof(chunk[0]);
	struct favo_image_name name;
	int ret = favo_store_begin(&tx, store, NULL);

	fill_random(chunk[0], sizeof(chunk[0]), 1);
	fill_random(chunk[1], sizeof(chunk[1]), 100 + (uint64_t)generation);
	for (int i = 0; ret == 0 && i < 2; i++) {
		ret = favo_store_put(tx, chunk[i], length, &chunks[i], NULL, NULL);
		memcpy(index + i * INDEX_ENTRY, &length, sizeof(length));
		memcpy(index + i * INDEX_ENTRY + 4, chunks[i].bytes, FAVO_DIGEST_LEN);
	}
	if (ret == 0)
		ret = favo_store_put(tx, "kernel", 6, &kernel, NULL, NULL);
	if (ret == 0)
		ret = favo_store_put(tx, index, sizeof(index), &index_digest, NULL, NULL);
	if (ret < 0)
		return ret;
	favo_digest_format(&kernel, a);
	m = json_pack("{s:i s:s s:s s:{} s:I s:s s:{s:s s:I s:s} s:{s:s s:I s:s s:s} "
		      "s:{s:s s:I}}",
		      "format", 1, "name", "a", "arch", "x86_64", "os", "created",
		      (json_int_t)0, "cmdline", "", "root", "fstype", "erofs", "size",
		      (json_int_t)(2 * length), "index",
		      favo_digest_format(&index_digest, b), "kernel", "digest", a, "size",
		      (json_int_t)6, "release", "6.1", "source", "site", "initramfs",
		      "digest", a, "size", (json_int_t)6);
	assert_int_equal(favo_image_name_parse(&name, "a:latest", NULL), 0);
	return favo_store_commit(tx, m, &name, id, NULL);
}

/* Every name leads to an image of which every blob is there and right. */
static size_t check(struct favo_store *store)
{
	struct favo_store_ref *refs = NULL;
	struct favo_err err = {0};
	size_t n = 0, images = 0;

	assert_ok(favo_store_list(store, &refs, &n, &err), &err);
	for (size_t i = 0; i < n; i++) {
		favo_autofree struct favo_digest *blobs = NULL;
		size_t count = 0;

		assert_ok(favo_store_blobs(store, &refs[i].id, &blobs, &count, &err),
			  &err);
		for (size_t k = 0; k < count; k++) {
			favo_autofree void *data = NULL;
			size_t len = 0;

			assert_ok(favo_store_read_blob(store, &blobs[k], 1u << 20, &data,
						       &len, &err),
				  &err);
		}
		images++;
	}
	favo_store_refs_free(refs, n);
	return images;
}

/* Exit status of a child in which the call number `at` is the bad one. */
static int run_child(const char *dir, long at, bool die)
{
	int status = 0;
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		struct favo_store *store = NULL;
		struct favo_digest id;
		int ret;

		ret = favo_store_open(&store, dir, 0, NULL);
		dies = die;
		calls_left = at;
		if (ret == 0)
			ret = import(store, 2, &id);
		_exit(ret == 0 ? 0 : ret == -ENOSPC ? 1 : 2);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	return WEXITSTATUS(status);
}

static void strike_everywhere(bool die)
{
	char *base = scratch_dir();
	struct favo_err err = {0};
	long at = 0;
	int status;

	do {
		favo_autofree char *dir = favo_asprintf("%s/%ld", base, at);
		favo_autostore struct favo_store *store = NULL;
		struct favo_digest id;
		struct favo_gc_stats stats;

		assert_ok(favo_store_open(&store, dir, FAVO_STORE_CREATE, &err), &err);
		assert_int_equal(import(store, 1, &id), 0);
		status = run_child(dir, at, die);
		/* 2 would be an error other than the one that was made. */
		assert_true(status == 0 || status == (die ? 99 : 1));
		assert_int_equal(check(store), 1);
		assert_ok(favo_store_gc(store, &stats, &err), &err);
		assert_int_equal(check(store), 1);
		assert_int_equal(import(store, 2, &id), 0);
		assert_int_equal(check(store), 1);
		at++;
	} while (status != 0);
	print_message("%ld steps\n", at - 1);
	/* Three new blobs, two syncs, manifest and name: each in several steps. */
	assert_true(at > 12);
	scratch_free(base);
}

static void test_killed_at_every_step(void **state)
{
	(void)state;
	strike_everywhere(true);
}

static void test_disk_full_at_every_step(void **state)
{
	(void)state;
	strike_everywhere(false);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_killed_at_every_step),
		cmocka_unit_test(test_disk_full_at_every_step),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
