// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Jail for programs that read foreign files; see confine.h. Between fork and
 * exec there are only system calls: two forks, because who makes a PID
 * namespace does not enter it himself (pid_namespaces(7)). The outer child
 * passes the exit status on.
 */
#include "images/confine.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <linux/capability.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/statvfs.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"

#define MEMORY_MAX (4ull << 30)
#define CPU_SECONDS_MAX 7200
#define FILES_MAX 64
#define WORDS_MAX 65536
#define NAMESPACES                                                                       \
	(CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWPID)

/* Covered by the jail's root; sources are opened before. */
#define JAIL "/tmp"

/* All that the child needs, made before the fork. */
struct child {
	const struct favo_confine *spec;
	int program_fd, null_fd, stdout_fd, stderr_fd;
	int report_fd; /* how the preparation failed; closed by exec */
	bool root, open;
	char uid_map[32], gid_map[32];
};

/* What the child could not do. */
struct report {
	char what[48];
	int code;
};

static void give_up(const struct child *c, const char *what)
{
	struct report report = {.code = errno};
	ssize_t n;

	strncpy(report.what, what, sizeof(report.what) - 1);
	n = write(c->report_fd, &report, sizeof(report));
	_exit(n == sizeof(report) ? 126 : 125);
}

static bool put_text(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok = fd >= 0 && write(fd, text, strlen(text)) == (ssize_t)strlen(text);

	if (fd >= 0)
		close(fd);
	return ok;
}

/* Flags of a mount that a user namespace may not take away. */
static unsigned long kept_flags(const char *path)
{
	static const struct {
		unsigned long st, ms;
	} rows[] = {{ST_NOSUID, MS_NOSUID},	{ST_NODEV, MS_NODEV},
		    {ST_NOEXEC, MS_NOEXEC},	{ST_NOATIME, MS_NOATIME},
		    {ST_RELATIME, MS_RELATIME}, {ST_NODIRATIME, MS_NODIRATIME}};
	struct statvfs st;
	unsigned long flags = 0;

	if (statvfs(path, &st) < 0)
		return 0;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++)
		if (st.f_flag & rows[i].st)
			flags |= rows[i].ms;
	return flags;
}

/* Show the file or folder behind fd at target, which exists. */
static bool show(int fd, const char *target, unsigned long flags)
{
	char source[32];

	snprintf(source, sizeof(source), "/proc/self/fd/%d", fd);
	if (mount(source, target, NULL, MS_BIND | MS_REC, NULL) < 0)
		return false;
	flags |= MS_NOSUID | MS_NODEV | kept_flags(target);
	return mount(NULL, target, NULL, MS_REMOUNT | MS_BIND | flags, NULL) == 0;
}

static void show_file(const struct child *c, int fd, const char *target,
		      unsigned long flags)
{
	int made;

	if (fd < 0)
		return;
	made = open(target, O_CREAT | O_WRONLY | O_CLOEXEC, 0600);
	if (made < 0 || !show(fd, target, flags | MS_NOEXEC))
		give_up(c, "show a file in the jail");
	close(made);
}

static int open_source(const struct child *c, const char *path)
{
	int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;

	if (path && fd < 0)
		give_up(c, path);
	return fd;
}

static void build_root(const struct child *c)
{
	static const char *const links[] = {"lib", "lib64", "bin", "sbin"};
	char to[16];
	int usr = open_source(c, "/usr"), in = open_source(c, c->spec->in_path),
	    out = open_source(c, c->spec->out_path);

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		give_up(c, "make mounts private");
	if (mount("none", JAIL, "tmpfs", MS_NOSUID | MS_NODEV,
		  "size=64k,nr_inodes=32,mode=755") < 0 ||
	    chdir(JAIL) < 0)
		give_up(c, "mount the jail's root");
	if (mkdir("usr", 0755) < 0 || !show(usr, JAIL "/usr", MS_RDONLY))
		give_up(c, "show /usr in the jail");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(links); i++) {
		snprintf(to, sizeof(to), "usr/%s", links[i]);
		if (symlink(to, links[i]) < 0)
			give_up(c, "fill the jail's root");
	}
	show_file(c, in, JAIL FAVO_CONFINE_IN, MS_RDONLY);
	show_file(c, out, JAIL FAVO_CONFINE_OUT, 0);
	/* The old root lands over the new one and is taken off: pivot_root(2). */
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0 ||
	    chdir("/") < 0)
		give_up(c, "enter the jail's root");
	if (mount(NULL, "/", NULL,
		  MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV, NULL) < 0)
		give_up(c, "make the jail's root read-only");
}

static void set_limits(const struct child *c)
{
	const struct {
		int resource;
		rlim_t max;
	} rows[] = {{RLIMIT_CORE, 0},
		    {RLIMIT_AS, MEMORY_MAX},
		    {RLIMIT_CPU, CPU_SECONDS_MAX},
		    {RLIMIT_NOFILE, FILES_MAX},
		    {RLIMIT_FSIZE, FAVO_MAX(c->spec->out_max, WORDS_MAX)}};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct rlimit limit = {rows[i].max, rows[i].max};

		if (setrlimit((__rlimit_resource_t)rows[i].resource, &limit) < 0)
			give_up(c, "set limits");
	}
}

