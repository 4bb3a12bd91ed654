/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One image on its way between nodes: connections to neighbours, each of
 * which gives and takes. The scheduling is images/swarm.h, the bytes are
 * images/peer_wire.h. A session belongs to the thread that runs it; only
 * favo_peer_connect() and favo_peer_accept() may be called from others.
 *
 *	favo_peer_new(&p, &params, err);
 *	favo_peer_connect(p, &neighbour);   for each that the tracker names
 *	while (favo_peer_missing(p))
 *		favo_peer_run(p, 200, err);
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "images/index.h"
#include "images/manifest.h"
#include "images/peer_wire.h"
#include "images/units.h"

struct favo_peer;

/* Where the bytes come from and go to. All may block on the disk. */
struct favo_peer_ops {
	/* The index, or NULL until put_index() succeeded. */
	const struct favo_index *(*index)(void *user);
	int (*put_index)(void *user, const void *stored, size_t len,
			 struct favo_err *err);
	bool (*has)(void *user, const struct favo_item *item);
	/* -EBADMSG: wrong bytes, the neighbour that sent them is dropped. */
	int (*put)(void *user, const struct favo_item *item, const void *stored,
		   size_t len, struct favo_err *err);
	/* Stored form of a blob that is here; the caller frees *stored. */
	int (*read)(void *user, const struct favo_item *item, void **stored, size_t *len,
		    struct favo_err *err);
	int (*read_index)(void *user, void **stored, size_t *len, struct favo_err *err);
};

struct favo_peer_params {
	const struct favo_manifest *manifest; /* borrowed until the end */
	const char *name; /* of this node; copied */
	bool source; /* has all: hand out each unit once (favod) */
	bool lie; /* for tests: send wrong bytes */
	unsigned char token[FAVO_WIRE_TOKEN];
	uint64_t send_rate, receive_rate; /* bytes per second; 0: no limit */
	const struct favo_peer_ops *ops;
	void *user;
};

struct favo_neighbour {
	char name[FAVO_WIRE_NAME_MAX + 1];
	char address[INET6_ADDRSTRLEN];
	uint16_t port;
	bool source;
};

int favo_peer_new(struct favo_peer **out, const struct favo_peer_params *params,
		  struct favo_err *err);
void favo_peer_free(struct favo_peer *p);
const struct favo_digest *favo_peer_image(const struct favo_peer *p);

/* Any thread. A neighbour that is connected already is left as it is. */
void favo_peer_connect(struct favo_peer *p, const struct favo_neighbour *n);
/* Any thread. A connection whose greeting was read; takes fd in any case. */
void favo_peer_accept(struct favo_peer *p, int fd, const struct favo_wire_hello *hello);

/* Rather these chunks of the index, in this order, before all others. */
int favo_peer_prefer(struct favo_peer *p, const uint32_t *chunks, uint32_t n,
		     struct favo_err *err);

/* Work for at most timeout_ms. Fails only when this side cannot go on. */
int favo_peer_run(struct favo_peer *p, int timeout_ms, struct favo_err *err);

/* Units that are not here; UINT32_MAX while the index is not known. */
uint32_t favo_peer_missing(const struct favo_peer *p);
/* No neighbour lacks anything that is here. */
bool favo_peer_idle(const struct favo_peer *p);

struct favo_peer_stats {
	unsigned int neighbours; /* connected now, without the source */
	unsigned int sources;
	unsigned int dropped; /* for wrong bytes or silence */
	uint64_t from_peers, from_source; /* stored bytes of units */
	uint64_t sent;
	uint32_t duplicates;
	int64_t progress_us; /* when a unit last came; monotonic */
};
void favo_peer_stats(const struct favo_peer *p, struct favo_peer_stats *out);

static inline void favo_cleanup_peer(struct favo_peer **p)
{
	favo_peer_free(*p);
}
#define favo_autopeer __attribute__((cleanup(favo_cleanup_peer)))
