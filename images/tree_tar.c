// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tree from a tar stream, read with libarchive. The stream is foreign:
 * names with ".." and members below a symlink are refused by the tree, and
 * contents go to one unlinked spool file, never to a path of the host.
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
#include "images/tree.h"

#define BLOCK (256 * 1024)

static int fail_archive(struct favo_err *err, struct archive *archive)
{
	int code = archive_errno(archive);
	const char *text = archive_error_string(archive);

	/* libarchive says EILSEQ or -1 of a damaged archive. */
	return favo_fail(err, code > 0 && code != EILSEQ ? code : EBADMSG, "tar: %s",
			 text ? text : "unknown error");
}

static int spool_write(struct favo_tree *tree, const void *data, size_t len,
		       uint64_t offset, struct favo_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(tree->spool_fd, (const char *)data + done, len - done,
			   (off_t)(tree->spool_len + offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENOSPC, "spool file: %m");
		done += (size_t)n;
	}
	return 0;
}

/* Content of a regular file; holes stay holes of the spool file. */
static int load_content(struct favo_tree *tree, struct favo_inode *inode,
			struct archive *archive, struct favo_err *err)
{
	const void *data;
	size_t len;
	la_int64_t offset;
	int ret;

	for (;;) {
		ret = archive_read_data_block(archive, &data, &len, &offset);
		if (ret == ARCHIVE_EOF)
			break;
		if (ret < ARCHIVE_WARN)
			return fail_archive(err, archive);
		if (offset < 0 || (uint64_t)offset > inode->size ||
		    len > inode->size - (uint64_t)offset)
			return favo_fail(err, EBADMSG, "more data than the header says");
		ret = spool_write(tree, data, len, (uint64_t)offset, err);
		if (ret < 0)
			return ret;
	}
	inode->content = FAVO_CONTENT_SPOOL;
	inode->spool_offset = tree->spool_len;
	tree->spool_len += inode->size;
	return 0;
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

static int load_member(struct favo_tree *tree, const char *path, struct archive *archive,
		       struct archive_entry *entry, struct favo_err *err)
{
	struct favo_inode *inode = NULL;
	const char *link = archive_entry_hardlink(entry);
	mode_t mode = archive_entry_mode(entry);
	int ret;

	if (link)
		return favo_tree_link(tree, path, link, err);
	if (!(mode & S_IFMT))
		return favo_fail(err, EBADMSG, "unknown type of file");
	ret = favo_tree_put(tree, path, mode, &inode, err);
	if (ret < 0)
		return ret;
	if (archive_entry_uid(entry) < 0 || archive_entry_uid(entry) > UINT32_MAX ||
	    archive_entry_gid(entry) < 0 || archive_entry_gid(entry) > UINT32_MAX)
		return favo_fail(err, EBADMSG, "owner is out of range");
	inode->uid = (uint32_t)archive_entry_uid(entry);
	inode->gid = (uint32_t)archive_entry_gid(entry);
	inode->mtime = archive_entry_mtime_is_set(entry) ? archive_entry_mtime(entry) : 0;
	inode->mtime_ns = archive_entry_mtime_is_set(entry)
				  ? (uint32_t)archive_entry_mtime_nsec(entry)
				  : 0;
	if (S_ISCHR(mode) || S_ISBLK(mode)) {
		inode->rdev_major = (uint32_t)archive_entry_rdevmajor(entry);
		inode->rdev_minor = (uint32_t)archive_entry_rdevminor(entry);
	}
	if (S_ISLNK(mode)) {
		const char *target = archive_entry_symlink(entry);

		ret = favo_tree_set_target(inode, target ? target : "", err);
	} else if (S_ISREG(mode)) {
		la_int64_t size = archive_entry_size(entry);

		if (size < 0 || (uint64_t)size > FAVO_ROOT_MAX - tree->spool_len)
			return favo_fail(err, EFBIG, "size is out of range");
		inode->size = (uint64_t)size;
		ret = load_content(tree, inode, archive, err);
	}
	return ret < 0 ? ret : load_xattrs(inode, entry, err);
}

static int load_members(struct favo_tree *tree, struct archive *archive,
			struct favo_err *err)
{
	struct archive_entry *entry;
	const char *path;
	int ret;

	for (;;) {
		ret = archive_read_next_header(archive, &entry);
		if (ret == ARCHIVE_EOF)
			break;
		if (ret < ARCHIVE_WARN)
			return fail_archive(err, archive);
		path = archive_entry_pathname(entry);
		if (!path)
			return favo_fail(err, EBADMSG, "tar: a name cannot be decoded");
		ret = load_member(tree, path, archive, entry, err);
		if (ret < 0)
			return favo_wrap(err, ret, "tar: %s", path);
	}
	/* A last hole must have its length. */
	if (ftruncate(tree->spool_fd, (off_t)tree->spool_len) < 0)
		return favo_fail(err, errno, "spool file: %m");
	return 0;
}

static int load(struct favo_tree *tree, int fd, struct favo_err *err)
{
	struct archive *archive = archive_read_new();
	int ret;

	if (!archive)
		return favo_fail(err, ENOMEM, "tar: out of memory");
	archive_read_support_filter_all(archive);
	archive_read_support_format_tar(archive);
	archive_read_support_format_empty(archive);
	if (archive_read_open_fd(archive, fd, BLOCK) != ARCHIVE_OK)
		ret = fail_archive(err, archive);
	else
		ret = load_members(tree, archive, err);
	archive_read_free(archive);
	return ret;
}

int favo_tree_load_tar(struct favo_tree **out, int fd, const char *spool_dir,
		       struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	locale_t utf8, saved;
	int ret = favo_tree_new(&tree, err);

	if (ret < 0)
		return ret;
	tree->spool_fd = open(spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	if (tree->spool_fd < 0)
		return favo_fail(err, errno, "%s: spool file: %m", spool_dir);
	/* libarchive turns pax names from UTF-8 to the thread's locale. */
	utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	saved = utf8 ? uselocale(utf8) : (locale_t)0;
	ret = load(tree, fd, err);
	if (utf8) {
		uselocale(saved);
		freelocale(utf8);
	}
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&tree);
	return 0;
}
