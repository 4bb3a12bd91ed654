/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The plan of a virtual cluster: names, addresses and network identity.
 *
 * Everything that all nodes of a job must agree on is a pure function of the
 * job id and the ordered node list, so that nodes need no talk with each
 * other: every node computes the same plan. Nothing here blocks or does I/O;
 * a plan is never changed once made, so threads may share it.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"

/* Interface names fit the kernel's IFNAMSIZ. */
#define FAVO_IFNAME_SIZE 16

/* One VM of the cluster. */
struct favo_member {
	char name[16]; /* "vm3" */
	char address[16]; /* dotted quad */
	uint8_t mac[6];
	char node[256];
};

struct favo_cluster {
	uint32_t job;
	uint32_t vni;
	unsigned int prefix_len;
	unsigned int count;
	struct favo_member members[];
};

/*
 * Plan the cluster of job on nodes (in the order of the job's node list), one
 * VM per node, with addresses from subnet ("10.128.0.0/16"). The caller frees
 * the result with free(). -EINVAL: bad subnet, bad or repeated node name;
 * -ERANGE: more VMs than the subnet has addresses; -ENOMEM.
 */
int favo_cluster_plan(struct favo_cluster **out, uint32_t job, const char *const *nodes,
		      unsigned int count, const char *subnet, struct favo_err *err);

/* Index of the VM that runs on node, or -1. */
int favo_cluster_find(const struct favo_cluster *cluster, const char *node);

/* "02:fa:00:0c:00:01"; buf holds at least 18 bytes. */
void favo_mac_format(char *buf, const uint8_t mac[6]);

/*
 * Interface names: bridge "fb<job>", VXLAN "fx<job>", tap "ft<job>.<index>".
 * Job ids of more than eight digits are written as z and base 36 to fit; no
 * decimal id starts with z, so that names never meet.
 */
void favo_bridge_name(char buf[FAVO_IFNAME_SIZE], uint32_t job);
void favo_vxlan_name(char buf[FAVO_IFNAME_SIZE], uint32_t job);
void favo_tap_name(char buf[FAVO_IFNAME_SIZE], uint32_t job, unsigned int index);
