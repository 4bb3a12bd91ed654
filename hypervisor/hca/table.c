// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Handle tables. Handles are given out round-robin, so that one that was just
 * destroyed does not come back at once.
 */
#include <errno.h>
#include <stdlib.h>

#include "hypervisor/hca/hca.h"

int favo_hca_table_init(struct hca_table *t, uint32_t first, uint32_t max)
{
	t->objs = calloc(max, sizeof(*t->objs));
	if (!t->objs)
		return -ENOMEM;
	t->first = t->next = first;
	t->max = max;
	t->used = 0;
	return 0;
}

void favo_hca_table_fini(struct hca_table *t)
{
	free(t->objs);
	t->objs = NULL;
	t->max = t->used = 0;
}

int favo_hca_table_add(struct hca_table *t, struct hca_obj *obj)
{
	if (t->used >= t->max - t->first)
		return -ENOSPC;
	while (t->objs[t->next])
		t->next = t->next + 1 < t->max ? t->next + 1 : t->first;
	obj->handle = t->next;
	t->objs[t->next] = obj;
	t->used++;
	t->next = t->next + 1 < t->max ? t->next + 1 : t->first;
	return 0;
}

void favo_hca_table_del(struct hca_table *t, struct hca_obj *obj)
{
	if (obj->handle >= t->max || t->objs[obj->handle] != obj)
		return;
	t->objs[obj->handle] = NULL;
	t->used--;
}
