// SPDX-License-Identifier: GPL-2.0-or-later
/* Options from one table; see options.h. */
#include "common/options.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"

#define MAX_FILE_SIZE (1u << 20)

/* Does name, spelt with sep for '-', equal text of length len? */
static bool name_is(const char *name, const char *text, size_t len, char sep)
{
	size_t i;

	for (i = 0; name[i] && i < len; i++)
		if ((name[i] == '-' ? sep : name[i]) != text[i])
			return false;
	return i == len && !name[i];
}

static const struct favo_opt *find(const struct favo_opts *o, const char *text,
				   size_t len, char sep, unsigned int source)
{
	for (size_t i = 0; i < o->n; i++)
		if ((o->table[i].sources & source) &&
		    name_is(o->table[i].name, text, len, sep))
			return &o->table[i];
	return NULL;
}

static int set_field(const struct favo_opts *o, const struct favo_opt *opt,
		     const char *value, struct favo_err *err)
{
	void *field = (char *)o->target + opt->offset;
	char *copy;

	switch (opt->type) {
	case FAVO_OPT_STR_T:
		copy = strdup(value);
		if (!copy)
			return favo_fail(err, ENOMEM, "%m");
		free(*(char **)field);
		*(char **)field = copy;
		return 0;
	case FAVO_OPT_BOOL_T:
		return favo_parse_bool(field, value, err);
	case FAVO_OPT_U64_T:
		return favo_parse_u64(field, value, 0, UINT64_MAX, err);
	case FAVO_OPT_SIZE_T:
		return favo_parse_size(field, value, err);
	case FAVO_OPT_DURATION_T:
		return favo_parse_duration(field, value, err);
	case FAVO_OPT_FN_T:
		return opt->fn(o->target, value, err);
	}
	return favo_fail(err, EINVAL, "option %s has no type", opt->name);
}

int favo_opts_set(const struct favo_opts *o, const struct favo_opt *opt,
		  const char *value, struct favo_err *err)
{
	int ret = set_field(o, opt, value, err);

	return ret < 0 ? favo_wrap(err, ret, "%s", opt->name) : 0;
}

