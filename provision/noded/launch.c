// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start of favo-vmm; see launch.h.
 *
 * The daemon has threads, so between fork and exec the child makes system
 * calls only: raw ones for the identity, because glibc's setuid family
 * synchronises threads that the child does not have.
 */
#include "provision/noded/launch.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "common/util.h"

#define MAX_FDS 32
#define GATE_FD (FAVO_LAUNCH_FD0 + MAX_FDS) /* above every target number */
#define SPARE_FD (GATE_FD + 1)

enum step {
	STEP_GATE,
	STEP_DESCRIPTORS,
	STEP_GROUPS,
	STEP_GID,
	STEP_UID,
	STEP_PRIVS,
	STEP_EXEC,
};

static const char *const step_names[] = {
	[STEP_GATE] = "wait",	     [STEP_DESCRIPTORS] = "arrange descriptors",
	[STEP_GROUPS] = "setgroups", [STEP_GID] = "setresgid",
	[STEP_UID] = "setresuid",    [STEP_PRIVS] = "no_new_privs",
	[STEP_EXEC] = "exec",
};

struct report {
	int step;
	int code;
};

static void child_fail(enum step step, int code) __attribute__((noreturn));
static void child_fail(enum step step, int code)
{
	struct report report = {.step = step, .code = code};

	if (write(GATE_FD, &report, sizeof(report)) < 0)
		_exit(126);
	_exit(127);
}

/*
 * Move fds to 3.. and stdio to 0..2, close everything else but the gate. A
 * source may sit on another's target: all are first copied above SPARE_FD.
 */
static void child_descriptors(const struct favo_launch *l, int gate, int null_fd)
{
	int high[MAX_FDS], log_high, null_high;

	gate = fcntl(gate, F_DUPFD, SPARE_FD);
	log_high = fcntl(l->log_fd, F_DUPFD, SPARE_FD);
	null_high = fcntl(null_fd, F_DUPFD, SPARE_FD);
	for (size_t i = 0; i < l->nfds; i++) {
		high[i] = fcntl(l->fds[i], F_DUPFD, SPARE_FD);
		if (high[i] < 0)
			_exit(126);
	}
	if (gate < 0 || log_high < 0 || null_high < 0 ||
	    dup3(gate, GATE_FD, O_CLOEXEC) < 0)
		_exit(126);
	if (dup2(null_high, 0) < 0 || dup2(log_high, 1) < 0 || dup2(log_high, 2) < 0)
		child_fail(STEP_DESCRIPTORS, errno);
	for (size_t i = 0; i < l->nfds; i++)
		if (dup2(high[i], FAVO_LAUNCH_FD0 + (int)i) < 0)
			child_fail(STEP_DESCRIPTORS, errno);
	if (syscall(SYS_close_range, FAVO_LAUNCH_FD0 + (unsigned int)l->nfds, GATE_FD - 1,
		    0) < 0 ||
	    syscall(SYS_close_range, SPARE_FD, ~0u, 0) < 0)
		child_fail(STEP_DESCRIPTORS, errno);
}

static void child_identity(const struct favo_launch *l)
{
	if (syscall(SYS_setgroups, l->ngroups, l->groups) < 0)
		child_fail(STEP_GROUPS, errno);
	if (syscall(SYS_setresgid, l->gid, l->gid, l->gid) < 0)
		child_fail(STEP_GID, errno);
	if (syscall(SYS_setresuid, l->uid, l->uid, l->uid) < 0)
		child_fail(STEP_UID, errno);
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		child_fail(STEP_PRIVS, errno);
}

static void child_main(const struct favo_launch *l, int gate, int null_fd,
		       const sigset_t *no_signals) __attribute__((noreturn));
