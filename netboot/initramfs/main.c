// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-netinit: first process of a node that boots over the network. Brings
 * up the link, fetches the image, mounts it, makes it this node, and starts
 * the image's own init. A step that fails is tried again with growing pauses;
 * what fails for good is told to favod and on the console, and the machine
 * starts over, so that favod can give it the image that last worked.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define CONFIG_MAX (1 << 20)
#define PAUSE_FIRST_MS 500
#define PAUSE_LAST_MS 15000
#define LAST "last" /* in the cache: digest and kernel that last started */
#define RESTART_S 20

struct node {
	struct favo_net_config config;
	struct favo_cache *cache;
	bool on_disk;
};

static void on_log(enum favo_level level, const char *line)
{
	static const char *const prio[] = {"<3>", "<4>", "<5>", "<7>"};
	favo_autofree char *text = favo_asprintf("%sfavo: %s\n", prio[level], line);
	favo_autoclose int fd = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);
	favo_autoclose int console =
		open("/dev/console", O_WRONLY | O_NOCTTY | O_CLOEXEC);

	if (text && fd >= 0 && write(fd, text, strlen(text)) < 0)
		return;
	if (console >= 0 && level <= FAVO_INFO)
		dprintf(console, "favo: %s\r\n", line);
}

static int read_config(struct node *n, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len;
	int ret = favo_file_read(FAVO_NET_CONFIG, CONFIG_MAX, &text, &len, err);

	if (ret == 0)
		ret = favo_net_config_parse(&n->config, text, len, err);
	return ret < 0 ? favo_wrap(err, ret, FAVO_NET_CONFIG) : 0;
}

typedef int step_fn(struct node *n, struct favo_err *err);

/* Try a step until it works, at most for limit_ms; tells what is wrong each time. */
static int try_step(struct node *n, const char *phase, step_fn *fn, int64_t limit_ms,
		    struct favo_err *err)
{
	int64_t end_ms = favo_now_ms() + limit_ms;
	unsigned int pause_ms = PAUSE_FIRST_MS;
	char text[640];
	int ret;

	for (;;) {
		struct favo_err why = {0};

		ret = fn(n, &why);
		if (ret == 0)
			return 0;
		if (favo_now_ms() + pause_ms > end_ms || ret == -EKEYREJECTED ||
		    ret == -EACCES || ret == -ENOSPC)
			return favo_fail(err, -ret, "%s: %s", phase, why.msg);
		snprintf(text, sizeof(text), "%s; trying again in %u ms", why.msg,
			 pause_ms);
		favo_net_report(&n->config, phase, text);
		usleep(pause_ms * 1000);
		pause_ms = FAVO_MIN(pause_ms * 2, PAUSE_LAST_MS);
	}
}

static int step_link(struct node *n, struct favo_err *err)
{
	int ret = favo_net_drivers(err);

	return ret < 0 ? ret : favo_net_link(&n->config, err);
}

static int step_cache(struct node *n, struct favo_err *err)
{
	return favo_net_cache_open(&n->config, &n->cache, &n->on_disk, err);
}

static int step_fetch(struct node *n, struct favo_err *err)
{
	return favo_net_fetch(&n->config, n->cache, err);
}

static int step_mount(struct node *n, struct favo_err *err)
{
	return favo_net_root_mount(n->cache, &n->config.image, n->on_disk, err);
}

static int step_identity(struct node *n, struct favo_err *err)
{
	return favo_net_identity(&n->config, err);
}

/* The image on the disk that last started with this kernel, in place of the wanted. */
static int use_last(struct node *n, struct favo_err *err)
{
	char digest[FAVO_DIGEST_TEXT_SIZE + 1], release[80];
	favo_autofree char *text = NULL;
	struct utsname u;
	int ret;

	if (!n->on_disk)
		return favo_fail(err, ENOENT, "no disk that could have an older image");
	ret = favo_file_read(FAVO_NET_CACHE "/" LAST, 4096, &text, NULL, err);
	if (ret < 0)
		return ret;
	_Static_assert(FAVO_DIGEST_TEXT_SIZE == 72, "width of the digest below");
	if (uname(&u) < 0 || sscanf(text, "%72s %79s", digest, release) != 2)
		return favo_fail(err, EBADMSG, "the note of the last image is damaged");
	if (strcmp(release, u.release) != 0)
		return favo_fail(err, ENOENT, "the image on the disk has another kernel");
	return favo_digest_parse(&n->config.image, digest, err);
}

static void note_last(struct node *n)
{
	char id[FAVO_DIGEST_TEXT_SIZE], line[200];
	struct favo_err err = {0};
	struct utsname u;
	int len;

	if (!n->on_disk || uname(&u) < 0)
		return;
	len = snprintf(line, sizeof(line), "%s %s\n",
		       favo_digest_format(&n->config.image, id), u.release);
	if (favo_file_replace(FAVO_NET_CACHE "/" LAST, line, (size_t)len, 0600, &err) < 0)
		favo_log(FAVO_WARN, "%s", err.msg);
}

static int get_image(struct node *n, struct favo_err *err)
{
	struct favo_err why = {0};
	int ret = try_step(n, "fetch", step_fetch, n->config.fetch_ms, err);

	if (ret == 0) {
		favo_net_report(&n->config, "mount", "");
		ret = try_step(n, "mount", step_mount, 5000, err);
	}
	if (ret == 0 || use_last(n, &why) < 0)
		return ret;
	favo_net_report(&n->config, "fallback", err->msg);
	return try_step(n, "mount", step_mount, 5000, err);
}

static int boot(struct node *n, struct favo_err *err)
{
	int ret = favo_net_early(err);

	if (ret == 0)
		ret = read_config(n, err);
	if (ret == 0)
		ret = favo_net_modules(err);
	if (ret == 0)
		ret = try_step(n, "link", step_link, 180000, err);
	if (ret < 0)
		return ret;
	favo_net_report(&n->config, "link", "");
	ret = try_step(n, "cache", step_cache, 0, err);
	if (ret == 0)
		ret = get_image(n, err);
	if (ret < 0)
		return ret;
	note_last(n);
	ret = favo_net_root_enter(err);
	if (ret < 0)
		return ret;
	favo_net_report(&n->config, "configure", "");
	ret = try_step(n, "configure", step_identity, 120000, err);
	if (ret < 0)
		return ret;
	favo_net_report(&n->config, "started", "");
	return favo_net_root_start(err);
}

int main(void)
{
	static struct node n; /* for the process's life: it never ends */
	struct favo_err err = {0};

	if (getpid() != 1) {
		fprintf(stderr, "favo-netinit: runs as the first process of a node that "
				"boots over the network\n");
		return 2;
	}
	umask(022);
	signal(SIGPIPE, SIG_IGN);
	favo_log_init("favo", FAVO_INFO, false, on_log);
	boot(&n, &err);
	favo_log(FAVO_ERROR, "this node cannot start: %s", err.msg);
	if (n.config.token[0])
		favo_net_report(&n.config, "failed", err.msg);
	favo_log(FAVO_ERROR, "starting over in %d s", RESTART_S);
	sleep(RESTART_S);
	sync();
	reboot(RB_AUTOBOOT);
	for (;;)
		pause();
}
