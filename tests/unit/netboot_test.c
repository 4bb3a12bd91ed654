// SPDX-License-Identifier: GPL-2.0-or-later
/* Boot of real machines: what node and favod say to each other, and who may ask. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/util.h"
#include "netboot/boot.h"
#include "netboot/initramfs/netinit.h"

static void test_heads(void **state)
{
	static const struct {
		const char *head;
		int ret, status;
		size_t len;
	} cases[] = {
		{"HTTP/1.1 200 OK\r\nContent-Length: 12\r\n\r\n", 0, 200, 12},
		{"HTTP/1.1 403 No\r\nX: y\r\ncontent-length:0\r\n\r\n", 0, 403, 0},
		{"HTTP/1.1 200 OK\r\n\r\n", -EBADMSG, 0, 0},
		{"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n", -EBADMSG, 0, 0},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1x\r\n\r\n", -EBADMSG, 0, 0},
		{"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
		 -EBADMSG, 0, 0},
		{"HTTP/1.1 200 OK\r\nContent-Length: 99999999999999999999\r\n\r\n",
		 -EBADMSG, 0, 0},
		{"SSH-2.0-OpenSSH_9.2\r\n\r\n", -EBADMSG, 0, 0},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		size_t len = 0;
		int status = 0;

		assert_int_equal(favo_web_parse_head(cases[i].head, strlen(cases[i].head),
						     &status, &len, NULL),
				 cases[i].ret);
		if (cases[i].ret == 0) {
			assert_int_equal(status, cases[i].status);
			assert_int_equal(len, cases[i].len);
		}
	}
}

static void test_urls(void **state)
{
	static const char *const bad[] = {"",
					  "http://1.2.3.4",
					  "https://1.2.3.4:1",
					  "http://host:80",
					  "http://1.2.3.4:0",
					  "http://1.2.3.4:80/x"};
	struct sockaddr_in a;

	(void)state;
	assert_int_equal(favo_web_parse_url(&a, "http://10.0.0.1:7414", NULL), 0);
	assert_int_equal(ntohs(a.sin_port), 7414);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++)
		assert_int_not_equal(favo_web_parse_url(&a, bad[i], NULL), 0);
}

static void test_tokens(void **state)
{
	struct favo_boot_tokens *t = favo_boot_tokens_new();
	struct favo_boot_entry e = {.node = "n1", .address = "10.0.0.2"}, found;
	char first[FAVO_BOOT_TOKEN];

	(void)state;
	assert_non_null(t);
	assert_int_equal(favo_boot_tokens_add(t, &e, NULL), 0);
	memcpy(first, e.token, sizeof(first));
	assert_int_equal(favo_boot_tokens_find(t, first, "10.0.0.2", &found, NULL), 0);
	assert_string_equal(found.node, "n1");
	/* of another address, or not a token at all */
	assert_int_equal(favo_boot_tokens_find(t, first, "10.0.0.3", &found, NULL),
			 -ENOENT);
	assert_int_equal(favo_boot_tokens_find(t, "", "10.0.0.2", &found, NULL), -ENOENT);
	/* secrets once */
	assert_true(favo_boot_tokens_take_secrets(t, first));
	assert_false(favo_boot_tokens_take_secrets(t, first));
	/* a node has few: the oldest goes */
	for (int i = 0; i < 4; i++)
		assert_int_equal(favo_boot_tokens_add(t, &e, NULL), 0);
	assert_int_equal(favo_boot_tokens_find(t, first, "10.0.0.2", &found, NULL),
			 -ENOENT);
	favo_boot_tokens_free(t);
}

static void test_attempts(void **state)
{
	struct favo_boot_tokens *t = favo_boot_tokens_new();
	struct favo_digest a = {.bytes = {1}}, b = {.bytes = {2}};

	(void)state;
	assert_int_equal(favo_boot_tokens_attempt(t, "n1", &a), 1);
	assert_int_equal(favo_boot_tokens_attempt(t, "n1", &a), 2);
	assert_int_equal(favo_boot_tokens_attempt(t, "n2", &a), 1);
	assert_int_equal(favo_boot_tokens_attempt(t, "n1", &b), 1);
	assert_int_equal(favo_boot_tokens_attempt(t, "n1", &b), 2);
	favo_boot_tokens_started(t, "n1");
	assert_int_equal(favo_boot_tokens_attempt(t, "n1", &b), 1);
	favo_boot_tokens_free(t);
}

