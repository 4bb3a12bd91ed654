// SPDX-License-Identifier: GPL-2.0-or-later
/* The kernel's NBD client; see nbd.h. */
#include "provision/lazy/nbd.h"

#include <endian.h>
#include <errno.h>
#include <linux/genetlink.h>
#include <linux/nbd-netlink.h>
#include <linux/nbd.h>
#include <netlink/attr.h>
#include <netlink/msg.h>
#include <netlink/netlink.h>
#include <netlink/socket.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/util.h"

#define BLOCK_SIZE 4096
#define REPLY_MS 30000

static void cleanup_socket(struct nl_sock **sock)
{
	nl_socket_free(*sock);
}
#define autosocket __attribute__((cleanup(cleanup_socket)))

static void cleanup_message(struct nl_msg **msg)
{
	nlmsg_free(*msg);
}
#define automessage __attribute__((cleanup(cleanup_message)))

static struct nl_msg *new_message(int family, uint8_t command)
{
	struct nl_msg *msg = nlmsg_alloc_simple(family, NLM_F_REQUEST);
	struct genlmsghdr *head = msg ? nlmsg_reserve(msg, GENL_HDRLEN, 0) : NULL;

	if (!head) {
		nlmsg_free(msg);
		return NULL;
	}
	memset(head, 0, GENL_HDRLEN);
	head->cmd = command;
	head->version = 1;
	return msg;
}

struct answer {
	int attribute; /* wanted */
	size_t size;
	void *value;
	bool found;
};

static int take_answer(struct nl_msg *msg, void *arg)
{
	struct nlmsghdr *head = nlmsg_hdr(msg);
	struct answer *answer = arg;
	struct nlattr *attr;

	attr = nlmsg_find_attr(head, GENL_HDRLEN, answer->attribute);
	if (attr && (size_t)nla_len(attr) >= answer->size) {
		memcpy(answer->value, nla_data(attr), answer->size);
		answer->found = true;
	}
	return NL_OK;
}

static int take_ack(struct nl_msg *msg, void *arg)
{
	(void)msg;
	*(bool *)arg = true;
	return NL_STOP;
}

/* Ask and wait for the acknowledgement, which comes behind the answer. */
static int talk(struct nl_sock *sock, struct nl_msg *msg, struct answer *answer)
{
	bool acked = false;
	int ret;

	if (answer)
		nl_socket_modify_cb(sock, NL_CB_VALID, NL_CB_CUSTOM, take_answer, answer);
	nl_socket_modify_cb(sock, NL_CB_ACK, NL_CB_CUSTOM, take_ack, &acked);
	ret = nl_send_auto(sock, msg);
	/* One call takes one datagram: the answer, or the acknowledgement. */
	while (ret >= 0 && !acked)
		ret = nl_recvmsgs_default(sock);
	return ret < 0 ? ret : 0;
}

static int find_family(struct nl_sock *sock, struct favo_err *err)
{
	automessage struct nl_msg *msg = new_message(GENL_ID_CTRL, CTRL_CMD_GETFAMILY);
	uint16_t family = 0;
	struct answer answer = {CTRL_ATTR_FAMILY_ID, sizeof(family), &family, false};
	int ret;

	if (!msg || nla_put_string(msg, CTRL_ATTR_FAMILY_NAME, NBD_GENL_FAMILY_NAME) < 0)
		return favo_fail(err, ENOMEM, "NBD: out of memory");
	ret = talk(sock, msg, &answer);
	if (ret < 0 || !answer.found)
		return favo_fail(err, ENODEV,
				 "the kernel has no NBD client: modprobe nbd");
	return family;
}

