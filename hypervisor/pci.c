// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * PCI bus 0: configuration space behind ECAM (PCI Express Base 3.0 section
 * 7.2.2), life of devices. Ports 0xcf8/0xcfc are left out: a guest then uses
 * ECAM for everything, where a read costs no exit and a write costs one.
 */
#include "hypervisor/pci.h"

#include <string.h>
#include <sys/mman.h>

#include "common/util.h"
#include "hypervisor/pci_internal.h"

static bool is_bar_offset(unsigned offset)
{
	return offset >= CFG_BAR0 && offset < CFG_BARS_END;
}

/* 1, 2 or 4 little-endian bytes of a function's page; 0 outside of it. */
static uint32_t get_bytes(const uint8_t *page, unsigned offset, unsigned len)
{
	uint32_t value = 0;

	if (len <= sizeof(value) && offset <= FAVO_PCI_CONFIG_SIZE - len)
		memcpy(&value, page + offset, len);
	return value;
}

uint32_t favo_pci_config_get(const struct favo_pci_device *dev, unsigned offset,
			     unsigned len)
{
	return get_bytes(dev->config, offset, len);
}

void favo_pci_config_set(struct favo_pci_device *dev, unsigned offset, unsigned len,
			 uint32_t value)
{
	if (len <= sizeof(value) && offset <= FAVO_PCI_CONFIG_SIZE - len)
		memcpy(dev->config + offset, &value, len);
}

bool favo_pci_may_dma(const struct favo_pci_device *dev)
{
	return dev->config[CFG_COMMAND] & CFG_COMMAND_MASTER;
}

static void config_write(struct favo_pci_device *dev, unsigned offset, uint32_t value,
			 unsigned len)
{
	bool master = favo_pci_may_dma(dev);
	uint32_t old = favo_pci_config_get(dev, offset, len);
	uint32_t mask = get_bytes(dev->wmask, offset, len);

	favo_pci_config_set(dev, offset, len, (old & ~mask) | (value & mask));
	if (offset / 4 == CFG_COMMAND / 4 || is_bar_offset(offset))
		favo_pci_update_bars(dev);
	if (master != favo_pci_may_dma(dev)) {
		favo_msix_update(dev);
		if (dev->ops->bus_master)
			dev->ops->bus_master(dev, !master);
	}
	if (dev->msix && offset / 4 == dev->msix->cap / 4)
		favo_msix_update(dev);
	if (dev->ops->config_written)
		dev->ops->config_written(dev, offset, len);
}

static uint64_t ecam_read(void *opaque, uint64_t offset, unsigned len)
{
	struct favo_pci_bus *bus = opaque;
	uint64_t value = 0;

	memcpy(&value, bus->ecam + offset, len);
	return value;
}

static void ecam_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	struct favo_pci_bus *bus = opaque;
	struct favo_pci_device *dev = bus->devs[offset / FAVO_PCI_CONFIG_SIZE];
	unsigned reg = offset % FAVO_PCI_CONFIG_SIZE, part = FAVO_MIN(len, 4U);

	if (!dev)
		return;
	pthread_mutex_lock(&dev->lock);
	config_write(dev, reg, (uint32_t)value, part);
	if (len == 8)
		config_write(dev, reg + 4, (uint32_t)(value >> 32), 4);
	pthread_mutex_unlock(&dev->lock);
}

static const struct favo_io_ops ecam_ops = {ecam_read, ecam_write};

static void clear_function(struct favo_pci_bus *bus, unsigned devfn)
{
	memset(bus->ecam + devfn * FAVO_PCI_CONFIG_SIZE, 0xff, FAVO_PCI_CONFIG_SIZE);
}

static int map_ecam(struct favo_pci_bus *bus, struct favo_err *err)
{
	const struct favo_io_range range = {
		.base = FAVO_GPA_ECAM,
		.size = FAVO_GPA_ECAM_SIZE,
		.ops = &ecam_ops,
		.opaque = bus,
	};
	unsigned slot;
	int ret;

	/*
	 * Only function 0 of each slot has to read as absent. The others are
	 * looked at when function 0 says so, and stay untouched zero pages.
	 */
	for (slot = 0; slot < PCI_DEVFNS / 8; slot++)
		clear_function(bus, slot * 8);
	ret = favo_iobus_add(bus->vm->mmio, &range);
	if (ret < 0)
		return favo_fail(err, -ret, "PCI: map configuration space: %m");
	if (!bus->vm->readonly_slots)
		return 0;
	ret = favo_vm_map(bus->vm, FAVO_GPA_ECAM, FAVO_GPA_ECAM_SIZE, bus->ecam, true);
	if (ret < 0)
		return favo_fail(err, -ret,
				 "PCI: memory slot of configuration space: %m");
	bus->ecam_slot = ret;
	return 0;
}

