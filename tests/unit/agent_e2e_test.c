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

#include "common/fd.h"
#include "common/util.h"
#include "images/guest/agent.h"
#include "images/guest/buf.h"
#include "images/guest/command.h"
#include "tests/unit/task_host.h"

static void stdio(void **state)
{
	(void)state;
	favo_e2e_expect(&(struct task){.program = "cat"}, "hello\n", 0, "hello\n", "");
	favo_e2e_expect(&(struct task){.program = "wc", .argv = {"-c"}}, "", 0, "0\n",
			"");
	favo_e2e_expect(&(struct task){.program = "sh",
				       .argv = {"-c", "echo a; echo b >&2; exit 7"}},
			"", 7, "a\n", "b\n");
	favo_e2e_expect(&(struct task){.program = "/bin/sh",
				       .argv = {"-c", "echo \"$0 $1\"", "", "x y"}},
			"", 0, " x y\n", "");
	/* Closed early: the rest of the input is not waited for. */
	favo_e2e_expect(&(struct task){.program = "head", .argv = {"-c1"}}, "xyz", 0, "x",
			"");
}

static void identity_of_process(void **state)
{
	favo_autofree char *want = NULL;
	mode_t old = umask(0027);

	(void)state;
	want = favo_asprintf("0027\n%u\n/\n", getuid());
	assert_int_equal(chdir("/"), 0);
	favo_e2e_expect(&(struct task){.program = "sh",
				       .argv = {"-c", "umask; id -u; pwd"}},
			"", 0, want, "");
	umask(old);
}

static void environment(void **state)
{
	(void)state;
	favo_e2e_expect(
		&(struct task){.program = "sh",
			       .argv = {"-c",
					"echo $SLURM_JOB_ID $X $FAVO_TASK_ARGV0 $LD_X"},
			       .env = {{"X", "1"}, {"LD_X", "2"}}},
		"", 0, "12 1\n", "");
}

static void large(void **state)
{
	const size_t len = favo_e2e_guest_cid ? 4 << 20 : 32 << 20;
	uint8_t *bytes = malloc(len);
	struct result r;

	(void)state;
	assert_non_null(bytes);
	for (size_t i = 0; i < len; i++)
		bytes[i] = (uint8_t)(i * 2654435761u >> 13);
	favo_e2e_run(&r, &(struct task){.program = "cat"}, bytes, len);
	assert_int_equal(r.status, 0);
	assert_int_equal(r.out.len, len + 1);
	assert_memory_equal(favo_buf_data(&r.out), bytes, len);
	favo_e2e_result_fini(&r);
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
	pid = favo_e2e_start(&t, null, pout[1], perr[1]);
	close(pout[1]);
	close(perr[1]);
	while (!memmem(out.len ? favo_buf_data(&out) : (const uint8_t *)"", out.len,
		       "line 1999\n", 10))
		assert_true(favo_e2e_take(&pout[0], &out));
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
	pid = favo_e2e_start(&t, null, pout[1], 2);
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

		favo_e2e_run(&r, &(struct task){.program = "sh", .argv = {"-c", cmd}}, "",
			     0);
		assert_true(WIFSIGNALED(r.status));
		assert_int_equal(WTERMSIG(r.status), signals[i]);
		assert_false(WCOREDUMP(r.status));
		favo_e2e_result_fini(&r);
	}
	favo_e2e_expect(&(struct task){.program = "false"}, "", 1, "", "");
	favo_e2e_expect(&(struct task){.program = "sh", .argv = {"-c", "exit 255"}}, "",
			255, "", "");
}

static void exec_errors(void **state)
{
	favo_autofree char *plain = favo_e2e_path("plain"), *want = NULL;

	(void)state;
	favo_e2e_expect(&(struct task){.program = "no-such"}, "", ENOENT, "",
			"favo: n1: vm0: execve: no-such: No such file or directory\n");
	favo_e2e_expect(&(struct task){.program = "no-such", .local = "1"}, "", ENOENT,
			"", "");
	if (favo_e2e_guest_cid)
		return;
	assert_int_equal(favo_file_replace(plain, "x", 1, 0644, NULL), 0);
	want = favo_asprintf("favo: n1: vm0: execve: %s: Permission denied\n", plain);
	favo_e2e_expect(&(struct task){.program = plain}, "", EACCES, "", want);
}

