// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A VM's device: life from HELLO to the end of its connection, and what its
 * registers ask for. States: RESET, (DSR) CONFIGURED, (ACTIVATE) ACTIVE;
 * commands are refused in all but the last (CVE-2022-1050).
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hypervisor/hca/hca.h"

/* Objects may hold this many times the VM's memory in translated pages. */
#define PAGES_FACTOR 4
#define PAGES_EXTRA 65536

int favo_hca_vm_new(struct hca_vm **out, struct favo_hca *hca, struct favo_err *err)
{
	struct hca_vm *vm = calloc(1, sizeof(*vm));
	int ret;

	if (!vm)
		return favo_fail(err, ENOMEM, "new VM");
	vm->hca = hca;
	vm->sock = vm->events = vm->kick = -1;
	for (unsigned i = 0; i < FAVO_HCA_VECTORS; i++)
		vm->vectors[i] = -1;
	ret = favo_hca_table_init(&vm->pds, 1, PVRDMA_MAX_PD);
	ret = ret ? ret : favo_hca_table_init(&vm->mrs, 1, PVRDMA_MAX_MR);
	ret = ret ? ret : favo_hca_table_init(&vm->cqs, 1, PVRDMA_MAX_CQ);
	/* Handle 0 means something else to the provider, 1 is the GSI's number. */
	ret = ret ? ret : favo_hca_table_init(&vm->qps, 2, PVRDMA_MAX_QP);
	ret = ret ? ret : favo_hca_table_init(&vm->srqs, 1, PVRDMA_MAX_SRQ);
	for (vm->index = 0; ret == 0 && vm->index < HCA_VMS_MAX; vm->index++)
		if (!hca->vms[vm->index])
			break;
	if (ret == 0 && vm->index == HCA_VMS_MAX)
		ret = -EMFILE;
	if (ret < 0) {
		vm->index = HCA_VMS_MAX;
		favo_hca_vm_free(vm);
		return favo_fail(err, -ret, "new VM: %m");
	}
	hca->vms[vm->index] = vm;
	if (hca->vms_end <= vm->index)
		hca->vms_end = vm->index + 1;
	*out = vm;
	return 0;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void favo_hca_vm_free(struct hca_vm *vm)
{
	if (!vm)
		return;
	favo_hca_vm_reset(vm);
	if (vm->index < HCA_VMS_MAX)
		vm->hca->vms[vm->index] = NULL;
	favo_hca_table_fini(&vm->pds);
	favo_hca_table_fini(&vm->mrs);
	favo_hca_table_fini(&vm->cqs);
	favo_hca_table_fini(&vm->qps);
	favo_hca_table_fini(&vm->srqs);
	favo_hca_guest_unmap(&vm->guest);
	if (vm->shared)
		munmap(vm->shared, sizeof(*vm->shared));
	close_fd(&vm->sock);
	close_fd(&vm->events);
	close_fd(&vm->kick);
	for (unsigned i = 0; i < FAVO_HCA_VECTORS; i++)
		close_fd(&vm->vectors[i]);
	free(vm);
}

/* Never block on what favo-vmm gave us. */
static int take_fd(int *to, int *from)
{
	*to = *from;
	*from = -1;
	return fcntl(*to, F_SETFL, O_NONBLOCK);
}

int favo_hca_vm_hello(struct hca_vm *vm, const struct favo_hca_hello *hello, int *fds,
		      unsigned nfds, struct favo_err *err)
{
	int ret;

	if (hello->version != FAVO_HCA_VERSION)
		return favo_fail(err, EPROTO,
				 "HELLO: version %u, not %u: favo-vmm and "
				 "favo-hca are of different releases",
				 hello->version, FAVO_HCA_VERSION);
	if (vm->greeted || nfds <= FAVO_HCA_FD_RAM)
		return favo_fail(err, EPROTO, "HELLO: repeated or short");
	ret = favo_hca_check_memfd(fds[FAVO_HCA_FD_SHARED], sizeof(*vm->shared), err);
	if (ret < 0)
		return ret;
	vm->shared = mmap(NULL, sizeof(*vm->shared), PROT_READ | PROT_WRITE, MAP_SHARED,
			  fds[FAVO_HCA_FD_SHARED], 0);
	if (vm->shared == MAP_FAILED) {
		vm->shared = NULL;
		return favo_fail(err, errno, "map the shared area: %m");
	}
	ret = favo_hca_guest_map(&vm->guest, hello, fds + FAVO_HCA_FD_RAM,
				 nfds - FAVO_HCA_FD_RAM, err);
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < FAVO_HCA_VECTORS; i++)
		ret |= take_fd(&vm->vectors[i], &fds[FAVO_HCA_FD_VECTORS + i]);
	ret |= take_fd(&vm->kick, &fds[FAVO_HCA_FD_KICK]);
	ret |= take_fd(&vm->events, &fds[FAVO_HCA_FD_EVENTS]);
	if (ret < 0)
		return favo_fail(err, errno, "HELLO: descriptors: %m");
	memcpy(vm->mac, hello->mac, sizeof(vm->mac));
	vm->pages_max = vm->guest.size / PVRDMA_PAGE * PAGES_FACTOR + PAGES_EXTRA;
	vm->generation = atomic_load(&vm->shared->generation);
	vm->greeted = true;
	return 0;
}

