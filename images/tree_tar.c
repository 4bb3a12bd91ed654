// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tree from a tar stream, read with libarchive. The stream is foreign:
 * names with ".." and members below a symlink are refused by the tree, and
 * contents go to one unlinked spool file, never to a path of the host. A
 * layer of a container image is a tar with whiteouts (layer.h).
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "images/manifest.h"
#include "images/tree_internal.h"

#define PADDING_MAX (1u << 20) /* GNU tar pads to 10 KiB */
#define BLOCK (256 * 1024)
#define WHITEOUT ".wh."
#define WHITEOUT_META ".wh..wh."
#define WHITEOUT_OPAQUE ".wh..wh..opq"

struct loader {
	struct favo_tree *tree;
	struct favo_spool *spool;
	bool is_layer;
	/* of a layer */
	favo_read_fn *read;
	void *user;
	struct favo_err *read_err;
	char buf[BLOCK];
};

static int fail_archive(struct favo_err *err, struct archive *archive)
{
	int code = archive_errno(archive);
	const char *text = archive_error_string(archive);

	/* libarchive says EILSEQ or -1 of a damaged archive. */
	return favo_fail(err, code > 0 && code != EILSEQ ? code : EBADMSG, "tar: %s",
			 text ? text : "unknown error");
}

int favo_spool_open(struct favo_spool *spool, const char *dir, uint64_t max_bytes,
		    uint64_t max_members, struct favo_err *err)
{
	*spool = (struct favo_spool){.max_bytes = max_bytes, .max_members = max_members};
	spool->fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (spool->fd < 0)
		return favo_fail(err, errno, "%s: spool file: %m", dir);
	return 0;
}

static int spool_write(int fd, const void *data, size_t len, uint64_t offset,
		       struct favo_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(fd, (const char *)data + done, len - done,
			   (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENOSPC, "spool file: %m");
		done += (size_t)n;
	}
	return 0;
}

/* Content of a regular file; holes stay holes of the spool file. */
static int load_content(struct loader *l, struct favo_inode *inode,
			struct archive *archive, struct favo_err *err)
{
	const void *data;
	size_t len;
	la_int64_t offset;
	int ret;

	/* Threads share the spool: a place for the whole file, then its bytes. */
	inode->spool_offset = atomic_fetch_add(&l->spool->len, inode->size);
	if (inode->spool_offset + inode->size > l->spool->max_bytes)
		return favo_fail(err, EFBIG, "the files are larger than %ju MiB together",
				 (uintmax_t)(l->spool->max_bytes >> 20));
	inode->content = FAVO_CONTENT_SPOOL;
	for (;;) {
		ret = archive_read_data_block(archive, &data, &len, &offset);
		if (ret == ARCHIVE_EOF)
			return 0;
		if (ret < ARCHIVE_WARN)
			return fail_archive(err, archive);
		if (offset < 0 || (uint64_t)offset > inode->size ||
		    len > inode->size - (uint64_t)offset)
			return favo_fail(err, EBADMSG, "more data than the header says");
		ret = spool_write(l->spool->fd, data, len,
				  inode->spool_offset + (uint64_t)offset, err);
		if (ret < 0)
			return ret;
	}
}

static int load_xattrs(struct favo_inode *inode, struct archive_entry *entry,
		       struct favo_err *err)
{
	const char *name;
	const void *value;
	size_t len;
	int ret;

	archive_entry_xattr_reset(entry);
	while (archive_entry_xattr_next(entry, &name, &value, &len) == ARCHIVE_OK) {
		ret = favo_tree_add_xattr(inode, name, value, len, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int load_metadata(struct favo_inode *inode, struct archive_entry *entry,
			 struct favo_err *err)
{
	if (archive_entry_uid(entry) < 0 || archive_entry_uid(entry) > UINT32_MAX ||
	    archive_entry_gid(entry) < 0 || archive_entry_gid(entry) > UINT32_MAX)
		return favo_fail(err, EBADMSG, "owner is out of range");
	inode->uid = (uint32_t)archive_entry_uid(entry);
	inode->gid = (uint32_t)archive_entry_gid(entry);
	inode->mtime = archive_entry_mtime_is_set(entry) ? archive_entry_mtime(entry) : 0;
	inode->mtime_ns = archive_entry_mtime_is_set(entry)
				  ? (uint32_t)archive_entry_mtime_nsec(entry)
				  : 0;
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode)) {
		inode->rdev_major = (uint32_t)archive_entry_rdevmajor(entry);
		inode->rdev_minor = (uint32_t)archive_entry_rdevminor(entry);
	}
	return load_xattrs(inode, entry, err);
}

/* A link to what this layer has not: found when the layers are merged. */
static int defer_link(struct loader *l, const char *path, const char *target,
		      struct favo_err *err)
{
	struct favo_inode *inode = NULL;
	int ret = favo_tree_put(l->tree, path, S_IFREG | 0600, &inode, err);

