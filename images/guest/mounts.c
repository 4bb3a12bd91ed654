// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * File systems of a guest; see init.h. The root is the image, read-only, with
 * a tmpfs over it: what the job writes is gone with the guest.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <limits.h>
#include <linux/module.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "images/guest/command.h"
#include "images/guest/init.h"

#define NEW_ROOT "/favo/root"
#define LOWER "/favo/lower"
#define UPPER "/favo/upper"
#define CGROUP "/sys/fs/cgroup"
#define DEVICE_WAIT_MS 5000
/* Share of the guest's memory that writes to the root may take. */
#define UPPER_SIZE "size=80%,nr_inodes=0,mode=0755"

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

int favo_mount_early(struct favo_err *err)
{
	int ret = mount_at("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC,
			   NULL, err);

	if (ret == 0)
		ret = mount_at("sysfs", "/sys", "sysfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
			       NULL, err);
	if (ret == 0)
		ret = mount_at("devtmpfs", "/dev", "devtmpfs", MS_NOSUID, "mode=0755",
			       err);
	/* With CONFIG_DEVTMPFS_MOUNT the kernel was first. */
	return ret == -EBUSY ? 0 : ret;
}

static int load_module(const char *path, struct favo_err *err)
{
	favo_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t len = strlen(path);
	int flags = 0;

	if (fd < 0)
		return favo_fail(err, errno, "module %s: %m", path);
	if (len > 3 && strcmp(path + len - 3, ".ko") != 0)
		flags = MODULE_INIT_COMPRESSED_FILE;
	if (syscall(SYS_finit_module, fd, "", flags) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "load module %s: %m", path);
	return 0;
}

/* Is a PCI device "vendor:device", four hexadecimal digits each, there? */
static bool has_pci(const char *id)
{
	favo_autofree char *pattern = favo_asprintf("v0000%.4sd0000%.4s", id, id + 5);
	glob_t found;
	bool there = false;

	if (!pattern || strlen(id) != 9 ||
	    glob("/sys/bus/pci/devices/*/modalias", 0, NULL, &found) != 0)
		return false;
	for (size_t i = 0; !there && i < found.gl_pathc; i++) {
		favo_autofree char *text = NULL;

		there = favo_file_read(found.gl_pathv[i], 4096, &text, NULL, NULL) == 0 &&
			strcasestr(text, pattern);
	}
	globfree(&found);
	return there;
}

int favo_load_modules(const char *list, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	char *save = NULL;
	int ret = favo_file_read(list, 1 << 20, &text, NULL, err);

	if (ret == -ENOENT)
		return 0; /* a kernel with everything built in */
	if (ret < 0)
		return ret;
	for (char *line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		struct favo_err why = {0};
		char *id = strchr(line, ' ');

		if (id)
			*id++ = '\0';
		/*
		 * A driver for a device that this guest has not got may refuse;
		 * what is really missing is named by the step that needs it.
		 */
		if ((!id || has_pci(id)) && load_module(line, &why) < 0)
			favo_log(FAVO_WARN, "%s", why.msg);
		/* The initramfs is memory: the text of a loaded module is not needed. */
		unlink(line);
	}
	return 0;
}

static int wait_for_device(const char *path, struct favo_err *err)
{
	int64_t end_ms = favo_now_ms() + DEVICE_WAIT_MS;
	struct stat st;
	unsigned wait_us = 200;

	while (stat(path, &st) < 0 || !S_ISBLK(st.st_mode)) {
		if (favo_now_ms() > end_ms)
			return favo_fail(err, ENODEV,
					 "root device %s is not there after %d s", path,
					 DEVICE_WAIT_MS / 1000);
		usleep(wait_us);
		wait_us = FAVO_MIN(2 * wait_us, 20000u);
	}
	return 0;
}

static int mount_overlay(struct favo_err *err)
{
	int ret = mount_at("tmpfs", UPPER, "tmpfs", 0, UPPER_SIZE, err);

	if (ret == 0 && (mkdir(UPPER "/up", 0755) < 0 || mkdir(UPPER "/work", 0755) < 0))
		ret = favo_fail(err, errno, "make overlay directories: %m");
	if (ret == 0)
		ret = mount_at("overlay", NEW_ROOT, "overlay", 0,
			       "lowerdir=" LOWER ",upperdir=" UPPER "/up,workdir=" UPPER
			       "/work",
			       err);
	return ret;
}

/* Where images have no such directory, the overlay takes it. */
static int move_into_root(const char *path, struct favo_err *err)
{
	char target[PATH_MAX];

	snprintf(target, sizeof(target), NEW_ROOT "%s", path);
	if (mkdir(target, 0755) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "make directory %s in the root: %m", path);
	if (mount(path, target, NULL, MS_MOVE, NULL) < 0)
		return favo_fail(err, errno, "move %s into the root: %m", path);
	return 0;
}

