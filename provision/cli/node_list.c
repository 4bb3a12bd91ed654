// SPDX-License-Identifier: GPL-2.0-or-later
/* Nodes by name on the command line; see node_list.h. */
#include "provision/cli/node_list.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"

int favo_cli_nodes_get(struct favo_cli *cli, json_t **reply, struct favo_err *err)
{
	struct favo_http *http;
	int ret = favo_cli_http(cli, &http, err);

	return ret < 0 ? ret : favo_http_json(http, "GET", "/v1/nodes", NULL, reply, err);
}

json_t *favo_cli_nodes_find(const json_t *reply, const char *name)
{
	json_t *node;
	size_t i;

	json_array_foreach(json_object_get(reply, "nodes"), i, node)
	{
		const char *have = json_string_value(json_object_get(node, "name"));

		if (have && strcmp(have, name) == 0)
			return json_object_get(node, "effective") ? node : NULL;
	}
	return NULL;
}

/* Add unless it is there; seen has the names as keys. */
static void add_name(json_t *names, json_t *seen, const char *name)
{
	if (json_object_get(seen, name))
		return;
	json_object_set_new(seen, name, json_true());
	json_array_append_new(names, json_string(name));
}

static bool is_in_group(const json_t *node, const char *group)
{
	const json_t *one;
	size_t i;

	json_array_foreach(json_object_get(json_object_get(node, "effective"), "groups"),
			   i, one)
	{
		if (strcmp(json_string_value(one), group) == 0)
			return true;
	}
	return false;
}

/* group NULL: all. */
static int add_group(json_t *names, json_t *seen, const json_t *reply, const char *group,
		     struct favo_err *err)
{
	size_t i, before = json_array_size(names);
	const json_t *node;

	json_array_foreach(json_object_get(reply, "nodes"), i, node)
	{
		if (json_object_get(node, "effective") &&
		    (!group || is_in_group(node, group)))
			add_name(names, seen,
				 json_string_value(json_object_get(node, "name")));
	}
	if (json_array_size(names) > before || json_object_size(seen))
		return 0;
	return group ? favo_fail(err, ENOENT, "no node is in the group %s", group)
		     : favo_fail(
			       err, ENOENT,
			       "there are no nodes; favo node add or import makes them");
}

static int add_hosts(json_t *names, json_t *seen, const json_t *reply, const char *text,
		     bool known, struct favo_err *err)
{
	favo_autostrv char **hosts = NULL;
	favo_autojson json_t *have = json_object();
	const json_t *node;
	size_t n, i;
	int ret = favo_hostlist_expand(&hosts, &n, text, FAVO_CLI_NODES_MAX, err);

	if (ret < 0)
		return ret;
	json_array_foreach(json_object_get(reply, "nodes"), i, node)
	{
		if (json_object_get(node, "effective"))
			json_object_set_new(
				have, json_string_value(json_object_get(node, "name")),
				json_true());
	}
	for (i = 0; i < n; i++) {
		if (known && !json_object_get(have, hosts[i]))
			return favo_fail(err, ENOENT,
					 "there is no node %s; favo node ls lists them",
					 hosts[i]);
		add_name(names, seen, hosts[i]);
	}
	return 0;
}

/* Up to the comma that is not in brackets. */
static size_t word_len(const char *text)
{
	int depth = 0;
	size_t i;

	for (i = 0; text[i]; i++) {
		depth += (text[i] == '[') - (text[i] == ']');
		if (text[i] == ',' && depth <= 0)
			break;
	}
	return i;
}

int favo_cli_nodes_expand(json_t **out, const json_t *reply, const char *text, bool known,
			  struct favo_err *err)
{
	favo_autojson json_t *names = json_array(), *seen = json_object();
	int ret = 0;

	while (ret == 0) {
		size_t len = word_len(text);
		favo_autofree char *word = strndup(text, len);

		if (!word)
			return favo_fail(err, ENOMEM, "nodes: %m");
		if (strcmp(word, "all") == 0)
			ret = add_group(names, seen, reply, NULL, err);
		else if (word[0] == '@')
			ret = add_group(names, seen, reply, word + 1, err);
		else
			ret = add_hosts(names, seen, reply, word, known, err);
		text += len;
		if (!*text)
			break;
		text++;
	}
	if (ret == 0)
		*out = favo_steal_ptr(&names);
	return ret;
}

const char *favo_cli_short_digest(char buf[20], const char *digest)
{
	snprintf(buf, 20, "%.12s", digest ? digest + strcspn(digest, ":") + 1 : "-");
	return buf;
}

const char *favo_cli_age(char buf[32], int64_t then, int64_t now)
{
	int64_t age = now > then ? now - then : 0;

	if (!then)
		snprintf(buf, 32, "-");
	else if (age < 120)
		snprintf(buf, 32, "%" PRId64 " s ago", age);
	else if (age < 7200)
		snprintf(buf, 32, "%" PRId64 " min ago", age / 60);
	else if (age < 172800)
		snprintf(buf, 32, "%" PRId64 " h ago", age / 3600);
	else
		snprintf(buf, 32, "%" PRId64 " d ago", age / 86400);
	return buf;
}
