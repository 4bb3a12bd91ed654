/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Control socket and events: JSON, one object per line. The socket serves
 * several clients at once, in the VM's loop; a client that does not read its
 * replies is dropped. docs: man favo-vmm, CONTROL SOCKET and EVENTS.
 */
#pragma once

#include <jansson.h>

#include "common/err.h"
#include "hypervisor/vm.h"

struct favo_control;

/* listen_fd: a listening unix socket, taken over. name is borrowed. */
int favo_control_new(struct favo_control **out, struct favo_vm *vm, const char *name,
		     int listen_fd, struct favo_err *err);
void favo_control_free(struct favo_control *c);

/* The reply to one request line; the caller drops it. Never NULL but without memory. */
json_t *favo_control_answer(struct favo_vm *vm, const char *name, const char *line,
			    size_t len);

/* "shutdown", "reset", ... */
const char *favo_end_name(enum favo_end end);
