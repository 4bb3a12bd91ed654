/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * favo-vmm's end of the connection to favo-hca (hca_proto.h): one request at a
 * time, each with a bounded wait. The caller serializes all calls.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/hca_proto.h"

struct favo_memory;

struct favo_hca_link {
	int fd; /* requests; -1 once the connection has ended */
	int event_fd; /* our end of the event socket */
	int kick_fd; /* wakes favo-hca up */
	struct favo_hca_shared *shared; /* the shared area; NULL: not open */
	uint32_t seq;
	uint64_t requests, failures;
	bool hung; /* ended because of silence: it may still be at work */
};

/*
 * Take over fd, make the shared area and introduce this VM: its memory, which
 * must be shared, the address of its card and the eventfds of its vectors
 * (borrowed). On failure the link is as closed.
 */
int favo_hca_link_open(struct favo_hca_link *link, int fd, const struct favo_memory *mem,
		       const uint8_t mac[6], const int vectors[FAVO_HCA_VECTORS],
		       struct favo_err *err);
void favo_hca_link_close(struct favo_hca_link *link);

/*
 * One request, waited for FAVO_HCA_TIMEOUT_MS at most. Returns the status of
 * the reply (0 or a positive errno value), or EIO for good when the connection
 * has ended or ends now. flags may be NULL.
 */
uint32_t favo_hca_link_ask(struct favo_hca_link *link, enum favo_hca_type type,
			   uint64_t arg, uint32_t *flags);

/* A trapped doorbell: note it, wake favo-hca up when it sleeps. */
void favo_hca_link_ring(struct favo_hca_link *link, uint32_t offset, uint32_t value);

/* Next request on the event socket: 1, 0 when there is none, -errno at the end. */
int favo_hca_link_event(struct favo_hca_link *link, struct favo_hca_uar_mode *mode);
void favo_hca_link_answer(struct favo_hca_link *link,
			  const struct favo_hca_uar_mode *mode);
