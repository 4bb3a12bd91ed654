/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Slurm commands in the guest, which are links to favo-init. */
#pragma once

#include <stdbool.h>

#define FAVO_COMMAND_DIR "/run/favo/bin"
#define FAVO_COMMAND_SOCKET "/run/favo/agent.sock"

/* Names of all commands that the host side runs for a guest, NULL at the end. */
extern const char *const favo_commands[];

/* Is the last component of path one of them? Returns it, or NULL. */
const char *favo_command_name(const char *path);

/* Run argv on the host and end as it does. */
_Noreturn void favo_command_main(char **argv);
