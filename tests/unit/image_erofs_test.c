// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The EROFS writer, judged by fsck.erofs: every kind of file, limits of
 * inodes, folders and attributes, and equal bytes from equal trees.
 */
#include "images/erofs_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>

#include "images/digest.h"
#include "images/erofs_format.h"
#include "images/erofs_reader.h"
#include "tests/unit/images_util.h"

static bool have_program(const char *name)
{
	favo_autofree char *command =
		favo_asprintf("command -v %s >/dev/null 2>&1", name);

	return system(command) == 0;
}

static void put(struct favo_tree *tree, const char *path, mode_t mode,
		struct favo_inode **inode)
{
	struct favo_err err = {0};

	assert_ok(favo_tree_put(tree, path, mode, inode, &err), &err);
	(*inode)->mtime = 1700000000;
	(*inode)->mtime_ns = 5;
}

static void put_file(struct favo_tree *tree, const char *path, size_t len)
{
	favo_autofree char *data = malloc(len + 1);
	struct favo_err err = {0};

	fill_random(data, len, len + strlen(path));
	assert_ok(favo_tree_put_file(tree, path, 0640, data, len, 1700000001, &err),
		  &err);
}

/* A tree with something of everything; order turns the order of insertion. */
static struct favo_tree *make_tree(bool backwards)
{
	static const size_t sizes[] = {0, 1, 4095, 4096, 4097, 100000, 3 * 1024 * 1024};
	/* struct vfs_cap_data of revision 2: cap_net_raw+ep */
	static const unsigned char capability[20] = {1, 0, 0, 2, 0, 32};
	favo_autofree char *value = malloc(60000);
	struct favo_tree *tree = NULL;
	struct favo_inode *inode;
	struct favo_err err = {0};
	char path[300];

	assert_ok(favo_tree_new(&tree, &err), &err);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(sizes); i++) {
		size_t k = backwards ? FAVO_ARRAY_SIZE(sizes) - 1 - i : i;

		snprintf(path, sizeof(path), "files/size-%zu", sizes[k]);
		put_file(tree, path, sizes[k]);
	}
	for (int i = 0; i < 2000; i++) {
		int k = backwards ? 1999 - i : i;

		snprintf(path, sizeof(path), "big/name-of-an-entry-%d", k);
		put_file(tree, path, (size_t)k % 7);
	}
	/* Sorted before "." and after "..", longest name, spaces and bytes. */
	put_file(tree, "odd/+plus", 3);
	put_file(tree, "odd/a b\n\xff", 3);
	memset(path, 'n', 255);
	memcpy(path, "odd/", 4);
	path[259] = '\0';
	memset(path + 4, 'n', 255);
	put_file(tree, path, 10);
	put(tree, "empty", S_IFDIR | 01777, &inode);
	put(tree, "dev/null", S_IFCHR | 0666, &inode);
	inode->rdev_major = 1;
	inode->rdev_minor = 3;
	put(tree, "dev/large", S_IFBLK | 0600, &inode);
	inode->rdev_major = 259;
	inode->rdev_minor = 70000;
	put(tree, "run/fifo", S_IFIFO | 0600, &inode);
	put(tree, "run/socket", S_IFSOCK | 0755, &inode);
	put(tree, "link", S_IFLNK | 0777, &inode);
	assert_ok(favo_tree_set_target(inode, "files/size-1", &err), &err);
	put(tree, "longlink", S_IFLNK | 0777, &inode);
	memset(path, 'x', sizeof(path));
	value[0] = '\0';
	memset(value, 'y', 4090);
	value[4090] = '\0';
	assert_ok(favo_tree_set_target(inode, value, &err), &err);
	assert_ok(favo_tree_link(tree, "files/hard", "files/size-4097", &err), &err);
	assert_ok(favo_tree_link(tree, "other/hard", "files/size-4097", &err), &err);
	inode = favo_tree_find(tree, "files/size-1");
	inode->uid = 100000;
	inode->gid = 4000000000u;
	inode->mode |= S_ISUID;
	assert_ok(favo_tree_add_xattr(inode, "user.b", "2", 1, &err), &err);
	assert_ok(favo_tree_add_xattr(inode, "security.capability", capability,
				      sizeof(capability), &err),
		  &err);
	assert_ok(favo_tree_add_xattr(inode, "odd.kind", "left out", 8, &err), &err);
	inode = favo_tree_find(tree, "empty");
	fill_random(value, 60000, 3);
	assert_ok(favo_tree_add_xattr(inode, "user.large", value, 60000, &err), &err);
	return tree;
}

