// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One layer from its bytes to a tree; see layer.h. Two threads: one reads,
 * hashes and decompresses into a ring of buffers, the caller's hashes the
 * plain bytes and parses the tar. Compression is told by the first bytes, as
 * registries and archives name it wrongly often enough; what counts is the
 * digest of the tar inside.
 */
#include "images/layer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <zlib.h>
#include <zstd.h>

#include "common/sha256.h"
#include "common/util.h"

#define IN_SIZE (512u * 1024)
#define OUT_SIZE (512u * 1024)
#define RING 6
/* Real layers reach 20; all zeros reach 1000 with gzip, and far more with zstd. */
#define RATIO_MAX 200
#define RATIO_FREE (256u << 20) /* expand to so much without being asked */
#define ZSTD_WINDOW_LOG_MAX 27 /* 128 MiB, what "zstd --long" makes */

struct slot {
	unsigned char *data;
	size_t len;
};

struct pipe {
	const struct favo_layer_source *source;
	struct favo_spool *spool;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	struct slot ring[RING];
	size_t filled, taken; /* slots so far */
	bool ended; /* no more is filled */
	bool stop; /* the reader has gone */
	int ret;
	struct favo_err err;
	/* decompressing thread only */
	unsigned char *in;
	uint64_t in_bytes, out_bytes;
	struct favo_sha256_ctx *in_hash;
	/* reading thread only */
	struct slot current;
	size_t used;
	bool has_current;
	struct favo_sha256_ctx *out_hash;
};

/* ---- decompressing thread ---- */

/* A free slot of the ring; NULL when nobody wants it any more. */
static struct slot *slot_get(struct pipe *p)
{
	struct slot *slot = NULL;

	pthread_mutex_lock(&p->lock);
	while (p->filled - p->taken == RING && !p->stop)
		pthread_cond_wait(&p->changed, &p->lock);
	if (!p->stop)
		slot = &p->ring[p->filled % RING];
	pthread_mutex_unlock(&p->lock);
	return slot;
}

static int slot_put(struct pipe *p, struct slot *slot, size_t len, struct favo_err *err)
{
	slot->len = len;
	p->out_bytes += len;
	pthread_mutex_lock(&p->lock);
	p->filled++;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	if (p->out_bytes > RATIO_FREE && p->out_bytes / RATIO_MAX > p->in_bytes)
		return favo_fail(err, EFBIG,
				 "expands to more than %d times its size: refused as a "
				 "decompression bomb",
				 RATIO_MAX);
	/* Headers and padding are not contents: twice the bound is certainly one. */
	if (p->out_bytes / 2 > p->spool->max_bytes)
		return favo_fail(err, EFBIG, "larger than %ju MiB",
				 (uintmax_t)(p->spool->max_bytes >> 20));
	return 0;
}

/* Next bytes of the source into in, behind the first at. */
static ssize_t more_input(struct pipe *p, size_t at, struct favo_err *err)
{
	const struct favo_layer_source *source = p->source;
	ssize_t n;
	int ret;

	if (atomic_load(&p->spool->stop))
		return favo_fail(err, ECANCELED, "given up");
	n = source->read(source->user, p->in + at, IN_SIZE - at, err);
	if (n <= 0)
		return n;
	p->in_bytes += (uint64_t)n;
	if (source->done)
		atomic_fetch_add(source->done, (uint64_t)n);
	if (source->has_digest && p->in_bytes > source->size)
		return favo_fail(err, EBADMSG, "more bytes than the manifest says");
	ret = source->has_digest
		      ? favo_sha256_update(p->in_hash, p->in + at, (size_t)n, err)
		      : 0;
	return ret < 0 ? ret : n;
}

static ssize_t next_input(struct pipe *p, struct favo_err *err)
{
	return more_input(p, 0, err);
}

static int copy_plain(struct pipe *p, ssize_t n, struct favo_err *err)
{
	struct slot *slot;
	int ret;

	for (; n > 0; n = next_input(p, err)) {
		slot = slot_get(p);
		if (!slot)
			return -ECANCELED;
		memcpy(slot->data, p->in, (size_t)n);
		ret = slot_put(p, slot, (size_t)n, err);
		if (ret < 0)
			return ret;
	}
	return (int)n;
}

