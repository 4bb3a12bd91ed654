// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What nodes load before they have their image: kernel and initramfs, made
 * once per image and given to all from the same memory. The initramfs is the
 * program (favo-netinit), then the image's drivers as the store has them,
 * compressed; the kernel unpacks such archives one behind the other.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/cpio.h"
#include "images/store.h"
#include "netboot/boot.h"

#define KEPT 8 /* parts in memory: two for each image in use */
#define PROGRAM_MAX (64u << 20)
#define KEYS_MAX 32

struct part {
	struct favo_digest image;
	enum favo_boot_part kind;
	int fd; /* memfd; -1: free */
	uint64_t size;
	uint64_t used;
};

struct favo_boot_parts {
	struct favo_store *store;
	const struct favo_conf *conf;
	pthread_mutex_t lock;
	uint64_t clock;
	struct part parts[KEPT];
};

struct favo_boot_parts *favo_boot_parts_new(struct favo_store *store,
					    const struct favo_conf *conf)
{
	struct favo_boot_parts *p = calloc(1, sizeof(*p));

	if (!p)
		return NULL;
	p->store = store;
	p->conf = conf;
	pthread_mutex_init(&p->lock, NULL);
	for (size_t i = 0; i < KEPT; i++)
		p->parts[i].fd = -1;
	return p;
}

void favo_boot_parts_free(struct favo_boot_parts *p)
{
	if (!p)
		return;
	for (size_t i = 0; i < KEPT; i++)
		favo_close(&p->parts[i].fd);
	pthread_mutex_destroy(&p->lock);
	free(p);
}

/* The digest of manifest.netboot.WHAT. */
static int find_digest(struct favo_boot_parts *p, const struct favo_digest *image,
		       const char *what, struct favo_digest *out, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	const json_t *obj;
	const char *text;
	int ret = favo_store_manifest(p->store, image, &m, err);

	if (ret < 0)
		return ret;
	obj = json_object_get(json_object_get(m->json, "netboot"), what);
	text = json_string_value(json_object_get(obj, "digest"));
	if (!text)
		return favo_fail(err, ENOTSUP,
				 "image %s was not made for real machines; build it with "
				 "\"netboot yes\" in its recipe",
				 m->name);
	return favo_digest_parse(out, text, err);
}

static int append_zeros(int fd, uint64_t *size, struct favo_err *err)
{
	static const char zeros[4];
	size_t n = (size_t)(-*size & 3);

	*size += n;
	return n ? favo_write_all(fd, zeros, n, -1, err) : 0;
}

static int append(int fd, const void *data, size_t len, uint64_t *size,
		  struct favo_err *err)
{
	*size += len;
	return favo_write_all(fd, data, len, -1, err);
}

/* The archive with the program as /init, compressed. */
static int append_program(struct favo_boot_parts *p, int fd, uint64_t *size,
			  struct favo_err *err)
{
	favo_autocpio struct favo_cpio *cpio = NULL;
	favo_autofree void *packed = NULL;
	const void *data;
	size_t len, packed_len;
	int ret = favo_cpio_new(&cpio, err);

	if (ret == 0)
		ret = favo_cpio_copy(cpio, "init", 0755, p->conf->netinit_path,
				     PROGRAM_MAX, err);
	for (size_t i = 0; ret == 0 && i < 3; i++)
		ret = favo_cpio_dir(cpio, (const char *[]){"proc", "sys", "dev"}[i], 0755,
				    err);
	/* The kernel opens it for the first process, before devtmpfs is there. */
	if (ret == 0)
		ret = favo_cpio_device(cpio, "dev/console", S_IFCHR, 0600, 5, 1, err);
	if (ret == 0)
		ret = favo_cpio_finish(cpio, &data, &len, err);
	if (ret == 0)
		ret = favo_blob_encode(data, len, &packed, &packed_len, err);
	if (ret == 0)
		ret = append(fd, packed, packed_len, size, err);
	return ret < 0 ? ret : append_zeros(fd, size, err);
}

