// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * EROFS reader; structures in erofs_format.h. The file is mapped, and every
 * offset in it is checked before use. Three things bound what a hostile file
 * can cost: a folder is entered once, there are at most FAVO_TREE_FILES_MAX
 * entries, and contents, targets and attributes together have no more bytes
 * than the file.
 */
#include "images/erofs_reader.h"

#include <endian.h>
#include <errno.h>
#include <limits.h>
#include <search.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"
#include "images/erofs_format.h"
#include "images/tree_internal.h"

#define DEPTH_MAX (PATH_MAX / 2) /* of a path that an import takes */

/* An inode that was met; nid comes first, for compare_seen(). */
struct seen {
	uint64_t nid;
	struct favo_inode *inode;
};

struct reader {
	struct favo_tree *tree;
	const unsigned char *base;
	uint64_t size;
	uint64_t meta; /* offset of inode 0 */
	uint64_t budget; /* bytes that may still be taken */
	uint64_t entries; /* of all folders */
	void *seen; /* tsearch() tree of struct seen: folders, and what has several names */
	unsigned int depth;
};

/* An inode where it stands in the file. */
struct raw {
	struct erofs_inode inode;
	uint64_t nid;
	uint64_t xattrs; /* offset behind the inode */
	uint64_t xattrs_len;
	uint64_t size;
	uint64_t data; /* offset of the blocks */
	mode_t mode;
	bool has_tail; /* the last part stands behind the attributes */
};

static int damaged(struct favo_err *err, const char *what)
{
	return favo_fail(err, EBADMSG, "EROFS: %s", what);
}

static int compare_seen(const void *a, const void *b)
{
	uint64_t left = ((const struct seen *)a)->nid,
		 right = ((const struct seen *)b)->nid;

	return left < right ? -1 : left > right;
}

/* Bytes at offset, or NULL when the file has not so many. */
static const unsigned char *bytes_at(const struct reader *r, uint64_t offset,
				     uint64_t len)
{
	return offset <= r->size && len <= r->size - offset ? r->base + offset : NULL;
}

static int take(struct reader *r, uint64_t len, struct favo_err *err)
{
	if (len > r->budget)
		return damaged(err, "its files overlap");
	r->budget -= len;
	return 0;
}

static bool is_type(mode_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) ||
	       S_ISBLK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode);
}

static int read_raw(const struct reader *r, uint64_t nid, struct raw *raw,
		    struct favo_err *err)
{
	const unsigned char *at;
	unsigned int layout, words;

	if (nid > r->size / EROFS_SLOT ||
	    !(at = bytes_at(r, r->meta + nid * EROFS_SLOT, sizeof(raw->inode))))
		return damaged(err, "an inode lies beyond the end");
	memcpy(&raw->inode, at, sizeof(raw->inode));
	layout = le16toh(raw->inode.format) >> 1;
	if (!(le16toh(raw->inode.format) & EROFS_EXTENDED) ||
	    (layout != EROFS_LAYOUT_PLAIN && layout != EROFS_LAYOUT_INLINE))
		return damaged(err, "an inode is not of the form that Favo writes");
	words = le16toh(raw->inode.xattr_count);
	raw->nid = nid;
	raw->mode = le16toh(raw->inode.mode);
	raw->size = le64toh(raw->inode.size);
	raw->data = (uint64_t)le32toh(raw->inode.block_or_rdev) * EROFS_BLOCK;
	raw->has_tail = layout == EROFS_LAYOUT_INLINE;
	raw->xattrs = (uint64_t)(at - r->base) + sizeof(raw->inode);
	raw->xattrs_len =
		words ? sizeof(struct erofs_xattr_header) + (words - 1) * 4ul : 0;
	if (!is_type(raw->mode))
		return damaged(err, "an inode has no type");
	if (le32toh(raw->inode.mtime_ns) >= 1000000000)
		return damaged(err, "a time is out of range");
	return 0;
}

