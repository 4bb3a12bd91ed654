// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Container image to tree; see oci.h. The path of trust: the digest that the
 * user gave, or the registry's answer to a tag over TLS, then index, manifest
 * and configuration by digest, then every layer twice: the bytes of the blob
 * by the manifest, the tar inside by the configuration.
 *
 * Workers load layers side by side; the caller's thread merges them in their
 * order and shows the progress.
 */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/util.h"
#include "images/oci_internal.h"

#define NESTED_MAX 4 /* an index may name another */
#define WORKERS_MAX 16
#define PROGRESS_MS 200

struct job;

struct layer {
	struct job *job;
	size_t index;
	uint64_t offset; /* read so far */
	struct favo_tree *tree; /* under the job's lock, as done is */
	bool done;
};

struct job {
	struct favo_oci_source *source;
	struct favo_oci_manifest manifest;
	struct favo_digest *diff_ids;
	size_t n_diff_ids;
	struct favo_spool spool;
	_Atomic uint64_t bytes_read;
	struct layer *layers;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	/* under lock */
	size_t next; /* first layer that no worker has */
	int ret;
	struct favo_err err;
	pthread_t workers[WORKERS_MAX];
	size_t n_workers;
};

/* ---- manifest and configuration ---- */

static int check_small(const struct favo_oci_blob *blob, const char *text, size_t len,
		       const char *what, struct favo_err *err)
{
	char name[FAVO_DIGEST_TEXT_SIZE];
	struct favo_digest digest;
	int ret;

	if (!blob->has_digest)
		return 0;
	ret = favo_digest_of(&digest, text, len, err);
	if (ret == 0 && !favo_digest_equal(&digest, &blob->digest))
		return favo_fail(err, EBADMSG, "%s %s: content does not match the digest",
				 what, favo_digest_format(&blob->digest, name));
	return ret;
}

/* From the top document through indexes to the manifest of linux/amd64. */
static int find_manifest(struct favo_oci_source *source, const struct favo_oci_ref *ref,
			 char **out, size_t *out_len, struct favo_digest *digest,
			 struct favo_err *err)
{
	struct favo_oci_blob blob = {.has_digest = ref->has_digest,
				     .digest = ref->digest};
	const char *tag = ref->kind == FAVO_OCI_DOCKER ? NULL : ref->tag;
	favo_autofree char *text = NULL;
	bool index = false;
	size_t len = 0;
	int ret = source->ops->top(source, &text, &len, err);

	for (int i = 0; ret == 0 && i < NESTED_MAX; i++) {
		ret = check_small(&blob, text, len, "manifest", err);
		if (ret == 0)
			ret = favo_oci_is_index(&index, text, len, err);
		if (ret == 0 && !index) {
			ret = favo_digest_of(digest, text, len, err);
			*out_len = len;
			*out = favo_steal_ptr(&text);
			return ret;
		}
		if (ret == 0)
			ret = favo_oci_index_choose(&blob, text, len, tag, err);
		free(favo_steal_ptr(&text));
		if (ret == 0)
			ret = source->ops->small(source, &blob, false, &text, &len, err);
		tag = NULL;
	}
	return ret < 0 ? ret
		       : favo_fail(err, ELOOP, "more than %d indexes, one in the other",
				   NESTED_MAX);
}

static int load_manifest(struct job *job, const struct favo_oci_ref *ref,
			 struct favo_digest *digest, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0;
	int ret;

	if (ref->kind == FAVO_OCI_DOCKER_ARCHIVE) {
		ret = job->source->ops->top(job->source, &text, &len, err);
		return ret < 0 ? ret
			       : favo_oci_docker_parse(&job->manifest, text, len,
						       ref->tag, err);
	}
	ret = find_manifest(job->source, ref, &text, &len, digest, err);
	return ret < 0 ? ret : favo_oci_manifest_parse(&job->manifest, text, len, err);
}

static int load_config(struct job *job, json_t **config, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	size_t len = 0;
	int ret = job->source->ops->small(job->source, &job->manifest.config, true, &text,
					  &len, err);

	if (ret == 0)
		ret = check_small(&job->manifest.config, text, len, "configuration", err);
	if (ret == 0)
		ret = favo_oci_config_parse(&job->diff_ids, &job->n_diff_ids, config,
					    text, len, err);
	if (ret == 0 && job->n_diff_ids != job->manifest.n_layers)
		return favo_fail(err, EBADMSG,
				 "%zu layers in the manifest, %zu in the configuration",
				 job->manifest.n_layers, job->n_diff_ids);
	return ret;
}

/* ---- workers ---- */

static ssize_t read_layer(void *user, void *buf, size_t len, struct favo_err *err)
{
	struct layer *layer = user;
	struct favo_oci_source *source = layer->job->source;
	ssize_t n = source->ops->read(source, layer->index, layer->offset, buf, len, err);

	if (n > 0)
		layer->offset += (uint64_t)n;
	return n;
}

