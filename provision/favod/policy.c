// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who may change and run what. Users and groups are those of favod's host, as
 * they are for Slurm. Every user of the site may run every image of the site's
 * store that no rule (images/store_rules.c) keeps for others; what this version
 * cannot do yet is refused here, with a sentence.
 */
#include "provision/favod/favod.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

#define GROUPS_MAX 65536
#define RECORD_MAX (1u << 20) /* a group with very many members */

int favo_policy_user(uid_t uid, char *name, size_t size, struct favo_err *err)
{
	char buf[16384];
	struct passwd pw, *found = NULL;

	getpwuid_r(uid, &pw, buf, sizeof(buf), &found);
	if (!found)
		return favo_fail(err, EACCES, "uid %u is no user on favod's host",
				 (unsigned int)uid);
	if (strlen(pw.pw_name) >= size)
		return favo_fail(err, EACCES, "user name %.64s... is too long",
				 pw.pw_name);
	snprintf(name, size, "%s", pw.pw_name);
	return 0;
}

static bool is_in_group(const char *user, gid_t gid, const char *group)
{
	favo_autofree char *buf = malloc(RECORD_MAX);
	favo_autofree gid_t *groups = NULL;
	struct group gr, *found = NULL;
	int n = 64;

	if (!buf)
		return false;
	getgrnam_r(group, &gr, buf, RECORD_MAX, &found);
	if (!found)
		return false;
	for (;;) {
		gid_t *grown = reallocarray(groups, (size_t)n, sizeof(*groups));
		int had = n;

		if (!grown)
			return false;
		groups = grown;
		if (getgrouplist(user, gid, groups, &n) >= 0)
			break;
		n = FAVO_MAX(n, 2 * had);
		if (n > GROUPS_MAX)
			return false;
	}
	for (int i = 0; i < n; i++)
		if (groups[i] == gr.gr_gid)
			return true;
	return false;
}

/* list: "alice,@staff"; no blanks. */
static bool is_listed(const char *list, const char *user, gid_t gid)
{
	while (*list) {
		size_t len = strcspn(list, ",");
		favo_autofree char *word = strndup(list, len);

		if (!word)
			return false;
		if (word[0] == '@' ? is_in_group(user, gid, word + 1)
				   : strcmp(word, user) == 0)
			return true;
		list += len + (list[len] == ',');
	}
	return false;
}

int favo_policy_may_change(struct favo_favod *d, uid_t uid, gid_t gid,
			   const struct favo_image_name *name, uint64_t *quota,
			   struct favo_err *err)
{
	const char *slash = strchr(name->name, '/');
	char user[64];
	int ret;

	if (quota)
		*quota = UINT64_MAX;
	if (uid == 0)
		return 0;
	ret = favo_policy_user(uid, user, sizeof(user), err);
	if (ret < 0)
		return ret;
	if (slash && strncmp(name->name, user, (size_t)(slash - name->name)) == 0 &&
	    strlen(user) == (size_t)(slash - name->name)) {
		if (quota)
			*quota = d->conf.image_quota_bytes;
		if (d->conf.image_quota_bytes)
			return 0;
		return favo_fail(err, EACCES,
				 "users of this site have no images of their own");
	}
	if (is_listed(d->conf.image_admins, user, gid))
		return 0;
	return favo_fail(err, EACCES, "the image name %s is not yours; call it %s/%s",
			 name->name, user, slash ? slash + 1 : name->name);
}

bool favo_policy_is_node_admin(struct favo_favod *d, uid_t uid, gid_t gid)
{
	char user[64];

	if (uid == 0)
		return true;
	return favo_policy_user(uid, user, sizeof(user), NULL) == 0 &&
	       is_listed(d->conf.node_admins, user, gid);
}

/* ---- rules of images ---- */

/* 1: yes, 0: no, with the rule that says so. Owners may run what is theirs. */
static int is_allowed(struct favo_favod *d, const char *image, const char *user,
		      gid_t gid, struct favo_store_rule *rule, struct favo_err *err)
{
	size_t len = strlen(user);
	int ret;

	if (strncmp(image, user, len) == 0 && image[len] == '/')
		return 1;
	ret = favo_store_rule(d->store, image, rule, err);
	if (ret <= 0)
		return ret < 0 ? ret : 1;
	return strcmp(rule->who, FAVO_RULE_ALL) == 0 || is_listed(rule->who, user, gid);
}

