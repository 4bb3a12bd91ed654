// SPDX-License-Identifier: GPL-2.0-or-later
/* Requests to favod's boot service (netboot/serve.c); see netinit.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/log.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define IDLE_MS 15000
#define REPORT_MS 3000
#define JSON_MAX ((size_t)64 << 20)

static int check_status(struct favo_web_reply *reply, const char *what,
			struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	const char *text = NULL;
	int code = reply->status == 404 ? ENOENT : reply->status == 403 ? EACCES : EIO;
	int ret;

	if (reply->status == 200)
		return 0;
	if (favo_json_parse(&obj, reply->body, reply->len, NULL) == 0)
		text = json_string_value(json_object_get(obj, "error"));
	ret = favo_fail(err, code, "%s: favod answers %d: %.160s", what, reply->status,
			text ? text : "no reason given");
	free(favo_steal_ptr(&reply->body));
	return ret;
}

static int ask(const struct favo_net_config *c, struct favo_web_ask *a, const char *what,
	       struct favo_web_reply *reply, struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("/boot/%s/%s", what, c->token);
	int ret;

	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	a->server = c->server;
	a->path = path;
	ret = favo_web_request(a, reply, err);
	if (ret < 0)
		return favo_fail(err, -ret, "%s: favod at %s: %.150s", what, c->url,
				 err->msg);
	return check_status(reply, what, err);
}

int favo_net_ask(const struct favo_net_config *c, const char *method, const char *what,
		 const void *body, size_t len, size_t max, struct favo_web_reply *reply,
		 struct favo_err *err)
{
	struct favo_web_ask a = {.method = method,
				 .body = body,
				 .len = len,
				 .max_reply = max,
				 .idle_ms = IDLE_MS};

	return ask(c, &a, what, reply, err);
}

int favo_net_ask_json(const struct favo_net_config *c, const char *what, bool privileged,
		      json_t **out, struct favo_err *err)
{
	struct favo_web_ask a = {.method = privileged ? "POST" : "GET",
				 .max_reply = JSON_MAX,
				 .idle_ms = IDLE_MS,
				 .privileged = privileged};
	struct favo_web_reply reply = {0};
	int ret = ask(c, &a, what, &reply, err);

	if (ret == 0)
		ret = favo_json_parse(out, reply.body, reply.len, err);
	if (privileged && reply.body)
		explicit_bzero(reply.body, reply.len);
	free(reply.body);
	return ret;
}

void favo_net_report(const struct favo_net_config *c, const char *phase,
		     const char *detail)
{
	favo_autojson json_t *obj = json_pack("{s:s, s:s, s:I}", "phase", phase, "detail",
					      detail, "ms", (json_int_t)favo_now_ms());
	favo_autofree char *text = obj ? json_dumps(obj, JSON_COMPACT) : NULL;
	struct favo_web_reply reply = {0};
	struct favo_web_ask a = {.method = "POST",
				 .body = text,
				 .len = text ? strlen(text) : 0,
				 .max_reply = 65536,
				 .idle_ms = REPORT_MS,
				 .privileged = true};
	struct favo_err err = {0};

	favo_log(FAVO_INFO, "%s%s%s", phase, *detail ? ": " : "", detail);
	if (text && ask(c, &a, "report", &reply, &err) < 0)
		favo_log(FAVO_DEBUG, "%s", err.msg);
	free(reply.body);
}
