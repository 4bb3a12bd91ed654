// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What the image does not have: files and secrets of nodes, kept below
 * boot_files as KIND/all, KIND/group.NAME and KIND/node.NAME, each a piece of
 * the root file system; the later wins. Of files that end with ".tmpl" the
 * {{...}} are replaced.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/str.h"
#include "common/util.h"
#include "netboot/boot.h"

#define FILE_MAX (8u << 20)
#define DEPTH_MAX 32
#define FILES_MAX 4096

struct walk {
	const struct favo_node *node;
	json_t *files; /* by path */
};

static int value_of(const struct favo_node *node, const char *key, size_t len, FILE *f,
		    struct favo_err *err)
{
	const char *value = NULL, *slash;

	if (len == 4 && memcmp(key, "name", 4) == 0) {
		value = node->name;
	} else if (len == 7 && memcmp(key, "address", 7) == 0 && node->addresses[0]) {
		slash = strchrnul(node->addresses[0], '/');
		fwrite(node->addresses[0], 1, (size_t)(slash - node->addresses[0]), f);
		return 0;
	} else if (len == 7 && memcmp(key, "gateway", 7) == 0) {
		value = node->gateway ? node->gateway : "";
	} else if (len > 4 && memcmp(key, "tag.", 4) == 0) {
		char name[128];

		snprintf(name, sizeof(name), "%.*s", (int)(len - 4), key + 4);
		value = json_string_value(json_object_get(node->tags, name));
	}
	if (!value)
		return favo_fail(err, EINVAL,
				 "{{%.*s}}: node %s has no such value (name, address, "
				 "gateway, tag.KEY)",
				 (int)FAVO_MIN(len, (size_t)64), key, node->name);
	fputs(value, f);
	return 0;
}

int favo_boot_template(const char *text, const struct favo_node *node, char **out,
		       struct favo_err *err)
{
	char *result = NULL;
	size_t size;
	FILE *f = open_memstream(&result, &size);
	int ret = 0;

	if (!f)
		return favo_fail(err, ENOMEM, "out of memory");
	while (ret == 0 && *text) {
		const char *open = strstr(text, "{{");
		const char *close = open ? strstr(open, "}}") : NULL;

		if (!close) {
			fputs(text, f);
			break;
		}
		fwrite(text, 1, (size_t)(open - text), f);
		ret = value_of(node, open + 2, (size_t)(close - open) - 2, f, err);
		text = close + 2;
	}
	fclose(f);
	if (ret < 0)
		free(result);
	else
		*out = result;
	return ret;
}

static void owner_names(const struct stat *st, char owner[64], char group[64])
{
	struct passwd pw, *found_pw = NULL;
	struct group gr, *found_gr = NULL;
	char buf[4096];

	snprintf(owner, 64, "root");
	snprintf(group, 64, "root");
	if (getpwuid_r(st->st_uid, &pw, buf, sizeof(buf), &found_pw) == 0 && found_pw)
		snprintf(owner, 64, "%.63s", pw.pw_name);
	if (getgrgid_r(st->st_gid, &gr, buf, sizeof(buf), &found_gr) == 0 && found_gr)
		snprintf(group, 64, "%.63s", gr.gr_name);
}

static int read_at(int dir, const char *name, char **data, size_t *len, struct stat *st,
		   struct favo_err *err)
{
	favo_autoclose int fd = openat(dir, name, O_RDONLY | O_NOFOLLOW | O_CLOEXEC);
	favo_autofree char *text = NULL;
	int ret;

	if (fd < 0 || fstat(fd, st) < 0)
		return favo_fail(err, errno, "%s: %m", name);
	if (!S_ISREG(st->st_mode) || st->st_size > (off_t)FILE_MAX)
		return favo_fail(err, EINVAL, "%s: no regular file, or too large", name);
	*len = (size_t)st->st_size;
	text = calloc(1, *len + 1);
	if (!text)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_read_all(fd, text, *len, -1, err);
	if (ret == 0)
		*data = favo_steal_ptr(&text);
	return ret;
}

