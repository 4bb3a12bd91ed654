// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * CPUID (Intel SDM volume 2A, AMD APM volume 3 appendix E, Linux
 * Documentation/virt/kvm/x86/cpuid.rst). Known frequencies and an always
 * running deadline timer spare the guest every calibration loop. Nested
 * virtualization is taken away: guests of guests are not offered.
 */
#include "hypervisor/cpuid.h"

#include <stddef.h>
#include <string.h>

#define BIT(n) (1U << (n))
#define LEAF1_ECX_VMX BIT(5)
#define LEAF1_ECX_DEADLINE BIT(24)
#define LEAF1_ECX_HYPERVISOR BIT(31)
#define LEAF1_EDX_HTT BIT(28)
#define LEAF6_EAX_ARAT BIT(2)
#define EXT1_ECX_CMP_LEGACY BIT(1)
#define EXT1_ECX_SVM BIT(2)
#define KVM_LEAF_BASE 0x40000000u
#define KVM_LEAF_TIMING 0x40000010u
#define APIC_BUS_KHZ 1000000u /* KVM's LAPIC timer ticks once per ns */

struct kvm_cpuid_entry2 *favo_cpuid_find(struct favo_cpuid *cpuid, uint32_t function,
					 uint32_t index)
{
	uint32_t i;

	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == function &&
		    cpuid->entries[i].index == index)
			return &cpuid->entries[i];
	return NULL;
}

/* Find a leaf or append an empty one; NULL when the table is full. */
static struct kvm_cpuid_entry2 *leaf(struct favo_cpuid *c, uint32_t function,
				     uint32_t index, uint32_t flags)
{
	struct kvm_cpuid_entry2 *e = favo_cpuid_find(c, function, index);

	if (!e && c->nent < FAVO_CPUID_MAX) {
		e = &c->entries[c->nent++];
		memset(e, 0, sizeof(*e));
		e->function = function;
		e->index = index;
		e->flags = flags;
	}
	return e;
}

static void drop(struct favo_cpuid *c, uint32_t function)
{
	uint32_t i, n = 0;

	for (i = 0; i < c->nent; i++)
		if (c->entries[i].function != function)
			c->entries[n++] = c->entries[i];
	c->nent = n;
}

static uint32_t bits_for(uint32_t n)
{
	return n > 1 ? 32 - (uint32_t)__builtin_clz(n - 1) : 0;
}

static void set_basic(struct favo_cpuid *c, const struct favo_cpuid_opts *o)
{
	struct kvm_cpuid_entry2 *e = favo_cpuid_find(c, 1, 0);
	uint32_t logical = 1U << bits_for(o->ncpus);

	if (e) {
		e->ebx = (e->ebx & 0xffff) | (logical > 255 ? 255 : logical) << 16 |
			 (o->cpu & 0xff) << 24;
		e->ecx = (e->ecx | LEAF1_ECX_HYPERVISOR) & ~LEAF1_ECX_VMX;
		if (o->tsc_deadline)
			e->ecx |= LEAF1_ECX_DEADLINE;
		e->edx = o->ncpus > 1 ? e->edx | LEAF1_EDX_HTT : e->edx & ~LEAF1_EDX_HTT;
	}
	e = favo_cpuid_find(c, 6, 0);
	if (e)
		e->eax |= LEAF6_EAX_ARAT;
}

/* Cache leaves (Intel 4, AMD 0x8000001d): levels 1 and 2 are a core's own. */
static void set_caches(struct favo_cpuid *c, const struct favo_cpuid_opts *o,
		       uint32_t function)
{
	uint32_t i;

	for (i = 0; i < c->nent; i++) {
		struct kvm_cpuid_entry2 *e = &c->entries[i];
		uint32_t level = e->eax >> 5 & 7, sharing, cores = 0;

		if (e->function != function || !(e->eax & 0x1f))
			continue;
		sharing = level <= 2 ? 0 : (1U << bits_for(o->ncpus)) - 1;
		if (function == 4)
			cores = ((1U << bits_for(o->ncpus)) - 1) & 0x3f;
		e->eax = (e->eax & 0x3fff) | (sharing & 0xfff) << 14 | cores << 26;
	}
}

static void set_topology(struct favo_cpuid *c, const struct favo_cpuid_opts *o)
{
	const struct kvm_cpuid_entry2 *base = favo_cpuid_find(c, 0, 0);
	static const uint32_t leaves[] = {0xb, 0x1f};
	unsigned i;

	for (i = 0; i < 2; i++) {
		const uint32_t flag = KVM_CPUID_FLAG_SIGNIFCANT_INDEX;
		struct kvm_cpuid_entry2 *e;

		drop(c, leaves[i]);
		/* drop() moves entries: look again. */
		base = favo_cpuid_find(c, 0, 0);
		if (!base || base->eax < leaves[i])
			continue;
		e = leaf(c, leaves[i], 0, flag);
		if (e) {
			e->ebx = 1;
			e->ecx = 1 << 8;
			e->edx = o->cpu;
		}
		e = leaf(c, leaves[i], 1, flag);
		if (e) {
			e->eax = bits_for(o->ncpus);
			e->ebx = o->ncpus;
			e->ecx = 2 << 8 | 1;
			e->edx = o->cpu;
		}
		e = leaf(c, leaves[i], 2, flag);
		if (e) {
			e->ecx = 2;
			e->edx = o->cpu;
		}
	}
	set_caches(c, o, 4);
}

static void set_amd(struct favo_cpuid *c, const struct favo_cpuid_opts *o)
{
	struct kvm_cpuid_entry2 *e = favo_cpuid_find(c, 0x80000001, 0);

	if (e) {
		e->ecx &= ~(EXT1_ECX_SVM | EXT1_ECX_CMP_LEGACY);
		if (o->ncpus > 1)
			e->ecx |= EXT1_ECX_CMP_LEGACY;
	}
	e = favo_cpuid_find(c, 0x80000008, 0);
	if (e)
		e->ecx = (e->ecx & ~0xf0ffU) | bits_for(o->ncpus) << 12 |
			 ((o->ncpus - 1) & 0xff);
	e = favo_cpuid_find(c, 0x8000001e, 0);
	if (e) {
		e->eax = o->cpu;
		e->ebx = o->cpu & 0xff;
		e->ecx = 0;
	}
	set_caches(c, o, 0x8000001d);
	drop(c, 0x8000000a);
}

static void set_clock(struct favo_cpuid *c, const struct favo_cpuid_opts *o)
{
	struct kvm_cpuid_entry2 *e;

	if (!o->tsc_khz)
		return;
	e = favo_cpuid_find(c, 0, 0);
	if (e && e->eax >= 0x15) {
		e = leaf(c, 0x15, 0, 0);
		if (e) {
			/* TSC Hz = ecx * ebx / eax */
			e->eax = APIC_BUS_KHZ;
			e->ebx = o->tsc_khz;
			e->ecx = APIC_BUS_KHZ * 1000;
		}
	}
	e = favo_cpuid_find(c, KVM_LEAF_BASE, 0);
	if (e && e->eax < KVM_LEAF_TIMING)
		e->eax = KVM_LEAF_TIMING;
	e = e ? leaf(c, KVM_LEAF_TIMING, 0, 0) : NULL;
	if (e) {
		e->eax = o->tsc_khz;
		e->ebx = APIC_BUS_KHZ;
	}
}

void favo_cpuid_adapt(struct favo_cpuid *cpuid, const struct favo_cpuid_opts *opts)
{
	set_basic(cpuid, opts);
	set_topology(cpuid, opts);
	set_amd(cpuid, opts);
	set_clock(cpuid, opts);
}
