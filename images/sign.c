// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * signify's files (OpenBSD usr.bin/signify/signify.c: struct enckey, pubkey,
 * sig): a comment line, then one line of base64. Keys with a passphrase
 * (bcrypt_pbkdf) are not for a daemon and are refused.
 */
#include "images/sign.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include <openssl/crypto.h>
#include <openssl/evp.h>

#include "common/fd.h"
#include "common/util.h"

#define COMMENT "untrusted comment: "
#define COMMENT_MAX 1024 /* as signify's */
#define KEY_ID 8
#define KEYS_MAX 256

struct public_key {
	unsigned char algorithm[2]; /* "Ed" */
	unsigned char id[KEY_ID];
	unsigned char key[32];
};

struct signature {
	unsigned char algorithm[2];
	unsigned char id[KEY_ID];
	unsigned char bytes[64];
};

struct secret_key {
	unsigned char algorithm[2];
	unsigned char kdf[2]; /* "BK" */
	unsigned char rounds[4]; /* big-endian; 0: no passphrase */
	unsigned char salt[16];
	unsigned char checksum[8]; /* of key: first bytes of its SHA-512 */
	unsigned char id[KEY_ID];
	unsigned char key[64]; /* seed, public key */
};

_Static_assert(sizeof(struct public_key) == 42 && sizeof(struct signature) == 74 &&
		       sizeof(struct secret_key) == 104,
	       "signify's records have no padding");

struct favo_sign_key {
	struct secret_key record;
};

struct favo_sign_keys {
	size_t n;
	struct {
		struct public_key record;
		char name[128];
	} keys[];
};

/* ---- files ---- */

/* "COMMENT\nBASE64\n"; the caller frees it. */
static char *format_file(const char *comment, const void *record, size_t len)
{
	char base64[256];

	EVP_EncodeBlock((unsigned char *)base64, record, (int)len);
	return favo_asprintf(COMMENT "%s\n%s\n", comment, base64);
}

/* Exactly size bytes of strict base64: the alphabet, padding at the end only. */
static bool decode(void *out, size_t size, const char *text, size_t len)
{
	static const char digits[] =
		"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
	unsigned char buf[192];
	size_t pad = (3 - size % 3) % 3;

	if (len != (size + 2) / 3 * 4 || len / 4 * 3 > sizeof(buf))
		return false;
	for (size_t i = 0; i < len; i++)
		if (i < len - pad ? !text[i] || !strchr(digits, text[i]) : text[i] != '=')
			return false;
	if (EVP_DecodeBlock(buf, (const unsigned char *)text, (int)len) < 0)
		return false;
	memcpy(out, buf, size);
	OPENSSL_cleanse(buf, sizeof(buf));
	return true;
}

/* One comment line and one record at *at, which moves behind them. */
static int parse_record(const char *text, size_t len, size_t *at, void *record,
			size_t size, const char *what, struct favo_err *err)
{
	const char *p = text + *at, *end = text + len, *line;

	if ((size_t)(end - p) < strlen(COMMENT) || memcmp(p, COMMENT, strlen(COMMENT)))
		return favo_fail(err, EBADMSG, "%s: does not begin with '" COMMENT "'",
				 what);
	line = memchr(p, '\n', (size_t)(end - p));
	if (!line || line - p > COMMENT_MAX)
		return favo_fail(err, EBADMSG, "%s: its comment line has no end", what);
	p = line + 1;
	line = p < end ? memchr(p, '\n', (size_t)(end - p)) : NULL;
	if (!line)
		line = end;
	if (!decode(record, size, p, (size_t)(line - p)))
		return favo_fail(err, EBADMSG, "%s: its second line is no %s of signify",
				 what, what);
	if (memcmp(record, "Ed", 2) != 0)
		return favo_fail(err, EBADMSG, "%s: not of the kind Ed25519", what);
	*at = (size_t)(line - text) + (line < end);
	return 0;
}

static int load_record(const char *path, void *record, size_t size, const char *what,
		       struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0, at = 0;
	int ret = favo_file_read(path, FAVO_SIGN_FILE_MAX, &text, &len, err);

	if (ret < 0)
		return ret;
	ret = parse_record(text, len, &at, record, size, what, err);
	if (ret == 0 && at != len)
		ret = favo_fail(err, EBADMSG, "%s: more than two lines", what);
	OPENSSL_cleanse(text, len);
	return ret < 0 ? favo_wrap(err, ret, "%s", path) : 0;
}

/* ---- keys ---- */

static bool checksum(unsigned char out[8], const struct secret_key *key)
{
	unsigned char hash[64];

	if (!EVP_Digest(key->key, sizeof(key->key), hash, NULL, EVP_sha512(), NULL))
		return false;
	memcpy(out, hash, 8);
	return true;
}

