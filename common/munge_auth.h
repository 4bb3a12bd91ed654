/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Authentication of HTTP requests by MUNGE, the trust that every Slurm site
 * has (munge(7)).
 *
 * The caller puts a credential into the header FAVO_MUNGE_HEADER whose
 * payload is "METHOD\nPATH\nhex SHA-256 of the body"; path includes the query.
 * The credential itself carries uid, gid and time; munged refuses replays and
 * stale credentials. Functions block on the local munged and are thread-safe.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

#define FAVO_MUNGE_HEADER "X-Favo-Munge"

/* socket NULL or "": munge's default. Caller frees *cred. */
int favo_munge_sign(char **cred, const char *socket, const char *method, const char *path,
		    const void *body, size_t len, struct favo_err *err) favo_must_check;

/*
 * Check cred against a request and return who made it. -EACCES with a
 * sentence for a credential that is false, expired, replayed or for another
 * request.
 */
int favo_munge_verify(const char *cred, const char *socket, const char *method,
		      const char *path, const void *body, size_t len, uid_t *uid,
		      gid_t *gid, struct favo_err *err) favo_must_check;
