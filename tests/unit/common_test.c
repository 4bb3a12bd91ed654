// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of common/: errors, text, descriptors, options, JSON. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/options.h"
#include "common/sha256.h"
#include "common/str.h"
#include "common/util.h"

static void error_object(void **state)
{
	struct favo_err err = {0};
	char big[2000];

	(void)state;
	errno = EAGAIN;
	assert_int_equal(favo_fail(&err, ENOENT, "open %s: %m", "x"), -ENOENT);
	assert_string_equal(err.msg, "open x: No such file or directory");
	assert_int_equal(errno, EAGAIN);
	assert_int_equal(favo_wrap(&err, -ENOENT, "image %s", "y"), -ENOENT);
	assert_string_equal(err.msg, "image y: open x: No such file or directory");
	assert_int_equal(favo_fail(NULL, 0, "nothing"), -EIO);
	memset(big, 'a', sizeof(big));
	big[sizeof(big) - 1] = '\0';
	assert_int_equal(favo_fail(&err, EINVAL, "%s", big), -EINVAL);
	assert_int_equal(favo_wrap(&err, -EINVAL, "%s", big), -EINVAL);
	assert_int_equal(strlen(err.msg), sizeof(err.msg) - 1);
}

static void sizes_and_durations(void **state)
{
	static const struct {
		const char *text;
		int64_t value; /* -1: refused */
	} sizes[] = {{"0", 0},
		     {"4096", 4096},
		     {"64K", 65536},
		     {"512M", 512 << 20},
		     {"2GiB", 2LL << 30},
		     {"1mb", 1 << 20},
		     {"", -1},
		     {"-1", -1},
		     {"1X", -1},
		     {"1Mx", -1},
		     {" 1", -1},
		     {"99999999999999999999", -1},
		     {"99999999999T", -1}},
	  times[] = {{"5", 5000},    {"500ms", 500},
		     {"2m", 120000}, {"1d", 86400000},
		     {"1x", -1},     {"", -1},
		     {"ms", -1},     {"99999999999999999d", -1}};
	struct favo_err err;
	uint64_t v;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(sizes); i++) {
		int ret = favo_parse_size(&v, sizes[i].text, &err);

		assert_int_equal(ret == 0 ? (int64_t)v : -1, sizes[i].value);
	}
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(times); i++) {
		int ret = favo_parse_duration(&v, times[i].text, &err);

		assert_int_equal(ret == 0 ? (int64_t)v : -1, times[i].value);
	}
	assert_int_equal(favo_parse_u64(&v, "0x10", 0, 16, &err), 0);
	assert_int_equal(v, 16);
	assert_int_equal(favo_parse_u64(&v, "17", 0, 16, &err), -ERANGE);
	assert_int_equal(favo_parse_u64(&v, "1 ", 0, 16, &err), -EINVAL);
}

static void base64url(void **state)
{
	uint8_t bytes[64];
	struct favo_err err;

	(void)state;
	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (uint8_t)(i * 37 + 250);
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		favo_autofree char *text = NULL;
		favo_autofree void *back = NULL;
		size_t len;

		assert_int_equal(favo_base64url_encode(&text, bytes, n, &err), 0);
		assert_int_equal(
			favo_base64url_decode(&back, &len, text, strlen(text), &err), 0);
		assert_int_equal(len, n);
		assert_memory_equal(back, bytes, n);
	}
	void *out;
	size_t len;

	assert_int_equal(favo_base64url_decode(&out, &len, "A", 1, &err), -EINVAL);
	assert_int_equal(favo_base64url_decode(&out, &len, "A+==", 4, &err), -EINVAL);
	/* "AB" and "AA" must not both mean the byte 0. */
	assert_int_equal(favo_base64url_decode(&out, &len, "AB", 2, &err), -EINVAL);
}

static void host_lists(void **state)
{
	static const struct {
		const char *text, *names; /* NULL: refused */
	} cases[] = {{"n1", "n1"},
		     {"n[1-3]", "n1 n2 n3"},
		     {"n[08-10],m5", "n08 n09 n10 m5"},
		     {"a[1,3]b,c", "a1b a3b c"},
		     {"", NULL},
		     {"a,", NULL},
		     {"n[3-1]", NULL},
		     {"n[1-3", NULL},
		     {"n1-3]", NULL},
		     {"n[]", NULL},
		     {"n[1-x]", NULL},
		     {"n[1-999999999]", NULL}};
	struct favo_err err;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_autostrv char **v = NULL;
		char joined[200] = "";
		size_t n;
		int ret = favo_hostlist_expand(&v, &n, cases[i].text, 1000, &err);

		if (!cases[i].names) {
			assert_true(ret < 0);
			continue;
		}
		assert_int_equal(ret, 0);
		for (size_t j = 0; j < n; j++) {
			if (j)
				strcat(joined, " ");
			strcat(joined, v[j]);
		}
		assert_string_equal(joined, cases[i].names);
	}
}

