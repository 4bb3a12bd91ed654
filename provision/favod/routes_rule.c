// SPDX-License-Identifier: GPL-2.0-or-later
/* Routes of the rules that say who may run which images; policy.c applies them. */
#include "provision/favod/favod.h"

#include <errno.h>

#include "common/json.h"
#include "common/log.h"
#include "common/util.h"

static json_t *rule_json(const struct favo_store_rule *rule)
{
	return json_pack("{s:s s:s s:s s:I}", "image", rule->pattern, "allow", rule->who,
			 "by", rule->by, "time", (json_int_t)rule->time);
}

static int add_rule(const struct favo_store_rule *rule, void *user, struct favo_err *err)
{
	return json_array_append_new(user, rule_json(rule)) == 0
		       ? 0
		       : favo_fail(err, ENOMEM, "out of memory");
}

static void list_rules(struct favo_favod *d, struct favo_call *call)
{
	favo_autojson json_t *list = json_array();
	struct favo_err err = {0};

	if (favo_store_rules(d->store, add_rule, list, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_pack("{s:O}", "rules", list));
}

/* Who may change the image may say who runs it. */
static int set_rule(struct favo_favod *d, struct favo_call *call, struct favo_err *err)
{
	static const char *const known[] = {"allow", NULL};
	favo_autojson json_t *body = NULL;
	struct favo_image_name name;
	const char *who;
	char by[64];
	int ret;

	if ((ret = favo_json_parse(&body, call->body, call->len, err)) < 0 ||
	    (ret = favo_json_only(body, known, err)) < 0 ||
	    (ret = favo_json_str(&who, body, "allow", err)) < 0 ||
	    (ret = favo_store_rule_name(call->tail, &name, err)) < 0 ||
	    (ret = favo_policy_may_change(d, call->uid, call->gid, &name, NULL, err)) <
		    0 ||
	    (ret = favo_policy_user(call->uid, by, sizeof(by), err)) < 0)
		return ret;
	ret = favo_store_allow(d->store, call->tail, who, by, err);
	if (ret == 0)
		favo_log(FAVO_INFO, "image rule name=%s allow=%s by=%s", call->tail, who,
			 by);
	return ret;
}

static void put_rule(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};

	if (set_rule(d, call, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK,
			       json_pack("{s:s}", "image", call->tail));
}

const struct favo_route favo_rule_routes[] = {
	{"GET", "/v1/rules", 0, false, list_rules},
	{"PUT", "/v1/rules/", 4096, false, put_rule},
	{0},
};
