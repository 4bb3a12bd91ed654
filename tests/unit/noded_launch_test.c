// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * cgroups and the start of a program as another user: paths on made-up trees,
 * and as root the real thing on this machine.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>
#include <cmocka.h>

#include "common/fd.h"
#include "common/util.h"
#include "provision/noded/cgroup.h"
#include "provision/noded/launch.h"

static char dir[] = "/tmp/favo-launch-test.XXXXXX";

static int make_dir(void **state)
{
	(void)state;
	return mkdtemp(dir) && chmod(dir, 0755) == 0 ? 0 : -1;
}

static int remove_dir(void **state)
{
	(void)state;
	return favo_remove_tree(dir, NULL);
}

static void test_paths(void **state)
{
	struct favo_job_cgroup cg = {
		.root = "/none", .node = "n1", .uid = 1000, .job = 12};
	char path[512];

	(void)state;
	assert_string_equal(favo_job_cgroup_path(&cg, "memory", 0, path, sizeof(path)),
			    "/none/memory/slurm_n1/uid_1000/job_12/favo");
	assert_string_equal(favo_job_cgroup_path(&cg, "memory", 1, path, sizeof(path)),
			    "/none/memory/slurm_n1/uid_1000/job_12");
	assert_string_equal(favo_job_cgroup_path(&cg, "memory", 2, path, sizeof(path)),
			    "/none/memory/slurm_n1/uid_1000");
	assert_string_equal(favo_job_cgroup_path(&cg, NULL, 0, path, sizeof(path)),
			    "/none/favo.slice/job_12/favo");
	snprintf(cg.base, sizeof(cg.base), "slurm");
	assert_string_equal(favo_job_cgroup_path(&cg, "cpu", 1, path, sizeof(path)),
			    "/none/cpu/slurm/uid_1000/job_12");
}

/* What is found decides between Slurm's ways to name its top directory. */
static void test_layouts(void **state)
{
	struct favo_job_cgroup cg = {.node = "n1", .uid = 7, .job = 3};
	char path[1024], want[600];

	(void)state;
	snprintf(cg.root, sizeof(cg.root), "%s/v1", dir);
	snprintf(path, sizeof(path), "%s/memory/slurm", cg.root);
	assert_int_equal(favo_mkdirs(path, 0755, NULL), 0);
	snprintf(want, sizeof(want), "%s/memory/slurm/uid_7/job_3", cg.root);
	assert_string_equal(favo_job_cgroup_path(&cg, "memory", 1, path, sizeof(path)),
			    want);

	snprintf(cg.root, sizeof(cg.root), "%s/v2", dir);
	snprintf(path, sizeof(path), "%s/system.slice/n1_slurmstepd.scope", cg.root);
	assert_int_equal(favo_mkdirs(path, 0755, NULL), 0);
	snprintf(want, sizeof(want), "%s/system.slice/n1_slurmstepd.scope/job_3/favo",
		 cg.root);
	assert_string_equal(favo_job_cgroup_path(&cg, NULL, 0, path, sizeof(path)), want);
}

static void test_create_remove(void **state)
{
	struct favo_job_cgroup cg = {.node = "n1", .uid = 7, .job = 3};
	const struct favo_job_cgroup_limits limits = {.mem_bytes = 1 << 20, .cores = "0"};
	char path[512];
	struct favo_err err = {0};

	(void)state;
	snprintf(cg.root, sizeof(cg.root), "%s/none", dir);
	assert_int_equal(favo_job_cgroup_create(&cg, &limits, &err), -ENOTSUP);
	snprintf(cg.root, sizeof(cg.root), "%s/tree", dir);
	snprintf(path, sizeof(path), "%s/freezer", cg.root);
	assert_int_equal(favo_mkdirs(path, 0755, NULL), 0);
	snprintf(path, sizeof(path), "%s/cpuset", cg.root);
	assert_int_equal(favo_mkdirs(path, 0755, NULL), 0);
	for (int i = 0; i < 2; i++)
		assert_int_equal(favo_job_cgroup_create(&cg, &limits, &err), 0);
	favo_job_cgroup_path(&cg, "freezer", 0, path, sizeof(path));
	assert_int_equal(access(path, F_OK), 0);
	/* A cpuset of ours would stand in Slurm's way. */
	favo_job_cgroup_path(&cg, "cpuset", 2, path, sizeof(path));
	assert_int_not_equal(access(path, F_OK), 0);
	assert_true(favo_job_cgroup_kill(&cg));
	for (int i = 0; i < 2; i++)
		assert_int_equal(favo_job_cgroup_remove(&cg, &err), 0);
	favo_job_cgroup_path(&cg, "freezer", 2, path, sizeof(path));
	assert_int_not_equal(access(path, F_OK), 0);

	/* The user's other job keeps the user's directory. */
	assert_int_equal(favo_job_cgroup_create(&cg, &limits, &err), 0);
	cg.job = 4;
	assert_int_equal(favo_job_cgroup_create(&cg, &limits, &err), 0);
	assert_int_equal(favo_job_cgroup_remove(&cg, &err), 0);
	assert_int_equal(access(path, F_OK), 0);
}

