/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vhost-user front end. Requests are sent in order on a stream socket; those
 * that have an answer, and with REPLY_ACK all others too, are waited for with a
 * time limit. An answer of the wrong kind or size ends the connection.
 */
#include "hypervisor/virtio/vhost_user.h"

#include <errno.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/virtio/virtio.h"

#define PATIENCE_MS 2000
#define VERSION 1U
#define FLAG_REPLY 4U
#define FLAG_NEED_REPLY 8U
#define F_PROTOCOL 30
#define P_REPLY_ACK 3
#define NO_FD 0x100U /* in the u64 of a vring's descriptor message */

enum request {
	GET_FEATURES = 1,
	SET_FEATURES = 2,
	SET_OWNER = 3,
	SET_MEM_TABLE = 5,
	SET_VRING_NUM = 8,
	SET_VRING_ADDR = 9,
	SET_VRING_BASE = 10,
	GET_VRING_BASE = 11,
	SET_VRING_KICK = 12,
	SET_VRING_CALL = 13,
	GET_PROTOCOL_FEATURES = 15,
	SET_PROTOCOL_FEATURES = 16,
	SET_VRING_ENABLE = 18,
};

struct region {
	uint64_t gpa, size, user_addr, mmap_offset;
};

struct message {
	uint32_t request, flags, size;
	union {
		uint64_t u64;
		struct {
			uint32_t index, num;
		} state;
		struct {
			uint32_t index, flags;
			uint64_t desc, used, avail, log;
		} addr;
		struct {
			uint32_t n, padding;
			struct region regions[FAVO_MEM_REGIONS_MAX];
		} memory;
	};
} __attribute__((packed));

#define HEADER 12
_Static_assert(offsetof(struct message, u64) == HEADER, "header of a message");

static int broken(struct favo_vhost_user *vu, struct favo_err *err, const char *what)
{
	vu->gone = true;
	shutdown(vu->fd, SHUT_RDWR);
	return favo_fail(err, EPROTO, "vhost-user: %s", what);
}

/* Read the answer to msg over it; it must have size bytes of payload. */
static int receive(struct favo_vhost_user *vu, struct message *msg, uint32_t size,
		   struct favo_err *err)
{
	struct message answer;
	int ret = favo_read_all(vu->fd, &answer, HEADER, PATIENCE_MS, err);

	if (ret < 0) {
		broken(vu, NULL, "");
		return favo_wrap(err, ret, "vhost-user: answer");
	}
	if (answer.request != msg->request || answer.size != size ||
	    (answer.flags & 7) != (VERSION | FLAG_REPLY))
		return broken(vu, err, "answer to another request");
	ret = favo_read_all(vu->fd, &answer.u64, size, PATIENCE_MS, err);
	if (ret < 0) {
		broken(vu, NULL, "");
		return favo_wrap(err, ret, "vhost-user: answer");
	}
	*msg = answer;
	return 0;
}

static int send_only(struct favo_vhost_user *vu, struct message *msg, const int *fds,
		     unsigned nfds, struct favo_err *err)
{
	int ret;

	if (vu->gone)
		return favo_fail(err, EPIPE, "vhost-user: the back end is gone");
	ret = favo_send_fds(vu->fd, msg, HEADER + msg->size, fds, nfds, err);
	if (ret < 0)
		vu->gone = true;
	return ret < 0 ? favo_wrap(err, ret, "vhost-user: request %u", msg->request) : 0;
}

/* A request with a payload of size bytes and without an answer of its own. */
static int tell(struct favo_vhost_user *vu, struct message *msg, uint32_t size,
		const int *fds, unsigned nfds, struct favo_err *err)
{
	bool ack = vu->protocol & FAVO_VIRTIO_BIT(P_REPLY_ACK);
	int ret;

	msg->flags = VERSION | (ack ? FLAG_NEED_REPLY : 0);
	msg->size = size;
	ret = send_only(vu, msg, fds, nfds, err);
	if (ret < 0 || !ack)
		return ret;
	ret = receive(vu, msg, 8, err);
	if (ret == 0 && msg->u64 != 0)
		return favo_fail(err, EREMOTEIO, "vhost-user: request %u was refused",
				 msg->request);
	return ret;
}

