/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * vmxnet3, device revision 1 (Linux drivers/net/vmxnet3): the network card that
 * drivers of paravirtual RDMA expect as function 0 of their slot. PCI function,
 * registers, commands, interrupts. Several transmit queues; all frames that come
 * in go to the first receive queue. No wake on LAN, no VLAN filter, no INTx.
 *
 * A doorbell is an ioeventfd; without KVM behind it the write arrives here and
 * signals the same eventfd. Frames are moved by the VM's loop.
 */
#include <endian.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/memory.h"
#include "hypervisor/virtio/net_spec.h"
#include "hypervisor/vm.h"
#include "hypervisor/vmxnet3/abi.h"
#include "hypervisor/vmxnet3/device.h"
#include "hypervisor/vmxnet3/vmxnet3.h"

#define BAR_PT 0
#define BAR_VD 1
#define BAR_MSIX 2
#define PAGE 0x1000
#define PBA PAGE
#define RETRY_MS 1

static struct vmxnet3 *from_pci(struct favo_pci_device *pci)
{
	return favo_container_of(pci, struct vmxnet3, pci);
}

bool favo_vmxnet3_runs(const struct vmxnet3 *dev)
{
	return dev->active && !dev->paused && favo_pci_may_dma(&dev->pci);
}

/* ---- interrupts ---------------------------------------------------------- */

void favo_vmxnet3_raise(struct vmxnet3 *dev, unsigned vector)
{
	if (dev->masked[vector]) {
		dev->unseen[vector] = true;
		return;
	}
	dev->masked[vector] = dev->auto_mask;
	favo_pci_notify(&dev->pci, vector);
}

/* What came while it was masked is told at once, or the queue would stall. */
static void set_mask(struct vmxnet3 *dev, unsigned vector, bool masked)
{
	dev->masked[vector] = masked;
	if (masked || !dev->unseen[vector] || !dev->active)
		return;
	dev->unseen[vector] = false;
	favo_vmxnet3_raise(dev, vector);
}

void favo_vmxnet3_queue_error(struct vmxnet3 *dev, struct vmxnet3_queue *queue,
			      uint32_t event, const char *why)
{
	uint32_t code = htole32(QUEUE_ERROR_BAD_DESCRIPTOR);

	queue->stopped = true;
	dev->faults++;
	dev->why = why;
	queue->desc[TQ_STOPPED] = 1;
	memcpy(queue->desc + TQ_ERROR, &code, sizeof(code));
	favo_guest_dirty(dev->mem, queue->desc, QUEUE_DESC_SIZE);
	__atomic_or_fetch((uint32_t *)(dev->shared + S_ECR), htole32(event),
			  __ATOMIC_SEQ_CST);
	favo_guest_dirty(dev->mem, dev->shared + S_ECR, sizeof(event));
	favo_vmxnet3_raise(dev, dev->event_vector);
}

static void acknowledge(struct vmxnet3 *dev, uint32_t events)
{
	if (!favo_vmxnet3_runs(dev))
		return;
	__atomic_and_fetch((uint32_t *)(dev->shared + S_ECR), ~htole32(events),
			   __ATOMIC_SEQ_CST);
	favo_guest_dirty(dev->mem, dev->shared + S_ECR, sizeof(events));
}

/* ---- frames -------------------------------------------------------------- */

static void on_frames(struct favo_watch *watch, uint32_t events);

static void want_frames(struct vmxnet3 *dev, bool on)
{
	if (dev->watching == on)
		return;
	if (!on)
		favo_watch_del(&dev->tap_watch);
	else if (favo_watch_add(dev->loop, &dev->tap_watch, dev->tap.fd, EPOLLIN,
				on_frames, NULL) < 0)
		return;
	dev->watching = on;
}

/*
 * Without buffers the frames wait in the interface, which has its own limit. The
 * driver does not tell when it has added some, so it is looked at again.
 */
static void on_frames(struct favo_watch *watch, uint32_t events)
{
	struct vmxnet3 *dev = favo_container_of(watch, struct vmxnet3, tap_watch);
	struct vmxnet3_queue *q = &dev->rx[0];
	enum vmxnet3_rx got = VMXNET3_RX_DONE;

	(void)events;
	pthread_mutex_lock(&dev->pci.lock);
	if (dev->watching && favo_vmxnet3_runs(dev)) {
		uint32_t before = q->comp.next;

		for (unsigned i = 0;
		     i < VMXNET3_TURN && got == VMXNET3_RX_DONE && !q->stopped; i++)
			got = favo_vmxnet3_receive(dev, q);
		if (q->comp.next != before)
			favo_vmxnet3_raise(dev, q->vector);
		if (q->stopped || got == VMXNET3_RX_GONE || got == VMXNET3_RX_STARVED)
			want_frames(dev, false);
		if (got == VMXNET3_RX_STARVED)
			favo_timer_set(&dev->retry, RETRY_MS);
	}
	pthread_mutex_unlock(&dev->pci.lock);
}

