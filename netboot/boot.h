/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Boot service of favod: real machines get their image over the network.
 * dnsmasq answers DHCP and TFTP (dhcp.c), everything else comes by plain HTTP
 * from a port of its own (serve.c). docs/netboot.md has the whole picture.
 *
 * Trust: whatever stands before the initramfs cannot prove who it is. A boot
 * begins with a request from the address that the node database gives to a
 * MAC, and gets a token; everything after it needs the token, the same address
 * and, where it matters, a port that only root can have. Secrets are given
 * once per token.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "provision/favod/favod.h"
#include "provision/favod/nodes.h"

#define FAVO_BOOT_TOKEN 33 /* 32 hex digits and a NUL */
#define FAVO_BOOT_ADDRESS 16 /* "255.255.255.255" */

struct favo_boot;

/* Nothing is done, and *out is NULL, unless conf says netboot = yes. */
int favo_boot_start(struct favo_boot **out, struct favo_favod *d, struct favo_err *err);
void favo_boot_stop(struct favo_boot *boot);

/* ---- net.c: what favod's interface says ---- */

struct favo_boot_net {
	char interface[16];
	char address[FAVO_BOOT_ADDRESS]; /* of favod */
	char network[FAVO_BOOT_ADDRESS], netmask[FAVO_BOOT_ADDRESS];
	unsigned int prefix;
};
int favo_boot_net_find(struct favo_boot_net *out, const struct favo_conf *conf,
		       struct favo_err *err);

/* ---- dhcp.c: dnsmasq ---- */

struct favo_boot_dhcp;
int favo_boot_dhcp_start(struct favo_boot_dhcp **out, struct favo_favod *d,
			 const struct favo_boot_net *net, struct favo_err *err);
void favo_boot_dhcp_stop(struct favo_boot_dhcp *dhcp);
/* Text of dnsmasq's configuration; the caller frees it. */
char *favo_boot_dhcp_config(const struct favo_conf *conf, const struct favo_boot_net *net,
			    const char *dir);

/* ---- tokens.c: boots that are on their way ---- */

struct favo_boot_tokens;

/* What a token stands for. */
struct favo_boot_entry {
	char token[FAVO_BOOT_TOKEN];
	char boot_id[17]; /* no secret; names the boot in reports */
	char node[64];
	char address[FAVO_BOOT_ADDRESS];
	char mac[18];
	struct favo_digest image;
	char image_name[FAVO_IMAGE_NAME_MAX + 80];
	char gateway[FAVO_BOOT_ADDRESS];
	char netmask[FAVO_BOOT_ADDRESS];
	bool secrets_given;
	int64_t since_ms;
};

struct favo_boot_tokens *favo_boot_tokens_new(void);
void favo_boot_tokens_free(struct favo_boot_tokens *t);
/* Fill in token, boot_id and time of *entry, and keep a copy. */
int favo_boot_tokens_add(struct favo_boot_tokens *t, struct favo_boot_entry *entry,
			 struct favo_err *err);
/* -ENOENT: no such token now, or not for this address. */
int favo_boot_tokens_find(struct favo_boot_tokens *t, const char *token,
			  const char *address, struct favo_boot_entry *out,
			  struct favo_err *err);
/* True for the first call only. */
bool favo_boot_tokens_take_secrets(struct favo_boot_tokens *t, const char *token);
/*
 * How often in a row the node was handed this image without starting it;
 * counts this time, too. favo_boot_tokens_started() sets it back to 0.
 */
unsigned int favo_boot_tokens_attempt(struct favo_boot_tokens *t, const char *node,
				      const struct favo_digest *image);
void favo_boot_tokens_started(struct favo_boot_tokens *t, const char *node);

/* ---- script.c: texts for firmware and initramfs; the caller frees ---- */

char *favo_boot_script_start(const char *url);
char *favo_boot_script_unknown(const char *url, const char *mac, const char *why);
char *favo_boot_script_node(const char *url, const struct favo_boot_entry *entry,
			    const char *args);
/* /favo/netboot.json of this boot. */
char *favo_boot_node_config(const char *url, const struct favo_conf *conf,
			    const struct favo_boot_entry *entry);

/* ---- parts.c: what nodes load, as files that many share ---- */

struct favo_boot_parts;
struct favo_boot_parts *favo_boot_parts_new(struct favo_store *store,
					    const struct favo_conf *conf);
void favo_boot_parts_free(struct favo_boot_parts *p);
enum favo_boot_part { FAVO_BOOT_KERNEL, FAVO_BOOT_INITRAMFS };
/*
 * A descriptor of the part, which the caller owns, and its size. -ENOTSUP: the
 * image was not made for real machines.
 */
int favo_boot_parts_open(struct favo_boot_parts *p, const struct favo_digest *image,
			 enum favo_boot_part part, int *fd, uint64_t *size,
			 struct favo_err *err);
/* The node's own part of the initramfs: configuration and keys. */
int favo_boot_parts_node(const struct favo_conf *conf, const char *config, void **data,
			 size_t *len, struct favo_err *err);

/* ---- files.c: files and secrets that favod keeps for nodes ---- */

/* {"files":[{"path","mode","owner","group","data"}]} for a node; kind: "files", "secrets". */
int favo_boot_files(const struct favo_conf *conf, const char *kind,
		    const struct favo_node *node, json_t **out, struct favo_err *err);
/* Replace {{name}}, {{address}}, {{tag.KEY}}; the caller frees *out. */
int favo_boot_template(const char *text, const struct favo_node *node, char **out,
		       struct favo_err *err);