static void test_templates(void **state)
{
	char *addresses[] = {(char *)"10.0.0.5/24", NULL};
	favo_autojson json_t *tags = json_pack("{s:s}", "rack", "r7");
	struct favo_node node = {
		.name = (char *)"n5", .addresses = addresses, .tags = tags};
	favo_autofree char *text = NULL;
	char *none = NULL;

	(void)state;
	assert_int_equal(favo_boot_template("{{name}} {{address}} {{tag.rack}} {{ }",
					    &node, &text, NULL),
			 0);
	assert_string_equal(text, "n5 10.0.0.5 r7 {{ }");
	assert_int_equal(favo_boot_template("{{tag.none}}", &node, &none, NULL), -EINVAL);
	assert_null(none);
}

/* What favod writes, the node reads. */
static void test_config_goes_round(void **state)
{
	struct favo_conf conf;
	struct favo_boot_entry e = {.token = "0123456789abcdef0123456789abcdef",
				    .boot_id = "0011223344556677",
				    .node = "n5",
				    .address = "10.0.0.5",
				    .mac = "52:54:00:00:00:05",
				    .image_name = "repo/node:v1",
				    .gateway = "10.0.0.1",
				    .netmask = "255.255.254.0"};
	favo_autofree char *text = NULL;
	struct favo_net_config c;

	(void)state;
	assert_int_equal(favo_conf_load(&conf, "/dev/null", false, NULL), 0);
	text = favo_boot_node_config("http://10.0.0.1:7414", &conf, &e);
	assert_non_null(text);
	assert_int_equal(favo_net_config_parse(&c, text, strlen(text), NULL), 0);
	assert_string_equal(c.token, e.token);
	assert_string_equal(c.node, "n5");
	assert_int_equal(c.prefix, 23);
	assert_int_equal(c.mac[5], 5);
	assert_int_equal(c.fetch_ms, 600000);
	assert_int_equal(favo_net_config_parse(&c, "{}", 2, NULL), -EINVAL);
	favo_conf_fini(&conf);
}

static void test_dhcp_config(void **state)
{
	const struct favo_boot_net net = {.interface = "eth7",
					  .address = "10.0.0.1",
					  .network = "10.0.0.0",
					  .netmask = "255.255.255.0",
					  .prefix = 24};
	struct favo_conf conf;
	favo_autofree char *full = NULL, *proxy = NULL;

	(void)state;
	assert_int_equal(favo_conf_load(&conf, "/dev/null", false, NULL), 0);
	full = favo_boot_dhcp_config(&conf, &net, "/run/x");
	assert_non_null(strstr(full, "\ninterface=eth7\n"));
	assert_non_null(strstr(full, "\ndhcp-range=10.0.0.0,static,255.255.255.0"));
	assert_non_null(strstr(full, "tag:ipxe,http://10.0.0.1:7414/boot/start.ipxe"));
	free(conf.boot_dhcp);
	conf.boot_dhcp = strdup("proxy");
	proxy = favo_boot_dhcp_config(&conf, &net, "/run/x");
	assert_non_null(strstr(proxy, "\ndhcp-range=10.0.0.0,proxy,"));
	assert_null(strstr(proxy, "static"));
	assert_non_null(strstr(proxy, "pxe-service=tag:!ipxe,x86PC"));
	favo_conf_fini(&conf);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_heads),
		cmocka_unit_test(test_urls),
		cmocka_unit_test(test_tokens),
		cmocka_unit_test(test_attempts),
		cmocka_unit_test(test_templates),
		cmocka_unit_test(test_config_goes_round),
		cmocka_unit_test(test_dhcp_config),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