int favo_pci_bus_new(struct favo_pci_bus **out, struct favo_vm *vm,
		     const struct favo_pci_windows *windows, struct favo_err *err)
{
	struct favo_pci_bus *bus = calloc(1, sizeof(*bus));
	void *ecam;
	int ret;

	if (!bus)
		return favo_fail(err, ENOMEM, "PCI: out of memory");
	ecam = mmap(NULL, FAVO_GPA_ECAM_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (ecam == MAP_FAILED) {
		free(bus);
		return favo_fail(err, errno, "PCI: map configuration space: %m");
	}
	bus->vm = vm;
	bus->windows = *windows;
	bus->next32 = windows->mem32_base;
	bus->next64 = windows->mem64_base;
	bus->ecam = ecam;
	bus->ecam_slot = -1;
	ret = map_ecam(bus, err);
	if (ret < 0) {
		favo_pci_bus_free(bus);
		return ret;
	}
	*out = bus;
	return 0;
}

void favo_pci_bus_free(struct favo_pci_bus *bus)
{
	unsigned i;

	if (!bus)
		return;
	for (i = 0; i < PCI_DEVFNS; i++)
		if (bus->devs[i])
			bus->devs[i]->ops->free(bus->devs[i]);
	favo_vm_unmap(bus->vm, bus->ecam_slot);
	munmap(bus->ecam, FAVO_GPA_ECAM_SIZE);
	free(bus);
}

void favo_pci_bus_reset(struct favo_pci_bus *bus)
{
	unsigned i;

	for (i = 0; i < PCI_DEVFNS; i++) {
		struct favo_pci_device *dev = bus->devs[i];

		if (!dev)
			continue;
		pthread_mutex_lock(&dev->lock);
		favo_pci_config_set(dev, CFG_COMMAND, 2, 0);
		favo_pci_update_bars(dev);
		favo_msix_reset(dev);
		dev->ops->reset(dev);
		pthread_mutex_unlock(&dev->lock);
	}
}

json_t *favo_pci_bus_stats(struct favo_pci_bus *bus)
{
	json_t *list = json_array();
	unsigned i;

	for (i = 0; list && i < PCI_DEVFNS; i++) {
		struct favo_pci_device *dev = bus->devs[i];
		json_t *o;

		if (!dev)
			continue;
		o = json_object();
		json_object_set_new(o, "name", json_string(dev->name));
		json_object_set_new(o, "slot", json_sprintf("%02x.%x", i >> 3, i & 7));
		if (dev->ops->stats) {
			pthread_mutex_lock(&dev->lock);
			dev->ops->stats(dev, o);
			pthread_mutex_unlock(&dev->lock);
		}
		json_array_append_new(list, o);
	}
	return list;
}

static int pick_devfn(struct favo_pci_bus *bus, uint8_t *devfn, struct favo_err *err)
{
	unsigned i;

	if (*devfn != FAVO_PCI_AUTO)
		return bus->taken[*devfn]
			       ? favo_fail(err, EEXIST, "PCI: %02x.%x is taken",
					   *devfn >> 3, *devfn & 7)
			       : 0;
	for (i = 0; i < PCI_DEVFNS; i += 8) {
		if (bus->taken[i])
			continue;
		*devfn = (uint8_t)i;
		return 0;
	}
	return favo_fail(err, ENOSPC, "PCI: more than 32 devices");
}

static void init_header(struct favo_pci_device *dev, const struct favo_pci_id *id)
{
	static const uint16_t command =
		CFG_COMMAND_MEM | CFG_COMMAND_MASTER | CFG_COMMAND_NOINTX;

	memset(dev->config, 0, FAVO_PCI_CONFIG_SIZE);
	favo_pci_config_set(dev, CFG_VENDOR, 4, id->vendor | (uint32_t)id->device << 16);
	favo_pci_config_set(dev, CFG_REVISION, 4, id->revision | id->class_code << 8);
	favo_pci_config_set(dev, CFG_SUBSYS, 4,
			    id->subsys_vendor | (uint32_t)id->subsys_device << 16);
	memcpy(dev->wmask + CFG_COMMAND, &command, sizeof(command));
	dev->wmask[0x0c] = 0xff; /* cache line size, which drivers like to set */
	dev->wmask[CFG_IRQ_LINE] = 0xff;
	dev->cap_end = CFG_FIRST_CAP;
}

int favo_pci_init(struct favo_pci_device *dev, struct favo_vm *vm, const char *name,
		  const struct favo_pci_id *id, uint8_t devfn,
		  const struct favo_pci_ops *ops, struct favo_err *err)
{
	struct favo_pci_bus *bus = vm->pci;
	int ret = pick_devfn(bus, &devfn, err);
	uint8_t *wmask;

	if (ret < 0)
		return ret;
	wmask = calloc(1, FAVO_PCI_CONFIG_SIZE);
	if (!wmask)
		return favo_fail(err, ENOMEM, "PCI: %s: out of memory", name);
	memset(dev, 0, sizeof(*dev));
	pthread_mutex_init(&dev->lock, NULL);
	dev->ops = ops;
	dev->name = name;
	dev->vm = vm;
	dev->devfn = devfn;
	dev->wmask = wmask;
	dev->config = bus->ecam + devfn * FAVO_PCI_CONFIG_SIZE;
	bus->taken[devfn] = true;
	init_header(dev, id);
	return 0;
}

void favo_pci_fini(struct favo_pci_device *dev)
{
	struct favo_pci_bus *bus;

	if (!dev || !dev->vm)
		return;
	bus = dev->vm->pci;
	favo_pci_free_bars(dev);
	favo_msix_free(dev);
	if (bus) {
		clear_function(bus, dev->devfn);
		bus->taken[dev->devfn] = false;
		bus->devs[dev->devfn] = NULL;
	}
	free(dev->wmask);
	pthread_mutex_destroy(&dev->lock);
	dev->vm = NULL;
}

int favo_pci_add_cap(struct favo_pci_device *dev, uint8_t id, const void *body,
		     const uint8_t *wmask, unsigned len, struct favo_err *err)
{
	unsigned at = (dev->cap_end + 3U) & ~3U, prev;

	if (len > CFG_LAST_CAP || at + 2 + len > 256)
		return favo_fail(err, ENOSPC, "PCI: %s: no room for capability %#x",
				 dev->name, id);
	prev = dev->cap_last ? dev->cap_last + 1U : CFG_CAP_POINTER;
	dev->config[prev] = (uint8_t)at;
	dev->config[CFG_STATUS] |= CFG_STATUS_CAPS;
	dev->config[at] = id;
	dev->config[at + 1] = 0;
	memcpy(dev->config + at + 2, body, len);
	if (wmask)
		memcpy(dev->wmask + at + 2, wmask, len);
	dev->cap_last = (uint8_t)at;
	dev->cap_end = (uint8_t)FAVO_MIN(at + 2 + len, 255U);
	return (int)at;
}

int favo_pci_add(struct favo_pci_device *dev, struct favo_err *err)
{
	struct favo_pci_bus *bus = dev->vm->pci;
	unsigned fn0 = dev->devfn & ~7U, i;
	int ret = favo_pci_place_bars(dev, err);

	if (ret < 0)
		return ret;
	if (dev->devfn != fn0) {
		/* Now the guest looks at all functions of this slot. */
		for (i = fn0; i < fn0 + 8; i++)
			if (!bus->taken[i])
				clear_function(bus, i);
		bus->ecam[fn0 * FAVO_PCI_CONFIG_SIZE + CFG_HEADER_TYPE] |=
			CFG_MULTIFUNCTION;
	}
	dev->bus = bus;
	bus->devs[dev->devfn] = dev;
	return 0;
}

struct favo_pci_device *favo_pci_device_at(const struct favo_pci_bus *bus, uint8_t devfn)
{
	return bus->devs[devfn];
}
