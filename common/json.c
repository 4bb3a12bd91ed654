// SPDX-License-Identifier: GPL-2.0-or-later
/* Strict JSON; see json.h. */
#include "common/json.h"

#include <errno.h>
#include <string.h>

int favo_json_parse(json_t **out, const char *text, size_t len, struct favo_err *err)
{
	json_error_t why;
	json_t *value = json_loadb(text, len, JSON_REJECT_DUPLICATES, &why);

	if (!value)
		return favo_fail(err, EINVAL, "JSON: line %d: %s", why.line, why.text);
	if (!json_is_object(value)) {
		json_decref(value);
		return favo_fail(err, EINVAL, "JSON: not an object");
	}
	*out = value;
	return 0;
}

int favo_json_canonical(char **out, size_t *len, const json_t *value,
			struct favo_err *err)
{
	char *text = json_dumps(value, JSON_SORT_KEYS | JSON_COMPACT);

	if (!text)
		return favo_fail(err, ENOMEM, "JSON: cannot format");
	if (len)
		*len = strlen(text);
	*out = text;
	return 0;
}

static int get(json_t **out, const json_t *obj, const char *key, struct favo_err *err)
{
	json_t *value = json_object_get(obj, key);

	if (!value)
		return favo_fail(err, EINVAL, "JSON: no '%s'", key);
	*out = value;
	return 0;
}

int favo_json_str(const char **out, const json_t *obj, const char *key,
		  struct favo_err *err)
{
	json_t *value = NULL;
	int ret = get(&value, obj, key, err);

	if (ret < 0)
		return ret;
	if (!json_is_string(value))
		return favo_fail(err, EINVAL, "JSON: '%s' is not a string", key);
	*out = json_string_value(value);
	return 0;
}

int favo_json_u64(uint64_t *out, const json_t *obj, const char *key, uint64_t min,
		  uint64_t max, struct favo_err *err)
{
	json_t *value = NULL;
	json_int_t v;
	int ret = get(&value, obj, key, err);

	if (ret < 0)
		return ret;
	if (!json_is_integer(value))
		return favo_fail(err, EINVAL, "JSON: '%s' is not a whole number", key);
	v = json_integer_value(value);
	if (v < 0 || (uint64_t)v < min || (uint64_t)v > max)
		return favo_fail(err, EINVAL, "JSON: '%s' is out of range", key);
	*out = (uint64_t)v;
	return 0;
}

int favo_json_bool(bool *out, const json_t *obj, const char *key, struct favo_err *err)
{
	json_t *value = NULL;
	int ret = get(&value, obj, key, err);

	if (ret < 0)
		return ret;
	if (!json_is_boolean(value))
		return favo_fail(err, EINVAL, "JSON: '%s' is not true or false", key);
	*out = json_is_true(value);
	return 0;
}

int favo_json_object(json_t **out, const json_t *obj, const char *key,
		     struct favo_err *err)
{
	json_t *value = NULL;
	int ret = get(&value, obj, key, err);

	if (ret < 0)
		return ret;
	if (!json_is_object(value))
		return favo_fail(err, EINVAL, "JSON: '%s' is not an object", key);
	*out = value;
	return 0;
}

int favo_json_array(json_t **out, const json_t *obj, const char *key,
		    struct favo_err *err)
{
	json_t *value = NULL;
	int ret = get(&value, obj, key, err);

	if (ret < 0)
		return ret;
	if (!json_is_array(value))
		return favo_fail(err, EINVAL, "JSON: '%s' is not a list", key);
	*out = value;
	return 0;
}

int favo_json_only(const json_t *obj, const char *const *names, struct favo_err *err)
{
	const char *key;
	json_t *value = NULL;

	json_object_foreach((json_t *)(uintptr_t)obj, key, value)
	{
		size_t i = 0;

		while (names[i] && strcmp(names[i], key))
			i++;
		if (!names[i])
			return favo_fail(err, EINVAL, "JSON: unknown key '%s'", key);
	}
	return 0;
}
