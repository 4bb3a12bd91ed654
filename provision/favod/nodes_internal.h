/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the node database share: the connection and short forms. */
#pragma once

#include <pthread.h>
#include <sqlite3.h>

#include "provision/favod/nodes.h"

enum favo_def_kind { FAVO_DEF_NODE, FAVO_DEF_PROFILE };

struct favo_nodes {
	pthread_mutex_t lock;
	sqlite3 *db; /* under lock */
	struct favo_store *store;
	struct {
		favo_nodes_changed_fn *fn;
		void *user;
	} watch[FAVO_NODES_PLACES]; /* set at the start, before threads */
};

static inline void favo_nodes_unlock(struct favo_nodes **nodes)
{
	pthread_mutex_unlock(&(*nodes)->lock);
}
#define favo_nodes_hold(nodes)                                                           \
	__attribute__((cleanup(favo_nodes_unlock), unused)) struct favo_nodes *held =    \
		(nodes);                                                                 \
	pthread_mutex_lock(&held->lock)

static inline void favo_cleanup_stmt(sqlite3_stmt **stmt)
{
	sqlite3_finalize(*stmt);
}
#define favo_autostmt __attribute__((cleanup(favo_cleanup_stmt)))

/* All of these with the lock held. */
int favo_nodes_db_error(struct favo_nodes *nodes, struct favo_err *err);

/*
 * Prepare sql and bind its parameters in order: types has 's' (const char *,
 * NULL binds NULL) or 'i' (int64_t) for each. The caller finalizes *stmt.
 */
int favo_nodes_query(struct favo_nodes *nodes, sqlite3_stmt **stmt, const char *sql,
		     struct favo_err *err, const char *types, ...);
/* The same, run to its end; rows are not expected. */
int favo_nodes_exec(struct favo_nodes *nodes, const char *sql, struct favo_err *err,
		    const char *types, ...);
/* 1: a row, 0: the end, or -errno. */
int favo_nodes_step(struct favo_nodes *nodes, sqlite3_stmt *stmt, struct favo_err *err);

static inline const char *favo_nodes_text(sqlite3_stmt *stmt, int column)
{
	return (const char *)sqlite3_column_text(stmt, column);
}

/* durable: on the disk when favo_nodes_end(ret 0) comes back with 0. */
int favo_nodes_begin(struct favo_nodes *nodes, bool durable, struct favo_err *err);
/* Commits for ret 0, else rolls back; returns what came of it. */
int favo_nodes_end(struct favo_nodes *nodes, int ret, struct favo_err *err);

/* nodes_change.c: within a transaction. */
int favo_nodes_change_held(struct favo_nodes *nodes, const json_t *change,
			   int64_t *revision, struct favo_err *err);
int favo_nodes_set_image_held(struct favo_nodes *nodes, const char *name,
			      const char *image, struct favo_err *err);
/* Without the lock: tell those who watch. */
void favo_nodes_tell(struct favo_nodes *nodes);
/* The image's manifest, with near names in the sentence when there is none. */
int favo_nodes_find_image(struct favo_nodes *nodes, const char *image,
			  struct favo_digest *id, struct favo_err *err);
