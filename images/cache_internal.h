/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What cache.c and cache_fetch.c share; not for others. */
#pragma once

#include "images/cache.h"
#include "images/index.h"

#define FAVO_CACHE_NAME_SIZE (FAVO_DIGEST_HEX_SIZE + 8)
#define FAVO_INDEX_BYTES_MAX (256u << 20)

struct favo_cache {
	char *dir;
	int fd; /* of DIR/images */
	char *boot_id; /* of the running kernel */
};

/* "<hex><suffix>" below images/. */
char *favo_cache_name(const struct favo_digest *id, const char *suffix,
		      char name[FAVO_CACHE_NAME_SIZE]);

/* Folder of an image; -ENOENT. */
int favo_cache_open_folder(struct favo_cache *cache, const char *name,
			   struct favo_err *err);

/* Whole file of an image's folder; the caller frees *data. */
int favo_cache_read_file(int folder_fd, const char *name, size_t max, char **data,
			 size_t *len, struct favo_err *err);

/* Manifest and index of an image's folder, checked against id. index may be NULL. */
int favo_cache_read_image(int folder_fd, const struct favo_digest *id,
			  struct favo_manifest **manifest, struct favo_index **index,
			  struct favo_err *err);

/* A file of an image's folder that must have this size; a descriptor. */
int favo_cache_open_part(int folder_fd, const char *name, uint64_t size,
			 struct favo_err *err);
int favo_cache_pin_folder(int folder_fd, const char *holder, struct favo_err *err);

/* Read len bytes at offset and compare their digest: -EBADMSG. buf holds len. */
int favo_cache_check_range(int fd, uint64_t offset, size_t len,
			   const struct favo_digest *digest, void *buf,
			   struct favo_err *err);
