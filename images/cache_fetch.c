// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Filling of the node cache; see cache.h. Bytes come from the network: each
 * blob is decoded within the length that manifest or index give, checked
 * against its digest, and only then written.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/cache.h"
#include "images/cache_internal.h"
#include "images/store.h"

enum state {
	NEEDED,
	ASKED,
	HERE,
};

struct favo_fetch {
	struct favo_cache *cache;
	struct favo_manifest *manifest;
	char name[FAVO_CACHE_NAME_SIZE]; /* folder while it is filled */
	int folder_fd;
	int root_fd;
	int have_fd;
	enum state index_state, kernel_state, initramfs_state;
	struct favo_index *index; /* NULL until it is here */
	size_t *order; /* chunk numbers sorted by digest */
	unsigned char *states; /* enum state per chunk, equal for equal digests */
	size_t cursor; /* chunks before it are not NEEDED */
	size_t missing; /* chunks that are not HERE */
	struct favo_decoder *decoder; /* for chunks */
	struct favo_fetch_progress progress;
	uint32_t *first; /* chunks to ask for before all others, or NULL */
	size_t n_first, first_at;
	bool held; /* ask for nothing behind the first ones */
};

void favo_fetch_free(struct favo_fetch *fetch)
{
	if (!fetch)
		return;
	favo_manifest_free(fetch->manifest);
	favo_index_free(fetch->index);
	favo_close(&fetch->folder_fd);
	favo_close(&fetch->root_fd);
	favo_close(&fetch->have_fd);
	favo_decoder_free(fetch->decoder);
	free(fetch->order);
	free(fetch->states);
	free(fetch->first);
	free(fetch);
}

static int write_at(int fd, const void *data, size_t len, uint64_t offset,
		    const char *name, struct favo_err *err)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = pwrite(fd, (const char *)data + done, len - done,
			   (off_t)(offset + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENOSPC,
					 "image cache: %s: %m", name);
		done += (size_t)n;
	}
	return 0;
}

/* A small file of the folder, complete under its name or not there. */
static int put_file(struct favo_fetch *fetch, const char *name, const void *data,
		    size_t len, struct favo_err *err)
{
	favo_autoclose int fd = openat(fetch->folder_fd, "new",
				       O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "image cache: %s: %m", name);
	ret = write_at(fd, data, len, 0, name, err);
	if (ret == 0 && renameat(fetch->folder_fd, "new", fetch->folder_fd, name) < 0)
		ret = favo_fail(err, errno, "image cache: %s: %m", name);
	return ret;
}

/* ---- chunks ---- */

static int compare_order(const void *a, const void *b, void *user)
{
	const struct favo_chunk *chunks = user;
	const struct favo_chunk *left = &chunks[*(const size_t *)a];
	const struct favo_chunk *right = &chunks[*(const size_t *)b];
	int order = memcmp(&left->digest, &right->digest, sizeof(left->digest));

	return order ? order
		     : (left->offset > right->offset) - (left->offset < right->offset);
}

/* First place in order with this digest; n_chunks when there is none. */
static size_t find_chunk(const struct favo_fetch *fetch, const struct favo_digest *digest)
{
	size_t low = 0, high = fetch->index->n_chunks, mid;

	while (low < high) {
		mid = low + (high - low) / 2;
		if (memcmp(&fetch->index->chunks[fetch->order[mid]].digest, digest,
			   sizeof(*digest)) < 0)
			low = mid + 1;
		else
			high = mid;
	}
	if (low < fetch->index->n_chunks &&
	    favo_digest_equal(&fetch->index->chunks[fetch->order[low]].digest, digest))
		return low;
	return fetch->index->n_chunks;
}

/* The chunk at this place of order if it still has the digest, else NULL. */
static const struct favo_chunk *same_digest(const struct favo_fetch *fetch, size_t at,
					    const struct favo_digest *digest)
{
	const struct favo_chunk *chunk;

	if (at >= fetch->index->n_chunks)
		return NULL;
	chunk = &fetch->index->chunks[fetch->order[at]];
	return favo_digest_equal(&chunk->digest, digest) ? chunk : NULL;
}

