// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * FastCDC; see chunker.h. The rolling "gear" hash shifts left by one bit per
 * byte, so its top bits depend on the last 64 bytes: cuts are decided on
 * them. Before the average length a cut needs 18 zero bits, after it 14;
 * this draws the lengths towards the average.
 */
#include "images/chunker.h"

#define BITS_BEFORE_AVG 18
#define BITS_AFTER_AVG 14

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

	for (int i = 0; i < 256; i++)
		chunker->gear[i] = next_random(&state);
}

size_t favo_chunker_next(const struct favo_chunker *chunker, const void *data, size_t len)
{
	const uint64_t *gear = chunker->gear;
	const unsigned char *p = data;
	size_t end = len < FAVO_CHUNKER_MAX ? len : FAVO_CHUNKER_MAX;
	size_t avg = end < FAVO_CHUNKER_AVG ? end : FAVO_CHUNKER_AVG;
	size_t i = FAVO_CHUNKER_MIN;
	uint64_t hash = 0;

	if (end <= FAVO_CHUNKER_MIN)
		return end;
	for (; i < avg; i++) {
		hash = (hash << 1) + gear[p[i]];
		if (hash >> (64 - BITS_BEFORE_AVG) == 0)
			return i + 1;
	}
	for (; i < end; i++) {
		hash = (hash << 1) + gear[p[i]];
		if (hash >> (64 - BITS_AFTER_AVG) == 0)
			return i + 1;
	}
	return end;
}
