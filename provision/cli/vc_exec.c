// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo vc exec and shell: a command in running VMs. The way there is a step
 * of Slurm that shares what the job has (srun --overlap): it works from
 * wherever srun does, as the job's user and within the job's limits, and
 * needs no door into the guests of its own.
 */
#include "provision/cli/vc.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <inttypes.h>
#include <pwd.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/options.h"
#include "common/str.h"
#include "common/util.h"

#define VMS_MAX 4096
/* More than srun and its own options have words. */
#define WORDS_MAX 16

void favo_vc_target_fini(struct favo_vc_target *t)
{
	json_decref(t->vc);
	free(t->places);
	free(t->nodes);
}

static const char *str(const json_t *obj, const char *key)
{
	return json_string_value(json_object_get(obj, key));
}

static int by_position(const void *a, const void *b)
{
	const struct favo_vc_place *x = a, *y = b;

	return (x->position > y->position) - (x->position < y->position);
}

static int add_place(struct favo_vc_target *t, const char *vm, struct favo_err *err)
{
	const json_t *m;
	size_t i;

	json_array_foreach(json_object_get(t->vc, "members"), i, m)
	{
		struct favo_vc_place *p = &t->places[t->n];

		if (!str(m, "name") || !str(m, "node") || strcmp(str(m, "name"), vm) != 0)
			continue;
		*p = (struct favo_vc_place){.vm = str(m, "name"), .node = str(m, "node")};
		p->position = strncmp(vm, "vm", 2) == 0 ? strtol(vm + 2, NULL, 10) : 0;
		for (size_t k = 0; k < t->n; k++)
			if (strcmp(t->places[k].vm, vm) == 0)
				return 0;
		t->n++;
		return 0;
	}
	return favo_fail(err, ENOENT, "the job has no VM %s; see: favo vc show", vm);
}

/* "vm[0-2,5]" or "all" to places in the order of the job's nodes. */
static int find_places(struct favo_vc_target *t, const char *vms, struct favo_err *err)
{
	favo_autostrv char **names = NULL;
	const json_t *members = json_object_get(t->vc, "members"), *m;
	size_t n = 0, i;
	int ret = 0;

	if (strcmp(vms, "all") != 0)
		ret = favo_hostlist_expand(&names, &n, vms, VMS_MAX, err);
	if (ret < 0)
		return favo_wrap(err, ret, "%s", vms);
	t->places = calloc(FAVO_MAX(n, json_array_size(members)) + 1, sizeof(*t->places));
	if (!t->places)
		return favo_fail(err, ENOMEM, "out of memory");
	for (i = 0; ret == 0 && i < n; i++)
		ret = add_place(t, names[i], err);
	if (!names)
		json_array_foreach(members, i, m) if (ret == 0 && str(m, "name")) ret =
			add_place(t, str(m, "name"), err);
	if (ret == 0 && t->n == 0)
		return favo_fail(err, ENOENT, "the job has no VM yet");
	qsort(t->places, t->n, sizeof(*t->places), by_position);
	return ret;
}

int favo_vc_target_find(struct favo_vc_target *t, struct favo_cli *cli, const char *job,
			const char *vms, struct favo_err *err)
{
	int ret = favo_cli_vc_fetch(&t->vc, cli, job, err);

	if (ret == 0)
		ret = find_places(t, vms, err);
	for (size_t i = 0; ret == 0 && i < t->n; i++) {
		char *longer = favo_asprintf("%s%s%s", t->nodes ? t->nodes : "",
					     i ? "," : "", t->places[i].node);

		free(t->nodes);
		t->nodes = longer;
		if (!longer)
			ret = favo_fail(err, ENOMEM, "out of memory");
	}
	return ret;
}

/* The guest is the job's user's: root asks in his name. */
static int become_owner(const struct favo_vc_target *t, struct favo_err *err)
{
	uid_t uid = (uid_t)json_integer_value(json_object_get(t->vc, "uid"));
	struct passwd *pw;

	if (geteuid() != 0 || uid == 0)
		return 0;
	pw = getpwuid(uid);
	if (!pw)
		return favo_fail(err, ENOENT, "no user with uid %u on this host",
				 (unsigned)uid);
	if (initgroups(pw->pw_name, pw->pw_gid) < 0 || setgid(pw->pw_gid) < 0 ||
	    setuid(uid) < 0)
		return favo_fail(err, errno, "become %s: %m", pw->pw_name);
	setenv("HOME", pw->pw_dir, 1);
	setenv("USER", pw->pw_name, 1);
	setenv("LOGNAME", pw->pw_name, 1);
	if (access(".", X_OK) < 0 && chdir(pw->pw_dir) < 0 && chdir("/") < 0)
		return favo_fail(err, errno, "chdir /: %m");
	return 0;
}

/*
 * Another job's variables would be taken for this one's, and defaults for new
 * jobs are not meant.
 */
static int clean_env(struct favo_err *err)
{
	static const char *const prefixes[] = {"SLURM_", "SRUN_", "FAVO_VM_", "PMI"};
	bool again = true;

	while (again) {
		again = false;
		for (char **e = environ; !again && *e; e++) {
			favo_autofree char *name = NULL;

			for (size_t i = 0; !again && i < FAVO_ARRAY_SIZE(prefixes); i++)
				again = strncmp(*e, prefixes[i], strlen(prefixes[i])) ==
						0 &&
					strncmp(*e, "SLURM_CONF=", 11) != 0;
			if (!again)
				continue;
			name = strndup(*e, strcspn(*e, "="));
			if (!name || unsetenv(name) < 0)
				return favo_fail(err, ENOMEM, "environment: %m");
		}
	}
	return 0;
}

