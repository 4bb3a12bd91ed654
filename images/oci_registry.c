// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Container images in registries: layers are downloaded by some threads, in
 * order, each to an unlinked file, and read from there while they grow. So a
 * slow reader never makes a server wait, and a broken transfer goes on where
 * it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/util.h"
#include "images/oci_internal.h"
#include "images/registry.h"

#define DOWNLOADS 4 /* at a time */

struct download {
	int fd;
	uint64_t size;
	struct favo_digest digest;
	struct remote *remote;
	/* under the lock of remote */
	uint64_t have;
	int ret; /* < 0: it failed, err says why */
	struct favo_err err;
};

struct remote {
	struct favo_oci_source source;
	struct favo_registry *registry;
	struct favo_registry_conn *conn; /* of the caller's thread */
	char *reference; /* "manifests/..." */
	const char *spool_dir;
	const atomic_bool *stop;
	struct download *downloads;
	size_t n;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	size_t next; /* under lock: first download that nobody has taken */
	pthread_t threads[DOWNLOADS];
	size_t n_threads;
};

static struct remote *remote_of(struct favo_oci_source *source)
{
	return favo_container_of(source, struct remote, source);
}

static int remote_top(struct favo_oci_source *source, char **text, size_t *len,
		      struct favo_err *err)
{
	struct remote *r = remote_of(source);

	return favo_registry_get(r->conn, r->reference, FAVO_OCI_JSON_MAX, text, len,
				 err);
}

static int remote_small(struct favo_oci_source *source, const struct favo_oci_blob *blob,
			bool is_blob, char **text, size_t *len, struct favo_err *err)
{
	char path[16 + FAVO_DIGEST_TEXT_SIZE];

	snprintf(path, sizeof(path), "%s/", is_blob ? "blobs" : "manifests");
	favo_digest_format(&blob->digest, path + strlen(path));
	return favo_registry_get(remote_of(source)->conn, path, FAVO_OCI_JSON_MAX, text,
				 len, err);
}

/* ---- downloading threads ---- */

static int save(void *user, const void *data, size_t len, struct favo_err *err)
{
	struct download *d = user;
	size_t done = 0;
	ssize_t n;

	if (len > d->size - d->have)
		return favo_fail(err, EBADMSG,
				 "the registry sends more bytes than the manifest says");
	while (done < len) {
		n = pwrite(d->fd, (const char *)data + done, len - done,
			   (off_t)(d->have + done));
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return favo_fail(err, n < 0 ? errno : ENOSPC,
					 "downloaded layer: %m");
		done += (size_t)n;
	}
	pthread_mutex_lock(&d->remote->lock);
	d->have += len;
	pthread_cond_broadcast(&d->remote->changed);
	pthread_mutex_unlock(&d->remote->lock);
	return 0;
}

static void fail_download(struct download *d, int ret, const struct favo_err *err)
{
	pthread_mutex_lock(&d->remote->lock);
	d->ret = ret;
	d->err = *err;
	pthread_cond_broadcast(&d->remote->changed);
	pthread_mutex_unlock(&d->remote->lock);
}

static void *download_thread(void *user)
{
	struct remote *r = user;
	favo_autoregistryconn struct favo_registry_conn *conn = NULL;
	struct favo_err err = {0};
	int ret = favo_registry_connect(&conn, r->registry, &err);

	for (;;) {
		struct download *d = NULL;

		pthread_mutex_lock(&r->lock);
		if (r->next < r->n)
			d = &r->downloads[r->next++];
		pthread_mutex_unlock(&r->lock);
		if (!d)
			return NULL;
		if (ret == 0 && d->size)
			ret = favo_registry_blob(conn, &d->digest, d->size, save, d,
						 &err);
		if (ret < 0)
			fail_download(d, ret, &err);
	}
}

static int remote_start(struct favo_oci_source *source,
			const struct favo_oci_manifest *manifest,
			struct favo_spool *spool, struct favo_err *err)
{
	struct remote *r = remote_of(source);
	size_t wanted = FAVO_MIN(manifest->n_layers, (size_t)DOWNLOADS);

