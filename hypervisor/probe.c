// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A guest of eight bytes in real mode, apart from the rest of the VMM, so
 * that a fault there does not hide what the kernel can do. Interface:
 * Documentation/virt/kvm/api.rst of Linux.
 */
#include "hypervisor/probe.h"

#include <errno.h>
#include <linux/kvm.h>
#include <signal.h>
#include <stdbool.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/time.h>

#include "common/util.h"

#define PAGE 4096u
#define CODE_GPA 0x1000u
#define TSS_GPA 0xfffbd000u /* three pages that Intel's real mode wants */
#define PORT 0x80
#define ANSWER 0x2a
#define EXITS_MAX 16
#define LIMIT_S 2

/* mov $ANSWER, %al; out %al, $PORT; hlt; and once more if it goes on */
static const unsigned char code[] = {0xb0, ANSWER, 0xe6, PORT, 0xf4, 0xeb, 0xf9};

struct guest {
	int vm_fd, cpu_fd;
	void *page;
	struct kvm_run *run;
	size_t run_size;
};

static void guest_fini(struct guest *g)
{
	if (g->run)
		munmap(g->run, g->run_size);
	favo_close(&g->cpu_fd);
	favo_close(&g->vm_fd);
	if (g->page)
		munmap(g->page, PAGE);
}

static int make_memory(struct guest *g, struct favo_err *err)
{
	struct kvm_userspace_memory_region region = {
		.guest_phys_addr = CODE_GPA,
		.memory_size = PAGE,
	};
	void *page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS,
			  -1, 0);

	if (page == MAP_FAILED)
		return favo_fail(err, errno, "map a page: %m");
	g->page = page;
	memcpy(page, code, sizeof(code));
	region.userspace_addr = (uintptr_t)page;
	if (ioctl(g->vm_fd, KVM_SET_USER_MEMORY_REGION, &region) < 0)
		return favo_fail(err, errno, "give the guest memory: %m");
	return 0;
}

static int make_cpu(struct guest *g, int kvm_fd, struct favo_err *err)
{
	struct kvm_regs regs = {.rip = CODE_GPA, .rflags = 2};
	struct kvm_sregs sregs;
	int size = ioctl(kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	void *run;

	/* Only Intel without unrestricted guests needs it; others may refuse. */
	(void)!ioctl(g->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA);
	g->cpu_fd = ioctl(g->vm_fd, KVM_CREATE_VCPU, 0);
	if (g->cpu_fd < 0)
		return favo_fail(err, errno, "make a vCPU: %m");
	if (size < (int)sizeof(*g->run))
		return favo_fail(err, EIO, "the kernel's vCPU area has %d bytes", size);
	run = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED, g->cpu_fd, 0);
	if (run == MAP_FAILED)
		return favo_fail(err, errno, "map the vCPU: %m");
	g->run = run;
	g->run_size = (size_t)size;
	if (ioctl(g->cpu_fd, KVM_GET_SREGS, &sregs) < 0)
		return favo_fail(err, errno, "read the vCPU: %m");
	sregs.cs.base = 0;
	sregs.cs.selector = 0;
	if (ioctl(g->cpu_fd, KVM_SET_SREGS, &sregs) < 0 ||
	    ioctl(g->cpu_fd, KVM_SET_REGS, &regs) < 0)
		return favo_fail(err, errno, "set up the vCPU: %m");
	return 0;
}

/* The handler only makes KVM_RUN return. */
static void on_alarm(int number)
{
	(void)number;
}

static bool answered(const struct guest *g)
{
	const struct kvm_run *run = g->run;

	return run->exit_reason == KVM_EXIT_IO && run->io.port == PORT &&
	       run->io.direction == KVM_EXIT_IO_OUT &&
	       run->io.data_offset < g->run_size &&
	       *((const unsigned char *)run + run->io.data_offset) == ANSWER;
}

static int run_guest(struct guest *g, struct favo_err *err)
{
	/* Again and again: the first may come just before KVM_RUN. */
	const struct itimerval limit = {
		.it_value.tv_sec = LIMIT_S,
		.it_interval.tv_usec = 100000,
	};
	const struct itimerval off = {0};
	const struct sigaction action = {.sa_handler = on_alarm};
	struct sigaction former;
	int ret = -EIO;

	sigaction(SIGALRM, &action, &former);
	setitimer(ITIMER_REAL, &limit, NULL);
	for (unsigned i = 0; i < EXITS_MAX; i++) {
		if (ioctl(g->cpu_fd, KVM_RUN, 0) < 0) {
			ret = errno == EINTR
				      ? favo_fail(err, ETIMEDOUT,
						  "a guest of 8 bytes did not end in "
						  "%d s",
						  LIMIT_S)
				      : favo_fail(err, errno, "run a guest: %m");
			break;
		}
		if (answered(g)) {
			ret = 0;
			break;
		}
		if (i == EXITS_MAX - 1)
			ret = favo_fail(err, EIO, "a guest does not run: exit reason %u",
					g->run->exit_reason);
	}
	setitimer(ITIMER_REAL, &off, NULL);
	sigaction(SIGALRM, &former, NULL);
	return ret;
}

int favo_probe_run(int kvm_fd, struct favo_probe *out, struct favo_err *err)
{
	struct guest g = {.vm_fd = -1, .cpu_fd = -1};
	int api = ioctl(kvm_fd, KVM_GET_API_VERSION, 0), max, ret;
	int64_t start = favo_now_ns();

	if (api < 0)
		return favo_fail(err, EINVAL, "it is no KVM device: %m");
	if (api != KVM_API_VERSION)
		return favo_fail(err, EINVAL, "KVM of version %d, not %d", api,
				 KVM_API_VERSION);
	g.vm_fd = ioctl(kvm_fd, KVM_CREATE_VM, 0);
	ret = g.vm_fd < 0 ? favo_fail(err, errno, "make a virtual machine: %m") : 0;
	if (ret == 0)
		ret = make_memory(&g, err);
	if (ret == 0)
		ret = make_cpu(&g, kvm_fd, err);
	if (ret == 0)
		ret = run_guest(&g, err);
	if (ret == 0) {
		max = ioctl(kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
		out->api = api;
		out->took_us = (favo_now_ns() - start) / 1000;
		out->max_vcpus = max > 0 ? (unsigned)max : 1;
	}
	guest_fini(&g);
	return ret;
}
