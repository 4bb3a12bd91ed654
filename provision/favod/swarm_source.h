/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * favod as the source of swarms: a session of images/peer.h for each image
 * that nodes fetch now, over the store, in a thread of its own.
 */
#pragma once

#include "images/peer.h"
#include "images/store.h"

struct favo_swarm_sources;

/*
 * Listen on port. The secret, of any length, is what tokens are made of;
 * copied. store is borrowed.
 */
int favo_sources_start(struct favo_swarm_sources **out, struct favo_store *store,
		       uint16_t port, const void *secret, size_t len,
		       struct favo_err *err);
uint16_t favo_sources_port(const struct favo_swarm_sources *sources);
/* What nodes show to each other for this image. Any thread. */
int favo_sources_token(const struct favo_swarm_sources *sources,
		       const struct favo_digest *image,
		       unsigned char token[FAVO_WIRE_TOKEN], struct favo_err *err);
/* Have a session for the image: -ENOENT, -EBUSY (too many images at a time). */
int favo_sources_want(struct favo_swarm_sources *sources, const struct favo_digest *image,
		      struct favo_err *err);
/* Ends all sessions; NULL is allowed. */
void favo_sources_stop(struct favo_swarm_sources *sources);
