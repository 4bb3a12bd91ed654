/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The KVM calls that devices cause while a VM runs, each one ioctl on the VM
 * descriptor, 0 or -errno. Kept apart so that unit tests and fuzzers link
 * tests/unit/fake_kvm.c in place of kvm_calls.c and need no /dev/kvm.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct kvm_irq_routing;
struct favo_msi;

int favo_kvm_signal_msi(int vm_fd, const struct favo_msi *msi);
/* Bind eventfd fd to gsi, or take it off. */
int favo_kvm_irqfd(int vm_fd, int fd, uint32_t gsi, bool on);
int favo_kvm_set_routes(int vm_fd, const struct kvm_irq_routing *table);
int favo_kvm_irq_line(int vm_fd, uint32_t gsi, bool level);
/* MMIO writes of len bytes (0: any) at addr signal fd; value: only that one. */
int favo_kvm_ioeventfd(int vm_fd, uint64_t addr, unsigned len, const uint64_t *value,
		       int fd, bool on);
/* size 0 removes the slot. */
int favo_kvm_set_slot(int vm_fd, unsigned slot, uint64_t gpa, uint64_t size, void *hva,
		      bool readonly, bool log_dirty);
