/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest driver for tests, over the PCI bus of a VM without KVM: what it writes
 * goes through configuration space and BARs as a vCPU's accesses would.
 */
#include "tests/unit/virtio_testdrv.h"

#include <stdlib.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "common/util.h"

#define PATIENCE_MS 2000

static void *run_loop(void *arg)
{
	favo_loop_run(arg, NULL);
	return NULL;
}

void drv_start(struct drv *d, struct favo_vm *vm)
{
	memset(d, 0, sizeof(*d));
	d->vm = vm;
}

void drv_stop(struct drv *d)
{
	if (d->threaded) {
		favo_loop_stop(d->vm->loop);
		pthread_join(d->thread, NULL);
	}
	fake_vm_free(d->vm);
}

uint64_t drv_read(struct drv *d, uint64_t addr, unsigned len)
{
	return favo_iobus_read(d->vm->mmio, addr, len);
}

void drv_write(struct drv *d, uint64_t addr, uint64_t value, unsigned len)
{
	favo_iobus_write(d->vm->mmio, addr, value, len);
}

static uint64_t config_addr(const struct drv *d, unsigned offset)
{
	return FAVO_GPA_ECAM + d->devfn * 4096ULL + offset;
}

static uint64_t bar_addr(struct drv *d, unsigned bar)
{
	return drv_read(d, config_addr(d, PCI_BASE_ADDRESS_0 + 4 * bar), 4) & ~15ULL;
}

static void read_cap(struct drv *d, unsigned cap)
{
	unsigned type = (unsigned)drv_read(d, config_addr(d, cap + 3), 1);
	unsigned bar = (unsigned)drv_read(d, config_addr(d, cap + 4), 1);
	uint64_t at;

	if (type == VIRTIO_PCI_CAP_PCI_CFG)
		return;
	at = bar_addr(d, bar) + drv_read(d, config_addr(d, cap + 8), 4);
	switch (type) {
	case VIRTIO_PCI_CAP_COMMON_CFG:
		d->common = at;
		break;
	case VIRTIO_PCI_CAP_NOTIFY_CFG:
		d->notify = at;
		d->notify_step = (uint32_t)drv_read(d, config_addr(d, cap + 16), 4);
		break;
	case VIRTIO_PCI_CAP_ISR_CFG:
		d->isr = at;
		break;
	case VIRTIO_PCI_CAP_DEVICE_CFG:
		d->device = at;
		break;
	default:
		break;
	}
}

/* All vectors of the MSI-X table unmasked, then the capability enabled. */
static void enable_msix(struct drv *d, unsigned cap)
{
	unsigned n = (unsigned)(drv_read(d, config_addr(d, cap + 2), 2) & 0x7ff) + 1;
	uint64_t table = drv_read(d, config_addr(d, cap + 4), 4);

	table = bar_addr(d, table & 7) + (table & ~7ULL);
	for (unsigned i = 0; i < n; i++) {
		drv_write(d, table + 16 * i, 0xfee00000, 4);
		drv_write(d, table + 16 * i + 4, 0, 4);
		drv_write(d, table + 16 * i + 8, 0x40 + i, 4);
		drv_write(d, table + 16 * i + 12, 0, 4);
	}
	drv_write(d, config_addr(d, cap + 2), 0x8000, 2);
}

bool drv_find(struct drv *d, uint16_t virtio_id)
{
	if (!d->threaded && pthread_create(&d->thread, NULL, run_loop, d->vm->loop) != 0)
		abort();
	d->threaded = true;
	for (d->devfn = 0; d->devfn < 256; d->devfn += 8) {
		unsigned cap;

		if (drv_read(d, config_addr(d, 0), 4) !=
		    (0x1af4U | (0x1040U + virtio_id) << 16))
			continue;
		drv_write(d, config_addr(d, PCI_COMMAND),
			  PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER, 2);
		cap = (unsigned)drv_read(d, config_addr(d, PCI_CAPABILITY_LIST), 1);
		for (; cap; cap = (unsigned)drv_read(d, config_addr(d, cap + 1), 1)) {
			if (drv_read(d, config_addr(d, cap), 1) == PCI_CAP_ID_VNDR)
				read_cap(d, cap);
			else if (drv_read(d, config_addr(d, cap), 1) == PCI_CAP_ID_MSIX)
				enable_msix(d, cap);
		}
		d->nqueues = (unsigned)drv_read(d, d->common + VIRTIO_PCI_COMMON_NUMQ, 2);
		return d->common && d->notify && d->isr;
	}
	return false;
}

