// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * EROFS writer; layout and reasons in erofs_writer.h, structures in
 * erofs_format.h. Three steps: plan (place contents and inodes, in path
 * order), contents (one sequential write), metadata (built in memory, as
 * folders need the numbers of all inodes). Folders and symlinks keep their
 * last part inside the metadata; only file contents have no inline tails,
 * because those would mix data, that must not move, with block numbers, that
 * do.
 *
 * All inodes are of the extended kind: the compact one has no mtime.
 */
#include "images/erofs_writer.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "images/erofs_format.h"

#define OUT_SIZE (1024 * 1024)
#define FIRST_NID 2 /* user space takes inode number 0 for a deleted file */

struct placed {
	struct favo_inode *inode;
	struct favo_inode *parent;
	uint64_t nid;
	uint64_t size; /* bytes of content: file, target or entries */
	uint32_t block; /* of the part that is not inline */
	uint32_t inline_len;
	uint32_t xattr_len; /* header and entries, 0 without any */
	uint32_t nlink;
};

struct writer {
	struct favo_tree *tree;
	int fd;
	struct placed *placed; /* in path order; inode->mark is index + 1 */
	size_t n, size;
	uint64_t next_block; /* while planning contents */
	uint64_t meta_block;
	unsigned char *meta;
	uint64_t meta_len;
	unsigned char *out; /* contents not yet written */
	size_t out_len;
	uint64_t out_offset;
};

static uint64_t align(uint64_t value, uint64_t unit)
{
	return (value + unit - 1) / unit * unit;
}

/* ---- extended attributes ---- */

static int xattr_prefix(const char *name, size_t *prefix_len)
{
	static const struct {
		const char *prefix;
		int index;
	} known[] = {
		{"user.", 1},
		{"system.posix_acl_access", 2},
		{"system.posix_acl_default", 3},
		{"trusted.", 4},
		{"security.", 6},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(known); i++) {
		*prefix_len = strlen(known[i].prefix);
		if (strncmp(name, known[i].prefix, *prefix_len) == 0)
			return known[i].index;
	}
	return 0;
}

static int compare_xattrs(const void *a, const void *b)
{
	const struct favo_xattr *left = a, *right = b;

	return strcmp(left->name, right->name);
}

static uint64_t xattr_size(struct favo_inode *inode)
{
	uint64_t len = 0;
	size_t prefix;

	if (inode->n_xattrs)
		qsort(inode->xattrs, inode->n_xattrs, sizeof(*inode->xattrs),
		      compare_xattrs);
	for (size_t i = 0; i < inode->n_xattrs; i++)
		if (xattr_prefix(inode->xattrs[i].name, &prefix))
			len += align(sizeof(struct erofs_xattr_entry) +
					     strlen(inode->xattrs[i].name) - prefix +
					     inode->xattrs[i].len,
				     4);
	return len ? len + sizeof(struct erofs_xattr_header) : 0;
}

/* p points to zeroed memory. */
static void put_xattrs(const struct favo_inode *inode, unsigned char *p)
{
	p += sizeof(struct erofs_xattr_header);
	for (size_t i = 0; i < inode->n_xattrs; i++) {
		const struct favo_xattr *xattr = &inode->xattrs[i];
		size_t prefix = 0;
		int index = xattr_prefix(xattr->name, &prefix);
		size_t name_len =
			strlen(xattr->name) - FAVO_MIN(prefix, strlen(xattr->name));
		struct erofs_xattr_entry entry = {
			.name_len = (uint8_t)name_len,
			.name_index = (uint8_t)index,
			.value_size = htole16((uint16_t)xattr->len),
		};

		if (!index)
			continue;
		memcpy(p, &entry, sizeof(entry));
		memcpy(p + sizeof(entry), xattr->name + prefix, name_len);
		memcpy(p + sizeof(entry) + name_len, xattr->value, xattr->len);
		p += align(sizeof(entry) + name_len + xattr->len, 4);
	}
}

/* ---- folders ---- */

/*
 * Entries of a folder with "." and ".." among them, in byte order; at is from
 * 0 to n_entries + 1. Names below "." in byte order ("+x") come before it.
 */
struct cursor {
	const struct placed *dir;
	size_t next;
	int dots; /* of "." and "..", how many are out */
};

