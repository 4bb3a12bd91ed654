/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What "favo vc top" makes of the lines that a guest writes about itself. The
 * guest is free to write anything: strange lines are ignored, and figures
 * stay figures. Pure; nothing here blocks.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

/* The counters of a guest at one moment. */
struct favo_top_sample {
	double uptime; /* seconds */
	uint64_t busy, total; /* ticks of all CPUs */
	unsigned int cpus;
	uint64_t mem_total, mem_free; /* KiB */
	uint64_t rx, tx; /* bytes, loopback left out */
};

struct favo_top_vm {
	const char *name, *node; /* borrowed */
	struct favo_top_sample next; /* being filled */
	struct favo_top_sample now, before;
	unsigned int samples; /* complete ones */
};

/* The shell script of a guest: samples every seconds, count of them, 0: no end. */
char *favo_top_script(unsigned int seconds, unsigned int count);

/* One line of the script's output; true: a sample is complete. */
bool favo_top_line(struct favo_top_vm *vm, const char *line);

/* Figures between the last two samples. */
double favo_top_cpu_percent(const struct favo_top_vm *vm); /* 100: one CPU */
uint64_t favo_top_mem_used(const struct favo_top_vm *vm); /* bytes */
uint64_t favo_top_rx_rate(const struct favo_top_vm *vm); /* bytes per second */
uint64_t favo_top_tx_rate(const struct favo_top_vm *vm);
json_t *favo_top_json(const struct favo_top_vm *vm); /* new reference */
