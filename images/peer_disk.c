// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Cache and store under a session of the exchange; see peer_disk.h. What a
 * node has in plain form is compressed anew, lightly, when a neighbour asks
 * for it later than it came: names are digests of plain bytes, so that any
 * stored form will do.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <zstd.h>

#include "common/util.h"
#include "images/cache_internal.h"
#include "images/peer_disk.h"

#define LEVEL 1

/* ---- reading ---- */

static int read_at(int fd, void *buf, size_t len, uint64_t offset, struct favo_err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n =
			pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENODATA, "read: %m");
		done += (size_t)n;
	}
	return 0;
}

static bool has_zstd_magic(const void *data, size_t len)
{
	static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};

	return len >= sizeof(magic) && memcmp(data, magic, sizeof(magic)) == 0;
}

/* Stored form of plain bytes; takes plain. */
static int encode(void *plain, size_t len, void **stored, size_t *stored_len,
		  struct favo_err *err)
{
	size_t bound = ZSTD_compressBound(len), n;
	void *frame = malloc(bound);

	if (!frame) {
		free(plain);
		return favo_fail(err, ENOMEM, "compress: out of memory");
	}
	n = ZSTD_compress(frame, bound, plain, len, LEVEL);
	if (!ZSTD_isError(n) && (n < len || has_zstd_magic(plain, len))) {
		free(plain);
		*stored = frame;
		*stored_len = n;
		return 0;
	}
	free(frame);
	*stored = plain;
	*stored_len = len;
	return 0;
}

static int read_store(struct favo_store *store, const struct favo_digest *digest,
		      void **stored, size_t *len, struct favo_err *err)
{
	uint64_t size = 0;
	favo_autoclose int fd = favo_store_open_blob(store, digest, &size, err);
	void *data;
	int ret;

	if (fd < 0)
		return fd;
	data = malloc(size + 1);
	if (!data)
		return favo_fail(err, ENOMEM, "read: out of memory");
	ret = read_at(fd, data, size, 0, err);
	if (ret < 0) {
		free(data);
		return ret;
	}
	*stored = data;
	*len = size;
	return 0;
}

/* A whole file of the image's folder. */
static int read_file(const struct favo_peer_disk *d, const char *name, void **stored,
		     size_t *len, struct favo_err *err)
{
	char *data = NULL;
	size_t n = 0;
	int ret = favo_cache_read_file(d->folder_fd, name, FAVO_BLOB_MAX, &data, &n, err);

	return ret < 0 ? ret : encode(data, n, stored, len, err);
}

static int disk_read(void *user, const struct favo_item *item, void **stored, size_t *len,
		     struct favo_err *err)
{
	const struct favo_peer_disk *d = user;
	void *data;
	int ret;

	if (d->store)
		return read_store(d->store, &item->digest, stored, len, err);
	if (item->kind != FAVO_ITEM_CHUNK)
		return read_file(d,
				 item->kind == FAVO_ITEM_KERNEL ? "kernel" : "initramfs",
				 stored, len, err);
	data = malloc(item->length + 1);
	if (!data)
		return favo_fail(err, ENOMEM, "read: out of memory");
	ret = read_at(d->root_fd, data, item->length, item->offset, err);
	if (ret < 0) {
		free(data);
		return favo_wrap(err, ret, "root.img");
	}
	return encode(data, item->length, stored, len, err);
}

static int disk_read_index(void *user, void **stored, size_t *len, struct favo_err *err)
{
	const struct favo_peer_disk *d = user;

	return d->store ? read_store(d->store, &d->manifest->root.index, stored, len, err)
			: read_file(d, "index", stored, len, err);
}

/* ---- writing ---- */

static const struct favo_index *disk_index(void *user)
{
	const struct favo_peer_disk *d = user;

	if (d->index)
		return d->index;
	return d->fetch ? favo_fetch_index(d->fetch) : NULL;
}

static int disk_put_index(void *user, const void *stored, size_t len,
			  struct favo_err *err)
{
	struct favo_peer_disk *d = user;

	return d->fetch ? favo_fetch_put(d->fetch, &d->manifest->root.index, stored, len,
					 err)
			: 0;
}

static bool disk_has(void *user, const struct favo_item *item)
{
	const struct favo_peer_disk *d = user;

	return !d->fetch || favo_fetch_has(d->fetch, &item->digest);
}

static int disk_put(void *user, const struct favo_item *item, const void *stored,
		    size_t len, struct favo_err *err)
{
	struct favo_peer_disk *d = user;

	return d->fetch ? favo_fetch_put(d->fetch, &item->digest, stored, len, err) : 0;
}

const struct favo_peer_ops favo_peer_disk_ops = {
	.index = disk_index,
	.put_index = disk_put_index,
	.has = disk_has,
	.put = disk_put,
	.read = disk_read,
	.read_index = disk_read_index,
};

/* ---- opening ---- */

static int open_root(struct favo_peer_disk *d, struct favo_err *err)
{
	d->root_fd = openat(d->folder_fd, "root.img", O_RDONLY | O_CLOEXEC);
	return d->root_fd < 0 ? favo_fail(err, errno, "image cache: root.img: %m") : 0;
}

int favo_peer_disk_fetch(struct favo_peer_disk *disk, struct favo_fetch *fetch,
			 struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0;
	int ret;

	*disk = (struct favo_peer_disk){.fetch = fetch, .root_fd = -1};
	disk->folder_fd = fcntl(favo_fetch_folder(fetch), F_DUPFD_CLOEXEC, 0);
	if (disk->folder_fd < 0)
		return favo_fail(err, errno, "image cache: %m");
	ret = favo_cache_read_file(disk->folder_fd, "manifest.json", FAVO_MANIFEST_MAX,
				   &text, &len, err);
	if (ret == 0)
		ret = favo_manifest_parse(&disk->manifest, text, len, err);
	return ret == 0 ? open_root(disk, err) : ret;
}

int favo_peer_disk_cache(struct favo_peer_disk *disk, struct favo_cache *cache,
			 const struct favo_digest *id, struct favo_err *err)
{
	char name[FAVO_CACHE_NAME_SIZE];
	int ret;

	*disk = (struct favo_peer_disk){.root_fd = -1};
	disk->folder_fd =
		favo_cache_open_folder(cache, favo_cache_name(id, "", name), err);
	if (disk->folder_fd < 0)
		return disk->folder_fd;
	ret = favo_cache_read_image(disk->folder_fd, id, &disk->manifest, &disk->index,
				    err);
	return ret == 0 ? open_root(disk, err) : ret;
}

int favo_peer_disk_store(struct favo_peer_disk *disk, struct favo_store *store,
			 const struct favo_digest *id, struct favo_err *err)
{
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret;

	*disk = (struct favo_peer_disk){.store = store, .folder_fd = -1, .root_fd = -1};
	ret = favo_store_manifest(store, id, &disk->manifest, err);
	if (ret == 0)
		ret = favo_store_read_blob(store, &disk->manifest->root.index,
					   FAVO_INDEX_BYTES_MAX, &data, &len, err);
	if (ret == 0)
		ret = favo_index_parse(&disk->index, data, len,
				       disk->manifest->root.bytes, err);
	return ret;
}

void favo_peer_disk_fini(struct favo_peer_disk *disk)
{
	favo_manifest_free(disk->manifest);
	favo_index_free(disk->index);
	favo_close(&disk->folder_fd);
	favo_close(&disk->root_fd);
	*disk = (struct favo_peer_disk){.folder_fd = -1, .root_fd = -1};
}
