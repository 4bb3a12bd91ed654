/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: registers, set-up and rings of the vmxnet3 card. The input is a
 * list of steps, eight bytes each: write guest memory, write a register, let a
 * frame come in, let the loop work. The set-up that a right driver makes is
 * there from the start, so that a spoiled field is one step away.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/pci.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/vmxnet3/abi.h"
#include "hypervisor/vmxnet3/device.h"
#include "tests/unit/fake_kvm.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define MEM_SIZE (128 << 10)
#define SHARED 0x1000
#define QUEUES 0x2000
#define RINGS 0x3000
#define STEPS_MAX 100

static void stop(void *loop)
{
	favo_loop_stop(loop);
}

/* One pass over what is due. */
static void work(struct favo_vm *vm)
{
	if (favo_loop_post(vm->loop, stop, vm->loop) < 0)
		abort();
	favo_loop_run(vm->loop, NULL);
}

static void put(struct favo_vm *vm, uint64_t gpa, uint64_t value, size_t len)
{
	(void)favo_guest_write(vm->mem, gpa, &value, len);
}

static void prepare(struct favo_vm *vm)
{
	put(vm, SHARED + S_MAGIC, SHARED_MAGIC, 4);
	put(vm, SHARED + S_QUEUES_PA, QUEUES, 8);
	put(vm, SHARED + S_QUEUES_LEN, 512, 4);
	put(vm, SHARED + S_NUM_TX, 0x0101, 2);
	put(vm, SHARED + S_AUTO_MASK, 0x020301, 3);
	put(vm, SHARED + S_RX_MODE, RX_MODE_PROMISC, 4);
	for (unsigned i = 0; i < 2; i++) {
		uint64_t q = QUEUES + 256 * i, ring = RINGS + 0x3000 * i;

		put(vm, q + TQ_RING_PA, ring, 8);
		put(vm, q + RQ_RING_PA + 8, ring + 0x1000, 8);
		put(vm, q + TQ_COMP_PA, ring + 0x2000, 8);
		put(vm, q + TQ_RING_SIZE, 32, 4);
		put(vm, q + RQ_RING_SIZE + 4, 32, 4);
		put(vm, q + TQ_COMP_SIZE, 32, 4);
	}
}

static void step(struct favo_vm *vm, uint64_t pt, uint64_t vd, int wire,
		 const uint8_t *data)
{
	static const uint8_t frame[12 + 9000];
	uint32_t at = data[1] | (uint32_t)data[2] << 8, value;

	memcpy(&value, data + 4, sizeof(value));
	switch (data[0] % 8) {
	case 0:
	case 1:
		put(vm, at * 2, value, data[3] % 4 + 1);
		break;
	case 2:
		favo_iobus_write(vm->mmio, pt + at % 4096 / 4 * 4, value, 4);
		break;
	case 3:
		favo_iobus_write(vm->mmio, vd + at % 0x50 / 4 * 4, value, 4);
		break;
	case 4:
		(void)favo_iobus_read(vm->mmio, (at & 1 ? pt : vd) + at % 4096 / 8 * 8,
				      1u << data[3] % 4);
		break;
	case 5:
		(void)!send(wire, frame, at % sizeof(frame) + 1, MSG_DONTWAIT);
		break;
	case 6:
		favo_iobus_write(vm->mmio, vd + VD_CMD, CMD_ACTIVATE + at % 16, 4);
		break;
	default:
		favo_iobus_write(vm->mmio, pt + PT_TXPROD, 0, 4);
		work(vm);
		while (recv(wire, (char[1]){0}, 1, MSG_DONTWAIT) > 0)
			;
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_vm *vm = NULL;
	struct favo_pci_device *pci;
	uint64_t ecam, pt, vd;
	char spec[64];
	int pair[2];

	if (fake_vm_new(&vm, MEM_SIZE, NULL) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0)
		abort();
	snprintf(spec, sizeof(spec), "fd=%d,model=vmxnet3", pair[1]);
	if (favo_net_add(vm, spec, NULL) < 0)
		abort();
	pci = favo_vmxnet3_find(vm, NULL);
	ecam = FAVO_GPA_ECAM + pci->devfn * 4096ULL;
	favo_iobus_write(vm->mmio, ecam + 4, 6, 2);
	pt = favo_iobus_read(vm->mmio, ecam + 0x10, 4) & ~15ULL;
	vd = favo_iobus_read(vm->mmio, ecam + 0x14, 4) & ~15ULL;
	prepare(vm);
	favo_iobus_write(vm->mmio, vd + VD_DSAL, SHARED, 4);
	favo_iobus_write(vm->mmio, vd + VD_CMD, CMD_ACTIVATE, 4);
	for (unsigned i = 0; size >= 8 && i < STEPS_MAX; data += 8, size -= 8, i++)
		step(vm, pt, vd, pair[0], data);
	work(vm);
	fake_vm_free(vm);
	close(pair[0]);
	return 0;
}
