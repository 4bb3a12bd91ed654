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
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/util.h"
#include "images/index.h"
#include "images/store.h"
#include "images/store_internal.h"

struct digest_set {
	struct favo_digest *digests;
	size_t n, size;
};

static int compare(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct favo_digest));
}

static int set_add(struct digest_set *set, const struct favo_digest *digest,
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

static void set_sort(struct digest_set *set)
{
	if (set->n)
		qsort(set->digests, set->n, sizeof(*set->digests), compare);
}

static bool set_has(const struct digest_set *set, const struct favo_digest *digest)
{
	return set->n && bsearch(digest, set->digests, set->n, sizeof(*digest), compare);
}

static int mark_json(struct digest_set *blobs, const json_t *value, struct favo_err *err)
{
	struct favo_digest digest;
	const json_t *item;
	const char *key;
	size_t i;
	int ret = 0;

	if (json_is_string(value)) {
		if (favo_digest_parse(&digest, json_string_value(value), NULL) == 0)
			ret = set_add(blobs, &digest, err);
	} else if (json_is_array(value)) {
		for (i = 0; ret == 0 && i < json_array_size(value); i++)
			ret = mark_json(blobs, json_array_get(value, i), err);
	} else if (json_is_object(value)) {
		json_object_foreach((json_t *)value, key, item)
		{
			ret = mark_json(blobs, item, err);
			if (ret < 0)
				break;
		}
	}
	return ret;
}

static int mark_image(struct favo_store *store, struct digest_set *blobs,
		      const struct favo_digest *id, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *manifest = NULL;
	favo_autoindex struct favo_index *index = NULL;
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret;

	if ((ret = favo_store_manifest(store, id, &manifest, err)) < 0 ||
	    (ret = mark_json(blobs, manifest->json, err)) < 0 ||
	    (ret = favo_store_read_blob(store, &manifest->root.index, FAVO_BLOB_MAX,
					&data, &len, err)) < 0 ||
	    (ret = favo_index_parse(&index, data, len, manifest->root.bytes, err)) < 0)
		return ret;
	for (size_t i = 0; ret == 0 && i < index->n_chunks; i++)
		ret = set_add(blobs, &index->chunks[i].digest, err);
	return ret;
}

static int mark(struct favo_store *store, struct digest_set *ids,
		struct digest_set *blobs, struct favo_err *err)
{
	struct favo_store_ref *refs = NULL;
	size_t n = 0;
	int ret = favo_store_list(store, &refs, &n, err);

	for (size_t i = 0; ret == 0 && i < n; i++) {
		ret = set_add(ids, &refs[i].id, err);
		if (ret == 0)
			ret = mark_image(store, blobs, &refs[i].id, err);
	}
	favo_store_refs_free(refs, n);
	set_sort(ids);
	set_sort(blobs);
	return ret;
}

/* Remove files of one folder whose digest is not in keep. */
static int sweep(struct favo_store *store, const char *path, const char *suffix,
		 const struct digest_set *keep, size_t *count, uint64_t *bytes,
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
		    set_has(keep, &digest) ||
		    fstatat(fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0 ||
		    unlinkat(fd, entry->d_name, 0) < 0)
			continue;
		*count += 1;
		*bytes += (uint64_t)st.st_size;
	}
	closedir(dir);
	return 0;
}

static int collect(struct favo_store *store, struct digest_set *ids,
		   struct digest_set *blobs, struct favo_gc_stats *stats,
		   struct favo_err *err)
{
	char path[16];
	int ret = mark(store, ids, blobs, err);

	if (ret < 0)
		return favo_wrap(err, ret, "gc: nothing was removed");
	ret = sweep(store, "manifests", ".json", ids, &stats->manifests, &stats->bytes,
		    err);
	for (int i = 0; ret == 0 && i < 256; i++) {
		snprintf(path, sizeof(path), "blobs/%02x", i);
		ret = sweep(store, path, "", blobs, &stats->blobs, &stats->bytes, err);
	}
	if (ret == 0 && favo_store_clean_tmp(store) < 0)
		ret = favo_fail(err, EIO, "store %s: tmp cannot be emptied", store->dir);
	return ret;
}

int favo_store_gc(struct favo_store *store, struct favo_gc_stats *stats,
		  struct favo_err *err)
{
	struct digest_set ids = {0}, blobs = {0};
	struct favo_gc_stats removed = {0};
	favo_autoclose int lock = favo_store_lock(store, LOCK_EX, err);
	int ret;

	if (lock < 0)
		return lock;
	ret = collect(store, &ids, &blobs, &removed, err);
	free(ids.digests);
	free(blobs.digests);
	if (stats)
		*stats = removed;
	return ret;
}
