// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Requests to container registries; see registry.h. libcurl follows no
 * redirect by itself: each hop is a request of its own, so that it is plain
 * to see which host gets a token.
 */
#include "images/registry.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"

#define HUB "docker.io"
#define HUB_HOST "registry-1.docker.io"
#define REDIRECTS_MAX 5
#define TRIES 6 /* without a byte of progress between them */
#define CONNECT_TRIES 3 /* at a host that never answered */
#define BACKOFF_MS 400 /* doubled at each try */
#define BACKOFF_MAX_MS 10000
#define RETRY_AFTER_MAX_S 60
#define CONNECT_MS 20000
#define STALL_S 30
#define TOKEN_MAX 65536
#define REPLY_MAX 16384 /* of an error or a token server */
#define USER_AGENT "favo/1"
#define ACCEPT                                                                           \
	"Accept: application/vnd.oci.image.index.v1+json, "                              \
	"application/vnd.oci.image.manifest.v1+json, "                                   \
	"application/vnd.docker.distribution.manifest.list.v2+json, "                    \
	"application/vnd.docker.distribution.manifest.v2+json, */*;q=0.1"

struct favo_registry {
	char *host; /* "quay.io", "localhost:5000" */
	char *repo;
	char *user;
	char *base; /* "https://host/v2/repo/" */
	char *http_hosts;
	const atomic_bool *stop;
	pthread_mutex_t lock;
	/* under lock */
	char *authorization; /* header line, or NULL */
	unsigned int generation; /* of authorization */
};

struct favo_registry_conn {
	struct favo_registry *registry;
	CURL *curl;
	char error[CURL_ERROR_SIZE];
};

/* One request with its redirects, and what came of it. */
struct exchange {
	struct favo_registry_conn *conn;
	const char *accept; /* header line, may be NULL */
	uint64_t from; /* first byte wanted */
	favo_registry_sink_fn *sink;
	void *user;
	/* results */
	long status;
	uint64_t got; /* bytes given to sink */
	uint64_t skip; /* bytes that the sink has already */
	bool range_wrong;
	int sink_ret;
	struct favo_err sink_err;
	char *challenge;
	long retry_after_s;
	char reply[REPLY_MAX]; /* of an error */
	size_t reply_len;
};

/* ---- hosts ---- */

/* Is host ("name:port") among "name, name:port, ..."? */
static bool is_listed(const char *list, const char *host)
{
	size_t name = strcspn(host, ":"), len;

	if (host[0] == '[')
		name = strcspn(host, "]") + 1;
	for (const char *p = list; *(p += strspn(p, ", \t"));) {
		len = strcspn(p, ", \t");
		if (strncasecmp(p, host, len) == 0 &&
		    (len == strlen(host) || len == name))
			return true;
		p += len;
	}
	return false;
}

/* "host:port" of url, with the port even when it is the usual one. */
static char *origin_of(const char *url, bool *https)
{
	char *scheme = NULL, *host = NULL, *port = NULL, *origin = NULL;
	CURLU *u = curl_url();

	if (u && curl_url_set(u, CURLUPART_URL, url, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_HOST, &host, 0) == CURLUE_OK &&
	    curl_url_get(u, CURLUPART_PORT, &port, CURLU_DEFAULT_PORT) == CURLUE_OK &&
	    (strcmp(scheme, "http") == 0 || strcmp(scheme, "https") == 0)) {
		*https = strcmp(scheme, "https") == 0;
		origin = favo_asprintf("%s:%s", host, port);
	}
	curl_free(scheme);
	curl_free(host);
	curl_free(port);
	curl_url_cleanup(u);
	return origin;
}

/* May url be spoken to? Without TLS only where the configuration says so. */
static int check_url(const struct favo_registry *r, const char *url, struct favo_err *err)
{
	bool https = false;
	favo_autofree char *origin = origin_of(url, &https);

	if (!origin)
		return favo_fail(err, EBADMSG, "the registry leads to a malformed URL");
	if (!https && !is_listed(r->http_hosts, origin))
		return favo_fail(err, EACCES,
				 "%s: would be sent without TLS; registry_http in "
				 "favo.conf names the hosts where that is meant",
				 origin);
	return 0;
}