static void set_state(struct favo_fetch *fetch, const struct favo_digest *digest,
		      enum state state)
{
	for (size_t at = find_chunk(fetch, digest); same_digest(fetch, at, digest); at++)
		fetch->states[fetch->order[at]] = (unsigned char)state;
}

static bool is_zero(const unsigned char *data, size_t len)
{
	return len == 0 || (data[0] == 0 && memcmp(data, data + 1, len - 1) == 0);
}

/* Checked bytes of a chunk go to all its places. A new file is all zeros. */
static int place_chunk(struct favo_fetch *fetch, size_t at,
		       const struct favo_digest *digest, const void *data, size_t len,
		       struct favo_err *err)
{
	bool zero = is_zero(data, len);
	const struct favo_chunk *chunk;
	unsigned char here = 1;
	size_t number;
	int ret = 0;

	for (; ret == 0 && (chunk = same_digest(fetch, at, digest)); at++) {
		number = fetch->order[at];
		if (fetch->states[number] == HERE)
			continue;
		if (!zero)
			ret = write_at(fetch->root_fd, data, len, chunk->offset,
				       "root.img", err);
		if (ret == 0)
			ret = write_at(fetch->have_fd, &here, 1, number, "have", err);
		if (ret < 0)
			break;
		fetch->states[number] = HERE;
		fetch->missing--;
		fetch->progress.done += len;
	}
	return ret;
}

/* ---- what is here already ---- */

/* What an earlier try wrote: "have" is a hint, the digest decides. */
static int resume(struct favo_fetch *fetch, void *buf, struct favo_err *err)
{
	favo_autofree char *have = NULL;
	unsigned char no = 0;
	size_t len = 0;
	int ret = favo_cache_read_file(fetch->folder_fd, "have", fetch->index->n_chunks,
				       &have, &len, err);

	if (ret < 0)
		return ret == -EBADMSG ? 0 : ret;
	for (size_t i = 0; i < len; i++) {
		const struct favo_chunk *chunk = &fetch->index->chunks[i];

		if (!have[i])
			continue;
		if (favo_cache_check_range(fetch->root_fd, chunk->offset, chunk->length,
					   &chunk->digest, buf, NULL) < 0) {
			/* Who serves the partial image believes the map. */
			ret = write_at(fetch->have_fd, &no, 1, i, "have", err);
			if (ret < 0)
				return ret;
			continue;
		}
		fetch->states[i] = HERE;
		fetch->missing--;
		fetch->progress.done += chunk->length;
		fetch->progress.reused += chunk->length;
	}
	return 0;
}

/* Copy the chunks that we need and another image has; damage there is skipped. */
static int reuse_image(struct favo_fetch *fetch, const struct favo_cache_entry *entry,
		       void *buf, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autoindex struct favo_index *index = NULL;
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autoclose int folder = favo_cache_open_folder(
		fetch->cache, favo_cache_name(&entry->id, "", name), NULL);
	favo_autoclose int root = -1;
	int ret = 0;

	if (folder < 0 || favo_cache_read_image(folder, &entry->id, &m, &index, NULL) < 0)
		return 0;
	root = openat(folder, "root.img", O_RDONLY | O_CLOEXEC);
	for (size_t i = 0; ret == 0 && root >= 0 && i < index->n_chunks; i++) {
		const struct favo_chunk *chunk = &index->chunks[i];
		size_t at = find_chunk(fetch, &chunk->digest);
		uint64_t before = fetch->progress.done;

		if (at == fetch->index->n_chunks ||
		    fetch->states[fetch->order[at]] == HERE ||
		    fetch->index->chunks[fetch->order[at]].length != chunk->length ||
		    favo_cache_check_range(root, chunk->offset, chunk->length,
					   &chunk->digest, buf, NULL) < 0)
			continue;
		ret = place_chunk(fetch, at, &chunk->digest, buf, chunk->length, err);
		fetch->progress.reused += fetch->progress.done - before;
	}
	return ret;
}

static int reuse(struct favo_fetch *fetch, struct favo_err *err)
{
	favo_autofree struct favo_cache_entry *entries = NULL;
	favo_autofree void *buf = malloc(FAVO_CHUNK_MAX);
	size_t n = 0;
	int ret;

	if (!buf)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	ret = resume(fetch, buf, err);
	if (ret == 0)
		ret = favo_cache_list(fetch->cache, &entries, &n, err);
	for (size_t i = 0; ret == 0 && i < n && fetch->missing; i++)
		if (entries[i].complete)
			ret = reuse_image(fetch, &entries[i], buf, err);
	return ret;
}

