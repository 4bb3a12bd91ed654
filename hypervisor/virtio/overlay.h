/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Copy-on-write overlay file: which clusters of a disk were written, and where
 * their data is. docs/format-overlay.md has the bytes and the reasons.
 *
 * Cluster n lies at data_off + n * cluster, in a sparse file; a bit per cluster
 * says whether it is there. The bits live in memory and reach the file only
 * behind the data they speak of: favo_overlay_snapshot() takes the changed map
 * pages before data is synced, they are written after that, and synced again.
 * One user at a time.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_OVERLAY_PAGE 4096

struct favo_overlay {
	int fd; /* owned */
	uint64_t disk_size, base_size; /* bytes */
	unsigned cluster_bits;
	uint64_t nclusters;
	uint64_t map_pages, data_off;
	uint64_t *bits; /* nclusters of them */
	uint64_t *seq; /* per map page: what the file has */
	uint8_t *slot; /* per map page: the slot (0 or 1) that holds it */
	uint8_t *dirty; /* per map page: bits changed since the last snapshot */
	bool any_dirty;
};

/* A map page on its way to the file. */
struct favo_overlay_page {
	uint64_t index, off;
	uint8_t bytes[FAVO_OVERLAY_PAGE];
};

/*
 * Take over fd: open the overlay in it, or make one if the file is empty, for a
 * base of base_size bytes and a disk of at least disk_size. EBUSY: somebody else
 * has it open; EINVAL: not for this base, or damaged.
 */
int favo_overlay_open(struct favo_overlay **out, int fd, uint64_t base_size,
		      uint64_t disk_size, struct favo_err *err);
/* Does not save: flush first. */
void favo_overlay_free(struct favo_overlay *ov);

static inline uint64_t favo_overlay_cluster_size(const struct favo_overlay *ov)
{
	return 1ULL << ov->cluster_bits;
}

static inline bool favo_overlay_has(const struct favo_overlay *ov, uint64_t cluster)
{
	return ov->bits[cluster / 64] >> (cluster % 64) & 1;
}

/* Number of clusters from first to last that are like first: there, or not. */
uint64_t favo_overlay_run(const struct favo_overlay *ov, uint64_t first, uint64_t last);
void favo_overlay_set(struct favo_overlay *ov, uint64_t first, uint64_t last);

/*
 * The next changed map page into *page, ready to be written at page->off; false
 * if there is none. favo_overlay_written() says that it is durable now,
 * favo_overlay_undo() that it is not.
 */
bool favo_overlay_next_page(struct favo_overlay *ov, struct favo_overlay_page *page);
void favo_overlay_written(struct favo_overlay *ov, const struct favo_overlay_page *page);
void favo_overlay_undo(struct favo_overlay *ov, const struct favo_overlay_page *page);