/* Does the tag point to this image, or did it? */
static bool has_image(struct favo_favod *d, const struct favo_store_ref *ref,
		      const struct favo_digest *id)
{
	struct favo_store_event events[FAVO_STORE_HISTORY_MAX];
	struct favo_image_name name = {0};
	size_t n = 0;

	snprintf(name.name, sizeof(name.name), "%s", ref->name);
	snprintf(name.tag, sizeof(name.tag), "%s", ref->tag);
	if (favo_store_history(d->store, &name, events, FAVO_ARRAY_SIZE(events), &n,
			       NULL) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (favo_digest_equal(&events[i].id, id))
			return true;
	return false;
}

/*
 * By digest an image can be asked for under any name. One that the name never
 * had must be allowed under some name that has it. rule is of such a name.
 */
static int is_allowed_by_digest(struct favo_favod *d, const char *image,
				const struct favo_digest *id, const char *user, gid_t gid,
				struct favo_store_rule *rule, struct favo_err *err)
{
	struct favo_store_ref *refs = NULL;
	size_t n = 0, names = 0;
	bool allowed = false;
	int ret = favo_store_list(d->store, &refs, &n, err);

	for (size_t i = 0; ret == 0 && !allowed && i < n; i++) {
		if (!has_image(d, &refs[i], id))
			continue;
		names++;
		/* The name's own rule was asked already. */
		ret = strcmp(refs[i].name, image) == 0
			      ? 1
			      : is_allowed(d, refs[i].name, user, gid, rule, err);
		allowed = ret > 0;
		ret = FAVO_MIN(ret, 0);
	}
	favo_store_refs_free(refs, n);
	return ret < 0 ? ret : allowed || names == 0;
}

static int refuse(const char *user, const char *image, const struct favo_store_rule *rule,
		  struct favo_err *err)
{
	return favo_fail(err, EACCES,
			 "%s may not run %s: the rule of %s allows %.80s; ask %s, who "
			 "made it (favo image allow %s ...)",
			 user, image, rule->pattern, rule->who, rule->by, rule->pattern);
}

static int check_rules(struct favo_favod *d, const struct favo_grant *grant,
		       struct favo_err *err)
{
	struct favo_store_rule rule = {0};
	struct favo_image_name name;
	struct favo_digest id;
	int ret = favo_image_name_parse(&name, grant->image, err);

	if (ret == 0)
		ret = favo_digest_parse(&id, grant->digest, err);
	if (ret == 0)
		ret = is_allowed(d, name.name, grant->user, grant->gid, &rule, err);
	if (ret > 0)
		ret = is_allowed_by_digest(d, name.name, &id, grant->user, grant->gid,
					   &rule, err);
	return ret == 0 ? refuse(grant->user, grant->image, &rule, err)
			: FAVO_MIN(ret, 0);
}

int favo_policy_may_name(struct favo_favod *d, uid_t uid, gid_t gid,
			 const struct favo_image_name *name, const struct favo_digest *id,
			 struct favo_err *err)
{
	struct favo_store_ref *refs = NULL, *restricted = NULL;
	struct favo_store_rule rule = {0};
	bool open = false;
	char user[64];
	size_t n = 0;
	int ret;

	if (uid == 0)
		return 0;
	ret = favo_policy_user(uid, user, sizeof(user), err);
	if (ret < 0 || is_listed(d->conf.image_admins, user, gid))
		return ret;
	ret = favo_store_list(d->store, &refs, &n, err);
	for (size_t i = 0; ret >= 0 && !open && i < n; i++) {
		if (strcmp(refs[i].name, name->name) == 0 || !has_image(d, &refs[i], id))
			continue;
		ret = favo_store_rule(d->store, refs[i].name, &rule, err);
		open = ret == 0 || strcmp(rule.who, FAVO_RULE_ALL) == 0;
		if (ret > 0 && !open)
			restricted = &refs[i];
	}
	if (ret >= 0)
		ret = restricted && !open
			      ? favo_fail(err, EACCES,
					  "%s is restricted by a rule: only root and "
					  "image_admins give it another name",
					  restricted->name)
			      : 0;
	favo_store_refs_free(refs, n);
	return ret;
}

int favo_policy_may_run(struct favo_favod *d, const struct favo_grant *grant,
			struct favo_err *err)
{
	if (grant->per_node != 1)
		return favo_fail(
			err, EACCES,
			"%u VMs per node were asked for; this version starts one",
			grant->per_node);
	return grant->uid == 0 ? 0 : check_rules(d, grant, err);
}
