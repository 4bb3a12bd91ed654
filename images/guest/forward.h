/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Join two channels: a run request from one connection is asked on another,
 * frames pass both ways, credit goes from end to end. One thread.
 */
#pragma once

#include "images/guest/conn.h"

/* Ask for run (taken over) on target; the answers go to ch. */
void favo_forward_run(struct favo_channel *ch, struct favo_conn *target,
		      struct favo_run *run);
