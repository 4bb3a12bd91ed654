/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The kernel of an image: which one, and in the form that starts fastest. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "images/tree.h"

#define FAVO_RELEASE_SIZE 65

struct favo_kernel {
	void *data;
	size_t len;
	char release[FAVO_RELEASE_SIZE];
	char path[256]; /* where it was found */
	bool is_vmlinux; /* ELF with a PVH entry; else a bzImage */
};

/*
 * Newest kernel of the tree that has a folder of modules:
 * /usr/lib/modules/RELEASE/vmlinuz or /boot/vmlinuz-RELEASE. -ENOENT when
 * there is none. The caller calls favo_kernel_fini().
 */
int favo_kernel_from_tree(struct favo_kernel *out, const struct favo_tree *tree,
			  struct favo_err *err);

/* A kernel file of the host; modules_release names it. */
int favo_kernel_from_file(struct favo_kernel *out, const char *path, const char *release,
			  struct favo_err *err);

/*
 * The same, but older than the release below (NULL: the newest), to go on
 * with when that one does not fit. out->release is set on failure, too, when
 * there was a kernel and it is damaged.
 */
int favo_kernel_older(struct favo_kernel *out, const struct favo_tree *tree,
		      const char *below, struct favo_err *err);

void favo_kernel_fini(struct favo_kernel *kernel);

/*
 * Take the ELF kernel out of a bzImage (boot protocol 2.08 or newer). 1: data
 * was replaced by *out, which the caller frees; 0: data is already an ELF
 * with PVH entry, or holds none, and is to be used as it is. -EBADMSG when
 * data is no kernel at all. Foreign bytes are welcome.
 */
int favo_kernel_unwrap(const void *data, size_t len, void **out, size_t *out_len,
		       struct favo_err *err);

/* Has this ELF file the Xen note with the 32-bit entry that PVH boot uses? */
bool favo_elf_has_pvh(const void *data, size_t len);
