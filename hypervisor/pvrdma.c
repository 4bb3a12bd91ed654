/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * PVRDMA function (Linux drivers/infiniband/hw/vmw_pvrdma): BAR 0 MSI-X, BAR 1
 * registers, BAR 2 a page of doorbells for each context. What the driver asks
 * for is passed on to favo-hca and waited for, so that a register write retires
 * only when it is done; above all the driver frees its memory right after a
 * reset, when nothing may reach for it any more.
 *
 * Doorbells exit until favo-hca wants a page as plain memory (hca_proto.h): then
 * a memory slot of its own shows that page to the guest.
 */
#include "hypervisor/pvrdma.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "hypervisor/pci.h"
#include "hypervisor/pvrdma_hca.h"
#include "hypervisor/virtio/net_spec.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/vm.h"
#include "hypervisor/vmxnet3/device.h"

#define VENDOR_VMWARE 0x15ad
#define DEVICE_PVRDMA 0x0820

#define BAR_MSIX 0
#define BAR_MSIX_SIZE 0x4000
#define MSIX_PBA 0x2000
#define BAR_REGS 1
#define BAR_REGS_SIZE 0x1000
#define BAR_UAR 2

/* Registers, pvrdma_dev_api.h. */
#define REG_VERSION 0x00
#define REG_DSRLOW 0x04
#define REG_DSRHIGH 0x08
#define REG_CTL 0x0c
#define REG_REQUEST 0x10
#define REG_ERR 0x14
#define REG_ICR 0x18
#define REG_IMR 0x1c
#define REG_MACL 0x20
#define REG_MACH 0x24
#define VERSION 20 /* separate queue pair numbers and handles */
#define CTL_ACTIVATE 0
#define CTL_UNQUIESCE 1
#define CTL_RESET 2
#define ICR_RESPONSE 1
#define VECTOR_RESPONSE 0

struct pvrdma {
	struct favo_pci_device pci;
	struct favo_hca_link link;
	struct favo_watch watch; /* on the event socket */
	uint8_t mac[6];
	uint32_t dsr_low, err, icr, mac_low, mac_high;
	uint64_t uar_base; /* as favo-hca knows it; 0: not mapped */
	int slots[FAVO_HCA_UARS]; /* memory slots of RAM pages, -1: trapped */
	bool lost; /* favo-hca is gone: logged once */
	uint64_t bells;
};

static struct pvrdma *from_pci(struct favo_pci_device *pci)
{
	return favo_container_of(pci, struct pvrdma, pci);
}

/*
 * Ask favo-hca. When it must stop access to guest memory and says nothing, only
 * the end of the VM keeps that memory from being used twice.
 */
static uint32_t ask(struct pvrdma *dev, enum favo_hca_type type, uint64_t arg,
		    uint32_t *flags)
{
	uint32_t status = favo_hca_link_ask(&dev->link, type, arg, flags);

	if (dev->link.fd >= 0 || dev->lost)
		return status;
	dev->lost = true;
	if (dev->link.hung)
		favo_vm_end(dev->pci.vm, FAVO_END_ERROR,
			    "RDMA: favo-hca does not answer; it may still use this VM's "
			    "memory");
	else
		favo_log(FAVO_ERROR, "RDMA: favo-hca has ended; the guest's RDMA device "
				     "stays failed");
	return status;
}

/* ---- doorbell pages ------------------------------------------------------ */

/* No page is plain memory any more, and changes under way are void. */
static void trap_all(struct pvrdma *dev)
{
	atomic_fetch_add(&dev->link.shared->generation, 1);
	for (unsigned i = 0; i < FAVO_HCA_UARS; i++) {
		favo_vm_unmap(dev->pci.vm, dev->slots[i]);
		dev->slots[i] = -1;
	}
}

/* The guest may have moved or switched off the BAR. */
static void follow_bar(struct pvrdma *dev)
{
	uint64_t base = dev->pci.bars[BAR_UAR].mapped_at;

	if (base == dev->uar_base)
		return;
	trap_all(dev);
	dev->uar_base = base;
	ask(dev, FAVO_HCA_UAR_BASE, base, NULL);
}

