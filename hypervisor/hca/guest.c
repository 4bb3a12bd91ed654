// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Mapping of guest RAM and translation of page directories (two levels of 512
 * entries). Directories stay writable for the guest: each entry is read once,
 * checked, and only its translation is kept.
 */
#include "hypervisor/hca/guest.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "hypervisor/hca/abi.h"

#define RAM_MAX (1ULL << 44) /* 16 TiB: page numbers have 32 bits */

int favo_hca_check_memfd(int fd, uint64_t size, struct favo_err *err)
{
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;

	if (seals < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, EINVAL, "shared memory is no memfd: %m");
	if (!(seals & F_SEAL_SHRINK) && fcntl(fd, F_ADD_SEALS, F_SEAL_SHRINK) < 0)
		return favo_fail(err, EINVAL, "shared memory may shrink: %m");
	/* After the seal: it cannot change any more. */
	if (fstat(fd, &st) < 0 || (uint64_t)st.st_size < size)
		return favo_fail(err, EINVAL, "shared memory is shorter than said");
	return 0;
}

static int check_slots(const struct favo_hca_hello *hello, unsigned nfds,
		       struct favo_err *err)
{
	uint64_t end = 0, total = 0;

	if (hello->nslots < 1 || hello->nslots > FAVO_HCA_SLOTS_MAX)
		return favo_fail(err, EINVAL, "HELLO: %u memory regions", hello->nslots);
	for (unsigned i = 0; i < hello->nslots; i++) {
		const struct favo_hca_slot *s = &hello->slots[i];

		if (((s->gpa | s->size | s->fd_offset) & (PVRDMA_PAGE - 1)) || !s->size ||
		    s->size > RAM_MAX || s->gpa > RAM_MAX || s->fd_offset > RAM_MAX ||
		    s->gpa < end || s->fd >= nfds || (total += s->size) > RAM_MAX)
			return favo_fail(err, EINVAL, "HELLO: memory region %u", i);
		end = s->gpa + s->size;
	}
	return 0;
}

int favo_hca_guest_map(struct favo_hca_guest *g, const struct favo_hca_hello *hello,
		       const int *fds, unsigned nfds, struct favo_err *err)
{
	int ret = check_slots(hello, nfds, err);
	uint64_t at = 0;

	memset(g, 0, sizeof(*g));
	if (ret < 0)
		return ret;
	for (unsigned i = 0; i < hello->nslots; i++)
		g->size += hello->slots[i].size;
	g->arena = mmap(NULL, g->size, PROT_NONE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (g->arena == MAP_FAILED) {
		g->arena = NULL;
		return favo_fail(err, errno, "reserve address space: %m");
	}
	for (unsigned i = 0; i < hello->nslots; i++) {
		const struct favo_hca_slot *s = &hello->slots[i];

		ret = favo_hca_check_memfd(fds[s->fd], s->fd_offset + s->size, err);
		if (ret == 0 && mmap(g->arena + at, s->size, PROT_READ | PROT_WRITE,
				     MAP_SHARED | MAP_FIXED, fds[s->fd],
				     (off_t)s->fd_offset) == MAP_FAILED)
			ret = favo_fail(err, errno, "map guest memory: %m");
		if (ret < 0) {
			favo_hca_guest_unmap(g);
			return ret;
		}
		g->slots[i].gpa = s->gpa;
		g->slots[i].size = s->size;
		g->slots[i].offset = at;
		at += s->size;
	}
	g->nslots = hello->nslots;
	return 0;
}

void favo_hca_guest_unmap(struct favo_hca_guest *g)
{
	if (g->arena)
		munmap(g->arena, g->size);
	memset(g, 0, sizeof(*g));
}

void *favo_hca_guest_ptr(const struct favo_hca_guest *g, uint64_t gpa, uint64_t len)
{
	for (unsigned i = 0; i < g->nslots; i++) {
		uint64_t at = gpa - g->slots[i].gpa;

		if (gpa >= g->slots[i].gpa && at < g->slots[i].size)
			return len && len <= g->slots[i].size - at
				       ? g->arena + g->slots[i].offset + at
				       : NULL;
	}
	return NULL;
}

static uint64_t *table_at(const struct favo_hca_guest *g, uint64_t gpa)
{
	return gpa & (PVRDMA_PAGE - 1) ? NULL : favo_hca_guest_ptr(g, gpa, PVRDMA_PAGE);
}

static uint64_t entry(const uint64_t *table, uint64_t i)
{
	return __atomic_load_n(&table[i], __ATOMIC_RELAXED);
}

static int load(struct favo_hca_pages *pages, const struct favo_hca_guest *g,
		uint64_t pdir)
{
	uint64_t *dir = table_at(g, pdir), *table = NULL;

	if (!dir)
		return -EFAULT;
	for (uint32_t i = 0; i < pages->n; i++) {
		uint8_t *p;

		if (i % PVRDMA_DIR_ENTRIES == 0)
			table = table_at(g, entry(dir, i / PVRDMA_DIR_ENTRIES));
		if (!table)
			return -EFAULT;
		p = (uint8_t *)table_at(g, entry(table, i % PVRDMA_DIR_ENTRIES));
		if (!p)
			return -EFAULT;
		pages->page[i] = (uint32_t)((uint64_t)(p - g->arena) >> 12);
	}
	return 0;
}

int favo_hca_pages_load(struct favo_hca_pages *pages, const struct favo_hca_guest *g,
			uint64_t pdir, uint64_t n)
{
	int ret;

	pages->n = 0;
	pages->page = NULL;
	if (n < 1 || n > PVRDMA_PAGES_MAX)
		return -EINVAL;
	pages->page = malloc(n * sizeof(*pages->page));
	if (!pages->page)
		return -ENOMEM;
	pages->n = (uint32_t)n;
	ret = load(pages, g, pdir);
	if (ret < 0)
		favo_hca_pages_fini(pages);
	return ret;
}

void favo_hca_pages_fini(struct favo_hca_pages *pages)
{
	free(pages->page);
	pages->page = NULL;
	pages->n = 0;
}