static bool same_origin(const char *a, const char *b)
{
	bool a_https = false, b_https = false;
	favo_autofree char *a_origin = origin_of(a, &a_https);
	favo_autofree char *b_origin = origin_of(b, &b_https);

	return a_origin && b_origin && a_https == b_https &&
	       strcasecmp(a_origin, b_origin) == 0;
}

/* ---- one HTTP request ---- */

static size_t take_header(char *line, size_t size, size_t n, void *user)
{
	struct exchange *x = user;
	size_t len = size * n;
	favo_autofree char *text = strndup(line, len);
	const char *value = text ? strchr(text, ':') : NULL;
	uint64_t from;
	char *end;

	if (!value)
		return len;
	value += 1 + strspn(value + 1, " \t");
	if (strncasecmp(text, "WWW-Authenticate:", 17) == 0) {
		/* Several lines mean the same as one with commas. */
		char *all = favo_asprintf("%s%s%s", x->challenge ? x->challenge : "",
					  x->challenge ? ", " : "", value);

		free(x->challenge);
		x->challenge = all;
	} else if (strncasecmp(text, "Retry-After:", 12) == 0) {
		x->retry_after_s = strtol(value, NULL, 10);
	} else if (strncasecmp(text, "Content-Range: bytes ", 21) == 0) {
		from = strtoull(value + 6, &end, 10);
		x->range_wrong = *end != '-' || from != x->from;
	}
	return len;
}

/* Anything but size * n ends the transfer. */
static size_t take_body(char *data, size_t size, size_t n, void *user)
{
	struct exchange *x = user;
	size_t len = size * n, skip;
	long status = 0;

	curl_easy_getinfo(x->conn->curl, CURLINFO_RESPONSE_CODE, &status);
	if (status < 200 || status >= 300) {
		skip = FAVO_MIN(len, sizeof(x->reply) - 1 - x->reply_len);
		memcpy(x->reply + x->reply_len, data, skip);
		x->reply_len += skip;
		return len;
	}
	if (status == 206 && x->range_wrong)
		return 0;
	/* A server without Range begins again at the first byte. */
	if (status == 200 && x->from && x->skip == 0 && x->got == 0)
		x->skip = x->from;
	skip = FAVO_MIN(x->skip, len);
	x->skip -= skip;
	if (skip == len)
		return len;
	x->sink_ret = x->sink(x->user, data + skip, len - skip, &x->sink_err);
	x->got += len - skip;
	return x->sink_ret < 0 ? 0 : len;
}

static int check_stop(void *user, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
	const struct favo_registry *r = user;

	(void)a, (void)b, (void)c, (void)d;
	return r->stop && atomic_load(r->stop);
}

static void prepare(struct exchange *x, const char *url, struct curl_slist *headers)
{
	CURL *curl = x->conn->curl;
	char range[32];

	curl_easy_reset(curl); /* keeps the connection */
	curl_easy_setopt(curl, CURLOPT_URL, url);
	curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https");
	curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L);
	curl_easy_setopt(curl, CURLOPT_FOLLOWLOCATION, 0L);
	curl_easy_setopt(curl, CURLOPT_USERAGENT, USER_AGENT);
	curl_easy_setopt(curl, CURLOPT_CONNECTTIMEOUT_MS, (long)CONNECT_MS);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
	curl_easy_setopt(curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_S);
	curl_easy_setopt(curl, CURLOPT_BUFFERSIZE, 256 * 1024L);
	curl_easy_setopt(curl, CURLOPT_HTTPHEADER, headers);
	curl_easy_setopt(curl, CURLOPT_HEADERFUNCTION, take_header);
	curl_easy_setopt(curl, CURLOPT_HEADERDATA, x);
	curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take_body);
	curl_easy_setopt(curl, CURLOPT_WRITEDATA, x);
	curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L);
	curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, check_stop);
	curl_easy_setopt(curl, CURLOPT_XFERINFODATA, x->conn->registry);
	curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, x->conn->error);
	x->conn->error[0] = '\0';
	if (x->from) {
		snprintf(range, sizeof(range), "%ju-", (uintmax_t)x->from);
		curl_easy_setopt(curl, CURLOPT_RANGE, range);
	}
}

