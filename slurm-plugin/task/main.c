// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-task: a task of a job in VMs, seen from Slurm. It is what slurmstepd
 * executes; it runs the task's program in the guest and is, for Slurm, that
 * program: same stdio, signals, exit. It also answers for the guest's
 * processes what only the host can: their PMI traffic and Slurm commands.
 */
#include <errno.h>
#include <limits.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <fcntl.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/client.h"
#include "images/guest/command.h"
#include "images/guest/relay.h"
#include "images/guest/server.h"
#include "slurm-plugin/task/task.h"

#define NODED_SOCKET "/run/favo/noded.sock"
#define SCRIPT_MAX (8 << 20)
/* How long to wait for the node agent's word on why a guest is gone. */
#define REASON_MS 5000

struct session {
	struct favo_task task;
	struct favo_loop *loop;
	struct favo_client *client;
	struct favo_server *server;
	struct favo_conn *conn;
	struct favo_run run;
	char *const *env;
	char vm[64];
	bool started;
};

/* One sentence per node, said by its first task. */
static void say(const struct session *s, const char *text)
{
	if (s->task.local == 0)
		fprintf(stderr, "favo: %s\n", text);
}

static void on_started(void *user, const char *note)
{
	struct session *s = user;
	char text[700];

	s->started = true;
	if (!*note)
		return;
	snprintf(text, sizeof(text), "%s: %s: %s", s->task.node, s->vm, note);
	say(s, text);
}

static void on_child(void *user)
{
	struct session *s = user;
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		if (s->server)
			favo_server_reaped(s->server, pid, status);
}

static const struct favo_client_ops client_ops = {
	.started = on_started,
	.child = on_child,
};

static void on_run(struct favo_conn *conn, struct favo_channel *ch, struct favo_run *run)
{
	struct session *s = favo_conn_user(conn);

	favo_server_run(s->server, ch, run);
}

/* To the PMIx server of our own slurmstepd, and nowhere else. */
static int connect_pmix(int *out, const struct favo_task *task, struct favo_err *err)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_port = htons((uint16_t)task->pmix_port),
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	favo_autoclose int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int one = 1;

	if (!task->pmix_port)
		return favo_fail(err, ENOENT, "this step has no PMIx server");
	if (fd < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		return favo_fail(err, errno, "PMIx server on port %d: %m",
				 task->pmix_port);
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	*out = favo_steal_fd(&fd);
	return 0;
}

static void on_open(struct favo_conn *conn, struct favo_channel *ch, const char *endpoint)
{
	struct session *s = favo_conn_user(conn);
	struct favo_err err = {0};
	int fd = -1;
	int ret;

	if (strcmp(endpoint, "pmix") == 0) {
		ret = connect_pmix(&fd, &s->task, &err);
	} else if (strcmp(endpoint, "pmi") == 0 && s->task.pmi_fd >= 0) {
		/* One process, one descriptor: it is handed over. */
		fd = favo_steal_fd(&s->task.pmi_fd);
		ret = 0;
	} else {
		ret = favo_fail(&err, ENOENT, "no endpoint %s", endpoint);
	}
	if (ret == 0)
		ret = favo_relay_attach(s->loop, ch, fd, false, &err);
	if (ret < 0)
		favo_channel_close(ch, err.msg);
}

static void on_lost(struct favo_conn *conn, const char *reason)
{
	struct session *s = favo_conn_user(conn);

	(void)reason;
	favo_server_conn_lost(s->server, conn);
	favo_conn_free(conn);
	s->conn = NULL;
}

static const struct favo_conn_ops conn_ops = {
	.run = on_run,
	.open = on_open,
	.lost = on_lost,
};

static int set_env(struct favo_run *run, const char *name, const char *value)
{
	size_t n = 0;
	char **env;

	if (favo_env_get(run->env, name))
		return 0;
	while (run->env[n])
		n++;
	env = reallocarray(run->env, n + 2, sizeof(*env));
	if (!env)
		return -ENOMEM;
	run->env = env;
	env[n] = favo_asprintf("%s=%s", name, value);
	if (!env[n])
		return -ENOMEM;
	env[n + 1] = NULL;
	return 0;
}

/*
 * The script of an sbatch from inside is a file of the guest: it comes with
 * the request and is read by sbatch from a descriptor. The job keeps the name
 * that it would have had.
 */
static int take_script(struct favo_run *run, struct favo_choice *choice,
		       struct favo_err *err)
{
	const struct favo_run_file *f = run->files;
	const char *base;
	int ret;

