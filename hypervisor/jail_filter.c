// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Seccomp: allow list of what vCPU threads and the device loop call after
 * set-up. Anything else kills the whole process. No new threads or processes,
 * no files, no sockets but those that exist, no executable memory, and of ioctl
 * only the requests named here.
 */
#include <errno.h>
#include <linux/if_tun.h>
#include <linux/kvm.h>
#include <linux/vhost.h>
#include <seccomp.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/jail.h"

static const int plain[] = {
	/* data of devices, console, control socket */
	SCMP_SYS(read),
	SCMP_SYS(write),
	SCMP_SYS(readv),
	SCMP_SYS(writev),
	SCMP_SYS(pread64),
	SCMP_SYS(pwrite64),
	SCMP_SYS(preadv),
	SCMP_SYS(pwritev),
	SCMP_SYS(preadv2),
	SCMP_SYS(pwritev2),
	SCMP_SYS(recvfrom),
	SCMP_SYS(sendto),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendmsg),
	SCMP_SYS(shutdown),
	SCMP_SYS(accept4),
	SCMP_SYS(lseek),
	SCMP_SYS(fstat),
	SCMP_SYS(fsync),
	SCMP_SYS(fdatasync),
	SCMP_SYS(fallocate),
	SCMP_SYS(ftruncate),
	SCMP_SYS(io_uring_enter),
	SCMP_SYS(close),
	SCMP_SYS(eventfd2),
	/* waiting, time, randomness */
	SCMP_SYS(epoll_wait),
	SCMP_SYS(epoll_pwait),
	SCMP_SYS(epoll_ctl),
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(futex),
	SCMP_SYS(clock_gettime),
	SCMP_SYS(clock_nanosleep),
	SCMP_SYS(nanosleep),
	SCMP_SYS(gettimeofday),
	SCMP_SYS(timerfd_settime),
	SCMP_SYS(getrandom),
	SCMP_SYS(sched_yield),
	SCMP_SYS(restart_syscall),
	/* memory of malloc */
	SCMP_SYS(munmap),
	SCMP_SYS(brk),
	SCMP_SYS(madvise),
	SCMP_SYS(mremap),
	/* end of threads, signals to our own */
	SCMP_SYS(exit),
	SCMP_SYS(exit_group),
	SCMP_SYS(rt_sigreturn),
	SCMP_SYS(rt_sigprocmask),
	SCMP_SYS(getpid),
	SCMP_SYS(gettid),
	SCMP_SYS(sched_getaffinity),
};

static const unsigned long ioctls[] = {
	KVM_RUN,
	KVM_GET_REGS,
	KVM_SIGNAL_MSI,
	KVM_IRQFD,
	KVM_IOEVENTFD,
	KVM_IRQ_LINE,
	KVM_SET_GSI_ROUTING,
	KVM_SET_USER_MEMORY_REGION,
	/* reading the state for a snapshot */
	KVM_CHECK_EXTENSION,
	KVM_GET_MSR_INDEX_LIST,
	KVM_GET_CLOCK,
	KVM_GET_IRQCHIP,
	KVM_GET_MP_STATE,
	KVM_GET_SREGS,
	KVM_GET_SREGS2,
	KVM_GET_XSAVE,
	KVM_GET_XSAVE2,
	KVM_GET_XCRS,
	KVM_GET_DEBUGREGS,
	KVM_GET_LAPIC,
	KVM_GET_MSRS,
	KVM_GET_VCPU_EVENTS,
	TUNSETOFFLOAD,
	TUNSETVNETHDRSZ,
	VHOST_SET_FEATURES,
	VHOST_GET_FEATURES,
	VHOST_RESET_OWNER,
	VHOST_SET_MEM_TABLE,
	VHOST_SET_VRING_NUM,
	VHOST_SET_VRING_ADDR,
	VHOST_SET_VRING_BASE,
	VHOST_GET_VRING_BASE,
	VHOST_SET_VRING_KICK,
	VHOST_SET_VRING_CALL,
	VHOST_SET_VRING_ERR,
	VHOST_NET_SET_BACKEND,
	VHOST_VSOCK_SET_RUNNING,
	VHOST_SET_BACKEND_FEATURES,
};

static int add_rules(scmp_filter_ctx ctx)
{
	unsigned i;
	int ret = 0;

	for (i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(plain); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain[i], 0);
	for (i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(ioctls); i++)
		ret = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_A1_32(SCMP_CMP_MASKED_EQ, 0xffffffff,
						  (uint32_t)ioctls[i]));
	/* Memory, as long as it is not executable. */
	ret = ret ? ret
		  : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mmap), 1,
				     SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	ret = ret ? ret
		  : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(mprotect), 1,
				     SCMP_A2_32(SCMP_CMP_MASKED_EQ, PROT_EXEC, 0));
	/* Kick vCPU threads: signals to this process only. */
	ret = ret ? ret
		  : seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(tgkill), 1,
				     SCMP_A0_32(SCMP_CMP_MASKED_EQ, 0xffffffff,
						(uint32_t)getpid()));
	return ret;
}

int favo_jail_filter(struct favo_err *err)
{
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_KILL_PROCESS);
	int ret;

	if (!ctx)
		return favo_fail(err, ENOMEM, "jail: seccomp: out of memory");
	ret = seccomp_attr_set(ctx, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS);
	ret = ret ? ret : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* A search tree instead of a chain: KVM_RUN pays for it at each exit. */
	ret = ret ? ret : seccomp_attr_set(ctx, SCMP_FLTATR_CTL_OPTIMIZE, 2);
	ret = ret ? ret : add_rules(ctx);
	ret = ret ? ret : seccomp_load(ctx);
	seccomp_release(ctx);
	return ret ? favo_fail(err, -ret, "jail: seccomp filter: %m") : 0;
}
