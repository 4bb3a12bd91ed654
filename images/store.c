// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Blobs, manifests and transactions of the store; see store.h for the
 * layout. Names are in store_refs.c, garbage collection in store_gc.c.
 *
 * Blobs of a transaction are written to a folder below tmp/ without fsync;
 * commit makes them durable at once with syncfs and only then renames them.
 * So neither a crash of the program nor of the machine can leave a final
 * name on unfinished bytes, and an import of thousands of chunks costs two
 * syncs instead of thousands.
 */
#include "images/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/store_internal.h"

struct favo_store_tx {
	struct favo_store *store;
	char *dir; /* tmp/XXXXXX, relative to the store */
	int dir_fd;
	int lock_fd;
};

char *favo_store_blob_path(const struct favo_digest *digest,
			   char path[FAVO_BLOB_PATH_SIZE])
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	favo_digest_format_hex(digest, hex);
	snprintf(path, FAVO_BLOB_PATH_SIZE, "blobs/%.2s/%s", hex, hex);
	return path;
}

char *favo_store_manifest_path(const struct favo_digest *id,
			       char path[FAVO_MANIFEST_PATH_SIZE])
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	snprintf(path, FAVO_MANIFEST_PATH_SIZE, "manifests/%s.json",
		 favo_digest_format_hex(id, hex));
	return path;
}

static int make_folders(const char *dir, struct favo_err *err)
{
	static const char *const names[] = {"blobs", "manifests", "refs", "tmp"};
	char path[64];
	favo_autoclose int fd = -1;
	int ret = favo_mkdirs(dir, 0755, err);

	if (ret < 0)
		return ret;
	fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "store %s: %m", dir);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++)
		if (mkdirat(fd, names[i], 0755) < 0 && errno != EEXIST)
			return favo_fail(err, errno, "store %s: %s: %m", dir, names[i]);
	for (int i = 0; i < 256; i++) {
		snprintf(path, sizeof(path), "blobs/%02x", i);
		if (mkdirat(fd, path, 0755) < 0 && errno != EEXIST)
			return favo_fail(err, errno, "store %s: %s: %m", dir, path);
	}
	return 0;
}

int favo_store_open(struct favo_store **out, const char *dir, unsigned int flags,
		    struct favo_err *err)
{
	favo_autostore struct favo_store *store = NULL;
	struct stat st;
	int ret;

