/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * From a file system tree to an image of the store: drop secrets, give the
 * tree its identity, choose the kernel, make the initramfs and the EROFS,
 * chunk, commit. What was chosen and dropped is reported.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "images/pack.h"
#include "images/store.h"
#include "images/tree.h"

/* Hears of one thing worth telling the user ("dropped secret etc/..."). */
typedef void favo_note_fn(const char *text, void *user);

struct favo_import {
	const char *name; /* "[repo/]name[:tag]" to give the image */
	const char *cmdline; /* the image's own kernel parameters; NULL: none */
	const char *kernel; /* kernel file to use whatever the image has; may be NULL */
	const char *modules; /* folder of its modules, .../lib/modules/RELEASE */
	const char *site_kernel; /* the same, used when the image has no kernel */
	const char *site_modules;
	const json_t
		*site_boot; /* favo_import_site_boot() of another host; may be NULL */
	const char *const *drop; /* more patterns to remove, may be NULL */
	size_t n_drop;
	const json_t *extra; /* more members of the manifest; may be NULL */
	const json_t *source; /* for the manifest; NULL: what the source says */
	const json_t *config; /* the same: what a container says of its processes */
	unsigned int partition; /* root of a disk image; 0: look for it */
	const char *registry_http; /* registries without TLS, "HOST[:PORT],..." */
	uint64_t max_bytes; /* of a container image's contents; 0: 64 GiB */
	bool netboot; /* real machines boot it, too: add kernel and drivers for them */
	favo_progress_fn *progress; /* may be NULL */
	favo_note_fn *note; /* may be NULL */
	void *user;
};

struct favo_import_result {
	struct favo_digest id;
	uint64_t root_bytes;
	uint64_t chunks;
	struct favo_pack_stats pack;
	char kernel_release[65];
	char kernel_source[16]; /* "image" or "site" */
	bool kernel_is_vmlinux;
	uint64_t kernel_bytes, initramfs_bytes;
	int64_t tree_ms, erofs_ms, store_ms; /* time taken */
};

/*
 * Import tree, which is changed on the way. -ENOENT when neither image nor
 * site has a kernel; the text says what to do. Blocks; needs no privilege
 * but to write the store.
 */
int favo_import_tree(struct favo_store *store, struct favo_tree *tree,
		     const struct favo_import *import, struct favo_import_result *result,
		     struct favo_err *err);

/*
 * Kernel and initramfs of this site as an image without files, called
 * FAVO_SITE_BOOT, so that images made on other hosts can use them: *boot is
 * {"kernel":{"digest","size","release"},"initramfs":{"digest","size"}}. The
 * same kernel gives the same image. The caller drops *boot.
 */
#define FAVO_SITE_BOOT "site-boot"
int favo_import_site_boot(struct favo_store *store, const char *kernel,
			  const char *modules, json_t **boot, struct favo_err *err);

/* favo_import_tree() from any text that favo_source_load() takes. */
int favo_import_path(struct favo_store *store, const char *path,
		     const struct favo_import *import, struct favo_import_result *result,
		     struct favo_err *err);
