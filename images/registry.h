/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Client of container registries (OCI distribution-spec, Docker's token
 * authentication). TLS always, but for hosts that the configuration names.
 *
 * Credentials are looked for in files of the user, never on the command line:
 *   $FAVO_CREDENTIALS, else ~/.config/favo/credentials (netrc format, mode 0600)
 *   $REGISTRY_AUTH_FILE, $XDG_RUNTIME_DIR/containers/auth.json,
 *   $DOCKER_CONFIG/config.json or ~/.docker/config.json (member "auths")
 * They go to the registry and to the token server that it names, a token goes
 * to the registry only: both stay behind when a redirect leaves for another
 * host.
 */
#pragma once

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "common/err.h"
#include "images/oci.h"

/* ---- authentication ---- */

/* WWW-Authenticate (RFC 7235, 4.1): the challenge that we can meet. */
struct favo_challenge {
	bool bearer; /* else basic */
	char *realm, *service, *scope; /* of bearer; the latter two may be NULL */
};

/*
 * Best challenge of one header value, bearer before basic. -ENOTSUP when
 * there is none of these, -EBADMSG when it is malformed.
 */
int favo_challenge_parse(struct favo_challenge *out, const char *header,
			 struct favo_err *err);
void favo_challenge_fini(struct favo_challenge *challenge);

struct favo_credentials {
	char *user, *password;
};

/*
 * What the user's files hold for host; user NULL takes any. -ENOENT: nothing,
 * which for a named user comes with a sentence that says where it was looked.
 * -EACCES: the file is readable by others.
 */
int favo_credentials_find(struct favo_credentials *out, const char *host,
			  const char *user, struct favo_err *err);
void favo_credentials_fini(struct favo_credentials *credentials);
/* The two formats, for the above and its tests; -ENOENT when host is not there. */
int favo_credentials_netrc(struct favo_credentials *out, char *text, const char *host,
			   const char *user);
int favo_credentials_docker(struct favo_credentials *out, const char *text, size_t len,
			    const char *host, const char *user, struct favo_err *err);

/* ---- requests ---- */

struct favo_registry; /* shared by threads */
struct favo_registry_conn; /* of one thread */

int favo_registry_new(struct favo_registry **out, const struct favo_oci_ref *ref,
		      const char *http_hosts, const atomic_bool *stop,
		      struct favo_err *err);
void favo_registry_free(struct favo_registry *registry);
int favo_registry_connect(struct favo_registry_conn **out, struct favo_registry *registry,
			  struct favo_err *err);
void favo_registry_disconnect(struct favo_registry_conn *conn);

/*
 * Manifest or index by tag or digest, "manifests/latest", or a small blob. At
 * most max bytes; the caller frees *data, which has a NUL behind it.
 * -ENOENT, -EACCES with what to do. Retries what may pass.
 */
int favo_registry_get(struct favo_registry_conn *conn, const char *path, size_t max,
		      char **data, size_t *len, struct favo_err *err);

/* Bytes of a blob in order; < 0 ends the transfer with that error. */
typedef int favo_registry_sink_fn(void *user, const void *data, size_t len,
				  struct favo_err *err);
/*
 * A whole blob of size bytes. What breaks off is taken up where it was, by
 * Range. Digests are the caller's matter.
 */
int favo_registry_blob(struct favo_registry_conn *conn, const struct favo_digest *digest,
		       uint64_t size, favo_registry_sink_fn *sink, void *user,
		       struct favo_err *err);

static inline void favo_cleanup_registry_conn(struct favo_registry_conn **conn)
{
	favo_registry_disconnect(*conn);
}
#define favo_autoregistryconn __attribute__((cleanup(favo_cleanup_registry_conn)))
