// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: PCI configuration space, BARs and MSI-X as a guest reaches them.
 * The input is a list of accesses to the MMIO bus: one byte of kind and size,
 * three of address, four of value.
 */
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/pci.h"
#include "tests/unit/fake_kvm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BAR_SIZE 0x8000

struct toy {
	struct favo_pci_device pci;
	int fd;
};

static uint64_t toy_read(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
			 unsigned len)
{
	if (offset >= dev->bars[bar].size || len > dev->bars[bar].size - offset ||
	    offset % len || favo_pci_config_get(dev, 0, 2) != 0x1af4)
		abort();
	return offset;
}

static void toy_write(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
		      uint64_t value, unsigned len)
{
	(void)toy_read(dev, bar, offset, len);
	favo_pci_notify(dev, (unsigned)value);
	if (offset == 8)
		(void)favo_pci_notify_fd(dev, (unsigned)value & 3, NULL);
}

static void toy_reset(struct favo_pci_device *dev)
{
	(void)dev;
}

static void toy_free(struct favo_pci_device *dev)
{
	favo_pci_fini(dev);
	free(favo_container_of(dev, struct toy, pci));
}

static const struct favo_pci_ops ops = {.bar_read = toy_read,
					.bar_write = toy_write,
					.reset = toy_reset,
					.free = toy_free};

static void add_toy(struct favo_vm *vm, uint8_t devfn)
{
	static const struct favo_pci_id id = {.vendor = 0x1af4, .device = 0x1042};
	struct toy *t = calloc(1, sizeof(*t));

	if (!t || favo_pci_init(&t->pci, vm, "toy", &id, devfn, &ops, NULL) < 0 ||
	    favo_pci_set_bar(&t->pci, 0, FAVO_BAR_MEM64, BAR_SIZE, false, NULL) < 0 ||
	    favo_pci_set_bar(&t->pci, 2, FAVO_BAR_MEM32, 4096, false, NULL) < 0 ||
	    favo_pci_add_msix(&t->pci, 0, 5, 0x4000, 0x5000, NULL) < 0 ||
	    favo_pci_ioevent_add(&t->pci, 0, 0x3000, 2, NULL, 1000 + devfn, NULL) < 0 ||
	    favo_pci_add(&t->pci, NULL) < 0)
		abort();
}

/* Addresses worth a try: configuration space of both devices, both windows. */
static uint64_t address(uint32_t a)
{
	switch (a >> 22) {
	case 0:
		return FAVO_GPA_ECAM + (a & 0x1fff);
	case 1:
		return FAVO_GPA_ECAM + (a & 0xfffff);
	case 2:
		return FAVO_GPA_HOLE_START + (a & 0x3fffff);
	default:
		return (1ULL << 38) + (a & 0x3fffff);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_vm *vm = NULL;

	if (fake_vm_new(&vm, 1 << 20, NULL) < 0)
		return 0;
	add_toy(vm, FAVO_PCI_DEVFN(0, 0));
	add_toy(vm, FAVO_PCI_DEVFN(0, 1));
	for (; size >= 8; data += 8, size -= 8) {
		uint64_t addr = address(data[1] | (uint32_t)data[2] << 8 |
					(uint32_t)data[3] << 16);
		unsigned len = (data[0] & 0x7) + 1;
		uint32_t value;

		memcpy(&value, data + 4, sizeof(value));
		if (data[0] & 0x80)
			(void)favo_iobus_read(vm->mmio, addr, len);
		else
			favo_iobus_write(vm->mmio, addr, value * 0x100000001ULL, len);
	}
	fake_vm_free(vm);
	return 0;
}
