// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Persistent memory device: virtio 1.2 section 5.19. An image file (or block
 * device) is mapped read-only and shown to the guest as memory, so that all VMs
 * of a host that have the same image share its page cache, and none copies what
 * it reads. The guest's file system maps it directly (DAX).
 *
 * A write of the guest ends in nothing (it leaves KVM as an MMIO access that
 * nobody answers); there is nothing to flush either. A page that the host cannot
 * read ends the VM: favo_vm_find_bad_page() says which.
 */
#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <linux/virtio_ids.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/util.h"
#include "hypervisor/virtio/devices.h"
#include "hypervisor/virtio/spec.h"
#include "hypervisor/virtio/virtio.h"
#include "hypervisor/vm.h"

#define ALIGN (2ULL << 20) /* Linux makes page structures in such sections */
#define TURN_MAX 64
#define SEGS 16

/* Section 5.19.4 and 5.19.6; not in the uapi headers of Debian 12. */
struct pmem_config {
	uint64_t start, size;
};

struct pmem {
	struct favo_virtio dev;
	uint64_t requests;
	struct iovec iov[SEGS];
};

static struct pmem *from_dev(struct favo_virtio *dev)
{
	return favo_container_of(dev, struct pmem, dev);
}

/* Flush, the only request there is: nothing can be dirty. */
static void pmem_kick(struct favo_virtio *dev, unsigned q)
{
	struct pmem *pmem = from_dev(dev);
	struct favo_vq *vq = favo_virtio_vq(dev, q);
	struct favo_vq_req req = {.iov = pmem->iov, .max_segs = SEGS};
	unsigned turns = 0;

	favo_vq_disable_notify(vq);
	do {
		while (turns < TURN_MAX && favo_vq_pop(vq, &req) > 0) {
			const struct iovec *in = req.iov + req.nout;
			const uint32_t done = 0;
			size_t n = favo_iov_write(in, req.nin, 0, &done, sizeof(done));

			turns++;
			pmem->requests++;
			favo_vq_dirty(vq, in, req.nin, n);
			favo_vq_push(vq, req.head, (uint32_t)n);
		}
		if (turns == TURN_MAX) {
			favo_virtio_requeue(dev, q);
			break;
		}
	} while (favo_vq_enable_notify(vq));
	favo_virtio_interrupt(dev, q);
}

static void pmem_stats(struct favo_virtio *dev, json_t *object)
{
	json_object_set_new(object, "requests",
			    json_integer((json_int_t)from_dev(dev)->requests));
}

static void pmem_free(struct favo_virtio *dev)
{
	favo_virtio_fini(dev);
	free(from_dev(dev));
}

static const struct favo_virtio_ops pmem_ops = {
	.name = "pmem",
	.id = VIRTIO_ID_PMEM,
	.class_code = 0x058000,
	.kick = pmem_kick,
	.stats = pmem_stats,
	.free = pmem_free,
};

static int file_size(int fd, uint64_t *size, struct favo_err *err)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return favo_fail(err, errno, "stat: %m");
	if (S_ISREG(st.st_mode))
		*size = (uint64_t)st.st_size;
	else if (!S_ISBLK(st.st_mode))
		return favo_fail(err, EINVAL, "neither a file nor a block device");
	else if (ioctl(fd, BLKGETSIZE64, size) < 0)
		return favo_fail(err, errno, "size of the block device: %m");
	return *size ? 0 : favo_fail(err, EINVAL, "the file is empty");
}

/* The file, and zeros from its end to a multiple of ALIGN. */
static int map_file(int fd, uint64_t size, void **hva, uint64_t *mapped,
		    struct favo_err *err)
{
	uint64_t room = (size + ALIGN - 1) & ~(ALIGN - 1);
	void *p = MAP_FAILED;

	if (room >= size)
		p = mmap(NULL, room, PROT_READ,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED)
		return favo_fail(err, ENOMEM, "no address space for %llu bytes",
				 (unsigned long long)size);
	if (mmap(p, size, PROT_READ, MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED) {
		favo_fail(err, errno, "map %llu bytes: %m", (unsigned long long)size);
		munmap(p, room);
		return -ENOMEM;
	}
	*hva = p;
	*mapped = room;
	return 0;
}

static int open_file(const char *spec, char name[64], struct favo_err *err)
{
	favo_autofree char *text = strdup(spec);
	const char *path = NULL, *fd_text = NULL;
	const struct favo_spec_key keys[] = {{"path", &path, NULL},
					     {"fd", &fd_text, NULL}};
	int fd, ret;

	if (!text)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_spec_parse(text, keys, FAVO_ARRAY_SIZE(keys), err);
	if (ret < 0)
		return ret;
	if (!path == !fd_text)
		return favo_fail(err, EINVAL, "one of path and fd is needed");
	if (fd_text) {
		snprintf(name, 64, "image");
		ret = favo_spec_fd(&fd, fd_text, err);
		return ret < 0 ? ret : fd;
	}
	snprintf(name, 64, "image %s", path);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	return fd < 0 ? favo_fail(err, errno, "open %s: %m", path) : fd;
}

static int set_up(struct pmem *pmem, struct favo_vm *vm, const char *spec,
		  struct favo_err *err)
{
	struct pmem_config config;
	uint64_t size, mapped, gpa;
	char name[64];
	void *hva;
	favo_autoclose int fd = open_file(spec, name, err);
	int ret = FAVO_MIN(fd, 0);

	ret = ret ? ret : file_size(fd, &size, err);
	ret = ret ? ret : map_file(fd, size, &hva, &mapped, err);
	if (ret < 0)
		return ret;
	ret = favo_vm_map_file(vm, name, hva, mapped, &gpa, err);
	if (ret < 0) {
		munmap(hva, mapped);
		return ret;
	}
	config = (struct pmem_config){htole64(gpa), htole64(mapped)};
	memcpy(pmem->dev.config, &config, sizeof(config));
	pmem->dev.config_len = sizeof(config);
	pmem->dev.nqueues = 1;
	pmem->dev.queue_size = 64;
	return favo_virtio_add(&pmem->dev, vm, &pmem_ops, err);
}

int favo_pmem_add(struct favo_vm *vm, const char *spec, struct favo_err *err)
{
	struct pmem *pmem = calloc(1, sizeof(*pmem));
	int ret;

	if (!pmem)
		return favo_fail(err, ENOMEM, "allocate device");
	ret = set_up(pmem, vm, spec, err);
	if (ret < 0)
		pmem_free(&pmem->dev);
	return ret;
}
