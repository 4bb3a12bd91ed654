// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-readfs: ext2, ext3 and ext4 file systems of a disk image as one tar on
 * stdout, read with libext2fs. It meets a stranger's bytes, so it runs in a
 * jail (confine.h) and its output is not trusted either.
 *
 *   favo-readfs tar IMAGE OFFSET:FOLDER...   all files, below FOLDER/
 *   favo-readfs probe IMAGE OFFSET           what tells a root file system
 *
 * probe writes the names of the first two levels without content, and the
 * few small files that say what it is.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <ext2fs/ext2fs.h>
#include <locale.h>
#include <search.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "common/err.h"
#include "common/util.h"

#define DEPTH_MAX 128
#define PATH_SIZE 8192
#define COPY_SIZE (1024 * 1024)
#define PROBE_DEPTH 2
#define PROBE_FILE_MAX 65536

/* Content that probe shows. */
static const char *const probed[] = {"./etc/fstab", "./etc/os-release",
				     "./usr/lib/os-release"};

/* The first name of an inode with several. */
struct seen {
	ext2_ino_t ino;
	char path[];
};

struct range {
	uint64_t start, length;
};

struct reader {
	ext2_filsys fs;
	struct archive *archive;
	ext2fs_inode_bitmap visited; /* folders */
	void *links; /* tsearch() tree of struct seen */
	bool probe;
	char path[PATH_SIZE];
	size_t path_len;
	unsigned int depth;
	struct range *ranges; /* data of the current file */
	size_t n_ranges, ranges_size;
	char *buf;
};

static void die(const struct reader *r, const char *fmt, ...) favo_printf(2, 3);

/* One sentence on stderr: what stands there last is told to the user. */
static void die(const struct reader *r, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	if (r && r->path_len)
		fprintf(stderr, "%s: ", r->path);
	vfprintf(stderr, fmt, ap);
	fputc('\n', stderr);
	va_end(ap);
	exit(1);
}

static void check(const struct reader *r, errcode_t code, const char *what)
{
	if (code)
		die(r, "%s: %s", what, error_message(code));
}

static int compare_seen(const void *a, const void *b)
{
	const struct seen *left = a, *right = b;

	return left->ino < right->ino ? -1 : left->ino > right->ino;
}

/* Path at which this inode was met first; NULL: now. */
static const char *first_name(struct reader *r, ext2_ino_t ino)
{
	struct seen *seen = malloc(sizeof(*seen) + r->path_len + 1), **node;

	if (!seen)
		die(r, "out of memory");
	seen->ino = ino;
	memcpy(seen->path, r->path, r->path_len + 1);
	node = tsearch(seen, &r->links, compare_seen);
	if (!node)
		die(r, "out of memory");
	if (*node == seen)
		return NULL;
	free(seen);
	return (*node)->path;
}

/* ---- content ---- */

static int add_block(ext2_filsys fs, blk64_t *block, e2_blkcnt_t index, blk64_t ref,
		     int ref_offset, void *user)
{
	struct reader *r = user;
	uint64_t start = (uint64_t)index * fs->blocksize;
	struct range *last = r->n_ranges ? &r->ranges[r->n_ranges - 1] : NULL;

	(void)block;
	(void)ref;
	(void)ref_offset;
	if (index < 0)
		return 0;
	if (last && last->start + last->length == start) {
		last->length += fs->blocksize;
		return 0;
	}
	if (last && start < last->start + last->length)
		die(r, "blocks of the file are not in order");
	if (r->n_ranges == r->ranges_size) {
		r->ranges_size = r->ranges_size ? 2 * r->ranges_size : 64;
		r->ranges = reallocarray(r->ranges, r->ranges_size, sizeof(*r->ranges));
		if (!r->ranges)
			die(r, "out of memory");
	}
	r->ranges[r->n_ranges++] = (struct range){start, fs->blocksize};
	return 0;
}

