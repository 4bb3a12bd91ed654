/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What peer.c and peer_conn.c share; not for others. */
#pragma once

#include <pthread.h>

#include "images/peer.h"
#include "images/swarm.h"

#define FAVO_CONN_ASKS_MAX 64 /* requests of a neighbour that wait */
#define FAVO_CONN_SMALL 4096

/* A UNIT frame, whole, to be sent to several. */
struct favo_frame {
	unsigned int refs;
	size_t len;
	unsigned char *data;
};

struct favo_ask {
	uint32_t unit; /* or FAVO_SWARM_ANY, FAVO_WIRE_INDEX */
	bool urgent;
};

struct favo_conn {
	struct favo_peer *p;
	unsigned int slot; /* in p->conns, and its number for the scheduling */
	int fd;
	bool connecting, greeted, joined, source, watching_out, map_sent;
	bool doomed; /* to be closed at the next occasion */
	char name[FAVO_WIRE_NAME_MAX + 1];
	char address[INET6_ADDRSTRLEN];
	int64_t since_us, progress_us; /* last byte accepted for sending */
	/* coming in */
	unsigned char small[FAVO_CONN_SMALL];
	size_t small_at, small_len;
	unsigned char *frame; /* a frame too long for small */
	size_t frame_at, frame_room, frame_len;
	/* going out: small frames, then the unit that was begun */
	unsigned char *out;
	size_t out_at, out_len, out_room;
	struct favo_frame *unit;
	size_t unit_at;
	struct favo_ask asks[FAVO_CONN_ASKS_MAX];
	unsigned int n_asks;
	/* what it has */
	unsigned char *map;
	size_t map_len;
	uint32_t n_has;
	uint64_t received;
};

/* Give a unit frame back. */
void favo_frame_unref(struct favo_frame *frame);

/* Queue a small frame; false when it has to be dropped (memory, or far too many). */
bool favo_conn_send(struct favo_conn *c, enum favo_wire_type type, const void *payload,
		    size_t len);
/* Write what can be written: 0, or -errno when the connection is over. */
int favo_conn_flush(struct favo_conn *c, struct favo_err *err);

/* What peer.c does with a whole frame; the frame may be stolen with *frame = NULL. */
typedef int favo_conn_frame_fn(struct favo_conn *c, const struct favo_wire_head *head,
			       const unsigned char *payload, unsigned char **frame,
			       struct favo_err *err);
/* Read what there is and hand on each frame: 0, or -errno when it is over. */
int favo_conn_read(struct favo_conn *c, uint32_t map_max, uint64_t unit_max,
		   favo_conn_frame_fn *on_frame, struct favo_err *err);

void favo_conn_free(struct favo_conn *c);
/* Options of a socket of ours: small delay, few unsent bytes, an end to silence. */
void favo_conn_setup(int fd);

int64_t favo_now_us(void);

#define FAVO_PEER_BANNED_MAX 16

/* What another thread wants of the session. */
struct favo_peer_order {
	struct favo_peer_order *next;
	int fd; /* -1: connect to the neighbour */
	struct favo_wire_hello hello;
	struct favo_neighbour neighbour;
};

struct favo_peer {
	struct favo_peer_params params;
	char name[FAVO_WIRE_NAME_MAX + 1];
	char label[16]; /* of the image, for the log */
	int epoll_fd, event_fd;
	pthread_mutex_t lock; /* around orders */
	struct favo_peer_order *orders;
	struct favo_conn *conns[FAVO_SWARM_PEERS_MAX];
	struct favo_units *units; /* NULL until the index is here */
	struct favo_swarm *swarm; /* receivers */
	struct favo_swarm_source *source;
	bool shown; /* source: all units are out */
	struct favo_frame **frames; /* per unit: as it came, or NULL */
	uint32_t *kept; /* ring of the units that have a frame */
	uint32_t kept_at, n_kept;
	uint64_t kept_bytes;
	struct favo_rate send_rate, receive_rate;
	int64_t wake_us; /* a rate limit lets go then */
	int64_t worked_us; /* last turn of the loop */
	unsigned int turn;
	int index_asked; /* slot, or -1 */
	int64_t index_asked_us;
	char banned[FAVO_PEER_BANNED_MAX][FAVO_WIRE_NAME_MAX + 1];
	unsigned int n_banned;
	struct favo_peer_stats stats;
	int failure; /* of this side */
	struct favo_err failure_err;
};

/* ---- peer_serve.c ---- */

/* Keep a unit's frame for the neighbours; takes it. */
void favo_peer_keep(struct favo_peer *p, uint32_t unit, unsigned char *data, size_t len);
void favo_peer_forget(struct favo_peer *p);
/* A neighbour asks; it is served when its turn comes. */
int favo_peer_asked(struct favo_conn *c, uint32_t unit, bool urgent,
		    struct favo_err *err);
void favo_peer_cancelled(struct favo_conn *c, uint32_t unit);
/* Begin to send what may be sent. */
void favo_peer_serve(struct favo_peer *p, int64_t now_us);
/* Tell a neighbour all that is here. */
void favo_peer_send_map(struct favo_conn *c);
