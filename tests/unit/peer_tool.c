// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The exchange between nodes without daemons, for tests/bench/fanout and
 * tests/system/t0170-swarm.t:
 *
 *   peer-tool make STORE FILE         an image whose root is FILE; prints its id
 *   peer-tool source STORE ID PORT    the source of it
 *   peer-tool node CACHE STORE ID NAME PORT [--lie] [--rate BYTES] NEIGHBOUR...
 *
 * NEIGHBOUR is NAME=ADDRESS:PORT; the name "source" is the source. A node
 * reads the manifest from STORE, as it would from favod, and nothing else. It
 * prints "done MS from-peers BYTES from-source BYTES duplicates N" when it
 * has all, and goes on to serve until it is killed.
 */
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/pack.h"
#include "images/peer_disk.h"
#include "images/peer_hub.h"

#define SECRET "any secret will do here"

static int fail(const struct favo_err *err)
{
	fprintf(stderr, "peer-tool: %s\n", err->msg);
	return 1;
}

static json_t *digest_json(const struct favo_digest *digest)
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	return json_string(favo_digest_format(digest, text));
}

static int make(const char *dir, const char *file)
{
	favo_autostore struct favo_store *store = NULL;
	favo_autotx struct favo_store_tx *tx = NULL;
	favo_autoindex struct favo_index *index = NULL;
	favo_autoclose int fd = open(file, O_RDONLY | O_CLOEXEC);
	favo_autofree void *bytes = NULL;
	struct favo_digest digest, kernel, initramfs, id;
	char text[FAVO_DIGEST_TEXT_SIZE];
	struct favo_image_name name;
	struct favo_err err = {0};
	json_t *manifest;
	size_t len = 0;

	if (favo_store_open(&store, dir, FAVO_STORE_CREATE, &err) < 0 ||
	    favo_image_name_parse(&name, "test", &err) < 0 ||
	    favo_store_begin(&tx, store, &err) < 0 ||
	    favo_pack(tx, fd, &index, NULL, NULL, NULL, &err) < 0 ||
	    favo_index_format(index, &bytes, &len, &err) < 0 ||
	    favo_store_put(tx, bytes, len, &digest, NULL, &err) < 0 ||
	    favo_store_put(tx, "kernel", 6, &kernel, NULL, &err) < 0 ||
	    favo_store_put(tx, "initramfs", 9, &initramfs, NULL, &err) < 0)
		return fail(&err);
	manifest =
		json_pack("{s:i,s:s,s:s,s:s,s:i,s:{},s:{s:s,s:I,s:o},s:{s:o,s:i,s:s,s:s},"
			  "s:{s:o,s:i}}",
			  "format", 1, "name", "test", "arch", "x86_64", "cmdline", "",
			  "created", 1, "os", "root", "fstype", "erofs", "size",
			  (json_int_t)index->size, "index", digest_json(&digest),
			  "kernel", "digest", digest_json(&kernel), "size", 6, "release",
			  "6.1", "source", "image", "initramfs", "digest",
			  digest_json(&initramfs), "size", 9);
	if (favo_store_commit(tx, manifest, &name, &id, &err) < 0)
		return fail(&err);
	json_decref(manifest);
	puts(favo_digest_format(&id, text));
	return 0;
}

static void on_guest(void *user, int fd, const struct favo_wire_hello *hello)
{
	favo_peer_accept(user, fd, hello);
}

static int open_session(struct favo_peer **p, struct favo_hub **hub,
			struct favo_peer_params *params, const char *port,
			struct favo_err *err)
{
	uint64_t number = 0;
	int ret = favo_parse_u64(&number, port, 0, 65535, err);

	params->ops = &favo_peer_disk_ops;
	if (ret == 0)
		ret = favo_wire_token(params->token, SECRET, strlen(SECRET),
				      &params->manifest->id, err);
	if (ret == 0)
		ret = favo_peer_new(p, params, err);
	if (ret == 0)
		ret = favo_hub_start(hub, (uint16_t)number, on_guest, *p, err);
	return ret;
}

static void serve(struct favo_peer *p, struct favo_err *err)
{
	struct favo_peer_stats stats;
	uint64_t sent = UINT64_MAX;

	while (favo_peer_run(p, 200, err) == 0) {
		favo_peer_stats(p, &stats);
		if (stats.sent != sent)
			printf("sent %llu\n", (unsigned long long)stats.sent);
		sent = stats.sent;
		fflush(stdout);
	}
}

