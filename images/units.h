/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Transfer units of an image: kernel, initramfs, then runs of chunks of the
 * index, each digest once. A pure function of manifest and index, so that all
 * nodes and favod number the same units without talking about it. A unit is
 * at least 1/2048 of the root file system (48 KiB to 384 KiB of plain bytes,
 * about half of it on the wire): small against the whole, so that it is
 * passed on early, and large against a request.
 */
#pragma once

#include <stdint.h>

#include "images/index.h"
#include "images/manifest.h"

#define FAVO_UNIT_ITEMS_MAX 32u

enum favo_item_kind {
	FAVO_ITEM_KERNEL,
	FAVO_ITEM_INITRAMFS,
	FAVO_ITEM_CHUNK,
};

/* One blob of a unit. */
struct favo_item {
	enum favo_item_kind kind;
	struct favo_digest digest;
	uint64_t offset; /* of a chunk: its first place in the file */
	uint64_t length; /* plain bytes */
};

struct favo_units {
	struct favo_item *items;
	uint32_t n_items;
	uint32_t *first; /* first item of each unit; n + 1 of them */
	uint32_t n;
	uint64_t largest; /* plain bytes of the largest unit */
	uint32_t *of_chunk; /* unit of each chunk of the index */
};

int favo_units_new(struct favo_units **out, const struct favo_manifest *manifest,
		   const struct favo_index *index, struct favo_err *err);
void favo_units_free(struct favo_units *units);
/* Plain bytes of a unit. */
uint64_t favo_unit_bytes(const struct favo_units *units, uint32_t unit);
