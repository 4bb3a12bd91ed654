/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * virtio over PCI, modern only: virtio 1.2 section 4.1.
 *
 * BAR 0, one page per structure so that each can get its own memory slot or
 * ioeventfd: 0 common configuration, 0x1000 ISR, 0x2000 device configuration,
 * 0x3000 notifications (4 bytes per queue), 0x4000 MSI-X table, 0x5000 pending
 * bits. A queue's notification is an ioeventfd; without KVM behind it the write
 * arrives here and signals the same eventfd. No INTx: a driver without MSI-X
 * must poll.
 */
#include "hypervisor/virtio/virtio.h"

#include <stddef.h>
#include <string.h>

#include <linux/pci_regs.h>
#include <linux/virtio_pci.h>
#include <sys/eventfd.h>

#include "common/util.h"
#include "hypervisor/vm.h"

#define BAR 0
#define BAR_SIZE 0x8000
#define PAGE 0x1000
#define COMMON 0x0000
#define ISR 0x1000
#define DEVICE 0x2000
#define NOTIFY 0x3000
#define MSIX_TABLE 0x4000
#define MSIX_PBA 0x5000
#define NOTIFY_STEP 4
#define VENDOR_REDHAT 0x1af4
#define NO_VECTOR 0xffff

/* Vector 0 is for configuration changes, then one for each queue. */
static unsigned nvectors(const struct favo_virtio *dev)
{
	return 1 + dev->nqueues;
}

static struct favo_virtio *from_pci(struct favo_pci_device *pci)
{
	return favo_container_of(pci, struct favo_virtio, pci);
}

static struct favo_virtio_queue *selected(struct favo_virtio *dev)
{
	return dev->queue_select < dev->nqueues ? &dev->queues[dev->queue_select] : NULL;
}

/* The 32 bits of features that select chooses. */
static uint32_t feature_word(uint64_t features, uint32_t select)
{
	return select == 0   ? (uint32_t)features
	       : select == 1 ? (uint32_t)(features >> 32)
			     : 0;
}

static void fill_common(struct favo_virtio *dev, struct virtio_pci_common_cfg *c)
{
	struct favo_virtio_queue *queue = selected(dev);

	memset(c, 0, sizeof(*c));
	c->device_feature_select = htole32(dev->device_feature_select);
	c->device_feature =
		htole32(feature_word(dev->offered, dev->device_feature_select));
	c->guest_feature_select = htole32(dev->driver_feature_select);
	c->guest_feature =
		htole32(feature_word(dev->features, dev->driver_feature_select));
	c->msix_config = htole16(dev->config_vector);
	c->num_queues = htole16((uint16_t)dev->nqueues);
	c->device_status = dev->status;
	c->config_generation = dev->generation;
	c->queue_select = htole16(dev->queue_select);
	c->queue_msix_vector = htole16(NO_VECTOR);
	if (!queue)
		return; /* size 0: no such queue */
	c->queue_size = htole16(queue->vq.size);
	c->queue_msix_vector = htole16(queue->vector);
	c->queue_enable = htole16(queue->vq.enabled);
	c->queue_notify_off = htole16(dev->queue_select);
	c->queue_desc_lo = htole32((uint32_t)queue->vq.desc_gpa);
	c->queue_desc_hi = htole32((uint32_t)(queue->vq.desc_gpa >> 32));
	c->queue_avail_lo = htole32((uint32_t)queue->vq.avail_gpa);
	c->queue_avail_hi = htole32((uint32_t)(queue->vq.avail_gpa >> 32));
	c->queue_used_lo = htole32((uint32_t)queue->vq.used_gpa);
	c->queue_used_hi = htole32((uint32_t)(queue->vq.used_gpa >> 32));
}

static void write_features(struct favo_virtio *dev, uint32_t value)
{
	/* Fixed once FEATURES_OK was accepted. */
	if (dev->status & VIRTIO_CONFIG_S_FEATURES_OK)
		return;
	if (dev->driver_feature_select == 0)
		dev->features = (dev->features & ~0xffffffffULL) | value;
	else if (dev->driver_feature_select == 1)
		dev->features = (dev->features & 0xffffffffULL) | (uint64_t)value << 32;
}

static uint16_t checked_vector(const struct favo_virtio *dev, uint64_t value)
{
	return value < nvectors(dev) ? (uint16_t)value : NO_VECTOR;
}

/* Half of a ring address; len 8 writes both halves at once. */
static void write_address(uint64_t *gpa, bool high, uint64_t value, unsigned len)
{
	if (len == 8)
		*gpa = value;
	else if (high)
		*gpa = (*gpa & 0xffffffffULL) | value << 32;
	else
		*gpa = (*gpa & ~0xffffffffULL) | (uint32_t)value;
}

