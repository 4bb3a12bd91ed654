// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Reader of Warewulf's nodes.conf, versions 4.2 to 4.6, on libyaml. Aliases
 * are followed by their number in the document; depth and size of what comes
 * out are bounded, so that a small file makes no large one.
 */
#include "provision/cli/warewulf.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include <yaml.h>

#include "common/json.h"
#include "common/util.h"

#define DEPTH_MAX 16
#define VALUES_MAX 300000u

struct reader {
	yaml_document_t *doc;
	unsigned int values;
};

static int fail_at(const yaml_node_t *node, struct favo_err *err, const char *what)
{
	return favo_fail(err, EINVAL, "line %zu: %s", node->start_mark.line + 1, what);
}

/* Any YAML value as JSON; all scalars as text. */
static int convert(struct reader *r, json_t **out, int index, int depth,
		   struct favo_err *err)
{
	const yaml_node_t *node = yaml_document_get_node(r->doc, index);
	favo_autojson json_t *value = NULL;
	int ret = 0;

	if (!node)
		return favo_fail(err, EINVAL, "the file has no content");
	if (depth > DEPTH_MAX || ++r->values > VALUES_MAX)
		return fail_at(node, err, "too deep, or too much of it");
	if (node->type == YAML_SCALAR_NODE) {
		value = json_stringn((const char *)node->data.scalar.value,
				     node->data.scalar.length);
		if (!value)
			return fail_at(node, err, "the text is not UTF-8");
	} else if (node->type == YAML_SEQUENCE_NODE) {
		const yaml_node_item_t *item = node->data.sequence.items.start;

		value = json_array();
		for (; ret == 0 && item < node->data.sequence.items.top; item++) {
			json_t *one = NULL;

			ret = convert(r, &one, *item, depth + 1, err);
			if (ret == 0)
				json_array_append_new(value, one);
		}
	} else {
		const yaml_node_pair_t *pair = node->data.mapping.pairs.start;

		value = json_object();
		for (; ret == 0 && pair < node->data.mapping.pairs.top; pair++) {
			const yaml_node_t *key =
				yaml_document_get_node(r->doc, pair->key);
			json_t *one = NULL;

			if (!key || key->type != YAML_SCALAR_NODE)
				return fail_at(node, err, "a key that is no text");
			ret = convert(r, &one, pair->value, depth + 1, err);
			if (ret == 0 &&
			    json_object_set_new(
				    value, (const char *)key->data.scalar.value, one) < 0)
				return fail_at(key, err, "the key is not UTF-8");
		}
	}
	if (ret == 0)
		*out = favo_steal_ptr(&value);
	return ret;
}

static int parse_yaml(json_t **out, const char *text, size_t len, struct favo_err *err)
{
	yaml_parser_t parser;
	yaml_document_t doc;
	struct reader r = {.doc = &doc};
	int ret;

	if (!yaml_parser_initialize(&parser))
		return favo_fail(err, ENOMEM, "YAML: %m");
	yaml_parser_set_input_string(&parser, (const unsigned char *)text, len);
	if (yaml_parser_load(&parser, &doc)) {
		const yaml_node_t *root = yaml_document_get_root_node(&doc);

		ret = root ? convert(&r, out, 1, 0, err)
			   : favo_fail(err, EINVAL, "the file is empty");
		yaml_document_delete(&doc);
	} else {
		ret = favo_fail(err, EINVAL, "line %zu: %s", parser.problem_mark.line + 1,
				parser.problem ? parser.problem : "no YAML");
	}
	yaml_parser_delete(&parser);
	return ret;
}

/* The first of the spellings that the versions have had. */
static json_t *get_any(const json_t *obj, const char *a, const char *b)
{
	json_t *value = json_object_get(obj, a);

	return value ? value : json_object_get(obj, b);
}

static const char *text_of(const json_t *obj, const char *a, const char *b)
{
	const char *text = json_string_value(get_any(obj, a, b));

	return text && *text && strcmp(text, "UNDEF") != 0 ? text : NULL;
}

/* "10.0.0.1" and "255.255.255.0" to "10.0.0.1/24". */
static void add_address(json_t *list, const char *ip, const char *mask)
{
	struct in_addr m;
	char text[80];

	if (!ip)
		return;
	if (mask && !strchr(ip, '/') && inet_pton(AF_INET, mask, &m) == 1)
		snprintf(text, sizeof(text), "%.40s/%d", ip,
			 __builtin_popcount(m.s_addr));
	else
		snprintf(text, sizeof(text), "%.60s", ip);
	json_array_append_new(list, json_string(text));
}

