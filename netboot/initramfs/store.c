// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Where the image lies: a local file system with the label that favod names,
 * so that the next start fetches only what changed and an image may be larger
 * than memory; else memory.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "netboot/initramfs/netinit.h"

#define DISK_WAIT_MS 5000
#define SUPERBLOCK 1024 /* of ext4 */
#define MAGIC_AT (SUPERBLOCK + 0x38)
#define LABEL_AT (SUPERBLOCK + 0x78)
#define LABEL_LEN 16

static bool has_label(const char *path, const char *label)
{
	favo_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	char name[LABEL_LEN + 1] = "";
	unsigned char magic[2];

	return fd >= 0 && pread(fd, magic, 2, MAGIC_AT) == 2 && magic[0] == 0x53 &&
	       magic[1] == 0xef && pread(fd, name, LABEL_LEN, LABEL_AT) == LABEL_LEN &&
	       strcmp(name, label) == 0;
}

static bool find_disk(char *path, size_t size, const char *label)
{
	DIR *dir = opendir("/sys/class/block");
	struct dirent *d;
	bool found = false;

	while (dir && !found && (d = readdir(dir))) {
		if (d->d_name[0] == '.' || strncmp(d->d_name, "loop", 4) == 0 ||
		    strncmp(d->d_name, "ram", 3) == 0)
			continue;
		snprintf(path, size, "/dev/%.64s", d->d_name);
		found = has_label(path, label);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* Disks show up some time after their driver. */
static int mount_disk(const char *label, struct favo_err *err)
{
	int64_t end_ms = favo_now_ms() + DISK_WAIT_MS;
	char path[80];

	while (!find_disk(path, sizeof(path), label)) {
		if (favo_now_ms() > end_ms)
			return favo_fail(err, ENOENT, "no ext4 file system is called %s",
					 label);
		usleep(20000);
	}
	if (mount(path, FAVO_NET_CACHE, "ext4", MS_NOATIME | MS_NODEV | MS_NOSUID, NULL) <
	    0)
		return favo_fail(err, errno, "mount %s: %m", path);
	return 0;
}

int favo_net_cache_open(const struct favo_net_config *c, struct favo_cache **out,
			bool *on_disk, struct favo_err *err)
{
	struct favo_err why = {0};

	*on_disk = false;
	if (mkdir(FAVO_NET_CACHE, 0700) < 0 && errno != EEXIST)
		return favo_fail(err, errno, FAVO_NET_CACHE ": %m");
	if (c->cache_label[0]) {
		if (mount_disk(c->cache_label, &why) == 0 &&
		    favo_cache_open(out, FAVO_NET_CACHE, &why) == 0) {
			*on_disk = true;
			return 0;
		}
		favo_log(FAVO_WARN, "%s; the image goes to memory", why.msg);
		umount2(FAVO_NET_CACHE, MNT_DETACH);
	}
	if (mount("tmpfs", FAVO_NET_CACHE, "tmpfs", MS_NODEV | MS_NOSUID,
		  "size=80%,mode=0700") < 0)
		return favo_fail(err, errno, "memory for the image: %m");
	return favo_cache_open(out, FAVO_NET_CACHE, err);
}