static void wait_for(int fd, struct favo_buf *b, const char *what)
{
	for (int i = 0; i < 200; i++) {
		struct pollfd p = {fd, POLLIN, 0};

		if (b->len && memmem(favo_buf_data(b), b->len, what, strlen(what)))
			return;
		assert_true(poll(&p, 1, 10000) > 0);
		assert_true(favo_e2e_take(&fd, b));
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
	pid = favo_e2e_start(&t, null, pout[1], 2);
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
	favo_e2e_run(&r, &(struct task){.program = "sh", .argv = {"-c", look}}, "", 0);
	assert_int_equal(r.status, 0);
	favo_e2e_result_fini(&r);
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
	pid = favo_e2e_start(&t, null, pout[1], 2);
	close(pout[1]);
	wait_for(pout[0], &out, "up\n");
	assert_int_equal(favo_buf_append(&out, "", 1), 0);
	assert_int_equal(sscanf(favo_e2e_text(&out), "%d %d up", &child, &leader), 2);
	if (favo_e2e_guest_cid) {
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

		pids[i] = favo_e2e_start(&(struct task){.program = "sh",
							.argv = {"-c", cmd}},
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
		favo_e2e_exec(&t);
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
	if (favo_e2e_guest_cid) {
		pthread_cancel(thread);
		pthread_join(thread, NULL);
		close(listener);
		skip();
	}
	favo_e2e_expect(
		&(struct task){.program = "python3",
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
	favo_e2e_expect(
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
	favo_autofree char *command = favo_e2e_path("command.sock"), *cmd = NULL;

	(void)state;
	cmd = favo_asprintf(
		"export FAVO_COMMAND_SOCKET=%s FOO=bar; echo input | srun -n1 x; "
		"echo rc=$?",
		favo_e2e_guest_cid ? FAVO_COMMAND_SOCKET : command);
	favo_e2e_expect(&(struct task){.program = "sh", .argv = {"-c", cmd}}, "", 0,
			"srun -n1 x job=12 foo=bar\ninput\nrc=5\n", "complaint\n");
}

static void sbatch_from_inside(void **state)
{
	favo_autofree char *command = favo_e2e_path("command.sock"), *cmd = NULL;

	(void)state;
	/* The script is there only while sbatch is called, and only inside. */
	cmd = favo_asprintf(
		"export FAVO_COMMAND_SOCKET=%s; cd /tmp; f=favo-e2e-$$.sh; "
		"printf '#!/bin/sh\\n#SBATCH -N1\\n' >$f; sbatch -N 2 $f a b; rm $f",
		favo_e2e_guest_cid ? FAVO_COMMAND_SOCKET : command);
	favo_e2e_expect(&(struct task){.program = "sh", .argv = {"-c", cmd}}, "", 0,
			"-N 2 a b\n#!/bin/sh\n#SBATCH -N1\nname\n", "");
}

static void batch_script(void **state)
{
	favo_autofree char *path = favo_e2e_path("spool/slurm_script"),
			   *spool = favo_e2e_path("spool");

	(void)state;
	assert_int_equal(mkdir(spool, 0700), 0);
	favo_e2e_script("spool/slurm_script",
			"#!/bin/sh\necho script \"$@\"; stat -c %a \"$0\"\n");
	favo_e2e_expect(&(struct task){.program = path,
				       .argv = {"a", "b"},
				       .env = {{"SLURM_STEP_ID", "batch"}}},
			"", 0, "script a b\n700\n", "");
}

/* slurmd's spool does not exist in a guest: it is made there. */
static void script_directory(void **state)
{
	favo_autofree char *path = favo_e2e_path("new/spool/slurm_script"),
			   *spool = favo_e2e_path("new");
	favo_autofree char *host = favo_e2e_path("new/spool"),
			   *moved = favo_e2e_path("moved");
	const struct task t = {.program = path, .env = {{"SLURM_STEP_ID", "batch"}}};
	struct result r;
	int pin[2], perr[2];
	pid_t pid;

	(void)state;
	if (favo_e2e_guest_cid)
		skip();
	assert_int_equal(mkdir(spool, 0700), 0);
	assert_int_equal(mkdir(host, 0700), 0);
	favo_e2e_script("new/spool/slurm_script", "#!/bin/sh\necho made\n");
	/* favo-task has read the script when it waits for a stopped node agent. */
	kill(favo_e2e_noded_pid, SIGSTOP);
	r = (struct result){0};
	assert_int_equal(pipe2(pin, O_CLOEXEC), 0);
	assert_int_equal(pipe2(perr, O_CLOEXEC), 0);
	pid = favo_e2e_start(&t, 0, pin[1], perr[1]);
	usleep(300000);
	assert_int_equal(rename(spool, moved), 0);
	kill(favo_e2e_noded_pid, SIGCONT);
	close(pin[1]);
	close(perr[1]);
	while (favo_e2e_take(&pin[0], &r.out))
		continue;
	assert_int_equal(waitpid(pid, &r.status, 0), pid);
	assert_int_equal(r.status, 0);
	assert_int_equal(favo_buf_append(&r.out, "", 1), 0);
	assert_string_equal(favo_e2e_text(&r.out), "made\n");
	close(perr[0]);
	favo_e2e_result_fini(&r);
}

static void failures(void **state)
{
	struct result r;

	(void)state;
	favo_e2e_expect(
		&(struct task){.program = "true", .job = JOB_ERROR}, "", 1, "",
		"favo: n1: vm0: boot: guest kernel panicked; see: favo vc logs 13\n");
	favo_e2e_expect(&(struct task){.program = "true", .job = JOB_ERROR, .local = "3"},
			"", 1, "", "");
	favo_e2e_expect(
		&(struct task){.program = "true", .job = JOB_CLOSE}, "", 1, "",
		"favo: n1: node agent: connection closed while the virtual cluster was "
		"starting\n");
	favo_e2e_run(&r,
		     &(struct task){.program = "true",
				    .env = {{"FAVO_NODED_SOCKET", "/no/x"}}},
		     "", 0);
	assert_int_equal(WEXITSTATUS(r.status), 1);
	assert_non_null(strstr(favo_e2e_text(&r.err), "is favo-noded running there?"));
	favo_e2e_result_fini(&r);
}

static void progress(void **state)
{
	(void)state;
	favo_e2e_expect(&(struct task){.program = "true", .job = JOB_SLOW}, "", 0, "",
			"favo: n1: image: 5 of 10 (2 s)\n");
	favo_e2e_expect(&(struct task){.program = "true", .job = JOB_SLOW, .local = "1"},
			"", 0, "", "");
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

	return cmocka_run_group_tests(tests, favo_e2e_set_up, favo_e2e_tear_down);
}
