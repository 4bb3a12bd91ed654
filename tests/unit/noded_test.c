// SPDX-License-Identifier: GPL-2.0-or-later
/* Requests, time line and state files of favo-noded, with hostile input. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/fd.h"
#include "common/util.h"
#include "provision/noded/request.h"
#include "provision/noded/state.h"
#include "provision/noded/timeline.h"

/* ---- requests ---- */

static int parse(struct favo_request *req, const char *line, struct favo_err *err)
{
	memset(req, 0, sizeof(*req));
	return favo_request_parse(req, line, strlen(line), err);
}

static void test_request_good(void **state)
{
	struct favo_request req;

	(void)state;
	assert_int_equal(
		parse(&req,
		      "{\"op\":\"prepare\",\"job\":12,\"restart\":1,\"uid\":1000,"
		      "\"gid\":1001,\"nodelist\":\"n[1-2]\",\"node\":\"n1\","
		      "\"grant\":\"abc\",\"later\":1}",
		      NULL),
		0);
	assert_int_equal(req.op, FAVO_OP_PREPARE);
	assert_int_equal(req.job, 12);
	assert_int_equal(req.restart, 1);
	assert_int_equal(req.uid, 1000);
	assert_string_equal(req.nodelist, "n[1-2]");
	favo_request_fini(&req);

	assert_int_equal(
		parse(&req, "{\"op\":\"boot\",\"job\":12,\"cores\":\"0-1\"}", NULL), 0);
	assert_false(req.extern_step);
	favo_request_fini(&req);
	assert_int_equal(
		parse(&req,
		      "{\"op\":\"boot\",\"job\":12,\"cores\":\"0-1\",\"extern\":true}",
		      NULL),
		0);
	assert_true(req.extern_step);
	assert_int_equal(req.mem_mb, 0);
	assert_string_equal(req.cores, "0-1");
	favo_request_fini(&req);

	assert_int_equal(parse(&req,
			       "{\"op\":\"attach\",\"job\":1,\"step\":\"0\",\"task\":3}",
			       NULL),
			 0);
	assert_int_equal(req.task, 3);
	favo_request_fini(&req);

	assert_int_equal(parse(&req, "{\"op\":\"list\"}", NULL), 0);
	favo_request_fini(&req);
}

static void test_request_bad(void **state)
{
	static const char *const lines[] = {
		"",
		"{",
		"[]",
		"null",
		"7",
		"{\"op\":7}",
		"{\"op\":\"\"}",
		"{\"op\":\"reboot\"}",
		"{\"op\":\"show\"}",
		"{\"op\":\"show\",\"job\":0}",
		"{\"op\":\"show\",\"job\":-1}",
		"{\"op\":\"show\",\"job\":4294967295}",
		"{\"op\":\"show\",\"job\":\"12\"}",
		"{\"op\":\"show\",\"job\":1.5}",
		"{\"op\":\"show\",\"job\":1e99}",
		"{\"op\":\"show\",\"job\":1,\"job\":2}",
		"{\"op\":\"show\",\"job\":1}x",
		"{\"op\":\"show\",\"job\":1,\"op\":\"destroy\"}",
		"{\"op\":\"boot\",\"job\":1,\"mem_mb\":-5}",
		"{\"op\":\"boot\",\"job\":1,\"mem_mb\":99999999999999}",
		"{\"op\":\"boot\",\"job\":1,\"cores\":\"0-\"}",
		"{\"op\":\"boot\",\"job\":1,\"cores\":\"../x\"}",
		"{\"op\":\"boot\",\"job\":1,\"ncpus\":1000000}",
		"{\"op\":\"boot\",\"job\":1,\"extern\":1}",
		"{\"op\":\"prepare\",\"job\":1}",
		"{\"op\":\"prepare\",\"job\":1,\"uid\":4294967295,\"gid\":0,\"nodelist\":"
		"\"a\","
		"\"node\":\"a\",\"grant\":\"g\"}",
		"{\"op\":\"prepare\",\"job\":1,\"uid\":1,\"gid\":0,\"nodelist\":7,"
		"\"node\":\"a\","
		"\"grant\":\"g\"}",
		"{\"op\":\"attach\",\"job\":1,\"task\":-1}",
		"{\"op\":\"console\",\"job\":1,\"vm\":0}",
		"{\"op\":\"show\",\"job\":1,\"x\":\"\\ud800\"}",
		"{\"op\":\"sh\\u0000ow\",\"job\":1}",
	};
	struct favo_request req;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(lines); i++) {
		struct favo_err err = {0};

		if (parse(&req, lines[i], &err) >= 0)
			fail_msg("taken: %s", lines[i]);
		assert_true(err.msg[0]);
	}
}

