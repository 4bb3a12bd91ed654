// SPDX-License-Identifier: GPL-2.0-or-later
/* posix_spawn and a pipe: see run.h. No shell is ever involved. */
#include "common/run.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util.h"

#define GRACE_MS 2000 /* between SIGTERM and SIGKILL */

extern char **environ;

/* Output until its end, dropping what does not fit; false: time is over. */
static bool read_output(int fd, int64_t end_ms, char *out, size_t size)
{
	char spill[4096];
	size_t len = 0;

	for (;;) {
		struct pollfd p = {.fd = fd, .events = POLLIN};
		int64_t left = end_ms - favo_now_ms();
		bool full = len + 1 >= size;
		ssize_t n;

		if (left <= 0 || poll(&p, 1, (int)left) == 0)
			return false;
		n = full ? read(fd, spill, sizeof(spill))
			 : read(fd, out + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return true;
		if (!full)
			len += (size_t)n;
		out[len] = '\0';
	}
}

/* Wait until pid ends; false: it has not by end_ms. */
static bool reap(pid_t pid, int64_t end_ms, int *status)
{
	for (;;) {
		pid_t got = waitpid(pid, status, WNOHANG);

		if (got == pid || (got < 0 && errno != EINTR))
			return true;
		if (favo_now_ms() >= end_ms)
			return false;
		poll(NULL, 0, 10);
	}
}

int favo_run_output(char *const argv[], bool both, int timeout_ms, char *out, size_t size)
{
	int64_t end_ms = favo_now_ms() + timeout_ms;
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t none, plain;
	int p[2], status = 0, ret;
	bool timely;
	pid_t pid;

	out[0] = '\0';
	if (pipe2(p, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, p[1], STDOUT_FILENO);
	if (both)
		posix_spawn_file_actions_adddup2(&fa, p[1], STDERR_FILENO);
	/* A daemon blocks and ignores signals that its programs may live by. */
	sigemptyset(&none);
	sigemptyset(&plain);
	sigaddset(&plain, SIGPIPE);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &plain);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	ret = posix_spawnp(&pid, argv[0], &fa, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	close(p[1]);
	if (ret) {
		close(p[0]);
		return -ret;
	}
	timely = read_output(p[0], end_ms, out, size) && reap(pid, end_ms, &status);
	close(p[0]);
	if (!timely) {
		kill(pid, SIGTERM);
		if (!reap(pid, favo_now_ms() + GRACE_MS, &status)) {
			kill(pid, SIGKILL);
			reap(pid, INT64_MAX, &status);
		}
		return -ETIMEDOUT;
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}
