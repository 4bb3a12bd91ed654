// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One layer above another; see layer.h. Works on the two trees only: inodes
 * of the layer move into the lower tree, whiteouts and opaque folders remove
 * from it first. What a layer's hard links mean is looked up before anything
 * is removed, because a layer may keep a file by a new name and hide the old.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/tree_internal.h"

struct merge {
	struct favo_tree *tree;
	/* Files of the lower tree that the layer links to, each with a reference. */
	struct {
		struct favo_inode *from, *to;
	} * links;
	size_t n_links, links_size;
};

/* ---- links to lower layers ---- */

static int find_target(struct merge *m, struct favo_inode *link, struct favo_err *err)
{
	size_t size = m->links_size ? 2 * m->links_size : 16;
	struct favo_inode *dir = NULL, *target;
	char name[NAME_MAX + 1];
	void *grown;
	int ret = favo_tree_walk(m->tree, link->data, false, &dir, name, err);

	target = ret == 0 && name[0] ? favo_inode_child(dir, name) : NULL;
	if (!target || S_ISDIR(target->mode))
		return favo_fail(err,
				 ret < 0  ? -ret
				 : target ? EINVAL
					  : ENOENT,
				 "hard link to %s, which is no file of this or a lower "
				 "layer",
				 (char *)link->data);
	if (m->n_links == m->links_size) {
		grown = reallocarray(m->links, size, sizeof(*m->links));
		if (!grown)
			return favo_fail(err, ENOMEM, "out of memory");
		m->links = grown;
		m->links_size = size;
	}
	link->mark = ++m->n_links;
	m->links[link->mark - 1].from = link;
	m->links[link->mark - 1].to = target;
	target->nlink++;
	return 0;
}

static int find_targets(struct merge *m, struct favo_inode *dir, struct favo_err *err)
{
	int ret = 0;

	for (size_t i = 0; ret == 0 && i < dir->n_entries; i++) {
		struct favo_inode *inode = dir->entries[i].inode;

		if (S_ISDIR(inode->mode))
			ret = find_targets(m, inode, err);
		else if (inode->layer & FAVO_LAYER_LINK && !inode->mark)
			ret = find_target(m, inode, err);
		if (ret < 0)
			favo_wrap(err, ret, "%s", dir->entries[i].name);
	}
	return ret;
}

/* ---- folders ---- */

static void remove_all(struct favo_inode *dir)
{
	while (dir->n_entries)
		favo_dir_remove(dir, dir->n_entries - 1);
}

/* Metadata of a folder that the layer lists; entries stay where they are. */
static void take_metadata(struct favo_inode *to, struct favo_inode *from)
{
	struct favo_xattr *xattrs = to->xattrs;
	size_t n = to->n_xattrs;

	to->mode = from->mode;
	to->uid = from->uid;
	to->gid = from->gid;
	to->mtime = from->mtime;
	to->mtime_ns = from->mtime_ns;
	to->xattrs = from->xattrs;
	to->n_xattrs = from->n_xattrs;
	from->xattrs = xattrs;
	from->n_xattrs = n;
}

/* Move the file at entry of the layer to name of dir, replacing what is there. */
static int put_file(struct merge *m, struct favo_inode *dir, struct favo_dentry *entry,
		    struct favo_err *err)
{
	struct favo_inode *inode = entry->inode;
	bool found;
	size_t at;
	int ret;

	if (inode->layer & FAVO_LAYER_LINK)
		inode = m->links[inode->mark - 1].to;
	inode->nlink++; /* first, should the lower entry be the last name of it */
	at = favo_dir_search(dir, entry->name, &found);
	if (found)
		favo_dir_remove(dir, at);
	ret = favo_dir_insert(dir, entry->name, inode, err);
	if (ret < 0) {
		favo_inode_unref(inode);
		return ret;
	}
	m->tree->n_inodes += inode->mark == 0;
	inode->mark = 1; /* counted */
	return 0;
}

static int merge_folder(struct merge *m, struct favo_inode *lower,
			struct favo_inode *upper, struct favo_err *err);

static int put_folder(struct merge *m, struct favo_inode *dir, struct favo_dentry *entry,
		      struct favo_err *err)
{
	struct favo_inode *upper = entry->inode, *lower;
	bool found;
	size_t at = favo_dir_search(dir, entry->name, &found);
	int ret;

	lower = found ? dir->entries[at].inode : NULL;
	if (upper->layer & FAVO_LAYER_WHITEOUT) {
		if (found)
			favo_dir_remove(dir, at);
		return 0;
	}
	if (lower && !S_ISDIR(lower->mode)) {
		bool hidden = upper->layer & FAVO_LAYER_OPAQUE ||
			      !(upper->layer & FAVO_LAYER_IMPLICIT);

		if (!hidden)
			return favo_fail(err, S_ISLNK(lower->mode) ? ELOOP : ENOTDIR,
					 "members below it, but it is a %s of a lower "
					 "layer",
					 S_ISLNK(lower->mode) ? "symlink" : "file");
		favo_dir_remove(dir, at);
		lower = NULL;
	}
	if (!lower) {
		ret = favo_dir_new_child(m->tree, dir, entry->name, upper->mode, &lower,
					 err);
		if (ret < 0)
			return ret;
	}
	return merge_folder(m, lower, upper, err);
}

static int merge_folder(struct merge *m, struct favo_inode *lower,
			struct favo_inode *upper, struct favo_err *err)
{
	int ret = 0;

	if (upper->layer & FAVO_LAYER_OPAQUE)
		remove_all(lower);
	if (!(upper->layer & FAVO_LAYER_IMPLICIT))
		take_metadata(lower, upper);
	for (size_t i = 0; ret == 0 && i < upper->n_entries; i++) {
		struct favo_dentry *entry = &upper->entries[i];

		ret = S_ISDIR(entry->inode->mode) ? put_folder(m, lower, entry, err)
						  : put_file(m, lower, entry, err);
		if (ret < 0)
			favo_wrap(err, ret, "%s", entry->name);
	}
	remove_all(upper);
	return ret;
}

int favo_tree_merge(struct favo_tree *tree, struct favo_tree *layer, struct favo_err *err)
{
	struct merge m = {.tree = tree};
	int ret = find_targets(&m, layer->root, err);

	if (ret == 0)
		ret = merge_folder(&m, tree->root, layer->root, err);
	for (size_t i = 0; i < m.n_links; i++)
		favo_inode_unref(m.links[i].to);
	free(m.links);
	return ret;
}
