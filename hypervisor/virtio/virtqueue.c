/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Split virtqueue, device side: virtio 1.2 sections 2.7 and 2.6.
 *
 * Reading rule: guest memory is shared with a hostile writer, so a value is
 * loaded once (atomically, or by copy_once() for a whole descriptor) and only
 * the copy is judged and used. Not here: packed rings, in-order use.
 */
#include "hypervisor/virtio/virtqueue.h"

#include <endian.h>
#include <string.h>

#include <linux/virtio_config.h>

#include "common/util.h"

/* memcpy whose source the compiler may not read again afterwards. */
static void copy_once(void *dst, const void *src, size_t len)
{
	memcpy(dst, src, len);
	__asm__ volatile("" : : "r"(dst) : "memory");
}

static uint16_t load_acquire(const void *p)
{
	return le16toh(__atomic_load_n((const uint16_t *)p, __ATOMIC_ACQUIRE));
}

static void store_release(void *p, uint16_t v)
{
	__atomic_store_n((uint16_t *)p, htole16(v), __ATOMIC_RELEASE);
}

/* Each ring is followed by one more 16-bit word, the event index of the other side. */
static const uint16_t *used_event(const struct favo_vq *vq)
{
	return &vq->avail->ring[vq->size];
}

static uint16_t *avail_event(const struct favo_vq *vq)
{
	return (uint16_t *)(void *)&vq->used->ring[vq->size];
}

void favo_vq_reset(struct favo_vq *vq)
{
	struct favo_memory *mem = vq->mem;
	uint16_t max_size = vq->max_size;
	uint64_t requests = vq->requests;

	memset(vq, 0, sizeof(*vq));
	vq->requests = requests;
	vq->mem = mem;
	vq->max_size = max_size;
	vq->size = max_size;
}

int favo_vq_start(struct favo_vq *vq, uint64_t features)
{
	uint64_t n = vq->size;

	if (n == 0 || (n & (n - 1)) || n > vq->max_size)
		return -EINVAL;
	if ((vq->desc_gpa & 15) || (vq->avail_gpa & 1) || (vq->used_gpa & 3))
		return -EINVAL;
	vq->desc = favo_guest_ptr(vq->mem, vq->desc_gpa, n * sizeof(struct vring_desc));
	vq->avail = favo_guest_ptr(vq->mem, vq->avail_gpa, 6 + 2 * n);
	vq->used = favo_guest_ptr(vq->mem, vq->used_gpa,
				  6 + n * sizeof(struct vring_used_elem));
	if (!vq->desc || !vq->avail || !vq->used)
		return -EFAULT;
	vq->event_idx = features & (1ULL << VIRTIO_RING_F_EVENT_IDX);
	vq->indirect = features & (1ULL << VIRTIO_RING_F_INDIRECT_DESC);
	vq->signalled = vq->used_idx;
	vq->started = true;
	return 0;
}

void favo_vq_stop(struct favo_vq *vq)
{
	vq->started = false;
	vq->desc = NULL;
	vq->avail = NULL;
	vq->used = NULL;
}

int favo_vq_break(struct favo_vq *vq, const char *why)
{
	if (!vq->broken)
		vq->why = why;
	vq->broken = true;
	return -EIO;
}

/* Check one data descriptor and put it behind the others of req. */
static int add_segment(struct favo_vq *vq, struct favo_vq_req *req,
		       const struct vring_desc *d)
{
	uint32_t len = le32toh(d->len);
	bool writable = le16toh(d->flags) & VRING_DESC_F_WRITE;
	uint16_t at = req->nout + req->nin;
	void *p;

	if (len == 0)
		return favo_vq_break(vq, "descriptor of length zero");
	if (!writable && req->nin)
		return favo_vq_break(vq, "readable descriptor after a writable one");
	if (at >= req->max_segs)
		return favo_vq_break(vq, "chain longer than the device allows");
	p = favo_guest_ptr(vq->mem, le64toh(d->addr), len);
	if (!p)
		return favo_vq_break(vq, "descriptor outside of guest RAM");
	req->iov[at] = (struct iovec){.iov_base = p, .iov_len = len};
	if (writable) {
		req->nin++;
		req->in_len += len;
	} else {
		req->nout++;
		req->out_len += len;
	}
	return 0;
}

