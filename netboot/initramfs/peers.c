// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The image from favod's source and from nodes that start at the same time,
 * by the same exchange as on running nodes (docs/fan-out.md). Works as long as
 * something comes; what is missing then is asked of favod by plain requests.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/peer_disk.h"
#include "images/peer_hub.h"
#include "netboot/initramfs/netinit.h"

#define ASK_SOON_MS 1000
#define ASK_MS 5000
#define STALL_MS 4000
#define SHOW_MS 2000
#define RUN_MS 200
#define SERVE_LAST_MS 3000 /* for those that lack only a little */
#define NEIGHBOURS_MAX 64

struct session {
	const struct favo_net_config *config;
	struct favo_peer_disk disk;
	struct favo_peer *peer;
	struct favo_hub *hub;
};

static void on_guest(void *user, int fd, const struct favo_wire_hello *hello)
{
	struct session *s = user;

	if (s->peer && favo_digest_equal(&hello->image, &s->disk.manifest->id))
		favo_peer_accept(s->peer, fd, hello);
	else
		close(fd);
}

static int parse_neighbour(struct favo_neighbour *n, const json_t *obj,
			   struct favo_err *err)
{
	const char *name, *address;
	uint64_t port;
	int ret;

	memset(n, 0, sizeof(*n));
	if ((ret = favo_json_str(&name, obj, "name", err)) < 0 ||
	    (ret = favo_json_str(&address, obj, "address", err)) < 0 ||
	    (ret = favo_json_u64(&port, obj, "port", 1, 65535, err)) < 0 ||
	    (ret = favo_json_bool(&n->source, obj, "source", err)) < 0)
		return ret;
	snprintf(n->name, sizeof(n->name), "%s", name);
	snprintf(n->address, sizeof(n->address), "%s", address);
	n->port = (uint16_t)port;
	return 0;
}

static int ask_tracker(struct session *s, bool alone, json_t **out, struct favo_err *err)
{
	char body[80];
	struct favo_web_reply reply = {0};
	int ret;

	snprintf(body, sizeof(body), "{\"port\":%d,\"alone\":%s}",
		 s->hub ? favo_hub_port(s->hub) : 0, alone ? "true" : "false");
	ret = favo_net_ask(s->config, "POST", "swarm", body, strlen(body), 1 << 20,
			   &reply, err);
	if (ret == 0)
		ret = favo_json_parse(out, reply.body, reply.len, err);
	free(reply.body);
	return ret;
}

static int connect_all(struct session *s, const json_t *answer, struct favo_err *err)
{
	json_t *list;
	int ret = favo_json_array(&list, answer, "neighbours", err);

	for (size_t i = 0; ret == 0 && i < json_array_size(list) && i < NEIGHBOURS_MAX;
	     i++) {
		struct favo_neighbour n;

		ret = parse_neighbour(&n, json_array_get(list, i), err);
		if (ret == 0)
			favo_peer_connect(s->peer, &n);
	}
	return ret;
}

static int session_open(struct session *s, struct favo_fetch *fetch, struct favo_err *err)
{
	struct favo_peer_params params = {
		.name = s->config->node, .ops = &favo_peer_disk_ops, .user = &s->disk};
	favo_autojson json_t *answer = NULL;
	const char *hex;
	int ret = favo_peer_disk_fetch(&s->disk, fetch, err);

	/* Without a door of our own we can still take. */
	if (ret == 0 &&
	    favo_hub_start(&s->hub, s->config->peer_port, on_guest, s, err) < 0)
		favo_log(FAVO_WARN, "%s", err->msg);
	if (ret == 0)
		ret = ask_tracker(s, true, &answer, err);
	if (ret == 0)
		ret = favo_json_str(&hex, answer, "token", err);
	if (ret == 0)
		ret = favo_hex_decode(params.token, sizeof(params.token), hex, err);
	params.manifest = s->disk.manifest;
	if (ret == 0)
		ret = favo_peer_new(&s->peer, &params, err);
	return ret < 0 ? ret : connect_all(s, answer, err);
}

static void session_close(struct session *s)
{
	favo_hub_stop(s->hub);
	favo_peer_free(s->peer);
	favo_peer_disk_fini(&s->disk);
}

static void show(const struct session *s, struct favo_fetch *fetch,
		 const struct favo_peer_stats *stats)
{
	struct favo_fetch_progress now;
	char done[32], total[32], peers[32], text[160];

	favo_fetch_progress(fetch, &now);
	snprintf(text, sizeof(text), "%s of %s, %s from other nodes",
		 favo_format_size(done, sizeof(done), now.done),
		 favo_format_size(total, sizeof(total), now.total),
		 favo_format_size(peers, sizeof(peers), stats->from_peers));
	favo_net_report(s->config, "fetch", text);
}

static int run(struct session *s, struct favo_fetch *fetch, struct favo_err *err)
{
	int64_t now_ms = favo_now_ms(), moved_ms = now_ms, shown_ms = now_ms;
	int64_t asked_ms = now_ms, done_ms = 0;
	struct favo_peer_stats stats = {0};
	int ret = 0;

	while (ret == 0) {
		bool alone;

		ret = favo_peer_run(s->peer, RUN_MS, err);
		now_ms = favo_now_ms();
		favo_peer_stats(s->peer, &stats);
		moved_ms = FAVO_MAX(moved_ms, stats.progress_us / 1000);
		if (!favo_peer_missing(s->peer)) {
			done_ms = done_ms ? done_ms : now_ms;
			if (favo_peer_idle(s->peer) || now_ms - done_ms > SERVE_LAST_MS)
				break;
		} else if (now_ms - moved_ms > STALL_MS) {
			break;
		}
		alone = !stats.neighbours && !stats.sources;
		if (now_ms - asked_ms > (alone ? ASK_SOON_MS : ASK_MS)) {
			favo_autojson json_t *answer = NULL;

			asked_ms = now_ms;
			if (ask_tracker(s, alone, &answer, NULL) == 0)
				(void)connect_all(s, answer, NULL);
		}
		if (now_ms - shown_ms > SHOW_MS) {
			shown_ms = now_ms;
			show(s, fetch, &stats);
		}
	}
	show(s, fetch, &stats);
	return ret;
}

int favo_net_fetch_peers(const struct favo_net_config *c, struct favo_fetch *fetch,
			 struct favo_err *err)
{
	struct session s = {.config = c};
	struct favo_err why = {0};
	int ret = session_open(&s, fetch, &why);

	if (ret == 0)
		ret = run(&s, fetch, &why);
	session_close(&s);
	if (ret == -ENOSPC || ret == -EROFS)
		return favo_fail(err, -ret, "%s", why.msg);
	if (ret < 0)
		favo_log(FAVO_WARN, "%s; fetching from favod alone", why.msg);
	return 0;
}
