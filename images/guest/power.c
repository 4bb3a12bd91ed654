// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * End of a guest; see init.h. The power button comes as an "acpi_event" on
 * generic netlink (linux/drivers/acpi/event.c), which needs the button driver
 * but no input layer.
 */
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "images/guest/init.h"

/* linux/drivers/acpi/event.c has these without a uapi header. */
#define ACPI_FAMILY "acpi_event"
#define ACPI_ATTR_EVENT 1

_Noreturn void favo_power_down(bool reset)
{
	sync();
	reboot(reset ? RB_AUTOBOOT : RB_POWER_OFF);
	/* Without ACPI there is no power to switch off: stop as well as we can. */
	reboot(RB_HALT_SYSTEM);
	for (;;)
		pause();
}

static struct nlattr *find_attr(void *p, size_t len, int type)
{
	struct nlattr *a = p;

	while (len >= NLA_HDRLEN && a->nla_len >= NLA_HDRLEN && a->nla_len <= len) {
		size_t step = NLA_ALIGN(a->nla_len);

		if ((a->nla_type & NLA_TYPE_MASK) == type)
			return a;
		if (step >= len)
			break;
		len -= step;
		a = (struct nlattr *)(void *)((char *)a + step);
	}
	return NULL;
}

static void *attr_data(struct nlattr *a)
{
	return (char *)a + NLA_HDRLEN;
}

/* Id of the only multicast group of the family, 0 when there is none. */
static uint32_t parse_family(char *buf, size_t n)
{
	struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;
	struct nlattr *groups, *id;

	if (!NLMSG_OK(h, n) || h->nlmsg_type != GENL_ID_CTRL)
		return 0;
	groups = find_attr((char *)NLMSG_DATA(h) + GENL_HDRLEN,
			   h->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN),
			   CTRL_ATTR_MCAST_GROUPS);
	if (!groups)
		return 0;
	groups = attr_data(groups); /* the first group in the nest */
	id = find_attr(attr_data(groups), groups->nla_len - NLA_HDRLEN,
		       CTRL_ATTR_MCAST_GRP_ID);
	return id ? *(uint32_t *)attr_data(id) : 0;
}

static uint32_t ask_group(int fd)
{
	struct {
		struct nlmsghdr h;
		struct genlmsghdr g;
		struct nlattr a;
		char name[16];
	} req = {
		.h = {.nlmsg_len = sizeof(req),
		      .nlmsg_type = GENL_ID_CTRL,
		      .nlmsg_flags = NLM_F_REQUEST},
		.g = {.cmd = CTRL_CMD_GETFAMILY, .version = 1},
		.a = {.nla_len = NLA_HDRLEN + sizeof(ACPI_FAMILY),
		      .nla_type = CTRL_ATTR_FAMILY_NAME},
		.name = ACPI_FAMILY,
	};
	_Alignas(struct nlmsghdr) char buf[4096];
	ssize_t n;

	req.h.nlmsg_len =
		(uint32_t)(NLMSG_LENGTH(GENL_HDRLEN) + NLA_ALIGN(req.a.nla_len));
	if (send(fd, &req, req.h.nlmsg_len, 0) < 0)
		return 0;
	n = recv(fd, buf, sizeof(buf), 0);
	return n > 0 ? parse_family(buf, (size_t)n) : 0;
}

int favo_power_button_fd(void)
{
	struct sockaddr_nl addr = {.nl_family = AF_NETLINK};
	favo_autoclose int fd =
		socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_GENERIC);
	uint32_t group;

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return -1;
	group = ask_group(fd);
	if (!group || setsockopt(fd, SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, &group,
				 sizeof(group)) < 0)
		return -1;
	return favo_steal_fd(&fd);
}

bool favo_power_button_pressed(int fd)
{
	_Alignas(struct nlmsghdr) char buf[4096];
	bool pressed = false;
	ssize_t n;

	while ((n = recv(fd, buf, sizeof(buf), MSG_DONTWAIT)) > 0) {
		struct nlmsghdr *h = (struct nlmsghdr *)(void *)buf;
		struct nlattr *event;

		if (!NLMSG_OK(h, (size_t)n) || h->nlmsg_len < NLMSG_LENGTH(GENL_HDRLEN))
			continue;
		event = find_attr((char *)NLMSG_DATA(h) + GENL_HDRLEN,
				  h->nlmsg_len - NLMSG_LENGTH(GENL_HDRLEN),
				  ACPI_ATTR_EVENT);
		/* struct acpi_genl_event starts with the device class, 20 bytes. */
		if (event && event->nla_len >= NLA_HDRLEN + 20 &&
		    strncmp(attr_data(event), "button/power", 12) == 0)
			pressed = true;
	}
	return pressed;
}