/*
 * Follow a chain through a table of n descriptors from index at. If it ends in
 * an indirect descriptor, that one is left in *last and 1 is returned.
 */
static int walk_table(struct favo_vq *vq, struct favo_vq_req *req,
		      const struct vring_desc *table, uint32_t n, uint16_t at,
		      struct vring_desc *last)
{
	int ret;

	/* A chain visits each entry at most once, so n steps are enough. */
	for (uint32_t step = 0; step < n; step++) {
		uint16_t flags;

		if (at >= n)
			return favo_vq_break(vq, "descriptor index outside of its table");
		copy_once(last, &table[at], sizeof(*last));
		flags = le16toh(last->flags);
		if (flags & VRING_DESC_F_INDIRECT) {
			if (flags & VRING_DESC_F_NEXT)
				return favo_vq_break(vq, "indirect descriptor with next");
			return 1;
		}
		ret = add_segment(vq, req, last);
		if (ret < 0)
			return ret;
		if (!(flags & VRING_DESC_F_NEXT))
			return 0;
		at = le16toh(last->next);
	}
	return favo_vq_break(vq, "loop in a descriptor chain");
}

static int walk_indirect(struct favo_vq *vq, struct favo_vq_req *req,
			 const struct vring_desc *d)
{
	uint32_t len = le32toh(d->len);
	const struct vring_desc *table;
	struct vring_desc last;
	int ret;

	if (!vq->indirect)
		return favo_vq_break(vq, "indirect descriptor without the feature");
	if (len == 0 || len % sizeof(last) || len / sizeof(last) > FAVO_VQ_MAX_SEGS)
		return favo_vq_break(vq, "length of an indirect table");
	table = favo_guest_ptr(vq->mem, le64toh(d->addr), len);
	if (!table)
		return favo_vq_break(vq, "indirect table outside of guest RAM");
	ret = walk_table(vq, req, table, len / sizeof(last), 0, &last);
	if (ret == 1)
		return favo_vq_break(vq, "indirect table inside an indirect table");
	return ret;
}

int favo_vq_pop(struct favo_vq *vq, struct favo_vq_req *req)
{
	uint16_t avail_idx, head;
	struct vring_desc last;
	int ret;

	if (vq->broken)
		return -EIO;
	if (!vq->started)
		return 0;
	avail_idx = load_acquire(&vq->avail->idx);
	if (avail_idx == vq->last_avail)
		return 0;
	if ((uint16_t)(avail_idx - vq->last_avail) > vq->size)
		return favo_vq_break(vq, "available index jumped");
	copy_once(&head, &vq->avail->ring[vq->last_avail & (vq->size - 1)], sizeof(head));
	head = le16toh(head);

	req->head = head;
	req->nout = req->nin = 0;
	req->out_len = req->in_len = 0;
	ret = walk_table(vq, req, vq->desc, vq->size, head, &last);
	if (ret == 1)
		ret = walk_indirect(vq, req, &last);
	if (ret < 0)
		return ret;
	vq->last_avail++;
	vq->requests++;
	return 1;
}

void favo_vq_unpop(struct favo_vq *vq, uint16_t n)
{
	vq->last_avail -= n;
	vq->requests -= n;
}

bool favo_vq_pending(const struct favo_vq *vq)
{
	return vq->started && !vq->broken &&
	       load_acquire(&vq->avail->idx) != vq->last_avail;
}

void favo_vq_fill(struct favo_vq *vq, uint16_t head, uint32_t written, uint16_t at)
{
	struct vring_used_elem *e;

	if (!vq->started || vq->broken)
		return;
	e = &vq->used->ring[(uint16_t)(vq->used_idx + at) & (vq->size - 1)];
	e->id = htole32(head);
	e->len = htole32(written);
	favo_guest_dirty(vq->mem, e, sizeof(*e));
}

