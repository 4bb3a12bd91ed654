/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Database of the site's nodes: what each one is and should boot, and what it
 * last said of itself.
 *
 * One SQLite file of its own (WAL, durable at commit: rollouts rely on it).
 * A change is checked as a whole before anything of it is written. All
 * functions may be called from any thread; they block on the disk and on each
 * other for a moment. docs/nodes.md has the fields, docs/api-favod.md the form.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "images/store.h"

#define FAVO_NODE_UNKNOWN_MAX 1024 /* unknown machines that are remembered */

struct favo_nodes;

/*
 * A node as it counts: its own fields over those of its profiles. Vectors end
 * with NULL and are never NULL themselves; text that is not set is NULL.
 */
struct favo_node {
	char *name;
	char **macs; /* "52:54:00:0a:00:01"; the first is the one it boots by */
	char *uuid; /* of the firmware (SMBIOS), lower case */
	char **addresses; /* "10.0.0.1/24"; the first belongs to the first MAC */
	char *gateway;
	char **groups;
	char **profiles;
	char *console; /* "ttyS0,115200" */
	char *power; /* command; %n: name, %a: on, off, cycle */
	char *image; /* "name[:tag][@digest]"; a digest pins it */
	char *kernel_args;
	json_t *tags; /* object of text */
	int64_t revision; /* of the last change to it */
	/* what it last said */
	char *booted; /* digest of the image that runs */
	char *good; /* digest of the last image that came up */
	char *kernel;
	char *phase; /* "up" once the image runs and its agent reports */
	char *message;
	char *boot_id;
	int64_t boot_time, reported; /* seconds since 1970; 0: never */
};

void favo_node_free(struct favo_node *node);

/*
 * Open or make the file. store is borrowed for as long as the database is
 * open, and is where image names are looked up (NULL in tests: every name is
 * taken). A file of a newer version is refused (EPROTONOSUPPORT).
 */
int favo_nodes_open(struct favo_nodes **out, const char *path, struct favo_store *store,
		    struct favo_err *err);
void favo_nodes_close(struct favo_nodes *nodes);

/* ---- looking up; the caller frees *out. -ENOENT: there is none ---- */

int favo_nodes_get(struct favo_nodes *nodes, const char *name, struct favo_node **out,
		   struct favo_err *err);
/* Any case, ':' or '-' between the bytes. */
int favo_nodes_by_mac(struct favo_nodes *nodes, const char *mac, struct favo_node **out,
		      struct favo_err *err);
int favo_nodes_by_uuid(struct favo_nodes *nodes, const char *uuid, struct favo_node **out,
		       struct favo_err *err);
/* All, by name; the callback must not call into the database. Non-0 ends it. */
typedef int favo_node_fn(void *user, const struct favo_node *node);
int favo_nodes_list(struct favo_nodes *nodes, favo_node_fn *fn, void *user,
		    struct favo_err *err);

/*
 * The image that the node is to boot now: what its "image" names at this
 * moment. -ENOENT: none is set, or the store has it no more (the sentence
 * says which).
 */
int favo_nodes_wanted(struct favo_nodes *nodes, const struct favo_node *node,
		      struct favo_digest *id, struct favo_err *err);

/* ---- changes ---- */

/*
 * Take a change (docs/api-favod.md, POST /v1/nodes): definitions to put and
 * names to delete, all or nothing. -EINVAL: something in it is wrong, -EEXIST:
 * it clashes with another node, -EBUSY: a node was changed since "base".
 * *revision (may be NULL) gets that of the change.
 */
int favo_nodes_change(struct favo_nodes *nodes, const json_t *change, int64_t *revision,
		      struct favo_err *err);

/* Set, or with NULL take away, the node's own "image". */
int favo_nodes_set_image(struct favo_nodes *nodes, const char *name, const char *image,
			 struct favo_err *err);

/*
 * Called after every change of a definition, in the thread that made it,
 * without the database's lock. One callback per place; two places.
 */
enum favo_nodes_place { FAVO_NODES_BOOT, FAVO_NODES_ROLLOUT, FAVO_NODES_PLACES };
typedef void favo_nodes_changed_fn(void *user);
void favo_nodes_watch(struct favo_nodes *nodes, enum favo_nodes_place place,
		      favo_nodes_changed_fn *fn, void *user);

/* ---- what nodes say ---- */

/* NULL or 0: not told, what was known stays. A new boot_id forgets the message. */
struct favo_node_report {
	const char *digest;
	const char *kernel;
	const char *phase; /* [a-z0-9-], at most 32 */
	const char *message;
	const char *boot_id;
	int64_t boot_time;
};

/* -ENOENT: no such node; -EINVAL: something is malformed. */
int favo_nodes_report(struct favo_nodes *nodes, const char *name,
		      const struct favo_node_report *report, int64_t now,
		      struct favo_err *err);

/*
 * A machine that is no node asked to boot. Remembered, oldest forgotten; it
 * becomes a node by an admin's command only. uuid, address, arch may be NULL.
 */
int favo_nodes_seen(struct favo_nodes *nodes, const char *mac, const char *uuid,
		    const char *address, const char *arch, int64_t now,
		    struct favo_err *err);

/* ---- for the REST interface; new references ---- */

/* {"name","revision","definition","effective","wanted","booted",...} */
int favo_nodes_json(struct favo_nodes *nodes, const char *name, json_t **out,
		    struct favo_err *err);
/* Array of the same, all nodes. */
int favo_nodes_json_all(struct favo_nodes *nodes, json_t **out, struct favo_err *err);
/* {"NAME": {"definition", "revision"}}; array of what favo_nodes_seen() noted. */
int favo_nodes_profiles(struct favo_nodes *nodes, json_t **out, struct favo_err *err);
int favo_nodes_unknown(struct favo_nodes *nodes, json_t **out, struct favo_err *err);

static inline void favo_cleanup_node(struct favo_node **node)
{
	favo_node_free(*node);
}
#define favo_autonode __attribute__((cleanup(favo_cleanup_node)))
static inline void favo_cleanup_nodes(struct favo_nodes **nodes)
{
	favo_nodes_close(*nodes);
}
#define favo_autonodes __attribute__((cleanup(favo_cleanup_nodes)))