	if (ret == 0)
		ret = favo_tree_set_target(inode, target, err);
	if (ret == 0)
		inode->layer = FAVO_LAYER_LINK;
	return ret;
}

/* 1: the member was a mark and is done with; 0: it is an ordinary one. */
static int load_whiteout(struct loader *l, const char *path, struct favo_err *err)
{
	favo_autofree char *full = strdup(path);
	struct favo_inode *dir = NULL, *inode;
	char name[NAME_MAX + 1];
	char *base;
	int ret;

	if (!full)
		return favo_fail(err, ENOMEM, "out of memory");
	for (base = full + strlen(full); base > full && base[-1] == '/';)
		*--base = '\0';
	base = strrchr(full, '/') ? strrchr(full, '/') + 1 : full;
	if (strncmp(base, WHITEOUT, strlen(WHITEOUT)) != 0)
		return 0;
	if (strcmp(base, WHITEOUT_OPAQUE) == 0) {
		/* Any name will do: what counts is the folder. */
		ret = favo_tree_walk(l->tree, full, true, &dir, name, err);
		if (ret == 0)
			dir->layer |= FAVO_LAYER_OPAQUE;
		return ret < 0 ? ret : 1;
	}
	if (strncmp(base, WHITEOUT_META, strlen(WHITEOUT_META)) == 0)
		return 1; /* aufs' own files, which mean nothing in a layer */
	memmove(base, base + strlen(WHITEOUT), strlen(base + strlen(WHITEOUT)) + 1);
	if (!base[0] || strcmp(base, ".") == 0)
		return favo_fail(err, EBADMSG, "a whiteout of nothing");
	ret = favo_tree_walk(l->tree, full, true, &dir, name, err);
	if (ret < 0)
		return ret;
	inode = favo_inode_child(dir, name);
	if (inode && S_ISDIR(inode->mode))
		inode->layer |= FAVO_LAYER_OPAQUE;
	if (inode)
		return 1;
	ret = favo_dir_new_child(l->tree, dir, name, S_IFDIR | 0755, &inode, err);
	if (ret < 0)
		return ret;
	inode->layer = FAVO_LAYER_WHITEOUT | FAVO_LAYER_OPAQUE | FAVO_LAYER_IMPLICIT;
	return 1;
}

static int load_member(struct loader *l, const char *path, struct archive *archive,
		       struct archive_entry *entry, struct favo_err *err)
{
	struct favo_inode *inode = NULL;
	const char *link = archive_entry_hardlink(entry);
	mode_t mode = archive_entry_mode(entry);
	int ret;

