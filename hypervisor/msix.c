// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * MSI-X: table, pending bits, masks (PCI Local Bus 3.0 section 6.8.2). Each
 * vector is a source of irq.c, unmasked only while MSI-X is on, neither the
 * function nor the vector is masked, and the function may master the bus.
 */
#include <string.h>

#include "common/util.h"
#include "hypervisor/pci_internal.h"
#include "hypervisor/state.h"

#define CAP_ID_MSIX 0x11
#define MSIX_CONTROL 2 /* offset in the capability */
#define MSIX_ENABLE 0x8000
#define MSIX_MASK_ALL 0x4000
#define MSIX_MAX_VECTORS 2048
#define ENTRY_SIZE 16
#define ENTRY_CONTROL 12
#define ENTRY_MASKED 0x1

static uint64_t pba_size(const struct favo_pci_msix *msix)
{
	return (msix->nvectors + 63) / 64 * 8;
}

bool favo_msix_covers(const struct favo_pci_msix *msix, unsigned bar, uint64_t offset)
{
	if (!msix || bar != msix->bar)
		return false;
	return offset - msix->table_offset < (uint64_t)msix->nvectors * ENTRY_SIZE ||
	       offset - msix->pba_offset < pba_size(msix);
}

static uint32_t entry_get(const struct favo_pci_msix *msix, unsigned vector, unsigned at)
{
	uint32_t value;

	memcpy(&value, msix->table + vector * ENTRY_SIZE + at, sizeof(value));
	return value;
}

static void update_vector(struct favo_pci_device *dev, unsigned vector)
{
	struct favo_pci_msix *msix = dev->msix;
	uint32_t control = favo_pci_config_get(dev, msix->cap + MSIX_CONTROL, 2);
	struct favo_msi msi;

	if (!(control & MSIX_ENABLE) || control & MSIX_MASK_ALL ||
	    !favo_pci_may_dma(dev) ||
	    entry_get(msix, vector, ENTRY_CONTROL) & ENTRY_MASKED) {
		favo_irq_set(msix->irqs[vector], NULL);
		return;
	}
	msi.address = entry_get(msix, vector, 0) | (uint64_t)entry_get(msix, vector, 4)
							   << 32;
	msi.data = entry_get(msix, vector, 8);
	favo_irq_set(msix->irqs[vector], &msi);
}

void favo_msix_update(struct favo_pci_device *dev)
{
	unsigned i;

	if (!dev->msix)
		return;
	atomic_store(&dev->msix->enabled, favo_pci_msix_enabled(dev));
	for (i = 0; i < dev->msix->nvectors; i++)
		update_vector(dev, i);
}

void favo_msix_reset(struct favo_pci_device *dev)
{
	struct favo_pci_msix *msix = dev->msix;
	unsigned i;

	if (!msix)
		return;
	favo_pci_config_set(dev, msix->cap + MSIX_CONTROL, 2, msix->nvectors - 1);
	memset(msix->table, 0, (size_t)msix->nvectors * ENTRY_SIZE);
	for (i = 0; i < msix->nvectors; i++)
		msix->table[i * ENTRY_SIZE + ENTRY_CONTROL] = ENTRY_MASKED;
	favo_msix_update(dev);
	for (i = 0; i < msix->nvectors; i++)
		favo_irq_clear(msix->irqs[i]);
}

static uint64_t pba_read(struct favo_pci_msix *msix, uint64_t offset, unsigned len)
{
	unsigned first = (unsigned)offset * 8, i;
	uint64_t value = 0;

	for (i = 0; i < len * 8 && first + i < msix->nvectors; i++)
		if (favo_irq_pending(msix->irqs[first + i]))
			value |= 1ULL << i;
	return value;
}

uint64_t favo_msix_read(struct favo_pci_device *dev, uint64_t offset, unsigned len)
{
	struct favo_pci_msix *msix = dev->msix;
	uint64_t size = (uint64_t)msix->nvectors * ENTRY_SIZE, value = 0;

	if (offset - msix->table_offset >= size)
		return pba_read(msix, offset - msix->pba_offset, len);
	memcpy(&value, msix->table + (offset - msix->table_offset), len);
	return value;
}

void favo_msix_write(struct favo_pci_device *dev, uint64_t offset, uint64_t value,
		     unsigned len)
{
	struct favo_pci_msix *msix = dev->msix;
	uint64_t size = (uint64_t)msix->nvectors * ENTRY_SIZE;
	unsigned vector;

	offset -= msix->table_offset;
	if (offset >= size || len < 4)
		return; /* pending bits are read-only, narrow writes undefined */
	/* Aligned and at most 8 long: never more than one entry. */
	memcpy(msix->table + offset, &value, len);
	vector = (unsigned)(offset / ENTRY_SIZE);
	msix->table[vector * ENTRY_SIZE + ENTRY_CONTROL] &= ENTRY_MASKED;
	memset(msix->table + vector * ENTRY_SIZE + ENTRY_CONTROL + 1, 0, 3);
	/* While it is masked the message may be half written. */
	update_vector(dev, vector);
}

void favo_msix_save(struct favo_pci_device *dev, struct favo_state_out *out)
{
	const struct favo_pci_msix *msix = dev->msix;
	unsigned n = msix ? msix->nvectors : 0, i;

	favo_state_put_u32(out, n);
	favo_state_put(out, msix ? msix->table : NULL, (size_t)n * ENTRY_SIZE);
	for (i = 0; i < n; i++)
		favo_state_put_u8(out, favo_irq_pending(msix->irqs[i]));
}

