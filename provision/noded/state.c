// SPDX-License-Identifier: GPL-2.0-or-later
/* State files of favo-noded; see state.h and docs/format-noded-state.md. */
#include "provision/noded/state.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/str.h"
#include "common/util.h"

#define STATE_FORMAT 1
/* A grant is at most 4 KiB, a node list of 10,000 names far below the rest. */
#define STATE_MAX (1u << 20)

static int save(const json_t *obj, const char *path, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len;
	int ret = favo_json_canonical(&text, &len, obj, err);

	return ret < 0 ? ret : favo_file_replace(path, text, len, 0600, err);
}

static int load(json_t **out, const char *path, struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	favo_autofree char *text = NULL;
	uint64_t format;
	size_t len;
	int ret;

	ret = favo_file_read(path, STATE_MAX, &text, &len, err);
	if (ret < 0)
		return ret;
	ret = favo_json_parse(&obj, text, len, err);
	if (ret >= 0)
		ret = favo_json_u64(&format, obj, "format", STATE_FORMAT, STATE_FORMAT,
				    err);
	if (ret < 0)
		return favo_wrap(err, -EBADMSG, "%s", path);
	*out = favo_steal_ptr(&obj);
	return 0;
}

static int get_u32(uint32_t *out, const json_t *obj, const char *key,
		   struct favo_err *err)
{
	uint64_t value = 0;
	int ret = favo_json_u64(&value, obj, key, 0, UINT32_MAX, err);

	*out = (uint32_t)value;
	return ret;
}

static int get_text(char *out, size_t size, const json_t *obj, const char *key,
		    struct favo_err *err)
{
	const char *text;
	int ret = favo_json_str(&text, obj, key, err);

	if (ret < 0)
		return ret;
	if (strlen(text) >= size)
		return favo_fail(err, EINVAL, "%s is too long", key);
	memcpy(out, text, strlen(text) + 1);
	return 0;
}

static int get_dup(char **out, const json_t *obj, const char *key, struct favo_err *err)
{
	const char *text;
	int ret = favo_json_str(&text, obj, key, err);

	if (ret < 0)
		return ret;
	*out = strdup(text);
	return *out ? 0 : favo_fail(err, ENOMEM, "allocate %s", key);
}

/* Absent in a file of an older version: empty. */
static int get_optional(char **out, const json_t *obj, const char *key,
			struct favo_err *err)
{
	if (json_object_get(obj, key))
		return get_dup(out, obj, key, err);
	*out = strdup("");
	return *out ? 0 : favo_fail(err, ENOMEM, "allocate %s", key);
}

int favo_job_state_save(const struct favo_job_state *s, const char *path,
			struct favo_err *err)
{
	favo_autojson json_t *obj = json_pack(
		"{s:i, s:I, s:I, s:I, s:I, s:s, s:s, s:s, s:s*, s:s*, s:b, s:b, s:I, "
		"s:I, s:s, s:o*,"
		" s:{s:s, s:s, s:s}}",
		"format", STATE_FORMAT, "job", (json_int_t)s->job, "restart",
		(json_int_t)s->restart, "uid", (json_int_t)s->uid, "gid",
		(json_int_t)s->gid, "nodelist", s->nodelist, "node", s->node, "grant",
		s->grant, "mounts", s->mounts, "workdir", s->workdir, "sandbox",
		s->sandbox, "boot_asked", s->boot_asked, "mem_mb", (json_int_t)s->mem_mb,
		"ncpus", (json_int_t)s->ncpus, "cores", s->cores ? s->cores : "",
		"timeline", favo_timeline_save(&s->timeline), "failure", "phase",
		s->failure.phase, "cause", s->failure.cause, "remedy", s->failure.remedy);

	if (!obj)
		return favo_fail(err, ENOMEM, "state of job %u: not text or no memory",
				 s->job);
	return save(obj, path, err);
}

static int parse_failure(struct favo_failure *f, const json_t *obj, struct favo_err *err)
{
	json_t *sub;
	int ret = favo_json_object(&sub, obj, "failure", err);

	if (ret >= 0)
		ret = get_text(f->phase, sizeof(f->phase), sub, "phase", err);
	if (ret >= 0)
		ret = get_text(f->cause, sizeof(f->cause), sub, "cause", err);
	return ret < 0 ? ret : get_text(f->remedy, sizeof(f->remedy), sub, "remedy", err);
}

static int parse_job(struct favo_job_state *s, const json_t *obj, struct favo_err *err)
{
	uint32_t uid, gid;
	int ret;

	if ((ret = get_u32(&s->job, obj, "job", err)) < 0 ||
	    (ret = get_u32(&s->restart, obj, "restart", err)) < 0 ||
	    (ret = get_u32(&uid, obj, "uid", err)) < 0 ||
	    (ret = get_u32(&gid, obj, "gid", err)) < 0 ||
	    (ret = get_dup(&s->nodelist, obj, "nodelist", err)) < 0 ||
	    (ret = get_dup(&s->node, obj, "node", err)) < 0 ||
	    (ret = get_dup(&s->grant, obj, "grant", err)) < 0 ||
	    (ret = get_optional(&s->mounts, obj, "mounts", err)) < 0 ||
	    (ret = get_optional(&s->workdir, obj, "workdir", err)) < 0 ||
	    (ret = favo_json_bool(&s->boot_asked, obj, "boot_asked", err)) < 0 ||
	    (ret = favo_json_u64(&s->mem_mb, obj, "mem_mb", 0, UINT64_C(1) << 34, err)) <
		    0 ||
	    (ret = get_u32(&s->ncpus, obj, "ncpus", err)) < 0 ||
	    (ret = get_dup(&s->cores, obj, "cores", err)) < 0 ||
	    (ret = parse_failure(&s->failure, obj, err)) < 0)
		return ret;
	s->uid = uid;
	s->gid = gid;
	s->sandbox = json_is_true(json_object_get(obj, "sandbox"));
	if (favo_timeline_load(&s->timeline, json_object_get(obj, "timeline")) < 0)
		return favo_fail(err, EINVAL, "timeline is not one");
	return 0;
}

