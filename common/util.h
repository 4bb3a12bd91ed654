/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Scope cleanup, ownership transfer, and small helpers without a home of
 * their own. All are thread-safe; the destructors keep errno.
 */
#pragma once

#include <errno.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "common/err.h"

#define FAVO_ARRAY_SIZE(a) (sizeof(a) / sizeof((a)[0]))
#define FAVO_MIN(a, b) ((a) < (b) ? (a) : (b))
#define FAVO_MAX(a, b) ((a) > (b) ? (a) : (b))
#define favo_container_of(ptr, type, member)                                             \
	((type *)(void *)((char *)(ptr)-offsetof(type, member)))

static inline void favo_cleanup_free(void *p)
{
	int saved = errno;

	free(*(void **)p);
	errno = saved;
}

static inline void favo_cleanup_close(const int *fd)
{
	int saved = errno;

	if (*fd >= 0)
		close(*fd);
	errno = saved;
}

static inline void favo_cleanup_fclose(FILE **f)
{
	int saved = errno;

	if (*f)
		fclose(*f);
	errno = saved;
}

/* Local resources: initialise with NULL or -1 where they are declared. */
#define favo_autofree __attribute__((cleanup(favo_cleanup_free)))
#define favo_autoclose __attribute__((cleanup(favo_cleanup_close)))
#define favo_autofclose __attribute__((cleanup(favo_cleanup_fclose)))

static inline int favo_steal_fd(int *fd)
{
	int ret = *fd;

	*fd = -1;
	return ret;
}

#define favo_steal_ptr(pp)                                                               \
	({                                                                               \
		__typeof__(*(pp)) favo_stolen_ = *(pp);                                  \
		*(pp) = NULL;                                                            \
		favo_stolen_;                                                            \
	})

/* Close *fd if it is open, leave -1; keeps errno. */
void favo_close(int *fd);

/* asprintf that returns NULL when memory is out; the caller owns the result. */
char *favo_asprintf(const char *fmt, ...) favo_printf(1, 2) favo_must_check;

/* CLOCK_MONOTONIC and CLOCK_REALTIME. */
int64_t favo_now_ms(void);
int64_t favo_now_ns(void);
int64_t favo_realtime_ns(void);
