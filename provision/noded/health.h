/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Could a virtual machine start on this node? Each check tries the thing
 * itself (runs a guest, builds a network) rather than looking for its name.
 * The result is a JSON array, one object a check:
 *
 *   {"check":"kvm","result":"ok|-|FAILED","what":"...","remedy":"..."}
 *
 * "-": not a fault, but worth knowing. "remedy" is there with FAILED and
 * sometimes with "-": what a person does about it.
 */
#pragma once

#include <jansson.h>

#include "provision/conf.h"

#define FAVO_HEALTH_FAILED "FAILED"

/*
 * All checks, one after the other: up to about eight seconds. NULL when memory
 * is out. From any thread; the caller owns the result.
 */
json_t *favo_health_check(const struct favo_conf *conf);

/* How many of them failed. */
unsigned int favo_health_failures(const json_t *checks);

struct noded;

/* Check now and every ten minutes, in a thread; what fails is logged once. */
int favo_health_start(struct noded *nd, struct favo_err *err);

/*
 * A result that is at most some seconds old; checks when there is none, or
 * waits for who does. With the lock held, which is given up meanwhile. The
 * caller owns the reference; NULL when memory is out.
 */
json_t *favo_health_get(struct noded *nd);
