// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The tracker: nodes that fetch the same image now are told of each other.
 * Nothing of it is kept over a restart of favod: nodes ask again within
 * seconds, and meanwhile go on with those they know.
 */
#include "provision/favod/favod.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/swarm.h"
#include "provision/favod/swarm_source.h"

#define IMAGES_MAX 64
#define MEMBERS_MAX 4096 /* per image */
#define FRESH_MS 15000 /* nodes ask again every 5 s */
#define FED_MAX 12 /* nodes that the source feeds */
#define NEIGHBOURS 3 /* named to each node; as many name it in the mean */

struct member {
	char name[FAVO_WIRE_NAME_MAX + 1];
	char address[INET6_ADDRSTRLEN];
	uint16_t port;
	bool fed;
	int64_t seen_ms;
};

struct image {
	struct favo_digest id;
	int64_t seen_ms;
	struct member *members; /* in the order of their names */
	size_t n, room;
};

struct favo_tracker {
	struct favo_swarm_sources *sources;
	pthread_mutex_t lock;
	size_t n;
	struct image images[IMAGES_MAX];
};

/* ---- members, with the lock held ---- */

static void forget_stale(struct favo_tracker *t, int64_t now_ms)
{
	for (size_t i = t->n; i-- > 0;) {
		struct image *image = &t->images[i];
		size_t kept = 0;

		for (size_t k = 0; k < image->n; k++)
			if (now_ms - image->members[k].seen_ms < FRESH_MS)
				image->members[kept++] = image->members[k];
		image->n = kept;
		if (!kept) {
			free(image->members);
			*image = t->images[--t->n];
		}
	}
}

static struct image *get_image(struct favo_tracker *t, const struct favo_digest *id)
{
	for (size_t i = 0; i < t->n; i++)
		if (favo_digest_equal(&t->images[i].id, id))
			return &t->images[i];
	if (t->n == IMAGES_MAX)
		return NULL;
	t->images[t->n] = (struct image){.id = *id};
	return &t->images[t->n++];
}

/* The member of this name, new if need be; NULL: no room. */
static struct member *get_member(struct image *image, const char *name)
{
	size_t at = 0;

	while (at < image->n && strcmp(image->members[at].name, name) < 0)
		at++;
	if (at < image->n && strcmp(image->members[at].name, name) == 0)
		return &image->members[at];
	if (image->n == MEMBERS_MAX)
		return NULL;
	if (image->n == image->room) {
		size_t room = image->room * 2 + 16;
		struct member *more = realloc(image->members, room * sizeof(*more));

		if (!more)
			return NULL;
		image->members = more;
		image->room = room;
	}
	memmove(&image->members[at + 1], &image->members[at],
		(image->n++ - at) * sizeof(*image->members));
	image->members[at] = (struct member){0};
	snprintf(image->members[at].name, sizeof(image->members[at].name), "%s", name);
	return &image->members[at];
}

static json_t *neighbour_json(const char *name, const char *address, uint16_t port,
			      bool source)
{
	return json_pack("{s:s, s:s, s:i, s:b}", "name", name, "address", address, "port",
			 port, "source", source);
}

/*
 * Ring and chords over the members there are, in the order of their names,
 * which is the order of racks on most sites. Early nodes know few; those that
 * come later name them.
 */
static void name_neighbours(struct image *image, struct member *self, json_t *list)
{
	unsigned int picked[NEIGHBOURS * 2];
	unsigned int at = (unsigned int)(self - image->members);
	unsigned int n =
		favo_swarm_neighbours(at, (unsigned int)image->n, NULL, NEIGHBOURS * 2,
				      picked, FAVO_ARRAY_SIZE(picked));

	for (unsigned int i = 0; i < n; i++) {
		struct member *m = &image->members[picked[i]];

		if (!m->port)
			continue;
		json_array_append_new(list, neighbour_json(m->name, m->address, m->port,
							   false));
	}
}

static unsigned int count_fed(const struct image *image)
{
	unsigned int n = 0;

	for (size_t i = 0; i < image->n; i++)
		n += image->members[i].fed;
	return n;
}

/* ---- addresses, as this connection shows them ---- */

static bool format_address(char out[INET6_ADDRSTRLEN], const struct sockaddr *sa)
{
	const struct sockaddr_in6 *six = (const void *)sa;
	const struct sockaddr_in *four = (const void *)sa;

	if (sa->sa_family == AF_INET)
		return inet_ntop(AF_INET, &four->sin_addr, out, INET6_ADDRSTRLEN);
	if (sa->sa_family != AF_INET6)
		return false;
	if (IN6_IS_ADDR_V4MAPPED(&six->sin6_addr))
		return inet_ntop(AF_INET, six->sin6_addr.s6_addr + 12, out,
				 INET6_ADDRSTRLEN);
	return inet_ntop(AF_INET6, &six->sin6_addr, out, INET6_ADDRSTRLEN);
}

