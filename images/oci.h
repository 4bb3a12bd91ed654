/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Container images (OCI image-spec and Docker's own formats) as a source of
 * root file systems: from a registry, an image layout, or an archive. All
 * layers are read in parallel, each in a pipeline of its own (layer.h), while
 * they come from the network.
 */
#pragma once

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"
#include "images/pack.h"
#include "images/tree.h"

#define FAVO_OCI_JSON_MAX (4u << 20) /* bytes of an index, manifest or config */
#define FAVO_OCI_LAYERS_MAX 1000
#define FAVO_OCI_SIZE_MAX (64ull << 30) /* contents of an image, unless told */
#define FAVO_OCI_MEMBERS_MAX (4u << 20) /* members of all layers together */

/* ---- where an image is ---- */

enum favo_oci_kind {
	FAVO_OCI_DOCKER, /* docker://[USER@][HOST[:PORT]/]NAME[:TAG|@DIGEST] */
	FAVO_OCI_LAYOUT, /* oci:DIR[:TAG] */
	FAVO_OCI_ARCHIVE, /* oci-archive:FILE[:TAG] */
	FAVO_OCI_DOCKER_ARCHIVE, /* docker-archive:FILE[:NAME[:TAG]] */
};

struct favo_oci_ref {
	enum favo_oci_kind kind;
	char *path; /* of a layout or archive */
	char *user; /* in a registry; NULL: whoever the credentials are for */
	char *host; /* with its port; "docker.io" when none was given */
	char *repo; /* "library/debian" */
	char *tag; /* NULL: none was given, for a registry "latest" */
	bool has_digest;
	struct favo_digest digest;
};

/* Does text begin like one of the four forms? */
bool favo_oci_is_ref(const char *text);
/*
 * -EINVAL with a sentence for anything malformed. Looks at the file system to
 * tell the tag of "oci:DIR:TAG" from a name with a colon.
 */
int favo_oci_ref_parse(struct favo_oci_ref *out, const char *text, struct favo_err *err);
void favo_oci_ref_fini(struct favo_oci_ref *ref);
/* "[user@]host/repo:tag" or the path, for messages; the caller frees it. */
char *favo_oci_ref_format(const struct favo_oci_ref *ref);
/* A name for the store, "debian:12"; the caller frees it. NULL without memory. */
char *favo_oci_ref_name(const struct favo_oci_ref *ref);

/* ---- JSON of the formats; foreign bytes ---- */

struct favo_oci_blob {
	bool has_digest;
	struct favo_digest digest;
	uint64_t size; /* with a digest */
	char *path; /* in a docker archive, in place of a digest */
};

/* An image without its contents. */
struct favo_oci_manifest {
	struct favo_oci_blob config;
	struct favo_oci_blob *layers; /* lowest first */
	size_t n_layers;
};

/* What is it? -EBADMSG for neither; both at once is refused, too. */
int favo_oci_is_index(bool *index, const char *text, size_t len, struct favo_err *err);

/*
 * Choose the entry of an index for linux/amd64; with tag not NULL, among those
 * of that name (annotation org.opencontainers.image.ref.name). -ENOENT with
 * the names or platforms there are.
 */
int favo_oci_index_choose(struct favo_oci_blob *out, const char *text, size_t len,
			  const char *tag, struct favo_err *err);

int favo_oci_manifest_parse(struct favo_oci_manifest *out, const char *text, size_t len,
			    struct favo_err *err);
/* manifest.json of "docker save"; tag chooses among several images. */
int favo_oci_docker_parse(struct favo_oci_manifest *out, const char *text, size_t len,
			  const char *tag, struct favo_err *err);
void favo_oci_manifest_fini(struct favo_oci_manifest *manifest);

/*
 * Configuration of an image: n digests of the plain layers (the caller frees
 * them), and what a user's process gets, as the member "config" of Favo's
 * manifest.
 */
int favo_oci_config_parse(struct favo_digest **diff_ids, size_t *n, json_t **config,
			  const char *text, size_t len, struct favo_err *err);

/* ---- loading ---- */

struct favo_oci_params {
	const char *spool_dir; /* for unlinked files of the image's size */
	uint64_t max_bytes; /* 0: FAVO_OCI_SIZE_MAX */
	const char *http_hosts; /* registries without TLS, "HOST[:PORT],..." */
	favo_progress_fn *progress; /* may be NULL */
	void *user;
};

struct favo_oci_image {
	json_t *config; /* for the manifest's "config" */
	json_t *source; /* for the manifest's "source": where it came from */
	struct favo_digest digest; /* of the image manifest; zeros if there is none */
	uint64_t bytes; /* of all layers as they are stored */
	size_t n_layers;
};

/*
 * Load a container image as a tree. Blocks, uses all cores; the source and
 * its contents are checked against every digest on the way.
 */
int favo_oci_load(struct favo_tree **tree, struct favo_oci_image *image,
		  const struct favo_oci_ref *ref, const struct favo_oci_params *params,
		  struct favo_err *err);
/* Only the digest that the reference has now: one or two small requests. */
int favo_oci_resolve(struct favo_digest *digest, const struct favo_oci_ref *ref,
		     const struct favo_oci_params *params, struct favo_err *err);
void favo_oci_image_fini(struct favo_oci_image *image);
