/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte queue: append at the end, take from the front. Zero-initialised is
 * empty; freed memory is left by favo_buf_fini(), which may be called twice.
 * One thread at a time.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

struct favo_buf {
	uint8_t *mem;
	size_t head; /* first byte not yet taken */
	size_t len; /* bytes from head on */
	size_t cap;
};

static inline const uint8_t *favo_buf_data(const struct favo_buf *b)
{
	return b->mem ? b->mem + b->head : NULL;
}

/* Make room for n bytes and return where they go, NULL when memory is out. */
uint8_t *favo_buf_reserve(struct favo_buf *b, size_t n) favo_must_check;
/* n bytes that were written to the reserved room count from now on. */
void favo_buf_commit(struct favo_buf *b, size_t n);
/* 0 or -ENOMEM. */
int favo_buf_append(struct favo_buf *b, const void *data, size_t n) favo_must_check;
void favo_buf_take(struct favo_buf *b, size_t n);
void favo_buf_fini(struct favo_buf *b);
#define favo_autobuf __attribute__((cleanup(favo_buf_fini)))
