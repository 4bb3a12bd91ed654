// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Host of a task for tests; see task_host.h. The stand-in for the node agent
 * makes the HELLO exchange and passes the stream, as the real one does.
 */
#include "tests/unit/task_host.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <pty.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>
#include <utmp.h>
#include <linux/vm_sockets.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/guest/agent.h"
#include "images/guest/buf.h"
#include "images/guest/command.h"

#define SECRET_HEX "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"

static char dir[] = "/tmp/favo-e2e-XXXXXX";
static pid_t agent_pid;
pid_t favo_e2e_noded_pid;
unsigned favo_e2e_guest_cid;
static const char *task_path = FAVO_TASK;

char *favo_e2e_path(const char *name)
{
	char *path = favo_asprintf("%s/%s", dir, name);

	assert_non_null(path);
	return path;
}

static int connect_agent(void)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = favo_e2e_guest_cid,
				   .svm_port = FAVO_AGENT_PORT};
	favo_autofree char *path = favo_asprintf("%s/agent.sock", dir);
	int fd = -1;

	if (!favo_e2e_guest_cid)
		return favo_unix_connect(&fd, path, 5000, NULL) < 0 ? -1 : fd;
	fd = socket(AF_VSOCK, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd >= 0 && connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		favo_close(&fd);
	return fd;
}

static void answer(int client, const char *request)
{
	static const char error[] = "{\"ok\":false,\"error\":{\"node\":\"n1\",\"vm\":"
				    "\"vm0\",\"phase\":\"boot\","
				    "\"cause\":\"guest kernel "
				    "panicked\",\"remedy\":\"see: favo vc logs 13\"}}\n";
	static const char progress[] = "{\"progress\":{\"vm\":\"vm0\",\"phase\":"
				       "\"image\",\"detail\":\"5 of 10\","
				       "\"elapsed_ms\":1}}\n";
	static const char ok[] =
		"{\"ok\":true,\"vm\":\"vm0\",\"index\":0,\"members\":1}\n";
	uint8_t secret[FAVO_AGENT_SECRET_SIZE];
	int fd;

	for (size_t i = 0; i < sizeof(secret); i++)
		secret[i] = (uint8_t)(i + 1);
	if (strstr(request, "\"job\":" JOB_CLOSE))
		return;
	if (strstr(request, "\"job\":" JOB_ERROR)) {
		if (favo_write_all(client, error, strlen(error), 1000, NULL) < 0)
			_exit(1);
		return;
	}
	if (strstr(request, "\"job\":" JOB_SLOW)) {
		if (favo_write_all(client, progress, strlen(progress), 1000, NULL) < 0)
			_exit(1);
		usleep(2400000);
	}
	fd = connect_agent();
	if (fd < 0 || favo_agent_hello(fd, secret, 5000, NULL) < 0 ||
	    favo_send_fds(client, ok, strlen(ok), &fd, 1, NULL) < 0)
		_exit(1);
	close(fd);
}

static _Noreturn void run_noded(int listener)
{
	signal(SIGCHLD, SIG_IGN);
	for (;;) {
		int client = accept(listener, NULL, NULL);
		char request[1024];
		ssize_t n;

		if (client < 0)
			_exit(1);
		if (fork() == 0) {
			n = read(client, request, sizeof(request) - 1);
			request[n > 0 ? n : 0] = '\0';
			answer(client, request);
			_exit(0);
		}
		close(client);
	}
}

void favo_e2e_script(const char *name, const char *text)
{
	favo_autofree char *path = favo_e2e_path(name);

	assert_int_equal(favo_file_replace(path, text, strlen(text), 0755, NULL), 0);
}

int favo_e2e_set_up(void **state)
{
	favo_autofree char *agent = NULL, *noded = NULL, *command = NULL, *bin = NULL;
	favo_autofree char *host = NULL, *link = NULL, *link2 = NULL;
	int listener = -1;
	struct stat st;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	if (getenv("FAVO_E2E_CID"))
		favo_e2e_guest_cid = (unsigned)strtoul(getenv("FAVO_E2E_CID"), NULL, 10);
	if (getenv("FAVO_E2E_TASK"))
		task_path = getenv("FAVO_E2E_TASK");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir("/"), 0);
	agent = favo_e2e_path("agent.sock");
	noded = favo_e2e_path("noded.sock");
	command = favo_e2e_path("command.sock");
	bin = favo_e2e_path("bin");
	host = favo_e2e_path("host");
	link = favo_e2e_path("bin/srun");
	assert_int_equal(mkdir(bin, 0755), 0);
	assert_int_equal(mkdir(host, 0755), 0);
	link2 = favo_e2e_path("bin/sbatch");
	assert_int_equal(symlink(FAVO_INIT, link), 0);
	assert_int_equal(symlink(FAVO_INIT, link2), 0);
	favo_e2e_script("host/srun",
			"#!/bin/sh\n"
			"echo \"srun $* job=$SLURM_JOB_ID foo=$FAVO_GUEST_ENV_FOO\"\n"
			"echo complaint >&2\n"
			"cat\n"
			"exit 5\n");
	favo_e2e_script("host/sbatch",
			"#!/bin/sh\necho \"$1 $2 $4 $5\"\ncat \"$3\"\n"
			"case $SBATCH_JOB_NAME in favo-e2e-*.sh) echo name ;; esac\n");
	assert_int_equal(favo_unix_listen(&listener, noded, 0600, NULL), 0);
	assert_int_equal(favo_set_nonblock(listener, false), 0);
	favo_e2e_noded_pid = fork();
	if (favo_e2e_noded_pid == 0)
		run_noded(listener);
	close(listener);
	if (favo_e2e_guest_cid)
		return 0;
	agent_pid = fork();
	if (agent_pid == 0) {
		execl(FAVO_INIT, "favo-init", "--test-agent", agent, SECRET_HEX, command,
		      bin, NULL);
		_exit(127);
	}
	for (int i = 0; i < 500 && stat(command, &st) < 0; i++)
		usleep(10000);
	return 0;
}

