// SPDX-License-Identifier: GPL-2.0-or-later
/* The time line of a VM's start; see timeline.h. */
#include "provision/noded/timeline.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

static const char *const names[FAVO_PHASE_COUNT] = {
	[FAVO_PHASE_IMAGE] = "image",	  [FAVO_PHASE_BOOT] = "boot",
	[FAVO_PHASE_KERNEL] = "kernel",	  [FAVO_PHASE_ROOT] = "root",
	[FAVO_PHASE_NETWORK] = "network", [FAVO_PHASE_READY] = "ready",
	[FAVO_PHASE_TASK] = "task",
};

void favo_timeline_start(struct favo_timeline *t, int64_t now_ms, int64_t unix_ms)
{
	memset(t, 0, sizeof(*t));
	t->start_ms = now_ms;
	t->start_unix_ms = unix_ms;
}

bool favo_timeline_reach(struct favo_timeline *t, enum favo_phase phase, int64_t now_ms)
{
	if (phase >= FAVO_PHASE_COUNT || t->reached_ms[phase])
		return false;
	t->reached_ms[phase] = now_ms;
	return true;
}

enum favo_phase favo_timeline_current(const struct favo_timeline *t)
{
	for (int i = FAVO_PHASE_COUNT - 1; i >= 0; i--)
		if (t->reached_ms[i])
			return i + 1 < FAVO_PHASE_COUNT ? (enum favo_phase)(i + 1)
							: FAVO_PHASE_TASK;
	return FAVO_PHASE_IMAGE;
}

const char *favo_phase_name(enum favo_phase phase)
{
	return phase < FAVO_PHASE_COUNT ? names[phase] : "unknown";
}

enum favo_phase favo_phase_parse(const char *name)
{
	for (int i = 0; i < FAVO_PHASE_COUNT; i++)
		if (!strcmp(names[i], name))
			return (enum favo_phase)i;
	return FAVO_PHASE_COUNT;
}

/* Members "<prefix>" for the start and "<phase>_ms" for what was reached. */
static json_t *to_json(const struct favo_timeline *t, int64_t origin_ms)
{
	json_t *obj = json_object();
	char key[32];

	if (!obj)
		return NULL;
	json_object_set_new(obj, "start_unix_ms", json_integer(t->start_unix_ms));
	for (int i = 0; i < FAVO_PHASE_COUNT; i++) {
		if (!t->reached_ms[i])
			continue;
		snprintf(key, sizeof(key), "%s_ms", names[i]);
		json_object_set_new(obj, key, json_integer(t->reached_ms[i] - origin_ms));
	}
	return obj;
}

json_t *favo_timeline_json(const struct favo_timeline *t)
{
	return to_json(t, t->start_ms);
}

json_t *favo_timeline_save(const struct favo_timeline *t)
{
	json_t *obj = to_json(t, 0);

	if (obj)
		json_object_set_new(obj, "start_ms", json_integer(t->start_ms));
	return obj;
}

/* A time that may be absent: 0 then. */
static int get_time(int64_t *out, const json_t *obj, const char *key)
{
	const json_t *value = json_object_get(obj, key);

	*out = 0;
	if (!value)
		return 0;
	if (!json_is_integer(value) || json_integer_value(value) < 0)
		return -EINVAL;
	*out = json_integer_value(value);
	return 0;
}

int favo_timeline_load(struct favo_timeline *t, const json_t *obj)
{
	struct favo_timeline loaded;
	char key[32];
	int ret;

	if (!json_is_object(obj))
		return -EINVAL;
	memset(&loaded, 0, sizeof(loaded));
	ret = get_time(&loaded.start_ms, obj, "start_ms");
	if (ret >= 0)
		ret = get_time(&loaded.start_unix_ms, obj, "start_unix_ms");
	for (int i = 0; ret >= 0 && i < FAVO_PHASE_COUNT; i++) {
		snprintf(key, sizeof(key), "%s_ms", names[i]);
		ret = get_time(&loaded.reached_ms[i], obj, key);
	}
	if (ret < 0)
		return ret;
	*t = loaded;
	return 0;
}
