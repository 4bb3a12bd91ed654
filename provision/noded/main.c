// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-noded: node agent of Favo, see favo-noded(8). Start, the main
 * thread's event loop, and the waiting of all other threads.
 *
 * SIGTERM and SIGINT end the daemon and leave its VMs alone: the next one
 * adopts them. So a normal end and a crash are the same case.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/file.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <time.h>

#include "config.h"
#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/options.h"
#include "common/util.h"
#include "provision/noded/health.h"
#include "provision/noded/noded.h"
#include "provision/noded/peers.h"
#include "provision/noded/warm.h"

#define STACK_SIZE (256u << 10)
#define EVENTS 64
#define LOCK_WAIT_MS 5000

struct options {
	char *config;
	bool check;
	bool version;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_STR("config", "PATH", struct options, config, FAVO_FROM_CLI, NULL,
		     "configuration (default " FAVO_CONF_PATH ")"),
	FAVO_OPT_FLAG("check", struct options, check, FAVO_FROM_CLI,
		      "check the configuration and what the kernel must have, and exit"),
	FAVO_OPT_FLAG("version", struct options, version, FAVO_FROM_CLI,
		      "print the version and exit"),
};

/* ---- for all threads ---- */

int favo_noded_watch(struct noded *nd, struct watch *w, struct favo_err *err)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.ptr = w};

	if (epoll_ctl(nd->epoll_fd, EPOLL_CTL_ADD, w->fd, &ev) < 0)
		return favo_fail(err, errno, "epoll: %m");
	return 0;
}

void favo_noded_unwatch(struct noded *nd, struct watch *w)
{
	epoll_ctl(nd->epoll_fd, EPOLL_CTL_DEL, w->fd, NULL);
}

int favo_noded_thread(void *(*fn)(void *), void *arg, struct favo_err *err)
{
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	pthread_attr_setstacksize(&attr, STACK_SIZE);
	ret = pthread_create(&thread, &attr, fn, arg);
	pthread_attr_destroy(&attr);
	return ret ? favo_fail(err, ret, "start thread: %m") : 0;
}

void favo_noded_changed(struct noded *nd)
{
	pthread_cond_broadcast(&nd->changed);
}

void favo_noded_wait_until(struct noded *nd, int64_t until_ms)
{
	struct timespec ts = {.tv_sec = until_ms / 1000,
			      .tv_nsec = until_ms % 1000 * 1000000};

	if (until_ms == INT64_MAX)
		pthread_cond_wait(&nd->changed, &nd->lock);
	else
		pthread_cond_timedwait(&nd->changed, &nd->lock, &ts);
}

/* ---- start ---- */

static int parse_level(const char *name, enum favo_level *out)
{
	static const char *const names[] = {"error", "warning", "info", "debug"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++) {
		if (!strcmp(names[i], name)) {
			*out = (enum favo_level)i;
			return 0;
		}
	}
	return -EINVAL;
}

static int read_boot_id(char out[37], struct favo_err *err)
{
	favo_autofree char *text = NULL;
	int ret = favo_file_read("/proc/sys/kernel/random/boot_id", 64, &text, NULL, err);

	if (ret >= 0)
		snprintf(out, 37, "%.36s", text);
	return ret;
}

/*
 * Guest memory that is shared with another process (virtiofsd, favo-hca) is a
 * memfd. It has huge pages only where the kernel lets those who ask have them;
 * a guest without starts half as fast. Nobody else gets any by this.
 */
static void allow_huge_memfds(void)
{
	static const char path[] = "/sys/kernel/mm/transparent_hugepage/shmem_enabled";
	favo_autofree char *text = NULL;
	favo_autoclose int fd = -1;

	if (favo_file_read(path, 256, &text, NULL, NULL) < 0 || !strstr(text, "[never]"))
		return;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, "advise", 6) != 6)
		favo_log(FAVO_WARN, "%s: cannot set 'advise': %m", path);
	else
		favo_log(FAVO_INFO, "%s: was 'never', set to 'advise'", path);
}

/* One daemon per RUN_DIR; the lock goes with the process. */
static int take_lock(const struct favo_conf *conf, struct favo_err *err)
{
	const struct timespec pause = {.tv_nsec = 50000000};
	int64_t end = favo_now_ms() + LOCK_WAIT_MS;
	char path[512];
	int fd, ret;

	ret = favo_mkdirs(conf->run_dir, 0755, err);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "%s/noded.lock", conf->run_dir);
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	if (fd < 0)
		return favo_fail(err, errno, "open %s: %m", path);
	/* One that was killed just now may still be on its way out. */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0 && favo_now_ms() < end)
		nanosleep(&pause, NULL);
	if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
		close(fd);
		return favo_fail(err, EBUSY, "%s: another favo-noded runs already", path);
	}
	return 0; /* stays open for good */
}

static int init_noded(struct noded *nd, const struct favo_conf *conf,
		      struct favo_err *err)
{
	pthread_condattr_t attr;
	int ret;

	memset(nd, 0, sizeof(*nd));
	nd->conf = conf;
	pthread_mutex_init(&nd->lock, NULL);
	pthread_mutex_init(&nd->cache_lock, NULL);
	pthread_mutex_init(&nd->verity_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&nd->changed, &attr);
	pthread_condattr_destroy(&attr);
	if (gethostname(nd->hostname, sizeof(nd->hostname) - 1) < 0)
		return favo_fail(err, errno, "host name: %m");
	snprintf(nd->node, sizeof(nd->node), "%.*s", (int)strcspn(nd->hostname, "."),
		 nd->hostname);
	ret = read_boot_id(nd->boot_id, err);
	if (ret < 0)
		return ret;
	nd->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (nd->epoll_fd < 0)
		return favo_fail(err, errno, "epoll: %m");
	return favo_mkdirs(conf->state_dir, 0755, err);
}

