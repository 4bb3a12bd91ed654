// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Parallel packing; see pack.h. Cutting is fast and sequential (over 1 GB/s),
 * hashing and compression are not: the caller's thread cuts the mapped file
 * and lays down the chunks, workers take them one after the other. The index
 * is allocated for the worst case, so that no worker sees it move.
 */
#include "images/pack.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"
#include "images/chunker.h"
#include "images/verity.h"

#define THREADS_MAX 64

struct packer {
	struct favo_store_tx *tx;
	const unsigned char *data;
	struct favo_index *index;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	size_t cut; /* chunks that are ready for a worker */
	size_t taken; /* chunks that a worker has */
	bool all_cut;
	uint64_t done_bytes;
	unsigned int workers;
	struct favo_pack_stats stats;
	int ret;
	struct favo_err err;
};

/* Next chunk to work on, NULL at the end. */
static struct favo_chunk *take(struct packer *p)
{
	struct favo_chunk *chunk = NULL;

	pthread_mutex_lock(&p->lock);
	while (p->taken == p->cut && !p->all_cut && p->ret == 0)
		pthread_cond_wait(&p->changed, &p->lock);
	if (p->ret == 0 && p->taken < p->cut)
		chunk = &p->index->chunks[p->taken++];
	pthread_mutex_unlock(&p->lock);
	return chunk;
}

static void report(struct packer *p, const struct favo_chunk *chunk, uint64_t stored,
		   int ret, const struct favo_err *err)
{
	pthread_mutex_lock(&p->lock);
	p->done_bytes += chunk->length;
	if (stored) {
		p->stats.new_chunks++;
		p->stats.new_bytes += chunk->length;
		p->stats.stored_bytes += stored;
	}
	if (ret < 0 && p->ret == 0) {
		p->ret = ret;
		p->err = *err;
		pthread_cond_broadcast(&p->changed);
	}
	pthread_mutex_unlock(&p->lock);
}

static void *work(void *arg)
{
	struct packer *p = arg;
	struct favo_chunk *chunk;
	struct favo_err err;
	uint64_t stored;
	int ret;

	while ((chunk = take(p))) {
		err = (struct favo_err){0};
		ret = favo_store_put(p->tx, p->data + chunk->offset, chunk->length,
				     &chunk->digest, &stored, &err);
		report(p, chunk, stored, ret, &err);
	}
	pthread_mutex_lock(&p->lock);
	p->workers--;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

static void cut(struct packer *p, const struct favo_chunker *chunker, uint64_t offset,
		uint64_t size)
{
	struct favo_chunk *chunk;

	while (offset < size) {
		chunk = &p->index->chunks[p->index->n_chunks];
		chunk->offset = offset;
		chunk->length = (uint32_t)favo_chunker_next(chunker, p->data + offset,
							    size - offset);
		offset += chunk->length;
		p->index->n_chunks++;
		pthread_mutex_lock(&p->lock);
		p->cut = p->index->n_chunks;
		pthread_cond_signal(&p->changed);
		pthread_mutex_unlock(&p->lock);
	}
}

/* The file system up to tree_offset, the verity tree behind it. */
static void cut_all(struct packer *p, uint64_t tree_offset, uint64_t size)
{
	struct favo_chunker chunker;

	favo_chunker_init(&chunker);
	cut(p, &chunker, 0, tree_offset);
	favo_chunker_init_tree(&chunker);
	cut(p, &chunker, tree_offset, size);
	p->index->size = size;
	pthread_mutex_lock(&p->lock);
	p->all_cut = true;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
}

static void wait_for_workers(struct packer *p, uint64_t size, favo_progress_fn *progress,
			     void *user)
{
	struct timespec until;
	uint64_t done;

	pthread_mutex_lock(&p->lock);
	while (p->workers) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += 200 * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&p->changed, &p->lock, &until);
		done = p->done_bytes;
		pthread_mutex_unlock(&p->lock);
		if (progress)
			progress("store", done, size, user);
		pthread_mutex_lock(&p->lock);
	}
	pthread_mutex_unlock(&p->lock);
}

