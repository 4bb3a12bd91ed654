// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * FastCDC; see chunker.h. The rolling "gear" hash shifts left by one bit per
 * byte, so its top bits depend on the last 64 bytes: cuts are decided on
 * them. Before the average length a cut needs more zero bits than after it;
 * this draws the lengths towards the average.
 */
#include "images/chunker.h"

/* splitmix64: a table of fixed random numbers needs no 2 KiB of source. */
static uint64_t next_random(uint64_t *state)
{
	uint64_t z = *state += 0x9e3779b97f4a7c15;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9;
	z = (z ^ z >> 27) * 0x94d049bb133111eb;
	return z ^ z >> 31;
}

void favo_chunker_init(struct favo_chunker *chunker)
{
	uint64_t state = 0x6661766f; /* "favo" */

	*chunker = (struct favo_chunker){.min = FAVO_CHUNKER_MIN,
					 .avg = FAVO_CHUNKER_AVG,
					 .max = FAVO_CHUNKER_MAX,
					 .bits_before_avg = 18,
					 .bits_after_avg = 14};
	for (int i = 0; i < 256; i++)
		chunker->gear[i] = next_random(&state);
}

void favo_chunker_init_tree(struct favo_chunker *chunker)
{
	favo_chunker_init(chunker);
	chunker->min = FAVO_CHUNKER_TREE_MIN;
	chunker->avg = FAVO_CHUNKER_AVG / 8;
	chunker->max = FAVO_CHUNKER_MAX / 8;
	chunker->bits_before_avg -= 3;
	chunker->bits_after_avg -= 3;
}

size_t favo_chunker_next(const struct favo_chunker *chunker, const void *data, size_t len)
{
	const uint64_t *gear = chunker->gear;
	const unsigned char *p = data;
	size_t end = len < chunker->max ? len : chunker->max;
	size_t avg = end < chunker->avg ? end : chunker->avg;
	unsigned int before = 64 - chunker->bits_before_avg;
	unsigned int after = 64 - chunker->bits_after_avg;
	size_t i = chunker->min;
	uint64_t hash = 0;

	if (end <= chunker->min)
		return end;
	for (; i < avg; i++) {
		hash = (hash << 1) + gear[p[i]];
		if (hash >> before == 0)
			return i + 1;
	}
	for (; i < end; i++) {
		hash = (hash << 1) + gear[p[i]];
		if (hash >> after == 0)
			return i + 1;
	}
	return end;
}
