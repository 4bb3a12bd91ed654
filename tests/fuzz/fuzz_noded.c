// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: what reaches favo-noded as root from any user of the node (a
 * request line, a list of CPUs) and from its own disk (names, time lines).
 */
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "provision/noded/request.h"
#include "provision/noded/state.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void timeline(const char *text, size_t len)
{
	json_t *obj = json_loadb(text, len, 0, NULL);
	struct favo_timeline t;

	if (favo_timeline_load(&t, obj) == 0) {
		json_t *again = favo_timeline_json(&t);

		if (!again)
			abort();
		json_decref(again);
	}
	json_decref(obj);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_request req;
	uint32_t job, index;
	unsigned int cpus;
	char *text = malloc(size + 1);

	if (!text)
		return 0;
	memcpy(text, data, size);
	text[size] = '\0';
	if (favo_request_parse(&req, text, size, NULL) == 0) {
		if (!req.nodelist || !req.grant || !req.cores || !req.vm)
			abort();
		favo_request_fini(&req);
	}
	if (favo_cpulist_count(text, &cpus, NULL) == 0 && (!cpus || cpus > 131072))
		abort();
	if (favo_vm_name_parse(text, &job, &index) && !job)
		abort();
	timeline(text, size);
	free(text);
	return 0;
}
