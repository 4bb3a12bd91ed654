// SPDX-License-Identifier: GPL-2.0-or-later
/* favo-hca: the RDMA data plane of one virtual cluster on one node. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "common/log.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "hypervisor/hca/jail.h"
#include "hypervisor/hca/server.h"
#include "hypervisor/jail.h"

#define EXIT_USAGE 2
#define BACKLOG 64

struct options {
	char *listen, *spin;
	bool jail, once, verbose;
};

static const struct favo_opt table[] = {
	FAVO_OPT_STR("listen", "fd=N|path=P", struct options, listen, FAVO_FROM_CLI, NULL,
		     "seqpacket socket on which favo-vmm processes connect"),
	FAVO_OPT_STR("spin", "auto|USEC", struct options, spin, FAVO_FROM_CLI, "auto",
		     "spin that long after the last doorbell before sleeping"),
	FAVO_OPT_FLAG("once", struct options, once, FAVO_FROM_CLI,
		      "end when the last VM has left"),
	FAVO_OPT_FLAG("jail", struct options, jail, FAVO_FROM_CLI,
		      "give up all access to the host first"),
	FAVO_OPT_FLAG("verbose", struct options, verbose, FAVO_FROM_CLI,
		      "log refused requests, too"),
};

static volatile sig_atomic_t stop; /* set by signals only */

static void on_signal(int sig)
{
	(void)sig;
	stop = 1;
}

static int listen_path(const char *path, struct favo_err *err)
{
	struct sockaddr_un sa = {.sun_family = AF_UNIX};
	favo_autoclose int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (strlen(path) >= sizeof(sa.sun_path))
		return favo_fail(err, ENAMETOOLONG, "--listen: path too long: %s", path);
	memcpy(sa.sun_path, path, strlen(path) + 1);
	unlink(path);
	if (fd < 0 || bind(fd, (struct sockaddr *)&sa, sizeof(sa)) < 0 ||
	    listen(fd, BACKLOG) < 0)
		return favo_fail(err, errno, "--listen %s: %m", path);
	return favo_steal_fd(&fd);
}

static int open_listen(const char *spec, struct favo_err *err)
{
	uint64_t n;
	int fd, on = 0;
	socklen_t len = sizeof(on);

	if (!spec)
		return favo_fail(err, EINVAL, "--listen is needed");
	if (!strncmp(spec, "path=", 5)) {
		fd = listen_path(spec + 5, err);
	} else if (!strncmp(spec, "fd=", 3)) {
		if (favo_parse_u64(&n, spec + 3, 3, INT_MAX, err) < 0)
			return favo_wrap(err, -EINVAL, "--listen");
		fd = (int)n;
		if (getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &on, &len) < 0 || !on)
			return favo_fail(err, EINVAL, "--listen %s: no listening socket",
					 spec);
	} else {
		return favo_fail(err, EINVAL, "--listen %s: fd=N or path=P", spec);
	}
	if (fd >= 0 && fcntl(fd, F_SETFL, O_NONBLOCK) < 0)
		return favo_fail(err, errno, "--listen: %m");
	return fd;
}

static int run(const struct options *o, struct favo_err *err)
{
	struct favo_hca_server_opts opts = {.spin_us = -1, .once = o->once};
	struct favo_hca_server *srv = NULL;
	struct sigaction sa = {.sa_handler = on_signal};
	uint64_t spin;
	int ret;

	if (strcmp(o->spin, "auto")) {
		if (favo_parse_u64(&spin, o->spin, 0, 1000000, err) < 0)
			return favo_wrap(err, -EINVAL, "--spin");
		opts.spin_us = (int64_t)spin;
	}
	opts.listen_fd = open_listen(o->listen, err);
	if (opts.listen_fd < 0)
		return opts.listen_fd;
	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGINT, &sa, NULL);
	ret = favo_hca_jail_fds(&opts.listen_fd, err);
	if (ret == 0 && o->jail)
		ret = favo_jail_enter(err);
	ret = ret ? ret : favo_hca_server_new(&srv, &opts, err);
	if (ret == 0 && o->jail)
		ret = favo_hca_jail_filter(err);
	ret = ret ? ret : favo_hca_server_run(srv, &stop, err);
	favo_hca_server_free(srv);
	return ret;
}

int main(int argc, char **argv)
{
	struct options o = {0};
	const struct favo_opts opts = {
		.program = "favo-hca",
		.about =
			"RDMA data plane of the VMs of one virtual cluster on this node.",
		.table = table,
		.n = FAVO_ARRAY_SIZE(table),
		.target = &o,
	};
	struct favo_err err = {0};
	int first = argc, ret = favo_opts_defaults(&opts, &err);

	favo_log_init("favo-hca", FAVO_INFO, false, NULL);
	ret = ret ? ret : favo_opts_cli(&opts, argc, argv, &first, &err);
	if (ret > 0) {
		favo_opts_fini(&opts);
		return 0;
	}
	if (ret == 0 && first < argc)
		ret = favo_fail(&err, EINVAL, "what is \"%s\"?", argv[first]);
	if (ret < 0) {
		favo_log(FAVO_ERROR, "%s; see favo-hca --help", err.msg);
		favo_opts_fini(&opts);
		return EXIT_USAGE;
	}
	if (o.verbose)
		favo_log_init("favo-hca", FAVO_DEBUG, false, NULL);
	ret = run(&o, &err);
	if (ret < 0)
		favo_log(FAVO_ERROR, "%s", err.msg);
	favo_opts_fini(&opts);
	return ret < 0;
}