/* ---- parts ---- */

/* Equal digests must have equal lengths, or root.img could not be right. */
static int check_lengths(const struct favo_fetch *fetch, struct favo_err *err)
{
	const struct favo_chunk *a, *b;

	for (size_t i = 1; i < fetch->index->n_chunks; i++) {
		a = &fetch->index->chunks[fetch->order[i - 1]];
		b = &fetch->index->chunks[fetch->order[i]];
		if (favo_digest_equal(&a->digest, &b->digest) && a->length != b->length)
			return favo_fail(err, EBADMSG,
					 "chunk index: one digest, two lengths");
	}
	return 0;
}

static int use_index(struct favo_fetch *fetch, const void *data, size_t len,
		     struct favo_err *err)
{
	size_t n;
	int ret = favo_index_parse(&fetch->index, data, len, fetch->manifest->root.bytes,
				   err);

	if (ret < 0)
		return ret;
	n = fetch->index->n_chunks;
	fetch->order = calloc(n + 1, sizeof(*fetch->order));
	fetch->states = calloc(n + 1, 1);
	if (!fetch->order || !fetch->states)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	for (size_t i = 0; i < n; i++)
		fetch->order[i] = i;
	qsort_r(fetch->order, n, sizeof(*fetch->order), compare_order,
		fetch->index->chunks);
	fetch->missing = n;
	fetch->index_state = HERE;
	ret = check_lengths(fetch, err);
	return ret < 0 ? ret : reuse(fetch, err);
}

static int put_index(struct favo_fetch *fetch, const void *stored, size_t stored_len,
		     struct favo_err *err)
{
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret;

	if ((ret = favo_blob_decode(&fetch->manifest->root.index, stored, stored_len,
				    FAVO_INDEX_BYTES_MAX, &data, &len, err)) < 0 ||
	    (ret = put_file(fetch, "index", data, len, err)) < 0)
		return ret;
	return use_index(fetch, data, len, err);
}

static int put_blob(struct favo_fetch *fetch, const char *name,
		    const struct favo_digest *digest, uint64_t size, enum state *state,
		    const void *stored, size_t stored_len, struct favo_err *err)
{
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret = favo_blob_decode(digest, stored, stored_len, size, &data, &len, err);

	if (ret < 0)
		return ret;
	if (len != size)
		return favo_fail(err, EBADMSG, "%s: %zu bytes, the manifest says %llu",
				 name, len, (unsigned long long)size);
	ret = put_file(fetch, name, data, len, err);
	if (ret == 0) {
		*state = HERE;
		fetch->progress.done += size;
	}
	return ret;
}

static int put_chunk(struct favo_fetch *fetch, const struct favo_digest *digest,
		     const void *stored, size_t stored_len, struct favo_err *err)
{
	size_t at = fetch->index ? find_chunk(fetch, digest) : 0, len = 0;
	char text[FAVO_DIGEST_TEXT_SIZE];
	const struct favo_chunk *chunk;
	const void *data;
	int ret;

	if (!fetch->index || at == fetch->index->n_chunks)
		return favo_fail(err, ENOENT, "blob %s: not part of the image",
				 favo_digest_format(digest, text));
	chunk = &fetch->index->chunks[fetch->order[at]];
	ret = favo_decode(fetch->decoder, digest, stored, stored_len, &data, &len, err);
	if (ret < 0)
		return ret;
	if (len != chunk->length)
		return favo_fail(err, EBADMSG, "blob %s: %zu bytes, the index says %u",
				 favo_digest_format(digest, text), len, chunk->length);
	return place_chunk(fetch, at, digest, data, len, err);
}

