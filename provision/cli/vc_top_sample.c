// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Samples of guests; see vc_top.h. The script uses what each POSIX shell
 * brings, and sleep: images may hold little else.
 */
#include "provision/cli/vc_top.h"

#include <stdio.h>
#include <string.h>

#include "common/str.h"
#include "common/util.h"

/* Beyond this a counter is nonsense, and differences would not fit. */
#define COUNTER_MAX (UINT64_C(1) << 50)

char *favo_top_script(unsigned int seconds, unsigned int count)
{
	return favo_asprintf(
		"i=0; while :; do"
		" while read -r l; do case $l in cpu*) echo \"$l\";; esac;"
		" done </proc/stat;"
		" while read -r l; do case $l in Mem[TA]*) echo \"$l\";; esac;"
		" done </proc/meminfo;"
		" while read -r l; do case $l in *:*) echo \"net $l\";; esac;"
		" done </proc/net/dev;"
		" read -r l </proc/uptime; echo \"up $l\";"
		" i=$((i+1)); [ $i -ne %u ] || exit 0; sleep %u; done",
		count, seconds);
}

static uint64_t limit(unsigned long long value)
{
	return FAVO_MIN(value, COUNTER_MAX);
}

/* "cpu  user nice system idle iowait irq softirq steal ..." */
static void take_cpu(struct favo_top_sample *s, const char *line)
{
	unsigned long long v[8] = {0};

	if (line[3] != ' ') {
		s->cpus++;
		return;
	}
	if (sscanf(line + 3, "%llu %llu %llu %llu %llu %llu %llu %llu", &v[0], &v[1],
		   &v[2], &v[3], &v[4], &v[5], &v[6], &v[7]) < 4)
		return;
	s->busy = s->total = 0;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(v); i++) {
		s->total = limit(s->total + limit(v[i]));
		/* idle and waiting for a disk; stolen time is not the guest's */
		if (i != 3 && i != 4 && i != 7)
			s->busy = limit(s->busy + limit(v[i]));
	}
}

/* "net  eth0: bytes packets errs drop fifo frame compressed multicast bytes ..." */
static void take_net(struct favo_top_sample *s, const char *line)
{
	const char *colon = strchr(line, ':');
	unsigned long long rx, tx;

	line += strspn(line, " ");
	if (!colon || !strncmp(line, "lo:", 3) ||
	    sscanf(colon + 1, "%llu %*u %*u %*u %*u %*u %*u %*u %llu", &rx, &tx) != 2)
		return;
	s->rx = limit(s->rx + limit(rx));
	s->tx = limit(s->tx + limit(tx));
}

static void take_memory(struct favo_top_sample *s, const char *line)
{
	unsigned long long kib;

	if (sscanf(line, "MemTotal: %llu", &kib) == 1)
		s->mem_total = limit(kib);
	else if (sscanf(line, "MemAvailable: %llu", &kib) == 1)
		s->mem_free = limit(kib);
}

bool favo_top_line(struct favo_top_vm *vm, const char *line)
{
	double uptime;

	if (!strncmp(line, "cpu", 3) && line[3]) {
		take_cpu(&vm->next, line);
	} else if (!strncmp(line, "Mem", 3)) {
		take_memory(&vm->next, line);
	} else if (!strncmp(line, "net ", 4)) {
		take_net(&vm->next, line + 4);
	} else if (sscanf(line, "up %lf", &uptime) == 1 && uptime >= 0 && uptime < 1e12) {
		vm->next.uptime = uptime;
		vm->before = vm->now;
		vm->now = vm->next;
		memset(&vm->next, 0, sizeof(vm->next));
		vm->samples++;
		return true;
	}
	return false;
}

double favo_top_cpu_percent(const struct favo_top_vm *vm)
{
	const struct favo_top_sample *a = &vm->before, *b = &vm->now;

	if (vm->samples < 2 || b->total <= a->total || b->busy < a->busy)
		return 0;
	return 100.0 * (double)(b->busy - a->busy) / (double)(b->total - a->total) *
	       b->cpus;
}

uint64_t favo_top_mem_used(const struct favo_top_vm *vm)
{
	const struct favo_top_sample *s = &vm->now;

	return s->mem_total > s->mem_free ? (s->mem_total - s->mem_free) * 1024 : 0;
}

static uint64_t rate(const struct favo_top_vm *vm, uint64_t before, uint64_t now)
{
	double seconds = vm->now.uptime - vm->before.uptime;

	if (vm->samples < 2 || now < before || seconds < 0.01)
		return 0;
	return (uint64_t)((double)(now - before) / seconds);
}

uint64_t favo_top_rx_rate(const struct favo_top_vm *vm)
{
	return rate(vm, vm->before.rx, vm->now.rx);
}

uint64_t favo_top_tx_rate(const struct favo_top_vm *vm)
{
	return rate(vm, vm->before.tx, vm->now.tx);
}

json_t *favo_top_json(const struct favo_top_vm *vm)
{
	return json_pack("{s:s, s:s, s:i, s:f, s:I, s:I, s:I, s:I}", "vm", vm->name,
			 "node", vm->node, "cpus", (int)vm->now.cpus, "cpu_percent",
			 favo_top_cpu_percent(vm), "mem_bytes",
			 (json_int_t)(vm->now.mem_total * 1024), "mem_used_bytes",
			 (json_int_t)favo_top_mem_used(vm), "rx_bytes_per_s",
			 (json_int_t)favo_top_rx_rate(vm), "tx_bytes_per_s",
			 (json_int_t)favo_top_tx_rate(vm));
}
