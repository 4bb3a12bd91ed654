// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Error object; see err.h. Text that does not fit is cut, never dropped.
 */
#include "common/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

int favo_fail_fn(struct favo_err *err, int code, const char *fmt, ...)
{
	int saved = errno;
	va_list ap;

	if (code <= 0)
		code = EIO;
	if (err) {
		err->code = code;
		errno = code; /* for %m */
		va_start(ap, fmt);
		vsnprintf(err->msg, sizeof(err->msg), fmt, ap);
		va_end(ap);
	}
	errno = saved;
	return -code;
}

int favo_wrap(struct favo_err *err, int ret, const char *fmt, ...)
{
	int saved = errno;
	char text[2 * sizeof(err->msg)];
	va_list ap;
	int n;

	if (!err)
		return ret;
	va_start(ap, fmt);
	n = vsnprintf(text, sizeof(err->msg), fmt, ap);
	va_end(ap);
	if (n < 0 || (size_t)n >= sizeof(err->msg))
		n = sizeof(err->msg) - 1;
	snprintf(text + n, sizeof(text) - (size_t)n, ": %s", err->msg);
	memcpy(err->msg, text, sizeof(err->msg) - 1);
	err->msg[sizeof(err->msg) - 1] = '\0';
	errno = saved;
	return ret;
}
