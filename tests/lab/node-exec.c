// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Remote commands for lab nodes, both ends, over TCP in the lab's own network:
 *
 *   node-exec serve PORT TOKEN-FILE                     in the node, as root
 *   node-exec call ADDRESS PORT TOKEN-FILE COMMAND      in the lab's namespace
 *   node-exec tsc                                       prints the TSC's kHz
 *
 * The caller sends the token line and the command line for "sh -c", then frames
 * of one type byte and a 32-bit length: 'i' standard input (length 0: its end);
 * the server answers with 'o' and 'e' for the two outputs and 'x' with the exit
 * code. When the connection breaks, the command's session is killed. It is a
 * test tool: no encryption, one command per connection.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#define CHUNK 16384

struct frame {
	uint8_t type;
	uint32_t size;
} __attribute__((packed));

static bool write_all(int fd, const void *data, size_t size)
{
	const char *p = data;

	while (size > 0) {
		ssize_t n = write(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		size -= n;
	}
	return true;
}

static bool read_all(int fd, void *data, size_t size)
{
	char *p = data;

	while (size > 0) {
		ssize_t n = read(fd, p, size);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return false;
		p += n;
		size -= n;
	}
	return true;
}

static bool send_frame(int fd, char type, const void *data, uint32_t size)
{
	char buf[sizeof(struct frame) + CHUNK];
	struct frame f = {.type = type, .size = size};

	memcpy(buf, &f, sizeof(f));
	memcpy(buf + sizeof(f), data, size);
	return write_all(fd, buf, sizeof(f) + size);
}

static bool recv_frame(int fd, struct frame *f, char *data)
{
	return read_all(fd, f, sizeof(*f)) && f->size <= CHUNK &&
	       read_all(fd, data, f->size);
}

static bool read_token(const char *path, char *token, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n = fd < 0 ? -1 : read(fd, token, size - 1);

	if (fd >= 0)
		close(fd);
	if (n <= 0)
		return false;
	token[n] = '\0';
	token[strcspn(token, "\n")] = '\0';
	return token[0] != '\0';
}

static int start_command(const char *command, int fds[3], pid_t *pid)
{
	int in[2], out[2], errors[2];

	if (pipe2(in, O_CLOEXEC) < 0 || pipe2(out, O_CLOEXEC) < 0 ||
	    pipe2(errors, O_CLOEXEC) < 0)
		return -1;
	*pid = fork();
	if (*pid == 0) {
		setsid();
		signal(SIGPIPE, SIG_DFL);
		signal(SIGCHLD, SIG_DFL);
		dup2(in[0], 0);
		dup2(out[1], 1);
		dup2(errors[1], 2);
		if (chdir("/") == 0)
			execl("/bin/bash", "bash", "-c", command, NULL);
		_exit(127);
	}
	close(in[0]);
	close(out[1]);
	close(errors[1]);
	fds[0] = in[1];
	fds[1] = out[0];
	fds[2] = errors[0];
	return *pid < 0 ? -1 : 0;
}

/* Passes one ready output on; false at its end. */
static bool pump(int conn, char type, int fd)
{
	char data[CHUNK];
	ssize_t n = read(fd, data, sizeof(data));

	if (n > 0 && !send_frame(conn, type, data, n))
		return false;
	return n > 0;
}

static int exit_code(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* The command's outputs may stay open in daemons that it left behind: its own
 * end counts, after what is already in the pipes. */
static void relay(int conn, int fds[3], pid_t pid)
{
	struct pollfd p[3] = {
		{conn, POLLIN, 0}, {fds[1], POLLIN, 0}, {fds[2], POLLIN, 0}};
	char data[CHUNK];
	bool ended = false;
	uint8_t code = 0;
	int status, ready;

	for (;;) {
		ready = poll(p, 3, ended ? 0 : 50);
		if (p[0].revents) {
			struct frame f;

			if (!recv_frame(conn, &f, data)) {
				kill(-pid, SIGKILL);
				return;
			}
			if (f.size == 0 && fds[0] >= 0) {
				close(fds[0]);
				fds[0] = -1;
			} else if (fds[0] >= 0 && !write_all(fds[0], data, f.size)) {
				close(fds[0]);
				fds[0] = -1;
			}
		}
		for (int i = 1; i < 3; i++)
			if (p[i].revents && !pump(conn, i == 1 ? 'o' : 'e', p[i].fd))
				p[i].fd = -1;
		if (ended && ready == 0)
			break;
		if (!ended && waitpid(pid, &status, WNOHANG) == pid) {
			ended = true;
			code = exit_code(status);
		}
	}
	send_frame(conn, 'x', &code, 1);
}

static void serve_one(int conn, const char *token)
{
	char line[65536], *command = line;
	size_t size = 0;
	int fds[3], lines = 0;
	pid_t pid;

	while (lines < 1 && size + 1 < sizeof(line) && read(conn, line + size, 1) == 1)
		if (line[size++] == '\n')
			lines++;
	line[size ? size - 1 : 0] = '\0';
	if (strcmp(line, token))
		return;
	uint32_t length;

	if (!read_all(conn, &length, sizeof(length)) || length >= sizeof(line) ||
	    !read_all(conn, line, length))
		return;
	command[length] = '\0';
	if (start_command(command, fds, &pid) == 0)
		relay(conn, fds, pid);
}

static int serve(int port, const char *token_file)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1, conn;
	char token[128];

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!read_token(token_file, token, sizeof(token)) ||
	    bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 64) < 0) {
		perror("node-exec: serve");
		return 1;
	}
	signal(SIGCHLD, SIG_IGN);
	while ((conn = accept4(fd, NULL, NULL, SOCK_CLOEXEC)) >= 0 || errno == EINTR) {
		if (conn >= 0 && fork() == 0) {
			signal(SIGCHLD, SIG_DFL);
			signal(SIGPIPE, SIG_IGN);
			setsockopt(conn, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
			serve_one(conn, token);
			_exit(0);
		}
		if (conn >= 0)
			close(conn);
	}
	return 1;
}

