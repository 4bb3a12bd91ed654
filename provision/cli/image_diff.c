// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo image diff: what became of the files between two images, and what of
 * their bytes the store has only once. Files are compared by their bytes;
 * times alone are counted, not listed.
 */
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/cli/image_export.h"

#define COPY_SIZE (1024 * 1024)

struct diff {
	const struct favo_tree *a, *b;
	json_t *added, *removed, *changed;
	uint64_t times; /* that differ, of files that do not otherwise */
	uint64_t added_bytes, removed_bytes;
	char *buf_a, *buf_b;
	char path[PATH_MAX];
};

/* ---- files ---- */

static int note(json_t *list, json_t *entry, struct favo_err *err)
{
	return entry && json_array_append_new(list, entry) == 0
		       ? 0
		       : favo_fail(err, ENOMEM, "out of memory");
}

/* Names are bytes; JSON wants UTF-8. */
static json_t *path_json(const char *path)
{
	json_t *text = json_string(path);
	char *copy;

	if (text)
		return text;
	copy = strdup(path);
	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p >= 0x80)
			*p = '?';
	text = json_string(copy ? copy : "?");
	free(copy);
	return text;
}

static uint64_t size_of(const struct favo_inode *inode)
{
	return S_ISREG(inode->mode) ? inode->size : 0;
}

static int note_one(struct diff *d, bool is_new, const struct favo_inode *inode,
		    struct favo_err *err)
{
	uint64_t *bytes = is_new ? &d->added_bytes : &d->removed_bytes;

	*bytes += size_of(inode);
	return note(is_new ? d->added : d->removed,
		    json_pack("{s:o, s:I}", "path", path_json(d->path), "size",
			      (json_int_t)size_of(inode)),
		    err);
}

static bool same_xattrs(const struct favo_inode *a, const struct favo_inode *b)
{
	if (a->n_xattrs != b->n_xattrs)
		return false;
	/* Both come from an image, where they are sorted. */
	for (size_t i = 0; i < a->n_xattrs; i++)
		if (strcmp(a->xattrs[i].name, b->xattrs[i].name) != 0 ||
		    a->xattrs[i].len != b->xattrs[i].len ||
		    memcmp(a->xattrs[i].value, b->xattrs[i].value, a->xattrs[i].len) != 0)
			return false;
	return true;
}

/* 1: the same bytes; 0: not; or -errno. */
static int same_content(struct diff *d, const struct favo_inode *a,
			const struct favo_inode *b, struct favo_err *err)
{
	int ret = 0;

	if (a->size != b->size)
		return 0;
	if (S_ISLNK(a->mode))
		return strcmp(a->data, b->data) == 0;
	if (S_ISCHR(a->mode) || S_ISBLK(a->mode))
		return a->rdev_major == b->rdev_major && a->rdev_minor == b->rdev_minor;
	for (uint64_t at = 0; S_ISREG(a->mode) && at < a->size; at += COPY_SIZE) {
		size_t len = (size_t)FAVO_MIN(a->size - at, (uint64_t)COPY_SIZE);

		ret = favo_tree_read(d->a, a, d->buf_a, len, at, err);
		if (ret == 0)
			ret = favo_tree_read(d->b, b, d->buf_b, len, at, err);
		if (ret < 0)
			return ret;
		if (memcmp(d->buf_a, d->buf_b, len) != 0)
			return 0;
	}
	return 1;
}

static int compare(struct diff *d, const struct favo_inode *a, const struct favo_inode *b,
		   struct favo_err *err)
{
	const char *what = NULL;
	int same;

	if ((a->mode & S_IFMT) != (b->mode & S_IFMT)) {
		what = "type";
	} else {
		same = same_content(d, a, b, err);
		if (same < 0)
			return favo_wrap(err, same, "%s", d->path);
		if (!same)
			what = "content";
		else if (a->mode != b->mode || a->uid != b->uid || a->gid != b->gid)
			what = "owner or mode";
		else if (!same_xattrs(a, b))
			what = "attributes";
	}
	if (!what) {
		d->times += a->mtime != b->mtime || a->mtime_ns != b->mtime_ns;
		return 0;
	}
	return note(d->changed,
		    json_pack("{s:o, s:s, s:I, s:I}", "path", path_json(d->path), "what",
			      what, "old_size", (json_int_t)size_of(a), "new_size",
			      (json_int_t)size_of(b)),
		    err);
}

static int walk(struct diff *d, const struct favo_inode *a, const struct favo_inode *b,
		size_t len, struct favo_err *err);

