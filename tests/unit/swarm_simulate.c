// SPDX-License-Identifier: GPL-2.0-or-later
/* The swarm simulation by hand and for tests/bench/fanout: ratios to the bound. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "common/util.h"
#include "tests/unit/swarm_sim.h"

static int compare(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

static int set(struct favo_sim_params *p, const char *arg)
{
	const char *value = strchr(arg, '=');
	size_t len = value ? (size_t)(value - arg) : 0;
	long v = value ? strtol(value + 1, NULL, 10) : 0;

#define IS(name) (len == strlen(name) && strncmp(arg, name, len) == 0)
	if (IS("units"))
		p->units = (uint32_t)v;
	else if (IS("unit"))
		p->unit_bytes = (uint32_t)v;
	else if (IS("degree"))
		p->degree = (unsigned int)v;
	else if (IS("source"))
		p->source_degree = (unsigned int)v;
	else if (IS("sending"))
		p->sending = (unsigned int)v;
	else if (IS("window"))
		p->window = (uint32_t)v;
	else if (IS("seed"))
		p->seed = (uint64_t)v;
	else if (IS("slow"))
		p->slow = (int)v;
	else if (IS("killed"))
		p->killed = (int)v;
	else if (IS("vanishing"))
		p->vanishing = (int)v;
	else if (IS("liar"))
		p->liar = (int)v;
	else if (IS("link"))
		p->link = (uint64_t)v;
	else
		return -1;
#undef IS
	return 0;
}

int main(int argc, char **argv)
{
	struct favo_sim_params p;
	struct favo_sim_result r;
	uint64_t nodes = 16;
	size_t n;

	if (argc > 1 && favo_parse_u64(&nodes, argv[1], 1, 100000, NULL) < 0)
		nodes = 0;
	favo_sim_defaults(&p, (unsigned int)nodes);
	for (int i = 2; nodes && i < argc; i++)
		if (set(&p, argv[i]) < 0)
			nodes = 0;
	if (!nodes) {
		fprintf(stderr, "usage: swarm-simulate [NODES "
				"[units|unit|degree|source|window|seed|"
				"slow|killed|vanishing|liar|link=N]...]\n");
		return 2;
	}
	favo_sim_run(&p, &r);
	n = p.nodes;
	qsort(r.done_us, n, sizeof(*r.done_us), compare);
	printf("nodes %zu bound %.3f first %.3f median %.3f late %.3f last %.3f source "
	       "%.3f "
	       "duplicates %.4f dropped %u\n",
	       n, (double)r.bound_us / 1e6, (double)r.done_us[0] / (double)r.bound_us,
	       (double)r.done_us[n / 2] / (double)r.bound_us,
	       (double)r.done_us[n > 1 ? n - 2 : 0] / (double)r.bound_us,
	       r.done_us[n - 1] == FAVO_SIM_NEVER
		       ? -1
		       : (double)r.done_us[n - 1] / (double)r.bound_us,
	       (double)r.source_bytes / ((double)p.units * p.unit_bytes),
	       (double)r.duplicates / ((double)p.units * p.nodes), r.dropped);
	free(r.done_us);
	return 0;
}
