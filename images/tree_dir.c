// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tree from a folder of the host. Every step opens relative to the folder's
 * descriptor without following symlinks, so that who changes the source
 * meanwhile cannot lead the walk elsewhere. Contents stay where they are.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "common/util.h"
#include "images/tree.h"

#define XATTR_NAMES_MAX 65536

/* A file with several names: the path at which it was met first. */
struct seen {
	dev_t dev;
	ino_t ino;
	char path[];
};

struct walk {
	struct favo_tree *tree;
	dev_t dev;
	void *links; /* tsearch() tree of struct seen */
	char path[PATH_MAX];
};

static int compare_seen(const void *a, const void *b)
{
	const struct seen *left = a, *right = b;

	if (left->ino != right->ino)
		return left->ino < right->ino ? -1 : 1;
	return left->dev == right->dev ? 0 : left->dev < right->dev ? -1 : 1;
}

/* 1: linked to the name met before; 0: first name. */
static int link_if_seen(struct walk *walk, const struct stat *st, struct favo_err *err)
{
	size_t len = strlen(walk->path) + 1;
	struct seen *seen = malloc(sizeof(*seen) + len);
	struct seen **node;
	int ret;

	if (!seen)
		return favo_fail(err, ENOMEM, "out of memory");
	seen->dev = st->st_dev;
	seen->ino = st->st_ino;
	memcpy(seen->path, walk->path, len);
	node = tsearch(seen, &walk->links, compare_seen);
	if (!node) {
		free(seen);
		return favo_fail(err, ENOMEM, "out of memory");
	}
	if (*node == seen)
		return 0;
	free(seen);
	ret = favo_tree_link(walk->tree, walk->path, (*node)->path, err);
	return ret < 0 ? ret : 1;
}

static int load_xattrs(struct favo_inode *inode, const char *path, struct favo_err *err)
{
	favo_autofree char *names = NULL, *value = NULL;
	ssize_t len = llistxattr(path, NULL, 0), n;
	int ret;

	if (len <= 0)
		return len == 0 || errno == ENOTSUP ? 0
						    : favo_fail(err, errno, "xattrs: %m");
	names = malloc(XATTR_NAMES_MAX);
	value = malloc(FAVO_XATTR_VALUE_MAX);
	if (!names || !value)
		return favo_fail(err, ENOMEM, "out of memory");
	len = llistxattr(path, names, XATTR_NAMES_MAX);
	if (len < 0)
		return favo_fail(err, errno, "xattrs: %m");
	for (const char *name = names; name < names + len; name += strlen(name) + 1) {
		n = lgetxattr(path, name, value, FAVO_XATTR_VALUE_MAX);
		if (n < 0)
			return favo_fail(err, errno, "xattr %s: %m", name);
		ret = favo_tree_add_xattr(inode, name, value, (size_t)n, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int load_symlink(struct favo_inode *inode, int dir_fd, const char *name,
			struct favo_err *err)
{
	char target[PATH_MAX];
	ssize_t n = readlinkat(dir_fd, name, target, sizeof(target) - 1);

	if (n < 0)
		return favo_fail(err, errno, "%m");
	target[n] = '\0';
	return favo_tree_set_target(inode, target, err);
}

static int load_inode(struct walk *walk, int dir_fd, const char *name,
		      const struct stat *st, struct favo_err *err)
{
	struct favo_inode *inode = NULL;
	char proc[64 + NAME_MAX];
	int ret = favo_tree_put(walk->tree, walk->path, st->st_mode, &inode, err);

	if (ret < 0)
		return ret;
	inode->uid = st->st_uid;
	inode->gid = st->st_gid;
	inode->mtime = st->st_mtim.tv_sec;
	inode->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode)) {
		inode->rdev_major = major(st->st_rdev);
		inode->rdev_minor = minor(st->st_rdev);
	}
	if (S_ISREG(st->st_mode)) {
		inode->size = (uint64_t)st->st_size;
		inode->content = FAVO_CONTENT_HOST;
		inode->host_path = strdup(walk->path);
		if (!inode->host_path)
			return favo_fail(err, ENOMEM, "out of memory");
	}
	if (S_ISLNK(st->st_mode)) {
		ret = load_symlink(inode, dir_fd, name, err);
		if (ret < 0)
			return ret;
	}
	snprintf(proc, sizeof(proc), "/proc/self/fd/%d/%s", dir_fd, name);
	return load_xattrs(inode, proc, err);
}

static int load_folder(struct walk *walk, int fd, size_t len, struct favo_err *err);

static int load_entry(struct walk *walk, int dir_fd, const char *name, size_t len,
		      struct favo_err *err)
{
	favo_autoclose int fd = -1;
	struct stat st;
	int ret;

	if (fstatat(dir_fd, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return favo_fail(err, errno, "%m");
	if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
		ret = link_if_seen(walk, &st, err);
		if (ret != 0)
			return ret < 0 ? ret : 0;
	}
	ret = load_inode(walk, dir_fd, name, &st, err);
	/* A mount point is there as an empty folder, as in a fresh boot. */
	if (ret < 0 || !S_ISDIR(st.st_mode) || st.st_dev != walk->dev)
		return ret;
	fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "%m");
	return load_folder(walk, favo_steal_fd(&fd), len, err);
}

/* Takes fd; walk->path holds len bytes of the folder's path. */
static int load_folder(struct walk *walk, int fd, size_t len, struct favo_err *err)
{
	DIR *dir = fdopendir(fd);
	struct dirent *entry;
	int n, ret = 0;

	if (!dir) {
		ret = favo_fail(err, errno, "%m");
		close(fd);
		return ret;
	}
	while (ret == 0) {
		errno = 0;
		entry = readdir(dir);
		if (!entry) {
			if (errno)
				ret = favo_fail(err, errno, "%m");
			break;
		}
		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		n = snprintf(walk->path + len, sizeof(walk->path) - len, "%s%s",
			     len ? "/" : "", entry->d_name);
		if ((size_t)n >= sizeof(walk->path) - len)
			ret = favo_fail(err, ENAMETOOLONG, "path is too long");
		else
			ret = load_entry(walk, dirfd(dir), entry->d_name, len + (size_t)n,
					 err);
	}
	closedir(dir);
	if (ret == 0)
		walk->path[len] = '\0';
	return ret;
}

int favo_tree_load_dir(struct favo_tree **out, const char *path, struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	favo_autofree struct walk *walk = calloc(1, sizeof(*walk));
	struct stat st;
	int fd, ret = favo_tree_new(&tree, err);

	if (ret < 0)
		return ret;
	if (!walk)
		return favo_fail(err, ENOMEM, "%s: out of memory", path);
	tree->host_fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (tree->host_fd < 0 || fstat(tree->host_fd, &st) < 0)
		return favo_fail(err, errno, "%s: %m", path);
	walk->tree = tree;
	walk->dev = st.st_dev;
	ret = load_inode(walk, tree->host_fd, ".", &st, err);
	fd = openat(tree->host_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (ret == 0 && fd < 0)
		ret = favo_fail(err, errno, "%m");
	if (ret == 0)
		ret = load_folder(walk, fd, 0, err);
	else if (fd >= 0)
		close(fd);
	tdestroy(walk->links, free);
	if (ret < 0)
		return favo_wrap(err, ret, "%s/%s", path, walk->path);
	*out = favo_steal_ptr(&tree);
	return 0;
}