/* Content of a folder or symlink, from offset, len bytes within one block. */
static const unsigned char *content_at(const struct reader *r, const struct raw *raw,
				       uint64_t offset, uint64_t len)
{
	uint64_t tail = raw->has_tail ? raw->size % EROFS_BLOCK : 0;

	if (tail && offset >= raw->size - tail)
		return bytes_at(
			r, raw->xattrs + raw->xattrs_len + offset - (raw->size - tail),
			len);
	return bytes_at(r, raw->data + offset, len);
}

/* ---- extended attributes ---- */

static const char *xattr_prefix(unsigned int index)
{
	switch (index) {
	case 1:
		return "user.";
	case 2:
		return "system.posix_acl_access";
	case 3:
		return "system.posix_acl_default";
	case 4:
		return "trusted.";
	case 6:
		return "security.";
	}
	return NULL;
}

static int read_xattr(struct favo_inode *inode, const struct erofs_xattr_entry *entry,
		      const unsigned char *at, struct favo_err *err)
{
	const char *prefix = xattr_prefix(entry->name_index);
	favo_autofree char *name = NULL;

	if (!prefix || memchr(at, '\0', entry->name_len))
		return damaged(err, "an extended attribute is damaged");
	name = favo_asprintf("%s%.*s", prefix, (int)entry->name_len, (const char *)at);
	if (!name)
		return favo_fail(err, ENOMEM, "out of memory");
	return favo_tree_add_xattr(inode, name, at + entry->name_len,
				   le16toh(entry->value_size), err);
}

static int read_xattrs(struct reader *r, const struct raw *raw, struct favo_inode *inode,
		       struct favo_err *err)
{
	const unsigned char *at = bytes_at(r, raw->xattrs, raw->xattrs_len);
	struct erofs_xattr_header header;
	struct erofs_xattr_entry entry;
	uint64_t left = raw->xattrs_len, len;
	int ret;

	if (!left)
		return 0;
	if (!at)
		return damaged(err, "extended attributes lie beyond the end");
	ret = take(r, left, err);
	if (ret < 0)
		return ret;
	memcpy(&header, at, sizeof(header));
	if (header.shared_count)
		return damaged(err, "shared attributes, which Favo does not write");
	at += sizeof(header);
	left -= sizeof(header);
	while (left) {
		if (left < sizeof(entry))
			return damaged(err, "an extended attribute is cut short");
		memcpy(&entry, at, sizeof(entry));
		len = sizeof(entry) + entry.name_len + le16toh(entry.value_size);
		if (len > left)
			return damaged(err, "an extended attribute is cut short");
		ret = read_xattr(inode, &entry, at + sizeof(entry), err);
		if (ret < 0)
			return ret;
		len = FAVO_MIN((len + 3) / 4 * 4, left);
		at += len;
		left -= len;
	}
	return 0;
}

/* ---- inodes ---- */

static int read_target(struct reader *r, const struct raw *raw, struct favo_inode *inode,
		       struct favo_err *err)
{
	const unsigned char *at =
		raw->size < PATH_MAX ? content_at(r, raw, 0, raw->size) : NULL;
	favo_autofree char *target = NULL;
	int ret = take(r, raw->size, err);

	if (ret < 0)
		return ret;
	if (!at || memchr(at, '\0', raw->size))
		return damaged(err, "the target of a symlink is damaged");
	target = strndup((const char *)at, raw->size);
	return target ? favo_tree_set_target(inode, target, err)
		      : favo_fail(err, ENOMEM, "out of memory");
}

static int fill(struct reader *r, const struct raw *raw, struct favo_inode *inode,
		struct favo_err *err)
{
	uint32_t rdev = le32toh(raw->inode.block_or_rdev);
	int ret;

