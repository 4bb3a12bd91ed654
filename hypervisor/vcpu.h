/* SPDX-License-Identifier: GPL-2.0-or-later */
/* vCPUs: creation, the thread that runs one, counters of its exits. */
#pragma once

#include <jansson.h>
#include <linux/kvm.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "hypervisor/cpuid.h"

struct favo_vm;

#define FAVO_EXITS_MAX 64
#define FAVO_EXIT_TOP 64

struct favo_vcpu {
	struct favo_vm *vm;
	unsigned index;
	int fd;
	struct kvm_run *run;
	size_t run_size;
	struct favo_cpuid *cpuid; /* what the guest sees */
	pthread_t thread;
	atomic_bool started;
	/* Written by the vCPU's thread only, read by the control thread. */
	_Atomic uint64_t exits[FAVO_EXITS_MAX]; /* by KVM_EXIT_* */
	/* Exits by address: a hash table that stops to learn when it is full. */
	struct {
		_Atomic uint64_t key; /* address << 1 | is MMIO, plus 1 */
		_Atomic uint64_t count;
	} top[FAVO_EXIT_TOP];
};

/* supported: what KVM_GET_SUPPORTED_CPUID gave. */
int favo_vcpu_new(struct favo_vcpu **out, struct favo_vm *vm, unsigned index,
		  const struct favo_cpuid *supported, bool tsc_deadline,
		  struct favo_err *err);
void favo_vcpu_free(struct favo_vcpu *vcpu);

/* Block the caller's signals but FAVO_KICK_SIGNAL in the new thread. */
int favo_vcpu_start(struct favo_vcpu *vcpu, struct favo_err *err);
/* Make it leave KVM_RUN and see that the VM ended. Any thread. */
void favo_vcpu_kick(struct favo_vcpu *vcpu);
void favo_vcpu_join(struct favo_vcpu *vcpu);

/*
 * The whole state of a stopped vCPU, but for what the guest's memory holds.
 * load is for a new vCPU of this host's KVM; it refuses a state that was made
 * on another kind of CPU. -EINVAL with a sentence for bad input.
 */
struct favo_state_in;
struct favo_state_out;
int favo_vcpu_save(struct favo_vcpu *vcpu, struct favo_state_out *out,
		   struct favo_err *err);
int favo_vcpu_load(struct favo_vcpu *vcpu, struct favo_state_in *in,
		   struct favo_err *err);

/* Install the handler of the signal that kicks; once per process. */
int favo_vcpu_init_signal(struct favo_err *err);

/* {"io": n, "mmio": n, ...} over all vCPUs, and the addresses exited for most. */
json_t *favo_vcpu_exits(struct favo_vm *vm);
json_t *favo_vcpu_top(struct favo_vm *vm);
