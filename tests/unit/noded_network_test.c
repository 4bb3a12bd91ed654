// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Private network of a job: built in a namespace that only the tap holds,
 * and gone with it. Needs root and the kernel's bridge and vxlan; skipped
 * otherwise.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <sched.h>
#include <sys/ioctl.h>
#include <cmocka.h>

#include "common/util.h"
#include "provision/noded/network.h"

struct look {
	int ns_fd;
	unsigned int bridge, vxlan, tap, total;
};

/* What the namespace holds; a thread, since it changes its namespace. */
static void *look_inside(void *arg)
{
	struct look *look = arg;
	struct if_nameindex *list;

	if (setns(look->ns_fd, CLONE_NEWNET) < 0)
		return NULL;
	look->bridge = if_nametoindex("fb12");
	look->vxlan = if_nametoindex("fx12");
	look->tap = if_nametoindex("ft12.1");
	list = if_nameindex();
	for (struct if_nameindex *i = list; i && i->if_index; i++)
		look->total++;
	if_freenameindex(list);
	return NULL;
}

static void test_build(void **state)
{
	static const char *const nodes[] = {"n1", "n2", "n3"};
	struct in_addr addresses[3];
	favo_autofree struct favo_cluster *cluster = NULL;
	struct favo_network net = {.self = 1, .addresses = addresses, .vxlan_port = 4789};
	struct favo_err err = {0};
	struct look look = {0};
	pthread_t thread;
	int tap = -1, ret;

	(void)state;
	if (geteuid() != 0) {
		print_message("skipped: needs root\n");
		skip();
	}
	for (int i = 0; i < 3; i++)
		addresses[i].s_addr = htonl(0x0a4d000b + (uint32_t)i);
	assert_int_equal(favo_cluster_plan(&cluster, 12, nodes, 3, "10.128.0.0/16", NULL),
			 0);
	net.cluster = cluster;
	ret = favo_network_build(&net, &tap, &err);
	if (ret == -EPERM || ret == -ENODEV || ret == -ENOENT) {
		print_message("skipped: %s\n", err.msg);
		skip();
	}
	if (ret < 0)
		fail_msg("%s", err.msg);

	/* Nothing in our own namespace. */
	assert_int_equal(if_nametoindex("fb12"), 0);
	assert_int_equal(if_nametoindex("fx12"), 0);
	assert_int_equal(if_nametoindex("ft12.1"), 0);

	look.ns_fd = ioctl(tap, TUNGETDEVNETNS);
	assert_true(look.ns_fd >= 0);
	assert_int_equal(pthread_create(&thread, NULL, look_inside, &look), 0);
	pthread_join(thread, NULL);
	assert_true(look.bridge && look.vxlan && look.tap);
	assert_true(look.total >= 4);
	close(tap);

	/* The tap was what kept it; the namespace's loopback is still there. */
	look.bridge = look.vxlan = look.tap = look.total = 0;
	assert_int_equal(pthread_create(&thread, NULL, look_inside, &look), 0);
	pthread_join(thread, NULL);
	assert_int_equal(look.tap, 0);
	close(look.ns_fd);
}

static void test_resolve(void **state)
{
	static const char *const good[] = {"localhost"};
	static const char *const bad[] = {"no-such-host"};
	favo_autofree struct favo_cluster *cluster = NULL;
	favo_autofree struct favo_cluster *other = NULL;
	favo_autofree struct in_addr *list = NULL;
	struct favo_err err = {0};

	(void)state;
	assert_int_equal(favo_cluster_plan(&cluster, 1, good, 1, "10.0.0.0/8", NULL), 0);
	assert_int_equal(favo_network_resolve(&list, cluster, "", &err), 0);
	assert_int_equal(ntohl(list[0].s_addr) >> 24, 127);
	assert_int_equal(favo_cluster_plan(&other, 1, bad, 1, "10.0.0.0/8", NULL), 0);
	free(favo_steal_ptr(&list));
	assert_int_equal(favo_network_resolve(&list, other, ".invalid", &err), -ENOENT);
	assert_non_null(strstr(err.msg, "no-such-host.invalid"));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_build),
		cmocka_unit_test(test_resolve),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