/* As slurmstepd leaves them at the start of an extern step. */
static void make_extern_step(const char *root, const char *task)
{
	static const char *const dirs[] = {"freezer/slurm/uid_7/job_3/step_extern",
					   "cpuacct/slurm/uid_7/job_3/step_extern",
					   "memory/slurm/uid_7/job_3/step_extern"};
	char path[1024];

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(dirs); i++) {
		snprintf(path, sizeof(path), "%s/%s%s", root, dirs[i], i ? task : "");
		assert_int_equal(favo_mkdirs(path, 0755, NULL), 0);
	}
	snprintf(path, sizeof(path), "%s/%s/cgroup.procs", root, dirs[0]);
	assert_int_equal(favo_file_replace(path, "77\n", 3, 0644, NULL), 0);
	snprintf(path, sizeof(path), "%s/%s/freezer.state", root, dirs[0]);
	assert_int_equal(favo_file_replace(path, "FROZEN", 6, 0644, NULL), 0);
}

/* Slurm counts what is in its extern step, and suspends it. */
static void test_extern_step(void **state)
{
	struct favo_job_cgroup cg = {.node = "n1", .uid = 7, .job = 3};
	const struct favo_job_cgroup_limits limits = {.extern_step = true, .cores = ""};
	static const char *const made[] = {"freezer/slurm/uid_7/job_3/step_extern/favo",
					   "cpuacct/slurm/uid_7/job_3/step_extern/task_1"
					   "/favo",
					   "memory/slurm/uid_7/job_3/step_extern/task_1"
					   "/favo"};
	favo_autofree char *text = NULL;
	char path[1024];

	(void)state;
	snprintf(cg.root, sizeof(cg.root), "%s/step", dir);
	make_extern_step(cg.root, "/task_1");
	for (int i = 0; i < 2; i++)
		assert_int_equal(favo_job_cgroup_create(&cg, &limits, NULL), 0);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(made); i++) {
		snprintf(path, sizeof(path), "%s/%s", cg.root, made[i]);
		assert_int_equal(access(path, F_OK), 0);
	}
	favo_job_cgroup_path(&cg, "freezer", 0, path, sizeof(path));
	assert_int_not_equal(access(path, F_OK), 0);

	/* It is to end although it is suspended. */
	assert_true(favo_job_cgroup_kill(&cg));
	snprintf(path, sizeof(path),
		 "%s/freezer/slurm/uid_7/job_3/step_extern/freezer.state", cg.root);
	assert_int_equal(favo_file_read(path, 64, &text, NULL, NULL), 0);
	assert_string_equal(text, "THAWED");
	/* slurmstepd is gone and its files with it. */
	unlink(path);
	memcpy(strrchr(path, '/'), "/cgroup.procs", sizeof("/cgroup.procs"));
	unlink(path);
	for (int i = 0; i < 2; i++)
		assert_int_equal(favo_job_cgroup_remove(&cg, NULL), 0);
	favo_job_cgroup_path(&cg, "memory", 1, path, sizeof(path));
	assert_int_not_equal(access(path, F_OK), 0);
	favo_job_cgroup_path(&cg, "freezer", 1, path, sizeof(path));
	assert_int_not_equal(access(path, F_OK), 0);
}

static bool real_cgroups(struct favo_job_cgroup *cg)
{
	const struct favo_job_cgroup_limits limits = {.mem_bytes = 64 << 20, .cores = ""};

	if (geteuid() != 0)
		return false;
	memset(cg, 0, sizeof(*cg));
	snprintf(cg->root, sizeof(cg->root), "/sys/fs/cgroup");
	snprintf(cg->node, sizeof(cg->node), "favo-test-%d", (int)getpid());
	cg->uid = 12345;
	cg->job = 99;
	return favo_job_cgroup_create(cg, &limits, NULL) >= 0;
}

static char *read_log(const char *path)
{
	char *text = NULL;

	assert_int_equal(favo_file_read(path, 65536, &text, NULL, NULL), 0);
	return text;
}

