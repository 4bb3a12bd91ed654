/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests of guests for bytes of a partial image, and what must be fetched
 * for them. Pure book-keeping: no thread, no socket, no clock of its own, so
 * that tests can play through everything. The caller holds a lock around all
 * calls.
 *
 *	favo_lazy_ask()    a request came
 *	favo_lazy_want()   chunks that a fetcher should get now
 *	favo_lazy_settle() they came (or did not)
 *	favo_lazy_next()   a request that can be answered, with data or an error
 *
 * A request whose bytes do not come until its deadline gets an error; one that
 * waits is asked for again after each failed fetch.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/partial.h"

/* Requests that wait at the same time; the kernel's queue has 128. */
#define FAVO_LAZY_REQUESTS 256

struct favo_lazy;

/* partial is borrowed. limit_ms: how long a request may wait for its bytes. */
int favo_lazy_new(struct favo_lazy **out, struct favo_partial *partial, int64_t limit_ms,
		  struct favo_err *err);
void favo_lazy_free(struct favo_lazy *lazy);

struct favo_lazy_request {
	uint64_t cookie; /* the caller's */
	uint64_t offset;
	uint32_t length;
};

/*
 * Take a request. -EINVAL: outside the image or empty; -EBUSY: too many wait,
 * answer some first.
 */
int favo_lazy_ask(struct favo_lazy *lazy, const struct favo_lazy_request *request,
		  int64_t now_ms, struct favo_err *err);

/*
 * Digests to fetch for the requests that wait, the oldest first, none twice
 * at the same time. Returns how many, 0: nothing is wanted.
 */
int favo_lazy_want(struct favo_lazy *lazy, struct favo_digest *want, int max);
/* What favo_lazy_want() gave is put, or was given up. */
void favo_lazy_settle(struct favo_lazy *lazy, const struct favo_digest *want, int n);

/*
 * The next request to be answered: false when there is none yet. *late: its
 * time is over and its bytes are not here, answer with an error.
 */
bool favo_lazy_next(struct favo_lazy *lazy, int64_t now_ms, struct favo_lazy_request *out,
		    bool *late);
/* When favo_lazy_next() has to be asked again at the latest; INT64_MAX: not. */
int64_t favo_lazy_deadline(const struct favo_lazy *lazy);
/* Requests that are not answered. */
unsigned int favo_lazy_waiting(const struct favo_lazy *lazy);

static inline void favo_cleanup_lazy(struct favo_lazy **lazy)
{
	favo_lazy_free(*lazy);
}
#define favo_autolazy __attribute__((cleanup(favo_cleanup_lazy)))
