// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File system tree in memory; see tree.h. Entries of a folder are kept
 * sorted, so that the order in which a source delivers them has no effect on
 * the result, and look-ups are binary searches.
 */
#include "images/tree_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"

#define SYMLINKS_MAX 40

void favo_inode_unref(struct favo_inode *inode)
{
	if (!S_ISDIR(inode->mode) && --inode->nlink > 0)
		return;
	for (size_t i = 0; i < inode->n_entries; i++) {
		free(inode->entries[i].name);
		favo_inode_unref(inode->entries[i].inode);
	}
	for (size_t i = 0; i < inode->n_xattrs; i++) {
		free(inode->xattrs[i].name);
		free(inode->xattrs[i].value);
	}
	free(inode->xattrs);
	free(inode->entries);
	free(inode->host_path);
	free(inode->data);
	free(inode);
}

/* Content and metadata of what the inode was; its names and entries stay. */
static void inode_reset(struct favo_inode *inode, mode_t mode)
{
	for (size_t i = 0; i < inode->n_xattrs; i++) {
		free(inode->xattrs[i].name);
		free(inode->xattrs[i].value);
	}
	free(inode->xattrs);
	free(inode->host_path);
	free(inode->data);
	inode->xattrs = NULL;
	inode->n_xattrs = 0;
	inode->host_path = NULL;
	inode->data = NULL;
	inode->content = FAVO_CONTENT_NONE;
	inode->size = 0;
	inode->mode = mode;
	inode->layer &= FAVO_LAYER_OPAQUE;
}

int favo_tree_new(struct favo_tree **out, struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = calloc(1, sizeof(*tree));

	if (!tree)
		return favo_fail(err, ENOMEM, "out of memory");
	tree->spool_fd = -1;
	tree->host_fd = -1;
	tree->root = calloc(1, sizeof(*tree->root));
	if (!tree->root)
		return favo_fail(err, ENOMEM, "out of memory");
	tree->root->mode = S_IFDIR | 0755;
	tree->n_inodes = 1;
	*out = favo_steal_ptr(&tree);
	return 0;
}

void favo_tree_free(struct favo_tree *tree)
{
	if (!tree)
		return;
	if (tree->root)
		favo_inode_unref(tree->root);
	favo_close(&tree->spool_fd);
	favo_close(&tree->host_fd);
	free(tree);
}

/* ---- entries ---- */

/* Position of name, or where it belongs; *found says which. */
size_t favo_dir_search(const struct favo_inode *dir, const char *name, bool *found)
{
	size_t low = 0, high = dir->n_entries, mid;
	int order;

	/* Sources deliver mostly in order. */
	if (high && strcmp(dir->entries[high - 1].name, name) < 0)
		low = high;
	while (low < high) {
		mid = low + (high - low) / 2;
		order = strcmp(dir->entries[mid].name, name);
		if (order == 0) {
			*found = true;
			return mid;
		}
		if (order < 0)
			low = mid + 1;
		else
			high = mid;
	}
	*found = false;
	return low;
}

struct favo_inode *favo_inode_child(const struct favo_inode *dir, const char *name)
{
	bool found;
	size_t at = favo_dir_search(dir, name, &found);

	return found ? dir->entries[at].inode : NULL;
}

int favo_dir_insert(struct favo_inode *dir, const char *name, struct favo_inode *inode,
		    struct favo_err *err)
{
	size_t size = dir->entries_size ? 2 * dir->entries_size : 8;
	bool found;
	size_t at = favo_dir_search(dir, name, &found);
	struct favo_dentry *grown;
	char *copy;

	if (dir->n_entries == dir->entries_size) {
		grown = reallocarray(dir->entries, size, sizeof(*grown));
		if (!grown)
			return favo_fail(err, ENOMEM, "out of memory");
		dir->entries = grown;
		dir->entries_size = size;
	}
	copy = strdup(name);
	if (!copy)
		return favo_fail(err, ENOMEM, "out of memory");
	memmove(dir->entries + at + 1, dir->entries + at,
		(dir->n_entries - at) * sizeof(*dir->entries));
	dir->entries[at] = (struct favo_dentry){.name = copy, .inode = inode};
	dir->n_entries++;
	return 0;
}

void favo_dir_remove(struct favo_inode *dir, size_t at)
{
	free(dir->entries[at].name);
	favo_inode_unref(dir->entries[at].inode);
	dir->n_entries--;
	memmove(dir->entries + at, dir->entries + at + 1,
		(dir->n_entries - at) * sizeof(*dir->entries));
}

