// SPDX-License-Identifier: GPL-2.0-or-later
/* Root file systems out of the store; see export.h. Layouts: export_oci.c. */
#include "images/export.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <locale.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/util.h"
#include "images/erofs_reader.h"

#define INDEX_MAX (256u << 20)
#define COPY_SIZE (1024 * 1024)

int favo_export_read_store(const struct favo_digest *digest, size_t max, void **data,
			   size_t *len, void *user, struct favo_err *err)
{
	return favo_store_read_blob(user, digest, max, data, len, err);
}

int favo_export_index(struct favo_index **out, const struct favo_export *export,
		      struct favo_err *err)
{
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret = export->read(&export->manifest->root.index, INDEX_MAX, &data, &len,
			       export->user, err);

	if (ret == 0)
		ret = favo_index_parse(out, data, len, export->manifest->root.bytes, err);
	return ret < 0 ? favo_wrap(err, ret, "chunk index") : 0;
}

static bool is_zero(const unsigned char *data, size_t len)
{
	return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

static int write_at(int fd, const void *data, size_t len, uint64_t offset,
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
			return favo_fail(err, n < 0 ? errno : ENOSPC, "write: %m");
		done += (size_t)n;
	}
	return 0;
}

static int write_chunk(const struct favo_export *export, const struct favo_chunk *chunk,
		       int fd, struct favo_err *err)
{
	favo_autofree void *data = NULL;
	uint64_t end = export->manifest->root.size;
	size_t len = 0;
	int ret = export->read(&chunk->digest, chunk->length, &data, &len, export->user,
			       err);

	if (ret < 0)
		return ret;
	if (len != chunk->length)
		return favo_fail(err, EBADMSG, "a chunk has another length than said");
	len = (size_t)FAVO_MIN((uint64_t)len, end - chunk->offset);
	return is_zero(data, len) ? 0 : write_at(fd, data, len, chunk->offset, err);
}

int favo_export_root(const struct favo_export *export, int fd, struct favo_err *err)
{
	favo_autoindex struct favo_index *index = NULL;
	uint64_t size = export->manifest->root.size;
	int ret = favo_export_index(&index, export, err);

	if (ret < 0)
		return ret;
	/* What follows is the verity tree. */
	for (size_t i = 0; i < index->n_chunks && index->chunks[i].offset < size; i++) {
		ret = write_chunk(export, &index->chunks[i], fd, err);
		if (ret < 0)
			return ret;
		if (export->progress && (i & 15) == 0)
			export->progress("read", index->chunks[i].offset, size,
					 export->progress_user);
	}
	if (export->progress)
		export->progress("read", size, size, export->progress_user);
	return ftruncate(fd, (off_t)size) < 0 ? favo_fail(err, errno, "truncate: %m") : 0;
}

int favo_export_tree(struct favo_tree **out, const struct favo_export *export,
		     const char *dir, struct favo_err *err)
{
	favo_autoclose int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "%s: temporary file: %m", dir);
	ret = favo_export_root(export, fd, err);
	if (ret < 0)
		return ret;
	return favo_erofs_read(out, favo_steal_fd(&fd), export->manifest->root.size, err);
}

/* ---- tar ---- */

/* The first name of an inode with several. */
struct named {
	const struct favo_inode *inode; /* first, for compare_named() */
	char path[];
};

struct tar {
	const struct favo_tree *tree;
	struct archive *archive;
	void *named; /* tsearch() tree */
	favo_progress_fn *progress;
	void *user;
	uint64_t done;
	char *buf;
	char path[PATH_MAX];
};

static int compare_named(const void *a, const void *b)
{
	uintptr_t left = (uintptr_t)((const struct named *)a)->inode,
		  right = (uintptr_t)((const struct named *)b)->inode;

	return left < right ? -1 : left > right;
}

static int fail_archive(struct tar *t, struct favo_err *err)
{
	int code = archive_errno(t->archive);

	return favo_fail(err, code > 0 ? code : EIO, "tar: %s: %s", t->path,
			 archive_error_string(t->archive));
}

/* *first: where the content stands; NULL: here. */
static int first_name(struct tar *t, const struct favo_inode *inode, const char **first,
		      struct favo_err *err)
{
	struct named *named, **node;

	*first = NULL;
	if (S_ISDIR(inode->mode) || inode->nlink < 2)
		return 0;
	named = malloc(sizeof(*named) + strlen(t->path) + 1);
	if (!named)
		return favo_fail(err, ENOMEM, "out of memory");
	named->inode = inode;
	memcpy(named->path, t->path, strlen(t->path) + 1);
	node = tsearch(named, &t->named, compare_named);
	if (!node || *node != named)
		free(named);
	if (!node)
		return favo_fail(err, ENOMEM, "out of memory");
	if (*node != named)
		*first = (*node)->path;
	return 0;
}

