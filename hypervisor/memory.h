/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory: RAM regions, and the only door through which devices reach it.
 *
 * RAM is one mapping, split around the PCI hole below 4 GiB. Shared RAM is a
 * memfd, which other processes (vhost-user, favo-hca) get with the region table;
 * private RAM is anonymous, for which hosts give transparent huge pages more
 * readily. The table never changes while vCPUs or devices run.
 *
 * Rules for devices:
 * - every guest address goes through favo_guest_ptr(), read() or write();
 *   they know RAM only, so a device cannot be pointed at MMIO or at a BAR;
 * - memory is shared with a running, hostile guest: copy what is checked, use
 *   the copy;
 * - who wrote through a pointer calls favo_guest_dirty() after the write and
 *   before the guest is told, or migration loses it. favo_guest_write() does
 *   it by itself.
 * All functions are thread-safe once favo_memory_new() returned.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

/* Fixed points of the guest's physical address space. */
#define FAVO_GPA_HOLE_START 0xc0000000ULL /* end of low RAM, 32-bit BARs from here */
#define FAVO_GPA_ECAM 0xe8000000ULL /* PCI configuration space of bus 0 */
#define FAVO_GPA_ECAM_SIZE 0x100000ULL
#define FAVO_GPA_IOAPIC 0xfec00000ULL
#define FAVO_GPA_LAPIC 0xfee00000ULL
#define FAVO_GPA_HIGH 0x100000000ULL /* RAM that did not fit below the hole */

#define FAVO_PAGE_SHIFT 12
#define FAVO_PAGE_SIZE 4096ULL

/* Enough for low and high RAM, and later hot-plugged or pmem regions. */
#define FAVO_MEM_REGIONS_MAX 8

struct favo_mem_region {
	uint64_t gpa;
	uint64_t size;
	uint8_t *hva;
	int fd; /* memfd, owned by struct favo_memory; -1: private */
	uint64_t fd_offset;
};

struct favo_memory {
	unsigned nregions; /* sorted by gpa, disjoint, never adjacent */
	struct favo_mem_region regions[FAVO_MEM_REGIONS_MAX];
	uint64_t size; /* sum of all regions */
	uint64_t page_size; /* of the backing: 4 KiB or 2 MiB */
	int fd; /* memfd of all regions, -1: private */
	bool fixed; /* no page goes back to the host: huge or preallocated */
	/*
	 * Bit per 4 KiB page by its offset from the first region, set by devices; NULL unless migration
	 * logs. Published with release order, so that a plain load is enough.
	 */
	_Atomic(atomic_ulong *) dirty;
};

enum favo_hugepages {
	FAVO_HUGE_AUTO, /* 2 MiB pages when enough are free, else transparent ones */
	FAVO_HUGE_OFF,
	FAVO_HUGE_ON, /* 2 MiB pages or an error */
};

struct favo_memory_opts {
	uint64_t size; /* multiple of 4 KiB */
	enum favo_hugepages huge;
	bool prealloc; /* touch all pages now, in parallel */
	bool shared; /* memfd, so that other processes can map it */
	/*
	 * Begin with the bytes of this file (borrowed, size bytes), which is
	 * mapped copy-on-write: it is never written, and what the guest only
	 * reads stays in the page cache, once for all who map it. Then huge
	 * pages are not used, and shared is EINVAL.
	 */
	const int *file;
};

/* Create, map and split RAM. EINVAL: bad size; ENOMEM. */
int favo_memory_new(struct favo_memory **out, const struct favo_memory_opts *opts,
		    struct favo_err *err);
void favo_memory_free(struct favo_memory *mem);

/* First address above all RAM (at least 4 GiB). */
uint64_t favo_memory_end(const struct favo_memory *mem);

/*
 * Pointer to len bytes of RAM at gpa, or NULL when any of them is not RAM, the
 * range wraps or touches two regions, or len is 0.
 */
void *favo_guest_ptr(const struct favo_memory *mem, uint64_t gpa, uint64_t len);

/* Copy out of or into RAM: 0 or -EFAULT, all or nothing. write() marks dirty. */
int favo_guest_read(const struct favo_memory *mem, uint64_t gpa, void *buf, size_t len);
int favo_guest_write(struct favo_memory *mem, uint64_t gpa, const void *buf, size_t len);

void favo_guest_dirty_slow(struct favo_memory *mem, const void *ptr, uint64_t len);

/* Note that a device wrote len bytes at ptr, which came from favo_guest_ptr(). */
static inline void favo_guest_dirty(struct favo_memory *mem, const void *ptr,
				    uint64_t len)
{
	if (atomic_load_explicit(&mem->dirty, memory_order_relaxed))
		favo_guest_dirty_slow(mem, ptr, len);
}

/* Start or stop the log of device writes. ENOMEM. Only while devices are paused. */
int favo_memory_log(struct favo_memory *mem, bool on, struct favo_err *err);

/*
 * The guest does not need what is in len bytes at ptr (from favo_guest_ptr()):
 * whole pages of it go back to the host and read as anything from then on.
 * Does nothing where memory was taken for good: huge pages, preallocation.
 */
void favo_memory_discard(struct favo_memory *mem, void *ptr, uint64_t len);

/* Test and clear the dirty bit of the page at this offset of all RAM. */
bool favo_memory_fetch_dirty(struct favo_memory *mem, uint64_t offset);