/*
 * Send one request; any status is success. -EAGAIN and -ECONNREFUSED: the
 * network failed, and another try may do.
 */
static int perform(struct exchange *x, const char *url, const char *authorization,
		   struct favo_err *err)
{
	struct curl_slist *headers = NULL, *more;
	CURLcode code;

	free(x->challenge);
	x->challenge = NULL;
	x->status = 0;
	x->reply_len = 0;
	x->retry_after_s = 0;
	x->range_wrong = false;
	x->skip = 0;
	if (x->accept)
		headers = curl_slist_append(NULL, x->accept);
	if (authorization) {
		more = curl_slist_append(headers, authorization);
		headers = more ? more : headers;
	}
	prepare(x, url, headers);
	code = curl_easy_perform(x->conn->curl);
	curl_slist_free_all(headers);
	curl_easy_getinfo(x->conn->curl, CURLINFO_RESPONSE_CODE, &x->status);
	x->reply[x->reply_len] = '\0';
	if (x->sink_ret < 0) {
		if (err)
			*err = x->sink_err;
		return x->sink_ret;
	}
	if (code == CURLE_OK)
		return 0;
	if (code == CURLE_ABORTED_BY_CALLBACK)
		return favo_fail(err, ECANCELED, "given up");
	favo_fail(err, EIO, "%s",
		  x->conn->error[0] ? x->conn->error : curl_easy_strerror(code));
	switch (code) {
	/* A certificate that is wrong now is wrong in a second, too. */
	case CURLE_PEER_FAILED_VERIFICATION:
	case CURLE_SSL_CACERT_BADFILE:
		return -EIO;
	case CURLE_SSL_CONNECT_ERROR:
		return favo_wrap(
			err, -EIO,
			"no TLS (registry_http in favo.conf names the registries "
			"that have none)");
	case CURLE_COULDNT_CONNECT:
	case CURLE_COULDNT_RESOLVE_HOST:
		return -ECONNREFUSED;
	default:
		return -EAGAIN;
	}
}

/* ---- authentication ---- */

struct buffer {
	char *data;
	size_t len, max;
};

static int buffer_sink(void *user, const void *data, size_t len, struct favo_err *err)
{
	struct buffer *buffer = user;
	char *grown;

	if (len > buffer->max - buffer->len)
		return favo_fail(err, EFBIG, "answer is larger than %zu bytes",
				 buffer->max);
	grown = realloc(buffer->data, buffer->len + len + 1);
	if (!grown)
		return favo_fail(err, ENOMEM, "out of memory");
	memcpy(grown + buffer->len, data, len);
	buffer->data = grown;
	buffer->len += len;
	grown[buffer->len] = '\0';
	return 0;
}

static char *basic_header(const struct favo_credentials *credentials)
{
	favo_autofree char *plain =
		favo_asprintf("%s:%s", credentials->user, credentials->password);
	favo_autofree char *encoded = NULL;

	/* base64url has the right bits; only two characters and the end differ. */
	if (!plain || favo_base64url_encode(&encoded, plain, strlen(plain), NULL) < 0)
		return NULL;
	for (char *p = encoded; *p; p++)
		*p = *p == '-' ? '+' : *p == '_' ? '/' : *p;
	explicit_bzero(plain, strlen(plain));
	return favo_asprintf("Authorization: Basic %s%s", encoded,
			     &"==="[3 - (4 - strlen(encoded) % 4) % 4]);
}

static char *token_url(const struct favo_registry *r, CURL *curl,
		       const struct favo_challenge *c)
{
	favo_autofree char *scope = favo_asprintf("repository:%s:pull", r->repo);
	char *service = curl_easy_escape(curl, c->service ? c->service : "", 0);
	char *what = curl_easy_escape(curl, c->scope ? c->scope : scope, 0);
	char *url = NULL;

	if (scope && service && what)
		url = favo_asprintf("%s%sservice=%s&scope=%s", c->realm,
				    strchr(c->realm, '?') ? "&" : "?", service, what);
	curl_free(service);
	curl_free(what);
	return url;
}

