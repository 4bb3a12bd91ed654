// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Fuzz target: nodes.conf of Warewulf, and what favod makes of the nodes in
 * it: whatever it takes has a normal form that it takes again unchanged.
 */
#include "provision/cli/warewulf.h"

#include <stdint.h>
#include <stdlib.h>

#include "common/json.h"
#include "provision/favod/node_def.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(const json_t *def)
{
	favo_autojson json_t *once = NULL, *twice = NULL;

	if (favo_node_def_check(&once, def, false, NULL) < 0)
		return;
	if (favo_node_def_check(&twice, once, false, NULL) < 0 ||
	    !json_equal(once, twice))
		abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	favo_autojson json_t *file = NULL;
	const char *name;
	json_t *def;

	if (favo_warewulf_parse(&file, (const char *)data, size, NULL) < 0)
		return 0;
	json_object_foreach(json_object_get(file, "nodes"), name, def)
	{
		check(def);
	}
	return 0;
}
