/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Fuzz target: overlay files. The first two bytes choose the sizes, the rest is
 * laid over a fresh overlay from its start; checksums are put right, or nothing
 * behind them would ever be reached. What opens is read, written and flushed.
 */
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/virtio/disk.h"

#define HEAD 12288 /* header and one map page in both slots */
#define PAGE 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static uint32_t crc32c(const uint8_t *p, size_t n)
{
	uint32_t crc = ~0U;

	for (size_t i = 0; i < n; i++) {
		crc ^= p[i];
		for (int bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
	}
	return ~crc;
}

static int memory_file(uint64_t size)
{
	int fd = memfd_create("fuzz", MFD_CLOEXEC);

	if (fd < 0 || ftruncate(fd, (off_t)size) < 0)
		abort();
	return fd;
}

static struct favo_disk *open_disk(uint64_t base_size, int overlay_fd)
{
	struct favo_disk_opts opts = {
		.fd = memory_file(base_size),
		.overlay_fd = overlay_fd,
		.depth = 4,
	};
	struct favo_disk *disk = NULL;

	return favo_disk_open(&disk, &opts, NULL) < 0 ? NULL : disk;
}

static void note_end(struct favo_disk_req *req, int result)
{
	(void)result;
	req->done = NULL;
}

static void use(struct favo_disk *disk, enum favo_disk_op op, uint64_t off, uint64_t len)
{
	static uint8_t buf[16384];
	struct iovec iov = {buf, len}, scratch;
	struct favo_disk_req req = {
		.op = op,
		.off = off,
		.len = len,
		.data = &iov,
		.ndata = 1,
		.scratch = &scratch,
		.done = note_end,
	};

	favo_disk_submit(disk, &req);
	while (req.done)
		favo_disk_wait(disk);
}

static void mend_checksums(uint8_t *head)
{
	uint32_t crc = crc32c(head, PAGE - 4);

	memcpy(head + PAGE - 4, &crc, 4);
	for (unsigned slot = 1; slot <= 2; slot++) {
		uint8_t *page = head + slot * PAGE;

		memset(page + 4, 0, 4);
		crc = crc32c(page, PAGE);
		memcpy(page + 4, &crc, 4);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	uint8_t head[HEAD];
	uint64_t base_size;
	struct favo_disk *disk;
	int fd, keep;

	if (size < 2)
		return 0;
	base_size = (1 + data[0]) * 512ULL;
	fd = memory_file(0);
	keep = dup(fd);
	favo_disk_free(open_disk(base_size, fd));
	/* dup() shares the lock's owner: the file stays ours. */
	if (pread(keep, head, HEAD, 0) != HEAD)
		abort();
	memcpy(head, data + 2, FAVO_MIN(size - 2, (size_t)HEAD));
	if (data[1] & 1)
		mend_checksums(head);
	if (pwrite(keep, head, HEAD, 0) != HEAD)
		abort();
	if (data[1] & 2 && ftruncate(keep, (off_t)(data[1] * 256)) < 0)
		abort();
	disk = open_disk(base_size, keep);
	if (disk) {
		use(disk, FAVO_DISK_READ, 0, FAVO_MIN(base_size, (uint64_t)16384));
		use(disk, FAVO_DISK_WRITE, 0, 512);
		use(disk, FAVO_DISK_WRITE, base_size - 512, 512);
		use(disk, FAVO_DISK_ZERO, base_size / 1024 * 512, 512);
		use(disk, FAVO_DISK_FLUSH, 0, 0);
		favo_disk_free(disk);
	}
	return 0;
}
