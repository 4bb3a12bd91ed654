// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start of a process for a run request; see spawn.h. The child is prepared
 * between fork and exec: we have one thread, so anything may be called there,
 * but nothing there may return into our loop. What fails there is told over
 * a close-on-exec pipe: its end of file says that the exec happened.
 */
#include "images/guest/spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <linux/close_range.h>
#include <linux/openat2.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"

/* Group of terminals on every Linux distribution. */
#define TTY_GID 5
#define DEFAULT_PATH "/usr/local/bin:/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin"

/* Child ends of stdio and the pipe that reports on the start. */
struct child {
	const struct favo_spawn *spawn;
	int fds[3];
	int report;
};

static favo_printf(3, 4) void report(const struct child *c, int code, const char *fmt,
				     ...)
{
	struct favo_spawn_report r = {.code = code};
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(r.text, sizeof(r.text), fmt, ap);
	va_end(ap);
	/* Nobody is left to tell when this fails. */
	if (write(c->report, &r, sizeof(r)) < 0)
		_exit(127);
}

static favo_printf(3, 4) _Noreturn void give_up(const struct child *c, int code,
						const char *fmt, ...)
{
	char text[400];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	report(c, code, "%s: %s", text, strerror(code));
	_exit(127);
}

static void set_stdio(const struct child *c)
{
	int fds[3];

	/* Out of the way first: a child end may sit on 0, 1 or 2 itself. */
	for (int i = 0; i < 3; i++) {
		fds[i] = fcntl(c->fds[i], F_DUPFD_CLOEXEC, 3);
		if (fds[i] < 0)
			give_up(c, errno, "descriptor %d", i);
	}
	for (int i = 0; i < 3; i++)
		if (dup2(fds[i], i) < 0)
			give_up(c, errno, "descriptor %d", i);
	if (close_range(3, ~0U, CLOSE_RANGE_CLOEXEC) < 0)
		give_up(c, errno, "close_range");
	for (size_t i = 0; i < c->spawn->n_keep; i++)
		if (fcntl(c->spawn->keep[i], F_SETFD, 0) < 0)
			give_up(c, errno, "descriptor %d", c->spawn->keep[i]);
}

static void reset_signals(void)
{
	struct sigaction sa = {.sa_handler = SIG_DFL};
	sigset_t none;

	for (int s = 1; s < NSIG; s++)
		sigaction(s, &sa, NULL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

static void set_limits(const struct child *c)
{
	const struct favo_run *run = c->spawn->run;

	for (size_t i = 0; i < run->n_rlimits; i++) {
		const struct favo_run_rlimit *r = &run->rlimits[i];
		struct rlimit lim = {.rlim_cur = r->soft, .rlim_max = r->hard};

		/*
		 * A limit that cannot be had here (no privilege, kernel
		 * maximum) must not keep the program from running, as in
		 * slurmstepd.
		 */
		setrlimit((__rlimit_resource_t)r->resource, &lim);
	}
}

static void join_cgroup(const struct child *c)
{
	char path[PATH_MAX];
	int fd;

	if (!c->spawn->cgroup_dir)
		return;
	snprintf(path, sizeof(path), "%s/cgroup.procs", c->spawn->cgroup_dir);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "0", 1) != 1)
		give_up(c, errno, "join %s", path);
	close(fd);
}

/* Where a user's request may not make us create anything. */
static bool is_system_path(const char *path)
{
	static const char *const dirs[] = {"/etc", "/usr",  "/lib",  "/lib64",
					   "/bin", "/sbin", "/boot", "/root",
					   "/dev", "/proc", "/sys",  "/run/favo"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(dirs); i++) {
		size_t len = strlen(dirs[i]);

		if (strncmp(path, dirs[i], len) == 0 && (path[len] == '/' || !path[len]))
			return true;
	}
	return false;
}

/* The longest part of dir that exists, resolved; the rest starts at *rest. */
static int open_existing(const struct child *c, char *dir, const char **rest)
{
	struct open_how how = {.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
			       .resolve = RESOLVE_NO_SYMLINKS};
	char real[PATH_MAX];
	char *slash;
	int fd;

	while (!realpath(*dir ? dir : "/", real)) {
		slash = strrchr(dir, '/');
		if (errno != ENOENT || !slash)
			give_up(c, errno, "directory %s", dir);
		*slash = '\0';
	}
	*rest += strlen(dir);
	if (!strchr(*rest + 1, '/'))
		return -1;
	if (is_system_path(real))
		give_up(c, EPERM, "make a directory in %s", real);
	/* The path was resolved: a link in it now was put there to mislead. */
	fd = (int)syscall(SYS_openat2, AT_FDCWD, real, &how, sizeof(how));
	if (fd < 0)
		give_up(c, errno, "directory %s", real);
	return fd;
}

