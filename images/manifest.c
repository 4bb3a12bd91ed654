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
#include "images/verity.h"

#define TEXT_MAX 256
#define CONFIG_TEXT_MAX 32768
#define CONFIG_LIST_MAX 1024
#define HISTORY_MAX 1000

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

/* 64 hex digits without "sha256:", as veritysetup(8) prints them. */
static int get_hex(const json_t *object, const char *where, const char *key,
		   struct favo_digest *out, struct favo_err *err)
{
	const char *text = NULL;
	int ret = get_text(object, where, key, TEXT_MAX, &text, err);

	if (ret < 0)
		return ret;
	if (favo_digest_parse_hex(out, text, NULL) < 0)
		return favo_fail(err, EBADMSG, "%s%s is not 64 hex digits", where, key);
	return 0;
}

/* Where the tree lies and how long it is follows from root.size; nothing else is good. */
static int parse_verity(struct favo_manifest *m, const json_t *root, struct favo_err *err)
{
	static const char where[] = "root.verity.";
	struct favo_manifest_verity *v = &m->root.verity;
	struct favo_verity_layout layout;
	const json_t *verity = NULL;
	int ret;

	m->root.bytes = m->root.size;
	if (!json_object_get(root, "verity"))
		return 0;
	if ((ret = member(root, "root.", "verity", JSON_OBJECT, &verity, err)) < 0 ||
	    (ret = get_hex(verity, where, "root_hash", &v->root_hash, err)) < 0 ||
	    (ret = get_hex(verity, where, "salt", &v->salt, err)) < 0 ||
	    (ret = get_size(verity, where, "hash_offset", 2 * FAVO_ROOT_MAX,
			    &v->hash_offset, err)) < 0 ||
	    (ret = get_size(verity, where, "hash_size", FAVO_ROOT_MAX, &v->hash_size,
			    err)) < 0)
		return ret;
	favo_verity_layout(m->root.size, &layout);
	if (m->root.size == 0 || v->hash_offset != layout.hash_offset ||
	    v->hash_size != layout.hash_size)
		return favo_fail(err, EBADMSG,
				 "root.verity does not fit a root of %llu bytes",
				 (unsigned long long)m->root.size);
	m->root.has_verity = true;
	m->root.bytes = v->hash_offset + v->hash_size;
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
	return parse_verity(m, root, err);
}

/* An array of texts without NUL, of which only the guest gets to see more. */
static int check_texts(const json_t *config, const char *key, struct favo_err *err)
{
	const json_t *list = json_object_get(config, key);

	if (!list)
		return 0;
	if (!json_is_array(list) || json_array_size(list) > CONFIG_LIST_MAX)
		return favo_fail(err, EBADMSG, "config.%s is no list, or too long", key);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *text = json_array_get(list, i);

		if (!json_is_string(text) || json_string_length(text) > CONFIG_TEXT_MAX ||
		    strlen(json_string_value(text)) != json_string_length(text))
			return favo_fail(err, EBADMSG, "config.%s[%zu] is no good text",
					 key, i);
	}
	return 0;
}

static int parse_config(struct favo_manifest *m, struct favo_err *err)
{
	const json_t *config = json_object_get(m->json, "config");
	const char *workdir;
	int ret;

	if (!config)
		return 0;
	if ((ret = member(m->json, "", "config", JSON_OBJECT, &config, err)) < 0 ||
	    (ret = check_texts(config, "env", err)) < 0 ||
	    (ret = check_texts(config, "entrypoint", err)) < 0 ||
	    (ret = check_texts(config, "cmd", err)) < 0)
		return ret;
	if (json_object_get(config, "workdir")) {
		ret = get_text(config, "config.", "workdir", 4096, &workdir, err);
		if (ret < 0)
			return ret;
	}
	m->config = config;
	return 0;
}

/* Where a saved image is from: for people, and for what runs on it later. */
static int parse_origin(struct favo_manifest *m, struct favo_err *err)
{
	const json_t *history = json_object_get(m->json, "history"), *value;
	const char *key, *text;
	int ret = 0;

	if (json_object_get(m->json, "prefetch")) {
		ret = get_digest(m->json, "", "prefetch", &m->prefetch, err);
		m->has_prefetch = ret == 0;
	}
	if (ret == 0 && json_object_get(m->json, "parent")) {
		ret = get_digest(m->json, "", "parent", &m->parent, err);
		m->has_parent = ret == 0;
	}
	if (ret < 0 || !history)
		return ret;
	if (!json_is_array(history) || json_array_size(history) > HISTORY_MAX)
		return favo_fail(err, EBADMSG, "history is no list, or too long");
	for (size_t i = 0; i < json_array_size(history); i++) {
		json_t *entry = json_array_get(history, i);

		if (!json_is_object(entry))
			return favo_fail(err, EBADMSG, "history[%zu] is no object", i);
		json_object_foreach(entry, key, value)
		{
			if (json_is_integer(value))
				continue;
			ret = get_text(entry, "history.", key, 4096, &text, err);
			if (ret < 0)
				return ret;
		}
	}
	m->history = history;
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
	if ((ret = parse_os(m, err)) < 0 || (ret = parse_root(m, err)) < 0 ||
	    (ret = parse_config(m, err)) < 0 || (ret = parse_origin(m, err)) < 0)
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
	return manifest->root.bytes + manifest->kernel.size + manifest->initramfs.size;
}

void favo_manifest_free(struct favo_manifest *manifest)
{
	if (!manifest)
		return;
	json_decref(manifest->json);
	free(manifest);
}
