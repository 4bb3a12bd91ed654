// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who the guest and its user are; see init.h. Works on the files of the
 * overlay (passwd(5), group(5), hosts(5), machine-id(5)); no name service.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/buf.h"
#include "images/guest/init.h"

#define FILE_MAX (8 << 20)

static favo_printf(2, 3) int add(struct favo_buf *out, const char *fmt, ...)
{
	char line[1024];
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	if (n < 0 || n >= (int)sizeof(line))
		return -E2BIG;
	return favo_buf_append(out, line, (size_t)n);
}

static int replace(const char *root, const char *name, const struct favo_buf *b,
		   struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("%s/etc/%s", root, name);

	if (!path)
		return favo_fail(err, ENOMEM, "allocate");
	/* No fsync: it is a tmpfs. */
	return favo_file_replace(path, b->len ? favo_buf_data(b) : (const void *)"",
				 b->len, 0644, err);
}

static int read_etc(const char *root, const char *name, char **out, struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("%s/etc/%s", root, name);
	int ret;

	if (!path)
		return favo_fail(err, ENOMEM, "allocate");
	ret = favo_file_read(path, FILE_MAX, out, NULL, err);
	if (ret != -ENOENT)
		return ret;
	*out = strdup("");
	return *out ? 0 : favo_fail(err, ENOMEM, "allocate");
}

/* "name:x:id:...": does the line have this name or this id? */
static bool line_is(const char *line, const char *name, uint32_t id)
{
	const char *colon = strchr(line, ':');
	char *end;
	unsigned long v;

	if (!colon)
		return false;
	if (strlen(name) == (size_t)(colon - line) &&
	    strncmp(line, name, strlen(name)) == 0)
		return true;
	colon = strchr(colon + 1, ':');
	if (!colon || colon[1] < '0' || colon[1] > '9')
		return false;
	v = strtoul(colon + 1, &end, 10);
	return *end == ':' && v == id;
}

static bool user_clashes(const struct favo_guest_config *c, const char *line)
{
	return line_is(line, c->user, c->uid);
}

static bool group_clashes(const struct favo_guest_config *c, const char *line)
{
	for (size_t i = 0; i < c->n_groups; i++)
		if (line_is(line, c->groups[i].name, c->groups[i].gid))
			return true;
	return false;
}

struct etc_file {
	const char *name;
	const char *first; /* stands in for a missing file */
	bool (*clashes)(const struct favo_guest_config *c, const char *line);
};

/*
 * Put the lines of an image's file into out that do not clash with the job's:
 * its user and groups win over what the image has under the same name or
 * number, as files and limits go by the numbers of the site. Lines may be of
 * any length (a group has many members).
 */
static int keep_lines(struct favo_buf *out, const char *root, const struct etc_file *file,
		      const struct favo_guest_config *c, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	char *save = NULL;
	int ret;

	ret = read_etc(root, file->name, &text, err);
	if (ret < 0)
		return ret;
	if (!*text)
		ret = add(out, "%s", file->first);
	for (char *l = strtok_r(text, "\n", &save); ret == 0 && l;
	     l = strtok_r(NULL, "\n", &save)) {
		if (file->clashes(c, l))
			continue;
		ret = favo_buf_append(out, l, strlen(l));
		if (ret == 0)
			ret = favo_buf_append(out, "\n", 1);
	}
	if (ret < 0)
		return favo_fail(err, -ret, "/etc/%s: %m", file->name);
	return 0;
}

static int write_passwd(const char *root, const struct favo_guest_config *c,
			struct favo_err *err)
{
	static const struct etc_file file = {"passwd", "root:x:0:0:root:/root:/bin/sh\n",
					     user_clashes};
	favo_autobuf struct favo_buf out = {0};
	int ret;

	if (c->uid == 0)
		return 0;
	ret = keep_lines(&out, root, &file, c, err);
	if (ret < 0)
		return ret;
	ret = add(&out, "%s:x:%u:%u::%s:%s\n", c->user, c->uid, c->gid, c->home,
		  c->shell);
	if (ret < 0)
		return favo_fail(err, -ret, "/etc/passwd: %m");
	return replace(root, "passwd", &out, err);
}

static int write_group(const char *root, const struct favo_guest_config *c,
		       struct favo_err *err)
{
	static const struct etc_file file = {"group", "root:x:0:\n", group_clashes};
	favo_autobuf struct favo_buf out = {0};
	int ret;