static bool next_entry(struct cursor *cursor, const char **name,
		       const struct favo_inode **inode)
{
	static const char *const dot_names[] = {".", ".."};
	const struct favo_inode *dir = cursor->dir->inode;
	const struct favo_dentry *entry =
		cursor->next < dir->n_entries ? &dir->entries[cursor->next] : NULL;

	if (cursor->dots < 2 &&
	    (!entry || strcmp(dot_names[cursor->dots], entry->name) < 0)) {
		*name = dot_names[cursor->dots];
		*inode = cursor->dots ? cursor->dir->parent : dir;
		cursor->dots++;
		return true;
	}
	if (!entry)
		return false;
	*name = entry->name;
	*inode = entry->inode;
	cursor->next++;
	return true;
}

static uint64_t folder_size(const struct placed *dir)
{
	struct cursor cursor = {.dir = dir};
	const struct favo_inode *inode;
	const char *name;
	uint64_t blocks = 0;
	size_t used = 0, len;

	while (next_entry(&cursor, &name, &inode)) {
		len = sizeof(struct erofs_dirent) + strlen(name);
		if (used + len > EROFS_BLOCK) {
			blocks++;
			used = 0;
		}
		used += len;
	}
	return blocks * EROFS_BLOCK + used;
}

static uint8_t file_type(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		return 1;
	case S_IFDIR:
		return 2;
	case S_IFCHR:
		return 3;
	case S_IFBLK:
		return 4;
	case S_IFIFO:
		return 5;
	case S_IFSOCK:
		return 6;
	case S_IFLNK:
		return 7;
	}
	return 0;
}

/* One block of a folder: n entries of cursor, names behind the entries. */
static void put_folder_block(struct writer *w, struct cursor *cursor, size_t n,
			     unsigned char *block)
{
	size_t name_at = n * sizeof(struct erofs_dirent), len;
	const struct favo_inode *inode;
	const char *name;

	for (size_t i = 0; i < n; i++) {
		struct erofs_dirent entry = {0};

		next_entry(cursor, &name, &inode);
		len = strlen(name);
		entry.nid = htole64(w->placed[inode->mark - 1].nid);
		entry.name_offset = htole16((uint16_t)name_at);
		entry.file_type = file_type(inode->mode);
		memcpy(block + i * sizeof(entry), &entry, sizeof(entry));
		memcpy(block + name_at, name, len);
		name_at += len;
	}
}

static size_t count_in_block(struct cursor cursor)
{
	const struct favo_inode *inode;
	const char *name;
	size_t used = 0, n = 0;

	while (next_entry(&cursor, &name, &inode)) {
		used += sizeof(struct erofs_dirent) + strlen(name);
		if (used > EROFS_BLOCK)
			break;
		n++;
	}
	return n;
}

static void put_folder(struct writer *w, const struct placed *p, unsigned char *inline_at)
{
	struct cursor cursor = {.dir = p};
	uint64_t full = (p->size - p->inline_len + EROFS_BLOCK - 1) / EROFS_BLOCK;

	for (uint64_t i = 0; i < full; i++)
		put_folder_block(w, &cursor, count_in_block(cursor),
				 w->meta + (p->block - w->meta_block + i) * EROFS_BLOCK);
	if (p->inline_len)
		put_folder_block(w, &cursor, count_in_block(cursor), inline_at);
}

/* ---- plan ---- */

static int place(struct writer *w, struct favo_inode *inode, struct favo_inode *parent,
		 struct favo_err *err)
{
	size_t size = w->size ? 2 * w->size : 4096;
	struct placed *grown, *p;
	uint64_t xattrs = xattr_size(inode), blocks;

	if (w->n == w->size) {
		grown = reallocarray(w->placed, size, sizeof(*grown));
		if (!grown)
			return favo_fail(err, ENOMEM, "out of memory");
		w->placed = grown;
		w->size = size;
	}
	if (xattrs / 4 > UINT16_MAX)
		return favo_fail(err, E2BIG, "too many extended attributes");
	p = &w->placed[w->n++];
	*p = (struct placed){.inode = inode,
			     .parent = parent,
			     .xattr_len = (uint32_t)xattrs,
			     .nlink = S_ISDIR(inode->mode) ? 2 : inode->nlink};
	inode->mark = w->n;
	if (S_ISREG(inode->mode) && inode->size) {
		blocks = align(inode->size, EROFS_BLOCK) / EROFS_BLOCK;
		if (blocks > UINT32_MAX - w->next_block)
			return favo_fail(err, EFBIG, "more data than one EROFS can hold");
		p->size = inode->size;
		p->block = (uint32_t)w->next_block;
		w->next_block += blocks;
	}
	return 0;
}

