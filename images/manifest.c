// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Image manifests. Parsing is strict about what Favo acts on (types, ranges,
 * digests, characters that reach a kernel command line or a terminal) and
 * tolerant about members it does not know: the id covers them, so that later
 * versions may add some.
 */
#include "images/manifest.h"

#include <errno.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"

#define TEXT_MAX 256

static int member(const json_t *object, const char *where, const char *key,
		  json_type type, const json_t **out, struct favo_err *err)
{
	const json_t *value = json_object_get(object, key);

	if (!value)
		return favo_fail(err, EBADMSG, "%s%s is missing", where, key);
	if (json_typeof(value) != type)
		return favo_fail(err, EBADMSG, "%s%s has the wrong type", where, key);
	*out = value;
	return 0;
}

static bool is_plain_text(const char *text, size_t len, size_t max)
{
	if (len > max || strlen(text) != len)
		return false;
	for (const unsigned char *p = (const unsigned char *)text; *p; p++)
		if (*p < ' ' || *p == 0x7f)
			return false;
	return true;
}

static int get_text(const json_t *object, const char *where, const char *key, size_t max,
		    const char **out, struct favo_err *err)
{
	const json_t *value = NULL;
	int ret = member(object, where, key, JSON_STRING, &value, err);

	if (ret < 0)
		return ret;
	if (!is_plain_text(json_string_value(value), json_string_length(value), max))
		return favo_fail(err, EBADMSG,
				 "%s%s is too long or has control characters", where,
				 key);
	*out = json_string_value(value);
	return 0;
}

static int get_size(const json_t *object, const char *where, const char *key,
		    uint64_t max, uint64_t *out, struct favo_err *err)
{
	const json_t *value = NULL;
	int ret = member(object, where, key, JSON_INTEGER, &value, err);

	if (ret < 0)
		return ret;
	if (json_integer_value(value) < 0 || (uint64_t)json_integer_value(value) > max)
		return favo_fail(err, EBADMSG, "%s%s is out of range", where, key);
	*out = (uint64_t)json_integer_value(value);
	return 0;
}

static int get_digest(const json_t *object, const char *where, const char *key,
		      struct favo_digest *out, struct favo_err *err)
{
	const char *text = NULL;
	int ret = get_text(object, where, key, TEXT_MAX, &text, err);

	if (ret < 0)
		return ret;
	if (favo_digest_parse(out, text, err) < 0)
		return favo_wrap(err, favo_fail(err, EBADMSG, "not a sha256 digest"),
				 "%s%s", where, key);
	return 0;
}

static int parse_root(struct favo_manifest *m, struct favo_err *err)
{
	const json_t *root = NULL;
	int ret;

	if ((ret = member(m->json, "", "root", JSON_OBJECT, &root, err)) < 0 ||
	    (ret = get_text(root, "root.", "fstype", TEXT_MAX, &m->root.fstype, err)) <
		    0 ||
	    (ret = get_size(root, "root.", "size", FAVO_ROOT_MAX, &m->root.size, err)) <
		    0 ||
	    (ret = get_digest(root, "root.", "index", &m->root.index, err)) < 0)
		return ret;
	if (strcmp(m->root.fstype, "erofs") != 0)
		return favo_fail(err, EBADMSG, "root.fstype is %s, not erofs",
				 m->root.fstype);
	return 0;
}

static int parse_boot(struct favo_manifest *m, struct favo_err *err)
{
	const json_t *kernel = NULL, *initramfs = NULL;
	int ret;

	if ((ret = member(m->json, "", "kernel", JSON_OBJECT, &kernel, err)) < 0 ||
	    (ret = get_digest(kernel, "kernel.", "digest", &m->kernel.digest, err)) < 0 ||
	    (ret = get_size(kernel, "kernel.", "size", FAVO_KERNEL_MAX, &m->kernel.size,
			    err)) < 0 ||
	    (ret = get_text(kernel, "kernel.", "release", 64, &m->kernel.release, err)) <
		    0 ||
	    (ret = get_text(kernel, "kernel.", "source", TEXT_MAX, &m->kernel.source,
			    err)) < 0 ||
	    (ret = member(m->json, "", "initramfs", JSON_OBJECT, &initramfs, err)) < 0 ||
	    (ret = get_digest(initramfs, "initramfs.", "digest", &m->initramfs.digest,
			      err)) < 0 ||
	    (ret = get_size(initramfs, "initramfs.", "size", FAVO_KERNEL_MAX,
			    &m->initramfs.size, err)) < 0)
		return ret;
	return get_text(m->json, "", "cmdline", FAVO_CMDLINE_MAX, &m->cmdline, err);
}

