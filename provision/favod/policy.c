// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who may change and run what. Users and groups are those of favod's host, as
 * they are for Slurm. Every user of the site may run every image of the site's
 * store; what this version cannot do yet is refused here, with a sentence.
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

int favo_policy_may_run(struct favo_favod *d, const struct favo_grant *grant,
			struct favo_err *err)
{
	(void)d;
	if (grant->per_node != 1)
		return favo_fail(
			err, EACCES,
			"%u VMs per node were asked for; this version starts one",
			grant->per_node);
	return 0;
}
