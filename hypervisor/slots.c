// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM memory slots of a VM: numbers from a bitmap; files as read-only memory.
 */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>

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

int favo_vm_map_file(struct favo_vm *vm, const char *name, void *hva, uint64_t size,
		     uint64_t *gpa, struct favo_err *err)
{
	struct favo_vm_file *f = &vm->files[vm->nfiles];
	int slot;

	if (!vm->readonly_slots)
		return favo_fail(err, ENOTSUP, "this host's KVM lacks read-only memory");
	if (vm->nfiles == FAVO_VM_FILES)
		return favo_fail(err, ENOSPC, "more than %d files as memory",
				 FAVO_VM_FILES);
	if (size > vm->files_end || vm->files_gpa > vm->files_end - size)
		return favo_fail(err, ENOSPC,
				 "%llu bytes do not fit this CPU's %u address bits "
				 "beside guest memory",
				 (unsigned long long)size, vm->phys_bits);
	slot = favo_vm_map(vm, vm->files_gpa, size, hva, true);
	if (slot < 0)
		return favo_fail(err, -slot, "map %s for the guest: %m", name);
	*f = (struct favo_vm_file){
		.hva = hva, .gpa = vm->files_gpa, .size = size, .slot = slot};
	snprintf(f->name, sizeof(f->name), "%s", name);
	vm->nfiles++;
	vm->files_gpa += size;
	*gpa = f->gpa;
	return 0;
}

void favo_vm_unmap_files(struct favo_vm *vm)
{
	for (; vm->nfiles; vm->nfiles--) {
		struct favo_vm_file *f = &vm->files[vm->nfiles - 1];

		favo_vm_unmap(vm, f->slot);
		munmap(f->hva, f->size);
	}
}

bool favo_vm_find_bad_page(struct favo_vm *vm, char *text, size_t size)
{
	for (unsigned i = 0; i < vm->nfiles; i++) {
		const struct favo_vm_file *f = &vm->files[i];
		uint64_t step = 2ULL << 20, at = 0;

		while (at < f->size) {
			/* Linux 5.14; an error instead of a SIGBUS. */
			if (madvise(f->hva + at, FAVO_MIN(step, f->size - at),
				    MADV_POPULATE_READ) == 0) {
				at += step;
			} else if (errno == EINVAL) {
				return false;
			} else if (step > FAVO_PAGE_SIZE) {
				step = FAVO_PAGE_SIZE;
			} else {
				snprintf(text, size, "%s cannot be read at byte %llu: %s",
					 f->name, (unsigned long long)at,
					 errno == EFAULT ? "I/O error, or cut short"
							 : strerror(errno));
				return true;
			}
		}
	}
	return false;
}