static int place_below(struct writer *w, struct favo_inode *dir, struct favo_err *err)
{
	size_t index = dir->mark - 1;
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < dir->n_entries; i++) {
		struct favo_inode *inode = dir->entries[i].inode;

		if (inode->mark)
			continue; /* hard link */
		ret = place(w, inode, dir, err);
		if (ret == 0 && S_ISDIR(inode->mode)) {
			w->placed[index].nlink++;
			ret = place_below(w, inode, err);
		}
		if (ret < 0)
			favo_wrap(err, ret, "%s", dir->entries[i].name);
	}
	return ret;
}

/* Give inodes their numbers, and folders and long symlinks their blocks. */
static int place_metadata(struct writer *w, struct favo_err *err)
{
	uint64_t at = FIRST_NID * EROFS_SLOT, base, tail, whole, block;

	w->meta_block = w->next_block;
	for (size_t i = 0; i < w->n; i++) {
		struct placed *p = &w->placed[i];

		base = sizeof(struct erofs_inode) + p->xattr_len;
		if (S_ISDIR(p->inode->mode))
			p->size = folder_size(p);
		else if (S_ISLNK(p->inode->mode))
			p->size = p->inode->size;
		tail = S_ISREG(p->inode->mode) ? 0 : p->size % EROFS_BLOCK;
		if (base + tail <= EROFS_BLOCK)
			p->inline_len = (uint32_t)tail;
		/* Inline parts must not cross a block, inodes had better not. */
		whole = base + p->inline_len;
		if (whole > EROFS_BLOCK)
			whole = sizeof(struct erofs_inode);
		if (at % EROFS_BLOCK + whole > EROFS_BLOCK)
			at = align(at, EROFS_BLOCK);
		p->nid = at / EROFS_SLOT;
		at = align(at + base + p->inline_len, EROFS_SLOT);
	}
	block = w->meta_block + align(at, EROFS_BLOCK) / EROFS_BLOCK;
	for (size_t i = 0; i < w->n; i++) {
		struct placed *p = &w->placed[i];

		if (S_ISREG(p->inode->mode) || p->size == p->inline_len)
			continue;
		p->block = (uint32_t)block;
		block += align(p->size - p->inline_len, EROFS_BLOCK) / EROFS_BLOCK;
	}
	if (block > UINT32_MAX)
		return favo_fail(err, EFBIG, "more data than one EROFS can hold");
	w->next_block = block;
	w->meta_len = (block - w->meta_block) * EROFS_BLOCK;
	return 0;
}

/* ---- contents ---- */

static int write_at(struct writer *w, const void *data, size_t len, uint64_t offset,
		    struct favo_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(w->fd, (const char *)data + done, len - done,
			   (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENOSPC, "write: %m");
		done += (size_t)n;
	}
	return 0;
}

static int flush(struct writer *w, struct favo_err *err)
{
	int ret = write_at(w, w->out, w->out_len, w->out_offset, err);

	w->out_offset += w->out_len;
	w->out_len = 0;
	return ret;
}

static int write_content(struct writer *w, const struct favo_inode *inode,
			 struct favo_err *err)
{
	uint64_t done = 0;
	size_t n, padded;
	int ret;

	while (done < inode->size) {
		n = FAVO_MIN(inode->size - done, OUT_SIZE - w->out_len);
		ret = favo_tree_read(w->tree, inode, w->out + w->out_len, n, done, err);
		if (ret < 0)
			return ret;
		done += n;
		w->out_len += n;
		if (w->out_len == OUT_SIZE && (ret = flush(w, err)) < 0)
			return ret;
	}
	/* OUT_SIZE is a multiple of the block: there is room. */
	padded = align(w->out_len, EROFS_BLOCK);
	memset(w->out + w->out_len, 0, padded - w->out_len);
	w->out_len = padded;
	return w->out_len == OUT_SIZE ? flush(w, err) : 0;
}

static int write_contents(struct writer *w, struct favo_err *err)
{
	int ret = 0;

	w->out = malloc(OUT_SIZE);
	if (!w->out)
		return favo_fail(err, ENOMEM, "out of memory");
	w->out_offset = EROFS_BLOCK;
	for (size_t i = 0; ret == 0 && i < w->n; i++)
		if (S_ISREG(w->placed[i].inode->mode) && w->placed[i].size)
			ret = write_content(w, w->placed[i].inode, err);
	return ret < 0 ? ret : flush(w, err);
}

/* ---- metadata ---- */

/* Linux' new_encode_dev(). */
static uint32_t encode_rdev(const struct favo_inode *inode)
{
	return (inode->rdev_minor & 0xff) | (inode->rdev_major & 0xfff) << 8 |
	       (inode->rdev_minor & 0xfff00) << 12;
}

