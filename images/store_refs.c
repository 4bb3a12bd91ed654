// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Names of the store: refs/NAME/TAG, where a '/' of the name is written %2F
 * so that "a" with tag "b" and "a/b" can never meet. A ref has lines
 * "sha256:<hex> <unix time>", the newest first, and is replaced atomically.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/store.h"
#include "images/store_internal.h"

#define TAG_MAX 128
#define REF_MAX 4096
#define HISTORY_MAX 32 /* older lines of a ref; they fit into REF_MAX */
#define DIR_NAME_SIZE (FAVO_IMAGE_NAME_MAX * 3)

static bool is_part(const char *text, size_t len)
{
	if (len == 0 || !isalnum((unsigned char)text[0]))
		return false;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)text[i]) && !strchr("._-", text[i]))
			return false;
	return true;
}

static bool is_name(const char *text)
{
	size_t len;

	for (;;) {
		len = strcspn(text, "/");
		if (!is_part(text, len))
			return false;
		if (!text[len])
			return true;
		text += len + 1;
	}
}

int favo_image_name_parse(struct favo_image_name *out, const char *text,
			  struct favo_err *err)
{
	struct favo_image_name name = {0};
	char copy[FAVO_IMAGE_NAME_MAX];
	const char *at = strchr(text, '@');
	size_t len = at ? (size_t)(at - text) : strlen(text);
	char *colon;

	if (favo_digest_parse(&name.digest, text, NULL) == 0) {
		name.has_digest = true;
		*out = name;
		return 0;
	}
	if (len >= sizeof(copy))
		return favo_fail(err, EINVAL, "image name '%.40s...' is too long", text);
	if (at) {
		if (favo_digest_parse(&name.digest, at + 1, err) < 0)
			return favo_wrap(err, -EINVAL, "image name '%s'", text);
		name.has_digest = true;
	}
	memcpy(copy, text, len);
	copy[len] = '\0';
	colon = strrchr(copy, ':');
	if (colon && !strchr(colon, '/')) {
		*colon = '\0';
		if (!is_part(colon + 1, strlen(colon + 1)) || strlen(colon + 1) > TAG_MAX)
			return favo_fail(err, EINVAL, "image name '%s': bad tag", text);
		name.has_tag = true;
	}
	if (!is_name(copy))
		return favo_fail(
			err, EINVAL,
			"image name '%s': not of the form [repo/]name[:tag][@digest]",
			text);
	snprintf(name.name, sizeof(name.name), "%s", copy);
	snprintf(name.tag, sizeof(name.tag), "%s", name.has_tag ? colon + 1 : "latest");
	*out = name;
	return 0;
}

static char *dir_of_name(const char *name, char dir[DIR_NAME_SIZE])
{
	char *p = dir;

	for (; *name; name++) {
		if (*name == '/') {
			memcpy(p, "%2F", 3);
			p += 3;
		} else {
			*p++ = *name;
		}
	}
	*p = '\0';
	return dir;
}

/* false for a folder that no name makes. */
static bool name_of_dir(const char *dir, char name[FAVO_IMAGE_NAME_MAX])
{
	size_t n = 0;

	while (*dir && n < FAVO_IMAGE_NAME_MAX - 1) {
		if (strncmp(dir, "%2F", 3) == 0) {
			name[n++] = '/';
			dir += 3;
		} else {
			name[n++] = *dir++;
		}
	}
	name[n] = '\0';
	return !*dir && is_name(name);
}

/* Relative to the store's folder. */
static char *ref_path(const struct favo_image_name *name)
{
	char dir[DIR_NAME_SIZE];

	return favo_asprintf("refs/%s/%s", dir_of_name(name->name, dir), name->tag);
}

static char *full_ref_path(struct favo_store *store, const struct favo_image_name *name)
{
	favo_autofree char *path = ref_path(name);

	return path ? favo_asprintf("%s/%s", store->dir, path) : NULL;
}

