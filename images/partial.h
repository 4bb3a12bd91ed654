/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A partial image of the node cache (images/cache.h) as favo-lazy sees it:
 * which chunks are here, and how others come in. noded's fetch fills the same
 * folder at the same time, in another process; both write the same bytes at
 * the same places, and mark a chunk in "have" after it is written. The folder
 * may become the complete image meanwhile: the files stay what they are.
 *
 *   lazy    struct favo_partial_state, mapped by favo-lazy, read by noded
 *   trace   chunk numbers, 4 bytes little-endian each, in the order in which
 *           guests first touched them: what the next start fetches first
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"
#include "images/index.h"

#define FAVO_TRACE_MAX ((size_t)1 << 20) /* bytes of a trace */

struct favo_partial_state {
	char magic[8]; /* "favolazy" */
	uint32_t device; /* N of /dev/nbdN */
	uint32_t pid;
	uint64_t start_time; /* of pid, as in /proc/PID/stat */
	uint32_t waiting; /* requests of guests that wait for bytes */
	uint32_t failed; /* requests that got an I/O error */
	uint64_t moved; /* stored bytes that favo-lazy fetched */
	uint64_t served; /* bytes that guests asked for */
};
#define FAVO_PARTIAL_MAGIC "favolazy"

struct favo_partial;

/* Open for serving. path ends with "<64 hex>.part". The state is all zeros. */
int favo_partial_open(struct favo_partial **out, const char *path, struct favo_err *err);
void favo_partial_free(struct favo_partial *partial);

/* Shared with other processes; change members with __atomic builtins. */
struct favo_partial_state *favo_partial_state(struct favo_partial *partial);
const struct favo_index *favo_partial_index(const struct favo_partial *partial);

/* Number of the chunk that holds this byte, which must be below the size. */
size_t favo_partial_find(const struct favo_partial *partial, uint64_t offset);
/* Any thread. */
bool favo_partial_has(const struct favo_partial *partial, size_t chunk);

/* Read bytes whose chunks are all here. Any thread. */
int favo_partial_read(const struct favo_partial *partial, void *buf, size_t len,
		      uint64_t offset, struct favo_err *err);

/*
 * Check one chunk in stored form and write it to all its places. -EBADMSG:
 * wrong bytes. One thread at a time.
 */
int favo_partial_put(struct favo_partial *partial, const struct favo_digest *digest,
		     const void *stored, size_t len, struct favo_err *err);

/* Note in the trace that a guest touched a chunk for the first time. */
void favo_partial_touch(struct favo_partial *partial, size_t chunk);

/*
 * State that favo-lazy left in a folder of the cache; -ENOENT when there is
 * none. Whether its process still runs is not looked at.
 */
int favo_partial_state_load(struct favo_partial_state *out, const char *path,
			    struct favo_err *err);

/*
 * Bytes of a trace as chunk numbers below n_chunks, each once; the caller
 * frees *chunks. Foreign bytes: -EBADMSG for anything else than whole entries.
 */
int favo_trace_parse(uint32_t **chunks, size_t *n, const void *data, size_t len,
		     size_t n_chunks, struct favo_err *err);

static inline void favo_cleanup_partial(struct favo_partial **partial)
{
	favo_partial_free(*partial);
}
#define favo_autopartial __attribute__((cleanup(favo_cleanup_partial)))
