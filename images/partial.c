// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A partial image as favo-lazy sees it; see partial.h. Bytes come from the
 * network and are checked against their digest before they are written, as in
 * cache_fetch.c.
 */
#include "images/partial.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/cache_internal.h"
#include "images/store.h"

struct favo_partial {
	struct favo_manifest *manifest;
	struct favo_index *index;
	struct favo_decoder *decoder;
	size_t *order; /* chunk numbers sorted by digest */
	unsigned char *have; /* mapped, one byte per chunk */
	unsigned char *touched; /* ours alone, one byte per chunk */
	struct favo_partial_state *state; /* mapped */
	int root_fd;
	int trace_fd;
	int lock_fd; /* of "lazy": one server per image */
};

void favo_partial_free(struct favo_partial *partial)
{
	if (!partial)
		return;
	if (partial->have)
		munmap(partial->have, partial->index->n_chunks);
	if (partial->state)
		munmap(partial->state, sizeof(*partial->state));
	favo_close(&partial->root_fd);
	favo_close(&partial->trace_fd);
	favo_close(&partial->lock_fd);
	favo_decoder_free(partial->decoder);
	favo_index_free(partial->index);
	favo_manifest_free(partial->manifest);
	free(partial->order);
	free(partial->touched);
	free(partial);
}

static int compare_order(const void *a, const void *b, void *user)
{
	const struct favo_chunk *chunks = user;

	return memcmp(&chunks[*(const size_t *)a].digest,
		      &chunks[*(const size_t *)b].digest, sizeof(struct favo_digest));
}

/* "…/<64 hex>.part" */
static int parse_path(struct favo_digest *id, const char *path, struct favo_err *err)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	char hex[FAVO_DIGEST_HEX_SIZE];

	if (strlen(name) != sizeof(hex) - 1 + strlen(".part") ||
	    strcmp(name + sizeof(hex) - 1, ".part") != 0)
		return favo_fail(err, EINVAL, "%s: not the folder of a partial image",
				 path);
	memcpy(hex, name, sizeof(hex) - 1);
	hex[sizeof(hex) - 1] = '\0';
	return favo_digest_parse_hex(id, hex, err);
}

static int open_rw(int folder, const char *name, struct favo_err *err)
{
	int fd = openat(folder, name, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);

	return fd < 0 ? favo_fail(err, errno, "partial image: %s: %m", name) : fd;
}

/* Map a file, made as long as wanted, shared with other processes. */
static int map_file(void **out, int fd, const char *name, size_t len,
		    struct favo_err *err)
{
	void *map;
	int ret;

	/* With its blocks: a full disk must not kill us in mid-write. */
	ret = posix_fallocate(fd, 0, (off_t)len);
	if (ret)
		return favo_fail(err, ret, "partial image: %s: %m", name);
	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return favo_fail(err, errno, "partial image: map %s: %m", name);
	*out = map;
	return 0;
}

static int open_files(struct favo_partial *p, int folder, struct favo_err *err)
{
	favo_autoclose int have_fd = -1;
	void *map = NULL;
	int ret;

	p->lock_fd = open_rw(folder, "lazy", err);
	if (p->lock_fd < 0)
		return p->lock_fd;
	if (flock(p->lock_fd, LOCK_EX | LOCK_NB) < 0)
		return favo_fail(err, EBUSY, "partial image: it is being served already");
	p->root_fd = openat(folder, "root.img", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (p->root_fd < 0)
		return favo_fail(err, errno, "partial image: root.img: %m");
	p->trace_fd = openat(folder, "trace",
			     O_WRONLY | O_CREAT | O_APPEND | O_TRUNC | O_CLOEXEC, 0600);
	if (p->trace_fd < 0)
		return favo_fail(err, errno, "partial image: trace: %m");
	have_fd = open_rw(folder, "have", err);
	if (have_fd < 0)
		return have_fd;
	ret = map_file(&map, have_fd, "have", p->index->n_chunks, err);
	if (ret < 0)
		return ret;
	p->have = map;
	ret = map_file(&map, p->lock_fd, "lazy", sizeof(*p->state), err);
	if (ret < 0)
		return ret;
	p->state = map;
	memset(p->state, 0, sizeof(*p->state));
	return 0;
}

int favo_partial_open(struct favo_partial **out, const char *path, struct favo_err *err)
{
	favo_autopartial struct favo_partial *p = calloc(1, sizeof(*p));
	favo_autoclose int folder = -1;
	struct favo_digest id;
	size_t n;
	int ret;

	if (!p)
		return favo_fail(err, ENOMEM, "partial image: out of memory");
	p->root_fd = p->trace_fd = p->lock_fd = -1;
	ret = parse_path(&id, path, err);
	if (ret < 0)
		return ret;
	folder = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (folder < 0)
		return favo_fail(err, errno, "%s: %m", path);
	ret = favo_cache_read_image(folder, &id, &p->manifest, &p->index, err);
	if (ret < 0)
		return ret;
	n = p->index->n_chunks;
	if (!n)
		return favo_fail(err, EINVAL, "%s: an empty image", path);
	p->order = calloc(n, sizeof(*p->order));
	p->touched = calloc(n, 1);
	if (!p->order || !p->touched)
		return favo_fail(err, ENOMEM, "partial image: out of memory");
	for (size_t i = 0; i < n; i++)
		p->order[i] = i;
	qsort_r(p->order, n, sizeof(*p->order), compare_order, p->index->chunks);
	ret = favo_decoder_new(&p->decoder, FAVO_CHUNK_MAX, err);
	if (ret == 0)
		ret = open_files(p, folder, err);
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&p);
	return 0;
}

