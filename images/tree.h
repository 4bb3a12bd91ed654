/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * A file system tree in memory: names and metadata here, file contents where
 * they are (a file of the host, a spool file, or bytes in memory). Sources
 * fill it, the import edits it, the EROFS writer reads it. Nothing of a
 * foreign tree is ever written below a path of the host, so that hostile
 * names and symlinks have no file system to play with.
 *
 * A tree belongs to one thread.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/stat.h>

#include "common/err.h"

#define FAVO_TREE_FILES_MAX (16u << 20) /* entries in one tree */
#define FAVO_XATTR_VALUE_MAX 65535

struct favo_xattr {
	char *name; /* with its prefix, "security.capability" */
	void *value;
	size_t len;
};

enum favo_content {
	FAVO_CONTENT_NONE,
	FAVO_CONTENT_MEMORY, /* data */
	FAVO_CONTENT_SPOOL, /* offset in the tree's spool file */
	FAVO_CONTENT_HOST, /* path of the host, relative to the source's folder */
};

/* What hard links share. */
struct favo_inode {
	mode_t mode;
	uint32_t uid, gid;
	uint32_t nlink; /* names of this inode; not kept for folders */
	uint64_t size; /* of a file or of a symlink's target */
	int64_t mtime; /* seconds */
	uint32_t mtime_ns;
	uint32_t rdev_major, rdev_minor;
	enum favo_content content;
	void *data; /* file bytes, or the target with a NUL */
	uint64_t spool_offset;
	char *host_path;
	struct favo_xattr *xattrs;
	size_t n_xattrs;
	struct favo_dentry *entries; /* of a folder, sorted by name in byte order */
	size_t n_entries, entries_size;
	uint64_t mark; /* for the EROFS writer */
	unsigned int layer; /* enum favo_layer_flag, of one layer's tree; layer.h */
};

struct favo_dentry {
	char *name;
	struct favo_inode *inode;
};

struct favo_tree {
	struct favo_inode *root;
	size_t n_inodes;
	int spool_fd; /* unlinked file that holds spooled contents, or -1 */
	uint64_t spool_len;
	int host_fd; /* folder that host paths are relative to, or -1 */
};

/* A tree with an empty root of mode 0755. */
int favo_tree_new(struct favo_tree **out, struct favo_err *err);
void favo_tree_free(struct favo_tree *tree);

/*
 * Fill from a folder of the host. Other file systems mounted below it stay
 * out. Contents are read later: the folder must not change until the tree is
 * written.
 */
int favo_tree_load_dir(struct favo_tree **out, const char *path, struct favo_err *err);

/*
 * Fill from a tar stream in any compression that libarchive knows. Contents
 * are copied to an unlinked file in spool_dir. -EINVAL with a sentence for
 * names with "..", and for members below a symlink.
 */
int favo_tree_load_tar(struct favo_tree **out, int fd, const char *spool_dir,
		       struct favo_err *err);

/*
 * Paths are relative to the root; a leading "/" or "./" is ignored, ".." is
 * -EINVAL. Symlinks on the way are not followed by the functions that change
 * something (-ELOOP), but are by favo_tree_find().
 */

/*
 * Put an inode of the given type and mode at path, replacing what is there (a
 * folder stays and only gets the new metadata). Missing parents are made.
 */
int favo_tree_put(struct favo_tree *tree, const char *path, mode_t mode,
		  struct favo_inode **out, struct favo_err *err);
/* Make path another name of target; -ENOENT, -EINVAL for a folder. */
int favo_tree_link(struct favo_tree *tree, const char *path, const char *target,
		   struct favo_err *err);
/* A whole regular file from memory, owner root. */
int favo_tree_put_file(struct favo_tree *tree, const char *path, mode_t mode,
		       const void *data, size_t len, int64_t mtime, struct favo_err *err);
int favo_tree_set_target(struct favo_inode *inode, const char *target,
			 struct favo_err *err);
int favo_tree_add_xattr(struct favo_inode *inode, const char *name, const void *value,
			size_t len, struct favo_err *err);
/* -ENOENT when absent; a folder goes with everything below it. */
int favo_tree_remove(struct favo_tree *tree, const char *path, struct favo_err *err);

/*
 * Remove everything that matches one of the patterns (fnmatch with
 * FNM_PATHNAME, path without leading "/"). seen() hears of each; may be NULL.
 */
typedef void favo_tree_seen_fn(const char *path, void *user);
int favo_tree_remove_matching(struct favo_tree *tree, const char *const *patterns,
			      size_t n, favo_tree_seen_fn *seen, void *user,
			      struct favo_err *err);

/* Inode at path, symlinks inside the tree followed; NULL when absent. */
struct favo_inode *favo_tree_find(const struct favo_tree *tree, const char *path);
/* Entry of a folder by name; NULL when absent. */
struct favo_inode *favo_inode_child(const struct favo_inode *dir, const char *name);

/* Read len bytes of a file's content at offset; short content is -EIO. */
int favo_tree_read(const struct favo_tree *tree, const struct favo_inode *inode,
		   void *buf, size_t len, uint64_t offset, struct favo_err *err);
/* The whole content, with a NUL behind it; at most max bytes (-EFBIG). */
int favo_tree_read_all(const struct favo_tree *tree, const struct favo_inode *inode,
		       size_t max, char **data, size_t *len, struct favo_err *err);

static inline void favo_cleanup_tree(struct favo_tree **tree)
{
	favo_tree_free(*tree);
}
#define favo_autotree __attribute__((cleanup(favo_cleanup_tree)))