void favo_vq_flush(struct favo_vq *vq, uint16_t count)
{
	if (!vq->started || vq->broken)
		return;
	vq->used_idx += count;
	store_release(&vq->used->idx, vq->used_idx);
	favo_guest_dirty(vq->mem, vq->used, 4);
}

void favo_vq_push(struct favo_vq *vq, uint16_t head, uint32_t written)
{
	favo_vq_fill(vq, head, written, 0);
	favo_vq_flush(vq, 1);
}

bool favo_vq_need_interrupt(struct favo_vq *vq)
{
	uint16_t old = vq->signalled, new = vq->used_idx, event;

	if (!vq->started || vq->broken || old == new)
		return false;
	vq->signalled = new;
	/* The used index must be visible before the driver's wish is read. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	if (!vq->event_idx)
		return !(load_acquire(&vq->avail->flags) & VRING_AVAIL_F_NO_INTERRUPT);
	event = load_acquire(used_event(vq));
	/* Did [old, new) pass event? 16-bit arithmetic as in section 2.7.7.2. */
	return (uint16_t)(new - event - 1) < (uint16_t)(new - old);
}

bool favo_vq_enable_notify(struct favo_vq *vq)
{
	if (!vq->started || vq->broken)
		return false;
	if (vq->event_idx) {
		store_release(avail_event(vq), vq->last_avail);
		favo_guest_dirty(vq->mem, avail_event(vq), 2);
	} else {
		store_release(&vq->used->flags, 0);
		favo_guest_dirty(vq->mem, vq->used, 2);
	}
	/* The wish must be visible before the index is looked at again. */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return favo_vq_pending(vq);
}

void favo_vq_disable_notify(struct favo_vq *vq)
{
	/* With event index the stale avail_event is off by itself. */
	if (!vq->started || vq->broken || vq->event_idx)
		return;
	store_release(&vq->used->flags, VRING_USED_F_NO_NOTIFY);
	favo_guest_dirty(vq->mem, vq->used, 2);
}

void favo_vq_dirty(struct favo_vq *vq, const struct iovec *iov, size_t n, size_t len)
{
	if (!atomic_load_explicit(&vq->mem->dirty, memory_order_relaxed))
		return;
	for (size_t i = 0; i < n && len; i++) {
		size_t part = FAVO_MIN(iov[i].iov_len, len);

		if (part)
			favo_guest_dirty(vq->mem, iov[i].iov_base, part);
		len -= part;
	}
}

size_t favo_iov_read(const struct iovec *iov, size_t n, size_t off, void *buf, size_t len)
{
	size_t done = 0;

	for (size_t i = 0; i < n && done < len; i++) {
		size_t part;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		part = FAVO_MIN(len - done, iov[i].iov_len - off);
		copy_once((char *)buf + done, (char *)iov[i].iov_base + off, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t favo_iov_write(const struct iovec *iov, size_t n, size_t off, const void *buf,
		      size_t len)
{
	size_t done = 0;

	for (size_t i = 0; i < n && done < len; i++) {
		size_t part;

		if (off >= iov[i].iov_len) {
			off -= iov[i].iov_len;
			continue;
		}
		part = FAVO_MIN(len - done, iov[i].iov_len - off);
		memcpy((char *)iov[i].iov_base + off, (const char *)buf + done, part);
		done += part;
		off = 0;
	}
	return done;
}

size_t favo_iov_skip(struct iovec *iov, size_t n, size_t len)
{
	size_t i = 0;

	while (i < n && len >= iov[i].iov_len) {
		len -= iov[i].iov_len;
		iov[i++].iov_len = 0;
	}
	if (i < n) {
		iov[i].iov_base = (char *)iov[i].iov_base + len;
		iov[i].iov_len -= len;
	}
	return i;
}

size_t favo_iov_trim(struct iovec *iov, size_t n, size_t len)
{
	size_t i;

	for (i = 0; i < n && len; i++) {
		iov[i].iov_len = FAVO_MIN(iov[i].iov_len, len);
		len -= iov[i].iov_len;
	}
	return i;
}
