/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Verbs of favo image that say who may run what. */
#pragma once

#include "provision/cli/cli.h"

favo_cli_run_fn favo_cli_image_allow, favo_cli_image_rules;
