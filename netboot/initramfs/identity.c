// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What makes the image this node: host name, machine id, and the files that
 * favod keeps for it (netboot/files.c). Works in the root that was entered;
 * files are written under their final mode, secrets never readable by others
 * in between. Owners are names, as the image knows them.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define ETC_MAX (1 << 20)

/* Number of a name in /etc/passwd or /etc/group; no name service is there yet. */
static int find_id(const char *file, const char *name, unsigned int *id)
{
	favo_autofree char *text = NULL;
	char *save = NULL;
	size_t len = strlen(name);

	if (favo_file_read(file, ETC_MAX, &text, NULL, NULL) < 0)
		return -ENOENT;
	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		const char *colon = strchr(line, ':');

		if (!colon || (size_t)(colon - line) != len ||
		    strncmp(line, name, len) != 0 || !(colon = strchr(colon + 1, ':')))
			continue;
		return sscanf(colon + 1, "%u:", id) == 1 ? 0 : -ENOENT;
	}
	return -ENOENT;
}

static int make_parents(const char *path, struct favo_err *err)
{
	favo_autofree char *dir = strdup(path);
	char *slash = dir ? strrchr(dir, '/') : NULL;

	if (!slash)
		return favo_fail(err, EINVAL, "%s: no absolute path", path);
	*slash = '\0';
	return *dir ? favo_mkdirs(dir, 0755, err) : 0;
}

static int write_file(const char *path, const void *data, size_t len, mode_t mode,
		      unsigned int uid, unsigned int gid, struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s.favo-new", path);
	favo_autoclose int fd = -1;
	int ret = tmp ? make_parents(path, err) : favo_fail(err, ENOMEM, "out of memory");

	if (ret < 0)
		return ret;
	unlink(tmp);
	fd = open(tmp, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", path);
	ret = favo_write_all(fd, data, len, -1, err);
	if (ret == 0 && (fchown(fd, uid, gid) < 0 || fchmod(fd, mode & 07777) < 0 ||
			 rename(tmp, path) < 0))
		ret = favo_fail(err, errno, "%s: %m", path);
	if (ret < 0)
		unlink(tmp);
	return ret;
}

static int put_file(const json_t *file, struct favo_err *err)
{
	const char *path, *owner, *group, *data;
	favo_autofree void *bytes = NULL;
	unsigned int uid = 0, gid = 0;
	uint64_t mode;
	size_t len = 0;
	int ret;

	if ((ret = favo_json_str(&path, file, "path", err)) < 0 ||
	    (ret = favo_json_str(&owner, file, "owner", err)) < 0 ||
	    (ret = favo_json_str(&group, file, "group", err)) < 0 ||
	    (ret = favo_json_u64(&mode, file, "mode", 0, 07777, err)) < 0 ||
	    (ret = favo_json_str(&data, file, "data", err)) < 0 ||
	    (ret = favo_base64url_decode(&bytes, &len, data, strlen(data), err)) < 0)
		return ret;
	if (path[0] != '/' || strstr(path, "/../"))
		return favo_fail(err, EINVAL, "%.200s: no absolute path", path);
	if (find_id("/etc/passwd", owner, &uid) < 0)
		favo_log(FAVO_WARN, "%s: the image has no user %s; root gets it", path,
			 owner);
	if (find_id("/etc/group", group, &gid) < 0)
		favo_log(FAVO_WARN, "%s: the image has no group %s; root gets it", path,
			 group);
	ret = write_file(path, len ? bytes : "", len, (mode_t)mode, uid, gid, err);
	if (bytes)
		explicit_bzero(bytes, len);
	return ret;
}

static int put_files(const struct favo_net_config *c, const char *what, bool secret,
		     struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	json_t *list;
	int ret = favo_net_ask_json(c, what, secret, &obj, err);

	if (ret == 0)
		ret = favo_json_array(&list, obj, "files", err);
	for (size_t i = 0; ret == 0 && i < json_array_size(list); i++)
		ret = put_file(json_array_get(list, i), err);
	return ret;
}

/* The same node has the same id at each start; so systemd sees no first boot. */
static int put_machine_id(const struct favo_net_config *c, struct favo_err *err)
{
	favo_autofree char *text =
		favo_asprintf("favo machine id %s %s", c->node, c->url);
	char hex[FAVO_DIGEST_TEXT_SIZE], line[40];
	struct favo_digest digest;
	int ret;

	if (!text)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_digest_of(&digest, text, strlen(text), err);
	if (ret < 0)
		return ret;
	favo_digest_format(&digest, hex);
	snprintf(line, sizeof(line), "%.32s\n", strchr(hex, ':') + 1);
	return write_file("/etc/machine-id", line, strlen(line), 0444, 0, 0, err);
}

/* For favo-noded and for people; nothing secret is in it. */
static int put_state(const struct favo_net_config *c, struct favo_err *err)
{
	char id[FAVO_DIGEST_TEXT_SIZE];
	favo_autojson json_t *obj =
		json_pack("{s:s, s:s, s:s, s:s, s:s}", "node", c->node, "image",
			  c->image_name, "digest", favo_digest_format(&c->image, id),
			  "favod", c->url, "boot_id", c->boot_id);
	favo_autofree char *text = obj ? json_dumps(obj, JSON_INDENT(1)) : NULL;

	if (!text)
		return favo_fail(err, ENOMEM, "out of memory");
	return write_file(FAVO_NET_STATE, text, strlen(text), 0644, 0, 0, err);
}

int favo_net_identity(const struct favo_net_config *c, struct favo_err *err)
{
	favo_autofree char *name = favo_asprintf("%s\n", c->node);
	int ret;

	if (!name)
		return favo_fail(err, ENOMEM, "out of memory");
	if (sethostname(c->node, strlen(c->node)) < 0)
		return favo_fail(err, errno, "set host name: %m");
	ret = write_file("/etc/hostname", name, strlen(name), 0644, 0, 0, err);
	if (ret == 0)
		ret = put_machine_id(c, err);
	if (ret == 0)
		ret = put_state(c, err);
	if (ret == 0)
		ret = put_files(c, "files", false, err);
	/* Last: favod gives them once. */
	if (ret == 0)
		ret = put_files(c, "secrets", true, err);
	return ret;
}
