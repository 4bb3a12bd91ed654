/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the store share; not for others. */
#pragma once

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
