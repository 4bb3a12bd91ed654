/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Decompression of whole files in memory: kernels and kernel modules. */
#pragma once

#include <stddef.h>

#include "common/err.h"

/*
 * Decompress data in any form that libarchive knows (gzip, xz, zstd, lz4,
 * lzma, bzip2); plain data is copied. The result has at most max bytes
 * (-EFBIG); the caller frees *out. -EBADMSG for damaged data. Thread-safe.
 */
int favo_unpack(const void *data, size_t len, size_t max, void **out, size_t *out_len,
		struct favo_err *err);
