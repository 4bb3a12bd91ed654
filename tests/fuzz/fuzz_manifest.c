// SPDX-License-Identifier: GPL-2.0-or-later
/* Fuzz target: an image manifest, as it comes from favod or a peer. */
#include "images/manifest.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_manifest *m = NULL;

	if (favo_manifest_parse(&m, data, size, NULL) < 0)
		return 0;
	/* What passed must be safe to act on. */
	if (!m->name || !m->os_pretty || strcmp(m->root.fstype, "erofs") != 0 ||
	    m->root.size > FAVO_ROOT_MAX || m->kernel.size > FAVO_KERNEL_MAX ||
	    strlen(m->cmdline) > FAVO_CMDLINE_MAX || strchr(m->cmdline, '\n'))
		abort();
	favo_manifest_free(m);
	return 0;
}
