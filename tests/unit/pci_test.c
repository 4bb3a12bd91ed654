// SPDX-License-Identifier: GPL-2.0-or-later
/* Unit tests of the PCI bus, BARs and MSI-X, over a fake KVM. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/pci.h"
#include "tests/unit/fake_kvm.h"

#define BAR_SIZE 0x8000
#define TABLE 0x4000
#define PBA 0x5000
#define VECTORS 70

struct toy {
	struct favo_pci_device pci;
	uint64_t value, offset;
	unsigned writes, masters, resets;
};

static uint64_t toy_read(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
			 unsigned len)
{
	struct toy *t = favo_container_of(dev, struct toy, pci);

	(void)len;
	t->offset = offset;
	return t->value + bar;
}

static void toy_write(struct favo_pci_device *dev, unsigned bar, uint64_t offset,
		      uint64_t value, unsigned len)
{
	struct toy *t = favo_container_of(dev, struct toy, pci);

	(void)len;
	(void)bar;
	t->offset = offset;
	t->value = value;
	t->writes++;
}

static void toy_master(struct favo_pci_device *dev, bool on)
{
	struct toy *t = favo_container_of(dev, struct toy, pci);

	(void)on;
	t->masters++;
}

static void toy_reset(struct favo_pci_device *dev)
{
	struct toy *t = favo_container_of(dev, struct toy, pci);

	t->resets++;
}

static void toy_free(struct favo_pci_device *dev)
{
	struct toy *t = favo_container_of(dev, struct toy, pci);

	favo_pci_fini(dev);
	free(t);
}

static const struct favo_pci_ops toy_ops = {
	.bar_read = toy_read,
	.bar_write = toy_write,
	.bus_master = toy_master,
	.reset = toy_reset,
	.free = toy_free,
};

static const struct favo_pci_id toy_id = {
	.vendor = 0x1af4, .device = 0x1042, .class_code = 0x018000, .revision = 1};

static struct toy *toy_add(struct favo_vm *vm, uint8_t devfn)
{
	struct toy *t = calloc(1, sizeof(*t));
	struct favo_err err = {0};
	int ret;

	assert_non_null(t);
	ret = favo_pci_init(&t->pci, vm, "toy", &toy_id, devfn, &toy_ops, &err);
	ret = ret ? ret
		  : favo_pci_set_bar(&t->pci, 0, FAVO_BAR_MEM64, BAR_SIZE, false, &err);
	ret = ret ? ret : favo_pci_add_msix(&t->pci, 0, VECTORS, TABLE, PBA, &err);
	ret = ret ? ret : favo_pci_add(&t->pci, &err);
	if (ret < 0)
		fail_msg("%s", err.msg);
	return t;
}

static uint64_t cfg_addr(const struct toy *t, unsigned reg)
{
	return FAVO_GPA_ECAM + t->pci.devfn * 4096ULL + reg;
}

static uint32_t cfg(struct toy *t, unsigned reg, unsigned len)
{
	return (uint32_t)favo_iobus_read(t->pci.vm->mmio, cfg_addr(t, reg), len);
}

static void set_cfg(struct toy *t, unsigned reg, unsigned len, uint32_t value)
{
	favo_iobus_write(t->pci.vm->mmio, cfg_addr(t, reg), value, len);
}

static unsigned msix_cap(struct toy *t)
{
	return cfg(t, 0x34, 1);
}

static struct favo_vm *vm_new(void)
{
	struct favo_err err = {0};
	struct favo_vm *vm = NULL;

	if (fake_vm_new(&vm, 1 << 20, &err) < 0)
		fail_msg("%s", err.msg);
	return vm;
}

static void config_space(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *t = toy_add(vm, FAVO_PCI_AUTO);
	uint64_t bar;

	(void)state;
	assert_int_equal(cfg(t, 0, 4), 0x10421af4);
	assert_int_equal(cfg(t, 8, 4), 0x01800001);
	assert_int_equal(cfg(t, 6, 2) & 0x10, 0x10);
	/* Read-only fields stay, absent slots read as ones and take writes. */
	set_cfg(t, 0, 4, 0);
	assert_int_equal(cfg(t, 0, 2), 0x1af4);
	favo_iobus_write(vm->mmio, FAVO_GPA_ECAM + 9 * 8 * 4096, 1, 4);
	assert_int_equal(favo_iobus_read(vm->mmio, FAVO_GPA_ECAM + 9 * 8 * 4096, 4),
			 0xffffffff);
	/* Sizing. */
	bar = cfg(t, 0x10, 4);
	assert_int_equal(bar & 0xf, 4);
	set_cfg(t, 0x10, 4, 0xffffffff);
	assert_int_equal(cfg(t, 0x10, 4), (uint32_t) ~(BAR_SIZE - 1) | 4);
	set_cfg(t, 0x14, 4, 0xffffffff);
	assert_int_equal(cfg(t, 0x14, 4), 0xffffffff);
	set_cfg(t, 0x10, 4, (uint32_t)bar);
	set_cfg(t, 0x14, 4, 0);
	set_cfg(t, 0x18, 4, 0xffffffff);
	assert_int_equal(cfg(t, 0x18, 4), 0);
	set_cfg(t, 0x30, 4, 0xffffffff);
	assert_int_equal(cfg(t, 0x30, 4), 0);
	/* Writes of odd sizes go nowhere and harm nobody. */
	favo_iobus_write(vm->mmio, cfg_addr(t, 0x10), 0, 3);
	favo_iobus_write(vm->mmio, cfg_addr(t, 0xffc), ~0ULL, 8);
	favo_iobus_write(vm->mmio, cfg_addr(t, 0xff8), ~0ULL, 8);
	assert_int_equal(cfg(t, 0xffc, 4), 0);
	fake_vm_free(vm);
}

