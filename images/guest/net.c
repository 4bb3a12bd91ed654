// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Network of a guest; see init.h. Addresses by ioctl (netdevice(7)), fixed
 * neighbours by SIOCSARP (arp(7)): members never ask who has an address, so
 * nothing is flooded between the nodes.
 */
#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/guest/init.h"

#define INTERFACE_WAIT_MS 5000

static int set_up(int sock, const char *name, struct favo_err *err)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	if (ioctl(sock, SIOCGIFFLAGS, &ifr) < 0)
		return favo_fail(err, errno, "interface %s: %m", name);
	ifr.ifr_flags = (short)(ifr.ifr_flags | IFF_UP);
	if (ioctl(sock, SIOCSIFFLAGS, &ifr) < 0)
		return favo_fail(err, errno, "interface %s up: %m", name);
	return 0;
}

static bool has_mac(int sock, const char *name, const uint8_t mac[6])
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	return ioctl(sock, SIOCGIFHWADDR, &ifr) == 0 &&
	       ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER &&
	       memcmp(ifr.ifr_hwaddr.sa_data, mac, 6) == 0;
}

static bool find_interface(char out[IFNAMSIZ], int sock, const uint8_t mac[6])
{
	DIR *dir = opendir("/sys/class/net");
	struct dirent *d;
	bool found = false;

	while (dir && !found && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || strlen(d->d_name) >= IFNAMSIZ)
			continue;
		found = has_mac(sock, d->d_name, mac);
		if (found)
			snprintf(out, IFNAMSIZ, "%.15s", d->d_name);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* The driver may still be busy with the device. */
static int wait_for_interface(char out[IFNAMSIZ], int sock, const uint8_t mac[6],
			      struct favo_err *err)
{
	int64_t end_ms = favo_now_ms() + INTERFACE_WAIT_MS;

	while (!find_interface(out, sock, mac)) {
		if (favo_now_ms() > end_ms)
			return favo_fail(
				err, ENODEV,
				"no interface has address %02x:%02x:%02x:%02x:%02x:%02x",
				mac[0], mac[1], mac[2], mac[3], mac[4], mac[5]);
		usleep(1000);
	}
	return 0;
}

static int set_address(int sock, const char *name, unsigned long what,
		       struct in_addr addr, struct favo_err *err)
{
	struct ifreq ifr = {0};
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = addr};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	memcpy(&ifr.ifr_addr, &sin, sizeof(sin));
	if (ioctl(sock, what, &ifr) < 0)
		return favo_fail(err, errno, "interface %s: address %s: %m", name,
				 inet_ntoa(addr));
	return 0;
}

static int set_mtu(int sock, const char *name, unsigned mtu, struct favo_err *err)
{
	struct ifreq ifr = {0};

	snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%s", name);
	ifr.ifr_mtu = (int)mtu;
	if (ioctl(sock, SIOCSIFMTU, &ifr) < 0)
		return favo_fail(err, errno, "interface %s: MTU %u: %m", name, mtu);
	return 0;
}

/*
 * A restored guest's interface has the address of the guest that was saved:
 * give the only one that there is the new one.
 */
static int adopt_interface(int sock, const uint8_t mac[6], struct favo_err *err)
{
	DIR *dir = opendir("/sys/class/net");
	struct ifreq ifr = {0};
	struct dirent *d;
	bool found = false;

	while (dir && !found && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || strlen(d->d_name) >= IFNAMSIZ)
			continue;
		snprintf(ifr.ifr_name, sizeof(ifr.ifr_name), "%.15s", d->d_name);
		found = ioctl(sock, SIOCGIFHWADDR, &ifr) == 0 &&
			ifr.ifr_hwaddr.sa_family == ARPHRD_ETHER;
	}
	if (dir)
		closedir(dir);
	if (!found)
		return favo_fail(err, ENODEV, "there is no network interface");
	memcpy(ifr.ifr_hwaddr.sa_data, mac, 6);
	if (ioctl(sock, SIOCSIFHWADDR, &ifr) < 0)
		return favo_fail(err, errno, "interface %s: new address: %m",
				 ifr.ifr_name);
	return 0;
}

static int set_neighbour(int sock, const char *name, const struct favo_guest_member *m,
			 struct favo_err *err)
{
	struct arpreq req = {.arp_flags = ATF_COM | ATF_PERM};
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_addr = m->address};

	memcpy(&req.arp_pa, &sin, sizeof(sin));
	req.arp_ha.sa_family = ARPHRD_ETHER;
	memcpy(req.arp_ha.sa_data, m->mac, 6);
	snprintf(req.arp_dev, sizeof(req.arp_dev), "%.15s", name);
	if (ioctl(sock, SIOCSARP, &req) < 0)
		return favo_fail(err, errno, "neighbour %s: %m", m->name);
	return 0;
}

int favo_net_setup(const struct favo_guest_config *config, struct favo_err *err)
{
	favo_autoclose int sock = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct in_addr mask = {htonl(UINT32_MAX << (32 - config->prefix_len))};
	char name[IFNAMSIZ];
	int ret;

	if (sock < 0)
		return favo_fail(err, errno, "socket: %m");
	ret = set_up(sock, "lo", err);
	if (ret < 0 || strcmp(config->network, "none") == 0)
		return ret;
	if (config->restored)
		ret = adopt_interface(sock, config->mac, err);
	if (ret == 0)
		ret = wait_for_interface(name, sock, config->mac, err);
	if (ret == 0)
		ret = set_mtu(sock, name, config->mtu, err);
	if (ret == 0)
		ret = set_address(sock, name, SIOCSIFADDR, config->address, err);
	if (ret == 0)
		ret = set_address(sock, name, SIOCSIFNETMASK, mask, err);
	if (ret == 0)
		ret = set_up(sock, name, err);
	for (size_t i = 0; ret == 0 && i < config->n_members; i++)
		if (i != config->index)
			ret = set_neighbour(sock, name, &config->members[i], err);
	return ret;
}
