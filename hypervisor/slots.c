// SPDX-License-Identifier: GPL-2.0-or-later
/* KVM memory slots of a VM: numbers from a bitmap. */
#include <errno.h>

#include "common/util.h"
#include "hypervisor/kvm.h"
#include "hypervisor/vm.h"

static int take_slot(struct favo_vm *vm)
{
	unsigned i;

	for (i = 0; i < FAVO_VM_SLOTS; i++) {
		uint64_t bit = 1ULL << i % 64;

		if (vm->slots[i / 64] & bit)
			continue;
		vm->slots[i / 64] |= bit;
		return (int)i;
	}
	return -ENOSPC;
}

int favo_vm_map(struct favo_vm *vm, uint64_t gpa, uint64_t size, void *hva, bool readonly)
{
	int slot, ret;

	pthread_mutex_lock(&vm->slots_lock);
	slot = take_slot(vm);
	ret = slot;
	if (slot >= 0) {
		int rc = favo_kvm_set_slot(vm->vm_fd, (unsigned)slot, gpa, size, hva,
					   readonly, false);

		if (rc < 0) {
			vm->slots[slot / 64] &= ~(1ULL << slot % 64);
			ret = rc;
		}
	}
	pthread_mutex_unlock(&vm->slots_lock);
	return ret;
}

void favo_vm_unmap(struct favo_vm *vm, int slot)
{
	if (slot < 0 || slot >= FAVO_VM_SLOTS)
		return;
	pthread_mutex_lock(&vm->slots_lock);
	favo_kvm_set_slot(vm->vm_fd, (unsigned)slot, 0, 0, NULL, false, false);
	vm->slots[slot / 64] &= ~(1ULL << slot % 64);
	pthread_mutex_unlock(&vm->slots_lock);
}
