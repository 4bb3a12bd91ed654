// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Namespaces, capabilities, limits. The process keeps its uid, which is the
 * only one that its user namespace knows. A PID namespace would need a fork
 * before KVM is opened (KVM and vhost are bound to the address space), so who
 * starts favo-vmm puts it into one; in here, signals to other processes die in
 * the seccomp filter.
 */
#include "hypervisor/jail.h"

#include <errno.h>
#include <linux/capability.h>
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"

/* Covered by the new root for a moment; there is always one. */
#define ROOT_MOUNT_POINT "/proc"
#define NOFILE_MAX 1024

static int write_file(const char *path, const char *text, struct favo_err *err)
{
	favo_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return favo_fail(err, errno, "jail: open %s: %m", path);
	return favo_write_all(fd, text, strlen(text), -1, err);
}

static int new_namespaces(struct favo_err *err)
{
	const int flags = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC |
			  CLONE_NEWUTS | CLONE_NEWCGROUP;
	unsigned uid = getuid(), gid = getgid();
	char map[64];
	int ret;

	if (unshare(flags) < 0)
		return favo_fail(
			err, errno,
			"jail: new namespaces: %m (are user namespaces allowed here?)");
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	ret = write_file("/proc/self/uid_map", map, err);
	/* Without this an unprivileged user may not write the gid map. */
	ret = ret ? ret : write_file("/proc/self/setgroups", "deny", err);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	return ret ? ret : write_file("/proc/self/gid_map", map, err);
}

static int empty_root(struct favo_err *err)
{
	const unsigned long flags = MS_NOSUID | MS_NODEV | MS_NOEXEC;

	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return favo_fail(err, errno, "jail: make mounts private: %m");
	if (mount("none", ROOT_MOUNT_POINT, "tmpfs", flags,
		  "size=4k,nr_inodes=2,mode=500") < 0)
		return favo_fail(err, errno, "jail: mount an empty root: %m");
	if (chdir(ROOT_MOUNT_POINT) < 0)
		return favo_fail(err, errno, "jail: enter the empty root: %m");
	/* Old root lands over the new one and is taken off: pivot_root(2), NOTES. */
	if (syscall(SYS_pivot_root, ".", ".") < 0)
		return favo_fail(err, errno, "jail: pivot_root: %m");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return favo_fail(err, errno, "jail: leave the old root: %m");
	if (mount(NULL, "/", NULL, MS_REMOUNT | MS_BIND | MS_RDONLY | flags, NULL) < 0)
		return favo_fail(err, errno, "jail: make the root read-only: %m");
	return 0;
}

static int drop_capabilities(struct favo_err *err)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct none[_LINUX_CAPABILITY_U32S_3] = {0};
	unsigned long cap;

	/* EINVAL: past the last one that this kernel knows. */
	for (cap = 0; prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) == 0; cap++)
		;
	if (errno != EINVAL)
		return favo_fail(err, errno, "jail: drop the bounding set: %m");
	prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0);
	if (syscall(SYS_capset, &head, none) < 0)
		return favo_fail(err, errno, "jail: drop capabilities: %m");
	return 0;
}

static int set_limits(struct favo_err *err)
{
	static const struct {
		int resource;
		rlim_t max;
	} rows[] = {
		{RLIMIT_CORE, 0}, {RLIMIT_NOFILE, NOFILE_MAX}, {RLIMIT_MSGQUEUE, 0},
		{RLIMIT_NICE, 0}, {RLIMIT_RTPRIO, 0},
	};
	unsigned i;

	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		struct rlimit rl;

		if (getrlimit((__rlimit_resource_t)rows[i].resource, &rl) < 0)
			return favo_fail(err, errno, "jail: getrlimit: %m");
		rl.rlim_max = FAVO_MIN(rl.rlim_max, rows[i].max);
		rl.rlim_cur = FAVO_MIN(rl.rlim_cur, rl.rlim_max);
		if (setrlimit((__rlimit_resource_t)rows[i].resource, &rl) < 0)
			return favo_fail(err, errno, "jail: setrlimit: %m");
	}
	return 0;
}

int favo_jail_enter(struct favo_err *err)
{
	int ret = new_namespaces(err);

	ret = ret ? ret : empty_root(err);
	ret = ret ? ret : set_limits(err);
	ret = ret ? ret : drop_capabilities(err);
	if (ret < 0)
		return ret;
	/* After the maps were written: it takes /proc/self away from us. */
	if (prctl(PR_SET_DUMPABLE, 0) < 0 || prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return favo_fail(err, errno, "jail: prctl: %m");
	return 0;
}
