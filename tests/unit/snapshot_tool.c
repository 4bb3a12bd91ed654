// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The host of warm guests, for tests and benches of snapshots: what favo-noded
 * does, without jobs. It listens for reports of guests on vsock port 64000.
 *
 *   snapshot-tool save CONTROL-SOCKET STATE MEMORY resume|stop
 *       Ask a favo-vmm for a snapshot into these files.
 *   snapshot-tool warm COMMAND...
 *       Start COMMAND, end when its guest waits for an identity, which it does
 *       not get; its connection is held by a child until COMMAND ends.
 *   snapshot-tool ready CID IDENTITY|- COMMAND...
 *       Start COMMAND and print the milliseconds until guest CID is ready; give
 *       it the identity if it asks. TIME and SEED in that file become the clock
 *       and randomness. COMMAND keeps running.
 *   snapshot-tool exec CID SECRET COMMAND...
 *       Run a command in a guest as root; stdio and exit status are the
 *       command's.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/agent.h"
#include "images/guest/client.h"

#define START_MS 300000
#define LINKS_MAX 16

static int die(const char *what, const struct favo_err *err)
{
	fprintf(stderr, "snapshot-tool: %s: %s\n", what, err->msg);
	return 1;
}

static int save(char **argv)
{
	favo_autoclose int sock = -1, state = -1, memory = -1;
	favo_autofree char *line = NULL;
	struct favo_err err = {0};
	char reply[4096] = "";
	ssize_t n;
	int fds[2];

	if (favo_unix_connect(&sock, argv[0], 5000, &err) < 0)
		return die("save", &err);
	state = open(argv[1], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	memory = open(argv[2], O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	line = favo_asprintf("{\"op\":\"snapshot\",\"then\":\"%s\"}\n", argv[3]);
	if (state < 0 || memory < 0 || !line)
		return 1;
	fds[0] = state;
	fds[1] = memory;
	if (favo_send_fds(sock, line, strlen(line), fds, 2, &err) < 0)
		return die("save", &err);
	n = read(sock, reply, sizeof(reply) - 1);
	if (n > 0)
		fputs(reply, stdout);
	return n > 0 && strstr(reply, "\"ok\":true") ? 0 : 1;
}

static int listen_reports(void)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_ANY,
				   .svm_port = FAVO_REPORT_PORT};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 16) < 0) {
		fprintf(stderr, "snapshot-tool: vsock port %d: %m\n", FAVO_REPORT_PORT);
		exit(1);
	}
	return fd;
}

static pid_t start(char **argv)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	setsid();
	/* Who reads our output waits for its end, which is not the command's. */
	if (dup2(STDERR_FILENO, STDOUT_FILENO) < 0)
		_exit(126);
	execvp(argv[0], argv);
	fprintf(stderr, "snapshot-tool: %s: %m\n", argv[0]);
	_exit(127);
}

/* Replace word in text by value; the caller frees. */
static char *put_in(const char *text, const char *word, const char *value)
{
	const char *at = strstr(text, word);

	return at ? favo_asprintf("%.*s%s%s", (int)(at - text), text, value,
				  at + strlen(word))
		  : strdup(text);
}

static void answer(int fd, const char *template)
{
	favo_autofree char *timed = NULL, *text = NULL;
	char now[32], seed[129];
	uint8_t raw[64], size[4];

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		abort();
	favo_hex_encode(seed, raw, sizeof(raw));
	snprintf(now, sizeof(now), "%lld", (long long)favo_realtime_ns());
	timed = put_in(template, "TIME", now);
	text = timed ? put_in(timed, "SEED", seed) : NULL;
	if (!text)
		abort();
	favo_put_le32(size, (uint32_t)strlen(text));
	(void)!favo_write_all(fd, size, sizeof(size), 1000, NULL);
	(void)!favo_write_all(fd, text, strlen(text), 1000, NULL);
}

struct reports {
	struct pollfd polls[1 + LINKS_MAX];
	nfds_t n;
};

/* One line of a connection into buf; false: the connection ended. */
static bool read_line(int fd, char *buf, size_t size)
{
	size_t n = 0;

	while (n + 1 < size && read(fd, buf + n, 1) == 1)
		if (buf[n++] == '\n')
			break;
	buf[n] = '\0';
	return n && buf[n - 1] == '\n';
}

/* The next connection, or -1 when it is another guest's. */
static int accept_guest(int listener, unsigned cid)
{
	struct sockaddr_vm peer = {0};
	socklen_t len = sizeof(peer);
	int fd = accept4(listener, (struct sockaddr *)&peer, &len, SOCK_CLOEXEC);

	if (fd >= 0 && cid && peer.svm_cid != cid) {
		close(fd);
		return -1;
	}
	return fd;
}

/*
 * Follow the reports of guest cid (0: of any) until one says phase. The identity
 * goes to it when it asks.
 * Returns the connection, or -1 after START_MS.
 */
