// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A session of the exchange between nodes: its connections and what comes
 * over them; see peer.h. Everything that comes is foreign until a digest says
 * otherwise. What goes out is decided in peer_serve.c.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "images/peer_internal.h"

#define EVENTS 64
#define GREET_US 5000000 /* connected and greeted within */
#define INDEX_US 3000000 /* then the index is asked of another */
#define DEAF_US 500000
#define UNIT_OVERHEAD (64u << 10)

int favo_peer_new(struct favo_peer **out, const struct favo_peer_params *params,
		  struct favo_err *err)
{
	struct epoll_event event = {.events = EPOLLIN};
	favo_autopeer struct favo_peer *p = calloc(1, sizeof(*p));
	char hex[FAVO_DIGEST_HEX_SIZE];

	if (!p)
		return favo_fail(err, ENOMEM, "image exchange: out of memory");
	p->params = *params;
	snprintf(p->name, sizeof(p->name), "%s", params->name);
	snprintf(p->label, sizeof(p->label), "%.12s",
		 favo_digest_format_hex(&params->manifest->id, hex));
	p->index_asked = -1;
	pthread_mutex_init(&p->lock, NULL);
	favo_rate_init(&p->send_rate, params->send_rate, favo_now_us());
	favo_rate_init(&p->receive_rate, params->receive_rate, favo_now_us());
	p->stats.progress_us = favo_now_us();
	p->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	p->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (p->epoll_fd < 0 || p->event_fd < 0 ||
	    epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, p->event_fd, &event) < 0)
		return favo_fail(err, errno, "image exchange: epoll: %m");
	*out = favo_steal_ptr(&p);
	return 0;
}

