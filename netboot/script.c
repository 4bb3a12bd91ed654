// SPDX-License-Identifier: GPL-2.0-or-later
/* Texts for iPXE and for the initramfs; see boot.h. https://ipxe.org/cmd */
#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/util.h"
#include "netboot/boot.h"

/* netX is the interface that iPXE booted from. */
char *favo_boot_script_start(const char *url)
{
	return favo_asprintf(
		"#!ipxe\n"
		":again\n"
		"chain --replace %s/boot/script?mac=${netX/mac:hexhyp}&uuid=${uuid}"
		"&arch=${buildarch}-${platform}&gw=${netX/gateway}"
		"&mask=${netX/netmask} ||\n"
		"echo Favo: favod does not answer, trying again\n"
		"sleep 5\n"
		"goto again\n",
		url);
}

char *favo_boot_script_unknown(const char *url, const char *mac, const char *why)
{
	return favo_asprintf("#!ipxe\n"
			     "echo\n"
			     "echo Favo: this machine has address %s\n"
			     "echo Favo: %s\n"
			     "echo Favo: asking again in 30 seconds\n"
			     "sleep 30\n"
			     "chain --replace %s/boot/start.ipxe || reboot\n",
			     mac, why, url);
}

char *favo_boot_script_node(const char *url, const struct favo_boot_entry *e,
			    const char *args)
{
	char id[FAVO_DIGEST_TEXT_SIZE];

	favo_digest_format(&e->image, id);
	return favo_asprintf("#!ipxe\n"
			     "echo Favo: node %s starts image %s, %.19s\n"
			     "kernel --name kernel %s/boot/kernel/%s initrd=base "
			     "initrd=node %s || goto "
			     "retry\n"
			     "initrd --name base %s/boot/base/%s || goto retry\n"
			     "initrd --name node %s/boot/node/%s || goto retry\n"
			     "boot ||\n"
			     ":retry\n"
			     "echo Favo: the start failed, trying again\n"
			     "sleep 5\n"
			     "chain --replace %s/boot/start.ipxe || reboot\n",
			     e->node, e->image_name, id, url, e->token, args, url,
			     e->token, url, e->token, url);
}

static unsigned int prefix_of(const char *netmask)
{
	struct in_addr mask;

	if (inet_pton(AF_INET, netmask, &mask) != 1)
		return 24;
	return (unsigned int)__builtin_popcount(mask.s_addr);
}

char *favo_boot_node_config(const char *url, const struct favo_conf *conf,
			    const struct favo_boot_entry *e)
{
	char id[FAVO_DIGEST_TEXT_SIZE];
	favo_autojson json_t *obj = json_pack(
		"{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:i, s:i, s:b, s:s, s:I}",
		"url", url, "token", e->token, "boot_id", e->boot_id, "node", e->node,
		"image", favo_digest_format(&e->image, id), "image_name", e->image_name,
		"mac", e->mac, "address", e->address, "gateway",
		*e->gateway ? e->gateway : "0.0.0.0", "prefix",
		(int)prefix_of(e->netmask), "peer_port",
		conf->source_port ? (int)conf->peer_port : 0, "trust_signed",
		strcmp(conf->image_trust, "signed") == 0, "cache_label",
		conf->boot_cache_label, "fetch_ms",
		(json_int_t)conf->boot_timeout_fetch_ms);

	return obj ? json_dumps(obj, JSON_COMPACT | JSON_SORT_KEYS) : NULL;
}
