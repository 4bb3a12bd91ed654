/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Many blobs of favod's store in one request (POST /v1/blobs): for each digest
 * asked for, in that order, its stored length (4 bytes little-endian) and its
 * stored bytes. They are not checked here: who decodes a blob does it.
 */
#pragma once

#include <stddef.h>

#include "common/err.h"
#include "common/http.h"
#include "images/digest.h"

/* Most digests in one request. */
#define FAVO_BLOBS_MAX 256

/*
 * Ask and wait for the whole answer; the caller ends it with
 * favo_http_reply_fini(). -ENOENT: favod does not have one of them; -EACCES,
 * -EINVAL: it will not give them; anything else may change.
 */
int favo_blobs_get(struct favo_http *http, const struct favo_digest *want, int n,
		   struct favo_http_reply *reply, struct favo_err *err);

/* Called for each blob; a negative result ends the walk. */
typedef int favo_blobs_fn(const struct favo_digest *digest, const void *stored,
			  size_t len, void *user, struct favo_err *err);

/* Walk through an answer. -EBADMSG when it is cut short. */
int favo_blobs_each(const struct favo_digest *want, int n, const void *body, size_t len,
		    favo_blobs_fn *fn, void *user, struct favo_err *err);
