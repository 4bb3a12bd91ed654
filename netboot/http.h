/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The little of HTTP/1.1 that a node speaks before it has its image: one
 * request on one connection, an answer with Content-Length. Plain, because the
 * firmware before it is plain, too; what matters is verified by digest and
 * signature. Static programs cannot have libcurl.
 */
#pragma once

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct favo_web_ask {
	struct sockaddr_in server;
	const char *method; /* "GET", "POST" */
	const char *path;
	const void *body; /* may be NULL */
	size_t len;
	size_t max_reply;
	int idle_ms; /* without a byte for so long: -ETIMEDOUT */
	bool privileged; /* from a port that only root can have */
};

struct favo_web_reply {
	int status;
	char *body; /* NUL-terminated past len; the caller frees it */
	size_t len;
};

/* Any status is success. Blocks; needs no name service. */
int favo_web_request(const struct favo_web_ask *ask, struct favo_web_reply *reply,
		     struct favo_err *err);

/* "http://1.2.3.4:7414", nothing behind it. */
int favo_web_parse_url(struct sockaddr_in *out, const char *url, struct favo_err *err);

/*
 * Head of an answer, up to and with its empty line (foreign bytes): status and
 * length of what follows. -EBADMSG.
 */
int favo_web_parse_head(const char *head, size_t len, int *status, size_t *body,
			struct favo_err *err);