static int write_tree(struct favo_tree *tree, const char *dir,
		      struct favo_erofs_stats *stats)
{
	struct favo_err err = {0};
	int fd = open(dir, O_TMPFILE | O_RDWR, 0600);

	assert_true(fd >= 0);
	assert_ok(favo_erofs_write(tree, fd, stats, &err), &err);
	return fd;
}

static void test_same_tree_same_bytes(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *a = make_tree(false), *b = make_tree(true);
	struct favo_erofs_stats stats;
	favo_autoclose int fd_a = write_tree(a, dir, &stats),
			   fd_b = write_tree(b, dir, NULL);
	favo_autoclose int fd_c = write_tree(a, dir, NULL);
	struct favo_digest one, two, three;
	struct stat st;

	(void)state;
	assert_int_equal(favo_digest_of_fd(&one, fd_a, NULL), 0);
	assert_int_equal(favo_digest_of_fd(&two, fd_b, NULL), 0);
	assert_int_equal(favo_digest_of_fd(&three, fd_c, NULL), 0);
	assert_memory_equal(&one, &two, sizeof(one));
	assert_memory_equal(&one, &three, sizeof(one));
	assert_int_equal(fstat(fd_a, &st), 0);
	assert_int_equal((uint64_t)st.st_size, stats.bytes);
	assert_int_equal(stats.bytes % 4096, 0);
	scratch_free(dir);
}

/* fsck.erofs unpacks the image; that tree read back gives the same image. */
static void test_fsck_and_round_trip(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = make_tree(false), *back = NULL;
	favo_autoclose int fd = write_tree(tree, dir, NULL);
	favo_autofree char *command = NULL, *out = favo_asprintf("%s/out", dir);
	struct favo_inode *inode;
	struct favo_err err = {0};

	(void)state;
	if (!have_program("fsck.erofs")) {
		print_message("skipped: no fsck.erofs (erofs-utils)\n");
		scratch_free(dir);
		skip();
	}
	command = favo_asprintf("fsck.erofs /proc/%d/fd/%d >&2", getpid(), fd);
	assert_int_equal(system(command), 0);
	free(command);
	command = favo_asprintf("fsck.erofs --extract=%s /proc/%d/fd/%d >/dev/null 2>&1",
				out, getpid(), fd);
	if (geteuid() != 0) {
		print_message("skipped: unpacking device files needs root\n");
		scratch_free(dir);
		skip();
	}
	assert_int_equal(system(command), 0);
	assert_ok(favo_tree_load_dir(&back, out, &err), &err);
	inode = favo_tree_find(back, "files/size-1");
	assert_non_null(inode);
	assert_int_equal(inode->uid, 100000);
	assert_int_equal(inode->gid, 4000000000u);
	inode = favo_tree_find(back, "dev/large");
	assert_int_equal(inode->rdev_major, 259);
	assert_int_equal(inode->rdev_minor, 70000);
	assert_int_equal(favo_tree_find(back, "link")->size, 1);
	assert_int_equal(favo_tree_find(back, "files/hard")->size, 4097);
	/* fsck makes copies of hard links, leaves xattrs and loses setuid bits. */
	assert_int_equal(favo_tree_find(back, "big")->n_entries, 2000);
	for (size_t i = 0; i < 2000; i++) {
		char path[64];

		snprintf(path, sizeof(path), "big/name-of-an-entry-%zu", i);
		inode = favo_tree_find(back, path);
		assert_non_null(inode);
		assert_int_equal(inode->size, i % 7);
		assert_int_equal(inode->mtime, 1700000001);
	}
	scratch_free(dir);
}

