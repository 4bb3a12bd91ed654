/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the makers of initramfs parts share; private to images/. */
#pragma once

#include "images/initramfs.h"

struct favo_module_builder {
	const struct favo_tree *tree;
	const char *folder;
	char *dep, *builtin; /* texts of modules.dep and modules.builtin */
	struct favo_cpio *cpio;
	char *list; /* becomes favo/modules */
	size_t list_len;
};

/* Read the lists of the release; begin the archive. */
int favo_modules_begin(struct favo_module_builder *b, const struct favo_tree *tree,
		       const char *folder, struct favo_err *err);
void favo_modules_end(struct favo_module_builder *b);

/* A text file of the release's folder; the caller frees *text. */
int favo_modules_text(struct favo_module_builder *b, const char *name, char **text,
		      struct favo_err *err);

/* The line of modules.dep, or of modules.builtin, that is about name. */
char *favo_modules_find(char *text, const char *name);

/*
 * Call fn for each module of a line of modules.dep, in the order of loading;
 * a result below 0 ends it.
 */
typedef int favo_module_fn(struct favo_module_builder *b, const char *path, size_t len,
			   void *user, struct favo_err *err);
int favo_modules_each(struct favo_module_builder *b, const char *line, favo_module_fn *fn,
		      void *user, struct favo_err *err);

/*
 * Add the module at path, unless it is there already; user: the PCI device
 * ("vendor:device") without which it is not loaded, or NULL.
 */
int favo_modules_add(struct favo_module_builder *b, const char *path, size_t len,
		     void *user, struct favo_err *err);

/* "favo/ko/NAME.ko" of a path of modules.dep. */
int favo_modules_target(char *target, size_t size, const char *path, size_t len,
			struct favo_err *err);