static void bar_moves(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *t = toy_add(vm, FAVO_PCI_AUTO);
	int fd = eventfd(0, EFD_CLOEXEC);
	uint64_t bar = cfg(t, 0x10, 4) & ~0xfU;
	static const uint64_t bad[] = {
		0,	  FAVO_GPA_LAPIC & ~0x7fffULL, FAVO_GPA_ECAM,
		0x100000, 1ULL << 39 | 1ULL << 38,
	};
	unsigned i;

	(void)state;
	assert_int_equal(favo_pci_ioevent_add(&t->pci, 0, 0x3000, 2, NULL, fd, NULL), 0);
	assert_int_equal(fake_kvm.nioevents, 0);
	assert_true(favo_iobus_read(vm->mmio, bar, 4) == 0xffffffff);
	set_cfg(t, 4, 2, 2);
	t->value = 7;
	assert_true(favo_iobus_read(vm->mmio, bar + 8, 4) == 7);
	assert_int_equal(fake_kvm.nioevents, 1);
	assert_true(fake_kvm.ioevents[0].addr == bar + 0x3000);
	/* Above 4 GiB. */
	set_cfg(t, 0x14, 4, 0x40);
	assert_true(fake_kvm.ioevents[0].addr == (0x4000000000 | bar) + 0x3000);
	assert_int_equal(fake_kvm.nioevents, 1);
	favo_iobus_write(vm->mmio, (0x4000000000 | bar) + 16, 5, 4);
	assert_int_equal(t->writes, 1);
	/* Over RAM, the LAPIC, configuration space, outside: it goes silent. */
	for (i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		set_cfg(t, 0x10, 4, (uint32_t)bad[i]);
		set_cfg(t, 0x14, 4, (uint32_t)(bad[i] >> 32));
		assert_int_equal(fake_kvm.nioevents, 0);
		assert_true(t->pci.bars[0].mapped_at == 0);
	}
	set_cfg(t, 0x14, 4, 0);
	set_cfg(t, 0x10, 4, (uint32_t)bar);
	assert_int_equal(fake_kvm.nioevents, 1);
	favo_pci_ioevent_del(&t->pci, 0, fd);
	assert_int_equal(fake_kvm.nioevents, 0);
	set_cfg(t, 4, 2, 0);
	assert_true(favo_iobus_read(vm->mmio, bar, 4) == 0xffffffff);
	close(fd);
	fake_vm_free(vm);
}

