/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The vmxnet3 network card: set-up, and how the RDMA function that goes with it
 * finds its slot. Main thread, before the VM starts.
 */
#pragma once

#include <stdint.h>

#include "common/err.h"

struct favo_net_spec;
struct favo_pci_device;
struct favo_vm;

/* Add a card for spec, whose interface it takes over. */
int favo_vmxnet3_add(struct favo_vm *vm, struct favo_net_spec *spec,
		     struct favo_err *err);
/* The first card, or the one with that address; NULL when there is none. */
struct favo_pci_device *favo_vmxnet3_find(struct favo_vm *vm, const uint8_t mac[6]);
/* Its own address, as it was given. */
void favo_vmxnet3_mac(const struct favo_pci_device *card, uint8_t mac[6]);