/* Where the file has data; the rest are holes. */
static void find_ranges(struct reader *r, ext2_ino_t ino, const struct ext2_inode *inode,
			uint64_t size)
{
	size_t n = 0;

	r->n_ranges = 0;
	if (inode->i_flags & EXT4_INLINE_DATA_FL) {
		add_block(r->fs, NULL, 0, 0, 0, r);
	} else {
		check(r,
		      ext2fs_block_iterate3(r->fs, ino,
					    BLOCK_FLAG_READ_ONLY | BLOCK_FLAG_DATA_ONLY,
					    NULL, add_block, r),
		      "block map");
	}
	for (; n < r->n_ranges && r->ranges[n].start < size; n++)
		r->ranges[n].length =
			FAVO_MIN(r->ranges[n].length, size - r->ranges[n].start);
	r->n_ranges = n;
}

static void write_data(struct reader *r, const void *data, size_t len)
{
	if (archive_write_data(r->archive, data, len) != (la_ssize_t)len)
		die(r, "%s", archive_error_string(r->archive));
}

/* libarchive wants zeros where the map of a sparse file has none. */
static void write_zeros(struct reader *r, uint64_t len)
{
	memset(r->buf, 0, (size_t)FAVO_MIN(len, (uint64_t)COPY_SIZE));
	while (len) {
		size_t n = (size_t)FAVO_MIN(len, (uint64_t)COPY_SIZE);

		write_data(r, r->buf, n);
		len -= n;
	}
}

static void write_content(struct reader *r, ext2_ino_t ino, uint64_t size)
{
	ext2_file_t file;
	uint64_t at = 0;
	unsigned int got;

	check(r, ext2fs_file_open(r->fs, ino, 0, &file), "open");
	for (size_t i = 0; i < r->n_ranges; i++) {
		uint64_t left = r->ranges[i].length;

		write_zeros(r, r->ranges[i].start - at);
		check(r,
		      ext2fs_file_llseek(file, r->ranges[i].start, EXT2_SEEK_SET, NULL),
		      "seek");
		for (; left; left -= got) {
			check(r,
			      ext2fs_file_read(file, r->buf,
					       (unsigned int)FAVO_MIN(left, COPY_SIZE),
					       &got),
			      "read");
			if (got == 0)
				die(r, "content is shorter than its size");
			write_data(r, r->buf, got);
		}
		at = r->ranges[i].start + r->ranges[i].length;
	}
	write_zeros(r, size - at);
	check(r, ext2fs_file_close(file), "close");
}

/* ---- metadata ---- */

static int add_xattr(char *name, char *value, size_t len, void *user)
{
	archive_entry_xattr_add_entry(user, name, value, len);
	return 0;
}

static void add_xattrs(struct reader *r, ext2_ino_t ino, struct archive_entry *entry)
{
	struct ext2_xattr_handle *handle;

	check(r, ext2fs_xattrs_open(r->fs, ino, &handle), "extended attributes");
	check(r, ext2fs_xattrs_read(handle), "extended attributes");
	ext2fs_xattrs_iterate(handle, add_xattr, entry);
	ext2fs_xattrs_close(&handle);
}

static void set_symlink(struct reader *r, ext2_ino_t ino, struct ext2_inode *inode,
			struct archive_entry *entry)
{
	char target[PATH_SIZE];
	uint64_t size = EXT2_I_SIZE(inode);
	unsigned int got = 0;
	ext2_file_t file;

	if (size >= sizeof(target))
		die(r, "target of the symlink is too long");
	if (ext2fs_is_fast_symlink(inode)) {
		if (size > sizeof(inode->i_block))
			die(r, "target of the symlink is too long");
		memcpy(target, inode->i_block, size);
		got = (unsigned int)size;
	} else {
		check(r, ext2fs_file_open(r->fs, ino, 0, &file), "open");
		check(r, ext2fs_file_read(file, target, (unsigned int)size, &got),
		      "read");
		ext2fs_file_close(file);
	}
	target[got] = '\0';
	archive_entry_copy_symlink(entry, target);
}

/* The device number stands in the first word, or as a new one in the second. */
static void set_device(const struct ext2_inode *inode, struct archive_entry *entry)
{
	uint32_t old = inode->i_block[0], new = inode->i_block[1];

	if (old)
		archive_entry_set_rdev(entry, makedev(old >> 8 & 0xff, old & 0xff));
	else
		archive_entry_set_rdev(entry,
				       makedev(new >> 8 & 0xfff,
					       (new & 0xff) | (new >> 12 & 0xfff00)));
}