static int read_ref(const char *path, struct favo_digest *id, int64_t *when,
		    struct favo_err *err)
{
	favo_autofree char *text = NULL;
	char *space;
	int ret = favo_file_read(path, REF_MAX, &text, NULL, err);

	if (ret < 0)
		return ret;
	text[strcspn(text, "\n")] = '\0';
	space = strchr(text, ' ');
	if (space)
		*space = '\0';
	if (favo_digest_parse(id, text, err) < 0)
		return favo_wrap(err, -EBADMSG, "%s", path);
	if (when)
		*when = space ? strtoll(space + 1, NULL, 10) : 0;
	return 0;
}

int favo_store_resolve(struct favo_store *store, const char *text, struct favo_digest *id,
		       struct favo_err *err)
{
	favo_automanifest struct favo_manifest *manifest = NULL;
	favo_autofree char *path = NULL;
	struct favo_image_name name;
	struct favo_digest found;
	int ret = favo_image_name_parse(&name, text, err);

	if (ret < 0)
		return ret;
	if (name.has_digest) {
		found = name.digest;
	} else {
		path = full_ref_path(store, &name);
		if (!path)
			return favo_fail(err, ENOMEM, "store %s: out of memory",
					 store->dir);
		ret = read_ref(path, &found, NULL, err);
		if (ret == -ENOENT)
			return favo_fail(err, ENOENT, "no image %s:%s", name.name,
					 name.tag);
	}
	if (ret == 0)
		ret = favo_store_manifest(store, &found, &manifest, err);
	if (ret == 0)
		*id = found;
	return ret;
}

int favo_store_tag(struct favo_store *store, const struct favo_image_name *name,
		   const struct favo_digest *id, struct favo_err *err)
{
	char text[FAVO_DIGEST_TEXT_SIZE], line[128], manifest[FAVO_MANIFEST_PATH_SIZE];
	char dir[DIR_NAME_SIZE];
	favo_autofree char *path = ref_path(name);
	favo_autofree char *folder =
		favo_asprintf("refs/%s", dir_of_name(name->name, dir));
	favo_autofree char *full = full_ref_path(store, name), *old = NULL, *all = NULL;
	favo_autoclose int lock = favo_store_lock(store, LOCK_SH, err);
	const char *end;

	if (lock < 0)
		return lock;
	if (!path || !folder)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	if (faccessat(store->fd, favo_store_manifest_path(id, manifest), F_OK, 0) < 0)
		return favo_fail(err, ENOENT, "no image %s in store %s",
				 favo_digest_format(id, text), store->dir);
	snprintf(line, sizeof(line), "%s %lld\n", favo_digest_format(id, text),
		 (long long)(favo_realtime_ns() / 1000000000));
	/* What the tag pointed to before stays behind, unless it is the same. */
	if (full && favo_file_read(full, REF_MAX, &old, NULL, NULL) == 0 && *old) {
		if (strncmp(old, text, strlen(text)) == 0)
			memmove(old, old + strcspn(old, "\n"),
				strlen(old) - strcspn(old, "\n") + 1);
		end = old;
		for (int i = 0; i < HISTORY_MAX && *end; i++)
			end += strcspn(end, "\n") + (end[strcspn(end, "\n")] == '\n');
		old[end - old] = '\0';
	}
	all = favo_asprintf("%s%s", line, old ? old + (*old == '\n') : "");
	if (!all)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	if (mkdirat(store->fd, folder, 0755) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "store %s: %s: %m", store->dir, folder);
	return favo_store_replace(store, path, all, strlen(all), err);
}

int favo_store_untag(struct favo_store *store, const struct favo_image_name *name,
		     struct favo_err *err)
{
	favo_autofree char *path = full_ref_path(store, name);
	char *slash;

	if (!path)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	if (unlink(path) < 0) {
		if (errno == ENOENT || errno == ENOTDIR)
			return favo_fail(err, ENOENT, "no image %s:%s", name->name,
					 name->tag);
		return favo_fail(err, errno, "%s: %m", path);
	}
	slash = strrchr(path, '/');
	*slash = '\0';
	rmdir(path); /* stays while it has other tags */
	return 0;
}

