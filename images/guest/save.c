// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The guest's root as a tar stream; see save.h. Format: ustar with extended
 * headers (pax, POSIX.1-2001) for every member, since names, times and
 * extended attributes fit into nothing else.
 */
#include "images/guest/save.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/guest/buf.h"

#define KEEP "/run/favo/etc"
#define VIEW "/run/favo/view"
#define CGROUPS "/sys/fs/cgroup/favo"
#define BLOCK 512
#define COPY_SIZE (256u << 10)
#define DEPTH_MAX 200
#define XATTRS_MAX 65536
#define ETC_MAX (8u << 20)

/* What favo_identity_setup() writes. */
static const char *const etc_files[] = {"hostname", "machine-id", "hosts", "passwd",
					"group"};

/* ---- files of /etc that are the guest's, not the image's ---- */

static char *read_text(const char *dir, const char *name)
{
	favo_autofree char *path = favo_asprintf("%s/%s", dir, name);
	char *text = NULL;

	if (!path || favo_file_read(path, ETC_MAX, &text, NULL, NULL) < 0)
		return NULL;
	return text;
}

static void keep_copies(const char *root, const char *suffix)
{
	favo_autofree char *etc = favo_asprintf("%s/etc", root);
	favo_autofree char *keep = favo_asprintf("%s" KEEP, root);

	if (!etc || !keep || favo_mkdirs(keep, 0755, NULL) < 0)
		return;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(etc_files); i++) {
		favo_autofree char *text = read_text(etc, etc_files[i]);
		favo_autofree char *path =
			favo_asprintf("%s/%s%s", keep, etc_files[i], suffix);

		/* Without a copy a saved image has the guest's file: no harm. */
		if (text && path)
			(void)!favo_file_replace(path, text, strlen(text), 0644, NULL);
	}
}

void favo_identity_keep(const char *root)
{
	keep_copies(root, "");
}

void favo_identity_written(const char *root)
{
	keep_copies(root, ".written");
}

/* Is this line (without its end) one of text's? */
static bool has_line(const char *text, const char *line, size_t len)
{
	while (text && *text) {
		size_t n = strcspn(text, "\n");

		if (n == len && memcmp(text, line, len) == 0)
			return true;
		text += n + (text[n] == '\n');
	}
	return false;
}

static int add_lines(struct favo_buf *out, const char *from, const char *in,
		     const char *not_in)
{
	int ret = 0;

	while (ret == 0 && *from) {
		size_t n = strcspn(from, "\n");
		bool drop = has_line(in, from, n) && !has_line(not_in, from, n);

		if (!drop)
			ret = favo_buf_append(out, from, n);
		if (!drop && ret == 0)
			ret = favo_buf_append(out, "\n", 1);
		from += n + (from[n] == '\n');
	}
	return ret;
}

char *favo_save_merge(const char *original, const char *written, const char *now)
{
	favo_autobuf struct favo_buf out = {0};
	int ret = 0;

	/* Untouched: with its last byte, whatever that is. */
	if (strcmp(written, now) == 0)
		return strdup(original);
	/* Lines that were there, but for those that the user took away. */
	ret = add_lines(&out, original, written, now);
	/* Lines that the user added. */
	if (ret == 0)
		ret = add_lines(&out, now, written, NULL);
	if (ret == 0)
		ret = favo_buf_append(&out, "", 1);
	return ret < 0 ? NULL : strdup((const char *)favo_buf_data(&out));
}

/* ---- tar ---- */

struct link {
	dev_t dev;
	ino_t ino;
	char *path;
};

struct save {
	int fd;
	const char *keep;
	struct link *links; /* regular files with more than one name */
	size_t n_links;
	char *copy; /* COPY_SIZE bytes */
};

static int put(struct save *s, const void *data, size_t len, struct favo_err *err)
{
	int ret = favo_write_all(s->fd, data, len, -1, err);

	return ret < 0 ? favo_wrap(err, ret, "stream") : 0;
}

static int pad(struct save *s, uint64_t len, struct favo_err *err)
{
	static const char zeros[BLOCK];
	size_t rest = len % BLOCK;

	return rest ? put(s, zeros, BLOCK - rest, err) : 0;
}

/* Field of a ustar header; a number that does not fit is in the pax header. */
static void octal(char *field, size_t size, uint64_t value)
{
	char text[32];

	snprintf(text, sizeof(text), "%0*llo", (int)size - 1, (unsigned long long)value);
	memcpy(field, strlen(text) < size ? text : "0000000000000000000000", size - 1);
}

