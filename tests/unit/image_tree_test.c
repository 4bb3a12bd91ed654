// SPDX-License-Identifier: GPL-2.0-or-later
/* File trees in memory: paths, symlinks, hard links, hostile tars. */
#include "images/tree.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "tests/unit/images_util.h"

/* ---- tars made for the tests ---- */

struct member {
	const char *path;
	mode_t type;
	const char *data; /* content, or target of a symlink */
	const char *hardlink;
};

static int make_tar(const struct member *members, size_t n)
{
	struct archive *archive = archive_write_new();
	int fd = memfd_create("tar", MFD_CLOEXEC);

	archive_write_set_format_pax_restricted(archive);
	archive_write_add_filter_gzip(archive);
	assert_int_equal(archive_write_open_fd(archive, fd), ARCHIVE_OK);
	for (size_t i = 0; i < n; i++) {
		struct archive_entry *entry = archive_entry_new();

		archive_entry_set_pathname(entry, members[i].path);
		archive_entry_set_mode(entry, members[i].type | 0755);
		archive_entry_set_mtime(entry, 1234567890, 500);
		if (members[i].hardlink)
			archive_entry_set_hardlink(entry, members[i].hardlink);
		else if (S_ISLNK(members[i].type))
			archive_entry_set_symlink(entry, members[i].data);
		else if (members[i].data)
			archive_entry_set_size(entry,
					       (la_int64_t)strlen(members[i].data));
		if (S_ISREG(members[i].type) && !members[i].hardlink)
			archive_entry_xattr_add_entry(entry, "user.k", "v", 1);
		assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
		if (S_ISREG(members[i].type) && members[i].data)
			archive_write_data(archive, members[i].data,
					   strlen(members[i].data));
		archive_entry_free(entry);
	}
	archive_write_free(archive);
	lseek(fd, 0, SEEK_SET);
	return fd;
}

static int load(const struct member *members, size_t n, struct favo_tree **tree,
		struct favo_err *err)
{
	favo_autoclose int fd = make_tar(members, n);

	return favo_tree_load_tar(tree, fd, "/tmp", err);
}

static void assert_text(const struct favo_tree *tree, const char *path,
			const char *wanted)
{
	const struct favo_inode *inode = favo_tree_find(tree, path);
	favo_autofree char *data = NULL;
	struct favo_err err = {0};
	size_t len;

	assert_non_null(inode);
	assert_ok(favo_tree_read_all(tree, inode, 1000, &data, &len, &err), &err);
	assert_string_equal(data, wanted);
}

static void test_tar(void **state)
{
	static const struct member members[] = {
		{"./usr/bin/", S_IFDIR, NULL, NULL},
		{"./usr/bin/tool", S_IFREG, "old", NULL},
		{"./bin", S_IFLNK, "usr/bin", NULL},
		{"./usr/bin/tool", S_IFREG, "content", NULL},
		{"./usr/bin/alias", S_IFREG, NULL, "./usr/bin/tool"},
		{"etc/deep/er/file", S_IFREG, "x", NULL},
		{"abs", S_IFLNK, "/usr/bin/../bin/./tool", NULL},
		{"loop", S_IFLNK, "loop", NULL},
		{"up", S_IFLNK, "../../../usr/bin/tool", NULL},
	};
	favo_autotree struct favo_tree *tree = NULL;
	struct favo_inode *inode;
	struct favo_err err = {0};

	(void)state;
	assert_ok(load(members, FAVO_ARRAY_SIZE(members), &tree, &err), &err);
	assert_text(tree, "usr/bin/tool", "content");
	assert_text(tree, "bin/alias", "content");
	assert_text(tree, "abs", "content");
	assert_text(tree, "up", "content");
	assert_null(favo_tree_find(tree, "loop"));
	assert_null(favo_tree_find(tree, "usr/bin/tool/x"));
	inode = favo_tree_find(tree, "usr/bin/tool");
	assert_ptr_equal(inode, favo_tree_find(tree, "usr/bin/alias"));
	assert_int_equal(inode->nlink, 2);
	assert_int_equal(inode->mtime, 1234567890);
	assert_int_equal(inode->mtime_ns, 500);
	assert_int_equal(inode->n_xattrs, 1);
	assert_string_equal(inode->xattrs[0].name, "user.k");
	assert_int_equal(favo_tree_find(tree, "etc/deep")->mode, S_IFDIR | 0755);
	/* A folder that replaces nothing keeps its entries, a file takes them. */
	assert_ok(favo_tree_put(tree, "usr", S_IFDIR | 0700, &inode, &err), &err);
	assert_text(tree, "usr/bin/tool", "content");
	assert_ok(favo_tree_put_file(tree, "usr", 0600, "f", 1, 0, &err), &err);
	assert_null(favo_tree_find(tree, "usr/bin"));
}