int favo_e2e_tear_down(void **state)
{
	int status;

	(void)state;
	kill(favo_e2e_noded_pid, SIGKILL);
	waitpid(favo_e2e_noded_pid, NULL, 0);
	if (!favo_e2e_guest_cid) {
		kill(agent_pid, SIGTERM);
		assert_int_equal(waitpid(agent_pid, &status, 0), agent_pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	return favo_remove_tree(dir, NULL);
}

_Noreturn void favo_e2e_exec(const struct task *t)
{
	favo_autofree char *noded = favo_e2e_path("noded.sock"),
			   *host = favo_e2e_path("host");
	const char *argv[8] = {task_path};

	memcpy(argv + 1, t->argv, sizeof(t->argv));
	setenv("FAVO_TASK_ARGV0", t->program, 1);
	setenv("SLURM_JOB_ID", t->job ? t->job : JOB_OK, 1);
	setenv("SLURM_STEP_ID", "0", 1);
	setenv("SLURM_PROCID", "0", 1);
	setenv("SLURM_LOCALID", t->local ? t->local : "0", 1);
	setenv("SLURMD_NODENAME", "n1", 1);
	setenv("FAVO_NODED_SOCKET", noded, 1);
	setenv("FAVO_TASK_COMMAND_DIR", host, 1);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(t->env) && t->env[i][0]; i++)
		setenv(t->env[i][0], t->env[i][1], 1);
	signal(SIGPIPE, SIG_DFL);
	execv(task_path, (char **)argv);
	_exit(127);
}

pid_t favo_e2e_start(const struct task *t, int in, int out, int err)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(in, 0);
		dup2(out, 1);
		dup2(err, 2);
		favo_e2e_exec(t);
	}
	return pid;
}

void favo_e2e_result_fini(struct result *r)
{
	favo_buf_fini(&r->out);
	favo_buf_fini(&r->err);
}

bool favo_e2e_take(int *fd, struct favo_buf *b)
{
	uint8_t *p = favo_buf_reserve(b, 65536);
	ssize_t n = read(*fd, p, 65536);

	if (n > 0)
		favo_buf_commit(b, (size_t)n);
	else
		favo_close(fd);
	return n > 0;
}

/* Run a task with this input to its end; output ends with a NUL. */
void favo_e2e_run(struct result *r, const struct task *t, const void *in, size_t len)
{
	int pin[2], pout[2], perr[2];
	pid_t pid;

	*r = (struct result){0};
	assert_int_equal(pipe2(pin, O_CLOEXEC), 0);
	assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
	assert_int_equal(pipe2(perr, O_CLOEXEC), 0);
	pid = favo_e2e_start(t, pin[0], pout[1], perr[1]);
	close(pin[0]);
	close(pout[1]);
	close(perr[1]);
	assert_int_equal(favo_set_nonblock(pin[1], true), 0);
	while (pout[0] >= 0 || perr[0] >= 0) {
		struct pollfd p[3] = {{pout[0], POLLIN, 0},
				      {perr[0], POLLIN, 0},
				      {len ? pin[1] : -1, POLLOUT, 0}};
		ssize_t n;

		if (!len)
			favo_close(&pin[1]);
		assert_true(poll(p, 3, 20000) > 0);
		if (p[0].revents)
			favo_e2e_take(&pout[0], &r->out);
		if (p[1].revents)
			favo_e2e_take(&perr[0], &r->err);
		if (!p[2].revents)
			continue;
		n = write(pin[1], in, len);
		if (n < 0 && errno != EAGAIN)
			len = 0;
		if (n > 0) {
			in = (const char *)in + n;
			len -= (size_t)n;
		}
	}
	favo_close(&pin[1]);
	assert_int_equal(waitpid(pid, &r->status, 0), pid);
	assert_int_equal(favo_buf_append(&r->out, "", 1), 0);
	assert_int_equal(favo_buf_append(&r->err, "", 1), 0);
}

const char *favo_e2e_text(const struct favo_buf *b)
{
	return (const char *)favo_buf_data(b);
}

void favo_e2e_expect(const struct task *t, const char *in, int code, const char *out,
		     const char *err)
{
	struct result r;

	favo_e2e_run(&r, t, in, strlen(in));
	assert_string_equal(favo_e2e_text(&r.err), err);
	assert_string_equal(favo_e2e_text(&r.out), out);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), code);
	favo_e2e_result_fini(&r);
}
