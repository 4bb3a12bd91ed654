/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client of favod's push routes (docs/api-favod.md): bring an image from a
 * store of the caller's own into the site's.
 */
#pragma once

#include "common/err.h"
#include "common/http.h"
#include "images/pack.h"
#include "images/store.h"

/*
 * May the caller call an image so? 0, or -EACCES with favod's sentence. To be
 * asked before the work of making the image.
 */
int favo_push_allowed(struct favo_http *http, const char *name, struct favo_err *err);

/*
 * Send what the site's store lacks of image id, then give it the name
 * "USER/name[:tag]". Blobs that `from` has not (the site's kernel) must be in
 * the site's store. Waits and asks again while favod is busy; a push that broke
 * off goes on where it stopped. *moved, unless NULL, gets the bytes sent.
 * Blocks; progress (may be NULL) hears of the step "push".
 */
int favo_push_image(struct favo_http *http, struct favo_store *from,
		    const struct favo_digest *id, const char *name, uint64_t *moved,
		    favo_progress_fn *progress, void *user, struct favo_err *err);

/*
 * Kernel and initramfs that the site has for images without one, as
 * favo_import's site_boot. -ENOENT with a sentence when it has none; the
 * caller drops *boot.
 */
int favo_push_site_boot(struct favo_http *http, json_t **boot, struct favo_err *err);