uint8_t drv_status(struct drv *d)
{
	return (uint8_t)drv_read(d, d->common + VIRTIO_PCI_COMMON_STATUS, 1);
}

void drv_set_status(struct drv *d, uint8_t status)
{
	drv_write(d, d->common + VIRTIO_PCI_COMMON_STATUS, status, 1);
}

uint64_t drv_offered(struct drv *d)
{
	uint64_t features;

	drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 0, 4);
	features = drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_DFSELECT, 1, 4);
	return features | drv_read(d, d->common + VIRTIO_PCI_COMMON_DF, 4) << 32;
}

void drv_accept(struct drv *d, uint64_t features)
{
	for (unsigned i = 0; i < 2; i++) {
		drv_write(d, d->common + VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		drv_write(d, d->common + VIRTIO_PCI_COMMON_GF,
			  (uint32_t)(features >> (32 * i)), 4);
	}
}

static void write_gpa(struct drv *d, unsigned offset, uint64_t gpa)
{
	drv_write(d, d->common + offset, (uint32_t)gpa, 4);
	drv_write(d, d->common + offset + 4, gpa >> 32, 4);
}

void drv_setup_queue(struct drv *d, unsigned q, uint64_t gpa, uint16_t size)
{
	drv_queue_init(&d->q[q], d->vm->mem, gpa, size);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_SIZE, size, 2);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_MSIX, 1 + q, 2);
	write_gpa(d, VIRTIO_PCI_COMMON_Q_DESCLO, d->q[q].desc_gpa);
	write_gpa(d, VIRTIO_PCI_COMMON_Q_AVAILLO, d->q[q].avail_gpa);
	write_gpa(d, VIRTIO_PCI_COMMON_Q_USEDLO, d->q[q].used_gpa);
	drv_write(d, d->common + VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
}

void drv_kick(struct drv *d, unsigned q)
{
	drv_write(d, d->notify + (uint64_t)q * d->notify_step, q, 2);
}

bool drv_reset(struct drv *d)
{
	drv_set_status(d, 0);
	for (int i = 0; i < PATIENCE_MS * 10; i++) {
		if (drv_status(d) == 0)
			return true;
		usleep(100);
	}
	return false;
}

bool drv_init(struct drv *d, uint64_t want)
{
	const uint8_t hello = VIRTIO_CONFIG_S_ACKNOWLEDGE | VIRTIO_CONFIG_S_DRIVER;

	if (!drv_reset(d))
		return false;
	drv_set_status(d, hello);
	drv_accept(d, drv_offered(d) & (want | 1ULL << VIRTIO_F_VERSION_1));
	drv_set_status(d, hello | VIRTIO_CONFIG_S_FEATURES_OK);
	if (!(drv_status(d) & VIRTIO_CONFIG_S_FEATURES_OK))
		return false;
	drv_write(d, d->common + VIRTIO_PCI_COMMON_MSIX, 0, 2);
	for (unsigned q = 0; q < d->nqueues; q++)
		drv_setup_queue(d, q, 0x1000 + 0x1000 * q, 16);
	drv_set_status(d,
		       hello | VIRTIO_CONFIG_S_FEATURES_OK | VIRTIO_CONFIG_S_DRIVER_OK);
	return !(drv_status(d) & VIRTIO_CONFIG_S_NEEDS_RESET);
}

bool drv_wait(struct drv *d, unsigned q, uint32_t *id, uint32_t *len)
{
	for (int i = 0; i < PATIENCE_MS * 20; i++) {
		if (drv_used(&d->q[q], id, len))
			return true;
		usleep(50);
	}
	return false;
}

int64_t drv_do(struct drv *d, unsigned q, const struct drv_seg *segs, unsigned n)
{
	uint32_t id, len;
	uint16_t head = drv_add(&d->q[q], segs, n);

	drv_kick(d, q);
	if (!drv_wait(d, q, &id, &len) || id != head)
		return -1;
	return len;
}

void *drv_ptr(struct drv *d, uint64_t gpa)
{
	return favo_guest_ptr(d->vm->mem, gpa, 1);
}
