// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Routes of the image catalogue: names, manifests, and blobs in their stored
 * form. Blobs are not checked here: who decodes one does it.
 */
#include "provision/favod/favod.h"

#include <errno.h>
#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "common/json.h"
#include "common/util.h"
#include "images/import.h"

#define BLOBS_MAX 256
#define NEAR_MAX 5

/* What a listing says of one image; NULL when its manifest cannot be read. */
static json_t *describe(struct favo_favod *d, const char *name, const char *tag,
			const struct favo_digest *id, int64_t time)
{
	favo_automanifest struct favo_manifest *m = NULL;
	char digest[FAVO_DIGEST_TEXT_SIZE];

	if (favo_store_manifest(d->store, id, &m, NULL) < 0)
		return NULL;
	return json_pack("{s:s s:s s:s s:I s:I s:s s:s s:s}", "name", name, "tag", tag,
			 "digest", favo_digest_format(id, digest), "time",
			 (json_int_t)time, "size",
			 (json_int_t)favo_manifest_total_size(m), "os", m->os_pretty,
			 "kernel", m->kernel.release, "kernel_source", m->kernel.source);
}

static void list_images(struct favo_favod *d, struct favo_call *call)
{
	struct favo_store_ref *refs = NULL;
	struct favo_err err = {0};
	json_t *list = json_array();
	size_t n = 0;

	if (favo_store_list(d->store, &refs, &n, &err) < 0) {
		json_decref(list);
		favo_call_fail(call, &err);
		return;
	}
	for (size_t i = 0; i < n; i++) {
		json_t *image =
			describe(d, refs[i].name, refs[i].tag, &refs[i].id, refs[i].time);

		if (image)
			json_array_append_new(list, image);
	}
	favo_store_refs_free(refs, n);
	favo_call_json(call, MHD_HTTP_OK, json_pack("{s:o}", "images", list));
}

void favo_image_unknown(struct favo_favod *d, struct favo_call *call, const char *text)
{
	json_t *near = json_array();
	char *names[NEAR_MAX] = {NULL};
	char remedy[512] = "did you mean ";
	int n = favo_store_near(d->store, text, names, NEAR_MAX, NULL);

	for (int i = 0; i < n; i++) {
		const char *before = i == 0 ? "" : i == n - 1 ? " or " : ", ";
		size_t len = strlen(remedy);

		snprintf(remedy + len, sizeof(remedy) - len, "%s%s%s", before, names[i],
			 i == n - 1 ? "?" : "");
		json_array_append_new(near, json_string(names[i]));
		free(names[i]);
	}
	favo_call_error(call, MHD_HTTP_NOT_FOUND,
			n > 0 ? remedy : "favo image ls lists the images there are", near,
			"there is no image \"%.200s\"", text);
}

