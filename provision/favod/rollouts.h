/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rollouts that are under way: one thread decides, others carry out what takes
 * time. All functions may be called from any thread; none waits for an action.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>

#include "provision/conf.h"
#include "provision/favod/nodes.h"

struct favo_rollouts;

/* Loads what is under way and goes on with it. nodes and conf are borrowed. */
int favo_rollouts_start(struct favo_rollouts **out, struct favo_nodes *nodes,
			const struct favo_conf *conf, struct favo_err *err);
/*
 * Actions that do not end within two seconds are left alone, and nothing of
 * them is written any more: the next start asks for them again. False: there
 * are some, and nodes must stay open.
 */
bool favo_rollouts_stop(struct favo_rollouts *rs);

/*
 * {"image","nodes":[NAME..],rules..}: start it, or with "dry_run" say only
 * what it would do. *out is as of favo_rollouts_show(). -EBUSY: a node is in
 * another one.
 */
int favo_rollouts_create(struct favo_rollouts *rs, const json_t *body, json_t **out,
			 struct favo_err *err);
/* "pause", "resume", "undo"; the last one answers with a new rollout. */
int favo_rollouts_command(struct favo_rollouts *rs, int64_t id, const char *command,
			  json_t **out, struct favo_err *err);
int favo_rollouts_show(struct favo_rollouts *rs, int64_t id, json_t **out,
		       struct favo_err *err);