/* A blob in its stored form, which the kernel can unpack. */
static int append_stored(struct favo_boot_parts *p, const struct favo_digest *digest,
			 int fd, uint64_t *size, struct favo_err *err)
{
	uint64_t len = 0;
	favo_autoclose int blob = favo_store_open_blob(p->store, digest, &len, err);
	favo_autofree char *data = NULL;
	int ret;

	if (blob < 0)
		return blob;
	data = malloc(len + 1);
	if (!data)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_read_all(blob, data, len, -1, err);
	if (ret == 0)
		ret = append(fd, data, len, size, err);
	return ret < 0 ? ret : append_zeros(fd, size, err);
}

static int make_part(struct favo_boot_parts *p, struct part *part, struct favo_err *err)
{
	bool kernel = part->kind == FAVO_BOOT_KERNEL;
	favo_autoclose int fd = memfd_create("favo-boot", MFD_CLOEXEC);
	favo_autofree void *data = NULL;
	struct favo_digest digest;
	uint64_t size = 0;
	size_t len;
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "memory for a boot file: %m");
	ret = find_digest(p, &part->image, kernel ? "kernel" : "initramfs", &digest, err);
	if (ret < 0)
		return ret;
	if (kernel) {
		ret = favo_store_read_blob(p->store, &digest, FAVO_KERNEL_MAX, &data,
					   &len, err);
		if (ret == 0)
			ret = append(fd, data, len, &size, err);
	} else {
		ret = append_program(p, fd, &size, err);
		if (ret == 0)
			ret = append_stored(p, &digest, fd, &size, err);
	}
	if (ret < 0)
		return ret;
	part->fd = favo_steal_fd(&fd);
	part->size = size;
	return 0;
}

int favo_boot_parts_open(struct favo_boot_parts *p, const struct favo_digest *image,
			 enum favo_boot_part kind, int *fd, uint64_t *size,
			 struct favo_err *err)
{
	struct part *found = NULL, *oldest = &p->parts[0];
	int ret = 0;

	pthread_mutex_lock(&p->lock);
	for (size_t i = 0; i < KEPT; i++) {
		struct part *part = &p->parts[i];

		if (part->fd >= 0 && part->kind == kind &&
		    favo_digest_equal(&part->image, image))
			found = part;
		if (part->used < oldest->used)
			oldest = part;
	}
	if (!found) {
		favo_close(&oldest->fd);
		*oldest = (struct part){.image = *image, .kind = kind, .fd = -1};
		ret = make_part(p, oldest, err);
		found = oldest;
	}
	if (ret == 0) {
		found->used = ++p->clock;
		*size = found->size;
		*fd = dup(found->fd);
		ret = *fd < 0 ? favo_fail(err, errno, "dup: %m") : 0;
	}
	pthread_mutex_unlock(&p->lock);
	return ret;
}

int favo_boot_parts_node(const struct favo_conf *conf, const char *config, void **data,
			 size_t *len, struct favo_err *err)
{
	favo_autocpio struct favo_cpio *cpio = NULL;
	const void *bytes;
	int ret = favo_cpio_new(&cpio, err);

	if (ret == 0)
		ret = favo_cpio_file(cpio, "favo/netboot.json", 0600, config,
				     strlen(config), err);
	/* Whom nodes believe: the key that favod signs with. */
	if (ret == 0 && access(conf->image_pub, R_OK) == 0)
		ret = favo_cpio_copy(cpio, "favo/keys/site.pub", 0644, conf->image_pub,
				     4096, err);
	if (ret == 0)
		ret = favo_cpio_finish(cpio, &bytes, len, err);
	if (ret < 0)
		return ret;
	*data = malloc(*len);
	if (!*data)
		return favo_fail(err, ENOMEM, "out of memory");
	memcpy(*data, bytes, *len);
	return 0;
}
