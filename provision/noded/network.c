// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Private network of a virtual cluster; see network.h. rtnetlink(7) by libnl
 * core; bridge(8) and ip-link(8) call the same attributes by their names.
 * IPv4 between nodes only.
 */
#include "provision/noded/network.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_bridge.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <netdb.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/util.h"

static void cleanup_sock(struct nl_sock **sock)
{
	nl_socket_free(*sock);
}
static void cleanup_msg(struct nl_msg **msg)
{
	nlmsg_free(*msg);
}
#define autosock __attribute__((cleanup(cleanup_sock)))
#define automsg __attribute__((cleanup(cleanup_msg)))

struct build {
	const struct favo_network *net;
	struct nl_sock *host; /* in the node's namespace */
	int tap_fd;
	int ret;
	struct favo_err err;
};

int favo_network_resolve(struct in_addr **out, const struct favo_cluster *cluster,
			 const char *suffix, struct favo_err *err)
{
	const struct addrinfo hints = {.ai_family = AF_INET, .ai_socktype = SOCK_DGRAM};
	favo_autofree struct in_addr *list = calloc(cluster->count, sizeof(*list));

	if (!list)
		return favo_fail(err, ENOMEM, "allocate node addresses");
	for (unsigned int i = 0; i < cluster->count; i++) {
		struct addrinfo *found = NULL;
		char name[512];
		int ret;

		snprintf(name, sizeof(name), "%s%s", cluster->members[i].node, suffix);
		ret = getaddrinfo(name, NULL, &hints, &found);
		if (ret)
			return favo_fail(err, ENOENT, "address of node %s: %s", name,
					 gai_strerror(ret));
		list[i] = ((const struct sockaddr_in *)(const void *)found->ai_addr)
				  ->sin_addr;
		freeaddrinfo(found);
	}
	*out = favo_steal_ptr(&list);
	return 0;
}

static int open_socket(struct nl_sock **out, struct favo_err *err)
{
	autosock struct nl_sock *sock = nl_socket_alloc();
	int ret;

	if (!sock)
		return favo_fail(err, ENOMEM, "allocate netlink socket");
	ret = nl_connect(sock, NETLINK_ROUTE);
	if (ret < 0)
		return favo_fail(err, EIO, "netlink socket: %s", nl_geterror(ret));
	*out = favo_steal_ptr(&sock);
	return 0;
}

/* Send, wait for the acknowledgement, free. Returns libnl's code. */
static int send_msg(struct nl_sock *sock, struct nl_msg **msg)
{
	return nl_send_sync(sock, favo_steal_ptr(msg));
}

static struct nl_msg *link_msg(int type, int flags, int family, int index, bool up)
{
	struct ifinfomsg info = {.ifi_family = (unsigned char)family, .ifi_index = index};
	struct nl_msg *msg = nlmsg_alloc_simple(type, NLM_F_REQUEST | NLM_F_ACK | flags);

	if (up)
		info.ifi_flags = info.ifi_change = IFF_UP;
	if (msg && nlmsg_append(msg, &info, sizeof(info), NLMSG_ALIGNTO) < 0) {
		nlmsg_free(msg);
		return NULL;
	}
	return msg;
}

static int no_memory(struct favo_err *err)
{
	return favo_fail(err, ENOMEM, "build netlink message");
}

static int make_bridge(struct nl_sock *sock, const char *name, struct favo_err *err)
{
	automsg struct nl_msg *msg =
		link_msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, AF_UNSPEC, 0, true);
	struct nlattr *info, *data;
	int ret;

	if (!msg || nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    nla_put_u32(msg, IFLA_MTU, FAVO_NETWORK_MTU) < 0 ||
	    !(info = nla_nest_start(msg, IFLA_LINKINFO)) ||
	    nla_put_string(msg, IFLA_INFO_KIND, "bridge") < 0 ||
	    !(data = nla_nest_start(msg, IFLA_INFO_DATA)) ||
	    nla_put_u8(msg, IFLA_BR_MCAST_SNOOPING, 0) < 0)
		return no_memory(err);
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	ret = send_msg(sock, &msg);
	if (ret < 0)
		return favo_fail(err, ENODEV,
				 "make bridge %s: %s (is kernel module bridge there?)",
				 name, nl_geterror(ret));
	return 0;
}

