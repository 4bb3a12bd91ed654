// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-task and favo-init together, without Slurm and without a guest: the
 * agent runs as an ordinary process on a unix socket, and a small process
 * stands in for the node agent: it makes the HELLO exchange and passes the
 * stream, as the real one does. With FAVO_E2E_CID the agent is the one of a
 * real guest, reached by vsock (tests/system/t3*.t).
 */
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

/* Jobs by what the stand-in does for them. */
#define JOB_OK "12"
#define JOB_ERROR "13"
#define JOB_SLOW "14"
#define JOB_CLOSE "15"

#define SECRET_HEX "0102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20"

static char dir[] = "/tmp/favo-e2e-XXXXXX";
static pid_t agent_pid, noded_pid;
static unsigned guest_cid; /* 0: no guest */
static const char *task_path = FAVO_TASK;

static char *in_dir(const char *name)
{
	char *path = favo_asprintf("%s/%s", dir, name);

	assert_non_null(path);
	return path;
}

static int connect_agent(void)
{
	struct sockaddr_vm addr = {.svm_family = AF_VSOCK,
				   .svm_cid = guest_cid,
				   .svm_port = FAVO_AGENT_PORT};
	favo_autofree char *path = favo_asprintf("%s/agent.sock", dir);
	int fd = -1;

	if (!guest_cid)
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

static void put_script(const char *name, const char *text)
{
	favo_autofree char *path = in_dir(name);

	assert_int_equal(favo_file_replace(path, text, strlen(text), 0755, NULL), 0);
}

static int set_up(void **state)
{
	favo_autofree char *agent = NULL, *noded = NULL, *command = NULL, *bin = NULL;
	favo_autofree char *host = NULL, *link = NULL, *link2 = NULL;
	int listener = -1;
	struct stat st;

	(void)state;
	signal(SIGPIPE, SIG_IGN);
	if (getenv("FAVO_E2E_CID"))
		guest_cid = (unsigned)strtoul(getenv("FAVO_E2E_CID"), NULL, 10);
	if (getenv("FAVO_E2E_TASK"))
		task_path = getenv("FAVO_E2E_TASK");
	assert_non_null(mkdtemp(dir));
	assert_int_equal(chdir("/"), 0);
	agent = in_dir("agent.sock");
	noded = in_dir("noded.sock");
	command = in_dir("command.sock");
	bin = in_dir("bin");
	host = in_dir("host");
	link = in_dir("bin/srun");
	assert_int_equal(mkdir(bin, 0755), 0);
	assert_int_equal(mkdir(host, 0755), 0);
	link2 = in_dir("bin/sbatch");
	assert_int_equal(symlink(FAVO_INIT, link), 0);
	assert_int_equal(symlink(FAVO_INIT, link2), 0);
	put_script("host/srun",
		   "#!/bin/sh\n"
		   "echo \"srun $* job=$SLURM_JOB_ID foo=$FAVO_GUEST_ENV_FOO\"\n"
		   "echo complaint >&2\n"
		   "cat\n"
		   "exit 5\n");
	put_script("host/sbatch",
		   "#!/bin/sh\necho \"$1 $2 $4 $5\"\ncat \"$3\"\n"
		   "case $SBATCH_JOB_NAME in favo-e2e-*.sh) echo name ;; esac\n");
	assert_int_equal(favo_unix_listen(&listener, noded, 0600, NULL), 0);
	assert_int_equal(favo_set_nonblock(listener, false), 0);
	noded_pid = fork();
	if (noded_pid == 0)
		run_noded(listener);
	close(listener);
	if (guest_cid)
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

static int tear_down(void **state)
{
	int status;

	(void)state;
	kill(noded_pid, SIGKILL);
	waitpid(noded_pid, NULL, 0);
	if (!guest_cid) {
		kill(agent_pid, SIGTERM);
		assert_int_equal(waitpid(agent_pid, &status, 0), agent_pid);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
	}
	return favo_remove_tree(dir, NULL);
}

struct task {
	const char *job, *local, *program;
	const char *argv[6]; /* from argv[1] on */
	const char *env[4][2]; /* more variables */
	int keep_fd; /* stays open in it when > 2 */
};

static _Noreturn void exec_task(const struct task *t)
{
	favo_autofree char *noded = in_dir("noded.sock"), *host = in_dir("host");
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

static pid_t start_task(const struct task *t, int in, int out, int err)
{
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (pid == 0) {
		dup2(in, 0);
		dup2(out, 1);
		dup2(err, 2);
		exec_task(t);
	}
	return pid;
}

struct result {
	int status;
	struct favo_buf out, err;
};

static void result_fini(struct result *r)
{
	favo_buf_fini(&r->out);
	favo_buf_fini(&r->err);
}

static bool take(int *fd, struct favo_buf *b)
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
static void run(struct result *r, const struct task *t, const void *in, size_t len)
{
	int pin[2], pout[2], perr[2];
	pid_t pid;

	*r = (struct result){0};
	assert_int_equal(pipe2(pin, O_CLOEXEC), 0);
	assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
	assert_int_equal(pipe2(perr, O_CLOEXEC), 0);
	pid = start_task(t, pin[0], pout[1], perr[1]);
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
			take(&pout[0], &r->out);
		if (p[1].revents)
			take(&perr[0], &r->err);
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

static const char *text(const struct favo_buf *b)
{
	return (const char *)favo_buf_data(b);
}

static void expect(const struct task *t, const char *in, int code, const char *out,
		   const char *err)
{
	struct result r;

	run(&r, t, in, strlen(in));
	assert_string_equal(text(&r.err), err);
	assert_string_equal(text(&r.out), out);
	assert_true(WIFEXITED(r.status));
	assert_int_equal(WEXITSTATUS(r.status), code);
	result_fini(&r);
}

static void stdio(void **state)
{
	(void)state;
	expect(&(struct task){.program = "cat"}, "hello\n", 0, "hello\n", "");
	expect(&(struct task){.program = "wc", .argv = {"-c"}}, "", 0, "0\n", "");
	expect(&(struct task){.program = "sh",
			      .argv = {"-c", "echo a; echo b >&2; exit 7"}},
	       "", 7, "a\n", "b\n");
	expect(&(struct task){.program = "/bin/sh",
			      .argv = {"-c", "echo \"$0 $1\"", "", "x y"}},
	       "", 0, " x y\n", "");
	/* Closed early: the rest of the input is not waited for. */
	expect(&(struct task){.program = "head", .argv = {"-c1"}}, "xyz", 0, "x", "");
}

static void identity_of_process(void **state)
{
	favo_autofree char *want = NULL;
	mode_t old = umask(0027);

	(void)state;
	want = favo_asprintf("0027\n%u\n/\n", getuid());
	assert_int_equal(chdir("/"), 0);
	expect(&(struct task){.program = "sh", .argv = {"-c", "umask; id -u; pwd"}}, "",
	       0, want, "");
	umask(old);
}

static void environment(void **state)
{
	(void)state;
	expect(&(struct task){.program = "sh",
			      .argv = {"-c",
				       "echo $SLURM_JOB_ID $X $FAVO_TASK_ARGV0 $LD_X"},
			      .env = {{"X", "1"}, {"LD_X", "2"}}},
	       "", 0, "12 1\n", "");
}

static void large(void **state)
{
	const size_t len = guest_cid ? 4 << 20 : 32 << 20;
	uint8_t *bytes = malloc(len);
	struct result r;

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 13);
	run(&r, &(struct task){.program = "cat"}, bytes, len);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.out.len, len + 1);
	assert_memory_equal(favo_buf_data(&r.out), bytes, len);
	result_fini(&r);
	free(bytes);
}

/* stderr is full and nobody reads it: stdout goes on. */
static void slow_reader(void **state)
{
	const struct task t = {.program = "sh",
			       .argv = {"-c", "yes >&2 & exec 2>/dev/null; i=0; while [ "
					      "$i -lt 2000 ]; do echo line $i; "
					      "i=$((i+1)); done; kill $!; exit 0"}};
	favo_autobuf struct favo_buf out = {0};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int pout[2], perr[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
	assert_int_equal(pipe2(perr, O_CLOEXEC), 0);
	pid = start_task(&t, null, pout[1], perr[1]);
	close(pout[1]);
	close(perr[1]);
	while (!memmem(out.len ? favo_buf_data(&out) : (const uint8_t *)"", out.len,
		       "line 1999\n", 10))
		assert_true(take(&pout[0], &out));
	/* With its reader gone, the writer of stderr is not waited for. */
	close(perr[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	favo_close(&pout[0]);
	close(null);
}

static void reader_gone(void **state)
{
	const struct task t = {.program = "yes"};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int pout[2], status;
	char byte;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
	pid = start_task(&t, null, pout[1], 2);
	close(pout[1]);
	assert_int_equal(read(pout[0], &byte, 1), 1);
	close(pout[0]);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	/* yes(1) dies of SIGPIPE, as on the host. */
	assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGPIPE);
	close(null);
}

static void exits(void **state)
{
	static const int signals[] = {SIGKILL, SIGTERM, SIGSEGV, SIGUSR1};
	struct result r;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(signals); i++) {
		favo_autofree char *cmd =
			favo_asprintf("kill -%d $$; sleep 9", signals[i]);

		run(&r, &(struct task){.program = "sh", .argv = {"-c", cmd}}, "", 0);
		assert_true(WIFSIGNALED(r.status));
		assert_int_equal(WTERMSIG(r.status), signals[i]);
		assert_false(WCOREDUMP(r.status));
		result_fini(&r);
	}
	expect(&(struct task){.program = "false"}, "", 1, "", "");
	expect(&(struct task){.program = "sh", .argv = {"-c", "exit 255"}}, "", 255, "",
	       "");
}

static void exec_errors(void **state)
{
	favo_autofree char *plain = in_dir("plain"), *want = NULL;

	(void)state;
	expect(&(struct task){.program = "no-such"}, "", ENOENT, "",
	       "favo: n1: vm0: execve: no-such: No such file or directory\n");
	expect(&(struct task){.program = "no-such", .local = "1"}, "", ENOENT, "", "");
	if (guest_cid)
		return;
	assert_int_equal(favo_file_replace(plain, "x", 1, 0644, NULL), 0);
	want = favo_asprintf("favo: n1: vm0: execve: %s: Permission denied\n", plain);
	expect(&(struct task){.program = plain}, "", EACCES, "", want);
}

static void wait_for(int fd, struct favo_buf *b, const char *what)
{
	for (int i = 0; i < 200; i++) {
		struct pollfd p = {fd, POLLIN, 0};

		if (b->len && memmem(favo_buf_data(b), b->len, what, strlen(what)))
			return;
		assert_true(poll(&p, 1, 10000) > 0);
		assert_true(take(&fd, b));
	}
	fail_msg("no \"%s\" in the output", what);
}

static void signals(void **state)
{
	const struct task t = {.program = "sh",
			       .argv = {"-c",
					"trap 'echo got usr1' USR1; trap 'exit 9' TERM; "
					"echo ready; while :; do sleep 0.05; done"}};
	favo_autobuf struct favo_buf out = {0};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int pout[2], status;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
	pid = start_task(&t, null, pout[1], 2);
	close(pout[1]);
	wait_for(pout[0], &out, "ready");
	kill(pid, SIGUSR1);
	wait_for(pout[0], &out, "got usr1");
	kill(pid, SIGTERM);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status));
	assert_int_equal(WEXITSTATUS(status), 9);
	close(pout[0]);
	close(null);
}

/* In a guest there are cgroups: the daemon must go as well. */
static void killed_in_guest(pid_t pid, int child, int leader)
{
	favo_autofree char *look =
		favo_asprintf("! kill -0 %d && ! kill -0 %d", child, leader);
	struct result r;

	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	usleep(500000);
	run(&r, &(struct task){.program = "sh", .argv = {"-c", look}}, "", 0);
	assert_int_equal(r.status, 0);
	result_fini(&r);
}

/* SIGKILL of favo-task: nobody can catch it, yet the guest's tree must go. */
static void killed_task(void **state)
{
	const struct task t = {.program = "sh",
			       .argv = {"-c",
					"(setsid sleep 1000 & echo $!); echo $$ up; "
					"sleep 1000"}};
	favo_autobuf struct favo_buf out = {0};
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int pout[2], child = 0, leader = 0;
	pid_t pid;

	(void)state;
	assert_int_equal(pipe2(pout, O_CLOEXEC), 0);
	pid = start_task(&t, null, pout[1], 2);
	close(pout[1]);
	wait_for(pout[0], &out, "up\n");
	assert_int_equal(favo_buf_append(&out, "", 1), 0);
	assert_int_equal(sscanf(text(&out), "%d %d up", &child, &leader), 2);
	if (guest_cid) {
		killed_in_guest(pid, child, leader);
		close(pout[0]);
		close(null);
		return;
	}
	assert_int_equal(kill(leader, 0), 0);
	kill(pid, SIGKILL);
	assert_int_equal(waitpid(pid, NULL, 0), pid);
	for (int i = 0; i < 300 && kill(leader, 0) == 0; i++)
		usleep(10000);
	assert_int_equal(kill(leader, 0), -1);
	/* Without cgroups a daemon of its own session is out of reach. */
	kill(child, SIGKILL);
	close(pout[0]);
	close(null);
}

static void several(void **state)
{
	pid_t pids[12];
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);

	(void)state;
	for (int i = 0; i < 12; i++) {
		favo_autofree char *cmd = favo_asprintf("sleep 0.1; exit %d", i);

		pids[i] = start_task(&(struct task){.program = "sh", .argv = {"-c", cmd}},
				     null, null, 2);
	}
	for (int i = 0; i < 12; i++) {
		int status;

		assert_int_equal(waitpid(pids[i], &status, 0), pids[i]);
		assert_true(WIFEXITED(status) && WEXITSTATUS(status) == i);
	}
	close(null);
}

