/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Overlay file: header, map pages in two slots each, data at fixed places. The
 * bytes are in docs/format-overlay.md. Everything read from the file is checked
 * before use: an overlay may come from another user or a broken disk.
 */
#include "hypervisor/virtio/overlay.h"

#include <endian.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "common/util.h"
#include "hypervisor/crc32c.h"

#define MAGIC "FAVOOVL1"
#define PAGE_MAGIC 0x504d5646 /* "FVMP" */
#define MAP_OFF FAVO_OVERLAY_PAGE
#define BITS_PER_PAGE ((FAVO_OVERLAY_PAGE - 32) * 8ULL)
#define WORDS_PER_PAGE (BITS_PER_PAGE / 64)
#define MIN_CLUSTER_BITS 12
#define MAX_CLUSTER_BITS 16
#define DATA_ALIGN (1ULL << MAX_CLUSTER_BITS)
/* Above this many clusters the next larger size is taken: 128 KiB of bits. */
#define MANY_CLUSTERS (1ULL << 20)
#define MAX_DISK (1ULL << 46)

struct header {
	char magic[8];
	uint32_t version;
	uint32_t cluster_bits;
	uint64_t disk_size, base_size;
	uint64_t map_off, map_pages, data_off;
	uint8_t reserved[FAVO_OVERLAY_PAGE - 60];
	uint32_t crc;
};

struct map_page {
	uint32_t magic;
	uint32_t crc; /* of the page with this field 0 */
	uint64_t seq;
	uint64_t index;
	uint64_t reserved;
	uint64_t bits[WORDS_PER_PAGE];
};

_Static_assert(sizeof(struct header) == FAVO_OVERLAY_PAGE, "header is a page");
_Static_assert(sizeof(struct map_page) == FAVO_OVERLAY_PAGE, "map page is a page");

