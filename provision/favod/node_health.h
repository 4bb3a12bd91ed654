/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * What nodes say of their own health, as of their last report. Kept in memory
 * only: after a restart of favod the next report (30 s) brings it again.
 * All functions may be called from any thread.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>

#include "common/err.h"

struct favo_node_health;

struct favo_node_health *favo_node_health_new(void);
void favo_node_health_free(struct favo_node_health *health);

/*
 * Note checks (provision/noded/health.h has the form; NULL: the node told
 * none) and the node's clock against now_ms, both in milliseconds since 1970;
 * node_ms 0: not told. -EINVAL with a sentence for anything of another form.
 */
int favo_node_health_put(struct favo_node_health *health, const char *node,
			 const json_t *checks, int64_t node_ms, int64_t now_ms,
			 struct favo_err *err);

/*
 * Add to the object of a node: "skew_ms" and "checks", and "faults", the
 * number of those that failed. Nothing when the node told nothing yet.
 */
void favo_node_health_add(struct favo_node_health *health, const char *node,
			  json_t *object);