static int load_layer(struct layer *layer, struct favo_tree **tree, struct favo_err *err)
{
	struct job *job = layer->job;
	const struct favo_oci_blob *blob = &job->manifest.layers[layer->index];
	struct favo_layer_source source = {
		.read = read_layer,
		.user = layer,
		.has_digest = blob->has_digest,
		.digest = blob->digest,
		.size = blob->size,
		.diff_id = job->diff_ids[layer->index],
		.done = &job->bytes_read,
	};
	int ret = favo_layer_load(tree, &source, &job->spool, err);

	job->source->ops->drop(job->source, layer->index);
	return ret < 0 ? favo_wrap(err, ret, "layer %zu", layer->index + 1) : 0;
}

static void *work(void *user)
{
	struct job *job = user;

	for (;;) {
		struct favo_tree *tree = NULL;
		struct layer *layer = NULL;
		struct favo_err err = {0};
		int ret;

		pthread_mutex_lock(&job->lock);
		if (job->next < job->manifest.n_layers && job->ret == 0)
			layer = &job->layers[job->next++];
		pthread_mutex_unlock(&job->lock);
		if (!layer)
			return NULL;
		ret = load_layer(layer, &tree, &err);
		if (ret < 0)
			atomic_store(&job->spool.stop, true);
		pthread_mutex_lock(&job->lock);
		layer->tree = tree;
		layer->done = true;
		/* What the first failure stops is no failure of its own. */
		if (ret < 0 && (job->ret == 0 || job->ret == -ECANCELED)) {
			job->ret = ret;
			job->err = err;
		}
		pthread_cond_broadcast(&job->changed);
		pthread_mutex_unlock(&job->lock);
	}
}

static int start_workers(struct job *job, struct favo_err *err)
{
	long cores = sysconf(_SC_NPROCESSORS_ONLN);
	size_t wanted = FAVO_MIN(job->manifest.n_layers, (size_t)WORKERS_MAX);

	wanted = FAVO_MIN(wanted, cores < 1 ? 1 : (size_t)cores);
	job->layers = calloc(job->manifest.n_layers + 1, sizeof(*job->layers));
	if (!job->layers)
		return favo_fail(err, ENOMEM, "out of memory");
	for (size_t i = 0; i < job->manifest.n_layers; i++) {
		job->layers[i].job = job;
		job->layers[i].index = i;
	}
	while (job->n_workers < wanted &&
	       pthread_create(&job->workers[job->n_workers], NULL, work, job) == 0)
		job->n_workers++;
	return job->n_workers || !wanted
		       ? 0
		       : favo_fail(err, EAGAIN, "cannot start a thread");
}

static void stop_workers(struct job *job)
{
	atomic_store(&job->spool.stop, true);
	pthread_mutex_lock(&job->lock);
	job->next = job->manifest.n_layers;
	pthread_mutex_unlock(&job->lock);
	for (size_t i = 0; i < job->n_workers; i++)
		pthread_join(job->workers[i], NULL);
	for (size_t i = 0; job->layers && i < job->manifest.n_layers; i++)
		favo_tree_free(job->layers[i].tree);
	free(job->layers);
}

/* ---- the caller's thread ---- */

/* Wait until a layer is there, showing how far all of them are. */
static int wait_for_layer(struct job *job, struct layer *layer, uint64_t total,
			  const struct favo_oci_params *params, struct favo_err *err)
{
	struct timespec until;
	int ret;

	pthread_mutex_lock(&job->lock);
	while (!layer->done && job->ret == 0) {
		clock_gettime(CLOCK_REALTIME, &until);
		until.tv_nsec += PROGRESS_MS * 1000000;
		until.tv_sec += until.tv_nsec / 1000000000;
		until.tv_nsec %= 1000000000;
		pthread_cond_timedwait(&job->changed, &job->lock, &until);
		pthread_mutex_unlock(&job->lock);
		if (params->progress)
			params->progress("layers", atomic_load(&job->bytes_read), total,
					 params->user);
		pthread_mutex_lock(&job->lock);
	}
	ret = job->ret;
	pthread_mutex_unlock(&job->lock);
	if (ret == -ECANCELED) {
		/* The cause is on its way. */
		stop_workers(job);
		job->layers = NULL;
		job->n_workers = 0;
		ret = job->ret;
	}
	if (ret < 0 && err)
		*err = job->err;
	return ret;
}

static int merge_layers(struct job *job, struct favo_tree *tree, uint64_t total,
			const struct favo_oci_params *params, struct favo_err *err)
{
	int ret = 0;

	for (size_t i = 0; i < job->manifest.n_layers; i++) {
		ret = wait_for_layer(job, &job->layers[i], total, params, err);
		if (ret < 0)
			return ret;
		ret = favo_tree_merge(tree, job->layers[i].tree, err);
		favo_tree_free(favo_steal_ptr(&job->layers[i].tree));
		if (ret < 0)
			return favo_wrap(err, ret, "layer %zu", i + 1);
	}
	if (params->progress && total)
		params->progress("layers", total, total, params->user);
	return 0;
}

