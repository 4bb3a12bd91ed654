// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Definitions of nodes and profiles; see node_def.h. One row per field: a new
 * field gets a row, and nothing else here.
 */
#include "provision/favod/node_def.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"
#include "images/store.h"

#define LIST_MAX 64
#define TAGS_MAX 64
#define TEXT_MAX 1000

bool favo_node_name_ok(const char *name)
{
	size_t len = strlen(name);

	if (!len || len > FAVO_NODE_NAME_MAX || name[0] == '-' || name[len - 1] == '-')
		return false;
	for (const char *p = name; *p; p++)
		if (!(*p >= 'a' && *p <= 'z') && !(*p >= '0' && *p <= '9') && *p != '-')
			return false;
	return true;
}

bool favo_node_word_ok(const char *word)
{
	return favo_is_name(word, "-_.", FAVO_NODE_NAME_MAX) && word[0] != '-' &&
	       word[0] != '.';
}

int favo_node_mac(char out[18], const char *text, struct favo_err *err)
{
	static const char zero[] = "00:00:00:00:00:00";
	char mac[18];
	size_t len = strlen(text);

	for (size_t i = 0; len == 17 && i < len; i++) {
		if (i % 3 == 2) {
			if (text[i] != ':' && text[i] != '-')
				len = 0;
			mac[i] = ':';
		} else {
			if (!isxdigit((unsigned char)text[i]))
				len = 0;
			mac[i] = (char)tolower((unsigned char)text[i]);
		}
	}
	if (len != 17)
		return favo_fail(err, EINVAL,
				 "\"%.40s\" is no MAC address like 52:54:00:0a:00:01",
				 text);
	mac[17] = '\0';
	/* the lowest bit of the first byte: a group of machines, not one */
	if (strchr("13579bdf", mac[1]) || strcmp(mac, zero) == 0)
		return favo_fail(err, EINVAL, "%s is no address of one machine", mac);
	memcpy(out, mac, sizeof(mac));
	return 0;
}

int favo_node_uuid(char out[37], const char *text, struct favo_err *err)
{
	char uuid[37];
	size_t len = strlen(text);

	for (size_t i = 0; len == 36 && i < len; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? text[i] != '-' : !isxdigit((unsigned char)text[i]))
			len = 0;
		else
			uuid[i] = (char)tolower((unsigned char)text[i]);
	}
	if (len != 36)
		return favo_fail(err, EINVAL,
				 "\"%.60s\" is no UUID like "
				 "564d0f2a-93f8-4c55-9b3e-0123456789ab",
				 text);
	uuid[36] = '\0';
	memcpy(out, uuid, sizeof(uuid));
	return 0;
}

/* A value of one field: its normal form in buf, or a sentence. */
typedef int value_fn(char *buf, size_t size, const char *text, struct favo_err *err);

static int value_mac(char *buf, size_t size, const char *text, struct favo_err *err)
{
	(void)size;
	return favo_node_mac(buf, text, err);
}

static int value_uuid(char *buf, size_t size, const char *text, struct favo_err *err)
{
	(void)size;
	return favo_node_uuid(buf, text, err);
}

static int value_ip(char *buf, size_t size, const char *text, struct favo_err *err)
{
	struct in6_addr addr;

	if (inet_pton(AF_INET, text, &addr) != 1 && inet_pton(AF_INET6, text, &addr) != 1)
		return favo_fail(err, EINVAL, "\"%.60s\" is no IP address", text);
	snprintf(buf, size, "%s", text);
	return 0;
}

static int value_address(char *buf, size_t size, const char *text, struct favo_err *err)
{
	const char *slash = strchr(text, '/');
	size_t len = slash ? (size_t)(slash - text) : strlen(text);
	char ip[64];
	uint64_t prefix;

	if (len >= sizeof(ip))
		return favo_fail(err, EINVAL, "\"%.60s\" is no IP address", text);
	memcpy(ip, text, len);
	ip[len] = '\0';
	if (value_ip(buf, size, ip, err) < 0)
		return -EINVAL;
	if (!slash)
		return 0;
	if (favo_parse_u64(&prefix, slash + 1, 1, strchr(ip, ':') ? 128 : 32, NULL) < 0 ||
	    slash[1] == '0')
		return favo_fail(err, EINVAL,
				 "\"%.60s\" has no prefix length like 10.0.0.1/24", text);
	snprintf(buf, size, "%s", text);
	return 0;
}

