// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Boots that are on their way; see boot.h. In memory: after a restart of favod
 * a node whose token is gone starts over.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "common/str.h"
#include "common/util.h"
#include "netboot/boot.h"

#define TOKENS_MAX 8192
#define PER_NODE 4 /* a machine may ask again before it gives up the first */
#define LIFETIME_MS (30 * 60 * 1000)
#define ATTEMPTS_MAX 8192

struct attempts {
	char node[64];
	struct favo_digest image;
	unsigned int n;
};

struct favo_boot_tokens {
	pthread_mutex_t lock;
	struct favo_boot_entry *list; /* oldest first */
	size_t n;
	struct attempts *attempts;
	size_t n_attempts;
};

struct favo_boot_tokens *favo_boot_tokens_new(void)
{
	struct favo_boot_tokens *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->list = calloc(TOKENS_MAX, sizeof(*t->list));
	t->attempts = calloc(ATTEMPTS_MAX, sizeof(*t->attempts));
	pthread_mutex_init(&t->lock, NULL);
	if (!t->list || !t->attempts) {
		favo_boot_tokens_free(t);
		return NULL;
	}
	return t;
}

void favo_boot_tokens_free(struct favo_boot_tokens *t)
{
	if (!t)
		return;
	free(t->list);
	free(t->attempts);
	pthread_mutex_destroy(&t->lock);
	free(t);
}

static void remove_at(struct favo_boot_tokens *t, size_t at)
{
	memmove(&t->list[at], &t->list[at + 1], (--t->n - at) * sizeof(*t->list));
}

/* With the lock held: what is old goes, and the oldest of a node with many. */
static void make_room(struct favo_boot_tokens *t, const char *node, int64_t now_ms)
{
	size_t of_node = 0;

	for (size_t i = t->n; i-- > 0;) {
		bool same = strcmp(t->list[i].node, node) == 0;

		of_node += same;
		if (now_ms - t->list[i].since_ms > LIFETIME_MS ||
		    (same && of_node >= PER_NODE))
			remove_at(t, i);
	}
	if (t->n == TOKENS_MAX)
		remove_at(t, 0);
}

int favo_boot_tokens_add(struct favo_boot_tokens *t, struct favo_boot_entry *entry,
			 struct favo_err *err)
{
	unsigned char bytes[24];

	if (getrandom(bytes, sizeof(bytes), 0) != sizeof(bytes))
		return favo_fail(err, errno, "random numbers: %m");
	favo_hex_encode(entry->token, bytes, 16);
	favo_hex_encode(entry->boot_id, bytes + 16, 8);
	entry->secrets_given = false;
	entry->since_ms = favo_now_ms();
	pthread_mutex_lock(&t->lock);
	make_room(t, entry->node, entry->since_ms);
	t->list[t->n++] = *entry;
	pthread_mutex_unlock(&t->lock);
	return 0;
}

/* With the lock held. Comparing takes the same time wherever the texts differ. */
static struct favo_boot_entry *find(struct favo_boot_tokens *t, const char *token)
{
	if (strlen(token) != FAVO_BOOT_TOKEN - 1)
		return NULL;
	for (size_t i = 0; i < t->n; i++) {
		unsigned char differ = 0;

		for (size_t k = 0; k < FAVO_BOOT_TOKEN - 1; k++)
			differ |= (unsigned char)(t->list[i].token[k] ^ token[k]);
		if (!differ)
			return &t->list[i];
	}
	return NULL;
}

int favo_boot_tokens_find(struct favo_boot_tokens *t, const char *token,
			  const char *address, struct favo_boot_entry *out,
			  struct favo_err *err)
{
	struct favo_boot_entry *e;

	pthread_mutex_lock(&t->lock);
	e = find(t, token);
	if (e && (favo_now_ms() - e->since_ms > LIFETIME_MS ||
		  strcmp(e->address, address) != 0))
		e = NULL;
	if (e)
		*out = *e;
	pthread_mutex_unlock(&t->lock);
	return e ? 0
		 : favo_fail(err, ENOENT, "no boot with this token from %s is on its way",
			     address);
}

bool favo_boot_tokens_take_secrets(struct favo_boot_tokens *t, const char *token)
{
	struct favo_boot_entry *e;
	bool first;

	pthread_mutex_lock(&t->lock);
	e = find(t, token);
	first = e && !e->secrets_given;
	if (e)
		e->secrets_given = true;
	pthread_mutex_unlock(&t->lock);
	return first;
}

unsigned int favo_boot_tokens_attempt(struct favo_boot_tokens *t, const char *node,
				      const struct favo_digest *image)
{
	struct attempts *a = NULL;
	unsigned int n = 1;

	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; !a && i < t->n_attempts; i++)
		if (strcmp(t->attempts[i].node, node) == 0)
			a = &t->attempts[i];
	if (!a && t->n_attempts < ATTEMPTS_MAX) {
		a = &t->attempts[t->n_attempts++];
		snprintf(a->node, sizeof(a->node), "%s", node);
	}
	if (a && !favo_digest_equal(&a->image, image)) {
		a->image = *image;
		a->n = 0;
	}
	if (a)
		n = ++a->n;
	pthread_mutex_unlock(&t->lock);
	return n;
}

void favo_boot_tokens_started(struct favo_boot_tokens *t, const char *node)
{
	pthread_mutex_lock(&t->lock);
	for (size_t i = 0; i < t->n_attempts; i++)
		if (strcmp(t->attempts[i].node, node) == 0)
			t->attempts[i].n = 0;
	pthread_mutex_unlock(&t->lock);
}
