/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Saving a running VM and starting others from what was saved: a state file
 * (snapshot_file.h) and a memory file, which is guest memory as it is, with
 * holes where it is zero. Restored VMs map the memory file copy-on-write: pages
 * are read when they are touched, and once for all VMs.
 *
 * Not part of a snapshot: the content of disks, what other processes hold
 * (shared directories), descriptors. A restored VM has the same devices with
 * other back ends; its vsock connections are gone, and its driver hears that.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

struct favo_vm;

struct favo_snapshot_target {
	int state_fd, memory_fd; /* regular files, borrowed; emptied first */
	bool stop; /* leave the VM standing still: its end follows */
	uint64_t state_bytes, memory_bytes; /* out: what was written */
	int64_t paused_ms; /* out: how long the guest stood still */
};

/*
 * Save a VM that runs, in the loop's thread; blocks. When it fails the VM goes
 * on. -ENOTSUP: a device cannot be saved.
 */
int favo_snapshot_save(struct favo_vm *vm, struct favo_snapshot_target *target,
		       struct favo_err *err);

struct favo_snapshot;

/*
 * Read and check the state file, and that the memory file fits it. spec is
 * "state=PATH|state-fd=N,memory=PATH|memory-fd=N[,verify]"; with verify the
 * memory's checksum is checked too, which reads all of it.
 */
int favo_snapshot_open(struct favo_snapshot **out, const char *spec,
		       struct favo_err *err);
void favo_snapshot_free(struct favo_snapshot *snap);

/* The VM that it wants: vCPUs, bytes of memory, the file that these begin with. */
unsigned favo_snapshot_cpus(const struct favo_snapshot *snap);
uint64_t favo_snapshot_memory(const struct favo_snapshot *snap);
const int *favo_snapshot_memory_file(const struct favo_snapshot *snap);

/*
 * Give a new VM with that memory and all its devices the saved state, and start
 * the devices; instead of favo_vm_load(). -EINVAL with the section's name.
 */
int favo_snapshot_restore(struct favo_vm *vm, const struct favo_snapshot *snap,
			  struct favo_err *err);