int favo_opts_defaults(const struct favo_opts *o, struct favo_err *err)
{
	for (size_t i = 0; i < o->n; i++) {
		int ret = 0;

		if (o->table[i].def)
			ret = favo_opts_set(o, &o->table[i], o->table[i].def, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

static char *trim(char *s)
{
	char *end;

	while (isspace((unsigned char)*s))
		s++;
	end = s + strlen(s);
	while (end > s && isspace((unsigned char)end[-1]))
		*--end = '\0';
	return s;
}

static int set_line(const struct favo_opts *o, char *line, const char *const *foreign,
		    struct favo_err *err)
{
	const struct favo_opt *opt;
	char *key, *value = strchr(line, '=');

	if (!value)
		return favo_fail(err, EINVAL, "not of the form 'key = value': '%.60s'",
				 line);
	*value++ = '\0';
	key = trim(line);
	value = trim(value);
	opt = find(o, key, strlen(key), '_', FAVO_FROM_FILE);
	if (opt)
		return favo_opts_set(o, opt, value, err);
	for (size_t i = 0; foreign && foreign[i]; i++)
		if (!strcmp(foreign[i], key))
			return 0;
	return favo_fail(err, EINVAL, "unknown key '%.60s'", key);
}

int favo_opts_file(const struct favo_opts *o, const char *path,
		   const char *const *foreign, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	char *line, *rest;
	unsigned int number = 0;
	size_t len;
	int ret = favo_file_read(path, MAX_FILE_SIZE, &text, &len, err);

	if (ret < 0)
		return ret;
	if (strlen(text) != len)
		return favo_fail(err, EINVAL, "%s: a NUL byte in a text file", path);
	for (rest = text; (line = strsep(&rest, "\n"));) {
		number++;
		line = trim(line);
		if (!*line || *line == '#')
			continue;
		ret = set_line(o, line, foreign, err);
		if (ret < 0)
			return favo_wrap(err, ret, "%s:%u", path, number);
	}
	return 0;
}

int favo_opts_env(const struct favo_opts *o, struct favo_err *err)
{
	for (size_t i = 0; o->env_prefix && i < o->n; i++) {
		favo_autofree char *name = NULL;
		const char *value;
		int ret;

		if (!(o->table[i].sources & FAVO_FROM_ENV))
			continue;
		name = favo_asprintf("%s_%s", o->env_prefix, o->table[i].name);
		if (!name)
			return favo_fail(err, ENOMEM, "%m");
		for (char *p = name; *p; p++)
			*p = *p == '-' ? '_' : (char)toupper((unsigned char)*p);
		value = getenv(name);
		if (!value)
			continue;
		ret = set_field(o, &o->table[i], value, err);
		if (ret < 0)
			return favo_wrap(err, ret, "environment variable %s", name);
	}
	return 0;
}

/* Handle argv[i], an option; returns how many words it took, or an error. */
static int cli_word(const struct favo_opts *o, int argc, char **argv, int i,
		    struct favo_err *err)
{
	const char *word = argv[i] + 2, *eq = strchr(word, '=');
	size_t len = eq ? (size_t)(eq - word) : strlen(word);
	const struct favo_opt *opt = find(o, word, len, '-', FAVO_FROM_CLI);
	const char *value = eq ? eq + 1 : NULL;
	int ret, taken = 1;

	if (!opt && !eq && len > 3 && !strncmp(word, "no-", 3)) {
		opt = find(o, word + 3, len - 3, '-', FAVO_FROM_CLI);
		if (opt && opt->type != FAVO_OPT_BOOL_T)
			opt = NULL;
		value = "no";
	}
	if (!opt)
		return favo_fail(err, EINVAL, "unknown option --%.*s; see %s --help",
				 (int)len, word, o->program);
	if (!value && !opt->arg) {
		value = opt->type == FAVO_OPT_BOOL_T ? "yes" : NULL;
	} else if (!value && opt->type == FAVO_OPT_BOOL_T) {
		value = "yes";
	} else if (!value) {
		if (i + 1 >= argc)
			return favo_fail(err, EINVAL, "--%s needs a value: %s", opt->name,
					 opt->arg);
		value = argv[i + 1];
		taken = 2;
	}
	ret = set_field(o, opt, value, err);
	return ret < 0 ? favo_wrap(err, ret, "--%s", opt->name) : taken;
}

int favo_opts_cli(const struct favo_opts *o, int argc, char **argv, int *first,
		  struct favo_err *err)
{
	int i = 1;

	while (i < argc && argv[i][0] == '-' && argv[i][1]) {
		int ret;

		if (!strcmp(argv[i], "--")) {
			i++;
			break;
		}
		if (!strcmp(argv[i], "--help") || !strcmp(argv[i], "-h")) {
			favo_opts_help(o, stdout);
			return 1;
		}
		if (argv[i][1] != '-')
			return favo_fail(err, EINVAL, "unknown option %s; see %s --help",
					 argv[i], o->program);
		ret = cli_word(o, argc, argv, i, err);
		if (ret < 0)
			return ret;
		i += ret;
	}
	*first = i;
	return 0;
}

/* Print text in columns indent..79, breaking at blanks. */
static void print_wrapped(FILE *f, const char *text, int indent)
{
	int column = indent;

	while (*text) {
		int len = (int)strcspn(text, " ");

		if (column > indent && column + len >= 79) {
			fprintf(f, "\n%*s", indent, "");
			column = indent;
		}
		fprintf(f, "%.*s", len, text);
		column += len;
		text += len;
		if (*text == ' ') {
			text++;
			if (column + 1 < 79) {
				fputc(' ', f);
				column++;
			}
		}
	}
	fputc('\n', f);
}

void favo_opts_help(const struct favo_opts *o, FILE *f)
{
	fprintf(f, "usage: %s %s\n", o->program,
		o->synopsis ? o->synopsis : "[OPTION]...");
	if (o->about)
		print_wrapped(f, o->about, 0);
	fputs("\noptions:\n", f);
	for (size_t i = 0; i < o->n; i++) {
		const struct favo_opt *opt = &o->table[i];

		if (!(opt->sources & FAVO_FROM_CLI))
			continue;
		fprintf(f, "  --%s%s%s\n%8s", opt->name, opt->arg ? " " : "",
			opt->arg ? opt->arg : "", "");
		if (opt->def && *opt->def) {
			favo_autofree char *text =
				favo_asprintf("%s [%s]", opt->help, opt->def);

			print_wrapped(f, text ? text : opt->help, 8);
		} else {
			print_wrapped(f, opt->help, 8);
		}
	}
	fprintf(f, "  --help\n%8sprint this text\n", "");
}

void favo_opts_fini(const struct favo_opts *o)
{
	for (size_t i = 0; i < o->n; i++) {
		char **field;

		if (o->table[i].type != FAVO_OPT_STR_T)
			continue;
		field = (char **)(void *)((char *)o->target + o->table[i].offset);
		free(*field);
		*field = NULL;
	}
}
