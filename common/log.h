/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Logging: one sink for the process, chosen by the program.
 *
 * Libraries log at debug only; a failure is reported once, by whoever handles
 * it, lower-case, no full stop, object first. Thread-safe after
 * favo_log_init(), which is called once before other threads exist.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"

enum favo_level {
	FAVO_ERROR,
	FAVO_WARN,
	FAVO_INFO,
	FAVO_DEBUG,
};

/* A sink gets whole lines without newline; it must not log. */
typedef void favo_log_fn(enum favo_level level, const char *line);

/*
 * Send lines up to level to sink; a NULL sink is stderr ("program: line",
 * with a time stamp when stamps is set). program is borrowed for good.
 */
void favo_log_init(const char *program, enum favo_level level, bool stamps,
		   favo_log_fn *sink);
bool favo_log_wants(enum favo_level level);
void favo_log(enum favo_level level, const char *fmt, ...) favo_printf(2, 3);
