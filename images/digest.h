/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Names of content: a SHA-256 digest as bytes and as text "sha256:<64 hex>".
 * The text carries the algorithm so that another one can come beside it.
 * All functions are thread-safe and do not block.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <string.h>

#include "common/err.h"

#define FAVO_DIGEST_LEN 32
#define FAVO_DIGEST_HEX_SIZE 65 /* 64 hex digits and the NUL */
#define FAVO_DIGEST_TEXT_SIZE 72 /* "sha256:", 64 hex digits and the NUL */

struct favo_digest {
	unsigned char bytes[FAVO_DIGEST_LEN];
};

/* Digest of len bytes; -EIO when libcrypto fails. */
int favo_digest_of(struct favo_digest *out, const void *data, size_t len,
		   struct favo_err *err);

/* Digest of a whole file, read from offset 0; the file position is kept. */
int favo_digest_of_fd(struct favo_digest *out, int fd, struct favo_err *err);

/* Exactly "sha256:" and 64 lower-case hex digits, else -EINVAL. */
int favo_digest_parse(struct favo_digest *out, const char *text, struct favo_err *err);

/* Exactly 64 lower-case hex digits, else -EINVAL. */
int favo_digest_parse_hex(struct favo_digest *out, const char *hex, struct favo_err *err);

/* Both write a NUL-terminated text and return it. */
char *favo_digest_format(const struct favo_digest *digest,
			 char text[FAVO_DIGEST_TEXT_SIZE]);
char *favo_digest_format_hex(const struct favo_digest *digest,
			     char hex[FAVO_DIGEST_HEX_SIZE]);

static inline bool favo_digest_equal(const struct favo_digest *a,
				     const struct favo_digest *b)
{
	return memcmp(a->bytes, b->bytes, FAVO_DIGEST_LEN) == 0;
}