static int value_word(char *buf, size_t size, const char *text, struct favo_err *err)
{
	if (!favo_node_word_ok(text))
		return favo_fail(err, EINVAL,
				 "\"%.60s\" is no name of letters, digits, - _ and .",
				 text);
	snprintf(buf, size, "%s", text);
	return 0;
}

/* One line of printable text: it goes into boot scripts and arguments. */
static int value_line(char *buf, size_t size, const char *text, struct favo_err *err)
{
	for (const char *p = text; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 0x7f)
			return favo_fail(err, EINVAL,
					 "the text has a control character in it");
	if (strlen(text) >= size)
		return favo_fail(err, EINVAL, "the text is longer than %d bytes",
				 TEXT_MAX);
	snprintf(buf, size, "%s", text);
	return 0;
}

static int value_console(char *buf, size_t size, const char *text, struct favo_err *err)
{
	if (!favo_is_name(text, ",-_.", 64))
		return favo_fail(err, EINVAL, "\"%.60s\" is no console like ttyS0,115200",
				 text);
	snprintf(buf, size, "%s", text);
	return 0;
}

static int value_power(char *buf, size_t size, const char *text, struct favo_err *err)
{
	if (text[0] != '/')
		return favo_fail(err, EINVAL,
				 "\"%.60s\" does not begin with the path of a program",
				 text);
	for (const char *p = text; (p = strchr(p, '%')); p += 2)
		if (!p[1] || !strchr("na%", p[1]))
			return favo_fail(err, EINVAL,
					 "\"%.60s\" has a %% that is none of %%n, %%a "
					 "and %%%%",
					 text);
	return value_line(buf, size, text, err);
}

static int value_image(char *buf, size_t size, const char *text, struct favo_err *err)
{
	struct favo_image_name name;

	if (favo_image_name_parse(&name, text, err) < 0)
		return -EINVAL;
	return value_line(buf, size, text, err);
}

static const struct field {
	const char *name;
	bool list;
	bool profile; /* may a profile have it? */
	value_fn *value;
} fields[] = {
	{"macs", true, false, value_mac},
	{"uuid", false, false, value_uuid},
	{"addresses", true, false, value_address},
	{"gateway", false, true, value_ip},
	{"groups", true, true, value_word},
	{"profiles", true, false, value_word},
	{"console", false, true, value_console},
	{"power", false, true, value_power},
	{"image", false, true, value_image},
	{"kernel_args", false, true, value_line},
};

static const struct field *find_field(const char *name)
{
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(fields); i++)
		if (strcmp(fields[i].name, name) == 0)
			return &fields[i];
	return NULL;
}

static int check_value(json_t **out, const struct field *f, const json_t *in,
		       struct favo_err *err)
{
	const char *text = json_string_value(in);
	char buf[TEXT_MAX];

	if (!text || strlen(text) != json_string_length(in))
		return favo_fail(err, EINVAL, "%s: text is needed", f->name);
	if (f->value(buf, sizeof(buf), text, err) < 0)
		return favo_wrap(err, -EINVAL, "%s", f->name);
	*out = json_string(buf);
	return *out ? 0 : favo_fail(err, ENOMEM, "%s: %m", f->name);
}

static bool has_text(const json_t *list, const json_t *text)
{
	const json_t *one;
	size_t i;

	json_array_foreach(list, i, one)
	{
		if (json_equal(one, text))
			return true;
	}
	return false;
}

static int check_list(json_t **out, const struct field *f, const json_t *in,
		      struct favo_err *err)
{
	favo_autojson json_t *list = json_array();
	const json_t *one;
	size_t i;