static int put_header(struct save *s, const char *name, char type, const struct stat *st,
		      uint64_t size, const char *target, struct favo_err *err)
{
	char h[BLOCK] = {0};
	unsigned int sum = 0;

	memcpy(h, name, FAVO_MIN(strlen(name), 99u));
	/* libarchive wants one here before it takes that of the pax header. */
	if (target)
		memcpy(h + 157, target, FAVO_MIN(strlen(target), 99u));
	octal(h + 100, 8, st->st_mode & 07777);
	octal(h + 108, 8, st->st_uid);
	octal(h + 116, 8, st->st_gid);
	octal(h + 124, 12, size);
	octal(h + 136, 12, (uint64_t)st->st_mtim.tv_sec);
	memset(h + 148, ' ', 8);
	h[156] = type;
	memcpy(h + 257, "ustar\00000", 8);
	if (type == '3' || type == '4') {
		octal(h + 329, 8, major(st->st_rdev));
		octal(h + 337, 8, minor(st->st_rdev));
	}
	for (size_t i = 0; i < sizeof(h); i++)
		sum += (unsigned char)h[i];
	snprintf(h + 148, 8, "%06o", sum);
	h[155] = ' ';
	return put(s, h, sizeof(h), err);
}

/* One record of a pax header: "LEN KEY=VALUE\n", LEN counts itself. */
static int pax(struct favo_buf *out, const char *key, const void *value, size_t len)
{
	size_t body = strlen(key) + len + 3, total = body + 1;
	char head[300];
	int n, ret;

	while (total != body + (size_t)snprintf(NULL, 0, "%zu", total))
		total = body + (size_t)snprintf(NULL, 0, "%zu", total);
	n = snprintf(head, sizeof(head), "%zu %s=", total, key);
	if (n < 0 || (size_t)n >= sizeof(head))
		return -E2BIG;
	ret = favo_buf_append(out, head, (size_t)n);
	if (ret == 0)
		ret = favo_buf_append(out, value, len);
	return ret < 0 ? ret : favo_buf_append(out, "\n", 1);
}

static favo_printf(3, 4) int pax_text(struct favo_buf *out, const char *key,
				      const char *fmt, ...)
{
	char text[64];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	return pax(out, key, text, strlen(text));
}

/* What an image can carry; ACLs and security labels belong to the site. */
static bool is_kept(const char *xattr)
{
	return strncmp(xattr, "user.", 5) == 0 ||
	       strcmp(xattr, "security.capability") == 0;
}

static int add_xattrs(struct favo_buf *out, const char *path, struct favo_err *err)
{
	favo_autofree char *names = malloc(XATTRS_MAX), *value = malloc(XATTRS_MAX);
	ssize_t len, n;
	int ret = 0;

	if (!names || !value)
		return favo_fail(err, ENOMEM, "out of memory");
	len = llistxattr(path, names, XATTRS_MAX);
	if (len < 0)
		return errno == ENOTSUP ? 0
					: favo_fail(err, errno, "%s: xattrs: %m", path);
	for (char *name = names; ret == 0 && name < names + len;
	     name += strlen(name) + 1) {
		char key[280];

		if (!is_kept(name))
			continue;
		n = lgetxattr(path, name, value, XATTRS_MAX);
		if (n < 0)
			return favo_fail(err, errno, "%s: xattr %s: %m", path, name);
		snprintf(key, sizeof(key), "SCHILY.xattr.%s", name);
		ret = pax(out, key, value, (size_t)n);
	}
	return ret < 0 ? favo_fail(err, -ret, "%s: xattrs: %m", path) : 0;
}

/* Headers of a member; name is relative to the root, path can be opened. */
static int put_member(struct save *s, const char *path, const char *name, char type,
		      const struct stat *st, uint64_t size, const char *target,
		      struct favo_err *err)
{
	favo_autobuf struct favo_buf out = {0};
	const struct stat plain = {.st_mode = 0644};
	int ret = pax(&out, "path", name, strlen(name));

	if (ret == 0 && target)
		ret = pax(&out, "linkpath", target, strlen(target));
	if (ret == 0)
		ret = pax_text(&out, "mtime", "%lld.%09ld", (long long)st->st_mtim.tv_sec,
			       st->st_mtim.tv_nsec);
	if (ret == 0)
		ret = pax_text(&out, "uid", "%u", st->st_uid);
	if (ret == 0)
		ret = pax_text(&out, "gid", "%u", st->st_gid);
	if (ret == 0)
		ret = pax_text(&out, "size", "%llu", (unsigned long long)size);
	if (ret < 0)
		return favo_fail(err, -ret, "%s: out of memory", name);
	if (type != '1') {
		ret = add_xattrs(&out, path, err);
		if (ret < 0)
			return ret;
	}
	ret = put_header(s, "pax", 'x', &plain, out.len, NULL, err);
	if (ret == 0)
		ret = put(s, favo_buf_data(&out), out.len, err);
	if (ret == 0)
		ret = pad(s, out.len, err);
	return ret < 0 ? ret : put_header(s, name, type, st, size, target, err);
}

