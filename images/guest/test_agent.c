// SPDX-License-Identifier: GPL-2.0-or-later
/* The agent as an ordinary process on a unix socket; see init.h. */
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/init.h"
#include "images/guest/service.h"

struct test_agent {
	struct favo_loop *loop;
	struct favo_service *service;
	struct favo_watch signals;
};

static void on_signal(struct favo_watch *watch, short revents)
{
	struct test_agent *t = watch->user;
	struct signalfd_siginfo info;

	(void)revents;
	while (read(watch->fd, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			favo_loop_stop(t->loop, 0);
	favo_service_reap(t->service);
}

static void on_shutdown(void *user, enum favo_shutdown how)
{
	struct test_agent *t = user;

	favo_loop_stop(t->loop, how == FAVO_SHUTDOWN_RESET ? 3 : 0);
}

static int serve(struct test_agent *t, char **argv, struct favo_err *err)
{
	struct favo_service_config config = {
		.uid = geteuid(),
		.gid = getegid(),
		.home = getenv("HOME"),
		.command_socket = argv[3],
		.command_dir = argv[3] ? argv[4] : NULL,
		.shutdown = on_shutdown,
		.user = t,
	};
	sigset_t set;
	int fd;
	int ret = favo_hex_decode(config.secret, sizeof(config.secret), argv[2], err);

	if (ret == 0)
		ret = favo_loop_new(&t->loop, err);
	if (ret == 0)
		ret = favo_unix_listen(&fd, argv[1], 0600, err);
	if (ret == 0)
		ret = favo_service_new(&t->service, t->loop, fd, &config, err);
	if (ret < 0)
		return ret;
	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	t->signals = (struct favo_watch){
		.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
		.events = POLLIN,
		.fn = on_signal,
		.user = t,
	};
	if (t->signals.fd < 0)
		return favo_fail(err, errno, "signalfd: %m");
	ret = favo_watch_add(t->loop, &t->signals, err);
	if (ret == 0)
		ret = favo_loop_run(t->loop, err);
	favo_watch_del(&t->signals);
	close(t->signals.fd);
	return ret;
}

int favo_test_agent(int argc, char **argv)
{
	struct test_agent t = {0};
	struct favo_err err = {0};
	int ret;

	if (argc != 3 && argc != 5) {
		fprintf(stderr,
			"favo-init: --test-agent SOCKET SECRET [COMMAND-SOCKET DIR]\n");
		return 2;
	}
	signal(SIGPIPE, SIG_IGN);
	favo_log_init("favo-init", FAVO_WARN, false, NULL);
	ret = serve(&t, argv, &err);
	if (ret < 0)
		favo_log(FAVO_ERROR, "%s", err.msg);
	favo_service_free(t.service);
	favo_loop_free(t.loop);
	return ret < 0 ? 1 : ret;
}
