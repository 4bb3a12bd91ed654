/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Grant: favod's signed word that a user may run a virtual cluster.
 *
 * favod signs a grant at submission, Slurm carries it to every node of the
 * job, and each favo-noded checks it with the site's public key. So a node
 * needs no favod at the start of a job. Text form: docs/format-grant.md.
 *
 * A grant is bound to a user, not to a job (the job id does not exist yet
 * when it is made): whoever uses one must compare uid with the job's owner.
 *
 * Nothing here blocks except for reading and writing key files.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "common/util.h"

#define FAVO_GRANT_VERSION 1
/* Longest text form that is looked at; anything longer is refused unread. */
#define FAVO_GRANT_TEXT_MAX 4096

struct favo_grant {
	char id[17]; /* 16 hex digits: the name of the grant in favod */
	char user[64];
	char image[256]; /* NAME:TAG as it was resolved, for people */
	char digest[72]; /* "sha256:" and 64 hex digits: what is started */
	char network[32]; /* "private" or "none" */
	char secret[65]; /* 64 hex digits: shared by the cluster's VMs and nodes */
	uint32_t uid;
	uint32_t gid;
	uint32_t cpus; /* per VM; 0: the allocation's */
	uint32_t per_node;
	uint64_t mem_mb; /* per VM; 0: the allocation's */
	int64_t issued; /* seconds since 1970 */
	int64_t expires;
};

struct favo_grant_key;

/*
 * Make a key pair unless private_path exists: the private half with mode
 * 0600, the public one 0644, both PEM. A missing public file beside an
 * existing private one is written anew. *made tells (may be NULL).
 */
int favo_grant_key_init(const char *private_path, const char *public_path, bool *made,
			struct favo_err *err);

/*
 * Read one half. The private file must not be open to group or others
 * (EPERM). The caller frees the key; a key may be used by several threads.
 */
int favo_grant_key_load_private(struct favo_grant_key **out, const char *path,
				struct favo_err *err);
int favo_grant_key_load_public(struct favo_grant_key **out, const char *path,
			       struct favo_err *err);
void favo_grant_key_free(struct favo_grant_key *key);

/*
 * Check the fields and write the signed text; the caller frees it. EINVAL
 * names the field that cannot be in a grant.
 */
int favo_grant_sign(const struct favo_grant_key *key, const struct favo_grant *grant,
		    char **text, struct favo_err *err);

/*
 * Check form, signature, fields and time, in this order, and fill *grant.
 * now is seconds since 1970; issued may lie up to five minutes ahead of it
 * (clocks differ). EBADMSG: not a grant; EKEYREJECTED: not signed by this
 * key; EKEYEXPIRED: too late or too early; EPROTONOSUPPORT: other version.
 */
int favo_grant_verify(const struct favo_grant_key *key, const char *text, int64_t now,
		      struct favo_grant *grant, struct favo_err *err);

/*
 * The same without signature and time: for showing, never for deciding.
 */
int favo_grant_peek(const char *text, struct favo_grant *grant, struct favo_err *err);

static inline void favo_cleanup_grant_key(struct favo_grant_key **key)
{
	favo_grant_key_free(*key);
}
#define favo_autograntkey __attribute__((cleanup(favo_cleanup_grant_key)))
