// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Builds the virtual machine on KVM: capabilities, in-kernel irqchip, memory
 * slots, vCPUs; runs and ends it. There is no PIT: the guest's LAPIC timer and
 * kvmclock need none.
 */
#include "hypervisor/vm.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/kvm.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>

#include "common/util.h"
#include "hypervisor/acpi.h"
#include "hypervisor/boot.h"
#include "hypervisor/pci.h"
#include "hypervisor/platform.h"
#include "hypervisor/vcpu.h"

/* Intel CPUs without unrestricted guest need these pages, below 4 GiB. */
#define IDENTITY_MAP_GPA 0xfffbc000ULL
#define TSS_GPA 0xfffbd000ULL
#define MAX_CPUS 254 /* xAPIC ids */
#define MIN_MEMORY (16ULL << 20)
#define GIB (1ULL << 30)
#define FILES_ALIGN (2ULL << 20)

static int check_kvm(struct favo_vm *vm, struct favo_err *err)
{
	static const struct {
		int cap;
		const char *name;
	} needed[] = {
		{KVM_CAP_IRQCHIP, "irqchip"}, {KVM_CAP_USER_MEMORY, "user memory"},
		{KVM_CAP_IRQFD, "irqfd"},     {KVM_CAP_IOEVENTFD, "ioeventfd"},
		{KVM_CAP_SIGNAL_MSI, "MSI"},  {KVM_CAP_IMMEDIATE_EXIT, "immediate exit"},
		{KVM_CAP_EXT_CPUID, "CPUID"}, {KVM_CAP_IRQ_ROUTING, "IRQ routing"},
	};
	int version = ioctl(vm->kvm_fd, KVM_GET_API_VERSION, 0);
	unsigned i;

	if (version != KVM_API_VERSION)
		return favo_fail(err, ENODEV, "KVM: API version %d, not %d", version,
				 KVM_API_VERSION);
	for (i = 0; i < FAVO_ARRAY_SIZE(needed); i++)
		if (ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, needed[i].cap) <= 0)
			return favo_fail(err, ENODEV, "KVM: this host's KVM lacks %s",
					 needed[i].name);
	vm->readonly_slots =
		ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_READONLY_MEM) > 0;
	return 0;
}

static int create_vm(struct favo_vm *vm, const struct favo_vm_opts *opts,
		     struct favo_err *err)
{
	uint64_t identity = IDENTITY_MAP_GPA;
	int max;

	if (opts->kvm_fd >= 0)
		vm->kvm_fd = fcntl(opts->kvm_fd, F_DUPFD_CLOEXEC, 3);
	else
		vm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vm->kvm_fd < 0)
		return favo_fail(err, errno, "open /dev/kvm: %m");
	if (check_kvm(vm, err) < 0)
		return -ENODEV;
	max = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_MAX_VCPUS);
	max = max <= 0 ? 4 : FAVO_MIN(max, MAX_CPUS);
	if (!opts->ncpus || opts->ncpus > (unsigned)max)
		return favo_fail(err, EINVAL, "%u vCPUs: this host's KVM runs 1 to %d",
				 opts->ncpus, max);
	vm->vm_fd = ioctl(vm->kvm_fd, KVM_CREATE_VM, 0);
	if (vm->vm_fd < 0)
		return favo_fail(err, errno, "KVM_CREATE_VM: %m");
	if (ioctl(vm->vm_fd, KVM_SET_IDENTITY_MAP_ADDR, &identity) < 0 ||
	    ioctl(vm->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA) < 0)
		return favo_fail(err, errno, "KVM_SET_TSS_ADDR: %m");
	if (ioctl(vm->vm_fd, KVM_CREATE_IRQCHIP, 0) < 0)
		return favo_fail(err, errno, "KVM_CREATE_IRQCHIP: %m");
	return 0;
}

static int map_memory(struct favo_vm *vm, struct favo_err *err)
{
	unsigned i;

	for (i = 0; i < vm->mem->nregions; i++) {
		const struct favo_mem_region *r = &vm->mem->regions[i];
		int ret = favo_vm_map(vm, r->gpa, r->size, r->hva, false);

		if (ret < 0)
			return favo_fail(err, -ret, "map guest memory at %#llx: %m",
					 (unsigned long long)r->gpa);
	}
	return 0;
}

/* The 64-bit window fills a quarter of the address space, above RAM. */
static int pick_windows(const struct favo_vm *vm, struct favo_pci_windows *w,
			struct favo_err *err)
{
	uint64_t top = 1ULL << vm->phys_bits;
	uint64_t base = FAVO_MAX(top / 2, favo_memory_end(vm->mem));

	base = (base + GIB - 1) & ~(GIB - 1);
	if (base >= top || top - base < GIB)
		return favo_fail(err, EINVAL,
				 "guest memory does not fit this CPU's %u address bits",
				 vm->phys_bits);
	w->mem32_base = FAVO_GPA_HOLE_START;
	w->mem32_size = FAVO_GPA_ECAM - FAVO_GPA_HOLE_START;
	w->mem64_base = base;
	w->mem64_size = FAVO_MIN(top / 4, top - base);
	return 0;
}

