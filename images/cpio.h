/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Writer of "newc" cpio archives in memory, as the kernel unpacks them from
 * an initrd (Documentation/driver-api/early-userspace/buffer-format.rst).
 *
 * Archives are deterministic: time stamps are 0, owners root, inode numbers
 * count up. Paths are relative ("favo/config.json"); missing parent
 * directories are added with mode 0755, because the kernel makes none.
 * Several finished archives may simply be concatenated: each is padded to
 * 512 bytes. An object belongs to one thread at a time; nothing blocks.
 */
#pragma once

#include <stddef.h>
#include <sys/types.h>

#include "common/err.h"

struct favo_cpio;

int favo_cpio_new(struct favo_cpio **out, struct favo_err *err);
void favo_cpio_free(struct favo_cpio *cpio);

/*
 * Add one member; mode holds the permission bits only. -EINVAL for a path
 * that is empty, absolute or has "." or ".." in it; -E2BIG from 4 GiB on.
 */
int favo_cpio_dir(struct favo_cpio *cpio, const char *path, mode_t mode,
		  struct favo_err *err);
int favo_cpio_file(struct favo_cpio *cpio, const char *path, mode_t mode,
		   const void *data, size_t len, struct favo_err *err);
int favo_cpio_symlink(struct favo_cpio *cpio, const char *path, const char *target,
		      struct favo_err *err);
/* type is S_IFCHR or S_IFBLK. */
int favo_cpio_device(struct favo_cpio *cpio, const char *path, mode_t type, mode_t mode,
		     unsigned int major, unsigned int minor, struct favo_err *err);
/* The content of a file of the host, at most max bytes (-EFBIG). */
int favo_cpio_copy(struct favo_cpio *cpio, const char *path, mode_t mode,
		   const char *host_path, size_t max, struct favo_err *err);

/*
 * Write the trailer. *data stays owned by cpio and is valid until its free;
 * nothing may be added afterwards. May be called again for the same result.
 */
int favo_cpio_finish(struct favo_cpio *cpio, const void **data, size_t *len,
		     struct favo_err *err);
/* The same into a new sealed memfd; returns the descriptor or -errno. */
int favo_cpio_finish_memfd(struct favo_cpio *cpio, const char *name,
			   struct favo_err *err);

static inline void favo_cleanup_cpio(struct favo_cpio **cpio)
{
	favo_cpio_free(*cpio);
}
#define favo_autocpio __attribute__((cleanup(favo_cleanup_cpio)))
