// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * newc cpio writer; see cpio.h. A member is a 110-byte header of hexadecimal
 * text, the NUL-terminated name and the data, each padded to 4 bytes. Hard
 * links and device numbers of the containing file system are never used.
 */
#include "images/cpio.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/util.h"

#define TRAILER "TRAILER!!!"
#define HEADER_LEN 110

struct favo_cpio {
	char *data;
	size_t len;
	size_t size;
	uint32_t next_ino;
	char **dirs; /* directories written so far */
	size_t n_dirs;
	bool finished;
};

struct member {
	const char *path;
	mode_t mode; /* with the type */
	const void *data;
	size_t len;
	unsigned int major, minor;
};

int favo_cpio_new(struct favo_cpio **out, struct favo_err *err)
{
	struct favo_cpio *cpio = calloc(1, sizeof(*cpio));

	if (!cpio)
		return favo_fail(err, ENOMEM, "cpio: out of memory");
	cpio->next_ino = 1;
	*out = cpio;
	return 0;
}

void favo_cpio_free(struct favo_cpio *cpio)
{
	if (!cpio)
		return;
	for (size_t i = 0; i < cpio->n_dirs; i++)
		free(cpio->dirs[i]);
	free(cpio->dirs);
	free(cpio->data);
	free(cpio);
}

static int reserve(struct favo_cpio *cpio, size_t more, struct favo_err *err)
{
	size_t size = cpio->size ? cpio->size : 64 * 1024;
	char *grown;

	while (size - cpio->len < more)
		size *= 2;
	if (size == cpio->size)
		return 0;
	grown = realloc(cpio->data, size);
	if (!grown)
		return favo_fail(err, ENOMEM, "cpio: out of memory");
	cpio->data = grown;
	cpio->size = size;
	return 0;
}

static void put(struct favo_cpio *cpio, const void *data, size_t len)
{
	if (len)
		memcpy(cpio->data + cpio->len, data, len);
	cpio->len += len;
}

static void pad(struct favo_cpio *cpio, size_t align)
{
	while (cpio->len % align)
		cpio->data[cpio->len++] = '\0';
}

static int put_member(struct favo_cpio *cpio, const struct member *m, uint32_t ino,
		      struct favo_err *err)
{
	size_t name_len = strlen(m->path) + 1;
	char header[HEADER_LEN + 1];
	int ret;

	if (m->len > UINT32_MAX)
		return favo_fail(err, E2BIG, "cpio: %s: larger than 4 GiB", m->path);
	ret = reserve(cpio, HEADER_LEN + name_len + m->len + 512 + 8, err);
	if (ret < 0)
		return ret;
	snprintf(header, sizeof(header),
		 "070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X", ino,
		 (unsigned int)m->mode, 0, 0, S_ISDIR(m->mode) ? 2 : 1, 0,
		 (unsigned int)m->len, 0, 0, m->major, m->minor, (unsigned int)name_len,
		 0);
	put(cpio, header, HEADER_LEN);
	put(cpio, m->path, name_len);
	pad(cpio, 4);
	put(cpio, m->data, m->len);
	pad(cpio, 4);
	return 0;
}

static bool path_is_clean(const char *path)
{
	const char *part = path;
	size_t len;

	for (;;) {
		len = strcspn(part, "/");
		if (len == 0 || (len == 1 && part[0] == '.') ||
		    (len == 2 && part[0] == '.' && part[1] == '.'))
			return false;
		if (!part[len])
			return true;
		part += len + 1;
	}
}

static bool has_dir(const struct favo_cpio *cpio, const char *path)
{
	for (size_t i = 0; i < cpio->n_dirs; i++)
		if (strcmp(cpio->dirs[i], path) == 0)
			return true;
	return false;
}

static int remember_dir(struct favo_cpio *cpio, const char *path, struct favo_err *err)
{
	char **dirs = reallocarray(cpio->dirs, cpio->n_dirs + 1, sizeof(*dirs));

	if (!dirs)
		return favo_fail(err, ENOMEM, "cpio: out of memory");
	cpio->dirs = dirs;
	dirs[cpio->n_dirs] = strdup(path);
	if (!dirs[cpio->n_dirs])
		return favo_fail(err, ENOMEM, "cpio: out of memory");
	cpio->n_dirs++;
	return 0;
}

static int add_parents(struct favo_cpio *cpio, const char *path, struct favo_err *err)
{
	favo_autofree char *copy = strdup(path);
	struct member m = {.path = copy, .mode = S_IFDIR | 0755};
	int ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "cpio: out of memory");
	for (char *p = strchr(copy, '/'); p; p = strchr(p + 1, '/')) {
		*p = '\0';
		if (!has_dir(cpio, copy)) {
			ret = put_member(cpio, &m, cpio->next_ino++, err);
			if (ret == 0)
				ret = remember_dir(cpio, copy, err);
			if (ret < 0)
				return ret;
		}
		*p = '/';
	}
	return 0;
}