static void terminal(void **state)
{
	const struct task t = {.program = "sh",
			       .argv = {"-c",
					"stty size; echo first; read x; echo \"[$x]\"; "
					"stty size; trap 'echo intr; exit 3' INT; "
					"echo again; while :; do sleep 0.05; done"}};
	struct winsize ws = {.ws_row = 33, .ws_col = 77};
	favo_autobuf struct favo_buf out = {0};
	struct termios before, after;
	int master, slave, status;
	pid_t pid;

	(void)state;
	assert_int_equal(openpty(&master, &slave, NULL, NULL, &ws), 0);
	fcntl(master, F_SETFD, FD_CLOEXEC);
	assert_int_equal(tcgetattr(slave, &before), 0);
	pid = fork();
	if (pid == 0) {
		login_tty(dup(slave));
		exec_task(&t);
	}
	wait_for(master, &out, "33 77\r\nfirst");
	ws.ws_row = 44;
	assert_int_equal(ioctl(master, TIOCSWINSZ, &ws), 0);
	usleep(100000);
	assert_int_equal(write(master, "word\r", 5), 5);
	/* Typed text is echoed by the terminal in the guest, once. */
	wait_for(master, &out, "word\r\n[word]\r\n44 77\r\nagain");
	assert_int_equal(write(master, "\003", 1), 1);
	wait_for(master, &out, "intr");
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 3);
	assert_int_equal(tcgetattr(slave, &after), 0);
	assert_int_equal(before.c_lflag, after.c_lflag);
	close(slave);
	close(master);
}