static void on_retry(struct favo_timer *timer)
{
	struct vmxnet3 *dev = favo_container_of(timer, struct vmxnet3, retry);

	pthread_mutex_lock(&dev->pci.lock);
	if (favo_vmxnet3_runs(dev) && !dev->rx[0].stopped)
		want_frames(dev, true);
	pthread_mutex_unlock(&dev->pci.lock);
}

static void on_kick(struct favo_watch *watch, uint32_t events)
{
	struct vmxnet3 *dev = favo_container_of(watch, struct vmxnet3, kick_watch);
	unsigned budget = VMXNET3_TURN;

	(void)events;
	pthread_mutex_lock(&dev->pci.lock);
	/* A doorbell while nothing is active means nothing. */
	if (favo_vmxnet3_runs(dev)) {
		for (unsigned q = 0; q < dev->ntx; q++)
			favo_vmxnet3_send(dev, &dev->tx[q], &budget);
		if (!budget)
			eventfd_write(dev->kick_fd, 1);
	}
	pthread_mutex_unlock(&dev->pci.lock);
}

/* Frames move exactly while the device runs. */
static void update(struct vmxnet3 *dev)
{
	bool runs = favo_vmxnet3_runs(dev);

	want_frames(dev, runs && !dev->rx[0].stopped);
	if (runs)
		eventfd_write(dev->kick_fd, 1);
}

/* ---- commands ------------------------------------------------------------ */

static void deactivate(struct vmxnet3 *dev)
{
	dev->active = false;
	dev->shared = NULL;
	dev->ntx = dev->nrx = 0;
	memset(dev->tx, 0, sizeof(dev->tx));
	memset(dev->rx, 0, sizeof(dev->rx));
	update(dev);
}

/* Interrupts come masked, as after a reset; the driver opens them one by one. */
static void clear_registers(struct vmxnet3 *dev)
{
	deactivate(dev);
	memcpy(dev->mac, dev->permanent_mac, sizeof(dev->mac));
	dev->shared_gpa = 0;
	dev->result = 0;
	dev->rx_mode = 0;
	memset(dev->masked, true, sizeof(dev->masked));
	memset(dev->unseen, 0, sizeof(dev->unseen));
}

static uint32_t activate(struct vmxnet3 *dev)
{
	deactivate(dev);
	if (!favo_pci_may_dma(&dev->pci) || favo_vmxnet3_read_setup(dev) < 0) {
		deactivate(dev);
		return 1;
	}
	memset(dev->unseen, 0, sizeof(dev->unseen));
	dev->active = true;
	update(dev);
	return 0;
}

static uint32_t mac_word(const uint8_t mac[6], bool high)
{
	return high ? (uint32_t)mac[4] | (uint32_t)mac[5] << 8
		    : (uint32_t)mac[0] | (uint32_t)mac[1] << 8 | (uint32_t)mac[2] << 16 |
			       (uint32_t)mac[3] << 24;
}

/* Result of a command; commands that ask for nothing have 0. */
static uint32_t run_command(struct vmxnet3 *dev, uint32_t command)
{
	switch (command) {
	case CMD_ACTIVATE:
		return activate(dev);
	case CMD_QUIESCE:
		deactivate(dev);
		return 0;
	case CMD_RESET:
		clear_registers(dev);
		return 0;
	case CMD_UPDATE_RX_MODE:
		if (favo_vmxnet3_runs(dev))
			favo_vmxnet3_read_rx_mode(dev);
		return 0;
	case CMD_GET_STATS:
		if (favo_vmxnet3_runs(dev))
			favo_vmxnet3_put_stats(dev);
		return 0;
	case CMD_GET_LINK:
		return LINK_UP_10G;
	case CMD_GET_MAC_LO:
	case CMD_GET_MAC_HI:
		return mac_word(dev->permanent_mac, command == CMD_GET_MAC_HI);
	case CMD_GET_DID_LO:
	case CMD_GET_DID_HI:
		return UINT32_MAX;
	case CMD_GET_CONF_INTR:
		return CONF_INTR_MSIX_AUTO;
	default:
		return 0; /* filters, power management: nothing to do */
	}
}

/* ---- registers ----------------------------------------------------------- */

