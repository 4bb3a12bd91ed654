/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Rollouts in the node database. Any thread; a rollout belongs to one. */
#pragma once

#include <jansson.h>

#include "provision/favod/nodes.h"
#include "provision/favod/rollout.h"

/*
 * Write a new one and set its id. spec: as the admin gave it. undoes: the one
 * that ends in the same transaction as favo_rollout_set_undone() has it, or 0.
 */
int favo_rollout_db_add(struct favo_nodes *nodes, struct favo_rollout *r,
			const json_t *spec, int64_t undoes, int64_t now,
			struct favo_err *err);

/*
 * Write what is dirty, and set the images of nodes that are marked for it, in
 * one transaction that is on the disk afterwards. On failure all stays dirty.
 */
int favo_rollout_db_save(struct favo_nodes *nodes, struct favo_rollout *r, int64_t now,
			 struct favo_err *err);

/* *spec and *r are the caller's. -ENOENT: no such rollout. */
int favo_rollout_db_load(struct favo_nodes *nodes, int64_t id, struct favo_rollout **r,
			 json_t **spec, struct favo_err *err);

/* [{"id","image","state","reason","created","updated","nodes","done","failed",..}] */
int favo_rollout_db_list(struct favo_nodes *nodes, json_t **out, struct favo_err *err);

/* Rules out of a spec, with the defaults. -EINVAL names what is wrong. */
int favo_rollout_rules_parse(struct favo_rollout_rules *rules, const json_t *spec,
			     struct favo_err *err);
