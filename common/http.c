// SPDX-License-Identifier: GPL-2.0-or-later
/* HTTP client; see http.h. */
#include "common/http.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/munge_auth.h"
#include "common/util.h"

#define DEFAULT_MAX_REPLY (64u << 20)

struct favo_http {
	CURL *curl;
	char *base_url;
	char *munge_socket;
	int timeout_ms;
	size_t max_reply;
	char error[CURL_ERROR_SIZE];
};

struct sink {
	char *buf;
	size_t len, room, max;
};

int favo_http_new(struct favo_http **out, const struct favo_http_params *params,
		  struct favo_err *err)
{
	struct favo_http *http = calloc(1, sizeof(*http));

	if (!http)
		return favo_fail(err, ENOMEM, "http: %m");
	http->timeout_ms = params->timeout_ms;
	http->max_reply = params->max_reply ? params->max_reply : DEFAULT_MAX_REPLY;
	http->base_url = strdup(params->base_url);
	http->munge_socket = strdup(params->munge_socket ? params->munge_socket : "");
	http->curl = curl_easy_init();
	if (!http->base_url || !http->munge_socket || !http->curl) {
		favo_http_free(http);
		return favo_fail(err, ENOMEM, "http: %m");
	}
	*out = http;
	return 0;
}

void favo_http_free(struct favo_http *http)
{
	if (!http)
		return;
	curl_easy_cleanup(http->curl);
	free(http->base_url);
	free(http->munge_socket);
	free(http);
}

void favo_cleanup_http(struct favo_http **http)
{
	int saved = errno;

	favo_http_free(*http);
	errno = saved;
}

void favo_http_reply_fini(struct favo_http_reply *reply)
{
	free(reply->body);
	reply->body = NULL;
	reply->len = 0;
}

/* libcurl's write callback; anything but size * n aborts the transfer. */
static size_t take_body(char *data, size_t size, size_t n, void *user)
{
	struct sink *sink = user;
	size_t len = size * n;

	if (len > sink->max - sink->len)
		return 0;
	if (sink->room - sink->len < len + 1) {
		size_t room = FAVO_MAX(sink->room * 2, sink->len + len + 1);
		char *bigger = realloc(sink->buf, room);

		if (!bigger)
			return 0;
		sink->buf = bigger;
		sink->room = room;
	}
	memcpy(sink->buf + sink->len, data, len);
	sink->len += len;
	return len;
}

static int curl_code(CURLcode code)
{
	switch (code) {
	case CURLE_OPERATION_TIMEDOUT:
		return ETIMEDOUT;
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return ECONNREFUSED;
	case CURLE_WRITE_ERROR:
		return EFBIG;
	case CURLE_OUT_OF_MEMORY:
		return ENOMEM;
	default:
		return EIO;
	}
}

/* Options that are the same for every request. */
static void prepare(struct favo_http *http, const char *url, struct curl_slist *headers,
		    struct sink *sink)
{
	CURL *curl = http->curl;

	curl_easy_reset(curl); /* keeps the connection */
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_NOPROXY, "*");
	curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)http->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)http->timeout_ms);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, sink);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, http->error);
	http->error[0] = '\0';
}

/* The header list of a request, signed; caller frees *out. */
static int make_headers(struct curl_slist **out, struct favo_http *http,
			const char *method, const char *path, const void *body,
			size_t len, struct favo_err *err)
{
	favo_autofree char *cred = NULL, *header = NULL;
	struct curl_slist *list = NULL, *more;
	int ret =
		favo_munge_sign(&cred, http->munge_socket, method, path, body, len, err);

	if (ret < 0)
		return ret;
	header = favo_asprintf("%s: %s", FAVO_MUNGE_HEADER, cred);
	if (header)
		list = curl_slist_append(NULL, header);
	/* No "Expect: 100-continue": it costs a round trip. */
	more = list ? curl_slist_append(list, "Expect:") : NULL;
	if (more)
		more = curl_slist_append(list, "Content-Type: application/json");
	if (!more) {
		curl_slist_free_all(list);
		return favo_fail(err, ENOMEM, "http: %m");
	}
	*out = list;
	return 0;
}

int favo_http_request(struct favo_http *http, const char *method, const char *path,
		      const void *body, size_t len, struct favo_http_reply *reply,
		      struct favo_err *err)
{
	favo_autofree char *url = favo_asprintf("%s%s", http->base_url, path);
	struct sink sink = {.max = http->max_reply};
	struct curl_slist *headers = NULL;
	CURLcode code;
	int ret;

	if (!url)
		return favo_fail(err, ENOMEM, "http: %m");
	ret = make_headers(&headers, http, method, path, body ? body : "", len, err);
	if (ret < 0)
		return ret;
	prepare(http, url, headers, &sink);
	curl_easy_setopt(http->curl, CURLOPT_CUSTOMREQUEST, method);
	if (body) {
		curl_easy_setopt(http->curl, CURLOPT_POSTFIELDSIZE_LARGE,
				 (curl_off_t)len);
		curl_easy_setopt(http->curl, CURLOPT_POSTFIELDS, body);
	}
	code = curl_easy_perform(http->curl);
	curl_slist_free_all(headers);
	if (code == CURLE_OK && !sink.buf)
		sink.buf = calloc(1, 1);
	if (code != CURLE_OK || !sink.buf) {
		free(sink.buf);
		return favo_fail(err, curl_code(code), "%s %s: %s", method, url,
				 http->error[0] ? http->error : curl_easy_strerror(code));
	}
	sink.buf[sink.len] = '\0';
	curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &reply->status);
	reply->body = sink.buf;
	reply->len = sink.len;
	return 0;
}

static int status_code(long status)
{
	if (status == 404)
		return ENOENT;
	if (status == 401 || status == 403)
		return EACCES;
	return status < 500 ? EINVAL : EIO;
}

int favo_http_json(struct favo_http *http, const char *method, const char *path,
		   const json_t *body, json_t **out, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	favo_autojson json_t *answer = NULL;
	struct favo_http_reply reply;
	struct favo_err why = {0};
	const char *sentence, *remedy;
	size_t len = 0;
	int ret = 0;

	if (body)
		ret = favo_json_canonical(&text, &len, body, err);
	if (ret == 0)
		ret = favo_http_request(http, method, path, text, len, &reply, err);
	if (ret < 0)
		return ret;
	ret = favo_json_parse(&answer, reply.body, reply.len, &why);
	favo_http_reply_fini(&reply);
	if (reply.status >= 400) {
		if (ret < 0 || favo_json_str(&sentence, answer, "error", NULL) < 0)
			return favo_fail(err, status_code(reply.status),
					 "%s %s%s: HTTP %ld", method, http->base_url,
					 path, reply.status);
		if (favo_json_str(&remedy, answer, "remedy", NULL) < 0)
			return favo_fail(err, status_code(reply.status), "%s", sentence);
		return favo_fail(err, status_code(reply.status), "%s; %s", sentence,
				 remedy);
	}
	if (ret < 0 && out)
		return favo_fail(err, EIO, "%s %s%s: %s", method, http->base_url, path,
				 why.msg);
	if (out)
		*out = favo_steal_ptr(&answer);
	return 0;
}
