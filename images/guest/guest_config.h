/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * /favo/config.json: what the node agent tells a guest about itself, its
 * cluster and its user. docs/format-agent.md, "config.json". Thread-safe.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "images/guest/agent.h"

#define FAVO_GUEST_MEMBERS_MAX 65536
#define FAVO_GUEST_GROUPS_MAX 65536
#define FAVO_GUEST_SEED_SIZE 64
#define FAVO_GUEST_MOUNTS_MAX 64

struct favo_guest_member {
	char name[64];
	char node[256]; /* host name of the node that runs it */
	struct in_addr address;
	uint8_t mac[6];
};

struct favo_guest_group {
	char name[64];
	gid_t gid;
};

/* A directory of the node, by virtio-fs. */
struct favo_guest_mount {
	char tag[36]; /* virtio 1.2, 5.11.4 */
	char path[1024];
	bool ro;
	bool required; /* a guest without it does not start */
};

struct favo_guest_config {
	char hostname[64];
	uint64_t job;
	uint32_t index;
	uint8_t secret[FAVO_AGENT_SECRET_SIZE];
	int64_t time_ns; /* clock of the host when the guest was started */
	char network[64]; /* "none": no interface is touched */
	struct in_addr address;
	unsigned prefix_len, mtu;
	uint8_t mac[6];
	struct favo_guest_member *members;
	size_t n_members;
	char user[64], home[256], shell[256];
	uid_t uid;
	gid_t gid;
	struct favo_guest_group *groups;
	size_t n_groups;
	char root_device[256], root_fstype[32];
	bool warm; /* only secret, time_ns and root are set: the rest comes later */
	bool restored; /* came to a warm guest; not in the file */
	bool has_seed;
	uint8_t seed[FAVO_GUEST_SEED_SIZE]; /* fresh randomness of the host */
	struct favo_guest_mount *mounts;
	size_t n_mounts;
};

/* Strict: unknown keys, wrong types and out-of-range values are -EINVAL. */
int favo_guest_config_parse(struct favo_guest_config *out, const char *text, size_t len,
			    struct favo_err *err) favo_must_check;
void favo_guest_config_fini(struct favo_guest_config *config);
