/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Image store of the site: content-addressed blobs, manifests, and names.
 *
 *   blobs/ab/<64 hex>   stored form of a blob; the digest is over plain bytes
 *   manifests/<64 hex>.json
 *   manifests/<64 hex>.sig   signatures of the manifest, signify's format
 *   refs/NAME/TAG       "sha256:<hex> <unix time>\n", newest line first
 *   push/OWNER/         unfinished pushes of users; see stage.h
 *   tmp/                unfinished writes; emptied by gc
 *   lock                flock: shared by writers, exclusive by gc
 *
 * Stored form: a zstd frame when the bytes begin with zstd's magic number
 * (28 b5 2f fd), else the plain bytes. The writer takes care that no plain
 * blob begins so.
 *
 * Writers put blobs into a transaction; commit makes them durable before any
 * final name exists, so that a crash at any moment leaves a consistent store.
 * Several processes may use one store. A struct favo_store may be shared by
 * threads; a transaction too, except for commit and free.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/digest.h"
#include "images/manifest.h"

#define FAVO_STORE_DIR "/var/lib/favo/store"
#define FAVO_IMAGE_NAME_MAX 200 /* bytes of "name[:tag][@digest]" without the digest */
#define FAVO_BLOB_MAX FAVO_KERNEL_MAX

enum favo_store_flags {
	FAVO_STORE_CREATE = 1, /* make the folders when they are missing */
};

struct favo_store;

int favo_store_open(struct favo_store **out, const char *dir, unsigned int flags,
		    struct favo_err *err);
void favo_store_close(struct favo_store *store);
/* The folder of the store, borrowed. */
const char *favo_store_path(const struct favo_store *store);

/* ---- names ---- */

/* A name "[repo/]name[:tag][@sha256:hex]" taken apart. */
struct favo_image_name {
	char name[FAVO_IMAGE_NAME_MAX];
	char tag[FAVO_IMAGE_NAME_MAX]; /* "latest" when none was given */
	bool has_tag;
	bool has_digest;
	struct favo_digest digest;
};

/* -EINVAL with a sentence for anything else than the form above. */
int favo_image_name_parse(struct favo_image_name *out, const char *text,
			  struct favo_err *err);

/*
 * Find the image that text names. -ENOENT: no such image (ask
 * favo_store_near()); -EINVAL: not a name. With a digest, the manifest must
 * be in the store; a tag beside a digest is not looked at.
 */
int favo_store_resolve(struct favo_store *store, const char *text, struct favo_digest *id,
		       struct favo_err *err);

/*
 * Names of the store that resemble text, best first, at most max; each is
 * "name:tag" and the caller frees every one. Returns the count or -errno.
 */
int favo_store_near(struct favo_store *store, const char *text, char **names, int max,
		    struct favo_err *err);

/* Point name:tag at id, whose manifest must be there. Durable on return. */
int favo_store_tag(struct favo_store *store, const struct favo_image_name *name,
		   const struct favo_digest *id, struct favo_err *err);
/* Remove the name only; blobs go with favo_store_gc(). -ENOENT when absent. */
int favo_store_untag(struct favo_store *store, const struct favo_image_name *name,
		     struct favo_err *err);

struct favo_store_ref {
	char *name;
	char *tag;
	struct favo_digest id;
	int64_t time; /* when the tag was set */
};

/* What a tag pointed to since when. */
struct favo_store_event {
	struct favo_digest id;
	int64_t time;
};

#define FAVO_STORE_HISTORY_MAX 33

/*
 * The newest first, at most max. Of older images gc may have removed the data.
 * -ENOENT: no such name.
 */
int favo_store_history(struct favo_store *store, const struct favo_image_name *name,
		       struct favo_store_event *events, size_t max, size_t *n,
		       struct favo_err *err);

/* All names, sorted; free with favo_store_refs_free(). */
int favo_store_list(struct favo_store *store, struct favo_store_ref **refs, size_t *n,
		    struct favo_err *err);
void favo_store_refs_free(struct favo_store_ref *refs, size_t n);

/* ---- who may run what (store_rules.c) ---- */

#define FAVO_RULE_WHO_MAX 1024
#define FAVO_RULE_ALL "all"

/* One rule, as it is or was. */
struct favo_store_rule {
	char pattern[FAVO_IMAGE_NAME_MAX]; /* "NAME", or "REPO/" for all in it */
	char who[FAVO_RULE_WHO_MAX]; /* "alice,@staff", or FAVO_RULE_ALL */
	char by[64]; /* who made it */
	int64_t time;
};

/* Is pattern one, and of which name? -EINVAL with a sentence. */
int favo_store_rule_name(const char *pattern, struct favo_image_name *name,
			 struct favo_err *err);
/* Make a rule; the former ones stay as history. Durable on return. */
int favo_store_allow(struct favo_store *store, const char *pattern, const char *who,
		     const char *by, struct favo_err *err);
/* The rule of an image's name, else of its repository: 1; 0: there is none. */
int favo_store_rule(struct favo_store *store, const char *image,
		    struct favo_store_rule *rule, struct favo_err *err);
/* The newest first, at most max; -ENOENT: there is none. */
int favo_store_rule_history(struct favo_store *store, const char *pattern,
			    struct favo_store_rule *rules, size_t max, size_t *n,
			    struct favo_err *err);
