/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * HTTP client (libcurl) for favod's REST interface: MUNGE on every request,
 * hard limits on time and size. A client keeps its connection between
 * requests and belongs to one thread. Blocking, never raises a signal.
 */
#pragma once

#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/json.h"

struct favo_http;

struct favo_http_params {
	const char *base_url; /* "http://ctl:7411", borrowed for the call */
	const char *munge_socket; /* NULL: default */
	int timeout_ms; /* of a whole request */
	size_t max_reply; /* bytes; 0: 64 MiB */
};

struct favo_http_reply {
	long status; /* 200, 404, ... */
	char *body; /* NUL-terminated past len */
	size_t len;
};

int favo_http_new(struct favo_http **out, const struct favo_http_params *params,
		  struct favo_err *err) favo_must_check;
void favo_http_free(struct favo_http *http);
void favo_cleanup_http(struct favo_http **http);
#define favo_autohttp __attribute__((cleanup(favo_cleanup_http)))

/*
 * One request. body may be NULL. Any status is success here; the caller looks
 * at it. -ECONNREFUSED and -ETIMEDOUT when the server cannot be reached. The
 * caller ends *reply with favo_http_reply_fini().
 */
int favo_http_request(struct favo_http *http, const char *method, const char *path,
		      const void *body, size_t len, struct favo_http_reply *reply,
		      struct favo_err *err) favo_must_check;
void favo_http_reply_fini(struct favo_http_reply *reply);

/*
 * Request with a JSON body (NULL: none) and a JSON object back. A status >=
 * 400 fails with the server's own sentence ("error", then "remedy" in its
 * reply) and -ENOENT for 404, -EACCES for 401 and 403, -EINVAL for other 4xx,
 * -EIO for 5xx. *out may be NULL when nobody wants the reply.
 */
int favo_http_json(struct favo_http *http, const char *method, const char *path,
		   const json_t *body, json_t **out,
		   struct favo_err *err) favo_must_check;
