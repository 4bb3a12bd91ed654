/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: favo-hca with a guest, and a favo-vmm, that send anything. The
 * input is a list of steps: requests (DSR, commands with fields of the input),
 * writes to guest memory (directories, ring indices, work requests), doorbells,
 * answers about doorbell pages, turns of the loop. Objects are made well enough
 * at first that the later steps find some.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/hca/hca.h"

#define RAM (256u << 10)
#define STEPS_MAX 300
#define UAR_BASE 0xd0000000ULL

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct input {
	const uint8_t *p;
	size_t left;
};

/* Fixed places in guest memory. */
enum { DSR = 0, CMD = 4096, RESP = 8192, DIR = 12288, TABLE = 16384, PAGES = 20480 };

static uint64_t take(struct input *in, size_t n)
{
	uint64_t v = 0;

	n = FAVO_MIN(n, in->left);
	memcpy(&v, in->p, n);
	in->p += n;
	in->left -= n;
	return v;
}

static int memory(size_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC | MFD_ALLOW_SEALING);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		abort();
	return fd;
}

/* HELLO with a region table of the input, or a good one. */
static struct hca_vm *new_vm(struct favo_hca *hca, struct input *in, int *wire)
{
	struct favo_hca_hello h = {.version = 1, .nslots = 1, .slots = {{.size = RAM}}};
	int fds[FAVO_HCA_FD_RAM + 1], pair[2];
	struct hca_vm *vm;