/* Contents as the writer got them, byte by byte. */
static void test_contents(void **state)
{
	static const char *const names[] = {"files/size-1", "files/size-4096",
					    "files/size-4097", "files/size-100000",
					    "files/size-3145728"};
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = make_tree(false), *back = NULL;
	favo_autoclose int fd = write_tree(tree, dir, NULL);
	favo_autofree char *out = favo_asprintf("%s/out", dir);
	favo_autofree char *command =
		favo_asprintf("fsck.erofs --extract=%s /proc/%d/fd/%d >/dev/null 2>&1",
			      out, getpid(), fd);
	struct favo_err err = {0};

	(void)state;
	if (!have_program("fsck.erofs") || geteuid() != 0) {
		print_message("skipped: needs fsck.erofs and root\n");
		scratch_free(dir);
		skip();
	}
	assert_int_equal(system(command), 0);
	assert_ok(favo_tree_load_dir(&back, out, &err), &err);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++) {
		favo_autofree char *a = NULL, *b = NULL;
		size_t len_a, len_b;

		assert_ok(favo_tree_read_all(tree, favo_tree_find(tree, names[i]),
					     1 << 24, &a, &len_a, &err),
			  &err);
		assert_ok(favo_tree_read_all(back, favo_tree_find(back, names[i]),
					     1 << 24, &b, &len_b, &err),
			  &err);
		assert_int_equal(len_a, len_b);
		assert_memory_equal(a, b, len_a);
	}
	scratch_free(dir);
}

/*
 * The kernel's own driver, where this machine has it and a loop device: links
 * and attributes, which fsck.erofs does not unpack.
 */
static void test_kernel_mount(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = make_tree(false), *back = NULL;
	favo_autoclose int fd = write_tree(tree, dir, NULL), again = -1;
	favo_autofree char *mnt = favo_asprintf("%s/mnt", dir), *command = NULL;
	struct favo_digest one, two;
	struct favo_err err = {0};
	int status, ret;

	(void)state;
	assert_int_equal(mkdir(mnt, 0755), 0);
	command = favo_asprintf("cp /proc/%d/fd/%d %s/img && "
				"mount -o loop,ro -t erofs %s/img %s 2>/dev/null",
				getpid(), fd, dir, dir, mnt);
	if (geteuid() != 0 || system(command) != 0) {
		print_message("skipped: cannot mount EROFS here\n");
		scratch_free(dir);
		skip();
	}
	ret = favo_tree_load_dir(&back, mnt, &err);
	if (ret == 0)
		again = write_tree(back, dir, NULL);
	favo_tree_free(favo_steal_ptr(&back));
	free(command);
	command = favo_asprintf("umount %s", mnt);
	status = system(command);
	assert_int_equal(status, 0);
	assert_ok(ret, &err);
	assert_int_equal(favo_digest_of_fd(&one, fd, NULL), 0);
	assert_int_equal(favo_digest_of_fd(&two, again, NULL), 0);
	assert_memory_equal(&one, &two, sizeof(one));
	scratch_free(dir);
}

static void test_dedup_of_edited_tree(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *a = make_tree(false), *b = make_tree(false);
	struct favo_erofs_stats stats_a, stats_b;
	favo_autoclose int fd_a = write_tree(a, dir, &stats_a), fd_b = -1;
	favo_autofree char *data_a = NULL, *data_b = NULL;

	(void)state;
	/* A file more in front moves all data, which stays the same. */
	put_file(b, "a-new-file", 5000);
	fd_b = write_tree(b, dir, &stats_b);
	assert_int_equal(stats_b.data_bytes, stats_a.data_bytes + 8192);
	data_a = malloc(stats_a.data_bytes);
	data_b = malloc(stats_a.data_bytes);
	assert_int_equal(pread(fd_a, data_a, stats_a.data_bytes, 4096),
			 stats_a.data_bytes);
	assert_int_equal(pread(fd_b, data_b, stats_a.data_bytes, 4096 + 8192),
			 stats_a.data_bytes);
	assert_memory_equal(data_a, data_b, stats_a.data_bytes);
	scratch_free(dir);
}

