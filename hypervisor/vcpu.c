// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * One thread per vCPU around KVM_RUN (Linux Documentation/virt/kvm/api.rst,
 * section 5). An access that nobody answers is counted and the guest goes on;
 * what KVM cannot go on with ends the VM with a sentence.
 */
#include "hypervisor/vcpu.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "common/util.h"
#include "hypervisor/vm.h"

#define KICK_SIGNAL SIGUSR1
#define MSR_MISC_ENABLE 0x1a0
#define MISC_ENABLE_FAST_STRING 0x1
#define MSR_MTRR_DEF_TYPE 0x2ff
#define MTRR_ENABLE_WRITE_BACK 0x806
#define LAPIC_LVT_LINT0 0x350
#define LAPIC_LVT_LINT1 0x360
#define LVT_EXTINT 0x700
#define LVT_NMI 0x400

static void on_kick(int sig)
{
	(void)sig; /* its only work is to interrupt KVM_RUN */
}

int favo_vcpu_init_signal(struct favo_err *err)
{
	struct sigaction sa = {.sa_handler = on_kick};

	if (sigaction(KICK_SIGNAL, &sa, NULL) < 0)
		return favo_fail(err, errno, "sigaction: %m");
	return 0;
}

static int set_cpuid(struct favo_vcpu *v, const struct favo_cpuid *supported,
		     bool tsc_deadline, struct favo_err *err)
{
	const struct favo_cpuid_opts opts = {
		.cpu = v->index,
		.ncpus = v->vm->ncpus,
		.tsc_khz = v->vm->tsc_khz,
		.tsc_deadline = tsc_deadline,
	};
	favo_autofree struct favo_cpuid *cpuid = malloc(sizeof(*cpuid));

	if (!cpuid)
		return favo_fail(err, ENOMEM, "vCPU %u: out of memory", v->index);
	*cpuid = *supported;
	favo_cpuid_adapt(cpuid, &opts);
	if (ioctl(v->fd, KVM_SET_CPUID2, cpuid) < 0)
		return favo_fail(err, errno, "vCPU %u: KVM_SET_CPUID2: %m", v->index);
	v->cpuid = favo_steal_ptr(&cpuid);
	return 0;
}

/* Firmware's part: caching on, string moves fast. Refusal does no harm. */
static void set_msrs(struct favo_vcpu *v)
{
	static const struct kvm_msr_entry wanted[] = {
		{.index = MSR_MTRR_DEF_TYPE, .data = MTRR_ENABLE_WRITE_BACK},
		{.index = MSR_MISC_ENABLE, .data = MISC_ENABLE_FAST_STRING},
	};
	unsigned i;

	for (i = 0; i < FAVO_ARRAY_SIZE(wanted); i++) {
		union {
			struct kvm_msrs head;
			uint8_t room[sizeof(struct kvm_msrs) +
				     sizeof(struct kvm_msr_entry)];
		} one = {.head = {.nmsrs = 1}};

		memcpy(one.room + sizeof(one.head), &wanted[i], sizeof(wanted[i]));
		(void)ioctl(v->fd, KVM_SET_MSRS, &one);
	}
}

/* Virtual wire, as firmware leaves it. */
static int set_lapic(struct favo_vcpu *v, struct favo_err *err)
{
	const uint32_t lint0 = LVT_EXTINT, lint1 = LVT_NMI;
	struct kvm_lapic_state s;

	if (ioctl(v->fd, KVM_GET_LAPIC, &s) < 0)
		return favo_fail(err, errno, "vCPU %u: KVM_GET_LAPIC: %m", v->index);
	memcpy(s.regs + LAPIC_LVT_LINT0, &lint0, sizeof(lint0));
	memcpy(s.regs + LAPIC_LVT_LINT1, &lint1, sizeof(lint1));
	if (ioctl(v->fd, KVM_SET_LAPIC, &s) < 0)
		return favo_fail(err, errno, "vCPU %u: KVM_SET_LAPIC: %m", v->index);
	return 0;
}

int favo_vcpu_new(struct favo_vcpu **out, struct favo_vm *vm, unsigned index,
		  const struct favo_cpuid *supported, bool tsc_deadline,
		  struct favo_err *err)
{
	struct favo_vcpu *v = calloc(1, sizeof(*v));
	int size = ioctl(vm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0), ret = 0;

	if (!v)
		return favo_fail(err, ENOMEM, "vCPU %u: out of memory", index);
	v->vm = vm;
	v->index = index;
	v->fd = ioctl(vm->vm_fd, KVM_CREATE_VCPU, (unsigned long)index);
	if (v->fd < 0 || size < (int)sizeof(*v->run)) {
		ret = favo_fail(err, errno, "vCPU %u: KVM_CREATE_VCPU: %m", index);
	} else {
		void *p = mmap(NULL, (size_t)size, PROT_READ | PROT_WRITE, MAP_SHARED,
			       v->fd, 0);

		if (p == MAP_FAILED)
			ret = favo_fail(err, errno, "vCPU %u: map its state: %m", index);
		else
			v->run = p;
		v->run_size = (size_t)size;
	}
	ret = ret ? ret : set_cpuid(v, supported, tsc_deadline, err);
	ret = ret ? ret : set_lapic(v, err);
	if (ret < 0) {
		favo_vcpu_free(v);
		return ret;
	}
	set_msrs(v);
	*out = v;
	return 0;
}

