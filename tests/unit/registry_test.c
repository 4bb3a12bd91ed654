// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Registry and rate limit of favod: what nodes report is what users are
 * shown; bad reports change nothing; damaged and newer files are refused.
 */
#include "provision/favod/registry.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "provision/favod/limit.h"

#define NOW 1800000000

struct fixture {
	char dir[64];
	char path[96];
	struct favo_registry *reg;
};

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/favo-registry-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/registry.db", f->dir);
	assert_int_equal(favo_registry_open(&f->reg, f->path, NULL), 0);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_registry_close(f->reg);
	assert_int_equal(favo_remove_tree(f->dir, NULL), 0);
	free(f);
	return 0;
}

static struct favo_grant grant(const char *id, uint32_t uid, const char *user)
{
	struct favo_grant g = {.uid = uid,
			       .gid = 100,
			       .per_node = 1,
			       .issued = NOW,
			       .expires = NOW + 100};

	snprintf(g.id, sizeof(g.id), "%s", id);
	snprintf(g.user, sizeof(g.user), "%s", user);
	snprintf(g.image, sizeof(g.image), "debian12:latest");
	snprintf(g.digest, sizeof(g.digest), "sha256:00");
	snprintf(g.network, sizeof(g.network), "private");
	return g;
}

static json_t *vm(int job, int index, int uid, const char *grant_id, const char *state)
{
	char name[16];

	snprintf(name, sizeof(name), "vm%d", index);
	return json_pack("{s:i s:i s:s s:s s:i s:s s:s s:{s:i}}", "job", job, "index",
			 index, "name", name, "address", "10.128.0.1", "uid", uid,
			 "grant", grant_id, "state", state, "timeline", "image_ms", 7);
}

static int report(struct fixture *f, const char *node, json_t *vms, int64_t now)
{
	int ret = favo_registry_report(f->reg, node, "0.1.0", vms, now, NULL);

	json_decref(vms);
	return ret;
}

static json_t *get(struct fixture *f, uint32_t job)
{
	json_t *vc = NULL;
	int64_t owner;

	return favo_registry_vc(f->reg, job, NOW + 20, &vc, &owner, NULL) == 0 ? vc
									       : NULL;
}

static void expect_state(struct fixture *f, uint32_t job, const char *state)
{
	favo_autojson json_t *vc = get(f, job);

	assert_non_null(vc);
	assert_string_equal(json_string_value(json_object_get(vc, "state")), state);
}

static void test_life_of_a_cluster(void **state)
{
	struct fixture *f = *state;
	struct favo_grant g = grant("aaaaaaaaaaaaaaaa", 1000, "alice");

	assert_int_equal(favo_registry_add_grant(f->reg, &g, NULL), 0);
	assert_int_equal(report(f, "n1",
				json_pack("[o]", vm(12, 0, 1000, g.id, "preparing")),
				NOW),
			 0);
	assert_int_equal(report(f, "n2", json_pack("[o]", vm(12, 1, 1000, g.id, "ready")),
				NOW),
			 0);
	expect_state(f, 12, "starting");
	assert_int_equal(report(f, "n1", json_pack("[o]", vm(12, 0, 1000, g.id, "ready")),
				NOW + 5),
			 0);
	expect_state(f, 12, "ready");
	{
		favo_autojson json_t *vc = get(f, 12);
		json_t *m = json_array_get(json_object_get(vc, "members"), 1);

		assert_string_equal(json_string_value(json_object_get(vc, "user")),
				    "alice");
		assert_string_equal(json_string_value(json_object_get(vc, "image")),
				    "debian12:latest");
		assert_int_equal(json_integer_value(json_object_get(vc, "since")), NOW);
		assert_string_equal(json_string_value(json_object_get(m, "node")), "n2");
		assert_int_equal(json_integer_value(json_object_get(
					 json_object_get(m, "timeline"), "image_ms")),
				 7);
	}
	/* What a node does not name any more has ended. */
	assert_int_equal(report(f, "n1", json_array(), NOW + 9), 0);
	expect_state(f, 12, "ending");
	assert_int_equal(report(f, "n2", json_array(), NOW + 9), 0);
	expect_state(f, 12, "ended");
	/* Requeued under the same number. */
	assert_int_equal(report(f, "n2",
				json_pack("[o]", vm(12, 0, 1000, g.id, "booting")),
				NOW + 20),
			 0);
	{
		favo_autojson json_t *vc = get(f, 12);
		json_t *m = json_array_get(json_object_get(vc, "members"), 0);

		assert_int_equal(json_integer_value(json_object_get(m, "since")),
				 NOW + 20);
	}
}

