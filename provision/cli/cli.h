/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The favo command: nouns and verbs.
 *
 * Each noun is one .c file with a table of its verbs; main.c knows the tables.
 * A verb parses its own options with common/options.h, whose program name is
 * argv[0] ("favo image ls"). Single-threaded.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"
#include "common/http.h"
#include "provision/conf.h"

struct favo_cli {
	struct favo_conf conf; /* loaded before a verb runs */
	struct favo_http *http; /* made by favo_cli_http() when first needed */
};

/*
 * argv[0] is "favo NOUN VERB", the rest are the words after it. Returns the
 * exit status (0..125), or -errno with a sentence in err, which main.c prints
 * as "favo NOUN VERB: sentence" and turns into status 1 (2 for -EINVAL from
 * the command line: return favo_cli_usage()).
 */
typedef int favo_cli_run_fn(struct favo_cli *cli, int argc, char **argv,
			    struct favo_err *err);

struct favo_cli_verb {
	const char *name; /* "ls"; NULL ends a table */
	const char *args; /* "[OPTION]... [NAME]", for the help */
	const char *about; /* one line, no full stop */
	favo_cli_run_fn *run;
};

struct favo_cli_noun {
	const char *name;
	const char *about;
	const struct favo_cli_verb *verbs;
};

extern const struct favo_cli_noun favo_cli_image; /* image.c */
extern const struct favo_cli_noun favo_cli_vc; /* vc.c */
extern const struct favo_cli_noun favo_cli_node; /* node.c */
extern const struct favo_cli_noun favo_cli_rollout; /* rollout.c */
extern const struct favo_cli_verb favo_cli_doctor; /* doctor.c; a verb alone */

/* Client of the site's favod; cli keeps it. */
int favo_cli_http(struct favo_cli *cli, struct favo_http **http, struct favo_err *err);

/* "usage" error: sets err and returns the value that gives exit status 2. */
int favo_cli_usage(struct favo_err *err, const char *fmt, ...) favo_printf(2, 3);

/*
 * Parse a verb's options and words: at least min and at most max words may
 * follow the options. Returns 0, with *first the index of the first word; 1
 * after --help, when the verb returns 0; or a usage error.
 */
int favo_cli_options(const struct favo_opts *opts, int argc, char **argv, int min,
		     int max, int *first, struct favo_err *err);

/* Indented JSON and a newline on stdout; 0 or -errno. Does not take value. */
int favo_cli_print_json(const json_t *value, struct favo_err *err);

/*
 * Table with clean columns: cells are text, columns as wide as their widest
 * cell, numbers may be set right. A table without rows prints its heads only.
 */
struct favo_table;

#define FAVO_TABLE_RIGHT '>' /* first character of a head: column to the right */

/* heads: NULL-terminated, "NAME", ">SIZE"; borrowed. NULL when memory is out. */
struct favo_table *favo_table_new(const char *const *heads);
/* One row: as many cells as heads, all "const char *"; NULL prints "-". Copied. */
void favo_table_row(struct favo_table *table, ...);
/* Print to stdout; -ENOMEM when a row was lost, -errno when stdout fails. */
int favo_table_print(const struct favo_table *table, struct favo_err *err);
void favo_table_free(struct favo_table *table);

static inline void favo_cleanup_table(struct favo_table **table)
{
	favo_table_free(*table);
}
#define favo_autotable __attribute__((cleanup(favo_cleanup_table)))
