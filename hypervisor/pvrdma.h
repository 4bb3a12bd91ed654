/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The paravirtual RDMA function (VMware PVRDMA, PCI 15ad:0820, version 20), a
 * thin front of favo-hca: registers, doorbell pages and interrupts are here, all
 * RDMA is there. Main thread, before the VM starts and before the jail.
 */
#pragma once

#include "common/err.h"

struct favo_vm;

/*
 * hca-fd=N[,mac=xx:xx:xx:xx:xx:xx]: function 1 of the slot of the vmxnet3 card
 * with that address, or of the first one. EINVAL: no such card, or guest memory
 * that is not shared.
 */
int favo_pvrdma_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
