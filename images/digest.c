// SPDX-License-Identifier: GPL-2.0-or-later
/* SHA-256 digests by OpenSSL EVP, and their text forms; see digest.h. */
#include "images/digest.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/util.h"

#define PREFIX "sha256:"

int favo_digest_of(struct favo_digest *out, const void *data, size_t len,
		   struct favo_err *err)
{
	unsigned int n = 0;

	if (EVP_Digest(data, len, out->bytes, &n, EVP_sha256(), NULL) != 1 ||
	    n != FAVO_DIGEST_LEN)
		return favo_fail(err, EIO, "libcrypto cannot compute SHA-256");
	return 0;
}

static int digest_fd(EVP_MD_CTX *ctx, struct favo_digest *out, int fd, char *buf, size_t size,
		     struct favo_err *err)
{
	off_t off = 0;
	ssize_t n;

	if (EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
		return favo_fail(err, EIO, "libcrypto cannot compute SHA-256");
	for (;;) {
		n = pread(fd, buf, size, off);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "read: %m");
		if (n == 0)
			break;
		if (EVP_DigestUpdate(ctx, buf, (size_t)n) != 1)
			return favo_fail(err, EIO, "libcrypto cannot compute SHA-256");
		off += n;
	}
	if (EVP_DigestFinal_ex(ctx, out->bytes, NULL) != 1)
		return favo_fail(err, EIO, "libcrypto cannot compute SHA-256");
	return 0;
}

int favo_digest_of_fd(struct favo_digest *out, int fd, struct favo_err *err)
{
	const size_t size = 256 * 1024;
	favo_autofree char *buf = malloc(size);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	int ret;

	if (!buf || !ctx)
		ret = favo_fail(err, ENOMEM, "out of memory");
	else
		ret = digest_fd(ctx, out, fd, buf, size, err);
	EVP_MD_CTX_free(ctx);
	return ret;
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
		return favo_fail(err, EINVAL, "digest '%.80s': does not begin with " PREFIX,
				 text);
	return favo_digest_parse_hex(out, text + strlen(PREFIX), err);
}

char *favo_digest_format_hex(const struct favo_digest *digest, char hex[FAVO_DIGEST_HEX_SIZE])
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < FAVO_DIGEST_LEN; i++) {
		hex[2 * i] = digits[digest->bytes[i] >> 4];
		hex[2 * i + 1] = digits[digest->bytes[i] & 15];
	}
	hex[FAVO_DIGEST_HEX_SIZE - 1] = '\0';
	return hex;
}

char *favo_digest_format(const struct favo_digest *digest, char text[FAVO_DIGEST_TEXT_SIZE])
{
	memcpy(text, PREFIX, strlen(PREFIX));
	favo_digest_format_hex(digest, text + strlen(PREFIX));
	return text;
}