/* Addresses and size hold still while the queue is enabled. */
static void write_queue(struct favo_virtio *dev, uint64_t off, uint64_t value,
			unsigned len)
{
	struct favo_virtio_queue *queue = selected(dev);

	if (!queue)
		return;
	if (off == VIRTIO_PCI_COMMON_Q_MSIX) {
		queue->vector = checked_vector(dev, value);
		return;
	}
	if (queue->vq.enabled)
		return;
	switch (off) {
	case VIRTIO_PCI_COMMON_Q_SIZE:
		queue->vq.size = (uint16_t)value;
		break;
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		/* A queue cannot join a device that runs. */
		if (value == 1 && !(dev->status & VIRTIO_CONFIG_S_DRIVER_OK))
			queue->vq.enabled = true;
		break;
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
		write_address(&queue->vq.desc_gpa, off == VIRTIO_PCI_COMMON_Q_DESCHI,
			      value, len);
		break;
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
		write_address(&queue->vq.avail_gpa, off == VIRTIO_PCI_COMMON_Q_AVAILHI,
			      value, len);
		break;
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		write_address(&queue->vq.used_gpa, off == VIRTIO_PCI_COMMON_Q_USEDHI,
			      value, len);
		break;
	default:
		break;
	}
}

/* The width that section 4.1.3.1 demands for the field at off, 0 if there is none. */
static unsigned field_width(uint64_t off)
{
	switch (off) {
	case VIRTIO_PCI_COMMON_STATUS:
		return 1;
	case VIRTIO_PCI_COMMON_MSIX:
	case VIRTIO_PCI_COMMON_Q_SELECT:
	case VIRTIO_PCI_COMMON_Q_SIZE:
	case VIRTIO_PCI_COMMON_Q_MSIX:
	case VIRTIO_PCI_COMMON_Q_ENABLE:
		return 2;
	case VIRTIO_PCI_COMMON_DFSELECT:
	case VIRTIO_PCI_COMMON_GFSELECT:
	case VIRTIO_PCI_COMMON_GF:
	case VIRTIO_PCI_COMMON_Q_DESCLO:
	case VIRTIO_PCI_COMMON_Q_DESCHI:
	case VIRTIO_PCI_COMMON_Q_AVAILLO:
	case VIRTIO_PCI_COMMON_Q_AVAILHI:
	case VIRTIO_PCI_COMMON_Q_USEDLO:
	case VIRTIO_PCI_COMMON_Q_USEDHI:
		return 4;
	default:
		return 0;
	}
}

static bool takes_eight(uint64_t off)
{
	return off == VIRTIO_PCI_COMMON_Q_DESCLO || off == VIRTIO_PCI_COMMON_Q_AVAILLO ||
	       off == VIRTIO_PCI_COMMON_Q_USEDLO;
}

static void write_common(struct favo_virtio *dev, uint64_t off, uint64_t value,
			 unsigned len)
{
	if (len != field_width(off) && !(len == 8 && takes_eight(off)))
		return;
	/* While a reset is under way, only the reset counts. */
	if (dev->resetting)
		return;
	switch (off) {
	case VIRTIO_PCI_COMMON_STATUS:
		favo_virtio_set_status(dev, (uint8_t)value);
		break;
	case VIRTIO_PCI_COMMON_DFSELECT:
		dev->device_feature_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GFSELECT:
		dev->driver_feature_select = (uint32_t)value;
		break;
	case VIRTIO_PCI_COMMON_GF:
		write_features(dev, (uint32_t)value);
		break;
	case VIRTIO_PCI_COMMON_MSIX:
		dev->config_vector = checked_vector(dev, value);
		break;
	case VIRTIO_PCI_COMMON_Q_SELECT:
		dev->queue_select = (uint16_t)value;
		break;
	default:
		write_queue(dev, off, value, len);
	}
}

static uint64_t bytes_to_value(const void *bytes, size_t total, uint64_t off,
			       unsigned len)
{
	uint64_t value = 0;

	if (off < total)
		memcpy(&value, (const char *)bytes + off, FAVO_MIN(len, total - off));
	return le64toh(value);
}

static uint64_t transport_read(struct favo_pci_device *pci, unsigned bar, uint64_t offset,
			       unsigned len)
{
	struct favo_virtio *dev = from_pci(pci);
	struct virtio_pci_common_cfg common;
	uint64_t off = offset % PAGE;
	uint8_t isr;

	(void)bar;
	switch (offset - off) {
	case COMMON:
		fill_common(dev, &common);
		return bytes_to_value(&common, sizeof(common), off, len);
	case ISR:
		if (off != 0)
			return 0;
		isr = dev->isr;
		dev->isr = 0;
		return isr;
	case DEVICE:
		return bytes_to_value(dev->config, dev->config_len, off, len);
	default:
		return 0;
	}
}