static void child_main(const struct favo_launch *l, int gate, int null_fd,
		       const sigset_t *no_signals)
{
	static char *const env[] = {(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	const struct rlimit no_core = {0}, files = {l->nofile, l->nofile};
	char go;

	setsid();
	signal(SIGPIPE, SIG_DFL);
	sigprocmask(SIG_SETMASK, no_signals, NULL);
	child_descriptors(l, gate, null_fd);
	/* Guest memory does not belong into a core file. */
	setrlimit(RLIMIT_CORE, &no_core);
	if (l->nofile)
		setrlimit(RLIMIT_NOFILE, &files);
	if (read(GATE_FD, &go, 1) != 1)
		_exit(125);
	child_identity(l);
	/* After the change of identity, which clears it. */
	if (l->die_with_us && (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() == 1))
		_exit(125);
	execve(l->path, l->argv, env);
	child_fail(STEP_EXEC, errno);
}

/* Bind a process to the CPUs of a list, as far as the node has them. */
static void bind_cores(pid_t pid, const char *cores)
{
	cpu_set_t set;
	const char *p = cores;

	CPU_ZERO(&set);
	while (*p) {
		char *end;
		unsigned long first = strtoul(p, &end, 10);
		unsigned long last = *end == '-' ? strtoul(end + 1, &end, 10) : first;

		for (; first <= last && first < CPU_SETSIZE; first++)
			CPU_SET(first, &set);
		p = *end == ',' ? end + 1 : "";
	}
	/* Fails when the node has none of them (over-declared); unbound then. */
	if (CPU_COUNT(&set))
		(void)sched_setaffinity(pid, sizeof(set), &set);
}

int favo_launch_begin(const struct favo_launch *launch, struct favo_process *process,
		      int *gate, struct favo_err *err)
{
	favo_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	favo_autoclose int pidfd = -1, ours = -1, theirs = -1;
	int pair[2];
	sigset_t none;
	pid_t pid;
	int ret;

	sigemptyset(&none);
	if (launch->nfds > MAX_FDS)
		return favo_fail(err, E2BIG, "too many descriptors for %s", launch->path);
	if (null_fd < 0 || socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return favo_fail(err, errno, "prepare start of %s: %m", launch->path);
	ours = pair[0];
	theirs = pair[1];
	pid = fork();
	if (pid < 0)
		return favo_fail(err, errno, "fork for %s: %m", launch->path);
	if (!pid)
		child_main(launch, theirs, null_fd, &none);
	ret = launch->cgroup ? favo_job_cgroup_add(launch->cgroup, pid, err) : 0;
	if (ret >= 0) {
		bind_cores(pid, launch->cores);
		pidfd = pidfd_open(pid, 0);
		if (pidfd < 0)
			ret = favo_fail(err, errno, "pidfd of %s: %m", launch->path);
	}
	if (ret < 0) {
		kill(pid, SIGKILL);
		waitpid(pid, NULL, 0);
		return ret;
	}
	process->pid = pid;
	process->start_time = favo_process_start_time(pid);
	process->pidfd = favo_steal_fd(&pidfd);
	*gate = favo_steal_fd(&ours);
	return 0;
}

int favo_launch_go(int *gate, const char *path, struct favo_err *err)
{
	favo_autoclose int fd = favo_steal_fd(gate);
	struct report report = {0};
	ssize_t n;

	if (send(fd, "g", 1, MSG_NOSIGNAL) != 1)
		return favo_fail(err, errno, "start %s: %m", path);
	do {
		n = read(fd, &report, sizeof(report));
	} while (n < 0 && errno == EINTR);
	/* End of file: exec closed the child's end. */
	if (n == 0)
		return 0;
	if (n != sizeof(report) || report.step < 0 || report.step > STEP_EXEC)
		return favo_fail(err, EIO, "start %s: its process died", path);
	return favo_fail(err, report.code, "start %s: %s: %m", path,
			 step_names[report.step]);
}

uint64_t favo_process_start_time(pid_t pid)
{
	favo_autofree char *text = NULL;
	unsigned long long value = 0;
	char path[40], state = 0;
	const char *p;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (favo_file_read(path, 4096, &text, NULL, NULL) < 0)
		return 0;
	/* The name in parentheses may hold anything: fields start behind the last ')'. */
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d"
			 " %*d %*d %*d %llu",
			 &state, &value) != 2)
		return 0;
	return state == 'Z' || state == 'X' ? 0 : value;
}

int favo_process_adopt(struct favo_process *process, pid_t pid, uint64_t start_time,
		       struct favo_err *err)
{
	favo_autoclose int pidfd = -1;

	if (pid <= 1 || !start_time)
		return favo_fail(err, ESRCH, "no process");
	pidfd = pidfd_open(pid, 0);
	if (pidfd < 0)
		return favo_fail(err, errno, "process %d: %m", (int)pid);
	/* Asked after the pidfd is held, so that the pid cannot change hands. */
	if (favo_process_start_time(pid) != start_time)
		return favo_fail(err, ESRCH, "process %d is another one by now",
				 (int)pid);
	process->pid = pid;
	process->start_time = start_time;
	process->pidfd = favo_steal_fd(&pidfd);
	return 0;
}

bool favo_process_wait(const struct favo_process *process, int timeout_ms)
{
	struct pollfd p = {.fd = process->pidfd, .events = POLLIN};
	int64_t end = favo_now_ms() + timeout_ms;
	int ret;

	do {
		int64_t left = end - favo_now_ms();

		ret = poll(&p, 1, left > 0 ? (int)left : 0);
	} while (ret < 0 && errno == EINTR);
	return ret > 0;
}

void favo_process_reap(const struct favo_process *process)
{
	siginfo_t info;

	while (waitid(P_PIDFD, (id_t)process->pidfd, &info, WEXITED) < 0 &&
	       errno == EINTR)
		;
}
