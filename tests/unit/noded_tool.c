// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Helper of the node agent's tests: makes grants, and asks the daemon.
 *
 *   noded-tool key PRIVATE PUBLIC
 *   noded-tool grant PRIVATE UID GID USER DIGEST [LIFETIME-SECONDS [MEM-MB]]
 *   noded-tool ask SOCKET JSON-LINE [FILE]   FILE gets the descriptor's content
 *   noded-tool flood SOCKET COUNT            connections that say nothing
 *
 * "ask" prints all reply lines; it exits 0 when the last one says ok.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/grant.h"

static int die(const char *what, const struct favo_err *err)
{
	fprintf(stderr, "noded-tool: %s: %s\n", what, err->msg);
	return 1;
}

static void random_hex(char *out, size_t bytes)
{
	unsigned char raw[32];

	if (getrandom(raw, bytes, 0) != (ssize_t)bytes)
		abort();
	favo_hex_encode(out, raw, bytes);
}

static int make_grant(int argc, char **argv)
{
	favo_autograntkey struct favo_grant_key *key = NULL;
	favo_autofree char *text = NULL;
	struct favo_grant g = {.per_node = 1};
	struct favo_err err = {0};

	if (argc < 7)
		return 2;
	g.uid = (uint32_t)strtoul(argv[3], NULL, 10);
	g.gid = (uint32_t)strtoul(argv[4], NULL, 10);
	snprintf(g.user, sizeof(g.user), "%s", argv[5]);
	snprintf(g.digest, sizeof(g.digest), "%s", argv[6]);
	snprintf(g.image, sizeof(g.image), "test:latest");
	snprintf(g.network, sizeof(g.network), "private");
	g.issued = time(NULL) - 60;
	g.expires = time(NULL) + (argc > 7 ? strtol(argv[7], NULL, 10) : 3600);
	g.mem_mb = argc > 8 ? strtoul(argv[8], NULL, 10) : 0;
	random_hex(g.id, 8);
	random_hex(g.secret, 32);
	if (favo_grant_key_load_private(&key, argv[2], &err) < 0 ||
	    favo_grant_sign(key, &g, &text, &err) < 0)
		return die("grant", &err);
	puts(text);
	return 0;
}

static int copy_fd(int fd, const char *path)
{
	favo_autoclose int out = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0600);
	char buf[4096];
	ssize_t n;

	while (out >= 0 && (n = read(fd, buf, sizeof(buf))) > 0)
		if (write(out, buf, (size_t)n) != n)
			return 1;
	return out < 0;
}

static int ask(int argc, char **argv)
{
	favo_autofree char *line = argc > 3 ? favo_asprintf("%s\n", argv[3]) : NULL;
	favo_autoclose int sock = -1;
	struct favo_err err = {0};
	char text[65536], *last = text;
	size_t len = 0;
	int got = -1;

	if (!line)
		return 2;
	if (favo_unix_connect(&sock, argv[2], 5000, &err) < 0 ||
	    favo_write_all(sock, line, strlen(line), 5000, &err) < 0)
		return die("ask", &err);
	for (;;) {
		size_t nfds = 0;
		int fd = -1;
		ssize_t n = favo_recv_fds(sock, text + len, sizeof(text) - 1 - len, &fd,
					  1, &nfds, &err);

		if (nfds)
			got = fd;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	text[len] = '\0';
	fputs(text, stdout);
	if (got >= 0 && argc > 4)
		return copy_fd(got, argv[4]);
	if (got >= 0)
		puts("(a descriptor came)");
	for (char *p = text; (p = strchr(p, '\n')) && p[1]; p++)
		last = p + 1;
	return strstr(last, "\"ok\":true") ? 0 : 1;
}

static int flood(int argc, char **argv)
{
	struct favo_err err = {0};
	int n = argc > 3 ? (int)strtol(argv[3], NULL, 10) : 0;

	for (int i = 0; i < n; i++) {
		int sock;

		if (favo_unix_connect(&sock, argv[2], 5000, &err) < 0)
			return die("flood", &err);
	}
	puts("connected");
	fflush(stdout);
	sleep(30);
	return 0;
}

int main(int argc, char **argv)
{
	struct favo_err err = {0};

	if (argc == 4 && !strcmp(argv[1], "key"))
		return favo_grant_key_init(argv[2], argv[3], NULL, &err) < 0
			       ? die("key", &err)
			       : 0;
	if (argc > 2 && !strcmp(argv[1], "grant"))
		return make_grant(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "ask"))
		return ask(argc, argv);
	if (argc > 2 && !strcmp(argv[1], "flood"))
		return flood(argc, argv);
	fprintf(stderr, "usage: noded-tool key|grant|ask|flood ...\n");
	return 2;
}
