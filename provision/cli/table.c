// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Tables on a terminal; see cli.h. Widths are counted in characters of UTF-8,
 * and control characters of a cell are shown as '?', so that no name that a
 * user chose can move the cursor.
 */
#include "provision/cli/cli.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

struct favo_table {
	const char *const *heads;
	size_t columns;
	char **cells; /* rows * columns */
	size_t rows, room;
	bool lost; /* memory was out for a row */
};

static size_t width_of(const char *text)
{
	size_t n = 0;

	for (; *text; text++)
		n += ((unsigned char)*text & 0xc0) != 0x80;
	return n;
}

static bool is_right(const struct favo_table *t, size_t column)
{
	return t->heads[column][0] == FAVO_TABLE_RIGHT;
}

static const char *head_of(const struct favo_table *t, size_t column)
{
	return t->heads[column] + is_right(t, column);
}

struct favo_table *favo_table_new(const char *const *heads)
{
	struct favo_table *t = calloc(1, sizeof(*t));

	if (!t)
		return NULL;
	t->heads = heads;
	while (heads[t->columns])
		t->columns++;
	return t;
}

void favo_table_free(struct favo_table *t)
{
	if (!t)
		return;
	for (size_t i = 0; i < t->rows * t->columns; i++)
		free(t->cells[i]);
	free(t->cells);
	free(t);
}

static char *clean_copy(const char *text)
{
	char *copy = strdup(text && *text ? text : "-");

	for (char *p = copy; p && *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			*p = '?';
	return copy;
}

static bool has_room(struct favo_table *t)
{
	size_t room = t->room ? t->room * 2 : 16;
	char **bigger;

	if (t->rows < t->room)
		return true;
	bigger = reallocarray(t->cells, room, t->columns * sizeof(*bigger));
	if (!bigger)
		return false;
	t->cells = bigger;
	t->room = room;
	return true;
}

void favo_table_row(struct favo_table *t, ...)
{
	char **row;
	va_list ap;

	if (!t)
		return;
	if (!has_room(t)) {
		t->lost = true;
		return;
	}
	row = t->cells + t->rows * t->columns;
	va_start(ap, t);
	for (size_t i = 0; i < t->columns; i++) {
		row[i] = clean_copy(va_arg(ap, const char *));
		if (!row[i])
			t->lost = true;
	}
	va_end(ap);
	t->rows++;
}

static void print_cell(const struct favo_table *t, size_t column, const char *text,
		       size_t width)
{
	size_t pad = width - width_of(text);

	if (is_right(t, column))
		printf("%*s%s", (int)pad, "", text);
	else if (column + 1 < t->columns) /* no blanks at the end of a line */
		printf("%s%*s", text, (int)pad, "");
	else
		printf("%s", text);
	printf("%s", column + 1 < t->columns ? "  " : "\n");
}

int favo_table_print(const struct favo_table *t, struct favo_err *err)
{
	favo_autofree size_t *width = t ? calloc(t->columns, sizeof(*width)) : NULL;

	if (!width || t->lost)
		return favo_fail(err, ENOMEM, "table: %m");
	for (size_t c = 0; c < t->columns; c++) {
		width[c] = width_of(head_of(t, c));
		for (size_t r = 0; r < t->rows; r++)
			width[c] = FAVO_MAX(width[c],
					    width_of(t->cells[r * t->columns + c]));
	}
	for (size_t c = 0; c < t->columns; c++)
		print_cell(t, c, head_of(t, c), width[c]);
	for (size_t r = 0; r < t->rows; r++)
		for (size_t c = 0; c < t->columns; c++)
			print_cell(t, c, t->cells[r * t->columns + c], width[c]);
	if (fflush(stdout) != 0)
		return favo_fail(err, errno, "write to stdout: %m");
	return 0;
}
