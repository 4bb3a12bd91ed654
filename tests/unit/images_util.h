/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the tests of images/ share: scratch folders, bytes, small images. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/store.h"

/* A new folder below $TMPDIR or /tmp; the caller removes and frees it. */
static inline char *scratch_dir(void)
{
	const char *base = getenv("TMPDIR");
	char *path = favo_asprintf("%s/favo-test-XXXXXX", base ? base : "/tmp");

	assert_non_null(path);
	assert_non_null(mkdtemp(path));
	return path;
}

static inline void scratch_free(char *path)
{
	assert_int_equal(favo_remove_tree(path, NULL), 0);
	free(path);
}

/* Bytes that look random and are the same in every run. */
static inline void fill_random(void *buf, size_t len, uint64_t seed)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++) {
		seed = seed * 6364136223846793005u + 1442695040888963407u;
		p[i] = (unsigned char)(seed >> 56);
	}
}

#define assert_ok(call, err)                                                             \
	do {                                                                             \
		int ok_ret_ = (call);                                                    \
                                                                                         \
		if (ok_ret_ < 0)                                                         \
			fail_msg("%s: %s", #call, (err)->msg);                           \
	} while (0)
