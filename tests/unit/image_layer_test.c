// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Layers of container images: whiteouts, opaque folders and links across
 * layers when they are merged; compression, digests and limits when they are
 * read.
 */
#include "images/layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <sys/stat.h>

#include "tests/unit/images_util.h"

#define TAR_MAX (64u << 20)

struct member {
	const char *path;
	mode_t type;
	const char *data; /* content, or target of a symlink or hard link ("=x") */
};

struct bytes {
	unsigned char *data;
	size_t len, at;
	size_t step; /* most bytes that one read gives; 0: all */
};

static ssize_t read_bytes(void *user, void *buf, size_t len, struct favo_err *err)
{
	struct bytes *bytes = user;

	(void)err;
	len = FAVO_MIN(len, bytes->len - bytes->at);
	if (bytes->step)
		len = FAVO_MIN(len, bytes->step);
	memcpy(buf, bytes->data + bytes->at, len);
	bytes->at += len;
	return (ssize_t)len;
}

/* A tar of the members, packed with a filter of libarchive (NULL: plain). */
static struct bytes make_tar(const struct member *members, size_t n, const char *filter)
{
	struct bytes bytes = {.data = malloc(TAR_MAX)};
	struct archive *archive = archive_write_new();

	archive_write_set_format_pax_restricted(archive);
	archive_write_set_bytes_in_last_block(archive, 1);
	if (filter)
		assert_int_equal(archive_write_add_filter_by_name(archive, filter),
				 ARCHIVE_OK);
	assert_int_equal(archive_write_open_memory(archive, bytes.data, TAR_MAX,
						   &bytes.len),
			 ARCHIVE_OK);
	for (size_t i = 0; i < n; i++) {
		struct archive_entry *entry = archive_entry_new();
		const char *data = members[i].data ? members[i].data : "";

		archive_entry_set_pathname(entry, members[i].path);
		archive_entry_set_mode(entry, members[i].type | 0755);
		archive_entry_set_mtime(entry, 1234567890, 0);
		if (data[0] == '=')
			archive_entry_set_hardlink(entry, data + 1);
		else if (S_ISLNK(members[i].type))
			archive_entry_set_symlink(entry, data);
		else if (S_ISREG(members[i].type))
			archive_entry_set_size(entry, (la_int64_t)strlen(data));
		assert_int_equal(archive_write_header(archive, entry), ARCHIVE_OK);
		if (S_ISREG(members[i].type) && data[0] != '=')
			archive_write_data(archive, data, strlen(data));
		archive_entry_free(entry);
	}
	assert_int_equal(archive_write_close(archive), ARCHIVE_OK);
	archive_write_free(archive);
	return bytes;
}

struct world {
	struct favo_tree *tree;
	struct favo_spool spool;
};

static void world_open(struct world *w)
{
	struct favo_err err = {0};

	assert_ok(favo_tree_new(&w->tree, &err), &err);
	assert_ok(favo_spool_open(&w->spool, "/tmp", 1u << 20, 1000, &err), &err);
	w->tree->spool_fd = w->spool.fd;
}

static int put_layer(struct world *w, const struct member *members, size_t n,
		     struct favo_err *err)
{
	struct bytes bytes = make_tar(members, n, NULL);
	favo_autotree struct favo_tree *layer = NULL;
	int ret = favo_tree_load_layer(&layer, read_bytes, &bytes, &w->spool, err);

	if (ret == 0)
		ret = favo_tree_merge(w->tree, layer, err);
	free(bytes.data);
	return ret;
}

#define PUT(w, ...)                                                                      \
	do {                                                                             \
		static const struct member put_[] = {__VA_ARGS__};                       \
		struct favo_err put_err_ = {0};                                          \
                                                                                         \
		assert_ok(put_layer(w, put_, FAVO_ARRAY_SIZE(put_), &put_err_),          \
			  &put_err_);                                                    \
	} while (0)

static void assert_text(const struct world *w, const char *path, const char *wanted)
{
	const struct favo_inode *inode = favo_tree_find(w->tree, path);
	favo_autofree char *data = NULL;
	struct favo_err err = {0};
	size_t len;

	if (!wanted) {
		assert_null(inode);
		return;
	}
	assert_non_null(inode);
	assert_ok(favo_tree_read_all(w->tree, inode, 1000, &data, &len, &err), &err);
	assert_string_equal(data, wanted);
}

