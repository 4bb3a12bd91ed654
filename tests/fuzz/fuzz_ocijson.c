// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: JSON of container images. The same bytes are tried as an
 * index, a manifest, a configuration and manifest.json of docker save.
 */
#include <stdint.h>
#include <stdlib.h>

#include "common/json.h"
#include "images/manifest.h"
#include "images/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_config(const char *text, size_t size)
{
	struct favo_digest *ids = NULL;
	json_t *config = NULL;
	size_t n = 0;

	if (favo_oci_config_parse(&ids, &n, &config, text, size, NULL) == 0 &&
	    (n > FAVO_OCI_LAYERS_MAX || !json_is_object(config)))
		abort();
	free(ids);
	json_decref(config);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	const char *text = (const char *)data;
	struct favo_oci_manifest m;
	struct favo_oci_blob blob;
	bool index;

	favo_oci_is_index(&index, text, size, NULL);
	if (favo_oci_index_choose(&blob, text, size, NULL, NULL) == 0 &&
	    (!blob.has_digest || blob.size > FAVO_ROOT_MAX))
		abort();
	favo_oci_index_choose(&blob, text, size, "v1", NULL);
	if (favo_oci_manifest_parse(&m, text, size, NULL) == 0)
		favo_oci_manifest_fini(&m);
	if (favo_oci_docker_parse(&m, text, size, NULL, NULL) == 0)
		favo_oci_manifest_fini(&m);
	try_config(text, size);
	return 0;
}