static void bars_that_overlap(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *a = toy_add(vm, FAVO_PCI_AUTO), *b = toy_add(vm, FAVO_PCI_AUTO);
	uint64_t bar = cfg(a, 0x10, 4) & ~0xfU;

	(void)state;
	set_cfg(a, 4, 2, 2);
	set_cfg(b, 0x10, 4, (uint32_t)bar);
	set_cfg(b, 4, 2, 2);
	b->value = 1;
	assert_true(favo_iobus_read(vm->mmio, bar, 4) == 0);
	/* b leaves: a still answers. */
	set_cfg(b, 4, 2, 0);
	assert_true(favo_iobus_read(vm->mmio, bar, 4) == 0);
	fake_vm_free(vm);
}

static void ram_pages(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *t = calloc(1, sizeof(*t));
	static uint8_t pages[8192] __attribute__((aligned(4096)));
	int slot;

	(void)state;
	assert_int_equal(favo_pci_init(&t->pci, vm, "toy", &toy_id, FAVO_PCI_AUTO,
				       &toy_ops, NULL),
			 0);
	assert_int_equal(
		favo_pci_set_bar(&t->pci, 2, FAVO_BAR_MEM64, 1 << 22, false, NULL), 0);
	assert_int_equal(favo_pci_add_ram(&t->pci, 2, 0x1000, 8192, pages, false, NULL),
			 0);
	assert_int_equal(favo_pci_add_ram(&t->pci, 2, 0x1800, 4096, pages, false, NULL),
			 -EINVAL);
	assert_int_equal(favo_pci_add_ram(&t->pci, 2, 1 << 22, 4096, pages, false, NULL),
			 -EINVAL);
	assert_int_equal(favo_pci_add(&t->pci, NULL), 0);
	set_cfg(t, 4, 2, 2);
	slot = t->pci.bars[2].ram[0].slot;
	assert_true(slot >= 0);
	assert_true(fake_kvm.slots[slot].hva == pages);
	assert_true(fake_kvm.slots[slot].gpa == t->pci.bars[2].mapped_at + 0x1000);
	set_cfg(t, 4, 2, 0);
	assert_true(fake_kvm.slots[slot].size == 0);
	fake_vm_free(vm);
}

static void functions(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *a = toy_add(vm, FAVO_PCI_DEVFN(3, 0)), *b;
	struct toy spare = {0};

	(void)state;
	assert_int_equal(cfg(a, 0xe, 1), 0);
	b = toy_add(vm, FAVO_PCI_DEVFN(3, 1));
	assert_int_equal(cfg(a, 0xe, 1), 0x80);
	assert_int_equal(cfg(b, 0, 2), 0x1af4);
	assert_int_equal(favo_iobus_read(vm->mmio, cfg_addr(b, 0x1000), 4), 0xffffffff);
	assert_int_equal(favo_pci_init(&spare.pci, vm, "x", &toy_id, FAVO_PCI_DEVFN(3, 1),
				       &toy_ops, NULL),
			 -EEXIST);
	/* Given up before it was added: the slot is free again. */
	assert_int_equal(favo_pci_init(&spare.pci, vm, "x", &toy_id, FAVO_PCI_DEVFN(4, 0),
				       &toy_ops, NULL),
			 0);
	favo_pci_fini(&spare.pci);
	favo_pci_fini(&spare.pci);
	toy_add(vm, FAVO_PCI_DEVFN(4, 0));
	fake_vm_free(vm);
}

