// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stand-in for a remote process; see client.h. The terminal is put into raw
 * mode, because line discipline and job control are done by the
 * pseudo-terminal at the other end.
 */
#include "images/guest/client.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <termios.h>
#include <unistd.h>

#include "common/util.h"
#include "images/guest/pump.h"

struct favo_client {
	struct favo_loop *loop;
	const struct favo_client_ops *ops;
	void *user;
	struct favo_watch signals;
	struct favo_channel *ch;
	struct favo_source in;
	struct favo_sink out, err;
	bool out_open, err_open;
	bool ended, lost;
	struct favo_exit result;
	char reason[512];
	int flags[3]; /* file status flags to restore, -1: untouched */
	bool raw;
	struct termios termios;
};

static void check_end(struct favo_client *c)
{
	if (c->ended && !c->out_open && !c->err_open)
		favo_loop_stop(c->loop, 0);
}

static void on_out_done(struct favo_sink *sink)
{
	struct favo_client *c = sink->user;
	int null;

	c->out_open = false;
	/* The reader of our stdout shall see its end now, not when we exit. */
	null = open("/dev/null", O_RDWR | O_CLOEXEC);
	if (null >= 0) {
		dup2(null, STDOUT_FILENO);
		close(null);
		c->flags[1] = -1;
	}
	check_end(c);
}

static void on_err_done(struct favo_sink *sink)
{
	struct favo_client *c = sink->user;

	c->err_open = false;
	check_end(c);
}

static void end(struct favo_client *c)
{
	c->ended = true;
	c->ch = NULL;
	favo_source_fini(&c->in);
	c->out.ch = NULL;
	c->err.ch = NULL;
	favo_sink_eof(&c->out);
	favo_sink_eof(&c->err);
	check_end(c);
}

static void on_data(struct favo_channel *ch, unsigned stream, const uint8_t *p, size_t n)
{
	struct favo_client *c = favo_channel_user(ch);

	favo_sink_data(stream == FAVO_STREAM_ERR ? &c->err : &c->out, p, n);
}

static void on_eof(struct favo_channel *ch, unsigned stream)
{
	struct favo_client *c = favo_channel_user(ch);

	favo_sink_eof(stream == FAVO_STREAM_ERR ? &c->err : &c->out);
}

static void on_stop(struct favo_channel *ch, unsigned stream)
{
	struct favo_client *c = favo_channel_user(ch);

	(void)stream;
	favo_source_end(&c->in);
}

static void on_ready(struct favo_channel *ch)
{
	struct favo_client *c = favo_channel_user(ch);

	favo_source_ready(&c->in);
}

static void on_started(struct favo_channel *ch, uint32_t pid, const char *note)
{
	struct favo_client *c = favo_channel_user(ch);

	(void)pid;
	if (c->ops->started)
		c->ops->started(c->user, note);
}

static void on_exited(struct favo_channel *ch, const struct favo_exit *ex)
{
	struct favo_client *c = favo_channel_user(ch);

	c->result = *ex;
	end(c);
}

static void on_closed(struct favo_channel *ch, const char *reason)
{
	struct favo_client *c = favo_channel_user(ch);

	c->lost = true;
	snprintf(c->reason, sizeof(c->reason), "%s", reason);
	end(c);
}

static const struct favo_channel_ops client_ops = {
	.data = on_data,
	.eof = on_eof,
	.stop = on_stop,
	.ready = on_ready,
	.started = on_started,
	.exited = on_exited,
	.closed = on_closed,
};

static void forward_signal(struct favo_client *c, int signo)
{
	struct winsize ws;

	switch (signo) {
	case SIGCHLD:
		if (c->ops->child)
			c->ops->child(c->user);
		return;
	case SIGWINCH:
		if (c->ch && ioctl(STDIN_FILENO, TIOCGWINSZ, &ws) == 0)
			favo_channel_winsize(c->ch, &ws);
		return;
	case SIGPIPE:
	case SIGTTIN:
	case SIGTTOU:
	case SIGURG:
	case SIGIO:
		return;
	default:
		break;
	}
	if (c->ch) {
		favo_channel_signal(c->ch, signo, FAVO_SIGNAL_GROUP);
	} else if (!c->ended && signo != SIGCONT && signo != SIGTSTP) {
		/* Nothing runs yet: the signal is meant for the start. */
		favo_client_restore(c);
		favo_client_mirror(&(struct favo_exit){.kind = FAVO_EXIT_SIGNAL,
						       .number = (uint32_t)signo});
	}
}

