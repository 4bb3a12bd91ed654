// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start of a guest: from the kernel's hand-over to the agent; see init.h. A
 * step that fails is told to the host with its reason, and the guest powers
 * off: a guest that cannot run the job is of no use.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/vm_sockets.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "images/guest/command.h"
#include "images/guest/init.h"
#include "images/guest/save.h"
#include "images/guest/service.h"

#define CONFIG "/favo/config.json"
#define MODULES "/favo/modules"

struct guest {
	struct favo_guest_config config;
	struct favo_report *report;
	struct favo_loop *loop;
	struct favo_service *service;
	struct favo_watch signals;
	struct favo_watch button;
	const char *cgroup_root;
};

static void on_log(enum favo_level level, const char *line)
{
	static const char *const prio[] = {"<3>", "<4>", "<6>", "<7>"};
	favo_autofree char *text = favo_asprintf("%sfavo-init: %s\n", prio[level], line);
	favo_autoclose int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

	if (text && fd >= 0 && write(fd, text, strlen(text)) > 0)
		return;
	fprintf(stderr, "favo-init: %s\n", line);
}

static _Noreturn void fail(struct guest *g, const struct favo_err *err)
{
	favo_log(FAVO_ERROR, "%s", err->msg);
	if (g->report)
		favo_report_phase(g->report, "failed", err->msg);
	/* The last bytes must leave the virtqueue before the power goes. */
	usleep(100000);
	favo_power_down(false);
}

static int read_config(struct guest *g, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len;
	int ret = favo_file_read(CONFIG, 16 << 20, &text, &len, err);

	if (ret == 0)
		ret = favo_guest_config_parse(&g->config, text, len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", CONFIG);
	/* It holds the secret. */
	unlink(CONFIG);
	return 0;
}

/* Values of a guest that differ from the kernel's own; absence is no error. */
static void set_sysctls(void)
{
	static const char *const set[][2] = {
		/* ping without privilege, as distributions set it */
		{"/proc/sys/net/ipv4/ping_group_range", "0 2147483647"},
		{"/proc/sys/kernel/core_pattern", "core"},
		/* members' neighbour entries are permanent and may be many */
		{"/proc/sys/net/ipv4/neigh/default/gc_thresh3", "131072"},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(set); i++) {
		favo_autoclose int fd = open(set[i][0], O_WRONLY | O_CLOEXEC);

		if (fd >= 0 && write(fd, set[i][1], strlen(set[i][1])) < 0)
			favo_log(FAVO_WARN, "%s: %m", set[i][0]);
	}
}

static int listen_vsock(int *out, struct favo_err *err)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = VMADDR_CID_ANY,
				   .svm_port = FAVO_AGENT_PORT};
	favo_autoclose int fd =
		socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd < 0)
		return favo_fail(err, errno, "vsock: %m");
	if (bind(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0 || listen(fd, 128) < 0)
		return favo_fail(err, errno, "listen on vsock port %d: %m",
				 FAVO_AGENT_PORT);
	*out = favo_steal_fd(&fd);
	return 0;
}

static void on_shutdown(void *user, enum favo_shutdown how)
{
	(void)user;
	favo_power_down(how == FAVO_SHUTDOWN_RESET);
}

static void on_signal(struct favo_watch *watch, short revents)
{
	struct guest *g = watch->user;
	struct signalfd_siginfo info;

	(void)revents;
	while (read(watch->fd, &info, sizeof(info)) == sizeof(info))
		if (info.ssi_signo != SIGCHLD)
			favo_power_down(false);
	favo_service_reap(g->service);
}

static void on_button(struct favo_watch *watch, short revents)
{
	(void)revents;
	if (favo_power_button_pressed(watch->fd))
		favo_power_down(false);
}

static int watch_signals(struct guest *g, struct favo_err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGCHLD);
	sigaddset(&set, SIGINT); /* ctrl-alt-del, once it is not a reset */
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGUSR2); /* "power off" since sysvinit */
	sigaddset(&set, SIGPWR);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	reboot(RB_DISABLE_CAD);
	g->signals = (struct favo_watch){
		.fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK),
		.events = POLLIN,
		.fn = on_signal,
		.user = g,
	};
	if (g->signals.fd < 0)
		return favo_fail(err, errno, "signalfd: %m");
	return favo_watch_add(g->loop, &g->signals, err);
}