static void set_entry(struct toy *t, unsigned v, uint32_t lo, uint32_t data, uint32_t ctl)
{
	uint64_t at = t->pci.bars[0].mapped_at + TABLE + 16 * v;

	favo_iobus_write(t->pci.vm->mmio, at, lo, 4);
	favo_iobus_write(t->pci.vm->mmio, at + 4, 0, 4);
	favo_iobus_write(t->pci.vm->mmio, at + 8, data, 4);
	favo_iobus_write(t->pci.vm->mmio, at + 12, ctl, 4);
}

static void msix_masks(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *t = toy_add(vm, FAVO_PCI_AUTO);
	uint64_t pba;

	(void)state;
	assert_int_equal(cfg(t, msix_cap(t), 1), 0x11);
	assert_int_equal(cfg(t, msix_cap(t) + 2, 2), VECTORS - 1);
	set_cfg(t, 4, 2, 6);
	assert_int_equal(t->masters, 1);
	pba = t->pci.bars[0].mapped_at + PBA;
	/* Off: dropped. */
	favo_pci_notify(&t->pci, 0);
	/* On, entry masked at reset: pending. */
	set_cfg(t, msix_cap(t) + 2, 2, 0x8000);
	favo_pci_notify(&t->pci, 66);
	favo_pci_notify(&t->pci, VECTORS);
	favo_pci_notify(&t->pci, ~0U);
	assert_int_equal(fake_kvm.msis, 0);
	assert_int_equal(favo_iobus_read(vm->mmio, pba, 8), 0);
	assert_int_equal(favo_iobus_read(vm->mmio, pba + 8, 8), 4);
	favo_iobus_write(vm->mmio, pba + 8, 0, 8);
	/* Unmask: fires. */
	set_entry(t, 66, 0xfee01000, 0x42, 0);
	assert_int_equal(fake_kvm.msis, 1);
	assert_int_equal(fake_kvm.last_msi.data, 0x42);
	assert_int_equal(favo_iobus_read(vm->mmio, pba + 8, 8), 0);
	favo_pci_notify(&t->pci, 66);
	assert_int_equal(fake_kvm.msis, 2);
	/* Function mask, then bus mastering, hold it back. */
	set_cfg(t, msix_cap(t) + 2, 2, 0xc000);
	favo_pci_notify(&t->pci, 66);
	assert_int_equal(fake_kvm.msis, 2);
	set_cfg(t, msix_cap(t) + 2, 2, 0x8000);
	assert_int_equal(fake_kvm.msis, 3);
	set_cfg(t, 4, 2, 2);
	favo_pci_notify(&t->pci, 66);
	assert_int_equal(fake_kvm.msis, 3);
	set_cfg(t, 4, 2, 6);
	assert_int_equal(fake_kvm.msis, 4);
	assert_int_equal(fake_kvm.routes_set, 0);
	/* Narrow and unaligned writes to the table change nothing. */
	favo_iobus_write(vm->mmio, t->pci.bars[0].mapped_at + TABLE + 16 * 66, 0, 1);
	favo_iobus_write(vm->mmio, t->pci.bars[0].mapped_at + TABLE + 16 * 66 + 2, 0, 4);
	assert_int_equal(favo_iobus_read(vm->mmio,
					 t->pci.bars[0].mapped_at + TABLE + 16 * 66, 4),
			 0xfee01000);
	favo_pci_bus_reset(vm->pci);
	assert_int_equal(t->resets, 1);
	assert_false(favo_pci_msix_enabled(&t->pci));
	favo_pci_notify(&t->pci, 66);
	assert_int_equal(fake_kvm.msis, 4);
	fake_vm_free(vm);
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	return poll(&p, 1, 0) == 1;
}

