// SPDX-License-Identifier: GPL-2.0-or-later
/* Requests for bytes of a partial image; see lazy.h. */
#include "images/lazy.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

struct waiting {
	struct favo_lazy_request r;
	int64_t deadline_ms;
	size_t first, last; /* chunks */
};

struct favo_lazy {
	struct favo_partial *partial;
	int64_t limit_ms;
	unsigned char *asked; /* per chunk: a fetcher is at it */
	struct waiting requests[FAVO_LAZY_REQUESTS]; /* oldest first */
	unsigned int n;
};

int favo_lazy_new(struct favo_lazy **out, struct favo_partial *partial, int64_t limit_ms,
		  struct favo_err *err)
{
	favo_autolazy struct favo_lazy *lazy = calloc(1, sizeof(*lazy));

	if (lazy)
		lazy->asked = calloc(favo_partial_index(partial)->n_chunks, 1);
	if (!lazy || !lazy->asked)
		return favo_fail(err, ENOMEM, "lazy start: out of memory");
	lazy->partial = partial;
	lazy->limit_ms = limit_ms;
	*out = favo_steal_ptr(&lazy);
	return 0;
}

void favo_lazy_free(struct favo_lazy *lazy)
{
	if (!lazy)
		return;
	free(lazy->asked);
	free(lazy);
}

int favo_lazy_ask(struct favo_lazy *lazy, const struct favo_lazy_request *request,
		  int64_t now_ms, struct favo_err *err)
{
	uint64_t size = favo_partial_index(lazy->partial)->size;
	struct waiting *w;

	if (!request->length || request->offset > size ||
	    request->length > size - request->offset)
		return favo_fail(err, EINVAL, "read of %u bytes at %llu of %llu",
				 request->length, (unsigned long long)request->offset,
				 (unsigned long long)size);
	if (lazy->n == FAVO_LAZY_REQUESTS)
		return favo_fail(err, EBUSY, "too many requests wait");
	w = &lazy->requests[lazy->n++];
	w->r = *request;
	w->deadline_ms = now_ms + lazy->limit_ms;
	w->first = favo_partial_find(lazy->partial, request->offset);
	w->last = favo_partial_find(lazy->partial, request->offset + request->length - 1);
	for (size_t i = w->first; i <= w->last; i++)
		favo_partial_touch(lazy->partial, i);
	return 0;
}

/* Chunks of one digest are marked together: one fetch serves all of them. */
static bool is_listed(const struct favo_digest *want, int n,
		      const struct favo_digest *digest)
{
	for (int i = 0; i < n; i++)
		if (favo_digest_equal(&want[i], digest))
			return true;
	return false;
}

int favo_lazy_want(struct favo_lazy *lazy, struct favo_digest *want, int max)
{
	const struct favo_chunk *chunks = favo_partial_index(lazy->partial)->chunks;
	int n = 0;

	for (unsigned int r = 0; r < lazy->n && n < max; r++) {
		const struct waiting *w = &lazy->requests[r];

		for (size_t i = w->first; i <= w->last && n < max; i++) {
			if (lazy->asked[i] || favo_partial_has(lazy->partial, i))
				continue;
			lazy->asked[i] = 1;
			if (!is_listed(want, n, &chunks[i].digest))
				want[n++] = chunks[i].digest;
		}
	}
	return n;
}

void favo_lazy_settle(struct favo_lazy *lazy, const struct favo_digest *want, int n)
{
	const struct favo_index *index = favo_partial_index(lazy->partial);

	/* Only chunks of waiting requests can be marked, or of late ones. */
	for (size_t i = 0; i < index->n_chunks; i++)
		if (lazy->asked[i] && is_listed(want, n, &index->chunks[i].digest))
			lazy->asked[i] = 0;
}

static bool is_here(const struct favo_lazy *lazy, const struct waiting *w)
{
	for (size_t i = w->first; i <= w->last; i++)
		if (!favo_partial_has(lazy->partial, i))
			return false;
	return true;
}

bool favo_lazy_next(struct favo_lazy *lazy, int64_t now_ms, struct favo_lazy_request *out,
		    bool *late)
{
	for (unsigned int r = 0; r < lazy->n; r++) {
		struct waiting *w = &lazy->requests[r];
		bool here = is_here(lazy, w);

		if (!here && now_ms < w->deadline_ms)
			continue;
		*late = !here;
		*out = w->r;
		lazy->n--;
		memmove(w, w + 1, (lazy->n - r) * sizeof(*w));
		return true;
	}
	return false;
}

int64_t favo_lazy_deadline(const struct favo_lazy *lazy)
{
	int64_t first = INT64_MAX;

	for (unsigned int r = 0; r < lazy->n; r++)
		first = FAVO_MIN(first, lazy->requests[r].deadline_ms);
	return first;
}

unsigned int favo_lazy_waiting(const struct favo_lazy *lazy)
{
	return lazy->n;
}