/* Our own program in the guest, under the names of the Slurm commands. */
static int place_commands(struct favo_err *err)
{
	const char *program = NEW_ROOT "/run/favo/favo-init";
	favo_autoclose int fd = -1;
	int ret = favo_mkdirs(NEW_ROOT FAVO_COMMAND_DIR, 0755, err);

	if (ret < 0)
		return ret;
	fd = open(program, O_WRONLY | O_CREAT | O_CLOEXEC, 0755);
	if (fd < 0)
		return favo_fail(err, errno, "create /run/favo/favo-init: %m");
	/* A bind mount costs no memory; the file in the initramfs stays in use. */
	if (mount("/init", program, NULL, MS_BIND, NULL) < 0)
		return favo_fail(err, errno, "bind /init into the root: %m");
	for (size_t i = 0; favo_commands[i]; i++) {
		char link[PATH_MAX];

		snprintf(link, sizeof(link), NEW_ROOT FAVO_COMMAND_DIR "/%s",
			 favo_commands[i]);
		if (symlink("../favo-init", link) < 0 && errno != EEXIST)
			return favo_fail(err, errno, "link %s: %m", favo_commands[i]);
	}
	return 0;
}

static int mount_memory(struct favo_err *err)
{
	int ret = mount_at("devpts", NEW_ROOT "/dev/pts", "devpts", MS_NOSUID | MS_NOEXEC,
			   "gid=5,mode=0620,ptmxmode=0666", err);

	if (ret == 0)
		ret = mount_at("tmpfs", NEW_ROOT "/dev/shm", "tmpfs",
			       MS_NOSUID | MS_NODEV, "mode=1777", err);
	if (ret == 0)
		ret = mount_at("tmpfs", NEW_ROOT "/tmp", "tmpfs", MS_NOSUID | MS_NODEV,
			       "mode=1777", err);
	if (ret == 0)
		ret = mount_at("tmpfs", NEW_ROOT "/run", "tmpfs", MS_NOSUID | MS_NODEV,
			       "mode=0755", err);
	return ret;
}

static void make_dev_links(void)
{
	static const char *const links[][2] = {
		{"/proc/self/fd", NEW_ROOT "/dev/fd"},
		{"/proc/self/fd/0", NEW_ROOT "/dev/stdin"},
		{"/proc/self/fd/1", NEW_ROOT "/dev/stdout"},
		{"/proc/self/fd/2", NEW_ROOT "/dev/stderr"},
	};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(links); i++)
		if (symlink(links[i][0], links[i][1]) < 0 && errno != EEXIST)
			favo_log(FAVO_WARN, "link %s: %m", links[i][1]);
	/* The pts instance mounted above is the only one. */
	if (access(NEW_ROOT "/dev/ptmx", F_OK) < 0 &&
	    symlink("pts/ptmx", NEW_ROOT "/dev/ptmx") < 0)
		favo_log(FAVO_WARN, "link /dev/ptmx: %m");
}

int favo_mount_root(const struct favo_guest_config *config, struct favo_err *err)
{
	int ret = wait_for_device(config->root_device, err);

	if (ret == 0)
		ret = mount_at(config->root_device, LOWER, config->root_fstype, MS_RDONLY,
			       NULL, err);
	if (ret == 0)
		ret = mount_overlay(err);
	if (ret == 0)
		ret = move_into_root("/dev", err);
	if (ret == 0)
		ret = mount_memory(err);
	if (ret < 0)
		return ret;
	make_dev_links();
	ret = place_commands(err);
	if (ret == 0)
		ret = move_into_root("/sys", err);
	if (ret == 0)
		ret = move_into_root("/proc", err);
	return ret;
}

int favo_enter_root(struct favo_err *err)
{
	if (chdir(NEW_ROOT) < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 ||
	    chroot(".") < 0 || chdir("/") < 0)
		return favo_fail(err, errno, "enter the root: %m");
	return 0;
}

static int mount_share(const struct favo_guest_mount *m, struct favo_err *err)
{
	unsigned long flags = MS_NOSUID | MS_NODEV | (m->ro ? MS_RDONLY : 0);
	int ret = favo_mkdirs(m->path, 0755, err);

	if (ret < 0)
		return ret;
	if (mount(m->tag, m->path, "virtiofs", flags, NULL) == 0)
		return 0;
	if (errno == ENODEV)
		return favo_fail(err, ENODEV,
				 "the guest's kernel has no virtiofs; import the image "
				 "again or with another kernel");
	return favo_fail(err, errno, "mount: %m");
}

int favo_mount_shares(const struct favo_guest_config *config, char *note, size_t size,
		      struct favo_err *err)
{
	for (size_t i = 0; i < config->n_mounts; i++) {
		const struct favo_guest_mount *m = &config->mounts[i];
		struct favo_err why = {0};
		int ret = mount_share(m, &why);

		if (ret < 0 && m->required)
			return favo_fail(err, -ret, "--vm-mount: %.100s: %.300s", m->path,
					 why.msg);
		if (ret < 0)
			snprintf(note, size, "%.100s of the node is not there: %.200s",
				 m->path, why.msg);
	}
	return 0;
}

const char *favo_mount_cgroup(void)
{
	struct favo_err err = {0};

	if (mount_at("cgroup2", CGROUP, "cgroup2", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL,
		     &err) < 0) {
		favo_log(FAVO_WARN, "%s", err.msg);
		return NULL;
	}
	if (mkdir(CGROUP "/favo", 0755) < 0 && errno != EEXIST)
		return NULL;
	return CGROUP "/favo";
}
