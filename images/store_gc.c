// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Garbage collection of the store: mark from the names, sweep the rest.
 *
 * Every string of a kept manifest that is a digest keeps its blob, also in
 * members that this version does not know; the chunk index keeps its chunks.
 * When a manifest or an index cannot be read nothing at all is removed.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"
#include "images/index.h"
#include "images/store.h"
#include "images/store_internal.h"

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct favo_digest));
}

int favo_digest_set_add(struct favo_digest_set *set, const struct favo_digest *digest,
			struct favo_err *err)
{
	size_t size = set->size ? 2 * set->size : 1024;
	struct favo_digest *grown;

	if (set->n == set->size) {
		grown = reallocarray(set->digests, size, sizeof(*grown));
		if (!grown)
			return favo_fail(err, ENOMEM, "gc: out of memory");
		set->digests = grown;
		set->size = size;
	}
	set->digests[set->n++] = *digest;
	return 0;
}

void favo_digest_set_sort(struct favo_digest_set *set)
{
	if (set->n)
		qsort(set->digests, set->n, sizeof(*set->digests), compare);
}

bool favo_digest_set_has(const struct favo_digest_set *set,
			 const struct favo_digest *digest)
{
	return set->n && bsearch(digest, set->digests, set->n, sizeof(*digest), compare);
}

void favo_digest_set_fini(struct favo_digest_set *set)
{
	free(set->digests);
	*set = (struct favo_digest_set){0};
}

int favo_store_mark_json(struct favo_digest_set *blobs, const json_t *value,
			 struct favo_err *err)
{
	struct favo_digest digest;
	const json_t *item;
	const char *key;
	size_t i;
	int ret = 0;

	if (json_is_string(value)) {
		if (favo_digest_parse(&digest, json_string_value(value), NULL) == 0)
			ret = favo_digest_set_add(blobs, &digest, err);
	} else if (json_is_array(value)) {
		for (i = 0; ret == 0 && i < json_array_size(value); i++)
			ret = favo_store_mark_json(blobs, json_array_get(value, i), err);
	} else if (json_is_object(value)) {
		json_object_foreach((json_t *)value, key, item)
		{
			/* Digests of others, and whatever a container says. */
			if (strcmp(key, "source") == 0 || strcmp(key, "config") == 0)
				continue;
			ret = favo_store_mark_json(blobs, item, err);
			if (ret < 0)
				break;
		}
	}
	return ret;
}

int favo_store_mark_image(struct favo_store *store, struct favo_digest_set *blobs,
			  const struct favo_digest *id, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *manifest = NULL;
	favo_autoindex struct favo_index *index = NULL;
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret;

	if ((ret = favo_store_manifest(store, id, &manifest, err)) < 0 ||
	    (ret = favo_store_mark_json(blobs, manifest->json, err)) < 0 ||
	    (ret = favo_store_read_blob(store, &manifest->root.index, FAVO_BLOB_MAX,
					&data, &len, err)) < 0 ||
	    (ret = favo_index_parse(&index, data, len, manifest->root.bytes, err)) < 0)
		return ret;
	for (size_t i = 0; ret == 0 && i < index->n_chunks; i++)
		ret = favo_digest_set_add(blobs, &index->chunks[i].digest, err);
	return ret;
}

int favo_store_blobs(struct favo_store *store, const struct favo_digest *id,
		     struct favo_digest **blobs, size_t *n, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_digest_set set = {0};
	size_t count = 0;
	int ret = favo_store_manifest(store, id, &m, err);

	if (ret == 0)
		ret = favo_store_mark_image(store, &set, id, err);
	if (ret < 0) {
		favo_digest_set_fini(&set);
		return ret;
	}
	favo_digest_set_sort(&set);
	for (size_t i = 0; i < set.n; i++) {
		/* The parent is an image, not a blob. */
		if ((count &&
		     favo_digest_equal(&set.digests[i], &set.digests[count - 1])) ||
		    (m->has_parent && favo_digest_equal(&set.digests[i], &m->parent)))
			continue;
		set.digests[count++] = set.digests[i];
	}
	*blobs = set.digests;
	*n = count;
	return 0;
}

static int mark(struct favo_store *store, struct favo_digest_set *ids,
		struct favo_digest_set *blobs, struct favo_err *err)
{
	struct favo_store_ref *refs = NULL;
	size_t n = 0;
	int ret = favo_store_list(store, &refs, &n, err);

	for (size_t i = 0; ret == 0 && i < n; i++) {
		ret = favo_digest_set_add(ids, &refs[i].id, err);
		if (ret == 0)
			ret = favo_store_mark_image(store, blobs, &refs[i].id, err);
	}
	favo_store_refs_free(refs, n);
	favo_digest_set_sort(ids);
	favo_digest_set_sort(blobs);
	return ret;
}

