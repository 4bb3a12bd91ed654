// SPDX-License-Identifier: GPL-2.0-or-later
/* The nodes' last word on their health: a map from node to object. */
#include "provision/favod/node_health.h"

#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/util.h"

#define CHECKS_MAX 64
#define TEXT_MAX 1024

struct favo_node_health {
	pthread_mutex_t lock;
	json_t *nodes; /* under lock: name -> what favo_node_health_add() adds */
};

struct favo_node_health *favo_node_health_new(void)
{
	struct favo_node_health *health = calloc(1, sizeof(*health));

	if (!health)
		return NULL;
	pthread_mutex_init(&health->lock, NULL);
	health->nodes = json_object();
	if (!health->nodes) {
		free(health);
		return NULL;
	}
	return health;
}

void favo_node_health_free(struct favo_node_health *health)
{
	if (!health)
		return;
	json_decref(health->nodes);
	pthread_mutex_destroy(&health->lock);
	free(health);
}

/* A copy of one check with nothing in it but what it should have. */
static json_t *check_copy(const json_t *in, unsigned int *faults, struct favo_err *err)
{
	static const char *const keys[] = {"check", "result", "what", "remedy"};
	favo_autojson json_t *out = json_object();
	const char *text;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(keys); i++) {
		if (i == 3 && !json_object_get(in, keys[i]))
			continue;
		if (favo_json_str(&text, in, keys[i], err) < 0)
			return NULL;
		if (strlen(text) > TEXT_MAX) {
			favo_fail(err, EINVAL, "a check's \"%s\" is longer than %d bytes",
				  keys[i], TEXT_MAX);
			return NULL;
		}
		if (i == 1 && !strcmp(text, "FAILED"))
			(*faults)++;
		json_object_set_new(out, keys[i], json_string(text));
	}
	return favo_steal_ptr(&out);
}

int favo_node_health_put(struct favo_node_health *health, const char *node,
			 const json_t *checks, int64_t node_ms, int64_t now_ms,
			 struct favo_err *err)
{
	favo_autojson json_t *entry = json_object(), *list = json_array();
	unsigned int faults = 0;
	const json_t *row;
	size_t i;

	if (json_array_size(checks) > CHECKS_MAX)
		return favo_fail(err, EINVAL, "more than %d checks", CHECKS_MAX);
	json_array_foreach(checks, i, row)
	{
		json_t *copy = check_copy(row, &faults, err);

		if (!copy)
			return -EINVAL;
		json_array_append_new(list, copy);
	}
	if (checks) {
		json_object_set(entry, "checks", list);
		json_object_set_new(entry, "faults", json_integer(faults));
	}
	if (node_ms > 0)
		json_object_set_new(entry, "skew_ms", json_integer(node_ms - now_ms));
	pthread_mutex_lock(&health->lock);
	json_object_set(health->nodes, node, entry);
	pthread_mutex_unlock(&health->lock);
	return 0;
}

void favo_node_health_add(struct favo_node_health *health, const char *node,
			  json_t *object)
{
	favo_autojson json_t *copy = NULL;

	/* A copy: reference counts of jansson are not for two threads. */
	pthread_mutex_lock(&health->lock);
	copy = json_deep_copy(json_object_get(health->nodes, node));
	pthread_mutex_unlock(&health->lock);
	if (copy)
		json_object_update(object, copy);
}
