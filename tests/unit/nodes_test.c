// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Node database of favod: definitions are checked before anything of a change
 * is written, profiles count as documented, reports and unknown machines.
 */
#include "provision/favod/nodes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "provision/favod/node_def.h"

#define NOW 1800000000
#define MAC "52:54:00:0a:00:01"
#define D1 "sha256:1111111111111111111111111111111111111111111111111111111111111111"
#define D2 "sha256:2222222222222222222222222222222222222222222222222222222222222222"

struct fixture {
	char dir[64];
	char path[96];
	struct favo_nodes *nodes;
	int told;
};

static void count_change(void *user)
{
	((struct fixture *)user)->told++;
}

static void reopen(struct fixture *f)
{
	favo_nodes_close(f->nodes);
	f->nodes = NULL;
	assert_int_equal(favo_nodes_open(&f->nodes, f->path, NULL, NULL), 0);
	favo_nodes_watch(f->nodes, FAVO_NODES_BOOT, count_change, f);
}

static int setup(void **state)
{
	struct fixture *f = calloc(1, sizeof(*f));

	snprintf(f->dir, sizeof(f->dir), "/tmp/favo-nodes-XXXXXX");
	assert_non_null(mkdtemp(f->dir));
	snprintf(f->path, sizeof(f->path), "%s/nodes.db", f->dir);
	reopen(f);
	*state = f;
	return 0;
}

static int teardown(void **state)
{
	struct fixture *f = *state;

	favo_nodes_close(f->nodes);
	assert_int_equal(favo_remove_tree(f->dir, NULL), 0);
	free(f);
	return 0;
}

static int change(struct fixture *f, const char *text, struct favo_err *err)
{
	favo_autojson json_t *body = json_loads(text, 0, NULL);

	assert_non_null(body);
	return favo_nodes_change(f->nodes, body, NULL, err);
}

static size_t count_nodes(struct fixture *f)
{
	favo_autojson json_t *all = NULL;

	assert_int_equal(favo_nodes_json_all(f->nodes, &all, NULL), 0);
	return json_array_size(all);
}

static void test_definitions(void **state)
{
	static const struct {
		const char *def, *says;
	} bad[] = {
		{"{\"mac\":[]}", "no field \"mac\""},
		{"{\"macs\":\"" MAC "\"}", "an array"},
		{"{\"macs\":[\"52:54:00:0a:00\"]}", "no MAC address"},
		{"{\"macs\":[\"ff:ff:ff:ff:ff:ff\"]}", "no address of one machine"},
		{"{\"macs\":[\"00:00:00:00:00:00\"]}", "no address of one machine"},
		{"{\"macs\":[\"" MAC "\",\"52-54-00-0A-00-01\"]}", "there twice"},
		{"{\"macs\":[7]}", "text is needed"},
		{"{\"uuid\":\"x\"}", "no UUID"},
		{"{\"addresses\":[\"10.0.0.300\"]}", "no IP address"},
		{"{\"addresses\":[\"10.0.0.1/33\"]}", "no prefix length"},
		{"{\"addresses\":[\"10.0.0.1/\"]}", "no prefix length"},
		{"{\"gateway\":\"10.0.0.0/8\"}", "no IP address"},
		{"{\"groups\":[\"a b\"]}", "no name"},
		{"{\"console\":\"ttyS0 init=/bin/sh\"}", "no console"},
		{"{\"power\":\"ipmitool\"}", "path of a program"},
		{"{\"power\":\"/bin/x %q\"}", "none of %n"},
		{"{\"power\":\"/bin/x %\"}", "none of %n"},
		{"{\"image\":\"Bad Name\"}", "image"},
		{"{\"kernel_args\":\"a\\nb\"}", "control character"},
		{"{\"kernel_args\":\"a\\u0000b\"}", "text is needed"},
		{"{\"tags\":{\"a b\":\"c\"}}", "no name"},
		{"{\"tags\":{\"a\":1}}", "text is needed"},
	};
	favo_autojson json_t *empty =
		json_loads("{\"image\":null,\"groups\":[]}", 0, NULL);
	favo_autojson json_t *out = NULL;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		favo_autojson json_t *def = json_loads(bad[i].def, JSON_ALLOW_NUL, NULL);
		struct favo_err err = {0};
		json_t *none = NULL;

		assert_non_null(def);
		assert_int_equal(favo_node_def_check(&none, def, false, &err), -EINVAL);
		if (!strstr(err.msg, bad[i].says))
			fail_msg("%s: %s", bad[i].def, err.msg);
	}
	assert_int_equal(favo_node_def_check(&out, empty, true, NULL), 0);
	assert_int_equal(json_object_size(out), 0);
}

