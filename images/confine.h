/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Programs that read what a stranger made (disk images, file systems), each
 * in a jail of its own: namespaces without network and without any file but
 * /usr (read-only), the image and one file to write; limits on memory, time
 * and what it writes; no new privileges. Started by root it runs as nobody;
 * started by a user, as that user in a user namespace, where the machine
 * allows those.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

/* Where the program finds its files. */
#define FAVO_CONFINE_IN "/in"
#define FAVO_CONFINE_OUT "/out"

/* What files for a confined program must belong to, when root starts it. */
#define FAVO_CONFINE_UID 65534u

struct favo_confine {
	char *const *argv; /* [0]: name of a program in /usr/bin or of Favo's own */
	const char *in_path; /* to read; NULL: none */
	const char *out_path; /* to write, exists already; NULL: none */
	uint64_t out_max; /* most bytes of it */
};

struct favo_confined {
	pid_t pid;
	int stdout_fd; /* read end of a pipe */
	int stderr_fd; /* memfd, read when the program has ended */
	bool open; /* no namespaces: the machine forbids them to users */
	const char *name;
};
#define FAVO_CONFINED_INIT                                                               \
	{                                                                                \
		.stdout_fd = -1, .stderr_fd = -1                                         \
	}

/*
 * What the program is to read must be readable for nobody when root starts
 * it. *copy is NULL when path is, else a copy in tmp_dir, which the caller
 * removes; holes stay holes.
 */
int favo_confine_admit(char **copy, const char *path, const char *tmp_dir,
		       struct favo_err *err) favo_must_check;

/* A new empty file in tmp_dir for out_path; the caller removes it. Returns fd. */
int favo_confine_make_out(char **path, const char *tmp_dir,
			  struct favo_err *err) favo_must_check;

/*
 * Start the program; it is killed when this process ends. -ENOENT with a
 * sentence when it is not installed. Only for processes of one thread.
 */
int favo_confine_start(struct favo_confined *run, const struct favo_confine *spec,
		       struct favo_err *err) favo_must_check;

/*
 * Close the pipe and wait. -EIO with the program's last words when it failed
 * or was killed. May be called again, and on a run that never started.
 */
int favo_confine_finish(struct favo_confined *run, struct favo_err *err);

/* Start, take at most max bytes of what it prints (with a NUL), finish. */
int favo_confine_output(const struct favo_confine *spec, size_t max, char **text,
			size_t *len, struct favo_err *err) favo_must_check;