struct favo_partial_state *favo_partial_state(struct favo_partial *partial)
{
	return partial->state;
}

const struct favo_index *favo_partial_index(const struct favo_partial *partial)
{
	return partial->index;
}

size_t favo_partial_find(const struct favo_partial *partial, uint64_t offset)
{
	const struct favo_index *index = partial->index;
	size_t low = 0, high = index->n_chunks;

	while (high - low > 1) {
		size_t mid = low + (high - low) / 2;

		if (index->chunks[mid].offset <= offset)
			low = mid;
		else
			high = mid;
	}
	return low;
}

bool favo_partial_has(const struct favo_partial *partial, size_t chunk)
{
	return __atomic_load_n(&partial->have[chunk], __ATOMIC_ACQUIRE);
}

int favo_partial_read(const struct favo_partial *partial, void *buf, size_t len,
		      uint64_t offset, struct favo_err *err)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = pread(partial->root_fd, (char *)buf + done, len - done,
				  (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : EIO, "root.img: %m");
		done += (size_t)n;
	}
	return 0;
}

static int write_chunk(struct favo_partial *p, size_t number, const void *data,
		       size_t len, struct favo_err *err)
{
	uint64_t offset = p->index->chunks[number].offset;
	size_t done = 0;

	while (done < len) {
		ssize_t n = pwrite(p->root_fd, (const char *)data + done, len - done,
				   (off_t)(offset + done));

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENOSPC, "root.img: %m");
		done += (size_t)n;
	}
	__atomic_store_n(&p->have[number], 1, __ATOMIC_RELEASE);
	return 0;
}

/* First place in order of this digest, or n_chunks. */
static size_t find_digest(const struct favo_partial *p, const struct favo_digest *digest)
{
	const struct favo_chunk *chunks = p->index->chunks;
	size_t low = 0, high = p->index->n_chunks;

	while (low < high) {
		size_t mid = low + (high - low) / 2;

		if (memcmp(&chunks[p->order[mid]].digest, digest, sizeof(*digest)) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

int favo_partial_put(struct favo_partial *partial, const struct favo_digest *digest,
		     const void *stored, size_t len, struct favo_err *err)
{
	const struct favo_chunk *chunks = partial->index->chunks;
	size_t at = find_digest(partial, digest), n = partial->index->n_chunks;
	char text[FAVO_DIGEST_TEXT_SIZE];
	const void *data;
	size_t plain = 0;
	int ret;

	__atomic_add_fetch(&partial->state->moved, len, __ATOMIC_RELAXED);
	if (at == n || !favo_digest_equal(&chunks[partial->order[at]].digest, digest))
		return favo_fail(err, ENOENT, "blob %s: not part of the image",
				 favo_digest_format(digest, text));
	ret = favo_decode(partial->decoder, digest, stored, len, &data, &plain, err);
	for (; ret == 0 && at < n; at++) {
		size_t number = partial->order[at];

		if (!favo_digest_equal(&chunks[number].digest, digest))
			break;
		if (chunks[number].length != plain)
			return favo_fail(err, EBADMSG,
					 "blob %s: %zu bytes, the index says %u",
					 favo_digest_format(digest, text), plain,
					 chunks[number].length);
		if (!favo_partial_has(partial, number))
			ret = write_chunk(partial, number, data, plain, err);
	}
	return ret;
}

void favo_partial_touch(struct favo_partial *partial, size_t chunk)
{
	uint32_t number = htole32((uint32_t)chunk);

	if (partial->touched[chunk])
		return;
	partial->touched[chunk] = 1;
	/* A trace with a hole is a worse hint, and no more than that. */
	if (write(partial->trace_fd, &number, sizeof(number)) < 0)
		return;
}

int favo_partial_state_load(struct favo_partial_state *out, const char *path,
			    struct favo_err *err)
{
	favo_autofree char *file = favo_asprintf("%s/lazy", path), *data = NULL;
	struct favo_partial_state state;
	size_t len = 0;
	int ret;

	if (!file)
		return favo_fail(err, ENOMEM, "partial image: out of memory");
	ret = favo_file_read(file, sizeof(state), &data, &len, err);
	if (ret < 0)
		return ret;
	if (len != sizeof(state) || memcmp(data, FAVO_PARTIAL_MAGIC, 8) != 0)
		return favo_fail(err, ENOENT, "%s: nobody serves this image", file);
	memcpy(&state, data, sizeof(state));
	*out = state;
	return 0;
}

int favo_trace_parse(uint32_t **chunks, size_t *n, const void *data, size_t len,
		     size_t n_chunks, struct favo_err *err)
{
	favo_autofree unsigned char *seen = calloc(n_chunks + 1, 1);
	favo_autofree uint32_t *list = NULL;
	const unsigned char *p = data;
	size_t count = 0;

	if (len % sizeof(uint32_t) || len > FAVO_TRACE_MAX)
		return favo_fail(err, EBADMSG, "boot trace: %zu bytes are no list", len);
	list = calloc(len / sizeof(uint32_t) + 1, sizeof(*list));
	if (!list || !seen)
		return favo_fail(err, ENOMEM, "boot trace: out of memory");
	for (size_t i = 0; i < len; i += sizeof(uint32_t)) {
		uint32_t number;

		memcpy(&number, p + i, sizeof(number));
		number = le32toh(number);
		if (number >= n_chunks)
			return favo_fail(err, EBADMSG,
					 "boot trace: chunk %u of an image of %zu",
					 number, n_chunks);
		if (!seen[number])
			list[count++] = number;
		seen[number] = 1;
	}
	*chunks = favo_steal_ptr(&list);
	*n = count;
	return 0;
}
