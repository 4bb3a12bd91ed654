/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Where a root file system comes from: the text after `favo image import`,
 * with a scheme ("sqsh:FILE") or plain, then told apart by content.
 */
#pragma once

#include <jansson.h>

#include "common/err.h"
#include "images/import.h"
#include "images/tree.h"

struct favo_source {
	/* What the caller sets. */
	const char *tmp_dir; /* for spool files, on a file system with room */
	unsigned int partition; /* root of a disk image; 0: look for it */
	const char *registry_http; /* registries without TLS, "HOST[:PORT],..." */
	uint64_t max_bytes; /* of a container image's contents; 0: 64 GiB */
	favo_note_fn *note; /* may be NULL */
	favo_progress_fn *progress; /* may be NULL */
	void *user;
	/* What comes out. */
	struct favo_tree *tree;
	json_t *origin; /* member "source" of the manifest */
	json_t *config; /* member "config"; NULL unless a container image */
};

/*
 * Fill source->tree and source->origin from text. Blocks. Errors begin with
 * the text.
 */
int favo_source_load(struct favo_source *source, const char *text,
		     struct favo_err *err) favo_must_check;
void favo_source_fini(struct favo_source *source);

/* A name for the image, "debian12" of "sqsh:/srv/debian12.sqsh". */
char *favo_source_name(const char *text);

static inline void favo_source_note(const struct favo_source *source, const char *text)
{
	if (source->note)
		source->note(text, source->user);
}

struct favo_confine;
/* For importers: the tar that a confined program writes, as a tree. */
int favo_source_confined_tar(struct favo_source *source, const struct favo_confine *spec,
			     struct favo_tree **tree, struct favo_err *err);