/* EUI-64 of the MAC address: what the guest's default GID has, too. */
static uint64_t guid_be(const uint8_t mac[6])
{
	const uint8_t eui[8] = {mac[0] ^ 2, mac[1], mac[2], 0xff,
				0xfe,	    mac[3], mac[4], mac[5]};
	uint64_t be;

	memcpy(&be, eui, sizeof(be));
	return be;
}

static void fill_caps(const struct hca_vm *vm, struct pvrdma_caps *out)
{
	const struct pvrdma_caps caps = {
		.fw_ver = FAVO_HCA_VERSION,
		.node_guid_be = guid_be(vm->mac),
		.sys_image_guid_be = guid_be(vm->mac),
		.max_mr_size = PVRDMA_MAX_MSG,
		.page_size_cap = PVRDMA_PAGE,
		.atomic_arg_sizes = 8,
		.vendor_id = 0x15ad,
		.vendor_part_id = 0x0820,
		.hw_ver = PVRDMA_VERSION,
		.max_qp = PVRDMA_MAX_QP,
		.max_qp_wr = PVRDMA_MAX_WR,
		.max_sge = PVRDMA_MAX_SGE,
		.max_sge_rd = PVRDMA_MAX_SGE,
		.max_cq = PVRDMA_MAX_CQ,
		.max_cqe = PVRDMA_MAX_CQE,
		.max_mr = PVRDMA_MAX_MR,
		.max_pd = PVRDMA_MAX_PD,
		.max_qp_rd_atom = PVRDMA_MAX_RD_ATOM,
		.max_res_rd_atom = PVRDMA_MAX_RD_ATOM * PVRDMA_MAX_QP,
		.max_qp_init_rd_atom = PVRDMA_MAX_RD_ATOM,
		.max_ah = 65536,
		.max_srq = PVRDMA_MAX_SRQ,
		.max_srq_wr = PVRDMA_MAX_WR,
		.max_srq_sge = PVRDMA_MAX_SGE,
		.max_uar = FAVO_HCA_UARS,
		.gid_tbl_len = PVRDMA_MAX_GID,
		.max_pkeys = 1,
		.phys_port_cnt = 1,
		.atomic_ops = 3, /* compare and swap, fetch and add */
		.gid_types = 2, /* RoCE v2 */
	};

	memcpy(out, &caps, sizeof(caps));
}

static uint8_t *slot(const struct hca_vm *vm, uint64_t gpa)
{
	return gpa & (PVRDMA_PAGE - 1) ? NULL
				       : favo_hca_guest_ptr(&vm->guest, gpa, PVRDMA_PAGE);
}

