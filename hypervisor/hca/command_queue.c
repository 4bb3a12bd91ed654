// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Commands that make memory regions, completion queues and shared receive
 * queues, and the limit on the pages that all objects of a VM hold together.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "hypervisor/hca/hca.h"

static bool is_power_of_two(uint32_t n)
{
	return n && !(n & (n - 1));
}

int favo_hca_take_pages(struct hca_vm *vm, struct favo_hca_pages *pages, uint64_t pdir,
			uint64_t n)
{
	int ret;

	if (n > PVRDMA_PAGES_MAX || n > vm->pages_max - vm->pages_held)
		return -ENOSPC;
	ret = favo_hca_pages_load(pages, &vm->guest, pdir, n);
	if (ret == 0)
		vm->pages_held += n;
	return ret;
}

void favo_hca_drop_pages(struct hca_vm *vm, struct favo_hca_pages *pages)
{
	vm->pages_held -= pages->n;
	favo_hca_pages_fini(pages);
}

void favo_hca_free_mr(struct hca_mr *mr)
{
	favo_hca_drop_pages(mr->obj.vm, &mr->pages);
	mr->pd->obj.refs--;
	free(mr);
}

static int mr_pages(struct hca_mr *mr, const union pvrdma_req *q)
{
	const uint64_t offset = q->create_mr.start & (PVRDMA_PAGE - 1);
	const uint64_t length = q->create_mr.length;

	if (mr->flags & PVRDMA_MR_DMA) {
		/* All of guest memory: the kernel's own, never for peers. */
		if (mr->obj.ctx != HCA_KERNEL || (mr->access & ~PVRDMA_LOCAL_WRITE))
			return -EACCES;
		return 0;
	}
	/* Exactly the pages that the range touches (CVE-2021-3582). */
	if (!length || length > PVRDMA_MAX_MSG ||
	    q->create_mr.start > UINT64_MAX - length ||
	    q->create_mr.nchunks != (offset + length + PVRDMA_PAGE - 1) / PVRDMA_PAGE)
		return -EINVAL;
	return favo_hca_take_pages(mr->obj.vm, &mr->pages, q->create_mr.pdir_dma,
				   q->create_mr.nchunks);
}

int favo_hca_create_mr(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	struct hca_pd *pd = hca_get(&vm->pds, q->create_mr.pd_handle);
	struct hca_mr *mr;
	int ret;

	/* No fast registration: caps do not offer it. */
	if (!pd || (q->create_mr.flags & ~PVRDMA_MR_DMA))
		return -EINVAL;
	mr = calloc(1, sizeof(*mr));
	if (!mr)
		return -ENOMEM;
	mr->obj.vm = vm;
	mr->obj.ctx = pd->obj.ctx;
	mr->pd = pd;
	mr->flags = q->create_mr.flags;
	mr->access = q->create_mr.access_flags;
	mr->start = q->create_mr.start;
	mr->length = q->create_mr.length;
	ret = mr_pages(mr, q);
	ret = ret ? ret : favo_hca_table_add(&vm->mrs, &mr->obj);
	if (ret < 0) {
		favo_hca_drop_pages(vm, &mr->pages);
		free(mr);
		return ret;
	}
	pd->obj.refs++;
	/* A key of a region that is gone does not open the next one. */
	mr->key = (uint32_t)vm->mr_generation++ << 24 | mr->obj.handle << 8;
	r->create.handle = mr->obj.handle;
	r->create.lkey = r->create.rkey = mr->key;
	return 0;
}

void favo_hca_free_cq(struct hca_cq *cq)
{
	favo_hca_stall_del(cq);
	favo_hca_drop_pages(cq->obj.vm, &cq->pages);
	free(cq);
}

