// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the jail: each promise of man favo-vmm, JAIL, tried in a child.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/jail.h"

/* Wait status of fn in a child; only system calls below it, for sanitizers. */
static int in_child(int (*fn)(const void *arg), const void *arg)
{
	pid_t pid = fork();
	int status;

	if (pid == 0)
		_exit(fn(arg));
	assert_true(pid > 0);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	return status;
}

struct call {
	long nr;
	long a[6];
};

static int filtered_call(const void *arg)
{
	const struct call *c = arg;
	struct favo_err err = {0};

	if (favo_jail_filter(&err) < 0)
		return 99;
	syscall(c->nr, c->a[0], c->a[1], c->a[2], c->a[3], c->a[4], c->a[5]);
	syscall(SYS_exit_group, 7);
	return 98;
}

static void forbidden_calls_kill(void **state)
{
	static const struct call rows[] = {
		{SYS_open, {(long)"/", O_RDONLY}},
		{SYS_openat, {AT_FDCWD, (long)"/", O_RDONLY}},
		{SYS_execve, {(long)"/bin/true"}},
		{SYS_execveat, {-1}},
		{SYS_fork, {0}},
		{SYS_vfork, {0}},
		{SYS_clone, {SIGCHLD}},
		{SYS_clone, {CLONE_VM | CLONE_THREAD | CLONE_SIGHAND}},
		{SYS_clone3, {0}},
		{SYS_socket, {AF_INET, SOCK_STREAM}},
		{SYS_socket, {AF_UNIX, SOCK_STREAM}},
		{SYS_connect, {0}},
		{SYS_bind, {0}},
		{SYS_ptrace, {0}},
		{SYS_process_vm_readv, {1}},
		{SYS_kill, {1, SIGTERM}},
		{SYS_tgkill, {1, 1, SIGTERM}},
		{SYS_tkill, {1, SIGTERM}},
		{SYS_mount, {0}},
		{SYS_umount2, {0}},
		{SYS_pivot_root, {0}},
		{SYS_chroot, {(long)"/"}},
		{SYS_unshare, {CLONE_NEWUSER}},
		{SYS_setns, {0}},
		{SYS_setuid, {0}},
		{SYS_prctl, {PR_SET_DUMPABLE, 1}},
		{SYS_seccomp, {0}},
		{SYS_bpf, {0}},
		{SYS_perf_event_open, {0}},
		{SYS_userfaultfd, {0}},
		{SYS_init_module, {0}},
		{SYS_keyctl, {0}},
		{SYS_io_uring_setup, {1}},
		{SYS_io_uring_register, {0}},
		{SYS_memfd_create, {0}},
		{SYS_unlink, {(long)"/x"}},
		{SYS_rt_sigaction, {SIGSYS}},
		{SYS_mmap,
		 {0, 4096, PROT_READ | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1}},
		{SYS_mprotect, {0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC}},
		{SYS_ioctl, {0, 0x5413 /* TIOCGWINSZ */}},
		{SYS_ioctl, {0, 0x5412 /* TIOCSTI */}},
		{SYS_ioctl, {0, KVM_CREATE_VM}},
		{SYS_ioctl, {0, KVM_CREATE_DEVICE}},
	};
	unsigned i;

	(void)state;
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		int status = in_child(filtered_call, &rows[i]);

		if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGSYS)
			fail_msg("row %u, call %ld: status %#x", i, rows[i].nr, status);
	}
}

static void needed_calls_pass(void **state)
{
	static const struct call rows[] = {
		{SYS_read, {-1}},
		{SYS_write, {-1}},
		{SYS_getpid, {0}},
		{SYS_ioctl, {-1, KVM_RUN}},
		{SYS_ioctl, {-1, (long)0xffffffff00000000 | KVM_RUN}},
		{SYS_mmap,
		 {0, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1}},
		{SYS_futex, {0}},
	};
	unsigned i;

	(void)state;
	for (i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		int status = in_child(filtered_call, &rows[i]);

		if (!WIFEXITED(status) || WEXITSTATUS(status) != 7)
			fail_msg("row %u: status %#x", i, status);
	}
}

static bool has_capability(void)
{
	unsigned long cap;

	for (cap = 0; cap < 64; cap++)
		if (prctl(PR_CAPBSET_READ, cap, 0, 0, 0) == 1)
			return true;
	return false;
}

/* Number of the promise that is broken, 0: none, 77: no user namespaces. */
static int inside(const void *arg)
{
	struct favo_err err = {0};
	struct sockaddr addr = {.sa_family = AF_INET};
	struct rlimit rl;
	struct dirent *e;
	DIR *d;
	int fd, n = 0;

	(void)arg;
	if (favo_jail_enter(&err) < 0)
		return strstr(err.msg, "user namespaces") ? 77 : 1;
	d = opendir("/");
	while (d && (e = readdir(d)))
		n += e->d_name[0] != '.';
	if (!d || n)
		return 2; /* sees files */
	if (open("/new", O_CREAT | O_WRONLY, 0600) >= 0 || errno != EROFS)
		return 3;
	if (open("/proc/self/status", O_RDONLY) >= 0 ||
	    open("../etc/passwd", O_RDONLY) >= 0)
		return 4;
	fd = socket(AF_INET, SOCK_DGRAM, 0);
	if (fd >= 0 && connect(fd, &addr, sizeof(addr)) == 0 && send(fd, "x", 1, 0) == 1)
		return 5; /* has a network */
	if (has_capability() || setuid(65534) == 0 ||
	    mount("x", "/", "tmpfs", 0, "") == 0)
		return 6;
	if (prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0) != 1 || prctl(PR_GET_DUMPABLE) != 0)
		return 7;
	if (getrlimit(RLIMIT_CORE, &rl) < 0 || rl.rlim_max != 0)
		return 8;
	if (sethostname("x", 1) == 0)
		return 9;
	return 0;
}

static void nothing_inside(void **state)
{
	int status = in_child(inside, NULL);

	(void)state;
	if (WIFEXITED(status) && WEXITSTATUS(status) == 77) {
		print_message("skipped: user namespaces are not allowed here\n");
		skip();
	}
	if (!WIFEXITED(status) || WEXITSTATUS(status))
		fail_msg("status %#x", status);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(forbidden_calls_kill),
		cmocka_unit_test(needed_calls_pass),
		cmocka_unit_test(nothing_inside),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