/* masks: the profiles' network devices, for what the node leaves to them. */
static const char *inherited(const json_t *def, const json_t *profiles,
			     const char *device, const char *key)
{
	const json_t *name;
	size_t i;

	json_array_foreach(json_object_get(def, "profiles"), i, name)
	{
		const json_t *p = json_object_get(profiles, json_string_value(name));
		const char *text = text_of(
			json_object_get(get_any(p, "network devices", "networkdevices"),
					device),
			key, key);

		if (text)
			return text;
	}
	return NULL;
}

static void take_devices(json_t *out, const json_t *def, const json_t *profiles)
{
	json_t *macs = json_array(), *addresses = json_array(), *device;
	const json_t *devices = get_any(def, "network devices", "networkdevices");
	const char *name;

	json_object_foreach((json_t *)devices, name, device)
	{
		const char *mac = text_of(device, "hwaddr", "hwaddr");
		const char *mask = text_of(device, "netmask", "netmask");
		const char *gateway = text_of(device, "gateway", "gateway");

		if (!mask)
			mask = inherited(def, profiles, name, "netmask");
		if (mac)
			json_array_append_new(macs, json_string(mac));
		add_address(addresses, text_of(device, "ipaddr", "ipaddr"), mask);
		if (gateway)
			json_object_set_new(out, "gateway", json_string(gateway));
	}
	json_object_set_new(out, "macs", macs);
	json_object_set_new(out, "addresses", addresses);
}

/* A list of words, or one text, as one text. */
static void take_args(json_t *out, const json_t *def)
{
	json_t *args = get_any(json_object_get(def, "kernel"), "args", "kernelargs");
	char text[2000] = "";
	const json_t *one;
	size_t i, len = 0;

	if (json_is_string(args))
		json_object_set(out, "kernel_args", args);
	json_array_foreach(args, i, one)
	{
		const char *word = json_string_value(one);

		if (word && len + strlen(word) + 2 < sizeof(text))
			len += (size_t)snprintf(text + len, sizeof(text) - len, "%s%s",
						len ? " " : "", word);
	}
	if (len)
		json_object_set_new(out, "kernel_args", json_string(text));
}

static json_t *make_def(const json_t *def, const json_t *profiles, bool is_profile)
{
	json_t *out = json_object(), *tags = json_object(), *value;
	const char *image = text_of(def, "image name", "container name");
	const char *key;

	take_devices(out, def, profiles);
	if (is_profile) {
		json_object_del(out, "macs");
		json_object_del(out, "addresses");
	} else if (json_is_array(json_object_get(def, "profiles"))) {
		json_object_set(out, "profiles", json_object_get(def, "profiles"));
	}
	take_args(out, def);
	json_object_foreach(json_object_get(def, "tags"), key, value)
	{
		if (json_is_string(value))
			json_object_set(tags, key, value);
	}
	if (image)
		json_object_set_new(tags, "warewulf_image", json_string(image));
	json_object_set_new(out, "tags", tags);
	return out;
}

static int check_map(const json_t *map, const char *what, struct favo_err *err)
{
	const char *name;
	json_t *def;

	if (map && !json_is_object(map))
		return favo_fail(err, EINVAL, "%s is no mapping", what);
	json_object_foreach((json_t *)map, name, def)
	{
		if (!json_is_object(def) && json_string_length(def) != 0)
			return favo_fail(err, EINVAL, "%s: %.60s is no mapping", what,
					 name);
	}
	return 0;
}

int favo_warewulf_parse(json_t **out, const char *text, size_t len, struct favo_err *err)
{
	favo_autojson json_t *file = NULL, *nodes = json_object();
	favo_autojson json_t *profiles = json_object();
	const json_t *in_nodes, *in_profiles;
	const char *name;
	json_t *def;
	int ret = parse_yaml(&file, text, len, err);

	if (ret < 0)
		return ret;
	in_nodes = json_object_get(file, "nodes");
	in_profiles = json_object_get(file, "nodeprofiles");
	if (!in_nodes && !in_profiles)
		return favo_fail(err, EINVAL,
				 "there are neither nodes nor nodeprofiles: is it a "
				 "nodes.conf of Warewulf 4?");
	ret = check_map(in_nodes, "nodes", err);
	if (ret == 0)
		ret = check_map(in_profiles, "nodeprofiles", err);
	if (ret < 0)
		return ret;
	json_object_foreach((json_t *)in_profiles, name, def)
	{
		json_object_set_new(profiles, name, make_def(def, NULL, true));
	}
	json_object_foreach((json_t *)in_nodes, name, def)
	{
		json_object_set_new(nodes, name, make_def(def, in_profiles, false));
	}
	*out = json_pack("{s:O s:O}", "nodes", nodes, "profiles", profiles);
	return *out ? 0 : favo_fail(err, ENOMEM, "nodes.conf: %m");
}
