// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Pushes of users; see stage.h. Bytes come from the network: a blob counts
 * when its content has the digest, a manifest when it is one and all of its
 * blobs are there. The order of publishing is that of a transaction
 * (store.c): blobs, sync, manifest, name.
 */
#include "images/stage.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/store_internal.h"

struct favo_stage {
	struct favo_store *store;
	int lock_fd;
	int dir_fd; /* push/OWNER */
	uint64_t used, limit;
};

#define NAME_SIZE (FAVO_DIGEST_HEX_SIZE + 8)

static char *file_name(const struct favo_digest *digest, const char *suffix,
		       char name[NAME_SIZE])
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	snprintf(name, NAME_SIZE, "%s%s", favo_digest_format_hex(digest, hex), suffix);
	return name;
}

/* Bytes of all files; what a killed favod left half-written goes. */
static void measure(struct favo_stage *stage)
{
	DIR *dir = fdopendir(fcntl(stage->dir_fd, F_DUPFD_CLOEXEC, 0));
	struct dirent *entry;
	struct stat st;

	if (!dir)
		return;
	rewinddir(dir);
	while ((entry = readdir(dir)))
		if (fstatat(stage->dir_fd, entry->d_name, &st, AT_SYMLINK_NOFOLLOW) ==
			    0 &&
		    S_ISREG(st.st_mode))
			stage->used += (uint64_t)st.st_size;
	closedir(dir);
}

