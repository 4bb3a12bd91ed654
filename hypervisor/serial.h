/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * 16550A serial port, output only, for early kernel messages. Not needed once
 * the virtio console is up, and slow: one exit per character.
 */
#pragma once

#include "common/err.h"

struct favo_serial;
struct favo_vm;

/* fd is borrowed and written without blocking for long: what it refuses is lost. */
int favo_serial_new(struct favo_serial **out, struct favo_vm *vm, int fd,
		    struct favo_err *err);
void favo_serial_free(struct favo_serial *s);
