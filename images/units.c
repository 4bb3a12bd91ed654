// SPDX-License-Identifier: GPL-2.0-or-later
/* Transfer units of an image; see units.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/units.h"

#define UNIT_MIN (48u << 10)
#define UNIT_MAX (384u << 10)
#define UNITS_WANTED 2048u

struct place {
	uint32_t chunk;
	const struct favo_digest *digest;
};

static int compare_places(const void *a, const void *b)
{
	const struct place *x = a, *y = b;
	int order = memcmp(x->digest, y->digest, sizeof(*x->digest));

	return order ? order : (x->chunk > y->chunk) - (x->chunk < y->chunk);
}

/* same[i]: the first chunk with the digest of chunk i. */
static int find_repeats(const struct favo_index *index, uint32_t *same,
			struct favo_err *err)
{
	favo_autofree struct place *places = calloc(index->n_chunks + 1, sizeof(*places));

	if (!places)
		return favo_fail(err, ENOMEM, "image units: out of memory");
	for (uint32_t i = 0; i < index->n_chunks; i++)
		places[i] = (struct place){i, &index->chunks[i].digest};
	qsort(places, index->n_chunks, sizeof(*places), compare_places);
	for (uint32_t i = 0; i < index->n_chunks; i++)
		same[places[i].chunk] =
			i && favo_digest_equal(places[i].digest, places[i - 1].digest)
				? same[places[i - 1].chunk]
				: places[i].chunk;
	return 0;
}

static void unit_begin(struct favo_units *u)
{
	u->first[u->n++] = u->n_items;
}

static void add_blob(struct favo_units *u, enum favo_item_kind kind,
		     const struct favo_digest *digest, uint64_t size)
{
	unit_begin(u);
	u->items[u->n_items++] =
		(struct favo_item){.kind = kind, .digest = *digest, .length = size};
	u->largest = FAVO_MAX(u->largest, size);
}

static void add_chunks(struct favo_units *u, const struct favo_index *index,
		       const uint32_t *same)
{
	uint64_t target = index->size / UNITS_WANTED, bytes = 0;

	target = FAVO_MAX(target, (uint64_t)UNIT_MIN);
	target = FAVO_MIN(target, (uint64_t)UNIT_MAX);
	for (uint32_t i = 0; i < index->n_chunks; i++) {
		const struct favo_chunk *c = &index->chunks[i];

		if (same[i] != i) {
			u->of_chunk[i] = u->of_chunk[same[i]];
			continue;
		}
		if (!bytes || bytes >= target ||
		    u->n_items - u->first[u->n - 1] >= FAVO_UNIT_ITEMS_MAX) {
			unit_begin(u);
			bytes = 0;
		}
		u->of_chunk[i] = u->n - 1;
		u->items[u->n_items++] = (struct favo_item){FAVO_ITEM_CHUNK, c->digest,
							    c->offset, c->length};
		bytes += c->length;
		u->largest = FAVO_MAX(u->largest, bytes);
	}
}

int favo_units_new(struct favo_units **out, const struct favo_manifest *manifest,
		   const struct favo_index *index, struct favo_err *err)
{
	struct favo_units *u = calloc(1, sizeof(*u));
	favo_autofree uint32_t *same = calloc(index->n_chunks + 1, sizeof(*same));
	int ret = 0;

	if (u) {
		u->items = calloc(index->n_chunks + 2, sizeof(*u->items));
		u->first = calloc(index->n_chunks + 3, sizeof(*u->first));
		u->of_chunk = calloc(index->n_chunks + 1, sizeof(*u->of_chunk));
	}
	if (!u || !same || !u->items || !u->first || !u->of_chunk)
		ret = favo_fail(err, ENOMEM, "image units: out of memory");
	else
		ret = find_repeats(index, same, err);
	if (ret < 0) {
		favo_units_free(u);
		return ret;
	}
	add_blob(u, FAVO_ITEM_KERNEL, &manifest->kernel.digest, manifest->kernel.size);
	add_blob(u, FAVO_ITEM_INITRAMFS, &manifest->initramfs.digest,
		 manifest->initramfs.size);
	add_chunks(u, index, same);
	u->first[u->n] = u->n_items;
	*out = u;
	return 0;
}

void favo_units_free(struct favo_units *units)
{
	if (!units)
		return;
	free(units->items);
	free(units->first);
	free(units->of_chunk);
	free(units);
}

uint64_t favo_unit_bytes(const struct favo_units *units, uint32_t unit)
{
	uint64_t bytes = 0;

	for (uint32_t i = units->first[unit]; i < units->first[unit + 1]; i++)
		bytes += units->items[i].length;
	return bytes;
}