	inode->mode = raw->mode;
	inode->uid = le32toh(raw->inode.uid);
	inode->gid = le32toh(raw->inode.gid);
	inode->mtime = (int64_t)le64toh(raw->inode.mtime);
	inode->mtime_ns = le32toh(raw->inode.mtime_ns);
	ret = read_xattrs(r, raw, inode, err);
	if (ret < 0)
		return ret;
	if (S_ISLNK(raw->mode))
		return read_target(r, raw, inode, err);
	if (S_ISCHR(raw->mode) || S_ISBLK(raw->mode)) {
		inode->rdev_major = rdev >> 8 & 0xfff;
		inode->rdev_minor = (rdev & 0xff) | (rdev >> 12 & 0xfff00);
	}
	if (!S_ISREG(raw->mode) || !raw->size)
		return 0;
	if (raw->has_tail || !bytes_at(r, raw->data, raw->size))
		return damaged(err, "the content of a file lies beyond the end");
	inode->size = raw->size;
	inode->content = FAVO_CONTENT_SPOOL;
	inode->spool_offset = raw->data;
	return take(r, raw->size, err);
}

static struct seen *find_seen(struct reader *r, uint64_t nid)
{
	struct seen key = {.nid = nid}, **node = tfind(&key, &r->seen, compare_seen);

	return node ? *node : NULL;
}

static int remember(struct reader *r, uint64_t nid, struct favo_inode *inode,
		    struct favo_err *err)
{
	struct seen *seen = malloc(sizeof(*seen));

	if (!seen)
		return favo_fail(err, ENOMEM, "out of memory");
	*seen = (struct seen){.nid = nid, .inode = inode};
	if (tsearch(seen, &r->seen, compare_seen))
		return 0;
	free(seen);
	return favo_fail(err, ENOMEM, "out of memory");
}

/* ---- folders ---- */

static int read_folder(struct reader *r, const struct raw *raw, struct favo_inode *dir,
		       struct favo_err *err);

static int read_child(struct reader *r, struct favo_inode *dir, const char *name,
		      uint64_t nid, struct favo_err *err)
{
	struct seen *seen = find_seen(r, nid);
	struct favo_inode *inode = NULL;
	struct raw raw;
	int ret;

	if (favo_inode_child(dir, name))
		return damaged(err, "a folder has a name twice");
	if (seen) {
		if (S_ISDIR(seen->inode->mode))
			return damaged(err, "a folder has two names");
		seen->inode->nlink++;
		ret = favo_dir_insert(dir, name, seen->inode, err);
		if (ret < 0)
			favo_inode_unref(seen->inode);
		return ret;
	}
	ret = read_raw(r, nid, &raw, err);
	if (ret == 0)
		ret = favo_dir_new_child(r->tree, dir, name, raw.mode, &inode, err);
	if (ret == 0)
		ret = fill(r, &raw, inode, err);
	if (ret == 0 && (S_ISDIR(raw.mode) || le32toh(raw.inode.nlink) > 1))
		ret = remember(r, nid, inode, err);
	if (ret == 0 && S_ISDIR(raw.mode))
		ret = read_folder(r, &raw, inode, err);
	return ret;
}

static int read_entry(struct reader *r, struct favo_inode *dir,
		      const struct erofs_dirent *entry, const char *text, size_t len,
		      struct favo_err *err)
{
	char name[NAME_MAX + 1];
	int ret;

	if (len == 0 || len > NAME_MAX || memchr(text, '/', len))
		return damaged(err, "a name in a folder is damaged");
	memcpy(name, text, len);
	name[len] = '\0';
	if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0)
		return 0;
	if (++r->entries > FAVO_TREE_FILES_MAX)
		return favo_fail(err, E2BIG, "more than %u files", FAVO_TREE_FILES_MAX);
	ret = read_child(r, dir, name, le64toh(entry->nid), err);
	/* One name is enough, the innermost: errors have no room for paths. */
	return ret < 0 && r->depth <= 1 ? favo_wrap(err, ret, "in /%.64s", name) : ret;
}