/* The program sees its user, its group, three descriptors and no privilege. */
static void test_launch(void **state)
{
	static char *const argv[] = {
		(char *)"sh", (char *)"-c",
		(char *)"id -u; id -G; ls -l /proc/self/fd | grep -c -e '->'; "
			"grep NoNewPrivs /proc/self/status; cat <&4; cat "
			"/proc/self/cgroup",
		NULL};
	struct favo_job_cgroup cg;
	struct favo_process process = {.pidfd = -1};
	struct favo_err err = {0};
	char path[1024], data[256];
	favo_autofree char *text = NULL;
	gid_t group = 54321;
	int fds[2], log_fd, gate = -1, ret;

	(void)state;
	if (!real_cgroups(&cg)) {
		print_message("skipped: needs root and writable cgroups\n");
		skip();
	}
	snprintf(path, sizeof(path), "%s/log", dir);
	snprintf(data, sizeof(data), "%s/data", dir);
	assert_int_equal(favo_file_replace(data, "passed\n", 7, 0600, NULL), 0);
	log_fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
	fds[0] = open("/dev/null", O_RDONLY | O_CLOEXEC);
	fds[1] = open(data, O_RDONLY | O_CLOEXEC);
	struct favo_launch l = {.path = "/bin/sh",
				.argv = argv,
				.fds = fds,
				.nfds = 2,
				.log_fd = log_fd,
				.uid = 12345,
				.gid = 54321,
				.groups = &group,
				.ngroups = 1,
				.cgroup = &cg,
				.cores = "0"};

	ret = favo_launch_begin(&l, &process, &gate, &err);
	if (ret < 0)
		fail_msg("%s", err.msg);
	assert_true(process.pid > 1 && process.start_time && process.pidfd >= 0);
	/* Behind its gate it has done nothing yet. */
	assert_false(favo_process_wait(&process, 20));
	assert_int_equal(favo_launch_go(&gate, l.path, &err), 0);
	assert_true(favo_process_wait(&process, 5000));
	favo_process_reap(&process);
	close(process.pidfd);
	text = read_log(path);
	assert_non_null(strstr(text, "12345\n54321\n"));
	assert_non_null(strstr(text, "NoNewPrivs:\t1"));
	assert_non_null(strstr(text, "passed\n"));
	assert_non_null(strstr(text, "/uid_12345/job_99/favo"));
	/* 0, 1, 2, the two given ones, and that of the listing itself. */
	assert_non_null(strstr(text, "\n6\n"));

	/* A gate that closes ends the child before it became anything. */
	ret = favo_launch_begin(&l, &process, &gate, &err);
	assert_int_equal(ret, 0);
	favo_close(&gate);
	assert_true(favo_process_wait(&process, 5000));
	favo_process_reap(&process);
	close(process.pidfd);

	l.path = "/no/such/program";
	assert_int_equal(favo_launch_begin(&l, &process, &gate, &err), 0);
	assert_int_equal(favo_launch_go(&gate, l.path, &err), -ENOENT);
	assert_non_null(strstr(err.msg, "exec: No such file"));
	favo_process_reap(&process);
	close(process.pidfd);

	close(log_fd);
	close(fds[0]);
	close(fds[1]);
	assert_int_equal(favo_job_cgroup_remove(&cg, &err), 0);
	/* Slurm's top directory is not ours to remove: this test made it. */
	for (int i = 0; i < 5; i++) {
		static const char *const names[] = {"memory", "cpuset", "cpu", "cpuacct",
						    "freezer"};

		snprintf(path, sizeof(path), "%s/%s/slurm_%s", cg.root, names[i],
			 cg.node);
		rmdir(path);
	}
}

static void test_process(void **state)
{
	struct favo_process process = {.pidfd = -1};
	struct favo_err err = {0};
	uint64_t start;
	pid_t pid = fork();

	(void)state;
	if (!pid) {
		pause();
		_exit(0);
	}
	start = favo_process_start_time(pid);
	assert_true(start > 0);
	assert_int_equal(favo_process_adopt(&process, pid, start + 1, &err), -ESRCH);
	assert_int_equal(favo_process_adopt(&process, 0, start, &err), -ESRCH);
	assert_int_equal(favo_process_adopt(&process, pid, start, &err), 0);
	assert_false(favo_process_wait(&process, 0));
	kill(pid, SIGKILL);
	assert_true(favo_process_wait(&process, 5000));
	/* A zombie is gone. */
	assert_int_equal(favo_process_start_time(pid), 0);
	waitpid(pid, NULL, 0);
	assert_int_equal(favo_process_start_time(pid), 0);
	close(process.pidfd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_paths),	      cmocka_unit_test(test_layouts),
		cmocka_unit_test(test_create_remove), cmocka_unit_test(test_extern_step),
		cmocka_unit_test(test_launch),	      cmocka_unit_test(test_process),
	};

	return cmocka_run_group_tests(tests, make_dir, remove_dir);
}