int favo_dir_new_child(struct favo_tree *tree, struct favo_inode *dir, const char *name,
		       mode_t mode, struct favo_inode **out, struct favo_err *err)
{
	struct favo_inode *inode;
	int ret;

	if (tree->n_inodes >= FAVO_TREE_FILES_MAX)
		return favo_fail(err, E2BIG, "more than %u files", FAVO_TREE_FILES_MAX);
	inode = calloc(1, sizeof(*inode));
	if (!inode)
		return favo_fail(err, ENOMEM, "out of memory");
	inode->mode = mode;
	inode->nlink = 1;
	ret = favo_dir_insert(dir, name, inode, err);
	if (ret < 0) {
		free(inode);
		return ret;
	}
	tree->n_inodes++;
	*out = inode;
	return 0;
}

/* ---- paths ---- */

/*
 * Next part of a path into part; 0 at its end. "." and empty parts are
 * skipped. -EINVAL for ".." and -ENAMETOOLONG.
 */
static int next_part(const char **path, char part[NAME_MAX + 1], struct favo_err *err)
{
	size_t len;

	for (;;) {
		*path += strspn(*path, "/");
		len = strcspn(*path, "/");
		if (len == 0)
			return 0;
		if (len != 1 || **path != '.')
			break;
		*path += len;
	}
	if (len == 2 && strncmp(*path, "..", 2) == 0)
		return favo_fail(err, EINVAL, "path has '..' in it");
	if (len > NAME_MAX)
		return favo_fail(err, ENAMETOOLONG, "name is longer than %d bytes",
				 NAME_MAX);
	memcpy(part, *path, len);
	part[len] = '\0';
	*path += len;
	return 1;
}

/*
 * Folder that holds the last part of path, and that part ("" for the root).
 * Missing folders are made when create is set, else -ENOENT.
 */
int favo_tree_walk(struct favo_tree *tree, const char *path, bool create,
		   struct favo_inode **parent, char last[NAME_MAX + 1],
		   struct favo_err *err)
{
	struct favo_inode *dir = tree->root, *child;
	char part[NAME_MAX + 1];
	const char *rest = path;
	int ret;

	last[0] = '\0';
	/* This bounds the depth of the tree too, and with it all recursions. */
	if (strlen(path) >= PATH_MAX)
		return favo_fail(err, ENAMETOOLONG, "%.64s...: path is too long", path);
	while ((ret = next_part(&rest, part, err)) > 0) {
		if (last[0]) {
			child = favo_inode_child(dir, last);
			if (!child && !create)
				return favo_fail(err, ENOENT, "%s: no such file", path);
			if (!child) {
				ret = favo_dir_new_child(tree, dir, last, S_IFDIR | 0755,
							 &child, err);
				if (ret < 0)
					return favo_wrap(err, ret, "%s", path);
				child->layer = FAVO_LAYER_IMPLICIT;
			}
			if (create)
				child->layer &= ~FAVO_LAYER_WHITEOUT;
			if (S_ISLNK(child->mode))
				return favo_fail(err, ELOOP,
						 "%s: leads through the symlink %s", path,
						 last);
			if (!S_ISDIR(child->mode))
				return favo_fail(err, ENOTDIR, "%s: %s is not a folder",
						 path, last);
			dir = child;
		}
		memcpy(last, part, sizeof(part));
	}
	if (ret < 0)
		return favo_wrap(err, ret, "%s", path);
	*parent = dir;
	return 0;
}

int favo_tree_put(struct favo_tree *tree, const char *path, mode_t mode,
		  struct favo_inode **out, struct favo_err *err)
{
	struct favo_inode *dir = NULL, *inode;
	char name[NAME_MAX + 1];
	bool found;
	size_t at;
	int ret = favo_tree_walk(tree, path, true, &dir, name, err);

	if (ret < 0)
		return ret;
	if (!name[0]) {
		if (!S_ISDIR(mode))
			return favo_fail(err, EINVAL, "%s: the root must be a folder",
					 path);
		inode_reset(tree->root, mode);
		*out = tree->root;
		return 0;
	}
	at = favo_dir_search(dir, name, &found);
	if (found) {
		inode = dir->entries[at].inode;
		if (S_ISDIR(inode->mode) && S_ISDIR(mode)) {
			inode_reset(inode, mode);
			*out = inode;
			return 0;
		}
		favo_dir_remove(dir, at);
	}
	return favo_dir_new_child(tree, dir, name, mode, out, err);
}

int favo_tree_link(struct favo_tree *tree, const char *path, const char *target,
		   struct favo_err *err)
{
	struct favo_inode *dir = NULL, *inode;
	char name[NAME_MAX + 1];
	bool found;
	size_t at;
	int ret = favo_tree_walk(tree, target, false, &dir, name, err);

