/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Registry of favod: grants that were given, and what nodes say runs on them.
 *
 * One SQLite file (WAL). It records; nothing that starts or ends a job waits
 * for it to be right, and a lost file costs history only. A grant's secret is
 * never stored. All functions may be called from any thread; they block on
 * the disk and on each other for one statement.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"
#include "provision/grant.h"

struct favo_registry;

/*
 * Open or make the file and bring its tables to this version's form. A file
 * of a newer version is refused (EPROTONOSUPPORT). Threads share the result.
 */
int favo_registry_open(struct favo_registry **out, const char *path,
		       struct favo_err *err);
void favo_registry_close(struct favo_registry *reg);

/* now is seconds since 1970 in all of these. */
int favo_registry_add_grant(struct favo_registry *reg, const struct favo_grant *grant,
			    struct favo_err *err);

/*
 * Take a node's whole state: version and an array of VMs (docs/api-favod.md,
 * report of a node). VMs of the node that are not in it have ended. All or
 * nothing; -EINVAL names what is wrong with the report.
 */
int favo_registry_report(struct favo_registry *reg, const char *node, const char *version,
			 const json_t *vms, int64_t now, struct favo_err *err);

/*
 * Answers for the REST interface; new references. uid -1: everybody's. VMs of
 * which no report came for two minutes are "lost". favo_registry_vc() is
 * -ENOENT for an unknown job; *owner gets its uid.
 */
int favo_registry_vcs(struct favo_registry *reg, int64_t uid, bool ended, int64_t now,
		      json_t **out, struct favo_err *err);
int favo_registry_vc(struct favo_registry *reg, uint32_t job, int64_t now, json_t **out,
		     int64_t *owner, struct favo_err *err);
int favo_registry_nodes(struct favo_registry *reg, json_t **out, struct favo_err *err);

/* Forget what ended before, and grants that ran out before, the given time. */
int favo_registry_prune(struct favo_registry *reg, int64_t before, struct favo_err *err);

static inline void favo_cleanup_registry(struct favo_registry **reg)
{
	favo_registry_close(*reg);
}
#define favo_autoregistry __attribute__((cleanup(favo_cleanup_registry)))