static void put_inode(struct writer *w, size_t index)
{
	const struct placed *p = &w->placed[index];
	const struct favo_inode *inode = p->inode;
	unsigned char *at = w->meta + p->nid * EROFS_SLOT;
	struct erofs_inode raw = {0};
	bool device = S_ISCHR(inode->mode) || S_ISBLK(inode->mode);
	unsigned int layout = p->inline_len ? EROFS_LAYOUT_INLINE : EROFS_LAYOUT_PLAIN;

	raw.format = htole16(EROFS_FORMAT(layout));
	if (p->xattr_len)
		raw.xattr_count = htole16((
			uint16_t)((p->xattr_len - sizeof(struct erofs_xattr_header)) / 4 +
				  1));
	raw.mode = htole16((uint16_t)inode->mode);
	raw.size = htole64(p->size);
	raw.block_or_rdev = htole32(device ? encode_rdev(inode) : p->block);
	raw.ino = htole32((uint32_t)index + 1);
	raw.uid = htole32(inode->uid);
	raw.gid = htole32(inode->gid);
	raw.mtime = htole64((uint64_t)inode->mtime);
	raw.mtime_ns = htole32(inode->mtime_ns);
	raw.nlink = htole32(p->nlink);
	memcpy(at, &raw, sizeof(raw));
	at += sizeof(raw);
	if (p->xattr_len)
		put_xattrs(inode, at);
	at += p->xattr_len;
	if (S_ISDIR(inode->mode))
		put_folder(w, p, at);
	else if (S_ISLNK(inode->mode))
		memcpy(p->inline_len ? at
				     : w->meta + (p->block - w->meta_block) * EROFS_BLOCK,
		       inode->data, inode->size);
}

static uint32_t crc32c(const unsigned char *data, size_t len)
{
	uint32_t crc = ~0u;

	for (size_t i = 0; i < len; i++) {
		crc ^= data[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78u : 0);
	}
	return crc;
}

static int write_super(struct writer *w, struct favo_err *err)
{
	unsigned char block[EROFS_BLOCK] = {0};
	struct erofs_super super = {
		.magic = htole32(EROFS_MAGIC),
		.feature_compat = htole32(EROFS_COMPAT_SB_CHKSUM | EROFS_COMPAT_MTIME),
		.block_bits = EROFS_BLOCK_BITS,
		.root_nid = htole16((uint16_t)w->placed[0].nid),
		.inodes = htole64(w->n),
		.blocks = htole32((uint32_t)w->next_block),
		.meta_block = htole32((uint32_t)w->meta_block),
	};

	memcpy(block + EROFS_SUPER_OFFSET, &super, sizeof(super));
	super.checksum = htole32(
		crc32c(block + EROFS_SUPER_OFFSET, EROFS_BLOCK - EROFS_SUPER_OFFSET));
	memcpy(block + EROFS_SUPER_OFFSET, &super, sizeof(super));
	return write_at(w, block, sizeof(block), 0, err);
}

static int write_metadata(struct writer *w, struct favo_err *err)
{
	int ret;

	w->meta = calloc(1, w->meta_len);
	if (!w->meta)
		return favo_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < w->n; i++)
		put_inode(w, i);
	ret = write_at(w, w->meta, w->meta_len, w->meta_block * EROFS_BLOCK, err);
	return ret < 0 ? ret : write_super(w, err);
}

static void clear_marks(struct favo_inode *dir)
{
	dir->mark = 0;
	for (size_t i = 0; i < dir->n_entries; i++) {
		if (S_ISDIR(dir->entries[i].inode->mode))
			clear_marks(dir->entries[i].inode);
		dir->entries[i].inode->mark = 0;
	}
}

int favo_erofs_write(struct favo_tree *tree, int fd, struct favo_erofs_stats *stats,
		     struct favo_err *err)
{
	struct writer w = {.tree = tree, .fd = fd, .next_block = 1};
	int ret;

	clear_marks(tree->root);
	ret = place(&w, tree->root, tree->root, err);
	if (ret == 0)
		ret = place_below(&w, tree->root, err);
	if (ret == 0)
		ret = place_metadata(&w, err);
	if (ret == 0)
		ret = write_contents(&w, err);
	if (ret == 0)
		ret = write_metadata(&w, err);
	if (ret == 0 && stats) {
		stats->bytes = w.next_block * EROFS_BLOCK;
		stats->data_bytes = (w.meta_block - 1) * EROFS_BLOCK;
		stats->inodes = w.n;
	}
	free(w.placed);
	free(w.meta);
	free(w.out);
	return ret < 0 ? favo_wrap(err, ret, "file system image") : 0;
}