/* Every rule that counts now, in no order; a result other than 0 ends it. */
typedef int favo_store_rule_fn(const struct favo_store_rule *rule, void *user,
			       struct favo_err *err);
int favo_store_rules(struct favo_store *store, favo_store_rule_fn *fn, void *user,
		     struct favo_err *err);

/* ---- reading ---- */

/* -ENOENT when absent, -EBADMSG when the file does not match its name. */
int favo_store_manifest(struct favo_store *store, const struct favo_digest *id,
			struct favo_manifest **out, struct favo_err *err);

/*
 * Open the stored form of a blob for reading; returns a descriptor or -errno
 * (-ENOENT). *size is the stored length. The content is not checked here:
 * who decodes it does.
 */
int favo_store_open_blob(struct favo_store *store, const struct favo_digest *digest,
			 uint64_t *size, struct favo_err *err);
bool favo_store_has_blob(struct favo_store *store, const struct favo_digest *digest);

/*
 * Plain bytes of a blob, decoded and checked; the caller frees *data.
 * -EBADMSG with the digest in the text when the stored bytes are damaged or
 * longer than max.
 */
int favo_store_read_blob(struct favo_store *store, const struct favo_digest *digest,
			 size_t max, void **data, size_t *len, struct favo_err *err);

/*
 * Stored form to plain bytes, checked against digest; the caller frees *data.
 * For bytes from the network too: -EBADMSG for wrong or too many bytes.
 */
int favo_blob_decode(const struct favo_digest *digest, const void *stored,
		     size_t stored_len, size_t max, void **data, size_t *len,
		     struct favo_err *err);

/*
 * The same for many blobs of at most size bytes, without memory taken for
 * each: *data is borrowed, from the decoder until its next use or from
 * stored. A decoder belongs to one thread at a time.
 */
struct favo_decoder;
int favo_decoder_new(struct favo_decoder **out, size_t size, struct favo_err *err);
void favo_decoder_free(struct favo_decoder *decoder);
int favo_decode(struct favo_decoder *decoder, const struct favo_digest *digest,
		const void *stored, size_t stored_len, const void **data, size_t *len,
		struct favo_err *err);

/* Plain to stored form (zstd where that is shorter); the caller frees *stored. */
int favo_blob_encode(const void *data, size_t len, void **stored, size_t *stored_len,
		     struct favo_err *err);

/* Digest of the plain bytes of a stored form whose digest nobody said. */
int favo_blob_identify(const void *stored, size_t stored_len, size_t max,
		       struct favo_digest *digest, struct favo_err *err);

/*
 * Every blob that an image of the store is made of, each once, sorted; the
 * caller frees *blobs. Whether they are there is not looked at, except for
 * the index.
 */
int favo_store_blobs(struct favo_store *store, const struct favo_digest *id,
		     struct favo_digest **blobs, size_t *n, struct favo_err *err);

/* ---- signatures ---- */

/*
 * Signature file of an image (images/sign.h), not judged; the caller frees
 * *text. -ENOENT: it has none.
 */
int favo_store_signature(struct favo_store *store, const struct favo_digest *id,
			 char **text, size_t *len, struct favo_err *err);

/*
 * Sign an image of the store: the signature is added to those it has; one by
 * the same key takes the old one's place. Durable on return.
 */
struct favo_sign_key;
int favo_store_sign(struct favo_store *store, const struct favo_digest *id,
		    const struct favo_sign_key *key, struct favo_err *err);
/* The same with the text of a signature that was made elsewhere. */
int favo_store_add_signature(struct favo_store *store, const struct favo_digest *id,
			     const char *text, size_t len, struct favo_err *err);

/* ---- writing ---- */

struct favo_store_tx;

/* Takes the shared lock; waits while gc runs. */
int favo_store_begin(struct favo_store_tx **out, struct favo_store *store,
		     struct favo_err *err);
/* Drops everything that was not committed. NULL is allowed. */
void favo_store_tx_free(struct favo_store_tx *tx);

/*
 * Add a blob of plain bytes. Bytes that the store has cost only the hash.
 * *stored, when not NULL, gets the bytes newly written. Any thread.
 */
int favo_store_put(struct favo_store_tx *tx, const void *data, size_t len,
		   struct favo_digest *digest, uint64_t *stored, struct favo_err *err);

/*
 * Make everything durable and visible: blobs, then the manifest, then (when
 * name is not NULL) the tag. *id gets the image's id.
 */
int favo_store_commit(struct favo_store_tx *tx, const json_t *manifest,
		      const struct favo_image_name *name, struct favo_digest *id,
		      struct favo_err *err);

struct favo_gc_stats {
	size_t manifests, blobs; /* removed */
	uint64_t bytes;
};

/*
 * Remove manifests without a name and blobs without a manifest. Waits for
 * running imports. Readers of a blob that they opened are not disturbed.
 */
int favo_store_gc(struct favo_store *store, struct favo_gc_stats *stats,
		  struct favo_err *err);

static inline void favo_cleanup_store(struct favo_store **store)
{
	favo_store_close(*store);
}
#define favo_autostore __attribute__((cleanup(favo_cleanup_store)))

static inline void favo_cleanup_store_tx(struct favo_store_tx **tx)
{
	favo_store_tx_free(*tx);
}
#define favo_autotx __attribute__((cleanup(favo_cleanup_store_tx)))