static void on_signals(struct favo_watch *watch, short revents)
{
	struct signalfd_siginfo info;

	(void)revents;
	while (read(watch->fd, &info, sizeof(info)) == sizeof(info))
		forward_signal(watch->user, (int)info.ssi_signo);
}

int favo_client_new(struct favo_client **out, struct favo_loop *loop,
		    const struct favo_client_ops *ops, void *user, struct favo_err *err)
{
	static const int faults[] = {SIGSEGV, SIGBUS, SIGFPE, SIGILL,
				     SIGTRAP, SIGSYS, SIGABRT};
	favo_autofree struct favo_client *c = calloc(1, sizeof(*c));
	favo_autoclose int fd = -1;
	sigset_t all;
	int ret;

	if (!c)
		return favo_fail(err, ENOMEM, "allocate");
	sigfillset(&all);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(faults); i++)
		sigdelset(&all, faults[i]);
	if (sigprocmask(SIG_BLOCK, &all, NULL) < 0)
		return favo_fail(err, errno, "block signals: %m");
	/* An ignored signal would not reach the signalfd. */
	for (int s = 1; s < NSIG; s++)
		if (sigismember(&all, s) == 1)
			signal(s, SIG_DFL);
	fd = signalfd(-1, &all, SFD_CLOEXEC | SFD_NONBLOCK);
	if (fd < 0)
		return favo_fail(err, errno, "signalfd: %m");
	c->loop = loop;
	c->ops = ops;
	c->user = user;
	for (int i = 0; i < 3; i++)
		c->flags[i] = -1;
	c->signals = (struct favo_watch){
		.fd = fd, .events = POLLIN, .fn = on_signals, .user = c};
	ret = favo_watch_add(loop, &c->signals, err);
	if (ret < 0)
		return ret;
	favo_steal_fd(&fd);
	*out = favo_steal_ptr(&c);
	return 0;
}

static int describe_groups(struct favo_run *run, struct favo_err *err)
{
	int n = getgroups(0, NULL);

	run->groups = calloc((size_t)FAVO_MAX(n, 0) + 1, sizeof(*run->groups));
	if (!run->groups)
		return favo_fail(err, ENOMEM, "allocate");
	n = getgroups(n, run->groups);
	if (n < 0)
		return favo_fail(err, errno, "getgroups: %m");
	run->n_groups = (size_t)n;
	return 0;
}

static int describe_limits(struct favo_run *run, struct favo_err *err)
{
	run->rlimits = calloc(RLIM_NLIMITS, sizeof(*run->rlimits));
	if (!run->rlimits)
		return favo_fail(err, ENOMEM, "allocate");
	for (uint32_t i = 0; i < RLIM_NLIMITS; i++) {
		struct rlimit lim;

		if (getrlimit((__rlimit_resource_t)i, &lim) < 0)
			continue;
		run->rlimits[run->n_rlimits++] = (struct favo_run_rlimit){
			.resource = i, .soft = lim.rlim_cur, .hard = lim.rlim_max};
	}
	return 0;
}

int favo_client_describe(struct favo_run *run, struct favo_err *err)
{
	struct stat out, errst;
	int ret;

	run->uid = geteuid();
	run->gid = getegid();
	run->umask = umask(022);
	umask(run->umask);
	run->cwd = getcwd(NULL, 0);
	/* Linux says "(unreachable)/x" for a directory outside our root. */
	if (run->cwd && run->cwd[0] != '/') {
		free(run->cwd);
		run->cwd = NULL;
	}
	if (isatty(STDIN_FILENO) && isatty(STDOUT_FILENO)) {
		run->flags |= FAVO_RUN_PTY;
		if (ioctl(STDIN_FILENO, TIOCGWINSZ, &run->winsize) < 0)
			run->winsize = (struct winsize){0};
	} else if (fstat(STDOUT_FILENO, &out) == 0 && fstat(STDERR_FILENO, &errst) == 0 &&
		   out.st_dev == errst.st_dev && out.st_ino == errst.st_ino) {
		/* One file: one stream keeps the order of what is written. */
		run->flags |= FAVO_RUN_ERR_TO_OUT;
	}
	ret = describe_groups(run, err);
	if (ret == 0)
		ret = describe_limits(run, err);
	return ret;
}

/* Our own copy of a standard descriptor, non-blocking where that is useful. */
static int take_fd(struct favo_client *c, int fd)
{
	int flags = fcntl(fd, F_GETFL);
	struct stat st;

	if (flags >= 0 && !(flags & O_NONBLOCK) && fstat(fd, &st) == 0 &&
	    !S_ISREG(st.st_mode) && fcntl(fd, F_SETFL, flags | O_NONBLOCK) == 0)
		c->flags[fd] = flags;
	return fcntl(fd, F_DUPFD_CLOEXEC, 3);
}

