// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What is left to favo-hca: the namespaces of favo_jail_enter(), an empty
 * descriptor table and a short list of system calls. It receives all it works
 * with (memory, eventfds, sockets) over its socket.
 */
#include "hypervisor/hca/jail.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"

#define KEPT 3

static const int plain[] = {
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(writev),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendto),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(accept4),
	SCMP_SYS(close),
	SCMP_SYS(fstat),
	SCMP_SYS(newfstatat),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_pwait2),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(futex),
	SCMP_SYS(getrandom),
	SCMP_SYS(munmap),
	SCMP_SYS(mremap),
	SCMP_SYS(madvise),
	SCMP_SYS(brk),
	SCMP_SYS(exit_group),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(restart_syscall),
};

static const int fcntls[] = {F_GET_SEALS, F_ADD_SEALS, F_SETFL, F_GETFL, F_SETFD};

int favo_hca_jail_fds(int *fd, struct favo_err *err)
{
	if (*fd >= 0 && *fd != KEPT) {
		if (dup3(*fd, KEPT, O_CLOEXEC) < 0)
			return favo_fail(err, errno, "jail: move the socket: %m");
		*fd = KEPT;
	}
	if (close_range(*fd >= 0 ? KEPT + 1 : KEPT, ~0U, 0) < 0)
		return favo_fail(err, errno, "jail: close descriptors: %m");
	return 0;
}

static int add_rules(scmp_filter_ctx ctx)
{
	unsigned i;
	int ret = 0;

	for (i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(plain); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain[i], 0);
	for (i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(fcntls); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(fcntl), 1,
				       SCMP_A1_32(SCMP_CMP_MASKED_EQ, 0xffffffff,
						  (uint32_t)fcntls[i]));
	ret = ret ? ret
		  : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	return ret ? ret
		   : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				      SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
}

int favo_hca_jail_filter(struct favo_err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int ret;

	if (!ctx)
		return favo_fail(err, ENOMEM, "jail: seccomp: out of memory");
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	ret = ret ? ret : add_rules(ctx);
	ret = ret ? ret : seccomp_load(ctx);
	seccomp_release(ctx);
	return ret ? favo_fail(err, -ret, "jail: seccomp filter: %m") : 0;
}