int favo_store_history(struct favo_store *store, const struct favo_image_name *name,
		       struct favo_store_event *events, size_t max, size_t *n,
		       struct favo_err *err)
{
	favo_autofree char *path = full_ref_path(store, name), *text = NULL;
	char *save = NULL, *line, *space;
	size_t count = 0;
	int ret;

	if (!path)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	ret = favo_file_read(path, REF_MAX, &text, NULL, err);
	if (ret == -ENOENT || ret == -ENOTDIR)
		return favo_fail(err, ENOENT, "no image %s:%s", name->name, name->tag);
	if (ret < 0)
		return ret;
	for (line = strtok_r(text, "\n", &save); line && count < max;
	     line = strtok_r(NULL, "\n", &save)) {
		space = strchr(line, ' ');
		if (space)
			*space = '\0';
		if (favo_digest_parse(&events[count].id, line, err) < 0)
			return favo_wrap(err, -EBADMSG, "%s", path);
		events[count++].time = space ? strtoll(space + 1, NULL, 10) : 0;
	}
	*n = count;
	return 0;
}

/* ---- listing ---- */

struct ref_list {
	struct favo_store_ref *refs;
	size_t n, size;
};

void favo_store_refs_free(struct favo_store_ref *refs, size_t n)
{
	for (size_t i = 0; refs && i < n; i++) {
		free(refs[i].name);
		free(refs[i].tag);
	}
	free(refs);
}

static int add_ref(struct favo_store *store, struct ref_list *list, const char *name,
		   const char *dir, const char *tag, struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("%s/refs/%s/%s", store->dir, dir, tag);
	struct favo_store_ref *grown, *ref;
	size_t size = list->size ? 2 * list->size : 16;
	int ret;

	if (list->n == list->size) {
		grown = reallocarray(list->refs, size, sizeof(*grown));
		if (!grown)
			return favo_fail(err, ENOMEM, "store %s: out of memory",
					 store->dir);
		list->refs = grown;
		list->size = size;
	}
	if (!path)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	ref = &list->refs[list->n];
	ret = read_ref(path, &ref->id, &ref->time, err);
	if (ret == -ENOENT)
		return 0; /* removed meanwhile */
	if (ret < 0)
		return ret;
	ref->name = strdup(name);
	ref->tag = strdup(tag);
	list->n++;
	if (!ref->name || !ref->tag)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	return 0;
}

static DIR *open_dir(int base, const char *path)
{
	int fd = openat(base, path, O_DIRECTORY | O_RDONLY | O_CLOEXEC);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir && fd >= 0)
		close(fd);
	return dir;
}

static int list_tags(struct favo_store *store, DIR *refs, const char *dir_name,
		     struct ref_list *list, struct favo_err *err)
{
	char name[FAVO_IMAGE_NAME_MAX];
	struct dirent *entry;
	DIR *dir;
	int ret = 0;

	if (!name_of_dir(dir_name, name))
		return 0;
	dir = open_dir(dirfd(refs), dir_name);
	if (!dir)
		return 0; /* removed meanwhile */
	while (ret == 0 && (entry = readdir(dir)))
		if (is_part(entry->d_name, strlen(entry->d_name)))
			ret = add_ref(store, list, name, dir_name, entry->d_name, err);
	closedir(dir);
	return ret;
}

static int compare_refs(const void *a, const void *b)
{
	const struct favo_store_ref *left = a, *right = b;
	int order = strcmp(left->name, right->name);

	return order ? order : strcmp(left->tag, right->tag);
}

int favo_store_list(struct favo_store *store, struct favo_store_ref **refs, size_t *n,
		    struct favo_err *err)
{
	DIR *dir = open_dir(store->fd, "refs");
	struct ref_list list = {0};
	struct dirent *entry;
	int ret = 0;

