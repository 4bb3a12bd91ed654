// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Image cache of a node: look-up, pins, eviction, checks; see cache.h.
 * Filling is in cache_fetch.c.
 *
 * A complete image is not synced to disk before its first use, which would
 * cost seconds at the start of a job. Until favo_cache_settle() has done so,
 * "unsynced" holds the boot id of the machine: while that is still running,
 * the page cache has the truth; after a crash the image is checked chunk by
 * chunk when it is needed again.
 */
#include "images/cache.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/cache_internal.h"

#define HOLDER_MAX 64
#define PIN "pin."

char *favo_cache_name(const struct favo_digest *id, const char *suffix,
		      char name[FAVO_CACHE_NAME_SIZE])
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	snprintf(name, FAVO_CACHE_NAME_SIZE, "%s%s", favo_digest_format_hex(id, hex),
		 suffix);
	return name;
}

int favo_cache_open_folder(struct favo_cache *cache, const char *name,
			   struct favo_err *err)
{
	int fd = openat(cache->fd, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 ? favo_fail(err, errno, "image cache: %.12s: %m", name) : fd;
}

int favo_cache_read_file(int folder_fd, const char *name, size_t max, char **data,
			 size_t *len, struct favo_err *err)
{
	favo_autoclose int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
	favo_autofree char *buf = NULL;
	struct stat st;
	int ret;

	if (fd < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, errno, "image cache: %s: %m", name);
	if ((uint64_t)st.st_size > max)
		return favo_fail(err, EBADMSG, "image cache: %s: too long", name);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	ret = favo_read_all(fd, buf, (size_t)st.st_size, -1, err);
	if (ret < 0)
		return favo_wrap(err, ret, "image cache: %s", name);
	buf[st.st_size] = '\0';
	*len = (size_t)st.st_size;
	*data = favo_steal_ptr(&buf);
	return 0;
}

int favo_cache_read_image(int folder_fd, const struct favo_digest *id,
			  struct favo_manifest **manifest, struct favo_index **index,
			  struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *json = NULL, *bytes = NULL;
	struct favo_digest digest;
	size_t len = 0;
	int ret;

	if ((ret = favo_cache_read_file(folder_fd, "manifest.json", FAVO_MANIFEST_MAX,
					&json, &len, err)) < 0 ||
	    (ret = favo_manifest_parse(&m, json, len, err)) < 0)
		return ret;
	if (!favo_digest_equal(&m->id, id))
		return favo_fail(err, EBADMSG, "image cache: manifest.json is damaged");
	if (index) {
		if ((ret = favo_cache_read_file(folder_fd, "index", FAVO_INDEX_BYTES_MAX,
						&bytes, &len, err)) < 0 ||
		    (ret = favo_digest_of(&digest, bytes, len, err)) < 0)
			return ret;
		if (!favo_digest_equal(&digest, &m->root.index))
			return favo_fail(err, EBADMSG, "image cache: index is damaged");
		ret = favo_index_parse(index, bytes, len, m->root.bytes, err);
		if (ret < 0)
			return ret;
	}
	*manifest = favo_steal_ptr(&m);
	return 0;
}

int favo_cache_check_range(int fd, uint64_t offset, size_t len,
			   const struct favo_digest *digest, void *buf,
			   struct favo_err *err)
{
	struct favo_digest actual;
	size_t done = 0;
	ssize_t n;
	int ret;