/* Inflate what is in z until it needs more; 1 at the end of a gzip member. */
static int inflate_some(struct pipe *p, z_stream *z, struct favo_err *err)
{
	struct slot *slot;
	int ret, code;

	do {
		slot = slot_get(p);
		if (!slot)
			return -ECANCELED;
		z->next_out = slot->data;
		z->avail_out = OUT_SIZE;
		code = inflate(z, Z_NO_FLUSH);
		if (code != Z_OK && code != Z_STREAM_END && code != Z_BUF_ERROR)
			return favo_fail(err, EBADMSG, "gzip: %s",
					 z->msg ? z->msg : "damaged data");
		if (z->avail_out < OUT_SIZE) {
			ret = slot_put(p, slot, OUT_SIZE - z->avail_out, err);
			if (ret < 0)
				return ret;
		}
	} while (code == Z_OK && (z->avail_in || z->avail_out == 0));
	return code == Z_STREAM_END;
}

/* Any number of gzip members, one behind the other (RFC 1952, 2.2). */
static int copy_gzip(struct pipe *p, ssize_t n, struct favo_err *err)
{
	z_stream z = {.next_in = p->in, .avail_in = (unsigned int)n};
	bool ended = false;
	int ret = 0;

	if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK)
		return favo_fail(err, ENOMEM, "gzip: out of memory");
	for (;;) {
		if (z.avail_in == 0) {
			n = next_input(p, err);
			if (n <= 0) {
				ret = (int)n;
				break;
			}
			z.next_in = p->in;
			z.avail_in = (unsigned int)n;
		}
		if (ended)
			inflateReset(&z);
		ret = inflate_some(p, &z, err);
		if (ret < 0)
			break;
		ended = ret == 1;
	}
	inflateEnd(&z);
	if (ret == 0 && !ended)
		return favo_fail(err, EBADMSG, "gzip: the data ends too early");
	return ret;
}

static int unzstd_some(struct pipe *p, ZSTD_DCtx *zstd, size_t n, size_t *hint,
		       struct favo_err *err)
{
	ZSTD_inBuffer in = {p->in, n, 0};
	ZSTD_outBuffer out;
	struct slot *slot;
	int ret;

	do {
		slot = slot_get(p);
		if (!slot)
			return -ECANCELED;
		out = (ZSTD_outBuffer){slot->data, OUT_SIZE, 0};
		*hint = ZSTD_decompressStream(zstd, &out, &in);
		if (ZSTD_isError(*hint))
			return favo_fail(err, EBADMSG, "zstd: %s",
					 ZSTD_getErrorName(*hint));
		if (out.pos) {
			ret = slot_put(p, slot, out.pos, err);
			if (ret < 0)
				return ret;
		}
	} while (in.pos < in.size || out.pos == out.size);
	return 0;
}

static int copy_zstd(struct pipe *p, ssize_t n, struct favo_err *err)
{
	ZSTD_DCtx *zstd = ZSTD_createDCtx();
	size_t hint = 1; /* 0 at the end of a frame */
	int ret = 0;

	if (!zstd)
		return favo_fail(err, ENOMEM, "zstd: out of memory");
	ZSTD_DCtx_setParameter(zstd, ZSTD_d_windowLogMax, ZSTD_WINDOW_LOG_MAX);
	for (; ret == 0 && n > 0; n = ret == 0 ? next_input(p, err) : 0)
		ret = unzstd_some(p, zstd, (size_t)n, &hint, err);
	ZSTD_freeDCtx(zstd);
	if (ret < 0 || n < 0)
		return ret < 0 ? ret : (int)n;
	if (hint)
		return favo_fail(err, EBADMSG, "zstd: the data ends too early");
	return 0;
}

static int check_input(struct pipe *p, struct favo_err *err)
{
	struct favo_digest digest;
	int ret;

	if (!p->source->has_digest)
		return 0;
	if (p->in_bytes != p->source->size)
		return favo_fail(err, EBADMSG, "%ju bytes, and the manifest says %ju",
				 (uintmax_t)p->in_bytes, (uintmax_t)p->source->size);
	ret = favo_sha256_final(p->in_hash, digest.bytes, err);
	if (ret == 0 && !favo_digest_equal(&digest, &p->source->digest))
		return favo_fail(err, EBADMSG, "content does not match the digest");
	return ret;
}

static int decompress(struct pipe *p, struct favo_err *err)
{
	ssize_t n = 0, more;
	uint32_t magic;
	int ret;

	do {
		more = more_input(p, (size_t)n, err);
		if (more < 0)
			return (int)more;
		n += more;
	} while (more > 0 && n < (ssize_t)sizeof(magic));
	memcpy(&magic, p->in, sizeof(magic));
	if (n >= 3 && memcmp(p->in, "\x1f\x8b\x08", 3) == 0)
		ret = copy_gzip(p, n, err);
	else if (n >= 4 &&
		 (magic == ZSTD_MAGICNUMBER ||
		  (magic & ZSTD_MAGIC_SKIPPABLE_MASK) == ZSTD_MAGIC_SKIPPABLE_START))
		ret = copy_zstd(p, n, err);
	else
		ret = copy_plain(p, n, err);
	return ret < 0 ? ret : check_input(p, err);
}