static void msix_eventfds(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy *t = toy_add(vm, FAVO_PCI_AUTO);
	int fd;

	(void)state;
	set_cfg(t, 4, 2, 6);
	set_cfg(t, msix_cap(t) + 2, 2, 0x8000);
	favo_pci_notify(&t->pci, 1);
	fd = favo_pci_notify_fd(&t->pci, 1, NULL);
	assert_true(fd >= 0);
	assert_int_equal(favo_pci_notify_fd(&t->pci, 1, NULL), fd);
	assert_int_equal(favo_pci_notify_fd(&t->pci, VECTORS, NULL), -EINVAL);
	/* Pending moved into the eventfd; bound only while unmasked. */
	assert_true(readable(fd));
	assert_int_equal(favo_iobus_read(vm->mmio, t->pci.bars[0].mapped_at + PBA, 8), 2);
	assert_int_equal(fake_kvm.nirqfds, 0);
	set_entry(t, 1, 0xfee00000, 0x31, 0);
	assert_int_equal(fake_kvm.nirqfds, 1);
	assert_int_equal(fake_kvm.routes_set, 1);
	assert_int_equal(fake_kvm.nroutes, 24 + 16 + 1);
	/* Mask and unmask with the same message: no new table. */
	set_entry(t, 1, 0xfee00000, 0x31, 1);
	assert_int_equal(fake_kvm.nirqfds, 0);
	set_entry(t, 1, 0xfee00000, 0x31, 0);
	assert_int_equal(fake_kvm.nirqfds, 1);
	assert_int_equal(fake_kvm.routes_set, 1);
	/* KVM refuses: masked, no crash, works when it accepts again. */
	set_entry(t, 1, 0xfee00000, 0x31, 1);
	fake_kvm.fail = ENOMEM;
	set_entry(t, 1, 0xfee00000, 0x32, 0);
	assert_int_equal(fake_kvm.nirqfds, 0);
	fake_kvm.fail = 0;
	set_entry(t, 1, 0xfee00000, 0x32, 0);
	assert_int_equal(fake_kvm.nirqfds, 1);
	fake_vm_free(vm);
	assert_int_equal(fake_kvm.nirqfds, 0);
}

static void bad_set_up(void **state)
{
	struct favo_vm *vm = vm_new();
	struct toy t = {0};
	uint8_t body[200] = {0};

	(void)state;
	assert_int_equal(favo_pci_init(&t.pci, vm, "x", &toy_id, FAVO_PCI_AUTO, &toy_ops,
				       NULL),
			 0);
	assert_int_equal(favo_pci_set_bar(&t.pci, 5, FAVO_BAR_MEM64, 4096, false, NULL),
			 -EINVAL);
	assert_int_equal(favo_pci_set_bar(&t.pci, 0, FAVO_BAR_MEM32, 4095, false, NULL),
			 -EINVAL);
	assert_int_equal(favo_pci_set_bar(&t.pci, 0, FAVO_BAR_MEM32, 4096, false, NULL),
			 0);
	assert_int_equal(favo_pci_add_msix(&t.pci, 0, 2049, 0, 2048, NULL), -EINVAL);
	assert_int_equal(favo_pci_add_msix(&t.pci, 0, 257, 0, 2048, NULL), -EINVAL);
	assert_int_equal(favo_pci_add_cap(&t.pci, 9, body, NULL, sizeof(body), NULL),
			 -ENOSPC);
	assert_true(favo_pci_add_cap(&t.pci, 9, body, NULL, 20, NULL) == 0x40);
	assert_true(favo_pci_add_cap(&t.pci, 9, body, NULL, 20, NULL) == 0x58);
	assert_int_equal(t.pci.config[0x41], 0x58);
	favo_pci_fini(&t.pci);
	fake_vm_free(vm);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(config_space),	     cmocka_unit_test(bar_moves),
		cmocka_unit_test(bars_that_overlap), cmocka_unit_test(ram_pages),
		cmocka_unit_test(functions),	     cmocka_unit_test(msix_masks),
		cmocka_unit_test(msix_eventfds),     cmocka_unit_test(bad_set_up),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
