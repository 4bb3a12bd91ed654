// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-init: first process of a guest, Slurm commands in it, or the agent
 * alone for tests, by how it is called. Static; no name service is used.
 */
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "images/guest/command.h"
#include "images/guest/init.h"
#include "images/guest/save.h"

int main(int argc, char **argv)
{
	if (getpid() == 1)
		favo_boot();
	if (argc > 0 && favo_command_name(argv[0]))
		favo_command_main(argv);
	if (argc == 2 && strcmp(argv[1], "--save") == 0)
		return favo_save_main();
	if (argc > 1 && strcmp(argv[1], "--test-agent") == 0)
		return favo_test_agent(argc - 1, argv + 1);
	fprintf(stderr,
		"favo-init: runs as the first process of a guest\n"
		"usage: favo-init --test-agent SOCKET SECRET [COMMAND-SOCKET DIR]\n");
	return 2;
}
