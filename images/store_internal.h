/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the store share; not for others. */
#pragma once

#include "images/index.h"
#include "images/store.h"

#define FAVO_BLOB_PATH_SIZE (sizeof("blobs/ab/") + FAVO_DIGEST_HEX_SIZE)
#define FAVO_MANIFEST_PATH_SIZE (sizeof("manifests/.json") + FAVO_DIGEST_HEX_SIZE)

struct favo_store {
	char *dir;
	int fd; /* of dir */
};

/* Relative to the store's folder. */
char *favo_store_blob_path(const struct favo_digest *digest,
			   char path[FAVO_BLOB_PATH_SIZE]);
char *favo_store_manifest_path(const struct favo_digest *id,
			       char path[FAVO_MANIFEST_PATH_SIZE]);

/* Empty tmp/; the caller holds the lock exclusively. 0, or -errno: some is left. */
int favo_store_clean_tmp(struct favo_store *store);

/*
 * Take the store's lock (LOCK_SH or LOCK_EX) in a new descriptor; waits. Who
 * comes first for LOCK_SH empties tmp/.
 */
int favo_store_lock(struct favo_store *store, int operation, struct favo_err *err);

/*
 * Replace a file below the store's folder, durable on return. The new file is
 * made in tmp/, so that a crash leaves nothing among the names; the caller
 * holds the lock, or gc could take it away.
 */
int favo_store_replace(struct favo_store *store, const char *path, const void *data,
		       size_t len, struct favo_err *err);

/* syncfs(2) of the store's file system. */
int favo_store_sync(struct favo_store *store, struct favo_err *err);

/* ---- sets of digests (store_gc.c) ---- */

struct favo_digest_set {
	struct favo_digest *digests;
	size_t n, size;
};

int favo_digest_set_add(struct favo_digest_set *set, const struct favo_digest *digest,
			struct favo_err *err);
/* To be called before a search, after the last add. */
void favo_digest_set_sort(struct favo_digest_set *set);
bool favo_digest_set_has(const struct favo_digest_set *set,
			 const struct favo_digest *digest);
void favo_digest_set_fini(struct favo_digest_set *set);

/* Every digest in a JSON value, but for members "source" and "config". */
int favo_store_mark_json(struct favo_digest_set *set, const json_t *value,
			 struct favo_err *err);
/* Every blob of an image of the store, its chunks included. */
int favo_store_mark_image(struct favo_store *store, struct favo_digest_set *set,
			  const struct favo_digest *id, struct favo_err *err);

/*
 * Bytes in the store of all images that share the first part of name
 * ("alice/"; all names without '/' for one that has none), and of the blobs
 * of extra, each blob once; name:tag itself does not count, since it is about to
 * change. stage_fd: folder of blobs that are not in the store yet.
 */
int favo_store_usage(struct favo_store *store, const struct favo_image_name *name,
		     const struct favo_digest_set *extra, int stage_fd, uint64_t *bytes,
		     struct favo_err *err);
