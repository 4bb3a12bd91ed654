// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: what a neighbour sends after its greeting, into a session that
 * has half of a small image; and the greeting itself.
 */
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/log.h"
#include "common/util.h"
#include "images/peer.h"

#define CHUNKS 8

static struct favo_chunk chunks[CHUNKS];
static const struct favo_index the_index = {chunks, CHUNKS, CHUNKS * 65536};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const struct favo_index *get_index(void *user)
{
	(void)user;
	return &the_index;
}

static int put_index(void *user, const void *stored, size_t len, struct favo_err *err)
{
	(void)user;
	(void)stored;
	(void)len;
	return favo_fail(err, EBADMSG, "no index");
}

static bool has(void *user, const struct favo_item *item)
{
	(void)user;
	return item->offset % 131072 == 0;
}

/* A blob is right when it begins with a 1. */
static int put(void *user, const struct favo_item *item, const void *stored, size_t len,
	       struct favo_err *err)
{
	(void)user;
	(void)item;
	if (len && *(const unsigned char *)stored == 1)
		return 0;
	return favo_fail(err, EBADMSG, "wrong bytes");
}

static int read_blob(void *user, const struct favo_item *item, void **stored, size_t *len,
		     struct favo_err *err)
{
	(void)user;
	(void)item;
	*stored = calloc(1, 16);
	*len = 16;
	return *stored ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int read_index(void *user, void **stored, size_t *len, struct favo_err *err)
{
	return read_blob(user, NULL, stored, len, err);
}

static const struct favo_peer_ops ops = {get_index, put_index, has,
					 put,	    read_blob, read_index};

static void session(const uint8_t *data, size_t size)
{
	struct favo_manifest manifest = {.kernel = {.size = 6}, .initramfs = {.size = 9}};
	struct favo_peer_params params = {
		.manifest = &manifest, .name = "self", .ops = &ops};
	struct favo_wire_hello hello = {.name = "other"};
	favo_autopeer struct favo_peer *p = NULL;
	int fds[2];

	manifest.root.size = manifest.root.bytes = the_index.size;
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fds) < 0)
		return;
	if (favo_peer_new(&p, &params, NULL) < 0) {
		close(fds[0]);
		close(fds[1]);
		return;
	}
	favo_peer_accept(p, fds[0], &hello);
	if (write(fds[1], data, FAVO_MIN(size, (size_t)65536)) >= 0)
		for (int i = 0; i < 4; i++)
			(void)favo_peer_run(p, 0, NULL);
	if (favo_peer_missing(p) > CHUNKS + 2)
		abort();
	close(fds[1]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_wire_hello hello;

	favo_log_init("fuzz", FAVO_ERROR, false, NULL);
	for (unsigned int i = 0; i < CHUNKS; i++) {
		chunks[i].offset = i * 65536u;
		chunks[i].length = 65536;
		chunks[i].digest.bytes[0] = (unsigned char)i;
	}
	if (favo_wire_parse_hello(&hello, data, size, NULL) == 0) {
		unsigned char again[FAVO_WIRE_HELLO_MAX];

		if (favo_wire_format_hello(again, &hello) != size)
			abort();
	}
	session(data, size);
	return 0;
}