/* Written, read and written again: the same bytes. */
static void test_read_back(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = make_tree(false), *back = NULL;
	struct favo_erofs_stats stats;
	struct favo_err err = {0};
	favo_autoclose int fd = write_tree(tree, dir, &stats), again = -1;
	struct favo_digest one, two;

	(void)state;
	assert_ok(favo_erofs_read(&back, dup(fd), stats.bytes, &err), &err);
	assert_int_equal(back->n_inodes, tree->n_inodes);
	assert_int_equal(favo_tree_find(back, "files/hard")->nlink, 3);
	again = write_tree(back, dir, NULL);
	assert_int_equal(favo_digest_of_fd(&one, fd, NULL), 0);
	assert_int_equal(favo_digest_of_fd(&two, again, NULL), 0);
	assert_memory_equal(&one, &two, sizeof(one));
	scratch_free(dir);
}

/* Any byte of the metadata may be wrong: an error or a tree, never more. */
static void test_read_damaged(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = make_tree(false);
	struct favo_erofs_stats stats;
	favo_autoclose int fd = write_tree(tree, dir, &stats);
	uint64_t meta = EROFS_BLOCK + stats.data_bytes;
	unsigned int refused = 0;

	(void)state;
	for (uint64_t i = 0; i < 600; i++) {
		struct favo_tree *back = NULL;
		struct favo_err err = {0};
		uint64_t at = i < 32 ? EROFS_SUPER_OFFSET + i
				     : meta + (i - 32) * 131 % (stats.bytes - meta);
		unsigned char byte, flipped;

		assert_int_equal(pread(fd, &byte, 1, (off_t)at), 1);
		flipped = byte ^ 0xff;
		assert_int_equal(pwrite(fd, &flipped, 1, (off_t)at), 1);
		if (favo_erofs_read(&back, dup(fd), stats.bytes, &err) < 0) {
			assert_true(strlen(err.msg) > 0);
			refused++;
		}
		favo_tree_free(back);
		assert_int_equal(pwrite(fd, &byte, 1, (off_t)at), 1);
	}
	assert_true(refused > 20);
	scratch_free(dir);
}

/* A folder that is below itself, and a file system that is cut short. */
static void test_read_refused(void **state)
{
	char *dir = scratch_dir();
	favo_autotree struct favo_tree *tree = NULL, *back = NULL;
	struct favo_inode *inode;
	struct favo_erofs_stats stats;
	struct favo_err err = {0};
	struct erofs_dirent entry;
	favo_autoclose int fd = -1;
	uint64_t at;

	(void)state;
	assert_ok(favo_tree_new(&tree, &err), &err);
	put(tree, "a", S_IFDIR | 0755, &inode);
	fd = write_tree(tree, dir, &stats);
	assert_int_equal(favo_erofs_read(&back, dup(fd), stats.bytes + 1, &err),
			 -EBADMSG);
	assert_int_equal(favo_erofs_read(&back, dup(fd), 100, &err), -EBADMSG);
	/* The root is the first inode; its third entry is "a". */
	at = EROFS_BLOCK + 2 * EROFS_SLOT + sizeof(struct erofs_inode);
	at += 2 * sizeof(entry);
	assert_int_equal(pread(fd, &entry, sizeof(entry), (off_t)at), sizeof(entry));
	entry.nid = 2;
	assert_int_equal(pwrite(fd, &entry, sizeof(entry), (off_t)at), sizeof(entry));
	assert_int_equal(favo_erofs_read(&back, dup(fd), stats.bytes, &err), -EBADMSG);
	assert_non_null(strstr(err.msg, "two names"));
	scratch_free(dir);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_same_tree_same_bytes),
		cmocka_unit_test(test_read_back),
		cmocka_unit_test(test_read_damaged),
		cmocka_unit_test(test_read_refused),
		cmocka_unit_test(test_fsck_and_round_trip),
		cmocka_unit_test(test_contents),
		cmocka_unit_test(test_kernel_mount),
		cmocka_unit_test(test_dedup_of_edited_tree),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
