/* SPDX-License-Identifier: GPL-2.0-or-later */
/* SHA-256 (FIPS 180-4) by libcrypto. Thread-safe; one context per thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_SHA256_SIZE 32
#define FAVO_SHA256_HEX (2 * FAVO_SHA256_SIZE + 1)

int favo_sha256(uint8_t out[FAVO_SHA256_SIZE], const void *buf, size_t len,
		struct favo_err *err) favo_must_check;

/* The same as lower-case hex with a NUL. */
int favo_sha256_hex(char out[FAVO_SHA256_HEX], const void *buf, size_t len,
		    struct favo_err *err) favo_must_check;

/* Streaming: new, update..., final (which may be called once), free. */
struct favo_sha256_ctx;
int favo_sha256_new(struct favo_sha256_ctx **out, struct favo_err *err) favo_must_check;
int favo_sha256_update(struct favo_sha256_ctx *ctx, const void *buf, size_t len,
		       struct favo_err *err) favo_must_check;
int favo_sha256_final(struct favo_sha256_ctx *ctx, uint8_t out[FAVO_SHA256_SIZE],
		      struct favo_err *err) favo_must_check;
void favo_sha256_free(struct favo_sha256_ctx *ctx);
void favo_cleanup_sha256(struct favo_sha256_ctx **ctx);
#define favo_autosha256 __attribute__((cleanup(favo_cleanup_sha256)))
