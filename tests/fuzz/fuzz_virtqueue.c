/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: virtqueues and devices on guest memory that the input fills, as
 * a hostile driver would. The first bytes choose device, features and queue
 * addresses, the rest is a list of steps: write guest memory, write a BAR or
 * configuration register, let the device work. No KVM and no threads.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include <linux/virtio_config.h>
#include <linux/virtio_pci.h>

#include "common/util.h"
#include "hypervisor/pci_internal.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"
#include "tests/unit/fake_kvm.h"

#define MEM_SIZE (256 << 10)
#define DISK_SIZE (64 << 10)
#define STEPS_MAX 200

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t left;
};

static uint64_t take(struct input *in, size_t n)
{
	uint64_t v = 0;

	n = FAVO_MIN(n, in->left);
	memcpy(&v, in->p, n);
	in->p += n;
	in->left -= n;
	return v;
}

static int memory_file(off_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, size) < 0)
		abort();
	return fd;
}

/* The wire end of a net device stays open: its frames are read and sent. */
static void add_device(struct favo_vm *vm, unsigned which, int *wire)
{
	char spec[64];
	int pair[2], ret = -1;

	switch (which % 7) {
	case 0:
		snprintf(spec, sizeof(spec), "fd=%d,io=sync,temp",
			 memory_file(DISK_SIZE));
		ret = favo_disk_add(vm, spec, NULL);
		break;
	case 1:
		snprintf(spec, sizeof(spec), "fd=%d,overlay-fd=%d,io=sync",
			 memory_file(DISK_SIZE), memory_file(0));
		ret = favo_disk_add(vm, spec, NULL);
		break;
	case 2:
		if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0,
			       pair) < 0)
			abort();
		*wire = pair[0];
		snprintf(spec, sizeof(spec), "fd=%d", pair[1]);
		ret = favo_net_add(vm, spec, NULL);
		break;
	case 3:
		ret = favo_rng_add(vm, NULL);
		break;
	case 4:
		snprintf(spec, sizeof(spec), "fd=%d,cap=4096", memory_file(0));
		ret = favo_console_add(vm, spec, NULL);
		break;
	case 5:
		ret = favo_balloon_add(vm, NULL);
		break;
	case 6:
		snprintf(spec, sizeof(spec), "fd=%d", memory_file(DISK_SIZE));
		ret = favo_pmem_add(vm, spec, NULL);
		break;
	}
	if (ret < 0)
		abort();
}

/* What the loop would do on a notification of queue q. */
static void turn(struct favo_virtio *dev, unsigned q)
{
	struct favo_virtio_queue *queue = &dev->queues[q];

	if (!queue->watch.fn)
		return;
	queue->watch.fn(&queue->watch, EPOLLIN);
}

static void frame(int wire, struct favo_virtio *dev, struct input *in)
{
	static const uint8_t zeros[3000];
	uint8_t buf[2048];
	size_t len = take(in, 2) % sizeof(zeros);

	if (wire < 0)
		return;
	if (write(wire, zeros, len) < 0 || read(wire, buf, sizeof(buf)) < 0)
		return;
	turn(dev, 0);
}

/* Bring the device up with queues where the input wants them. */
static void init_driver(struct favo_virtio *dev, struct input *in)
{
	const struct favo_pci_ops *ops = dev->pci.ops;
	uint64_t features = take(in, 8);
	uint8_t status = 3;

	ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_STATUS, 0, 1);
	ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_STATUS, status, 1);
	features = (features & dev->offered) | 1ULL << VIRTIO_F_VERSION_1;
	for (unsigned i = 0; i < 2; i++) {
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_GFSELECT, i, 4);
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_GF,
			       (uint32_t)(features >> 32 * i), 4);
	}
	ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_STATUS, status |= 8, 1);
	for (unsigned q = 0; q < dev->nqueues; q++) {
		uint64_t at = take(in, 3);

		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_Q_SELECT, q, 2);
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_Q_SIZE, 1U << (at & 7), 2);
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_Q_DESCLO, at & ~15ULL, 8);
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_Q_AVAILLO,
			       (at & ~15ULL) + 0x800, 8);
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_Q_USEDLO,
			       (at & ~15ULL) + 0xa00, 8);
		ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_Q_ENABLE, 1, 2);
	}
	ops->bar_write(&dev->pci, 0, VIRTIO_PCI_COMMON_STATUS, status | 4, 1);
}