	if (ret < 0)
		return favo_wrap(err, ret, "%s: hard link", path);
	inode = favo_inode_child(dir, name);
	if (!inode)
		return favo_fail(err, ENOENT, "%s: hard link to %s, which is not there",
				 path, target);
	if (S_ISDIR(inode->mode))
		return favo_fail(err, EINVAL, "%s: hard link to the folder %s", path,
				 target);
	ret = favo_tree_walk(tree, path, true, &dir, name, err);
	if (ret < 0)
		return ret;
	if (!name[0])
		return favo_fail(err, EINVAL, "%s: the root must be a folder", path);
	inode->nlink++; /* first, should path be the only name of inode */
	at = favo_dir_search(dir, name, &found);
	if (found)
		favo_dir_remove(dir, at);
	ret = favo_dir_insert(dir, name, inode, err);
	if (ret < 0)
		favo_inode_unref(inode);
	return ret;
}

int favo_tree_put_file(struct favo_tree *tree, const char *path, mode_t mode,
		       const void *data, size_t len, int64_t mtime, struct favo_err *err)
{
	struct favo_inode *inode = NULL;
	int ret = favo_tree_put(tree, path, S_IFREG | (mode & 07777), &inode, err);

	if (ret < 0)
		return ret;
	inode->data = malloc(len + 1);
	if (!inode->data)
		return favo_fail(err, ENOMEM, "%s: out of memory", path);
	if (len)
		memcpy(inode->data, data, len);
	inode->content = FAVO_CONTENT_MEMORY;
	inode->size = len;
	inode->mtime = mtime;
	return 0;
}

int favo_tree_set_target(struct favo_inode *inode, const char *target,
			 struct favo_err *err)
{
	size_t len = strlen(target);

	if (len == 0 || len >= PATH_MAX)
		return favo_fail(err, EINVAL, "symlink with a target of %zu bytes", len);
	free(inode->data);
	inode->data = strdup(target);
	if (!inode->data)
		return favo_fail(err, ENOMEM, "out of memory");
	inode->size = len;
	return 0;
}

int favo_tree_add_xattr(struct favo_inode *inode, const char *name, const void *value,
			size_t len, struct favo_err *err)
{
	struct favo_xattr *grown, *xattr;

	if (len > FAVO_XATTR_VALUE_MAX || strlen(name) > NAME_MAX)
		return favo_fail(err, E2BIG, "extended attribute %.64s is too long",
				 name);
	/* Tars may carry an attribute in several notations; the last one wins. */
	for (size_t i = 0; i < inode->n_xattrs; i++) {
		if (strcmp(inode->xattrs[i].name, name) != 0)
			continue;
		free(inode->xattrs[i].name);
		free(inode->xattrs[i].value);
		inode->xattrs[i] = inode->xattrs[--inode->n_xattrs];
		break;
	}
	grown = reallocarray(inode->xattrs, inode->n_xattrs + 1, sizeof(*grown));
	if (!grown)
		return favo_fail(err, ENOMEM, "out of memory");
	inode->xattrs = grown;
	xattr = &grown[inode->n_xattrs];
	xattr->name = strdup(name);
	xattr->value = malloc(len + 1);
	xattr->len = len;
	inode->n_xattrs++;
	if (!xattr->name || !xattr->value)
		return favo_fail(err, ENOMEM, "out of memory");
	if (len)
		memcpy(xattr->value, value, len);
	return 0;
}

int favo_tree_remove(struct favo_tree *tree, const char *path, struct favo_err *err)
{
	struct favo_inode *dir = NULL;
	char name[NAME_MAX + 1];
	bool found = false;
	size_t at = 0;
	int ret = favo_tree_walk(tree, path, false, &dir, name, err);

	if (ret < 0)
		return ret;
	if (name[0])
		at = favo_dir_search(dir, name, &found);
	if (!found)
		return favo_fail(err, ENOENT, "%s: no such file", path);
	favo_dir_remove(dir, at);
	return 0;
}

struct match {
	const char *const *patterns;
	size_t n;
	favo_tree_seen_fn *seen;
	void *user;
	char path[PATH_MAX];
};

static bool matches(const struct match *match)
{
	for (size_t i = 0; i < match->n; i++)
		if (fnmatch(match->patterns[i], match->path, FNM_PATHNAME) == 0)
			return true;
	return false;
}

static int remove_below(struct match *match, struct favo_inode *dir, size_t len,
			struct favo_err *err)
{
	struct favo_inode *child;
	int n, ret;

