// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A Slurm command inside the guest; see command.h. It holds nothing of Slurm:
 * it asks the agent, which asks the task on the host that this process
 * belongs to.
 */
#include "images/guest/command.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/guest/client.h"

#define SCRIPT_MAX (8 << 20)

const char *const favo_commands[] = {
	"srun",	 "sbatch", "salloc",   "squeue", "scancel",
	"sinfo", "sacct",  "scontrol", NULL,
};

const char *favo_command_name(const char *path)
{
	const char *base = strrchr(path, '/');

	base = base ? base + 1 : path;
	for (size_t i = 0; favo_commands[i]; i++)
		if (strcmp(base, favo_commands[i]) == 0)
			return favo_commands[i];
	return NULL;
}

/*
 * sbatch reads its script, which the host does not see: the first argument
 * that names a readable file with an interpreter line goes along.
 */
static int add_script(struct favo_run *run, struct favo_run_file *file,
		      struct favo_err *err)
{
	for (char **arg = run->argv + 1; *arg; arg++) {
		favo_autoclose int fd = -1;
		struct stat st;
		char mark[2];
		char *text;
		int ret;

		if (**arg == '-')
			continue;
		fd = open(*arg, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
		if (fd < 0 || fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) ||
		    pread(fd, mark, 2, 0) != 2 || memcmp(mark, "#!", 2) != 0)
			continue;
		ret = favo_file_read(*arg, SCRIPT_MAX, &text, &file->len, err);
		if (ret < 0)
			return ret;
		file->data = (uint8_t *)text;
		file->mode = 0700;
		file->path = realpath(*arg, NULL);
		if (!file->path)
			return favo_fail(err, errno, "%s: %m", *arg);
		*arg = file->path;
		run->files = file;
		run->n_files = 1;
		return 0;
	}
	return 0;
}

static void on_lost(struct favo_conn *conn, const char *reason)
{
	(void)conn;
	(void)reason;
}

static int run_command(const struct favo_exit **out, char **argv, const char **reason,
		       struct favo_err *err)
{
	static const struct favo_client_ops client_ops;
	static const struct favo_conn_ops conn_ops = {.lost = on_lost};
	const char *path = getenv("FAVO_COMMAND_SOCKET");
	struct favo_run run = {.argv = argv, .env = environ};
	struct favo_run_file script;
	struct favo_client *client;
	struct favo_loop *loop;
	struct favo_conn *conn;
	int fd;
	int ret = favo_client_clean_fds(-1, err);

	if (ret == 0 && strcmp(favo_command_name(argv[0]), "sbatch") == 0)
		ret = add_script(&run, &script, err);
	run.session = getenv("FAVO_SESSION");
	if (ret == 0)
		ret = favo_client_describe(&run, err);
	if (ret == 0)
		ret = favo_unix_connect(&fd, path ? path : FAVO_COMMAND_SOCKET, 10000,
					err);
	if (ret == 0)
		ret = favo_loop_new(&loop, err);
	if (ret == 0)
		ret = favo_conn_new(&conn, loop, fd, true, NULL, &conn_ops, NULL, err);
	if (ret == 0)
		ret = favo_client_new(&client, loop, &client_ops, NULL, err);
	/* The host keeps its own limits and groups. */
	run.n_rlimits = 0;
	if (ret == 0)
		ret = favo_client_start(client, conn, &run, err);
	if (ret == 0)
		ret = favo_loop_run(loop, err);
	if (ret < 0)
		return ret;
	favo_client_restore(client);
	*out = favo_client_result(client, reason);
	return 0;
}

_Noreturn void favo_command_main(char **argv)
{
	const struct favo_exit *ex = NULL;
	const char *name = favo_command_name(argv[0]);
	const char *reason = "";
	struct favo_err err = {0};

	if (run_command(&ex, argv, &reason, &err) < 0) {
		fprintf(stderr, "%s: favo: %s\n", name, err.msg);
		exit(1);
	}
	if (!ex) {
		fprintf(stderr, "%s: favo: connection to the host lost: %s\n", name,
			reason);
		exit(1);
	}
	if (ex->kind == FAVO_EXIT_FAILED) {
		fprintf(stderr, "%s: favo: %s\n", name, ex->reason);
		exit(1);
	}
	favo_client_mirror(ex);
}
