// SPDX-License-Identifier: GPL-2.0-or-later
/* Reader of recipe files; see recipe.h. Lines are "KEY VALUE", '#' comments. */
#include "images/recipe.h"

#include <ctype.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/store.h"

#define BLANKS " \t"
#define LIST_MAX 4096
#define DEFAULT_EPOCH "1767225600" /* 2026-01-01 */

enum kind {
	TEXT, /* one value, given once */
	LINES, /* the whole value is one item */
	WORDS, /* each word is one item */
};

static const struct key {
	const char *name;
	enum kind kind;
	size_t offset;
} keys[] = {
	{"name", TEXT, offsetof(struct favo_recipe, name)},
	{"suite", TEXT, offsetof(struct favo_recipe, suite)},
	{"variant", TEXT, offsetof(struct favo_recipe, variant)},
	{"components", TEXT, offsetof(struct favo_recipe, components)},
	{"mirror", TEXT, offsetof(struct favo_recipe, mirror)},
	{"kernel", TEXT, offsetof(struct favo_recipe, kernel)},
	{"cmdline", TEXT, offsetof(struct favo_recipe, cmdline)},
	{"source", LINES, offsetof(struct favo_recipe, sources)},
	{"packages", WORDS, offsetof(struct favo_recipe, packages)},
	{"modules", WORDS, offsetof(struct favo_recipe, modules)},
	{"exclude", WORDS, offsetof(struct favo_recipe, excludes)},
	{"run", LINES, offsetof(struct favo_recipe, runs)},
	{"drop", WORDS, offsetof(struct favo_recipe, drops)},
};

void favo_recipe_free(struct favo_recipe *recipe)
{
	if (!recipe)
		return;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(keys); i++) {
		void *field = (char *)recipe + keys[i].offset;

		if (keys[i].kind == TEXT)
			free(*(char **)field);
		else
			favo_strv_free(*(char ***)field);
	}
	for (size_t i = 0; i < recipe->n_files; i++) {
		free(recipe->files[i].target);
		free(recipe->files[i].source);
	}
	free(recipe->files);
	free(recipe->dir);
	free(recipe);
}

