/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Warm pool: snapshots of guests that were booted without a job, one for each
 * combination of image, kernel, shape, devices, programs and CPU that starts
 * often. A job whose combination is there starts from it.
 *
 * No snapshot ever holds anything of a job: a warm VM boots under a uid of its
 * own, with a configuration that names no user and a secret that opens nothing,
 * and is saved before it knows who it will be (docs/format-agent.md, "Warm
 * guests").
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_WARM_KEY 65

struct noded;
struct warm_source;

/* What a cold start would run: favo-vmm's arguments and descriptors. */
struct favo_warm_plan {
	char **argv; /* NULL at the end */
	const int *fds;
	size_t nfds;
	const char *image; /* digest */
	/* Places in fds of what a warm VM has of its own; tap and vhost may be absent. */
	size_t config, vsock, console, control, events, tap, vhost;
};

/* Is there a pool, and can such a VM come from it? */
bool favo_warm_suits(const struct noded *nd, const struct favo_warm_plan *plan);

/*
 * Count a start. Fills key. 1: state and memory are open. 0: start cold; *source
 * is set when this start should be followed by favo_warm_make().
 */
int favo_warm_begin(struct noded *nd, const struct favo_warm_plan *plan,
		    char key[FAVO_WARM_KEY], int *state_fd, int *memory_fd,
		    struct warm_source **source);
void favo_warm_source_free(struct warm_source *source);

/* Make the snapshot in a thread of its own; takes source over. */
void favo_warm_make(struct noded *nd, struct warm_source *source);

/* A start from this snapshot failed: remove it, and make no other in this life. */
void favo_warm_drop(struct noded *nd, const char *key);

/* Guests: is this context id a warm VM's; it waits for its identity. Lock held. */
bool favo_warm_is_cid(const struct noded *nd, uint32_t cid);
void favo_warm_asked(struct noded *nd, uint32_t cid);

/* At start: remove what an interrupted life left half made. */
void favo_warm_recover(struct noded *nd);