int favo_fetch_put(struct favo_fetch *fetch, const struct favo_digest *digest,
		   const void *stored, size_t stored_len, struct favo_err *err)
{
	struct favo_manifest *m = fetch->manifest;
	bool known = false;
	int ret = 0;

	fetch->progress.moved += stored_len;
	/* One blob may be several of these, and a chunk as well. */
	if (fetch->index_state != HERE && favo_digest_equal(digest, &m->root.index)) {
		known = true;
		ret = put_index(fetch, stored, stored_len, err);
	}
	if (ret == 0 && fetch->kernel_state != HERE &&
	    favo_digest_equal(digest, &m->kernel.digest)) {
		known = true;
		ret = put_blob(fetch, "kernel", digest, m->kernel.size,
			       &fetch->kernel_state, stored, stored_len, err);
	}
	if (ret == 0 && fetch->initramfs_state != HERE &&
	    favo_digest_equal(digest, &m->initramfs.digest)) {
		known = true;
		ret = put_blob(fetch, "initramfs", digest, m->initramfs.size,
			       &fetch->initramfs_state, stored, stored_len, err);
	}
	if (ret == 0 && (!known || (fetch->index &&
				    find_chunk(fetch, digest) < fetch->index->n_chunks)))
		ret = put_chunk(fetch, digest, stored, stored_len, err);
	return ret;
}

/* ---- asking ---- */

/*
 * Chunks that the server of a lazy start (favo-lazy) put into the same folder
 * meanwhile: it marks them in "have" after it has written them.
 */
static void absorb(struct favo_fetch *fetch)
{
	favo_autofree char *have = NULL;
	size_t len = 0;

	if (!fetch->index || !fetch->missing ||
	    favo_cache_read_file(fetch->folder_fd, "have", fetch->index->n_chunks, &have,
				 &len, NULL) < 0)
		return;
	for (size_t i = 0; i < len; i++) {
		if (!have[i] || fetch->states[i] == HERE)
			continue;
		fetch->states[i] = HERE;
		fetch->missing--;
		fetch->progress.done += fetch->index->chunks[i].length;
	}
}

int favo_fetch_first(struct favo_fetch *fetch, const uint32_t *chunks, size_t n,
		     struct favo_err *err)
{
	uint32_t *copy = malloc((n + 1) * sizeof(*copy));

	if (!copy)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	memcpy(copy, chunks, n * sizeof(*copy));
	free(fetch->first);
	fetch->first = copy;
	fetch->n_first = n;
	fetch->first_at = 0;
	return 0;
}

void favo_fetch_hold(struct favo_fetch *fetch, bool held)
{
	fetch->held = held;
}

bool favo_fetch_is_held(const struct favo_fetch *fetch)
{
	return fetch->held;
}

size_t favo_fetch_chunks(const struct favo_fetch *fetch)
{
	return fetch->index_state == HERE ? fetch->index->n_chunks : 0;
}

const char *favo_fetch_name(const struct favo_fetch *fetch)
{
	return fetch->name;
}

bool favo_fetch_is_bootable(const struct favo_fetch *fetch)
{
	return fetch->index_state == HERE && fetch->kernel_state == HERE &&
	       fetch->initramfs_state == HERE;
}

static int missing_first(struct favo_fetch *fetch, struct favo_digest *want, int max)
{
	int n = 0;

	for (; n < max && fetch->first_at < fetch->n_first; fetch->first_at++) {
		size_t chunk = fetch->first[fetch->first_at];

		if (chunk >= fetch->index->n_chunks || fetch->states[chunk] != NEEDED)
			continue;
		want[n] = fetch->index->chunks[chunk].digest;
		set_state(fetch, &want[n++], ASKED);
	}
	return n;
}

int favo_fetch_missing(struct favo_fetch *fetch, struct favo_digest *want, int max)
{
	struct favo_manifest *m = fetch->manifest;
	int n = 0;

	if (fetch->index_state == NEEDED && n < max) {
		fetch->index_state = ASKED;
		want[n++] = m->root.index;
		return n;
	}
	if (fetch->index_state != HERE)
		return 0;
	if (fetch->kernel_state == NEEDED && n < max) {
		fetch->kernel_state = ASKED;
		want[n++] = m->kernel.digest;
	}
	if (fetch->initramfs_state == NEEDED && n < max) {
		fetch->initramfs_state = ASKED;
		want[n++] = m->initramfs.digest;
	}
	/* A VM waits for these two, but not for all that may follow. */
	if (n && fetch->held)
		return n;
	absorb(fetch);
	n += missing_first(fetch, want + n, max - n);
	if (fetch->held)
		return n;
	for (; n < max && fetch->cursor < fetch->index->n_chunks; fetch->cursor++) {
		if (fetch->states[fetch->cursor] != NEEDED)
			continue;
		want[n] = fetch->index->chunks[fetch->cursor].digest;
		set_state(fetch, &want[n++], ASKED);
	}
	return n;
}