int favo_job_state_load(struct favo_job_state *s, const char *path, struct favo_err *err)
{
	struct favo_job_state loaded = {0};
	favo_autojson json_t *obj = NULL;
	int ret = load(&obj, path, err);

	if (ret < 0)
		return ret;
	if (parse_job(&loaded, obj, err) < 0) {
		favo_job_state_fini(&loaded);
		return favo_wrap(err, -EBADMSG, "%s", path);
	}
	*s = loaded;
	return 0;
}

void favo_job_state_fini(struct favo_job_state *s)
{
	free(favo_steal_ptr(&s->nodelist));
	free(favo_steal_ptr(&s->node));
	free(favo_steal_ptr(&s->grant));
	free(favo_steal_ptr(&s->cores));
	free(favo_steal_ptr(&s->mounts));
	free(favo_steal_ptr(&s->workdir));
}

int favo_vm_state_save(const struct favo_vm_state *s, const char *path,
		       struct favo_err *err)
{
	favo_autojson json_t *obj =
		json_pack("{s:i, s:I, s:I, s:I, s:s, s:s, s:I, s:I, s:I, s:I, s:I, s:s}",
			  "format", STATE_FORMAT, "job", (json_int_t)s->job, "index",
			  (json_int_t)s->index, "uid", (json_int_t)s->uid, "node",
			  s->node, "boot_id", s->boot_id, "pid", (json_int_t)s->pid,
			  "start_time", (json_int_t)s->start_time, "cid",
			  (json_int_t)s->cid, "mem_mb", (json_int_t)s->mem_mb, "cpus",
			  (json_int_t)s->cpus, "digest", s->digest);

	if (!obj)
		return favo_fail(err, ENOMEM, "state of VM %u.%u: no memory", s->job,
				 s->index);
	return save(obj, path, err);
}

static int parse_vm(struct favo_vm_state *s, const json_t *obj, struct favo_err *err)
{
	uint32_t uid, pid;
	int ret;

	if ((ret = get_u32(&s->job, obj, "job", err)) < 0 ||
	    (ret = get_u32(&s->index, obj, "index", err)) < 0 ||
	    (ret = get_u32(&uid, obj, "uid", err)) < 0 ||
	    (ret = get_text(s->node, sizeof(s->node), obj, "node", err)) < 0 ||
	    (ret = get_text(s->boot_id, sizeof(s->boot_id), obj, "boot_id", err)) < 0 ||
	    (ret = get_u32(&pid, obj, "pid", err)) < 0 ||
	    (ret = favo_json_u64(&s->start_time, obj, "start_time", 0, INT64_MAX, err)) <
		    0 ||
	    (ret = get_u32(&s->cid, obj, "cid", err)) < 0 ||
	    (ret = favo_json_u64(&s->mem_mb, obj, "mem_mb", 0, UINT64_C(1) << 34, err)) <
		    0 ||
	    (ret = get_u32(&s->cpus, obj, "cpus", err)) < 0 ||
	    (ret = get_text(s->digest, sizeof(s->digest), obj, "digest", err)) < 0)
		return ret;
	/* Node and uid become paths and targets of signals. */
	if (!favo_is_name(s->node, "-._", sizeof(s->node) - 1) || pid == 1 ||
	    pid > INT32_MAX)
		return favo_fail(err, EINVAL, "node or pid cannot be");
	s->uid = uid;
	s->pid = (pid_t)pid;
	return 0;
}

int favo_vm_state_load(struct favo_vm_state *s, const char *path, struct favo_err *err)
{
	struct favo_vm_state loaded = {0};
	favo_autojson json_t *obj = NULL;
	int ret = load(&obj, path, err);

	if (ret < 0)
		return ret;
	if (parse_vm(&loaded, obj, err) < 0)
		return favo_wrap(err, -EBADMSG, "%s", path);
	*s = loaded;
	return 0;
}

/* Decimal without sign or leading zero; *end is behind it. */
static bool parse_number(const char *text, char **end, uint32_t *out)
{
	unsigned long long value;

	if (*text < '0' || *text > '9' ||
	    (*text == '0' && text[1] >= '0' && text[1] <= '9'))
		return false;
	value = strtoull(text, end, 10);
	*out = (uint32_t)value;
	return value <= UINT32_MAX && *end - text <= 10;
}

bool favo_job_name_parse(const char *name, uint32_t *job)
{
	char *end;

	return parse_number(name, &end, job) && !*end && *job > 0;
}

bool favo_vm_name_parse(const char *name, uint32_t *job, uint32_t *index)
{
	char *end;

	return parse_number(name, &end, job) && *job > 0 && *end == '.' &&
	       parse_number(end + 1, &end, index) && !*end;
}