/* One name, in one of the two folders or in both. */
static int visit(struct diff *d, const struct favo_inode *a, const struct favo_inode *b,
		 const char *name, size_t len, struct favo_err *err)
{
	int n = snprintf(d->path + len, sizeof(d->path) - len, "%s%s", len ? "/" : "",
			 name);
	const struct favo_inode *dir_a = a && S_ISDIR(a->mode) ? a : NULL;
	const struct favo_inode *dir_b = b && S_ISDIR(b->mode) ? b : NULL;
	int ret;

	if ((size_t)n >= sizeof(d->path) - len)
		return favo_fail(err, ENAMETOOLONG, "a path is too long");
	ret = a && b ? compare(d, a, b, err) : note_one(d, b, b ? b : a, err);
	if (ret == 0 && (dir_a || dir_b))
		ret = walk(d, dir_a, dir_b, len + (size_t)n, err);
	d->path[len] = '\0';
	return ret;
}

/* Entries of both folders, each NULL when there is none, in byte order. */
static int walk(struct diff *d, const struct favo_inode *a, const struct favo_inode *b,
		size_t len, struct favo_err *err)
{
	size_t i = 0, k = 0;
	int ret = 0, order;

	while (ret == 0) {
		const struct favo_dentry *left =
			a && i < a->n_entries ? &a->entries[i] : NULL;
		const struct favo_dentry *right =
			b && k < b->n_entries ? &b->entries[k] : NULL;

		if (!left && !right)
			break;
		order = !left ? 1 : !right ? -1 : strcmp(left->name, right->name);
		ret = visit(d, order <= 0 ? left->inode : NULL,
			    order >= 0 ? right->inode : NULL,
			    order <= 0 ? left->name : right->name, len, err);
		i += order <= 0;
		k += order >= 0;
	}
	return ret;
}

/* ---- chunks ---- */

static int compare_chunks(const void *a, const void *b)
{
	return memcmp(((const struct favo_chunk *)a)->digest.bytes,
		      ((const struct favo_chunk *)b)->digest.bytes, FAVO_DIGEST_LEN);
}

/* Each chunk once, sorted. */
static int load_chunks(struct favo_index **out, struct favo_cli_image *image,
		       struct favo_err *err)
{
	struct favo_index *index;
	size_t n = 0;
	int ret = favo_export_index(out, &image->export, err);

	if (ret < 0)
		return ret;
	index = *out;
	if (index->n_chunks)
		qsort(index->chunks, index->n_chunks, sizeof(*index->chunks),
		      compare_chunks);
	for (size_t i = 0; i < index->n_chunks; i++)
		if (i == 0 ||
		    compare_chunks(&index->chunks[n - 1], &index->chunks[i]) != 0)
			index->chunks[n++] = index->chunks[i];
	index->n_chunks = n;
	return 0;
}

static int chunks_json(json_t **out, struct favo_cli_image *a, struct favo_cli_image *b,
		       struct favo_err *err)
{
	favo_autoindex struct favo_index *left = NULL, *right = NULL;
	/* of a alone, of b alone, of both */
	uint64_t n[3] = {0}, bytes[3] = {0};
	int ret = load_chunks(&left, a, err);
	int order;

