// SPDX-License-Identifier: GPL-2.0-or-later
/* Routes of rollouts: rollouts.c does the work. */
#include "config.h"
#include "provision/favod/favod.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/favod/rollout_db.h"
#include "provision/favod/rollouts.h"

static bool may_use(struct favo_favod *d, struct favo_call *call)
{
	if (favo_policy_is_node_admin(d, call->uid, call->gid))
		return true;
	favo_call_error(call, MHD_HTTP_FORBIDDEN,
			"root and the users of node_admins in favo.conf may", NULL,
			"uid %u may not roll images out", (unsigned int)call->uid);
	return false;
}

/* "12" or "12/pause"; *word is "" or what follows. */
static int parse_tail(int64_t *id, const char **word, const char *tail,
		      struct favo_err *err)
{
	char number[24];
	size_t len = strcspn(tail, "/");
	uint64_t value;
	int ret;

	snprintf(number, sizeof(number), "%.*s", (int)FAVO_MIN(len, sizeof(number) - 1),
		 tail);
	ret = favo_parse_u64(&value, number, 1, INT64_MAX, err);
	*id = (int64_t)value;
	*word = tail[len] ? tail + len + 1 : "";
	return ret < 0 ? favo_fail(err, ENOENT, "there is no rollout \"%s\"", number) : 0;
}

static void list_rollouts(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	json_t *list = NULL;

	if (favo_rollout_db_list(d->nodes, &list, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK,
			       json_pack("{s:I s:o}", "now", (json_int_t)time(NULL),
					 "rollouts", list));
}

static void show_rollout(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	json_t *out = NULL;
	const char *word;
	int64_t id;
	int ret = parse_tail(&id, &word, call->tail, &err);

	if (ret == 0)
		ret = favo_rollouts_show(d->rollouts, id, &out, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	/* commands may hold words that are not for everybody */
	if (!favo_policy_is_node_admin(d, call->uid, call->gid))
		json_object_del(out, "spec");
	json_object_set_new(out, "now", json_integer(time(NULL)));
	favo_call_json(call, MHD_HTTP_OK, out);
}

static void post_rollout(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *body = NULL;
	struct favo_err err = {0};
	json_t *out = NULL;
	int ret;

	if (!may_use(d, call))
		return;
	ret = favo_json_parse(&body, call->body, call->len, &err);
	if (ret == 0)
		ret = favo_rollouts_create(d->rollouts, body, &out, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	if (!json_is_true(json_object_get(body, "dry_run")))
		favo_log(FAVO_INFO, "rollout %" JSON_INTEGER_FORMAT " started by uid=%u",
			 json_integer_value(json_object_get(out, "id")),
			 (unsigned int)call->uid);
	favo_call_json(call, MHD_HTTP_CREATED, out);
}

static void command_rollout(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	json_t *out = NULL;
	const char *word;
	int64_t id;
	int ret;

	if (!may_use(d, call))
		return;
	ret = parse_tail(&id, &word, call->tail, &err);
	if (ret == 0)
		ret = favo_rollouts_command(d->rollouts, id, word, &out, &err);
	if (ret < 0) {
		json_decref(out);
		favo_call_fail(call, &err);
		return;
	}
	favo_log(FAVO_INFO, "rollout %lld: %s by uid=%u", (long long)id, word,
		 (unsigned int)call->uid);
	favo_call_json(call, MHD_HTTP_OK, out);
}

const struct favo_route favo_rollout_routes[] = {
	{"GET", "/v1/rollouts", 0, false, list_rollouts},
	{"POST", "/v1/rollouts", 16u << 20, false, post_rollout},
	{"GET", "/v1/rollouts/", 0, false, show_rollout},
	{"POST", "/v1/rollouts/", 4096, false, command_rollout},
	{0},
};