static int load_layers(struct job *job, struct favo_tree **out, uint64_t *bytes,
		       const struct favo_oci_params *params, struct favo_err *err)
{
	favo_autotree struct favo_tree *tree = NULL;
	uint64_t total = 0;
	int ret = favo_tree_new(&tree, err);

	if (ret == 0)
		ret = favo_spool_open(&job->spool, params->spool_dir,
				      params->max_bytes ? params->max_bytes
							: FAVO_OCI_SIZE_MAX,
				      FAVO_OCI_MEMBERS_MAX, err);
	if (ret == 0)
		tree->spool_fd = job->spool.fd;
	if (ret == 0)
		ret = job->source->ops->start(job->source, &job->manifest, &job->spool,
					      err);
	if (ret < 0)
		return ret;
	for (size_t i = 0; i < job->manifest.n_layers; i++)
		total += job->source->ops->size(job->source, i);
	ret = start_workers(job, err);
	if (ret == 0)
		ret = merge_layers(job, tree, total, params, err);
	stop_workers(job);
	/* A last hole must have its length. */
	tree->spool_len = job->spool.len;
	if (ret == 0 && ftruncate(tree->spool_fd, (off_t)tree->spool_len) < 0)
		ret = favo_fail(err, errno, "spool file: %m");
	if (ret < 0)
		return ret;
	*bytes = total;
	*out = favo_steal_ptr(&tree);
	return 0;
}

static json_t *make_source(const struct favo_oci_ref *ref,
			   const struct favo_digest *digest, size_t n_layers)
{
	static const char *const kinds[] = {"docker", "oci", "oci-archive",
					    "docker-archive"};
	favo_autofree char *name =
		ref->kind == FAVO_OCI_DOCKER ? favo_oci_ref_format(ref) : NULL;
	char text[FAVO_DIGEST_TEXT_SIZE];
	json_t *source = json_pack("{s:s, s:I}", "kind", kinds[ref->kind], "layers",
				   (json_int_t)n_layers);

	/* Where a file was says nothing to others, and would change the image's id. */
	if (source && name)
		json_object_set_new(source, "name", json_string(name));
	if (source && ref->kind != FAVO_OCI_DOCKER_ARCHIVE)
		json_object_set_new(source, "digest",
				    json_string(favo_digest_format(digest, text)));
	return source;
}

static int open_source(struct job *job, const struct favo_oci_ref *ref,
		       const struct favo_oci_params *params, struct favo_err *err)
{
	return ref->kind == FAVO_OCI_DOCKER
		       ? favo_oci_open_registry(&job->source, ref, params,
						&job->spool.stop, err)
		       : favo_oci_open_layout(&job->source, ref, params, err);
}

int favo_oci_load(struct favo_tree **tree, struct favo_oci_image *image,
		  const struct favo_oci_ref *ref, const struct favo_oci_params *params,
		  struct favo_err *err)
{
	struct job job = {.lock = PTHREAD_MUTEX_INITIALIZER,
			  .changed = PTHREAD_COND_INITIALIZER};
	struct favo_oci_image filled = {0};
	int ret = open_source(&job, ref, params, err);

	if (ret == 0)
		ret = load_manifest(&job, ref, &filled.digest, err);
	if (ret == 0)
		ret = load_config(&job, &filled.config, err);
	filled.n_layers = job.manifest.n_layers;
	if (ret == 0)
		filled.source = make_source(ref, &filled.digest, filled.n_layers);
	if (ret == 0 && !filled.source)
		ret = favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = load_layers(&job, tree, &filled.bytes, params, err);
	atomic_store(&job.spool.stop, true);
	if (job.source)
		job.source->ops->free(job.source);
	favo_oci_manifest_fini(&job.manifest);
	free(job.diff_ids);
	if (ret < 0) {
		favo_oci_image_fini(&filled);
		return ret;
	}
	*image = filled;
	return 0;
}

int favo_oci_resolve(struct favo_digest *digest, const struct favo_oci_ref *ref,
		     const struct favo_oci_params *params, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	struct job job = {0};
	size_t len;
	int ret = ref->kind == FAVO_OCI_DOCKER_ARCHIVE
			  ? favo_fail(err, ENOTSUP, "has no digest")
			  : open_source(&job, ref, params, err);

	if (ret == 0)
		ret = find_manifest(job.source, ref, &text, &len, digest, err);
	if (job.source)
		job.source->ops->free(job.source);
	return ret;
}

void favo_oci_image_fini(struct favo_oci_image *image)
{
	json_decref(image->config);
	json_decref(image->source);
	*image = (struct favo_oci_image){0};
}
