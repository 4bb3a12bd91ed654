// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Stored form of a blob: a zstd frame, recognised by its magic number, or the
 * plain bytes. See store.h. The decoder reads bytes from the network.
 */
#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <zstd.h>

#include "common/util.h"
#include "images/store.h"

#define LEVEL 3 /* 298 MB/s per core; higher levels gain little at 64 KiB */
#define LEVEL_BIG 9 /* for kernels: written once, read by every node */
#define BIG (1024 * 1024)

static bool has_zstd_magic(const void *data, size_t len)
{
	static const unsigned char magic[4] = {0x28, 0xb5, 0x2f, 0xfd};

	return len >= sizeof(magic) && memcmp(data, magic, sizeof(magic)) == 0;
}

int favo_blob_encode(const void *data, size_t len, void **stored, size_t *stored_len,
		     struct favo_err *err)
{
	size_t bound = ZSTD_compressBound(len), n;
	favo_autofree void *frame = malloc(bound);
	void *fit;

	if (!frame)
		return favo_fail(err, ENOMEM, "compress: out of memory");
	n = ZSTD_compress(frame, bound, data, len, len >= BIG ? LEVEL_BIG : LEVEL);
	if (ZSTD_isError(n))
		return favo_fail(err, EIO, "compress: %s", ZSTD_getErrorName(n));
	if (n >= len && !has_zstd_magic(data, len)) {
		if (len)
			memcpy(frame, data, len);
		n = len;
	}
	fit = realloc(frame, n ? n : 1);
	*stored = fit ? fit : frame;
	*stored_len = n;
	frame = NULL;
	return 0;
}

static int damaged(const struct favo_digest *digest, const char *why,
		   struct favo_err *err)
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	return favo_fail(err, EBADMSG, "blob %s: %s", favo_digest_format(digest, text),
			 why);
}

/* Plain bytes, not yet checked. */
static int decode(const struct favo_digest *digest, const void *stored, size_t stored_len,
		  size_t max, void **data, size_t *len, struct favo_err *err)
{
	favo_autofree void *plain = NULL;
	unsigned long long size = stored_len;
	bool packed = has_zstd_magic(stored, stored_len);
	size_t n;

	if (packed)
		size = ZSTD_getFrameContentSize(stored, stored_len);
	/* The two error values of zstd are the largest numbers there are. */
	if (size > max)
		return damaged(digest, "more bytes than expected", err);
	plain = malloc(size ? size : 1);
	if (!plain)
		return favo_fail(err, ENOMEM, "blob: out of memory");
	if (packed) {
		n = ZSTD_decompress(plain, size, stored, stored_len);
		if (ZSTD_isError(n) || n != size)
			return damaged(digest, "compressed data is damaged", err);
	} else if (size) {
		memcpy(plain, stored, size);
	}
	*data = favo_steal_ptr(&plain);
	*len = size;
	return 0;
}

int favo_blob_decode(const struct favo_digest *digest, const void *stored,
		     size_t stored_len, size_t max, void **data, size_t *len,
		     struct favo_err *err)
{
	favo_autofree void *plain = NULL;
	struct favo_digest actual;
	size_t n = 0;
	int ret;

	ret = decode(digest, stored, stored_len, max, &plain, &n, err);
	if (ret == 0)
		ret = favo_digest_of(&actual, plain, n, err);
	if (ret < 0)
		return ret;
	if (!favo_digest_equal(&actual, digest))
		return damaged(digest, "content does not match the digest", err);
	*data = favo_steal_ptr(&plain);
	*len = n;
	return 0;
}