static int parse_token(char **header, const struct buffer *answer, struct favo_err *err)
{
	favo_autojson json_t *root = NULL;
	const char *token;
	int ret = favo_json_parse(&root, answer->data ? answer->data : "", answer->len,
				  err);

	if (ret < 0)
		return favo_wrap(err, -EBADMSG, "token server");
	token = json_string_value(json_object_get(root, "token"));
	if (!token)
		token = json_string_value(json_object_get(root, "access_token"));
	if (!token || !token[0])
		return favo_fail(err, EBADMSG, "token server: no token in the answer");
	/* It becomes part of a header. */
	for (const char *p = token; *p; p++)
		if (*p <= ' ' || *p > '~')
			return favo_fail(err, EBADMSG, "token server: malformed token");
	*header = favo_asprintf("Authorization: Bearer %s", token);
	return *header ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

/* Ask the token server that the registry names. */
static int get_token(struct favo_registry_conn *conn, const struct favo_challenge *c,
		     const struct favo_credentials *credentials, char **header,
		     struct favo_err *err)
{
	favo_autofree char *url = token_url(conn->registry, conn->curl, c);
	favo_autofree char *basic = credentials->user ? basic_header(credentials) : NULL;
	struct buffer answer = {.max = TOKEN_MAX};
	favo_autofree struct exchange *x = calloc(1, sizeof(*x));
	int ret;

	if (!url || !x)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = check_url(conn->registry, url, err);
	if (ret < 0)
		return ret;
	x->conn = conn;
	x->sink = buffer_sink;
	x->user = &answer;
	ret = perform(x, url, basic, err);
	free(x->challenge);
	if (ret == 0 && x->status != 200)
		ret = favo_fail(err, x->status >= 500 ? EAGAIN : EACCES,
				"token server: HTTP %ld", x->status);
	if (ret == 0)
		ret = parse_token(header, &answer, err);
	free(answer.data);
	return ret;
}

static int make_authorization(struct favo_registry_conn *conn, const char *challenge,
			      char **header, struct favo_err *err)
{
	struct favo_registry *r = conn->registry;
	struct favo_credentials credentials = {0};
	struct favo_challenge c = {0};
	int ret = favo_challenge_parse(&c, challenge ? challenge : "", err);

	if (ret == 0)
		ret = favo_credentials_find(&credentials, r->host, r->user, err);
	if (ret == -ENOENT && !r->user)
		ret = c.bearer ? 0
			       : favo_fail(err, EACCES,
					   "%s wants a password; put \"machine %s login "
					   "USER password ...\" into "
					   "~/.config/favo/credentials (mode 600)",
					   r->host, r->host);
	else if (ret == -ENOENT)
		ret = -EACCES;
	if (ret == 0 && c.bearer) {
		ret = get_token(conn, &c, &credentials, header, err);
	} else if (ret == 0) {
		*header = basic_header(&credentials);
		ret = *header ? 0 : favo_fail(err, ENOMEM, "out of memory");
	}
	favo_challenge_fini(&c);
	favo_credentials_fini(&credentials);
	return ret;
}

/* After a 401 with what was valid as generation: 0 when there is a new header. */
static int authorize(struct favo_registry_conn *conn, const char *challenge,
		     unsigned int generation, struct favo_err *err)
{
	struct favo_registry *r = conn->registry;
	char *header = NULL;
	int ret = 0;

	pthread_mutex_lock(&r->lock);
	if (r->generation == generation) { /* else another thread was faster */
		ret = make_authorization(conn, challenge, &header, err);
		if (ret == 0) {
			free(r->authorization);
			r->authorization = header;
			r->generation++;
		}
	}
	pthread_mutex_unlock(&r->lock);
	return ret;
}

static char *authorization_of(struct favo_registry *r, unsigned int *generation)
{
	char *copy = NULL;

	pthread_mutex_lock(&r->lock);
	*generation = r->generation;
	if (r->authorization)
		copy = strdup(r->authorization);
	pthread_mutex_unlock(&r->lock);
	return copy;
}

/* ---- requests with redirects, authentication and retries ---- */

/* The sentence of an error in the registry's JSON, cleaned. */
static void server_says(const struct exchange *x, char *buf, size_t size)
{
	favo_autojson json_t *root = json_loadb(x->reply, x->reply_len, 0, NULL);
	const char *message = json_string_value(json_object_get(
		json_array_get(json_object_get(root, "errors"), 0), "message"));

	snprintf(buf, size, "%s%.100s%s", message ? " (" : "", message ? message : "",
		 message ? ")" : "");
	for (char *p = buf; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
}

static int refused(const struct exchange *x, struct favo_err *err)
{
	const struct favo_registry *r = x->conn->registry;
	char says[128];

	server_says(x, says, sizeof(says));
	switch (x->status) {
	case 404:
		return favo_fail(err, ENOENT, "%s has no such image%s", r->host, says);
	case 401:
	case 403:
		return favo_fail(err, EACCES,
				 "%s refuses access%s: no such image, or the credentials "
				 "do not give it",
				 r->host, says);
	case 429:
		return favo_fail(err, EAGAIN, "%s: too many requests%s", r->host, says);
	}
	return favo_fail(err, x->status >= 500 ? EAGAIN : EIO, "%s: HTTP %ld%s", r->host,
			 x->status, says);
}

/* One try: through redirects to a final answer; -EAGAIN, -ECONNREFUSED: again. */
static int try_once(struct exchange *x, const char *first_url, struct favo_err *err)
{
	struct favo_registry *r = x->conn->registry;
	favo_autofree char *url = strdup(first_url);
	bool asked = false;
	int ret;

	for (int hops = 0; url && hops <= REDIRECTS_MAX;) {
		favo_autofree char *header = NULL;
		unsigned int generation = 0;
		bool home = same_origin(url, r->base);
		char *next = NULL;

		ret = check_url(r, url, err);
		if (ret < 0)
			return ret;
		header = home ? authorization_of(r, &generation) : NULL;
		ret = perform(x, url, header, err);
		if (ret < 0)
			return ret;
		if (x->status == 401 && home && !asked) {
			asked = true;
			ret = authorize(x->conn, x->challenge, generation, err);
			if (ret < 0)
				return ret;
			continue;
		}
		if (x->status < 300 || x->status >= 400)
			return x->status < 300 ? 0 : refused(x, err);
		curl_easy_getinfo(x->conn->curl, CURLINFO_REDIRECT_URL, &next);
		if (!next)
			return favo_fail(err, EIO, "%s: HTTP %ld without a location",
					 r->host, x->status);
		free(url);
		url = strdup(next);
		hops++;
	}
	return url ? favo_fail(err, ELOOP, "%s: too many redirects", r->host)
		   : favo_fail(err, ENOMEM, "out of memory");
}

/* Sleep before try n; returns early when everything is given up. */
static void back_off(const struct exchange *x, int n)
{
	int64_t wait = (int64_t)BACKOFF_MS << FAVO_MIN(n, 10), until;
	struct timespec step = {.tv_nsec = 50 * 1000000};

	wait = FAVO_MIN(wait, BACKOFF_MAX_MS);
	if (x->retry_after_s > 0)
		wait = FAVO_MIN(x->retry_after_s, RETRY_AFTER_MAX_S) * 1000;
	for (until = favo_now_ms() + wait; favo_now_ms() < until;) {
		if (check_stop(x->conn->registry, 0, 0, 0, 0))
			return;
		nanosleep(&step, NULL);
	}
}

/* total: bytes that the sink must get, UINT64_MAX for what comes. */
static int request(struct exchange *x, const char *path, uint64_t total,
		   struct favo_err *err)
{
	struct favo_registry *r = x->conn->registry;
	favo_autofree char *url = favo_asprintf("%s%s", r->base, path);
	int ret = 0, tries = 0;

	if (!url)
		return favo_fail(err, ENOMEM, "out of memory");
	for (;;) {
		x->got = 0;
		ret = try_once(x, url, err);
		x->from += x->got;
		if (ret == 0 && (total == UINT64_MAX || x->from >= total))
			break;
		if (ret == 0)
			ret = favo_fail(err, EAGAIN, "the registry sent too few bytes");
		if (x->got)
			tries = 0;
		/* Only a blob has an offset to begin again at. */
		if ((ret != -EAGAIN && ret != -ECONNREFUSED) || ++tries == TRIES ||
		    (x->got && total == UINT64_MAX) ||
		    (ret == -ECONNREFUSED && !x->from && tries == CONNECT_TRIES))
			break;
		back_off(x, tries - 1);
	}
	free(x->challenge);
	x->challenge = NULL;
	if (ret == -EAGAIN || ret == -ECONNREFUSED)
		return favo_wrap(err, -EIO, "%s: given up after %d tries", r->host,
				 tries);
	return ret;
}

int favo_registry_get(struct favo_registry_conn *conn, const char *path, size_t max,
		      char **data, size_t *len, struct favo_err *err)
{
	favo_autofree struct exchange *x = calloc(1, sizeof(*x));
	struct buffer buffer = {.max = max};
	int ret;

	if (!x)
		return favo_fail(err, ENOMEM, "out of memory");
	x->conn = conn;
	x->accept = strncmp(path, "manifests/", 10) == 0 ? ACCEPT : NULL;
	x->sink = buffer_sink;
	x->user = &buffer;
	ret = request(x, path, UINT64_MAX, err);
	if (ret == 0 && !buffer.data)
		buffer.data = calloc(1, 1);
	if (ret < 0 || !buffer.data) {
		free(buffer.data);
		return ret < 0 ? ret : favo_fail(err, ENOMEM, "out of memory");
	}
	*data = buffer.data;
	*len = buffer.len;
	return 0;
}

int favo_registry_blob(struct favo_registry_conn *conn, const struct favo_digest *digest,
		       uint64_t size, favo_registry_sink_fn *sink, void *user,
		       struct favo_err *err)
{
	favo_autofree struct exchange *x = calloc(1, sizeof(*x));
	char path[16 + FAVO_DIGEST_TEXT_SIZE] = "blobs/";

	if (!x)
		return favo_fail(err, ENOMEM, "out of memory");
	favo_digest_format(digest, path + strlen(path));
	x->conn = conn;
	x->sink = sink;
	x->user = user;
	return request(x, path, size, err);
}

/* ---- registry and connections ---- */

int favo_registry_new(struct favo_registry **out, const struct favo_oci_ref *ref,
		      const char *http_hosts, const atomic_bool *stop,
		      struct favo_err *err)
{
	const char *host = strcmp(ref->host, HUB) == 0 ? HUB_HOST : ref->host;
	struct favo_registry *r = calloc(1, sizeof(*r));

	if (!r)
		return favo_fail(err, ENOMEM, "out of memory");
	pthread_mutex_init(&r->lock, NULL);
	r->stop = stop;
	r->host = strdup(ref->host);
	r->repo = strdup(ref->repo);
	r->http_hosts = strdup(http_hosts ? http_hosts : "");
	r->user = ref->user ? strdup(ref->user) : NULL;
	if (r->http_hosts)
		r->base = favo_asprintf("%s://%s/v2/%s/",
					is_listed(r->http_hosts, host) ? "http" : "https",
					host, ref->repo);
	if (!r->host || !r->repo || !r->base || (ref->user && !r->user)) {
		favo_registry_free(r);
		return favo_fail(err, ENOMEM, "out of memory");
	}
	*out = r;
	return 0;
}

void favo_registry_free(struct favo_registry *registry)
{
	if (!registry)
		return;
	if (registry->authorization)
		explicit_bzero(registry->authorization, strlen(registry->authorization));
	free(registry->authorization);
	free(registry->host);
	free(registry->repo);
	free(registry->user);
	free(registry->base);
	free(registry->http_hosts);
	pthread_mutex_destroy(&registry->lock);
	free(registry);
}

int favo_registry_connect(struct favo_registry_conn **out, struct favo_registry *registry,
			  struct favo_err *err)
{
	struct favo_registry_conn *conn = calloc(1, sizeof(*conn));

	if (!conn)
		return favo_fail(err, ENOMEM, "out of memory");
	conn->registry = registry;
	conn->curl = curl_easy_init();
	if (!conn->curl) {
		free(conn);
		return favo_fail(err, ENOMEM, "out of memory");
	}
	*out = conn;
	return 0;
}

void favo_registry_disconnect(struct favo_registry_conn *conn)
{
	if (!conn)
		return;
	curl_easy_cleanup(conn->curl);
	free(conn);
}
