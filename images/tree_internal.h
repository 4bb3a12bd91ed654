/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the tree share; not for others. */
#pragma once

#include <limits.h>

#include "images/layer.h"
#include "images/tree.h"

/* Position of name, or where it belongs; *found says which. */
size_t favo_dir_search(const struct favo_inode *dir, const char *name, bool *found);
/* Add an entry that takes over one reference of inode; name is copied. */
int favo_dir_insert(struct favo_inode *dir, const char *name, struct favo_inode *inode,
		    struct favo_err *err);
void favo_dir_remove(struct favo_inode *dir, size_t at);
int favo_dir_new_child(struct favo_tree *tree, struct favo_inode *dir, const char *name,
		       mode_t mode, struct favo_inode **out, struct favo_err *err);
/* Drop one reference (a folder has one). */
void favo_inode_unref(struct favo_inode *inode);

/*
 * Folder that holds the last part of path, and that part ("" for the root).
 * Missing folders are made when create is set, else -ENOENT; symlinks on the
 * way are -ELOOP.
 */
int favo_tree_walk(struct favo_tree *tree, const char *path, bool create,
		   struct favo_inode **parent, char last[NAME_MAX + 1],
		   struct favo_err *err);