static int make_record(struct secret_key *key)
{
	EVP_PKEY *pkey = NULL;
	size_t len = 32;
	int ret = -EIO;

	*key = (struct secret_key){.algorithm = "Ed", .kdf = "BK"};
	if (getrandom(key->key, 32, 0) != 32 ||
	    getrandom(key->id, sizeof(key->id), 0) != sizeof(key->id))
		return ret;
	pkey = EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key->key, 32);
	if (pkey && EVP_PKEY_get_raw_public_key(pkey, key->key + 32, &len) == 1 &&
	    checksum(key->checksum, key))
		ret = 0;
	EVP_PKEY_free(pkey);
	return ret;
}

static int write_new(const char *path, const char *text, mode_t mode,
		     struct favo_err *err)
{
	favo_autoclose int fd =
		open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, mode);
	int ret;

	if (fd < 0)
		return favo_fail(err, errno, "%s: %m", path);
	ret = favo_write_all(fd, text, strlen(text), -1, err);
	if (ret == 0 && (fchmod(fd, mode) < 0 || fsync(fd) < 0))
		ret = favo_fail(err, errno, "%s: %m", path);
	if (ret < 0)
		unlink(path);
	return ret;
}

int favo_sign_keygen(const char *secret_path, const char *public_path,
		     const char *comment, struct favo_err *err)
{
	struct public_key public = {.algorithm = "Ed"};
	favo_autofree char *label = favo_asprintf("%s public key", comment);
	favo_autofree char *secret_label = favo_asprintf("%s secret key", comment);
	favo_autofree char *public_text = NULL;
	struct secret_key secret;
	char *secret_text = NULL;
	int ret;

	if (!label || !secret_label || strlen(comment) > 512 || strchr(comment, '\n'))
		return favo_fail(err, EINVAL, "key comment is too long or has lines");
	ret = make_record(&secret);
	if (ret < 0)
		return favo_fail(err, -ret, "libcrypto makes no Ed25519 key");
	memcpy(public.id, secret.id, sizeof(public.id));
	memcpy(public.key, secret.key + 32, sizeof(public.key));
	public_text = format_file(label, &public, sizeof(public));
	secret_text = format_file(secret_label, &secret, sizeof(secret));
	OPENSSL_cleanse(&secret, sizeof(secret));
	ret = public_text && secret_text ? 0 : favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = write_new(secret_path, secret_text, 0600, err);
	if (ret == 0) {
		ret = write_new(public_path, public_text, 0644, err);
		if (ret < 0)
			unlink(secret_path);
	}
	if (secret_text)
		OPENSSL_cleanse(secret_text, strlen(secret_text));
	free(secret_text);
	return ret;
}

int favo_sign_key_load(struct favo_sign_key **out, const char *path, struct favo_err *err)
{
	favo_autosignkey struct favo_sign_key *key = calloc(1, sizeof(*key));
	unsigned char sum[8];
	struct stat st;
	int ret;

	if (!key)
		return favo_fail(err, ENOMEM, "out of memory");
	if (stat(path, &st) < 0)
		return favo_fail(err, errno, "%s: %m", path);
	if (st.st_mode & 077)
		return favo_fail(err, EPERM, "%s: others may read this key; chmod 600 it",
				 path);
	ret = load_record(path, &key->record, sizeof(key->record), "secret key", err);
	if (ret < 0)
		return ret;
	if (memcmp(key->record.rounds, "\0\0\0\0", 4) != 0)
		return favo_fail(err, ENOTSUP,
				 "%s: the key has a passphrase; make one without "
				 "(favo image keygen, or signify -G -n)",
				 path);
	if (!checksum(sum, &key->record) || memcmp(sum, key->record.checksum, 8) != 0)
		return favo_fail(err, EBADMSG, "%s: the key is damaged", path);
	*out = favo_steal_ptr(&key);
	return 0;
}

void favo_sign_key_free(struct favo_sign_key *key)
{
	if (!key)
		return;
	OPENSSL_cleanse(key, sizeof(*key));
	free(key);
}