static void *echo_server(void *arg)
{
	int listener = *(int *)arg;
	int fd = accept(listener, NULL, NULL);
	char buf[65536];
	ssize_t n;

	while ((n = read(fd, buf, sizeof(buf))) > 0)
		if (favo_write_all(fd, buf, (size_t)n, 5000, NULL) < 0)
			break;
	/* The client has sent all: our end is told only now. */
	if (favo_write_all(fd, "end\n", 4, 5000, NULL) < 0)
		n = -1;
	close(fd);
	return NULL;
}

static void pmix_relay(void **state)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	int listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	favo_autofree char *uri = NULL, *script = NULL;
	socklen_t len = sizeof(addr);
	pthread_t thread;

	(void)state;
	assert_int_equal(bind(listener, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(listener, 1), 0);
	assert_int_equal(getsockname(listener, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(pthread_create(&thread, NULL, echo_server, &listener), 0);
	uri = favo_asprintf("pmix-server.7;tcp4://127.0.0.1:%d", ntohs(addr.sin_port));
	/* 1 MB through the relay and back, then the echo after our half-close. */
	script = favo_asprintf(
		"import os,socket,sys,threading\n"
		"u=os.environ['PMIX_SERVER_URI2']; p=int(u.rsplit(':',1)[1])\n"
		"assert p!=%d and u.startswith('pmix-server.7;tcp4://127.0.0.1:')\n"
		"s=socket.create_connection(('127.0.0.1',p)); d=os.urandom(1<<20)\n"
		"t=threading.Thread(target=lambda:(s.sendall(d),s.shutdown(1))); "
		"t.start()\n"
		"g=b''\n"
		"while True:\n"
		"  b=s.recv(65536)\n"
		"  if not b: break\n"
		"  g+=b\n"
		"t.join(); print(g==d+b'end\\n', os.environ['PMIX_MCA_gds'])\n",
		ntohs(addr.sin_port));
	/* The relay needs a program in the image that speaks TCP. */
	if (guest_cid) {
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		close(listener);
		skip();
	}
	expect(&(struct task){.program = "python3",
			      .argv = {"-c", script},
			      .env = {{"PMIX_SERVER_URI2", uri}, {"PMIX_RANK", "0"}}},
	       "", 0, "True hash\n", "");
	pthread_join(thread, NULL);
	close(listener);
}

static void *pmi_server(void *arg)
{
	int fd = *(int *)arg;
	char line[64];
	ssize_t n = read(fd, line, sizeof(line) - 1);

	line[n > 0 ? n : 0] = '\0';
	if (strcmp(line, "cmd=init\n") == 0 &&
	    favo_write_all(fd, "cmd=response\n", 13, 1000, NULL) < 0)
		return NULL;
	/* End of file when the process in the guest is gone. */
	return read(fd, line, 1) == 0 ? arg : NULL;
}

static void pmi_relay(void **state)
{
	char number[16];
	pthread_t thread;
	void *eof;
	int sv[2];

	(void)state;
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, sv), 0);
	fcntl(sv[0], F_SETFD, FD_CLOEXEC);
	assert_int_equal(pthread_create(&thread, NULL, pmi_server, &sv[0]), 0);
	snprintf(number, sizeof(number), "%d", sv[1]);
	expect(
		&(struct task){
			.program = "bash",
			.argv = {"-c",
				 "echo cmd=init >&$PMI_FD; read -u $PMI_FD l; echo $l"},
			.env = {{"PMI_FD", number}, {"PMI_RANK", "0"}}},
		"", 0, "cmd=response\n", "");
	close(sv[1]);
	pthread_join(thread, &eof);
	assert_non_null(eof);
	close(sv[0]);
}

