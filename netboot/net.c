// SPDX-License-Identifier: GPL-2.0-or-later
/* favod's address on the network that nodes boot from; see boot.h. */
#include <arpa/inet.h>
#include <errno.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>

#include "netboot/boot.h"

static bool is_wanted(const struct ifaddrs *i, const char *interface)
{
	if (!i->ifa_addr || !i->ifa_netmask || i->ifa_addr->sa_family != AF_INET)
		return false;
	return strcmp(i->ifa_name, interface) == 0;
}

int favo_boot_net_find(struct favo_boot_net *out, const struct favo_conf *conf,
		       struct favo_err *err)
{
	const char *interface = conf->boot_interface;
	struct in_addr address, mask, network;
	struct ifaddrs *list, *i;

	if (!*interface)
		return favo_fail(err, EINVAL,
				 "netboot = yes needs boot_interface, the interface that "
				 "nodes boot from");
	if (strlen(interface) >= sizeof(out->interface))
		return favo_fail(err, EINVAL, "boot_interface: \"%s\" is too long",
				 interface);
	if (getifaddrs(&list) < 0)
		return favo_fail(err, errno, "addresses of this host: %m");
	for (i = list; i && !is_wanted(i, interface);)
		i = i->ifa_next;
	if (!i) {
		freeifaddrs(list);
		return favo_fail(err, ENODEV,
				 "boot_interface %s is not there or has no IPv4 address",
				 interface);
	}
	address = ((const struct sockaddr_in *)(const void *)i->ifa_addr)->sin_addr;
	mask = ((const struct sockaddr_in *)(const void *)i->ifa_netmask)->sin_addr;
	freeifaddrs(list);
	network.s_addr = address.s_addr & mask.s_addr;
	snprintf(out->interface, sizeof(out->interface), "%s", interface);
	inet_ntop(AF_INET, &address, out->address, sizeof(out->address));
	inet_ntop(AF_INET, &mask, out->netmask, sizeof(out->netmask));
	inet_ntop(AF_INET, &network, out->network, sizeof(out->network));
	out->prefix = (unsigned int)__builtin_popcount(mask.s_addr);
	return 0;
}
