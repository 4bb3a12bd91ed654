/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Signatures of manifests: Ed25519 in the file formats of signify(1), by
 * libcrypto alone, so that `signify -V` judges ours and we judge its. A
 * signature file may have several signatures, one behind the other; one by a
 * trusted key is enough. Formats: docs/format-image.md. Thread-safe.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"

#define FAVO_SIGN_FILE_MAX 4096 /* bytes of a signature or key file */
#define FAVO_SIGN_MAX 8 /* signatures in one file */

/* ---- signing ---- */

struct favo_sign_key;

/*
 * Make a key pair, neither file may exist: the secret half with mode 0600 and
 * without a passphrase (signify -n). comment: a short text for people.
 */
int favo_sign_keygen(const char *secret_path, const char *public_path,
		     const char *comment, struct favo_err *err);

/*
 * EPERM: the file is open to group or others. ENOTSUP: it has a passphrase.
 * The caller frees the key.
 */
int favo_sign_key_load(struct favo_sign_key **out, const char *path,
		       struct favo_err *err);
void favo_sign_key_free(struct favo_sign_key *key);

/* A signature file of data; the caller frees *text. */
int favo_sign(const struct favo_sign_key *key, const char *comment, const void *data,
	      size_t len, char **text, struct favo_err *err);

/* ---- judging ---- */

/* What one signature says; parsed, not judged. */
struct favo_signature {
	unsigned char key_id[8];
	unsigned char bytes[64];
};

/* Foreign bytes to at most FAVO_SIGN_MAX signatures; count or -EBADMSG. */
int favo_signature_parse(const char *text, size_t len,
			 struct favo_signature out[FAVO_SIGN_MAX], struct favo_err *err);

struct favo_sign_keys;

/*
 * All public keys of a folder: files whose name ends with ".pub". -ENOENT when
 * the folder is missing; a damaged file is an error.
 */
int favo_sign_keys_load(struct favo_sign_keys **out, const char *dir,
			struct favo_err *err);
/* One file only. */
int favo_sign_keys_load_file(struct favo_sign_keys **out, const char *path,
			     struct favo_err *err);
void favo_sign_keys_free(struct favo_sign_keys *keys);
size_t favo_sign_keys_count(const struct favo_sign_keys *keys);

/*
 * Did one of the keys sign data? *name (may be NULL) borrows the file name of
 * that key. -EBADMSG: text is no signature file; -EKEYREJECTED: none of the
 * keys made it, or data is not what was signed; the sentence tells which.
 */
int favo_sign_verify(const struct favo_sign_keys *keys, const char *text, size_t text_len,
		     const void *data, size_t len, const char **name,
		     struct favo_err *err);

static inline void favo_cleanup_sign_key(struct favo_sign_key **key)
{
	favo_sign_key_free(*key);
}
#define favo_autosignkey __attribute__((cleanup(favo_cleanup_sign_key)))

static inline void favo_cleanup_sign_keys(struct favo_sign_keys **keys)
{
	favo_sign_keys_free(*keys);
}
#define favo_autosignkeys __attribute__((cleanup(favo_cleanup_sign_keys)))
