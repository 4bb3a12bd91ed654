// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The image as root of the node: EROFS, read-only, under an overlay in memory.
 * From a disk each block is verified when it is read (dm-verity); in memory it
 * was, when it came. At the end the image's own init takes over.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/loop.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "images/verity.h"
#include "netboot/initramfs/netinit.h"

#define LOWER "/favo/lower"
#define UPPER "/favo/upper"
#define LOOP_TRIES 16

static int mount_at(const char *source, const char *target, const char *type,
		    unsigned long flags, const char *data, struct favo_err *err)
{
	if (mkdir(target, 0755) < 0 && errno != EEXIST && errno != EROFS)
		return favo_fail(err, errno, "make directory %s: %m", target);
	if (mount(source, target, type, flags, data) < 0)
		return favo_fail(err, errno, "mount %s (%s) on %s: %m", source, type,
				 target);
	return 0;
}

int favo_net_early(struct favo_err *err)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;
	int ret = mount_at("proc", "/proc", "proc", flags, NULL, err);

	if (ret == 0)
		ret = mount_at("sysfs", "/sys", "sysfs", flags, NULL, err);
	if (ret == 0)
		ret = mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755",
			       err);
	/* With CONFIG_DEVTMPFS_MOUNT the kernel was first. */
	return ret == -EBUSY ? 0 : ret;
}

/* A loop device over the image's file; the kernel frees it at the last umount. */
static int open_loop(int *out, char *path, size_t size, int root_fd, struct favo_err *err)
{
	favo_autoclose int control = open("/dev/loop-control", O_RDWR | O_CLOEXEC);
	struct loop_config config = {.fd = (uint32_t)root_fd,
				     .info.lo_flags =
					     LO_FLAGS_READ_ONLY | LO_FLAGS_AUTOCLEAR};

	if (control < 0)
		return favo_fail(err, errno, "loop devices: %m");
	for (int i = 0; i < LOOP_TRIES; i++) {
		int n = ioctl(control, LOOP_CTL_GET_FREE);
		favo_autoclose int fd = -1;

		if (n < 0)
			return favo_fail(err, errno, "loop device: %m");
		snprintf(path, size, "/dev/loop%d", n);
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd >= 0 && ioctl(fd, LOOP_CONFIGURE, &config) == 0) {
			*out = favo_steal_fd(&fd);
			return 0;
		}
		if (fd >= 0 && errno != EBUSY)
			break;
	}
	return favo_fail(err, errno, "loop device: %m");
}

static int mount_image(const struct favo_cache_image *image, bool verify,
		       struct favo_err *err)
{
	const struct favo_manifest *m = image->manifest;
	favo_autoclose int fd = -1;
	char path[80], name[FAVO_VERITY_NAME_SIZE];
	struct favo_err why = {0};
	int ret = -EOPNOTSUPP;

	if (verify && m->root.has_verity)
		ret = favo_verity_open(&fd, &m->id, image->root_fd, m->root.size,
				       &m->root.verity, 0, name, &why);
	if (ret == 0) {
		snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	} else if (ret != -EOPNOTSUPP) {
		return favo_fail(err, -ret, "%s", why.msg);
	} else {
		ret = open_loop(&fd, path, sizeof(path), image->root_fd, err);
		if (ret < 0)
			return ret;
	}
	return mount_at(path, LOWER, m->root.fstype, MS_RDONLY, NULL, err);
}

static int mount_overlay(struct favo_err *err)
{
	int ret = mount_at("tmpfs", UPPER, "tmpfs", 0, "size=50%,nr_inodes=0,mode=0755",
			   err);

	if (ret == 0 && (mkdir(UPPER "/up", 0755) < 0 || mkdir(UPPER "/work", 0755) < 0))
		ret = favo_fail(err, errno, "make overlay directories: %m");
	if (ret == 0)
		ret = mount_at("overlay", FAVO_NET_ROOT, "overlay", 0,
			       "lowerdir=" LOWER ",upperdir=" UPPER "/up,workdir=" UPPER
			       "/work",
			       err);
	return ret;
}

static int move_into_root(const char *path, struct favo_err *err)
{
	favo_autofree char *target = favo_asprintf(FAVO_NET_ROOT "%s", path);

	if (!target)
		return favo_fail(err, ENOMEM, "out of memory");
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "make directory %s in the root: %m", path);
	if (mount(path, target, NULL, MS_MOVE, NULL) < 0)
		return favo_fail(err, errno, "move %s into the root: %m", path);
	return 0;
}

/* A try that failed leaves nothing in the way of the next one. */
static void clear_mounts(void)
{
	umount2(FAVO_NET_ROOT, MNT_DETACH);
	umount2(UPPER, MNT_DETACH);
	umount2(LOWER, MNT_DETACH);
}

int favo_net_root_mount(struct favo_cache *cache, const struct favo_digest *id,
			bool verify, struct favo_err *err)
{
	struct favo_cache_image image;
	int ret = favo_cache_get(cache, id, NULL, &image, err);

	if (ret < 0)
		return ret;
	clear_mounts();
	ret = mount_image(&image, verify, err);
	favo_cache_image_fini(&image);
	if (ret == 0)
		ret = mount_overlay(err);
	if (ret < 0)
		clear_mounts();
	return ret;
}

int favo_net_root_enter(struct favo_err *err)
{
	static const char *const kept[] = {"/dev", "/proc", "/sys"};
	struct favo_err why = {0};
	int ret = mount_at("tmpfs", FAVO_NET_ROOT "/run", "tmpfs", MS_NOSUID | MS_NODEV,
			   "mode=0755,size=20%", err);

	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(kept); i++)
		ret = move_into_root(kept[i], err);
	if (ret < 0)
		return ret;
	/* The initramfs is memory: drivers of other machines go. */
	if (favo_remove_tree("/favo/ko", &why) < 0)
		favo_log(FAVO_WARN, "%s", why.msg);
	if (chdir(FAVO_NET_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 ||
	    chroot(".") < 0 || chdir("/") < 0)
		return favo_fail(err, errno, "enter the root: %m");
	return 0;
}

int favo_net_root_start(struct favo_err *err)
{
	static char *const inits[] = {"/sbin/init", "/lib/systemd/systemd", "/bin/init"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(inits); i++) {
		char *argv[] = {inits[i], NULL};
		char *envp[] = {"TERM=linux", "HOME=/", NULL};

		execve(inits[i], argv, envp);
	}
	return favo_fail(err, errno, "the image has no init to start: /sbin/init: %m");
}
