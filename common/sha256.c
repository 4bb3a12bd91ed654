// SPDX-License-Identifier: GPL-2.0-or-later
/* SHA-256; see sha256.h. The opaque context is libcrypto's own. */
#include "common/sha256.h"

#include <openssl/evp.h>

#include "common/str.h"
#include "common/util.h"

static EVP_MD_CTX *evp_of(struct favo_sha256_ctx *ctx)
{
	return (EVP_MD_CTX *)ctx;
}

int favo_sha256(uint8_t out[FAVO_SHA256_SIZE], const void *buf, size_t len,
		struct favo_err *err)
{
	unsigned int n;

	if (EVP_Digest(buf, len, out, &n, EVP_sha256(), NULL) != 1)
		return favo_fail(err, ENOMEM, "SHA-256: libcrypto failed");
	return 0;
}

int favo_sha256_hex(char out[FAVO_SHA256_HEX], const void *buf, size_t len,
		    struct favo_err *err)
{
	uint8_t digest[FAVO_SHA256_SIZE];
	int ret = favo_sha256(digest, buf, len, err);

	if (ret == 0)
		favo_hex_encode(out, digest, sizeof(digest));
	return ret;
}

int favo_sha256_new(struct favo_sha256_ctx **out, struct favo_err *err)
{
	EVP_MD_CTX *evp = EVP_MD_CTX_new();

	if (!evp || EVP_DigestInit_ex(evp, EVP_sha256(), NULL) != 1) {
		EVP_MD_CTX_free(evp);
		return favo_fail(err, ENOMEM, "SHA-256: libcrypto failed");
	}
	*out = (struct favo_sha256_ctx *)evp;
	return 0;
}

int favo_sha256_update(struct favo_sha256_ctx *ctx, const void *buf, size_t len,
		       struct favo_err *err)
{
	if (EVP_DigestUpdate(evp_of(ctx), buf, len) != 1)
		return favo_fail(err, EIO, "SHA-256: libcrypto failed");
	return 0;
}

int favo_sha256_final(struct favo_sha256_ctx *ctx, uint8_t out[FAVO_SHA256_SIZE],
		      struct favo_err *err)
{
	unsigned int n;

	if (EVP_DigestFinal_ex(evp_of(ctx), out, &n) != 1)
		return favo_fail(err, EIO, "SHA-256: libcrypto failed");
	return 0;
}

void favo_sha256_free(struct favo_sha256_ctx *ctx)
{
	EVP_MD_CTX_free(evp_of(ctx));
}

void favo_cleanup_sha256(struct favo_sha256_ctx **ctx)
{
	favo_sha256_free(*ctx);
}