static void test_request_long(void **state)
{
	favo_autofree char *line = malloc(FAVO_REQUEST_MAX + 1);
	struct favo_request req = {0};
	struct favo_err err = {0};

	(void)state;
	memset(line, '[', FAVO_REQUEST_MAX);
	assert_true(favo_request_parse(&req, line, FAVO_REQUEST_MAX, &err) < 0);
	/* Deep nesting must not eat the stack. */
	assert_true(favo_request_parse(&req, line, FAVO_REQUEST_MAX - 1, &err) < 0);
}

static void test_allowed(void **state)
{
	static const struct {
		enum favo_op op;
		bool user;
	} cases[] = {{FAVO_OP_PREPARE, false}, {FAVO_OP_BOOT, false},
		     {FAVO_OP_DESTROY, false}, {FAVO_OP_ATTACH, true},
		     {FAVO_OP_LIST, true},     {FAVO_OP_SHOW, true},
		     {FAVO_OP_CONSOLE, true}};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		const struct favo_request req = {.op = cases[i].op};

		assert_true(favo_request_allowed(&req, 0));
		assert_int_equal(favo_request_allowed(&req, 1000), cases[i].user);
	}
}

static void test_cpulist(void **state)
{
	static const struct {
		const char *text;
		unsigned int count; /* 0: refused */
	} cases[] = {{"0", 1},
		     {"0-3", 4},
		     {"0,2,4-5", 4},
		     {"7-7", 1},
		     {"", 0},
		     {",", 0},
		     {"1,", 0},
		     {"-1", 0},
		     {"3-1", 0},
		     {"0-65536", 0},
		     {"0-3 ", 0},
		     {"a", 0},
		     {"1--2", 0},
		     {"1-2-3", 0},
		     {"0x1", 0},
		     {"0-65535", 65536},
		     {"0-65535,0-65535", 0},
		     {"99999999999999999999", 0}};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		unsigned int count = 0;
		int ret = favo_cpulist_count(cases[i].text, &count, NULL);

		if ((ret >= 0) != (cases[i].count > 0) || count != cases[i].count)
			fail_msg("'%s': %d, %u CPUs", cases[i].text, ret, count);
	}
}

/* ---- time line ---- */