	(void)spool;
	r->downloads = calloc(manifest->n_layers + 1, sizeof(*r->downloads));
	if (!r->downloads)
		return favo_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < manifest->n_layers; i++) {
		struct download *d = &r->downloads[i];

		d->remote = r;
		d->size = manifest->layers[i].size;
		d->digest = manifest->layers[i].digest;
		d->fd = open(r->spool_dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
		if (d->fd < 0)
			return favo_fail(err, errno, "%s: %m", r->spool_dir);
		r->n++;
	}
	while (r->n_threads < wanted &&
	       pthread_create(&r->threads[r->n_threads], NULL, download_thread, r) == 0)
		r->n_threads++;
	return r->n_threads || !wanted ? 0
				       : favo_fail(err, EAGAIN, "cannot start a thread");
}

/* ---- readers ---- */

static ssize_t remote_read(struct favo_oci_source *source, size_t i, uint64_t offset,
			   void *buf, size_t len, struct favo_err *err)
{
	struct remote *r = remote_of(source);
	struct download *d = &r->downloads[i];
	uint64_t have;
	ssize_t n;
	int ret;

	pthread_mutex_lock(&r->lock);
	while (d->have <= offset && offset < d->size && d->ret == 0)
		pthread_cond_wait(&r->changed, &r->lock);
	have = d->have;
	ret = d->ret;
	if (ret < 0 && have <= offset && err)
		*err = d->err;
	pthread_mutex_unlock(&r->lock);
	if (have <= offset)
		return ret;
	len = FAVO_MIN(len, have - offset);
	do
		n = pread(d->fd, buf, len, (off_t)offset);
	while (n < 0 && errno == EINTR);
	return n < 0 ? favo_fail(err, errno, "downloaded layer: %m") : n;
}

static uint64_t remote_size(struct favo_oci_source *source, size_t i)
{
	return remote_of(source)->downloads[i].size;
}

/* Give the space back as soon as the layer is in the tree. */
static void remote_drop(struct favo_oci_source *source, size_t i)
{
	struct download *d = &remote_of(source)->downloads[i];

	if (ftruncate(d->fd, 0) < 0) {
		/* It goes with the last descriptor, too. */
	}
}

static void remote_free(struct favo_oci_source *source)
{
	struct remote *r = remote_of(source);

	pthread_mutex_lock(&r->lock);
	r->next = r->n;
	pthread_mutex_unlock(&r->lock);
	for (size_t i = 0; i < r->n_threads; i++)
		pthread_join(r->threads[i], NULL);
	for (size_t i = 0; i < r->n; i++)
		close(r->downloads[i].fd);
	free(r->downloads);
	favo_registry_disconnect(r->conn);
	favo_registry_free(r->registry);
	free(r->reference);
	pthread_mutex_destroy(&r->lock);
	pthread_cond_destroy(&r->changed);
	free(r);
}

static const struct favo_oci_source_ops remote_ops = {
	.top = remote_top,
	.small = remote_small,
	.start = remote_start,
	.read = remote_read,
	.size = remote_size,
	.drop = remote_drop,
	.free = remote_free,
};

int favo_oci_open_registry(struct favo_oci_source **out, const struct favo_oci_ref *ref,
			   const struct favo_oci_params *params, const atomic_bool *stop,
			   struct favo_err *err)
{
	struct remote *r = calloc(1, sizeof(*r));
	char digest[FAVO_DIGEST_TEXT_SIZE];
	int ret;

	if (!r)
		return favo_fail(err, ENOMEM, "out of memory");
	r->source.ops = &remote_ops;
	r->stop = stop;
	r->spool_dir = params->spool_dir;
	pthread_mutex_init(&r->lock, NULL);
	pthread_cond_init(&r->changed, NULL);
	r->reference = favo_asprintf(
		"manifests/%s", ref->has_digest ? favo_digest_format(&ref->digest, digest)
				: ref->tag	? ref->tag
						: "latest");
	ret = r->reference ? favo_registry_new(&r->registry, ref, params->http_hosts,
					       stop, err)
			   : favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = favo_registry_connect(&r->conn, r->registry, err);
	if (ret < 0) {
		remote_free(&r->source);
		return ret;
	}
	*out = &r->source;
	return 0;
}