static int put_file(struct save *s, const char *path, const char *name,
		    const struct stat *st, struct favo_err *err)
{
	favo_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	uint64_t left = (uint64_t)st->st_size;
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", name);
	ret = put_member(s, path, name, '0', st, left, NULL, err);
	while (ret == 0 && left) {
		ssize_t n = read(fd, s->copy, FAVO_MIN(left, COPY_SIZE));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : EIO, "%s: %s", name,
					 n < 0 ? "cannot be read" : "became shorter");
		ret = put(s, s->copy, (size_t)n, err);
		left -= (uint64_t)n;
	}
	return ret < 0 ? ret : pad(s, (uint64_t)st->st_size, err);
}

/* 1: the file was one of the guest's identity, and is written or left out. */
static int put_identity(struct save *s, const char *path, const char *name,
			const struct stat *st, struct favo_err *err)
{
	const char *base = strrchr(name, '/');
	favo_autofree char *original = NULL, *written = NULL, *now = NULL, *text = NULL;
	char file[64];
	int ret;

	if (strncmp(name, "./etc/", 6) != 0 || base != name + 5 || !S_ISREG(st->st_mode))
		return 0;
	base++;
	for (size_t i = 0; i <= FAVO_ARRAY_SIZE(etc_files); i++) {
		if (i == FAVO_ARRAY_SIZE(etc_files))
			return 0;
		if (strcmp(base, etc_files[i]) == 0)
			break;
	}
	snprintf(file, sizeof(file), "%s.written", base);
	original = read_text(s->keep, base);
	written = read_text(s->keep, file);
	if (!written || favo_file_read(path, ETC_MAX, &now, NULL, NULL) < 0)
		return 0;
	/* The image had none, and nobody but us wrote it. */
	if (!original && strcmp(written, now) == 0)
		return 1;
	text = favo_save_merge(original ? original : "", written, now);
	if (!text)
		return favo_fail(err, ENOMEM, "%s: out of memory", name);
	ret = put_member(s, path, name, '0', st, strlen(text), NULL, err);
	if (ret == 0)
		ret = put(s, text, strlen(text), err);
	if (ret == 0)
		ret = pad(s, strlen(text), err);
	return ret < 0 ? ret : 1;
}

/* The first name of a file with several, or NULL: this one is it. */
static const char *find_link(struct save *s, const struct stat *st, const char *name)
{
	struct link *grown;

	for (size_t i = 0; i < s->n_links; i++)
		if (s->links[i].ino == st->st_ino && s->links[i].dev == st->st_dev)
			return s->links[i].path;
	grown = reallocarray(s->links, s->n_links + 1, sizeof(*s->links));
	if (!grown)
		return NULL; /* two files instead of one */
	s->links = grown;
	s->links[s->n_links] = (struct link){st->st_dev, st->st_ino, strdup(name)};
	s->n_links += s->links[s->n_links].path != NULL;
	return NULL;
}

static int put_entry(struct save *s, const char *path, const char *name,
		     const struct stat *st, struct favo_err *err)
{
	char target[PATH_MAX];
	const char *first;
	ssize_t n;
	int ret;

	switch (st->st_mode & S_IFMT) {
	case S_IFDIR:
		return put_member(s, path, name, '5', st, 0, NULL, err);
	case S_IFLNK:
		n = readlink(path, target, sizeof(target) - 1);
		if (n < 0)
			return favo_fail(err, errno, "%s: %m", name);
		target[n] = '\0';
		return put_member(s, path, name, '2', st, 0, target, err);
	case S_IFCHR:
		return put_member(s, path, name, '3', st, 0, NULL, err);
	case S_IFBLK:
		return put_member(s, path, name, '4', st, 0, NULL, err);
	case S_IFIFO:
		return put_member(s, path, name, '6', st, 0, NULL, err);
	case S_IFREG:
		break;
	default:
		return 0; /* a socket is of no use to anybody else */
	}
	ret = put_identity(s, path, name, st, err);
	if (ret)
		return ret < 0 ? ret : 0;
	first = st->st_nlink > 1 ? find_link(s, st, name) : NULL;
	if (first)
		return put_member(s, path, name, '1', st, 0, first, err);
	return put_file(s, path, name, st, err);
}

static int by_name(const struct dirent **a, const struct dirent **b)
{
	return strcmp((*a)->d_name, (*b)->d_name);
}

