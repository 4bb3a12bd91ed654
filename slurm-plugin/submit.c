// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Submit side, as the user: srun (S_CTX_LOCAL), sbatch and salloc
 * (S_CTX_ALLOCATOR). A job that names an image gets a grant from favod, asked
 * for by the child favo-submit, and carries it to its nodes.
 *
 * A failure ends the process: at this point nothing is allocated, and the
 * return code of an optional plugin would be ignored, so that the job ran
 * outside of the VMs that it asked for.
 */
#include "slurm-plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SUBMIT_MS 10000
#define IMPORT_MS (4 * 3600 * 1000) /* with an image to import first */
#define ANSWER_MAX 8192
/* How Slurm hands --vm-image of sbatch or salloc to the sruns inside. */
#define INHERITED_IMAGE "SLURM_SPANK__SLURM_SPANK_OPTION_favo_vm_image"
#define JOB_GRANT "SLURM_SPANK_FAVO_GRANT"

extern char **environ;

static void __attribute__((noreturn)) give_up(void)
{
	const char *code = getenv("SLURM_EXIT_ERROR");
	long n = code ? strtol(code, NULL, 10) : 0;

	exit(n > 0 && n < 256 ? (int)n : 1);
}

static int64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (int64_t)ts.tv_sec * 1000 + ts.tv_nsec / 1000000;
}

/* Start favo-submit with its stdout in *out; clean signals, no other fds. */
static int start_child(const struct favo_plugin *p, pid_t *pid, int *out)
{
	char path[sizeof(p->libexec) + 16];
	char args[FAVO_PO_COUNT][FAVO_VALUE_MAX + 32];
	char *argv[FAVO_PO_COUNT + 2] = {path};
	posix_spawn_file_actions_t fa;
	posix_spawnattr_t attr;
	sigset_t set;
	int pipefd[2], n = 1, ret;

	snprintf(path, sizeof(path), "%s/favo-submit", p->libexec);
	for (int i = 0; i < FAVO_PO_COUNT; i++) {
		if (!p->given[i])
			continue;
		snprintf(args[i], sizeof(args[i]), "--%s=%s", favo_plugin_opt_name(i),
			 p->value[i]);
		argv[n++] = args[i];
	}
	if (pipe2(pipefd, O_CLOEXEC) < 0)
		return -errno;
	posix_spawn_file_actions_init(&fa);
	posix_spawn_file_actions_addopen(&fa, STDIN_FILENO, "/dev/null", O_RDONLY, 0);
	posix_spawn_file_actions_adddup2(&fa, pipefd[1], STDOUT_FILENO);
	posix_spawnattr_init(&attr);
	sigemptyset(&set);
	posix_spawnattr_setsigmask(&attr, &set);
	sigfillset(&set);
	posix_spawnattr_setsigdefault(&attr, &set);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	ret = posix_spawn(pid, path, &fa, &attr, argv, environ);
	posix_spawnattr_destroy(&attr);
	posix_spawn_file_actions_destroy(&fa);
	close(pipefd[1]);
	if (ret != 0) {
		close(pipefd[0]);
		return -ret;
	}
	*out = pipefd[0];
	return 0;
}

/* Take "busy" lines off the front of buf; were there any? */
static bool take_busy(char *buf, size_t *len)
{
	static const char busy[] = "busy\n";
	size_t n = 0;

	while (strncmp(buf + n, busy, strlen(busy)) == 0)
		n += strlen(busy);
	*len -= n;
	memmove(buf, buf + n, *len + 1);
	return n > 0;
}

/*
 * All that the child writes until it closes its end, without its "busy"
 * lines, each of which says that it is importing an image; -ETIMEDOUT.
 */
