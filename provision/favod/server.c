// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * HTTP server of favod on libmicrohttpd: takes requests in, checks size, rate
 * and MUNGE credential, hands them to their route, sends the answer. A few
 * worker threads, each with its own epoll. Knows no route's meaning.
 */
#include "provision/favod/favod.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/log.h"
#include "common/munge_auth.h"
#include "common/util.h"

#define WORKERS 4u
#define CONNECTIONS_MAX 4096u
#define IDLE_TIMEOUT_S 30u
/* All bodies on their way in together: who sends is known only at their end. */
#define BODIES_MAX (512u << 20)
#define CONNECTION_MEMORY (64u << 10) /* headers; a credential is about 300 bytes */

struct favo_server {
	struct MHD_Daemon *daemon;
	struct favo_favod *d;
	atomic_size_t bodies; /* bytes of memory for bodies */
};

/* What belongs to one request while it comes in. */
struct incoming {
	struct favo_server *server;
	char *uri; /* raw, with the query: what the credential covers */
	const struct favo_route *route;
	const char *tail;
	char *body;
	size_t len, room;
	int64_t start_ms;
	bool begun;
};

void favo_call_json(struct favo_call *call, unsigned int status, json_t *value)
{
	char *text = value ? json_dumps(value, JSON_COMPACT | JSON_SORT_KEYS) : NULL;

	json_decref(value);
	call->status = text ? status : MHD_HTTP_INTERNAL_SERVER_ERROR;
	call->response = MHD_create_response_from_buffer(text ? strlen(text) : 0, text,
							 MHD_RESPMEM_MUST_FREE);
	if (call->response)
		MHD_add_response_header(call->response, MHD_HTTP_HEADER_CONTENT_TYPE,
					"application/json");
	else
		free(text);
}

void favo_call_error(struct favo_call *call, unsigned int status, const char *remedy,
		     json_t *near, const char *fmt, ...)
{
	char sentence[1024];
	json_t *value;
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(sentence, sizeof(sentence), fmt, ap);
	va_end(ap);
	value = json_pack("{s:s}", "error", sentence);
	if (!value) /* a name that is not UTF-8 */
		value = json_pack("{s:s}", "error", "the request is not UTF-8 text");
	if (remedy)
		json_object_set_new(value, "remedy", json_string(remedy));
	if (near)
		json_object_set_new(value, "near", near);
	favo_call_json(call, status, value);
}

void favo_call_fail(struct favo_call *call, const struct favo_err *err)
{
	unsigned int status = MHD_HTTP_INTERNAL_SERVER_ERROR;

	if (err->code == ENOENT)
		status = MHD_HTTP_NOT_FOUND;
	else if (err->code == EINVAL)
		status = MHD_HTTP_BAD_REQUEST;
	else if (err->code == EACCES || err->code == EDQUOT)
		status = MHD_HTTP_FORBIDDEN;
	else if (err->code == EEXIST || err->code == EBUSY)
		status = MHD_HTTP_CONFLICT;
	else if (err->code == ENOSPC)
		status = MHD_HTTP_INSUFFICIENT_STORAGE;
	if (status == MHD_HTTP_INTERNAL_SERVER_ERROR)
		favo_log(FAVO_ERROR, "%s", err->msg);
	favo_call_error(call, status, NULL, NULL, "%s", err->msg);
}

/* The part of path behind the route's, or NULL. */
static const char *match(const struct favo_route *route, const char *path)
{
	size_t len = strlen(route->path);

	if (route->path[len - 1] == '/')
		return strncmp(path, route->path, len) == 0 && path[len] ? path + len
									 : NULL;
	return strcmp(path, route->path) == 0 ? path + len : NULL;
}

/* Find the route; *known tells whether the path exists with another method. */
static const struct favo_route *find_route(const char *method, const char *path,
					   const char **tail, bool *known)
{
	static const struct favo_route *const tables[] = {
		favo_image_routes,   favo_push_routes,	 favo_rule_routes,
		favo_cluster_routes, favo_swarm_routes,	 favo_prefetch_routes,
		favo_node_routes,    favo_rollout_routes};

	*known = false;
	for (size_t t = 0; t < FAVO_ARRAY_SIZE(tables); t++) {
		for (const struct favo_route *r = tables[t]; r->method; r++) {
			*tail = match(r, path);
			if (!*tail)
				continue;
			*known = true;
			if (strcmp(r->method, method) == 0)
				return r;
		}
	}
	return NULL;
}