	if (!dir)
		return favo_fail(err, errno, "store %s: refs: %m", store->dir);
	while (ret == 0 && (entry = readdir(dir)))
		ret = list_tags(store, dir, entry->d_name, &list, err);
	closedir(dir);
	if (ret < 0) {
		favo_store_refs_free(list.refs, list.n);
		return ret;
	}
	if (list.n)
		qsort(list.refs, list.n, sizeof(*list.refs), compare_refs);
	*refs = list.refs;
	*n = list.n;
	return 0;
}

/* ---- near names ---- */

/* Edit distance with transpositions, cut off at NEAR_LEN bytes. */
#define NEAR_LEN 64
static int distance(const char *a, const char *b)
{
	int n = (int)strnlen(a, NEAR_LEN), m = (int)strnlen(b, NEAR_LEN);
	int d[NEAR_LEN + 1][NEAR_LEN + 1];

	for (int i = 0; i <= n; i++)
		d[i][0] = i;
	for (int j = 0; j <= m; j++)
		d[0][j] = j;
	for (int i = 1; i <= n; i++) {
		for (int j = 1; j <= m; j++) {
			int best = d[i - 1][j - 1] + (a[i - 1] != b[j - 1]);

			best = FAVO_MIN(best, d[i - 1][j] + 1);
			best = FAVO_MIN(best, d[i][j - 1] + 1);
			if (i > 1 && j > 1 && a[i - 1] == b[j - 2] &&
			    a[i - 2] == b[j - 1])
				best = FAVO_MIN(best, d[i - 2][j - 2] + 1);
			d[i][j] = best;
		}
	}
	return d[n][m];
}

#define FAR 1000
/* Lower is nearer; FAR: not worth a mention. */
static int nearness(const char *wanted, const char *tag, const struct favo_store_ref *ref)
{
	int limit = FAVO_MAX(2, (int)strnlen(wanted, NEAR_LEN) / 2);
	int score = distance(wanted, ref->name);

	if (score > limit) {
		/* "debian" is near "debian12-mpi", whatever the length. */
		if (strlen(wanted) < 3 ||
		    (!strstr(ref->name, wanted) && !strstr(wanted, ref->name)))
			return FAR;
		score = limit + 1;
	}
	return 2 * score + (strcmp(tag, ref->tag) != 0);
}

struct near {
	int score;
	const struct favo_store_ref *ref;
};

static int compare_near(const void *a, const void *b)
{
	const struct near *left = a, *right = b;

	if (left->score != right->score)
		return left->score - right->score;
	return compare_refs(left->ref, right->ref);
}

int favo_store_near(struct favo_store *store, const char *text, char **names, int max,
		    struct favo_err *err)
{
	struct favo_image_name name;
	struct favo_store_ref *refs = NULL;
	favo_autofree struct near *near = NULL;
	size_t n = 0, n_near = 0;
	int count = 0, ret;

	if (favo_image_name_parse(&name, text, NULL) < 0) {
		snprintf(name.name, sizeof(name.name), "%s", text);
		snprintf(name.tag, sizeof(name.tag), "latest");
	}
	ret = favo_store_list(store, &refs, &n, err);
	if (ret < 0)
		return ret;
	near = calloc(n ? n : 1, sizeof(*near));
	if (!near) {
		favo_store_refs_free(refs, n);
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	}
	for (size_t i = 0; i < n; i++) {
		int score = nearness(name.name, name.tag, &refs[i]);

		if (score < FAR)
			near[n_near++] = (struct near){score, &refs[i]};
	}
	if (n_near)
		qsort(near, n_near, sizeof(*near), compare_near);
	for (size_t i = 0; i < n_near && count < max; i++) {
		names[count] =
			favo_asprintf("%s:%s", near[i].ref->name, near[i].ref->tag);
		if (names[count])
			count++;
	}
	favo_store_refs_free(refs, n);
	return count;
}