static void fill_entry(struct archive_entry *entry, const struct tar *t,
		       const struct favo_inode *inode, const char *first)
{
	archive_entry_copy_pathname(entry, t->path);
	archive_entry_set_mode(entry, inode->mode);
	archive_entry_set_uid(entry, inode->uid);
	archive_entry_set_gid(entry, inode->gid);
	archive_entry_set_mtime(entry, inode->mtime, inode->mtime_ns);
	archive_entry_set_size(entry, 0);
	if (first) {
		archive_entry_copy_hardlink(entry, first);
		return;
	}
	for (size_t i = 0; i < inode->n_xattrs; i++)
		archive_entry_xattr_add_entry(entry, inode->xattrs[i].name,
					      inode->xattrs[i].value,
					      inode->xattrs[i].len);
	if (S_ISLNK(inode->mode))
		archive_entry_copy_symlink(entry, inode->data);
	if (S_ISCHR(inode->mode) || S_ISBLK(inode->mode))
		archive_entry_set_rdev(entry,
				       makedev(inode->rdev_major, inode->rdev_minor));
	if (S_ISREG(inode->mode))
		archive_entry_set_size(entry, (la_int64_t)inode->size);
}

static int put_content(struct tar *t, const struct favo_inode *inode,
		       struct favo_err *err)
{
	int ret;

	for (uint64_t at = 0; at < inode->size;) {
		size_t len = (size_t)FAVO_MIN(inode->size - at, (uint64_t)COPY_SIZE);

		ret = favo_tree_read(t->tree, inode, t->buf, len, at, err);
		if (ret < 0)
			return favo_wrap(err, ret, "%s", t->path);
		if (archive_write_data(t->archive, t->buf, len) != (la_ssize_t)len)
			return fail_archive(t, err);
		at += len;
		t->done += len;
		if (t->progress)
			t->progress("write", t->done, t->tree->spool_len, t->user);
	}
	return 0;
}

static int put_member(struct tar *t, const struct favo_inode *inode, struct favo_err *err)
{
	struct archive_entry *entry;
	const char *first;
	int ret = first_name(t, inode, &first, err);

	if (ret < 0)
		return ret;
	entry = archive_entry_new();
	if (!entry)
		return favo_fail(err, ENOMEM, "out of memory");
	fill_entry(entry, t, inode, first);
	ret = archive_write_header(t->archive, entry) < ARCHIVE_WARN
		      ? fail_archive(t, err)
		      : 0;
	archive_entry_free(entry);
	if (ret == 0 && !first && S_ISREG(inode->mode))
		ret = put_content(t, inode, err);
	return ret;
}

/* The folder at t->path, of len bytes. */
static int put_below(struct tar *t, const struct favo_inode *dir, size_t len,
		     struct favo_err *err)
{
	int ret = put_member(t, dir, err);

	for (size_t i = 0; ret == 0 && i < dir->n_entries; i++) {
		const struct favo_inode *inode = dir->entries[i].inode;
		size_t room = sizeof(t->path) - len;
		int n = snprintf(t->path + len, room, "/%s", dir->entries[i].name);

		if ((size_t)n >= room)
			return favo_fail(err, ENAMETOOLONG, "a path is too long");
		if (S_ISDIR(inode->mode))
			ret = put_below(t, inode, len + (size_t)n, err);
		else if (!S_ISSOCK(inode->mode))
			ret = put_member(t, inode, err);
	}
	t->path[len] = '\0';
	return ret;
}

static int write_tar(struct tar *t, int fd, struct favo_err *err)
{
	int ret;

	t->archive = archive_write_new();
	t->buf = malloc(COPY_SIZE);
	if (!t->archive || !t->buf)
		return favo_fail(err, ENOMEM, "out of memory");
	archive_write_set_format_pax(t->archive);
	archive_write_set_options(t->archive, "xattrheader=SCHILY");
	archive_write_set_bytes_in_last_block(t->archive, 1); /* also for a pipe */
	if (archive_write_open_fd(t->archive, fd) != ARCHIVE_OK)
		return fail_archive(t, err);
	ret = put_below(t, t->tree->root, strlen(t->path), err);
	if (ret == 0 && archive_write_close(t->archive) != ARCHIVE_OK)
		ret = fail_archive(t, err);
	return ret;
}

int favo_export_tar(const struct favo_tree *tree, int fd, favo_progress_fn *progress,
		    void *user, struct favo_err *err)
{
	favo_autofree struct tar *t = calloc(1, sizeof(*t));
	locale_t utf8, saved;
	int ret;

	if (!t)
		return favo_fail(err, ENOMEM, "out of memory");
	*t = (struct tar){.tree = tree, .progress = progress, .user = user, .path = "."};
	/* libarchive turns names from the thread's locale to UTF-8. */
	utf8 = newlocale(LC_CTYPE_MASK, "C.UTF-8", (locale_t)0);
	saved = utf8 ? uselocale(utf8) : (locale_t)0;
	ret = write_tar(t, fd, err);
	archive_write_free(t->archive);
	tdestroy(t->named, free);
	free(t->buf);
	if (utf8) {
		uselocale(saved);
		freelocale(utf8);
	}
	return ret;
}