static int tell_u64(struct favo_vhost_user *vu, enum request request, uint64_t value,
		    struct favo_err *err)
{
	struct message msg = {.request = request, .u64 = value};

	return tell(vu, &msg, 8, NULL, 0, err);
}

static int ask_u64(struct favo_vhost_user *vu, enum request request, uint64_t *value,
		   struct favo_err *err)
{
	struct message msg = {.request = request, .flags = VERSION};
	int ret = send_only(vu, &msg, NULL, 0, err);

	if (ret == 0)
		ret = receive(vu, &msg, 8, err);
	if (ret == 0)
		*value = msg.u64;
	return ret;
}

static int agree(struct favo_vhost_user *vu, struct favo_err *err)
{
	struct message owner = {.request = SET_OWNER};
	uint64_t protocol = 0;
	int ret = ask_u64(vu, GET_FEATURES, &vu->features, err);

	if (ret == 0 && !(vu->features & FAVO_VIRTIO_BIT(VIRTIO_F_VERSION_1)))
		return favo_fail(err, EPROTO,
				 "vhost-user: the back end knows no virtio 1");
	if (ret == 0 && vu->features & FAVO_VIRTIO_BIT(F_PROTOCOL)) {
		ret = ask_u64(vu, GET_PROTOCOL_FEATURES, &protocol, err);
		protocol &= FAVO_VIRTIO_BIT(P_REPLY_ACK);
		if (ret == 0)
			ret = tell_u64(vu, SET_PROTOCOL_FEATURES, protocol, err);
		vu->protocol = protocol;
	}
	return ret ? ret : tell(vu, &owner, 0, NULL, 0, err);
}

/* The back end only ever answers: anything to read now is its end, or a fault. */
static void on_end(struct favo_watch *watch, uint32_t events)
{
	struct favo_vhost_user *vu =
		favo_container_of(watch, struct favo_vhost_user, watch);
	char byte;

	(void)events;
	favo_virtio_lock(vu->dev);
	if (vu->gone || recv(vu->fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) >= 0 ||
	    (errno != EAGAIN && errno != EINTR)) {
		vu->gone = true;
		favo_watch_del(&vu->watch);
		if (vu->started)
			favo_virtio_fail(vu->dev, "the vhost-user back end is gone");
	}
	favo_virtio_unlock(vu->dev);
}

int favo_vhost_user_init(struct favo_vhost_user *vu, struct favo_virtio *dev, int fd,
			 unsigned nqueues, struct favo_loop *loop, struct favo_err *err)
{
	int ret;

	vu->fd = fd;
	vu->dev = dev;
	vu->nqueues = nqueues;
	vu->no_call_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (vu->no_call_fd < 0)
		return favo_fail(err, errno, "eventfd: %m");
	ret = agree(vu, err);
	if (ret < 0)
		return ret;
	return favo_watch_add(loop, &vu->watch, fd, EPOLLIN | EPOLLRDHUP, on_end, err);
}

void favo_vhost_user_fini(struct favo_vhost_user *vu)
{
	if (vu->dev) {
		favo_watch_del(&vu->watch);
		favo_close(&vu->no_call_fd);
	}
	favo_close(&vu->fd);
	vu->dev = NULL;
}

static int set_memory(struct favo_vhost_user *vu, struct favo_err *err)
{
	const struct favo_memory *mem = vu->dev->mem;
	struct message msg = {.request = SET_MEM_TABLE};
	int fds[FAVO_MEM_REGIONS_MAX];

	msg.memory.n = mem->nregions;
	for (unsigned i = 0; i < mem->nregions; i++) {
		msg.memory.regions[i] = (struct region){
			.gpa = mem->regions[i].gpa,
			.size = mem->regions[i].size,
			.user_addr = (uint64_t)(uintptr_t)mem->regions[i].hva,
			.mmap_offset = mem->regions[i].fd_offset,
		};
		fds[i] = mem->regions[i].fd;
	}
	return tell(vu, &msg, (uint32_t)(8 + mem->nregions * sizeof(struct region)), fds,
		    mem->nregions, err);
}

