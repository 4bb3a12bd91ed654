/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Stand-in for hypervisor/kvm_calls.c: notes what was asked of KVM. For tests
 * and fuzzers of the device model without /dev/kvm. One VM, not thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/irq.h"
#include "hypervisor/vm.h"

struct fake_kvm {
	unsigned msis; /* KVM_SIGNAL_MSI calls */
	struct favo_msi last_msi;
	unsigned routes_set, nroutes;
	struct {
		int fd;
		uint32_t gsi;
	} irqfds[64];
	unsigned nirqfds;
	struct {
		uint64_t addr;
		unsigned len;
		int fd;
	} ioevents[256];
	unsigned nioevents;
	struct {
		uint64_t gpa, size;
		void *hva;
		bool readonly;
	} slots[FAVO_VM_SLOTS];
	unsigned line_calls;
	int fail; /* errno that every call returns, 0: none */
};

extern struct fake_kvm fake_kvm;

/*
 * A VM without KVM: RAM of mem_size, buses, irqs, loop, PCI with windows below
 * and above 4 GiB. 0 or -errno.
 */
int fake_vm_new(struct favo_vm **out, uint64_t mem_size, struct favo_err *err);
void fake_vm_free(struct favo_vm *vm);