static int dial(const char *address, int port)
{
	struct sockaddr_in addr = {.sin_family = AF_INET, .sin_port = htons(port)};
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	inet_pton(AF_INET, address, &addr.sin_addr);
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		close(fd);
		return -1;
	}
	return fd;
}

static int call(const char *address, int port, const char *token_file,
		const char *command)
{
	char token[128], data[CHUNK];
	uint32_t length = strlen(command);
	int fd = -1;

	signal(SIGPIPE, SIG_IGN);
	if (read_token(token_file, token, sizeof(token)))
		fd = dial(address, port);
	if (fd < 0 || dprintf(fd, "%s\n", token) < 0 ||
	    !write_all(fd, &length, sizeof(length)) || !write_all(fd, command, length)) {
		fprintf(stderr, "node-exec: %s does not answer: %m\n", address);
		return 255;
	}
	struct pollfd p[2] = {{fd, POLLIN, 0}, {0, POLLIN, 0}};

	for (;;) {
		struct frame f;

		poll(p, 2, -1);
		if (p[1].revents) {
			ssize_t n = read(0, data, sizeof(data));

			send_frame(fd, 'i', data, n > 0 ? n : 0);
			if (n <= 0)
				p[1].fd = -1;
		}
		if (!p[0].revents)
			continue;
		if (!recv_frame(fd, &f, data)) {
			fprintf(stderr, "node-exec: connection to %s broke\n", address);
			return 255;
		}
		if (f.type == 'x')
			return (uint8_t)data[0];
		write_all(f.type == 'o' ? 1 : 2, data, f.size);
	}
}

/* QEMU's emulated TSC counts as the host's does; its rate over 50 ms. */
static int print_tsc(void)
{
	struct timespec a, b, nap = {.tv_nsec = 50000000};
	uint64_t ta, tb;
	double ns;

	clock_gettime(CLOCK_MONOTONIC_RAW, &a);
	ta = __rdtsc();
	nanosleep(&nap, NULL);
	clock_gettime(CLOCK_MONOTONIC_RAW, &b);
	tb = __rdtsc();
	ns = (b.tv_sec - a.tv_sec) * 1e9 + (b.tv_nsec - a.tv_nsec);
	printf("%.0f\n", (tb - ta) / ns * 1e6);
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(atoi(argv[2]), argv[3]);
	if (argc == 6 && !strcmp(argv[1], "call"))
		return call(argv[2], atoi(argv[3]), argv[4], argv[5]);
	if (argc == 2 && !strcmp(argv[1], "tsc"))
		return print_tsc();
	fprintf(stderr, "usage: node-exec serve PORT TOKEN-FILE | call ADDRESS PORT "
			"TOKEN-FILE COMMAND | tsc\n");
	return 2;
}