/*
 * Directories that a file needs and that do not exist yet are made with our
 * privilege; the last one is given to the user, as slurmd does with the
 * directory of a batch script.
 */
static void make_parents(const struct child *c, const char *path)
{
	const struct favo_run *run = c->spawn->run;
	char dir[PATH_MAX], name[NAME_MAX + 1];
	const char *rest = path;
	bool made = false;
	int fd;

	snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
	fd = open_existing(c, dir, &rest);
	while (fd >= 0 && strchr(rest + 1, '/')) {
		size_t len = strcspn(rest + 1, "/");
		int next;

		snprintf(name, sizeof(name), "%.*s", (int)len, rest + 1);
		rest += 1 + len;
		if (!len || len > NAME_MAX || strcmp(name, ".") == 0 ||
		    strcmp(name, "..") == 0)
			give_up(c, EINVAL, "path %s", path);
		made = mkdirat(fd, name, 0755) == 0;
		if (!made && errno != EEXIST)
			give_up(c, errno, "make directory %s of %s", name, path);
		next = openat(fd, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (next < 0)
			give_up(c, errno, "directory %s of %s", name, path);
		close(fd);
		fd = next;
	}
	if (made && c->spawn->switch_ids &&
	    fchownat(fd, "", run->uid, run->gid, AT_EMPTY_PATH) < 0)
		give_up(c, errno, "give the directory of %s to uid %u", path, run->uid);
	if (fd >= 0)
		close(fd);
}

/* Written as the user: a request can touch only what the user may touch. */
static void place_file(const struct child *c, const struct favo_run_file *file)
{
	struct favo_err err = {0};
	int fd = open(file->path, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC,
		      file->mode);

	if (fd < 0)
		give_up(c, errno, "create %s", file->path);
	if (favo_write_all(fd, file->data, file->len, -1, &err) < 0)
		give_up(c, err.code, "write %s", file->path);
	if (fchmod(fd, file->mode) < 0)
		give_up(c, errno, "chmod %s", file->path);
	close(fd);
}

static void switch_user(const struct child *c)
{
	const struct favo_run *run = c->spawn->run;

	if (!c->spawn->switch_ids) {
		if (run->uid != geteuid() || run->gid != getegid())
			give_up(c, EPERM, "become uid %u gid %u", run->uid, run->gid);
		return;
	}
	if (setgroups(run->n_groups, run->groups) < 0)
		give_up(c, errno, "set groups");
	if (setresgid(run->gid, run->gid, run->gid) < 0)
		give_up(c, errno, "become gid %u", run->gid);
	if (setresuid(run->uid, run->uid, run->uid) < 0)
		give_up(c, errno, "become uid %u", run->uid);
}

static void enter_directory(const struct child *c)
{
	const char *cwd = c->spawn->run->cwd;
	const char *home = c->spawn->home;
	int code;

	if (!cwd && c->spawn->keep_cwd)
		return;
	if (cwd && chdir(cwd) == 0)
		return;
	code = errno;
	if (!home || chdir(home) < 0) {
		home = "/";
		if (chdir(home) < 0)
			give_up(c, errno, "enter /");
	}
	if (cwd)
		report(c, 0, "%s: %s; started in %s", cwd, strerror(code), home);
}

static void exec_on_path(const struct child *c)
{
	const struct favo_run *run = c->spawn->run;
	const char *name = c->spawn->program ? c->spawn->program : run->argv[0];
	const char *path = favo_env_get(c->spawn->env, "PATH");
	char file[PATH_MAX];
	int code = ENOENT;

	if (strchr(name, '/')) {
		execve(name, run->argv, c->spawn->env);
		give_up(c, errno, "execve: %s", name);
	}
	for (path = path ? path : DEFAULT_PATH; path; path = strchr(path, ':')) {
		int len;

		path += *path == ':';
		len = (int)strcspn(path, ":");
		if (len == 0)
			continue;
		if (snprintf(file, sizeof(file), "%.*s/%s", len, path, name) >=
		    (int)sizeof(file))
			continue;
		execve(file, run->argv, c->spawn->env);
		if (errno != ENOENT && errno != ENOTDIR && code == ENOENT)
			code = errno;
	}
	give_up(c, code, "execve: %s", name);
}

static _Noreturn void run_child(struct child *c)
{
	const struct favo_run *run = c->spawn->run;

	reset_signals();
	setsid();
	join_cgroup(c);
	set_stdio(c);
	if ((run->flags & FAVO_RUN_PTY) && ioctl(STDIN_FILENO, TIOCSCTTY, 0) < 0)
		give_up(c, errno, "controlling terminal");
	set_limits(c);
	umask(022);
	for (size_t i = 0; i < run->n_files; i++)
		make_parents(c, run->files[i].path);
	switch_user(c);
	for (size_t i = 0; i < run->n_files; i++)
		place_file(c, &run->files[i]);
	umask(run->umask);
	enter_directory(c);
	exec_on_path(c);
	_exit(127);
}

/* A pipe end that the user's process can open again by /dev/stdout. */
static int make_pipe(int *ours, int *childs, bool child_reads, const struct favo_spawn *s,
		     struct favo_err *err)
{
	int p[2];

	if (pipe2(p, O_CLOEXEC) < 0)
		return favo_fail(err, errno, "pipe: %m");
	*ours = p[child_reads];
	*childs = p[!child_reads];
	if (s->switch_ids && fchown(*childs, s->run->uid, s->run->gid) < 0)
		return favo_fail(err, errno, "chown pipe: %m");
	if (favo_set_nonblock(*ours, true) < 0)
		return favo_fail(err, errno, "pipe: %m");
	return 0;
}

static int make_pty(struct favo_spawned *out, struct child *c, struct favo_err *err)
{
	const struct favo_run *run = c->spawn->run;
	char name[64];
	int slave;

	out->out = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC | O_NONBLOCK);
	if (out->out < 0)
		return favo_fail(err, errno, "open pseudo-terminal: %m");
	if (unlockpt(out->out) < 0 || ptsname_r(out->out, name, sizeof(name)) != 0)
		return favo_fail(err, errno, "pseudo-terminal: %m");
	slave = open(name, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (slave < 0)
		return favo_fail(err, errno, "open %s: %m", name);
	c->fds[0] = slave;
	if (c->spawn->switch_ids &&
	    (fchown(slave, run->uid, TTY_GID) < 0 || fchmod(slave, 0620) < 0))
		return favo_fail(err, errno, "give %s to uid %u: %m", name, run->uid);
	if (run->winsize.ws_row)
		ioctl(slave, TIOCSWINSZ, &run->winsize);
	out->in = fcntl(out->out, F_DUPFD_CLOEXEC, 3);
	c->fds[1] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	c->fds[2] = fcntl(slave, F_DUPFD_CLOEXEC, 3);
	if (out->in < 0 || c->fds[1] < 0 || c->fds[2] < 0)
		return favo_fail(err, errno, "pseudo-terminal: %m");
	return 0;
}

static int make_stdio(struct favo_spawned *out, struct child *c, struct favo_err *err)
{
	const struct favo_run *run = c->spawn->run;
	int ret;

	if (run->flags & FAVO_RUN_PTY)
		return make_pty(out, c, err);
	ret = make_pipe(&out->in, &c->fds[0], true, c->spawn, err);
	if (ret == 0)
		ret = make_pipe(&out->out, &c->fds[1], false, c->spawn, err);
	if (ret < 0)
		return ret;
	if (!(run->flags & FAVO_RUN_ERR_TO_OUT))
		return make_pipe(&out->err, &c->fds[2], false, c->spawn, err);
	c->fds[2] = fcntl(c->fds[1], F_DUPFD_CLOEXEC, 3);
	if (c->fds[2] < 0)
		return favo_fail(err, errno, "pipe: %m");
	return 0;
}

int favo_spawn(struct favo_spawned *out, const struct favo_spawn *spawn,
	       struct favo_err *err)
{
	struct favo_spawned s = {.pid = -1, .status = -1, .in = -1, .out = -1, .err = -1};
	struct child c = {.spawn = spawn, .fds = {-1, -1, -1}, .report = -1};
	int p[2];
	int ret = make_stdio(&s, &c, err);

	if (ret == 0 && pipe2(p, O_CLOEXEC) < 0)
		ret = favo_fail(err, errno, "pipe: %m");
	if (ret == 0) {
		s.status = p[0];
		c.report = p[1];
		s.pid = fork();
		if (s.pid == 0)
			run_child(&c);
		if (s.pid < 0)
			ret = favo_fail(err, errno, "fork: %m");
		else if (favo_set_nonblock(s.status, true) < 0)
			ret = favo_fail(err, errno, "pipe: %m");
	}
	for (int i = 0; i < 3; i++)
		favo_close(&c.fds[i]);
	favo_close(&c.report);
	if (ret < 0) {
		favo_close(&s.in);
		favo_close(&s.out);
		favo_close(&s.err);
		favo_close(&s.status);
		return ret;
	}
	*out = s;
	return 0;
}

int favo_spawn_result(int status_fd, struct favo_spawn_report *rep)
{
	/* Reports are smaller than PIPE_BUF: they arrive whole. */
	ssize_t n = read(status_fd, rep, sizeof(*rep));

	if (n < 0)
		return errno == EINTR ? -EAGAIN : -errno;
	if (n != sizeof(*rep))
		return 0;
	rep->text[sizeof(rep->text) - 1] = '\0';
	return 1;
}