static int walk(struct save *s, const char *path, const char *name, dev_t dev, int depth,
		struct favo_err *err)
{
	struct dirent **list = NULL;
	int n, ret = 0;

	if (depth > DEPTH_MAX)
		return favo_fail(err, ELOOP, "%s: too deep", name);
	n = scandir(path, &list, NULL, by_name);
	if (n < 0)
		return favo_fail(err, errno, "%s: %m", name);
	for (int i = 0; i < n; i++) {
		const char *base = list[i]->d_name;
		favo_autofree char *below = NULL, *member = NULL;
		struct stat st;

		if (ret == 0 && strcmp(base, ".") != 0 && strcmp(base, "..") != 0) {
			below = favo_asprintf("%s/%s", path, base);
			member = favo_asprintf("%s/%s", name, base);
			if (!below || !member)
				ret = favo_fail(err, ENOMEM, "out of memory");
			else if (lstat(below, &st) < 0)
				ret = favo_fail(err, errno, "%s: %m", member);
			/* A folder of another file system is somebody else's. */
			else if (!S_ISDIR(st.st_mode) || st.st_dev == dev)
				ret = put_entry(s, below, member, &st, err);
			if (ret == 0 && below && member && S_ISDIR(st.st_mode) &&
			    st.st_dev == dev)
				ret = walk(s, below, member, dev, depth + 1, err);
		}
		free(list[i]);
	}
	free(list);
	return ret;
}

int favo_save_tree(int fd, const char *root, const char *keep, struct favo_err *err)
{
	static const char end[2 * BLOCK];
	favo_autofree char *copy = malloc(COPY_SIZE);
	struct save s = {.fd = fd, .keep = keep, .copy = copy};
	struct stat st;
	int ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "out of memory");
	if (lstat(root, &st) < 0)
		return favo_fail(err, errno, "%s: %m", root);
	ret = put_entry(&s, root, "./", &st, err);
	if (ret == 0)
		ret = walk(&s, root, ".", st.st_dev, 0, err);
	if (ret == 0)
		ret = put(&s, end, sizeof(end), err);
	for (size_t i = 0; i < s.n_links; i++)
		free(s.links[i].path);
	free(s.links);
	return ret;
}

/* ---- in a guest ---- */

/* Name of the cgroup that we are in, below CGROUPS; "" when there is none. */
static void own_cgroup(char out[64])
{
	favo_autofree char *text = NULL;
	const char *p;

	out[0] = '\0';
	if (favo_file_read("/proc/self/cgroup", 4096, &text, NULL, NULL) < 0)
		return;
	p = strstr(text, "::/favo/");
	if (p)
		snprintf(out, 64, "%.*s", (int)strcspn(p + 8, "/\n"), p + 8);
}

static void set_frozen(bool frozen)
{
	struct dirent *e;
	char own[64];
	DIR *dir = opendir(CGROUPS);

	own_cgroup(own);
	while (dir && (e = readdir(dir))) {
		favo_autofree char *path =
			favo_asprintf(CGROUPS "/%s/cgroup.freeze", e->d_name);
		favo_autoclose int fd = -1;

		if (e->d_name[0] == '.' || (frozen && strcmp(e->d_name, own) == 0))
			continue;
		fd = path ? open(path, O_WRONLY | O_CLOEXEC) : -1;
		/* Without a freezer the tree is read while it changes. */
		if (fd >= 0 && write(fd, frozen ? "1" : "0", 1) < 0)
			continue;
	}
	if (dir)
		closedir(dir);
}

void favo_save_thaw(void)
{
	set_frozen(false);
}

/* The root without anything that is mounted on it, for us alone. */
static int make_view(struct favo_err *err)
{
	if (unshare(CLONE_NEWNS) < 0 ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return favo_fail(err, errno, "mount namespace: %m");
	if (mkdir(VIEW, 0700) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "%s: %m", VIEW);
	/* Not MS_REC: that is the point. */
	if (mount("/", VIEW, NULL, MS_BIND, NULL) < 0)
		return favo_fail(err, errno, "view of the root: %m");
	return 0;
}

int favo_save_stream(int fd, struct favo_err *err)
{
	int ret = make_view(err);

	if (ret < 0)
		return ret;
	set_frozen(true);
	sync();
	ret = favo_save_tree(fd, VIEW, KEEP, err);
	set_frozen(false);
	return ret;
}

int favo_save_main(void)
{
	struct favo_err err = {0};

	signal(SIGPIPE, SIG_IGN);
	if (favo_save_stream(STDOUT_FILENO, &err) == 0)
		return 0;
	fprintf(stderr, "favo: the guest's root cannot be read: %s\n", err.msg);
	return 1;
}
