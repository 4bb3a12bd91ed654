// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The plan of a virtual cluster; see cluster.h.
 *
 * VM i is "vm<i>", its address is the subnet's base + 1 + i, its MAC is
 * 02:fa (locally administered) + 16 bits of the job id + 16 bits of i, the
 * cluster's VXLAN network is 0x100000 | low 20 bits of the job id: below
 * 0x100000 is left to the site's own networks.
 */
#include "provision/cluster.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define VNI_BASE 0x100000u
#define VNI_MASK 0xfffffu
/* The index has 16 bits in the MAC and at most four digits in a tap's name. */
#define MEMBERS_MAX 10000u

static int parse_subnet(const char *subnet, uint32_t *base, unsigned int *prefix_len,
			struct favo_err *err)
{
	char text[INET_ADDRSTRLEN];
	const char *slash = strchr(subnet, '/');
	struct in_addr addr;
	unsigned long len;
	char *end = NULL;

	if (!slash || (size_t)(slash - subnet) >= sizeof(text) ||
	    !isdigit((unsigned char)slash[1]))
		return favo_fail(err, EINVAL, "subnet %s: not ADDRESS/LENGTH", subnet);
	memcpy(text, subnet, (size_t)(slash - subnet));
	text[slash - subnet] = '\0';
	len = strtoul(slash + 1, &end, 10);
	if (*end || len < 8 || len > 30 || inet_pton(AF_INET, text, &addr) != 1)
		return favo_fail(err, EINVAL,
				 "subnet %s: not an IPv4 network of /8 to /30", subnet);
	*base = ntohl(addr.s_addr);
	*prefix_len = (unsigned int)len;
	if (*base & ((1u << (32 - len)) - 1))
		return favo_fail(err, EINVAL, "subnet %s: host bits are set", subnet);
	return 0;
}

static bool is_node_name(const char *name)
{
	size_t len = strlen(name);

	if (!len || len >= sizeof(((struct favo_member *)0)->node))
		return false;
	for (; *name; name++)
		if (!isalnum((unsigned char)*name) && !strchr("-._", *name))
			return false;
	return true;
}

static void fill_member(struct favo_member *m, uint32_t job, uint32_t base,
			unsigned int i)
{
	struct in_addr addr = {.s_addr = htonl(base + 1 + i)};

	snprintf(m->name, sizeof(m->name), "vm%u", i);
	inet_ntop(AF_INET, &addr, m->address, sizeof(m->address));
	m->mac[0] = 0x02;
	m->mac[1] = 0xfa;
	m->mac[2] = (uint8_t)(job >> 8);
	m->mac[3] = (uint8_t)job;
	m->mac[4] = (uint8_t)(i >> 8);
	m->mac[5] = (uint8_t)i;
}

int favo_cluster_plan(struct favo_cluster **out, uint32_t job, const char *const *nodes,
		      unsigned int count, const char *subnet, struct favo_err *err)
{
	struct favo_cluster *c;
	unsigned int prefix_len;
	uint32_t base;
	int ret;

	ret = parse_subnet(subnet, &base, &prefix_len, err);
	if (ret < 0)
		return ret;
	/* The first address is the network, the last one the broadcast. */
	if (!count || count > MEMBERS_MAX || count > (1u << (32 - prefix_len)) - 2)
		return favo_fail(err, ERANGE, "subnet %s: no room for %u VMs", subnet,
				 count);
	c = calloc(1, sizeof(*c) + count * sizeof(c->members[0]));
	if (!c)
		return favo_fail(err, ENOMEM, "allocate cluster plan");
	c->job = job;
	c->vni = VNI_BASE | (job & VNI_MASK);
	c->prefix_len = prefix_len;
	for (unsigned int i = 0; i < count; i++) {
		if (!is_node_name(nodes[i]) || favo_cluster_find(c, nodes[i]) >= 0) {
			free(c);
			return favo_fail(err, EINVAL,
					 "node list: bad or repeated name '%s'",
					 nodes[i]);
		}
		fill_member(&c->members[i], job, base, i);
		snprintf(c->members[i].node, sizeof(c->members[i].node), "%s", nodes[i]);
		c->count = i + 1;
	}
	*out = c;
	return 0;
}

int favo_cluster_find(const struct favo_cluster *cluster, const char *node)
{
	for (unsigned int i = 0; i < cluster->count; i++)
		if (!strcmp(cluster->members[i].node, node))
			return (int)i;
	return -1;
}

void favo_mac_format(char *buf, const uint8_t mac[6])
{
	snprintf(buf, 18, "%02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1], mac[2], mac[3],
		 mac[4], mac[5]);
}

/* The job id in at most eight characters. */
static void format_job(char buf[12], uint32_t job)
{
	static const char digits[] = "0123456789abcdefghijklmnopqrstuvwxyz";
	char *p = buf + 11;

	if (job <= 99999999) {
		snprintf(buf, 12, "%u", job);
		return;
	}
	*p = '\0';
	for (; job; job /= 36)
		*--p = digits[job % 36];
	*--p = 'z';
	memmove(buf, p, strlen(p) + 1);
}

void favo_bridge_name(char buf[FAVO_IFNAME_SIZE], uint32_t job)
{
	char id[12];

	format_job(id, job);
	snprintf(buf, FAVO_IFNAME_SIZE, "fb%s", id);
}

void favo_vxlan_name(char buf[FAVO_IFNAME_SIZE], uint32_t job)
{
	char id[12];

	format_job(id, job);
	snprintf(buf, FAVO_IFNAME_SIZE, "fx%s", id);
}

void favo_tap_name(char buf[FAVO_IFNAME_SIZE], uint32_t job, unsigned int index)
{
	char id[12];

	format_job(id, job);
	snprintf(buf, FAVO_IFNAME_SIZE, "ft%.8s.%u", id, index % MEMBERS_MAX);
}
