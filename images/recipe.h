/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Recipes: small text files that say how an image is built from packages with
 * mmdebstrap(1). Keys and their meaning: docs/images.md.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/import.h"

#define FAVO_RECIPE_MAX (1024u * 1024)

struct favo_recipe_file {
	char *target; /* path in the image */
	char *source; /* on the host, relative to the recipe's folder */
	unsigned int mode;
};

struct favo_recipe {
	char *name;
	char *suite;
	char *variant;
	char *components;
	char *mirror; /* NULL: what this machine uses */
	char *kernel; /* package; NULL: none */
	char *cmdline;
	bool netboot; /* real machines boot it, too */
	uint64_t epoch; /* no file is newer: SOURCE_DATE_EPOCH */
	char *dir; /* folder of the recipe file */
	char **sources; /* NULL-terminated lists; any may be NULL */
	char **packages;
	char **modules; /* folders of the kernel's source, built beside it */
	char **excludes; /* paths that dpkg never unpacks */
	char **runs;
	char **drops;
	struct favo_recipe_file *files;
	size_t n_files;
};

/* Errors begin with "path:line: ". */
int favo_recipe_load(struct favo_recipe **out, const char *path, struct favo_err *err);
/* The same from text; dir is what file sources are relative to. */
int favo_recipe_parse(struct favo_recipe **out, const char *text, const char *label,
		      const char *dir, struct favo_err *err);
void favo_recipe_free(struct favo_recipe *recipe);

static inline void favo_cleanup_recipe(struct favo_recipe **recipe)
{
	favo_recipe_free(*recipe);
}
#define favo_autorecipe __attribute__((cleanup(favo_cleanup_recipe)))

/*
 * Build and import. import->name may be NULL: the recipe's name. The output
 * of mmdebstrap goes to the file log_path; errors name it. Needs root, blocks
 * for a minute or more; mmdebstrap ends and cleans up when this process ends.
 */
int favo_recipe_build(struct favo_store *store, const struct favo_recipe *recipe,
		      const struct favo_import *import, const char *log_path,
		      struct favo_import_result *result, struct favo_err *err);
