// SPDX-License-Identifier: GPL-2.0-or-later
/* Text; see str.h. No function here trusts its input. */
#include "common/str.h"

#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

/* Leading number of text; *end is left on the first character after it. */
static int parse_number(uint64_t *out, const char *text, const char **end)
{
	char *stop;

	if (!isdigit((unsigned char)*text))
		return -EINVAL;
	errno = 0;
	*out = strtoull(text, &stop, !strncasecmp(text, "0x", 2) ? 16 : 10);
	if (errno)
		return -ERANGE;
	*end = stop;
	return 0;
}

int favo_parse_u64(uint64_t *out, const char *text, uint64_t min, uint64_t max,
		   struct favo_err *err)
{
	const char *end;
	uint64_t v;
	int ret = parse_number(&v, text, &end);

	if (ret == -EINVAL || (ret == 0 && *end))
		return favo_fail(err, EINVAL, "'%s' is not a whole number", text);
	if (ret < 0 || v < min || v > max)
		return favo_fail(err, ERANGE, "%s is not between %llu and %llu", text,
				 (unsigned long long)min, (unsigned long long)max);
	*out = v;
	return 0;
}

int favo_parse_size(uint64_t *bytes, const char *text, struct favo_err *err)
{
	static const char units[] = "KMGT";
	const char *end, *unit;
	unsigned int shift = 0;
	uint64_t v;
	int ret = parse_number(&v, text, &end);

	if (ret == 0 && *end) {
		unit = strchr(units, toupper((unsigned char)*end));
		if (unit) {
			shift = 10 * (unsigned int)(unit - units + 1);
			end++;
		}
		if (!strcasecmp(end, "iB"))
			end += 2;
		else if (!strcasecmp(end, "B"))
			end++;
	}
	if (ret == -EINVAL || (ret == 0 && *end))
		return favo_fail(err, EINVAL, "'%s' is not a size such as 512M or 2G",
				 text);
	if (ret < 0 || v > UINT64_MAX >> shift)
		return favo_fail(err, ERANGE, "size %s is too large", text);
	*bytes = v << shift;
	return 0;
}

int favo_parse_duration(uint64_t *ms, const char *text, struct favo_err *err)
{
	static const struct {
		const char *unit;
		uint64_t ms;
	} units[] = {{"", 1000},   {"ms", 1},	   {"s", 1000},
		     {"m", 60000}, {"h", 3600000}, {"d", 86400000}};
	const char *end;
	uint64_t v;
	int ret = parse_number(&v, text, &end);

	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(units); i++) {
		if (strcmp(end, units[i].unit))
			continue;
		if (v > UINT64_MAX / units[i].ms)
			return favo_fail(err, ERANGE, "duration %s is too long", text);
		*ms = v * units[i].ms;
		return 0;
	}
	if (ret == -ERANGE)
		return favo_fail(err, ERANGE, "duration %s is too long", text);
	return favo_fail(err, EINVAL, "'%s' is not a duration such as 500ms, 30s or 5m",
			 text);
}

int favo_parse_bool(bool *out, const char *text, struct favo_err *err)
{
	static const char *const words[][2] = {
		{"no", "yes"}, {"off", "on"}, {"false", "true"}, {"0", "1"}};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(words); i++) {
		for (int value = 0; value < 2; value++) {
			if (!strcasecmp(text, words[i][value])) {
				*out = value;
				return 0;
			}
		}
	}
	return favo_fail(err, EINVAL, "'%s' is neither yes nor no", text);
}

char *favo_format_size(char *buf, size_t size, uint64_t bytes)
{
	static const char *const units[] = {"B",   "KiB", "MiB", "GiB",
					    "TiB", "PiB", "EiB"};
	double v = (double)bytes;
	size_t i = 0;

	while (v >= 1024 && i + 1 < FAVO_ARRAY_SIZE(units)) {
		v /= 1024;
		i++;
	}
	snprintf(buf, size, i ? "%.1f %s" : "%.0f %s", v, units[i]);
	return buf;
}

