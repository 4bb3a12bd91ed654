// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * srun --multi-prog: its file says which rank runs which program, and each
 * slurmstepd makes the tasks' own argv of it, which SPANK does not hand out.
 * So srun sends the file with favo-task before each program:
 *
 *	0-3  ./worker %t      ->      0-3 /opt/favo/libexec/favo-task ./worker %t
 *
 * A line is as Slurm's multi_prog.c reads it: ranks, blank, program; '#' at
 * the start of a comment, '\' at the end of a line that goes on.
 */
#include "slurm-plugin/plugin.h"

#include <stdlib.h>
#include <string.h>

/* Where the program begins in the line of len bytes at line; len: it has none. */
static size_t find_program(const char *line, size_t len)
{
	size_t at = 0;

	while (at < len && strchr(" \t", line[at]))
		at++;
	if (at < len && line[at] == '#')
		return len;
	while (at < len && !strchr(" \t\\", line[at]))
		at++;
	while (at < len && strchr(" \t", line[at]))
		at++;
	return at;
}

static bool begins_with_word(const char *text, const char *word)
{
	size_t len = strlen(word);

	return strncmp(text, word, len) == 0 && strchr(" \t", text[len]);
}

/* Call fn at the program of each line that has one. */
static void each_program(const char *config, void (*fn)(void *user, const char *at),
			 void *user)
{
	bool goes_on = false;

	while (*config) {
		size_t len = strcspn(config, "\n");
		size_t at = goes_on ? len : find_program(config, len);

		if (at < len)
			fn(user, config + at);
		goes_on = len && config[len - 1] == '\\';
		config += len + (config[len] == '\n');
	}
}

struct rewrite {
	const char *launcher;
	const char *from; /* not copied yet */
	char *out;
	size_t lines, foreign;
};

static void count(void *user, const char *at)
{
	struct rewrite *r = user;

	r->lines++;
	r->foreign += !begins_with_word(at, r->launcher);
}

static void insert(void *user, const char *at)
{
	struct rewrite *r = user;
	size_t len = (size_t)(at - r->from);

	memcpy(r->out, r->from, len);
	r->out += len;
	r->from = at;
	if (begins_with_word(at, r->launcher))
		return;
	r->out = stpcpy(r->out, r->launcher);
	*r->out++ = ' ';
}

char *favo_multi_prog_rewrite(const char *config, const char *launcher)
{
	struct rewrite r = {.launcher = launcher, .from = config};
	char *text;

	each_program(config, count, &r);
	text = malloc(strlen(config) + r.foreign * (strlen(launcher) + 1) + 1);
	if (!text)
		return NULL;
	r.out = text;
	each_program(config, insert, &r);
	memcpy(r.out, r.from, strlen(r.from) + 1);
	return text;
}

bool favo_multi_prog_is_ours(const char *config, const char *launcher)
{
	struct rewrite r = {.launcher = launcher};

	each_program(config, count, &r);
	return r.lines > 0 && r.foreign == 0;
}