static int wait_phase(int listener, unsigned cid, const char *phase, const char *identity)
{
	struct reports r = {.n = 1};
	favo_autofree char *word = favo_asprintf("\"phase\":\"%s\"", phase);
	int64_t end = favo_now_ms() + START_MS;
	char line[4096];

	r.polls[0] = (struct pollfd){.fd = listener, .events = POLLIN};
	while (word && favo_now_ms() < end) {
		if (poll(r.polls, r.n, 1000) <= 0)
			continue;
		for (nfds_t i = 1; i < r.n; i++) {
			int fd = r.polls[i].fd;

			if (!r.polls[i].revents)
				continue;
			if (!read_line(fd, line, sizeof(line))) {
				close(fd);
				r.polls[i--] = r.polls[--r.n];
				continue;
			}
			if (strstr(line, word))
				return fd;
			if (strstr(line, "\"phase\":\"failed\"")) {
				fprintf(stderr, "snapshot-tool: guest: %s", line);
				return -1;
			}
			if (identity && strstr(line, "\"phase\":\"warm\""))
				answer(fd, identity);
		}
		if (!r.polls[0].revents || r.n > LINKS_MAX)
			continue;
		r.polls[r.n] = (struct pollfd){.fd = accept_guest(listener, cid),
					       .events = POLLIN};
		r.n += r.polls[r.n].fd >= 0;
	}
	return -1;
}

static int warm(char **argv)
{
	int listener = listen_reports();
	pid_t pid = start(argv);
	int link = wait_phase(listener, 0, "warm", NULL);
	char byte;

	if (link < 0)
		return 1;
	printf("%d\n", (int)pid);
	fflush(stdout);
	if (fork())
		return 0;
	/* The guest must see its connection as long as it runs. */
	close(listener);
	close(STDOUT_FILENO);
	while (read(link, &byte, 1) > 0)
		;
	return 0;
}

static int ready(char **argv)
{
	favo_autofree char *identity = NULL;
	struct favo_err err = {0};
	int listener = listen_reports();
	unsigned cid = (unsigned)strtoul(argv[0], NULL, 10);
	int64_t begin;
	int link;

	if (strcmp(argv[1], "-") != 0 &&
	    favo_file_read(argv[1], 1 << 20, &identity, NULL, &err) < 0)
		return die("ready", &err);
	begin = favo_now_ns();
	start(argv + 2);
	link = wait_phase(listener, cid, "ready", identity);
	if (link < 0)
		return 1;
	printf("%.1f\n", (double)(favo_now_ns() - begin) / 1e6);
	return 0;
}

static void on_lost(struct favo_conn *conn, const char *reason)
{
	(void)conn;
	(void)reason;
}

static int exec_in(char **argv)
{
	const struct favo_conn_ops ops = {.lost = on_lost};
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK, .svm_port = FAVO_AGENT_PORT};
	char *env[] = {(char *)"PATH=/usr/bin:/bin:/sbin", NULL}, root[] = "/";
	struct favo_run run = {.argv = argv + 2, .env = env, .cwd = root, .umask = 022};
	uint8_t secret[FAVO_AGENT_SECRET_SIZE];
	struct favo_loop *loop = NULL;
	struct favo_client *client = NULL;
	struct favo_conn *conn = NULL;
	const struct favo_exit *ex;
	const char *reason = "";
	struct favo_err err = {0};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	addr.svm_cid = (unsigned)strtoul(argv[0], NULL, 10);
	if (favo_hex_decode(secret, sizeof(secret), argv[1], &err) < 0)
		return die("secret", &err);
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		fprintf(stderr, "snapshot-tool: connect to guest %s: %m\n", argv[0]);
		return 1;
	}
	static const struct favo_client_ops client_ops = {0};

	if (favo_agent_hello(fd, secret, 10000, &err) < 0 ||
	    favo_set_nonblock(fd, true) < 0 || favo_loop_new(&loop, &err) < 0 ||
	    favo_client_new(&client, loop, &client_ops, NULL, &err) < 0 ||
	    favo_conn_new(&conn, loop, fd, true, NULL, &ops, NULL, &err) < 0 ||
	    favo_client_start(client, conn, &run, &err) < 0 ||
	    favo_loop_run(loop, &err) < 0)
		return die("exec", &err);
	ex = favo_client_result(client, &reason);
	if (!ex) {
		fprintf(stderr, "snapshot-tool: %s\n", reason);
		return 1;
	}
	if (ex->kind == FAVO_EXIT_FAILED)
		fprintf(stderr, "snapshot-tool: %s\n", ex->reason);
	return ex->kind == FAVO_EXIT_STATUS ? (int)ex->number : 126;
}

int main(int argc, char **argv)
{
	static const struct {
		const char *name;
		int words;
		int (*run)(char **argv);
	} verbs[] = {{"save", 4, save},
		     {"warm", 1, warm},
		     {"ready", 3, ready},
		     {"exec", 3, exec_in}};

	favo_log_init("snapshot-tool", FAVO_WARN, false, NULL);
	for (size_t i = 0; argc > 1 && i < FAVO_ARRAY_SIZE(verbs); i++)
		if (strcmp(argv[1], verbs[i].name) == 0 && argc - 2 >= verbs[i].words)
			return verbs[i].run(argv + 2);
	fprintf(stderr, "usage: snapshot-tool save|warm|ready|exec ARGUMENT...\n");
	return 2;
}