static void test_failure_keeps_its_reason(void **state)
{
	struct fixture *f = *state;
	json_t *v = vm(13, 0, 1000, "bbbbbbbbbbbbbbbb", "failed");

	json_object_set_new(v, "error",
			    json_pack("{s:s s:s}", "phase", "boot", "cause",
				      "guest kernel panicked"));
	json_object_set_new(v, "log", json_string("Kernel panic\n"));
	assert_int_equal(report(f, "n1", json_pack("[o]", v), NOW), 0);
	expect_state(f, 13, "failed");
	assert_int_equal(report(f, "n1", json_array(), NOW + 1), 0);
	{
		favo_autojson json_t *vc = get(f, 13);
		json_t *m = json_array_get(json_object_get(vc, "members"), 0);

		/* Nobody knows the grant: the cluster is shown all the same. */
		assert_string_equal(json_string_value(json_object_get(vc, "image")), "?");
		assert_string_equal(json_string_value(json_object_get(
					    json_object_get(m, "error"), "cause")),
				    "guest kernel panicked");
		assert_string_equal(json_string_value(json_object_get(m, "log")),
				    "Kernel panic\n");
	}
	expect_state(f, 13, "failed");
	/* Over, with a reason: it has failed. */
	v = vm(14, 0, 1000, "bbbbbbbbbbbbbbbb", "ended");
	json_object_set_new(v, "error", json_pack("{s:s}", "phase", "boot"));
	assert_int_equal(report(f, "n1", json_pack("[o]", v), NOW), 0);
	expect_state(f, 14, "failed");
}

static size_t count(struct fixture *f, int64_t uid, bool ended)
{
	favo_autojson json_t *list = NULL;

	assert_int_equal(favo_registry_vcs(f->reg, uid, ended, NOW, &list, NULL), 0);
	return json_array_size(list);
}

static void test_lists(void **state)
{
	struct fixture *f = *state;
	favo_autojson json_t *nodes = NULL;

	report(f, "n1",
	       json_pack("[o,o]", vm(1, 0, 1000, "a", "ready"),
			 vm(2, 0, 1001, "b", "ready")),
	       NOW);
	report(f, "n2", json_pack("[o]", vm(3, 0, 1000, "c", "ended")), NOW);
	assert_int_equal(count(f, -1, false), 2);
	assert_int_equal(count(f, -1, true), 3);
	assert_int_equal(count(f, 1000, false), 1);
	assert_int_equal(count(f, 1000, true), 2);
	assert_int_equal(count(f, 7, true), 0);
	assert_int_equal(favo_registry_nodes(f->reg, &nodes, NULL), 0);
	assert_int_equal(json_array_size(nodes), 2);
	assert_int_equal(
		json_integer_value(json_object_get(json_array_get(nodes, 0), "vms")), 2);
	assert_int_equal(
		json_integer_value(json_object_get(json_array_get(nodes, 1), "vms")), 0);
}

static void test_bad_reports_change_nothing(void **state)
{
	struct fixture *f = *state;
	json_t *good = vm(1, 0, 1000, "a", "ready");

	report(f, "n1", json_pack("[O]", good), NOW);
	for (int i = 0; i < 9; i++) {
		static const char *const keys[] = {"job",   "index",	"uid",
						   "name",  "address",	"grant",
						   "state", "timeline", "job"};
		json_t *bad = json_deep_copy(good);

		json_object_set_new(bad, "job", json_integer(2));
		if (i == 6)
			json_object_set_new(bad, keys[i], json_string("flying"));
		else if (i == 8)
			json_object_set_new(bad, keys[i], json_integer(-1));
		else
			json_object_del(bad, keys[i]);
		assert_int_equal(report(f, "n1", json_pack("[o]", bad), NOW + 1),
				 -EINVAL);
	}
	assert_null(get(f, 2));
	json_decref(good);
}

static void test_silent_node(void **state)
{
	struct fixture *f = *state;
	favo_autojson json_t *vc = NULL;
	int64_t owner;

	report(f, "n1", json_pack("[o]", vm(1, 0, 1000, "a", "ready")), NOW - 130);
	report(f, "n2", json_pack("[o]", vm(1, 1, 1000, "a", "ready")), NOW);
	expect_state(f, 1, "lost");
	assert_int_equal(favo_registry_vc(f->reg, 1, NOW - 20, &vc, &owner, NULL), 0);
	assert_string_equal(json_string_value(json_object_get(vc, "state")), "ready");
}

