// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Hash tree of dm-verity (Linux Documentation/admin-guide/device-mapper/
 * verity.rst; hash type 1: the salt comes before the block). The levels stand
 * top first, as drivers/md/dm-verity-target.c computes their places. Each
 * level is hashed by all cores, each with a run of its own.
 */
#include "images/verity.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <openssl/evp.h>

#include "common/util.h"

#define PER_BLOCK (FAVO_VERITY_BLOCK / FAVO_DIGEST_LEN)
#define THREADS_MAX 64
#define RUN_BLOCKS 1024u /* a run is worth a thread from here on */

void favo_verity_layout(uint64_t size, struct favo_verity_layout *layout)
{
	uint64_t blocks = (size + FAVO_VERITY_BLOCK - 1) / FAVO_VERITY_BLOCK, at = 0;

	*layout = (struct favo_verity_layout){.data_blocks = blocks,
					      .hash_offset = blocks * FAVO_VERITY_BLOCK};
	while (blocks > 1 && layout->levels < FAVO_VERITY_LEVELS) {
		blocks = (blocks + PER_BLOCK - 1) / PER_BLOCK;
		layout->level_blocks[layout->levels++] = blocks;
	}
	for (unsigned int i = layout->levels; i-- > 0;) {
		layout->level_block[i] = at;
		at += layout->level_blocks[i];
	}
	layout->hash_size = at * FAVO_VERITY_BLOCK;
}

void favo_verity_salt(struct favo_digest *salt)
{
	static const char text[] = "favo image verity salt, format 1";

	_Static_assert(sizeof(text) - 1 == FAVO_DIGEST_LEN, "a salt is 32 bytes");
	memcpy(salt->bytes, text, FAVO_DIGEST_LEN);
}

/* Blocks first .. first + n - 1 of data, hashed to consecutive places. */
struct run {
	const unsigned char *data;
	unsigned char *hashes;
	uint64_t n;
	const EVP_MD_CTX *salted; /* state after the salt */
	int ret;
};

static void *hash_run(void *arg)
{
	struct run *run = arg;
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();

	run->ret = ctx ? 0 : -ENOMEM;
	for (uint64_t i = 0; run->ret == 0 && i < run->n; i++)
		if (!EVP_MD_CTX_copy_ex(ctx, run->salted) ||
		    !EVP_DigestUpdate(ctx, run->data + i * FAVO_VERITY_BLOCK,
				      FAVO_VERITY_BLOCK) ||
		    !EVP_DigestFinal_ex(ctx, run->hashes + i * FAVO_DIGEST_LEN, NULL))
			run->ret = -EIO;
	EVP_MD_CTX_free(ctx);
	return NULL;
}

static int hash_blocks(const unsigned char *data, unsigned char *hashes, uint64_t n,
		       const EVP_MD_CTX *salted)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	size_t wanted = (size_t)FAVO_MAX(1, FAVO_MIN(cores, THREADS_MAX));
	struct run runs[THREADS_MAX];
	pthread_t threads[THREADS_MAX];
	size_t started = 0;
	uint64_t at = 0, share;
	int ret = 0;

	wanted = (size_t)FAVO_MIN((uint64_t)wanted, n / RUN_BLOCKS + 1);
	share = (n + wanted - 1) / wanted;
	for (size_t i = 0; i < wanted; i++, at += runs[i - 1].n)
		runs[i] = (struct run){.data = data + at * FAVO_VERITY_BLOCK,
				       .hashes = hashes + at * FAVO_DIGEST_LEN,
				       .n = FAVO_MIN(share, n - at),
				       .salted = salted};
	while (started + 1 < wanted &&
	       pthread_create(&threads[started], NULL, hash_run, &runs[started]) == 0)
		started++;
	/* The last run, and those that got no thread, are ours. */
	for (size_t i = started; i < wanted; i++)
		hash_run(&runs[i]);
	for (size_t i = 0; i < started; i++)
		pthread_join(threads[i], NULL);
	for (size_t i = 0; i < wanted; i++)
		ret = ret ? ret : runs[i].ret;
	return ret;
}

static int hash_levels(unsigned char *file, const struct favo_verity_layout *layout,
		       const EVP_MD_CTX *salted, struct favo_digest *root_hash)
{
	const unsigned char *below = file;
	uint64_t n = layout->data_blocks;
	int ret = 0;

	for (unsigned int i = 0; ret == 0 && i < layout->levels; i++) {
		unsigned char *level = file + layout->hash_offset +
				       layout->level_block[i] * FAVO_VERITY_BLOCK;

		ret = hash_blocks(below, level, n, salted);
		below = level;
		n = layout->level_blocks[i];
	}
	return ret < 0 ? ret : hash_blocks(below, root_hash->bytes, 1, salted);
}

int favo_verity_build(int fd, uint64_t size, const struct favo_digest *salt,
		      struct favo_digest *root_hash, struct favo_err *err)
{
	struct favo_verity_layout layout;
	EVP_MD_CTX *salted;
	unsigned char *file;
	uint64_t bytes;
	int ret;

	favo_verity_layout(size, &layout);
	bytes = layout.hash_offset + layout.hash_size;
	if (size == 0)
		return favo_fail(err, EINVAL, "verity tree: an empty file system");
	/* Cut first: padding and tree begin as zeros, whatever stood there. */
	if (ftruncate(fd, (off_t)size) < 0 || ftruncate(fd, (off_t)bytes) < 0)
		return favo_fail(err, errno, "verity tree: %m");
	/* Blocks are taken now: a full disk is an error here, not a SIGBUS below. */
	ret = posix_fallocate(fd, (off_t)layout.hash_offset,
			      (off_t)FAVO_MAX(layout.hash_size, 1));
	if (ret == 0 && ftruncate(fd, (off_t)bytes) < 0)
		ret = errno;
	if (ret)
		return favo_fail(err, ret, "verity tree: %s", strerror(ret));
	file = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (file == MAP_FAILED)
		return favo_fail(err, errno, "verity tree: %m");
	salted = EVP_MD_CTX_new();
	if (!salted || !EVP_DigestInit_ex(salted, EVP_sha256(), NULL) ||
	    !EVP_DigestUpdate(salted, salt->bytes, sizeof(salt->bytes)))
		ret = -EIO;
	else
		ret = hash_levels(file, &layout, salted, root_hash);
	EVP_MD_CTX_free(salted);
	munmap(file, bytes);
	return ret < 0 ? favo_fail(err, -ret, "verity tree: libcrypto fails") : 0;
}