static void show_image(struct favo_favod *d, struct favo_call *call)
{
	favo_automanifest struct favo_manifest *m = NULL;
	char digest[FAVO_DIGEST_TEXT_SIZE];
	struct favo_err err = {0};
	struct favo_image_name name;
	struct favo_digest id;
	int ret;

	ret = favo_store_resolve(d->store, call->tail, &id, &err);
	if (ret == -ENOENT) {
		favo_image_unknown(d, call, call->tail);
		return;
	}
	if (ret == 0)
		ret = favo_image_name_parse(&name, call->tail, &err);
	if (ret == 0)
		ret = favo_store_manifest(d->store, &id, &m, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	favo_call_json(call, MHD_HTTP_OK,
		       json_pack("{s:s s:s s:s s:I s:O}", "name", name.name, "tag",
				 name.tag, "digest", favo_digest_format(&id, digest),
				 "size", (json_int_t)favo_manifest_total_size(m),
				 "manifest", m->json));
}

/* "DIGEST.sig" */
static void get_signature(struct favo_favod *d, struct favo_call *call)
{
	char digest[FAVO_DIGEST_TEXT_SIZE] = "";
	struct favo_err err = {0};
	struct favo_digest id;
	char *text = NULL;
	size_t len = 0;
	int ret;

	memcpy(digest, call->tail, FAVO_MIN(strlen(call->tail), sizeof(digest) - 1));
	ret = favo_digest_parse(&id, digest, &err);
	if (ret == 0)
		ret = favo_store_signature(d->store, &id, &text, &len, &err);
	if (ret == -ENOENT)
		ret = favo_fail(&err, ENOENT, "image %.19s is not signed", digest);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response =
		MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (!call->response)
		free(text);
}

void favo_image_get_manifest(struct favo_favod *d, struct favo_call *call)
{
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_err err = {0};
	struct favo_digest id;
	char *text = NULL;
	size_t len = 0;
	int ret;

	if (strlen(call->tail) == FAVO_DIGEST_TEXT_SIZE - 1 + strlen(".sig") &&
	    strcmp(call->tail + FAVO_DIGEST_TEXT_SIZE - 1, ".sig") == 0) {
		get_signature(d, call);
		return;
	}
	ret = favo_digest_parse(&id, call->tail, &err);
	if (ret == 0)
		ret = favo_store_manifest(d->store, &id, &m, &err);
	if (ret == 0)
		ret = favo_manifest_format(m->json, &text, &len, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response =
		MHD_create_response_from_buffer(len, text, MHD_RESPMEM_MUST_FREE);
	if (!call->response)
		free(text);
	else
		MHD_add_response_header(call->response, MHD_HTTP_HEADER_CONTENT_TYPE,
					"application/json");
}

static void get_blob(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	struct favo_digest digest;
	uint64_t size = 0;
	int fd;

	fd = favo_digest_parse(&digest, call->tail, &err);
	if (fd == 0)
		fd = favo_store_open_blob(d->store, &digest, &size, &err);
	if (fd < 0) {
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response = MHD_create_response_from_fd64(size, fd); /* owns fd; sendfile */
	if (!call->response)
		close(fd);
}

/*
 * Many blobs in one answer: each as its length, four bytes little-endian, and
 * its bytes. Lengths are known before the first byte goes out; files are
 * opened again one by one when their turn comes, so that no answer holds more
 * than one descriptor.
 */
struct batch {
	struct favo_store *store;
	size_t n, at; /* blobs, and which one is being sent */
	uint64_t pos; /* in blob at, its length field included */
	int fd; /* of blob at, or -1 */
	struct {
		struct favo_digest digest;
		uint32_t size;
	} blobs[];
};

static void batch_free(void *ctx)
{
	struct batch *b = ctx;

	favo_close(&b->fd);
	free(b);
}

/* Open blob at, which must be as long as it was when the answer began. */
static int batch_open(struct batch *b)
{
	uint64_t size = 0;

	if (b->fd >= 0)
		return 0;
	b->fd = favo_store_open_blob(b->store, &b->blobs[b->at].digest, &size, NULL);
	return b->fd >= 0 && size == b->blobs[b->at].size ? 0 : -EIO;
}

static ssize_t batch_read(void *ctx, uint64_t offset, char *buf, size_t room)
{
	struct batch *b = ctx;
	size_t done = 0;

	(void)offset; /* libmicrohttpd reads in order */
	while (b->at < b->n && done < room) {
		uint32_t size = b->blobs[b->at].size;
		uint64_t total = (uint64_t)size + 4;
		ssize_t n = 1;

		if (b->pos < 4) {
			buf[done] = (char)(size >> (8 * b->pos));
		} else if (b->pos < total) {
			if (batch_open(b) < 0)
				return MHD_CONTENT_READER_END_WITH_ERROR;
			n = pread(b->fd, buf + done,
				  FAVO_MIN(room - done, total - b->pos),
				  (off_t)(b->pos - 4));
			if (n <= 0)
				return MHD_CONTENT_READER_END_WITH_ERROR;
		}
		done += (size_t)n;
		b->pos += (uint64_t)n;
		if (b->pos >= total) {
			favo_close(&b->fd);
			b->pos = 0;
			b->at++;
		}
	}
	return done ? (ssize_t)done : MHD_CONTENT_READER_END_OF_STREAM;
}

/* Fill the batch from the request; *total is the length of the answer. */
static int batch_plan(struct batch *b, const json_t *digests, uint64_t *total,
		      struct favo_err *err)
{
	const json_t *item;
	size_t i;

	json_array_foreach(digests, i, item)
	{
		const char *text = json_string_value(item);
		uint64_t size = 0;
		int fd;

		if (!text)
			return favo_fail(err, EINVAL, "digests[%zu] is no text", i);
		fd = favo_digest_parse(&b->blobs[i].digest, text, err);
		if (fd < 0)
			return favo_wrap(err, fd, "digests[%zu]", i);
		fd = favo_store_open_blob(b->store, &b->blobs[i].digest, &size, err);
		if (fd < 0)
			return fd;
		close(fd);
		if (size > UINT32_MAX)
			return favo_fail(err, EINVAL, "digests[%zu]: get this blob alone",
					 i);
		b->blobs[i].size = (uint32_t)size;
		*total += size + 4;
		b->n++;
	}
	return 0;
}

void favo_image_post_blobs(struct favo_favod *d, struct favo_call *call)
{
	static const char *const known[] = {"digests", NULL};
	favo_autojson json_t *body = NULL;
	struct favo_err err = {0};
	struct batch *b = NULL;
	json_t *digests = NULL;
	uint64_t total = 0;
	int ret;

	ret = favo_json_parse(&body, call->body, call->len, &err);
	if (ret == 0)
		ret = favo_json_only(body, known, &err);
	if (ret == 0)
		ret = favo_json_array(&digests, body, "digests", &err);
	if (ret == 0 &&
	    (json_array_size(digests) == 0 || json_array_size(digests) > BLOBS_MAX))
		ret = favo_fail(&err, EINVAL, "digests: 1 to %d can be asked for at once",
				BLOBS_MAX);
	if (ret == 0) {
		b = calloc(1,
			   sizeof(*b) + json_array_size(digests) * sizeof(b->blobs[0]));
		if (!b) {
			favo_call_fail(call, &(struct favo_err){.code = ENOMEM,
								.msg = "no memory"});
			return;
		}
		b->store = d->store;
		b->fd = -1;
		ret = batch_plan(b, digests, &total, &err);
	}
	if (ret < 0) {
		free(b);
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response = MHD_create_response_from_callback(total, 256u << 10, batch_read,
							   b, batch_free);
	if (!call->response)
		batch_free(b);
}

/* What images without a kernel boot, for those who make them elsewhere. */
static void get_site_boot(struct favo_favod *d, struct favo_call *call)
{
	struct favo_err err = {0};
	json_t *boot = NULL;

	if (!d->conf.site_kernel[0]) {
		favo_call_error(call, MHD_HTTP_NOT_FOUND,
				"set site_kernel and site_modules in its favo.conf", NULL,
				"favod's host has no kernel for images without one");
		return;
	}
	if (favo_import_site_boot(d->store, d->conf.site_kernel, d->conf.site_modules,
				  &boot, &err) < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, boot);
}

const struct favo_route favo_image_routes[] = {
	{"GET", "/v1/site-boot", 0, false, get_site_boot},
	{"GET", "/v1/images", 0, false, list_images},
	{"GET", "/v1/images/", 0, false, show_image},
	{"GET", "/v1/manifests/", 0, false, favo_image_get_manifest},
	{"GET", "/v1/blobs/", 0, false, get_blob},
	{"POST", "/v1/blobs", 32u << 10, false, favo_image_post_blobs},
	{0},
};
