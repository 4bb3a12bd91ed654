// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * BARs: placing them in the windows at start, and mapping them where the guest
 * moves them, with their ioeventfds and RAM pages. A BAR answers only while it
 * lies wholly inside a window, so it can never hide RAM or the irqchip.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/kvm.h"
#include "hypervisor/pci_internal.h"

#define BAR_TYPE_64 0x4
#define BAR_PREFETCH 0x8
/* Larger BARs go to the 64-bit window when they can. */
#define MEM32_MAX_SIZE (1ULL << 20)

static uint64_t bar_read(void *opaque, uint64_t offset, unsigned len)
{
	struct favo_pci_bar *bar = opaque;
	struct favo_pci_device *dev = bar->dev;
	uint64_t value;

	pthread_mutex_lock(&dev->lock);
	if (favo_msix_covers(dev->msix, bar->index, offset))
		value = favo_msix_read(dev, offset, len);
	else
		value = dev->ops->bar_read(dev, bar->index, offset, len);
	pthread_mutex_unlock(&dev->lock);
	return value;
}

static void bar_write(void *opaque, uint64_t offset, uint64_t value, unsigned len)
{
	struct favo_pci_bar *bar = opaque;
	struct favo_pci_device *dev = bar->dev;

	pthread_mutex_lock(&dev->lock);
	if (favo_msix_covers(dev->msix, bar->index, offset))
		favo_msix_write(dev, offset, value, len);
	else
		dev->ops->bar_write(dev, bar->index, offset, value, len);
	pthread_mutex_unlock(&dev->lock);
}

static const struct favo_io_ops bar_ops = {bar_read, bar_write};

static int set_ioevent(struct favo_pci_device *dev, struct favo_pci_bar *bar,
		       struct favo_pci_ioevent *ev, bool on)
{
	int ret;

	if (ev->on == on || !bar->mapped_at)
		return 0;
	ret = favo_kvm_ioeventfd(dev->vm->vm_fd, bar->mapped_at + ev->offset, ev->len,
				 ev->match ? &ev->value : NULL, ev->fd, on);
	/* Without it the write arrives at bar_write: slower, still right. */
	ev->on = on && ret == 0;
	return ret;
}

static void unmap_bar(struct favo_pci_device *dev, struct favo_pci_bar *bar)
{
	unsigned i;

	if (!bar->mapped_at)
		return;
	for (i = 0; i < bar->nram; i++) {
		favo_vm_unmap(dev->vm, bar->ram[i].slot);
		bar->ram[i].slot = -1;
	}
	for (i = 0; i < bar->nioevents; i++)
		set_ioevent(dev, bar, &bar->ioevents[i], false);
	favo_iobus_del(dev->vm->mmio, bar->mapped_at);
	bar->mapped_at = 0;
}

static void map_bar(struct favo_pci_device *dev, struct favo_pci_bar *bar, uint64_t addr)
{
	const struct favo_io_range range = {
		.base = addr, .size = bar->size, .ops = &bar_ops, .opaque = bar};
	unsigned i;

	if (favo_iobus_add(dev->vm->mmio, &range) < 0)
		return;
	bar->mapped_at = addr;
	for (i = 0; i < bar->nioevents; i++)
		set_ioevent(dev, bar, &bar->ioevents[i], true);
	for (i = 0; i < bar->nram; i++)
		bar->ram[i].slot =
			favo_vm_map(dev->vm, addr + bar->ram[i].offset, bar->ram[i].size,
				    bar->ram[i].hva, bar->ram[i].readonly);
}

/* Address that the guest asked for, 0 when the BAR must not answer. */
static uint64_t wanted_address(const struct favo_pci_device *dev, unsigned i)
{
	const struct favo_pci_windows *w = &dev->bus->windows;
	const struct favo_pci_bar *bar = &dev->bars[i];
	uint64_t addr = favo_pci_config_get(dev, CFG_BAR0 + 4 * i, 4) & ~0xfU;

	if (!(dev->config[CFG_COMMAND] & CFG_COMMAND_MEM))
		return 0;
	if (bar->type == FAVO_BAR_MEM64)
		addr |= (uint64_t)favo_pci_config_get(dev, CFG_BAR0 + 4 * i + 4, 4) << 32;
	if (addr >= w->mem32_base && addr - w->mem32_base < w->mem32_size &&
	    bar->size <= w->mem32_size - (addr - w->mem32_base))
		return addr;
	if (addr >= w->mem64_base && addr - w->mem64_base < w->mem64_size &&
	    bar->size <= w->mem64_size - (addr - w->mem64_base))
		return addr;
	return 0;
}

void favo_pci_update_bars(struct favo_pci_device *dev)
{
	unsigned i;

	for (i = 0; i < FAVO_PCI_BARS; i++) {
		struct favo_pci_bar *bar = &dev->bars[i];
		uint64_t addr;

		if (bar->type == FAVO_BAR_NONE || !dev->bus)
			continue;
		addr = wanted_address(dev, i);
		if (addr == bar->mapped_at)
			continue;
		unmap_bar(dev, bar);
		if (addr)
			map_bar(dev, bar, addr);
	}
}

void favo_pci_unmap_bars(struct favo_pci_device *dev)
{
	unsigned i;

	for (i = 0; i < FAVO_PCI_BARS; i++)
		unmap_bar(dev, &dev->bars[i]);
}

void favo_pci_free_bars(struct favo_pci_device *dev)
{
	unsigned i;

	favo_pci_unmap_bars(dev);
	for (i = 0; i < FAVO_PCI_BARS; i++) {
		free(dev->bars[i].ram);
		free(dev->bars[i].ioevents);
		dev->bars[i] = (struct favo_pci_bar){0};
	}
}

