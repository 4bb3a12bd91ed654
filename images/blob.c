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

struct favo_decoder {
	ZSTD_DCtx *zstd;
	size_t size; /* of buf */
	unsigned char buf[];
};

int favo_decoder_new(struct favo_decoder **out, size_t size, struct favo_err *err)
{
	struct favo_decoder *decoder = malloc(sizeof(*decoder) + size);

	if (!decoder)
		return favo_fail(err, ENOMEM, "blob: out of memory");
	decoder->size = size;
	decoder->zstd = ZSTD_createDCtx();
	if (!decoder->zstd) {
		free(decoder);
		return favo_fail(err, ENOMEM, "blob: out of memory");
	}
	*out = decoder;
	return 0;
}

void favo_decoder_free(struct favo_decoder *decoder)
{
	if (!decoder)
		return;
	ZSTD_freeDCtx(decoder->zstd);
	free(decoder);
}

int favo_decode(struct favo_decoder *decoder, const struct favo_digest *digest,
		const void *stored, size_t stored_len, const void **data, size_t *len,
		struct favo_err *err)
{
	unsigned long long size = stored_len;
	const void *plain = stored;
	struct favo_digest actual;
	size_t n;
	int ret;

	if (has_zstd_magic(stored, stored_len)) {
		size = ZSTD_getFrameContentSize(stored, stored_len);
		plain = decoder->buf;
	}
	/* The two error values of zstd are the largest numbers there are. */
	if (size > decoder->size)
		return damaged(digest, "more bytes than expected", err);
	if (plain != stored) {
		n = ZSTD_decompressDCtx(decoder->zstd, decoder->buf, size, stored,
					stored_len);
		if (ZSTD_isError(n) || n != size)
			return damaged(digest, "compressed data is damaged", err);
	}
	ret = favo_digest_of(&actual, plain, size, err);
	if (ret < 0)
		return ret;
	if (!favo_digest_equal(&actual, digest))
		return damaged(digest, "content does not match the digest", err);
	*data = plain;
	*len = size;
	return 0;
}

int favo_blob_decode(const struct favo_digest *digest, const void *stored,
		     size_t stored_len, size_t max, void **data, size_t *len,
		     struct favo_err *err)
{
	bool packed = has_zstd_magic(stored, stored_len);
	unsigned long long size =
		packed ? ZSTD_getFrameContentSize(stored, stored_len) : stored_len;
	struct favo_decoder *decoder = NULL;
	const void *plain;
	int ret;

	if (size > max)
		return damaged(digest, "more bytes than expected", err);
	ret = favo_decoder_new(&decoder, size, err);
	if (ret == 0)
		ret = favo_decode(decoder, digest, stored, stored_len, &plain, len, err);
	if (ret == 0) {
		*data = malloc(*len ? *len : 1);
		if (*data && *len)
			memcpy(*data, plain, *len);
		ret = *data ? 0 : favo_fail(err, ENOMEM, "blob: out of memory");
	}
	favo_decoder_free(decoder);
	return ret;
}

int favo_blob_identify(const void *stored, size_t stored_len, size_t max,
		       struct favo_digest *digest, struct favo_err *err)
{
	favo_autofree unsigned char *plain = NULL;
	unsigned long long size;
	size_t n;

	if (!has_zstd_magic(stored, stored_len)) {
		if (stored_len > max)
			return favo_fail(err, EBADMSG, "blob: more than %zu bytes", max);
		return favo_digest_of(digest, stored, stored_len, err);
	}
	size = ZSTD_getFrameContentSize(stored, stored_len);
	if (size > max)
		return favo_fail(err, EBADMSG, "blob: more than %zu bytes", max);
	plain = malloc(size ? size : 1);
	if (!plain)
		return favo_fail(err, ENOMEM, "blob: out of memory");
	n = ZSTD_decompress(plain, size, stored, stored_len);
	if (ZSTD_isError(n) || n != size)
		return favo_fail(err, EBADMSG, "blob: compressed data is damaged");
	return favo_digest_of(digest, plain, size, err);
}