void favo_hex_encode(char *out, const void *bytes, size_t n)
{
	static const char digits[] = "0123456789abcdef";
	const uint8_t *p = bytes;

	for (size_t i = 0; i < n; i++) {
		*out++ = digits[p[i] >> 4];
		*out++ = digits[p[i] & 15];
	}
	*out = '\0';
}

static int hex_digit(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	if (c >= 'A' && c <= 'F')
		return c - 'A' + 10;
	return -1;
}

int favo_hex_decode(void *bytes, size_t n, const char *text, struct favo_err *err)
{
	uint8_t *p = bytes;

	if (strlen(text) != 2 * n)
		return favo_fail(err, EINVAL, "%zu hex digits where %zu are due",
				 strlen(text), 2 * n);
	for (size_t i = 0; i < n; i++) {
		int hi = hex_digit(text[2 * i]), lo = hex_digit(text[2 * i + 1]);

		if (hi < 0 || lo < 0)
			return favo_fail(err, EINVAL, "not a hex digit at position %zu",
					 2 * i);
		p[i] = (uint8_t)(hi << 4 | lo);
	}
	return 0;
}

static const char base64url[] =
	"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

int favo_base64url_encode(char **out, const void *bytes, size_t n, struct favo_err *err)
{
	const uint8_t *p = bytes;
	char *text = malloc((n + 2) / 3 * 4 + 1), *q = text;

	if (!text)
		return favo_fail(err, ENOMEM, "base64: %m");
	for (size_t i = 0; i < n; i += 3) {
		size_t left = n - i;
		uint32_t v = (uint32_t)p[i] << 16;

		if (left > 1)
			v |= (uint32_t)p[i + 1] << 8;
		if (left > 2)
			v |= p[i + 2];
		*q++ = base64url[v >> 18];
		*q++ = base64url[v >> 12 & 63];
		if (left > 1)
			*q++ = base64url[v >> 6 & 63];
		if (left > 2)
			*q++ = base64url[v & 63];
	}
	*q = '\0';
	*out = text;
	return 0;
}

int favo_base64url_decode(void **out, size_t *n, const char *text, size_t len,
			  struct favo_err *err)
{
	favo_autofree uint8_t *buf = malloc(len / 4 * 3 + 3);
	uint32_t acc = 0;
	unsigned int bits = 0;
	size_t size = 0;

	if (!buf)
		return favo_fail(err, ENOMEM, "base64: %m");
	if (len % 4 == 1)
		return favo_fail(err, EINVAL, "base64: impossible length %zu", len);
	for (size_t i = 0; i < len; i++) {
		const char *at = text[i] ? strchr(base64url, text[i]) : NULL;

		if (!at)
			return favo_fail(err, EINVAL,
					 "base64: bad character at position %zu", i);
		acc = acc << 6 | (uint32_t)(at - base64url);
		bits += 6;
		if (bits >= 8) {
			bits -= 8;
			buf[size++] = (uint8_t)(acc >> bits);
			acc &= (1u << bits) - 1;
		}
	}
	/* One text per value, so that a signed text cannot be varied. */
	if (acc)
		return favo_fail(err, EINVAL, "base64: bits left over");
	*n = size;
	*out = favo_steal_ptr(&buf);
	return 0;
}

void favo_strv_free(char **v)
{
	for (size_t i = 0; v && v[i]; i++)
		free(v[i]);
	free(v);
}

void favo_cleanup_strv(char ***v)
{
	int saved = errno;

	favo_strv_free(*v);
	errno = saved;
}

struct name_list {
	char **v;
	size_t n, room, max;
};