static void slurm_from_inside(void **state)
{
	favo_autofree char *command = in_dir("command.sock"), *cmd = NULL;

	(void)state;
	cmd = favo_asprintf(
		"export FAVO_COMMAND_SOCKET=%s FOO=bar; echo input | srun -n1 x; "
		"echo rc=$?",
		guest_cid ? FAVO_COMMAND_SOCKET : command);
	expect(&(struct task){.program = "sh", .argv = {"-c", cmd}}, "", 0,
	       "srun -n1 x job=12 foo=bar\ninput\nrc=5\n", "complaint\n");
}

static void sbatch_from_inside(void **state)
{
	favo_autofree char *command = in_dir("command.sock"), *cmd = NULL;

	(void)state;
	/* The script is there only while sbatch is called, and only inside. */
	cmd = favo_asprintf(
		"export FAVO_COMMAND_SOCKET=%s; cd /tmp; f=favo-e2e-$$.sh; "
		"printf '#!/bin/sh\\n#SBATCH -N1\\n' >$f; sbatch -N 2 $f a b; rm $f",
		guest_cid ? FAVO_COMMAND_SOCKET : command);
	expect(&(struct task){.program = "sh", .argv = {"-c", cmd}}, "", 0,
	       "-N 2 a b\n#!/bin/sh\n#SBATCH -N1\nname\n", "");
}

