/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Tap interface: Linux Documentation/networking/tuntap.rst and linux/if_tun.h.
 */
#include "hypervisor/virtio/tap.h"

#include <fcntl.h>
#include <net/if.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>

#include <linux/if_tun.h>
#include <linux/virtio_net.h>

#include "common/fd.h"
#include "common/util.h"

#define BIT(n) (1ULL << (n))

/* Absent or unreadable is no fault: the guest then has the usual 1500. */
static uint16_t get_mtu(const char *name)
{
	favo_autoclose int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	struct ifreq ifr = {0};

	memcpy(ifr.ifr_name, name, strnlen(name, IFNAMSIZ - 1));
	if (s < 0 || ioctl(s, SIOCGIFMTU, &ifr) < 0 || ifr.ifr_mtu < 68 ||
	    ifr.ifr_mtu > UINT16_MAX)
		return 0;
	return (uint16_t)ifr.ifr_mtu;
}

int favo_tap_init(struct favo_tap *tap, int fd, struct favo_err *err)
{
	struct ifreq ifr = {0};
	int header = sizeof(struct virtio_net_hdr_mrg_rxbuf);

	tap->fd = fd;
	if (favo_set_nonblock(fd, true) < 0)
		return favo_fail(err, errno, "tap: %m");
	tap->is_tap = ioctl(fd, TUNGETIFF, &ifr) == 0;
	if (!tap->is_tap) {
		int type;
		socklen_t len = sizeof(type);

		if (getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) < 0 ||
		    (type != SOCK_DGRAM && type != SOCK_SEQPACKET))
			return favo_fail(err, EINVAL,
					 "tap: the descriptor is no tap interface");
		return 0;
	}
	if ((ifr.ifr_flags & (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR)) !=
	    (IFF_TAP | IFF_NO_PI | IFF_VNET_HDR))
		return favo_fail(
			err, EINVAL,
			"tap: %s was not made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR",
			ifr.ifr_name);
	if (ioctl(fd, TUNSETVNETHDRSZ, &header) < 0)
		return favo_fail(err, errno, "tap: TUNSETVNETHDRSZ: %m");
	tap->mtu = get_mtu(ifr.ifr_name);
	return 0;
}

int favo_tap_open(struct favo_tap *tap, const char *name, struct favo_err *err)
{
	struct ifreq ifr = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	favo_autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return favo_fail(err, errno, "open /dev/net/tun: %m");
	if (strlen(name) >= IFNAMSIZ)
		return favo_fail(err, EINVAL, "tap: name \"%s\" is too long", name);
	memcpy(ifr.ifr_name, name, strlen(name));
	if (ioctl(fd, TUNSETIFF, &ifr) < 0)
		return favo_fail(err, errno, "tap %s: %m", name);
	return favo_tap_init(tap, favo_steal_fd(&fd), err);
}

void favo_tap_fini(struct favo_tap *tap)
{
	favo_close(&tap->fd);
}

uint64_t favo_tap_features(const struct favo_tap *tap)
{
	if (!tap->is_tap)
		return 0;
	return BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) |
	       BIT(VIRTIO_NET_F_HOST_TSO4) | BIT(VIRTIO_NET_F_HOST_TSO6) |
	       BIT(VIRTIO_NET_F_HOST_ECN) | BIT(VIRTIO_NET_F_GUEST_TSO4) |
	       BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN);
}

int favo_tap_set_features(struct favo_tap *tap, uint64_t features)
{
	static const struct {
		unsigned feature, offload;
	} rows[] = {
		{VIRTIO_NET_F_GUEST_CSUM, TUN_F_CSUM},
		{VIRTIO_NET_F_GUEST_TSO4, TUN_F_TSO4},
		{VIRTIO_NET_F_GUEST_TSO6, TUN_F_TSO6},
		{VIRTIO_NET_F_GUEST_ECN, TUN_F_TSO_ECN},
	};
	unsigned long offload = 0;

	if (!tap->is_tap)
		return 0;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		if (features & BIT(rows[i].feature))
			offload |= rows[i].offload;
	/* The kernel wants checksums wherever it wants segmentation. */
	if (!(offload & TUN_F_CSUM))
		offload = 0;
	return ioctl(tap->fd, TUNSETOFFLOAD, offload) < 0 ? -errno : 0;
}
