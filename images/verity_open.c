// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reading through the kernel's dm-verity, without libdevmapper: three ioctls
 * make a device (create, load, resume), see Linux Documentation/
 * admin-guide/device-mapper/verity.rst and <linux/dm-ioctl.h>. Device and loop
 * are marked to be removed with their last descriptor, so that no crash of
 * ours leaves one behind.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/dm-ioctl.h>
#include <linux/fs.h>
#include <linux/loop.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/util.h"
#include "images/verity.h"

#define CONTROL "/dev/mapper/control"
#define PREFIX "favo-"
#define ID_DIGITS 32
#define TRIES 20

/* An ioctl's header and room for what comes behind it. */
struct request {
	struct dm_ioctl io;
	char data[1024];
};

static void request_init(struct request *r, const char *name)
{
	memset(r, 0, sizeof(*r));
	r->io.version[0] = 4;
	r->io.data_size = sizeof(*r);
	r->io.data_start = sizeof(r->io);
	snprintf(r->io.name, sizeof(r->io.name), "%s", name);
}

static int control_open(struct favo_err *err)
{
	int fd = open(CONTROL, O_RDWR | O_CLOEXEC);

	if (fd >= 0)
		return fd;
	return favo_fail(err, EOPNOTSUPP,
			 CONTROL ": %m (kernel module dm_mod is needed, and root)");
}

/* Loads the module where it is one. */
static int check_target(int control, struct favo_err *err)
{
	struct request r;

	request_init(&r, "verity");
	if (ioctl(control, DM_GET_TARGET_VERSION, &r) < 0)
		return favo_fail(err, EOPNOTSUPP,
				 "the kernel has no dm-verity (module dm_verity)");
	return 0;
}

/* Open the node that devtmpfs has for a device number. */
static int open_node(int *out, uint64_t dev, struct favo_err *err)
{
	char path[32];
	favo_autoclose int fd = -1;
	struct stat st;

	snprintf(path, sizeof(path), "/dev/dm-%u", minor((dev_t)dev));
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return favo_fail(err, errno, "%s: %m", path);
	if (!S_ISBLK(st.st_mode) || st.st_rdev != (dev_t)dev)
		return favo_fail(err, EIO, "%s: another device", path);
	*out = favo_steal_fd(&fd);
	return 0;
}

static void remove_device(int control, const char *name, bool deferred)
{
	struct request r;

	request_init(&r, name);
	r.io.flags = deferred ? DM_DEFERRED_REMOVE : 0;
	(void)ioctl(control, DM_DEV_REMOVE, &r);
}

/* -ENOENT: there is none. What a crash left half made is removed. */
static int open_existing(int control, const char *name, int *out, struct favo_err *err)
{
	struct request r;

	request_init(&r, name);
	if (ioctl(control, DM_DEV_STATUS, &r) < 0)
		return favo_fail(err, errno == ENXIO ? ENOENT : errno, "dm %s: %m", name);
	if (!(r.io.flags & DM_ACTIVE_PRESENT_FLAG)) {
		remove_device(control, name, false);
		return favo_fail(err, ENOENT, "dm %s: was half made", name);
	}
	/* ENXIO, ENOENT: it goes at this moment, with its last user. */
	return open_node(out, r.io.dev, err) < 0 ? -ENOENT : 0;
}

/* ---- loop ---- */

static int loop_open(int *out, int file_fd, struct favo_err *err)
{
	const struct loop_config config = {
		.fd = (unsigned int)file_fd,
		.block_size = FAVO_VERITY_BLOCK,
		.info = {.lo_flags = LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR},
	};
	favo_autoclose int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	char path[32];

	if (control < 0)
		return favo_fail(err, EOPNOTSUPP,
				 "/dev/loop-control: %m (kernel module loop is needed)");
	for (int i = 0; i < TRIES; i++) {
		int number = ioctl(control, LOOP_CTL_GET_FREE), fd;

		if (number < 0)
			return favo_fail(err, errno, "no free loop device: %m");
		snprintf(path, sizeof(path), "/dev/loop%d", number);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return favo_fail(err, errno, "%s: %m", path);
		if (ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
			*out = fd;
			return 0;
		}
		close(fd);
		if (errno != EBUSY) /* EBUSY: somebody was faster */
			return favo_fail(err, errno, "%s: %m", path);
	}
	return favo_fail(err, EBUSY, "no free loop device");
}