static uint64_t bar_read(struct favo_pci_device *pci, unsigned bar, uint64_t offset,
			 unsigned len)
{
	struct vmxnet3 *dev = from_pci(pci);

	(void)len;
	if (bar == BAR_PT)
		return offset % 8 == 0 && offset / 8 < VMXNET3_VECTORS
			       ? dev->masked[offset / 8]
			       : 0;
	if (bar != BAR_VD)
		return 0;
	switch (offset) {
	case VD_VRRS:
	case VD_UVRS:
		return 1; /* revision 1 only */
	case VD_CMD:
		return dev->result;
	case VD_MACL:
		return mac_word(dev->mac, false);
	case VD_MACH:
		return mac_word(dev->mac, true);
	default:
		return 0;
	}
}

static void write_pt(struct vmxnet3 *dev, uint64_t offset, uint32_t value)
{
	if (offset % 8)
		return;
	if (offset / 8 < VMXNET3_VECTORS)
		set_mask(dev, (unsigned)(offset / 8), value & 1);
	else if (offset >= PT_TXPROD && offset < PT_TXPROD + 8 * VMXNET3_QUEUES_MAX)
		eventfd_write(dev->kick_fd, 1);
}

static void write_vd(struct vmxnet3 *dev, uint64_t offset, uint32_t value)
{
	switch (offset) {
	case VD_DSAL:
		dev->shared_gpa = (dev->shared_gpa & ~0xffffffffULL) | value;
		break;
	case VD_DSAH:
		dev->shared_gpa = (dev->shared_gpa & 0xffffffffULL) | (uint64_t)value
									      << 32;
		break;
	case VD_CMD:
		dev->result = run_command(dev, value);
		break;
	case VD_MACL:
		value = htole32(value);
		memcpy(dev->mac, &value, 4);
		break;
	case VD_MACH:
		value = htole32(value);
		memcpy(dev->mac + 4, &value, 2);
		break;
	case VD_ECR:
		acknowledge(dev, value);
		break;
	default:
		break;
	}
}

static void bar_write(struct favo_pci_device *pci, unsigned bar, uint64_t offset,
		      uint64_t value, unsigned len)
{
	if (len != 4)
		return; /* no driver has other accesses */
	if (bar == BAR_PT)
		write_pt(from_pci(pci), offset, (uint32_t)value);
	else if (bar == BAR_VD)
		write_vd(from_pci(pci), offset, (uint32_t)value);
}

/* ---- life cycle ---------------------------------------------------------- */

static void bus_master(struct favo_pci_device *pci, bool on)
{
	(void)on;
	update(from_pci(pci));
}

static void reset(struct favo_pci_device *pci)
{
	clear_registers(from_pci(pci));
}

static void set_paused(struct favo_pci_device *pci, bool pause)
{
	struct vmxnet3 *dev = from_pci(pci);

	dev->paused = pause;
	update(dev);
}

/* What is in flight of RDMA beside it could not be saved either. */
static int save(struct favo_pci_device *pci, struct favo_state_out *out,
		struct favo_err *err)
{
	(void)pci;
	(void)out;
	return favo_fail(err, ENOTSUP,
			 "a VM with a vmxnet3 interface cannot be saved: start it with "
			 "model=virtio");
}

static int load(struct favo_pci_device *pci, struct favo_state_in *in,
		struct favo_err *err)
{
	(void)in;
	return save(pci, NULL, err);
}

static void stats(struct favo_pci_device *pci, json_t *object)
{
	struct vmxnet3 *dev = from_pci(pci);
	static const char *const names[] = {"tx_frames", "tx_bytes", "rx_frames",
					    "rx_bytes"};
	uint64_t sums[4] = {0};

	for (unsigned q = 0; q < 2 * VMXNET3_QUEUES_MAX; q++) {
		bool tx = q < VMXNET3_QUEUES_MAX;
		const struct vmxnet3_queue *queue =
			tx ? &dev->tx[q] : &dev->rx[q - VMXNET3_QUEUES_MAX];

		for (unsigned i = 0; i < STAT_NO_BUFFER; i++)
			sums[(tx ? 0 : 2) + i % 2] += queue->stats[i];
	}
	json_object_set_new(object, "active", json_boolean(dev->active));
	for (unsigned i = 0; i < 4; i++)
		json_object_set_new(object, names[i], json_integer((json_int_t)sums[i]));
	json_object_set_new(object, "failures", json_integer((json_int_t)dev->faults));
	if (dev->why)
		json_object_set_new(object, "why", json_string(dev->why));
}

static void release(struct favo_pci_device *pci)
{
	struct vmxnet3 *dev = from_pci(pci);

	want_frames(dev, false);
	favo_watch_del(&dev->kick_watch);
	favo_timer_fini(&dev->retry);
	favo_pci_fini(&dev->pci);
	favo_tap_fini(&dev->tap);
	favo_close(&dev->kick_fd);
	free(dev->bounce);
	free(dev);
}

