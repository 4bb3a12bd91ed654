/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Images that a job brings along: --vm-image=docker://... and ./path. They
 * are imported as the user, on the submit host, and pushed to favod, which
 * then gives a grant for them as for any other image.
 */
#pragma once

#include <stdbool.h>

#include "common/err.h"
#include "provision/conf.h"

/* Is this no name of the store, but something to import? */
bool favo_submit_is_source(const char *image);

struct favo_submit_import;

/*
 * Prepare: asks the registry what a docker:// image is now, by digest, and
 * leaves in *name what it is called at favod once imported: the same image
 * has the same name, and need not be imported again. For a path *name is
 * NULL: only the import tells. From here on signals are handled: SIGINT,
 * SIGTERM and SIGHUP remove what was made and end the process.
 */
int favo_submit_import_open(struct favo_submit_import **out, const char *image,
			    const struct favo_conf *conf, char **name,
			    struct favo_err *err);

/*
 * Import and push; *name gets the name with tag, which the caller frees.
 * Progress goes to stderr when it takes more than two seconds; the parent is
 * told with "busy" lines on stdout to be patient.
 */
int favo_submit_import_run(struct favo_submit_import *import, char **name,
			   struct favo_err *err);
void favo_submit_import_free(struct favo_submit_import *import);