void favo_peer_free(struct favo_peer *p)
{
	struct favo_peer_order *order;

	if (!p)
		return;
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		favo_conn_free(p->conns[i]);
	while ((order = p->orders) != NULL) {
		p->orders = order->next;
		favo_close(&order->fd);
		free(order);
	}
	if (p->units)
		favo_peer_forget(p);
	favo_swarm_free(p->swarm);
	favo_source_free(p->source);
	favo_units_free(p->units);
	favo_close(&p->epoll_fd);
	favo_close(&p->event_fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

const struct favo_digest *favo_peer_image(const struct favo_peer *p)
{
	return &p->params.manifest->id;
}

/* ---- orders of other threads ---- */

static void order_add(struct favo_peer *p, const struct favo_peer_order *what)
{
	struct favo_peer_order *order = malloc(sizeof(*order));
	uint64_t one = 1;

	if (!order) {
		if (what->fd >= 0)
			close(what->fd);
		return;
	}
	*order = *what;
	pthread_mutex_lock(&p->lock);
	order->next = p->orders;
	p->orders = order;
	pthread_mutex_unlock(&p->lock);
	(void)!write(p->event_fd, &one, sizeof(one));
}

void favo_peer_connect(struct favo_peer *p, const struct favo_neighbour *n)
{
	order_add(p, &(struct favo_peer_order){.fd = -1, .neighbour = *n});
}

void favo_peer_accept(struct favo_peer *p, int fd, const struct favo_wire_hello *hello)
{
	order_add(p, &(struct favo_peer_order){.fd = fd, .hello = *hello});
}

/* ---- connections ---- */

static void conn_end(struct favo_conn *c)
{
	struct favo_peer *p = c->p;

	if (p->index_asked == (int)c->slot)
		p->index_asked = -1;
	if (c->joined && p->swarm)
		favo_swarm_leave(p->swarm, c->slot);
	if (p->source)
		favo_source_leave(p->source, c->slot);
	p->conns[c->slot] = NULL;
	favo_conn_free(c);
}

/* It harms: not spoken to again in this session. */
static void ban(struct favo_conn *c, const char *why)
{
	struct favo_peer *p = c->p;

	favo_log(FAVO_WARN, "image %s: %s %s (%s) is dropped: %s", p->label,
		 c->source ? "source" : "node", c->name[0] ? c->name : "?",
		 c->address[0] ? c->address : "?", why);
	p->stats.dropped++;
	if (c->name[0] && !c->source && p->n_banned < FAVO_PEER_BANNED_MAX)
		memcpy(p->banned[p->n_banned++], c->name, sizeof(c->name));
	c->doomed = true;
}

static bool is_known(const struct favo_peer *p, const char *name)
{
	for (unsigned int i = 0; i < p->n_banned; i++)
		if (strcmp(p->banned[i], name) == 0)
			return true;
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		if (p->conns[i] && strcmp(p->conns[i]->name, name) == 0)
			return true;
	return strcmp(p->name, name) == 0;
}

/* A place and memory for a connection; takes fd. */
static struct favo_conn *conn_new(struct favo_peer *p, int fd, const char *name)
{
	struct epoll_event event = {.events = EPOLLIN};
	struct favo_conn *c = NULL;
	unsigned int slot = 0;

	while (slot < FAVO_SWARM_PEERS_MAX && p->conns[slot])
		slot++;
	if (slot < FAVO_SWARM_PEERS_MAX)
		c = calloc(1, sizeof(*c));
	if (!c) {
		close(fd);
		return NULL;
	}
	*c = (struct favo_conn){.p = p, .slot = slot, .fd = fd};
	c->since_us = c->progress_us = favo_now_us();
	snprintf(c->name, sizeof(c->name), "%s", name);
	event.data.ptr = c;
	if (epoll_ctl(p->epoll_fd, EPOLL_CTL_ADD, fd, &event) < 0) {
		favo_conn_free(c);
		return NULL;
	}
	p->conns[slot] = c;
	return c;
}

static void send_hello(struct favo_conn *c)
{
	struct favo_peer *p = c->p;
	unsigned char payload[FAVO_WIRE_HELLO_MAX];
	struct favo_wire_hello hello = {
		.source = p->params.source,
		.units = p->units ? p->units->n : 0,
		.image = p->params.manifest->id,
	};

	memcpy(hello.token, p->params.token, sizeof(hello.token));
	memcpy(hello.name, p->name, sizeof(hello.name));
	c->doomed |= !favo_conn_send(c, FAVO_WIRE_HELLO, payload,
				     favo_wire_format_hello(payload, &hello));
}

/* Both know the units: from now on the neighbour counts. */
static void join(struct favo_conn *c)
{
	struct favo_peer *p = c->p;

	if (c->joined || !c->greeted || !p->units)
		return;
	if (p->swarm && favo_swarm_join(p->swarm, c->slot,
					c->source ? FAVO_SWARM_SOURCE : FAVO_SWARM_PEER,
					favo_now_us(), NULL) < 0) {
		c->doomed = true;
		return;
	}
	c->joined = true;
	if (!c->map_sent && (!p->source || p->shown))
		favo_peer_send_map(c);
	for (uint32_t u = 0; u < p->units->n && u / 8 < c->map_len; u++) {
		if (!(c->map[u / 8] >> u % 8 & 1))
			continue;
		if (p->swarm)
			favo_swarm_has(p->swarm, c->slot, u);
		else
			favo_source_has(p->source, c->slot, u);
	}
}

static int take_hello(struct favo_conn *c, const struct favo_wire_hello *hello,
		      struct favo_err *err)
{
	struct favo_peer *p = c->p;

	if (!favo_digest_equal(&hello->image, &p->params.manifest->id))
		return favo_fail(err, EBADMSG, "it greets for another image");
	if (memcmp(hello->token, p->params.token, sizeof(hello->token)) != 0)
		return favo_fail(err, EBADMSG, "it does not have the site's token");
	if (hello->units && p->units && hello->units != p->units->n)
		return favo_fail(err, EBADMSG, "it counts %u units in place of %u",
				 hello->units, p->units->n);
	memcpy(c->name, hello->name, sizeof(c->name));
	c->greeted = true;
	join(c);
	return 0;
}

static void start_connect(struct favo_peer *p, const struct favo_neighbour *n)
{
	struct sockaddr_in6 six = {.sin6_family = AF_INET6, .sin6_port = htons(n->port)};
	struct sockaddr_in four = {.sin_family = AF_INET, .sin_port = htons(n->port)};
	bool is_four = inet_pton(AF_INET, n->address, &four.sin_addr) == 1;
	struct favo_conn *c;
	int fd, ret;

	if (is_known(p, n->name) ||
	    (!is_four && inet_pton(AF_INET6, n->address, &six.sin6_addr) != 1))
		return;
	fd = socket(is_four ? AF_INET : AF_INET6,
		    SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	if (fd < 0)
		return;
	favo_conn_setup(fd);
	ret = is_four ? connect(fd, (struct sockaddr *)&four, sizeof(four))
		      : connect(fd, (struct sockaddr *)&six, sizeof(six));
	if (ret < 0 && errno != EINPROGRESS) {
		close(fd);
		return;
	}
	c = conn_new(p, fd, n->name);
	if (!c)
		return;
	c->connecting = ret < 0;
	c->source = n->source;
	memcpy(c->address, n->address, sizeof(c->address));
	send_hello(c);
}

static void start_accepted(struct favo_peer *p, int fd,
			   const struct favo_wire_hello *hello)
{
	struct sockaddr_storage from = {0};
	socklen_t len = sizeof(from);
	struct favo_err err = {0};
	struct favo_conn *c;

	if (is_known(p, hello->name)) {
		close(fd);
		return;
	}
	favo_conn_setup(fd);
	c = conn_new(p, fd, hello->name);
	if (!c)
		return;
	if (getpeername(fd, (struct sockaddr *)&from, &len) == 0)
		(void)inet_ntop(
			from.ss_family,
			from.ss_family == AF_INET
				? (void *)&((struct sockaddr_in *)&from)->sin_addr
				: (void *)&((struct sockaddr_in6 *)&from)->sin6_addr,
			c->address, sizeof(c->address));
	send_hello(c);
	if (take_hello(c, hello, &err) < 0)
		ban(c, err.msg);
}

static void take_orders(struct favo_peer *p)
{
	struct favo_peer_order *order, *next;
	uint64_t count;

	(void)!read(p->event_fd, &count, sizeof(count));
	pthread_mutex_lock(&p->lock);
	order = p->orders;
	p->orders = NULL;
	pthread_mutex_unlock(&p->lock);
	for (; order; order = next) {
		next = order->next;
		if (order->fd >= 0)
			start_accepted(p, order->fd, &order->hello);
		else
			start_connect(p, &order->neighbour);
		free(order);
	}
}

/* ---- the index, and what follows from it ---- */

/* Number the units as soon as the index is here. */
static int set_units(struct favo_peer *p, struct favo_err *err)
{
	const struct favo_index *index = p->params.ops->index(p->params.user);
	int ret;

	if (p->units || !index)
		return 0;
	ret = favo_units_new(&p->units, p->params.manifest, index, err);
	if (ret < 0)
		return ret;
	p->frames = calloc(p->units->n, sizeof(*p->frames));
	p->kept = calloc(p->units->n, sizeof(*p->kept));
	if (!p->frames || !p->kept)
		return favo_fail(err, ENOMEM, "image exchange: out of memory");
	if (p->params.source)
		ret = favo_source_new(&p->source, p->units->n, err);
	else
		ret = favo_swarm_new(&p->swarm, p->units->n, (uint64_t)favo_now_ns(),
				     err);
	for (uint32_t u = 0; ret == 0 && p->swarm && u < p->units->n; u++) {
		uint32_t i = p->units->first[u];

		while (i < p->units->first[u + 1] &&
		       p->params.ops->has(p->params.user, &p->units->items[i]))
			i++;
		if (i == p->units->first[u + 1])
			favo_swarm_here(p->swarm, u);
	}
	for (unsigned int i = 0; ret == 0 && i < FAVO_SWARM_PEERS_MAX; i++)
		if (p->conns[i])
			join(p->conns[i]);
	return ret;
}

/* The index is asked of one neighbour at a time that has it. */
static void ask_index(struct favo_peer *p, int64_t now_us)
{
	unsigned char payload[FAVO_WIRE_ASK_LEN] = {0};
	unsigned int first;

	if (p->units || (p->index_asked >= 0 && now_us - p->index_asked_us < INDEX_US))
		return;
	first = (unsigned int)(p->index_asked + 1);
	favo_wire_put_u32(payload, FAVO_WIRE_INDEX);
	for (unsigned int k = 0; k < FAVO_SWARM_PEERS_MAX; k++) {
		struct favo_conn *c = p->conns[(first + k) % FAVO_SWARM_PEERS_MAX];

		/* Who sent a map has it; the source always has. */
		if (!c || !c->greeted || c->doomed || (!c->source && !c->map_len))
			continue;
		if (!favo_conn_send(c, FAVO_WIRE_ASK, payload, sizeof(payload)))
			continue;
		p->index_asked = (int)c->slot;
		p->index_asked_us = now_us;
		return;
	}
}

int favo_peer_prefer(struct favo_peer *p, const uint32_t *chunks, uint32_t n,
		     struct favo_err *err)
{
	favo_autofree uint32_t *units = calloc(n + 1, sizeof(*units));
	const struct favo_index *index = p->params.ops->index(p->params.user);
	uint32_t count = 0;
	int ret = set_units(p, err);

	if (ret < 0)
		return ret;
	if (!units)
		return favo_fail(err, ENOMEM, "image exchange: out of memory");
	for (uint32_t i = 0; p->units && i < n; i++) {
		uint32_t unit;

		if (chunks[i] >= index->n_chunks)
			return favo_fail(err, EINVAL, "there is no chunk %u", chunks[i]);
		unit = p->units->of_chunk[chunks[i]];
		if (!count || units[count - 1] != unit)
			units[count++] = unit;
	}
	if (p->source)
		return favo_source_prefer(p->source, units, count, err);
	return p->swarm ? favo_swarm_prefer(p->swarm, units, count, err) : 0;
}

/* ---- what comes ---- */

static void tell_all(struct favo_peer *p, uint32_t unit)
{
	unsigned char payload[4];

	favo_wire_put_u32(payload, unit);
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++) {
		struct favo_conn *c = p->conns[i];

		if (c && c->map_sent)
			c->doomed |= !favo_conn_send(c, FAVO_WIRE_HAVE, payload,
						     sizeof(payload));
	}
}

static void has_unit(struct favo_conn *c, uint32_t unit)
{
	struct favo_peer *p = c->p;

	if (unit / 8 >= c->map_len || c->map[unit / 8] >> unit % 8 & 1)
		return;
	c->map[unit / 8] |= (unsigned char)(1u << unit % 8);
	c->n_has++;
	if (c->joined && p->swarm)
		favo_swarm_has(p->swarm, c->slot, unit);
	if (c->joined && p->source)
		favo_source_has(p->source, c->slot, unit);
}

static int take_map(struct favo_conn *c, const unsigned char *map, size_t len,
		    struct favo_err *err)
{
	if (c->p->units && len != (c->p->units->n + 7) / 8)
		return favo_fail(err, EBADMSG, "its map has %zu bytes", len);
	if (c->map_len && c->map_len != len)
		return favo_fail(err, EBADMSG, "its map changes its length");
	if (!c->map_len) {
		c->map = calloc(len, 1);
		if (!c->map)
			return favo_fail(err, ENOMEM, "out of memory");
		c->map_len = len;
	}
	for (uint32_t u = 0; u < len * 8; u++)
		if (map[u / 8] >> u % 8 & 1)
			has_unit(c, u);
	return 0;
}

/* Each blob of a unit, checked; -EBADMSG: the neighbour's fault. */
static int put_unit(struct favo_peer *p, uint32_t unit, const unsigned char *data,
		    size_t len, struct favo_err *err)
{
	const unsigned char *blob;
	size_t at = 0, n = 0;

	for (uint32_t i = p->units->first[unit]; i < p->units->first[unit + 1]; i++) {
		const struct favo_item *item = &p->units->items[i];
		int ret = favo_wire_next_blob(data, len, &at, &blob, &n, err);

		if (ret == 0)
			ret = favo_fail(err, EBADMSG, "a unit is cut short");
		if (ret > 0)
			ret = p->params.ops->has(p->params.user, item)
				      ? 0
				      : p->params.ops->put(p->params.user, item, blob, n,
							   err);
		if (ret < 0)
			return ret;
	}
	return at == len ? 0 : favo_fail(err, EBADMSG, "a unit is too long");
}

static int take_index(struct favo_conn *c, const unsigned char *data, size_t len,
		      struct favo_err *err)
{
	struct favo_peer *p = c->p;
	const unsigned char *blob;
	size_t at = 0, n = 0;
	int ret;

	if (p->units)
		return 0;
	ret = favo_wire_next_blob(data, len, &at, &blob, &n, err);
	if (ret == 0)
		ret = favo_fail(err, EBADMSG, "an empty index");
	if (ret > 0)
		ret = p->params.ops->put_index(p->params.user, blob, n, err);
	return ret < 0 ? ret : set_units(p, err);
}

static int take_unit(struct favo_conn *c, const unsigned char *payload, size_t len,
		     unsigned char **frame, struct favo_err *err)
{
	struct favo_peer *p = c->p;
	uint32_t unit = favo_wire_u32(payload);
	int64_t now_us = favo_now_us();
	int ret = 0;

	p->receive_rate.tokens -= (int64_t)len;
	if (unit == FAVO_WIRE_INDEX)
		return take_index(c, payload + 4, len - 4, err);
	if (!p->swarm || unit >= p->units->n)
		return favo_fail(err, EBADMSG, "nobody asked for unit %u", unit);
	if (!favo_swarm_is_here(p->swarm, unit))
		ret = put_unit(p, unit, payload + 4, len - 4, err);
	if (ret < 0)
		return ret;
	if (c->source)
		p->stats.from_source += len;
	else
		p->stats.from_peers += len;
	if (!favo_swarm_got(p->swarm, c->slot, unit, now_us))
		return 0;
	p->stats.progress_us = now_us;
	if (*frame)
		favo_peer_keep(p, unit, favo_steal_ptr(frame), len + FAVO_WIRE_HEAD);
	tell_all(p, unit);
	return 0;
}

static int on_frame(struct favo_conn *c, const struct favo_wire_head *head,
		    const unsigned char *payload, unsigned char **frame,
		    struct favo_err *err)
{
	struct favo_peer *p = c->p;
	struct favo_wire_hello hello;
	uint32_t unit;
	int ret;

	if (!c->greeted) {
		if (head->type != FAVO_WIRE_HELLO)
			return favo_fail(err, EBADMSG, "no greeting");
		ret = favo_wire_parse_hello(&hello, payload, head->len, err);
		return ret < 0 ? ret : take_hello(c, &hello, err);
	}
	unit = head->len >= 4 ? favo_wire_u32(payload) : 0;
	switch (head->type) {
	case FAVO_WIRE_HAVE_MAP:
		return take_map(c, payload, head->len, err);
	case FAVO_WIRE_HAVE:
		has_unit(c, unit);
		return 0;
	case FAVO_WIRE_ASK:
		return favo_peer_asked(c, unit, favo_wire_u32(payload + 4) & 1, err);
	case FAVO_WIRE_CANCEL:
		favo_peer_cancelled(c, unit);
		return 0;
	case FAVO_WIRE_UNIT:
		return take_unit(c, payload, head->len, frame, err);
	case FAVO_WIRE_NONE:
		if (p->swarm)
			favo_swarm_refused(p->swarm, c->slot, unit);
		return 0;
	default:
		return favo_fail(err, EBADMSG, "it greets twice");
	}
}

/* ---- the loop ---- */

static void readable(struct favo_conn *c)
{
	struct favo_peer *p = c->p;
	uint64_t root = p->params.manifest->root.bytes;
	/* No chunk but the last is shorter than 16 KiB. */
	uint64_t chunks = root / 16384 + root / 1048576 + 64;
	uint32_t map_max =
		(uint32_t)FAVO_MIN(chunks / 8 + 2, (uint64_t)FAVO_SWARM_UNITS_MAX / 8);
	uint64_t unit_max = p->units ? p->units->largest : chunks * 40;
	uint64_t before = c->received;
	struct favo_err err = {0};
	int ret;

	unit_max += unit_max / 64 + UNIT_OVERHEAD;
	ret = favo_conn_read(c, map_max, unit_max, on_frame, &err);
	if (c->received != before && p->swarm && c->joined)
		favo_swarm_heard(p->swarm, c->slot, favo_now_us());
	if (ret >= 0)
		return;
	if (ret == -ENOSPC || ret == -EROFS || ret == -ENOMEM || ret == -EDQUOT) {
		p->failure = ret;
		p->failure_err = err;
	} else if (ret == -EBADMSG || ret == -EPROTONOSUPPORT) {
		ban(c, err.msg);
	}
	c->doomed = true;
}

static void connected(struct favo_conn *c)
{
	socklen_t len = sizeof(int);
	int error = 0;

	if (getsockopt(c->fd, SOL_SOCKET, SO_ERROR, &error, &len) < 0 || error)
		c->doomed = true;
	c->connecting = false;
}

static void ask(struct favo_peer *p, int64_t now_us)
{
	unsigned char payload[FAVO_WIRE_ASK_LEN];
	struct favo_swarm_ask what;
	unsigned int silent;
	int64_t wait;

	while (p->swarm && favo_swarm_silent(p->swarm, now_us, &silent)) {
		struct favo_conn *c = p->conns[silent];

		if (!c) {
			favo_swarm_leave(p->swarm, silent);
			continue;
		}
		ban(c, "it owes an answer and is silent");
		conn_end(c);
	}
	if (!favo_rate_take(&p->receive_rate, 0, now_us, &wait)) {
		p->wake_us = FAVO_MIN(p->wake_us, now_us + wait);
		return;
	}
	ask_index(p, now_us);
	while (p->swarm && favo_swarm_next(p->swarm, now_us, &what)) {
		struct favo_conn *c = p->conns[what.peer];
		bool cancel = what.what == FAVO_SWARM_CANCEL;

		if (!c)
			continue;
		favo_wire_put_u32(payload, what.unit);
		favo_wire_put_u32(payload + 4, what.urgent);
		c->doomed |= !favo_conn_send(c, cancel ? FAVO_WIRE_CANCEL : FAVO_WIRE_ASK,
					     payload, cancel ? 4 : sizeof(payload));
	}
}

/* Send what waits, close what is over, watch for what may come. */
static void settle(struct favo_peer *p, int64_t now_us)
{
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++) {
		struct favo_conn *c = p->conns[i];
		struct epoll_event event = {.events = EPOLLIN, .data.ptr = c};
		bool out;

		if (!c)
			continue;
		if (!c->doomed && favo_conn_flush(c, NULL) < 0)
			c->doomed = true;
		if (!c->greeted && now_us - c->since_us > GREET_US)
			c->doomed = true;
		if (c->doomed) {
			conn_end(c);
			continue;
		}
		out = c->connecting || c->unit || c->out_len > c->out_at;
		if (out == c->watching_out)
			continue;
		if (out)
			event.events |= EPOLLOUT;
		if (epoll_ctl(p->epoll_fd, EPOLL_CTL_MOD, c->fd, &event) == 0)
			c->watching_out = out;
	}
}

static void work(struct favo_peer *p)
{
	int64_t now_us = favo_now_us();

	/* Who was not listened to (a slow disk) has not been silent. */
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++)
		if (p->swarm && now_us - p->worked_us > DEAF_US && p->conns[i] &&
		    p->conns[i]->joined)
			favo_swarm_heard(p->swarm, i, now_us);
	p->worked_us = now_us;
	p->wake_us = INT64_MAX;
	ask(p, now_us);
	favo_peer_serve(p, now_us);
	settle(p, now_us);
	/* What was sent to the end made room. */
	favo_peer_serve(p, now_us);
	if (p->swarm)
		p->wake_us = FAVO_MIN(p->wake_us, favo_swarm_wake(p->swarm, now_us));
}