/* Sent from the node's namespace, where its UDP socket is to be; the port goes to ns_fd. */
static int make_vxlan(struct build *b, const char *name, int ns_fd, struct favo_err *err)
{
	automsg struct nl_msg *msg =
		link_msg(RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, AF_UNSPEC, 0, false);
	struct nlattr *info, *data;
	uint16_t port = htons(b->net->vxlan_port);
	int ret;

	if (!msg || nla_put_string(msg, IFLA_IFNAME, name) < 0 ||
	    nla_put_u32(msg, IFLA_MTU, FAVO_NETWORK_MTU) < 0 ||
	    nla_put_u32(msg, IFLA_NET_NS_FD, (uint32_t)ns_fd) < 0 ||
	    !(info = nla_nest_start(msg, IFLA_LINKINFO)) ||
	    nla_put_string(msg, IFLA_INFO_KIND, "vxlan") < 0 ||
	    !(data = nla_nest_start(msg, IFLA_INFO_DATA)) ||
	    nla_put_u32(msg, IFLA_VXLAN_ID, b->net->cluster->vni) < 0 ||
	    nla_put_u8(msg, IFLA_VXLAN_LEARNING, 0) < 0 ||
	    nla_put(msg, IFLA_VXLAN_PORT, sizeof(port), &port) < 0)
		return no_memory(err);
	nla_nest_end(msg, data);
	nla_nest_end(msg, info);
	ret = send_msg(b->host, &msg);
	if (ret < 0)
		return favo_fail(err, ENODEV,
				 "make VXLAN port %s: %s (is kernel module vxlan there?)",
				 name, nl_geterror(ret));
	return 0;
}

static int make_tap(const char *name, int *out, struct favo_err *err)
{
	struct ifreq req = {.ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	favo_autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return favo_fail(err, errno,
				 "open /dev/net/tun: %m (is kernel module tun there?)");
	snprintf(req.ifr_name, sizeof(req.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &req) < 0)
		return favo_fail(err, errno, "make tap %s: %m", name);
	*out = favo_steal_fd(&fd);
	return 0;
}

/* Put a port into the bridge and bring it up. */
static int add_port(struct nl_sock *sock, int port, int bridge, struct favo_err *err)
{
	automsg struct nl_msg *msg = link_msg(RTM_NEWLINK, 0, AF_UNSPEC, port, true);
	int ret;

	if (!msg || nla_put_u32(msg, IFLA_MASTER, (uint32_t)bridge) < 0 ||
	    nla_put_u32(msg, IFLA_MTU, FAVO_NETWORK_MTU) < 0)
		return no_memory(err);
	ret = send_msg(sock, &msg);
	return ret < 0 ? favo_fail(err, EIO, "add bridge port: %s", nl_geterror(ret)) : 0;
}

static int port_flags(struct nl_sock *sock, int port, bool locked)
{
	automsg struct nl_msg *msg = link_msg(RTM_SETLINK, 0, PF_BRIDGE, port, false);
	struct nlattr *info;

	if (!msg || !(info = nla_nest_start(msg, IFLA_PROTINFO | NLA_F_NESTED)))
		return -NLE_NOMEM;
	if (locked && nla_put_u8(msg, IFLA_BRPORT_LOCKED, 1) < 0)
		return -NLE_NOMEM;
	if (!locked && (nla_put_u8(msg, IFLA_BRPORT_LEARNING, 0) < 0 ||
			nla_put_u8(msg, IFLA_BRPORT_UNICAST_FLOOD, 0) < 0 ||
			nla_put_u8(msg, IFLA_BRPORT_MCAST_FLOOD, 0) < 0))
		return -NLE_NOMEM;
	nla_nest_end(msg, info);
	return send_msg(sock, &msg);
}

static int configure_port(struct nl_sock *sock, int port, int bridge,
			  struct favo_err *err)
{
	int ret = add_port(sock, port, bridge, err);

	if (ret < 0)
		return ret;
	ret = port_flags(sock, port, false);
	if (ret < 0)
		return favo_fail(err, EIO, "set bridge port flags: %s", nl_geterror(ret));
	/* An older kernel does not know it: the guest can then forge MACs. */
	(void)port_flags(sock, port, true);
	return 0;
}

/*
 * One static forwarding entry. With dst it is the VXLAN port's (where a MAC
 * is reached), else the bridge's (behind which port it is).
 */
static int add_fdb(struct nl_sock *sock, int port, const uint8_t mac[6],
		   const struct in_addr *dst, struct favo_err *err)
{
	struct ndmsg nd = {.ndm_family = AF_BRIDGE, .ndm_ifindex = port};
	automsg struct nl_msg *msg = nlmsg_alloc_simple(
		RTM_NEWNEIGH, NLM_F_REQUEST | NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE);
	int ret;

	nd.ndm_flags = dst ? NTF_SELF : NTF_MASTER;
	nd.ndm_state = dst ? NUD_NOARP | NUD_PERMANENT : NUD_NOARP | NUD_REACHABLE;
	if (!msg || nlmsg_append(msg, &nd, sizeof(nd), NLMSG_ALIGNTO) < 0 ||
	    nla_put(msg, NDA_LLADDR, 6, mac) < 0 ||
	    (dst && nla_put(msg, NDA_DST, sizeof(*dst), dst) < 0))
		return no_memory(err);
	ret = send_msg(sock, &msg);
	return ret < 0 ? favo_fail(err, EIO, "add forwarding entry: %s", nl_geterror(ret))
		       : 0;
}

static int add_remotes(struct build *b, struct nl_sock *sock, int vxlan,
		       struct favo_err *err)
{
	const struct favo_cluster *c = b->net->cluster;
	int ret = 0;

	for (unsigned int i = 0; ret >= 0 && i < c->count; i++) {
		if (i == b->net->self)
			continue;
		ret = add_fdb(sock, vxlan, c->members[i].mac, &b->net->addresses[i], err);
		if (ret >= 0)
			ret = add_fdb(sock, vxlan, c->members[i].mac, NULL, err);
	}
	return ret;
}

static int connect_vxlan(struct build *b, struct nl_sock *sock, int bridge,
			 struct favo_err *err)
{
	favo_autoclose int ns_fd = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);
	char name[FAVO_IFNAME_SIZE];
	int ret, port;

	if (ns_fd < 0)
		return favo_fail(err, errno, "open own network namespace: %m");
	favo_vxlan_name(name, b->net->cluster->job);
	ret = make_vxlan(b, name, ns_fd, err);
	if (ret < 0)
		return ret;
	port = (int)if_nametoindex(name);
	ret = configure_port(sock, port, bridge, err);
	return ret < 0 ? ret : add_remotes(b, sock, port, err);
}