	if (take(in, 1) & 1) {
		h.nslots = (uint32_t)take(in, 1);
		for (unsigned i = 0; i < FAVO_HCA_SLOTS_MAX; i++)
			h.slots[i] = (struct favo_hca_slot){.gpa = take(in, 8),
							    .size = take(in, 4),
							    .fd_offset = take(in, 3),
							    .fd = (uint32_t)take(in, 1)};
	}
	if (favo_hca_vm_new(&vm, hca, NULL) < 0)
		abort();
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, pair))
		abort();
	fds[FAVO_HCA_FD_SHARED] = memory(sizeof(struct favo_hca_shared));
	for (unsigned i = FAVO_HCA_FD_VECTORS; i <= FAVO_HCA_FD_KICK; i++)
		fds[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	fds[FAVO_HCA_FD_EVENTS] = pair[0];
	*wire = pair[1];
	fds[FAVO_HCA_FD_RAM] = memory(RAM);
	if (favo_hca_vm_hello(vm, &h, fds, FAVO_ARRAY_SIZE(fds), NULL) < 0) {
		favo_hca_vm_free(vm);
		vm = NULL;
	}
	for (unsigned i = 0; i < FAVO_ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return vm;
}

static int request(struct hca_vm *vm, uint32_t type, uint64_t arg)
{
	struct favo_hca_request req = {.type = type, .arg = arg};
	uint32_t flags;

	return favo_hca_vm_request(vm, &req, &flags);
}

static void put(struct hca_vm *vm, uint64_t gpa, const void *buf, size_t len)
{
	void *p = favo_hca_guest_ptr(&vm->guest, gpa, len);

	if (p)
		memcpy(p, buf, len);
}

static void put64(struct hca_vm *vm, uint64_t gpa, uint64_t v)
{
	put(vm, gpa, &v, sizeof(v));
}

static void command(struct hca_vm *vm, const union pvrdma_req *q)
{
	put(vm, CMD, q, sizeof(*q));
	request(vm, FAVO_HCA_COMMAND, 0);
}

static void activate(struct hca_vm *vm)
{
	struct pvrdma_dsr dsr = {.cmd_slot_dma = CMD,
				 .resp_slot_dma = RESP,
				 .async_ring = {4, 0, DIR},
				 .cq_ring = {4, 0, DIR}};

	put(vm, DSR, &dsr, sizeof(dsr));
	put64(vm, DIR, TABLE);
	for (unsigned i = 0; i < 32; i++)
		put64(vm, TABLE + 8 * i, PAGES + 4096 * i);
	request(vm, FAVO_HCA_UAR_BASE, UAR_BASE);
	request(vm, FAVO_HCA_BUS_MASTER, 1);
	request(vm, FAVO_HCA_DSR, DSR);
	request(vm, FAVO_HCA_ACTIVATE, 0);
}

/* Context 1, PD 1, MR 1, CQ 1 and two queue pairs that are each other's peers. */
static void objects(struct hca_vm *vm, uint8_t type)
{
	union pvrdma_req q = {.hdr.cmd = PVRDMA_CMD_CREATE_UC};

	q.create_uc.pfn = (UAR_BASE >> 12) + 1;
	command(vm, &q);
	q = (union pvrdma_req){.create_pd = {{.cmd = PVRDMA_CMD_CREATE_PD}, 1}};
	command(vm, &q);
	q = (union pvrdma_req){
		.create_mr = {
			{.cmd = PVRDMA_CMD_CREATE_MR}, 0, 65536, DIR, 1, 15, 0, 16}};
	command(vm, &q);
	q = (union pvrdma_req){
		.create_cq = {{.cmd = PVRDMA_CMD_CREATE_CQ}, DIR, 1, 64, 2}};
	command(vm, &q);
	q = (union pvrdma_req){.create_bind = {.hdr.cmd = PVRDMA_CMD_CREATE_BIND,
					       .gid.raw[15] = 1,
					       .gid_type = 2}};
	command(vm, &q);
	for (uint32_t i = 0; i < 2; i++) {
		q = (union pvrdma_req){.create_qp = {.hdr.cmd = PVRDMA_CMD_CREATE_QP,
						     .pdir_dma = DIR,
						     .pd_handle = 1,
						     .send_cq = 1,
						     .recv_cq = 1,
						     .max_send_wr = 16,
						     .max_recv_wr = 16,
						     .max_send_sge = 2,
						     .max_recv_sge = 2,
						     .total_chunks = 3,
						     .send_chunks = 1,
						     .qp_type = type}};
		command(vm, &q);
		for (uint32_t state = PVRDMA_INIT; state <= PVRDMA_RTS; state++) {
			q = (union pvrdma_req){
				.modify_qp = {.hdr.cmd = PVRDMA_CMD_MODIFY_QP,
					      .qp_handle = 2 + i,
					      .attr_mask =
						      1 | 1 << 3 | 1 << 7 | 1 << 20}};
			q.modify_qp.attrs.qp_state = state;
			q.modify_qp.attrs.qp_access_flags = 15;
			q.modify_qp.attrs.dest_qp_num = (uint32_t)(2 - i) << 16 | (3 - i);
			q.modify_qp.attrs.ah_attr.dgid.raw[15] = 1;
			command(vm, &q);
		}
	}
}

static void step(struct favo_hca *hca, struct hca_vm *vm, struct input *in)
{
	union pvrdma_req q = {0};
	uint64_t at;
	size_t len;

	switch (take(in, 1) % 8) {
	case 0:
		q.hdr.cmd = (uint32_t)take(in, 1) % (PVRDMA_CMDS + 1);
		len = take(in, 1);
		len = FAVO_MIN(len, sizeof(q) - sizeof(q.hdr));
		len = FAVO_MIN(len, in->left);
		memcpy(q.raw + sizeof(q.hdr), in->p, len);
		in->p += len;
		in->left -= len;
		command(vm, &q);
		break;
	case 1:
		request(vm, (uint32_t)take(in, 1) % 14, take(in, 8));
		break;
	case 2:
	case 3:
		at = PAGES + take(in, 3) % (32 * 4096);
		len = take(in, 1);
		len = FAVO_MIN(len, in->left);
		if (len)
			put(vm, at, in->p, len);
		in->p += len;
		in->left -= len;
		break;
	case 4: /* indices of the first page, which all queues share */
		put(vm, PAGES + take(in, 1) % 4 * 4, &(uint32_t){(uint32_t)take(in, 4)},
		    4);
		break;
	case 5:
		favo_hca_bell_push(vm->shared, (uint32_t)take(in, 3),
				   (uint32_t)take(in, 4));
		break;
	case 6:
		favo_hca_uar_answer(vm, &(struct favo_hca_uar_mode){
						FAVO_HCA_UAR_MODE, (uint32_t)take(in, 1),
						(uint32_t)take(in, 2),
						(uint32_t)take(in, 1)});
		break;
	case 7:
		put64(vm, DIR + take(in, 2) % 8192 / 8 * 8, take(in, 8));
		break;
	}
	favo_hca_poll_all(hca);
	favo_hca_poll(hca);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static struct favo_hca hca;
	struct input in = {data, size};
	int wire = -1;
	struct hca_vm *vm = new_vm(&hca, &in, &wire);

	if (vm) {
		activate(vm);
		objects(vm, take(&in, 1) & 1 ? PVRDMA_QPT_UD : PVRDMA_QPT_RC);
		for (unsigned i = 0; i < STEPS_MAX && in.left; i++)
			step(&hca, vm, &in);
		favo_hca_vm_free(vm);
	}
	close(wire);
	return 0;
}
