/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Parts of favo-netinit, the first process of a node; private. One thread. */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/json.h"
#include "images/cache.h"
#include "images/digest.h"
#include "netboot/http.h"

#define FAVO_NET_CONFIG "/favo/netboot.json"
#define FAVO_NET_KEYS "/favo/keys"
#define FAVO_NET_CACHE "/favo/cache"
#define FAVO_NET_ROOT "/favo/root"
/* What the booted system may know of its start; docs/netboot.md. */
#define FAVO_NET_STATE "/run/favo/booted.json"

/* What favod wrote into the initramfs of this boot. */
struct favo_net_config {
	struct sockaddr_in server;
	char url[64];
	char token[65]; /* of this boot */
	char boot_id[65]; /* names it; no secret */
	char node[64];
	char image_name[200];
	struct favo_digest image;
	uint8_t mac[6];
	struct in_addr address, gateway; /* gateway 0: none */
	unsigned int prefix;
	uint16_t peer_port; /* 0: does not exchange */
	bool trust_signed;
	int64_t fetch_ms; /* how long to try before an older image is taken */
	char cache_label[32]; /* file system for the cache; "": memory */
};

int favo_net_config_parse(struct favo_net_config *out, const char *text, size_t len,
			  struct favo_err *err);

/* root.c: proc, sys and dev of the initramfs. */
int favo_net_early(struct favo_err *err);

/* drivers.c: modules that every node needs. */
int favo_net_modules(struct favo_err *err);
/* Modules for the devices that this machine has. */
int favo_net_drivers(struct favo_err *err);

/* link.c: the interface with the MAC, its address and its route. */
int favo_net_link(const struct favo_net_config *c, struct favo_err *err);

/* client.c: requests to favod's boot service; path gets the token appended. */
int favo_net_ask(const struct favo_net_config *c, const char *method, const char *what,
		 const void *body, size_t len, size_t max, struct favo_web_reply *reply,
		 struct favo_err *err);
/* A JSON object; privileged: what only root of this node may have. */
int favo_net_ask_json(const struct favo_net_config *c, const char *what, bool privileged,
		      json_t **out, struct favo_err *err);
/* Tell favod how far this boot is. Trouble is only logged. */
void favo_net_report(const struct favo_net_config *c, const char *phase,
		     const char *detail);

/* fetch.c: the image into the cache, complete and verified. */
int favo_net_fetch(const struct favo_net_config *c, struct favo_cache *cache,
		   struct favo_err *err);
/* peers.c: as much of it as favod's source and other nodes give. */
int favo_net_fetch_peers(const struct favo_net_config *c, struct favo_fetch *fetch,
			 struct favo_err *err);

/* store.c: a place for the cache; *on_disk: it survives. */
int favo_net_cache_open(const struct favo_net_config *c, struct favo_cache **out,
			bool *on_disk, struct favo_err *err);

/* root.c: image and overlay at FAVO_NET_ROOT. */
int favo_net_root_mount(struct favo_cache *cache, const struct favo_digest *id,
			bool verify, struct favo_err *err);
/* Into it; the initramfs is gone afterwards. */
int favo_net_root_enter(struct favo_err *err);
/* The image's own init takes over; returns only on failure. */
int favo_net_root_start(struct favo_err *err);

/* identity.c: host name, machine id, files and secrets in the mounted root. */
int favo_net_identity(const struct favo_net_config *c, struct favo_err *err);
