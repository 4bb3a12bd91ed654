// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: a layer of a container image, as a tar (the first byte is even)
 * or in any compression (odd, where the digest of the tar never fits), and its
 * merge with a lower layer.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/layer.h"

#define BYTES_MAX (1u << 20)
#define MEMBERS_MAX 1000

struct input {
	const uint8_t *data;
	size_t size;
};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static ssize_t read_input(void *user, void *buf, size_t len, struct favo_err *err)
{
	struct input *input = user;

	(void)err;
	len = FAVO_MIN(len, input->size);
	memcpy(buf, input->data, len);
	input->data += len;
	input->size -= len;
	return (ssize_t)len;
}

static struct favo_tree *lower_layer(int fd)
{
	struct favo_tree *tree = NULL;
	struct favo_inode *inode;

	if (favo_tree_new(&tree, NULL) < 0)
		return NULL;
	tree->spool_fd = fd;
	favo_tree_put_file(tree, "a", 0644, "a", 1, 0, NULL);
	favo_tree_put_file(tree, "d/b", 0644, "b", 1, 0, NULL);
	favo_tree_link(tree, "d/c", "a", NULL);
	if (favo_tree_put(tree, "l", S_IFLNK | 0777, &inode, NULL) == 0)
		favo_tree_set_target(inode, "d", NULL);
	return tree;
}

static void try_layer(struct input *input, bool packed)
{
	favo_autotree struct favo_tree *tree = NULL, *layer = NULL;
	struct favo_layer_source source = {.read = read_input, .user = input};
	struct favo_spool spool;
	int ret;

	if (favo_spool_open(&spool, "/tmp", BYTES_MAX, MEMBERS_MAX, NULL) < 0)
		return;
	tree = lower_layer(spool.fd);
	if (!tree)
		return;
	ret = packed ? favo_layer_load(&layer, &source, &spool, NULL)
		     : favo_tree_load_layer(&layer, read_input, input, &spool, NULL);
	if (ret == 0 && favo_tree_merge(tree, layer, NULL) == 0 &&
	    tree->n_inodes > MEMBERS_MAX * 300)
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input input = {data + 1, size - 1};

	if (size)
		try_layer(&input, data[0] & 1);
	return 0;
}