static int set_state(struct favo_vhost_user *vu, enum request request, unsigned q,
		     uint32_t num, struct favo_err *err)
{
	struct message msg = {.request = request, .state = {.index = q, .num = num}};

	return tell(vu, &msg, 8, NULL, 0, err);
}

static int set_file(struct favo_vhost_user *vu, enum request request, unsigned q, int fd,
		    struct favo_err *err)
{
	struct message msg = {.request = request, .u64 = q | (fd < 0 ? NO_FD : 0)};

	return tell(vu, &msg, 8, &fd, fd < 0 ? 0 : 1, err);
}

static int call_fd(struct favo_vhost_user *vu, unsigned q)
{
	uint16_t vector = vu->dev->queues[q].vector;
	int fd = vector == 0xffff ? -1 : favo_pci_notify_fd(&vu->dev->pci, vector, NULL);

	return fd < 0 ? vu->no_call_fd : fd;
}

static int start_queue(struct favo_vhost_user *vu, unsigned q, struct favo_err *err)
{
	struct favo_virtio_queue *queue = &vu->dev->queues[q];
	struct message addr = {
		.request = SET_VRING_ADDR,
		.addr =
			{
				.index = q,
				.desc = (uint64_t)(uintptr_t)queue->vq.desc,
				.used = (uint64_t)(uintptr_t)queue->vq.used,
				.avail = (uint64_t)(uintptr_t)queue->vq.avail,
				.log = queue->vq.used_gpa,
			},
	};
	int ret = set_state(vu, SET_VRING_NUM, q, queue->vq.size, err);

	if (ret == 0)
		ret = set_state(vu, SET_VRING_BASE, q, queue->vq.last_avail, err);
	if (ret == 0)
		ret = tell(vu, &addr, sizeof(addr.addr), NULL, 0, err);
	if (ret == 0)
		ret = set_file(vu, SET_VRING_CALL, q, call_fd(vu, q), err);
	if (ret == 0)
		ret = set_file(vu, SET_VRING_KICK, q, queue->kick_fd, err);
	/* With the protocol bit a queue starts disabled. */
	if (ret == 0 && vu->features & FAVO_VIRTIO_BIT(F_PROTOCOL))
		ret = set_state(vu, SET_VRING_ENABLE, q, 1, err);
	return ret;
}

int favo_vhost_user_start(struct favo_vhost_user *vu, uint64_t features,
			  struct favo_err *err)
{
	int ret;

	features =
		(features & vu->features) | (vu->features & FAVO_VIRTIO_BIT(F_PROTOCOL));
	ret = tell_u64(vu, SET_FEATURES, features, err);
	if (ret == 0)
		ret = set_memory(vu, err);
	vu->started = true;
	for (unsigned q = 0; ret == 0 && q < vu->nqueues; q++)
		if (vu->dev->queues[q].vq.started)
			ret = start_queue(vu, q, err);
	if (ret < 0)
		favo_vhost_user_stop(vu);
	return ret;
}

void favo_vhost_user_stop(struct favo_vhost_user *vu)
{
	if (!vu->started)
		return;
	vu->started = false;
	for (unsigned q = 0; q < vu->nqueues; q++) {
		struct message msg = {
			.request = GET_VRING_BASE,
			.flags = VERSION,
			.size = 8,
			.state = {.index = q},
		};
		struct favo_vq *vq = &vu->dev->queues[q].vq;

		/* Its answer says that the queue stands still. */
		if (!vq->started || send_only(vu, &msg, NULL, 0, NULL) < 0 ||
		    receive(vu, &msg, 8, NULL) < 0)
			continue;
		vq->last_avail = (uint16_t)msg.state.num;
		vq->used_idx = (uint16_t)msg.state.num;
	}
}