/* The high bits of times after 2038, and nanoseconds, in large inodes. */
static void set_time(const struct ext2_inode_large *inode, size_t size,
		     struct archive_entry *entry)
{
	int64_t seconds = (int32_t)inode->i_mtime;
	long ns = 0;

	if (size >= offsetof(struct ext2_inode_large, i_mtime_extra) +
			    sizeof(inode->i_mtime_extra) &&
	    inode->i_extra_isize >= offsetof(struct ext2_inode_large, i_mtime_extra) +
					    sizeof(inode->i_mtime_extra) -
					    EXT2_GOOD_OLD_INODE_SIZE) {
		seconds += (int64_t)(inode->i_mtime_extra & 3) << 32;
		ns = (long)(inode->i_mtime_extra >> 2);
	}
	archive_entry_set_mtime(entry, seconds, ns);
}

static bool shows_content(const struct reader *r, uint64_t size)
{
	for (size_t i = 0; r->probe && i < FAVO_ARRAY_SIZE(probed); i++)
		if (strcmp(r->path, probed[i]) == 0)
			return size <= PROBE_FILE_MAX;
	return !r->probe;
}

static bool is_mode(mode_t mode)
{
	return S_ISREG(mode) || S_ISDIR(mode) || S_ISLNK(mode) || S_ISCHR(mode) ||
	       S_ISBLK(mode) || S_ISFIFO(mode) || S_ISSOCK(mode);
}

/* ---- tree ---- */

static void visit_folder(struct reader *r, ext2_ino_t ino);

static void visit(struct reader *r, ext2_ino_t ino)
{
	struct ext2_inode_large large = {0};
	struct ext2_inode *inode = (struct ext2_inode *)&large;
	struct archive_entry *entry = archive_entry_new();
	const char *first = NULL;
	uint64_t size = 0;

	if (!entry)
		die(r, "out of memory");
	check(r, ext2fs_read_inode_full(r->fs, ino, inode, sizeof(large)), "inode");
	if (!is_mode(inode->i_mode))
		die(r, "inode %u has no type", ino);
	if (inode->i_flags & EXT4_ENCRYPT_FL)
		die(r, "is encrypted; import from the running system instead: tar -C / "
		       "--one-file-system -c . | favo image import --name NAME -");
	archive_entry_copy_pathname(entry, r->path);
	archive_entry_set_mode(entry, inode->i_mode);
	archive_entry_set_uid(entry, inode_uid(*inode));
	archive_entry_set_gid(entry, inode_gid(*inode));
	set_time(&large, EXT2_INODE_SIZE(r->fs->super), entry);
	if (!S_ISDIR(inode->i_mode) && inode->i_links_count > 1)
		first = first_name(r, ino);
	if (first) {
		archive_entry_copy_hardlink(entry, first);
	} else {
		add_xattrs(r, ino, entry);
		if (S_ISLNK(inode->i_mode))
			set_symlink(r, ino, inode, entry);
		if (S_ISCHR(inode->i_mode) || S_ISBLK(inode->i_mode))
			set_device(inode, entry);
	}
	if (S_ISREG(inode->i_mode) && !first && shows_content(r, EXT2_I_SIZE(inode))) {
		size = EXT2_I_SIZE(inode);
		find_ranges(r, ino, inode, size);
		for (size_t i = 0; i < r->n_ranges; i++)
			archive_entry_sparse_add_entry(entry,
						       (la_int64_t)r->ranges[i].start,
						       (la_int64_t)r->ranges[i].length);
		if (r->n_ranges == 0 && size)
			archive_entry_sparse_add_entry(entry, (la_int64_t)size, 0);
	}
	archive_entry_set_size(entry, (la_int64_t)size);
	/* Sockets belong to running programs; tar has no form for them. */
	if (!S_ISSOCK(inode->i_mode) &&
	    archive_write_header(r->archive, entry) < ARCHIVE_WARN)
		die(r, "%s", archive_error_string(r->archive));
	if (size)
		write_content(r, ino, size);
	archive_entry_free(entry);
	if (S_ISDIR(inode->i_mode))
		visit_folder(r, ino);
}