static int check(const struct favo_conf *conf)
{
	favo_autojson json_t *checks = favo_health_check(conf);
	unsigned int failures = favo_health_failures(checks);
	const json_t *row;
	size_t i;

	json_array_foreach(checks, i, row)
	{
		const char *remedy = json_string_value(json_object_get(row, "remedy"));

		printf("%-12s %-7s %s%s%s\n",
		       json_string_value(json_object_get(row, "check")),
		       json_string_value(json_object_get(row, "result")),
		       json_string_value(json_object_get(row, "what")),
		       remedy ? "; " : "", remedy ? remedy : "");
	}
	if (checks && !failures)
		puts("ok: a virtual machine could start on this node");
	return checks && !failures ? 0 : 1;
}

static int start(struct noded *nd, struct favo_err *err)
{
	int ret;

	favo_peers_start(nd);
	ret = favo_report_start(nd, err);
	if (ret >= 0)
		ret = favo_health_start(nd, err);
	/* Before old VMs are adopted, so that their guests find us. */
	if (ret >= 0 && favo_guest_listen(nd, err) < 0)
		favo_log(FAVO_WARN, "%s; no VM can start before", err->msg);
	if (ret >= 0)
		ret = favo_recover_all(nd, err);
	if (ret >= 0)
		favo_warm_recover(nd);
	if (ret >= 0)
		ret = favo_image_start(nd, err);
	/* Last: whoever connects finds everything in its place. */
	if (ret >= 0)
		ret = favo_server_listen(nd, err);
	return ret;
}

/* ---- the loop ---- */

static void run(struct noded *nd, int signal_fd)
{
	struct watch stop = {.fd = signal_fd};
	struct epoll_event events[EVENTS];

	if (favo_noded_watch(nd, &stop, NULL) < 0)
		return;
	for (;;) {
		int n = epoll_wait(nd->epoll_fd, events, EVENTS, -1);

		/*
		 * A callback frees at most its own watch, so that the others of
		 * this batch stay valid.
		 */
		for (int i = 0; i < n; i++) {
			struct watch *w = events[i].data.ptr;

			if (w == &stop)
				return;
			w->ready(nd, w, events[i].events);
		}
	}
}

static int block_signals(void)
{
	sigset_t set;

	signal(SIGPIPE, SIG_IGN);
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigprocmask(SIG_BLOCK, &set, NULL);
	return signalfd(-1, &set, SFD_CLOEXEC);
}

static int load(int argc, char **argv, struct options *options, struct favo_conf *conf,
		struct favo_err *err)
{
	const struct favo_opts opts = {
		.program = "favo-noded",
		.synopsis = "[--config PATH] [--check]",
		.about = "Node agent of Favo: fetches images, starts and removes the VMs "
			 "of Slurm "
			 "jobs. Runs as root on every compute node.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = options,
	};
	int first, ret;

	ret = favo_opts_defaults(&opts, err);
	if (ret >= 0)
		ret = favo_opts_cli(&opts, argc, argv, &first, err);
	if (ret)
		return ret;
	if (first < argc)
		return favo_fail(err, EINVAL, "unknown argument '%s'; try --help",
				 argv[first]);
	if (options->version) {
		puts("favo-noded " PACKAGE_VERSION);
		return 1;
	}
	return favo_conf_load(conf, options->config, false, err);
}

int main(int argc, char **argv)
{
	enum favo_level level = FAVO_INFO;
	struct options options = {0};
	struct favo_conf conf = {0};
	struct favo_err err = {0};
	/* Threads use it until the process ends. */
	static struct noded nd;
	int ret, signal_fd;

	favo_log_init("favo-noded", level, false, NULL);
	ret = load(argc, argv, &options, &conf, &err);
	if (ret > 0)
		return 0;
	if (ret >= 0 && parse_level(conf.log_level, &level) < 0)
		ret = favo_fail(&err, EINVAL,
				"log_level: '%s' is none of error, warning, info, debug",
				conf.log_level);
	if (ret >= 0 && geteuid() != 0)
		ret = favo_fail(&err, EPERM, "must run as root");
	if (ret < 0) {
		favo_log(FAVO_ERROR, "%s", err.msg);
		return 2;
	}
	if (options.check)
		return check(&conf);
	favo_log_init("favo-noded", level, true, NULL);
	umask(022);
	signal_fd = block_signals();
	ret = take_lock(&conf, &err);
	allow_huge_memfds();
	if (ret >= 0)
		ret = init_noded(&nd, &conf, &err);
	if (ret >= 0)
		ret = start(&nd, &err);
	if (ret < 0) {
		favo_log(FAVO_ERROR, "%s", err.msg);
		return 1;
	}
	favo_log(FAVO_INFO, "version %s, ready on %s", PACKAGE_VERSION,
		 conf.noded_socket);
	run(&nd, signal_fd);
	favo_log(FAVO_INFO, "ending; running VMs stay");
	/* Threads are in the midst of their work: as after a crash. */
	_exit(0);
}
