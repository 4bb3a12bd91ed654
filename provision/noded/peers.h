/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images from and for other nodes: the door for neighbours, and for each
 * image that is fetched a session of images/peer.h whose neighbours favod
 * names. Without favod's word, or without progress, the plain fetch goes on.
 */
#pragma once

#include <stdbool.h>

#include "images/cache.h"

struct noded;
struct peers_session;

/* Listen for neighbours, if peer_port says so. A failure is a warning only. */
void favo_peers_start(struct noded *nd);

/* Called now and then while units come; false: nobody wants them any more. */
typedef bool favo_peers_progress_fn(void *user);

/*
 * Fill as much of the image as neighbours and favod's source give. *session
 * is made at the first call, and kept for the next. Returns 0 when all is
 * here or nothing more comes; an error only when this node cannot go on.
 */
int favo_peers_fill(struct noded *nd, struct favo_fetch *fetch,
		    struct peers_session **session, favo_peers_progress_fn *progress,
		    void *user, struct favo_err *err);

/* The fetch is committed and will be freed: serve the neighbours without it. */
void favo_peers_complete(struct peers_session *session);
/*
 * Serve for at least the given time, and while a neighbour lacks something,
 * at most a few minutes. Blocks. NULL just waits.
 */
void favo_peers_serve(struct peers_session *session, int least_ms);
/* NULL is allowed. */
void favo_peers_end(struct peers_session *session);
