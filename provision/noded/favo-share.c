// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-share: serves one directory of the job's user to one VM. Started by
 * favo-noded as that user, in the job's cgroup; it puts itself where virtiofsd
 * finds the directory and nothing to gain, and becomes virtiofsd.
 *
 * virtiofsd (QEMU's, docs/tools/virtiofsd.rst) is made for root: it enters
 * namespaces of its own, gives up supplementary groups and takes the guest's
 * user and group for each new file. Here it is root of a user namespace that
 * knows the job's user only. The calls that change identity succeed without
 * effect, so that whoever asks in the guest, root included, the host sees the
 * job's user with his groups.
 *
 * A read-only mount is read-only here, whatever the guest does.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/mount.h>
#include <sched.h>
#include <seccomp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/options.h"
#include "common/util.h"

/* Where the directory is mounted for virtiofsd, in this mount namespace. */
#define PLACE "/tmp"

struct share {
	char *source;
	char *server;
	bool read_only;
	uint64_t socket_fd;
	uint64_t status_fd;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_STR("source", "DIR", struct share, source, FAVO_FROM_CLI, NULL,
		     "directory to serve"),
	FAVO_OPT_STR("server", "PATH", struct share, server, FAVO_FROM_CLI, NULL,
		     "virtiofsd"),
	FAVO_OPT_FLAG("read-only", struct share, read_only, FAVO_FROM_CLI,
		      "no writing, whatever the guest mounts"),
	FAVO_OPT_U64("socket-fd", "N", struct share, socket_fd, FAVO_FROM_CLI, "3",
		     "listening unix socket"),
	FAVO_OPT_U64("status-fd", "N", struct share, status_fd, FAVO_FROM_CLI, "4",
		     "gets the reason of a failure, or nothing"),
};

static int write_file(const char *path, const char *text, struct favo_err *err)
{
	favo_autoclose int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return favo_fail(err, errno, "open %s: %m", path);
	return favo_write_all(fd, text, strlen(text), -1, err);
}

static int new_namespaces(struct favo_err *err)
{
	unsigned int uid = getuid(), gid = getgid();
	char map[64];
	int ret;

	if (unshare(CLONE_NEWUSER | CLONE_NEWNS) < 0)
		return favo_fail(
			err, errno,
			"new namespaces: %m (are user namespaces allowed here?)");
	snprintf(map, sizeof(map), "%u %u 1", uid, uid);
	ret = write_file("/proc/self/uid_map", map, err);
	/* Without this an unprivileged user may not write the gid map. */
	if (ret == 0)
		ret = write_file("/proc/self/setgroups", "deny", err);
	snprintf(map, sizeof(map), "%u %u 1", gid, gid);
	return ret < 0 ? ret : write_file("/proc/self/gid_map", map, err);
}

/*
 * A copy of the mounts at and below dir goes to PLACE: the name of the
 * directory is then no part of virtiofsd's option syntax.
 */
static int place(const struct share *s, struct favo_err *err)
{
	struct mount_attr attr = {.attr_set = MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV};
	favo_autoclose int dir = -1, tree = -1;

	dir = open(s->source, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0 || faccessat(dir, ".", X_OK, AT_EACCESS) < 0)
		return favo_fail(err, errno, "%s: %m", s->source);
	if (s->read_only)
		attr.attr_set |= MOUNT_ATTR_RDONLY;
	tree = (int)syscall(SYS_open_tree, dir, "",
			    OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH |
				    AT_RECURSIVE);
	if (tree < 0)
		return favo_fail(err, errno, "copy the mounts of %s: %m", s->source);
	if (syscall(SYS_mount_setattr, tree, "", AT_EMPTY_PATH | AT_RECURSIVE, &attr,
		    sizeof(attr)) < 0)
		return favo_fail(err, errno, "%s of %s: %m",
				 s->read_only ? "write protection" : "mount flags",
				 s->source);
	if (syscall(SYS_move_mount, tree, "", AT_FDCWD, PLACE, MOVE_MOUNT_F_EMPTY_PATH) <
	    0)
		return favo_fail(err, errno, "mount %s: %m", s->source);
	return 0;
}

/* Over an exec only ambient capabilities are kept by a user other than root. */
static int keep_capabilities(struct favo_err *err)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3];

	if (syscall(SYS_capget, &head, data) < 0)
		return favo_fail(err, errno, "capabilities: %m");
	for (int i = 0; i < _LINUX_CAPABILITY_U32S_3; i++)
		data[i].inheritable = data[i].permitted;
	if (syscall(SYS_capset, &head, data) < 0)
		return favo_fail(err, errno, "capabilities: %m");
	for (unsigned long cap = 0; cap <= CAP_LAST_CAP; cap++)
		/* EINVAL: this kernel does not know it yet. */
		if (prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, cap, 0, 0) < 0 &&
		    errno != EINVAL && errno != EPERM)
			return favo_fail(err, errno, "capability %lu: %m", cap);
	return 0;
}