static int source(const char *dir, const char *digest, const char *port)
{
	favo_autostore struct favo_store *store = NULL;
	struct favo_peer_disk disk;
	struct favo_peer_params params = {
		.name = "source", .source = true, .user = &disk};
	struct favo_peer *p = NULL;
	struct favo_hub *hub = NULL;
	struct favo_err err = {0};
	struct favo_digest id;

	if (favo_digest_parse(&id, digest, &err) < 0 ||
	    favo_store_open(&store, dir, 0, &err) < 0 ||
	    favo_peer_disk_store(&disk, store, &id, &err) < 0)
		return fail(&err);
	params.manifest = disk.manifest;
	if (open_session(&p, &hub, &params, port, &err) < 0)
		return fail(&err);
	puts("ready");
	serve(p, &err);
	return fail(&err);
}

/* NAME=ADDRESS:PORT */
static int parse_neighbour(struct favo_neighbour *n, char *text, struct favo_err *err)
{
	char *equal = strchr(text, '='), *colon = strrchr(text, ':');
	uint64_t port = 0;

	memset(n, 0, sizeof(*n));
	if (!equal || !colon || colon < equal ||
	    favo_parse_u64(&port, colon + 1, 1, 65535, NULL) < 0)
		return favo_fail(err, EINVAL, "%s is not NAME=ADDRESS:PORT", text);
	snprintf(n->name, sizeof(n->name), "%.*s", (int)(equal - text), text);
	snprintf(n->address, sizeof(n->address), "%.*s", (int)(colon - equal - 1),
		 equal + 1);
	n->port = (uint16_t)port;
	n->source = strcmp(n->name, "source") == 0;
	return 0;
}

static int begin_fetch(struct favo_fetch **fetch, const char *cache_dir,
		       const char *store_dir, const char *digest, struct favo_err *err)
{
	favo_autostore struct favo_store *store = NULL;
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *text = NULL;
	struct favo_cache *cache = NULL; /* as long as the process */
	struct favo_digest id;
	size_t len = 0;
	int ret;

	if ((ret = favo_digest_parse(&id, digest, err)) < 0 ||
	    (ret = favo_store_open(&store, store_dir, 0, err)) < 0 ||
	    (ret = favo_store_manifest(store, &id, &m, err)) < 0 ||
	    (ret = favo_manifest_format(m->json, &text, &len, err)) < 0 ||
	    (ret = favo_cache_open(&cache, cache_dir, err)) < 0)
		return ret;
	return favo_fetch_begin(fetch, cache, &id, text, len, err);
}

/* Those that could not be reached, or were lost, are tried again. */
static void connect_all(struct favo_peer *p, char **list, struct favo_err *err)
{
	struct favo_neighbour n;

	for (; *list; list++)
		if (parse_neighbour(&n, *list, err) == 0)
			favo_peer_connect(p, &n);
}

static int node(char **arg)
{
	struct favo_peer_disk disk;
	struct favo_peer_params params = {.user = &disk, .name = arg[3]};
	struct favo_peer_stats stats;
	struct favo_fetch *fetch = NULL;
	struct favo_peer *p = NULL;
	struct favo_hub *hub = NULL;
	struct favo_err err = {0};
	int64_t start_ms = favo_now_ms();
	char **list = arg + 5;

	for (; *list && strncmp(*list, "--", 2) == 0; list++) {
		if (strcmp(*list, "--lie") == 0)
			params.lie = true;
		else if (strcmp(*list, "--rate") == 0 && list[1])
			params.receive_rate = strtoull(*++list, NULL, 10);
	}
	if (begin_fetch(&fetch, arg[0], arg[1], arg[2], &err) < 0 ||
	    favo_peer_disk_fetch(&disk, fetch, &err) < 0)
		return fail(&err);
	params.manifest = disk.manifest;
	if (open_session(&p, &hub, &params, arg[4], &err) < 0)
		return fail(&err);
	while (favo_peer_missing(p)) {
		connect_all(p, list, &err);
		if (favo_peer_run(p, 300, &err) < 0)
			return fail(&err);
	}
	favo_peer_stats(p, &stats);
	if (favo_fetch_commit(fetch, &err) < 0)
		return fail(&err);
	printf("done %lld from-peers %llu from-source %llu duplicates %u dropped %u\n",
	       (long long)(favo_now_ms() - start_ms),
	       (unsigned long long)stats.from_peers,
	       (unsigned long long)stats.from_source, stats.duplicates, stats.dropped);
	fflush(stdout);
	disk.fetch = NULL;
	favo_fetch_free(fetch);
	serve(p, &err);
	return fail(&err);
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	favo_log_init("peer-tool", FAVO_INFO, false, NULL);
	if (argc == 4 && strcmp(argv[1], "make") == 0)
		return make(argv[2], argv[3]);
	if (argc == 5 && strcmp(argv[1], "source") == 0)
		return source(argv[2], argv[3], argv[4]);
	if (argc >= 8 && strcmp(argv[1], "node") == 0)
		return node(argv + 2);
	fputs("usage: peer-tool make|source|node ...; see peer_tool.c\n", stderr);
	return 2;
}
