// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favod: the site daemon. Reads the configuration, opens key, store and
 * registry, serves until SIGTERM. All of its work is in the routes.
 */
#include "config.h"
#include "provision/favod/favod.h"

#include <errno.h>
#include <netdb.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <time.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "netboot/boot.h"
#include "provision/favod/rollouts.h"

#define BACKLOG 1024
#define RATE_PER_S 100
#define BURST 1000
#define KEEP_S (7 * 86400) /* history of clusters that ended */
#define PRUNE_EVERY_S 3600

struct args {
	char *config;
	bool check;
	bool init;
	bool version;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_STR("config", "PATH", struct args, config, FAVO_FROM_CLI, NULL,
		     "configuration file, in place of " FAVO_CONF_PATH),
	FAVO_OPT_FLAG("check", struct args, check, FAVO_FROM_CLI,
		      "check configuration, key, store and registry, and end"),
	FAVO_OPT_FLAG(
		"init", struct args, init, FAVO_FROM_CLI,
		"make the grant key and the folders where they are missing, and end"),
	FAVO_OPT_FLAG("version", struct args, version, FAVO_FROM_CLI,
		      "print the version"),
};

static int parse_level(enum favo_level *out, const char *text, struct favo_err *err)
{
	static const char *const names[] = {[FAVO_ERROR] = "error",
					    [FAVO_WARN] = "warning",
					    [FAVO_INFO] = "info",
					    [FAVO_DEBUG] = "debug"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++) {
		if (strcmp(names[i], text) == 0) {
			*out = (enum favo_level)i;
			return 0;
		}
	}
	return favo_fail(err, EINVAL,
			 "log_level: \"%s\" is none of error, warning, info and debug",
			 text);
}

