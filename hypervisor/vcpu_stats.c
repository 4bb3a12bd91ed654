// SPDX-License-Identifier: GPL-2.0-or-later
/* Exit counters of all vCPUs as JSON. */
#include <stdlib.h>

#include "common/util.h"
#include "hypervisor/vcpu.h"
#include "hypervisor/vm.h"

static const char *const names[FAVO_EXITS_MAX] = {
	[KVM_EXIT_UNKNOWN] = "unknown",
	[KVM_EXIT_IO] = "io",
	[KVM_EXIT_HLT] = "hlt",
	[KVM_EXIT_MMIO] = "mmio",
	[KVM_EXIT_IRQ_WINDOW_OPEN] = "irq_window",
	[KVM_EXIT_SHUTDOWN] = "shutdown",
	[KVM_EXIT_FAIL_ENTRY] = "fail_entry",
	[KVM_EXIT_INTR] = "intr",
	[KVM_EXIT_INTERNAL_ERROR] = "internal_error",
	[KVM_EXIT_SYSTEM_EVENT] = "system_event",
};

json_t *favo_vcpu_exits(struct favo_vm *vm)
{
	json_t *o = json_object();
	uint64_t total = 0;
	unsigned i, c;

	for (i = 0; i < FAVO_EXITS_MAX; i++) {
		uint64_t n = 0;
		char name[16];

		for (c = 0; c < vm->ncpus; c++)
			n += atomic_load_explicit(&vm->vcpus[c]->exits[i],
						  memory_order_relaxed);
		if (!n)
			continue;
		snprintf(name, sizeof(name), "%u", i);
		json_object_set_new(o, names[i] ? names[i] : name,
				    json_integer((json_int_t)n));
		total += n;
	}
	json_object_set_new(o, "total", json_integer((json_int_t)total));
	return o;
}

struct row {
	uint64_t key, count;
};

/*
 * Largest first. Not qsort(): glibc's asks for the machine's memory size, which
 * the jail's filter does not let it.
 */
static void sort_by_count(struct row *rows, size_t n)
{
	size_t i, j;

	for (i = 1; i < n; i++) {
		struct row r = rows[i];

		for (j = i; j > 0 && rows[j - 1].count < r.count; j--)
			rows[j] = rows[j - 1];
		rows[j] = r;
	}
}

json_t *favo_vcpu_top(struct favo_vm *vm)
{
	size_t max = (size_t)vm->ncpus * FAVO_EXIT_TOP, n = 0, i, j;
	favo_autofree struct row *rows = calloc(max, sizeof(*rows));
	json_t *list = json_array();

	for (i = 0; rows && i < max; i++) {
		struct favo_vcpu *v = vm->vcpus[i / FAVO_EXIT_TOP];
		unsigned at = i % FAVO_EXIT_TOP;
		struct row r = {
			atomic_load_explicit(&v->top[at].key, memory_order_relaxed),
			atomic_load_explicit(&v->top[at].count, memory_order_relaxed),
		};

		if (!r.key)
			continue;
		for (j = 0; j < n && rows[j].key != r.key; j++)
			;
		rows[j].key = r.key;
		rows[j].count += r.count;
		n += j == n;
	}
	sort_by_count(rows, n);
	for (i = 0; i < n && i < 32; i++)
		json_array_append_new(
			list,
			json_pack("{s:s, s:o, s:I}", "kind",
				  (rows[i].key - 1) & 1 ? "mmio" : "pio", "address",
				  json_sprintf("%#llx",
					       (unsigned long long)(rows[i].key - 1) >>
						       1),
				  "count", (json_int_t)rows[i].count));
	return list;
}