	while (done < len) {
		n = pread(fd, (char *)buf + done, len - done, (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "read: %m");
		if (n == 0)
			return favo_fail(err, EBADMSG, "file is too short");
		done += (size_t)n;
	}
	ret = favo_digest_of(&actual, buf, len, err);
	if (ret < 0)
		return ret;
	if (!favo_digest_equal(&actual, digest))
		return favo_fail(err, EBADMSG,
				 "content at byte %llu does not match the digest",
				 (unsigned long long)offset);
	return 0;
}

/* ---- removal ---- */

static int remove_folder(struct favo_cache *cache, const char *name, struct favo_err *err)
{
	char dead[FAVO_CACHE_NAME_SIZE];
	favo_autofree char *path = NULL;

	snprintf(dead, sizeof(dead), "%.*s.dead", FAVO_DIGEST_HEX_SIZE - 1, name);
	path = favo_asprintf("%s/images/%s", cache->dir, dead);
	if (!path)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	/* A folder with that name is left from an earlier try. */
	if (favo_remove_tree(path, NULL) < 0 ||
	    renameat(cache->fd, name, cache->fd, dead) < 0)
		return favo_fail(err, errno, "image cache: %.12s: %m", name);
	return favo_remove_tree(path, err);
}

/* ---- folders ---- */

/* id and kind of a folder name; false for others. */
static bool parse_folder(const char *name, struct favo_digest *id, const char **suffix)
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	if (strlen(name) < sizeof(hex) - 1)
		return false;
	memcpy(hex, name, sizeof(hex) - 1);
	hex[sizeof(hex) - 1] = '\0';
	*suffix = name + sizeof(hex) - 1;
	return favo_digest_parse_hex(id, hex, NULL) == 0;
}

/* Bytes on disk, and the number of pins. */
static void measure(int folder_fd, struct favo_cache_entry *entry)
{
	DIR *dir = fdopendir(fcntl(folder_fd, F_DUPFD_CLOEXEC, 0));
	struct dirent *file;
	struct stat st;

	if (!dir)
		return;
	rewinddir(dir);
	while ((file = readdir(dir))) {
		if (fstatat(folder_fd, file->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
			continue;
		if (S_ISREG(st.st_mode))
			entry->bytes += (uint64_t)st.st_blocks * 512;
		if (strncmp(file->d_name, PIN, strlen(PIN)) == 0)
			entry->pins++;
		if (strcmp(file->d_name, "used") == 0)
			entry->used = st.st_mtim.tv_sec;
	}
	closedir(dir);
}

static int compare_used(const void *a, const void *b)
{
	const struct favo_cache_entry *left = a, *right = b;

	if (left->used != right->used)
		return left->used > right->used ? -1 : 1;
	return memcmp(&left->id, &right->id, sizeof(left->id));
}

int favo_cache_list(struct favo_cache *cache, struct favo_cache_entry **entries,
		    size_t *n, struct favo_err *err)
{
	favo_autofree struct favo_cache_entry *list = NULL;
	int fd = openat(cache->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	size_t count = 0, size = 0;
	struct favo_cache_entry entry, *grown;
	struct dirent *folder;
	const char *suffix;

	if (!dir)
		return favo_fail(err, errno, "image cache %s: %m", cache->dir);
	while ((folder = readdir(dir))) {
		entry = (struct favo_cache_entry){0};
		if (!parse_folder(folder->d_name, &entry.id, &suffix) ||
		    (*suffix && strcmp(suffix, ".part") != 0))
			continue;
		entry.complete = !*suffix;
		fd = favo_cache_open_folder(cache, folder->d_name, NULL);
		if (fd < 0)
			continue;
		measure(fd, &entry);
		close(fd);
		if (count == size) {
			size = size ? 2 * size : 16;
			grown = reallocarray(list, size, sizeof(*list));
			if (!grown) {
				closedir(dir);
				return favo_fail(err, ENOMEM,
						 "image cache: out of memory");
			}
			list = grown;
		}
		list[count++] = entry;
	}
	closedir(dir);
	if (count)
		qsort(list, count, sizeof(*list), compare_used);
	*entries = favo_steal_ptr(&list);
	*n = count;
	return 0;
}

int favo_cache_remove(struct favo_cache *cache, const struct favo_digest *id,
		      struct favo_err *err)
{
	struct favo_cache_entry entry = {0};
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int fd =
		favo_cache_open_folder(cache, favo_cache_name(id, "", name), NULL);

	if (fd == -ENOENT) {
		favo_cache_name(id, ".part", name);
		fd = favo_cache_open_folder(cache, name, NULL);
	}
	if (fd < 0)
		return favo_fail(err, -fd, "image cache: %.12s: %m", name);
	measure(fd, &entry);
	if (entry.pins)
		return favo_fail(err, EBUSY, "image cache: %.12s: in use", name);
	return remove_folder(cache, name, err);
}

int favo_cache_discard(struct favo_cache *cache, const struct favo_digest *id,
		       struct favo_err *err)
{
	char name[FAVO_CACHE_NAME_SIZE];

	return remove_folder(cache, favo_cache_name(id, "", name), err);
}

int favo_cache_evict(struct favo_cache *cache, uint64_t max_bytes, bool include_partial,
		     struct favo_err *err)
{
	favo_autofree struct favo_cache_entry *entries = NULL;
	char name[FAVO_CACHE_NAME_SIZE];
	uint64_t bytes = 0;
	size_t n = 0;
	int ret = favo_cache_list(cache, &entries, &n, err);

	for (size_t i = 0; ret == 0 && i < n; i++)
		bytes += entries[i].bytes;
	/* From the end: last used longest ago. */
	for (size_t i = n; ret == 0 && i-- > 0 && bytes > max_bytes;) {
		if (entries[i].pins || (!entries[i].complete && !include_partial))
			continue;
		favo_cache_name(&entries[i].id, entries[i].complete ? "" : ".part", name);
		ret = remove_folder(cache, name, err);
		bytes -= entries[i].bytes;
	}
	return ret;
}

/* ---- pins ---- */

static int pin_name(const char *holder, char name[HOLDER_MAX + 8], struct favo_err *err)
{
	if (!favo_is_name(holder, "._-", HOLDER_MAX))
		return favo_fail(err, EINVAL, "image cache: bad holder '%.64s'", holder);
	snprintf(name, HOLDER_MAX + 8, PIN "%s", holder);
	return 0;
}

int favo_cache_pin_folder(int folder_fd, const char *holder, struct favo_err *err)
{
	char name[HOLDER_MAX + 8];
	int ret = pin_name(holder, name, err), fd;

	if (ret < 0)
		return ret;
	fd = openat(folder_fd, name, O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (fd < 0)
		return favo_fail(err, errno, "image cache: %s: %m", name);
	close(fd);
	return 0;
}

int favo_cache_pin(struct favo_cache *cache, const struct favo_digest *id,
		   const char *holder, struct favo_err *err)
{
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int fd =
		favo_cache_open_folder(cache, favo_cache_name(id, "", name), err);

	return fd < 0 ? fd : favo_cache_pin_folder(fd, holder, err);
}

int favo_cache_unpin(struct favo_cache *cache, const struct favo_digest *id,
		     const char *holder, struct favo_err *err)
{
	/* Complete last: a partial image may become complete in between. */
	static const char *const suffixes[] = {".part", ""};
	char name[FAVO_CACHE_NAME_SIZE], pin[HOLDER_MAX + 8];
	int ret = pin_name(holder, pin, err);

	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(suffixes); i++) {
		favo_autoclose int fd = favo_cache_open_folder(
			cache, favo_cache_name(id, suffixes[i], name), NULL);

		if (fd >= 0 && unlinkat(fd, pin, 0) < 0 && errno != ENOENT)
			ret = favo_fail(err, errno, "image cache: %s: %m", pin);
	}
	return ret;
}

static void prune_folder(int folder_fd, favo_cache_alive_fn *is_alive, void *user)
{
	DIR *dir = fdopendir(fcntl(folder_fd, F_DUPFD_CLOEXEC, 0));
	struct dirent *file;

	if (!dir)
		return;
	while ((file = readdir(dir)))
		if (strncmp(file->d_name, PIN, strlen(PIN)) == 0 &&
		    !is_alive(file->d_name + strlen(PIN), user))
			unlinkat(folder_fd, file->d_name, 0);
	closedir(dir);
}

int favo_cache_prune_pins(struct favo_cache *cache, favo_cache_alive_fn *is_alive,
			  void *user, struct favo_err *err)
{
	favo_autofree struct favo_cache_entry *entries = NULL;
	char name[FAVO_CACHE_NAME_SIZE];
	size_t n = 0;
	int ret = favo_cache_list(cache, &entries, &n, err), fd;

	for (size_t i = 0; ret == 0 && i < n; i++) {
		if (!entries[i].pins)
			continue;
		fd = favo_cache_open_folder(
			cache,
			favo_cache_name(&entries[i].id,
					entries[i].complete ? "" : ".part", name),
			NULL);
		if (fd < 0)
			continue;
		prune_folder(fd, is_alive, user);
		close(fd);
	}
	return ret;
}

/* ---- checks ---- */

int favo_cache_open_part(int folder_fd, const char *name, uint64_t size,
			 struct favo_err *err)
{
	favo_autoclose int fd = openat(folder_fd, name, O_RDONLY | O_CLOEXEC);
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, errno, "image cache: %s: %m", name);
	if ((uint64_t)st.st_size != size)
		return favo_fail(err, EBADMSG,
				 "image cache: %s has %lld bytes instead of %llu", name,
				 (long long)st.st_size, (unsigned long long)size);
	return favo_steal_fd(&fd);
}

static int verify_blob(int folder_fd, const char *name, uint64_t size,
		       const struct favo_digest *digest, struct favo_err *err)
{
	favo_autoclose int fd = favo_cache_open_part(folder_fd, name, size, err);
	struct favo_digest actual;
	int ret;

	if (fd < 0)
		return fd;
	ret = favo_digest_of_fd(&actual, fd, err);
	if (ret == 0 && !favo_digest_equal(&actual, digest))
		ret = favo_fail(err, EBADMSG, "content does not match the digest");
	return ret < 0 ? favo_wrap(err, ret, "%s", name) : 0;
}

static int verify_root(int folder_fd, const struct favo_manifest *m,
		       const struct favo_index *index, struct favo_err *err)
{
	favo_autoclose int fd =
		favo_cache_open_part(folder_fd, "root.img", m->root.bytes, err);
	favo_autofree void *buf = malloc(FAVO_CHUNK_MAX);
	int ret = 0;

	if (fd < 0)
		return fd;
	if (!buf)
		return favo_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; ret == 0 && i < index->n_chunks; i++)
		ret = favo_cache_check_range(fd, index->chunks[i].offset,
					     index->chunks[i].length,
					     &index->chunks[i].digest, buf, err);
	return ret < 0 ? favo_wrap(err, ret, "root.img") : 0;
}

int favo_cache_verify(struct favo_cache *cache, const struct favo_digest *id,
		      struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autoindex struct favo_index *index = NULL;
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int folder =
		favo_cache_open_folder(cache, favo_cache_name(id, "", name), err);
	int ret;

	if (folder < 0)
		return folder;
	if ((ret = favo_cache_read_image(folder, id, &m, &index, err)) < 0 ||
	    (ret = verify_blob(folder, "kernel", m->kernel.size, &m->kernel.digest,
			       err)) < 0 ||
	    (ret = verify_blob(folder, "initramfs", m->initramfs.size,
			       &m->initramfs.digest, err)) < 0 ||
	    (ret = verify_root(folder, m, index, err)) < 0)
		return favo_wrap(err, ret, "image cache: %.12s", name);
	return 0;
}

/* ---- use ---- */

void favo_cache_image_fini(struct favo_cache_image *image)
{
	favo_manifest_free(image->manifest);
	image->manifest = NULL;
	favo_close(&image->kernel_fd);
	favo_close(&image->initramfs_fd);
	favo_close(&image->root_fd);
}

/* Is the mark there, and was it made by the running kernel? */
static bool was_unsynced(const struct favo_cache *cache, int folder_fd, bool *same_boot)
{
	favo_autofree char *text = NULL;
	size_t len = 0;
	int ret = favo_cache_read_file(folder_fd, "unsynced", 4096, &text, &len, NULL);

	*same_boot = ret == 0 && strcmp(text, cache->boot_id) == 0;
	return ret != -ENOENT;
}

/*
 * An image that may be on disk in part only, because the machine crashed soon
 * after it was complete, is checked when it is first needed again.
 */
static int check_after_crash(struct favo_cache *cache, int folder_fd,
			     const struct favo_digest *id, const char *name,
			     struct favo_err *err)
{
	bool same_boot = false;

	if (!was_unsynced(cache, folder_fd, &same_boot) || same_boot)
		return 0;
	if (favo_cache_verify(cache, id, NULL) < 0) {
		(void)remove_folder(cache, name, NULL);
		return favo_fail(err, ENOENT, "image cache: %.12s: torn by a crash",
				 name);
	}
	unlinkat(folder_fd, "unsynced", 0);
	return 0;
}

int favo_cache_get(struct favo_cache *cache, const struct favo_digest *id,
		   const char *holder, struct favo_cache_image *out, struct favo_err *err)
{
	struct favo_cache_image image = {
		.kernel_fd = -1, .initramfs_fd = -1, .root_fd = -1};
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int folder =
		favo_cache_open_folder(cache, favo_cache_name(id, "", name), err);
	favo_autoclose int used = -1;
	int ret;

	if (folder < 0)
		return folder;
	ret = check_after_crash(cache, folder, id, name, err);
	if (ret == 0 && holder)
		ret = favo_cache_pin_folder(folder, holder, err);
	if (ret < 0)
		return ret;
	used = openat(folder, "used", O_WRONLY | O_CREAT | O_CLOEXEC, 0644);
	if (used >= 0)
		futimens(used, NULL);
	if ((ret = favo_cache_read_image(folder, id, &image.manifest, NULL, err)) < 0 ||
	    (ret = image.kernel_fd = favo_cache_open_part(
		     folder, "kernel", image.manifest->kernel.size, err)) < 0 ||
	    (ret = image.initramfs_fd = favo_cache_open_part(
		     folder, "initramfs", image.manifest->initramfs.size, err)) < 0 ||
	    (ret = image.root_fd = favo_cache_open_part(
		     folder, "root.img", image.manifest->root.bytes, err)) < 0) {
		favo_cache_image_fini(&image);
		if (holder)
			favo_cache_unpin(cache, id, holder, NULL);
		/* Damaged: gone, so that it is fetched again. */
		if (ret == -EBADMSG || ret == -ENOENT) {
			(void)remove_folder(cache, name, NULL);
			return favo_wrap(err, -ENOENT, "image cache: %.12s: damaged",
					 name);
		}
		return ret;
	}
	*out = image;
	return 0;
}

int favo_cache_get_partial(struct favo_cache *cache, const struct favo_digest *id,
			   const char *holder, struct favo_cache_image *out,
			   char **folder, struct favo_err *err)
{
	struct favo_cache_image image = {
		.kernel_fd = -1, .initramfs_fd = -1, .root_fd = -1};
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int fd =
		favo_cache_open_folder(cache, favo_cache_name(id, ".part", name), err);
	favo_autofree char *path = favo_asprintf("%s/images/%s", cache->dir, name);
	int ret;

	if (fd < 0)
		return fd;
	if (!path)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	ret = favo_cache_pin_folder(fd, holder, err);
	if (ret < 0)
		return ret;
	if ((ret = favo_cache_read_image(fd, id, &image.manifest, NULL, err)) < 0 ||
	    (ret = image.kernel_fd = favo_cache_open_part(
		     fd, "kernel", image.manifest->kernel.size, err)) < 0 ||
	    (ret = image.initramfs_fd = favo_cache_open_part(
		     fd, "initramfs", image.manifest->initramfs.size, err)) < 0) {
		favo_cache_image_fini(&image);
		(void)favo_cache_unpin(cache, id, holder, NULL);
		return ret;
	}
	*out = image;
	*folder = favo_steal_ptr(&path);
	return 0;
}

int favo_cache_settle(struct favo_cache *cache, const struct favo_digest *id,
		      struct favo_err *err)
{
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int folder =
		favo_cache_open_folder(cache, favo_cache_name(id, "", name), err);
	bool same_boot = false;

	if (folder < 0)
		return folder;
	/* Of an earlier boot: only a check can tell whether the disk has it all. */
	if (!was_unsynced(cache, folder, &same_boot) || !same_boot)
		return 0;
	if (syncfs(cache->fd) < 0)
		return favo_fail(err, errno, "image cache %s: sync: %m", cache->dir);
	unlinkat(folder, "unsynced", 0);
	return 0;
}

static int clean(struct favo_cache *cache, struct favo_err *err)
{
	int fd = openat(cache->fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	struct favo_digest id;
	struct dirent *folder;
	const char *suffix;

	if (!dir)
		return favo_fail(err, errno, "image cache %s: %m", cache->dir);
	while ((folder = readdir(dir)))
		if (parse_folder(folder->d_name, &id, &suffix) &&
		    strcmp(suffix, ".dead") == 0) {
			favo_autofree char *path =
				favo_asprintf("%s/images/%s", cache->dir, folder->d_name);

			if (path && favo_remove_tree(path, NULL) < 0)
				continue; /* tried again at the next start */
		}
	closedir(dir);
	return favo_file_read("/proc/sys/kernel/random/boot_id", 4096, &cache->boot_id,
			      NULL, err);
}

int favo_cache_open(struct favo_cache **out, const char *dir, struct favo_err *err)
{
	favo_autocache struct favo_cache *cache = calloc(1, sizeof(*cache));
	favo_autofree char *images = favo_asprintf("%s/images", dir);
	int ret;

	if (!cache || !images)
		return favo_fail(err, ENOMEM, "image cache %s: out of memory", dir);
	cache->fd = -1;
	cache->dir = strdup(dir);
	if (!cache->dir)
		return favo_fail(err, ENOMEM, "image cache %s: out of memory", dir);
	ret = favo_mkdirs(images, 0700, err);
	if (ret < 0)
		return favo_wrap(err, ret, "image cache");
	cache->fd = open(images, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (cache->fd < 0)
		return favo_fail(err, errno, "image cache %s: %m", dir);
	ret = clean(cache, err);
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&cache);
	return 0;
}

void favo_cache_close(struct favo_cache *cache)
{
	if (!cache)
		return;
	favo_close(&cache->fd);
	free(cache->boot_id);
	free(cache->dir);
	free(cache);
}