static void test_hostile_tars(void **state)
{
	static const struct {
		struct member members[2];
		int code;
	} cases[] = {
		{{{"../evil", S_IFREG, "x", NULL}}, EINVAL},
		{{{"a/../../evil", S_IFREG, "x", NULL}}, EINVAL},
		{{{"/../evil", S_IFREG, "x", NULL}}, EINVAL},
		{{{"out", S_IFLNK, "/tmp", NULL}, {"out/evil", S_IFREG, "x", NULL}},
		 ELOOP},
		{{{"out", S_IFLNK, "..", NULL}, {"out/a/evil", S_IFREG, "x", NULL}},
		 ELOOP},
		{{{"f", S_IFREG, "x", NULL}, {"f/evil", S_IFREG, "x", NULL}}, ENOTDIR},
		{{{"hard", S_IFREG, NULL, "etc/passwd"}}, ENOENT},
		{{{"hard", S_IFREG, NULL, "../../etc/passwd"}}, EINVAL},
		{{{"d", S_IFDIR, NULL, NULL}, {"hard", S_IFREG, NULL, "d"}}, EINVAL},
		{{{".", S_IFLNK, "x", NULL}}, EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		favo_autotree struct favo_tree *tree = NULL;
		struct favo_err err = {0};
		size_t n = cases[i].members[1].path ? 2 : 1;

		assert_int_equal(load(cases[i].members, n, &tree, &err), -cases[i].code);
		assert_null(tree);
	}
}

/* Any cut or flipped byte gives an error or a tree, never a crash. */
static void test_damaged_tars(void **state)
{
	static const struct member members[] = {
		{"a", S_IFREG, "some content", NULL},
		{"d/b", S_IFREG, NULL, "a"},
		{"c", S_IFLNK, "target", NULL},
	};
	favo_autoclose int fd = make_tar(members, FAVO_ARRAY_SIZE(members));
	char data[4096];
	ssize_t len = read(fd, data, sizeof(data));

	(void)state;
	assert_true(len > 0 && len < (ssize_t)sizeof(data));
	for (ssize_t i = 0; i < len; i++) {
		favo_autoclose int bad = memfd_create("bad", MFD_CLOEXEC);
		favo_autotree struct favo_tree *tree = NULL;
		struct favo_err err = {0};

		data[i] ^= 0x41;
		assert_int_equal(write(bad, data, (size_t)(i % 2 ? len : i)),
				 i % 2 ? len : i);
		data[i] ^= 0x41;
		lseek(bad, 0, SEEK_SET);
		if (favo_tree_load_tar(&tree, bad, "/tmp", &err) < 0)
			assert_true(err.msg[0]);
	}
}

static void collect(const char *path, void *user)
{
	char *list = user;

	snprintf(list + strlen(list), 200 - strlen(list), "%s;", path);
}

static void test_edits(void **state)
{
	static const char *const patterns[] = {"etc/ssh/ssh_host_*", "tmp/*", "var/log"};
	favo_autotree struct favo_tree *tree = NULL;
	char list[200] = "", deep[5000];
	struct favo_inode *inode;
	struct favo_err err = {0};

	(void)state;
	assert_ok(favo_tree_new(&tree, &err), &err);
	assert_ok(favo_tree_put_file(tree, "etc/ssh/ssh_host_rsa", 0600, "x", 1, 0, &err),
		  &err);
	assert_ok(favo_tree_put_file(tree, "etc/ssh/sshd_config", 0600, "x", 1, 0, &err),
		  &err);
	assert_ok(favo_tree_put_file(tree, "tmp/a/b/c", 0600, "x", 1, 0, &err), &err);
	assert_ok(favo_tree_put_file(tree, "var/log/x", 0600, "x", 1, 0, &err), &err);
	assert_ok(favo_tree_link(tree, "keep", "tmp/a/b/c", &err), &err);
	assert_ok(favo_tree_link(tree, "keep", "keep", &err), &err);
	assert_ok(favo_tree_remove_matching(tree, patterns, 3, collect, list, &err),
		  &err);
	assert_string_equal(list, "etc/ssh/ssh_host_rsa;tmp/a;var/log;");
	assert_text(tree, "keep", "x");
	assert_non_null(favo_tree_find(tree, "etc/ssh/sshd_config"));
	assert_int_equal(favo_tree_remove(tree, "none", &err), -ENOENT);
	assert_int_equal(favo_tree_remove(tree, "/", &err), -ENOENT);
	assert_ok(favo_tree_remove(tree, "keep", &err), &err);
	memset(deep, 'x', sizeof(deep));
	deep[300] = '\0';
	assert_int_equal(favo_tree_put(tree, deep, S_IFREG, &inode, &err), -ENAMETOOLONG);
	for (size_t i = 0; i < sizeof(deep); i++)
		deep[i] = i % 2 ? '/' : 'x';
	deep[sizeof(deep) - 1] = '\0';
	assert_int_equal(favo_tree_put(tree, deep, S_IFREG, &inode, &err), -ENAMETOOLONG);
}

static void test_folder(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = NULL;
	favo_autofree char *a = favo_asprintf("%s/a", dir),
			   *b = favo_asprintf("%s/b", dir);
	favo_autofree char *link_path = favo_asprintf("%s/l", dir);
	struct favo_err err = {0};

	(void)state;
	assert_ok(favo_file_replace(a, "text", 4, 0644, &err), &err);
	assert_int_equal(link(a, b), 0);
	assert_int_equal(symlink("/etc/passwd", link_path), 0);
	assert_ok(favo_tree_load_dir(&tree, dir, &err), &err);
	assert_ptr_equal(favo_tree_find(tree, "a"), favo_tree_find(tree, "b"));
	assert_text(tree, "b", "text");
	/* The link leads nowhere within the tree, whatever the host has. */
	assert_null(favo_tree_find(tree, "l"));
	/* A source that shrinks is an error, not a short file. */
	assert_int_equal(truncate(a, 2), 0);
	{
		char buf[4];

		assert_int_equal(favo_tree_read(tree, favo_tree_find(tree, "a"), buf, 4,
						0, &err),
				 -EIO);
	}
	favo_tree_free(favo_steal_ptr(&tree));
	assert_int_equal(favo_tree_load_dir(&tree, "/nonexistent", &err), -ENOENT);
	scratch_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_tar),	     cmocka_unit_test(test_hostile_tars),
		cmocka_unit_test(test_damaged_tars), cmocka_unit_test(test_edits),
		cmocka_unit_test(test_folder),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
