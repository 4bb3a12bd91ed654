/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The node's part of a virtual cluster's private network: a bridge with the
 * VM's tap and, when the cluster has other nodes, a VXLAN port.
 *
 * All three live in a network namespace of their own, which is held by the
 * tap's descriptor alone; only the VXLAN socket is in the node's namespace.
 * So the node's network stack is out of the guest's reach, and the kernel
 * removes everything as soon as the VMM that holds the tap is gone, whether
 * favo-noded lives or not. Forwarding is static: no learning, no flooding,
 * and a guest can send from its own MAC only (locked port, Linux 5.18).
 */
#pragma once

#include <netinet/in.h>
#include <stdint.h>

#include "common/err.h"
#include "provision/cluster.h"

/* 1500 less VXLAN over IPv4 (50 bytes); the same in all guests of a cluster. */
#define FAVO_NETWORK_MTU 1450

struct favo_network {
	const struct favo_cluster *cluster;
	unsigned int self; /* index of this node's VM */
	const struct in_addr *addresses; /* of the nodes, in the cluster's order */
	uint16_t vxlan_port;
};

/*
 * Find the nodes' addresses; names get suffix appended. Blocks as
 * getaddrinfo() does. The caller frees *out. -ENOENT names the node.
 */
int favo_network_resolve(struct in_addr **out, const struct favo_cluster *cluster,
			 const char *suffix, struct favo_err *err);

/*
 * Build the network; *tap_fd gets the tap (IFF_VNET_HDR, close-on-exec,
 * non-blocking), whose close removes everything again. Needs root and blocks
 * for some milliseconds. -ENODEV: a kernel module is missing (named).
 */
int favo_network_build(const struct favo_network *net, int *tap_fd, struct favo_err *err);
