// SPDX-License-Identifier: GPL-2.0-or-later
/* favo image: the site's image store. */
#include "provision/cli/cli.h"

static const struct favo_cli_verb verbs[] = {
	{0},
};

const struct favo_cli_noun favo_cli_image = {
	.name = "image",
	.about = "the site's images",
	.verbs = verbs,
};