static void files(void **state)
{
	char dir[] = "/tmp/favo-common-XXXXXX";
	favo_autofree char *path = NULL, *deep = NULL, *text = NULL, *link = NULL;
	struct favo_err err;
	struct stat st;
	size_t len;

	(void)state;
	assert_non_null(mkdtemp(dir));
	path = favo_asprintf("%s/f", dir);
	deep = favo_asprintf("%s/a/b/c", dir);
	assert_int_equal(favo_file_replace(path, "one", 3, 0600, &err), 0);
	assert_int_equal(favo_file_replace(path, "three", 5, 0640, &err), 0);
	assert_int_equal(favo_file_read(path, 100, &text, &len, &err), 0);
	assert_string_equal(text, "three");
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_mode & 0777, 0640);
	free(favo_steal_ptr(&text));
	assert_int_equal(favo_file_read(path, 4, &text, &len, &err), -EFBIG);
	assert_int_equal(favo_mkdirs(deep, 0755, &err), 0);
	assert_int_equal(favo_mkdirs(deep, 0755, &err), 0);
	link = favo_asprintf("%s/a/link", dir);
	assert_int_equal(symlink("/etc", link), 0);
	assert_int_equal(favo_remove_tree(dir, &err), 0);
	assert_int_equal(favo_remove_tree(dir, &err), 0);
	assert_int_equal(access("/etc/passwd", F_OK), 0);
}

static void fd_passing(void **state)
{
	int pair[2], pipes[2], got[2];
	struct favo_err err;
	char buf[8];
	size_t n;

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(pipe2(pipes, O_CLOEXEC), 0);
	assert_int_equal(favo_send_fds(pair[0], "hi", 2, pipes, 2, &err), 0);
	assert_int_equal(favo_recv_fds(pair[1], buf, sizeof(buf), got, 1, &n, &err), 2);
	assert_int_equal(n, 1); /* the surplus one was closed */
	close(pipes[0]);
	close(pipes[1]);
	close(got[0]);
	assert_int_equal(favo_read_all(pair[1], buf, 1, 20, &err), -ETIMEDOUT);
	close(pair[0]);
	assert_int_equal(favo_read_all(pair[1], buf, 1, 20, &err), -ENODATA);
	close(pair[1]);
}

struct target {
	char *name;
	uint64_t count, size, time;
	bool flag;
	int calls;
};

static int count_call(void *target, const char *value, struct favo_err *err)
{
	struct target *t = target;

	if (!strcmp(value, "bad"))
		return favo_fail(err, EINVAL, "bad value");
	t->calls++;
	return 0;
}

static const struct favo_opt rows[] = {
	FAVO_OPT_STR("the-name", "TEXT", struct target, name, FAVO_FROM_ANY, "none",
		     "a name"),
	FAVO_OPT_U64("count", "N", struct target, count, FAVO_FROM_ANY, "3", "a count"),
	FAVO_OPT_SIZE("size", "SIZE", struct target, size, FAVO_FROM_ANY, "1K", "a size"),
	FAVO_OPT_DURATION("time", "TIME", struct target, time, FAVO_FROM_FILE, NULL,
			  "a time"),
	FAVO_OPT_FLAG("flag", struct target, flag, FAVO_FROM_ANY, "a flag"),
	FAVO_OPT_FN("call", "V", count_call, FAVO_FROM_CLI, "a call"),
};

