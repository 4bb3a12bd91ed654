/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Guest memory as favo-hca reaches it. All regions of a VM lie one behind the
 * other in one reservation of address space (the arena); a guest page is known
 * by its number in there, so that neighbours can be told and four bytes a page
 * are enough for a translation. Only RAM of HELLO has a number.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/hca_proto.h"

struct favo_hca_guest {
	uint8_t *arena;
	uint64_t size;
	unsigned nslots;
	struct {
		uint64_t gpa, size, offset; /* offset in the arena */
	} slots[FAVO_HCA_SLOTS_MAX];
};

/* Pages of a queue or memory region, translated once. */
struct favo_hca_pages {
	uint32_t n;
	uint32_t *page; /* number in the arena */
};

/*
 * Map the RAM that HELLO describes; fds are borrowed. EINVAL: regions overlap,
 * are not whole pages, or a file is no memfd sealed against shrinking.
 */
int favo_hca_guest_map(struct favo_hca_guest *g, const struct favo_hca_hello *hello,
		       const int *fds, unsigned nfds, struct favo_err *err);
void favo_hca_guest_unmap(struct favo_hca_guest *g);

/* EINVAL unless fd is a memfd of at least size bytes that cannot shrink. */
int favo_hca_check_memfd(int fd, uint64_t size, struct favo_err *err);

/* Pointer to len bytes of RAM, NULL when any of them is not. */
void *favo_hca_guest_ptr(const struct favo_hca_guest *g, uint64_t gpa, uint64_t len);

/*
 * Translate the first n pages of a page directory. 0, -EFAULT (an address that
 * is unaligned or no RAM), -EINVAL (n), -ENOMEM. Blocks for about 5 ns a page.
 */
int favo_hca_pages_load(struct favo_hca_pages *pages, const struct favo_hca_guest *g,
			uint64_t pdir, uint64_t n);
void favo_hca_pages_fini(struct favo_hca_pages *pages);

static inline uint8_t *favo_hca_page(const struct favo_hca_guest *g,
				     const struct favo_hca_pages *pages, uint32_t i)
{
	return g->arena + ((uint64_t)pages->page[i] << 12);
}
