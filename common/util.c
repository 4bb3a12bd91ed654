// SPDX-License-Identifier: GPL-2.0-or-later
/* Small helpers; see util.h. */
#include "common/util.h"

#include <time.h>

void favo_close(int *fd)
{
	favo_cleanup_close(fd);
	*fd = -1;
}

char *favo_asprintf(const char *fmt, ...)
{
	char *text = NULL;
	va_list ap;
	int n;

	va_start(ap, fmt);
	n = vasprintf(&text, fmt, ap);
	va_end(ap);
	return n < 0 ? NULL : text;
}

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t favo_now_ms(void)
{
	return clock_ns(CLOCK_MONOTONIC) / 1000000;
}

int64_t favo_now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

int64_t favo_realtime_ns(void)
{
	return clock_ns(CLOCK_REALTIME);
}