/* "ADDRESS:PORT", "[::]:PORT"; *out is a listening socket. */
static int open_listener(int *out, const char *where, struct favo_err *err)
{
	struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
				 .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
	struct addrinfo *list = NULL;
	const char *colon = strrchr(where, ':');
	favo_autofree char *host = NULL;
	favo_autoclose int fd = -1;
	int ret, one = 1;

	if (!colon || !colon[1])
		return favo_fail(err, EINVAL, "favod_listen: \"%s\" is no ADDRESS:PORT",
				 where);
	host = where[0] == '[' && colon > where && colon[-1] == ']'
		       ? strndup(where + 1, (size_t)(colon - where) - 2)
		       : strndup(where, (size_t)(colon - where));
	if (!host)
		return favo_fail(err, ENOMEM, "favod_listen: %m");
	ret = getaddrinfo(*host ? host : NULL, colon + 1, &hints, &list);
	if (ret != 0)
		return favo_fail(err, EINVAL, "favod_listen: %s: %s", where,
				 gai_strerror(ret));
	fd = socket(list->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	ret = fd < 0 ? -1 : setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (ret == 0)
		ret = bind(fd, list->ai_addr, list->ai_addrlen);
	if (ret == 0)
		ret = listen(fd, BACKLOG);
	ret = ret == 0 ? 0
		       : favo_fail(err, errno, "favod_listen: listen on %s: %m", where);
	freeaddrinfo(list);
	if (ret == 0)
		*out = favo_steal_fd(&fd);
	return ret;
}

/* Tell systemd (sd_notify(3)); nothing to do elsewhere. */
static void notify(const char *text)
{
	const char *path = getenv("NOTIFY_SOCKET");
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	favo_autoclose int fd = -1;
	size_t len = path ? strlen(path) : 0;

	if (!len || len >= sizeof(sun.sun_path))
		return;
	memcpy(sun.sun_path, path, len);
	if (sun.sun_path[0] == '@')
		sun.sun_path[0] = '\0';
	fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		(void)!sendto(fd, text, strlen(text), MSG_NOSIGNAL,
			      (struct sockaddr *)&sun,
			      (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len));
}

static int make_key(const struct favo_conf *conf, struct favo_err *err)
{
	bool made = false;
	int ret = favo_grant_key_init(conf->grant_key, conf->grant_pub, &made, err);

	if (ret == 0 && made)
		favo_log(FAVO_INFO, "made grant key %s; copy %s to every node",
			 conf->grant_key, conf->grant_pub);
	return ret;
}

/* Made at the first start, as the grant key is. */
static int load_image_key(struct favo_favod *d, struct favo_err *err)
{
	struct favo_err why = {0};
	int ret = favo_sign_key_load(&d->image_key, d->conf.image_key, err);

	if (ret != -ENOENT)
		return ret;
	ret = favo_sign_keygen(d->conf.image_key, d->conf.image_pub, "favo site", &why);
	if (ret < 0) {
		favo_log(FAVO_WARN, "images will not be signed: %s", why.msg);
		return 0;
	}
	favo_log(FAVO_INFO, "made image key %s; copy %s into image_keys of every node",
		 d->conf.image_key, d->conf.image_pub);
	return favo_sign_key_load(&d->image_key, d->conf.image_key, err);
}

static int open_all(struct favo_favod *d, struct favo_err *err)
{
	favo_autofree char *dir = favo_asprintf("%s/favod", d->conf.state_dir);
	favo_autofree char *path =
		favo_asprintf("%s/favod/registry.db", d->conf.state_dir);
	favo_autofree char *nodes = favo_asprintf("%s/favod/nodes.db", d->conf.state_dir);
	int ret;

	if (!dir || !path || !nodes)
		return favo_fail(err, ENOMEM, "favod: %m");
	d->started = time(NULL);
	d->limit = favo_limit_new(RATE_PER_S, BURST);
	if (!d->limit)
		return favo_fail(err, ENOMEM, "favod: %m");
	ret = favo_mkdirs(dir, 0700, err);
	if (ret == 0)
		ret = make_key(&d->conf, err);
	if (ret == 0)
		ret = favo_grant_key_load_private(&d->key, d->conf.grant_key, err);
	if (ret == 0)
		ret = load_image_key(d, err);
	if (ret == 0)
		ret = favo_store_open(&d->store, d->conf.store_dir, FAVO_STORE_CREATE,
				      err);
	if (ret == 0)
		ret = favo_registry_open(&d->registry, path, err);
	if (ret == 0)
		ret = favo_nodes_open(&d->nodes, nodes, d->store, err);
	d->health = favo_node_health_new();
	if (ret == 0 && !d->health)
		ret = favo_fail(err, ENOMEM, "allocate the nodes' health");
	return ret;
}

static void close_all(struct favo_favod *d)
{
	favo_node_health_free(d->health);
	favo_nodes_close(d->nodes);
	favo_registry_close(d->registry);
	favo_store_close(d->store);
	favo_grant_key_free(d->key);
	favo_sign_key_free(d->image_key);
	favo_limit_free(d->limit);
	favo_conf_fini(&d->conf);
}

/* Every connection is a descriptor, and so is each blob that is being sent. */
static void raise_fd_limit(void)
{
	struct rlimit rl;

	if (getrlimit(RLIMIT_NOFILE, &rl) == 0 && rl.rlim_cur < rl.rlim_max) {
		rl.rlim_cur = rl.rlim_max;
		setrlimit(RLIMIT_NOFILE, &rl);
	}
}

/* Until SIGTERM or SIGINT; meanwhile old history goes. */
static void wait_for_end(struct favo_favod *d, const sigset_t *set)
{
	for (;;) {
		struct timespec hour = {.tv_sec = PRUNE_EVERY_S};
		struct favo_err err = {0};
		int sig = sigtimedwait(set, NULL, &hour);

		if (sig == SIGTERM || sig == SIGINT) {
			favo_log(FAVO_INFO, "signal %d: ending", sig);
			return;
		}
		if (sig < 0 && errno == EAGAIN &&
		    favo_registry_prune(d->registry, time(NULL) - KEEP_S, &err) < 0)
			favo_log(FAVO_WARN, "%s", err.msg);
	}
}

static int serve(struct favo_favod *d, struct favo_err *err)
{
	struct favo_server *server = NULL;
	struct favo_boot *boot = NULL;
	int fd = -1, ret;
	sigset_t set;

	/* Before threads exist: all of them inherit the mask. */
	sigemptyset(&set);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGHUP);
	sigprocmask(SIG_BLOCK, &set, NULL);
	signal(SIGPIPE, SIG_IGN);
	raise_fd_limit();
	ret = open_listener(&fd, d->conf.favod_listen, err);
	if (ret == 0)
		ret = favo_tracker_open(&d->tracker, &d->conf, d->store, err);
	if (ret == 0)
		ret = favo_rollouts_start(&d->rollouts, d->nodes, &d->conf, err);
	if (ret == 0)
		ret = favo_server_start(&server, d, fd, err);
	if (ret == 0) {
		fd = -1;
		ret = favo_boot_start(&boot, d, err);
	}
	if (ret < 0) {
		favo_server_stop(server);
		favo_rollouts_stop(favo_steal_ptr(&d->rollouts));
		favo_tracker_close(favo_steal_ptr(&d->tracker));
		favo_close(&fd);
		return ret;
	}
	favo_log(FAVO_INFO, "favod %s serves on %s", PACKAGE_VERSION,
		 d->conf.favod_listen);
	notify("READY=1");
	wait_for_end(d, &set);
	notify("STOPPING=1");
	favo_boot_stop(boot);
	favo_server_stop(server);
	if (!favo_rollouts_stop(favo_steal_ptr(&d->rollouts)))
		d->nodes = NULL; /* in use to the end */
	favo_tracker_close(favo_steal_ptr(&d->tracker));
	return 0;
}

static int run(const struct args *args, struct favo_err *err)
{
	struct favo_favod d = {0};
	enum favo_level level = FAVO_INFO;
	int ret = favo_conf_load(&d.conf, args->config, true, err);

	if (ret == 0)
		ret = parse_level(&level, d.conf.log_level, err);
	if (ret < 0) {
		favo_conf_fini(&d.conf);
		return ret;
	}
	favo_log_init("favod", level, true, NULL);
	umask(022);
	ret = open_all(&d, err);
	if (ret == 0 && !args->check && !args->init)
		ret = serve(&d, err);
	if (ret == 0 && args->check)
		printf("configuration, key, store and registry are good\n");
	close_all(&d);
	return ret;
}

int main(int argc, char **argv)
{
	struct args args = {0};
	struct favo_opts opts = {
		.program = "favod",
		.synopsis = "[OPTION]...",
		.about = "Site daemon of Favo: images, grants, and what runs where. It "
			 "stays in "
			 "the foreground.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	struct favo_err err = {0};
	int first, ret;

	ret = favo_opts_cli(&opts, argc, argv, &first, &err);
	if (ret == 0 && first < argc)
		ret = favo_fail(&err, EINVAL, "no word is expected, not %s", argv[first]);
	if (ret < 0) {
		fprintf(stderr, "favod: %s\n", err.msg);
		return 2;
	}
	if (ret > 0)
		return 0;
	if (args.version) {
		printf("favod %s\n", PACKAGE_VERSION);
		return 0;
	}
	ret = run(&args, &err);
	favo_opts_fini(&opts);
	if (ret < 0)
		fprintf(stderr, "favod: %s\n", err.msg);
	return ret < 0;
}
