// SPDX-License-Identifier: GPL-2.0-or-later
/* The warm pool's books: which starts share a snapshot, when one is wanted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "provision/noded/noded.h"
#include "provision/noded/warm.h"

#define NFDS 6

/* Of the daemon's main program, which tests do without. */
int favo_noded_thread(void *(*fn)(void *), void *arg, struct favo_err *err)
{
	(void)fn;
	(void)arg;
	return favo_fail(err, EAGAIN, "no threads here");
}

void favo_noded_changed(struct noded *daemon)
{
	(void)daemon;
}

void favo_noded_wait_until(struct noded *daemon, int64_t until_ms)
{
	(void)daemon;
	(void)until_ms;
}

static char dir[] = "/tmp/favo-warm.XXXXXX";
static struct favo_conf conf;
static struct noded nd;
static int fds[NFDS];

static int setup(void **state)
{
	(void)state;
	assert_non_null(mkdtemp(dir));
	conf.state_dir = dir;
	conf.vmm_path = (char *)"/proc/self/exe";
	conf.init_path = (char *)"/proc/self/exe";
	conf.warm_pool_bytes = 1 << 20;
	nd.conf = &conf;
	pthread_mutex_init(&nd.lock, NULL);
	for (int i = 0; i < NFDS; i++)
		fds[i] = open("/dev/null", O_RDWR | O_CLOEXEC);
	return 0;
}

static int teardown(void **state)
{
	(void)state;
	for (int i = 0; i < NFDS; i++)
		close(fds[i]);
	return favo_remove_tree(dir, NULL);
}

static struct favo_warm_plan plan_of(char **argv, const char *image)
{
	return (struct favo_warm_plan){
		.argv = argv,
		.fds = fds,
		.nfds = NFDS,
		.image = image,
		.config = 1,
		.vsock = 2,
		.console = 3,
		.control = 4,
		.events = 5,
		.tap = NFDS,
		.vhost = NFDS + 1,
	};
}

/* The key of a start of these arguments. */
static void key_of(char key[FAVO_WARM_KEY], const char *name, const char *mem,
		   const char *mac, const char *cid, const char *image)
{
	char *argv[] = {
		(char *)"favo-vmm", (char *)"--name", (char *)name, (char *)"--mem",
		(char *)mem,	    (char *)"--net",  (char *)mac,  (char *)"--vsock",
		(char *)cid,	    (char *)"--rng",  NULL};
	const struct favo_warm_plan plan = plan_of(argv, image);
	struct warm_source *source = NULL;
	int state_fd = -1, memory_fd = -1;

	memset(key, 0, FAVO_WARM_KEY);
	assert_int_equal(favo_warm_begin(&nd, &plan, key, &state_fd, &memory_fd, &source),
			 0);
	assert_int_equal(strlen(key), 64);
	favo_warm_source_free(source);
}

static void test_keys(void **state)
{
	char base[FAVO_WARM_KEY], other[FAVO_WARM_KEY];

	(void)state;
	key_of(base, "1.0", "1M", "fd=1,mac=02:00:00:00:00:01", "cid=5", "sha256:a");
	/* What is the job's own makes no difference, what is the machine's does. */
	key_of(other, "2.0", "1M", "fd=1,mac=02:00:00:00:00:02", "cid=6", "sha256:a");
	assert_string_equal(base, other);
	key_of(other, "1.0", "2M", "fd=1,mac=02:00:00:00:00:01", "cid=5", "sha256:a");
	assert_string_not_equal(base, other);
	key_of(other, "1.0", "1M", "fd=2,mac=02:00:00:00:00:01", "cid=5", "sha256:a");
	assert_string_not_equal(base, other);
	key_of(other, "1.0", "1M", "fd=1,mac=02:00:00:00:00:01", "cid=5", "sha256:b");
	assert_string_not_equal(base, other);
}

static void test_suits(void **state)
{
	char *plain[] = {(char *)"favo-vmm", (char *)"--rng", NULL};
	char *shared[] = {(char *)"favo-vmm", (char *)"--fs", (char *)"fd=3,tag=home",
			  NULL};
	char *writable[] = {(char *)"favo-vmm", (char *)"--disk",
			    (char *)"fd=3,overlay-fd=4", NULL};
	struct favo_warm_plan plan = plan_of(plain, "x");

	(void)state;
	assert_true(favo_warm_suits(&nd, &plan));
	plan.argv = shared;
	assert_false(favo_warm_suits(&nd, &plan));
	plan.argv = writable;
	assert_false(favo_warm_suits(&nd, &plan));
	plan.argv = plain;
	conf.warm_pool_bytes = 0;
	assert_false(favo_warm_suits(&nd, &plan));
	conf.warm_pool_bytes = 1 << 20;
}

static void put_file(const char *key, const char *name)
{
	favo_autofree char *path = favo_asprintf("%s/warm/%s", dir, key);
	favo_autofree char *file = favo_asprintf("%s/%s", path, name);

	assert_int_equal(favo_mkdirs(path, 0700, NULL), 0);
	assert_int_equal(favo_file_replace(file, "x", 1, 0600, NULL), 0);
}

static void test_life(void **state)
{
	char *argv[] = {(char *)"favo-vmm", (char *)"--cpus", (char *)"7", NULL};
	const struct favo_warm_plan plan = plan_of(argv, "sha256:c");
	struct warm_source *source = NULL;
	int state_fd = -1, memory_fd = -1;
	char key[FAVO_WARM_KEY] = "";

	(void)state;
	/* The first start is too early, the second one wants a snapshot. */
	assert_int_equal(favo_warm_begin(&nd, &plan, key, &state_fd, &memory_fd, &source),
			 0);
	assert_null(source);
	assert_int_equal(favo_warm_begin(&nd, &plan, key, &state_fd, &memory_fd, &source),
			 0);
	assert_non_null(source);
	favo_warm_source_free(source);
	source = NULL;
	/* One that is half made is no snapshot, and goes at a restart. */
	put_file(key, "state");
	put_file("aa.new", "state");
	favo_warm_recover(&nd);
	assert_int_equal(favo_warm_begin(&nd, &plan, key, &state_fd, &memory_fd, &source),
			 0);
	favo_warm_source_free(source);
	source = NULL;
	put_file(key, "memory");
	assert_int_equal(favo_warm_begin(&nd, &plan, key, &state_fd, &memory_fd, &source),
			 1);
	assert_true(state_fd >= 0 && memory_fd >= 0);
	assert_null(source);
	favo_close(&state_fd);
	favo_close(&memory_fd);
	/* A start from it failed: it is gone, and this daemon makes no other. */
	favo_warm_drop(&nd, key);
	assert_int_equal(favo_warm_begin(&nd, &plan, key, &state_fd, &memory_fd, &source),
			 0);
	assert_null(source);
}

static void test_recover(void **state)
{
	favo_autofree char *path = favo_asprintf("%s/warm/aa.new", dir);
	struct stat st;

	(void)state;
	put_file("aa.new", "state");
	favo_warm_recover(&nd);
	assert_int_equal(stat(path, &st), -1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_keys),
		cmocka_unit_test(test_suits),
		cmocka_unit_test(test_life),
		cmocka_unit_test(test_recover),
	};

	return cmocka_run_group_tests(tests, setup, teardown);
}
