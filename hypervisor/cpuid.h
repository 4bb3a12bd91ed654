/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * CPUID of a vCPU: what KVM supports on this host, with topology, clock
 * frequency and hypervisor leaves set right. A pure function.
 */
#pragma once

#include <linux/kvm.h>
#include <stdbool.h>
#include <stdint.h>

#define FAVO_CPUID_MAX 256

struct favo_cpuid {
	uint32_t nent, padding;
	struct kvm_cpuid_entry2 entries[FAVO_CPUID_MAX];
};

_Static_assert(sizeof(struct favo_cpuid) ==
		       sizeof(struct kvm_cpuid2) +
			       FAVO_CPUID_MAX * sizeof(struct kvm_cpuid_entry2),
	       "same layout as struct kvm_cpuid2 with its entries");

struct favo_cpuid_opts {
	unsigned cpu, ncpus; /* one socket, one thread per core; APIC id = cpu */
	uint32_t tsc_khz; /* 0: not known */
	bool tsc_deadline; /* the in-kernel LAPIC has it */
};

/* Turn the supported set into that of one vCPU, in place. */
void favo_cpuid_adapt(struct favo_cpuid *cpuid, const struct favo_cpuid_opts *opts);

struct kvm_cpuid_entry2 *favo_cpuid_find(struct favo_cpuid *cpuid, uint32_t function,
					 uint32_t index);
