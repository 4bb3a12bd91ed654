// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Logging; see log.h. Each line is one write(2), so lines of several threads
 * or processes on one descriptor do not mix.
 */
#include "common/log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/*
 * The log sink: set once by favo_log_init() before other threads exist, read
 * only afterwards. Until then warnings and errors go to stderr.
 */
static struct {
	const char *program;
	enum favo_level level;
	bool stamps;
	favo_log_fn *sink;
} sink_state = {.program = "favo", .level = FAVO_WARN};

void favo_log_init(const char *program, enum favo_level level, bool stamps,
		   favo_log_fn *sink)
{
	sink_state.program = program;
	sink_state.level = level;
	sink_state.stamps = stamps;
	sink_state.sink = sink;
}

bool favo_log_wants(enum favo_level level)
{
	return level <= sink_state.level;
}

/* "2026-11-23T15:04:05.123 " */
static size_t format_stamp(char *buf, size_t size)
{
	struct timespec now;
	struct tm tm;
	size_t n;

	clock_gettime(CLOCK_REALTIME, &now);
	localtime_r(&now.tv_sec, &tm);
	n = strftime(buf, size, "%Y-%m-%dT%H:%M:%S", &tm);
	n += (size_t)snprintf(buf + n, size - n, ".%03ld ", now.tv_nsec / 1000000);
	return n;
}

void favo_log(enum favo_level level, const char *fmt, ...)
{
	static const char *const names[] = {"error: ", "warning: ", "", "debug: "};
	int saved = errno;
	char line[2048];
	size_t n = 0;
	va_list ap;
	int len;

	if (!favo_log_wants(level))
		return;
	if (!sink_state.sink) {
		if (sink_state.stamps)
			n = format_stamp(line, sizeof(line));
		n += (size_t)snprintf(line + n, sizeof(line) - n, "%s: %s",
				      sink_state.program, names[level]);
	}
	errno = saved;
	va_start(ap, fmt);
	len = vsnprintf(line + n, sizeof(line) - 1 - n, fmt, ap);
	va_end(ap);
	if (len > 0)
		n += (size_t)len;
	if (n > sizeof(line) - 2)
		n = sizeof(line) - 2;
	if (sink_state.sink) {
		line[n] = '\0';
		sink_state.sink(level, line);
	} else {
		line[n++] = '\n';
		/* Nowhere is left to report that stderr is gone. */
		if (write(STDERR_FILENO, line, n) < 0)
			errno = saved;
	}
	errno = saved;
}