static int put_device(struct nl_msg *msg, uint64_t size, unsigned int timeout_s, int fd)
{
	uint64_t server = NBD_FLAG_HAS_FLAGS | NBD_FLAG_READ_ONLY;
	struct nlattr *sockets, *item;

	NLA_PUT_U64(msg, NBD_ATTR_SIZE_BYTES, size);
	NLA_PUT_U64(msg, NBD_ATTR_BLOCK_SIZE_BYTES, size % BLOCK_SIZE ? 512 : BLOCK_SIZE);
	NLA_PUT_U64(msg, NBD_ATTR_SERVER_FLAGS, server);
	NLA_PUT_U64(msg, NBD_ATTR_CLIENT_FLAGS, NBD_CFLAG_DISCONNECT_ON_CLOSE);
	NLA_PUT_U64(msg, NBD_ATTR_TIMEOUT, timeout_s);
	sockets = nla_nest_start(msg, NBD_ATTR_SOCKETS);
	item = sockets ? nla_nest_start(msg, NBD_SOCK_ITEM) : NULL;
	if (!item)
		goto nla_put_failure;
	NLA_PUT_U32(msg, NBD_SOCK_FD, (uint32_t)fd);
	nla_nest_end(msg, item);
	nla_nest_end(msg, sockets);
	return 0;
nla_put_failure:
	return -ENOMEM;
}

int favo_nbd_connect(uint64_t size, unsigned int timeout_s, int *fd, struct favo_err *err)
{
	autosocket struct nl_sock *sock = nl_socket_alloc();
	automessage struct nl_msg *msg = NULL;
	favo_autoclose int ours = -1, kernels = -1;
	uint32_t device = 0;
	struct answer answer = {NBD_ATTR_INDEX, sizeof(device), &device, false};
	int pair[2], family, ret;

	if (!sock || nl_connect(sock, NETLINK_GENERIC) < 0)
		return favo_fail(err, EIO, "NBD: no generic netlink");
	family = find_family(sock, err);
	if (family < 0)
		return family;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return favo_fail(err, errno, "NBD: socket pair: %m");
	ours = pair[0];
	kernels = pair[1];
	msg = new_message(family, NBD_CMD_CONNECT);
	if (!msg || put_device(msg, size, timeout_s, kernels) < 0)
		return favo_fail(err, ENOMEM, "NBD: out of memory");
	ret = talk(sock, msg, &answer);
	if (ret < 0 || !answer.found)
		return favo_fail(err, EIO, "NBD: the kernel makes no device: %s",
				 ret < 0 ? nl_geterror(ret) : "no number");
	*fd = favo_steal_fd(&ours);
	return (int)device;
}

void favo_nbd_disconnect(unsigned int device)
{
	autosocket struct nl_sock *sock = nl_socket_alloc();
	automessage struct nl_msg *msg = NULL;
	int family;

	if (!sock || nl_connect(sock, NETLINK_GENERIC) < 0)
		return;
	family = find_family(sock, NULL);
	if (family < 0)
		return;
	msg = new_message(family, NBD_CMD_DISCONNECT);
	if (msg && nla_put_u32(msg, NBD_ATTR_INDEX, device) == 0)
		(void)talk(sock, msg, NULL);
}

int favo_nbd_parse(struct favo_nbd_request *out,
		   const unsigned char bytes[FAVO_NBD_REQUEST_SIZE], struct favo_err *err)
{
	uint32_t magic, type, length;
	uint64_t cookie, offset;

	memcpy(&magic, bytes, 4);
	memcpy(&type, bytes + 4, 4);
	memcpy(&cookie, bytes + 8, 8);
	memcpy(&offset, bytes + 16, 8);
	memcpy(&length, bytes + 24, 4);
	if (be32toh(magic) != NBD_REQUEST_MAGIC)
		return favo_fail(err, EBADMSG, "NBD: the kernel sent no request");
	out->type = (uint16_t)be32toh(type); /* the upper half are flags */
	out->cookie = cookie;
	out->offset = be64toh(offset);
	out->length = be32toh(length);
	return 0;
}

int favo_nbd_reply(int fd, uint64_t cookie, int error, const void *data, size_t len,
		   struct favo_err *err)
{
	unsigned char head[16];
	uint32_t magic = htobe32(NBD_REPLY_MAGIC), code = htobe32((uint32_t)error);
	int ret;

	memcpy(head, &magic, 4);
	memcpy(head + 4, &code, 4);
	memcpy(head + 8, &cookie, 8);
	ret = favo_write_all(fd, head, sizeof(head), REPLY_MS, err);
	if (ret >= 0 && !error && len)
		ret = favo_write_all(fd, data, len, REPLY_MS, err);
	return ret;
}