static int start_agent(struct guest *g, const char *cgroup_root, struct favo_err *err)
{
	struct favo_service_config config = {
		.uid = g->config.uid,
		.gid = g->config.gid,
		.switch_ids = true,
		.home = g->config.home,
		.cgroup_root = cgroup_root,
		.command_socket = FAVO_COMMAND_SOCKET,
		.command_dir = FAVO_COMMAND_DIR,
		.shutdown = on_shutdown,
	};
	int fd;
	int ret = favo_loop_new(&g->loop, err);

	memcpy(config.secret, g->config.secret, sizeof(config.secret));
	if (ret == 0)
		ret = watch_signals(g, err);
	if (ret == 0)
		ret = listen_vsock(&fd, err);
	if (ret == 0)
		ret = favo_service_new(&g->service, g->loop, fd, &config, err);
	if (ret == 0)
		ret = favo_report_attach(g->report, g->loop, err);
	g->button = (struct favo_watch){.fd = favo_power_button_fd(),
					.events = POLLIN,
					.fn = on_button,
					.user = g};
	if (ret == 0 && g->button.fd >= 0)
		ret = favo_watch_add(g->loop, &g->button, err);
	return ret;
}

/* All that needs no identity. */
static int boot_machine(struct guest *g, struct favo_err *err)
{
	const struct rlimit files = {1 << 20, 1 << 20};
	int ret = favo_mount_early(err);

	if (ret == 0)
		ret = read_config(g, err);
	if (ret == 0)
		ret = favo_load_modules(MODULES, err);
	if (ret == 0)
		ret = favo_report_new(&g->report, &g->config, err);
	if (ret < 0)
		return ret;
	favo_report_phase(g->report, "kernel", "");
	favo_clock_setup(&g->config);
	ret = favo_mount_root(&g->config, err);
	if (ret == 0)
		ret = favo_enter_root(err);
	if (ret < 0)
		return ret;
	favo_report_phase(g->report, "root", "");
	g->cgroup_root = favo_mount_cgroup();
	set_sysctls();
	/* Many tasks with many streams; each process gets the limits of its task. */
	setrlimit(RLIMIT_NOFILE, &files);
	return 0;
}

/* All that makes it this guest of this job; a warm guest comes here much later. */
static int boot_identity(struct guest *g, struct favo_err *err)
{
	char note[400] = "";
	int ret;

	favo_identity_keep("");
	ret = favo_identity_setup("", &g->config, err);
	favo_identity_written("");
	if (ret == 0 && sethostname(g->config.hostname, strlen(g->config.hostname)) < 0)
		ret = favo_fail(err, errno, "set host name: %m");
	if (ret == 0)
		ret = favo_net_setup(&g->config, err);
	if (ret == 0)
		ret = favo_mount_shares(&g->config, note, sizeof(note), err);
	if (ret < 0)
		return ret;
	if (note[0])
		favo_report_phase(g->report, "note", note);
	favo_report_phase(g->report, "network", "");
	return start_agent(g, g->cgroup_root, err);
}

static int boot(struct guest *g, struct favo_err *err)
{
	int ret = boot_machine(g, err);

	if (ret == 0 && g->config.warm) {
		/* Reports so far were about a guest that nobody has. */
		favo_report_free(g->report);
		g->report = NULL;
		ret = favo_warm_wait(&g->config, err);
		if (ret == 0)
			ret = favo_report_new(&g->report, &g->config, err);
	}
	return ret ? ret : boot_identity(g, err);
}

_Noreturn void favo_boot(void)
{
	static struct guest g; /* for the process's life: it never ends */
	struct favo_err err = {0};

	umask(022);
	setenv("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", 1);
	favo_log_init("favo-init", FAVO_INFO, false, on_log);
	if (boot(&g, &err) < 0)
		fail(&g, &err);
	favo_report_phase(g.report, "ready", "");
	favo_loop_run(g.loop, &err);
	fail(&g, &err);
}