static void test_whiteouts(void **state)
{
	struct world w;

	(void)state;
	world_open(&w);
	PUT(&w, {"a/", S_IFDIR, NULL}, {"a/one", S_IFREG, "1"}, {"a/two", S_IFREG, "2"},
	    {"a/sub/", S_IFDIR, NULL}, {"a/sub/x", S_IFREG, "x"}, {"b/", S_IFDIR, NULL},
	    {"b/old", S_IFREG, "old"}, {"b/olddir/x", S_IFREG, "x"}, {"f", S_IFREG, "f"},
	    {"g", S_IFREG, "g"});
	PUT(&w, {"a/.wh.one", S_IFREG, ""}, {"a/.wh.sub", S_IFREG, ""},
	    {"a/sub/new", S_IFREG, "new"}, {"b/fresh", S_IFREG, "fresh"},
	    {"b/.wh..wh..opq", S_IFREG, ""}, {".wh.f", S_IFREG, ""},
	    {".wh.absent", S_IFREG, ""}, {"g", S_IFREG, "G"}, {".wh.g", S_IFREG, ""},
	    {"a/.wh..wh.aufs", S_IFREG, "meta"});
	assert_text(&w, "a/one", NULL);
	assert_text(&w, "a/two", "2");
	assert_text(&w, "a/sub/x", NULL);
	assert_text(&w, "a/sub/new", "new");
	assert_text(&w, "b/old", NULL);
	assert_null(favo_tree_find(w.tree, "b/olddir"));
	assert_text(&w, "b/fresh", "fresh");
	assert_text(&w, "f", NULL);
	/* A mark behind the file of the same layer does not concern it. */
	assert_text(&w, "g", "G");
	assert_null(favo_tree_find(w.tree, "absent"));
	assert_null(favo_tree_find(w.tree, "a/.wh..wh.aufs"));
	/* Nothing of the marks is left: the next layer is put above plain folders. */
	PUT(&w, {"a/sub/more", S_IFREG, "more"});
	assert_text(&w, "a/sub/new", "new");
	favo_tree_free(w.tree);
}

static void test_kinds(void **state)
{
	struct favo_inode *dir;
	struct world w;

	(void)state;
	world_open(&w);
	PUT(&w, {"d/", S_IFDIR, NULL}, {"d/x", S_IFREG, "x"}, {"f", S_IFREG, "f"},
	    {"l", S_IFLNK, "d"}, {"m", S_IFLNK, "d"});
	dir = favo_tree_find(w.tree, "d");
	dir->mode = S_IFDIR | 0700;
	/* A folder that is not listed keeps its metadata. */
	PUT(&w, {"d/y", S_IFREG, "y"});
	assert_int_equal(favo_tree_find(w.tree, "d")->mode, S_IFDIR | 0700);
	assert_text(&w, "d/x", "x");
	PUT(&w, {"d", S_IFREG, "now a file"}, {"f/", S_IFDIR, NULL},
	    {"f/z", S_IFREG, "z"}, {"l/", S_IFDIR, NULL}, {".wh.m", S_IFREG, ""},
	    {"m/q", S_IFREG, "q"});
	assert_text(&w, "d", "now a file");
	assert_text(&w, "f/z", "z");
	assert_true(S_ISDIR(favo_tree_find(w.tree, "l")->mode));
	assert_text(&w, "m/q", "q");
	favo_tree_free(w.tree);
}

static void test_links(void **state)
{
	struct favo_inode *a;
	struct world w;

	(void)state;
	world_open(&w);
	PUT(&w, {"a", S_IFREG, "text"}, {"b", S_IFREG, "=a"}, {"c", S_IFREG, "=a"});
	assert_int_equal(favo_tree_find(w.tree, "a")->nlink, 3);
	/* One name changes, another is hidden, and a third one comes from below. */
	PUT(&w, {".wh.b", S_IFREG, ""}, {"a", S_IFREG, "other"}, {"e/new", S_IFREG, "=c"},
	    {"e/newer", S_IFREG, "=e/new"}, {".wh.c", S_IFREG, ""});
	assert_text(&w, "a", "other");
	assert_text(&w, "b", NULL);
	assert_text(&w, "c", NULL);
	assert_text(&w, "e/new", "text");
	a = favo_tree_find(w.tree, "e/new");
	assert_ptr_equal(a, favo_tree_find(w.tree, "e/newer"));
	assert_int_equal(a->nlink, 2);
	favo_tree_free(w.tree);
}

static void test_refused(void **state)
{
	static const struct {
		struct member lower, upper;
		int code;
	} cases[] = {
		{{"l", S_IFLNK, "/tmp"}, {"l/evil", S_IFREG, "x"}, ELOOP},
		{{"l", S_IFREG, "f"}, {"l/evil", S_IFREG, "x"}, ENOTDIR},
		{{"l", S_IFREG, "f"}, {"../evil", S_IFREG, "x"}, EINVAL},
		{{"l", S_IFREG, "f"}, {"x", S_IFREG, "=../../etc/passwd"}, EINVAL},
		{{"l", S_IFREG, "f"}, {"x", S_IFREG, "=etc/passwd"}, ENOENT},
		{{"d/", S_IFDIR, NULL}, {"x", S_IFREG, "=d"}, EINVAL},
		{{"l", S_IFLNK, "d"}, {"x", S_IFREG, "=l/y"}, ELOOP},
		{{"l", S_IFREG, "f"}, {".wh.", S_IFREG, ""}, EBADMSG},
		{{"l", S_IFREG, "f"}, {".wh..", S_IFREG, ""}, EBADMSG},
		{{"l", S_IFREG, "f"}, {"a/.wh...", S_IFREG, ""}, EINVAL},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		struct favo_err err = {0};
		struct world w;

		world_open(&w);
		assert_ok(put_layer(&w, &cases[i].lower, 1, &err), &err);
		assert_int_equal(put_layer(&w, &cases[i].upper, 1, &err), -cases[i].code);
		assert_true(err.msg[0]);
		favo_tree_free(w.tree);
	}
}