static void drop_privileges(const struct child *c)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
	unsigned long cap;

	for (cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	/* The system calls themselves: libc's functions would stop all threads. */
	if (c->root && (syscall(SYS_setgroups, 0, NULL) < 0 ||
			syscall(SYS_setresgid, FAVO_CONFINE_UID, FAVO_CONFINE_UID,
				FAVO_CONFINE_UID) < 0 ||
			syscall(SYS_setresuid, FAVO_CONFINE_UID, FAVO_CONFINE_UID,
				FAVO_CONFINE_UID) < 0))
		give_up(c, "become nobody");
	if (syscall(SYS_capset, &head, none) < 0 ||
	    prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		give_up(c, "drop capabilities");
}

static void run_program(const struct child *c)
{
	static char *const env[] = {"PATH=/usr/bin", "LC_ALL=C.UTF-8", NULL};

	set_limits(c);
	drop_privileges(c);
	/* A change of identity resets it. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (dup2(c->null_fd, STDIN_FILENO) < 0 || dup2(c->stdout_fd, STDOUT_FILENO) < 0 ||
	    dup2(c->stderr_fd, STDERR_FILENO) < 0)
		give_up(c, "dup2");
	syscall(SYS_execveat, c->program_fd, "", c->spec->argv, env, AT_EMPTY_PATH);
	give_up(c, "exec");
}

static void run_child(struct child *c)
{
	int status;
	pid_t pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (c->open)
		run_program(c);
	if (unshare(NAMESPACES | (c->root ? 0 : CLONE_NEWUSER)) < 0)
		give_up(c, "new namespaces");
	if (!c->root && (!put_text("/proc/self/uid_map", c->uid_map) ||
			 !put_text("/proc/self/setgroups", "deny") ||
			 !put_text("/proc/self/gid_map", c->gid_map)))
		give_up(c, "map the user");
	build_root(c);
	pid = _Fork();
	if (pid < 0)
		give_up(c, "fork");
	if (pid == 0)
		run_program(c);
	close(c->report_fd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	_exit(WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status));
}

int favo_confine_make_out(char **path, const char *tmp_dir, struct favo_err *err)
{
	favo_autofree char *name = favo_asprintf("%s/disk-XXXXXX", tmp_dir);
	int fd = name ? mkostemp(name, O_CLOEXEC) : -1;

	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", tmp_dir);
	if (geteuid() == 0 && fchown(fd, FAVO_CONFINE_UID, FAVO_CONFINE_UID) < 0) {
		favo_fail(err, errno, "%s: %m", name);
		unlink(name);
		close(fd);
		return -EPERM;
	}
	*path = favo_steal_ptr(&name);
	return fd;
}

/* Copy the data of in, extent by extent; copy_file_range shares them if it can. */
static int copy_sparse(int in, int out, off_t size, struct favo_err *err)
{
	off_t from = 0, to, hole;
	ssize_t n;

	while (from < size) {
		from = lseek(in, from, SEEK_DATA);
		if (from < 0 && errno == ENXIO)
			break;
		hole = from < 0 ? -1 : lseek(in, from, SEEK_HOLE);
		if (hole < 0)
			return favo_fail(err, errno, "%m");
		for (to = from; from < hole;) {
			n = copy_file_range(in, &from, out, &to, (size_t)(hole - from),
					    0);
			if (n <= 0)
				return favo_fail(err, n < 0 ? errno : EIO, "copy: %m");
		}
	}
	return ftruncate(out, size) < 0 ? favo_fail(err, errno, "copy: %m") : 0;
}

int favo_confine_admit(char **copy, const char *path, const char *tmp_dir,
		       struct favo_err *err)
{
	favo_autoclose int in = open(path, O_RDONLY | O_CLOEXEC), out = -1;
	favo_autofree char *made = NULL;
	struct stat st;
	int ret;

	*copy = NULL;
	if (in < 0 || fstat(in, &st) < 0)
		return favo_fail(err, errno, "%m");
	if (!S_ISREG(st.st_mode))
		return favo_fail(err, EINVAL, "not a regular file");
	if (geteuid() != 0 || (st.st_mode & S_IROTH))
		return 0;
	out = favo_confine_make_out(&made, tmp_dir, err);
	if (out < 0)
		return out;
	ret = copy_sparse(in, out, st.st_size, err);
	if (ret < 0)
		unlink(made);
	else
		*copy = favo_steal_ptr(&made);
	return ret;
}

/* Descriptor of a program of the system or of Favo. */
static int find_program(const char *name, struct favo_err *err)
{
	const char *own = getenv("FAVO_LIBEXECDIR");
	const char *const folders[] = {own ? own : FAVO_LIBEXECDIR, "/usr/bin",
				       "/usr/local/bin", "/usr/sbin"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(folders); i++) {
		favo_autofree char *path = favo_asprintf("%s/%s", folders[i], name);
		int fd = path ? open(path, O_PATH | O_CLOEXEC) : -1;

		if (fd >= 0)
			return fd;
	}
	return favo_fail(err, ENOENT, "the program %s is needed and not installed", name);
}

/* May users make namespaces here? Asked by doing it. */
static bool has_user_namespaces(void)
{
	int status = 1;
	pid_t pid = _Fork();

	if (pid == 0)
		_exit(unshare(CLONE_NEWUSER | NAMESPACES) == 0 ? 0 : 1);
	while (pid > 0 && waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return pid > 0 && status == 0;
}

/* Waits for exec, or for the sentence of what went wrong before it. */
static int read_report(struct favo_confined *run, int fd, struct favo_err *err)
{
	struct report report;

	if (favo_read_all(fd, &report, sizeof(report), -1, NULL) < 0)
		return 0;
	report.what[sizeof(report.what) - 1] = '\0';
	favo_confine_finish(run, NULL);
	return favo_fail(err, report.code, "jail of %s: %s: %s", run->name, report.what,
			 strerror(report.code));
}

int favo_confine_start(struct favo_confined *run, const struct favo_confine *spec,
		       struct favo_err *err)
{
	favo_autoclose int program = find_program(spec->argv[0], err), null_fd = -1,
			   out = -1, report = -1, report_in = -1;
	struct child c = {.spec = spec, .program_fd = program, .root = geteuid() == 0};
	int fds[2];

	*run = (struct favo_confined)FAVO_CONFINED_INIT;
	run->name = spec->argv[0];
	if (program < 0)
		return program;
	null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	run->stderr_fd = memfd_create("stderr", MFD_CLOEXEC);
	if (null_fd < 0 || run->stderr_fd < 0 || pipe2(fds, O_CLOEXEC) < 0) {
		favo_close(&run->stderr_fd);
		return favo_fail(err, errno, "start %s: %m", run->name);
	}
	run->stdout_fd = fds[0];
	out = fds[1];
	if (pipe2(fds, O_CLOEXEC) < 0)
		goto failed;
	report = fds[0];
	report_in = fds[1];
	c.null_fd = null_fd;
	c.stdout_fd = out;
	c.stderr_fd = run->stderr_fd;
	c.report_fd = report_in;
	snprintf(c.uid_map, sizeof(c.uid_map), "%u %u 1", geteuid(), geteuid());
	snprintf(c.gid_map, sizeof(c.gid_map), "%u %u 1", getegid(), getegid());
	run->open = c.open = !c.root && !has_user_namespaces();
	run->pid = _Fork();
	if (run->pid < 0)
		goto failed;
	if (run->pid == 0)
		run_child(&c);
	favo_close(&report_in);
	return read_report(run, report, err);
failed:
	run->pid = 0;
	favo_fail(err, errno, "start %s: %m", run->name);
	favo_close(&run->stdout_fd);
	favo_close(&run->stderr_fd);
	return -EAGAIN;
}

/* The last line that the program wrote to stderr. */
static char *last_words(int fd)
{
	favo_autofree char *text = calloc(1, WORDS_MAX + 1);
	ssize_t n = text ? pread(fd, text, WORDS_MAX, 0) : -1;
	char *line;

	while (n > 0 && (text[n - 1] == '\n' || text[n - 1] == ' '))
		text[--n] = '\0';
	if (n <= 0)
		return NULL;
	for (char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' && *p != '\n')
			*p = '?';
	line = strrchr(text, '\n');
	return strdup(line ? line + 1 : text);
}

int favo_confine_finish(struct favo_confined *run, struct favo_err *err)
{
	favo_autofree char *words = NULL;
	int status = 0;

	favo_close(&run->stdout_fd);
	if (run->pid <= 0)
		return 0;
	while (waitpid(run->pid, &status, 0) < 0 && errno == EINTR)
		;
	run->pid = 0;
	words = last_words(run->stderr_fd);
	favo_close(&run->stderr_fd);
	status = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
	if (status == 0)
		return 0;
	if (words)
		return favo_fail(err, EIO, "%.200s", words);
	if (status > 128)
		return favo_fail(err, EIO, "%s was ended by signal %d (%s)", run->name,
				 status - 128, strsignal(status - 128));
	return favo_fail(err, EIO, "%s failed with status %d", run->name, status);
}

int favo_confine_output(const struct favo_confine *spec, size_t max, char **text,
			size_t *len, struct favo_err *err)
{
	struct favo_confined run = FAVO_CONFINED_INIT;
	favo_autofree char *data = malloc(max + 1);
	size_t have = 0;
	ssize_t n = 1;
	int ret;

	if (!data)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_confine_start(&run, spec, err);
	if (ret < 0)
		return ret;
	while (have < max && n != 0) {
		n = read(run.stdout_fd, data + have, max - have);
		if (n < 0 && errno != EINTR)
			break;
		have += n > 0 ? (size_t)n : 0;
	}
	ret = favo_confine_finish(&run, err);
	if (ret == 0 && have == max)
		ret = favo_fail(err, EFBIG, "%s: too much output", spec->argv[0]);
	if (ret < 0)
		return ret;
	data[have] = '\0';
	*text = favo_steal_ptr(&data);
	*len = have;
	return 0;
}