static void batch_script(void **state)
{
	favo_autofree char *path = in_dir("spool/slurm_script"), *spool = in_dir("spool");

	(void)state;
	assert_int_equal(mkdir(spool, 0700), 0);
	put_script("spool/slurm_script",
		   "#!/bin/sh\necho script \"$@\"; stat -c %a \"$0\"\n");
	expect(&(struct task){.program = path,
			      .argv = {"a", "b"},
			      .env = {{"SLURM_STEP_ID", "batch"}}},
	       "", 0, "script a b\n700\n", "");
}

/* slurmd's spool does not exist in a guest: it is made there. */
static void script_directory(void **state)
{
	favo_autofree char *path = in_dir("new/spool/slurm_script"),
			   *spool = in_dir("new");
	favo_autofree char *host = in_dir("new/spool"), *moved = in_dir("moved");
	const struct task t = {.program = path, .env = {{"SLURM_STEP_ID", "batch"}}};
	struct result r;
	int pin[2], perr[2];
	pid_t pid;

	(void)state;
	if (guest_cid)
		skip();
	assert_int_equal(mkdir(spool, 0700), 0);
	assert_int_equal(mkdir(host, 0700), 0);
	put_script("new/spool/slurm_script", "#!/bin/sh\necho made\n");
	/* favo-task has read the script when it waits for a stopped node agent. */
	kill(noded_pid, SIGSTOP);
	r = (struct result){0};
	assert_int_equal(pipe2(pin, O_CLOEXEC), 0);
	assert_int_equal(pipe2(perr, O_CLOEXEC), 0);
	pid = start_task(&t, 0, pin[1], perr[1]);
	usleep(300000);
	assert_int_equal(rename(spool, moved), 0);
	kill(noded_pid, SIGCONT);
	close(pin[1]);
	close(perr[1]);
	while (take(&pin[0], &r.out))
		continue;
	assert_int_equal(waitpid(pid, &r.status, 0), pid);
	assert_int_equal(r.status, 0);
	assert_int_equal(favo_buf_append(&r.out, "", 1), 0);
	assert_string_equal(text(&r.out), "made\n");
	close(perr[0]);
	result_fini(&r);
}

