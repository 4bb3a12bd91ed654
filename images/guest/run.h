/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests and results of the agent protocol: what to run and how it ended.
 * Wire form in docs/format-agent.md. No I/O; thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/types.h>

#include "common/err.h"
#include "images/guest/buf.h"

enum favo_run_flags {
	FAVO_RUN_PTY = 1, /* one pseudo-terminal instead of three pipes */
	FAVO_RUN_ERR_TO_OUT = 2, /* stderr is stdout, as 2>&1 */
	FAVO_RUN_COMMANDS = 4, /* Slurm's commands are reachable from inside */
	FAVO_RUN_FLAGS = 7,
};

struct favo_run_file {
	char *path; /* absolute */
	mode_t mode;
	uint8_t *data;
	size_t len;
};

enum favo_relay_kind {
	FAVO_RELAY_TCP = 1, /* listener on the guest's 127.0.0.1 */
	FAVO_RELAY_FD = 2, /* inherited end of a socket pair */
};

/*
 * A byte stream between the process and a named endpoint of the opener. Each
 * string of env is set as it is plus the port or descriptor number.
 */
struct favo_run_relay {
	enum favo_relay_kind kind;
	char *endpoint;
	char **env;
};

struct favo_run_rlimit {
	uint32_t resource; /* RLIMIT_* of Linux on x86_64 */
	uint64_t soft, hard; /* UINT64_MAX: no limit */
};

/* All strings and vectors are owned by the request. */
struct favo_run {
	char **argv;
	char **env;
	char *cwd; /* NULL: home directory or / */
	char *group; /* processes that end together (a job step), or NULL */
	char *session; /* token of the process that asks, or NULL */
	uint32_t flags;
	uid_t uid;
	gid_t gid;
	gid_t *groups;
	size_t n_groups;
	mode_t umask;
	struct winsize winsize;
	struct favo_run_rlimit *rlimits;
	size_t n_rlimits;
	struct favo_run_file *files;
	size_t n_files;
	struct favo_run_relay *relays;
	size_t n_relays;
};

/* Append the wire form to out; -E2BIG beyond FAVO_RUN_MAX. */
int favo_run_encode(struct favo_buf *out, const struct favo_run *run,
		    struct favo_err *err) favo_must_check;
/* Strict: -EPROTO for anything that the format page does not allow. */
int favo_run_decode(struct favo_run **out, const uint8_t *data, size_t len,
		    struct favo_err *err) favo_must_check;
void favo_run_free(struct favo_run *run);
void favo_cleanup_run(struct favo_run **run);
#define favo_autorun __attribute__((cleanup(favo_cleanup_run)))

enum favo_exit_kind {
	FAVO_EXIT_STATUS = 1, /* exited; number is the status */
	FAVO_EXIT_SIGNAL = 2, /* killed; number is the signal */
	FAVO_EXIT_FAILED = 3, /* never ran; number is an errno value */
};

struct favo_exit {
	enum favo_exit_kind kind;
	bool core;
	uint32_t number;
	char reason[512]; /* sentence, only with FAVO_EXIT_FAILED */
};

#define FAVO_EXIT_WIRE_MAX (12 + 512)
size_t favo_exit_encode(uint8_t out[FAVO_EXIT_WIRE_MAX], const struct favo_exit *ex);
int favo_exit_decode(struct favo_exit *out, const uint8_t *data, size_t len,
		     struct favo_err *err) favo_must_check;

/* Value of NAME in a vector of NAME=value, or NULL. */
const char *favo_env_get(char *const *env, const char *name);
