/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Run a program and take its output: for what other tools know better. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

/*
 * Run argv[0], found in PATH, with an empty stdin, for at most timeout_ms.
 * Its stdout (stderr too when both) goes to out, at most size - 1 bytes and a
 * NUL; more is dropped. Blocks; from any thread. Returns the exit code, 128
 * and the number of the signal that ended it, -ETIMEDOUT after it was ended
 * (SIGTERM, then SIGKILL), or -errno when it could not be started.
 */
int favo_run_output(char *const argv[], bool both, int timeout_ms, char *out,
		    size_t size);