/* Carry out a change; mode->mode is what the page is then. */
static void change_page(struct pvrdma *dev, struct favo_hca_uar_mode *mode)
{
	int *slot = &dev->slots[mode->uar];

	if (mode->mode == FAVO_HCA_UAR_RAM && *slot < 0 && dev->uar_base)
		*slot = favo_vm_map(dev->pci.vm,
				    dev->uar_base + mode->uar * FAVO_HCA_UAR_SIZE,
				    FAVO_HCA_UAR_SIZE, dev->link.shared->uars[mode->uar],
				    false);
	if (mode->mode == FAVO_HCA_UAR_TRAP && *slot >= 0) {
		favo_vm_unmap(dev->pci.vm, *slot);
		*slot = -1;
	}
	*slot = FAVO_MAX(*slot, -1);
	mode->mode = *slot >= 0 ? FAVO_HCA_UAR_RAM : FAVO_HCA_UAR_TRAP;
}

static void on_event(struct favo_watch *watch, uint32_t events)
{
	struct pvrdma *dev = favo_container_of(watch, struct pvrdma, watch);
	struct favo_hca_uar_mode mode;
	int ret;

	(void)events;
	pthread_mutex_lock(&dev->pci.lock);
	while ((ret = favo_hca_link_event(&dev->link, &mode)) > 0) {
		/* Page 0 is the kernel's, which arms notifications: always trapped. */
		if (mode.type != FAVO_HCA_UAR_MODE || !mode.uar ||
		    mode.uar >= FAVO_HCA_UARS || mode.mode > FAVO_HCA_UAR_RAM) {
			ret = -EPROTO;
			break;
		}
		if (mode.generation == atomic_load(&dev->link.shared->generation))
			change_page(dev, &mode);
		favo_hca_link_answer(&dev->link, &mode);
	}
	if (ret < 0) {
		favo_watch_del(&dev->watch);
		/* The next request finds the connection ended, too. */
		trap_all(dev);
		dev->err = EIO;
	}
	pthread_mutex_unlock(&dev->pci.lock);
}

/* ---- registers ----------------------------------------------------------- */

static void do_reset(struct pvrdma *dev)
{
	trap_all(dev);
	atomic_store(&dev->link.shared->imr, UINT32_MAX);
	dev->dsr_low = dev->icr = dev->mac_low = dev->mac_high = 0;
	dev->err = ask(dev, FAVO_HCA_RESET, 0, NULL);
}

static void write_ctl(struct pvrdma *dev, uint32_t value)
{
	switch (value) {
	case CTL_ACTIVATE:
		dev->err = ask(dev, FAVO_HCA_ACTIVATE, 0, NULL);
		break;
	case CTL_UNQUIESCE:
		dev->err = ask(dev, FAVO_HCA_UNQUIESCE, 0, NULL);
		break;
	case CTL_RESET:
		do_reset(dev);
		break;
	default:
		dev->err = EINVAL;
	}
}

static void run_command(struct pvrdma *dev)
{
	uint32_t flags;

	dev->err = ask(dev, FAVO_HCA_COMMAND, 0, &flags);
	if (dev->err || !(flags & FAVO_HCA_RAISE))
		return;
	dev->icr |= ICR_RESPONSE;
	if (!(atomic_load(&dev->link.shared->imr) & 1u << VECTOR_RESPONSE))
		favo_pci_notify(&dev->pci, VECTOR_RESPONSE);
}

static uint64_t bar_read(struct favo_pci_device *pci, unsigned bar, uint64_t offset,
			 unsigned len)
{
	struct pvrdma *dev = from_pci(pci);
	uint32_t icr;

	(void)len;
	if (bar != BAR_REGS)
		return 0;
	switch (offset) {
	case REG_VERSION:
		return VERSION;
	case REG_ERR:
		return dev->err;
	case REG_ICR:
		icr = dev->icr;
		dev->icr = 0;
		return icr;
	case REG_IMR:
		return atomic_load(&dev->link.shared->imr);
	case REG_MACL:
		return dev->mac_low;
	case REG_MACH:
		return dev->mac_high;
	default:
		return 0;
	}
}