/* ---- the device ---- */

static int load_table(int control, const char *name, dev_t dev, uint64_t size,
		      const struct favo_manifest_verity *verity, struct favo_err *err)
{
	char hash[FAVO_DIGEST_HEX_SIZE], salt[FAVO_DIGEST_HEX_SIZE];
	struct favo_verity_layout layout;
	struct dm_target_spec *spec;
	struct request r;

	favo_verity_layout(size, &layout);
	request_init(&r, name);
	r.io.target_count = 1;
	r.io.flags = DM_READONLY_FLAG;
	spec = (struct dm_target_spec *)(void *)r.data;
	spec->length = layout.data_blocks * (FAVO_VERITY_BLOCK / 512);
	snprintf(spec->target_type, sizeof(spec->target_type), "verity");
	snprintf(r.data + sizeof(*spec), sizeof(r.data) - sizeof(*spec),
		 "1 %u:%u %u:%u %u %u %llu %llu sha256 %s %s", major(dev), minor(dev),
		 major(dev), minor(dev), FAVO_VERITY_BLOCK, FAVO_VERITY_BLOCK,
		 (unsigned long long)layout.data_blocks,
		 (unsigned long long)layout.data_blocks,
		 favo_digest_format_hex(&verity->root_hash, hash),
		 favo_digest_format_hex(&verity->salt, salt));
	spec->next = sizeof(r.data);
	if (ioctl(control, DM_TABLE_LOAD, &r) < 0)
		return favo_fail(err, errno, "dm-verity table of %s: %m", name);
	request_init(&r, name);
	if (ioctl(control, DM_DEV_SUSPEND, &r) < 0) /* without flag: resume */
		return favo_fail(err, errno, "dm-verity %s: resume: %m", name);
	return 0;
}

static int make_device(int control, const char *name, int source_fd, uint64_t size,
		       const struct favo_manifest_verity *verity, int *out,
		       struct favo_err *err)
{
	favo_autoclose int loop = -1;
	struct request r;
	struct stat st;
	int ret;

	if (fstat(source_fd, &st) < 0)
		return favo_fail(err, errno, "dm-verity %s: %m", name);
	if (S_ISREG(st.st_mode)) {
		ret = loop_open(&loop, source_fd, err);
		if (ret < 0)
			return ret;
		if (fstat(loop, &st) < 0)
			return favo_fail(err, errno, "loop device: %m");
	}
	request_init(&r, name);
	r.io.flags = DM_READONLY_FLAG;
	if (ioctl(control, DM_DEV_CREATE, &r) < 0)
		return favo_fail(err, errno, "dm-verity %s: %m", name);
	ret = load_table(control, name, st.st_rdev, size, verity, err);
	if (ret == 0)
		ret = open_node(out, r.io.dev, err);
	/* With a descriptor: when that is closed. Without: at once. */
	remove_device(control, name, ret == 0);
	return ret;
}

/* Another file of the same image, such as one fetched anew, is another device. */
static int device_name(char name[FAVO_VERITY_NAME_SIZE], const struct favo_digest *id,
		       int source_fd, struct favo_err *err)
{
	char hex[FAVO_DIGEST_HEX_SIZE];
	struct stat st;

	if (fstat(source_fd, &st) < 0)
		return favo_fail(err, errno, "dm-verity: %m");
	snprintf(name, FAVO_VERITY_NAME_SIZE, PREFIX "%.*s-%llx", ID_DIGITS,
		 favo_digest_format_hex(id, hex),
		 (unsigned long long)(S_ISBLK(st.st_mode) ? st.st_rdev : st.st_ino));
	return 0;
}

