// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Host side of t0310-memory.t in a lab node: starts a hypervisor and waits for the
 * guest's "ready" on vsock port 64000, then tells what memory the process holds.
 *   memory-host [-t SECONDS] CID COMMAND...    the process goes on afterwards
 *   memory-host -p PID                         the memory of one that runs
 * One JSON line. The word @CID@ in COMMAND becomes the context id.
 */
#include <errno.h>
#include <fcntl.h>
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

#include <linux/vm_sockets.h>

#define REPORT_PORT 64000
#define RAM_MIN_KB (64 << 10)

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "memory-host: %s: %s\n", what, strerror(errno));
	exit(1);
}

static int listen_reports(void)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_ANY,
				   .svm_port = REPORT_PORT};
	int fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (fd < 0 || bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 ||
	    listen(fd, 8) < 0)
		die("vsock port");
	return fd;
}

static pid_t start(char **argv, unsigned int cid)
{
	char number[16];
	pid_t pid;
	int fd;

	snprintf(number, sizeof(number), "%u", cid);
	pid = fork();
	if (pid)
		return pid;
	for (char **a = argv; *a; a++) {
		char *at = strstr(*a, "@CID@"), *text = NULL;

		if (at &&
		    asprintf(&text, "%.*s%s%s", (int)(at - *a), *a, number, at + 5) > 0)
			*a = text;
	}
	fd = open("/dev/null", O_RDWR);
	dup2(fd, 0);
	dup2(2, 1);
	execv(argv[0], argv);
	_exit(127);
}

/* False when the VM ended or the time is over. */
static bool wait_ready(int listen_fd, pid_t pid, int64_t end_us)
{
	struct pollfd p = {.fd = listen_fd, .events = POLLIN};
	char line[4096];
	size_t len = 0;
	ssize_t n;

	while (now_us() < end_us && waitpid(pid, NULL, WNOHANG) == 0) {
		if (poll(&p, 1, 200) <= 0)
			continue;
		if (p.fd == listen_fd) {
			p.fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
			continue;
		}
		n = read(p.fd, line + len, sizeof(line) - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		line[len] = '\0';
		if (strstr(line, "\"phase\":\"ready\""))
			return true;
		if (strstr(line, "\"phase\":\"failed\""))
			break;
	}
	fprintf(stderr, "memory-host: not ready: %.*s\n", (int)len, line);
	return false;
}

/*
 * Memory by what it is: "ram" is in mappings of at least RAM_MIN_KB (the
 * guest's RAM), "image" in mappings of files named *.erofs, "own" all the rest:
 * what the hypervisor itself costs.
 */
static void print_memory(pid_t pid)
{
	long rss[3] = {0};
	char path[64], line[1024];
	enum { OWN, RAM, IMAGE } what = OWN;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/smaps", (int)pid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		unsigned long from, to;
		long kb;

		if (sscanf(line, "%lx-%lx ", &from, &to) == 2) {
			what = OWN;
			if (strstr(line, ".erofs"))
				what = IMAGE;
			else if ((long)((to - from) >> 10) >= RAM_MIN_KB)
				what = RAM;
		} else if (sscanf(line, "Rss: %ld", &kb) == 1) {
			rss[what] += kb;
		}
	}
	if (f)
		fclose(f);
	printf("{\"pid\": %d, \"own_kb\": %ld, \"ram_kb\": %ld, \"image_kb\": %ld}\n",
	       (int)pid, rss[OWN], rss[RAM], rss[IMAGE]);
}

int main(int argc, char **argv)
{
	int seconds = 60, opt, fd;
	pid_t pid = 0;

	while ((opt = getopt(argc, argv, "+p:t:")) != -1) {
		if (opt == 'p')
			pid = (pid_t)strtol(optarg, NULL, 10);
		else if (opt == 't')
			seconds = (int)strtol(optarg, NULL, 10);
		else
			return 2;
	}
	if (pid > 0) {
		print_memory(pid);
		return 0;
	}
	if (argc - optind < 2)
		return 2;
	fd = listen_reports();
	pid = start(argv + optind + 1, (unsigned int)strtoul(argv[optind], NULL, 10));
	if (!wait_ready(fd, pid, now_us() + seconds * 1000000LL)) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return 1;
	}
	print_memory(pid);
	return 0;
}
