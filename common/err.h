/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Error object: one sentence written where the failure happens.
 *
 * A fallible function returns 0 (or a count) on success and -errno on failure.
 * Its last parameter is a struct favo_err that the caller zeroed; it may be
 * NULL. The text needs no free. Objects come back through an out-parameter
 * that is written only on success. No function here blocks or allocates, and
 * all keep errno. Thread-safe as long as each thread has its own object.
 */
#pragma once

#define favo_printf(fmt, args) __attribute__((format(printf, fmt, args)))
#define favo_must_check __attribute__((warn_unused_result))

struct favo_err {
	int code; /* errno value, > 0 once set */
	char msg[512];
};

/*
 * Set code and text and return -code. A code <= 0 becomes EIO. "%m" in fmt
 * prints strerror(code).
 */
int favo_fail_fn(struct favo_err *err, int code, const char *fmt, ...) favo_printf(3, 4);

/* The same; the compiler knows that the result is negative. */
#define favo_fail(...)                                                                   \
	({                                                                               \
		int favo_failed_ = favo_fail_fn(__VA_ARGS__);                            \
		if (favo_failed_ >= 0)                                                   \
			__builtin_unreachable();                                         \
		favo_failed_;                                                            \
	})

/* Put "context: " before the text of err; returns ret unchanged. */
int favo_wrap(struct favo_err *err, int ret, const char *fmt, ...) favo_printf(3, 4);
