/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Unfinished images that users push into the store of the site, one folder
 * per owner: push/OWNER/<64 hex> (blobs in stored form, checked) and
 * push/OWNER/<64 hex>.json (manifests). Nothing of it can be reached by a
 * name. favo_stage_publish() makes an image of the store out of it, all or
 * nothing; gc removes what is older than a day.
 *
 * A stage holds the store's shared lock from open to free, so it is for one
 * request only. One thread at a time; two stages of one owner may be open.
 */
#pragma once

#include "images/store.h"

#define FAVO_STAGE_BLOB_MAX (256u << 20) /* plain bytes of one blob */

struct favo_stage;

/*
 * owner: letters and digits, such as a uid. limit: stored bytes that the
 * owner may have here.
 */
int favo_stage_open(struct favo_stage **out, struct favo_store *store, const char *owner,
		    uint64_t limit, struct favo_err *err);
void favo_stage_free(struct favo_stage *stage);

/* Is the blob in the store, or here? */
bool favo_stage_has(const struct favo_stage *stage, const struct favo_digest *digest);

/*
 * Take a blob in stored form after a check of its content. want NULL: any
 * digest. -EBADMSG: damaged or not want; -EDQUOT: the limit is reached.
 */
int favo_stage_put(struct favo_stage *stage, const struct favo_digest *want,
		   const void *stored, size_t len, struct favo_err *err);

/*
 * Take a manifest when all of its blobs are in the store or here. Otherwise
 * -ENODATA, and *missing gets the blobs to bring (the caller frees it).
 */
int favo_stage_manifest(struct favo_stage *stage, const struct favo_digest *id,
			const void *data, size_t len, struct favo_digest **missing,
			size_t *n, struct favo_err *err);

/*
 * Point name at the image id, which is in the store or complete here. Durable
 * on return. max_bytes: what all images below the name's prefix ("alice/")
 * may take in the store, shared chunks counted once; -EDQUOT. UINT64_MAX: no
 * bound. -ENOENT: no such image.
 */
int favo_stage_publish(struct favo_stage *stage, const struct favo_digest *id,
		       const struct favo_image_name *name, uint64_t max_bytes,
		       struct favo_err *err);

static inline void favo_cleanup_stage(struct favo_stage **stage)
{
	favo_stage_free(*stage);
}
#define favo_autostage __attribute__((cleanup(favo_cleanup_stage)))