int favo_verity_open(int *out, const struct favo_digest *id, int source_fd, uint64_t size,
		     const struct favo_manifest_verity *verity, unsigned int flags,
		     char name[FAVO_VERITY_NAME_SIZE], struct favo_err *err)
{
	favo_autoclose int control = control_open(err), fd = -1;
	char own_name[FAVO_VERITY_NAME_SIZE], block[FAVO_VERITY_BLOCK];
	int ret;

	name = name ? name : own_name;
	if (control < 0)
		return control;
	if ((ret = check_target(control, err)) < 0 ||
	    (ret = device_name(name, id, source_fd, err)) < 0)
		return ret;
	for (int i = 0; i < TRIES; i++) {
		ret = open_existing(control, name, &fd, NULL);
		if (ret == -ENOENT)
			ret = make_device(control, name, source_fd, size, verity, &fd,
					  err);
		if (ret != -EBUSY) /* one that is about to go has the name still */
			break;
		usleep(50000);
	}
	if (ret < 0)
		return ret;
	if (flags & FAVO_VERITY_NO_READAHEAD)
		(void)ioctl(fd, BLKRASET, 0ul);
	if (pread(fd, block, sizeof(block), 0) != (ssize_t)sizeof(block))
		return favo_fail(err, errno == EIO ? EBADMSG : errno,
				 "the first block is damaged: %m");
	*out = favo_steal_fd(&fd);
	return 0;
}

int favo_verity_find(int *out, const struct favo_digest *id,
		     char name[FAVO_VERITY_NAME_SIZE], struct favo_err *err)
{
	const size_t size = 256 * 1024;
	favo_autofree char *buf = calloc(1, size);
	struct dm_ioctl *io = (struct dm_ioctl *)(void *)buf;
	char hex[FAVO_DIGEST_HEX_SIZE], prefix[FAVO_VERITY_NAME_SIZE];
	favo_autoclose int control = control_open(err);
	const struct dm_name_list *entry;
	size_t at;

	if (control < 0)
		return control;
	if (!buf)
		return favo_fail(err, ENOMEM, "dm-verity: out of memory");
	io->version[0] = 4;
	io->data_size = (uint32_t)size;
	io->data_start = sizeof(*io);
	if (ioctl(control, DM_LIST_DEVICES, io) < 0)
		return favo_fail(err, errno, "dm-verity: list: %m");
	snprintf(prefix, sizeof(prefix), PREFIX "%.*s-", ID_DIGITS,
		 favo_digest_format_hex(id, hex));
	for (at = io->data_start; at + sizeof(*entry) < size;) {
		entry = (const struct dm_name_list *)(const void *)(buf + at);
		if (entry->dev == 0)
			break;
		if (strncmp(entry->name, prefix, strlen(prefix)) == 0 &&
		    strlen(entry->name) < FAVO_VERITY_NAME_SIZE &&
		    open_existing(control, entry->name, out, NULL) == 0) {
			snprintf(name, FAVO_VERITY_NAME_SIZE, "%s", entry->name);
			return 0;
		}
		if (entry->next == 0)
			break;
		at += entry->next;
	}
	return favo_fail(err, ENOENT, "no dm-verity device of the image");
}

bool favo_verity_is_damaged(const char *name)
{
	favo_autoclose int control = control_open(NULL);
	struct request r;

	request_init(&r, name);
	if (control < 0 || ioctl(control, DM_TABLE_STATUS, &r) < 0 ||
	    r.io.target_count != 1 ||
	    r.io.data_start + sizeof(struct dm_target_spec) >= sizeof(r))
		return false;
	/* "V" so far all right, "C" a corrupted block was met */
	return *((char *)&r + r.io.data_start + sizeof(struct dm_target_spec)) == 'C';
}
