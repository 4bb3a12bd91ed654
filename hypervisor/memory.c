// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Guest RAM: a sealed memfd or anonymous memory, mapped at one place, split into
 * a low region below the PCI hole and a high region from 4 GiB on. No KVM here:
 * vm.c makes memory slots of the regions, so tests and fuzzers use this file
 * alone.
 *
 * Huge pages: hugetlbfs pages when asked for, else transparent ones by madvise.
 * Hosts give those to anonymous memory by default ("madvise" or "always" in
 * transparent_hugepage/enabled), to a memfd only when shmem_enabled says so.
 */
#include "hypervisor/memory.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/memfd.h>
#include <pthread.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"

#define HUGE_2M (2ULL << 20)
#define PREALLOC_THREADS 8
#define PREALLOC_MIN_PER_THREAD (256ULL << 20)

static uint64_t free_huge_pages(void)
{
	favo_autofclose FILE *f =
		fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "re");
	unsigned long long n = 0;

	if (!f || fscanf(f, "%llu", &n) != 1)
		return 0;
	return n;
}

static int make_memfd(uint64_t size, bool huge, struct favo_err *err)
{
	unsigned flags =
		MFD_CLOEXEC | MFD_ALLOW_SEALING | (huge ? MFD_HUGETLB | MFD_HUGE_2MB : 0);
	int seals = F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL;
	favo_autoclose int fd = memfd_create("favo-guest-ram", flags);

	if (fd < 0)
		return favo_fail(err, errno, "guest memory: memfd_create: %m");
	if (ftruncate(fd, (off_t)size) < 0 || fcntl(fd, F_ADD_SEALS, seals) < 0)
		return favo_fail(err, errno, "guest memory: set size of %llu bytes: %m",
				 (unsigned long long)size);
	return favo_steal_fd(&fd);
}

