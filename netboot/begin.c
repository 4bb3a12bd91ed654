// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The first word of a machine: who is it, and what is it to boot? Known nodes
 * get a token and a script; others are noted for the admin and told so on
 * their screen, nothing else.
 */
#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "netboot/serve.h"

static const char *query(struct favo_call *call, const char *key)
{
	const char *value =
		MHD_lookup_connection_value(call->connection, MHD_GET_ARGUMENT_KIND, key);

	return value ? value : "";
}

/* "52-54-00-..." of iPXE to "52:54:00:..."; false: it is no MAC. */
static bool parse_mac(char out[18], const char *text)
{
	if (strlen(text) != 17)
		return false;
	for (int i = 0; i < 17; i++) {
		unsigned char c = (unsigned char)text[i];

		if (i % 3 == 2 ? c != '-' && c != ':' : !isxdigit(c))
			return false;
		out[i] = i % 3 == 2 ? ':' : (char)tolower(c);
	}
	out[17] = '\0';
	return true;
}

static void tell(struct favo_boot *b, struct favo_call *call, const char *mac,
		 const char *why)
{
	char line[160];
	size_t n = 0;

	/* The text becomes a line of a script. */
	for (const char *c = why; *c && n + 1 < sizeof(line); c++)
		line[n++] = isalnum((unsigned char)*c) || strchr(" .,:;()/_-@", *c) ? *c
										    : '_';
	line[n] = '\0';
	favo_boot_text(call, MHD_HTTP_OK, favo_boot_script_unknown(b->url, mac, line));
}

static void unknown(struct favo_boot *b, struct favo_call *call, const char *mac,
		    const struct favo_boot_peer *peer)
{
	const char *uuid = query(call, "uuid"), *arch = query(call, "arch");
	struct favo_err err = {0};

	if (!favo_is_name(uuid, "-", 36))
		uuid = NULL;
	if (!favo_is_name(arch, "-_", 32))
		arch = NULL;
	if (favo_nodes_seen(b->d->nodes, mac, uuid, peer->address, arch, time(NULL),
			    &err) < 0)
		favo_log(FAVO_WARN, "unknown machine %s: %s", mac, err.msg);
	favo_log(FAVO_INFO, "machine %s (%s) asks to boot and is no node", mac,
		 peer->address);
	tell(b, call, mac,
	     "favod does not know it. Adopt it with: favo node adopt MAC NODE");
}

/* The address of the database, or the one it comes from when there is none. */
static int check_address(const struct favo_node *node, const struct favo_boot_peer *peer,
			 struct favo_boot_entry *e, struct favo_err *err)
{
	const char *own = node->addresses[0];
	size_t len = own ? strcspn(own, "/") : 0;

	if (own &&
	    (strlen(peer->address) != len || strncmp(own, peer->address, len) != 0))
		return favo_fail(err, EACCES,
				 "node %s has address %.40s, but asks from %s",
				 node->name, own, peer->address);
	snprintf(e->address, sizeof(e->address), "%s", peer->address);
	return 0;
}

static void copy_address(char out[FAVO_BOOT_ADDRESS], const char *text)
{
	struct in_addr a;

	out[0] = '\0';
	if (text && inet_pton(AF_INET, text, &a) == 1)
		inet_ntop(AF_INET, &a, out, FAVO_BOOT_ADDRESS);
}

static void fill_network(struct favo_boot *b, const struct favo_node *node,
			 struct favo_call *call, struct favo_boot_entry *e)
{
	const char *slash = node->addresses[0] ? strchr(node->addresses[0], '/') : NULL;
	uint64_t prefix = 0;

	copy_address(e->gateway, node->gateway ? node->gateway : query(call, "gw"));
	copy_address(e->netmask, query(call, "mask"));
	if (slash && favo_parse_u64(&prefix, slash + 1, 1, 32, NULL) == 0) {
		struct in_addr mask = {htonl(UINT32_MAX << (32 - prefix))};

		inet_ntop(AF_INET, &mask, e->netmask, sizeof(e->netmask));
	}
	if (!e->netmask[0])
		snprintf(e->netmask, sizeof(e->netmask), "%s", b->net.netmask);
}