void favo_fetch_retry(struct favo_fetch *fetch)
{
	if (fetch->index_state == ASKED)
		fetch->index_state = NEEDED;
	if (fetch->kernel_state == ASKED)
		fetch->kernel_state = NEEDED;
	if (fetch->initramfs_state == ASKED)
		fetch->initramfs_state = NEEDED;
	for (size_t i = 0; fetch->index && i < fetch->index->n_chunks; i++)
		if (fetch->states[i] == ASKED)
			fetch->states[i] = NEEDED;
	fetch->cursor = fetch->first_at = 0;
}

const struct favo_index *favo_fetch_index(const struct favo_fetch *fetch)
{
	return fetch->index_state == HERE ? fetch->index : NULL;
}

int favo_fetch_folder(const struct favo_fetch *fetch)
{
	return fetch->folder_fd;
}

bool favo_fetch_has(const struct favo_fetch *fetch, const struct favo_digest *digest)
{
	const struct favo_manifest *m = fetch->manifest;
	size_t at;

	if (fetch->kernel_state != HERE && favo_digest_equal(digest, &m->kernel.digest))
		return false;
	if (fetch->initramfs_state != HERE &&
	    favo_digest_equal(digest, &m->initramfs.digest))
		return false;
	at = fetch->index ? find_chunk(fetch, digest) : 0;
	return fetch->index &&
	       (at == fetch->index->n_chunks || fetch->states[fetch->order[at]] == HERE);
}

void favo_fetch_progress(const struct favo_fetch *fetch, struct favo_fetch_progress *out)
{
	*out = fetch->progress;
	out->total = favo_manifest_total_size(fetch->manifest);
}

/* ---- begin and end ---- */

static int open_file(struct favo_fetch *fetch, const char *name, struct favo_err *err)
{
	int fd = openat(fetch->folder_fd, name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);

	return fd < 0 ? favo_fail(err, errno, "image cache: %s: %m", name) : fd;
}

static int check_space(struct favo_fetch *fetch, struct favo_err *err)
{
	uint64_t total = favo_manifest_total_size(fetch->manifest), free_bytes;
	char need[32], has[32];
	struct statvfs fs;
	struct stat st;

	if (fstatvfs(fetch->cache->fd, &fs) < 0 || fstat(fetch->root_fd, &st) < 0)
		return favo_fail(err, errno, "image cache %s: %m", fetch->cache->dir);
	free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize + (uint64_t)st.st_blocks * 512;
	if (free_bytes < total)
		return favo_fail(err, ENOSPC,
				 "image cache %s: the image needs %s, %s are free",
				 fetch->cache->dir,
				 favo_format_size(need, sizeof(need), total),
				 favo_format_size(has, sizeof(has), free_bytes));
	return 0;
}

/* A part of an earlier try that is whole and right needs no second one. */
static void resume_blob(struct favo_fetch *fetch, const char *name, uint64_t size,
			const struct favo_digest *digest, enum state *state)
{
	favo_autoclose int fd = openat(fetch->folder_fd, name, O_RDONLY | O_CLOEXEC);
	struct favo_digest actual;
	struct stat st;

	if (fd < 0 || fstat(fd, &st) < 0 || (uint64_t)st.st_size != size ||
	    favo_digest_of_fd(&actual, fd, NULL) < 0 ||
	    !favo_digest_equal(&actual, digest))
		return;
	*state = HERE;
	fetch->progress.done += size;
	fetch->progress.reused += size;
}

static int open_folder(struct favo_fetch *fetch, const void *manifest, size_t len,
		       struct favo_err *err)
{
	struct favo_cache *cache = fetch->cache;
	favo_autofree char *index = NULL;
	struct favo_digest digest;
	size_t index_len = 0;
	int ret;

