// SPDX-License-Identifier: GPL-2.0-or-later
/* Sources of swarms; see swarm_source.h. */
#include "provision/favod/swarm_source.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/util.h"
#include "images/peer_disk.h"
#include "images/peer_hub.h"

#define IMAGES_MAX 32 /* at a time */
#define IDLE_MS 60000 /* without a node: the session ends */
#define RUN_MS 200

struct source {
	struct source *next;
	struct favo_swarm_sources *all;
	struct favo_peer_disk disk;
	struct favo_peer *peer;
	pthread_t thread;
	int64_t wanted_ms; /* under the lock */
	bool ended; /* under the lock */
};

struct favo_swarm_sources {
	struct favo_store *store;
	struct favo_hub *hub;
	pthread_mutex_t lock;
	struct source *list; /* under lock */
	bool stop; /* under lock */
	size_t secret_len;
	unsigned char secret[];
};

static struct source *find(struct favo_swarm_sources *all,
			   const struct favo_digest *image)
{
	struct source *s;

	for (s = all->list; s; s = s->next)
		if (!s->ended && favo_digest_equal(&s->disk.manifest->id, image))
			return s;
	return NULL;
}

static void on_guest(void *user, int fd, const struct favo_wire_hello *hello)
{
	struct favo_swarm_sources *all = user;
	struct source *s;

	pthread_mutex_lock(&all->lock);
	s = find(all, &hello->image);
	if (s)
		favo_peer_accept(s->peer, fd, hello);
	else
		close(fd);
	pthread_mutex_unlock(&all->lock);
}

/* Is there anybody to serve, or was there a minute ago? */
static bool goes_on(struct source *s)
{
	struct favo_peer_stats stats;
	bool on;

	favo_peer_stats(s->peer, &stats);
	pthread_mutex_lock(&s->all->lock);
	if (stats.neighbours)
		s->wanted_ms = favo_now_ms();
	on = !s->all->stop && favo_now_ms() - s->wanted_ms < IDLE_MS;
	/* From here on nobody hands it a connection. */
	s->ended = !on;
	pthread_mutex_unlock(&s->all->lock);
	return on;
}

static void *run(void *arg)
{
	struct source *s = arg;
	struct favo_err err = {0};

	while (goes_on(s)) {
		if (favo_peer_run(s->peer, RUN_MS, &err) < 0) {
			favo_log(FAVO_ERROR, "source of an image: %s", err.msg);
			break;
		}
	}
	pthread_mutex_lock(&s->all->lock);
	s->ended = true;
	pthread_mutex_unlock(&s->all->lock);
	return NULL;
}

static void source_free(struct source *s)
{
	favo_peer_free(s->peer);
	favo_peer_disk_fini(&s->disk);
	free(s);
}

/* With the lock held: sessions that ended go; the number of the others. */
static unsigned int collect(struct favo_swarm_sources *all)
{
	unsigned int n = 0;

	for (struct source **p = &all->list; *p;) {
		struct source *s = *p;

		if (!s->ended) {
			n++;
			p = &s->next;
			continue;
		}
		*p = s->next;
		pthread_join(s->thread, NULL);
		source_free(s);
	}
	return n;
}

static int source_new(struct source **out, struct favo_swarm_sources *all,
		      const struct favo_digest *image, struct favo_err *err)
{
	struct favo_peer_params params = {
		.name = "favod", .source = true, .ops = &favo_peer_disk_ops};
	struct source *s = calloc(1, sizeof(*s));
	int ret;

	if (!s)
		return favo_fail(err, ENOMEM, "source of an image: out of memory");
	s->all = all;
	s->wanted_ms = favo_now_ms();
	ret = favo_peer_disk_store(&s->disk, all->store, image, err);
	params.manifest = s->disk.manifest;
	params.user = &s->disk;
	if (ret == 0)
		ret = favo_sources_token(all, image, params.token, err);
	if (ret == 0)
		ret = favo_peer_new(&s->peer, &params, err);
	if (ret < 0) {
		source_free(s);
		return ret;
	}
	*out = s;
	return 0;
}

int favo_sources_want(struct favo_swarm_sources *sources, const struct favo_digest *image,
		      struct favo_err *err)
{
	struct source *s;
	int ret = 0;

	pthread_mutex_lock(&sources->lock);
	s = find(sources, image);
	if (s) {
		s->wanted_ms = favo_now_ms();
	} else if (collect(sources) >= IMAGES_MAX) {
		ret = favo_fail(err, EBUSY, "%d images are being given out already",
				IMAGES_MAX);
	} else {
		ret = source_new(&s, sources, image, err);
		if (ret == 0)
			ret = -pthread_create(&s->thread, NULL, run, s);
		if (ret == 0) {
			s->next = sources->list;
			sources->list = s;
		} else if (s) {
			source_free(s);
		}
	}
	pthread_mutex_unlock(&sources->lock);
	return ret;
}

int favo_sources_token(const struct favo_swarm_sources *sources,
		       const struct favo_digest *image,
		       unsigned char token[FAVO_WIRE_TOKEN], struct favo_err *err)
{
	return favo_wire_token(token, sources->secret, sources->secret_len, image, err);
}

uint16_t favo_sources_port(const struct favo_swarm_sources *sources)
{
	return favo_hub_port(sources->hub);
}

int favo_sources_start(struct favo_swarm_sources **out, struct favo_store *store,
		       uint16_t port, const void *secret, size_t len,
		       struct favo_err *err)
{
	struct favo_swarm_sources *all = calloc(1, sizeof(*all) + len);
	int ret;

	if (!all)
		return favo_fail(err, ENOMEM, "sources: out of memory");
	all->store = store;
	all->secret_len = len;
	memcpy(all->secret, secret, len);
	pthread_mutex_init(&all->lock, NULL);
	ret = favo_hub_start(&all->hub, port, on_guest, all, err);
	if (ret < 0) {
		free(all);
		return ret;
	}
	*out = all;
	return 0;
}

void favo_sources_stop(struct favo_swarm_sources *sources)
{
	struct source *s;

	if (!sources)
		return;
	favo_hub_stop(sources->hub);
	pthread_mutex_lock(&sources->lock);
	sources->stop = true;
	s = sources->list;
	sources->list = NULL;
	pthread_mutex_unlock(&sources->lock);
	while (s) {
		struct source *next = s->next;

		pthread_join(s->thread, NULL);
		source_free(s);
		s = next;
	}
	pthread_mutex_destroy(&sources->lock);
	free(sources);
}
