// SPDX-License-Identifier: GPL-2.0-or-later
/* MUNGE authentication of requests; see munge_auth.h. */
#include "common/munge_auth.h"

#include <errno.h>
#include <munge.h>
#include <stdlib.h>
#include <string.h>

#include "common/sha256.h"
#include "common/util.h"

static int new_ctx(munge_ctx_t *out, const char *socket, struct favo_err *err)
{
	munge_ctx_t ctx = munge_ctx_create();

	if (!ctx)
		return favo_fail(err, ENOMEM, "munge: %m");
	if (socket && *socket &&
	    munge_ctx_set(ctx, MUNGE_OPT_SOCKET, socket) != EMUNGE_SUCCESS) {
		munge_ctx_destroy(ctx);
		return favo_fail(err, EINVAL, "munge: bad socket path %s", socket);
	}
	*out = ctx;
	return 0;
}

static int make_payload(char **out, const char *method, const char *path,
			const void *body, size_t len, struct favo_err *err)
{
	char hex[FAVO_SHA256_HEX];
	int ret = favo_sha256_hex(hex, body, len, err);

	if (ret < 0)
		return ret;
	*out = favo_asprintf("%s\n%s\n%s", method, path, hex);
	return *out ? 0 : favo_fail(err, ENOMEM, "munge: %m");
}

/* errno value for a failure of libmunge. */
static int munge_code(munge_err_t code)
{
	switch (code) {
	case EMUNGE_SOCKET:
	case EMUNGE_TIMEOUT:
		return ECONNREFUSED;
	case EMUNGE_NO_MEMORY:
		return ENOMEM;
	default:
		return EACCES;
	}
}

int favo_munge_sign(char **cred, const char *socket, const char *method, const char *path,
		    const void *body, size_t len, struct favo_err *err)
{
	favo_autofree char *payload = NULL;
	munge_ctx_t ctx;
	munge_err_t code;
	int ret = make_payload(&payload, method, path, body, len, err);

	if (ret == 0)
		ret = new_ctx(&ctx, socket, err);
	if (ret < 0)
		return ret;
	code = munge_encode(cred, ctx, payload, (int)strlen(payload));
	if (code != EMUNGE_SUCCESS)
		ret = favo_fail(err, munge_code(code),
				"munge: %s; is munged running here?",
				munge_ctx_strerror(ctx) ? munge_ctx_strerror(ctx)
							: munge_strerror(code));
	munge_ctx_destroy(ctx);
	return ret;
}

int favo_munge_verify(const char *cred, const char *socket, const char *method,
		      const char *path, const void *body, size_t len, uid_t *uid,
		      gid_t *gid, struct favo_err *err)
{
	favo_autofree char *payload = NULL;
	favo_autofree void *signed_text = NULL;
	int signed_len = 0;
	munge_ctx_t ctx;
	munge_err_t code;
	uid_t cred_uid;
	gid_t cred_gid;
	int ret = make_payload(&payload, method, path, body, len, err);

	if (ret == 0)
		ret = new_ctx(&ctx, socket, err);
	if (ret < 0)
		return ret;
	code = munge_decode(cred, ctx, &signed_text, &signed_len, &cred_uid, &cred_gid);
	munge_ctx_destroy(ctx);
	if (code != EMUNGE_SUCCESS)
		return favo_fail(err, munge_code(code), "munge: %s",
				 munge_strerror(code));
	if (signed_len < 0 || (size_t)signed_len != strlen(payload) ||
	    memcmp(signed_text, payload, strlen(payload)) != 0)
		return favo_fail(err, EACCES,
				 "munge: the credential is for another request");
	*uid = cred_uid;
	*gid = cred_gid;
	return 0;
}
