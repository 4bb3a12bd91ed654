/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image cache of a node: whole images as plain files that a VM opens.
 *
 *   images/<64 hex>/       complete image: manifest.json index kernel
 *                          initramfs root.img, "used" (its time: last use),
 *                          pin.HOLDER (empty: HOLDER uses the image), and
 *                          "unsynced" until the disk is known to have it all
 *   images/<64 hex>.part/  the same while it is filled, with "have", one byte
 *                          per chunk that root.img holds; favo-lazy, which
 *                          serves it to VMs meanwhile, fills it too and adds
 *                          "lazy" and "trace" (images/partial.h)
 *   images/<64 hex>.dead/  being removed
 *
 * To fill: begin with the manifest, then ask for missing digests, fetch them
 * (POST /v1/blobs), put each answer, until nothing is missing; then commit.
 *
 *	ret = favo_fetch_begin(&fetch, cache, &id, json, len, err);
 *	while ((n = favo_fetch_missing(fetch, want, 256)) > 0)
 *		for each blob of the answer:
 *			favo_fetch_put(fetch, &want[i], bytes, len, err);
 *	ret = favo_fetch_commit(fetch, err);
 *
 * A chunk goes straight to its places in root.img, after its digest was
 * checked; chunks that another complete image of the cache has are copied
 * from there by begin or by the first missing. A fetch that was interrupted
 * goes on where it stopped. One process owns a cache; a fetch belongs to one
 * thread at a time, several fetches of different images may run in parallel.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"
#include "images/manifest.h"

#define FAVO_CACHE_DIR "/var/lib/favo/cache"

struct favo_cache;
struct favo_fetch;
struct favo_index;

/* Makes the folders and removes leftovers; looks into no image. */
int favo_cache_open(struct favo_cache **out, const char *dir, struct favo_err *err);
void favo_cache_close(struct favo_cache *cache);

/* A complete image. Descriptors are read-only and belong to the caller. */
struct favo_cache_image {
	struct favo_manifest *manifest;
	int kernel_fd;
	int initramfs_fd;
	int root_fd;
};

/*
 * Open a complete image, and pin it for holder (a short name such as "12.0")
 * unless holder is NULL. -ENOENT: not complete here, fetch it.
 */
int favo_cache_get(struct favo_cache *cache, const struct favo_digest *id,
		   const char *holder, struct favo_cache_image *out,
		   struct favo_err *err);
void favo_cache_image_fini(struct favo_cache_image *image);

/*
 * The same for an image that is being filled (favo_fetch_is_bootable()), but
 * without the root: root_fd is -1, favo-lazy serves it. *folder gets the path
 * of the partial image; the caller frees it. -ENOENT: there is none, or it
 * has become complete meanwhile.
 */
int favo_cache_get_partial(struct favo_cache *cache, const struct favo_digest *id,
			   const char *holder, struct favo_cache_image *out,
			   char **folder, struct favo_err *err);

/* A pinned image, complete or not, is never evicted. Pins are files: they survive a crash. */
int favo_cache_pin(struct favo_cache *cache, const struct favo_digest *id,
		   const char *holder, struct favo_err *err);
/* Drop holder's pin; 0 when there was none. */
int favo_cache_unpin(struct favo_cache *cache, const struct favo_digest *id,
		     const char *holder, struct favo_err *err);

/*
 * Drop every pin whose holder is_alive() denies; to be called once after a
 * restart of noded.
 */
typedef bool favo_cache_alive_fn(const char *holder, void *user);
int favo_cache_prune_pins(struct favo_cache *cache, favo_cache_alive_fn *is_alive,
			  void *user, struct favo_err *err);

/*
 * Read everything again and compare with the digests: -EBADMSG names the
 * first part that is wrong. Slow: the whole image is hashed.
 */
int favo_cache_verify(struct favo_cache *cache, const struct favo_digest *id,
		      struct favo_err *err);

struct favo_cache_entry {
	struct favo_digest id;
	bool complete;
	size_t pins;
	uint64_t bytes; /* on disk */
	int64_t used; /* last get, seconds since 1970 */
};

/* The caller frees *entries. Newest use first. */
int favo_cache_list(struct favo_cache *cache, struct favo_cache_entry **entries,
		    size_t *n, struct favo_err *err);

/*
 * Write a complete image to disk and note that it is there, so that the next
 * favo_cache_get() after a crash of the machine need not check it. Blocks on
 * the disk; 0 when it was noted before, -ENOENT when absent.
 */