/* Take size bytes at a multiple of size; 0 when the window is full. */
static uint64_t take(uint64_t *next, uint64_t base, uint64_t window, uint64_t size)
{
	uint64_t addr = (*next + size - 1) & ~(size - 1);

	if (addr < base || addr - base >= window || size > window - (addr - base))
		return 0;
	*next = addr + size;
	return addr;
}

int favo_pci_place_bars(struct favo_pci_device *dev, struct favo_err *err)
{
	struct favo_pci_bus *bus = dev->vm->pci;
	const struct favo_pci_windows *w = &bus->windows;
	unsigned i;

	for (i = 0; i < FAVO_PCI_BARS; i++) {
		struct favo_pci_bar *bar = &dev->bars[i];
		uint64_t addr = 0;
		uint32_t flags;

		if (bar->type == FAVO_BAR_NONE)
			continue;
		if (bar->type == FAVO_BAR_MEM64 && bar->size > MEM32_MAX_SIZE)
			addr = take(&bus->next64, w->mem64_base, w->mem64_size,
				    bar->size);
		if (!addr)
			addr = take(&bus->next32, w->mem32_base, w->mem32_size,
				    bar->size);
		if (!addr)
			return favo_fail(err, ENOSPC,
					 "PCI: %s: no address space for BAR %u",
					 dev->name, i);
		flags = favo_pci_config_get(dev, CFG_BAR0 + 4 * i, 4) & 0xf;
		favo_pci_config_set(dev, CFG_BAR0 + 4 * i, 4, (uint32_t)addr | flags);
		if (bar->type == FAVO_BAR_MEM64)
			favo_pci_config_set(dev, CFG_BAR0 + 4 * i + 4, 4,
					    (uint32_t)(addr >> 32));
	}
	return 0;
}

int favo_pci_set_bar(struct favo_pci_device *dev, unsigned bar,
		     enum favo_pci_bar_type type, uint64_t size, bool prefetch,
		     struct favo_err *err)
{
	uint64_t mask = ~(size - 1) & ~0xfULL;
	uint32_t flags = prefetch ? BAR_PREFETCH : 0;

	if (bar + (type == FAVO_BAR_MEM64) >= FAVO_PCI_BARS || size < FAVO_PAGE_SIZE ||
	    size & (size - 1) || (type == FAVO_BAR_MEM32 && size > 1ULL << 31))
		return favo_fail(err, EINVAL, "PCI: %s: bad BAR %u", dev->name, bar);
	if (type == FAVO_BAR_MEM64)
		flags |= BAR_TYPE_64;
	dev->bars[bar] = (struct favo_pci_bar){.type = type,
					       .size = size,
					       .prefetch = prefetch,
					       .dev = dev,
					       .index = bar};
	favo_pci_config_set(dev, CFG_BAR0 + 4 * bar, 4, flags);
	memcpy(dev->wmask + CFG_BAR0 + 4 * bar, &mask, type == FAVO_BAR_MEM64 ? 8 : 4);
	return 0;
}

int favo_pci_add_ram(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
		     uint64_t size, void *hva, bool readonly, struct favo_err *err)
{
	struct favo_pci_bar *b = &dev->bars[bar];
	struct favo_pci_ram *p;

	if (offset % FAVO_PAGE_SIZE || size % FAVO_PAGE_SIZE || !size ||
	    offset >= b->size || size > b->size - offset)
		return favo_fail(err, EINVAL, "PCI: %s: bad RAM pages in BAR %u",
				 dev->name, bar);
	p = realloc(b->ram, (b->nram + 1) * sizeof(*p));
	if (!p)
		return favo_fail(err, ENOMEM, "PCI: %s: out of memory", dev->name);
	b->ram = p;
	b->ram[b->nram++] = (struct favo_pci_ram){.offset = offset,
						  .size = size,
						  .hva = hva,
						  .readonly = readonly,
						  .slot = -1};
	return 0;
}

int favo_pci_ioevent_add(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
			 unsigned len, const uint64_t *match, int fd,
			 struct favo_err *err)
{
	struct favo_pci_bar *b = &dev->bars[bar];
	struct favo_pci_ioevent *p;
	int ret;

	if (offset >= b->size || len > b->size - offset)
		return favo_fail(err, EINVAL, "PCI: %s: bad ioeventfd in BAR %u",
				 dev->name, bar);
	p = realloc(b->ioevents, (b->nioevents + 1) * sizeof(*p));
	if (!p)
		return favo_fail(err, ENOMEM, "PCI: %s: out of memory", dev->name);
	b->ioevents = p;
	p = &b->ioevents[b->nioevents++];
	*p = (struct favo_pci_ioevent){.offset = offset,
				       .len = len,
				       .match = match,
				       .value = match ? *match : 0,
				       .fd = fd};
	ret = set_ioevent(dev, b, p, true);
	return ret < 0 ? favo_fail(err, -ret, "PCI: %s: ioeventfd: %m", dev->name) : 0;
}

void favo_pci_ioevent_del(struct favo_pci_device *dev, unsigned bar, int fd)
{
	struct favo_pci_bar *b = &dev->bars[bar];
	unsigned i;

	for (i = 0; i < b->nioevents; i++) {
		if (b->ioevents[i].fd != fd)
			continue;
		set_ioevent(dev, b, &b->ioevents[i], false);
		b->ioevents[i--] = b->ioevents[--b->nioevents];
	}
}