	if (flags & FAVO_STORE_CREATE) {
		ret = make_folders(dir, err);
		if (ret < 0)
			return ret;
	}
	store = calloc(1, sizeof(*store));
	if (!store)
		return favo_fail(err, ENOMEM, "store %s: out of memory", dir);
	store->fd = open(dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (store->fd < 0)
		return favo_fail(err, errno, "store %s: %m", dir);
	store->dir = strdup(dir);
	if (!store->dir)
		return favo_fail(err, ENOMEM, "store %s: out of memory", dir);
	if (fstatat(store->fd, "manifests", &st, 0) < 0 || !S_ISDIR(st.st_mode))
		return favo_fail(err, ENOENT, "store %s: not an image store", dir);
	*out = favo_steal_ptr(&store);
	return 0;
}

void favo_store_close(struct favo_store *store)
{
	if (!store)
		return;
	favo_close(&store->fd);
	free(store->dir);
	free(store);
}

const char *favo_store_path(const struct favo_store *store)
{
	return store->dir;
}

int favo_store_clean_tmp(struct favo_store *store)
{
	int fd = openat(store->fd, "tmp", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return -errno;
	while ((entry = readdir(dir))) {
		favo_autofree char *path =
			favo_asprintf("%s/tmp/%s", store->dir, entry->d_name);

		if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
			continue;
		if (!path || favo_remove_tree(path, NULL) < 0)
			ret = -EIO;
	}
	closedir(dir);
	return ret;
}

int favo_store_lock(struct favo_store *store, int operation, struct favo_err *err)
{
	favo_autoclose int fd =
		openat(store->fd, "lock", O_RDWR | O_CREAT | O_CLOEXEC, 0644);

	if (fd < 0)
		return favo_fail(err, errno, "store %s: lock: %m", store->dir);
	/* Nobody else writes: what is in tmp was left by an import that was killed. */
	if (operation == LOCK_SH && flock(fd, LOCK_EX | LOCK_NB) == 0)
		favo_store_clean_tmp(store);
	while (flock(fd, operation) < 0)
		if (errno != EINTR)
			return favo_fail(err, errno, "store %s: lock: %m", store->dir);
	return favo_steal_fd(&fd);
}

/* ---- reading ---- */

/* Whole file below the store's folder; the caller frees *data. */
static int read_file(struct favo_store *store, const char *path, uint64_t max,
		     char **data, size_t *len, struct favo_err *err)
{
	favo_autoclose int fd = openat(store->fd, path, O_RDONLY | O_CLOEXEC);
	favo_autofree char *buf = NULL;
	struct stat st;
	int ret;

	if (fd < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, errno, "store %s: %s: %m", store->dir, path);
	if ((uint64_t)st.st_size > max)
		return favo_fail(err, EBADMSG, "store %s: %s: too long", store->dir,
				 path);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	ret = favo_read_all(fd, buf, (size_t)st.st_size, -1, err);
	if (ret < 0)
		return favo_wrap(err, ret, "store %s: %s", store->dir, path);
	*len = (size_t)st.st_size;
	*data = favo_steal_ptr(&buf);
	return 0;
}

int favo_store_manifest(struct favo_store *store, const struct favo_digest *id,
			struct favo_manifest **out, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *manifest = NULL;
	char path[FAVO_MANIFEST_PATH_SIZE], text[FAVO_DIGEST_TEXT_SIZE];
	favo_autofree char *data = NULL;
	size_t len = 0;
	int ret;

	favo_store_manifest_path(id, path);
	ret = read_file(store, path, FAVO_MANIFEST_MAX, &data, &len, err);
	if (ret == -ENOENT)
		return favo_fail(err, ENOENT, "no image %s in store %s",
				 favo_digest_format(id, text), store->dir);
	if (ret == 0)
		ret = favo_manifest_parse(&manifest, data, len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "image %s", favo_digest_format(id, text));
	if (!favo_digest_equal(&manifest->id, id))
		return favo_fail(err, EBADMSG,
				 "store %s: %s: content does not match the digest",
				 store->dir, path);
	*out = favo_steal_ptr(&manifest);
	return 0;
}

int favo_store_open_blob(struct favo_store *store, const struct favo_digest *digest,
			 uint64_t *size, struct favo_err *err)
{
	char path[FAVO_BLOB_PATH_SIZE];
	favo_autoclose int fd = -1;
	struct stat st;

	favo_store_blob_path(digest, path);
	fd = openat(store->fd, path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (fd < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, errno, "store %s: %s: %m", store->dir, path);
	*size = (uint64_t)st.st_size;
	return favo_steal_fd(&fd);
}

bool favo_store_has_blob(struct favo_store *store, const struct favo_digest *digest)
{
	char path[FAVO_BLOB_PATH_SIZE];

	favo_store_blob_path(digest, path);
	return faccessat(store->fd, path, F_OK, 0) == 0;
}

int favo_store_read_blob(struct favo_store *store, const struct favo_digest *digest,
			 size_t max, void **data, size_t *len, struct favo_err *err)
{
	char path[FAVO_BLOB_PATH_SIZE];
	favo_autofree char *stored = NULL;
	size_t stored_len = 0;
	int ret;

	favo_store_blob_path(digest, path);
	/* An incompressible blob may grow by a frame header. */
	ret = read_file(store, path, (uint64_t)max + 1024, &stored, &stored_len, err);
	if (ret == 0)
		ret = favo_blob_decode(digest, stored, stored_len, max, data, len, err);
	return ret < 0 ? favo_wrap(err, ret, "store %s", store->dir) : 0;
}

/* ---- writing ---- */

int favo_store_begin(struct favo_store_tx **out, struct favo_store *store,
		     struct favo_err *err)
{
	favo_autotx struct favo_store_tx *tx = calloc(1, sizeof(*tx));
	favo_autofree char *path = NULL;

	if (!tx)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	tx->store = store;
	tx->dir_fd = -1;
	tx->lock_fd = favo_store_lock(store, LOCK_SH, err);
	if (tx->lock_fd < 0)
		return tx->lock_fd;
	path = favo_asprintf("%s/tmp/XXXXXX", store->dir);
	if (!path)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	if (!mkdtemp(path))
		return favo_fail(err, errno, "store %s: tmp: %m", store->dir);
	tx->dir = favo_steal_ptr(&path);
	tx->dir_fd = open(tx->dir, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	if (tx->dir_fd < 0)
		return favo_fail(err, errno, "%s: %m", tx->dir);
	*out = favo_steal_ptr(&tx);
	return 0;
}

void favo_store_tx_free(struct favo_store_tx *tx)
{
	if (!tx)
		return;
	favo_close(&tx->dir_fd);
	if (tx->dir && favo_remove_tree(tx->dir, NULL) < 0) {
		/* What stays behind is emptied by the next gc. */
	}
	favo_close(&tx->lock_fd);
	free(tx->dir);
	free(tx);
}

int favo_store_put(struct favo_store_tx *tx, const void *data, size_t len,
		   struct favo_digest *digest, uint64_t *stored, struct favo_err *err)
{
	char hex[FAVO_DIGEST_HEX_SIZE];
	favo_autofree void *bytes = NULL;
	favo_autoclose int fd = -1;
	size_t n = 0;
	int ret;

	if (stored)
		*stored = 0;
	ret = favo_digest_of(digest, data, len, err);
	if (ret < 0)
		return ret;
	if (favo_store_has_blob(tx->store, digest))
		return 0;
	fd = openat(tx->dir_fd, favo_digest_format_hex(digest, hex),
		    O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0 && errno == EEXIST)
		return 0; /* twice in this transaction */
	if (fd < 0)
		return favo_fail(err, errno, "%s/%s: %m", tx->dir, hex);
	ret = favo_blob_encode(data, len, &bytes, &n, err);
	if (ret == 0)
		ret = favo_write_all(fd, bytes, n, -1, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s/%s", tx->dir, hex);
	if (stored)
		*stored = n;
	return 0;
}

int favo_store_sync(struct favo_store *store, struct favo_err *err)
{
	if (syncfs(store->fd) < 0)
		return favo_fail(err, errno, "store %s: sync: %m", store->dir);
	return 0;
}

/* Give every blob of the transaction its final name. */
static int publish_blobs(struct favo_store_tx *tx, struct favo_err *err)
{
	DIR *dir = fdopendir(fcntl(tx->dir_fd, F_DUPFD_CLOEXEC, 0));
	char path[FAVO_BLOB_PATH_SIZE];
	struct favo_digest digest;
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return favo_fail(err, errno, "%s: %m", tx->dir);
	while (ret == 0 && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.')
			continue;
		ret = favo_digest_parse_hex(&digest, entry->d_name, err);
		if (ret == 0 && renameat(tx->dir_fd, entry->d_name, tx->store->fd,
					 favo_store_blob_path(&digest, path)) < 0)
			ret = favo_fail(err, errno, "store %s: %s: %m", tx->store->dir,
					path);
	}
	closedir(dir);
	return ret;
}

int favo_store_replace(struct favo_store *store, const char *path, const void *data,
		       size_t len, struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s/tmp/file-XXXXXX", store->dir);
	favo_autofree char *full = favo_asprintf("%s/%s", store->dir, path);
	favo_autoclose int fd = -1, dir = -1;
	int ret;

	if (!tmp || !full)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	fd = mkostemp(tmp, O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", tmp);
	ret = favo_write_all(fd, data, len, -1, err);
	if (ret == 0 && (fchmod(fd, 0644) < 0 || fsync(fd) < 0 || rename(tmp, full) < 0))
		ret = favo_fail(err, errno, "%s: %m", full);
	if (ret < 0) {
		unlink(tmp);
		return ret;
	}
	*strrchr(full, '/') = '\0';
	dir = open(full, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || fsync(dir) < 0)
		return favo_fail(err, errno, "%s: sync: %m", full);
	return 0;
}

int favo_store_commit(struct favo_store_tx *tx, const json_t *manifest,
		      const struct favo_image_name *name, struct favo_digest *id,
		      struct favo_err *err)
{
	favo_automanifest struct favo_manifest *checked = NULL;
	char path[FAVO_MANIFEST_PATH_SIZE];
	favo_autofree char *data = NULL;
	size_t len = 0;
	int ret;

	if ((ret = favo_manifest_format(manifest, &data, &len, err)) < 0 ||
	    (ret = favo_manifest_parse(&checked, data, len, err)) < 0 ||
	    (ret = favo_store_sync(tx->store, err)) < 0 ||
	    (ret = publish_blobs(tx, err)) < 0 ||
	    (ret = favo_store_sync(tx->store, err)) < 0)
		return ret;
	ret = favo_store_replace(tx->store, favo_store_manifest_path(&checked->id, path),
				 data, len, err);
	if (ret == 0 && name)
		ret = favo_store_tag(tx->store, name, &checked->id, err);
	if (ret == 0)
		*id = checked->id;
	return ret;
}
