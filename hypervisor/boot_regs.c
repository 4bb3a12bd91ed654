// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * First register state: PVH wants flat 32-bit segments without paging
 * (docs/misc/pvh of Xen), the 64-bit Linux entry long mode with an identity map.
 * The hidden parts of the segment registers are set directly; the GDT is there
 * for the moment the kernel reloads them, at the selectors that Linux expects.
 */
#include <errno.h>
#include <linux/kvm.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/util.h"
#include "hypervisor/boot.h"

#define CR0_PE 0x1ULL
#define CR0_ET 0x10ULL
#define CR0_PG 0x80000000ULL
#define CR4_PAE 0x20ULL
#define EFER_LME 0x100ULL
#define EFER_LMA 0x400ULL
#define RFLAGS_ONE 0x2ULL
#define SEL_CODE 0x10
#define SEL_DATA 0x18
#define SEL_TSS 0x20

static struct kvm_segment segment(uint16_t selector, uint8_t type, bool longmode)
{
	return (struct kvm_segment){
		.limit = 0xffffffff,
		.selector = selector,
		.type = type,
		.present = 1,
		.db = !longmode,
		.s = 1,
		.l = longmode,
		.g = 1,
	};
}

int favo_boot_set_registers(int vcpu_fd, const struct favo_kernel *kernel,
			    struct favo_err *err)
{
	bool longmode = kernel->entry == FAVO_ENTRY_LINUX64;
	struct kvm_regs regs = {.rflags = RFLAGS_ONE, .rip = kernel->address};
	struct kvm_segment data = segment(SEL_DATA, 0x3, false);
	struct kvm_sregs sregs;

	if (ioctl(vcpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return favo_fail(err, errno, "vCPU 0: KVM_GET_SREGS: %m");
	sregs.cs = segment(SEL_CODE, 0xb, longmode);
	sregs.ds = sregs.es = sregs.ss = sregs.fs = sregs.gs = data;
	sregs.tr = (struct kvm_segment){
		.limit = 0x67, .selector = SEL_TSS, .type = 0xb, .present = 1};
	sregs.gdt.base = FAVO_BOOT_GDT;
	sregs.gdt.limit = 5 * 8 - 1;
	sregs.idt.base = 0;
	sregs.idt.limit = 0;
	sregs.cr0 = CR0_PE | CR0_ET;
	sregs.cr4 = 0;
	if (longmode) {
		sregs.cr3 = FAVO_BOOT_PAGE_TABLES;
		sregs.cr4 = CR4_PAE;
		sregs.cr0 |= CR0_PG;
		sregs.efer = EFER_LME | EFER_LMA;
		regs.rsi = FAVO_BOOT_ZERO_PAGE;
	} else {
		regs.rbx = FAVO_BOOT_START_INFO;
	}
	if (ioctl(vcpu_fd, KVM_SET_SREGS, &sregs) < 0)
		return favo_fail(err, errno, "vCPU 0: KVM_SET_SREGS: %m");
	if (ioctl(vcpu_fd, KVM_SET_REGS, &regs) < 0)
		return favo_fail(err, errno, "vCPU 0: KVM_SET_REGS: %m");
	return 0;
}
