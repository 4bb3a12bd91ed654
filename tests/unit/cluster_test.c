// SPDX-License-Identifier: GPL-2.0-or-later
/* Names, addresses and networks of a virtual cluster. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <cmocka.h>

#include "common/util.h"
#include "provision/cluster.h"

static const char *const nodes[] = {"n1", "n2", "rack-2.n_3"};

static void test_plan(void **state)
{
	struct favo_cluster *c = NULL;
	char mac[18];

	(void)state;
	assert_int_equal(
		favo_cluster_plan(&c, 0x12345678, nodes, 3, "10.128.0.0/16", NULL), 0);
	assert_int_equal(c->count, 3);
	assert_int_equal(c->vni, 0x145678);
	assert_int_equal(c->prefix_len, 16);
	assert_string_equal(c->members[0].name, "vm0");
	assert_string_equal(c->members[2].name, "vm2");
	assert_string_equal(c->members[0].address, "10.128.0.1");
	assert_string_equal(c->members[2].address, "10.128.0.3");
	assert_string_equal(c->members[2].node, "rack-2.n_3");
	favo_mac_format(mac, c->members[2].mac);
	assert_string_equal(mac, "02:fa:56:78:00:02");
	assert_int_equal(favo_cluster_find(c, "n2"), 1);
	assert_int_equal(favo_cluster_find(c, "n"), -1);
	free(c);
}

static void test_many(void **state)
{
	static char names[1000][8];
	const char *list[1000];
	struct favo_cluster *c = NULL;

	(void)state;
	for (int i = 0; i < 1000; i++) {
		snprintf(names[i], sizeof(names[i]), "n%d", i);
		list[i] = names[i];
	}
	assert_int_equal(favo_cluster_plan(&c, 1, list, 1000, "10.128.0.0/16", NULL), 0);
	assert_string_equal(c->members[255].address, "10.128.1.0");
	assert_string_equal(c->members[999].address, "10.128.3.232");
	assert_int_equal(c->members[999].mac[4], 3);
	free(c);
}

static void test_refused(void **state)
{
	static const char *const twice[] = {"n1", "n1"};
	static const char *const evil[] = {"../n1"};
	static const char *const empty[] = {""};
	static const char *const subnets[] = {"",
					      "10.0.0.0",
					      "10.0.0.0/",
					      "10.0.0.0/31",
					      "10.0.0.0/7",
					      "10.0.0.1/16",
					      "10.0.0.0/16x",
					      "a/16",
					      "10.0.0.0/ 16",
					      "1.2.3.4.5.6.7.8.9/16"};
	struct favo_cluster *c = NULL;
	struct favo_err err = {0};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(subnets); i++)
		assert_int_equal(favo_cluster_plan(&c, 1, nodes, 1, subnets[i], &err),
				 -EINVAL);
	assert_int_equal(favo_cluster_plan(&c, 1, twice, 2, "10.0.0.0/16", &err),
			 -EINVAL);
	assert_int_equal(favo_cluster_plan(&c, 1, evil, 1, "10.0.0.0/16", &err), -EINVAL);
	assert_int_equal(favo_cluster_plan(&c, 1, empty, 1, "10.0.0.0/16", &err),
			 -EINVAL);
	assert_int_equal(favo_cluster_plan(&c, 1, nodes, 0, "10.0.0.0/16", &err),
			 -ERANGE);
	assert_int_equal(favo_cluster_plan(&c, 1, nodes, 3, "10.0.0.0/30", &err),
			 -ERANGE);
	assert_null(c);
	assert_string_equal(err.msg, "subnet 10.0.0.0/30: no room for 3 VMs");
}

static void test_interface_names(void **state)
{
	char name[FAVO_IFNAME_SIZE];

	(void)state;
	favo_bridge_name(name, 12);
	assert_string_equal(name, "fb12");
	favo_vxlan_name(name, 99999999);
	assert_string_equal(name, "fx99999999");
	favo_tap_name(name, 99999999, 9999);
	assert_string_equal(name, "ft99999999.9999");
	favo_tap_name(name, UINT32_MAX, 9999);
	assert_string_equal(name, "ftz1z141z3.9999");
	favo_bridge_name(name, 100000000);
	assert_string_equal(name, "fbz1njchs");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_plan),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_interface_names),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
