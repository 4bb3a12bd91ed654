/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Simulated network for images/swarm.c: nodes with a link up and a link down,
 * both first in first out, and connections with a window of bytes under way,
 * as TCP has; requests wait in the same queues as data. Deterministic.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#define FAVO_SIM_NEVER INT64_MAX

struct favo_sim_params {
	unsigned int nodes;
	uint32_t units;
	uint32_t unit_bytes;
	uint64_t link; /* bytes per second, each way, of each node and the source */
	unsigned int degree;
	unsigned int source_degree;
	unsigned int sending; /* units that a node sends at a time */
	uint32_t window; /* bytes of a connection under way */
	int64_t verify_us; /* per unit */
	uint64_t seed;
	int slow; /* node with a quarter of the speed, or -1 */
	int killed; /* node whose connections break at kill_us, or -1 */
	int vanishing; /* node that falls silent at kill_us, or -1 */
	int liar; /* node that sends wrong bytes, or -1 */
	int64_t kill_us;
	int64_t stagger_us; /* node i starts at i times this */
	bool demand; /* node 0 demands unit units-1 at once */
};

struct favo_sim_result {
	int64_t bound_us; /* one client alone at full speed */
	int64_t *done_us; /* per node; FAVO_SIM_NEVER */
	int64_t demand_us; /* when the demanded unit came */
	uint64_t source_bytes;
	uint64_t duplicates;
	unsigned int dropped; /* neighbours left because they lied or were silent */
};

void favo_sim_defaults(struct favo_sim_params *p, unsigned int nodes);
/* Ends the process when memory is out. The caller frees done_us. */
void favo_sim_run(const struct favo_sim_params *p, struct favo_sim_result *r);