int favo_stage_open(struct favo_stage **out, struct favo_store *store, const char *owner,
		    uint64_t limit, struct favo_err *err)
{
	favo_autostage struct favo_stage *stage = calloc(1, sizeof(*stage));
	favo_autofree char *path = favo_asprintf("push/%s", owner);

	if (!stage || !path)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	stage->store = store;
	stage->limit = limit;
	stage->lock_fd = stage->dir_fd = -1;
	if (!favo_is_name(owner, "", 32))
		return favo_fail(err, EINVAL, "store %s: bad owner", store->dir);
	stage->lock_fd = favo_store_lock(store, LOCK_SH, err);
	if (stage->lock_fd < 0)
		return stage->lock_fd;
	if ((mkdirat(store->fd, "push", 0700) < 0 && errno != EEXIST) ||
	    (mkdirat(store->fd, path, 0700) < 0 && errno != EEXIST))
		return favo_fail(err, errno, "store %s: %s: %m", store->dir, path);
	stage->dir_fd = openat(store->fd, path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (stage->dir_fd < 0)
		return favo_fail(err, errno, "store %s: %s: %m", store->dir, path);
	measure(stage);
	*out = favo_steal_ptr(&stage);
	return 0;
}

void favo_stage_free(struct favo_stage *stage)
{
	if (!stage)
		return;
	favo_close(&stage->dir_fd);
	favo_close(&stage->lock_fd);
	free(stage);
}

static bool is_staged(const struct favo_stage *stage, const struct favo_digest *digest,
		      const char *suffix)
{
	char name[NAME_SIZE];

	return faccessat(stage->dir_fd, file_name(digest, suffix, name), F_OK, 0) == 0;
}

bool favo_stage_has(const struct favo_stage *stage, const struct favo_digest *digest)
{
	return favo_store_has_blob(stage->store, digest) || is_staged(stage, digest, "");
}

/* A file of the stage, complete under its name or not there. */
static int put_file(struct favo_stage *stage, const char *name, const void *data,
		    size_t len, struct favo_err *err)
{
	char tmp[] = "new-XXXXXX";
	favo_autofree char *path = NULL;
	favo_autoclose int fd = -1;
	int ret;

	if (stage->used > stage->limit || len > stage->limit - stage->used)
		return favo_fail(err, EDQUOT,
				 "unfinished pushes would take more than the quota");
	path = favo_asprintf("/proc/self/fd/%d/%s", stage->dir_fd, tmp);
	if (!path)
		return favo_fail(err, ENOMEM, "push: out of memory");
	fd = mkostemp(path, O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "push: %m");
	ret = favo_write_all(fd, data, len, -1, err);
	if (ret == 0 &&
	    (fchmod(fd, 0644) < 0 || renameat(AT_FDCWD, path, stage->dir_fd, name) < 0))
		ret = favo_fail(err, errno, "push: %s: %m", name);
	if (ret < 0)
		unlink(path);
	else
		stage->used += len;
	return ret;
}

int favo_stage_put(struct favo_stage *stage, const struct favo_digest *want,
		   const void *stored, size_t len, struct favo_err *err)
{
	struct favo_digest digest;
	char name[NAME_SIZE];
	int ret = favo_blob_identify(stored, len, FAVO_STAGE_BLOB_MAX, &digest, err);

	if (ret < 0)
		return ret;
	if (want && !favo_digest_equal(want, &digest))
		return favo_fail(err, EBADMSG,
				 "the blob's content does not match the digest");
	if (favo_stage_has(stage, &digest))
		return 0;
	return put_file(stage, file_name(&digest, "", name), stored, len, err);
}

/* ---- manifests ---- */

/* Plain bytes of a blob of the stage or the store. */
static int read_blob(struct favo_stage *stage, const struct favo_digest *digest,
		     size_t max, void **data, size_t *len, struct favo_err *err)
{
	char name[NAME_SIZE];
	favo_autofree char *stored = NULL, *path = NULL;
	size_t stored_len = 0;
	int ret;

	if (!is_staged(stage, digest, ""))
		return favo_store_read_blob(stage->store, digest, max, data, len, err);
	path = favo_asprintf("/proc/self/fd/%d/%s", stage->dir_fd,
			     file_name(digest, "", name));
	if (!path)
		return favo_fail(err, ENOMEM, "push: out of memory");
	ret = favo_file_read(path, FAVO_STAGE_BLOB_MAX, &stored, &stored_len, err);
	return ret < 0 ? ret
		       : favo_blob_decode(digest, stored, stored_len, max, data, len,
					  err);
}

/* All blobs that the manifest needs; without its chunks while the index is missing. */
static int needed(struct favo_stage *stage, const struct favo_manifest *m,
		  struct favo_digest_set *set, struct favo_err *err)
{
	favo_autoindex struct favo_index *index = NULL;
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret = favo_store_mark_json(set, m->json, err);

	if (ret == 0 && !favo_stage_has(stage, &m->root.index))
		favo_digest_set_sort(set);
	if (ret < 0 || !favo_stage_has(stage, &m->root.index))
		return ret;
	ret = read_blob(stage, &m->root.index, FAVO_STAGE_BLOB_MAX, &data, &len, err);
	if (ret == 0)
		ret = favo_index_parse(&index, data, len, m->root.bytes, err);
	for (size_t i = 0; ret == 0 && i < index->n_chunks; i++)
		ret = favo_digest_set_add(set, &index->chunks[i].digest, err);
	if (ret == 0)
		favo_digest_set_sort(set);
	return ret;
}

/* Digests that name no blob: the parent is an image, and may be gone. */
static bool is_blob(const struct favo_manifest *m, const struct favo_digest *digest)
{
	return !m->has_parent || !favo_digest_equal(digest, &m->parent);
}

static int list_missing(struct favo_stage *stage, const struct favo_manifest *m,
			const struct favo_digest_set *set, struct favo_digest **missing,
			size_t *n, struct favo_err *err)
{
	favo_autofree struct favo_digest *list = calloc(set->n + 1, sizeof(*list));
	size_t count = 0;

	if (!list)
		return favo_fail(err, ENOMEM, "push: out of memory");
	for (size_t i = 0; i < set->n; i++)
		if (is_blob(m, &set->digests[i]) &&
		    !favo_stage_has(stage, &set->digests[i]) &&
		    (!count || !favo_digest_equal(&list[count - 1], &set->digests[i])))
			list[count++] = set->digests[i];
	if (!count)
		return 0;
	*missing = favo_steal_ptr(&list);
	*n = count;
	return favo_fail(err, ENODATA, "%zu blobs of the image are missing", count);
}

int favo_stage_manifest(struct favo_stage *stage, const struct favo_digest *id,
			const void *data, size_t len, struct favo_digest **missing,
			size_t *n, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *canonical = NULL;
	struct favo_digest_set set = {0};
	char name[NAME_SIZE];
	size_t canonical_len = 0;
	int ret = favo_manifest_parse(&m, data, len, err);

	if (ret == 0)
		ret = favo_manifest_format(m->json, &canonical, &canonical_len, err);
	if (ret < 0)
		return ret;
	/* favod sends what it parsed: other bytes would not have the digest. */
	if (canonical_len != len || memcmp(canonical, data, len) != 0)
		return favo_fail(err, EBADMSG, "the manifest is not in canonical form");
	if (!favo_digest_equal(&m->id, id))
		return favo_fail(err, EBADMSG,
				 "the manifest's content does not match the digest");
	ret = needed(stage, m, &set, err);
	if (ret == 0)
		ret = list_missing(stage, m, &set, missing, n, err);
	favo_digest_set_fini(&set);
	if (ret == 0)
		ret = put_file(stage, file_name(id, ".json", name), data, len, err);
	return ret;
}

/* ---- publishing ---- */

static int move_blobs(struct favo_stage *stage, const struct favo_digest_set *set,
		      struct favo_err *err)
{
	char path[FAVO_BLOB_PATH_SIZE], name[NAME_SIZE];

	for (size_t i = 0; i < set->n; i++) {
		file_name(&set->digests[i], "", name);
		favo_store_blob_path(&set->digests[i], path);
		if (faccessat(stage->store->fd, path, F_OK, 0) == 0) {
			unlinkat(stage->dir_fd, name, 0);
			continue;
		}
		/* ENOENT: another name of the manifest, such as its parent. */
		if (renameat(stage->dir_fd, name, stage->store->fd, path) < 0 &&
		    errno != ENOENT)
			return favo_fail(err, errno, "store %s: %s: %m",
					 stage->store->dir, path);
	}
	return 0;
}

static int check_quota(struct favo_stage *stage, const struct favo_image_name *name,
		       const struct favo_digest_set *set, uint64_t max_bytes,
		       struct favo_err *err)
{
	char has[32], max[32];
	uint64_t bytes = 0;
	int ret;

	if (max_bytes == UINT64_MAX)
		return 0;
	ret = favo_store_usage(stage->store, name, set, stage->dir_fd, &bytes, err);
	if (ret == 0 && bytes > max_bytes)
		return favo_fail(
			err, EDQUOT,
			"your images would take %s in the store, your quota is %s; "
			"remove some with favo image rm",
			favo_format_size(has, sizeof(has), bytes),
			favo_format_size(max, sizeof(max), max_bytes));
	return ret;
}

/* The stage's manifest id becomes an image of the store; it has no name yet. */
static int publish_image(struct favo_stage *stage, const struct favo_image_name *name,
			 const struct favo_digest *id, uint64_t max_bytes,
			 struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree struct favo_digest *missing = NULL;
	favo_autofree char *path = NULL, *data = NULL;
	struct favo_digest_set set = {0};
	char file[NAME_SIZE], target[FAVO_MANIFEST_PATH_SIZE];
	size_t len = 0, n = 0;
	int ret;

	path = favo_asprintf("/proc/self/fd/%d/%s", stage->dir_fd,
			     file_name(id, ".json", file));
	if (!path)
		return favo_fail(err, ENOMEM, "push: out of memory");
	if ((ret = favo_file_read(path, FAVO_MANIFEST_MAX, &data, &len, err)) < 0 ||
	    (ret = favo_manifest_parse(&m, data, len, err)) < 0)
		return ret;
	if ((ret = needed(stage, m, &set, err)) == 0 &&
	    (ret = list_missing(stage, m, &set, &missing, &n, err)) == 0 &&
	    (ret = check_quota(stage, name, &set, max_bytes, err)) == 0 &&
	    (ret = favo_store_sync(stage->store, err)) == 0 &&
	    (ret = move_blobs(stage, &set, err)) == 0 &&
	    (ret = favo_store_sync(stage->store, err)) == 0)
		ret = favo_store_replace(stage->store,
					 favo_store_manifest_path(id, target), data, len,
					 err);
	favo_digest_set_fini(&set);
	if (ret == 0)
		unlinkat(stage->dir_fd, file, 0);
	return ret;
}

int favo_stage_publish(struct favo_stage *stage, const struct favo_digest *id,
		       const struct favo_image_name *name, uint64_t max_bytes,
		       struct favo_err *err)
{
	char path[FAVO_MANIFEST_PATH_SIZE], text[FAVO_DIGEST_TEXT_SIZE];
	struct favo_digest_set set = {0};
	int ret;

	if (is_staged(stage, id, ".json")) {
		ret = publish_image(stage, name, id, max_bytes, err);
	} else if (faccessat(stage->store->fd, favo_store_manifest_path(id, path), F_OK,
			     0) < 0) {
		return favo_fail(err, ENOENT, "no image %s was pushed",
				 favo_digest_format(id, text));
	} else {
		ret = favo_store_mark_image(stage->store, &set, id, err);
		if (ret == 0)
			ret = check_quota(stage, name, &set, max_bytes, err);
		favo_digest_set_fini(&set);
	}
	return ret < 0 ? ret : favo_store_tag(stage->store, name, id, err);
}