static int parse_os(struct favo_manifest *m, struct favo_err *err)
{
	const json_t *os = NULL, *value;
	const char *key, *text;
	int ret = member(m->json, "", "os", JSON_OBJECT, &os, err);

	if (ret < 0)
		return ret;
	json_object_foreach((json_t *)os, key, value)
	{
		ret = get_text(os, "os.", key, 4096, &text, err);
		if (ret < 0)
			return ret;
	}
	m->os_pretty = json_string_value(json_object_get(os, "PRETTY_NAME"));
	if (!m->os_pretty)
		m->os_pretty = m->name;
	return 0;
}

static int parse_object(struct favo_manifest *m, struct favo_err *err)
{
	uint64_t number = 0;
	int ret;

	if (!json_is_object(m->json))
		return favo_fail(err, EBADMSG, "not a JSON object");
	ret = get_size(m->json, "", "format", INT64_MAX, &number, err);
	if (ret < 0)
		return ret;
	if (number != FAVO_MANIFEST_FORMAT)
		return favo_fail(err, EBADMSG,
				 "format %llu; this version of Favo reads %d",
				 (unsigned long long)number, FAVO_MANIFEST_FORMAT);
	if ((ret = get_text(m->json, "", "name", TEXT_MAX, &m->name, err)) < 0 ||
	    (ret = get_text(m->json, "", "arch", TEXT_MAX, &m->arch, err)) < 0 ||
	    (ret = get_size(m->json, "", "created", INT64_MAX, &number, err)) < 0)
		return ret;
	m->created = (int64_t)number;
	if (strcmp(m->arch, "x86_64") != 0)
		return favo_fail(err, EBADMSG, "architecture %s, not x86_64", m->arch);
	if ((ret = parse_os(m, err)) < 0 || (ret = parse_root(m, err)) < 0)
		return ret;
	return parse_boot(m, err);
}

int favo_manifest_parse(struct favo_manifest **out, const void *data, size_t len,
			struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	json_error_t json_err;
	int ret;

	if (len > FAVO_MANIFEST_MAX)
		return favo_fail(err, EBADMSG, "manifest: %zu bytes are too many", len);
	m = calloc(1, sizeof(*m));
	if (!m)
		return favo_fail(err, ENOMEM, "manifest: out of memory");
	ret = favo_digest_of(&m->id, data, len, err);
	if (ret < 0)
		return ret;
	m->json = json_loadb(data, len, JSON_REJECT_DUPLICATES, &json_err);
	if (!m->json)
		return favo_fail(err, EBADMSG, "manifest: %s", json_err.text);
	ret = parse_object(m, err);
	if (ret < 0)
		return favo_wrap(err, ret, "manifest");
	*out = favo_steal_ptr(&m);
	return 0;
}

int favo_manifest_format(const json_t *json, char **data, size_t *len,
			 struct favo_err *err)
{
	char *text = json_dumps(json, JSON_SORT_KEYS | JSON_COMPACT);

	if (!text)
		return favo_fail(err, ENOMEM, "manifest: out of memory or invalid text");
	*data = text;
	*len = strlen(text);
	return 0;
}

uint64_t favo_manifest_total_size(const struct favo_manifest *manifest)
{
	return manifest->root.size + manifest->kernel.size + manifest->initramfs.size;
}

void favo_manifest_free(struct favo_manifest *manifest)
{
	if (!manifest)
		return;
	json_decref(manifest->json);
	free(manifest);
}
