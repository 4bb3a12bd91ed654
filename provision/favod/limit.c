// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rate limit per user; see limit.h. Two users in the same slot push each
 * other out, which gives them a full bucket again: the limit errs on their
 * side, and protects favod from one loop gone wild, not from many.
 */
#include "provision/favod/limit.h"

#include <pthread.h>
#include <stdlib.h>

#include "common/util.h"

#define SLOTS 1024u

struct slot {
	uid_t uid;
	bool used;
	int64_t at_ms;
	int64_t millitokens;
};

struct favo_limit {
	pthread_mutex_t lock;
	int64_t rate, burst;
	struct slot slots[SLOTS];
};

struct favo_limit *favo_limit_new(unsigned int rate, unsigned int burst)
{
	struct favo_limit *limit = calloc(1, sizeof(*limit));

	if (!limit)
		return NULL;
	pthread_mutex_init(&limit->lock, NULL);
	limit->rate = rate;
	limit->burst = burst;
	return limit;
}

void favo_limit_free(struct favo_limit *limit)
{
	if (!limit)
		return;
	pthread_mutex_destroy(&limit->lock);
	free(limit);
}

bool favo_limit_take(struct favo_limit *limit, uid_t uid, int64_t now_ms)
{
	struct slot *slot = &limit->slots[(uid * 2654435761u) % SLOTS];
	bool ok;

	pthread_mutex_lock(&limit->lock);
	if (!slot->used || slot->uid != uid)
		*slot = (struct slot){.uid = uid,
				      .used = true,
				      .at_ms = now_ms,
				      .millitokens = limit->burst * 1000};
	/* rate per second is rate millitokens per millisecond */
	slot->millitokens =
		FAVO_MIN(limit->burst * 1000,
			 slot->millitokens + (now_ms - slot->at_ms) * limit->rate);
	slot->at_ms = now_ms;
	ok = slot->millitokens >= 1000;
	if (ok)
		slot->millitokens -= 1000;
	pthread_mutex_unlock(&limit->lock);
	return ok;
}