static void test_timeline(void **state)
{
	struct favo_timeline t, loaded;
	json_t *obj;

	(void)state;
	favo_timeline_start(&t, 1000, 5000000);
	assert_int_equal(favo_timeline_current(&t), FAVO_PHASE_IMAGE);
	assert_true(favo_timeline_reach(&t, FAVO_PHASE_IMAGE, 1200));
	assert_false(favo_timeline_reach(&t, FAVO_PHASE_IMAGE, 1300));
	assert_int_equal(favo_timeline_current(&t), FAVO_PHASE_BOOT);
	/* A guest that skips a phase has passed it. */
	assert_true(favo_timeline_reach(&t, FAVO_PHASE_ROOT, 2000));
	assert_int_equal(favo_timeline_current(&t), FAVO_PHASE_NETWORK);
	assert_false(favo_timeline_reach(&t, FAVO_PHASE_COUNT, 1));

	obj = favo_timeline_json(&t);
	assert_int_equal(json_integer_value(json_object_get(obj, "image_ms")), 200);
	assert_int_equal(json_integer_value(json_object_get(obj, "root_ms")), 1000);
	assert_null(json_object_get(obj, "ready_ms"));
	json_decref(obj);

	obj = favo_timeline_save(&t);
	assert_int_equal(favo_timeline_load(&loaded, obj), 0);
	assert_memory_equal(&loaded, &t, sizeof(t));
	json_object_set_new(obj, "ready_ms", json_string("soon"));
	assert_int_equal(favo_timeline_load(&loaded, obj), -EINVAL);
	json_object_set_new(obj, "ready_ms", json_integer(-1));
	assert_int_equal(favo_timeline_load(&loaded, obj), -EINVAL);
	json_decref(obj);
	assert_int_equal(favo_timeline_load(&loaded, NULL), -EINVAL);

	for (int i = 0; i < FAVO_PHASE_COUNT; i++)
		assert_int_equal(favo_phase_parse(favo_phase_name((enum favo_phase)i)),
				 i);
	assert_int_equal(favo_phase_parse("x"), FAVO_PHASE_COUNT);
}

/* ---- state files ---- */

static char dir[] = "/tmp/favo-noded-test.XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return favo_remove_tree(dir, NULL);
}

static void test_job_state(void **state)
{
	char path[128], list[] = "n[1-2]", node[] = "n1", grant[] = "a.b",
			cores[] = "0-1";
	struct favo_job_state s = {.job = 12,
				   .restart = 2,
				   .uid = 1000,
				   .gid = 1001,
				   .nodelist = list,
				   .node = node,
				   .grant = grant,
				   .boot_asked = true,
				   .mem_mb = 900,
				   .ncpus = 2,
				   .cores = cores};
	struct favo_job_state loaded = {0};
	struct favo_err err = {0};

	(void)state;
	favo_timeline_start(&s.timeline, 7, 8);
	snprintf(s.failure.phase, sizeof(s.failure.phase), "boot");
	snprintf(s.failure.cause, sizeof(s.failure.cause), "it \"broke\"");
	snprintf(path, sizeof(path), "%s/12", dir);
	assert_int_equal(favo_job_state_save(&s, path, &err), 0);
	assert_int_equal(favo_job_state_load(&loaded, path, &err), 0);
	assert_int_equal(loaded.job, 12);
	assert_int_equal(loaded.uid, 1000);
	assert_true(loaded.boot_asked);
	assert_string_equal(loaded.nodelist, "n[1-2]");
	assert_string_equal(loaded.cores, "0-1");
	assert_string_equal(loaded.failure.cause, "it \"broke\"");
	assert_int_equal(loaded.timeline.start_ms, 7);
	favo_job_state_fini(&loaded);
	favo_job_state_fini(&loaded);
	snprintf(path, sizeof(path), "%s/none", dir);
	assert_int_equal(favo_job_state_load(&loaded, path, &err), -ENOENT);
}

static void test_vm_state(void **state)
{
	struct favo_vm_state s = {.job = 12,
				  .index = 1,
				  .uid = 1000,
				  .node = "n2",
				  .boot_id = "01234567-89ab-cdef-0123-456789abcdef",
				  .pid = 4711,
				  .start_time = 99,
				  .cid = 70000,
				  .mem_mb = 512,
				  .cpus = 2,
				  .digest = "sha256:00"};
	struct favo_vm_state loaded;
	char path[128];

	(void)state;
	memset(&loaded, 0, sizeof(loaded));
	snprintf(path, sizeof(path), "%s/vm.json", dir);
	assert_int_equal(favo_vm_state_save(&s, path, NULL), 0);
	assert_int_equal(favo_vm_state_load(&loaded, path, NULL), 0);
	assert_memory_equal(&loaded, &s, sizeof(s));
}