void favo_vcpu_free(struct favo_vcpu *v)
{
	if (!v)
		return;
	if (v->run)
		munmap(v->run, v->run_size);
	favo_close(&v->fd);
	free(v->cpuid);
	free(v);
}

static void count(_Atomic uint64_t *n)
{
	/* One writer: no need for a locked instruction. */
	atomic_store_explicit(n, atomic_load_explicit(n, memory_order_relaxed) + 1,
			      memory_order_relaxed);
}

static void count_address(struct favo_vcpu *v, uint64_t addr, bool mmio)
{
	uint64_t key = (addr << 1 | mmio) + 1;
	unsigned at = (unsigned)(key * 0x9e3779b97f4a7c15 >> 58), i;

	for (i = 0; i < FAVO_EXIT_TOP; i++, at = (at + 1) % FAVO_EXIT_TOP) {
		uint64_t k = atomic_load_explicit(&v->top[at].key, memory_order_relaxed);

		if (!k)
			atomic_store_explicit(&v->top[at].key, key, memory_order_relaxed);
		if (!k || k == key) {
			count(&v->top[at].count);
			return;
		}
	}
}

static void handle_io(struct favo_vcpu *v)
{
	struct kvm_run *run = v->run;
	uint8_t *p = (uint8_t *)run + run->io.data_offset;
	unsigned size = run->io.size;
	uint32_t i;

	count_address(v, run->io.port, false);
	for (i = 0; i < run->io.count; i++, p += size) {
		uint64_t value = 0;

		if (run->io.direction == KVM_EXIT_IO_OUT) {
			memcpy(&value, p, size);
			favo_iobus_write(v->vm->pio, run->io.port, value, size);
		} else {
			value = favo_iobus_read(v->vm->pio, run->io.port, size);
			memcpy(p, &value, size);
		}
	}
}

static void handle_mmio(struct favo_vcpu *v)
{
	struct kvm_run *run = v->run;
	unsigned len = FAVO_MIN(run->mmio.len, 8U);
	uint64_t value = 0;

	count_address(v, run->mmio.phys_addr, true);
	if (run->mmio.is_write) {
		memcpy(&value, run->mmio.data, len);
		favo_iobus_write(v->vm->mmio, run->mmio.phys_addr, value, len);
	} else {
		value = favo_iobus_read(v->vm->mmio, run->mmio.phys_addr, len);
		memcpy(run->mmio.data, &value, len);
	}
}

static void handle_internal_error(struct favo_vcpu *v)
{
	const struct kvm_run *run = v->run;
	struct kvm_regs regs = {0};

	(void)ioctl(v->fd, KVM_GET_REGS, &regs);
	if (run->internal.suberror == KVM_INTERNAL_ERROR_EMULATION)
		favo_vm_end(v->vm, FAVO_END_ERROR,
			    "vCPU %u: KVM cannot emulate the instruction at %#llx",
			    v->index, (unsigned long long)regs.rip);
	else
		favo_vm_end(v->vm, FAVO_END_ERROR,
			    "vCPU %u: KVM internal error %u at %#llx", v->index,
			    run->internal.suberror, (unsigned long long)regs.rip);
}

static void handle_system_event(struct favo_vcpu *v)
{
	switch (v->run->system_event.type) {
	case KVM_SYSTEM_EVENT_SHUTDOWN:
		favo_vm_end(v->vm, FAVO_END_SHUTDOWN, "the guest powered off");
		break;
	case KVM_SYSTEM_EVENT_RESET:
		favo_vm_end(v->vm, FAVO_END_RESET, "the guest asked for a reset");
		break;
	default:
		favo_vm_end(v->vm, FAVO_END_PANIC, "the guest crashed (system event %u)",
			    v->run->system_event.type);
	}
}