static bool find_addresses(const struct favo_call *call, char node[INET6_ADDRSTRLEN],
			   char own[INET6_ADDRSTRLEN])
{
	const union MHD_ConnectionInfo *client, *fd;
	struct sockaddr_storage local = {0};
	socklen_t len = sizeof(local);

	client = MHD_get_connection_info(call->connection,
					 MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	fd = MHD_get_connection_info(call->connection, MHD_CONNECTION_INFO_CONNECTION_FD);
	return client && fd && format_address(node, client->client_addr) &&
	       getsockname(fd->connect_fd, (struct sockaddr *)&local, &len) == 0 &&
	       format_address(own, (struct sockaddr *)&local);
}

/* ---- the route ---- */

struct question {
	struct favo_digest image;
	const char *node;
	uint64_t port;
	bool alone; /* it has no neighbour that answers */
	char address[INET6_ADDRSTRLEN], own[INET6_ADDRSTRLEN];
};

static int parse(struct question *q, const struct favo_call *call, const json_t *body,
		 struct favo_err *err)
{
	static const char *const known[] = {"node", "port", "alone", NULL};
	int ret = favo_digest_parse(&q->image, call->tail, err);

	if (ret == 0)
		ret = favo_json_only(body, known, err);
	if (ret == 0)
		ret = favo_json_str(&q->node, body, "node", err);
	if (ret == 0)
		ret = favo_json_u64(&q->port, body, "port", 0, 65535, err);
	if (ret == 0)
		ret = favo_json_bool(&q->alone, body, "alone", err);
	if (ret == 0 && !favo_is_name(q->node, "._-", FAVO_WIRE_NAME_MAX))
		ret = favo_fail(err, EINVAL, "node: \"%.64s\" is no node's name",
				q->node);
	if (ret == 0 && !find_addresses(call, q->address, q->own))
		ret = favo_fail(err, EIO, "the connection has no address");
	return ret;
}

/* Note who asks; the list of his neighbours. */
static json_t *track(struct favo_tracker *t, const struct question *q)
{
	json_t *list = json_array();
	int64_t now_ms = favo_now_ms();
	struct member *m = NULL;
	struct image *image;

	pthread_mutex_lock(&t->lock);
	forget_stale(t, now_ms);
	image = get_image(t, &q->image);
	if (image)
		m = get_member(image, q->node);
	if (m) {
		m->port = (uint16_t)q->port;
		m->seen_ms = now_ms;
		memcpy(m->address, q->address, sizeof(m->address));
		m->fed |= count_fed(image) < FED_MAX;
		name_neighbours(image, m, list);
	}
	if (t->sources && (!m || m->fed || q->alone))
		json_array_append_new(list, neighbour_json("favod", q->own,
							   favo_sources_port(t->sources),
							   true));
	pthread_mutex_unlock(&t->lock);
	return list;
}

static void answer(struct favo_favod *d, struct favo_call *call, const struct question *q)
{
	unsigned char token[FAVO_WIRE_TOKEN];
	char hex[2 * FAVO_WIRE_TOKEN + 1];
	struct favo_err err = {0};
	int ret;

	if (!d->tracker->sources) {
		favo_call_error(call, MHD_HTTP_NOT_FOUND, "set source_port in favo.conf",
				NULL, "favod gives no image to several nodes at once");
		return;
	}
	ret = favo_sources_want(d->tracker->sources, &q->image, &err);
	if (ret == 0)
		ret = favo_sources_token(d->tracker->sources, &q->image, token, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	favo_hex_encode(hex, token, sizeof(token));
	favo_call_json(call, MHD_HTTP_OK,
		       json_pack("{s:s, s:o}", "token", hex, "neighbours",
				 track(d->tracker, q)));
}

void favo_tracker_answer(struct favo_favod *d, struct favo_call *call,
			 const struct favo_digest *image, const char *node, uint16_t port,
			 bool alone)
{
	struct question q = {.image = *image, .node = node, .port = port, .alone = alone};

	if (!find_addresses(call, q.address, q.own))
		favo_call_error(call, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL,
				"the connection has no address");
	else
		answer(d, call, &q);
}

static void post_swarm(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *body = NULL;
	struct favo_err err = {0};
	struct question q;
	int ret = favo_json_parse(&body, call->body, call->len, &err);

	if (ret == 0)
		ret = parse(&q, call, body, &err);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		answer(d, call, &q);
}

const struct favo_route favo_swarm_routes[] = {
	{"POST", "/v1/swarms/", 4096, true, post_swarm},
	{.method = NULL},
};

/* ---- start and end ---- */

int favo_tracker_open(struct favo_tracker **out, const struct favo_conf *conf,
		      struct favo_store *store, struct favo_err *err)
{
	struct favo_tracker *t = calloc(1, sizeof(*t));
	favo_autofree char *secret = NULL;
	struct favo_err trouble = {0};
	size_t len = 0;
	int ret;

	if (!t)
		return favo_fail(err, ENOMEM, "tracker: out of memory");
	pthread_mutex_init(&t->lock, NULL);
	*out = t;
	if (!conf->source_port)
		return 0;
	/* Only favod has this file, and it is the same after a restart. */
	ret = favo_file_read(conf->grant_key, 65536, &secret, &len, err);
	if (ret < 0)
		return ret;
	/* Without it nodes fetch one by one: worse, but they do. */
	if (favo_sources_start(&t->sources, store, (uint16_t)conf->source_port, secret,
			       len, &trouble) < 0)
		favo_log(FAVO_WARN, "%s; nodes do not fetch together", trouble.msg);
	explicit_bzero(secret, len);
	return 0;
}

void favo_tracker_close(struct favo_tracker *t)
{
	if (!t)
		return;
	favo_sources_stop(t->sources);
	for (size_t i = 0; i < t->n; i++)
		free(t->images[i].members);
	pthread_mutex_destroy(&t->lock);
	free(t);
}
