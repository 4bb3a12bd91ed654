// SPDX-License-Identifier: GPL-2.0-or-later
/* /favo/netboot.json, which favod writes for each boot; netboot/boot.c. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "netboot/initramfs/netinit.h"

static int parse_address(struct in_addr *out, const json_t *obj, const char *key,
			 struct favo_err *err)
{
	const char *text;
	int ret = favo_json_str(&text, obj, key, err);

	if (ret == 0 && inet_pton(AF_INET, text, out) != 1)
		ret = favo_fail(err, EINVAL, "%s: \"%.40s\" is no address", key, text);
	return ret;
}

static int copy_name(char *out, size_t size, const json_t *obj, const char *key,
		     const char *extra, struct favo_err *err)
{
	const char *text;
	int ret = favo_json_str(&text, obj, key, err);

	if (ret < 0)
		return ret;
	if (*text && !favo_is_name(text, extra, size - 1))
		return favo_fail(err, EINVAL, "%s: \"%.64s\" is malformed", key, text);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int parse_mac(uint8_t mac[6], const json_t *obj, struct favo_err *err)
{
	unsigned int b[6];
	const char *text;
	char end;
	int ret = favo_json_str(&text, obj, "mac", err);

	if (ret < 0)
		return ret;
	if (sscanf(text, "%2x:%2x:%2x:%2x:%2x:%2x%c", &b[0], &b[1], &b[2], &b[3], &b[4],
		   &b[5], &end) != 6)
		return favo_fail(err, EINVAL, "mac: \"%.40s\" is malformed", text);
	for (int i = 0; i < 6; i++)
		mac[i] = (uint8_t)b[i];
	return 0;
}

static int parse_server(struct favo_net_config *c, const json_t *obj,
			struct favo_err *err)
{
	const char *url;
	int ret = favo_json_str(&url, obj, "url", err);

	if (ret == 0)
		ret = favo_web_parse_url(&c->server, url, err);
	if (ret == 0)
		snprintf(c->url, sizeof(c->url), "%s", url);
	return ret;
}

static int parse_numbers(struct favo_net_config *c, const json_t *obj,
			 struct favo_err *err)
{
	uint64_t prefix = 0, port = 0, fetch_ms = 0;
	int ret = favo_json_u64(&prefix, obj, "prefix", 1, 32, err);

	if (ret == 0)
		ret = favo_json_u64(&port, obj, "peer_port", 0, 65535, err);
	if (ret == 0)
		ret = favo_json_u64(&fetch_ms, obj, "fetch_ms", 0, 86400000, err);
	if (ret == 0)
		ret = favo_json_bool(&c->trust_signed, obj, "trust_signed", err);
	c->prefix = (unsigned int)prefix;
	c->peer_port = (uint16_t)port;
	c->fetch_ms = (int64_t)fetch_ms;
	return ret;
}

int favo_net_config_parse(struct favo_net_config *out, const char *text, size_t len,
			  struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	struct favo_net_config c = {0};
	const char *image;
	int ret = favo_json_parse(&obj, text, len, err);

	if (ret < 0 || (ret = parse_server(&c, obj, err)) < 0 ||
	    (ret = copy_name(c.token, sizeof(c.token), obj, "token", "", err)) < 0 ||
	    (ret = copy_name(c.boot_id, sizeof(c.boot_id), obj, "boot_id", "", err)) <
		    0 ||
	    (ret = copy_name(c.node, sizeof(c.node), obj, "node", "-.", err)) < 0 ||
	    (ret = copy_name(c.image_name, sizeof(c.image_name), obj, "image_name",
			     "-._/:@", err)) < 0 ||
	    (ret = copy_name(c.cache_label, sizeof(c.cache_label), obj, "cache_label",
			     "-._", err)) < 0 ||
	    (ret = favo_json_str(&image, obj, "image", err)) < 0 ||
	    (ret = favo_digest_parse(&c.image, image, err)) < 0 ||
	    (ret = parse_mac(c.mac, obj, err)) < 0 ||
	    (ret = parse_address(&c.address, obj, "address", err)) < 0 ||
	    (ret = parse_address(&c.gateway, obj, "gateway", err)) < 0 ||
	    (ret = parse_numbers(&c, obj, err)) < 0)
		return ret;
	*out = c;
	return 0;
}
