/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Text: numbers, sizes, durations, hex, host lists. Every parser takes the
 * whole string or fails with a sentence that quotes it. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Decimal or 0x hexadecimal, min <= *out <= max. */
int favo_parse_u64(uint64_t *out, const char *text, uint64_t min, uint64_t max,
		   struct favo_err *err) favo_must_check;

/* Bytes: 4096, 64K, 512M, 2G, 1T (powers of 1024; "MiB" and "MB" mean M). */
int favo_parse_size(uint64_t *bytes, const char *text,
		    struct favo_err *err) favo_must_check;

/* Milliseconds: 500ms, 10s, 2m, 1h, 1d; a bare number is seconds. */
int favo_parse_duration(uint64_t *ms, const char *text,
			struct favo_err *err) favo_must_check;

/* yes/no, on/off, true/false, 1/0. */
int favo_parse_bool(bool *out, const char *text, struct favo_err *err) favo_must_check;

/* "450.2 MiB"; buf holds at least 16 bytes and is returned. */
char *favo_format_size(char *buf, size_t size, uint64_t bytes);

/* Lower-case hex of n bytes; out holds 2 * n + 1. */
void favo_hex_encode(char *out, const void *bytes, size_t n);
/* Exactly 2 * n hex digits, nothing else. */
int favo_hex_decode(void *bytes, size_t n, const char *text,
		    struct favo_err *err) favo_must_check;

/* base64url without padding (RFC 4648 section 5); caller frees *out. */
int favo_base64url_encode(char **out, const void *bytes, size_t n,
			  struct favo_err *err) favo_must_check;
int favo_base64url_decode(void **out, size_t *n, const char *text, size_t len,
			  struct favo_err *err) favo_must_check;

/*
 * Host list in Slurm's form, "n[1-3,07],m5": expanded in order, duplicates
 * kept. At most max names. Free with favo_strv_free().
 */
int favo_hostlist_expand(char ***out, size_t *n, const char *text, size_t max,
			 struct favo_err *err) favo_must_check;

/* NULL-terminated vector of strings. */
void favo_strv_free(char **v);
void favo_cleanup_strv(char ***v);
#define favo_autostrv __attribute__((cleanup(favo_cleanup_strv)))

/* Is text made only of [A-Za-z0-9] and the characters of extra, 1..max long? */
bool favo_is_name(const char *text, const char *extra, size_t max);