int favo_hca_vm_dsr(struct hca_vm *vm, uint64_t gpa)
{
	struct pvrdma_dsr *shared = favo_hca_guest_ptr(&vm->guest, gpa, sizeof(*shared));
	struct pvrdma_dsr dsr;
	int ret;

	favo_hca_vm_reset(vm);
	if (!vm->bus_master || !shared || (gpa & 7))
		return -EFAULT;
	memcpy(&dsr, shared, sizeof(dsr)); /* not looked at again */
	vm->cmd_slot = slot(vm, dsr.cmd_slot_dma);
	vm->resp_slot = slot(vm, dsr.resp_slot_dma);
	if (!vm->cmd_slot || !vm->resp_slot)
		return -EFAULT;
	ret = favo_hca_event_ring_load(&vm->async_ring, &vm->guest, &dsr.async_ring,
				       sizeof(struct pvrdma_eqe));
	ret = ret ? ret
		  : favo_hca_event_ring_load(&vm->cq_ring, &vm->guest, &dsr.cq_ring, 4);
	if (ret < 0) {
		favo_hca_vm_reset(vm);
		return ret;
	}
	fill_caps(vm, &shared->caps);
	vm->state = HCA_STATE_CONFIGURED;
	return 0;
}

int favo_hca_vm_activate(struct hca_vm *vm)
{
	if (vm->state != HCA_STATE_CONFIGURED || !vm->bus_master)
		return -EINVAL;
	vm->state = HCA_STATE_ACTIVE;
	return 0;
}

#define FREE_ALL(table, type, release)                                                   \
	do {                                                                             \
		for (uint32_t i = 0; i < (table)->max && (table)->used; i++) {           \
			type *o = hca_get(table, i);                                     \
			if (!o)                                                          \
				continue;                                                \
			favo_hca_table_del(table, &o->obj);                              \
			release(o);                                                      \
		}                                                                        \
	} while (0)

/* Nothing of the guest's memory is used from here on. */
void favo_hca_vm_reset(struct hca_vm *vm)
{
	bool active = vm->state == HCA_STATE_ACTIVE;

	vm->state = HCA_STATE_RESET;
	FREE_ALL(&vm->qps, struct hca_qp, favo_hca_free_qp);
	FREE_ALL(&vm->srqs, struct hca_srq, favo_hca_free_srq);
	FREE_ALL(&vm->mrs, struct hca_mr, favo_hca_free_mr);
	FREE_ALL(&vm->cqs, struct hca_cq, favo_hca_free_cq);
	FREE_ALL(&vm->pds, struct hca_pd, free);
	favo_hca_pages_fini(&vm->async_ring.pages);
	favo_hca_pages_fini(&vm->cq_ring.pages);
	memset(&vm->async_ring, 0, sizeof(vm->async_ring));
	memset(&vm->cq_ring, 0, sizeof(vm->cq_ring));
	vm->cmd_slot = vm->resp_slot = NULL;
	memset(vm->gids, 0, sizeof(vm->gids));
	vm->gids_end = 0;
	vm->notify_owed = false;
	for (unsigned i = 0; i < FAVO_HCA_UARS; i++)
		vm->uars[i].open = vm->uars[i].arms = false;
	if (active)
		favo_hca_peer_gone(vm->hca, vm);
}

int favo_hca_vm_request(struct hca_vm *vm, const struct favo_hca_request *req,
			uint32_t *flags)
{
	bool raise = false;
	int ret;

	*flags = 0;
	if (atomic_load(&vm->shared->generation) != vm->generation)
		favo_hca_uars_forget(vm);
	switch (req->type) {
	case FAVO_HCA_DSR:
		return favo_hca_vm_dsr(vm, req->arg);
	case FAVO_HCA_ACTIVATE:
		return favo_hca_vm_activate(vm);
	case FAVO_HCA_UNQUIESCE:
		return vm->state == HCA_STATE_ACTIVE ? 0 : -EINVAL;
	case FAVO_HCA_RESET:
		favo_hca_vm_reset(vm);
		return 0;
	case FAVO_HCA_COMMAND:
		ret = favo_hca_command(vm, &raise);
		*flags = raise ? FAVO_HCA_RAISE : 0;
		return ret;
	case FAVO_HCA_BUS_MASTER:
		vm->bus_master = req->arg & 1;
		return 0;
	case FAVO_HCA_UAR_BASE:
		vm->uar_base = req->arg & ~(uint64_t)(PVRDMA_PAGE - 1);
		return 0;
	case FAVO_HCA_PAUSE:
	case FAVO_HCA_RESUME:
		vm->paused = req->type == FAVO_HCA_PAUSE;
		return 0;
	}
	return -ENOSYS;
}