	if (run->n_files != 1)
		return 0;
	choice->fd = memfd_create("script", MFD_CLOEXEC);
	if (choice->fd < 0)
		return favo_fail(err, errno, "batch script: %m");
	ret = favo_write_all(choice->fd, f->data, f->len, -1, err);
	if (ret < 0)
		return favo_wrap(err, ret, "batch script");
	for (char **arg = run->argv; *arg; arg++) {
		if (strcmp(*arg, f->path) != 0)
			continue;
		free(*arg);
		*arg = favo_asprintf("/proc/self/fd/%d", choice->fd);
		if (!*arg)
			return favo_fail(err, ENOMEM, "out of memory");
		break;
	}
	base = strrchr(f->path, '/') + 1;
	if (set_env(run, "SBATCH_JOB_NAME", base) < 0)
		return favo_fail(err, ENOMEM, "out of memory");
	free(run->files->path);
	free(run->files->data);
	run->n_files = 0;
	return 0;
}

/* Slurm commands only, from one directory, as this user, never by a shell. */
static int check_command(void *user, struct favo_run *run, struct favo_choice *choice,
			 struct favo_err *err)
{
	struct session *s = user;
	const char *name = favo_command_name(run->argv[0]);
	const char *dir = getenv("FAVO_TASK_COMMAND_DIR");
	char **env = NULL;
	int ret;

	if (!name)
		return favo_fail(err, EPERM,
				 "%.64s: not a command that the host runs for a guest",
				 run->argv[0]);
	if (s->task.sandbox)
		return favo_fail(err, EPERM, "%s: not in a job with --vm-sandbox", name);
	ret = favo_task_command_env(&env, s->env, run->env, err);
	if (ret < 0)
		return ret;
	favo_strv_free(run->env);
	run->env = env;
	run->uid = geteuid();
	run->gid = getegid();
	run->flags &= ~(uint32_t)FAVO_RUN_COMMANDS;
	/* Directories of the guest that the node has not got: stay where we are. */
	if (run->cwd && access(run->cwd, X_OK) < 0) {
		free(run->cwd);
		run->cwd = NULL;
	}
	choice->program =
		favo_asprintf("%s/%s", dir && *dir == '/' ? dir : SLURM_BINDIR, name);
	if (!choice->program)
		return favo_fail(err, ENOMEM, "out of memory");
	return strcmp(name, "sbatch") == 0 ? take_script(run, choice, err) : 0;
}

static uint64_t env_number(const char *name, uint64_t fallback)
{
	const char *text = getenv(name);
	uint64_t v;

	return text && favo_parse_u64(&v, text, 0, UINT32_MAX, NULL) == 0 ? v : fallback;
}

static int read_task(struct session *s, char **argv, struct favo_err *err)
{
	static char host[256];
	struct favo_task *t = &s->task;

	t->pmi_fd = (int)env_number("PMI_FD", 0);
	if (t->pmi_fd < 3)
		t->pmi_fd = -1;
	t->node = getenv("SLURMD_NODENAME");
	if (!t->node) {
		gethostname(host, sizeof(host) - 1);
		t->node = host;
	}
	t->socket = getenv("FAVO_NODED_SOCKET");
	if (!t->socket)
		t->socket = NODED_SOCKET;
	t->step = getenv("SLURM_STEP_ID");
	if (!t->step || !favo_is_name(t->step, "", 16))
		t->step = "batch";
	t->job = env_number("FAVO_TASK_JOB", env_number("SLURM_JOB_ID", 0));
	t->task = env_number("SLURM_PROCID", 0);
	t->local = env_number("SLURM_LOCALID", 0);
	t->program = getenv("FAVO_TASK_ARGV0");
	t->argv = argv;
	/* The program is a word of ours there: see slurm-plugin/multi_prog.c. */
	if (getenv("FAVO_STEP_MULTI_PROG") && !t->program && argv[0] && argv[1]) {
		t->argv = argv + 1;
		t->program = argv[1];
	}
	if (!t->program || !*t->program || !t->job)
		return favo_fail(err, EINVAL,
				 "favo-task is started by Slurm's plugin, not by hand");
	return 0;
}

/* slurmd keeps the batch script in its spool, which the guest does not see. */
static int add_script(struct favo_run *run, const struct favo_task *task,
		      struct favo_err *err)
{
	const char *base = strrchr(task->program, '/');
	struct favo_run_file *f;
	char *text;
	size_t len;
	int ret;