/* Every prefix of a good file, and good files with one thing wrong. */
static void test_state_hostile(void **state)
{
	static const char good[] =
		"{\"boot_id\":\"b\",\"cid\":5,\"cpus\":1,\"digest\":\"d\",\"format\":1,"
		"\"index\":0,\"job\":12,\"mem_mb\":1,\"node\":\"n1\",\"pid\":77,"
		"\"start_time\":5,\"uid\":0}";
	static const struct {
		const char *from, *to;
	} changes[] = {
		{"\"format\":1", "\"format\":2"},
		{"\"pid\":77", "\"pid\":-1"},
		{"\"pid\":77", "\"pid\":1"},
		{"\"pid\":77", "\"pid\":4294967295"},
		{"\"pid\":77", "\"pid\":\"77\""},
		{"\"node\":\"n1\"", "\"node\":\"../n1\""},
		{"\"node\":\"n1\"", "\"node\":\"\""},
		{"\"uid\":0", "\"uid\":-1"},
		{"\"job\":12", "\"job\":[]"},
		{"\"start_time\":5", "\"start_time\":-5"},
		{"\"boot_id\":\"b\"",
		 "\"boot_id\":\"0123456789012345678901234567890123456789\""},
	};
	struct favo_vm_state vm;
	struct favo_job_state job;
	char path[128], text[512];

	(void)state;
	snprintf(path, sizeof(path), "%s/hostile", dir);
	assert_int_equal(favo_file_replace(path, good, strlen(good), 0600, NULL), 0);
	assert_int_equal(favo_vm_state_load(&vm, path, NULL), 0);
	for (size_t len = 0; len < strlen(good); len += 3) {
		assert_int_equal(favo_file_replace(path, good, len, 0600, NULL), 0);
		assert_int_equal(favo_vm_state_load(&vm, path, NULL), -EBADMSG);
		assert_int_equal(favo_job_state_load(&job, path, NULL), -EBADMSG);
	}
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(changes); i++) {
		const char *at = strstr(good, changes[i].from);

		assert_non_null(at);
		snprintf(text, sizeof(text), "%.*s%s%s", (int)(at - good), good,
			 changes[i].to, at + strlen(changes[i].from));
		assert_int_equal(favo_file_replace(path, text, strlen(text), 0600, NULL),
				 0);
		if (favo_vm_state_load(&vm, path, NULL) != -EBADMSG)
			fail_msg("taken: %s", text);
	}
}

static void test_names(void **state)
{
	static const char *const bad[] = {"",
					  ".",
					  "..",
					  "a",
					  "1.",
					  ".1",
					  "1.2.3",
					  "01.0",
					  "1.00",
					  "-1.0",
					  "+1.0",
					  " 1.0",
					  "1.0 ",
					  "0.0",
					  "4294967296.0",
					  "1.4294967296",
					  "99999999999999999999.0",
					  "1.0/.."};
	uint32_t job = 0, index = 0;

	(void)state;
	assert_true(favo_vm_name_parse("12.3", &job, &index));
	assert_int_equal(job, 12);
	assert_int_equal(index, 3);
	assert_true(favo_vm_name_parse("4294967295.0", &job, &index));
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++)
		if (favo_vm_name_parse(bad[i], &job, &index))
			fail_msg("taken: %s", bad[i]);
	assert_true(favo_job_name_parse("12", &job));
	assert_false(favo_job_name_parse("12.ended", &job));
	assert_false(favo_job_name_parse("0", &job));
	assert_false(favo_job_name_parse("012", &job));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_request_good),  cmocka_unit_test(test_request_bad),
		cmocka_unit_test(test_request_long),  cmocka_unit_test(test_allowed),
		cmocka_unit_test(test_cpulist),	      cmocka_unit_test(test_timeline),
		cmocka_unit_test(test_job_state),     cmocka_unit_test(test_vm_state),
		cmocka_unit_test(test_state_hostile), cmocka_unit_test(test_names),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
