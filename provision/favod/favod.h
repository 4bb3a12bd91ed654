/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * favod: what its parts share. One object per process, made by main.c; after
 * the start it is read only, and what hangs from it takes care of its own
 * locks, so that every worker thread may use it.
 */
#pragma once

#include <jansson.h>
#include <stdint.h>
#include <sys/types.h>

#include <microhttpd.h>

#include "common/err.h"
#include "images/sign.h"
#include "images/store.h"
#include "provision/conf.h"
#include "provision/favod/node_health.h"
#include "provision/favod/limit.h"
#include "provision/favod/nodes.h"
#include "provision/favod/registry.h"
#include "provision/grant.h"

struct favo_tracker;
struct favo_rollouts;

struct favo_favod {
	struct favo_conf conf;
	struct favo_grant_key *key;
	struct favo_sign_key *image_key;
	struct favo_store *store;
	struct favo_registry *registry;
	struct favo_limit *limit;
	struct favo_node_health *health;
	struct favo_nodes *nodes;
	struct favo_rollouts *rollouts;
	struct favo_tracker *tracker;
	int64_t started; /* seconds since 1970 */
};

/* One request, whole and authenticated, and the answer to it. */
struct favo_call {
	const char *method;
	const char *tail; /* of the path, behind the route's; "" when equal */
	struct MHD_Connection *connection;
	char *body; /* NUL-terminated past len */
	size_t len;
	uid_t uid;
	gid_t gid;
	/* the answer, set by one of the functions below */
	unsigned int status;
	struct MHD_Response *response;
};

/* Answer with JSON; takes the reference. */
void favo_call_json(struct favo_call *call, unsigned int status, json_t *value);
/* Answer with an error: a sentence, what helps (may be NULL), near names (taken, may be NULL). */
void favo_call_error(struct favo_call *call, unsigned int status, const char *remedy,
		     json_t *near, const char *fmt, ...) favo_printf(5, 6);
/* Answer with the error's text, and the status that fits its code. */
void favo_call_fail(struct favo_call *call, const struct favo_err *err);

typedef void favo_handler_fn(struct favo_favod *d, struct favo_call *call);

struct favo_route {
	const char *method;
	const char *path; /* ends with '/': a prefix, the rest is call->tail */
	size_t max_body;
	bool root_only;
	favo_handler_fn *handler;
};

/* routes_*.c; each ends with a NULL method. */
extern const struct favo_route favo_image_routes[];
extern const struct favo_route favo_push_routes[];
extern const struct favo_route favo_rule_routes[];
extern const struct favo_route favo_cluster_routes[];
extern const struct favo_route favo_swarm_routes[];
extern const struct favo_route favo_prefetch_routes[];
extern const struct favo_route favo_node_routes[];
extern const struct favo_route favo_rollout_routes[];

/* routes_image.c: the manifest whose digest is call->tail; blobs named in the body. */
void favo_image_get_manifest(struct favo_favod *d, struct favo_call *call);
void favo_image_post_blobs(struct favo_favod *d, struct favo_call *call);

/* routes_image.c: answer that the store has no such image, with near names. */
void favo_image_unknown(struct favo_favod *d, struct favo_call *call, const char *text);

/* policy.c: name of a user of favod's host; -EACCES when there is none. */
int favo_policy_user(uid_t uid, char *name, size_t size, struct favo_err *err);

/*
 * policy.c: may this user change the image of that name? USER/... is the
 * user's own; everything else belongs to root and image_admins. *quota, unless
 * NULL, gets the bytes that images with that prefix may take (UINT64_MAX: no
 * bound). 0, or -EACCES with the sentence that the user gets.
 */
int favo_policy_may_change(struct favo_favod *d, uid_t uid, gid_t gid,
			   const struct favo_image_name *name, uint64_t *quota,
			   struct favo_err *err);

/*
 * policy.c: may this user run this image, in this shape? 0, or -EACCES with
 * the sentence that the user gets. The one place that decides it.
 */
int favo_policy_may_run(struct favo_favod *d, const struct favo_grant *grant,
			struct favo_err *err);

/*
 * policy.c: may this user give the image another name? Not when rules restrict
 * every name that it has: the other name would go around them. 0, or -EACCES.
 */
int favo_policy_may_name(struct favo_favod *d, uid_t uid, gid_t gid,
			 const struct favo_image_name *name, const struct favo_digest *id,
			 struct favo_err *err);

/* policy.c: may this user change nodes? root and those of node_admins. */
bool favo_policy_is_node_admin(struct favo_favod *d, uid_t uid, gid_t gid);

/* routes_swarm.c: nodes that fetch together. Runs threads when conf says so. */
int favo_tracker_open(struct favo_tracker **out, const struct favo_conf *conf,
		      struct favo_store *store, struct favo_err *err);
/* Note that this node fetches the image now; answer with token and neighbours. */
void favo_tracker_answer(struct favo_favod *d, struct favo_call *call,
			 const struct favo_digest *image, const char *node, uint16_t port,
			 bool alone);
void favo_tracker_close(struct favo_tracker *tracker);

/* server.c: start to serve on the given listening socket, which it then owns. */
struct favo_server;
int favo_server_start(struct favo_server **out, struct favo_favod *d, int listen_fd,
		      struct favo_err *err);
/* Ends open requests after at most a few seconds. */
void favo_server_stop(struct favo_server *server);
