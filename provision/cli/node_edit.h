/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verbs of favo node that change something. */
#pragma once

#include "provision/cli/cli.h"

favo_cli_run_fn favo_cli_node_add, favo_cli_node_set, favo_cli_node_edit,
	favo_cli_node_rm, favo_cli_node_adopt, favo_cli_node_export, favo_cli_node_import;
