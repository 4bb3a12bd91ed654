/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Reader of the file systems that erofs_writer.h makes, for export and
 * comparison: names and metadata become a tree, contents stay in the file. It
 * reads what Favo writes (extended inodes, no compression, no shared
 * attributes) and refuses every other EROFS.
 */
#pragma once

#include "common/err.h"
#include "images/tree.h"

/*
 * Tree of the file system in the first size bytes of fd, which the tree owns
 * from here on, also on failure, and which must not shrink. The bytes may be a
 * stranger's: -EBADMSG with what is wrong. A file system whose files overlap
 * is refused, so that no tree holds more than size bytes.
 */
int favo_erofs_read(struct favo_tree **out, int fd, uint64_t size, struct favo_err *err);