/*
 * seccomp(2): SECCOMP_RET_ERRNO with 0 is success without the call. The
 * filter that virtiofsd adds can only take away more.
 */
static int fix_identity(struct favo_err *err)
{
	static const int calls[] = {SCMP_SYS(setresuid), SCMP_SYS(setresgid),
				    SCMP_SYS(setgroups)};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_ALLOW);
	int ret = 0;

	if (!ctx)
		return favo_fail(err, ENOMEM, "seccomp: out of memory");
	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(calls); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(0), calls[i], 0);
	if (ret == 0)
		ret = seccomp_load(ctx);
	seccomp_release(ctx);
	return ret < 0 ? favo_fail(err, -ret, "seccomp filter: %m") : 0;
}

static int become(const struct share *s, struct favo_err *err)
{
	char fd[32];
	/*
	 * cache=auto: what others change is seen within a second, as with NFS.
	 * The capabilities would be over the user's own files only; without them
	 * modes mean for the guest what they mean for the user on the node.
	 */
	char *const argv[] = {
		(char *)"virtiofsd",
		(char *)"-f",
		fd,
		(char *)"--rlimit-nofile=0",
		(char *)"-o",
		(char *)"source=" PLACE,
		(char *)"-o",
		(char *)"sandbox=namespace,cache=auto,log_level=warn",
		(char *)"-o",
		(char *)"modcaps=-chown:-dac_override:-dac_read_search:-fowner:-fsetid:"
			"-setgid:-setuid:-mknod:-setfcap",
		NULL,
	};

	snprintf(fd, sizeof(fd), "--fd=%d", (int)s->socket_fd);
	execv(s->server, argv);
	return favo_fail(err, errno, "start %s: %m", s->server);
}

static int serve(const struct share *s, struct favo_err *err)
{
	int ret;

	if (!s->source || !s->server)
		return favo_fail(err, EINVAL, "--source and --server are needed");
	if (fcntl((int)s->status_fd, F_SETFD, FD_CLOEXEC) < 0)
		return favo_fail(err, errno, "status descriptor: %m");
	ret = new_namespaces(err);
	if (ret == 0)
		ret = place(s, err);
	if (ret == 0)
		ret = keep_capabilities(err);
	if (ret == 0)
		ret = fix_identity(err);
	umask(0);
	return ret < 0 ? ret : become(s, err);
}

int main(int argc, char **argv)
{
	struct share s = {0};
	struct favo_opts opts = {
		.program = "favo-share",
		.about = "Serve one directory of a job's user to its VM; started by "
			 "favo-noded.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &s,
	};
	struct favo_err err = {0};
	int first, ret;

	favo_log_init("favo-share", FAVO_INFO, false, NULL);
	ret = favo_opts_defaults(&opts, &err);
	if (ret == 0)
		ret = favo_opts_cli(&opts, argc, argv, &first, &err);
	if (ret == 1)
		return 0;
	if (ret == 0)
		ret = serve(&s, &err);
	favo_log(FAVO_ERROR, "%s", err.msg);
	(void)!write((int)s.status_fd, err.msg, strlen(err.msg));
	return ret < 0;
}
