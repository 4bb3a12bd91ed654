// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Command channel: one request out of the slot, on a private copy; bytes past
 * the command's own struct are stale kernel stack and never looked at. A
 * failure is an error of register ERR and has no response, as the driver looks
 * into responses of successful commands only.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hca/hca.h"

#define IP_BASED_GIDS (1u << 26)
#define PORT_ACTIVE 4
#define LINK_UP 5

static int query_port(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	(void)vm;
	if (q->query.port_num != 1)
		return -EINVAL;
	r->query_port.attrs = (struct pvrdma_port_attr){
		.state = PORT_ACTIVE,
		.max_mtu = PVRDMA_MTU,
		.active_mtu = PVRDMA_MTU,
		.gid_tbl_len = PVRDMA_MAX_GID,
		.port_cap_flags = IP_BASED_GIDS,
		.max_msg_sz = PVRDMA_MAX_MSG,
		.pkey_tbl_len = 1,
		.max_vl = 1,
		.active_width = 2, /* 4x */
		.active_speed = 32, /* EDR */
		.phys_state = LINK_UP,
	};
	return 0;
}

static int query_pkey(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	(void)vm;
	if (q->query.port_num != 1 || q->query.index != 0)
		return -EINVAL;
	r->query_pkey.pkey = 0xffff;
	return 0;
}

static bool context_exists(const struct hca_vm *vm, uint32_t ctx)
{
	return ctx == HCA_KERNEL || (ctx < FAVO_HCA_UARS && vm->uars[ctx].open);
}

static int create_pd(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	struct hca_pd *pd;
	int ret;

	if (!context_exists(vm, q->create_pd.ctx_handle))
		return -EINVAL;
	pd = calloc(1, sizeof(*pd));
	if (!pd)
		return -ENOMEM;
	pd->obj.vm = vm;
	pd->obj.ctx = q->create_pd.ctx_handle;
	ret = favo_hca_table_add(&vm->pds, &pd->obj);
	if (ret < 0) {
		free(pd);
		return ret;
	}
	r->create.handle = pd->obj.handle;
	return 0;
}

/* What is named and unused goes; its pages are not touched afterwards. */
static int destroy(struct hca_table *t, uint32_t handle, void (*release)(void *))
{
	struct hca_obj *obj = hca_get(t, handle);

	if (!obj)
		return -EINVAL;
	if (obj->refs)
		return -EBUSY;
	favo_hca_table_del(t, obj);
	release(obj);
	return 0;
}

static void release_mr(void *mr)
{
	favo_hca_free_mr(mr);
}

static void release_cq(void *cq)
{
	favo_hca_free_cq(cq);
}

static void release_srq(void *srq)
{
	favo_hca_free_srq(srq);
}

static void release_qp(void *qp)
{
	favo_hca_free_qp(qp);
}

#define DESTROY_FN(name, table, fn)                                                      \
	static int name(struct hca_vm *vm, const union pvrdma_req *q,                    \
			union pvrdma_resp *r)                                            \
	{                                                                                \
		(void)r;                                                                 \
		return destroy(&vm->table, q->by_handle.handle, fn);                     \
	}
DESTROY_FN(destroy_pd, pds, free)
DESTROY_FN(destroy_mr, mrs, release_mr)
DESTROY_FN(destroy_cq, cqs, release_cq)
DESTROY_FN(destroy_srq, srqs, release_srq)
DESTROY_FN(destroy_qp, qps, release_qp)

static int create_uc(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	uint64_t pfn = q->create_uc.pfn, base = vm->uar_base >> 12;

	if (!vm->uar_base || pfn <= base || pfn - base >= FAVO_HCA_UARS ||
	    vm->uars[pfn - base].open)
		return -EINVAL;
	vm->uars[pfn - base].open = true;
	vm->uars[pfn - base].arms = false;
	r->create.handle = (uint32_t)(pfn - base);
	return 0;
}

static bool owns_any(const struct hca_table *t, uint32_t ctx)
{
	for (uint32_t i = t->first; i < t->max; i++) {
		const struct hca_obj *obj = hca_get(t, i);

		if (obj && obj->ctx == ctx)
			return true;
	}
	return false;
}

static int destroy_uc(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	uint32_t ctx = q->by_handle.handle;

	(void)r;
	if (ctx == HCA_KERNEL || ctx >= FAVO_HCA_UARS || !vm->uars[ctx].open)
		return -EINVAL;
	if (owns_any(&vm->pds, ctx) || owns_any(&vm->cqs, ctx))
		return -EBUSY;
	vm->uars[ctx].open = false;
	return 0;
}