static void write_register(struct pvrdma *dev, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case REG_DSRLOW:
		dev->dsr_low = value;
		break;
	case REG_DSRHIGH:
		/* The driver looks at the capabilities right after this write. */
		dev->err = ask(dev, FAVO_HCA_DSR, (uint64_t)value << 32 | dev->dsr_low,
			       NULL);
		break;
	case REG_CTL:
		write_ctl(dev, value);
		break;
	case REG_REQUEST:
		run_command(dev);
		break;
	case REG_IMR:
		atomic_store(&dev->link.shared->imr, value);
		break;
	case REG_MACL:
		dev->mac_low = value;
		break;
	case REG_MACH:
		dev->mac_high = value;
		break;
	default:
		break;
	}
}

static void bar_write(struct favo_pci_device *pci, unsigned bar, uint64_t offset,
		      uint64_t value, unsigned len)
{
	struct pvrdma *dev = from_pci(pci);

	if (len != 4)
		return; /* no driver has other accesses */
	if (bar == BAR_REGS) {
		write_register(dev, offset, (uint32_t)value);
	} else if (bar == BAR_UAR && favo_pci_may_dma(pci)) {
		dev->bells++;
		favo_hca_link_ring(&dev->link, (uint32_t)offset, (uint32_t)value);
	}
}

/* ---- life cycle ---------------------------------------------------------- */

static void config_written(struct favo_pci_device *pci, unsigned offset, unsigned len)
{
	(void)offset;
	(void)len;
	follow_bar(from_pci(pci));
}

/* Off: favo-hca does not touch guest memory any more when this returns. */
static void bus_master(struct favo_pci_device *pci, bool on)
{
	ask(from_pci(pci), FAVO_HCA_BUS_MASTER, on, NULL);
}

/* Power-on state: the bus has switched BARs and bus mastering off already. */
static void reset(struct favo_pci_device *pci)
{
	struct pvrdma *dev = from_pci(pci);

	do_reset(dev);
	bus_master(pci, false);
	follow_bar(dev);
}

static void set_paused(struct favo_pci_device *pci, bool pause)
{
	ask(from_pci(pci), pause ? FAVO_HCA_PAUSE : FAVO_HCA_RESUME, 0, NULL);
}

static int save(struct favo_pci_device *pci, struct favo_state_out *out,
		struct favo_err *err)
{
	(void)pci;
	(void)out;
	return favo_fail(err, ENOTSUP,
			 "a VM with RDMA cannot be saved: its peers would "
			 "lose what is under way");
}

static int load(struct favo_pci_device *pci, struct favo_state_in *in,
		struct favo_err *err)
{
	(void)in;
	return save(pci, NULL, err);
}

static void stats(struct favo_pci_device *pci, json_t *object)
{
	struct pvrdma *dev = from_pci(pci);
	unsigned ram = 0;

	for (unsigned i = 0; i < FAVO_HCA_UARS; i++)
		ram += dev->slots[i] >= 0;
	json_object_set_new(object, "connected", json_boolean(dev->link.fd >= 0));
	json_object_set_new(object, "requests",
			    json_integer((json_int_t)dev->link.requests));
	json_object_set_new(object, "doorbell_exits",
			    json_integer((json_int_t)dev->bells));
	json_object_set_new(object, "doorbell_pages_without_exit", json_integer(ram));
	json_object_set_new(object, "failures",
			    json_integer((json_int_t)dev->link.failures));
}

static void release(struct favo_pci_device *pci)
{
	struct pvrdma *dev = from_pci(pci);

	favo_watch_del(&dev->watch);
	for (unsigned i = 0; i < FAVO_HCA_UARS; i++)
		favo_vm_unmap(pci->vm, dev->slots[i]);
	favo_pci_fini(pci);
	favo_hca_link_close(&dev->link);
	free(dev);
}

static const struct favo_pci_ops ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.config_written = config_written,
	.bus_master = bus_master,
	.reset = reset,
	.pause = set_paused,
	.save = save,
	.load = load,
	.stats = stats,
	.free = release,
};

/* ---- set-up -------------------------------------------------------------- */

struct words {
	const char *hca_fd, *mac;
};