static void *decompress_thread(void *user)
{
	struct pipe *p = user;
	struct favo_err err = {0};
	int ret = decompress(p, &err);

	pthread_mutex_lock(&p->lock);
	p->ended = true;
	p->ret = ret;
	p->err = err;
	pthread_cond_broadcast(&p->changed);
	pthread_mutex_unlock(&p->lock);
	return NULL;
}

/* ---- the caller's thread ---- */

/* Make the next slot current; 0 at the end. */
static int next_slot(struct pipe *p, struct favo_err *err)
{
	int ret = 1;

	pthread_mutex_lock(&p->lock);
	if (p->has_current) {
		p->has_current = false;
		p->taken++;
		pthread_cond_broadcast(&p->changed);
	}
	while (p->filled == p->taken && !p->ended)
		pthread_cond_wait(&p->changed, &p->lock);
	if (p->filled > p->taken) {
		p->current = p->ring[p->taken % RING];
		p->has_current = true;
		p->used = 0;
	} else {
		ret = p->ret;
		if (ret < 0 && err)
			*err = p->err;
	}
	pthread_mutex_unlock(&p->lock);
	if (ret <= 0)
		return ret;
	ret = favo_sha256_update(p->out_hash, p->current.data, p->current.len, err);
	return ret < 0 ? ret : 1;
}

static ssize_t read_plain(void *user, void *buf, size_t len, struct favo_err *err)
{
	struct pipe *p = user;
	int ret;

	if (!p->has_current || p->used == p->current.len) {
		ret = next_slot(p, err);
		if (ret <= 0)
			return ret;
	}
	len = FAVO_MIN(len, p->current.len - p->used);
	memcpy(buf, p->current.data + p->used, len);
	p->used += len;
	return (ssize_t)len;
}

static int load(struct favo_tree **tree, struct pipe *p, struct favo_err *err)
{
	struct favo_digest digest;
	int ret = favo_tree_load_layer(tree, read_plain, p, p->spool, err);

	/* What stands behind the end of the tar belongs to the digest, too. */
	while (ret == 0 && (ret = next_slot(p, err)) > 0)
		ret = 0;
	if (ret == 0)
		ret = favo_sha256_final(p->out_hash, digest.bytes, err);
	if (ret == 0 && !favo_digest_equal(&digest, &p->source->diff_id))
		return favo_fail(err, EBADMSG,
				 "the tar inside does not match its diff_id in the "
				 "image's configuration");
	return ret;
}

static int start(struct pipe *p, struct favo_err *err)
{
	int ret = favo_sha256_new(&p->in_hash, err);

	if (ret == 0)
		ret = favo_sha256_new(&p->out_hash, err);
	if (ret < 0)
		return ret;
	p->in = calloc(1, IN_SIZE);
	if (!p->in)
		return favo_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < RING; i++) {
		p->ring[i].data = malloc(OUT_SIZE);
		if (!p->ring[i].data)
			return favo_fail(err, ENOMEM, "out of memory");
	}
	return 0;
}

int favo_layer_load(struct favo_tree **out, const struct favo_layer_source *source,
		    struct favo_spool *spool, struct favo_err *err)
{
	struct pipe p = {.source = source,
			 .spool = spool,
			 .lock = PTHREAD_MUTEX_INITIALIZER,
			 .changed = PTHREAD_COND_INITIALIZER};
	favo_autotree struct favo_tree *tree = NULL;
	pthread_t thread;
	int ret = start(&p, err);

	if (ret == 0 && pthread_create(&thread, NULL, decompress_thread, &p) != 0)
		ret = favo_fail(err, EAGAIN, "cannot start a thread");
	else if (ret == 0) {
		ret = load(&tree, &p, err);
		pthread_mutex_lock(&p.lock);
		p.stop = true;
		pthread_cond_broadcast(&p.changed);
		pthread_mutex_unlock(&p.lock);
		pthread_join(thread, NULL);
	}
	for (size_t i = 0; i < RING; i++)
		free(p.ring[i].data);
	free(p.in);
	favo_sha256_free(p.in_hash);
	favo_sha256_free(p.out_hash);
	if (ret == 0)
		*out = favo_steal_ptr(&tree);
	return ret;
}
