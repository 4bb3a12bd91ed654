/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Can this machine run a guest at all? Answered by running one: a page of
 * code that writes a byte to a port. A /dev/kvm that opens proves little: the
 * module may be there while firmware or an outer hypervisor forbids its use.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"

struct favo_probe {
	int api; /* KVM_GET_API_VERSION */
	int64_t took_us; /* from the VM's creation until the guest answered */
	unsigned max_vcpus;
};

/*
 * Blocks for at most two seconds (it uses SIGALRM's timer and handler for
 * that: not for a process with other threads). -EINVAL: /dev/kvm is no KVM;
 * -ETIMEDOUT and -EIO: it opens but does not run guests.
 */
int favo_probe_run(int kvm_fd, struct favo_probe *out, struct favo_err *err);
