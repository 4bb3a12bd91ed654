// SPDX-License-Identifier: GPL-2.0-or-later
/* See fake_kvm.h. */
#include "tests/unit/fake_kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/kvm.h"
#include "hypervisor/pci.h"

struct fake_kvm fake_kvm;

int favo_kvm_signal_msi(int vm_fd, const struct favo_msi *msi)
{
	(void)vm_fd;
	fake_kvm.msis++;
	fake_kvm.last_msi = *msi;
	return -fake_kvm.fail;
}

int favo_kvm_irqfd(int vm_fd, int fd, uint32_t gsi, bool on)
{
	unsigned i;

	(void)vm_fd;
	if (fake_kvm.fail)
		return -fake_kvm.fail;
	for (i = 0; i < fake_kvm.nirqfds && fake_kvm.irqfds[i].fd != fd; i++)
		;
	if (on) {
		if (i < fake_kvm.nirqfds)
			return -EBUSY;
		if (i == FAVO_ARRAY_SIZE(fake_kvm.irqfds))
			return -ENOSPC;
		fake_kvm.irqfds[i].fd = fd;
		fake_kvm.irqfds[i].gsi = gsi;
		fake_kvm.nirqfds++;
	} else if (i < fake_kvm.nirqfds) {
		fake_kvm.irqfds[i] = fake_kvm.irqfds[--fake_kvm.nirqfds];
	}
	return 0;
}

int favo_kvm_set_routes(int vm_fd, const struct kvm_irq_routing *table)
{
	(void)vm_fd;
	fake_kvm.routes_set++;
	fake_kvm.nroutes = table->nr;
	return -fake_kvm.fail;
}

int favo_kvm_irq_line(int vm_fd, uint32_t gsi, bool level)
{
	(void)vm_fd;
	(void)gsi;
	(void)level;
	fake_kvm.line_calls++;
	return 0;
}

int favo_kvm_ioeventfd(int vm_fd, uint64_t addr, unsigned len, const uint64_t *value,
		       int fd, bool on)
{
	unsigned i;

	(void)vm_fd;
	(void)value;
	if (fake_kvm.fail)
		return -fake_kvm.fail;
	for (i = 0; i < fake_kvm.nioevents; i++)
		if (fake_kvm.ioevents[i].addr == addr && fake_kvm.ioevents[i].fd == fd)
			break;
	if (on) {
		if (i < fake_kvm.nioevents || i == FAVO_ARRAY_SIZE(fake_kvm.ioevents))
			return -EEXIST;
		fake_kvm.ioevents[i].addr = addr;
		fake_kvm.ioevents[i].len = len;
		fake_kvm.ioevents[i].fd = fd;
		fake_kvm.nioevents++;
	} else if (i < fake_kvm.nioevents) {
		fake_kvm.ioevents[i] = fake_kvm.ioevents[--fake_kvm.nioevents];
	}
	return 0;
}

int favo_kvm_set_slot(int vm_fd, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
		      bool readonly, bool log_dirty)
{
	(void)vm_fd;
	(void)log_dirty;
	if (fake_kvm.fail)
		return -fake_kvm.fail;
	fake_kvm.slots[slot].gpa = gpa;
	fake_kvm.slots[slot].size = size;
	fake_kvm.slots[slot].hva = hva;
	fake_kvm.slots[slot].readonly = readonly;
	return 0;
}

/* Without a vCPU there is nothing to stop. */
void favo_vm_end(struct favo_vm *vm, enum favo_end end, const char *detail, ...)
{
	(void)detail;
	if (vm->end == FAVO_END_NONE)
		vm->end = end;
}

int fake_vm_new(struct favo_vm **out, uint64_t mem_size, struct favo_err *err)
{
	const struct favo_memory_opts opts = {
		.size = mem_size, .huge = FAVO_HUGE_OFF, .shared = true};
	const struct favo_pci_windows windows = {
		.mem32_base = FAVO_GPA_HOLE_START,
		.mem32_size = FAVO_GPA_ECAM - FAVO_GPA_HOLE_START,
		.mem64_base = 1ULL << 38,
		.mem64_size = 1ULL << 36,
	};
	struct favo_vm *vm = calloc(1, sizeof(*vm));
	int ret;

	if (!vm)
		return -ENOMEM;
	memset(&fake_kvm, 0, sizeof(fake_kvm));
	vm->kvm_fd = -1;
	vm->vm_fd = -1;
	vm->readonly_slots = true;
	vm->ncpus = 1;
	vm->phys_bits = 40;
	vm->files_gpa = FAVO_GPA_HIGH;
	vm->files_end = windows.mem64_base;
	pthread_mutex_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->end_lock, NULL);
	ret = favo_memory_new(&vm->mem, &opts, err);
	ret = ret ? ret : favo_irqs_new(&vm->irqs, -1, err);
	ret = ret ? ret : favo_iobus_new(&vm->pio, err);
	ret = ret ? ret : favo_iobus_new(&vm->mmio, err);
	ret = ret ? ret : favo_loop_new(&vm->loop, err);
	ret = ret ? ret : favo_pci_bus_new(&vm->pci, vm, &windows, err);
	if (ret < 0) {
		fake_vm_free(vm);
		return ret;
	}
	*out = vm;
	return 0;
}

void fake_vm_free(struct favo_vm *vm)
{
	if (!vm)
		return;
	favo_pci_bus_free(vm->pci);
	favo_loop_free(vm->loop);
	favo_iobus_free(vm->mmio);
	favo_iobus_free(vm->pio);
	favo_irqs_free(vm->irqs);
	favo_vm_unmap_files(vm);
	favo_memory_free(vm->mem);
	free(vm);
}