	if (!json_is_array(in) || json_array_size(in) > LIST_MAX)
		return favo_fail(err, EINVAL, "%s: an array of at most %d is needed",
				 f->name, LIST_MAX);
	json_array_foreach(in, i, one)
	{
		json_t *value;
		int ret = check_value(&value, f, one, err);

		if (ret < 0)
			return ret;
		if (has_text(list, value)) {
			ret = favo_fail(err, EINVAL, "%s: %s is there twice", f->name,
					json_string_value(value));
			json_decref(value);
			return ret;
		}
		json_array_append_new(list, value);
	}
	*out = favo_steal_ptr(&list);
	return 0;
}

static int check_tags(json_t **out, const json_t *in, struct favo_err *err)
{
	favo_autojson json_t *tags = json_object();
	char buf[TEXT_MAX];
	const char *key;
	json_t *value;

	if (!json_is_object(in) || json_object_size(in) > TAGS_MAX)
		return favo_fail(err, EINVAL, "tags: an object of at most %d is needed",
				 TAGS_MAX);
	json_object_foreach((json_t *)in, key, value)
	{
		const char *text = json_string_value(value);

		if (!favo_node_word_ok(key))
			return favo_fail(err, EINVAL,
					 "tags: \"%.60s\" is no name of letters, "
					 "digits, - _ and .",
					 key);
		if (json_is_null(value))
			continue;
		if (!text || strlen(text) != json_string_length(value))
			return favo_fail(err, EINVAL, "tags: %s: text is needed", key);
		if (value_line(buf, sizeof(buf), text, err) < 0)
			return favo_wrap(err, -EINVAL, "tags: %s", key);
		json_object_set_new(tags, key, json_string(text));
	}
	*out = favo_steal_ptr(&tags);
	return 0;
}

static bool is_empty(const json_t *value)
{
	return json_is_null(value) ||
	       (json_is_string(value) && json_string_length(value) == 0) ||
	       (json_is_array(value) && json_array_size(value) == 0) ||
	       (json_is_object(value) && json_object_size(value) == 0);
}

int favo_node_def_check(json_t **out, const json_t *def, bool profile,
			struct favo_err *err)
{
	favo_autojson json_t *normal = json_object();
	const char *key;
	json_t *value;

	if (!json_is_object(def))
		return favo_fail(err, EINVAL, "a definition is an object");
	json_object_foreach((json_t *)def, key, value)
	{
		const struct field *f = find_field(key);
		json_t *good = NULL;
		int ret;

		if (!f && strcmp(key, "tags") != 0)
			return favo_fail(err, EINVAL, "there is no field \"%.60s\"", key);
		if (f && profile && !f->profile)
			return favo_fail(err, EINVAL,
					 "%s: belongs to a node, not to a profile", key);
		if (is_empty(value))
			continue;
		if (!f)
			ret = check_tags(&good, value, err);
		else if (f->list)
			ret = check_list(&good, f, value, err);
		else
			ret = check_value(&good, f, value, err);
		if (ret < 0)
			return ret;
		if (is_empty(good))
			json_decref(good);
		else
			json_object_set_new(normal, key, good);
	}
	*out = favo_steal_ptr(&normal);
	return 0;
}

int favo_node_def_over(json_t *base, const json_t *def, struct favo_err *err)
{
	const char *key;
	json_t *value;

	json_object_foreach((json_t *)def, key, value)
	{
		json_t *old = json_object_get(base, key);
		const json_t *one;
		size_t i;
		int ret = 0;

		if (old && strcmp(key, "groups") == 0) {
			json_array_foreach(value, i, one)
			{
				if (!has_text(old, one))
					ret |= json_array_append_new(
						old, json_copy((json_t *)one));
			}
		} else if (old && strcmp(key, "tags") == 0) {
			ret = json_object_update(old, value);
		} else {
			ret = json_object_set_new(base, key, json_deep_copy(value));
		}
		if (ret < 0)
			return favo_fail(err, ENOMEM, "%s: out of memory", key);
	}
	return 0;
}