/* Entries, then their names; the last name ends with the block or at a NUL. */
static int read_block(struct reader *r, struct favo_inode *dir,
		      const unsigned char *block, size_t len, struct favo_err *err)
{
	struct erofs_dirent entry, next;
	size_t n, start, end;
	int ret;

	if (len < sizeof(entry))
		return damaged(err, "a folder is cut short");
	memcpy(&entry, block, sizeof(entry));
	start = le16toh(entry.name_offset);
	n = start / sizeof(entry);
	if (n == 0 || start % sizeof(entry) || start >= len)
		return damaged(err, "a folder is damaged");
	for (size_t i = 0; i < n; i++, entry = next) {
		start = le16toh(entry.name_offset);
		next = entry;
		if (i + 1 < n)
			memcpy(&next, block + (i + 1) * sizeof(next), sizeof(next));
		end = i + 1 < n ? le16toh(next.name_offset) : len;
		if (start > end || end > len)
			return damaged(err, "a folder is damaged");
		ret = read_entry(r, dir, &entry, (const char *)block + start,
				 strnlen((const char *)block + start, end - start), err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static int read_folder(struct reader *r, const struct raw *raw, struct favo_inode *dir,
		       struct favo_err *err)
{
	int ret = take(r, raw->size, err);

	if (++r->depth > DEPTH_MAX)
		ret = favo_fail(err, ELOOP, "folders are nested too deep");
	for (uint64_t at = 0; ret == 0 && at < raw->size; at += EROFS_BLOCK) {
		size_t len = (size_t)FAVO_MIN(raw->size - at, (uint64_t)EROFS_BLOCK);
		const unsigned char *block = content_at(r, raw, at, len);

		ret = block ? read_block(r, dir, block, len, err)
			    : damaged(err, "a folder lies beyond the end");
	}
	r->depth--;
	return ret;
}

/* ---- the whole ---- */

static int read_super(struct reader *r, uint64_t *root, struct favo_err *err)
{
	struct erofs_super super;
	const unsigned char *at = bytes_at(r, EROFS_SUPER_OFFSET, sizeof(super));

	if (!at)
		return damaged(err, "shorter than a superblock");
	memcpy(&super, at, sizeof(super));
	if (le32toh(super.magic) != EROFS_MAGIC)
		return damaged(err, "no superblock");
	if (super.feature_incompat || super.block_bits != EROFS_BLOCK_BITS)
		return damaged(err, "not of the form that Favo writes");
	r->meta = (uint64_t)le32toh(super.meta_block) * EROFS_BLOCK;
	*root = le16toh(super.root_nid);
	return 0;
}

static int read_root(struct reader *r, struct favo_err *err)
{
	uint64_t nid = 0;
	struct raw raw;
	int ret = read_super(r, &nid, err);

	if (ret == 0)
		ret = read_raw(r, nid, &raw, err);
	if (ret == 0 && !S_ISDIR(raw.mode))
		ret = damaged(err, "the root is no folder");
	if (ret == 0)
		ret = fill(r, &raw, r->tree->root, err);
	if (ret == 0)
		ret = remember(r, nid, r->tree->root, err);
	return ret < 0 ? ret : read_folder(r, &raw, r->tree->root, err);
}

int favo_erofs_read(struct favo_tree **out, int fd, uint64_t size, struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	struct reader r = {.size = size, .budget = size};
	struct stat st;
	void *base;
	int ret = favo_tree_new(&tree, err);

	if (ret < 0) {
		close(fd);
		return ret;
	}
	tree->spool_fd = fd;
	tree->spool_len = size;
	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "EROFS: %m");
	if (size < EROFS_SUPER_OFFSET + EROFS_BLOCK || (uint64_t)st.st_size < size)
		return damaged(err, "shorter than it should be");
	base = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
	if (base == MAP_FAILED)
		return favo_fail(err, errno, "EROFS: mmap: %m");
	r.tree = tree;
	r.base = base;
	ret = read_root(&r, err);
	tdestroy(r.seen, free);
	munmap(base, size);
	if (ret == 0)
		*out = favo_steal_ptr(&tree);
	return ret;
}
