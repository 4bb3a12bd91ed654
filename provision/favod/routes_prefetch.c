// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * In which order a start reads an image: a list of chunk numbers per manifest,
 * told by the node that started it lazily, given to the next one. A hint and
 * no more: it is kept beside the store as prefetch/<hex>, and whoever uses it
 * checks the numbers and verifies every chunk.
 */
#include <errno.h>
#include <string.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/partial.h"
#include "provision/favod/favod.h"

/* The file of the image that the request names, which must be in the store. */
static int find_file(struct favo_favod *d, const struct favo_call *call,
		     struct favo_manifest **m, char path[512], struct favo_err *err)
{
	char hex[FAVO_DIGEST_HEX_SIZE];
	struct favo_digest id;
	int ret = favo_digest_parse(&id, call->tail, err);

	if (ret == 0)
		ret = favo_store_manifest(d->store, &id, m, err);
	if (ret == 0)
		snprintf(path, 512, "%s/prefetch/%s", d->conf.store_dir,
			 favo_digest_format_hex(&id, hex));
	return ret;
}

static void get_prefetch(struct favo_favod *d, struct favo_call *call)
{
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_err err = {0};
	char path[512], *data = NULL;
	size_t len = 0;
	int ret = find_file(d, call, &m, path, &err);

	if (ret == 0)
		ret = favo_file_read(path, FAVO_TRACE_MAX, &data, &len, &err);
	if (ret < 0) {
		favo_call_fail(call, &err);
		return;
	}
	call->status = MHD_HTTP_OK;
	call->response =
		MHD_create_response_from_buffer(len, data, MHD_RESPMEM_MUST_FREE);
	if (!call->response)
		free(data);
}

/* Numbers beyond the index are refused, so that the file is one for all nodes. */
static int check_trace(struct favo_favod *d, const struct favo_manifest *m,
		       const struct favo_call *call, struct favo_err *err)
{
	favo_autofree uint32_t *chunks = NULL;
	favo_autofree void *bytes = NULL;
	size_t len = 0, n = 0;
	int ret;

	ret = favo_store_read_blob(d->store, &m->root.index, 256u << 20, &bytes, &len,
				   err);
	if (ret == 0)
		ret = favo_trace_parse(&chunks, &n, call->body, call->len,
				       len / FAVO_INDEX_ENTRY_LEN, err);
	if (ret == -EBADMSG)
		err->code = EINVAL;
	return ret;
}

static void put_prefetch(struct favo_favod *d, struct favo_call *call)
{
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *dir = favo_asprintf("%s/prefetch", d->conf.store_dir);
	struct favo_err err = {0};
	char path[512];
	int ret = find_file(d, call, &m, path, &err);

	if (ret == 0)
		ret = check_trace(d, m, call, &err);
	if (ret == 0)
		ret = dir ? favo_mkdirs(dir, 0755, &err) : -ENOMEM;
	if (ret == 0)
		ret = favo_file_replace(path, call->body, call->len, 0644, &err);
	if (ret < 0)
		favo_call_fail(call, &err);
	else
		favo_call_json(call, MHD_HTTP_OK, json_object());
}

const struct favo_route favo_prefetch_routes[] = {
	{"GET", "/v1/prefetch/", 0, false, get_prefetch},
	{"PUT", "/v1/prefetch/", FAVO_TRACE_MAX, true, put_prefetch},
	{0},
};