int favo_sign(const struct favo_sign_key *key, const char *comment, const void *data,
	      size_t len, char **text, struct favo_err *err)
{
	struct signature sig = {.algorithm = "Ed"};
	EVP_PKEY *pkey =
		EVP_PKEY_new_raw_private_key(EVP_PKEY_ED25519, NULL, key->record.key, 32);
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	size_t sig_len = sizeof(sig.bytes);
	bool good;

	memcpy(sig.id, key->record.id, sizeof(sig.id));
	good = pkey && ctx && EVP_DigestSignInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
	       EVP_DigestSign(ctx, sig.bytes, &sig_len, data, len) == 1;
	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	if (!good)
		return favo_fail(err, EIO, "libcrypto does not sign");
	*text = format_file(comment, &sig, sizeof(sig));
	return *text ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

/* ---- judging ---- */

int favo_signature_parse(const char *text, size_t len,
			 struct favo_signature out[FAVO_SIGN_MAX], struct favo_err *err)
{
	struct signature record;
	size_t at = 0;
	int n = 0, ret;

	if (len > FAVO_SIGN_FILE_MAX)
		return favo_fail(err, EBADMSG, "signature: %zu bytes are too many", len);
	do {
		if (n == FAVO_SIGN_MAX)
			return favo_fail(err, EBADMSG,
					 "signature: more than %d in a file",
					 FAVO_SIGN_MAX);
		ret = parse_record(text, len, &at, &record, sizeof(record), "signature",
				   err);
		if (ret < 0)
			return ret;
		memcpy(out[n].key_id, record.id, sizeof(record.id));
		memcpy(out[n].bytes, record.bytes, sizeof(record.bytes));
		n++;
	} while (at < len);
	return n;
}

static int add_key(struct favo_sign_keys **keys, const char *path, struct favo_err *err)
{
	size_t n = *keys ? (*keys)->n : 0;
	struct favo_sign_keys *grown;
	const char *slash = strrchr(path, '/');
	int ret;

	if (n == KEYS_MAX)
		return favo_fail(err, E2BIG, "%s: more than %d keys", path, KEYS_MAX);
	grown = realloc(*keys, sizeof(*grown) + (n + 1) * sizeof(grown->keys[0]));
	if (!grown)
		return favo_fail(err, ENOMEM, "out of memory");
	*keys = grown;
	grown->n = n;
	ret = load_record(path, &grown->keys[n].record, sizeof(grown->keys[n].record),
			  "public key", err);
	if (ret < 0)
		return ret;
	snprintf(grown->keys[n].name, sizeof(grown->keys[n].name), "%s",
		 slash ? slash + 1 : path);
	grown->n++;
	return 0;
}

int favo_sign_keys_load(struct favo_sign_keys **out, const char *dir,
			struct favo_err *err)
{
	favo_autosignkeys struct favo_sign_keys *keys = calloc(1, sizeof(*keys));
	DIR *folder = opendir(dir);
	struct dirent *entry;
	int ret = 0;

	if (!folder)
		return favo_fail(err, errno, "keys %s: %m", dir);
	while (ret == 0 && (entry = readdir(folder))) {
		size_t len = strlen(entry->d_name);
		favo_autofree char *path = NULL;

		if (entry->d_name[0] == '.' || len < 5 ||
		    strcmp(entry->d_name + len - 4, ".pub") != 0)
			continue;
		path = favo_asprintf("%s/%s", dir, entry->d_name);
		ret = path ? add_key(&keys, path, err)
			   : favo_fail(err, ENOMEM, "out of memory");
	}
	closedir(folder);
	if (ret == 0 && !keys)
		ret = favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		*out = favo_steal_ptr(&keys);
	return ret;
}

int favo_sign_keys_load_file(struct favo_sign_keys **out, const char *path,
			     struct favo_err *err)
{
	favo_autosignkeys struct favo_sign_keys *keys = NULL;
	int ret = add_key(&keys, path, err);

	if (ret == 0)
		*out = favo_steal_ptr(&keys);
	return ret;
}

void favo_sign_keys_free(struct favo_sign_keys *keys)
{
	free(keys);
}

size_t favo_sign_keys_count(const struct favo_sign_keys *keys)
{
	return keys->n;
}

static bool is_good(const struct public_key *key, const struct favo_signature *sig,
		    const void *data, size_t len)
{
	EVP_PKEY *pkey = EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, key->key,
						     sizeof(key->key));
	EVP_MD_CTX *ctx = EVP_MD_CTX_new();
	bool good = pkey && ctx &&
		    EVP_DigestVerifyInit(ctx, NULL, NULL, NULL, pkey) == 1 &&
		    EVP_DigestVerify(ctx, sig->bytes, sizeof(sig->bytes), data, len) == 1;

	EVP_MD_CTX_free(ctx);
	EVP_PKEY_free(pkey);
	return good;
}

int favo_sign_verify(const struct favo_sign_keys *keys, const char *text, size_t text_len,
		     const void *data, size_t len, const char **name,
		     struct favo_err *err)
{
	struct favo_signature sigs[FAVO_SIGN_MAX];
	const char *known = NULL;
	int n = favo_signature_parse(text, text_len, sigs, err);

	if (n < 0)
		return n;
	for (int i = 0; i < n; i++) {
		for (size_t k = 0; k < keys->n; k++) {
			if (memcmp(keys->keys[k].record.id, sigs[i].key_id, KEY_ID) != 0)
				continue;
			known = keys->keys[k].name;
			if (!is_good(&keys->keys[k].record, &sigs[i], data, len))
				continue;
			if (name)
				*name = known;
			return 0;
		}
	}
	if (known)
		return favo_fail(
			err, EKEYREJECTED,
			"the signature by %s does not fit: something was changed", known);
	return favo_fail(err, EKEYREJECTED, "signed by a key that is not trusted here");
}