static int add_function(struct pvrdma *dev, struct favo_vm *vm, uint8_t devfn,
			struct favo_err *err)
{
	static const struct favo_pci_id id = {
		.vendor = VENDOR_VMWARE,
		.device = DEVICE_PVRDMA,
		.subsys_vendor = VENDOR_VMWARE,
		.subsys_device = DEVICE_PVRDMA,
		.class_code = 0x028000, /* network controller, other */
		.revision = 1,
	};
	struct favo_pci_device *pci = &dev->pci;
	int ret = favo_pci_init(pci, vm, "pvrdma", &id, devfn, &ops, err);

	ret = ret ? ret
		  : favo_pci_set_bar(pci, BAR_MSIX, FAVO_BAR_MEM32, BAR_MSIX_SIZE, false,
				     err);
	ret = ret ? ret
		  : favo_pci_set_bar(pci, BAR_REGS, FAVO_BAR_MEM32, BAR_REGS_SIZE, false,
				     err);
	ret = ret ? ret
		  : favo_pci_set_bar(pci, BAR_UAR, FAVO_BAR_MEM64,
				     (uint64_t)FAVO_HCA_UARS * FAVO_HCA_UAR_SIZE, false,
				     err);
	return ret ? ret
		   : favo_pci_add_msix(pci, BAR_MSIX, FAVO_HCA_VECTORS, 0, MSIX_PBA, err);
}

/* Takes over fd. */
static int connect_hca(struct pvrdma *dev, int fd, struct favo_err *err)
{
	int vectors[FAVO_HCA_VECTORS], ret = 0;

	for (unsigned i = 0; ret >= 0 && i < FAVO_HCA_VECTORS; i++)
		ret = vectors[i] = favo_pci_notify_fd(&dev->pci, i, err);
	if (ret < 0) {
		close(fd);
		return ret;
	}
	ret = favo_hca_link_open(&dev->link, fd, dev->pci.vm->mem, dev->mac, vectors,
				 err);
	ret = ret ? ret
		  : favo_watch_add(dev->pci.vm->loop, &dev->watch, dev->link.event_fd,
				   EPOLLIN, on_event, err);
	return ret ? ret : favo_pci_add(&dev->pci, err);
}

static int add_device(struct favo_vm *vm, const struct favo_pci_device *card,
		      const uint8_t mac[6], int fd, struct favo_err *err)
{
	struct pvrdma *dev = calloc(1, sizeof(*dev));
	int ret;

	if (!dev) {
		close(fd);
		return favo_fail(err, ENOMEM, "allocate device");
	}
	dev->link = (struct favo_hca_link){.fd = -1, .event_fd = -1, .kick_fd = -1};
	memset(dev->slots, 0xff, sizeof(dev->slots));
	memcpy(dev->mac, mac, sizeof(dev->mac));
	ret = add_function(dev, vm, card->devfn | 1, err);
	if (ret < 0)
		close(fd);
	else
		ret = connect_hca(dev, fd, err);
	if (ret < 0) {
		favo_watch_del(&dev->watch);
		favo_pci_fini(&dev->pci);
		favo_hca_link_close(&dev->link);
		free(dev);
	}
	return ret;
}

int favo_pvrdma_add(struct favo_vm *vm, const char *spec, struct favo_err *err)
{
	favo_autofree char *copy = strdup(spec);
	struct words words = {0};
	const struct favo_spec_key keys[] = {
		{.name = "hca-fd", .value = &words.hca_fd},
		{.name = "mac", .value = &words.mac},
	};
	struct favo_pci_device *card;
	uint8_t mac[6];
	int fd, ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "allocate option");
	ret = favo_spec_parse(copy, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret == 0 && !words.hca_fd)
		ret = favo_fail(err, EINVAL, "hca-fd=N is needed");
	if (ret == 0 && words.mac)
		ret = favo_mac_parse(mac, words.mac, err);
	if (ret < 0)
		return ret;
	card = favo_vmxnet3_find(vm, words.mac ? mac : NULL);
	if (!card)
		return favo_fail(err, EINVAL,
				 "it needs a network card --net ...,model=vmxnet3%s",
				 words.mac ? " with that address" : "");
	favo_vmxnet3_mac(card, mac);
	ret = favo_spec_fd(&fd, words.hca_fd, err);
	return ret ? ret : add_device(vm, card, mac, fd, err);
}