static int add(struct favo_cpio *cpio, const struct member *m, struct favo_err *err)
{
	int ret;

	if (cpio->finished)
		return favo_fail(err, EINVAL, "cpio: %s: archive is finished", m->path);
	if (!path_is_clean(m->path))
		return favo_fail(err, EINVAL, "cpio: bad path '%s'", m->path);
	ret = add_parents(cpio, m->path, err);
	if (ret < 0)
		return ret;
	return put_member(cpio, m, cpio->next_ino++, err);
}

int favo_cpio_dir(struct favo_cpio *cpio, const char *path, mode_t mode,
		  struct favo_err *err)
{
	struct member m = {.path = path, .mode = S_IFDIR | (mode & 07777)};
	int ret = add(cpio, &m, err);

	return ret < 0 ? ret : remember_dir(cpio, path, err);
}

int favo_cpio_file(struct favo_cpio *cpio, const char *path, mode_t mode,
		   const void *data, size_t len, struct favo_err *err)
{
	struct member m = {
		.path = path, .mode = S_IFREG | (mode & 07777), .data = data, .len = len};

	return add(cpio, &m, err);
}

int favo_cpio_symlink(struct favo_cpio *cpio, const char *path, const char *target,
		      struct favo_err *err)
{
	struct member m = {.path = path,
			   .mode = S_IFLNK | 0777,
			   .data = target,
			   .len = strlen(target)};

	return add(cpio, &m, err);
}

int favo_cpio_device(struct favo_cpio *cpio, const char *path, mode_t type, mode_t mode,
		     unsigned int major, unsigned int minor, struct favo_err *err)
{
	struct member m = {.path = path,
			   .mode = (type & S_IFMT) | (mode & 07777),
			   .major = major,
			   .minor = minor};

	if (!S_ISCHR(type) && !S_ISBLK(type))
		return favo_fail(err, EINVAL, "cpio: %s: not a device", path);
	return add(cpio, &m, err);
}

int favo_cpio_copy(struct favo_cpio *cpio, const char *path, mode_t mode,
		   const char *host_path, size_t max, struct favo_err *err)
{
	favo_autoclose int fd = open(host_path, O_RDONLY | O_CLOEXEC);
	favo_autofree char *buf = NULL;
	struct stat st;
	size_t done = 0;
	ssize_t n;

	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", host_path);
	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "%s: %m", host_path);
	if (!S_ISREG(st.st_mode))
		return favo_fail(err, EINVAL, "%s: not a regular file", host_path);
	if ((uint64_t)st.st_size > max)
		return favo_fail(err, EFBIG, "%s: larger than %zu bytes", host_path, max);
	buf = malloc((size_t)st.st_size + 1);
	if (!buf)
		return favo_fail(err, ENOMEM, "%s: out of memory", host_path);
	while (done < (size_t)st.st_size) {
		n = read(fd, buf + done, (size_t)st.st_size - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return favo_fail(err, errno, "%s: %m", host_path);
		if (n == 0)
			return favo_fail(err, EIO, "%s: shrank while it was read",
					 host_path);
		done += (size_t)n;
	}
	return favo_cpio_file(cpio, path, mode, buf, done, err);
}

int favo_cpio_finish(struct favo_cpio *cpio, const void **data, size_t *len,
		     struct favo_err *err)
{
	struct member m = {.path = TRAILER};
	int ret;

	if (!cpio->finished) {
		ret = put_member(cpio, &m, 0, err);
		if (ret < 0)
			return ret;
		pad(cpio, 512);
		cpio->finished = true;
	}
	*data = cpio->data;
	*len = cpio->len;
	return 0;
}

int favo_cpio_finish_memfd(struct favo_cpio *cpio, const char *name, struct favo_err *err)
{
	favo_autoclose int fd = -1;
	const void *data;
	size_t len, done = 0;
	ssize_t n;
	int ret;

	ret = favo_cpio_finish(cpio, &data, &len, err);
	if (ret < 0)
		return ret;
	fd = memfd_create(name, MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd < 0)
		return favo_fail(err, errno, "memfd %s: %m", name);
	while (done < len) {
		n = pwrite(fd, (const char *)data + done, len - done, (off_t)done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, errno, "memfd %s: write: %m", name);
		done += (size_t)n;
	}
	if (fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_WRITE | F_SEAL_SEAL) < 0)
		return favo_fail(err, errno, "memfd %s: seal: %m", name);
	return favo_steal_fd(&fd);
}
