// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who may run which images: a file for each name or repository with a rule,
 * beside the tags. Lines "WHO SECONDS BY", the newest first; only the first
 * counts, the others tell what was before. Whether a user is one of WHO is
 * decided by favod, who knows users and groups.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/store_internal.h"

#define RULES_MAX (256u << 10) /* bytes of one file */

/* "rules/NAME", with %2F for each '/': no part of a name has a '%'. */
static char *rule_path(const char *pattern)
{
	char name[3 * FAVO_IMAGE_NAME_MAX + 1], *p = name;

	for (; *pattern && p < name + sizeof(name) - 4; pattern++) {
		if (*pattern == '/') {
			memcpy(p, "%2F", 3);
			p += 3;
		} else {
			*p++ = *pattern;
		}
	}
	*p = '\0';
	return favo_asprintf("rules/%s", name);
}

int favo_store_rule_name(const char *pattern, struct favo_image_name *name,
			 struct favo_err *err)
{
	size_t len = strlen(pattern);
	bool folder = len > 1 && pattern[len - 1] == '/';
	favo_autofree char *text = favo_asprintf("%s%s", pattern, folder ? "x" : "");
	int ret;

	if (!text)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_image_name_parse(name, text, err);
	if (ret < 0)
		return ret;
	if (name->has_tag || name->has_digest)
		return favo_fail(err, EINVAL,
				 "%.100s: a rule is for all tags of a name; leave the "
				 "tag away",
				 pattern);
	if (folder)
		name->name[len] = '\0';
	return 0;
}

static int check_who(const char *who, struct favo_err *err)
{
	const char *p = who;

	if (strlen(who) >= FAVO_RULE_WHO_MAX)
		return favo_fail(err, EINVAL, "more than %d bytes of names; use a group",
				 FAVO_RULE_WHO_MAX - 1);
	while (*p) {
		size_t len = strcspn(p, ",");
		favo_autofree char *word = strndup(p, len);

		if (!word)
			return favo_fail(err, ENOMEM, "out of memory");
		if (!favo_is_name(word + (word[0] == '@'), "._-", 64))
			return favo_fail(err, EINVAL,
					 "'%.64s' is neither USER nor @GROUP", word);
		p += len + (p[len] == ',');
		if (!*p && p[-1] == ',')
			return favo_fail(err, EINVAL, "a name is missing");
	}
	return p > who ? 0 : favo_fail(err, EINVAL, "nobody is named");
}

static int read_rule(struct favo_store *store, const char *path, char **text,
		     struct favo_err *err)
{
	favo_autofree char *full = favo_asprintf("%s/%s", store->dir, path);

	if (!full)
		return favo_fail(err, ENOMEM, "out of memory");
	return favo_file_read(full, RULES_MAX, text, NULL, err);
}

/* The first lines of text, which is cut behind them. */
static void keep_lines(char *text, int lines)
{
	char *end = text;

	for (int i = 0; i < lines && *end; i++) {
		end += strcspn(end, "\n");
		end += *end == '\n';
	}
	*end = '\0';
}

int favo_store_allow(struct favo_store *store, const char *pattern, const char *who,
		     const char *by, struct favo_err *err)
{
	favo_autofree char *path = rule_path(pattern), *old = NULL, *all = NULL;
	favo_autoclose int lock = -1;
	struct favo_image_name name;
	int ret = favo_store_rule_name(pattern, &name, err);

	if (ret == 0)
		ret = check_who(who, err);
	if (ret < 0)
		return ret;
	lock = favo_store_lock(store, LOCK_SH, err);
	if (lock < 0)
		return lock;
	if (mkdirat(store->fd, "rules", 0755) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "store %s: rules: %m", store->dir);
	ret = path ? read_rule(store, path, &old, err) : -ENOMEM;
	if (ret < 0 && ret != -ENOENT)
		return ret;
	if (old)
		keep_lines(old, FAVO_STORE_HISTORY_MAX - 1);
	all = favo_asprintf("%s %lld %s\n%s", who,
			    (long long)(favo_realtime_ns() / 1000000000), by,
			    old ? old : "");
	if (!all)
		return favo_fail(err, ENOMEM, "out of memory");
	return favo_store_replace(store, path, all, strlen(all), err);
}

