// SPDX-License-Identifier: GPL-2.0-or-later
/* SHA-256 digests as names of content, and their text forms; see digest.h. */
#include "images/digest.h"

#include <errno.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/sha256.h"
#include "common/str.h"
#include "common/util.h"

#define PREFIX "sha256:"

int favo_digest_of(struct favo_digest *out, const void *data, size_t len,
		   struct favo_err *err)
{
	return favo_sha256(out->bytes, data, len, err);
}

int favo_digest_of_fd(struct favo_digest *out, int fd, struct favo_err *err)
{
	const size_t size = 256 * 1024;
	favo_autofree char *buf = malloc(size);
	favo_autosha256 struct favo_sha256_ctx *ctx = NULL;
	off_t off = 0;
	ssize_t n;
	int ret;

	if (!buf)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_sha256_new(&ctx, err);
	if (ret < 0)
		return ret;
	while ((n = pread(fd, buf, size, off)) != 0) {
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "read: %m");
		ret = favo_sha256_update(ctx, buf, (size_t)n, err);
		if (ret < 0)
			return ret;
		off += n;
	}
	return favo_sha256_final(ctx, out->bytes, err);
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int favo_digest_parse_hex(struct favo_digest *out, const char *hex, struct favo_err *err)
{
	struct favo_digest digest;
	int hi, lo;

	if (strnlen(hex, FAVO_DIGEST_HEX_SIZE) != FAVO_DIGEST_HEX_SIZE - 1)
		return favo_fail(err, EINVAL, "digest '%.80s': not 64 hex digits", hex);
	for (size_t i = 0; i < FAVO_DIGEST_LEN; i++) {
		hi = hex_value(hex[2 * i]);
		lo = hex_value(hex[2 * i + 1]);
		if (hi < 0 || lo < 0)
			return favo_fail(err, EINVAL, "digest '%.80s': not 64 hex digits",
					 hex);
		digest.bytes[i] = (unsigned char)(hi << 4 | lo);
	}
	*out = digest;
	return 0;
}

int favo_digest_parse(struct favo_digest *out, const char *text, struct favo_err *err)
{
	if (strncmp(text, PREFIX, strlen(PREFIX)) != 0)
		return favo_fail(err, EINVAL,
				 "digest '%.80s': does not begin with " PREFIX, text);
	return favo_digest_parse_hex(out, text + strlen(PREFIX), err);
}

char *favo_digest_format_hex(const struct favo_digest *digest,
			     char hex[FAVO_DIGEST_HEX_SIZE])
{
	favo_hex_encode(hex, digest->bytes, FAVO_DIGEST_LEN);
	return hex;
}

char *favo_digest_format(const struct favo_digest *digest,
			 char text[FAVO_DIGEST_TEXT_SIZE])
{
	memcpy(text, PREFIX, strlen(PREFIX));
	favo_digest_format_hex(digest, text + strlen(PREFIX));
	return text;
}