static int read_answer(int fd, char *buf, size_t size)
{
	int64_t deadline = now_ms() + SUBMIT_MS, last = now_ms() + IMPORT_MS;
	size_t len = 0;

	for (;;) {
		struct pollfd pfd = {.fd = fd, .events = POLLIN};
		int64_t left = deadline - now_ms();
		ssize_t n;

		if (left <= 0)
			return -ETIMEDOUT;
		if (poll(&pfd, 1, (int)left) <= 0)
			continue;
		n = read(fd, buf + len, size - 1 - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		len += (size_t)n;
		buf[len] = '\0';
		if (n == 0)
			return 0;
		if (take_busy(buf, &len) && now_ms() < last)
			deadline = now_ms() + SUBMIT_MS;
		if (len == size - 1)
			return -EMSGSIZE;
	}
}

/*
 * The child says "grant TEXT" or "error SENTENCE" in one line. Its exit code
 * is not asked for: salloc's SIGCHLD handling may have taken it.
 */
static int ask_favod(const struct favo_plugin *p, char *answer, size_t size)
{
	pid_t pid = -1;
	int fd = -1, ret;
	char *end;

	answer[0] = '\0';
	ret = start_child(p, &pid, &fd);
	if (ret < 0) {
		slurm_error(
			"favo: start %s/favo-submit: %s; is Favo installed on this host?",
			p->libexec, strerror(-ret));
		return -1;
	}
	ret = read_answer(fd, answer, size);
	close(fd);
	if (ret < 0)
		kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	end = strchr(answer, '\n');
	if (end)
		*end = '\0';
	if (ret == 0 && end && strncmp(answer, "grant ", 6) == 0 && answer[6])
		return 0;
	if (ret == 0 && strncmp(answer, "error ", 6) == 0)
		slurm_error("favo: %s", answer + 6);
	else if (ret == -ETIMEDOUT)
		slurm_error(
			"favo: favod gave no answer within %d s; try again, and ask your "
			"site's administrator if it stays so",
			SUBMIT_MS / 1000);
	else
		slurm_error("favo: favo-submit ended without an answer");
	return -1;
}

static bool has_env(const char *name)
{
	const char *value = getenv(name);

	return value && *value;
}

/* srun in an allocation: its VMs are there or they are not. */
static void check_inside(const struct favo_plugin *p)
{
	const char *image = getenv(INHERITED_IMAGE);

	if (!p->given[FAVO_PO_IMAGE])
		return;
	if (!has_env(JOB_GRANT)) {
		slurm_error("favo: this allocation has no virtual machines; give "
			    "--vm-image to "
			    "salloc or sbatch");
		give_up();
	}
	if (image && strcmp(image, p->value[FAVO_PO_IMAGE]) != 0) {
		slurm_error("favo: the virtual machines of this allocation run %.200s; a "
			    "step "
			    "cannot have another image (%.200s)",
			    image, p->value[FAVO_PO_IMAGE]);
		give_up();
	}
}

/* What the nodes must know beside the grant, and need not be signed for. */
static const struct {
	const char *name;
	int row;
} carried[] = {{"FAVO_MOUNTS", FAVO_PO_MOUNT}, {"FAVO_SANDBOX", FAVO_PO_SANDBOX}};

int favo_submit_check(struct favo_plugin *p, spank_t sp, spank_context_t ctx)
{
	char answer[ANSWER_MAX];
	int explicit_row = -1; /* given by name, not by the environment */
	bool inside =
		ctx == S_CTX_LOCAL && (has_env("SLURM_JOB_ID") || has_env("SLURM_JOBID"));

	for (int i = 0; i < FAVO_PO_COUNT && explicit_row < 0; i++)
		if (i != FAVO_PO_IMAGE && p->given[i])
			explicit_row = i;
	if (favo_plugin_env_defaults(p) < 0)
		give_up();
	if (inside) {
		check_inside(p);
		return 0;
	}
	if (!p->given[FAVO_PO_IMAGE]) {
		if (explicit_row >= 0) {
			slurm_error("favo: --%s means nothing without --vm-image",
				    favo_plugin_opt_name(explicit_row));
			give_up();
		}
		/* A submission from within a job with VMs must not hand on their grant. */
		if (getenv(JOB_GRANT)) {
			unsetenv(JOB_GRANT);
			for (size_t i = 0; i < sizeof(carried) / sizeof(carried[0]); i++)
				spank_job_control_unsetenv(sp, carried[i].name);
			spank_job_control_unsetenv(sp, "FAVO_GRANT");
		}
		return 0;
	}
	if (ask_favod(p, answer, sizeof(answer)) < 0)
		give_up();
	if (spank_job_control_setenv(sp, "FAVO_GRANT", answer + 6, 1) != ESPANK_SUCCESS) {
		slurm_error("favo: Slurm refuses to carry the grant of this job");
		give_up();
	}
	for (size_t i = 0; i < sizeof(carried) / sizeof(carried[0]); i++) {
		int row = carried[i].row;

		/* A job from within a job must not get what that one had. */
		if (!p->given[row])
			spank_job_control_unsetenv(sp, carried[i].name);
		else if (spank_job_control_setenv(sp, carried[i].name, p->value[row],
						  1) != ESPANK_SUCCESS)
			give_up();
	}
	/*
	 * sbatch and salloc do this for the job's environment, srun does not. A
	 * task sees by it that its job is for VMs also where the option came from
	 * the environment, which Slurm does not forward.
	 */
	setenv(JOB_GRANT, answer + 6, 1);
	return 0;
}

/*
 * Is --multi-prog among srun's options? SPANK does not tell. The command
 * begins argc words before the end; Slurm counts the file's content as one
 * more, so look one word further.
 */
static bool is_multi_prog(int argc)
{
	char buf[65536];
	const char *word[1024];
	int fd = open("/proc/self/cmdline", O_RDONLY | O_CLOEXEC), n = 0;
	ssize_t len;

	if (fd < 0)
		return false;
	len = read(fd, buf, sizeof(buf) - 1);
	close(fd);
	if (len <= 0)
		return false;
	buf[len] = '\0';
	for (char *w = buf; w < buf + len && n < 1024; w += strlen(w) + 1)
		word[n++] = w;
	for (int i = 1; i < n && i <= n - argc; i++)
		/* getopt_long takes any prefix that is not ambiguous */
		if (strncmp(word[i], "--mu", 4) == 0 && strlen(word[i]) <= 12 &&
		    strncmp("--multi-prog", word[i], strlen(word[i])) == 0)
			return true;
	return false;
}

/*
 * The argv that S_JOB_ARGV hands out is what srun sends to the nodes; of a
 * --multi-prog step, its second word is the text of the file. Whether the job
 * of srun --jobid has VMs is not known here: its tasks know.
 */
int favo_submit_step(struct favo_plugin *p, spank_t sp)
{
	char launcher[sizeof(p->libexec) + 16];
	char **argv = NULL;
	char *text;
	int argc = 0;

	if (spank_get_item(sp, S_JOB_ARGV, &argc, &argv) != ESPANK_SUCCESS)
		return 0;
	if (!is_multi_prog(argc)) {
		unsetenv(FAVO_MULTI_PROG);
		return 0;
	}
	/* The tasks look whether it was done, and refuse to run without. */
	setenv(FAVO_MULTI_PROG, "1", 1);
	if (!p->given[FAVO_PO_IMAGE] && !has_env(JOB_GRANT))
		return 0;
	snprintf(launcher, sizeof(launcher), "%s/favo-task", p->libexec);
	text = argc > 1 && argv[1] ? favo_multi_prog_rewrite(argv[1], launcher) : NULL;
	if (!text) {
		slurm_error("favo: --multi-prog: Slurm gives no text of the file");
		return -1;
	}
	argv[1] = text;
	return 0;
}
