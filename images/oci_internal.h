/* SPDX-License-Identifier: GPL-2.0-or-later */
/* What the files of the OCI import share; not for others. */
#pragma once

#include "images/layer.h"
#include "images/oci.h"

struct favo_oci_source;

struct favo_oci_source_ops {
	/* Where the search begins: an index or manifest. */
	int (*top)(struct favo_oci_source *source, char **text, size_t *len,
		   struct favo_err *err);
	/* A manifest, or with is_blob a config; not checked against its digest. */
	int (*small)(struct favo_oci_source *source, const struct favo_oci_blob *blob,
		     bool is_blob, char **text, size_t *len, struct favo_err *err);
	/* Make the layers readable; both stay valid until free. */
	int (*start)(struct favo_oci_source *source,
		     const struct favo_oci_manifest *manifest, struct favo_spool *spool,
		     struct favo_err *err);
	/* Bytes of layer i at offset, 0 at its end. Waits; any thread. */
	ssize_t (*read)(struct favo_oci_source *source, size_t i, uint64_t offset,
			void *buf, size_t len, struct favo_err *err);
	/* Bytes of layer i as far as they are known, for the progress. */
	uint64_t (*size)(struct favo_oci_source *source, size_t i);
	/* Nobody reads layer i any more. */
	void (*drop)(struct favo_oci_source *source, size_t i);
	void (*free)(struct favo_oci_source *source);
};

/* Embedded in the struct of each kind. */
struct favo_oci_source {
	const struct favo_oci_source_ops *ops;
};

/* oci_layout.c: layouts and archives. */
int favo_oci_open_layout(struct favo_oci_source **out, const struct favo_oci_ref *ref,
			 const struct favo_oci_params *params, struct favo_err *err);
/* oci_registry.c; *stop ends all transfers. */
int favo_oci_open_registry(struct favo_oci_source **out, const struct favo_oci_ref *ref,
			   const struct favo_oci_params *params, const atomic_bool *stop,
			   struct favo_err *err);