static void failures(void **state)
{
	struct result r;

	(void)state;
	expect(&(struct task){.program = "true", .job = JOB_ERROR}, "", 1, "",
	       "favo: n1: vm0: boot: guest kernel panicked; see: favo vc logs 13\n");
	expect(&(struct task){.program = "true", .job = JOB_ERROR, .local = "3"}, "", 1,
	       "", "");
	expect(&(struct task){.program = "true", .job = JOB_CLOSE}, "", 1, "",
	       "favo: n1: node agent: connection closed while the virtual cluster was "
	       "starting\n");
	run(&r,
	    &(struct task){.program = "true", .env = {{"FAVO_NODED_SOCKET", "/no/x"}}},
	    "", 0);
	assert_int_equal(WEXITSTATUS(r.status), 1);
	assert_non_null(strstr(text(&r.err), "is favo-noded running there?"));
	result_fini(&r);
}

static void progress(void **state)
{
	(void)state;
	expect(&(struct task){.program = "true", .job = JOB_SLOW}, "", 0, "",
	       "favo: n1: image: 5 of 10 (2 s)\n");
	expect(&(struct task){.program = "true", .job = JOB_SLOW, .local = "1"}, "", 0,
	       "", "");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(stdio),
		cmocka_unit_test(identity_of_process),
		cmocka_unit_test(environment),
		cmocka_unit_test(large),
		cmocka_unit_test(slow_reader),
		cmocka_unit_test(reader_gone),
		cmocka_unit_test(exits),
		cmocka_unit_test(exec_errors),
		cmocka_unit_test(signals),
		cmocka_unit_test(killed_task),
		cmocka_unit_test(several),
		cmocka_unit_test(terminal),
		cmocka_unit_test(pmix_relay),
		cmocka_unit_test(pmi_relay),
		cmocka_unit_test(slurm_from_inside),
		cmocka_unit_test(sbatch_from_inside),
		cmocka_unit_test(batch_script),
		cmocka_unit_test(script_directory),
		cmocka_unit_test(failures),
		cmocka_unit_test(progress),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
