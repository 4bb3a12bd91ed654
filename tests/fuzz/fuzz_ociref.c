// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: a reference to a container image, which users type and job
 * scripts carry. What is taken must survive being printed and parsed again.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "common/util.h"
#include "images/oci.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const struct favo_oci_ref *ref)
{
	favo_autofree char *shown = favo_oci_ref_format(ref);
	favo_autofree char *name = favo_oci_ref_name(ref);
	favo_autofree char *again = favo_asprintf("docker://%s", shown ? shown : "");
	struct favo_oci_ref copy = {0};

	if (!name || !again || favo_oci_ref_parse(&copy, again, NULL) < 0 ||
	    strcmp(copy.repo, ref->repo) != 0 || strcmp(copy.host, ref->host) != 0)
		abort();
	favo_oci_ref_fini(&copy);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_oci_ref ref = {0};
	favo_autofree char *text =
		favo_asprintf("docker://%.*s", (int)size, (const char *)data);

	if (text && favo_oci_ref_parse(&ref, text, NULL) == 0) {
		check(&ref);
		favo_oci_ref_fini(&ref);
	}
	return 0;
}