static const struct favo_pci_ops ops = {
	.bar_read = bar_read,
	.bar_write = bar_write,
	.bus_master = bus_master,
	.reset = reset,
	.pause = set_paused,
	.save = save,
	.load = load,
	.stats = stats,
	.free = release,
};

/* ---- set-up -------------------------------------------------------------- */

static int add_bars(struct vmxnet3 *dev, struct favo_err *err)
{
	struct favo_pci_device *pci = &dev->pci;
	int ret = favo_pci_set_bar(pci, BAR_PT, FAVO_BAR_MEM32, PAGE, false, err);

	ret = ret ? ret : favo_pci_set_bar(pci, BAR_VD, FAVO_BAR_MEM32, PAGE, false, err);
	ret = ret ? ret
		  : favo_pci_set_bar(pci, BAR_MSIX, FAVO_BAR_MEM32, 2 * PAGE, false, err);
	ret = ret ? ret : favo_pci_add_msix(pci, BAR_MSIX, VMXNET3_VECTORS, 0, PBA, err);
	for (unsigned q = 0; ret == 0 && q < VMXNET3_QUEUES_MAX; q++)
		ret = favo_pci_ioevent_add(pci, BAR_PT, PT_TXPROD + 8 * q, 4, NULL,
					   dev->kick_fd, err);
	return ret ? ret : favo_pci_add(pci, err);
}

static int set_up(struct vmxnet3 *dev, struct favo_err *err)
{
	int ret = favo_timer_init(dev->loop, &dev->retry, on_retry, err);

	if (ret < 0)
		return ret;
	dev->bounce = malloc(VMXNET3_HEADER + VMXNET3_FRAME_MAX);
	if (!dev->bounce)
		return favo_fail(err, ENOMEM, "allocate device");
	ret = favo_tap_set_features(&dev->tap, 0);
	if (ret < 0)
		return favo_fail(err, -ret, "TUNSETOFFLOAD: %m");
	/* Edge-triggered: each signal comes through, and none needs a read. */
	ret = favo_watch_add(dev->loop, &dev->kick_watch, dev->kick_fd, EPOLLIN | EPOLLET,
			     on_kick, err);
	return ret ? ret : add_bars(dev, err);
}

int favo_vmxnet3_add(struct favo_vm *vm, struct favo_net_spec *spec, struct favo_err *err)
{
	static const struct favo_pci_id id = {
		.vendor = VMXNET3_VENDOR,
		.device = VMXNET3_DEVICE,
		.subsys_vendor = VMXNET3_VENDOR,
		.subsys_device = VMXNET3_DEVICE,
		.class_code = 0x020000,
		.revision = 1,
	};
	struct vmxnet3 *dev = calloc(1, sizeof(*dev));
	int ret;

	if (!dev)
		return favo_fail(err, ENOMEM, "allocate device");
	dev->kick_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ret = dev->kick_fd < 0 ? favo_fail(err, errno, "eventfd: %m") : 0;
	ret = ret ? ret
		  : favo_pci_init(&dev->pci, vm, "vmxnet3", &id, FAVO_PCI_AUTO, &ops,
				  err);
	if (ret < 0) {
		favo_close(&dev->kick_fd);
		free(dev);
		return ret;
	}
	dev->loop = vm->loop;
	dev->mem = vm->mem;
	dev->tap = spec->tap;
	spec->tap.fd = -1;
	memcpy(dev->permanent_mac, spec->mac, sizeof(dev->mac));
	memcpy(dev->mac, spec->mac, sizeof(dev->mac));
	memset(dev->masked, true, sizeof(dev->masked));
	ret = set_up(dev, err);
	if (ret < 0)
		release(&dev->pci);
	return ret;
}

struct favo_pci_device *favo_vmxnet3_find(struct favo_vm *vm, const uint8_t mac[6])
{
	for (unsigned slot = 0; slot < 32; slot++) {
		struct favo_pci_device *pci =
			favo_pci_device_at(vm->pci, FAVO_PCI_DEVFN(slot, 0));

		if (pci && pci->ops == &ops &&
		    (!mac || !memcmp(from_pci(pci)->permanent_mac, mac, 6)))
			return pci;
	}
	return NULL;
}

void favo_vmxnet3_mac(const struct favo_pci_device *card, uint8_t mac[6])
{
	const struct vmxnet3 *dev =
		favo_container_of((struct favo_pci_device *)card, struct vmxnet3, pci);

	memcpy(mac, dev->permanent_mac, sizeof(dev->permanent_mac));
}