	if (strcmp(task->step, "batch") != 0 || task->program[0] != '/' || !base ||
	    strcmp(base, "/slurm_script") != 0)
		return 0;
	ret = favo_file_read(task->program, SCRIPT_MAX, &text, &len, err);
	if (ret < 0)
		return favo_wrap(err, ret, "batch script");
	f = calloc(1, sizeof(*f));
	if (f)
		f->path = strdup(task->program);
	if (!f || !f->path) {
		free(f);
		free(text);
		return favo_fail(err, ENOMEM, "batch script: out of memory");
	}
	f->mode = 0700;
	f->data = (uint8_t *)text;
	f->len = len;
	run->files = f;
	run->n_files = 1;
	return 0;
}

static int describe(struct session *s, struct favo_err *err)
{
	struct favo_run *run = &s->run;
	size_t n = 0;
	int ret;

	while (s->task.argv[n])
		n++;
	run->argv = calloc(n + 1, sizeof(char *));
	if (!run->argv)
		return favo_fail(err, ENOMEM, "out of memory");
	memcpy(run->argv, s->task.argv, n * sizeof(char *));
	run->argv[0] = (char *)s->task.program;
	run->group =
		favo_asprintf("%llu.%s", (unsigned long long)s->task.job, s->task.step);
	run->flags = FAVO_RUN_COMMANDS;
	ret = favo_task_env(run, &s->task, s->env, err);
	if (ret == 0)
		ret = add_script(run, &s->task, err);
	if (ret == 0)
		ret = favo_client_describe(run, err);
	return ret;
}

static int run_in_guest(struct session *s, struct favo_err *err)
{
	const struct favo_server_config config = {.check = check_command, .user = s};
	int fd;
	int ret = favo_task_attach(&fd, s->vm, s->loop, &s->task, s->task.local == 0, -1,
				   err);

	if (ret == 0)
		ret = favo_server_new(&s->server, s->loop, &config, err);
	if (ret == 0)
		ret = favo_conn_new(&s->conn, s->loop, fd, true, NULL, &conn_ops, s, err);
	if (ret == 0)
		ret = favo_client_start(s->client, s->conn, &s->run, err);
	if (ret == 0)
		ret = favo_loop_run(s->loop, err);
	return ret;
}

/* The stream broke: the node agent knows whether the guest did. */
static void explain_loss(struct session *s, const char *reason)
{
	struct favo_err err = {0};
	char text[700], vm[64];
	int fd;

	if (s->task.local != 0)
		return;
	if (favo_task_attach(&fd, vm, s->loop, &s->task, false, REASON_MS, &err) ==
	    -ECANCELED) {
		say(s, err.msg);
		return;
	}
	snprintf(text, sizeof(text),
		 "%s: %s: connection to the guest lost: %s; see: favo vc logs "
		 "%llu",
		 s->task.node, s->vm, reason, (unsigned long long)s->task.job);
	say(s, text);
}

static _Noreturn void finish(struct session *s)
{
	const char *reason;
	const struct favo_exit *ex = favo_client_result(s->client, &reason);
	char text[700];

	favo_client_restore(s->client);
	if (!ex) {
		explain_loss(s, reason);
		exit(1);
	}
	/* Commands that still run for the guest's processes: none asks any more. */
	favo_server_free(s->server);
	if (ex->kind == FAVO_EXIT_FAILED) {
		snprintf(text, sizeof(text), "%s: %s: %s", s->task.node, s->vm,
			 ex->reason);
		say(s, text);
	}
	/* As slurmstepd: a program that cannot be executed ends with the errno value. */
	favo_client_mirror(ex);
}

int main(int argc, char **argv)
{
	static struct session s; /* handed to callbacks until exit */
	struct favo_err err = {0};
	int ret;

	(void)argc;
	favo_log_init("favo-task", FAVO_ERROR, false, NULL);
	s.env = environ;
	ret = read_task(&s, argv, &err);
	if (ret == 0)
		ret = favo_client_clean_fds(s.task.pmi_fd, &err);
	if (ret == 0)
		ret = describe(&s, &err);
	if (ret == 0)
		ret = favo_loop_new(&s.loop, &err);
	if (ret == 0)
		ret = favo_client_new(&s.client, s.loop, &client_ops, &s, &err);
	if (ret == 0)
		ret = run_in_guest(&s, &err);
	if (ret < 0) {
		if (s.client)
			favo_client_restore(s.client);
		say(&s, err.msg);
		return 1;
	}
	finish(&s);
}
