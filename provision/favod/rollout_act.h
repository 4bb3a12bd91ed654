/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Rollout of an image over nodes: carrying actions out, by Slurm's commands
 * and the site's programs. Blocks, for minutes at most; from any thread. Each
 * action may be repeated: it was perhaps under way when favod was killed.
 */
#pragma once

#include <stdbool.h>

#include "provision/favod/nodes.h"
#include "provision/favod/rollout.h"

struct favo_rollout_opts {
	bool slurm; /* drain, resume, ask for slurmd */
	bool test; /* a job on each node before it is given back */
	char *reboot; /* command of the site; NULL: the node's power, or Slurm */
	char *probe; /* command of the site, or NULL */
	uint64_t health_s; /* slurmd, probe and test job may take that each */
};

struct favo_rollout_act {
	enum favo_rollout_action action;
	struct favo_nodes *nodes;
	const struct favo_rollout_opts *opts;
	int64_t rollout, since;
	const char *node;
	const char *digest;
	const char *mark;
	char note[FAVO_ROLLOUT_NOTE]; /* what came of it, for people */
};

enum favo_rollout_result favo_rollout_act(struct favo_rollout_act *act);

/*
 * A command as favo.conf and nodes have it, split at blanks: %n is the node,
 * %a the word, %d the digest, %% is %. NULL-terminated; favo_strv_free().
 */
char **favo_rollout_command(const char *text, const char *node, const char *word,
			    const char *digest);
