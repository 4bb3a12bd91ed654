/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image manifest: one canonical JSON object that names all parts of an image
 * by digest. The image's id is the digest of these bytes. Schema:
 * docs/format-image.md. Readers of one manifest may run in parallel.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"

#define FAVO_MANIFEST_FORMAT 1
#define FAVO_MANIFEST_MAX (1024u * 1024) /* bytes of JSON */
#define FAVO_ROOT_MAX (1ull << 40) /* bytes of a root file system */
#define FAVO_KERNEL_MAX (512ull << 20) /* bytes of a kernel or an initramfs */
#define FAVO_CMDLINE_MAX 1024

/* The dm-verity tree behind the file system in root.img; see verity.h. */
struct favo_manifest_verity {
	struct favo_digest root_hash;
	struct favo_digest salt;
	uint64_t hash_offset;
	uint64_t hash_size;
};

struct favo_manifest {
	struct favo_digest id;
	const char *name; /* name at import; refs may call it otherwise */
	const char *arch; /* "x86_64" */
	const char *os_pretty; /* PRETTY_NAME of os-release, or name */
	const char *cmdline; /* the image's own kernel parameters, may be "" */
	int64_t created; /* seconds since 1970 */
	struct {
		const char *fstype; /* "erofs" */
		uint64_t size; /* of the file system alone */
		uint64_t bytes; /* of root.img: file system and verity tree */
		struct favo_digest index; /* of all these bytes */
		bool has_verity;
		struct favo_manifest_verity verity;
	} root;
	struct {
		struct favo_digest digest;
		uint64_t size;
		const char *release; /* "6.1.0-50-cloud-amd64" */
		const char *source; /* "image" or "site" */
	} kernel;
	struct {
		struct favo_digest digest;
		uint64_t size;
	} initramfs;
	bool has_prefetch;
	struct favo_digest prefetch; /* chunk numbers in the order a boot reads them */
	bool has_parent;
	struct favo_digest parent; /* the image that this one was saved from */
	/*
	 * As the checked JSON, borrowed from json; NULL when absent. config:
	 * "env", "entrypoint", "cmd" are arrays of texts, "workdir" is a text.
	 * history: array of objects of texts and integers.
	 */
	const json_t *config;
	const json_t *history;
	json_t *json; /* the whole object; owns every string above */
};

/*
 * Parse and check foreign bytes; out->id is their digest. Members that this
 * version does not know are kept and ignored. -EBADMSG for anything that is
 * not a manifest of format 1.
 */
int favo_manifest_parse(struct favo_manifest **out, const void *data, size_t len,
			struct favo_err *err);

/* Canonical bytes of a JSON object; the caller frees *data. */
int favo_manifest_format(const json_t *json, char **data, size_t *len,
			 struct favo_err *err);

/* Bytes of kernel, initramfs and root.img together. */
uint64_t favo_manifest_total_size(const struct favo_manifest *manifest);

void favo_manifest_free(struct favo_manifest *manifest);

static inline void favo_cleanup_manifest(struct favo_manifest **manifest)
{
	favo_manifest_free(*manifest);
}
#define favo_automanifest __attribute__((cleanup(favo_cleanup_manifest)))