static void option_sources(void **state)
{
	struct target t = {0};
	struct favo_opts o = {.program = "p",
			      .env_prefix = "FAVO_T",
			      .table = rows,
			      .n = FAVO_ARRAY_SIZE(rows),
			      .target = &t};
	char path[] = "/tmp/favo-options-XXXXXX";
	char *argv[] = {"p",	    "--size=4K", "--flag", "--call", "a",
			"--call=b", "run",	 "-x",	   NULL};
	char *unknown[] = {"p", "--time", "3", NULL},
	     *bad[] = {"p", "--call", "bad", NULL};
	char *missing[] = {"p", "--count", NULL}, *off[] = {"p", "--no-flag", NULL};
	const char *text = "# c\n\nthe_name = a b \ncount=5\ntime = 2m\n";
	struct favo_err err;
	int first, fd;

	(void)state;
	assert_int_equal(favo_opts_defaults(&o, &err), 0);
	assert_string_equal(t.name, "none");
	fd = mkstemp(path);
	assert_int_equal(favo_write_all(fd, text, strlen(text), -1, &err), 0);
	assert_int_equal(favo_opts_file(&o, path, NULL, &err), 0);
	assert_string_equal(t.name, "a b");
	assert_int_equal(t.time, 120000);
	setenv("FAVO_T_COUNT", "7", 1);
	assert_int_equal(favo_opts_env(&o, &err), 0);
	assert_int_equal(t.count, 7);
	assert_int_equal(favo_opts_cli(&o, 8, argv, &first, &err), 0);
	assert_int_equal(first, 6);
	assert_int_equal(t.size, 4096);
	assert_true(t.flag);
	assert_int_equal(t.calls, 2);
	assert_int_equal(favo_opts_cli(&o, 2, off, &first, &err), 0);
	assert_false(t.flag);
	assert_true(favo_opts_cli(&o, 3, unknown, &first, &err) < 0);
	assert_true(favo_opts_cli(&o, 3, bad, &first, &err) < 0);
	assert_true(favo_opts_cli(&o, 2, missing, &first, &err) < 0);
	assert_int_equal(ftruncate(fd, 0), 0);
	lseek(fd, 0, SEEK_SET);
	assert_int_equal(favo_write_all(fd, "\nnonsense = 1\n", 14, -1, &err), 0);
	assert_true(favo_opts_file(&o, path, NULL, &err) < 0);
	assert_non_null(strstr(err.msg, ":2: unknown key 'nonsense'"));
	close(fd);
	unlink(path);
	favo_opts_fini(&o);
}

static void strict_json(void **state)
{
	static const char *const keys[] = {"a", "b", NULL};
	favo_autojson json_t *obj = NULL;
	json_t *bad = NULL;
	struct favo_err err;
	const char *s;
	uint64_t v;

	(void)state;
	assert_int_equal(favo_json_parse(&obj, "{\"a\":\"x\",\"b\":5}", 15, &err), 0);
	assert_int_equal(favo_json_str(&s, obj, "a", &err), 0);
	assert_int_equal(favo_json_u64(&v, obj, "b", 0, 5, &err), 0);
	assert_int_equal(favo_json_u64(&v, obj, "b", 0, 4, &err), -EINVAL);
	assert_int_equal(favo_json_u64(&v, obj, "a", 0, 4, &err), -EINVAL);
	assert_int_equal(favo_json_only(obj, keys, &err), 0);
	assert_int_equal(favo_json_only(obj, keys + 1, &err), -EINVAL);
	assert_int_equal(favo_json_parse(&bad, "[1]", 3, &err), -EINVAL);
	assert_int_equal(favo_json_parse(&bad, "{\"a\":1,\"a\":2}", 13, &err), -EINVAL);
}

static void digest(void **state)
{
	char hex[FAVO_SHA256_HEX];
	favo_autosha256 struct favo_sha256_ctx *ctx = NULL;
	uint8_t one[32], two[32];
	struct favo_err err;

	(void)state;
	/* FIPS 180-4 example: "abc". */
	assert_int_equal(favo_sha256_hex(hex, "abc", 3, &err), 0);
	assert_string_equal(
		hex, "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_int_equal(favo_sha256(one, "abc", 3, &err), 0);
	assert_int_equal(favo_sha256_new(&ctx, &err), 0);
	assert_int_equal(favo_sha256_update(ctx, "a", 1, &err), 0);
	assert_int_equal(favo_sha256_update(ctx, "bc", 2, &err), 0);
	assert_int_equal(favo_sha256_final(ctx, two, &err), 0);
	assert_memory_equal(one, two, 32);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(error_object),	  cmocka_unit_test(sizes_and_durations),
		cmocka_unit_test(base64url),	  cmocka_unit_test(host_lists),
		cmocka_unit_test(files),	  cmocka_unit_test(fd_passing),
		cmocka_unit_test(option_sources), cmocka_unit_test(strict_json),
		cmocka_unit_test(digest),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
