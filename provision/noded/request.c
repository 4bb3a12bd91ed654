// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Requests on favo-noded's socket; see request.h and favo-noded(8).
 *
 * Unknown keys are ignored, so that a plugin of the next version can talk to
 * this daemon; a key that is known must be right.
 */
#include "provision/noded/request.h"

#include <errno.h>
#include <string.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"

#define CPU_MAX 65535u
#define CPULIST_MAX 4095
/* Slurm's own limit of a job id is below this (MAX_JOB_ID). */
#define JOB_MAX 0xfffffffdu

static const char *const op_names[] = {
	[FAVO_OP_PREPARE] = "prepare", [FAVO_OP_BOOT] = "boot",
	[FAVO_OP_ATTACH] = "attach",   [FAVO_OP_DESTROY] = "destroy",
	[FAVO_OP_LIST] = "list",       [FAVO_OP_SHOW] = "show",
	[FAVO_OP_CONSOLE] = "console", [FAVO_OP_DOCTOR] = "doctor",
};

/* A number that may be absent; *out is left alone then. */
static int optional_u64(uint64_t *out, const json_t *obj, const char *key, uint64_t max,
			struct favo_err *err)
{
	if (!json_object_get(obj, key))
		return 0;
	return favo_json_u64(out, obj, key, 0, max, err);
}

static int optional_u32(uint32_t *out, const json_t *obj, const char *key,
			struct favo_err *err)
{
	uint64_t value = *out;
	int ret = optional_u64(&value, obj, key, UINT32_MAX, err);

	*out = (uint32_t)value;
	return ret;
}

static int optional_str(const char **out, const json_t *obj, const char *key,
			struct favo_err *err)
{
	if (!json_object_get(obj, key))
		return 0;
	return favo_json_str(out, obj, key, err);
}

static int parse_op(enum favo_op *out, const json_t *obj, struct favo_err *err)
{
	const char *name;
	int ret = favo_json_str(&name, obj, "op", err);

	if (ret < 0)
		return ret;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(op_names); i++) {
		if (!strcmp(op_names[i], name)) {
			*out = (enum favo_op)i;
			return 0;
		}
	}
	return favo_fail(err, EINVAL, "unknown operation '%.32s'", name);
}

static int parse_prepare(struct favo_request *req, const json_t *obj,
			 struct favo_err *err)
{
	uint64_t uid, gid;
	int ret;

	ret = favo_json_u64(&uid, obj, "uid", 0, UINT32_MAX - 1, err);
	if (ret >= 0)
		ret = favo_json_u64(&gid, obj, "gid", 0, UINT32_MAX - 1, err);
	if (ret >= 0)
		ret = favo_json_str(&req->nodelist, obj, "nodelist", err);
	if (ret >= 0)
		ret = favo_json_str(&req->node, obj, "node", err);
	if (ret >= 0)
		ret = favo_json_str(&req->grant, obj, "grant", err);
	if (ret >= 0)
		ret = optional_str(&req->mounts, obj, "mounts", err);
	if (ret >= 0)
		ret = optional_str(&req->workdir, obj, "workdir", err);
	if (ret >= 0 && json_object_get(obj, "sandbox"))
		ret = favo_json_bool(&req->sandbox, obj, "sandbox", err);
	if (ret >= 0)
		ret = optional_u32(&req->restart, obj, "restart", err);
	if (ret < 0)
		return ret;
	req->uid = (uid_t)uid;
	req->gid = (gid_t)gid;
	return 0;
}