static void transport_write(struct favo_pci_device *pci, unsigned bar, uint64_t offset,
			    uint64_t value, unsigned len)
{
	struct favo_virtio *dev = from_pci(pci);
	uint64_t off = offset % PAGE, le = htole64(value);

	(void)bar;
	switch (offset - off) {
	case COMMON:
		write_common(dev, off, value, len);
		break;
	case DEVICE:
		if (!dev->ops->config_written || off + len > dev->config_len)
			break;
		memcpy(dev->config + off, &le, len);
		dev->ops->config_written(dev, (unsigned)off, len);
		break;
	case NOTIFY:
		if (off / NOTIFY_STEP < dev->nqueues)
			eventfd_write(dev->queues[off / NOTIFY_STEP].kick_fd, 1);
		break;
	default:
		break;
	}
}

/*
 * Access to BARs through configuration space (section 4.1.4.9), for firmware
 * that cannot reach MMIO. Configuration space is read without an exit, so the
 * answer to a read is put there as soon as the window is set. Reading the ISR
 * has a side effect and is left out.
 */
static void transport_config_written(struct favo_pci_device *pci, unsigned offset,
				     unsigned len)
{
	struct favo_virtio *dev = from_pci(pci);
	unsigned cap = dev->pci_cfg_cap;
	unsigned data = cap + offsetof(struct virtio_pci_cfg_cap, pci_cfg_data);
	uint32_t at, width;

	if (!cap || offset + len <= cap ||
	    offset >= cap + sizeof(struct virtio_pci_cfg_cap))
		return;
	at = favo_pci_config_get(pci, cap + offsetof(struct virtio_pci_cap, offset), 4);
	width = favo_pci_config_get(pci, cap + offsetof(struct virtio_pci_cap, length),
				    4);
	if (favo_pci_config_get(pci, cap + offsetof(struct virtio_pci_cap, bar), 1) !=
		    BAR ||
	    (width != 1 && width != 2 && width != 4) || at % width || at >= MSIX_TABLE ||
	    at / PAGE == ISR / PAGE)
		return;
	if (offset + len > data)
		transport_write(pci, BAR, at, favo_pci_config_get(pci, data, width),
				width);
	favo_pci_config_set(pci, data, width,
			    (uint32_t)transport_read(pci, BAR, at, width));
}

static void transport_bus_master(struct favo_pci_device *pci, bool on)
{
	(void)on;
	favo_virtio_update(from_pci(pci));
}

static void transport_reset(struct favo_pci_device *pci)
{
	favo_virtio_reset(from_pci(pci));
}

static void transport_stats(struct favo_pci_device *pci, json_t *object)
{
	struct favo_virtio *dev = from_pci(pci);
	json_t *queues = json_array();

	for (unsigned q = 0; q < dev->nqueues; q++) {
		const struct favo_virtio_queue *queue = &dev->queues[q];

		json_array_append_new(queues,
				      json_pack("{s:I, s:I, s:I}", "requests",
						(json_int_t)queue->vq.requests, "kicks",
						(json_int_t)queue->kicks, "interrupts",
						(json_int_t)queue->interrupts));
	}
	json_object_set_new(object, "status", json_integer(dev->status));
	json_object_set_new(object, "features", json_integer((json_int_t)dev->features));
	json_object_set_new(object, "failures", json_integer((json_int_t)dev->failures));
	if (dev->why)
		json_object_set_new(object, "why", json_string(dev->why));
	json_object_set_new(object, "queues", queues);
	if (dev->ops->stats)
		dev->ops->stats(dev, object);
}

static void transport_pause(struct favo_pci_device *pci, bool pause)
{
	favo_virtio_pause(from_pci(pci), pause);
}

static int transport_save(struct favo_pci_device *pci, struct favo_state_out *out,
			  struct favo_err *err)
{
	return favo_virtio_save(from_pci(pci), out, err);
}

static int transport_load(struct favo_pci_device *pci, struct favo_state_in *in,
			  struct favo_err *err)
{
	return favo_virtio_load(from_pci(pci), in, err);
}

static void transport_free(struct favo_pci_device *pci)
{
	struct favo_virtio *dev = from_pci(pci);

	dev->ops->free(dev);
}

