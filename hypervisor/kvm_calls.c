// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * KVM ioctls behind kvm.h: Documentation/virt/kvm/api.rst of Linux, sections
 * 4.25, 4.35, 4.52, 4.59, 4.77. No state here.
 */
#include "hypervisor/kvm.h"

#include <errno.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#include "hypervisor/irq.h"

static int vm_ioctl(int vm_fd, unsigned long request, const void *arg)
{
	return ioctl(vm_fd, request, arg) < 0 ? -errno : 0;
}

int favo_kvm_signal_msi(int vm_fd, const struct favo_msi *msi)
{
	struct kvm_msi m = {
		.address_lo = (uint32_t)msi->address,
		.address_hi = (uint32_t)(msi->address >> 32),
		.data = msi->data,
	};

	return vm_ioctl(vm_fd, KVM_SIGNAL_MSI, &m);
}

int favo_kvm_irqfd(int vm_fd, int fd, uint32_t gsi, bool on)
{
	struct kvm_irqfd k = {
		.fd = (uint32_t)fd,
		.gsi = gsi,
		.flags = on ? 0 : KVM_IRQFD_FLAG_DEASSIGN,
	};

	return vm_ioctl(vm_fd, KVM_IRQFD, &k);
}

int favo_kvm_set_routes(int vm_fd, const struct kvm_irq_routing *table)
{
	return vm_ioctl(vm_fd, KVM_SET_GSI_ROUTING, table);
}

int favo_kvm_irq_line(int vm_fd, uint32_t gsi, bool level)
{
	struct kvm_irq_level k = {.irq = gsi, .level = level};

	return vm_ioctl(vm_fd, KVM_IRQ_LINE, &k);
}

int favo_kvm_ioeventfd(int vm_fd, uint64_t addr, unsigned len, const uint64_t *value,
		       int fd, bool on)
{
	struct kvm_ioeventfd k = {
		.datamatch = value ? *value : 0,
		.addr = addr,
		.len = len,
		.fd = fd,
		.flags = (value ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0) |
			 (on ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN),
	};

	return vm_ioctl(vm_fd, KVM_IOEVENTFD, &k);
}

int favo_kvm_set_slot(int vm_fd, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
		      bool readonly, bool log_dirty)
{
	struct kvm_userspace_memory_region k = {
		.slot = slot,
		.flags = (readonly ? KVM_MEM_READONLY : 0) |
			 (log_dirty ? KVM_MEM_LOG_DIRTY_PAGES : 0),
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)hva,
	};

	return vm_ioctl(vm_fd, KVM_SET_USER_MEMORY_REGION, &k);
}
