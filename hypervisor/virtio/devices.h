/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What favo-vmm's command line makes: each call parses one option's value,
 * opens or takes over the descriptors named in it, and adds a device to the
 * bus. Called by the main thread before the VM starts and before the jail. A
 * bad value is EINVAL with a sentence that names it.
 */
#pragma once

#include "common/err.h"

struct favo_vm;

/* path=P|fd=N[,ro][,overlay=P|overlay-fd=N][,id=S] */
int favo_disk_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
/* tap=NAME|fd=N[,vhost=N|auto|off][,mac=xx:xx:xx:xx:xx:xx][,model=virtio|vmxnet3] */
int favo_net_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
/* cid=N[,fd=N] */
int favo_vsock_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
int favo_rng_add(struct favo_vm *vm, struct favo_err *err);
/* fd=N|stdio|file=P */
int favo_console_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
/* socket=P|fd=N,tag=NAME[,queues=N]: shared directory by a vhost-user process */
int favo_fs_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
/* path=P|fd=N: a file or block device as read-only persistent memory */
int favo_pmem_add(struct favo_vm *vm, const char *spec, struct favo_err *err);
int favo_balloon_add(struct favo_vm *vm, struct favo_err *err);
