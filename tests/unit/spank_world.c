// SPDX-License-Identifier: GPL-2.0-or-later
/* The world around the plugin; see spank_world.h. */
#include "tests/unit/spank_world.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/util.h"

struct world favo_world;

hook_fn *favo_world_hook(const char *name)
{
	void *sym = dlsym(favo_world.so, name);
	hook_fn *fn;

	assert_non_null(sym);
	memcpy(&fn, &sym, sizeof(fn));
	return fn;
}

int favo_world_call(const char *name)
{
	return favo_world_hook(name)(NULL, 2, favo_world.av);
}

void favo_world_write_file(const char *name, mode_t mode, const char *text)
{
	char path[160];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", favo_world.dir, name);
	f = fopen(path, "w");
	assert_non_null(f);
	fputs(text, f);
	fclose(f);
	chmod(path, mode);
}

bool favo_world_has_file(const char *name)
{
	char path[160];

	snprintf(path, sizeof(path), "%s/%s", favo_world.dir, name);
	return access(path, F_OK) == 0;
}

void favo_world_read_file(const char *name, char *buf, size_t size)
{
	char path[160];
	int fd;
	ssize_t n;

	snprintf(path, sizeof(path), "%s/%s", favo_world.dir, name);
	fd = open(path, O_RDONLY);
	n = fd < 0 ? 0 : read(fd, buf, size - 1);
	buf[n < 0 ? 0 : n] = '\0';
	if (fd >= 0)
		close(fd);
}

/* favo-submit is a script here: it notes its words, then does body. */
void favo_world_fake_submit(const char *body)
{
	char text[1024];

	snprintf(text, sizeof(text), "#!/bin/sh\nprintf '%%s\\n' \"$@\" >%s/asked\n%s\n",
		 favo_world.dir, body);
	favo_world_write_file("favo-submit", 0755, text);
}

/*
 * A favo-noded that takes one request into favo_world.request and says answer; NULL:
 * it takes it and stays silent.
 */
void favo_world_fake_noded(const char *answer)
{
	struct sockaddr_un sun = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(sun.sun_path, sizeof(sun.sun_path), "%s/noded.sock", favo_world.dir);
	unlink(sun.sun_path);
	assert_int_equal(bind(fd, (struct sockaddr *)&sun, sizeof(sun)), 0);
	assert_int_equal(listen(fd, 4), 0);
	favo_world.request[0] = '\0';
	favo_world.noded = fork();
	if (favo_world.noded == 0) {
		int c = accept(fd, NULL, NULL);
		size_t len = 0;

		while (len < 65535 && !strchr(favo_world.request, '\n')) {
			ssize_t n = read(c, favo_world.request + len, 65535 - len);

			if (n <= 0)
				break;
			len += (size_t)n;
			favo_world.request[len] = '\0';
		}
		if (!answer)
			pause();
		if (write(c, answer, strlen(answer)) < 0)
			_exit(1);
		_exit(0);
	}
	close(fd);
}

void favo_world_end_noded(void)
{
	if (favo_world.noded > 0) {
		kill(favo_world.noded, SIGKILL);
		waitpid(favo_world.noded, NULL, 0);
	}
	favo_world.noded = 0;
}

int favo_world_setup(void **state)
{
	(void)state;
	if (!favo_world.request)
		favo_world.request = mmap(NULL, 65536, PROT_READ | PROT_WRITE,
					  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	favo_world.request[0] = '\0';
	snprintf(favo_world.dir, sizeof(favo_world.dir), "/tmp/favo-spank-XXXXXX");
	assert_non_null(mkdtemp(favo_world.dir));
	snprintf(favo_world.libexec_arg, sizeof(favo_world.libexec_arg), "libexec=%s",
		 favo_world.dir);
	snprintf(favo_world.run_arg, sizeof(favo_world.run_arg), "run=%s",
		 favo_world.dir);
	favo_world.av[0] = favo_world.libexec_arg;
	favo_world.av[1] = favo_world.run_arg;
	{
		char path[96];

		snprintf(path, sizeof(path), "%s/job", favo_world.dir);
		assert_int_equal(mkdir(path, 0755), 0);
	}
	favo_world.so = dlopen(SPANK_PLUGIN_PATH, RTLD_LAZY);
	if (!favo_world.so)
		fail_msg("%s", dlerror());
	return 0;
}

int favo_world_teardown(void **state)
{
	char cmd[128];

	(void)state;
	favo_world_end_noded();
	dlclose(favo_world.so);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", favo_world.dir);
	return system(cmd);
}

/* Run scene() in a child; returns its exit code, or 1000 + signal. */
int favo_world_in_child(int (*scene)(void))
{
	int status;
	pid_t pid = fork();

	if (pid == 0)
		_exit(scene());
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

int64_t favo_world_elapsed_us(int (*scene)(void), int *ret)
{
	int64_t start = favo_now_ns();

	*ret = favo_world_in_child(scene);
	return (favo_now_ns() - start) / 1000;
}

void favo_world_clear_env(void)
{
	static const char *const names[] = {
		"SLURM_JOB_ID",
		"SLURM_JOBID",
		"SLURM_SPANK_FAVO_GRANT",
		"SPANK_FAVO_GRANT",
		"FAVO_VM_IMAGE",
		"FAVO_VM_CPUS",
		"FAVO_VM_MEM",
		"FAVO_VM_NETWORK",
		"SLURM_NODELIST",
		"SLURMD_NODENAME",
		"SLURM_EXIT_ERROR",
		"SLURM_SPANK__SLURM_SPANK_OPTION_favo_vm_image"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++)
		unsetenv(names[i]);
}

int favo_world_start(void)
{
	favo_world_clear_env();
	return favo_world_call("slurm_spank_init");
}
