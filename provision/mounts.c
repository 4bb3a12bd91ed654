// SPDX-License-Identifier: GPL-2.0-or-later
/* Mounts of a job's VMs; see mounts.h. */
#include "provision/mounts.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

/* Is path dir itself or below it? */
static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	if (!strcmp(dir, "/"))
		return true;
	return !strncmp(path, dir, len) && (path[len] == '/' || !path[len]);
}

/* Absolute, and each part is a name. */
static bool is_path(const char *path)
{
	if (*path != '/' || strlen(path) >= FAVO_MOUNT_PATH_MAX)
		return false;
	for (const char *p = path; *p; p++) {
		if ((unsigned char)*p < 0x20 || *p == 0x7f || *p == ':' || *p == ',')
			return false;
		if (p[0] == '/' && p[1] == '.' &&
		    (!p[2] || p[2] == '/' || (p[2] == '.' && (!p[3] || p[3] == '/'))))
			return false;
	}
	return true;
}

/* Copy without doubled and trailing slashes. */
static void copy_path(char *out, const char *path)
{
	size_t n = 0;

	for (; *path; path++)
		if (*path != '/' || !n || out[n - 1] != '/')
			out[n++] = *path;
	while (n > 1 && out[n - 1] == '/')
		n--;
	out[n] = '\0';
}

static int check_target(const struct favo_mounts *m, const char *target,
			struct favo_err *err)
{
	static const char *const own[] = {"/proc", "/sys", "/dev", "/run/favo"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(own); i++)
		if (is_below(target, own[i]) || is_below(own[i], target))
			return favo_fail(err, EINVAL,
					 "--vm-mount: %.200s in the guest is the guest's "
					 "own",
					 target);
	for (size_t i = 0; i < m->n; i++)
		if (!strcmp(m->v[i].target, target))
			return favo_fail(err, EINVAL,
					 "--vm-mount: %.200s in the guest is there twice",
					 target);
	return 0;
}

static int parse_entry(struct favo_mounts *m, char *entry, struct favo_err *err)
{
	char *part[3] = {NULL}, *save = NULL;
	struct favo_mount *out;
	size_t n = 0;
	int ret;

	for (char *p = strtok_r(entry, ":", &save); p; p = strtok_r(NULL, ":", &save)) {
		if (n == FAVO_ARRAY_SIZE(part))
			return favo_fail(err, EINVAL, "--vm-mount: more than SRC:DST:ro");
		part[n++] = p;
	}
	if (!n)
		return favo_fail(err, EINVAL, "--vm-mount: an empty entry");
	for (size_t i = 0; i < FAVO_MIN(n, (size_t)2); i++)
		if (!is_path(part[i]))
			return favo_fail(err, EINVAL,
					 "--vm-mount: '%.100s' is not an absolute path "
					 "without '.' and '..'; SRC[:DST[:ro]] is meant",
					 part[i]);
	if (part[2] && strcmp(part[2], "ro") && strcmp(part[2], "rw"))
		return favo_fail(err, EINVAL, "--vm-mount: '%.32s': ro or rw is meant",
				 part[2]);
	if (m->n == FAVO_MOUNTS_MAX)
		return favo_fail(err, E2BIG, "--vm-mount: more than %d mounts",
				 FAVO_MOUNTS_MAX);
	out = &m->v[m->n];
	copy_path(out->source, part[0]);
	copy_path(out->target, part[1] ? part[1] : part[0]);
	ret = check_target(m, out->target, err);
	if (ret < 0)
		return ret;
	out->read_only = part[2] && !strcmp(part[2], "ro");
	out->wanted = true;
	m->n++;
	return 0;
}

int favo_mounts_parse(struct favo_mounts *m, const char *list, struct favo_err *err)
{
	favo_autofree char *copy = strdup(list);
	char *save = NULL;
	int ret = 0;

	if (!copy)
		return favo_fail(err, ENOMEM, "allocate mounts");
	for (char *e = strtok_r(copy, ",", &save); ret == 0 && e;
	     e = strtok_r(NULL, ",", &save))
		ret = parse_entry(m, e, err);
	return ret;
}

static void add_default(struct favo_mounts *m, const char *path)
{
	struct favo_mount *out;

	if (!path || !is_path(path) || m->n == FAVO_MOUNTS_MAX)
		return;
	out = &m->v[m->n];
	copy_path(out->target, path);
	if (check_target(m, out->target, NULL) < 0)
		return;
	memcpy(out->source, out->target, sizeof(out->source));
	out->read_only = out->wanted = false;
	m->n++;
}

/* Would the guest have this directory, or something else under its name? */
static bool is_system_dir(const char *path)
{
	static const char *const dirs[] = {"/bin",   "/boot",  "/etc",	"/lib",
					   "/lib32", "/lib64", "/root", "/run",
					   "/tmp",   "/sbin",  "/usr",	"/var"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(dirs); i++)
		if (is_below(path, dirs[i]))
			return true;
	return !strcmp(path, "/");
}

void favo_mounts_add_defaults(struct favo_mounts *m, const char *home,
			      const char *workdir)
{
	/* A service account's home may be /, /nonexistent or /var/lib/x. */
	if (home && !is_system_dir(home))
		add_default(m, home);
	if (!workdir || is_system_dir(workdir))
		return;
	for (size_t i = 0; i < m->n; i++)
		if (is_below(workdir, m->v[i].target))
			return;
	add_default(m, workdir);
}

static int by_length(const void *a, const void *b)
{
	const struct favo_mount *x = a, *y = b;
	size_t nx = strlen(x->target), ny = strlen(y->target);

	return nx < ny ? -1 : nx > ny;
}

void favo_mounts_sort(struct favo_mounts *m)
{
	qsort(m->v, m->n, sizeof(m->v[0]), by_length);
}