int favo_peer_run(struct favo_peer *p, int timeout_ms, struct favo_err *err)
{
	int64_t end_us = favo_now_us() + (int64_t)timeout_ms * 1000;
	struct epoll_event events[EVENTS];
	int ret = set_units(p, err), n;
	bool lacking = favo_peer_missing(p) != 0;

	while (ret == 0 && !p->failure) {
		int64_t now_us, until;

		work(p);
		now_us = favo_now_us();
		until = FAVO_MIN(FAVO_MIN(end_us, p->wake_us), now_us + 50000);
		n = epoll_wait(p->epoll_fd, events, EVENTS,
			       until > now_us ? (int)((until - now_us + 999) / 1000) : 0);
		for (int i = 0; i < n; i++) {
			struct favo_conn *c = events[i].data.ptr;

			if (!c) {
				take_orders(p);
				continue;
			}
			if (c->connecting && events[i].events & (EPOLLOUT | EPOLLERR))
				connected(c);
			if (!c->doomed && events[i].events & ~(uint32_t)EPOLLOUT)
				readable(c);
		}
		if (favo_now_us() >= end_us || (lacking && !favo_peer_missing(p)))
			break;
	}
	if (ret == 0 && p->failure) {
		if (err)
			*err = p->failure_err;
		ret = p->failure;
	}
	if (ret == 0)
		work(p);
	return ret;
}

uint32_t favo_peer_missing(const struct favo_peer *p)
{
	if (p->source)
		return 0;
	return p->swarm ? favo_swarm_missing(p->swarm) : UINT32_MAX;
}

bool favo_peer_idle(const struct favo_peer *p)
{
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++) {
		const struct favo_conn *c = p->conns[i];

		if (c && !c->source && (!p->units || c->n_has < p->units->n))
			return false;
	}
	return true;
}

void favo_peer_stats(const struct favo_peer *p, struct favo_peer_stats *out)
{
	struct favo_swarm_stats swarm = {0};

	if (p->swarm)
		favo_swarm_stats(p->swarm, &swarm);
	*out = p->stats;
	out->duplicates = swarm.duplicates;
	for (unsigned int i = 0; i < FAVO_SWARM_PEERS_MAX; i++) {
		const struct favo_conn *c = p->conns[i];

		if (c && c->greeted && c->source)
			out->sources++;
		else if (c && c->greeted)
			out->neighbours++;
	}
}