static int start_pumps(struct favo_client *c, struct favo_err *err)
{
	int fds[3] = {-1, -1, -1};
	int ret = 0;

	for (int i = 0; i < 3; i++) {
		fds[i] = take_fd(c, i);
		if (fds[i] < 0 && ret == 0)
			ret = favo_fail(err, errno, "descriptor %d: %m", i);
	}
	c->in.user = c->out.user = c->err.user = c;
	c->out.done = on_out_done;
	c->err.done = on_err_done;
	if (ret == 0)
		ret = favo_source_start(&c->in, c->loop, favo_steal_fd(&fds[0]), c->ch,
					FAVO_STREAM_IN, err);
	if (ret == 0)
		ret = favo_sink_start(&c->out, c->loop, favo_steal_fd(&fds[1]), c->ch,
				      FAVO_STREAM_OUT, err);
	c->out_open = ret == 0;
	if (ret == 0)
		ret = favo_sink_start(&c->err, c->loop, favo_steal_fd(&fds[2]), c->ch,
				      FAVO_STREAM_ERR, err);
	c->err_open = ret == 0;
	for (int i = 0; i < 3; i++)
		favo_close(&fds[i]);
	return ret;
}

static void make_raw(struct favo_client *c)
{
	struct termios raw;

	if (tcgetattr(STDIN_FILENO, &c->termios) < 0)
		return;
	raw = c->termios;
	cfmakeraw(&raw);
	c->raw = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

int favo_client_start(struct favo_client *c, struct favo_conn *conn,
		      const struct favo_run *run, struct favo_err *err)
{
	int ret = favo_channel_run(&c->ch, conn, run, &client_ops, c, err);

	if (ret < 0)
		return ret;
	if (run->flags & FAVO_RUN_PTY)
		make_raw(c);
	return start_pumps(c, err);
}

const struct favo_exit *favo_client_result(const struct favo_client *c,
					   const char **reason)
{
	*reason = c->reason;
	return c->lost || !c->ended ? NULL : &c->result;
}

void favo_client_restore(struct favo_client *c)
{
	if (c->raw)
		tcsetattr(STDIN_FILENO, TCSADRAIN, &c->termios);
	c->raw = false;
	for (int i = 0; i < 3; i++) {
		if (c->flags[i] >= 0)
			fcntl(i, F_SETFL, c->flags[i]);
		c->flags[i] = -1;
	}
}

void favo_client_free(struct favo_client *c)
{
	if (!c)
		return;
	favo_client_restore(c);
	favo_source_fini(&c->in);
	favo_sink_fini(&c->out);
	favo_sink_fini(&c->err);
	favo_watch_del(&c->signals);
	favo_close(&c->signals.fd);
	free(c);
}

_Noreturn void favo_client_mirror(const struct favo_exit *ex)
{
	const struct rlimit none = {0, 0};
	sigset_t set;
	int signo = (int)ex->number;

	if (ex->kind != FAVO_EXIT_SIGNAL)
		_exit(ex->number > 255 ? 1 : (int)ex->number);
	/* The core dump, if any, was written where the process ran. */
	setrlimit(RLIMIT_CORE, &none);
	prctl(PR_SET_DUMPABLE, 0);
	signal(signo, SIG_DFL);
	sigemptyset(&set);
	sigaddset(&set, signo);
	kill(getpid(), signo);
	sigprocmask(SIG_UNBLOCK, &set, NULL);
	_exit(128 + signo);
}

int favo_client_clean_fds(int keep, struct favo_err *err)
{
	for (int fd = 0; fd < 3; fd++)
		if (fcntl(fd, F_GETFD) < 0 && open("/dev/null", O_RDWR) != fd)
			return favo_fail(err, errno, "open /dev/null: %m");
	if (keep >= 3) {
		if (fcntl(keep, F_SETFD, FD_CLOEXEC) < 0)
			return favo_fail(err, errno, "descriptor %d: %m", keep);
		if (keep > 3 && close_range(3, (unsigned)keep - 1, 0) < 0)
			return favo_fail(err, errno, "close_range: %m");
		if (close_range((unsigned)keep + 1, ~0U, 0) < 0)
			return favo_fail(err, errno, "close_range: %m");
	} else if (close_range(3, ~0U, 0) < 0) {
		return favo_fail(err, errno, "close_range: %m");
	}
	return 0;
}
