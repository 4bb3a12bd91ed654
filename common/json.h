/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Strict JSON on top of jansson: one sentence per error, no duplicate keys,
 * and, where asked, no unknown keys. A json_t belongs to one thread.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"

static inline void favo_cleanup_json(json_t **j)
{
	json_decref(*j);
}
#define favo_autojson __attribute__((cleanup(favo_cleanup_json)))

/* Parse len bytes as an object; the caller drops *out. */
int favo_json_parse(json_t **out, const char *text, size_t len,
		    struct favo_err *err) favo_must_check;

/* Sorted keys, no blanks: equal values give equal bytes. Caller frees *out. */
int favo_json_canonical(char **out, size_t *len, const json_t *value,
			struct favo_err *err) favo_must_check;

/*
 * Members of an object. An absent key or a wrong type is -EINVAL with a
 * sentence that names the key. Strings are borrowed from obj.
 */
int favo_json_str(const char **out, const json_t *obj, const char *key,
		  struct favo_err *err) favo_must_check;
int favo_json_u64(uint64_t *out, const json_t *obj, const char *key, uint64_t min,
		  uint64_t max, struct favo_err *err) favo_must_check;
int favo_json_bool(bool *out, const json_t *obj, const char *key,
		   struct favo_err *err) favo_must_check;
int favo_json_object(json_t **out, const json_t *obj, const char *key,
		     struct favo_err *err) favo_must_check;
int favo_json_array(json_t **out, const json_t *obj, const char *key,
		    struct favo_err *err) favo_must_check;

/* Every key of obj must be among the NULL-terminated names. */
int favo_json_only(const json_t *obj, const char *const *names,
		   struct favo_err *err) favo_must_check;