static int append(char ***list, const char *item, size_t len, struct favo_err *err)
{
	size_t n = 0;
	char **grown;

	while (*list && (*list)[n])
		n++;
	if (n >= LIST_MAX)
		return favo_fail(err, E2BIG, "more than %d values", LIST_MAX);
	grown = reallocarray(*list, n + 2, sizeof(*grown));
	if (!grown)
		return favo_fail(err, ENOMEM, "out of memory");
	*list = grown;
	grown[n + 1] = NULL;
	grown[n] = strndup(item, len);
	return grown[n] ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int append_words(char ***list, const char *text, struct favo_err *err)
{
	size_t len;
	int ret = 0;

	for (; ret == 0 && *text; text += len) {
		text += strspn(text, BLANKS);
		len = strcspn(text, BLANKS);
		if (len)
			ret = append(list, text, len, err);
	}
	return ret;
}

/* file TARGET SOURCE [MODE] */
static int add_file(struct favo_recipe *recipe, const char *value, struct favo_err *err)
{
	favo_autostrv char **words = NULL;
	struct favo_recipe_file *grown, *file;
	char *end = NULL;
	unsigned long mode = 0644;
	int ret = append_words(&words, value, err);

	if (ret < 0)
		return ret;
	if (!words || !words[0] || !words[1] || (words[2] && words[3]) ||
	    words[0][0] != '/')
		return favo_fail(err, EINVAL, "file needs: /TARGET SOURCE [MODE]");
	if (words[2])
		mode = strtoul(words[2], &end, 8);
	if (end && (*end || mode > 07777))
		return favo_fail(err, EINVAL, "file: bad mode '%s'", words[2]);
	grown = reallocarray(recipe->files, recipe->n_files + 1, sizeof(*grown));
	if (!grown)
		return favo_fail(err, ENOMEM, "out of memory");
	recipe->files = grown;
	file = &grown[recipe->n_files];
	file->target = strdup(words[0]);
	file->source = words[1][0] == '/' ? strdup(words[1])
					  : favo_asprintf("%s/%s", recipe->dir, words[1]);
	file->mode = (unsigned int)mode;
	recipe->n_files++;
	return file->target && file->source ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int set(struct favo_recipe *recipe, const char *name, const char *value,
	       struct favo_err *err)
{
	if (!*value)
		return favo_fail(err, EINVAL, "%s needs a value", name);
	if (strcmp(name, "file") == 0)
		return add_file(recipe, value, err);
	if (strcmp(name, "netboot") == 0)
		return favo_parse_bool(&recipe->netboot, value, err);
	if (strcmp(name, "epoch") == 0)
		return favo_parse_u64(&recipe->epoch, value, 0, UINT32_MAX, err);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(keys); i++) {
		void *field = (char *)recipe + keys[i].offset;

		if (strcmp(name, keys[i].name) != 0)
			continue;
		if (keys[i].kind == LINES)
			return append(field, value, strlen(value), err);
		if (keys[i].kind == WORDS)
			return append_words(field, value, err);
		if (*(char **)field)
			return favo_fail(err, EINVAL, "%s is given twice", name);
		*(char **)field = strdup(value);
		return *(char **)field ? 0 : favo_fail(err, ENOMEM, "out of memory");
	}
	return favo_fail(err, EINVAL, "unknown key '%s'", name);
}

static bool is_word(const char *text, const char *extra, size_t max)
{
	return isalnum((unsigned char)text[0]) && favo_is_name(text, extra, max);
}

/* Values that end up as an argument of a program must not look like options. */
static int check(const struct favo_recipe *recipe, struct favo_err *err)
{
	struct favo_image_name name;

	if (!recipe->name || !recipe->suite)
		return favo_fail(err, EINVAL, "%s is missing",
				 recipe->name ? "suite" : "name");
	if (favo_image_name_parse(&name, recipe->name, err) < 0)
		return -EINVAL;
	if (!is_word(recipe->suite, "-._", 64))
		return favo_fail(err, EINVAL, "bad suite '%s'", recipe->suite);
	if (recipe->variant && !is_word(recipe->variant, "-", 32))
		return favo_fail(err, EINVAL, "bad variant '%s'", recipe->variant);
	if (recipe->kernel && !is_word(recipe->kernel, "-.+", 128))
		return favo_fail(err, EINVAL, "bad kernel package '%s'", recipe->kernel);
	for (size_t i = 0; recipe->packages && recipe->packages[i]; i++)
		if (!is_word(recipe->packages[i], "-.+:", 128))
			return favo_fail(err, EINVAL, "bad package name '%s'",
					 recipe->packages[i]);
	return 0;
}

static int parse_line(struct favo_recipe *recipe, char *line, struct favo_err *err)
{
	size_t len = strlen(line);
	char *value;

	while (len && strchr(BLANKS "\r", line[len - 1]))
		line[--len] = '\0';
	line += strspn(line, BLANKS);
	if (!*line || *line == '#')
		return 0;
	value = line + strcspn(line, BLANKS);
	if (*value)
		*value++ = '\0';
	return set(recipe, line, value + strspn(value, BLANKS), err);
}

int favo_recipe_parse(struct favo_recipe **out, const char *text, const char *label,
		      const char *dir, struct favo_err *err)
{
	favo_autorecipe struct favo_recipe *recipe = calloc(1, sizeof(*recipe));
	favo_autofree char *copy = strdup(text);
	char *line = copy, *next;
	int ret = 0;

	if (!recipe || !copy || !(recipe->dir = strdup(dir)))
		return favo_fail(err, ENOMEM, "%s: out of memory", label);
	ret = favo_parse_u64(&recipe->epoch, DEFAULT_EPOCH, 0, UINT32_MAX, err);
	for (int n = 1; ret == 0 && line; n++, line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		ret = parse_line(recipe, line, err);
		if (ret < 0)
			return favo_wrap(err, ret, "%s:%d", label, n);
	}
	if (ret == 0)
		ret = check(recipe, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", label);
	*out = favo_steal_ptr(&recipe);
	return 0;
}

int favo_recipe_load(struct favo_recipe **out, const char *path, struct favo_err *err)
{
	favo_autofree char *text = NULL, *full = realpath(path, NULL);
	size_t len = 0;
	char *slash;
	int ret;

	if (!full)
		return favo_fail(err, errno, "recipe %s: %m", path);
	ret = favo_file_read(full, FAVO_RECIPE_MAX, &text, &len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "recipe");
	if (strlen(text) != len)
		return favo_fail(err, EINVAL, "recipe %s: not a text file", path);
	slash = strrchr(full, '/');
	*slash = '\0';
	return favo_recipe_parse(out, text, path, *full ? full : "/", err);
}