static void test_names(void **state)
{
	(void)state;
	assert_true(favo_node_name_ok("n1"));
	assert_false(favo_node_name_ok(""));
	assert_false(favo_node_name_ok("-n"));
	assert_false(favo_node_name_ok("N1"));
	assert_false(favo_node_name_ok("n.1"));
	assert_false(favo_node_name_ok("n/1"));
}

static void test_profiles(void **state)
{
	struct fixture *f = *state;
	favo_autonode struct favo_node *n = NULL;

	assert_int_equal(
		change(f,
		       "{\"put\":{\"profiles\":{\"a\":{\"image\":\"x\",\"groups\":[\"g\"]"
		       ","
		       "\"tags\":{\"k\":\"1\",\"l\":\"1\"}},\"b\":{\"image\":\"y:2\"}},"
		       "\"nodes\":{\"n1\":{\"profiles\":[\"a\",\"b\"],\"groups\":[\"h\","
		       "\"g\"],\"tags\":{\"k\":\"2\"},\"macs\":[\"52-54-00-0A-00-01\"]}}}"
		       "}",
		       NULL),
		0);
	assert_int_equal(f->told, 1);
	reopen(f);
	assert_int_equal(favo_nodes_by_mac(f->nodes, "52:54:00:0A:00:01", &n, NULL), 0);
	assert_string_equal(n->name, "n1");
	assert_string_equal(n->image, "y:2");
	assert_string_equal(n->groups[0], "g");
	assert_string_equal(n->groups[1], "h");
	assert_null(n->groups[2]);
	assert_string_equal(json_string_value(json_object_get(n->tags, "k")), "2");
	assert_string_equal(json_string_value(json_object_get(n->tags, "l")), "1");
	assert_string_equal(n->macs[0], MAC);
}

/* Whatever is wrong with a change, nothing of it stays. */
static void test_all_or_nothing(void **state)
{
	static const struct {
		const char *change;
		int ret;
		const char *says;
	} bad[] = {
		{"{\"put\":{\"nodes\":{\"n2\":{},\"n3\":{\"macs\":[\"" MAC "\"]}}}}",
		 -EEXIST, "mac " MAC " belongs to node n1"},
		{"{\"put\":{\"nodes\":{\"n2\":{\"macs\":[\"52:54:00:0a:00:09\"]},"
		 "\"n3\":{\"macs\":[\"52:54:00:0a:00:09\"]}}}}",
		 -EEXIST, "belongs to node"},
		{"{\"put\":{\"nodes\":{\"n2\":{},\"n3\":{\"addresses\":[\"10.0.0.1/"
		 "8\"]}}}}",
		 -EEXIST, "address 10.0.0.1"},
		{"{\"put\":{\"nodes\":{\"n2\":{},\"n3\":{\"profiles\":[\"no\"]}}}}",
		 -EINVAL, "profile no, which does not exist"},
		{"{\"put\":{\"nodes\":{\"n2\":{},\"N3\":{}}}}", -EINVAL,
		 "no name of a node"},
		{"{\"put\":{\"nodes\":{\"n2\":7}}}", -EINVAL, "object"},
		{"{\"put\":{\"nodes\":[]}}", -EINVAL, "object"},
		{"{\"put\":{\"things\":{}}}", -EINVAL, "things"},
		{"{\"delete\":{\"nodes\":[\"n9\"]},\"put\":{\"nodes\":{\"n2\":{}}}}",
		 -ENOENT, "no node n9"},
		{"{\"delete\":{\"profiles\":[\"p\"]}}", -EINVAL, "profile p"},
		{"{\"base\":0,\"put\":{\"nodes\":{\"n2\":{},\"n1\":{}}}}", -EBUSY,
		 "changed by somebody else"},
		{"{\"puts\":{}}", -EINVAL, "puts"},
	};
	struct fixture *f = *state;

	assert_int_equal(change(f,
				"{\"put\":{\"profiles\":{\"p\":{}},\"nodes\":{\"n1\":{"
				"\"profiles\":[\"p\"],\"macs\":[\"" MAC
				"\"],\"addresses\":[\"10.0.0.1/24\"]}}}}",
				NULL),
			 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		struct favo_err err = {0};

		if (change(f, bad[i].change, &err) != bad[i].ret ||
		    !strstr(err.msg, bad[i].says))
			fail_msg("%s: %s", bad[i].change, err.msg);
		assert_int_equal(count_nodes(f), 1);
	}
	assert_int_equal(f->told, 1);
	assert_int_equal(
		change(f, "{\"dry_run\":true,\"put\":{\"nodes\":{\"n2\":{}}}}", NULL), 0);
	assert_int_equal(count_nodes(f), 1);
}

