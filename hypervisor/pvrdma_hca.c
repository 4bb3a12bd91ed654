/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The connection to favo-hca; see pvrdma_hca.h and hca_proto.h. */
#include "hypervisor/pvrdma_hca.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/memory.h"

/* The connection ends; what favo-hca knows of this VM is freed by it. */
static void give_up(struct favo_hca_link *link, bool hung)
{
	favo_close(&link->fd);
	link->failures++;
	link->hung |= hung;
}

/* Wait for the reply to request seq; EIO when the connection had to end. */
static uint32_t wait_reply(struct favo_hca_link *link, uint32_t type,
			   struct favo_hca_reply *reply)
{
	int64_t end_ms = favo_now_ms() + FAVO_HCA_TIMEOUT_MS;
	struct pollfd p = {.fd = link->fd, .events = POLLIN};
	ssize_t n;

	for (;;) {
		int64_t left_ms = end_ms - favo_now_ms();
		int ready = poll(&p, 1, left_ms > 0 ? (int)left_ms : 0);

		if (ready < 0 && errno == EINTR)
			continue;
		if (ready <= 0) {
			give_up(link, true);
			return EIO;
		}
		break;
	}
	n = recv(link->fd, reply, sizeof(*reply), MSG_DONTWAIT | MSG_TRUNC);
	if (n == (ssize_t)sizeof(*reply) && reply->type == type &&
	    reply->seq == link->seq)
		return reply->status;
	/* At the end of file it is dead; on nonsense it may be alive. */
	give_up(link, n > 0);
	return EIO;
}

uint32_t favo_hca_link_ask(struct favo_hca_link *link, enum favo_hca_type type,
			   uint64_t arg, uint32_t *flags)
{
	struct favo_hca_request request = {.type = type, .seq = ++link->seq, .arg = arg};
	struct favo_hca_reply reply = {0};
	uint32_t status;

	if (flags)
		*flags = 0;
	if (link->fd < 0)
		return EIO;
	link->requests++;
	if (send(link->fd, &request, sizeof(request), MSG_NOSIGNAL | MSG_DONTWAIT) !=
	    (ssize_t)sizeof(request)) {
		give_up(link, errno == EAGAIN);
		return EIO;
	}
	status = wait_reply(link, type, &reply);
	if (flags)
		*flags = reply.flags;
	return status;
}

void favo_hca_link_ring(struct favo_hca_link *link, uint32_t offset, uint32_t value)
{
	if (favo_hca_bell_push(link->shared, offset, value))
		eventfd_write(link->kick_fd, 1);
}

int favo_hca_link_event(struct favo_hca_link *link, struct favo_hca_uar_mode *mode)
{
	ssize_t n = recv(link->event_fd, mode, sizeof(*mode), MSG_DONTWAIT | MSG_TRUNC);

	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	return n == (ssize_t)sizeof(*mode) ? 1 : -EPIPE;
}

void favo_hca_link_answer(struct favo_hca_link *link,
			  const struct favo_hca_uar_mode *mode)
{
	/* An answer that is lost was of use to nobody: favo-hca is gone. */
	(void)!send(link->event_fd, mode, sizeof(*mode), MSG_NOSIGNAL | MSG_DONTWAIT);
}

/* ---- introduction -------------------------------------------------------- */

static int make_shared(struct favo_hca_link *link, int *out, struct favo_err *err)
{
	favo_autoclose int fd = memfd_create("favo-hca", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	void *at;

	if (fd < 0 || ftruncate(fd, sizeof(*link->shared)) < 0 ||
	    fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) < 0)
		return favo_fail(err, errno, "shared area: %m");
	at = mmap(NULL, sizeof(*link->shared), PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (at == MAP_FAILED)
		return favo_fail(err, errno, "map shared area: %m");
	link->shared = at;
	atomic_store(&link->shared->imr, UINT32_MAX);
	*out = favo_steal_fd(&fd);
	return 0;
}

static int say_hello(struct favo_hca_link *link, const struct favo_memory *mem,
		     const uint8_t mac[6], int *fds, struct favo_err *err)
{
	struct favo_hca_hello hello = {
		.version = FAVO_HCA_VERSION,
		.type = FAVO_HCA_HELLO,
		.seq = ++link->seq,
		.nslots = mem->nregions,
	};
	struct favo_hca_reply reply = {0};
	uint32_t status;

	_Static_assert(FAVO_HCA_SLOTS_MAX >= FAVO_MEM_REGIONS_MAX, "room for all RAM");
	memcpy(hello.mac, mac, sizeof(hello.mac));
	for (unsigned i = 0; i < mem->nregions; i++)
		hello.slots[i] = (struct favo_hca_slot){
			.gpa = mem->regions[i].gpa,
			.size = mem->regions[i].size,
			.fd_offset = mem->regions[i].fd_offset,
		};
	fds[FAVO_HCA_FD_RAM] = mem->fd;
	if (favo_send_fds(link->fd, &hello, sizeof(hello), fds, FAVO_HCA_FD_RAM + 1,
			  err) < 0)
		return favo_wrap(err, -EIO, "favo-hca");
	status = wait_reply(link, FAVO_HCA_HELLO, &reply);
	if (link->fd < 0)
		return favo_fail(err, EIO,
				 link->hung ? "favo-hca does not answer"
					    : "favo-hca ended the connection");
	return status ? favo_fail(err, (int)status, "favo-hca refuses: %m") : 0;
}

int favo_hca_link_open(struct favo_hca_link *link, int fd, const struct favo_memory *mem,
		       const uint8_t mac[6], const int vectors[FAVO_HCA_VECTORS],
		       struct favo_err *err)
{
	favo_autoclose int shared_fd = -1, far_fd = -1;
	int fds[FAVO_HCA_FD_RAM + 1], pair[2], ret;

	*link = (struct favo_hca_link){.fd = fd, .event_fd = -1, .kick_fd = -1};
	if (mem->fd < 0)
		ret = favo_fail(err, EINVAL, "guest memory is not shared");
	else
		ret = make_shared(link, &shared_fd, err);
	if (ret == 0 && ((link->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK)) < 0 ||
			 socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0))
		ret = favo_fail(err, errno, "eventfd, socket pair: %m");
	if (ret == 0) {
		link->event_fd = pair[0];
		far_fd = pair[1];
		fds[FAVO_HCA_FD_SHARED] = shared_fd;
		memcpy(fds + FAVO_HCA_FD_VECTORS, vectors,
		       FAVO_HCA_VECTORS * sizeof(*vectors));
		fds[FAVO_HCA_FD_KICK] = link->kick_fd;
		fds[FAVO_HCA_FD_EVENTS] = far_fd;
		ret = say_hello(link, mem, mac, fds, err);
	}
	if (ret < 0)
		favo_hca_link_close(link);
	return ret;
}

void favo_hca_link_close(struct favo_hca_link *link)
{
	favo_close(&link->fd);
	favo_close(&link->event_fd);
	favo_close(&link->kick_fd);
	if (link->shared)
		munmap(link->shared, sizeof(*link->shared));
	link->shared = NULL;
}
