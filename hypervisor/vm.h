/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The virtual machine: what devices find through their vm pointer.
 *
 * The main thread builds it, runs loop, and ends it; each vCPU has a thread.
 */
#pragma once

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/iobus.h"
#include "hypervisor/irq.h"
#include "hypervisor/loop.h"
#include "hypervisor/memory.h"

/* KVM itself offers 32764; RAM, configuration space and BAR pages need few. */
#define FAVO_VM_SLOTS 512

/* Image files that guests read as memory, at most. */
#define FAVO_VM_FILES 8

struct favo_pci_bus;
struct favo_platform;
struct favo_vcpu;

/* Why a VM ended; the exit event's reason and favo-vmm's exit code. */
enum favo_end {
	FAVO_END_NONE, /* still runs */
	FAVO_END_SHUTDOWN, /* the guest powered off: 0 */
	FAVO_END_STOPPED, /* control socket or SIGTERM: 0 */
	FAVO_END_RESET, /* the guest asked for a reset: 10 */
	FAVO_END_PANIC, /* the guest's kernel panicked or died: 11 */
	FAVO_END_ERROR, /* KVM or VMM error: 12 */
};

/* A file mapped as read-only guest memory: no RAM, devices never reach it. */
struct favo_vm_file {
	uint8_t *hva;
	uint64_t gpa, size;
	int slot;
	char name[64];
};

struct favo_vm {
	int kvm_fd;
	int vm_fd;
	struct favo_memory *mem;
	struct favo_irqs *irqs;
	struct favo_iobus *pio;
	struct favo_iobus *mmio;
	struct favo_pci_bus *pci;
	struct favo_loop *loop;

	unsigned ncpus;
	struct favo_vcpu **vcpus;

	/* Read-only after set-up. */
	unsigned phys_bits;
	uint32_t tsc_khz;
	bool readonly_slots; /* KVM_CAP_READONLY_MEM */

	pthread_mutex_t slots_lock;
	uint64_t slots[FAVO_VM_SLOTS / 64]; /* KVM memory slots in use */

	/* Changed during set-up only: between RAM and the 64-bit PCI window. */
	uint64_t files_gpa, files_end;
	struct favo_vm_file files[FAVO_VM_FILES];
	unsigned nfiles;

	struct favo_platform *platform;

	pthread_barrier_t *gate; /* vCPU threads wait here before they run */
	pthread_mutex_t pause_lock;
	pthread_cond_t pause_changed;
	bool pausing; /* under pause_lock; written with it, read by threads */
	unsigned parked; /* vCPU threads that stand still; under pause_lock */
	atomic_bool ended;
	pthread_mutex_t end_lock;
	enum favo_end end; /* the first reason wins */
	char end_detail[256];
};

struct favo_vm_opts {
	int kvm_fd; /* borrowed; < 0: open /dev/kvm */
	unsigned ncpus;
	struct favo_memory_opts mem;
	int serial_fd; /* < 0: no serial port */
};

/* Everything but kernel and devices; what the vCPUs will run is set later. */
int favo_vm_new(struct favo_vm **out, const struct favo_vm_opts *opts,
		struct favo_err *err);
/* After the vCPUs stopped; devices are reset and freed first. */
void favo_vm_free(struct favo_vm *vm);

struct favo_vm_kernel {
	int kernel_fd;
	const int *initrd_fds;
	unsigned ninitrds;
	const char *cmdline;
};

/* Load the kernel and set the first vCPU to its entry. */
int favo_vm_load(struct favo_vm *vm, const struct favo_vm_kernel *k,
		 struct favo_err *err);

/*
 * Start the vCPUs, run the loop until the VM ends, stop the vCPUs. Returns 0
 * with vm->end set, or -errno when they could not be started. ready (may be
 * NULL) is called when all threads exist and no guest instruction ran yet.
 */
int favo_vm_run(struct favo_vm *vm, int (*ready)(void *arg, struct favo_err *err),
		void *arg, struct favo_err *err);

/*
 * Stop all vCPUs between two instructions, with no access half done, and let
 * them go on. The loop's thread. pause is false when the VM ends meanwhile.
 */
bool favo_vm_pause(struct favo_vm *vm);
void favo_vm_resume(struct favo_vm *vm);

static inline bool favo_vm_ended(struct favo_vm *vm)
{
	return atomic_load_explicit(&vm->ended, memory_order_acquire);
}

/*
 * End the VM: the first call sets the reason, stops the vCPUs and the loop.
 * Any thread; returns at once. detail has no newline.
 */
void favo_vm_end(struct favo_vm *vm, enum favo_end end, const char *detail, ...)
	favo_printf(3, 4);

/*
 * Map size bytes at hva (page-aligned) to gpa as a KVM memory slot; returns its
 * number or -errno. Used for RAM, BAR pages and configuration space.
 */
int favo_vm_map(struct favo_vm *vm, uint64_t gpa, uint64_t size, void *hva,
		bool readonly);
void favo_vm_unmap(struct favo_vm *vm, int slot);

/*
 * Show size bytes at hva, the mapping of a file, to the guest as read-only
 * memory at the next free address above RAM (a multiple of 2 MiB, as size is).
 * The mapping then belongs to the VM. During set-up. ENOTSUP: KVM cannot;
 * ENOSPC: the CPU has too few address bits.
 */
int favo_vm_map_file(struct favo_vm *vm, const char *name, void *hva, uint64_t size,
		     uint64_t *gpa, struct favo_err *err);
/* After the vCPUs stopped. */
void favo_vm_unmap_files(struct favo_vm *vm);

/*
 * Look for a page of a file that cannot be read (an I/O error, a file cut
 * short) after a vCPU stopped with EFAULT; true when text names one. Reads the
 * files from their start.
 */
bool favo_vm_find_bad_page(struct favo_vm *vm, char *text, size_t size);