static void test_swap(void **state)
{
	struct fixture *f = *state;
	favo_autonode struct favo_node *n = NULL;

	assert_int_equal(change(f,
				"{\"put\":{\"nodes\":{\"n1\":{\"macs\":[\"" MAC
				"\"]},\"n2\":{\"macs\":[\"52:54:00:0a:00:02\"]}}}}",
				NULL),
			 0);
	assert_int_equal(change(f,
				"{\"put\":{\"nodes\":{\"n2\":{\"macs\":[\"" MAC
				"\"]},\"n1\":{\"macs\":[\"52:54:00:0a:00:02\"]}}}}",
				NULL),
			 0);
	assert_int_equal(favo_nodes_by_mac(f->nodes, MAC, &n, NULL), 0);
	assert_string_equal(n->name, "n2");
	assert_int_equal(change(f, "{\"delete\":{\"nodes\":[\"n2\"]}}", NULL), 0);
	favo_node_free(favo_steal_ptr(&n));
	assert_int_equal(favo_nodes_by_mac(f->nodes, MAC, &n, NULL), -ENOENT);
}

static void test_reports(void **state)
{
	struct fixture *f = *state;
	struct favo_node_report r = {
		.digest = D1, .phase = "up", .boot_id = "a", .boot_time = NOW};
	favo_autonode struct favo_node *n = NULL;
	struct favo_err err = {0};

	assert_int_equal(favo_nodes_report(f->nodes, "n1", &r, NOW, &err), -ENOENT);
	assert_int_equal(change(f, "{\"put\":{\"nodes\":{\"n1\":{}}}}", NULL), 0);
	assert_int_equal(favo_nodes_report(f->nodes, "n1", &r, NOW, NULL), 0);
	/* the next boot fails on its way */
	r = (struct favo_node_report){
		.digest = D2, .phase = "fetch", .boot_id = "b", .message = "no route"};
	assert_int_equal(favo_nodes_report(f->nodes, "n1", &r, NOW + 5, NULL), 0);
	assert_int_equal(favo_nodes_get(f->nodes, "n1", &n, NULL), 0);
	assert_string_equal(n->booted, D2);
	assert_string_equal(n->good, D1);
	assert_string_equal(n->phase, "fetch");
	assert_string_equal(n->message, "no route");
	assert_int_equal(n->boot_time, NOW);
	assert_int_equal(n->reported, NOW + 5);
	r = (struct favo_node_report){.digest = "sha256:1"};
	assert_int_equal(favo_nodes_report(f->nodes, "n1", &r, NOW, &err), -EINVAL);
	r = (struct favo_node_report){.phase = "UP;"};
	assert_int_equal(favo_nodes_report(f->nodes, "n1", &r, NOW, &err), -EINVAL);
	assert_int_equal(f->told, 1);
}

static void test_unknown(void **state)
{
	struct fixture *f = *state;
	favo_autojson json_t *list = NULL;

	for (int i = 0; i < FAVO_NODE_UNKNOWN_MAX + 10; i++) {
		char mac[18];

		snprintf(mac, sizeof(mac), "52:54:00:0b:%02x:%02x", i / 256, i % 256);
		assert_int_equal(favo_nodes_seen(f->nodes, mac, "junk", NULL, "x86_64",
						 NOW + i, NULL),
				 0);
	}
	assert_int_equal(favo_nodes_seen(f->nodes, "junk", NULL, NULL, NULL, NOW, NULL),
			 -EINVAL);
	assert_int_equal(favo_nodes_unknown(f->nodes, &list, NULL), 0);
	assert_int_equal(json_array_size(list), FAVO_NODE_UNKNOWN_MAX);
	assert_int_equal(count_nodes(f), 0);
	/* adopted: not unknown any more */
	assert_int_equal(change(f,
				"{\"put\":{\"nodes\":{\"n1\":{\"macs\":[\"52:54:00:0b:04:"
				"00\"]}}}}",
				NULL),
			 0);
	json_decref(list);
	assert_int_equal(favo_nodes_unknown(f->nodes, &list, NULL), 0);
	assert_int_equal(json_array_size(list), FAVO_NODE_UNKNOWN_MAX - 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_definitions),
		cmocka_unit_test(test_names),
		cmocka_unit_test_setup_teardown(test_profiles, setup, teardown),
		cmocka_unit_test_setup_teardown(test_all_or_nothing, setup, teardown),
		cmocka_unit_test_setup_teardown(test_swap, setup, teardown),
		cmocka_unit_test_setup_teardown(test_reports, setup, teardown),
		cmocka_unit_test_setup_teardown(test_unknown, setup, teardown),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
