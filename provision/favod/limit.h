/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rate limit per user: a bucket of tokens that fills with time. A fixed table,
 * so that no number of users can make it grow. Thread-safe, never blocks long.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

struct favo_limit;

/* rate tokens per second, at most burst saved up. NULL when memory is out. */
struct favo_limit *favo_limit_new(unsigned int rate, unsigned int burst);
void favo_limit_free(struct favo_limit *limit);

/* Take one token of uid at now_ms (monotonic); false when there is none. */
bool favo_limit_take(struct favo_limit *limit, uid_t uid, int64_t now_ms);
