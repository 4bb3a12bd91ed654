/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Requests on favo-noded's socket: one JSON object in one line, from any user
 * of the node. Parsing checks form and ranges only; who may ask for what is
 * decided by favo_request_allowed() and, for an owner, by the job.
 * Nothing here blocks; a request belongs to one thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "common/err.h"

#define FAVO_REQUEST_MAX 65536 /* longest line, with its newline */

enum favo_op {
	FAVO_OP_PREPARE,
	FAVO_OP_BOOT,
	FAVO_OP_ATTACH,
	FAVO_OP_DESTROY,
	FAVO_OP_LIST,
	FAVO_OP_SHOW,
	FAVO_OP_CONSOLE,
	FAVO_OP_DOCTOR,
};

/* Strings are borrowed from json; "" where the operation has no such key. */
struct favo_request {
	enum favo_op op;
	uint32_t job;
	uint32_t restart;
	uint32_t task;
	uid_t uid;
	gid_t gid;
	const char *nodelist;
	const char *node;
	const char *grant;
	const char *mounts;
	const char *workdir;
	bool sandbox;
	bool extern_step; /* the boot comes from Slurm's extern step */
	const char *cores;
	const char *step;
	const char *vm;
	uint64_t mem_mb;
	unsigned int ncpus;
	json_t *json;
};

/* Parse one line without its newline; -EINVAL with a sentence. */
int favo_request_parse(struct favo_request *out, const char *line, size_t len,
		       struct favo_err *err);
void favo_request_fini(struct favo_request *req);

/* May a peer with this uid ask this at all? */
bool favo_request_allowed(const struct favo_request *req, uid_t peer);

/*
 * Is text a list of CPU numbers such as "0-3,8"? *count gets how many;
 * -EINVAL otherwise. Numbers are below 65536 and lists at most 4095 bytes.
 */
int favo_cpulist_count(const char *text, unsigned int *count, struct favo_err *err);