/* Remove files of one folder whose digest is not in keep. */
static int sweep(struct favo_store *store, const char *path, const char *suffix,
		 const struct favo_digest_set *keep, size_t *count, uint64_t *bytes,
		 struct favo_err *err)
{
	int fd = openat(store->fd, path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	char hex[FAVO_DIGEST_HEX_SIZE];
	struct favo_digest digest;
	struct dirent *entry;
	struct stat st;

	if (!dir)
		return favo_fail(err, errno, "store %s: %s: %m", store->dir, path);
	while ((entry = readdir(dir))) {
		if (strlen(entry->d_name) != FAVO_DIGEST_HEX_SIZE - 1 + strlen(suffix) ||
		    strcmp(entry->d_name + FAVO_DIGEST_HEX_SIZE - 1, suffix) != 0)
			continue;
		memcpy(hex, entry->d_name, sizeof(hex) - 1);
		hex[sizeof(hex) - 1] = '\0';
		if (favo_digest_parse_hex(&digest, hex, NULL) < 0 ||
		    favo_digest_set_has(keep, &digest) ||
		    fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    unlinkat(fd, entry->d_name, 0) < 0)
			continue;
		*count += 1;
		*bytes += (uint64_t)st.st_size;
	}
	closedir(dir);
	return 0;
}

#define PUSH_KEPT_S 86400

/* Unfinished pushes that nobody went on with for a day. */
static void sweep_pushes(struct favo_store *store, struct favo_gc_stats *stats)
{
	int push = openat(store->fd, "push", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *owners = push < 0 ? NULL : fdopendir(push);
	struct dirent *owner, *file;
	struct stat st;

	while (owners && (owner = readdir(owners))) {
		int fd = owner->d_name[0] == '.'
				 ? -1
				 : openat(push, owner->d_name,
					  O_DIRECTORY | O_RDONLY | O_CLOEXEC);
		DIR *dir = fd < 0 ? NULL : fdopendir(fd);

		while (dir && (file = readdir(dir))) {
			if (fstatat(fd, file->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
			    !S_ISREG(st.st_mode) ||
			    st.st_mtime > time(NULL) - PUSH_KEPT_S ||
			    unlinkat(fd, file->d_name, 0) < 0)
				continue;
			stats->blobs++;
			stats->bytes += (uint64_t)st.st_size;
		}
		if (dir)
			closedir(dir);
		unlinkat(push, owner->d_name, AT_REMOVEDIR); /* when it is empty */
	}
	if (owners)
		closedir(owners);
}

static int collect(struct favo_store *store, struct favo_digest_set *ids,
		   struct favo_digest_set *blobs, struct favo_gc_stats *stats,
		   struct favo_err *err)
{
	size_t signatures = 0;
	char path[16];
	int ret = mark(store, ids, blobs, err);

	if (ret < 0)
		return favo_wrap(err, ret, "gc: nothing was removed");
	ret = sweep(store, "manifests", ".json", ids, &stats->manifests, &stats->bytes,
		    err);
	if (ret == 0)
		ret = sweep(store, "manifests", ".sig", ids, &signatures, &stats->bytes,
			    err);
	for (int i = 0; ret == 0 && i < 256; i++) {
		snprintf(path, sizeof(path), "blobs/%02x", i);
		ret = sweep(store, path, "", blobs, &stats->blobs, &stats->bytes, err);
	}
	if (ret == 0)
		sweep_pushes(store, stats);
	if (ret == 0 && favo_store_clean_tmp(store) < 0)
		ret = favo_fail(err, EIO, "store %s: tmp cannot be emptied", store->dir);
	return ret;
}

int favo_store_gc(struct favo_store *store, struct favo_gc_stats *stats,
		  struct favo_err *err)
{
	struct favo_digest_set ids = {0}, blobs = {0};
	struct favo_gc_stats removed = {0};
	favo_autoclose int lock = favo_store_lock(store, LOCK_EX, err);
	int ret;

	if (lock < 0)
		return lock;
	ret = collect(store, &ids, &blobs, &removed, err);
	favo_digest_set_fini(&ids);
	favo_digest_set_fini(&blobs);
	if (stats)
		*stats = removed;
	return ret;
}

/* ---- usage ---- */

/* Do both names begin with the same folder, or have none? */
static bool same_prefix(const char *a, const char *b)
{
	const char *slash_a = strchr(a, '/'), *slash_b = strchr(b, '/');

	if (!slash_a || !slash_b)
		return !slash_a && !slash_b;
	return slash_a - a == slash_b - b && strncmp(a, b, (size_t)(slash_a - a)) == 0;
}

static uint64_t blob_bytes(struct favo_store *store, int stage_fd,
			   const struct favo_digest *digest)
{
	char path[FAVO_BLOB_PATH_SIZE], hex[FAVO_DIGEST_HEX_SIZE];
	struct stat st;

	if (fstatat(store->fd, favo_store_blob_path(digest, path), &st, 0) < 0 &&
	    (stage_fd < 0 ||
	     fstatat(stage_fd, favo_digest_format_hex(digest, hex), &st, 0) < 0))
		return 0;
	return (uint64_t)st.st_size;
}

int favo_store_usage(struct favo_store *store, const struct favo_image_name *name,
		     const struct favo_digest_set *extra, int stage_fd, uint64_t *bytes,
		     struct favo_err *err)
{
	struct favo_digest_set set = {0};
	struct favo_store_ref *refs = NULL;
	size_t n = 0;
	int ret = favo_store_list(store, &refs, &n, err);

	for (size_t i = 0; ret == 0 && i < n; i++) {
		if (!same_prefix(refs[i].name, name->name) ||
		    (strcmp(refs[i].name, name->name) == 0 &&
		     strcmp(refs[i].tag, name->tag) == 0))
			continue;
		ret = favo_store_mark_image(store, &set, &refs[i].id, err);
	}
	favo_store_refs_free(refs, n);
	for (size_t i = 0; ret == 0 && extra && i < extra->n; i++)
		ret = favo_digest_set_add(&set, &extra->digests[i], err);
	favo_digest_set_sort(&set);
	*bytes = 0;
	for (size_t i = 0; ret == 0 && i < set.n; i++)
		if (i == 0 || !favo_digest_equal(&set.digests[i], &set.digests[i - 1]))
			*bytes += blob_bytes(store, stage_fd, &set.digests[i]);
	favo_digest_set_fini(&set);
	return ret;
}
