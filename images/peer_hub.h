/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The door of a node for its neighbours: listens, reads greetings, and hands
 * each connection to the session of its image. Runs a thread of its own.
 */
#pragma once

#include "images/peer.h"

struct favo_hub;

/*
 * A greeting came: pass fd on (favo_peer_accept()) or close it; takes fd in
 * any case. The token is not checked yet. Must not block for long.
 */
typedef void favo_hub_fn(void *user, int fd, const struct favo_wire_hello *hello);

/* Listen on port of all addresses; 0 lets the kernel choose. */
int favo_hub_start(struct favo_hub **out, uint16_t port, favo_hub_fn *fn, void *user,
		   struct favo_err *err);
uint16_t favo_hub_port(const struct favo_hub *hub);
/* Ends the thread; NULL is allowed. */
void favo_hub_stop(struct favo_hub *hub);