/* A guest speaks for addresses that no other VM of the cluster speaks for. */
static int create_bind(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	static const struct pvrdma_gid zero;
	const struct pvrdma_gid *gid = &q->create_bind.gid;
	uint32_t i = q->create_bind.index;
	struct hca_vm *owner;

	(void)r;
	if (i >= PVRDMA_MAX_GID || q->create_bind.gid_type != 2 || gid->raw[0] == 0xff ||
	    !memcmp(gid, &zero, sizeof(zero)))
		return -EINVAL;
	owner = favo_hca_find_gid(vm->hca, gid);
	if (owner && owner != vm)
		return -EADDRINUSE;
	vm->gids[i].gid = *gid;
	vm->gids[i].used = true;
	if (vm->gids_end <= i)
		vm->gids_end = i + 1;
	return 0;
}

static int destroy_bind(struct hca_vm *vm, const union pvrdma_req *q,
			union pvrdma_resp *r)
{
	uint32_t i = q->destroy_bind.index;

	(void)r;
	if (i >= PVRDMA_MAX_GID || !vm->gids[i].used ||
	    memcmp(&vm->gids[i].gid, &q->destroy_bind.gid, sizeof(struct pvrdma_gid)))
		return -EINVAL;
	vm->gids[i].used = false;
	return 0;
}

typedef int command_fn(struct hca_vm *, const union pvrdma_req *, union pvrdma_resp *);

static const struct {
	command_fn *fn;
	bool responds; /* by vector 0; a stray one would end the next wait early */
} commands[PVRDMA_CMDS] = {
	[PVRDMA_CMD_QUERY_PORT] = {query_port, true},
	[PVRDMA_CMD_QUERY_PKEY] = {query_pkey, true},
	[PVRDMA_CMD_CREATE_PD] = {create_pd, true},
	[PVRDMA_CMD_DESTROY_PD] = {destroy_pd, false},
	[PVRDMA_CMD_CREATE_MR] = {favo_hca_create_mr, true},
	[PVRDMA_CMD_DESTROY_MR] = {destroy_mr, false},
	[PVRDMA_CMD_CREATE_CQ] = {favo_hca_create_cq, true},
	[PVRDMA_CMD_DESTROY_CQ] = {destroy_cq, false},
	[PVRDMA_CMD_CREATE_QP] = {favo_hca_create_qp, true},
	[PVRDMA_CMD_MODIFY_QP] = {favo_hca_modify_qp, true},
	[PVRDMA_CMD_QUERY_QP] = {favo_hca_query_qp, true},
	[PVRDMA_CMD_DESTROY_QP] = {destroy_qp, false},
	[PVRDMA_CMD_CREATE_UC] = {create_uc, true},
	[PVRDMA_CMD_DESTROY_UC] = {destroy_uc, false},
	[PVRDMA_CMD_CREATE_BIND] = {create_bind, false},
	[PVRDMA_CMD_DESTROY_BIND] = {destroy_bind, false},
	[PVRDMA_CMD_CREATE_SRQ] = {favo_hca_create_srq, true},
	[PVRDMA_CMD_MODIFY_SRQ] = {favo_hca_modify_srq, false},
	[PVRDMA_CMD_QUERY_SRQ] = {favo_hca_query_srq, true},
	[PVRDMA_CMD_DESTROY_SRQ] = {destroy_srq, false},
};

int favo_hca_command(struct hca_vm *vm, bool *raise)
{
	union pvrdma_req q;
	union pvrdma_resp r = {0};
	int ret;

	*raise = false;
	if (!hca_vm_runs(vm))
		return -ENODEV;
	memcpy(&q, vm->cmd_slot, sizeof(q));
	if (q.hdr.cmd >= PVRDMA_CMDS || !commands[q.hdr.cmd].fn)
		return -ENOSYS;
	ret = commands[q.hdr.cmd].fn(vm, &q, &r);
	if (ret < 0 || !commands[q.hdr.cmd].responds)
		return ret;
	r.hdr.response = q.hdr.response;
	r.hdr.ack = PVRDMA_CMD_RESP | q.hdr.cmd;
	memcpy(vm->resp_slot, &r, sizeof(r));
	*raise = true;
	return 0;
}