int favo_hca_create_cq(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	uint32_t n = q->create_cq.cqe, ctx = q->create_cq.ctx_handle;
	uint64_t bytes = (uint64_t)n * sizeof(struct pvrdma_cqe);
	struct hca_cq *cq;
	int ret;

	if (!is_power_of_two(n) || n > PVRDMA_MAX_CQE ||
	    q->create_cq.nchunks != 1 + (bytes + PVRDMA_PAGE - 1) / PVRDMA_PAGE ||
	    (ctx != HCA_KERNEL && (ctx >= FAVO_HCA_UARS || !vm->uars[ctx].open)))
		return -EINVAL;
	cq = calloc(1, sizeof(*cq));
	if (!cq)
		return -ENOMEM;
	cq->obj.vm = vm;
	cq->obj.ctx = ctx;
	cq->n = n;
	ret = favo_hca_take_pages(vm, &cq->pages, q->create_cq.pdir_dma,
				  q->create_cq.nchunks);
	ret = ret ? ret : favo_hca_table_add(&vm->cqs, &cq->obj);
	if (ret < 0) {
		favo_hca_free_cq(cq);
		return ret;
	}
	cq->ring = &((struct pvrdma_ring_state *)favo_hca_page(&vm->guest, &cq->pages, 0))
			    ->rx;
	r->create.handle = cq->obj.handle;
	r->create.cqe = n;
	return 0;
}

void favo_hca_free_srq(struct hca_srq *srq)
{
	favo_hca_drop_pages(srq->obj.vm, &srq->pages);
	srq->pd->obj.refs--;
	free(srq);
}

static uint32_t log2_of(uint32_t size)
{
	uint32_t shift = 0;

	while (1u << shift < size)
		shift++;
	return shift;
}

int favo_hca_create_srq(struct hca_vm *vm, const union pvrdma_req *q,
			union pvrdma_resp *r)
{
	struct hca_pd *pd = hca_get(&vm->pds, q->create_srq.pd_handle);
	uint32_t n = q->create_srq.max_wr, sge = q->create_srq.max_sge, shift;
	struct hca_srq *srq;
	int ret;

	if (!pd || !is_power_of_two(n) || n > PVRDMA_MAX_WR || !sge ||
	    sge > PVRDMA_MAX_SGE || q->create_srq.srq_limit > n)
		return -EINVAL;
	shift = log2_of((uint32_t)(sizeof(struct pvrdma_rq_wqe) +
				   sge * sizeof(struct pvrdma_sge)));
	/* The header page, then room for all entries. */
	if (q->create_srq.nchunks < 2 ||
	    ((uint64_t)q->create_srq.nchunks - 1) * PVRDMA_PAGE < (uint64_t)n << shift)
		return -EINVAL;
	srq = calloc(1, sizeof(*srq));
	if (!srq)
		return -ENOMEM;
	srq->obj.vm = vm;
	srq->obj.ctx = pd->obj.ctx;
	srq->pd = pd;
	pd->obj.refs++;
	ret = favo_hca_take_pages(vm, &srq->pages, q->create_srq.pdir_dma,
				  q->create_srq.nchunks);
	ret = ret ? ret : favo_hca_table_add(&vm->srqs, &srq->obj);
	if (ret < 0) {
		favo_hca_free_srq(srq);
		return ret;
	}
	srq->limit = q->create_srq.srq_limit;
	srq->rq = (struct hca_queue){
		.ring = &((struct pvrdma_ring_state *)favo_hca_page(&vm->guest,
								    &srq->pages, 0))
				 ->rx,
		.first_page = 1,
		.n = n,
		.shift = shift,
		.max_sge = sge,
	};
	r->create.handle = srq->obj.handle;
	return 0;
}

int favo_hca_modify_srq(struct hca_vm *vm, const union pvrdma_req *q,
			union pvrdma_resp *r)
{
	enum { SRQ_LIMIT = 2 };
	struct hca_srq *srq = hca_get(&vm->srqs, q->modify_srq.srq_handle);

	(void)r;
	if (!srq || q->modify_srq.attr_mask != SRQ_LIMIT ||
	    q->modify_srq.attrs.srq_limit > srq->rq.n)
		return -EINVAL;
	srq->limit = q->modify_srq.attrs.srq_limit;
	return 0;
}

int favo_hca_query_srq(struct hca_vm *vm, const union pvrdma_req *q, union pvrdma_resp *r)
{
	struct hca_srq *srq = hca_get(&vm->srqs, q->by_handle.handle);

	if (!srq)
		return -EINVAL;
	r->query_srq.attrs = (struct pvrdma_srq_attr){
		.max_wr = srq->rq.n,
		.max_sge = srq->rq.max_sge,
		.srq_limit = srq->limit,
	};
	return 0;
}