static int run(struct packer *p, uint64_t tree_offset, uint64_t size,
	       favo_progress_fn *progress, void *user)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	pthread_t threads[THREADS_MAX];
	size_t n = 0, wanted = cores < 1 ? 1 : (size_t)FAVO_MIN(cores, THREADS_MAX);

	p->workers = (unsigned int)wanted;
	while (n < wanted && pthread_create(&threads[n], NULL, work, p) == 0)
		n++;
	pthread_mutex_lock(&p->lock);
	p->workers -= (unsigned int)(wanted - n);
	if (n == 0)
		p->ret = favo_fail(&p->err, EAGAIN, "cannot start a thread");
	pthread_mutex_unlock(&p->lock);
	if (n)
		cut_all(p, tree_offset, size);
	wait_for_workers(p, size, progress, user);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
	return p->ret;
}

/* tree_offset UINT64_MAX: there is no tree. */
static int pack(struct favo_store_tx *tx, int fd, uint64_t tree_offset,
		struct favo_index **index, struct favo_pack_stats *stats,
		favo_progress_fn *progress, void *user, struct favo_err *err)
{
	favo_autoindex struct favo_index *chunks = calloc(1, sizeof(*chunks));
	struct packer p = {.tx = tx,
			   .index = chunks,
			   .lock = PTHREAD_MUTEX_INITIALIZER,
			   .changed = PTHREAD_COND_INITIALIZER};
	void *data = NULL;
	struct stat st;
	uint64_t size;
	int ret;

	if (!chunks)
		return favo_fail(err, ENOMEM, "out of memory");
	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "%m");
	size = (uint64_t)st.st_size;
	tree_offset = FAVO_MIN(tree_offset, size);
	chunks->chunks = calloc(tree_offset / FAVO_CHUNKER_MIN +
					(size - tree_offset) / FAVO_CHUNKER_TREE_MIN + 2,
				sizeof(*chunks->chunks));
	if (!chunks->chunks)
		return favo_fail(err, ENOMEM, "out of memory");
	if (size) {
		data = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, 0);
		if (data == MAP_FAILED)
			return favo_fail(err, errno, "mmap: %m");
		p.data = data;
	}
	ret = run(&p, tree_offset, size, progress, user);
	if (data)
		munmap(data, size);
	if (ret < 0) {
		if (err)
			*err = p.err;
		return ret;
	}
	if (stats)
		*stats = p.stats;
	*index = favo_steal_ptr(&chunks);
	return 0;
}

int favo_pack(struct favo_store_tx *tx, int fd, struct favo_index **index,
	      struct favo_pack_stats *stats, favo_progress_fn *progress, void *user,
	      struct favo_err *err)
{
	return pack(tx, fd, UINT64_MAX, index, stats, progress, user, err);
}

int favo_pack_root(struct favo_store_tx *tx, int fd, struct favo_packed_root *out,
		   favo_progress_fn *progress, void *user, struct favo_err *err)
{
	favo_autoindex struct favo_index *index = NULL;
	struct favo_packed_root root = {0};
	favo_autofree void *bytes = NULL;
	struct favo_verity_layout layout;
	struct stat st;
	size_t len = 0;
	int ret;

	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "%m");
	root.size = (uint64_t)st.st_size;
	favo_verity_layout(root.size, &layout);
	root.verity.hash_offset = layout.hash_offset;
	root.verity.hash_size = layout.hash_size;
	favo_verity_salt(&root.verity.salt);
	if ((ret = favo_verity_build(fd, root.size, &root.verity.salt,
				     &root.verity.root_hash, err)) < 0 ||
	    (ret = pack(tx, fd, layout.hash_offset, &index, &root.stats, progress, user,
			err)) < 0 ||
	    (ret = favo_index_format(index, &bytes, &len, err)) < 0 ||
	    (ret = favo_store_put(tx, bytes, len, &root.index, NULL, err)) < 0)
		return ret;
	root.chunks = index->n_chunks;
	*out = root;
	return 0;
}

json_t *favo_packed_root_json(const struct favo_packed_root *root)
{
	char index[FAVO_DIGEST_TEXT_SIZE], hash[FAVO_DIGEST_HEX_SIZE];
	char salt[FAVO_DIGEST_HEX_SIZE];

	return json_pack("{s:s, s:I, s:s, s:{s:s, s:s, s:I, s:I}}", "fstype", "erofs",
			 "size", (json_int_t)root->size, "index",
			 favo_digest_format(&root->index, index), "verity", "root_hash",
			 favo_digest_format_hex(&root->verity.root_hash, hash), "salt",
			 favo_digest_format_hex(&root->verity.salt, salt), "hash_offset",
			 (json_int_t)root->verity.hash_offset, "hash_size",
			 (json_int_t)root->verity.hash_size);
}