/* What the node is to boot: what is wanted, or the last good after failures. */
static int choose_image(struct favo_boot *b, const struct favo_node *node,
			struct favo_boot_entry *e, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_digest good;
	unsigned int n;
	int ret = favo_nodes_wanted(b->d->nodes, node, &e->image, err);

	if (ret < 0)
		return ret;
	snprintf(e->image_name, sizeof(e->image_name), "%s", node->image);
	n = favo_boot_tokens_attempt(b->tokens, node->name, &e->image);
	if (n <= b->d->conf.boot_tries || !node->good ||
	    favo_digest_parse(&good, node->good, NULL) < 0 ||
	    favo_digest_equal(&good, &e->image) ||
	    favo_store_manifest(b->d->store, &good, &m, NULL) < 0)
		return 0;
	favo_log(FAVO_WARN,
		 "node %s: image %s did not start %u times; it gets the last good one, "
		 "%.19s",
		 node->name, node->image, n - 1, node->good);
	e->image = good;
	snprintf(e->image_name, sizeof(e->image_name), "%s", m->name);
	return 0;
}

/* Kernel arguments: the image's, the node's, its console. */
static char *format_args(struct favo_boot *b, const struct favo_node *node,
			 const struct favo_boot_entry *e)
{
	favo_automanifest struct favo_manifest *m = NULL;
	const char *image = "";

	if (favo_store_manifest(b->d->store, &e->image, &m, NULL) == 0)
		image = m->cmdline;
	return favo_asprintf("%s %s %s%s panic=30", image,
			     node->kernel_args ? node->kernel_args : "",
			     node->console ? "console=tty0 console=" : "",
			     node->console ? node->console : "");
}

static void report(struct favo_boot *b, const struct favo_boot_entry *e)
{
	char id[FAVO_DIGEST_TEXT_SIZE];
	struct favo_node_report r = {.phase = "firmware",
				     .boot_id = e->boot_id,
				     .message = favo_digest_format(&e->image, id)};
	struct favo_err err = {0};

	if (favo_nodes_report(b->d->nodes, e->node, &r, time(NULL), &err) < 0)
		favo_log(FAVO_WARN, "node %s: %s", e->node, err.msg);
}

static int begin(struct favo_boot *b, struct favo_call *call,
		 const struct favo_node *node, const struct favo_boot_peer *peer,
		 const char *mac, struct favo_err *err)
{
	struct favo_boot_entry e = {0};
	favo_autofree char *args = NULL;
	int ret = check_address(node, peer, &e, err);

	if (ret == 0)
		ret = choose_image(b, node, &e, err);
	if (ret < 0)
		return ret;
	snprintf(e.node, sizeof(e.node), "%s", node->name);
	snprintf(e.mac, sizeof(e.mac), "%s", mac);
	fill_network(b, node, call, &e);
	ret = favo_boot_tokens_add(b->tokens, &e, err);
	args = format_args(b, node, &e);
	if (ret < 0 || !args)
		return ret < 0 ? ret : favo_fail(err, ENOMEM, "out of memory");
	report(b, &e);
	favo_log(FAVO_INFO, "node %s (%s) boots image %s", e.node, e.address,
		 e.image_name);
	favo_boot_text(call, MHD_HTTP_OK, favo_boot_script_node(b->url, &e, args));
	return 0;
}

void favo_boot_begin(struct favo_boot *b, struct favo_call *call,
		     const struct favo_boot_peer *peer)
{
	favo_autonode struct favo_node *node = NULL;
	struct favo_err err = {0};
	char mac[18];
	int ret;

	if (!parse_mac(mac, query(call, "mac"))) {
		favo_call_error(call, MHD_HTTP_BAD_REQUEST, NULL, NULL,
				"mac is no MAC address");
		return;
	}
	ret = favo_nodes_by_mac(b->d->nodes, mac, &node, &err);
	if (ret == -ENOENT) {
		unknown(b, call, mac, peer);
		return;
	}
	if (ret == 0)
		ret = begin(b, call, node, peer, mac, &err);
	if (ret < 0) {
		favo_log(FAVO_WARN, "machine %s cannot boot: %s", mac, err.msg);
		tell(b, call, mac, err.msg);
	}
}