/* After configuration space, whose control word says what is enabled. */
int favo_msix_load(struct favo_pci_device *dev, struct favo_state_in *in,
		   struct favo_err *err)
{
	struct favo_pci_msix *msix = dev->msix;
	unsigned n = msix ? msix->nvectors : 0, i;
	const uint8_t *table, *pending;

	if (favo_state_get_u32(in) != n)
		return favo_fail(err, EINVAL, "another number of interrupt vectors");
	table = favo_state_get(in, (size_t)n * ENTRY_SIZE);
	pending = favo_state_get(in, n);
	if (!n || !table || !pending)
		return in->failed ? favo_state_get_end(in, err) : 0;
	memcpy(msix->table, table, (size_t)n * ENTRY_SIZE);
	for (i = 0; i < n; i++) {
		/* As favo_msix_write() leaves it: only the mask bit is there. */
		msix->table[i * ENTRY_SIZE + ENTRY_CONTROL] &= ENTRY_MASKED;
		memset(msix->table + i * ENTRY_SIZE + ENTRY_CONTROL + 1, 0, 3);
	}
	favo_msix_update(dev);
	for (i = 0; i < n; i++)
		if (pending[i])
			favo_irq_trigger(msix->irqs[i]);
	return 0;
}

void favo_msix_free(struct favo_pci_device *dev)
{
	struct favo_pci_msix *msix = dev->msix;
	unsigned i;

	if (!msix)
		return;
	for (i = 0; msix->irqs && i < msix->nvectors; i++)
		favo_irq_free(msix->irqs[i]);
	free(msix->irqs);
	free(msix->table);
	free(msix);
	dev->msix = NULL;
}

static int alloc_msix(struct favo_pci_device *dev, unsigned n, struct favo_err *err)
{
	struct favo_pci_msix *msix = calloc(1, sizeof(*msix));
	unsigned i;
	int ret;

	dev->msix = msix;
	if (!msix)
		return favo_fail(err, ENOMEM, "PCI: %s: out of memory", dev->name);
	msix->nvectors = n;
	msix->table = calloc(n, ENTRY_SIZE);
	msix->irqs = calloc(n, sizeof(struct favo_irq *));
	if (!msix->table || !msix->irqs)
		return favo_fail(err, ENOMEM, "PCI: %s: out of memory", dev->name);
	for (i = 0; i < n; i++) {
		ret = favo_irq_new(&msix->irqs[i], dev->vm->irqs, err);
		if (ret < 0)
			return ret;
	}
	return 0;
}

int favo_pci_add_msix(struct favo_pci_device *dev, unsigned bar, unsigned nvectors,
		      uint64_t table_offset, uint64_t pba_offset, struct favo_err *err)
{
	static const uint8_t wmask[10] = {0, (MSIX_ENABLE | MSIX_MASK_ALL) >> 8};
	uint8_t body[10] = {0};
	uint32_t table = (uint32_t)table_offset | bar, pba = (uint32_t)pba_offset | bar;
	uint64_t size;
	int ret;

	if (!nvectors || nvectors > MSIX_MAX_VECTORS || bar >= FAVO_PCI_BARS ||
	    table_offset % 8 || pba_offset % 8)
		return favo_fail(err, EINVAL, "PCI: %s: bad MSI-X layout", dev->name);
	size = dev->bars[bar].size;
	if (table_offset + (uint64_t)nvectors * ENTRY_SIZE > size ||
	    pba_offset + (nvectors + 63) / 64 * 8 > size)
		return favo_fail(err, EINVAL, "PCI: %s: MSI-X outside its BAR",
				 dev->name);
	body[0] = (uint8_t)(nvectors - 1);
	body[1] = (uint8_t)((nvectors - 1) >> 8);
	memcpy(body + 2, &table, 4);
	memcpy(body + 6, &pba, 4);
	ret = favo_pci_add_cap(dev, CAP_ID_MSIX, body, wmask, sizeof(body), err);
	if (ret < 0)
		return ret;
	if (alloc_msix(dev, nvectors, err) < 0) {
		favo_msix_free(dev);
		return -ENOMEM;
	}
	dev->msix->cap = (unsigned)ret;
	dev->msix->bar = bar;
	dev->msix->table_offset = table_offset;
	dev->msix->pba_offset = pba_offset;
	favo_msix_reset(dev);
	return 0;
}

void favo_pci_notify(struct favo_pci_device *dev, unsigned vector)
{
	struct favo_pci_msix *msix = dev->msix;

	if (msix && vector < msix->nvectors && atomic_load(&msix->enabled))
		favo_irq_trigger(msix->irqs[vector]);
}

int favo_pci_notify_fd(struct favo_pci_device *dev, unsigned vector, struct favo_err *err)
{
	struct favo_pci_msix *msix = dev->msix;

	if (!msix || vector >= msix->nvectors)
		return favo_fail(err, EINVAL, "PCI: %s: no vector %u", dev->name, vector);
	return favo_irq_fd(msix->irqs[vector], err);
}

bool favo_pci_msix_enabled(const struct favo_pci_device *dev)
{
	return dev->msix &&
	       favo_pci_config_get(dev, dev->msix->cap + MSIX_CONTROL, 2) & MSIX_ENABLE;
}
