// SPDX-License-Identifier: GPL-2.0-or-later
/* Signatures beside the manifests of the store; see store.h. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/sign.h"
#include "images/store.h"
#include "images/store_internal.h"

static char *sig_path(const struct favo_digest *id)
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	return favo_asprintf("manifests/%s.sig", favo_digest_format_hex(id, hex));
}

int favo_store_signature(struct favo_store *store, const struct favo_digest *id,
			 char **text, size_t *len, struct favo_err *err)
{
	favo_autofree char *path = sig_path(id), *full = NULL;

	full = path ? favo_asprintf("%s/%s", store->dir, path) : NULL;
	if (!full)
		return favo_fail(err, ENOMEM, "store %s: out of memory", store->dir);
	return favo_file_read(full, FAVO_SIGN_FILE_MAX, text, len, err);
}

/* Add the signatures of new to *all, except those whose key is there already. */
static int append(char **all, const char *text, const struct favo_signature *skip,
		  int n_skip, struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	char *save = NULL, *comment, *line;

	if (!copy)
		return favo_fail(err, ENOMEM, "out of memory");
	for (comment = strtok_r(copy, "\n", &save);
	     comment && (line = strtok_r(NULL, "\n", &save));
	     comment = strtok_r(NULL, "\n", &save)) {
		favo_autofree char *pair = favo_asprintf("%s\n%s\n", comment, line);
		struct favo_signature sig[FAVO_SIGN_MAX];
		bool known = false;
		char *longer;

		if (!pair || favo_signature_parse(pair, strlen(pair), sig, err) != 1)
			return -EBADMSG;
		for (int i = 0; i < n_skip; i++)
			known |= memcmp(sig[0].key_id, skip[i].key_id, 8) == 0;
		if (known)
			continue;
		longer = favo_asprintf("%s%s", *all, pair);
		if (!longer)
			return favo_fail(err, ENOMEM, "out of memory");
		free(*all);
		*all = longer;
	}
	return 0;
}

int favo_store_add_signature(struct favo_store *store, const struct favo_digest *id,
			     const char *text, size_t len, struct favo_err *err)
{
	favo_autofree char *path = sig_path(id), *old = NULL, *all = strdup("");
	struct favo_signature added[FAVO_SIGN_MAX], parsed[FAVO_SIGN_MAX];
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autoclose int lock = favo_store_lock(store, LOCK_SH, err), turn = -1;
	char manifest[FAVO_MANIFEST_PATH_SIZE];
	size_t old_len = 0;
	int n, ret;

	if (lock < 0)
		return lock;
	if (!path || !all)
		return favo_fail(err, ENOMEM, "out of memory");
	/* Two who sign one image take turns. */
	turn = openat(store->fd, favo_store_manifest_path(id, manifest),
		      O_RDONLY | O_CLOEXEC);
	if (turn >= 0)
		(void)flock(turn, LOCK_EX);
	ret = favo_store_manifest(store, id, &m, err);
	if (ret < 0)
		return ret;
	n = favo_signature_parse(text, len, added, err);
	if (n < 0)
		return n;
	ret = append(&all, text, NULL, 0, err);
	if (ret == 0 && favo_store_signature(store, id, &old, &old_len, NULL) == 0)
		ret = append(&all, old, added, n, err);
	if (ret == 0)
		ret = favo_signature_parse(all, strlen(all), parsed, err);
	return ret < 0 ? ret : favo_store_replace(store, path, all, strlen(all), err);
}

int favo_store_sign(struct favo_store *store, const struct favo_digest *id,
		    const struct favo_sign_key *key, struct favo_err *err)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *data = NULL, *text = NULL, *comment = NULL;
	char hex[FAVO_DIGEST_TEXT_SIZE];
	size_t len = 0;
	int ret;

	comment = favo_asprintf("image %s", favo_digest_format(id, hex));
	if (!comment)
		return favo_fail(err, ENOMEM, "out of memory");
	if ((ret = favo_store_manifest(store, id, &m, err)) < 0 ||
	    (ret = favo_manifest_format(m->json, &data, &len, err)) < 0 ||
	    (ret = favo_sign(key, comment, data, len, &text, err)) < 0)
		return ret;
	return favo_store_add_signature(store, id, text, strlen(text), err);
}
