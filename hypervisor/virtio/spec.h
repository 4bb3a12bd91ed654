/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of device options: "key=value,flag,key=value". Main thread, set-up only.
 */
#pragma once

#include <stdbool.h>
#include <stddef.h>

#include "common/err.h"

struct favo_spec_key {
	const char *name;
	const char **value; /* key=value; points into the text that was parsed */
	bool *flag; /* or a bare word */
};

/*
 * Cut text (changed in place) at its commas and set what the keys point to. Unknown,
 * doubled and empty keys are EINVAL; what is not named stays as it was.
 */
int favo_spec_parse(char *text, const struct favo_spec_key *keys, size_t nkeys,
		    struct favo_err *err);

/*
 * Take over an inherited descriptor named in an option: it must be open, and
 * becomes close-on-exec. *fd then belongs to the caller.
 */
int favo_spec_fd(int *fd, const char *text, struct favo_err *err);
