// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Who may run what. Every user of the site may run every image of the site's
 * store; what this version cannot do yet is refused here, with a sentence.
 */
#include "provision/favod/favod.h"

int favo_policy_may_run(struct favo_favod *d, const struct favo_grant *grant,
			struct favo_err *err)
{
	(void)d;
	if (grant->per_node != 1)
		return favo_fail(
			err, EACCES,
			"%u VMs per node were asked for; this version starts one",
			grant->per_node);
	return 0;
}