	if (mkdirat(cache->fd, fetch->name, 0700) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "image cache %s: %m", cache->dir);
	fetch->folder_fd = favo_cache_open_folder(cache, fetch->name, err);
	if (fetch->folder_fd < 0)
		return fetch->folder_fd;
	if ((ret = put_file(fetch, "manifest.json", manifest, len, err)) < 0 ||
	    (ret = fetch->root_fd = open_file(fetch, "root.img", err)) < 0 ||
	    (ret = fetch->have_fd = open_file(fetch, "have", err)) < 0 ||
	    (ret = check_space(fetch, err)) < 0)
		return ret;
	if (ftruncate(fetch->root_fd, (off_t)fetch->manifest->root.bytes) < 0)
		return favo_fail(err, errno, "image cache %s: root.img: %m", cache->dir);
	resume_blob(fetch, "kernel", fetch->manifest->kernel.size,
		    &fetch->manifest->kernel.digest, &fetch->kernel_state);
	resume_blob(fetch, "initramfs", fetch->manifest->initramfs.size,
		    &fetch->manifest->initramfs.digest, &fetch->initramfs_state);
	if (favo_cache_read_file(fetch->folder_fd, "index", FAVO_INDEX_BYTES_MAX, &index,
				 &index_len, NULL) == 0 &&
	    favo_digest_of(&digest, index, index_len, NULL) == 0 &&
	    favo_digest_equal(&digest, &fetch->manifest->root.index))
		return use_index(fetch, index, index_len, err);
	return 0;
}

int favo_fetch_begin(struct favo_fetch **out, struct favo_cache *cache,
		     const struct favo_digest *id, const void *manifest, size_t len,
		     struct favo_err *err)
{
	favo_autofetch struct favo_fetch *fetch = calloc(1, sizeof(*fetch));
	char text[FAVO_DIGEST_TEXT_SIZE];
	int ret;

	if (!fetch)
		return favo_fail(err, ENOMEM, "image cache: out of memory");
	fetch->cache = cache;
	fetch->folder_fd = fetch->root_fd = fetch->have_fd = -1;
	ret = favo_manifest_parse(&fetch->manifest, manifest, len, err);
	if (ret == 0)
		ret = favo_decoder_new(&fetch->decoder, FAVO_CHUNK_MAX, err);
	if (ret < 0)
		return ret;
	if (!favo_digest_equal(&fetch->manifest->id, id))
		return favo_fail(err, EBADMSG,
				 "manifest %s: content does not match the digest",
				 favo_digest_format(id, text));
	favo_cache_name(id, "", fetch->name);
	if (faccessat(cache->fd, fetch->name, F_OK, 0) == 0)
		return favo_fail(err, EEXIST, "image cache: %.12s: complete already",
				 fetch->name);
	favo_cache_name(id, ".part", fetch->name);
	ret = open_folder(fetch, manifest, len, err);
	if (ret < 0)
		return ret;
	*out = favo_steal_ptr(&fetch);
	return 0;
}

int favo_fetch_commit(struct favo_fetch *fetch, struct favo_err *err)
{
	char name[FAVO_CACHE_NAME_SIZE];
	favo_autofree char *boot_id = NULL;
	size_t len = 0;
	int ret;

	absorb(fetch);
	if (fetch->index_state != HERE || fetch->kernel_state != HERE ||
	    fetch->initramfs_state != HERE || fetch->missing)
		return favo_fail(err, EAGAIN, "image cache: %zu chunks are missing",
				 fetch->missing);
	ret = favo_file_read("/proc/sys/kernel/random/boot_id", 4096, &boot_id, &len,
			     err);
	if (ret == 0)
		ret = put_file(fetch, "unsynced", boot_id, len, err);
	if (ret == 0)
		ret = put_file(fetch, "used", NULL, 0, err);
	if (ret < 0)
		return ret;
	unlinkat(fetch->folder_fd, "have", 0);
	/* Start writing back without waiting for it. */
	sync_file_range(fetch->root_fd, 0, 0, SYNC_FILE_RANGE_WRITE);
	favo_cache_name(&fetch->manifest->id, "", name);
	if (renameat(fetch->cache->fd, fetch->name, fetch->cache->fd, name) < 0)
		return favo_fail(err, errno, "image cache: %.12s: %m", name);
	return 0;
}