static enum MHD_Result send_answer(struct favo_call *call, const struct incoming *in)
{
	enum MHD_Result ret;
	int64_t took = favo_now_ms() - in->start_ms;

	if (!call->response)
		return MHD_NO;
	favo_log(call->status >= 500 ? FAVO_WARN : FAVO_DEBUG,
		 "request method=%s path=%.200s uid=%ld status=%u ms=%ld", call->method,
		 in->uri, (long)(int)call->uid, call->status, (long)took);
	ret = MHD_queue_response(call->connection, call->status, call->response);
	MHD_destroy_response(call->response);
	return ret;
}

/* Who asks? The credential covers method, raw path and body. */
static bool authenticate(struct favo_favod *d, struct favo_call *call,
			 const struct incoming *in)
{
	const char *cred = MHD_lookup_connection_value(call->connection, MHD_HEADER_KIND,
						       FAVO_MUNGE_HEADER);
	struct favo_err err = {0};
	int ret;

	if (!cred) {
		favo_call_error(
			call, MHD_HTTP_UNAUTHORIZED,
			"use the favo command, or make a credential with munge(1)", NULL,
			"the request has no " FAVO_MUNGE_HEADER " header");
		return false;
	}
	ret = favo_munge_verify(cred, d->conf.munge_socket, call->method, in->uri,
				call->body, call->len, &call->uid, &call->gid, &err);
	if (ret == 0)
		return true;
	if (ret == -EACCES) {
		favo_call_error(
			call, MHD_HTTP_UNAUTHORIZED,
			"the same MUNGE key and the same time are needed on all hosts",
			NULL, "%s", err.msg);
	} else {
		favo_log(FAVO_ERROR, "%s", err.msg);
		favo_call_error(call, MHD_HTTP_SERVICE_UNAVAILABLE,
				"start munged on favod's host", NULL,
				"favod cannot check credentials: %s", err.msg);
	}
	return false;
}

static enum MHD_Result answer(struct favo_favod *d, struct favo_call *call,
			      struct incoming *in)
{
	if (!authenticate(d, call, in))
		return send_answer(call, in);
	if (call->uid != 0 && !favo_limit_take(d->limit, call->uid, in->start_ms)) {
		favo_call_error(call, MHD_HTTP_TOO_MANY_REQUESTS,
				"wait a second and try again", NULL,
				"user %u asks too often", (unsigned int)call->uid);
		if (call->response)
			MHD_add_response_header(call->response, "Retry-After", "1");
		return send_answer(call, in);
	}
	if (in->route->root_only && call->uid != 0)
		favo_call_error(call, MHD_HTTP_FORBIDDEN, NULL, NULL,
				"only root may %s this, not uid %u", call->method,
				(unsigned int)call->uid);
	else
		in->route->handler(d, call);
	return send_answer(call, in);
}

/* Headers are there: refuse at once what would be refused later. */
static enum MHD_Result begin(struct favo_call *call, struct incoming *in,
			     const char *path)
{
	const char *length = MHD_lookup_connection_value(
		call->connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_LENGTH);
	bool known;

	in->begun = true;
	in->route = find_route(call->method, path, &in->tail, &known);
	if (!in->route) {
		if (known)
			favo_call_error(call, MHD_HTTP_METHOD_NOT_ALLOWED, NULL, NULL,
					"%s does not work on %s", call->method, path);
		else
			favo_call_error(call, MHD_HTTP_NOT_FOUND, NULL, NULL,
					"favod has no path %.200s", path);
		return send_answer(call, in);
	}
	if (length && strtoull(length, NULL, 10) > in->route->max_body) {
		favo_call_error(call, MHD_HTTP_CONTENT_TOO_LARGE, NULL, NULL,
				"the body has more than %zu bytes", in->route->max_body);
		return send_answer(call, in);
	}
	if (length &&
	    atomic_load(&in->server->bodies) + strtoull(length, NULL, 10) > BODIES_MAX) {
		favo_call_error(call, MHD_HTTP_SERVICE_UNAVAILABLE,
				"wait a second and try again", NULL,
				"favod has too many uploads at this moment");
		if (call->response)
			MHD_add_response_header(call->response, "Retry-After", "1");
		return send_answer(call, in);
	}
	return MHD_YES;
}