static void write_memory(struct favo_vm *vm, struct input *in)
{
	uint64_t gpa = take(in, 3) % MEM_SIZE;
	size_t len = take(in, 1) % 64 + 1;

	len = FAVO_MIN(len, in->left);
	if (favo_guest_write(vm->mem, gpa, in->p, len) == 0) {
		in->p += len;
		in->left -= len;
	}
}

/* A well-formed descriptor with fields of the input, offered at once. */
static void offer(struct favo_virtio *dev, struct input *in)
{
	struct favo_vq *vq = &dev->queues[take(in, 1) % dev->nqueues].vq;
	uint16_t slot = (uint16_t)take(in, 1), idx = 0;
	struct vring_desc d = {
		.addr = take(in, 3),
		.len = (uint32_t)take(in, 2),
		.flags = (uint16_t)(take(in, 1) & 7),
		.next = (uint16_t)take(in, 1),
	};

	slot %= vq->size ? vq->size : 1;
	favo_guest_write(dev->mem, vq->desc_gpa + slot * sizeof(d), &d, sizeof(d));
	if (take(in, 1) & 1)
		return; /* part of a chain that another one begins */
	favo_guest_read(dev->mem, vq->avail_gpa + 2, &idx, 2);
	favo_guest_write(dev->mem,
			 vq->avail_gpa + 4 + 2 * (idx % (vq->size ? vq->size : 1U)),
			 &slot, 2);
	idx++;
	favo_guest_write(dev->mem, vq->avail_gpa + 2, &idx, 2);
}

static void step(struct favo_vm *vm, struct favo_virtio *dev, int wire, struct input *in)
{
	static const unsigned widths[] = {1, 2, 4, 8};
	unsigned len;
	uint64_t at;

	switch (take(in, 1) % 8) {
	case 0:
		write_memory(vm, in);
		break;
	case 1:
	case 2:
		offer(dev, in);
		break;
	case 3:
	case 4:
		turn(dev, (unsigned)take(in, 1) % dev->nqueues);
		break;
	case 5:
		len = widths[take(in, 1) & 3];
		at = take(in, 2) % 0x4000 / len * len;
		pthread_mutex_lock(&dev->pci.lock);
		dev->pci.ops->bar_write(&dev->pci, 0, at, take(in, len), len);
		dev->pci.ops->bar_read(&dev->pci, 0, at, len);
		pthread_mutex_unlock(&dev->pci.lock);
		break;
	case 6:
		frame(wire, dev, in);
		break;
	case 7:
		at = FAVO_GPA_ECAM + dev->pci.devfn * 4096ULL + take(in, 1) / 4 * 4;
		favo_iobus_write(vm->mmio, at, take(in, 4), 4);
		break;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct input in = {data, size};
	struct favo_virtio *dev;
	struct favo_vm *vm;
	int wire = -1;

	if (size < 16 || fake_vm_new(&vm, MEM_SIZE, NULL) < 0)
		return 0;
	add_device(vm, (unsigned)take(&in, 1), &wire);
	/* The only device of the bus; its BAR is off, its DMA is on. */
	favo_iobus_write(vm->mmio, FAVO_GPA_ECAM + 4, 6, 2);
	dev = favo_container_of(vm->pci->devs[0], struct favo_virtio, pci);
	init_driver(dev, &in);
	for (unsigned i = 0; i < STEPS_MAX && in.left; i++)
		step(vm, dev, wire, &in);
	fake_vm_free(vm);
	if (wire >= 0)
		close(wire);
	return 0;
}