	if (c->uid == 0)
		return 0;
	ret = keep_lines(&out, root, &file, c, err);
	if (ret < 0)
		return ret;
	for (size_t i = 0; ret == 0 && i < c->n_groups; i++)
		ret = add(&out, "%s:x:%u:%s\n", c->groups[i].name, c->groups[i].gid,
			  c->groups[i].gid == c->gid ? "" : c->user);
	if (ret < 0)
		return favo_fail(err, -ret, "/etc/group: %m");
	return replace(root, "group", &out, err);
}

static int write_hosts(const char *root, const struct favo_guest_config *c,
		       struct favo_err *err)
{
	favo_autobuf struct favo_buf out = {0};
	int ret = add(&out, "127.0.0.1 localhost\n::1 localhost ip6-localhost\n");

	for (size_t i = 0; ret == 0 && i < c->n_members; i++)
		ret = add(&out, "%s %s\n", inet_ntoa(c->members[i].address),
			  c->members[i].name);
	if (ret == 0 && c->n_members == 0)
		ret = add(&out, "127.0.1.1 %s\n", c->hostname);
	if (ret < 0)
		return favo_fail(err, -ret, "/etc/hosts: %s", strerror(-ret));
	return replace(root, "hosts", &out, err);
}

static int write_names(const char *root, const struct favo_guest_config *c,
		       struct favo_err *err)
{
	favo_autobuf struct favo_buf host = {0}, id = {0};
	uint8_t raw[16];
	char hex[33];
	int ret = add(&host, "%s\n", c->hostname);

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return favo_fail(err, EIO, "getrandom");
	favo_hex_encode(hex, raw, sizeof(raw));
	if (ret == 0)
		ret = add(&id, "%s\n", hex);
	if (ret < 0)
		return favo_fail(err, -ret, "host name: %s", strerror(-ret));
	ret = replace(root, "hostname", &host, err);
	if (ret == 0)
		ret = replace(root, "machine-id", &id, err);
	return ret;
}

static int make_home(const char *root, const struct favo_guest_config *c,
		     struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("%s%s", root, c->home);
	struct stat st;
	char *slash;
	int ret;

	if (!path)
		return favo_fail(err, ENOMEM, "allocate");
	if (lstat(path, &st) == 0)
		return 0;
	slash = strrchr(path, '/');
	*slash = '\0';
	ret = *path ? favo_mkdirs(path, 0755, err) : 0;
	*slash = '/';
	if (ret < 0)
		return ret;
	if (mkdir(path, 0700) < 0 || lchown(path, c->uid, c->gid) < 0)
		return favo_fail(err, errno, "home directory %s: %m", c->home);
	return 0;
}

int favo_identity_setup(const char *root, const struct favo_guest_config *config,
			struct favo_err *err)
{
	favo_autofree char *etc = favo_asprintf("%s/etc", root);
	int ret = etc ? favo_mkdirs(etc, 0755, err) : favo_fail(err, ENOMEM, "allocate");

	if (ret == 0)
		ret = write_names(root, config, err);
	if (ret == 0)
		ret = write_hosts(root, config, err);
	if (ret == 0)
		ret = write_passwd(root, config, err);
	if (ret == 0)
		ret = write_group(root, config, err);
	if (ret == 0)
		ret = make_home(root, config, err);
	return ret;
}

/*
 * The host's time was written down before the guest's kernel ran, on a busy
 * node long before. So a clock that is later is a better one: with kvm-clock
 * the kernel has the host's time. One that is behind, or far ahead, is none.
 */
bool favo_clock_is_wrong(int64_t now_ns, int64_t least_ns)
{
	return now_ns < least_ns - 2000000000LL || now_ns > least_ns + 3600000000000LL;
}

void favo_clock_setup(const struct favo_guest_config *config)
{
	struct timespec up;
	int64_t want;

	if (!config->time_ns)
		return;
	clock_gettime(CLOCK_BOOTTIME, &up);
	want = config->time_ns + up.tv_sec * 1000000000LL + up.tv_nsec;
	if (!favo_clock_is_wrong(favo_realtime_ns(), want))
		return;
	if (clock_settime(CLOCK_REALTIME,
			  &(struct timespec){.tv_sec = want / 1000000000LL,
					     .tv_nsec = want % 1000000000LL}) < 0)
		favo_log(FAVO_WARN, "set the clock: %m");
}