	for (size_t i = 0; i < dir->n_entries;) {
		n = snprintf(match->path + len, sizeof(match->path) - len, "%s%s",
			     len ? "/" : "", dir->entries[i].name);
		if ((size_t)n >= sizeof(match->path) - len)
			return favo_fail(err, ENAMETOOLONG,
					 "path in the tree is too long");
		if (matches(match)) {
			if (match->seen)
				match->seen(match->path, match->user);
			favo_dir_remove(dir, i);
			continue;
		}
		child = dir->entries[i].inode;
		ret = S_ISDIR(child->mode)
			      ? remove_below(match, child, len + (size_t)n, err)
			      : 0;
		if (ret < 0)
			return ret;
		i++;
	}
	return 0;
}

int favo_tree_remove_matching(struct favo_tree *tree, const char *const *patterns,
			      size_t n, favo_tree_seen_fn *seen, void *user,
			      struct favo_err *err)
{
	favo_autofree struct match *match = calloc(1, sizeof(*match));

	if (!match)
		return favo_fail(err, ENOMEM, "out of memory");
	match->patterns = patterns;
	match->n = n;
	match->seen = seen;
	match->user = user;
	return remove_below(match, tree->root, 0, err);
}

/* ---- reading ---- */

/*
 * Like the kernel's path walk, within the tree: ".." stays below the root, an
 * absolute target starts there. A symlink's target goes in front of the rest.
 */
struct favo_inode *favo_tree_find(const struct favo_tree *tree, const char *path)
{
	favo_autofree struct favo_inode **stack = calloc(PATH_MAX, sizeof(*stack));
	favo_autofree char *rest = strdup(path);
	char part[NAME_MAX + 1], *p = rest, *joined;
	struct favo_inode *child;
	size_t depth = 0, len;
	int links = 0;

	if (!stack || !rest || strlen(path) >= PATH_MAX)
		return NULL;
	stack[0] = tree->root;
	for (;;) {
		p += strspn(p, "/");
		len = strcspn(p, "/");
		if (len == 0)
			return stack[depth];
		if (len > NAME_MAX || !S_ISDIR(stack[depth]->mode))
			return NULL;
		memcpy(part, p, len);
		part[len] = '\0';
		p += len;
		if (strcmp(part, ".") == 0)
			continue;
		if (strcmp(part, "..") == 0) {
			depth -= depth > 0;
			continue;
		}
		child = favo_inode_child(stack[depth], part);
		if (!child)
			return NULL;
		if (S_ISLNK(child->mode)) {
			if (++links > SYMLINKS_MAX || child->size + strlen(p) >= PATH_MAX)
				return NULL;
			if (((char *)child->data)[0] == '/')
				depth = 0;
			joined = favo_asprintf("%s/%s", (char *)child->data, p);
			free(rest);
			rest = p = joined;
			if (!p)
				return NULL;
			continue;
		}
		if (depth + 1 >= PATH_MAX)
			return NULL;
		stack[++depth] = child;
	}
}

static int read_fd(int fd, void *buf, size_t len, uint64_t offset, struct favo_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "read: %m");
		if (n == 0)
			return favo_fail(err, EIO, "file is shorter than its size says");
		done += (size_t)n;
	}
	return 0;
}

int favo_tree_read(const struct favo_tree *tree, const struct favo_inode *inode,
		   void *buf, size_t len, uint64_t offset, struct favo_err *err)
{
	favo_autoclose int fd = -1;

	if (offset > inode->size || len > inode->size - offset)
		return favo_fail(err, EIO, "read beyond the end of the file");
	switch (inode->content) {
	case FAVO_CONTENT_MEMORY:
		memcpy(buf, (char *)inode->data + offset, len);
		return 0;
	case FAVO_CONTENT_SPOOL:
		return read_fd(tree->spool_fd, buf, len, inode->spool_offset + offset,
			       err);
	case FAVO_CONTENT_HOST:
		fd = openat(tree->host_fd, inode->host_path,
			    O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
		if (fd < 0)
			return favo_fail(err, errno, "%s: %m", inode->host_path);
		return read_fd(fd, buf, len, offset, err);
	case FAVO_CONTENT_NONE:
		break;
	}
	memset(buf, 0, len);
	return 0;
}

int favo_tree_read_all(const struct favo_tree *tree, const struct favo_inode *inode,
		       size_t max, char **data, size_t *len, struct favo_err *err)
{
	favo_autofree char *buf = NULL;
	int ret;

	if (!S_ISREG(inode->mode))
		return favo_fail(err, EINVAL, "not a regular file");
	if (inode->size > max)
		return favo_fail(err, EFBIG, "larger than %zu bytes", max);
	buf = malloc(inode->size + 1);
	if (!buf)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_tree_read(tree, inode, buf, inode->size, 0, err);
	if (ret < 0)
		return ret;
	buf[inode->size] = '\0';
	*len = inode->size;
	*data = favo_steal_ptr(&buf);
	return 0;
}
