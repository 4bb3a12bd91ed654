/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What pci.c, pci_bar.c and msix.c share; not for devices. */
#pragma once

#include <stdatomic.h>

#include "hypervisor/pci.h"
#include "hypervisor/vm.h"

#define PCI_DEVFNS 256

/* Configuration space header, PCI Local Bus 3.0 section 6.1. */
#define CFG_VENDOR 0x00
#define CFG_COMMAND 0x04
#define CFG_COMMAND_MEM 0x2
#define CFG_COMMAND_MASTER 0x4
#define CFG_COMMAND_NOINTX 0x400
#define CFG_STATUS 0x06
#define CFG_STATUS_CAPS 0x10
#define CFG_REVISION 0x08
#define CFG_HEADER_TYPE 0x0e
#define CFG_MULTIFUNCTION 0x80
#define CFG_BAR0 0x10
#define CFG_BARS_END 0x28
#define CFG_SUBSYS 0x2c
#define CFG_CAP_POINTER 0x34
#define CFG_IRQ_LINE 0x3c
#define CFG_FIRST_CAP 0x40
#define CFG_LAST_CAP 0xfc

struct favo_pci_bus {
	struct favo_vm *vm;
	struct favo_pci_windows windows;
	uint64_t next32, next64; /* first free address of each window */
	/*
	 * Configuration space of all 256 functions. The guest reads it through
	 * a read-only memory slot and cannot write it, so it is to be trusted.
	 */
	uint8_t *ecam;
	int ecam_slot;
	bool taken[PCI_DEVFNS];
	struct favo_pci_device *devs[PCI_DEVFNS];
};

struct favo_pci_msix {
	unsigned bar, nvectors, cap;
	uint64_t table_offset, pba_offset;
	atomic_bool enabled; /* read by favo_pci_notify() without the lock */
	uint8_t *table; /* 16 bytes a vector, as the guest sees it */
	struct favo_irq **irqs;
};

/* Where and whether BARs answer, after command or BAR registers changed. */
void favo_pci_update_bars(struct favo_pci_device *dev);
void favo_pci_unmap_bars(struct favo_pci_device *dev);
/* Give each BAR an address; ENOSPC. */
int favo_pci_place_bars(struct favo_pci_device *dev, struct favo_err *err);
void favo_pci_free_bars(struct favo_pci_device *dev);

/* Is [offset, offset + len) of this BAR in the table or the pending bits? */
bool favo_msix_covers(const struct favo_pci_msix *msix, unsigned bar, uint64_t offset);
uint64_t favo_msix_read(struct favo_pci_device *dev, uint64_t offset, unsigned len);
void favo_msix_write(struct favo_pci_device *dev, uint64_t offset, uint64_t value,
		     unsigned len);
/* Control word or bus mastering changed. */
void favo_msix_update(struct favo_pci_device *dev);
void favo_msix_reset(struct favo_pci_device *dev);
void favo_msix_save(struct favo_pci_device *dev, struct favo_state_out *out);
int favo_msix_load(struct favo_pci_device *dev, struct favo_state_in *in,
		   struct favo_err *err);
void favo_msix_free(struct favo_pci_device *dev);