/* Map at a multiple of 2 MiB, as guest addresses are: a huge page needs both. */
static void *map_aligned(uint64_t size, int flags, int fd)
{
	uint8_t *room = mmap(NULL, size + HUGE_2M, PROT_NONE,
			     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	uint8_t *start;
	void *hva;

	if (room == MAP_FAILED)
		return MAP_FAILED;
	start = room + (-(uintptr_t)room & (HUGE_2M - 1));
	hva = mmap(start, size, PROT_READ | PROT_WRITE, flags | MAP_FIXED, fd, 0);
	if (hva == MAP_FAILED) {
		munmap(room, size + HUGE_2M);
		return MAP_FAILED;
	}
	if (start != room)
		munmap(room, (size_t)(start - room));
	if (start + size != room + size + HUGE_2M)
		munmap(start + size, (size_t)(room + HUGE_2M - start));
	return hva;
}

static int map_ram(struct favo_memory *mem, const struct favo_memory_opts *opts,
		   bool huge, struct favo_err *err)
{
	favo_autoclose int fd = -1;
	int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE;
	void *hva;

	if (opts->file) {
		flags = MAP_PRIVATE | MAP_NORESERVE;
	} else if (huge || opts->shared) {
		fd = make_memfd(opts->size, huge, err);
		if (fd < 0)
			return fd;
		/* Reserved: a lack of huge pages fails here and not with SIGBUS. */
		flags = MAP_SHARED | (huge ? 0 : MAP_NORESERVE);
	}
	hva = map_aligned(opts->size, flags, opts->file ? *opts->file : fd);
	if (hva == MAP_FAILED)
		return favo_fail(err, errno, "guest memory: map %llu bytes: %m",
				 (unsigned long long)opts->size);
	/* One fault and one TLB entry for 512 pages: a boot takes far fewer faults. */
	if (!huge)
		madvise(hva, opts->size,
			opts->huge == FAVO_HUGE_AUTO ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	madvise(hva, opts->size, MADV_DONTDUMP);
	mem->regions[0].hva = hva;
	mem->page_size = huge ? HUGE_2M : FAVO_PAGE_SIZE;
	mem->fixed = huge || opts->prealloc;
	mem->fd = favo_steal_fd(&fd);
	return 0;
}

static void split_at_hole(struct favo_memory *mem)
{
	struct favo_mem_region *low = &mem->regions[0];

	low->fd = mem->fd;
	low->size = FAVO_MIN(mem->size, FAVO_GPA_HOLE_START);
	mem->nregions = 1;
	if (mem->size > low->size) {
		mem->regions[1] = (struct favo_mem_region){
			.gpa = FAVO_GPA_HIGH,
			.size = mem->size - low->size,
			.hva = low->hva + low->size,
			.fd = mem->fd,
			.fd_offset = low->size,
		};
		mem->nregions = 2;
	}
}

struct prealloc_part {
	pthread_t thread;
	uint8_t *start;
	uint64_t size;
	int error;
};

static void *prealloc_run(void *arg)
{
	struct prealloc_part *part = arg;

	/* Linux 5.14; reports a lack of memory instead of a SIGBUS. */
	if (madvise(part->start, part->size, MADV_POPULATE_WRITE) < 0)
		part->error = errno;
	return NULL;
}

static int prealloc(struct favo_memory *mem, struct favo_err *err)
{
	long cpus = sysconf(_SC_NPROCESSORS_ONLN);
	uint64_t n = FAVO_MIN(mem->size / PREALLOC_MIN_PER_THREAD + 1, PREALLOC_THREADS);
	struct prealloc_part parts[PREALLOC_THREADS] = {0};
	uint64_t step, at = 0;
	unsigned i, started;
	int error = 0;

	n = FAVO_MIN(n, (uint64_t)FAVO_MAX(cpus, 1));
	step = (mem->size / n + HUGE_2M - 1) & ~(HUGE_2M - 1);
	for (i = 0; i < n && at < mem->size; i++, at += step) {
		parts[i].start = mem->regions[0].hva + at;
		parts[i].size = FAVO_MIN(step, mem->size - at);
	}
	n = i;
	/* The last part is ours, and all that got no thread. */
	for (started = 0; started + 1 < n; started++)
		if (pthread_create(&parts[started].thread, NULL, prealloc_run,
				   &parts[started]))
			break;
	for (i = started; i < n; i++)
		prealloc_run(&parts[i]);
	for (i = 0; i < started; i++)
		pthread_join(parts[i].thread, NULL);
	for (i = 0; i < n; i++)
		error = parts[i].error ? parts[i].error : error;
	if (error && error != EINVAL)
		return favo_fail(err, error, "guest memory: preallocate: %m");
	return 0;
}

int favo_memory_new(struct favo_memory **out, const struct favo_memory_opts *opts,
		    struct favo_err *err)
{
	struct favo_memory *mem;
	bool huge = false;
	int ret = -1;

	if (!opts->size || opts->size % FAVO_PAGE_SIZE || opts->size > (1ULL << 46))
		return favo_fail(err, EINVAL, "guest memory: bad size of %llu bytes",
				 (unsigned long long)opts->size);
	if (opts->file && (opts->shared || opts->huge == FAVO_HUGE_ON))
		return favo_fail(err, EINVAL,
				 "guest memory from a file can be neither shared nor of "
				 "huge pages");
	if (opts->size % HUGE_2M == 0 && !opts->file)
		huge = opts->huge == FAVO_HUGE_ON ||
		       (opts->huge == FAVO_HUGE_AUTO &&
			free_huge_pages() >= opts->size / HUGE_2M);
	else if (opts->huge == FAVO_HUGE_ON)
		return favo_fail(
			err, EINVAL,
			"guest memory: size is no multiple of the 2 MiB huge page");
	mem = calloc(1, sizeof(*mem));
	if (!mem)
		return favo_fail(err, ENOMEM, "guest memory: out of memory");
	mem->fd = -1;
	mem->size = opts->size;
	/* Free huge pages may be reserved by others: then plain pages do. */
	if (huge)
		ret = map_ram(mem, opts, true, opts->huge == FAVO_HUGE_ON ? err : NULL);
	if (ret < 0 && opts->huge != FAVO_HUGE_ON)
		ret = map_ram(mem, opts, false, err);
	if (ret == 0) {
		split_at_hole(mem);
		if (opts->prealloc)
			ret = prealloc(mem, err);
	}
	if (ret < 0) {
		favo_memory_free(mem);
		return ret;
	}
	*out = mem;
	return 0;
}

void favo_memory_free(struct favo_memory *mem)
{
	if (!mem)
		return;
	free(atomic_load(&mem->dirty));
	if (mem->regions[0].hva)
		munmap(mem->regions[0].hva, mem->size);
	favo_close(&mem->fd);
	free(mem);
}

uint64_t favo_memory_end(const struct favo_memory *mem)
{
	const struct favo_mem_region *last = &mem->regions[mem->nregions - 1];

	return FAVO_MAX(last->gpa + last->size, FAVO_GPA_HIGH);
}

void *favo_guest_ptr(const struct favo_memory *mem, uint64_t gpa, uint64_t len)
{
	unsigned i;

	for (i = 0; i < mem->nregions; i++) {
		const struct favo_mem_region *r = &mem->regions[i];
		uint64_t offset = gpa - r->gpa;

		/* Written so that nothing can wrap. */
		if (gpa >= r->gpa && offset < r->size)
			return len && len <= r->size - offset ? r->hva + offset : NULL;
	}
	return NULL;
}

int favo_guest_read(const struct favo_memory *mem, uint64_t gpa, void *buf, size_t len)
{
	const void *p = favo_guest_ptr(mem, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(buf, p, len);
	return 0;
}

int favo_guest_write(struct favo_memory *mem, uint64_t gpa, const void *buf, size_t len)
{
	void *p = favo_guest_ptr(mem, gpa, len);

	if (!p)
		return -EFAULT;
	memcpy(p, buf, len);
	favo_guest_dirty(mem, p, len);
	return 0;
}

void favo_memory_discard(struct favo_memory *mem, void *ptr, uint64_t len)
{
	uint64_t offset = (uint64_t)((const uint8_t *)ptr - mem->regions[0].hva);
	uint64_t start = (offset + FAVO_PAGE_SIZE - 1) & ~(FAVO_PAGE_SIZE - 1), end;

	if (mem->fixed || offset >= mem->size || len > mem->size - offset)
		return;
	end = (offset + len) & ~(FAVO_PAGE_SIZE - 1);
	if (start >= end)
		return;
	/* A failure costs memory, nothing else. */
	if (mem->fd < 0)
		(void)madvise(mem->regions[0].hva + start, end - start, MADV_DONTNEED);
	else
		(void)!fallocate(mem->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				 (off_t)start, (off_t)(end - start));
}

#define BITS_PER_WORD (8 * sizeof(unsigned long))

void favo_guest_dirty_slow(struct favo_memory *mem, const void *ptr, uint64_t len)
{
	atomic_ulong *map = atomic_load_explicit(&mem->dirty, memory_order_acquire);
	uint64_t offset = (uint64_t)((const uint8_t *)ptr - mem->regions[0].hva);
	uint64_t page, last;

	if (!map || !len || offset >= mem->size)
		return;
	last = FAVO_MIN(offset + len - 1, mem->size - 1) >> FAVO_PAGE_SHIFT;
	for (page = offset >> FAVO_PAGE_SHIFT; page <= last; page++)
		atomic_fetch_or(&map[page / BITS_PER_WORD], 1UL << page % BITS_PER_WORD);
}

int favo_memory_log(struct favo_memory *mem, bool on, struct favo_err *err)
{
	uint64_t pages = mem->size >> FAVO_PAGE_SHIFT;
	atomic_ulong *map = NULL;

	if (on) {
		map = calloc(pages / BITS_PER_WORD + 1, sizeof(*map));
		if (!map)
			return favo_fail(err, ENOMEM,
					 "guest memory: out of memory for the log");
	}
	free(atomic_exchange(&mem->dirty, map));
	return 0;
}

bool favo_memory_fetch_dirty(struct favo_memory *mem, uint64_t offset)
{
	atomic_ulong *map = atomic_load_explicit(&mem->dirty, memory_order_acquire);
	uint64_t page = offset >> FAVO_PAGE_SHIFT;
	unsigned long bit = 1UL << page % BITS_PER_WORD;

	if (!map || offset >= mem->size)
		return false;
	return atomic_fetch_and(&map[page / BITS_PER_WORD], ~bit) & bit;
}
