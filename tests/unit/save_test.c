// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The tar stream of a guest's root, read again by the importer's reader; and
 * the files that the guest's identity changed.
 */
#include "images/guest/save.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include "images/tree.h"
#include "tests/unit/images_util.h"

static void write_file(const char *dir, const char *name, const char *text)
{
	favo_autofree char *path = favo_asprintf("%s/%s", dir, name);
	favo_autoclose int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0640);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static struct favo_tree *save_and_load(const char *root, const char *keep)
{
	favo_autoclose int fd = open("/tmp", O_TMPFILE | O_RDWR, 0600);
	struct favo_tree *tree = NULL;
	struct favo_err err = {0};

	assert_ok(favo_save_tree(fd, root, keep, &err), &err);
	lseek(fd, 0, SEEK_SET);
	assert_ok(favo_tree_load_tar(&tree, fd, "/tmp", &err), &err);
	return tree;
}

static void expect_text(const struct favo_tree *tree, const char *path, const char *text)
{
	struct favo_inode *inode = favo_tree_find(tree, path);
	struct favo_err err = {0};
	char buf[256] = "";

	assert_non_null(inode);
	assert_int_equal(inode->size, strlen(text));
	assert_ok(favo_tree_read(tree, inode, buf, strlen(text), 0, &err), &err);
	assert_string_equal(buf, text);
}

static void whole_tree(void **state)
{
	favo_autofree char *root = scratch_dir(), *path = NULL, *other = NULL;
	char name[201];
	const struct timespec times[2] = {{1700000000, 123456789},
					  {1700000000, 123456789}};
	favo_autotree struct favo_tree *tree = NULL;
	struct favo_inode *inode;
	bool xattrs;

	(void)state;
	memset(name, 'n', 200);
	name[200] = '\0';
	write_file(root, "plain", "content\n");
	write_file(root, name, "long name");
	write_file(root, "empty", "");
	path = favo_asprintf("%s/plain", root);
	other = favo_asprintf("%s/hard", root);
	assert_int_equal(link(path, other), 0);
	xattrs = setxattr(path, "user.note", "a\0b", 3, 0) == 0;
	assert_int_equal(chmod(path, 04755), 0);
	assert_int_equal(utimensat(AT_FDCWD, path, times, 0), 0);
	free(favo_steal_ptr(&other));
	other = favo_asprintf("%s/link", root);
	assert_int_equal(symlink("../some where", other), 0);
	free(favo_steal_ptr(&other));
	other = favo_asprintf("%s/dir", root);
	assert_int_equal(mkdir(other, 01777), 0);
	assert_int_equal(chmod(other, 01777), 0);
	free(favo_steal_ptr(&other));
	other = favo_asprintf("%s/dir/fifo", root);
	assert_int_equal(mkfifo(other, 0600), 0);

	tree = save_and_load(root, "/nowhere");
	expect_text(tree, "plain", "content\n");
	expect_text(tree, "empty", "");
	expect_text(tree, name, "long name");
	inode = favo_tree_find(tree, "plain");
	assert_ptr_equal(inode, favo_tree_find(tree, "hard"));
	assert_int_equal(inode->mode, S_IFREG | 04755);
	assert_int_equal(inode->mtime, 1700000000);
	assert_int_equal(inode->mtime_ns, 123456789);
	assert_int_equal(inode->n_xattrs, xattrs ? 1 : 0);
	inode = favo_tree_find(tree, "dir");
	assert_int_equal(inode->mode, S_IFDIR | 01777);
	assert_true(S_ISFIFO(favo_tree_find(tree, "dir/fifo")->mode));
	inode = favo_inode_child(tree->root, "link");
	assert_true(S_ISLNK(inode->mode));
	scratch_free(favo_steal_ptr(&root));
}

static void identity_files(void **state)
{
	favo_autofree char *root = scratch_dir(), *etc = favo_asprintf("%s/etc", root);
	favo_autofree char *keep = favo_asprintf("%s/run/favo/etc", root);
	favo_autotree struct favo_tree *tree = NULL;

	(void)state;
	assert_int_equal(mkdir(etc, 0755), 0);
	write_file(etc, "hostname", "image\n");
	write_file(etc, "passwd", "root:x:0:0\nold:x:1000:1000\n");
	favo_identity_keep(root);
	write_file(etc, "hostname", "vm0\n");
	write_file(etc, "machine-id", "0123\n");
	write_file(etc, "passwd", "root:x:0:0\nalice:x:1000:1000\n");
	favo_identity_written(root);
	/* A package that the job installed. */
	write_file(etc, "passwd", "root:x:0:0\nalice:x:1000:1000\nmunge:x:101:101\n");
	tree = save_and_load(root, keep);
	expect_text(tree, "etc/hostname", "image\n");
	expect_text(tree, "etc/passwd", "root:x:0:0\nold:x:1000:1000\nmunge:x:101:101\n");
	assert_null(favo_tree_find(tree, "etc/machine-id"));
	scratch_free(favo_steal_ptr(&root));
}

static void merge(void **state)
{
	static const struct {
		const char *original, *written, *now, *want;
	} rows[] = {
		{"a\nb", "x\n", "x\n", "a\nb"},
		{"a\nb\n", "a\nx\n", "a\nx\ny\n", "a\nb\ny\n"},
		{"a\nb\n", "a\nb\nx\n", "b\nx\n", "b\n"},
		{"", "x\n", "x\ny\n", "y\n"},
		{"a\n", "a\n", "", ""},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		favo_autofree char *text =
			favo_save_merge(rows[i].original, rows[i].written, rows[i].now);

		assert_string_equal(text, rows[i].want);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(whole_tree),
		cmocka_unit_test(identity_files),
		cmocka_unit_test(merge),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