static int add_file(struct walk *w, int dir, const char *name, const char *path,
		    struct favo_err *err)
{
	favo_autofree char *data = NULL, *encoded = NULL, *target = strdup(path);
	char owner[64], group[64];
	size_t len = 0, n = strlen(path);
	struct stat st;
	int ret;

	if (!target)
		return favo_fail(err, ENOMEM, "out of memory");
	if (json_object_size(w->files) >= FILES_MAX)
		return favo_fail(err, E2BIG, "more than %d files for a node", FILES_MAX);
	ret = read_at(dir, name, &data, &len, &st, err);
	if (ret == 0 && n > 5 && strcmp(path + n - 5, ".tmpl") == 0) {
		char *filled = NULL;

		target[n - 5] = '\0';
		ret = favo_boot_template(data, w->node, &filled, err);
		if (ret == 0) {
			free(data);
			data = filled;
			len = strlen(data);
		}
	}
	if (ret == 0)
		ret = favo_base64url_encode(&encoded, data, len, err);
	if (data)
		explicit_bzero(data, len);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", path);
	owner_names(&st, owner, group);
	json_object_set_new(w->files, target,
			    json_pack("{s:s, s:i, s:s, s:s, s:s}", "path", target, "mode",
				      (int)(st.st_mode & 07777), "owner", owner, "group",
				      group, "data", encoded));
	return 0;
}

static int walk_dir(struct walk *w, int fd, const char *path, unsigned int depth,
		    struct favo_err *err)
{
	DIR *dir = fdopendir(fd);
	struct dirent *d;
	int ret = 0;

	if (!dir) {
		close(fd);
		return favo_fail(err, errno, "%s: %m", path);
	}
	while (ret == 0 && (d = readdir(dir))) {
		favo_autofree char *below = favo_asprintf("%s/%s", path, d->d_name);
		int sub;

		if (strcmp(d->d_name, ".") == 0 || strcmp(d->d_name, "..") == 0)
			continue;
		sub = openat(dirfd(dir), d->d_name,
			     O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (sub < 0)
			ret = add_file(w, dirfd(dir), d->d_name, below, err);
		else if (depth < DEPTH_MAX)
			ret = walk_dir(w, sub, below, depth + 1, err);
		else
			close(sub);
	}
	closedir(dir);
	return ret;
}

static int walk_layer(struct walk *w, const struct favo_conf *conf, const char *kind,
		      const char *prefix, const char *name, struct favo_err *err)
{
	favo_autofree char *path =
		favo_asprintf("%s/%s/%s%s", conf->boot_files, kind, prefix, name);
	int fd, ret;

	if (!path)
		return favo_fail(err, ENOMEM, "out of memory");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return errno == ENOENT ? 0 : favo_fail(err, errno, "%s: %m", path);
	ret = walk_dir(w, fd, "", 0, err);
	return ret < 0 ? favo_wrap(err, ret, "%s", path) : 0;
}

int favo_boot_files(const struct favo_conf *conf, const char *kind,
		    const struct favo_node *node, json_t **out, struct favo_err *err)
{
	favo_autojson json_t *files = json_object();
	struct walk w = {.node = node, .files = files};
	json_t *list = json_array(), *file;
	const char *path;
	int ret = walk_layer(&w, conf, kind, "all", "", err);

	for (size_t i = 0; ret == 0 && node->groups[i]; i++)
		ret = walk_layer(&w, conf, kind, "group.", node->groups[i], err);
	if (ret == 0)
		ret = walk_layer(&w, conf, kind, "node.", node->name, err);
	json_object_foreach(files, path, file) json_array_append(list, file);
	if (ret == 0) {
		*out = json_pack("{s:O}", "files", list);
		ret = *out ? 0 : favo_fail(err, ENOMEM, "out of memory");
	}
	json_decref(list);
	return ret;
}