/* Slurm lost its state and counts from 1 again. */
static void test_number_used_again(void **state)
{
	struct fixture *f = *state;

	report(f, "n1", json_pack("[o]", vm(1, 0, 1000, "old", "ready")), NOW - 500);
	report(f, "n2", json_pack("[o]", vm(1, 1, 1000, "old", "failed")), NOW - 500);
	report(f, "n1", json_pack("[o]", vm(1, 0, 1001, "new", "ready")), NOW);
	{
		favo_autojson json_t *vc = get(f, 1);

		assert_int_equal(json_array_size(json_object_get(vc, "members")), 1);
		assert_string_equal(json_string_value(json_object_get(vc, "state")),
				    "ready");
		assert_int_equal(json_integer_value(json_object_get(vc, "uid")), 1001);
	}
}

static void test_prune(void **state)
{
	struct fixture *f = *state;
	struct favo_grant g = grant("aaaaaaaaaaaaaaaa", 1000, "alice");

	favo_registry_add_grant(f->reg, &g, NULL);
	report(f, "n1", json_pack("[o]", vm(1, 0, 1000, g.id, "ended")), NOW);
	report(f, "n2", json_pack("[o]", vm(2, 0, 1000, g.id, "ready")), NOW);
	assert_int_equal(favo_registry_prune(f->reg, NOW, NULL), 0);
	assert_int_equal(count(f, -1, true), 2);
	assert_int_equal(favo_registry_prune(f->reg, NOW + 1000, NULL), 0);
	assert_null(get(f, 1));
	/* The grant of a cluster that runs stays, though it ran out. */
	{
		favo_autojson json_t *vc = get(f, 2);

		assert_string_equal(json_string_value(json_object_get(vc, "user")),
				    "alice");
	}
}

static void test_reopen(void **state)
{
	struct fixture *f = *state;
	struct favo_grant g = grant("aaaaaaaaaaaaaaaa", 1000, "alice");

	assert_int_equal(favo_registry_add_grant(f->reg, &g, NULL), 0);
	assert_true(favo_registry_add_grant(f->reg, &g, NULL) <
		    0); /* an id is used once */
	report(f, "n1", json_pack("[o]", vm(1, 0, 1000, g.id, "ready")), NOW);
	favo_registry_close(f->reg);
	f->reg = NULL;
	assert_int_equal(favo_registry_open(&f->reg, f->path, NULL), 0);
	expect_state(f, 1, "ready");
}

static void test_damaged_file(void **state)
{
	struct fixture *f = *state;
	struct favo_registry *reg = NULL;
	struct favo_err err = {0};
	char path[128];

	snprintf(path, sizeof(path), "%s/bad.db", f->dir);
	assert_int_equal(favo_file_replace(path, "this is no database, surely not", 31,
					   0600, NULL),
			 0);
	assert_true(favo_registry_open(&reg, path, &err) < 0);
	assert_non_null(strstr(err.msg, "bad.db: registry: "));
	assert_true(favo_registry_open(&reg, "/nowhere/x.db", NULL) < 0);
	assert_null(reg);
}

static void test_limit(void **state)
{
	struct favo_limit *limit = favo_limit_new(10, 3);

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_true(favo_limit_take(limit, 1000, 0));
	assert_false(favo_limit_take(limit, 1000, 0));
	assert_true(favo_limit_take(limit, 1001, 0)); /* somebody else */
	assert_false(favo_limit_take(limit, 1000, 99));
	assert_true(favo_limit_take(limit, 1000, 100)); /* 10 per second */
	assert_false(favo_limit_take(limit, 1000, 100));
	for (int i = 0; i < 3; i++)
		assert_true(favo_limit_take(limit, 1000, 100000));
	assert_false(favo_limit_take(limit, 1000, 100000));
	favo_limit_free(limit);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_life_of_a_cluster),
		TEST(test_failure_keeps_its_reason),
		TEST(test_lists),
		TEST(test_bad_reports_change_nothing),
		TEST(test_silent_node),
		TEST(test_number_used_again),
		TEST(test_prune),
		TEST(test_reopen),
		TEST(test_damaged_file),
		cmocka_unit_test(test_limit),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