static int parse_boot(struct favo_request *req, const json_t *obj, struct favo_err *err)
{
	uint64_t ncpus = 0;
	unsigned int count;
	int ret;

	/* 1 << 34 MiB is far above any node and far below an overflow. */
	ret = optional_u64(&req->mem_mb, obj, "mem_mb", UINT64_C(1) << 34, err);
	if (ret >= 0)
		ret = optional_u64(&ncpus, obj, "ncpus", CPU_MAX, err);
	if (ret >= 0)
		ret = optional_str(&req->cores, obj, "cores", err);
	if (ret >= 0 && *req->cores)
		ret = favo_cpulist_count(req->cores, &count, err);
	if (ret >= 0 && json_object_get(obj, "extern"))
		ret = favo_json_bool(&req->extern_step, obj, "extern", err);
	req->ncpus = (unsigned int)ncpus;
	return ret;
}

int favo_request_parse(struct favo_request *out, const char *line, size_t len,
		       struct favo_err *err)
{
	struct favo_request req = {.nodelist = "",
				   .node = "",
				   .grant = "",
				   .mounts = "",
				   .workdir = "",
				   .cores = "",
				   .step = "",
				   .vm = ""};
	favo_autojson json_t *obj = NULL;
	uint64_t job = 0;
	int ret;

	if (len >= FAVO_REQUEST_MAX)
		return favo_fail(err, EINVAL, "request is too long");
	ret = favo_json_parse(&obj, line, len, err);
	if (ret >= 0)
		ret = parse_op(&req.op, obj, err);
	if (ret >= 0 && req.op != FAVO_OP_LIST && req.op != FAVO_OP_DOCTOR)
		ret = favo_json_u64(&job, obj, "job", 1, JOB_MAX, err);
	if (ret < 0)
		return ret;
	req.job = (uint32_t)job;
	if (req.op == FAVO_OP_PREPARE)
		ret = parse_prepare(&req, obj, err);
	else if (req.op == FAVO_OP_BOOT)
		ret = parse_boot(&req, obj, err);
	else if (req.op == FAVO_OP_CONSOLE)
		ret = optional_str(&req.vm, obj, "vm", err);
	if (ret >= 0 && req.op == FAVO_OP_ATTACH)
		ret = optional_str(&req.step, obj, "step", err);
	if (ret >= 0 && req.op == FAVO_OP_ATTACH)
		ret = optional_u32(&req.task, obj, "task", err);
	if (ret < 0)
		return ret;
	req.json = favo_steal_ptr(&obj);
	*out = req;
	return 0;
}

void favo_request_fini(struct favo_request *req)
{
	json_decref(req->json);
	req->json = NULL;
}

bool favo_request_allowed(const struct favo_request *req, uid_t peer)
{
	switch (req->op) {
	case FAVO_OP_PREPARE:
	case FAVO_OP_BOOT:
	case FAVO_OP_DESTROY:
		return peer == 0;
	case FAVO_OP_ATTACH:
	case FAVO_OP_LIST:
	case FAVO_OP_SHOW:
	case FAVO_OP_CONSOLE:
	case FAVO_OP_DOCTOR:
		return true;
	}
	return false;
}

/* One number at *p, which moves behind it. */
static bool cpu_number(const char **p, unsigned int *out)
{
	unsigned int value = 0;
	const char *start = *p;

	for (; **p >= '0' && **p <= '9'; (*p)++) {
		value = value * 10 + (unsigned int)(**p - '0');
		if (value > CPU_MAX)
			return false;
	}
	*out = value;
	return *p > start;
}

int favo_cpulist_count(const char *text, unsigned int *count, struct favo_err *err)
{
	unsigned int first, last, n = 0;
	const char *p = text;
	bool good = *text && strnlen(text, CPULIST_MAX + 1) <= CPULIST_MAX;

	while (good) {
		good = cpu_number(&p, &first);
		last = first;
		if (good && *p == '-') {
			p++;
			good = cpu_number(&p, &last) && last >= first;
		}
		n += last - first + 1;
		if (!good || !*p)
			break;
		good = *p++ == ',' && n <= CPU_MAX;
	}
	if (!good)
		return favo_fail(err, EINVAL, "'%.64s' is not a list of CPUs", text);
	*count = n;
	return 0;
}
