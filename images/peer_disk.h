/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a session of the exchange (images/peer.h) reads and writes: an image
 * of the node cache, on its way or complete, or one of the store.
 */
#pragma once

#include "images/cache.h"
#include "images/peer.h"
#include "images/store.h"

struct favo_peer_disk {
	struct favo_manifest *manifest;
	struct favo_fetch *fetch; /* borrowed; NULL: complete */
	struct favo_store *store; /* borrowed; NULL: of the cache */
	struct favo_index *index; /* NULL: the fetch's */
	int folder_fd, root_fd;
};

extern const struct favo_peer_ops favo_peer_disk_ops; /* user: the struct */

/* An image that is being fetched; set ->fetch to NULL before that is freed. */
int favo_peer_disk_fetch(struct favo_peer_disk *disk, struct favo_fetch *fetch,
			 struct favo_err *err);
/* A complete image of the cache: -ENOENT. */
int favo_peer_disk_cache(struct favo_peer_disk *disk, struct favo_cache *cache,
			 const struct favo_digest *id, struct favo_err *err);
/* An image of the store: -ENOENT. */
int favo_peer_disk_store(struct favo_peer_disk *disk, struct favo_store *store,
			 const struct favo_digest *id, struct favo_err *err);
/* Idempotent; fits what a failed call left. */
void favo_peer_disk_fini(struct favo_peer_disk *disk);