static int visit_entry(struct ext2_dir_entry *entry, int offset, int block_size,
		       char *block, void *user)
{
	struct reader *r = user;
	size_t len = (size_t)ext2fs_dirent_name_len(entry), before = r->path_len;

	(void)offset;
	(void)block_size;
	(void)block;
	if ((len == 1 && entry->name[0] == '.') ||
	    (len == 2 && memcmp(entry->name, "..", 2) == 0))
		return 0;
	if (len == 0 || memchr(entry->name, '/', len) || memchr(entry->name, '\0', len))
		die(r, "a name in the folder is damaged");
	if (r->depth == 1 && len == 10 && memcmp(entry->name, "lost+found", 10) == 0)
		return 0;
	if (before + len + 2 > sizeof(r->path))
		die(r, "path is too long");
	r->path[before] = '/';
	memcpy(r->path + before + 1, entry->name, len);
	r->path_len = before + 1 + len;
	r->path[r->path_len] = '\0';
	visit(r, entry->inode);
	r->path[before] = '\0';
	r->path_len = before;
	return 0;
}

static void visit_folder(struct reader *r, ext2_ino_t ino)
{
	unsigned int limit = r->probe ? PROBE_DEPTH : DEPTH_MAX;

	if (ext2fs_test_inode_bitmap2(r->visited, ino))
		die(r, "the folder is inside of itself; e2fsck mends that");
	ext2fs_mark_inode_bitmap2(r->visited, ino);
	/* Of usr/lib, only what it holds is wanted. */
	if (r->depth >= limit && !(r->probe && strcmp(r->path, "./usr/lib") == 0)) {
		if (!r->probe)
			die(r, "folders are nested too deep");
		return;
	}
	r->depth++;
	check(r, ext2fs_dir_iterate(r->fs, ino, 0, NULL, visit_entry, r), "folder");
	r->depth--;
}

static void free_seen(void *node)
{
	free(node);
}

static void read_fs(struct reader *r, const char *image, const char *offset,
		    const char *folder)
{
	char options[64];

	snprintf(options, sizeof(options), "offset=%s", offset);
	check(NULL,
	      ext2fs_open2(image, options, EXT2_FLAG_64BITS, 0, 0, unix_io_manager,
			   &r->fs),
	      "ext file system");
	if (ext2fs_has_feature_journal_needs_recovery(r->fs->super))
		die(NULL, "the file system was not unmounted: its journal holds changes; "
			  "shut the machine down first, or run e2fsck on the partition");
	check(NULL, ext2fs_allocate_inode_bitmap(r->fs, "visited", &r->visited),
	      "ext file system");
	r->path_len = (size_t)snprintf(r->path, sizeof(r->path), ".%s%s",
				       *folder ? "/" : "", folder);
	visit(r, EXT2_ROOT_INO);
	tdestroy(r->links, free_seen);
	r->links = NULL;
	ext2fs_free_inode_bitmap(r->visited);
	ext2fs_close_free(&r->fs);
}

int main(int argc, char **argv)
{
	struct reader *r = calloc(1, sizeof(*r));
	char *folder;

	if (argc < 4 || (strcmp(argv[1], "tar") != 0 && strcmp(argv[1], "probe") != 0)) {
		fputs("usage: favo-readfs tar|probe IMAGE OFFSET[:FOLDER]...\n", stderr);
		return 2;
	}
	setlocale(LC_CTYPE, "C.UTF-8"); /* names in pax headers */
	initialize_ext2_error_table();
	if (!r || !(r->buf = malloc(COPY_SIZE)) || !(r->archive = archive_write_new()))
		die(NULL, "out of memory");
	r->probe = strcmp(argv[1], "probe") == 0;
	archive_write_set_format_pax(r->archive);
	if (archive_write_open_fd(r->archive, STDOUT_FILENO) != ARCHIVE_OK)
		die(NULL, "%s", archive_error_string(r->archive));
	for (int i = 3; i < argc; i++) {
		folder = strchr(argv[i], ':');
		if (folder)
			*folder++ = '\0';
		read_fs(r, argv[2], argv[i], folder ? folder : "");
	}
	if (archive_write_close(r->archive) != ARCHIVE_OK)
		die(NULL, "%s", archive_error_string(r->archive));
	archive_write_free(r->archive);
	free(r->ranges);
	free(r->buf);
	free(r);
	return 0;
}