/* Run srun in this process: words of its own, then the command's. */
static int become_srun(const struct favo_vc_target *t, char **own, char **command,
		       struct favo_err *err)
{
	favo_autofree char *job =
		favo_asprintf("--jobid=%" JSON_INTEGER_FORMAT,
			      json_integer_value(json_object_get(t->vc, "job")));
	favo_autofree char *nodes = favo_asprintf("--nodelist=%s", t->nodes);
	favo_autofree char *count = favo_asprintf("--nodes=%zu", t->n);
	favo_autofree char *tasks = favo_asprintf("--ntasks=%zu", t->n);
	favo_autofree char **argv = NULL;
	size_t n = 0, len = 0;
	int ret;

	while (command[len])
		len++;
	argv = calloc(len + WORDS_MAX, sizeof(*argv));
	if (!argv || !job || !nodes || !count || !tasks)
		return favo_fail(err, ENOMEM, "out of memory");
	argv[n++] = "srun";
	argv[n++] = job;
	argv[n++] = "--overlap";
	argv[n++] = "--mpi=none";
	argv[n++] = "--quiet";
	argv[n++] = "--kill-on-bad-exit=0";
	argv[n++] = nodes;
	argv[n++] = count;
	argv[n++] = tasks;
	while (*own)
		argv[n++] = *own++;
	memcpy(argv + n, command, len * sizeof(*argv));
	ret = become_owner(t, err);
	if (ret == 0)
		ret = clean_env(err);
	if (ret < 0)
		return ret;
	execvp("srun", argv);
	return favo_fail(err, errno, "srun: %m; is Slurm installed on this host?");
}

/* With the name of the VM at its beginning. */
static int print_named(void *user, const struct favo_vc_target *t, size_t place,
		       const char *line, struct favo_err *err)
{
	(void)user;
	if (place < t->n)
		printf("%s: ", t->places[place].vm);
	fputs(line, stdout);
	return fflush(stdout) == 0 ? 0 : favo_fail(err, errno, "write to stdout: %m");
}

/* srun -l begins lines with the number of the task, a colon and a blank. */
static int read_lines(const struct favo_vc_target *t, FILE *in, favo_vc_line_fn *fn,
		      void *user, struct favo_err *err)
{
	favo_autofree char *line = NULL;
	size_t size = 0;
	int ret = 0;

	while (ret == 0 && getline(&line, &size, in) > 0) {
		char *text;
		unsigned long task = strtoul(line, &text, 10);
		bool named =
			text > line && text[0] == ':' && text[1] == ' ' && task < t->n;

		ret = fn(user, t, named ? task : t->n, named ? text + 2 : line, err);
	}
	return ret;
}

int favo_vc_run(const struct favo_vc_target *t, char **command, favo_vc_line_fn *fn,
		void *user, struct favo_err *err)
{
	char *own[] = {"--label", NULL};
	favo_autofclose FILE *in = NULL;
	int fds[2], status, ret;
	pid_t pid;

	if (pipe2(fds, O_CLOEXEC) < 0)
		return favo_fail(err, errno, "pipe: %m");
	pid = fork();
	if (pid == 0) {
		if (dup2(fds[1], STDOUT_FILENO) >= 0)
			(void)become_srun(t, own, command, err);
		fprintf(stderr, "favo vc: %s\n", err->msg);
		_exit(1);
	}
	/* Ctrl-C is srun's to handle, whose end is ours. */
	signal(SIGINT, SIG_IGN);
	close(fds[1]);
	in = fdopen(fds[0], "r");
	if (pid < 0 || !in)
		return favo_fail(err, errno, "start srun: %m");
	ret = read_lines(t, in, fn, user, err);
	if (ret < 0)
		kill(pid, SIGTERM);
	if (waitpid(pid, &status, 0) < 0)
		return favo_fail(err, errno, "wait for srun: %m");
	if (ret < 0)
		return ret;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int favo_cli_vc_exec(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static char *const none[] = {NULL};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "JOB VMS COMMAND [ARGUMENT]...",
		.about = "Run a command in running VMs of a job: vm1, vm[0-3,7] or all. "
			 "With several, each line of output begins with the VM's name.",
		.target = &(char){0},
	};
	favo_autovctarget struct favo_vc_target t = {0};
	int first, ret;

	/* What follows the VMs is the command's, options too. */
	ret = favo_opts_cli(&opts, argc, argv, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : favo_cli_usage(err, "%s", err->msg);
	if (argc - first < 3)
		return favo_cli_usage(err, "a word is missing: %s %s", opts.program,
				      opts.synopsis);
	ret = favo_vc_target_find(&t, cli, argv[first], argv[first + 1], err);
	if (ret < 0)
		return ret;
	if (t.n == 1)
		return become_srun(&t, (char **)none, argv + first + 2, err);
	return favo_vc_run(&t, argv + first + 2, print_named, NULL, err);
}

int favo_cli_vc_shell(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	/* The image may have no bash. */
	static char script[] = "command -v bash >/dev/null && exec bash -l; exec sh -l";
	char *own[] = {"--pty", NULL};
	char *command[] = {"sh", "-c", script, NULL};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "JOB [VM]",
		.about = "A shell in a running VM of a job; vm0 unless named.",
		.target = &(char){0},
	};
	favo_autovctarget struct favo_vc_target t = {0};
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 1, 2, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (!isatty(STDIN_FILENO))
		return favo_fail(err, ENOTTY,
				 "standard input is no terminal; for a command there is "
				 "favo vc exec");
	ret = favo_vc_target_find(&t, cli, argv[first],
				  argc - first == 2 ? argv[first + 1] : "vm0", err);
	if (ret == 0 && t.n != 1)
		return favo_cli_usage(err, "a shell runs in one VM");
	return ret < 0 ? ret : become_srun(&t, own, command, err);
}