/* One line; what follows it comes back. -EBADMSG: damaged. */
static int parse_line(char *line, struct favo_store_rule *rule, char **next,
		      struct favo_err *err)
{
	char *end = strchr(line, '\n'), *save = NULL, *who, *when, *by;

	*next = end ? end + 1 : line + strlen(line);
	if (end)
		*end = '\0';
	who = strtok_r(line, " ", &save);
	when = strtok_r(NULL, " ", &save);
	by = strtok_r(NULL, " ", &save);
	if (!who || !when || !by || strlen(who) >= sizeof(rule->who) ||
	    strlen(by) >= sizeof(rule->by))
		return favo_fail(err, EBADMSG, "the rule is damaged");
	memcpy(rule->who, who, strlen(who) + 1);
	memcpy(rule->by, by, strlen(by) + 1);
	rule->time = strtoll(when, NULL, 10);
	return 0;
}

int favo_store_rule_history(struct favo_store *store, const char *pattern,
			    struct favo_store_rule *rules, size_t max, size_t *n,
			    struct favo_err *err)
{
	favo_autofree char *path = rule_path(pattern), *text = NULL;
	char *line;
	int ret;

	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = read_rule(store, path, &text, err);
	if (ret < 0)
		return ret;
	*n = 0;
	for (line = text; *line && *n < max;) {
		snprintf(rules[*n].pattern, sizeof(rules[*n].pattern), "%s", pattern);
		ret = parse_line(line, &rules[*n], &line, err);
		if (ret < 0)
			return favo_wrap(err, ret, "store %s: %s", store->dir, path);
		*n += 1;
	}
	return *n ? 0
		  : favo_fail(err, EBADMSG, "store %s: %s is empty", store->dir, path);
}

int favo_store_rule(struct favo_store *store, const char *image,
		    struct favo_store_rule *rule, struct favo_err *err)
{
	char pattern[FAVO_IMAGE_NAME_MAX];
	size_t n = 0;
	char *slash;
	int ret = favo_store_rule_history(store, image, rule, 1, &n, err);

	if (ret != -ENOENT)
		return ret < 0 ? ret : 1;
	snprintf(pattern, sizeof(pattern), "%s", image);
	slash = strchr(pattern, '/');
	if (!slash)
		return 0;
	slash[1] = '\0';
	ret = favo_store_rule_history(store, pattern, rule, 1, &n, err);
	return ret == -ENOENT ? 0 : ret < 0 ? ret : 1;
}

/* Name of a file in rules/ as a pattern; false for what no rule is called. */
static bool pattern_of_file(const char *file, char pattern[FAVO_IMAGE_NAME_MAX])
{
	struct favo_image_name name;
	size_t n = 0;

	for (; *file && n < FAVO_IMAGE_NAME_MAX - 1; n++) {
		bool slash = strncmp(file, "%2F", 3) == 0;

		pattern[n] = slash ? '/' : *file;
		file += slash ? 3 : 1;
	}
	pattern[n] = '\0';
	return !*file && favo_store_rule_name(pattern, &name, NULL) == 0;
}

int favo_store_rules(struct favo_store *store, favo_store_rule_fn *fn, void *user,
		     struct favo_err *err)
{
	int fd = openat(store->fd, "rules", O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	char pattern[FAVO_IMAGE_NAME_MAX];
	struct favo_store_rule rule;
	struct dirent *entry;
	size_t n = 0;
	int ret = 0;
	DIR *dir;

	if (fd < 0)
		return errno == ENOENT
			       ? 0
			       : favo_fail(err, errno, "store %s: rules: %m", store->dir);
	dir = fdopendir(fd);
	if (!dir) {
		ret = favo_fail(err, errno, "store %s: rules: %m", store->dir);
		close(fd);
		return ret;
	}
	while (ret == 0 && (entry = readdir(dir))) {
		if (!pattern_of_file(entry->d_name, pattern))
			continue;
		ret = favo_store_rule_history(store, pattern, &rule, 1, &n, err);
		if (ret == 0)
			ret = fn(&rule, user, err);
	}
	closedir(dir);
	return ret;
}