static enum MHD_Result take_body(struct incoming *in, const char *data, size_t *size)
{
	size_t need = in->len + *size + 1;

	/* A chunked body tells its size only by coming. */
	if (need - 1 > in->route->max_body)
		return MHD_NO;
	if (need > in->room) {
		size_t room = FAVO_MAX(need, in->room * 2);
		char *bigger;

		room = FAVO_MIN(room, in->route->max_body + 1);
		if (atomic_load(&in->server->bodies) + (room - in->room) > BODIES_MAX)
			return MHD_NO;
		bigger = realloc(in->body, room);
		if (!bigger)
			return MHD_NO;
		atomic_fetch_add(&in->server->bodies, room - in->room);
		in->body = bigger;
		in->room = room;
	}
	memcpy(in->body + in->len, data, *size);
	in->len += *size;
	in->body[in->len] = '\0';
	*size = 0;
	return MHD_YES;
}

/* libmicrohttpd calls this for the headers, for each piece of body, and at the end. */
static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection,
				  const char *url, const char *method,
				  const char *version, const char *data, size_t *size,
				  void **state)
{
	struct favo_server *server = ctx;
	struct incoming *in = *state;
	struct favo_call call = {
		.connection = connection, .method = method, .uid = (uid_t)-1};

	(void)version;
	if (!in || !in->uri)
		return MHD_NO;
	if (!in->begun)
		return begin(&call, in, url);
	if (*size)
		return take_body(in, data, size);
	call.body = in->body ? in->body : (char *)"";
	call.len = in->len;
	call.tail = in->tail;
	/* libmicrohttpd keeps url for the whole request, so tail is still good. */
	return answer(server->d, &call, in);
}

/* First of all: keep the URI as it came, before the query is cut off. */
static void *on_uri(void *ctx, const char *uri, struct MHD_Connection *connection)
{
	struct incoming *in = calloc(1, sizeof(*in));

	(void)connection;
	if (in) {
		in->server = ctx;
		in->uri = strdup(uri);
		in->start_ms = favo_now_ms();
	}
	return in;
}

static void on_end(void *ctx, struct MHD_Connection *connection, void **state,
		   enum MHD_RequestTerminationCode code)
{
	struct incoming *in = *state;

	(void)ctx;
	(void)connection;
	(void)code;
	if (!in)
		return;
	atomic_fetch_sub(&in->server->bodies, in->room);
	free(in->uri);
	free(in->body);
	free(in);
	*state = NULL;
}

static void favo_printf(2, 0) on_log(void *ctx, const char *fmt, va_list ap)
{
	char line[512];

	(void)ctx;
	vsnprintf(line, sizeof(line), fmt, ap);
	line[strcspn(line, "\n")] = '\0';
	favo_log(FAVO_DEBUG, "libmicrohttpd: %s", line);
}

int favo_server_start(struct favo_server **out, struct favo_favod *d, int listen_fd,
		      struct favo_err *err)
{
	struct favo_server *server = calloc(1, sizeof(*server));

	if (!server)
		return favo_fail(err, ENOMEM, "server: %m");
	server->d = d;
	server->daemon = MHD_start_daemon(
		MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ERROR_LOG | MHD_USE_ITC, 0, NULL,
		NULL, on_request, server, MHD_OPTION_EXTERNAL_LOGGER, on_log, NULL,
		MHD_OPTION_LISTEN_SOCKET, (MHD_socket)listen_fd,
		MHD_OPTION_THREAD_POOL_SIZE, WORKERS, MHD_OPTION_CONNECTION_LIMIT,
		CONNECTIONS_MAX, MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
		MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_MEMORY,
		MHD_OPTION_URI_LOG_CALLBACK, on_uri, server, MHD_OPTION_NOTIFY_COMPLETED,
		on_end, server, MHD_OPTION_END);
	if (!server->daemon) {
		free(server);
		return favo_fail(err, EIO, "libmicrohttpd does not start: %m");
	}
	*out = server;
	return 0;
}

void favo_server_stop(struct favo_server *server)
{
	if (!server)
		return;
	MHD_stop_daemon(server->daemon);
	free(server);
}
