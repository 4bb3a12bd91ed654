// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: a file system of an image, as export and diff read it. */
#include "images/erofs_reader.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE_MAX_BYTES (1u << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint64_t held(const struct favo_inode *dir)
{
	uint64_t bytes = 0;

	for (size_t i = 0; i < dir->n_entries; i++) {
		const struct favo_inode *inode = dir->entries[i].inode;

		if (S_ISDIR(inode->mode))
			bytes += held(inode);
		else if (inode->nlink == 1)
			bytes += inode->size;
	}
	return bytes;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_tree *tree = NULL;
	int fd;

	if (size > SIZE_MAX_BYTES)
		return 0;
	fd = memfd_create("erofs", MFD_CLOEXEC);
	if (fd < 0 || write(fd, data, size) != (ssize_t)size)
		abort();
	if (favo_erofs_read(&tree, fd, size, NULL) < 0)
		return 0;
	if (held(tree->root) > size)
		abort();
	favo_tree_free(tree);
	return 0;
}
