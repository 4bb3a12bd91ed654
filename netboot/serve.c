// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * HTTP of the boot service; see boot.h and docs/netboot.md for the paths.
 * Every answer but the first scripts and the loaders needs a token, the
 * address that the token was made for, and for reports and secrets a port
 * below 1024.
 */
#include "netboot/serve.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"

#define WORKERS 2u
#define CONNECTIONS_MAX 4096u
#define IDLE_TIMEOUT_S 60u
#define BODY_MAX (32u << 10)

struct incoming {
	char *body;
	size_t len;
};

void favo_boot_text(struct favo_call *call, unsigned int status, char *text)
{
	call->status = text ? status : MHD_HTTP_INTERNAL_SERVER_ERROR;
	call->response = MHD_create_response_from_buffer(text ? strlen(text) : 0, text,
							 MHD_RESPMEM_MUST_FREE);
	if (!call->response)
		free(text);
}

/* ---- answers ---- */

typedef void answer_fn(struct favo_boot *b, struct favo_call *call,
		       const struct favo_boot_entry *e);

static void give_part(struct favo_boot *b, struct favo_call *call,
		      const struct favo_boot_entry *e, enum favo_boot_part part)
{
	struct favo_err err = {0};
	uint64_t size = 0;
	int fd = -1;

	if (favo_boot_parts_open(b->parts, &e->image, part, &fd, &size, &err) < 0) {
		favo_log(FAVO_ERROR, "node %s: %s", e->node, err.msg);
		favo_call_error(call, MHD_HTTP_NOT_FOUND, NULL, NULL, "%s", err.msg);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response = MHD_create_response_from_fd64(size, fd);
	if (!call->response)
		close(fd);
}

static void get_kernel(struct favo_boot *b, struct favo_call *call,
		       const struct favo_boot_entry *e)
{
	give_part(b, call, e, FAVO_BOOT_KERNEL);
}

static void get_base(struct favo_boot *b, struct favo_call *call,
		     const struct favo_boot_entry *e)
{
	give_part(b, call, e, FAVO_BOOT_INITRAMFS);
}

static void get_node(struct favo_boot *b, struct favo_call *call,
		     const struct favo_boot_entry *e)
{
	favo_autofree char *config = favo_boot_node_config(b->url, &b->d->conf, e);
	struct favo_err err = {0};
	void *data = NULL;
	size_t len;

	if (!config || favo_boot_parts_node(&b->d->conf, config, &data, &len, &err) < 0) {
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response =
		MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
	if (!call->response)
		free(data);
}

static void get_manifest(struct favo_boot *b, struct favo_call *call,
			 const struct favo_boot_entry *e)
{
	char id[FAVO_DIGEST_TEXT_SIZE];

	call->tail = favo_digest_format(&e->image, id);
	favo_image_get_manifest(b->d, call);
}

static void get_signature(struct favo_boot *b, struct favo_call *call,
			  const struct favo_boot_entry *e)
{
	struct favo_err err = {0};
	char *text = NULL;
	size_t len;

	if (favo_store_signature(b->d->store, &e->image, &text, &len, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_boot_text(call, MHD_HTTP_OK, text);
}

/* Names are digests: who can name a chunk has had the index of its image. */
static void post_blobs(struct favo_boot *b, struct favo_call *call,
		       const struct favo_boot_entry *e)
{
	(void)e;
	favo_image_post_blobs(b->d, call);
}

static void post_swarm(struct favo_boot *b, struct favo_call *call,
		       const struct favo_boot_entry *e)
{
	favo_autojson json_t *body = NULL;
	struct favo_err err = {0};
	uint64_t port = 0;
	bool alone = false;
	int ret = favo_json_parse(&body, call->body, call->len, &err);

	if (ret == 0)
		ret = favo_json_u64(&port, body, "port", 0, 65535, &err);
	if (ret == 0)
		ret = favo_json_bool(&alone, body, "alone", &err);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_tracker_answer(b->d, call, &e->image, e->node, (uint16_t)port,
				    alone);
}

static void give_files(struct favo_boot *b, struct favo_call *call,
		       const struct favo_boot_entry *e, const char *kind)
{
	favo_autonode struct favo_node *node = NULL;
	struct favo_err err = {0};
	json_t *files = NULL;
	int ret = favo_nodes_get(b->d->nodes, e->node, &node, &err);

	if (ret == 0)
		ret = favo_boot_files(&b->d->conf, kind, node, &files, &err);
	if (ret < 0) {
		favo_log(FAVO_ERROR, "%s of node %s: %s", kind, e->node, err.msg);
		favo_call_error(call, MHD_HTTP_INTERNAL_SERVER_ERROR, NULL, NULL, "%s",
				err.msg);
		return;
	}
	favo_call_json(call, MHD_HTTP_OK, files);
}

static void get_files(struct favo_boot *b, struct favo_call *call,
		      const struct favo_boot_entry *e)
{
	give_files(b, call, e, "files");
}

static void post_secrets(struct favo_boot *b, struct favo_call *call,
			 const struct favo_boot_entry *e)
{
	if (!favo_boot_tokens_take_secrets(b->tokens, e->token)) {
		favo_log(FAVO_ERROR,
			 "node %s (%s) asks for its secrets a second time in one boot: "
			 "refused; somebody may have got at them",
			 e->node, e->address);
		favo_call_error(call, MHD_HTTP_FORBIDDEN,
				"start the node again; if nobody did, change its secrets",
				NULL, "the secrets of this boot were given already");
		return;
	}
	give_files(b, call, e, "secrets");
}

static void post_report(struct favo_boot *b, struct favo_call *call,
			const struct favo_boot_entry *e)
{
	favo_autojson json_t *body = NULL;
	struct favo_node_report r = {.boot_id = e->boot_id};
	char id[FAVO_DIGEST_TEXT_SIZE];
	struct favo_err err = {0};
	int ret = favo_json_parse(&body, call->body, call->len, &err);

	if (ret == 0)
		ret = favo_json_str(&r.phase, body, "phase", &err);
	if (ret == 0)
		ret = favo_json_str(&r.message, body, "detail", &err);
	if (ret == 0 && strcmp(r.phase, "started") == 0) {
		r.digest = favo_digest_format(&e->image, id);
		r.kernel = json_string_value(json_object_get(body, "kernel"));
		r.boot_time = time(NULL);
		favo_boot_tokens_started(b->tokens, e->node);
	}
	if (ret == 0)
		ret = favo_nodes_report(b->d->nodes, e->node, &r, time(NULL), &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	favo_log(strcmp(r.phase, "failed") == 0 ? FAVO_ERROR : FAVO_INFO,
		 "node %s: %s%s%s", e->node, r.phase, *r.message ? ": " : "", r.message);
	favo_call_json(call, MHD_HTTP_OK, json_object());
}

static const struct route {
	const char *method, *path; /* the token follows */
	bool privileged;
	answer_fn *answer;
} routes[] = {
	{"GET", "/boot/kernel/", false, get_kernel},
	{"GET", "/boot/base/", false, get_base},
	{"GET", "/boot/node/", false, get_node},
	{"GET", "/boot/manifest/", false, get_manifest},
	{"GET", "/boot/signature/", false, get_signature},
	{"POST", "/boot/blobs/", false, post_blobs},
	{"POST", "/boot/swarm/", false, post_swarm},
	{"GET", "/boot/files/", false, get_files},
	{"POST", "/boot/secrets/", true, post_secrets},
	{"POST", "/boot/report/", true, post_report},
};

/* For UEFI firmware that boots by HTTP; TFTP has the same files. */
static void get_loader(struct favo_boot *b, struct favo_call *call)
{
	favo_autofree char *path = favo_asprintf("%s/ipxe.efi", b->d->conf.boot_loaders);
	struct favo_err err = {0};
	char *data = NULL;
	size_t len;

	if (!path || favo_file_read(path, 16 << 20, &data, &len, &err) < 0) {
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response =
		MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
	if (call->response)
		MHD_add_response_header(call->response, MHD_HTTP_HEADER_CONTENT_TYPE,
					"application/efi");
	else
		free(data);
}

/* ---- requests ---- */

static void with_token(struct favo_boot *b, struct favo_call *call,
		       const struct favo_boot_peer *peer, const struct route *r,
		       const char *token)
{
	struct favo_boot_entry e;
	struct favo_err err = {0};

	if (favo_boot_tokens_find(b->tokens, token, peer->address, &e, &err) < 0)
		favo_call_error(call, MHD_HTTP_FORBIDDEN, "start the machine again", NULL,
				"%s", err.msg);
	else if (r->privileged && peer->port >= IPPORT_RESERVED)
		favo_call_error(call, MHD_HTTP_FORBIDDEN, NULL, NULL,
				"only root of the node may ask for this");
	else
		r->answer(b, call, &e);
}

static void dispatch(struct favo_boot *b, struct favo_call *call,
		     const struct favo_boot_peer *peer, const char *path)
{
	bool get = strcmp(call->method, "GET") == 0;

	if (get && strcmp(path, "/boot/start.ipxe") == 0) {
		favo_boot_text(call, MHD_HTTP_OK, favo_boot_script_start(b->url));
		return;
	}
	if (get && strcmp(path, "/boot/script") == 0) {
		favo_boot_begin(b, call, peer);
		return;
	}
	if (get && strcmp(path, "/boot/loader/ipxe.efi") == 0) {
		get_loader(b, call);
		return;
	}
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(routes); i++) {
		size_t len = strlen(routes[i].path);

		if (strncmp(path, routes[i].path, len) == 0 &&
		    strcmp(call->method, routes[i].method) == 0) {
			with_token(b, call, peer, &routes[i], path + len);
			return;
		}
	}
	favo_call_error(call, MHD_HTTP_NOT_FOUND, NULL, NULL,
			"the boot service has no path %.200s", path);
}

static void find_peer(struct favo_boot_peer *peer, struct MHD_Connection *connection)
{
	const union MHD_ConnectionInfo *info =
		MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS);
	const struct sockaddr_in *sin = info ? (const void *)info->client_addr : NULL;

	memset(peer, 0, sizeof(*peer));
	peer->port = 65535;
	if (!sin || sin->sin_family != AF_INET)
		return;
	inet_ntop(AF_INET, &sin->sin_addr, peer->address, sizeof(peer->address));
	peer->port = ntohs(sin->sin_port);
}

static enum MHD_Result on_request(void *ctx, struct MHD_Connection *connection,
				  const char *url, const char *method,
				  const char *version, const char *data, size_t *size,
				  void **state)
{
	struct favo_boot *b = ctx;
	struct incoming *in = *state;
	struct favo_call call = {.connection = connection, .method = method};
	struct favo_boot_peer peer;
	enum MHD_Result ret;

	(void)version;
	if (!in) {
		*state = calloc(1, sizeof(*in));
		return *state ? MHD_YES : MHD_NO;
	}
	if (*size) {
		char *more = in->len + *size > BODY_MAX
				     ? NULL
				     : realloc(in->body, in->len + *size + 1);

		if (!more)
			return MHD_NO;
		in->body = more;
		memcpy(in->body + in->len, data, *size);
		in->len += *size;
		in->body[in->len] = '\0';
		*size = 0;
		return MHD_YES;
	}
	call.body = in->body ? in->body : (char *)"";
	call.len = in->len;
	call.tail = "";
	find_peer(&peer, connection);
	dispatch(b, &call, &peer, url);
	if (!call.response)
		return MHD_NO;
	ret = MHD_queue_response(connection, call.status, call.response);
	MHD_destroy_response(call.response);
	return ret;
}

static void on_end(void *ctx, struct MHD_Connection *connection, void **state,
		   enum MHD_RequestTerminationCode code)
{
	struct incoming *in = *state;

	(void)ctx;
	(void)connection;
	(void)code;
	if (in)
		free(in->body);
	free(in);
	*state = NULL;
}

/* ---- start and end ---- */

static int listen_on(int *out, const struct favo_boot *b, struct favo_err *err)
{
	struct sockaddr_in sin = {.sin_family = AF_INET,
				  .sin_port = htons((uint16_t)b->d->conf.boot_port)};
	favo_autoclose int fd =
		socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
	int one = 1;

	inet_pton(AF_INET, b->net.address, &sin.sin_addr);
	if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one)) < 0 ||
	    bind(fd, (struct sockaddr *)&sin, sizeof(sin)) < 0 || listen(fd, 1024) < 0)
		return favo_fail(err, errno, "boot_port: listen on %s:%u: %m",
				 b->net.address, (unsigned)b->d->conf.boot_port);
	*out = favo_steal_fd(&fd);
	return 0;
}

static int start_http(struct favo_boot *b, struct favo_err *err)
{
	int fd = -1, ret = listen_on(&fd, b, err);

	if (ret < 0)
		return ret;
	b->daemon = MHD_start_daemon(MHD_USE_EPOLL_INTERNAL_THREAD | MHD_USE_ITC, 0, NULL,
				     NULL, on_request, b, MHD_OPTION_LISTEN_SOCKET,
				     (MHD_socket)fd, MHD_OPTION_THREAD_POOL_SIZE, WORKERS,
				     MHD_OPTION_CONNECTION_LIMIT, CONNECTIONS_MAX,
				     MHD_OPTION_CONNECTION_TIMEOUT, IDLE_TIMEOUT_S,
				     MHD_OPTION_NOTIFY_COMPLETED, on_end, NULL,
				     MHD_OPTION_END);
	if (b->daemon)
		return 0;
	close(fd);
	return favo_fail(err, EIO, "libmicrohttpd does not start: %m");
}

static int check_conf(const struct favo_conf *conf, struct favo_err *err)
{
	if (strcmp(conf->boot_dhcp, "full") != 0 &&
	    strcmp(conf->boot_dhcp, "proxy") != 0 && strcmp(conf->boot_dhcp, "off") != 0)
		return favo_fail(err, EINVAL,
				 "boot_dhcp: \"%s\" is none of full, proxy and off",
				 conf->boot_dhcp);
	if (*conf->boot_range) {
		char first[FAVO_BOOT_ADDRESS], last[FAVO_BOOT_ADDRESS], end;
		struct in_addr a;

		if (sscanf(conf->boot_range, "%15[0-9.]-%15[0-9.]%c", first, last,
			   &end) != 2 ||
		    inet_pton(AF_INET, first, &a) != 1 ||
		    inet_pton(AF_INET, last, &a) != 1)
			return favo_fail(err, EINVAL,
					 "boot_range: \"%s\" is no FIRST-LAST",
					 conf->boot_range);
	}
	return 0;
}

int favo_boot_start(struct favo_boot **out, struct favo_favod *d, struct favo_err *err)
{
	struct favo_boot *b;
	int ret;

	*out = NULL;
	if (!d->conf.netboot)
		return 0;
	b = calloc(1, sizeof(*b));
	if (!b)
		return favo_fail(err, ENOMEM, "boot service: out of memory");
	b->d = d;
	b->tokens = favo_boot_tokens_new();
	b->parts = favo_boot_parts_new(d->store, &d->conf);
	ret = b->tokens && b->parts
		      ? check_conf(&d->conf, err)
		      : favo_fail(err, ENOMEM, "boot service: out of memory");
	if (ret == 0)
		ret = favo_boot_net_find(&b->net, &d->conf, err);
	snprintf(b->url, sizeof(b->url), "http://%s:%u", b->net.address,
		 (unsigned)d->conf.boot_port);
	if (ret == 0)
		ret = start_http(b, err);
	if (ret == 0 && strcmp(d->conf.boot_dhcp, "off") != 0)
		ret = favo_boot_dhcp_start(&b->dhcp, d, &b->net, err);
	if (ret < 0) {
		favo_boot_stop(b);
		return ret;
	}
	favo_log(FAVO_INFO, "nodes boot from %s on %s, DHCP: %s", b->url,
		 b->net.interface, d->conf.boot_dhcp);
	*out = b;
	return 0;
}

void favo_boot_stop(struct favo_boot *b)
{
	if (!b)
		return;
	favo_boot_dhcp_stop(b->dhcp);
	if (b->daemon)
		MHD_stop_daemon(b->daemon);
	favo_boot_parts_free(b->parts);
	favo_boot_tokens_free(b->tokens);
	free(b);
}