/* Best effort: the namespace's own stack has nothing to say to the guest. */
static void silence_ipv6(void)
{
	static const char *const files[] = {
		"/proc/sys/net/ipv6/conf/all/disable_ipv6",
		"/proc/sys/net/ipv6/conf/default/disable_ipv6"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(files); i++) {
		favo_autoclose int fd = open(files[i], O_WRONLY | O_CLOEXEC);

		if (fd >= 0 && write(fd, "1", 1) < 0)
			continue;
	}
}

static int build_inside(struct build *b, struct favo_err *err)
{
	const struct favo_cluster *c = b->net->cluster;
	autosock struct nl_sock *sock = NULL;
	favo_autoclose int tap_fd = -1;
	char name[FAVO_IFNAME_SIZE];
	int ret, bridge, tap;

	if (unshare(CLONE_NEWNET) < 0)
		return favo_fail(err, errno, "make network namespace: %m");
	silence_ipv6();
	ret = open_socket(&sock, err);
	if (ret < 0)
		return ret;
	favo_tap_name(name, c->job, b->net->self);
	ret = make_tap(name, &tap_fd, err);
	if (ret < 0)
		return ret;
	tap = (int)if_nametoindex(name);
	favo_bridge_name(name, c->job);
	ret = make_bridge(sock, name, err);
	if (ret < 0)
		return ret;
	bridge = (int)if_nametoindex(name);
	ret = configure_port(sock, tap, bridge, err);
	if (ret >= 0)
		ret = add_fdb(sock, tap, c->members[b->net->self].mac, NULL, err);
	if (ret >= 0 && c->count > 1)
		ret = connect_vxlan(b, sock, bridge, err);
	if (ret < 0)
		return ret;
	b->tap_fd = favo_steal_fd(&tap_fd);
	return 0;
}

/* A thread of its own, since it cannot give its namespace back half-way. */
static void *build_thread(void *arg)
{
	struct build *b = arg;

	b->ret = build_inside(b, &b->err);
	return NULL;
}

int favo_network_build(const struct favo_network *net, int *tap_fd, struct favo_err *err)
{
	struct build b = {.net = net, .tap_fd = -1};
	autosock struct nl_sock *host = NULL;
	pthread_t thread;
	int ret;

	ret = open_socket(&host, err);
	if (ret < 0)
		return ret;
	b.host = host;
	ret = pthread_create(&thread, NULL, build_thread, &b);
	if (ret)
		return favo_fail(err, ret, "start network thread: %m");
	pthread_join(thread, NULL);
	if (b.ret < 0) {
		if (err)
			*err = b.err;
		return favo_wrap(err, b.ret, "network of job %u", net->cluster->job);
	}
	*tap_fd = b.tap_fd;
	return 0;
}
