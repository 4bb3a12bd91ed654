/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * One table row per option drives command line, environment, file and
 * --help. Order of strength: default < file < environment < command line.
 *
 * An option named "boot-timeout" is --boot-timeout on the command line,
 * boot_timeout in a file and PREFIX_BOOT_TIMEOUT in the environment. Unknown
 * names, trailing garbage and values that do not parse are errors that say
 * where they stand. Not thread-safe for one target; rows are const.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "common/err.h"

enum favo_opt_type {
	FAVO_OPT_STR_T,
	FAVO_OPT_BOOL_T,
	FAVO_OPT_U64_T,
	FAVO_OPT_SIZE_T, /* uint64_t bytes */
	FAVO_OPT_DURATION_T, /* uint64_t milliseconds */
	FAVO_OPT_FN_T, /* called for each time it is given */
};

/* Where an option may be set. */
#define FAVO_FROM_CLI 1u
#define FAVO_FROM_ENV 2u
#define FAVO_FROM_FILE 4u
#define FAVO_FROM_ANY 7u

/* value is NULL for an option without argument; target is favo_opts.target. */
typedef int favo_opt_fn(void *target, const char *value, struct favo_err *err);

struct favo_opt {
	const char *name;
	const char *arg; /* what the value is called in --help; NULL: none */
	enum favo_opt_type type;
	unsigned int sources;
	size_t offset; /* of the field in the target */
	const char *def; /* text, parsed like a given value; may be NULL */
	const char *help;
	favo_opt_fn *fn;
};

/* Rows; the build fails when field and type differ. */
#define FAVO_OPT_ROW_(n, a, t, ctype, s, field, src, d, h)                               \
	{                                                                                \
		.name = n, .arg = a, .type = t, .sources = src,                          \
		.offset =                                                                \
			offsetof(s, field) + 0 * sizeof((ctype *)0 == &((s *)0)->field), \
		.def = d, .help = h                                                      \
	}
#define FAVO_OPT_STR(name, arg, s, field, src, def, help)                                \
	FAVO_OPT_ROW_(name, arg, FAVO_OPT_STR_T, char *, s, field, src, def, help)
#define FAVO_OPT_FLAG(name, s, field, src, help)                                         \
	FAVO_OPT_ROW_(name, NULL, FAVO_OPT_BOOL_T, bool, s, field, src, NULL, help)
#define FAVO_OPT_BOOL(name, arg, s, field, src, def, help)                               \
	FAVO_OPT_ROW_(name, arg, FAVO_OPT_BOOL_T, bool, s, field, src, def, help)
#define FAVO_OPT_U64(name, arg, s, field, src, def, help)                                \
	FAVO_OPT_ROW_(name, arg, FAVO_OPT_U64_T, uint64_t, s, field, src, def, help)
#define FAVO_OPT_SIZE(name, arg, s, field, src, def, help)                               \
	FAVO_OPT_ROW_(name, arg, FAVO_OPT_SIZE_T, uint64_t, s, field, src, def, help)
#define FAVO_OPT_DURATION(name, arg, s, field, src, def, help)                           \
	FAVO_OPT_ROW_(name, arg, FAVO_OPT_DURATION_T, uint64_t, s, field, src, def, help)
#define FAVO_OPT_FN(n, a, f, src, h)                                                     \
	{                                                                                \
		.name = n, .arg = a, .type = FAVO_OPT_FN_T, .sources = src, .help = h,   \
		.fn = f                                                                  \
	}

struct favo_opts {
	const char *program; /* "favo-vmm" */
	const char *synopsis; /* "[OPTION]... COMMAND"; may be NULL */
	const char *about; /* one sentence for --help; may be NULL */
	const char *env_prefix; /* "FAVO"; NULL: no environment */
	const struct favo_opt *table;
	size_t n;
	void *target;
};

/* Set every default. Call once on a zeroed target, before the others. */
int favo_opts_defaults(const struct favo_opts *o, struct favo_err *err) favo_must_check;

/*
 * "key = value" lines, '#' comments. A missing file is -ENOENT. Errors start
 * with "path:line: ". Keys that other programs own are listed in foreign
 * (NULL-terminated, may be NULL) and skipped.
 */
int favo_opts_file(const struct favo_opts *o, const char *path,
		   const char *const *foreign, struct favo_err *err) favo_must_check;

int favo_opts_env(const struct favo_opts *o, struct favo_err *err) favo_must_check;

/*
 * "--name value", "--name=value", "--flag", "--no-flag"; stops at the first
 * word that is no option or after "--"; *first is its index. --help prints
 * and returns 1: the caller exits with 0.
 */
int favo_opts_cli(const struct favo_opts *o, int argc, char **argv, int *first,
		  struct favo_err *err) favo_must_check;

/* Set one option by its name, as the file would. */
int favo_opts_set(const struct favo_opts *o, const struct favo_opt *opt,
		  const char *value, struct favo_err *err) favo_must_check;

void favo_opts_help(const struct favo_opts *o, FILE *f);

/* Free the strings of the target and leave NULL. */
void favo_opts_fini(const struct favo_opts *o);