	if (l->is_layer && (ret = load_whiteout(l, path, err)) != 0)
		return ret < 0 ? ret : 0;
	if (link) {
		ret = favo_tree_link(l->tree, path, link, err);
		return ret == -ENOENT && l->is_layer ? defer_link(l, path, link, err)
						     : ret;
	}
	if (!(mode & S_IFMT))
		return favo_fail(err, EBADMSG, "unknown type of file");
	ret = favo_tree_put(l->tree, path, mode, &inode, err);
	if (ret == 0)
		ret = load_metadata(inode, entry, err);
	if (ret < 0)
		return ret;
	if (S_ISLNK(mode)) {
		const char *target = archive_entry_symlink(entry);

		return favo_tree_set_target(inode, target ? target : "", err);
	}
	if (S_ISREG(mode)) {
		la_int64_t size = archive_entry_size(entry);

		if (size < 0 || (uint64_t)size > FAVO_ROOT_MAX)
			return favo_fail(err, EFBIG, "size is out of range");
		inode->size = (uint64_t)size;
		return load_content(l, inode, archive, err);
	}
	return 0;
}

static int load_members(struct loader *l, struct archive *archive, struct favo_err *err)
{
	struct archive_entry *entry;
	const char *path;
	int ret;

	for (;;) {
		ret = archive_read_next_header(archive, &entry);
		if (ret == ARCHIVE_EOF)
			return 0;
		if (ret < ARCHIVE_WARN)
			return fail_archive(err, archive);
		path = archive_entry_pathname(entry);
		if (!path)
			return favo_fail(err, EBADMSG, "tar: a name cannot be decoded");
		if (atomic_fetch_add(&l->spool->members, 1) >= l->spool->max_members)
			return favo_fail(err, E2BIG, "tar: more than %ju members",
					 (uintmax_t)l->spool->max_members);
		ret = load_member(l, path, archive, entry, err);
		if (ret < 0)
			return favo_wrap(err, ret, "tar: %s", path);
	}
}

/* libarchive's callback: bytes of a layer. */
static la_ssize_t read_layer(struct archive *archive, void *user, const void **data)
{
	struct loader *l = user;
	ssize_t n = l->read(l->user, l->buf, sizeof(l->buf), l->read_err);

	*data = l->buf;
	if (n < 0)
		archive_set_error(archive, (int)-n, "read");
	return n < 0 ? ARCHIVE_FATAL : n;
}

/* Load from fd, or, when that is < 0, from l->read(). */
static int load(struct loader *l, int fd, struct favo_err *err)
{
	struct archive *archive = archive_read_new();
	struct favo_err read_err = {0};
	locale_t utf8, saved;
	int ret;

	if (!archive)
		return favo_fail(err, ENOMEM, "tar: out of memory");
	/* libarchive turns pax names from UTF-8 to the thread's locale. */
	utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	saved = utf8 ? uselocale(utf8) : (locale_t)0;
	l->read_err = &read_err;
	archive_read_support_format_tar(archive);
	archive_read_support_format_empty(archive);
	if (fd >= 0) {
		archive_read_support_filter_all(archive);
		ret = archive_read_open_fd(archive, fd, BLOCK);
	} else {
		ret = archive_read_open(archive, l, NULL, read_layer, NULL);
	}
	ret = ret != ARCHIVE_OK ? fail_archive(err, archive)
				: load_members(l, archive, err);
	archive_read_free(archive);
	/* What went wrong below libarchive says more. */
	if (read_err.code) {
		ret = -read_err.code;
		if (err)
			*err = read_err;
	}
	if (utf8) {
		uselocale(saved);
		freelocale(utf8);
	}
	return ret;
}

/* The padding behind the end: a program that is to write it must not fail. */
static void drain_pipe(struct loader *l, int fd)
{
	struct stat st;
	ssize_t n = 1;

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return;
	for (uint64_t left = PADDING_MAX; left && n != 0; left -= n > 0 ? (size_t)n : 0) {
		n = read(fd, l->buf, (size_t)FAVO_MIN(left, (uint64_t)sizeof(l->buf)));
		if (n < 0 && errno != EINTR)
			return;
	}
}

int favo_tree_load_tar(struct favo_tree **out, int fd, const char *spool_dir,
		       struct favo_err *err)
{
	favo_autofree struct loader *l = calloc(1, sizeof(*l));
	favo_autotree struct favo_tree *tree = NULL;
	struct favo_spool spool;
	int ret = favo_tree_new(&tree, err);

	if (ret < 0)
		return ret;
	if (!l)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_spool_open(&spool, spool_dir, FAVO_ROOT_MAX, FAVO_TREE_FILES_MAX, err);
	if (ret < 0)
		return ret;
	tree->spool_fd = spool.fd;
	l->tree = tree;
	l->spool = &spool;
	ret = load(l, fd, err);
	if (ret < 0)
		return ret;
	drain_pipe(l, fd);
	tree->spool_len = spool.len;
	/* A last hole must have its length. */
	if (ftruncate(tree->spool_fd, (off_t)tree->spool_len) < 0)
		return favo_fail(err, errno, "spool file: %m");
	*out = favo_steal_ptr(&tree);
	return 0;
}

int favo_tree_load_layer(struct favo_tree **out, favo_read_fn *read, void *user,
			 struct favo_spool *spool, struct favo_err *err)
{
	favo_autofree struct loader *l = calloc(1, sizeof(*l));
	favo_autotree struct favo_tree *tree = NULL;
	int ret = favo_tree_new(&tree, err);

	if (ret < 0)
		return ret;
	if (!l)
		return favo_fail(err, ENOMEM, "out of memory");
	tree->root->layer = FAVO_LAYER_IMPLICIT;
	l->tree = tree;
	l->spool = spool;
	l->is_layer = true;
	l->read = read;
	l->user = user;
	ret = load(l, -1, err);
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&tree);
	return 0;
}