static void test_limits(void **state)
{
	static const struct member three[] = {
		{"a", S_IFREG, "12345"}, {"b", S_IFREG, "12345"}, {"c", S_IFREG, "1"}};
	struct favo_err err = {0};
	struct world w;

	(void)state;
	world_open(&w);
	w.spool.max_bytes = 10;
	assert_int_equal(put_layer(&w, three, 3, &err), -EFBIG);
	favo_tree_free(w.tree);
	world_open(&w);
	w.spool.max_members = 2;
	assert_int_equal(put_layer(&w, three, 3, &err), -E2BIG);
	favo_tree_free(w.tree);
}

/* ---- reading ---- */

static int load(struct bytes *bytes, const struct favo_digest *diff_id,
		struct favo_spool *spool, struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	struct favo_layer_source source = {.read = read_bytes,
					   .user = bytes,
					   .has_digest = true,
					   .size = bytes->len,
					   .diff_id = *diff_id};

	bytes->at = 0;
	assert_ok(favo_digest_of(&source.digest, bytes->data, bytes->len, err), err);
	return favo_layer_load(&tree, &source, spool, err);
}

static void test_forms(void **state)
{
	static const char *const filters[] = {NULL, "gzip", "zstd"};
	favo_autofree char *text = malloc(3000001);
	struct member members[] = {{"big", S_IFREG, text}, {"small", S_IFREG, "x"}};
	struct favo_digest diff_id;
	struct favo_err err = {0};
	struct world w;

	(void)state;
	for (size_t i = 0; i < 3000000; i++)
		text[i] = (char)('a' + i % 26 * (i / 1000) % 26);
	text[3000000] = '\0';
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(filters); i++) {
		struct bytes bytes = make_tar(members, 2, filters[i]);

		if (!filters[i])
			assert_ok(favo_digest_of(&diff_id, bytes.data, bytes.len, &err),
				  &err);
		world_open(&w);
		w.spool.max_bytes = 100u << 20;
		bytes.step = i * 777;
		assert_ok(load(&bytes, &diff_id, &w.spool, &err), &err);
		/* The whole stream counts: cut, followed by more, another tar. */
		bytes.len -= 10;
		assert_int_equal(load(&bytes, &diff_id, &w.spool, &err), -EBADMSG);
		bytes.len += 10;
		memset(bytes.data + bytes.len, 7, 100);
		bytes.len += 100;
		assert_int_equal(load(&bytes, &diff_id, &w.spool, &err), -EBADMSG);
		bytes.len -= 100;
		diff_id.bytes[5] ^= 1;
		assert_int_equal(load(&bytes, &diff_id, &w.spool, &err), -EBADMSG);
		diff_id.bytes[5] ^= 1;
		w.spool.stop = true;
		assert_int_equal(load(&bytes, &diff_id, &w.spool, &err), -ECANCELED);
		free(bytes.data);
		favo_tree_free(w.tree);
	}
}

/* Two gzip members, one behind the other, are one stream. */
static void test_gzip_members(void **state)
{
	static const struct member first[] = {{"a", S_IFREG, "first"}};
	struct bytes plain = make_tar(first, 1, NULL), packed = {.data = malloc(TAR_MAX)};
	struct favo_digest diff_id;
	struct favo_err err = {0};
	struct world w;

	(void)state;
	assert_ok(favo_digest_of(&diff_id, plain.data, plain.len, &err), &err);
	for (size_t part = 0; part < 2; part++) {
		struct archive *archive = archive_write_new();
		struct archive_entry *entry = archive_entry_new();
		size_t used = 0, half = plain.len / 2;

		archive_write_set_format_raw(archive);
		archive_write_add_filter_gzip(archive);
		archive_write_set_bytes_in_last_block(archive, 1);
		archive_write_open_memory(archive, packed.data + packed.len, TAR_MAX / 2,
					  &used);
		archive_entry_set_filetype(entry, AE_IFREG);
		archive_write_header(archive, entry);
		archive_write_data(archive, plain.data + part * half,
				   part ? plain.len - half : half);
		archive_write_close(archive);
		archive_entry_free(entry);
		archive_write_free(archive);
		packed.len += used;
	}
	world_open(&w);
	assert_ok(load(&packed, &diff_id, &w.spool, &err), &err);
	packed.step = 1;
	assert_ok(load(&packed, &diff_id, &w.spool, &err), &err);
	favo_tree_free(w.tree);
	free(plain.data);
	free(packed.data);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_whiteouts),    cmocka_unit_test(test_kinds),
		cmocka_unit_test(test_links),	     cmocka_unit_test(test_refused),
		cmocka_unit_test(test_limits),	     cmocka_unit_test(test_forms),
		cmocka_unit_test(test_gzip_members),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
