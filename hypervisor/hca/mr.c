// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Memory regions: keys, ranges, and copying between scatter lists of two
 * guests. A key is looked up again for each slice of a message, so that a
 * region that goes in the middle of one is not touched afterwards.
 */
#include <errno.h>
#include <string.h>

#include "common/util.h"
#include "hypervisor/hca/hca.h"

struct hca_mr *favo_hca_mr_get(struct hca_vm *vm, struct hca_pd *pd, uint32_t key,
			       uint64_t addr, uint64_t len, uint32_t need)
{
	struct hca_mr *mr = hca_get(&vm->mrs, key >> 8 & 0xffff);

	if (!mr || mr->key != key || mr->pd != pd || (mr->access & need) != need)
		return NULL;
	if (mr->flags & PVRDMA_MR_DMA)
		return favo_hca_guest_ptr(&vm->guest, addr, len) ? mr : NULL;
	if (addr < mr->start || len > mr->length || addr - mr->start > mr->length - len)
		return NULL;
	return mr;
}

uint8_t *favo_hca_mr_ptr(struct hca_mr *mr, uint64_t addr, uint64_t max, uint64_t *len)
{
	const struct favo_hca_guest *g = &mr->obj.vm->guest;
	uint64_t at, run;
	uint32_t page;

	if (mr->flags & PVRDMA_MR_DMA) {
		*len = max;
		return favo_hca_guest_ptr(g, addr, max);
	}
	at = (mr->start & (PVRDMA_PAGE - 1)) + (addr - mr->start);
	page = (uint32_t)(at / PVRDMA_PAGE);
	run = PVRDMA_PAGE - at % PVRDMA_PAGE;
	while (run < max && page + 1 < mr->pages.n &&
	       mr->pages.page[page + 1] == mr->pages.page[page] + 1) {
		page++;
		run += PVRDMA_PAGE;
	}
	*len = FAVO_MIN(run, max);
	return favo_hca_page(g, &mr->pages, (uint32_t)(at / PVRDMA_PAGE)) +
	       at % PVRDMA_PAGE;
}

bool favo_hca_span_check(const struct hca_span *s)
{
	for (uint32_t i = 0; i < s->nsge; i++)
		if (s->sge[i].length &&
		    !favo_hca_mr_get(s->vm, s->pd, s->sge[i].lkey, s->sge[i].addr,
				     s->sge[i].length, s->need))
			return false;
	return true;
}

void favo_hca_span_skip(struct hca_span *s, uint64_t bytes)
{
	while (bytes && s->at < s->nsge) {
		uint64_t left = s->sge[s->at].length - s->offset;
		uint64_t n = FAVO_MIN(bytes, left);

		s->offset += (uint32_t)n;
		bytes -= n;
		if (s->offset == s->sge[s->at].length) {
			s->at++;
			s->offset = 0;
		}
	}
}

/* Contiguous memory at the span's place; NULL at its end or without right. */
static uint8_t *span_ptr(struct hca_span *s, uint64_t max, uint64_t *len)
{
	const struct pvrdma_sge *sge;
	struct hca_mr *mr;

	while (s->at < s->nsge && s->offset >= s->sge[s->at].length) {
		s->at++;
		s->offset = 0;
	}
	if (s->at == s->nsge)
		return NULL;
	sge = &s->sge[s->at];
	max = FAVO_MIN(max, (uint64_t)(sge->length - s->offset));
	mr = favo_hca_mr_get(s->vm, s->pd, sge->lkey, sge->addr + s->offset, max,
			     s->need);
	return mr ? favo_hca_mr_ptr(mr, sge->addr + s->offset, max, len) : NULL;
}

/*
 * The last word of a message must not be seen before the rest: memcpy() of
 * large blocks may use stores that are not ordered.
 */
static void copy_in_order(uint8_t *to, const uint8_t *from, uint64_t n)
{
	uint64_t last;

	if (n < sizeof(last)) {
		memmove(to, from, n);
		return;
	}
	if (n > sizeof(last))
		memmove(to, from, n - sizeof(last));
	memcpy(&last, from + n - sizeof(last), sizeof(last));
	if (n > 256)
		__builtin_ia32_sfence();
	atomic_signal_fence(memory_order_seq_cst);
	memcpy(to + n - sizeof(last), &last, sizeof(last));
}

int favo_hca_copy(struct hca_span *to, struct hca_span *from, uint64_t n)
{
	while (n) {
		uint64_t a, b;
		uint8_t *src = span_ptr(from, n, &a), *dst;

		if (!src)
			return -EFAULT;
		dst = span_ptr(to, a, &b);
		if (!dst)
			return -EFAULT;
		copy_in_order(dst, src, b);
		from->offset += (uint32_t)b;
		to->offset += (uint32_t)b;
		n -= b;
	}
	return 0;
}

int favo_hca_span_write(struct hca_span *to, const void *buf, uint64_t n)
{
	const uint8_t *src = buf;

	while (n) {
		uint64_t len;
		uint8_t *dst = span_ptr(to, n, &len);

		if (!dst)
			return -EFAULT;
		memcpy(dst, src, len);
		src += len;
		to->offset += (uint32_t)len;
		n -= len;
	}
	return 0;
}