	if (ret == 0)
		ret = load_chunks(&right, b, err);
	if (ret < 0)
		return ret;
	for (size_t i = 0, k = 0; i < left->n_chunks || k < right->n_chunks;) {
		const struct favo_chunk *chunk;
		int which;

		order = i == left->n_chunks ? 1
			: k == right->n_chunks
				? -1
				: compare_chunks(&left->chunks[i], &right->chunks[k]);
		chunk = order <= 0 ? &left->chunks[i] : &right->chunks[k];
		which = order < 0 ? 0 : order > 0 ? 1 : 2;
		n[which]++;
		bytes[which] += chunk->length;
		i += order <= 0;
		k += order >= 0;
	}
	*out = json_pack("{s:I, s:I, s:I, s:I, s:I, s:I}", "shared", (json_int_t)n[2],
			 "shared_bytes", (json_int_t)bytes[2], "old", (json_int_t)n[0],
			 "old_bytes", (json_int_t)bytes[0], "new", (json_int_t)n[1],
			 "new_bytes", (json_int_t)bytes[1]);
	return *out ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

/* ---- output ---- */

static uint64_t number(const json_t *obj, const char *key)
{
	return (uint64_t)json_integer_value(json_object_get(obj, key));
}

/* Names may hold anything: no control characters to the terminal. */
static void print_path(const json_t *entry)
{
	for (const char *p = json_string_value(json_object_get(entry, "path")); p && *p;
	     p++)
		putchar((unsigned char)*p < 0x20 || *p == 0x7f ? '?' : *p);
}

static void print_list(char sign, const json_t *list)
{
	const json_t *entry;
	char size[32];
	size_t i;

	json_array_foreach(list, i, entry)
	{
		printf("%c ", sign);
		print_path(entry);
		printf("  %s\n",
		       favo_format_size(size, sizeof(size), number(entry, "size")));
	}
}

static void print_changed(const json_t *list)
{
	const json_t *entry;
	char a[32], b[32];
	size_t i;

	json_array_foreach(list, i, entry)
	{
		const char *what = json_string_value(json_object_get(entry, "what"));

		printf("~ ");
		print_path(entry);
		if (strcmp(what, "content") == 0)
			printf("  %s -> %s\n",
			       favo_format_size(a, sizeof(a), number(entry, "old_size")),
			       favo_format_size(b, sizeof(b), number(entry, "new_size")));
		else
			printf("  %s\n", what);
	}
}

static void print_diff(const struct diff *d, const json_t *chunks)
{
	char a[32], b[32], c[32];

	print_list('-', d->removed);
	print_list('+', d->added);
	print_changed(d->changed);
	printf("files   %zu added (%s), %zu removed (%s), %zu changed, %ju with other "
	       "times only\n",
	       json_array_size(d->added), favo_format_size(a, sizeof(a), d->added_bytes),
	       json_array_size(d->removed),
	       favo_format_size(b, sizeof(b), d->removed_bytes),
	       json_array_size(d->changed), (uintmax_t)d->times);
	printf("chunks  %ju in both (%s), %ju only in the first (%s), %ju only in the "
	       "second (%s)\n",
	       (uintmax_t)number(chunks, "shared"),
	       favo_format_size(a, sizeof(a), number(chunks, "shared_bytes")),
	       (uintmax_t)number(chunks, "old"),
	       favo_format_size(b, sizeof(b), number(chunks, "old_bytes")),
	       (uintmax_t)number(chunks, "new"),
	       favo_format_size(c, sizeof(c), number(chunks, "new_bytes")));
}

static int print_json(const struct diff *d, json_t *chunks, struct favo_err *err)
{
	favo_autojson json_t *all =
		json_pack("{s:O, s:O, s:O, s:I, s:O}", "added", d->added, "removed",
			  d->removed, "changed", d->changed, "times",
			  (json_int_t)d->times, "chunks", chunks);

	return all ? favo_cli_print_json(all, err)
		   : favo_fail(err, ENOMEM, "out of memory");
}

static int diff_images(struct favo_cli *cli, const char *name_a, const char *name_b,
		       bool json, struct favo_err *err)
{
	favo_autoimage struct favo_cli_image a = {0}, b = {0};
	favo_autotree struct favo_tree *tree_a = NULL, *tree_b = NULL;
	favo_autojson json_t *added = json_array(), *removed = json_array();
	favo_autojson json_t *changed = json_array(), *chunks = NULL;
	favo_autofree char *buf = malloc(2 * COPY_SIZE);
	struct diff d = {.added = added, .removed = removed, .changed = changed};
	int ret;

	if (!added || !removed || !changed || !buf)
		return favo_fail(err, ENOMEM, "out of memory");
	if ((ret = favo_cli_image_open(cli, name_a, &a, err)) < 0 ||
	    (ret = favo_cli_image_open(cli, name_b, &b, err)) < 0 ||
	    (ret = chunks_json(&chunks, &a, &b, err)) < 0 ||
	    (ret = favo_export_tree(&tree_a, &a.export, favo_cli_spool_dir(), err)) < 0 ||
	    (ret = favo_export_tree(&tree_b, &b.export, favo_cli_spool_dir(), err)) < 0)
		return ret;
	d.a = tree_a;
	d.b = tree_b;
	d.buf_a = buf;
	d.buf_b = buf + COPY_SIZE;
	ret = walk(&d, tree_a->root, tree_b->root, 0, err);
	if (ret < 0)
		return ret;
	if (json)
		return print_json(&d, chunks, err);
	print_diff(&d, chunks);
	return 0;
}

int favo_cli_image_diff(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args {
		bool json;
	} args = {0};
	static const struct favo_opt rows[] = {
		FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
	};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] OLD NEW",
		.about = "What differs between two images: files that were added (+), "
			 "removed (-) or changed (~), and how many chunks they share.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 2, 2, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	return diff_images(cli, argv[first], argv[first + 1], args.json, err);
}
