// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Starts a hypervisor in a lab node and measures the time from its exec to the
 * "ready" report of favo-init on vsock port 64000, the VM's exits until then
 * (KVM's own counters in debugfs, the same for every hypervisor), and the memory
 * that it then holds. For tests/bench/vm-start and vm-memory.
 *   vmm-ready [-n RUNS] [-k] [-m MIN-RAM-KB] [-t SECONDS] CID COMMAND...
 *   vmm-ready -p PID     the memory of one that runs
 * One JSON line a run. -k: one run, and the hypervisor is left running.
 * The word @CID@ in COMMAND becomes the context id.
 */
#include <dirent.h>
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
#define KVM_STATS "/sys/kernel/debug/kvm"

static int64_t now_us(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000LL + ts.tv_nsec / 1000;
}

static _Noreturn void die(const char *what)
{
	fprintf(stderr, "vmm-ready: %s: %s\n", what, strerror(errno));
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

/* The time of phase "ready", or -1 when the VM ended or the time is over. */
static int64_t wait_ready(int listen_fd, pid_t pid, int64_t end_us, char *phases,
			  size_t size)
{
	struct pollfd p[2] = {{.fd = listen_fd, .events = POLLIN}, {.fd = -1}};
	int64_t start_us = now_us(), ready = -1;
	char line[4096];
	size_t len = 0, used = 0;

	phases[0] = '\0';
	while (ready < 0 && now_us() < end_us && waitpid(pid, NULL, WNOHANG) == 0) {
		char *newline;
		ssize_t n;

		if (poll(p, 2, 200) <= 0)
			continue;
		if (p[1].fd < 0) {
			p[1].fd = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
			p[1].events = POLLIN;
			continue;
		}
		n = read(p[1].fd, line + len, sizeof(line) - 1 - len);
		if (n <= 0)
			break;
		len += (size_t)n;
		line[len] = '\0';
		while ((newline = strchr(line, '\n'))) {
			char *phase = strstr(line, "\"phase\":\"");

			*newline = '\0';
			if (phase && used < size)
				used += (size_t)snprintf(
					phases + used, size - used, "%s\"%.*s\": %.1f",
					used ? ", " : "", (int)strcspn(phase + 9, "\""),
					phase + 9, (double)(now_us() - start_us) / 1000);
			if (strstr(line, "\"phase\":\"ready\""))
				ready = now_us();
			if (strstr(line, "\"phase\":\"failed\""))
				fprintf(stderr, "vmm-ready: %s\n", line);
			len -= (size_t)(newline + 1 - line);
			memmove(line, newline + 1, len + 1);
		}
	}
	if (p[1].fd >= 0)
		close(p[1].fd);
	return ready;
}

/* KVM's counters of the VM of this process, all that are not 0. */
static void print_exits(pid_t pid)
{
	char path[600], prefix[32];
	struct dirent *d, *f;
	const char *comma = "";
	DIR *vms = opendir(KVM_STATS), *dir = NULL;

	snprintf(prefix, sizeof(prefix), "%d-", (int)pid);
	while (vms && !dir && (d = readdir(vms)))
		if (!strncmp(d->d_name, prefix, strlen(prefix))) {
			snprintf(path, sizeof(path), KVM_STATS "/%s", d->d_name);
			dir = opendir(path);
		}
	printf(", \"kvm\": {");
	while (dir && (f = readdir(dir))) {
		char file[900], text[32] = "";
		ssize_t n;
		int fd;

		snprintf(file, sizeof(file), "%s/%s", path, f->d_name);
		fd = f->d_type == DT_REG ? open(file, O_RDONLY) : -1;
		if (fd < 0)
			continue;
		n = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (n <= 0 || strtoll(text, NULL, 10) <= 0)
			continue;
		printf("%s\"%s\": %lld", comma, f->d_name, strtoll(text, NULL, 10));
		comma = ", ";
	}
	printf("}");
	if (dir)
		closedir(dir);
	if (vms)
		closedir(vms);
}

/*
 * Memory by what it is: "ram" is in mappings of at least min_kb (the guest's
 * RAM), "image" in mappings of files named *.erofs, "own" all the rest: what
 * the hypervisor costs. pss counts a page that n processes share 1/n.
 */
static void print_memory(pid_t pid, long min_kb)
{
	long rss[3] = {0}, pss[3] = {0};
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
			if (strstr(line, ".erofs") || strstr(line, "/dev/loop"))
				what = IMAGE;
			else if ((long)((to - from) >> 10) >= min_kb)
				what = RAM;
		} else if (sscanf(line, "Rss: %ld", &kb) == 1) {
			rss[what] += kb;
		} else if (sscanf(line, "Pss: %ld", &kb) == 1) {
			pss[what] += kb;
		}
	}
	if (f)
		fclose(f);
	printf(", \"own_kb\": %ld, \"own_pss_kb\": %ld, \"ram_kb\": %ld, \"image_kb\": "
	       "%ld",
	       rss[OWN], pss[OWN], rss[RAM], rss[IMAGE]);
}

int main(int argc, char **argv)
{
	int runs = 1, seconds = 60, opt, fd;
	bool keep = false;
	long min_kb = 64 << 10;
	unsigned int cid;
	pid_t of = 0;

	while ((opt = getopt(argc, argv, "+n:km:p:t:")) != -1) {
		switch (opt) {
		case 'n':
			runs = (int)strtol(optarg, NULL, 10);
			break;
		case 'k':
			keep = true;
			break;
		case 'm':
			min_kb = strtol(optarg, NULL, 10);
			break;
		case 'p':
			of = (pid_t)strtol(optarg, NULL, 10);
			break;
		case 't':
			seconds = (int)strtol(optarg, NULL, 10);
			break;
		default:
			return 2;
		}
	}
	if (of > 0) {
		printf("{\"pid\": %d", (int)of);
		print_memory(of, min_kb);
		printf("}\n");
		return 0;
	}
	if (argc - optind < 2)
		return 2;
	cid = (unsigned int)strtoul(argv[optind], NULL, 10);
	fd = listen_reports();
	for (int i = 0; i < runs; i++, cid++) {
		int64_t begin = now_us(), ready;
		pid_t pid = start(argv + optind + 1, cid);
		char phases[512];

		ready = wait_ready(fd, pid, begin + seconds * 1000000LL, phases,
				   sizeof(phases));
		printf("{\"pid\": %d, \"ready_ms\": %.1f, \"phases\": {%s}", (int)pid,
		       ready < 0 ? -1.0 : (double)(ready - begin) / 1000, phases);
		if (ready >= 0) {
			print_exits(pid);
			print_memory(pid, min_kb);
		}
		printf("}\n");
		fflush(stdout);
		if (keep && ready >= 0)
			return 0;
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		if (ready < 0)
			return 1;
	}
	return 0;
}
