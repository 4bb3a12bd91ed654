/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Cut a file into chunks and put them into the store, on all cores. */
#pragma once

#include <stdint.h>

#include "common/err.h"
#include "images/index.h"
#include "images/manifest.h"
#include "images/store.h"

/*
 * Hears of the progress of a long step: done of total bytes. Called from the
 * thread that started the step, several times a second.
 */
typedef void favo_progress_fn(const char *step, uint64_t done, uint64_t total,
			      void *user);

struct favo_pack_stats {
	uint64_t new_chunks;
	uint64_t new_bytes; /* plain bytes of them */
	uint64_t stored_bytes; /* what they take in the store */
};

/*
 * Chunk the whole file fd into tx. *index gets the chunks in order; stats may
 * be NULL, progress too. Blocks; starts one thread per core.
 */
int favo_pack(struct favo_store_tx *tx, int fd, struct favo_index **index,
	      struct favo_pack_stats *stats, favo_progress_fn *progress, void *user,
	      struct favo_err *err);

/* A root file system in the store. */
struct favo_packed_root {
	uint64_t size; /* of the file system */
	uint64_t chunks;
	struct favo_digest index;
	struct favo_manifest_verity verity;
	struct favo_pack_stats stats;
};

/*
 * Put the file system that fd holds into tx: its verity tree is added to fd,
 * then file system, tree and chunk index are stored. Blocks.
 */
int favo_pack_root(struct favo_store_tx *tx, int fd, struct favo_packed_root *out,
		   favo_progress_fn *progress, void *user, struct favo_err *err);

/* Member "root" of a manifest; NULL when memory is out. */
json_t *favo_packed_root_json(const struct favo_packed_root *root);