/* CRC-32C (Castagnoli), reflected, four bits at a time. */
static bool all_zero(const void *data, size_t len)
{
	const uint8_t *p = data;

	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

uint64_t favo_overlay_run(const struct favo_overlay *ov, uint64_t first, uint64_t last)
{
	bool there = favo_overlay_has(ov, first);
	uint64_t all = there ? ~0ULL : 0, n = first + 1;

	while (n <= last) {
		if (n % 64 == 0 && ov->bits[n / 64] == all && n + 63 <= last) {
			n += 64;
			continue;
		}
		if (favo_overlay_has(ov, n) != there)
			break;
		n++;
	}
	return n - first;
}

void favo_overlay_set(struct favo_overlay *ov, uint64_t first, uint64_t last)
{
	for (uint64_t n = first; n <= last; n++) {
		if (favo_overlay_has(ov, n))
			continue;
		ov->bits[n / 64] |= 1ULL << (n % 64);
		ov->dirty[n / BITS_PER_PAGE] = 1;
		ov->any_dirty = true;
	}
}

/* Words of the bitmap that map page index covers. */
static size_t page_words(const struct favo_overlay *ov, uint64_t index)
{
	uint64_t all = (ov->nclusters + 63) / 64, first = index * WORDS_PER_PAGE;

	return (size_t)FAVO_MIN(all - first, (uint64_t)WORDS_PER_PAGE);
}

bool favo_overlay_next_page(struct favo_overlay *ov, struct favo_overlay_page *page)
{
	struct map_page map = {.magic = htole32(PAGE_MAGIC)};
	uint64_t i;

	if (!ov->any_dirty)
		return false;
	for (i = 0; i < ov->map_pages && !ov->dirty[i]; i++)
		;
	if (i == ov->map_pages) {
		ov->any_dirty = false;
		return false;
	}
	ov->dirty[i] = 0;
	map.index = htole64(i);
	map.seq = htole64(ov->seq[i] + 1);
	memcpy(map.bits, ov->bits + i * WORDS_PER_PAGE, page_words(ov, i) * 8);
	map.crc = htole32(favo_crc32c(0, &map, sizeof(map)));
	page->index = i;
	page->off = MAP_OFF + (i * 2 + !ov->slot[i]) * FAVO_OVERLAY_PAGE;
	memcpy(page->bytes, &map, sizeof(map));
	return true;
}

void favo_overlay_written(struct favo_overlay *ov, const struct favo_overlay_page *page)
{
	ov->slot[page->index] ^= 1;
	ov->seq[page->index]++;
}

void favo_overlay_undo(struct favo_overlay *ov, const struct favo_overlay_page *page)
{
	ov->dirty[page->index] = 1;
	ov->any_dirty = true;
}

/* Everything that follows from the sizes; the header must say the same. */
static int set_geometry(struct favo_overlay *ov, uint64_t disk_size, uint64_t base_size,
			unsigned cluster_bits, struct favo_err *err)
{
	if (disk_size == 0 || disk_size > MAX_DISK || disk_size % 512 ||
	    base_size > disk_size)
		return favo_fail(err, EINVAL, "overlay: disk of %llu bytes",
				 (unsigned long long)disk_size);
	ov->disk_size = disk_size;
	ov->base_size = base_size;
	ov->cluster_bits = cluster_bits;
	ov->nclusters = (disk_size + (1ULL << cluster_bits) - 1) >> cluster_bits;
	ov->map_pages = (ov->nclusters + BITS_PER_PAGE - 1) / BITS_PER_PAGE;
	ov->data_off =
		(MAP_OFF + ov->map_pages * 2 * FAVO_OVERLAY_PAGE + DATA_ALIGN - 1) /
		DATA_ALIGN * DATA_ALIGN;
	ov->bits = calloc((ov->nclusters + 63) / 64, 8);
	ov->seq = calloc(ov->map_pages, sizeof(*ov->seq));
	ov->slot = calloc(ov->map_pages, 1);
	ov->dirty = calloc(ov->map_pages, 1);
	if (!ov->bits || !ov->seq || !ov->slot || !ov->dirty)
		return favo_fail(err, ENOMEM, "overlay: allocate map");
	return 0;
}

/*
 * A file without header is empty, or its first flush never came; map pages are
 * written after that one only. So a map without header is a damaged file, and
 * making it anew would lose what it holds.
 */
static int check_no_map(const struct favo_overlay *ov, struct favo_err *err)
{
	uint8_t page[FAVO_OVERLAY_PAGE];

	for (uint64_t i = 0; i < ov->map_pages * 2; i++) {
		ssize_t n = pread(ov->fd, page, sizeof(page),
				  (off_t)(MAP_OFF + i * sizeof(page)));

		if (n <= 0)
			break;
		if (!all_zero(page, (size_t)n))
			return favo_fail(err, EINVAL, "overlay: the header is gone");
	}
	return 0;
}

static int format(struct favo_overlay *ov, uint64_t base_size, uint64_t disk_size,
		  struct favo_err *err)
{
	unsigned bits = MIN_CLUSTER_BITS;
	struct header h = {.magic = MAGIC, .version = htole32(1)};
	int ret;

	while (bits < MAX_CLUSTER_BITS && disk_size >> bits > MANY_CLUSTERS)
		bits++;
	ret = set_geometry(ov, disk_size, base_size, bits, err);
	if (ret == 0)
		ret = check_no_map(ov, err);
	if (ret < 0)
		return ret;
	h.cluster_bits = htole32(bits);
	h.disk_size = htole64(disk_size);
	h.base_size = htole64(base_size);
	h.map_off = htole64(MAP_OFF);
	h.map_pages = htole64(ov->map_pages);
	h.data_off = htole64(ov->data_off);
	h.crc = htole32(favo_crc32c(0, &h, offsetof(struct header, crc)));
	/*
	 * No sync: the guest's first flush makes this durable, and before it
	 * nothing in the file was promised to anybody.
	 */
	if (ftruncate(ov->fd, 0) < 0 ||
	    ftruncate(ov->fd, (off_t)(ov->data_off + disk_size)) < 0)
		return favo_fail(err, errno, "overlay: set size: %m");
	if (pwrite(ov->fd, &h, sizeof(h), 0) != (ssize_t)sizeof(h))
		return favo_fail(err, errno ? errno : EIO, "overlay: write header: %m");
	return 0;
}

static int check_header(struct favo_overlay *ov, const struct header *h,
			uint64_t base_size, uint64_t disk_size, uint64_t file_size,
			struct favo_err *err)
{
	unsigned bits = le32toh(h->cluster_bits);
	int ret;

	if (memcmp(h->magic, MAGIC, sizeof(h->magic)) != 0)
		return favo_fail(err, EINVAL, "overlay: the file is not an overlay");
	if (le32toh(h->crc) != favo_crc32c(0, h, offsetof(struct header, crc)))
		return favo_fail(err, EINVAL, "overlay: damaged header");
	if (le32toh(h->version) != 1)
		return favo_fail(err, EINVAL, "overlay: format %u is not known",
				 le32toh(h->version));
	if (bits < MIN_CLUSTER_BITS || bits > MAX_CLUSTER_BITS)
		return favo_fail(err, EINVAL, "overlay: clusters of 2^%u bytes", bits);
	if (le64toh(h->base_size) != base_size)
		return favo_fail(
			err, EINVAL,
			"overlay: belongs to a base of %llu bytes, this one has %llu",
			(unsigned long long)le64toh(h->base_size),
			(unsigned long long)base_size);
	if (le64toh(h->disk_size) != disk_size)
		return favo_fail(err, EINVAL,
				 "overlay: is for a disk of %llu bytes, not %llu",
				 (unsigned long long)le64toh(h->disk_size),
				 (unsigned long long)disk_size);
	ret = set_geometry(ov, le64toh(h->disk_size), base_size, bits, err);
	if (ret < 0)
		return ret;
	if (le64toh(h->map_off) != MAP_OFF || le64toh(h->map_pages) != ov->map_pages ||
	    le64toh(h->data_off) != ov->data_off ||
	    file_size < ov->data_off + ov->disk_size)
		return favo_fail(err, EINVAL,
				 "overlay: sizes in the header do not agree");
	return 0;
}

/* Is it a map page with number index, or one that was never written? */
static bool page_ok(const struct map_page *page, uint64_t index)
{
	struct map_page copy = *page;

	if (all_zero(page, sizeof(*page)))
		return true;
	copy.crc = 0;
	return le32toh(page->magic) == PAGE_MAGIC && le64toh(page->index) == index &&
	       le32toh(page->crc) == favo_crc32c(0, &copy, sizeof(copy));
}

/* Bits behind the last cluster must be clear. */
static bool tail_ok(const struct favo_overlay *ov)
{
	unsigned used = ov->nclusters % 64;

	return used == 0 || ov->bits[ov->nclusters / 64] >> used == 0;
}

static int load_map_page(struct favo_overlay *ov, uint64_t index, struct favo_err *err)
{
	struct map_page pages[2];
	bool ok[2];
	off_t off = (off_t)(MAP_OFF + index * sizeof(pages));
	unsigned best;

	if (pread(ov->fd, pages, sizeof(pages), off) != (ssize_t)sizeof(pages))
		return favo_fail(err, EIO, "overlay: read map page %llu",
				 (unsigned long long)index);
	ok[0] = page_ok(&pages[0], index);
	ok[1] = page_ok(&pages[1], index);
	if (!ok[0] && !ok[1])
		return favo_fail(err, EINVAL, "overlay: map page %llu is damaged",
				 (unsigned long long)index);
	/* One slot may be torn by a crash in the middle of its write. */
	best = !ok[0] || (ok[1] && le64toh(pages[1].seq) > le64toh(pages[0].seq));
	ov->slot[index] = (uint8_t)best;
	ov->seq[index] = le64toh(pages[best].seq);
	memcpy(ov->bits + index * WORDS_PER_PAGE, pages[best].bits,
	       page_words(ov, index) * 8);
	return 0;
}

static int open_or_format(struct favo_overlay *ov, uint64_t base_size, uint64_t disk_size,
			  struct favo_err *err)
{
	struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
	struct header h = {0};
	struct stat st;
	int ret;

	if (fcntl(ov->fd, F_OFD_SETLK, &lock) < 0)
		return favo_fail(err, EBUSY, "overlay: another program has it open");
	if (fstat(ov->fd, &st) < 0)
		return favo_fail(err, errno, "overlay: %m");
	if (!S_ISREG(st.st_mode))
		return favo_fail(err, EINVAL, "overlay: not a regular file");
	if (pread(ov->fd, &h, sizeof(h), 0) < 0)
		return favo_fail(err, errno, "overlay: read header: %m");
	/* A header of zeros: the crash came before the first flush. */
	if (all_zero(&h, sizeof(h)))
		return format(ov, base_size, disk_size, err);
	ret = check_header(ov, &h, base_size, disk_size, (uint64_t)st.st_size, err);
	for (uint64_t i = 0; ret == 0 && i < ov->map_pages; i++)
		ret = load_map_page(ov, i, err);
	if (ret == 0 && !tail_ok(ov))
		return favo_fail(err, EINVAL,
				 "overlay: map names clusters behind the end");
	return ret;
}

int favo_overlay_open(struct favo_overlay **out, int fd, uint64_t base_size,
		      uint64_t disk_size, struct favo_err *err)
{
	struct favo_overlay *ov = calloc(1, sizeof(*ov));
	int ret;

	if (!ov) {
		close(fd);
		return favo_fail(err, ENOMEM, "overlay: allocate");
	}
	ov->fd = fd;
	ret = open_or_format(ov, base_size, disk_size, err);
	if (ret < 0) {
		favo_overlay_free(ov);
		return ret;
	}
	*out = ov;
	return 0;
}

void favo_overlay_free(struct favo_overlay *ov)
{
	if (!ov)
		return;
	favo_close(&ov->fd);
	free(ov->bits);
	free(ov->seq);
	free(ov->slot);
	free(ov->dirty);
	free(ov);
}