static void handle_exit(struct favo_vcpu *v)
{
	const struct kvm_run *run = v->run;

	count(&v->exits[FAVO_MIN(run->exit_reason, FAVO_EXITS_MAX - 1U)]);
	switch (run->exit_reason) {
	case KVM_EXIT_IO:
		handle_io(v);
		break;
	case KVM_EXIT_MMIO:
		handle_mmio(v);
		break;
	case KVM_EXIT_INTR:
	case KVM_EXIT_IRQ_WINDOW_OPEN:
		break;
	case KVM_EXIT_SHUTDOWN:
		favo_vm_end(v->vm, FAVO_END_PANIC, "vCPU %u: triple fault", v->index);
		break;
	case KVM_EXIT_HLT:
		/* In-kernel irqchip: only without any interrupt source left. */
		favo_vm_end(v->vm, FAVO_END_ERROR, "vCPU %u: halted for good", v->index);
		break;
	case KVM_EXIT_SYSTEM_EVENT:
		handle_system_event(v);
		break;
	case KVM_EXIT_FAIL_ENTRY:
		favo_vm_end(v->vm, FAVO_END_ERROR,
			    "vCPU %u: CPU refuses guest state, reason %#llx", v->index,
			    (unsigned long long)
				    run->fail_entry.hardware_entry_failure_reason);
		break;
	case KVM_EXIT_INTERNAL_ERROR:
		handle_internal_error(v);
		break;
	default:
		favo_vm_end(v->vm, FAVO_END_ERROR, "vCPU %u: unknown KVM exit %u",
			    v->index, run->exit_reason);
	}
}

/*
 * Stand still while the VM is paused. KVM_RUN said EINTR, so it has finished
 * the access that an exit before this left to us.
 */
static void park(struct favo_vcpu *v)
{
	struct favo_vm *vm = v->vm;

	pthread_mutex_lock(&vm->pause_lock);
	if (vm->pausing && !favo_vm_ended(vm)) {
		vm->parked++;
		pthread_cond_broadcast(&vm->pause_changed);
		while (vm->pausing && !favo_vm_ended(vm))
			pthread_cond_wait(&vm->pause_changed, &vm->pause_lock);
		vm->parked--;
		v->run->immediate_exit = 0;
		/* A VM that ends sets "ended" first, then the flag just cleared. */
		atomic_thread_fence(memory_order_seq_cst);
	}
	pthread_mutex_unlock(&vm->pause_lock);
}

bool favo_vm_pause(struct favo_vm *vm)
{
	unsigned i;

	pthread_mutex_lock(&vm->pause_lock);
	vm->pausing = true;
	for (i = 0; i < vm->ncpus; i++)
		favo_vcpu_kick(vm->vcpus[i]);
	while (vm->parked < vm->ncpus && !favo_vm_ended(vm))
		pthread_cond_wait(&vm->pause_changed, &vm->pause_lock);
	pthread_mutex_unlock(&vm->pause_lock);
	return !favo_vm_ended(vm);
}

void favo_vm_resume(struct favo_vm *vm)
{
	pthread_mutex_lock(&vm->pause_lock);
	vm->pausing = false;
	pthread_cond_broadcast(&vm->pause_changed);
	pthread_mutex_unlock(&vm->pause_lock);
}

/* The host has no page for the guest's address, and KVM does not say which. */
static void handle_no_memory(struct favo_vcpu *v)
{
	char bad[160];

	if (favo_vm_find_bad_page(v->vm, bad, sizeof(bad)))
		favo_vm_end(v->vm, FAVO_END_ERROR, "%s", bad);
	else
		favo_vm_end(v->vm, FAVO_END_ERROR,
			    "vCPU %u: guest memory is not there (out of memory?)",
			    v->index);
}

static void *vcpu_thread(void *arg)
{
	struct favo_vcpu *v = arg;
	char name[16];

	snprintf(name, sizeof(name), "vcpu%u", v->index);
	pthread_setname_np(pthread_self(), name);
	pthread_barrier_wait(v->vm->gate);
	pthread_barrier_wait(v->vm->gate);
	while (!favo_vm_ended(v->vm)) {
		if (ioctl(v->fd, KVM_RUN, 0) == 0) {
			handle_exit(v);
			continue;
		}
		/* EAGAIN: an application processor that was just started. */
		if (errno == EINTR || errno == EAGAIN) {
			park(v);
			continue;
		}
		if (errno == EFAULT)
			handle_no_memory(v);
		else
			favo_vm_end(v->vm, FAVO_END_ERROR, "vCPU %u: KVM_RUN: %s",
				    v->index, strerror(errno));
	}
	return NULL;
}

int favo_vcpu_start(struct favo_vcpu *vcpu, struct favo_err *err)
{
	sigset_t all, old;
	int ret;

	sigfillset(&all);
	sigdelset(&all, KICK_SIGNAL);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	ret = pthread_create(&vcpu->thread, NULL, vcpu_thread, vcpu);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	if (ret)
		return favo_fail(err, ret, "vCPU %u: start its thread: %m", vcpu->index);
	vcpu->started = true;
	return 0;
}

void favo_vcpu_kick(struct favo_vcpu *vcpu)
{
	/* Set before the signal, so that a KVM_RUN yet to come returns at once. */
	vcpu->run->immediate_exit = 1;
	if (vcpu->started)
		pthread_kill(vcpu->thread, KICK_SIGNAL);
}

void favo_vcpu_join(struct favo_vcpu *vcpu)
{
	if (vcpu->started)
		pthread_join(vcpu->thread, NULL);
	vcpu->started = false;
}