static int list_add(struct name_list *list, char *name, struct favo_err *err)
{
	if (!name)
		return favo_fail(err, ENOMEM, "host list: %m");
	if (list->n == list->max) {
		free(name);
		return favo_fail(err, E2BIG, "host list: more than %zu names", list->max);
	}
	if (list->n + 1 >= list->room) {
		size_t room = list->room ? list->room * 2 : 16;
		char **v = realloc(list->v, room * sizeof(*v));

		if (!v) {
			free(name);
			return favo_fail(err, ENOMEM, "host list: %m");
		}
		list->v = v;
		list->room = room;
	}
	list->v[list->n++] = name;
	list->v[list->n] = NULL;
	return 0;
}

/* One range "7" or "001-128" of a bracket; *p is left behind it. */
static int expand_range(struct name_list *list, const char *prefix, size_t prefix_len,
			const char **p, const char *suffix, size_t suffix_len,
			struct favo_err *err)
{
	const char *start = *p, *end;
	uint64_t from, to;
	int width, ret;

	if (!isdigit((unsigned char)*start) || parse_number(&from, start, &end) < 0 ||
	    end - start > 9)
		return favo_fail(err, EINVAL, "host list: bad number at '%.20s'", start);
	width = (int)(end - start);
	to = from;
	if (*end == '-') {
		const char *second = end + 1;

		if (!isdigit((unsigned char)*second) ||
		    parse_number(&to, second, &end) < 0 || end - second > 9 || to < from)
			return favo_fail(err, EINVAL, "host list: bad range at '%.20s'",
					 start);
	}
	for (; from <= to; from++) {
		ret = list_add(list,
			       favo_asprintf("%.*s%0*llu%.*s", (int)prefix_len, prefix,
					     width, (unsigned long long)from,
					     (int)suffix_len, suffix),
			       err);
		if (ret < 0)
			return ret;
	}
	*p = end;
	return 0;
}

/* One item up to a comma outside brackets; item is not NUL-terminated. */
static int expand_item(struct name_list *list, const char *item, size_t len,
		       struct favo_err *err)
{
	const char *open = memchr(item, '[', len), *close, *p;

	if (!open) {
		if (len == 0 || memchr(item, ']', len))
			return favo_fail(err, EINVAL, "host list: bad name '%.*s'",
					 (int)len, item);
		return list_add(list, strndup(item, len), err);
	}
	close = memchr(open, ']', len - (size_t)(open - item));
	if (!close || memchr(close, '[', len - (size_t)(close - item)))
		return favo_fail(err, EINVAL,
				 "host list: brackets do not match in '%.*s'", (int)len,
				 item);
	for (p = open + 1;; p++) {
		int ret = expand_range(list, item, (size_t)(open - item), &p, close + 1,
				       len - (size_t)(close + 1 - item), err);

		if (ret < 0)
			return ret;
		if (p == close)
			return 0;
		if (*p != ',')
			return favo_fail(err, EINVAL, "host list: bad number at '%.20s'",
					 p);
	}
}

int favo_hostlist_expand(char ***out, size_t *n, const char *text, size_t max,
			 struct favo_err *err)
{
	struct name_list list = {.max = max};
	const char *start = text;
	int depth = 0, ret = 0;

	for (const char *p = text; ret == 0; p++) {
		if (*p == '[')
			depth++;
		else if (*p == ']')
			depth--;
		if (*p && (*p != ',' || depth > 0))
			continue;
		ret = expand_item(&list, start, (size_t)(p - start), err);
		start = p + 1;
		if (!*p)
			break;
	}
	if (ret < 0) {
		favo_strv_free(list.v);
		return ret;
	}
	*n = list.n;
	*out = list.v;
	return 0;
}

bool favo_is_name(const char *text, const char *extra, size_t max)
{
	size_t n = 0;

	for (; text[n]; n++) {
		if (n == max)
			return false;
		if (!isalnum((unsigned char)text[n]) && !strchr(extra, text[n]))
			return false;
	}
	return n > 0;
}
