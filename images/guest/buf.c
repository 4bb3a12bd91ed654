// SPDX-License-Identifier: GPL-2.0-or-later
/* Byte queue; see buf.h. Taken space is reused before memory grows. */
#include "images/guest/buf.h"

#include <errno.h>
#include <string.h>

#include "common/util.h"

/* An empty queue above this gives its memory back. */
#define KEEP_BYTES (128 * 1024)

uint8_t *favo_buf_reserve(struct favo_buf *b, size_t n)
{
	size_t want;
	uint8_t *mem;

	if (b->cap - b->head - b->len >= n && b->mem)
		return b->mem + b->head + b->len;
	if (b->head && b->cap - b->len >= n && b->head >= b->len) {
		memcpy(b->mem, b->mem + b->head, b->len);
		b->head = 0;
		return b->mem + b->len;
	}
	if (n > SIZE_MAX / 4 - b->len)
		return NULL;
	want = FAVO_MAX(2 * (b->len + n), (size_t)4096);
	mem = malloc(want);
	if (!mem)
		return NULL;
	if (b->len)
		memcpy(mem, b->mem + b->head, b->len);
	free(b->mem);
	b->mem = mem;
	b->head = 0;
	b->cap = want;
	return mem + b->len;
}

void favo_buf_commit(struct favo_buf *b, size_t n)
{
	b->len += n;
}

int favo_buf_append(struct favo_buf *b, const void *data, size_t n)
{
	uint8_t *p;

	if (!n)
		return 0;
	p = favo_buf_reserve(b, n);
	if (!p)
		return -ENOMEM;
	memcpy(p, data, n);
	b->len += n;
	return 0;
}

void favo_buf_take(struct favo_buf *b, size_t n)
{
	b->head += n;
	b->len -= n;
	if (b->len)
		return;
	b->head = 0;
	if (b->cap > KEEP_BYTES)
		favo_buf_fini(b);
}

void favo_buf_fini(struct favo_buf *b)
{
	int saved = errno;

	free(b->mem);
	*b = (struct favo_buf){0};
	errno = saved;
}