static const struct favo_pci_ops transport_ops = {
	.bar_read = transport_read,
	.bar_write = transport_write,
	.config_written = transport_config_written,
	.bus_master = transport_bus_master,
	.reset = transport_reset,
	.stats = transport_stats,
	.pause = transport_pause,
	.save = transport_save,
	.load = transport_load,
	.free = transport_free,
};

/* Put one of the vendor capabilities that say where a structure lies. */
static int add_window(struct favo_virtio *dev, uint8_t type, uint32_t offset,
		      uint32_t length, struct favo_err *err)
{
	struct virtio_pci_notify_cap cap = {
		.cap =
			{
				.cap_len = sizeof(struct virtio_pci_cap),
				.cfg_type = type,
				.bar = BAR,
				.offset = htole32(offset),
				.length = htole32(length),
			},
		.notify_off_multiplier = htole32(NOTIFY_STEP),
	};
	unsigned skip = offsetof(struct virtio_pci_cap, cap_len);

	if (type == VIRTIO_PCI_CAP_NOTIFY_CFG)
		cap.cap.cap_len = sizeof(cap);
	return favo_pci_add_cap(&dev->pci, PCI_CAP_ID_VNDR, (uint8_t *)&cap + skip, NULL,
				cap.cap.cap_len - skip, err);
}

static int add_config_window(struct favo_virtio *dev, struct favo_err *err)
{
	struct virtio_pci_cfg_cap cap = {
		.cap = {.cap_len = sizeof(cap), .cfg_type = VIRTIO_PCI_CAP_PCI_CFG},
	};
	struct virtio_pci_cfg_cap wmask = {
		.cap = {.bar = 0xff, .offset = 0xffffffff, .length = 0xffffffff},
		.pci_cfg_data = {0xff, 0xff, 0xff, 0xff},
	};
	unsigned skip = offsetof(struct virtio_pci_cap, cap_len);
	int ret;

	ret = favo_pci_add_cap(&dev->pci, PCI_CAP_ID_VNDR, (uint8_t *)&cap + skip,
			       (uint8_t *)&wmask + skip, sizeof(cap) - skip, err);
	if (ret > 0)
		dev->pci_cfg_cap = (uint8_t)ret;
	return ret;
}

static int add_structures(struct favo_virtio *dev, struct favo_err *err)
{
	int ret;

	ret = favo_pci_set_bar(&dev->pci, BAR, FAVO_BAR_MEM32, BAR_SIZE, false, err);
	if (ret < 0)
		return ret;
	ret = favo_pci_add_msix(&dev->pci, BAR, nvectors(dev), MSIX_TABLE, MSIX_PBA, err);
	if (ret < 0)
		return ret;
	ret = add_window(dev, VIRTIO_PCI_CAP_COMMON_CFG, COMMON,
			 sizeof(struct virtio_pci_common_cfg), err);
	if (ret < 0)
		return ret;
	ret = add_window(dev, VIRTIO_PCI_CAP_ISR_CFG, ISR, 1, err);
	if (ret < 0)
		return ret;
	ret = add_window(dev, VIRTIO_PCI_CAP_NOTIFY_CFG, NOTIFY,
			 dev->nqueues * NOTIFY_STEP, err);
	if (ret < 0)
		return ret;
	if (dev->config_len)
		ret = add_window(dev, VIRTIO_PCI_CAP_DEVICE_CFG, DEVICE, dev->config_len,
				 err);
	return ret < 0 ? ret : add_config_window(dev, err);
}

int favo_virtio_transport_add(struct favo_virtio *dev, struct favo_vm *vm,
			      struct favo_err *err)
{
	struct favo_pci_id id = {
		.vendor = VENDOR_REDHAT,
		.device = (uint16_t)(0x1040 + dev->ops->id),
		.subsys_vendor = VENDOR_REDHAT,
		.subsys_device = (uint16_t)(0x1040 + dev->ops->id),
		.class_code = dev->ops->class_code,
		.revision = 1,
	};
	int ret;

	ret = favo_pci_init(&dev->pci, vm, dev->ops->name, &id, FAVO_PCI_AUTO,
			    &transport_ops, err);
	if (ret < 0)
		return ret;
	dev->on_pci = true;
	ret = add_structures(dev, err);
	for (unsigned q = 0; ret >= 0 && q < dev->nqueues; q++)
		ret = favo_pci_ioevent_add(&dev->pci, BAR, NOTIFY + q * NOTIFY_STEP, 0,
					   NULL, dev->queues[q].kick_fd, err);
	return ret < 0 ? ret : favo_pci_add(&dev->pci, err);
}

void favo_virtio_transport_fini(struct favo_virtio *dev)
{
	if (dev->on_pci)
		favo_pci_fini(&dev->pci);
	dev->on_pci = false;
}
