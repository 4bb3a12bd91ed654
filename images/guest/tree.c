// SPDX-License-Identifier: GPL-2.0-or-later
/* Process trees; see tree.h. The scan of /proc is for kernels without cgroup2. */
#include "images/guest/tree.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"

/* A tree that forks as fast as we kill is given up after this many scans. */
#define SCANS 8

struct entry {
	pid_t pid, ppid, session;
	bool hit;
};

/* "pid (comm) state ppid pgrp session ...": comm may hold anything. */
static bool read_entry(struct entry *e, const char *name)
{
	char path[64], buf[1024];
	favo_autoclose int fd = -1;
	char *p;
	ssize_t n;
	char state;

	snprintf(path, sizeof(path), "/proc/%.20s/stat", name);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return false;
	n = read(fd, buf, sizeof(buf) - 1);
	if (n <= 0)
		return false;
	buf[n] = '\0';
	p = strrchr(buf, ')');
	if (!p)
		return false;
	e->pid = (pid_t)strtol(name, NULL, 10);
	e->hit = false;
	return sscanf(p + 1, " %c %d %*d %d", &state, &e->ppid, &e->session) == 3 &&
	       state != 'Z' && state != 'X';
}

static size_t scan(struct entry **out)
{
	DIR *dir = opendir("/proc");
	struct entry *v = NULL;
	size_t n = 0, cap = 0;
	struct dirent *d;

	while (dir && (d = readdir(dir))) {
		if (d->d_name[0] < '1' || d->d_name[0] > '9')
			continue;
		if (n == cap) {
			struct entry *grown = reallocarray(v, cap + 256, sizeof(*v));

			if (!grown)
				break;
			v = grown;
			cap += 256;
		}
		if (read_entry(&v[n], d->d_name))
			n++;
	}
	if (dir)
		closedir(dir);
	*out = v;
	return n;
}

/* Mark the session of leader and all its descendants; returns how many. */
static size_t mark(struct entry *v, size_t n, pid_t leader)
{
	size_t hits = 0, before;

	for (size_t i = 0; i < n; i++) {
		v[i].hit = v[i].pid == leader || v[i].session == leader;
		hits += v[i].hit;
	}
	do {
		before = hits;
		for (size_t i = 0; i < n; i++) {
			for (size_t j = 0; !v[i].hit && j < n; j++)
				v[i].hit = v[j].hit && v[j].pid == v[i].ppid;
		}
		hits = 0;
		for (size_t i = 0; i < n; i++)
			hits += v[i].hit;
	} while (hits != before);
	return hits;
}

static void signal_session(pid_t leader, int signo)
{
	struct entry *v;
	size_t n = scan(&v);

	for (size_t i = 0; i < n; i++)
		if (v[i].session == leader)
			kill(v[i].pid, signo);
	free(v);
}

void favo_tree_signal(pid_t leader, int signo, enum favo_signal_target target)
{
	switch (target) {
	case FAVO_SIGNAL_PROCESS:
		kill(leader, signo);
		break;
	case FAVO_SIGNAL_GROUP:
		/* Until the child's setsid() there is no such group. */
		if (kill(-leader, signo) < 0)
			kill(leader, signo);
		break;
	case FAVO_SIGNAL_SESSION:
		signal_session(leader, signo);
		break;
	}
}

static int write_kill(const char *dir)
{
	char path[PATH_MAX];
	favo_autoclose int fd = -1;

	snprintf(path, sizeof(path), "%s/cgroup.kill", dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	return fd >= 0 && write(fd, "1", 1) == 1 ? 0 : -errno;
}

void favo_tree_kill(pid_t leader, const char *cgroup_dir)
{
	if (cgroup_dir && write_kill(cgroup_dir) == 0)
		return;
	for (int i = 0; i < SCANS; i++) {
		struct entry *v;
		size_t n = scan(&v);
		size_t hits = mark(v, n, leader);

		for (size_t j = 0; j < n; j++)
			if (v[j].hit && v[j].pid != getpid())
				kill(v[j].pid, SIGKILL);
		free(v);
		if (!hits)
			break;
	}
}

int favo_cgroup_make(const char *dir, struct favo_err *err)
{
	if (mkdir(dir, 0755) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "mkdir %s: %m", dir);
	return 0;
}

int favo_cgroup_remove(const char *dir)
{
	if (rmdir(dir) == 0 || errno == ENOENT)
		return 0;
	write_kill(dir);
	return rmdir(dir) == 0 ? 0 : -errno;
}