static int get_supported_cpuid(struct favo_vm *vm, struct favo_cpuid *cpuid,
			       struct favo_err *err)
{
	const struct kvm_cpuid_entry2 *e;

	cpuid->nent = FAVO_CPUID_MAX - 16; /* room for leaves that are added */
	if (ioctl(vm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid) < 0)
		return favo_fail(err, errno, "KVM_GET_SUPPORTED_CPUID: %m");
	e = favo_cpuid_find(cpuid, 0x80000008, 0);
	vm->phys_bits = e && (e->eax & 0xff) >= 36 ? e->eax & 0xff : 36;
	vm->phys_bits = FAVO_MIN(vm->phys_bits, 52U);
	return 0;
}

static int create_vcpus(struct favo_vm *vm, const struct favo_cpuid *cpuid,
			struct favo_err *err)
{
	bool deadline =
		ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_TSC_DEADLINE_TIMER) > 0;
	unsigned i;
	int khz;

	vm->vcpus = calloc(vm->ncpus, sizeof(struct favo_vcpu *));
	if (!vm->vcpus)
		return favo_fail(err, ENOMEM, "vCPUs: out of memory");
	khz = ioctl(vm->kvm_fd, KVM_CHECK_EXTENSION, KVM_CAP_GET_TSC_KHZ) > 0
		      ? ioctl(vm->vm_fd, KVM_GET_TSC_KHZ, 0)
		      : 0;
	vm->tsc_khz = khz > 0 ? (uint32_t)khz : 0;
	for (i = 0; i < vm->ncpus; i++) {
		int ret = favo_vcpu_new(&vm->vcpus[i], vm, i, cpuid, deadline, err);

		if (ret < 0)
			return ret;
	}
	return 0;
}

static int build(struct favo_vm *vm, const struct favo_vm_opts *opts,
		 struct favo_err *err)
{
	favo_autofree struct favo_cpuid *cpuid = calloc(1, sizeof(*cpuid));
	struct favo_pci_windows windows;
	int ret;

	if (!cpuid)
		return favo_fail(err, ENOMEM, "VM: out of memory");
	if (opts->mem.size < MIN_MEMORY)
		return favo_fail(err, EINVAL,
				 "guest memory: %llu bytes, at least 16 MiB are needed",
				 (unsigned long long)opts->mem.size);
	ret = create_vm(vm, opts, err);
	ret = ret ? ret : get_supported_cpuid(vm, cpuid, err);
	ret = ret ? ret : favo_memory_new(&vm->mem, &opts->mem, err);
	ret = ret ? ret : pick_windows(vm, &windows, err);
	if (ret < 0)
		return ret;
	vm->files_gpa = (favo_memory_end(vm->mem) + FILES_ALIGN - 1) & ~(FILES_ALIGN - 1);
	vm->files_end = windows.mem64_base;
	ret = map_memory(vm, err);
	ret = ret ? ret : favo_irqs_new(&vm->irqs, vm->vm_fd, err);
	ret = ret ? ret : favo_iobus_new(&vm->pio, err);
	ret = ret ? ret : favo_iobus_new(&vm->mmio, err);
	ret = ret ? ret : favo_loop_new(&vm->loop, err);
	ret = ret ? ret : favo_pci_bus_new(&vm->pci, vm, &windows, err);
	ret = ret ? ret : favo_platform_new(&vm->platform, vm, opts->serial_fd, err);
	ret = ret ? ret : create_vcpus(vm, cpuid, err);
	return ret;
}

int favo_vm_new(struct favo_vm **out, const struct favo_vm_opts *opts,
		struct favo_err *err)
{
	struct favo_vm *vm = calloc(1, sizeof(*vm));
	int ret;

	if (!vm)
		return favo_fail(err, ENOMEM, "VM: out of memory");
	vm->kvm_fd = -1;
	vm->vm_fd = -1;
	vm->ncpus = opts->ncpus;
	pthread_mutex_init(&vm->slots_lock, NULL);
	pthread_mutex_init(&vm->end_lock, NULL);
	pthread_mutex_init(&vm->pause_lock, NULL);
	pthread_cond_init(&vm->pause_changed, NULL);
	ret = build(vm, opts, err);
	if (ret < 0) {
		favo_vm_free(vm);
		return ret;
	}
	*out = vm;
	return 0;
}

