// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Is an image signed by a key that this node trusts? Manifest and signature
 * come from favod and are kept in state_dir/trust, so that a node asks once
 * per image; what is kept is judged again for each job, against the keys of
 * that moment.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/http.h"
#include "common/util.h"
#include "images/sign.h"
#include "provision/noded/noded.h"

#define TIMEOUT_MS 20000
#define KEPT_MAX 2000 /* files */

struct proof {
	char *manifest, *signature;
	size_t manifest_len, signature_len;
};

static void proof_fini(struct proof *p)
{
	free(p->manifest);
	free(p->signature);
	*p = (struct proof){0};
}

static int judge(const struct favo_sign_keys *keys, const struct favo_digest *id,
		 const struct proof *p, struct favo_err *err)
{
	struct favo_digest actual;
	int ret = favo_digest_of(&actual, p->manifest, p->manifest_len, err);

	if (ret < 0)
		return ret;
	if (!favo_digest_equal(&actual, id))
		return favo_fail(err, EBADMSG,
				 "the manifest does not match the image's digest");
	return favo_sign_verify(keys, p->signature, p->signature_len, p->manifest,
				p->manifest_len, NULL, err);
}

static char *kept_path(const struct noded *nd, const struct favo_digest *id,
		       const char *suffix)
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	return favo_asprintf("%s/trust/%s%s", nd->conf->state_dir,
			     favo_digest_format_hex(id, hex), suffix);
}

static int load_kept(const struct noded *nd, const struct favo_digest *id,
		     struct proof *p)
{
	favo_autofree char *manifest = kept_path(nd, id, ".json");
	favo_autofree char *signature = kept_path(nd, id, ".sig");
	int ret = manifest && signature ? 0 : -ENOMEM;

	if (ret == 0)
		ret = favo_file_read(manifest, FAVO_MANIFEST_MAX, &p->manifest,
				     &p->manifest_len, NULL);
	if (ret == 0)
		ret = favo_file_read(signature, FAVO_SIGN_FILE_MAX, &p->signature,
				     &p->signature_len, NULL);
	return ret;
}

/* Bounded: when there are very many, all go and are asked for again. */
static void prune(const char *dir)
{
	DIR *folder = opendir(dir);
	struct dirent *entry;
	size_t n = 0;

	while (folder && (entry = readdir(folder)))
		n++;
	if (folder)
		rewinddir(folder);
	while (folder && n > KEPT_MAX && (entry = readdir(folder)))
		if (entry->d_name[0] != '.')
			(void)unlinkat(dirfd(folder), entry->d_name, 0);
	if (folder)
		closedir(folder);
}

/* Only to spare a question later: a failure costs no more than that. */
static void keep(const struct noded *nd, const struct favo_digest *id,
		 const struct proof *p)
{
	favo_autofree char *dir = favo_asprintf("%s/trust", nd->conf->state_dir);
	favo_autofree char *manifest = kept_path(nd, id, ".json");
	favo_autofree char *signature = kept_path(nd, id, ".sig");

	if (!dir || !manifest || !signature || favo_mkdirs(dir, 0700, NULL) < 0)
		return;
	prune(dir);
	if (favo_file_replace(manifest, p->manifest, p->manifest_len, 0600, NULL) >= 0)
		(void)!favo_file_replace(signature, p->signature, p->signature_len, 0600,
					 NULL);
}

static int get(struct favo_http *http, const char *path, const char *missing, char **body,
	       size_t *len, struct favo_err *err)
{
	struct favo_http_reply reply = {0};
	int ret = favo_http_request(http, "GET", path, NULL, 0, &reply, err);

	if (ret < 0)
		return ret;
	if (reply.status == 200) {
		*body = favo_steal_ptr(&reply.body);
		*len = reply.len;
	} else if (reply.status == 404) {
		ret = favo_fail(err, EKEYREJECTED, "%s", missing);
	} else {
		ret = favo_fail(err, EIO, "favod answers %s with HTTP %ld", path,
				reply.status);
	}
	favo_http_reply_fini(&reply);
	return ret;
}

static int ask_favod(const struct noded *nd, const struct favo_digest *id,
		     struct proof *p, struct favo_err *err)
{
	const struct favo_http_params params = {.base_url = nd->conf->favod_url,
						.munge_socket = nd->conf->munge_socket,
						.timeout_ms = TIMEOUT_MS,
						.max_reply = FAVO_MANIFEST_MAX};
	favo_autohttp struct favo_http *http = NULL;
	favo_autofree char *path = NULL, *sig_path = NULL;
	char text[FAVO_DIGEST_TEXT_SIZE];
	int ret;

	path = favo_asprintf("/v1/manifests/%s", favo_digest_format(id, text));
	sig_path = favo_asprintf("/v1/manifests/%s.sig", text);
	if (!path || !sig_path)
		return favo_fail(err, ENOMEM, "out of memory");
	if ((ret = favo_http_new(&http, &params, err)) < 0 ||
	    (ret = get(http, path, "favod has no such image", &p->manifest,
		       &p->manifest_len, err)) < 0)
		return ret;
	return get(http, sig_path, "it is not signed", &p->signature, &p->signature_len,
		   err);
}

int favo_trust_check(const struct noded *nd, const struct favo_digest *id,
		     struct favo_err *err)
{
	favo_autosignkeys struct favo_sign_keys *keys = NULL;
	struct proof p = {0};
	int ret;

	if (strcmp(nd->conf->image_trust, "any") == 0)
		return 0;
	ret = favo_sign_keys_load(&keys, nd->conf->image_keys, err);
	if (ret < 0)
		return ret;
	ret = load_kept(nd, id, &p);
	if (ret == 0)
		ret = judge(keys, id, &p, NULL);
	if (ret < 0) {
		/* Absent, damaged, or signed anew since. */
		proof_fini(&p);
		ret = ask_favod(nd, id, &p, err);
		if (ret == 0)
			ret = judge(keys, id, &p, err);
		if (ret == 0)
			keep(nd, id, &p);
	}
	proof_fini(&p);
	return ret;
}
