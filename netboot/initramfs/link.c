// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The node's interface: found by the MAC that the firmware booted from, given
 * the address that the firmware got. So there is one lease, and no DHCP here.
 */
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define INTERFACE_MS 20000
#define CARRIER_MS 60000 /* spanning tree of switches takes 30 s */

static int find_interface(char out[IFNAMSIZ], int sock, const uint8_t mac[6])
{
	DIR *dir = opendir("/sys/class/net");
	struct dirent *d;
	int ret = -ENODEV;

	while (dir && ret < 0 && (d = readdir(dir))) {
		struct ifreq ifr = {0};

		if (d->d_name[0] == '.' || strlen(d->d_name) >= IFNAMSIZ)
			continue;
		snprintf(ifr.ifr_name, IFNAMSIZ, "%.15s", d->d_name);
		if (ioctl(sock, SIOCGIFHWADDR, &ifr) == 0 &&
		    ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER &&
		    memcmp(ifr.ifr_hwaddr.sa_data, mac, 6) == 0) {
			memcpy(out, ifr.ifr_name, IFNAMSIZ);
			ret = 0;
		}
	}
	if (dir)
		closedir(dir);
	return ret;
}

static int wait_for_interface(char out[IFNAMSIZ], int sock, const uint8_t mac[6],
			      struct favo_err *err)
{
	int64_t end_ms = favo_now_ms() + INTERFACE_MS;

	while (find_interface(out, sock, mac) < 0) {
		if (favo_now_ms() > end_ms)
			return favo_fail(err, ENODEV,
					 "no network card has address "
					 "%02x:%02x:%02x:%02x:%02x:%02x; the kernel may "
					 "lack its driver",
					 mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		usleep(10000);
	}
	return 0;
}

static int set_up(int sock, const char *name, struct favo_err *err)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, IFNAMSIZ, "%.15s", name);
	if (ioctl(sock, SIOCGIFFLAGS, &ifr) < 0)
		return favo_fail(err, errno, "interface %s: %m", name);
	ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP);
	if (ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
		return favo_fail(err, errno, "interface %s up: %m", name);
	return 0;
}

static int set_address(int sock, const char *name, unsigned long what,
		       struct in_addr addr, struct favo_err *err)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = addr};
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, IFNAMSIZ, "%.15s", name);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(sock, what, &ifr) < 0)
		return favo_fail(err, errno, "address of interface %s: %m", name);
	return 0;
}

static int set_gateway(int sock, struct in_addr gateway, struct favo_err *err)
{
	struct sockaddr_in any = {.sin_family = AF_INET}, gw = any;
	struct rtentry route = {.rt_flags = RTF_UP | RTF_GATEWAY};

	gw.sin_addr = gateway;
	memcpy(&route.rt_dst, &any, sizeof(any));
	memcpy(&route.rt_genmask, &any, sizeof(any));
	memcpy(&route.rt_gateway, &gw, sizeof(gw));
	if (ioctl(sock, SIOCADDRT, &route) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "default route: %m");
	return 0;
}

static int wait_for_carrier(const char *name, struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("/sys/class/net/%s/carrier", name);
	int64_t end_ms = favo_now_ms() + CARRIER_MS;

	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	for (;;) {
		favo_autofree char *text = NULL;

		if (favo_file_read(path, 16, &text, NULL, NULL) == 0 && text[0] == '1')
			return 0;
		if (favo_now_ms() > end_ms)
			return favo_fail(err, ENETDOWN,
					 "interface %s has no link; look at its cable",
					 name);
		usleep(20000);
	}
}

int favo_net_link(const struct favo_net_config *c, struct favo_err *err)
{
	favo_autoclose int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct in_addr mask = {htonl(UINT32_MAX << (32 - c->prefix))};
	char name[IFNAMSIZ];
	int ret;

	if (sock < 0)
		return favo_fail(err, errno, "socket: %m");
	ret = set_up(sock, "lo", err);
	if (ret == 0)
		ret = wait_for_interface(name, sock, c->mac, err);
	if (ret == 0)
		ret = set_up(sock, name, err);
	if (ret == 0)
		ret = wait_for_carrier(name, err);
	if (ret == 0)
		ret = set_address(sock, name, SIOCSIFADDR, c->address, err);
	if (ret == 0)
		ret = set_address(sock, name, SIOCSIFNETMASK, mask, err);
	if (ret == 0 && c->gateway.s_addr)
		ret = set_gateway(sock, c->gateway, err);
	return ret;
}