int favo_cache_settle(struct favo_cache *cache, const struct favo_digest *id,
		      struct favo_err *err);

/* Remove an image; -EBUSY when it is pinned, -ENOENT when absent. */
int favo_cache_remove(struct favo_cache *cache, const struct favo_digest *id,
		      struct favo_err *err);

/* Remove an image that is damaged, in use or not: who has it open keeps it. */
int favo_cache_discard(struct favo_cache *cache, const struct favo_digest *id,
		       struct favo_err *err);

/*
 * Remove images without pins, least recently used first, until the cache
 * takes at most max_bytes. Fetches in progress (partial images) are only
 * removed when include_partial is set. 0 even when pins forbid to get there.
 */
int favo_cache_evict(struct favo_cache *cache, uint64_t max_bytes, bool include_partial,
		     struct favo_err *err);

/* ---- filling ---- */

/*
 * manifest are the bytes of GET /v1/manifests/DIGEST; -EBADMSG when they do
 * not hash to id. Checks the free space: -ENOSPC with the figures.
 * -EEXIST: the image is complete already.
 */
int favo_fetch_begin(struct favo_fetch **out, struct favo_cache *cache,
		     const struct favo_digest *id, const void *manifest, size_t len,
		     struct favo_err *err);

/*
 * Next digests to ask for, at most max; those asked for before and not yet
 * put come again only after favo_fetch_retry(). First the index, alone; then
 * kernel and initramfs; then chunks in the order of the file. 0: all asked.
 */
int favo_fetch_missing(struct favo_fetch *fetch, struct favo_digest *want, int max);
/*
 * Ask for these chunks (numbers in the index) before all others, in this
 * order; numbers that the index does not have are passed over. A later call
 * replaces the list.
 */
int favo_fetch_first(struct favo_fetch *fetch, const uint32_t *chunks, size_t n,
		     struct favo_err *err);
/* Number of chunks; 0 while the index is not here. */
size_t favo_fetch_chunks(const struct favo_fetch *fetch);
/* The image's digest in hex and a suffix, borrowed. */
const char *favo_fetch_name(const struct favo_fetch *fetch);
/* While held, ask only for what a VM needs to begin and for the first chunks. */
void favo_fetch_hold(struct favo_fetch *fetch, bool held);
bool favo_fetch_is_held(const struct favo_fetch *fetch);
/* Everything but root.img is here: a VM can start on the partial image. */
bool favo_fetch_is_bootable(const struct favo_fetch *fetch);
/* Forget what was asked for and not answered. */
void favo_fetch_retry(struct favo_fetch *fetch);

/*
 * Check and write one blob in stored form. -EBADMSG: wrong bytes (the text
 * says which digest), ask another peer; -ENOENT: nobody asked for it.
 */
int favo_fetch_put(struct favo_fetch *fetch, const struct favo_digest *digest,
		   const void *stored, size_t stored_len, struct favo_err *err);

/* The chunk index, NULL until it was put; borrowed. */
const struct favo_index *favo_fetch_index(const struct favo_fetch *fetch);
/* Are all parts of the image with this digest here? */
bool favo_fetch_has(const struct favo_fetch *fetch, const struct favo_digest *digest);
/* Descriptor of the folder that is filled; borrowed. */
int favo_fetch_folder(const struct favo_fetch *fetch);

struct favo_fetch_progress {
	uint64_t total; /* plain bytes of the image */
	uint64_t done; /* of them here */
	uint64_t reused; /* of done: copied from other images or an earlier try */
	uint64_t moved; /* stored bytes that were put */
};
void favo_fetch_progress(const struct favo_fetch *fetch, struct favo_fetch_progress *out);

/*
 * -EAGAIN while something is missing. The image is complete on return; the
 * disk follows with favo_cache_settle().
 */
int favo_fetch_commit(struct favo_fetch *fetch, struct favo_err *err);
/* What was put stays on disk for the next begin. NULL is allowed. */
void favo_fetch_free(struct favo_fetch *fetch);

static inline void favo_cleanup_cache(struct favo_cache **cache)
{
	favo_cache_close(*cache);
}
#define favo_autocache __attribute__((cleanup(favo_cleanup_cache)))

static inline void favo_cleanup_fetch(struct favo_fetch **fetch)
{
	favo_fetch_free(*fetch);
}
#define favo_autofetch __attribute__((cleanup(favo_cleanup_fetch)))