void favo_vm_free(struct favo_vm *vm)
{
	unsigned i;

	if (!vm)
		return;
	for (i = 0; vm->vcpus && i < vm->ncpus; i++)
		favo_vcpu_free(vm->vcpus[i]);
	free(vm->vcpus);
	favo_platform_free(vm->platform);
	favo_pci_bus_free(vm->pci);
	favo_loop_free(vm->loop);
	favo_iobus_free(vm->mmio);
	favo_iobus_free(vm->pio);
	favo_irqs_free(vm->irqs);
	favo_vm_unmap_files(vm);
	favo_close(&vm->vm_fd);
	favo_memory_free(vm->mem);
	favo_close(&vm->kvm_fd);
	pthread_mutex_destroy(&vm->slots_lock);
	pthread_mutex_destroy(&vm->end_lock);
	pthread_mutex_destroy(&vm->pause_lock);
	pthread_cond_destroy(&vm->pause_changed);
	free(vm);
}

int favo_vm_load(struct favo_vm *vm, const struct favo_vm_kernel *k, struct favo_err *err)
{
	favo_autofree uint32_t *apic_ids = calloc(vm->ncpus, sizeof(*apic_ids));
	struct favo_acpi acpi = {.ncpus = vm->ncpus, .apic_ids = apic_ids};
	struct favo_kernel kernel = {0};
	struct favo_boot boot = {
		.kernel = &kernel,
		.cmdline = k->cmdline,
		.initrds = k->initrd_fds,
		.ninitrds = k->ninitrds,
	};
	unsigned i;
	int ret;

	if (!apic_ids)
		return favo_fail(err, ENOMEM, "ACPI: out of memory");
	for (i = 0; i < vm->ncpus; i++)
		apic_ids[i] = i;
	acpi.serial = favo_platform_has_serial(vm->platform);
	ret = pick_windows(vm, &acpi.windows, err);
	ret = ret ? ret : favo_acpi_build(vm->mem, &acpi, &boot.rsdp, err);
	ret = ret ? ret : favo_kernel_load(&kernel, vm->mem, k->kernel_fd, err);
	ret = ret ? ret : favo_boot_prepare(vm->mem, &boot, err);
	ret = ret ? ret : favo_boot_set_registers(vm->vcpus[0]->fd, &kernel, err);
	return ret;
}

/*
 * Threads wait twice: all exist when the first wait is over, and the guest may
 * run when the second is. Between the two, ready() takes away the right to make
 * threads and whatever a thread does to start.
 */
static int start_vcpus(struct favo_vm *vm, struct favo_err *err)
{
	unsigned i;
	int ret = 0;

	for (i = 0; ret == 0 && i < vm->ncpus; i++)
		ret = favo_vcpu_start(vm->vcpus[i], err);
	if (ret < 0) {
		/* Those that wait for the missing ones are let go by exit(). */
		favo_vm_end(vm, FAVO_END_ERROR, "%s",
			    err ? err->msg : "cannot start vCPUs");
		return ret;
	}
	pthread_barrier_wait(vm->gate);
	return 0;
}

int favo_vm_run(struct favo_vm *vm, int (*ready)(void *arg, struct favo_err *err),
		void *arg, struct favo_err *err)
{
	int ret = favo_vcpu_init_signal(err);
	pthread_barrier_t gate;
	unsigned i;

	if (ret < 0)
		return ret;
	pthread_barrier_init(&gate, NULL, vm->ncpus + 1);
	vm->gate = &gate;
	ret = start_vcpus(vm, err);
	if (ret < 0)
		return ret;
	ret = ready ? ready(arg, err) : 0;
	if (ret < 0)
		favo_vm_end(vm, FAVO_END_ERROR, "%s", err ? err->msg : "cannot run");
	pthread_barrier_wait(&gate);
	if (ret == 0)
		ret = favo_loop_run(vm->loop, err);
	if (ret < 0)
		favo_vm_end(vm, FAVO_END_ERROR, "%s", err ? err->msg : "cannot run");
	for (i = 0; i < vm->ncpus; i++)
		favo_vcpu_join(vm->vcpus[i]);
	pthread_barrier_destroy(&gate);
	favo_pci_bus_reset(vm->pci);
	return ret;
}

void favo_vm_end(struct favo_vm *vm, enum favo_end end, const char *detail, ...)
{
	bool first;
	va_list ap;
	unsigned i;

	pthread_mutex_lock(&vm->end_lock);
	first = vm->end == FAVO_END_NONE;
	if (first) {
		vm->end = end;
		va_start(ap, detail);
		vsnprintf(vm->end_detail, sizeof(vm->end_detail), detail, ap);
		va_end(ap);
	}
	pthread_mutex_unlock(&vm->end_lock);
	if (!first)
		return;
	atomic_store_explicit(&vm->ended, true, memory_order_release);
	for (i = 0; vm->vcpus && i < vm->ncpus; i++)
		if (vm->vcpus[i])
			favo_vcpu_kick(vm->vcpus[i]);
	pthread_mutex_lock(&vm->pause_lock);
	pthread_cond_broadcast(&vm->pause_changed);
	pthread_mutex_unlock(&vm->pause_lock);
	favo_loop_stop(vm->loop);
}
