// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-lazy: serves one image that is not complete yet to the VMs of a node,
 * as a block device of the kernel's NBD client; see favo-lazy(8).
 *
 * Started by favo-noded, and independent of it from then on: it survives a
 * restart or a crash of favo-noded, and ends when the last user has closed
 * the device. Bytes that are not here are fetched from favod, tried again
 * until a limit, and then answered with an I/O error.
 *
 * The main thread speaks with the kernel; two fetchers get what it waits for.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <time.h>

#include <linux/nbd.h>

#include "config.h"
#include "common/fd.h"
#include "common/http.h"
#include "common/log.h"
#include "common/options.h"
#include "common/util.h"
#include "images/lazy.h"
#include "provision/blobs.h"
#include "provision/lazy/nbd.h"

#define FETCHERS 2
#define BATCH 16 /* chunks per request: a guest waits for the whole answer */
#define REPLY_MAX ((size_t)BATCH * (FAVO_CHUNK_MAX + 64))
#define READ_MAX (4u << 20) /* the kernel asks for 1 MiB at most, see tune() */
#define BACKOFF_FIRST_MS 250
#define BACKOFF_LAST_MS 4000
#define REQUEST_MS 30000 /* a favod that hangs is asked again */
#define LOOK_MS 10 /* while a guest waits */
#define KERNEL_EXTRA_S 30 /* beyond our own limit: we do not answer at all */

struct options {
	char *folder;
	char *favod_url;
	char *munge_socket;
	uint64_t limit_ms;
	bool version;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_STR("folder", "DIR", struct options, folder, FAVO_FROM_CLI, NULL,
		     "partial image in the node's cache"),
	FAVO_OPT_STR("favod-url", "URL", struct options, favod_url, FAVO_FROM_CLI, NULL,
		     "where the missing bytes are"),
	FAVO_OPT_STR("munge-socket", "PATH", struct options, munge_socket, FAVO_FROM_CLI,
		     "", "socket of munged; empty: MUNGE's default"),
	FAVO_OPT_DURATION("limit", "TIME", struct options, limit_ms, FAVO_FROM_CLI,
			  "120s", "a read that waits longer gets an I/O error"),
	FAVO_OPT_FLAG("version", struct options, version, FAVO_FROM_CLI,
		      "print the version and exit"),
};

struct server {
	const struct options *options;
	struct favo_partial *partial;
	pthread_mutex_t lock; /* around lazy */
	pthread_cond_t wanted;
	struct favo_lazy *lazy;
	pthread_mutex_t put_lock; /* around favo_partial_put() */
	int event_fd; /* something came: answer what waits */
	int nbd_fd;
	unsigned int device;
	char *buf; /* READ_MAX bytes */
};

/* ---- fetchers ---- */

static int put_blob(const struct favo_digest *digest, const void *stored, size_t len,
		    void *user, struct favo_err *err)
{
	struct server *s = user;
	int ret;

	pthread_mutex_lock(&s->put_lock);
	ret = favo_partial_put(s->partial, digest, stored, len, err);
	pthread_mutex_unlock(&s->put_lock);
	return ret;
}

static int fetch(struct server *s, struct favo_http *http, const struct favo_digest *want,
		 int n, struct favo_err *err)
{
	struct favo_http_reply reply = {0};
	int ret = favo_blobs_get(http, want, n, &reply, err);

	if (ret >= 0)
		ret = favo_blobs_each(want, n, reply.body, reply.len, put_blob, s, err);
	favo_http_reply_fini(&reply);
	return ret;
}

static void sleep_ms(int ms)
{
	const struct timespec pause = {.tv_sec = ms / 1000,
				       .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&pause, NULL);
}

static int open_http(struct favo_http **out, const struct server *s, struct favo_err *err)
{
	const struct favo_http_params params = {
		.base_url = s->options->favod_url,
		.munge_socket =
			*s->options->munge_socket ? s->options->munge_socket : NULL,
		.timeout_ms = (int)FAVO_MIN(s->options->limit_ms, REQUEST_MS),
		.max_reply = REPLY_MAX,
	};

	return favo_http_new(out, &params, err);
}

static void *fetcher(void *arg)
{
	struct server *s = arg;
	struct favo_digest want[BATCH];
	int backoff_ms = BACKOFF_FIRST_MS, ret, n;

	for (;;) {
		favo_autohttp struct favo_http *http = NULL;
		struct favo_err err = {0};

		ret = open_http(&http, s, &err);
		while (ret >= 0) {
			pthread_mutex_lock(&s->lock);
			while (!(n = favo_lazy_want(s->lazy, want, BATCH)))
				pthread_cond_wait(&s->wanted, &s->lock);
			pthread_mutex_unlock(&s->lock);
			ret = fetch(s, http, want, n, &err);
			pthread_mutex_lock(&s->lock);
			favo_lazy_settle(s->lazy, want, n);
			pthread_mutex_unlock(&s->lock);
			if (eventfd_write(s->event_fd, 1) < 0)
				favo_log(FAVO_DEBUG, "wake: %m");
			if (ret >= 0)
				backoff_ms = BACKOFF_FIRST_MS;
		}
		favo_log(FAVO_WARN, "a guest waits for its image: %s; trying again",
			 err.msg);
		sleep_ms(backoff_ms);
		backoff_ms = FAVO_MIN(2 * backoff_ms, BACKOFF_LAST_MS);
	}
	return NULL;
}

/* ---- the kernel's side ---- */

/* Answer all that can be answered. */
static int answer(struct server *s, struct favo_err *err)
{
	struct favo_partial_state *state = favo_partial_state(s->partial);
	struct favo_lazy_request r;
	bool late, more;
	int ret = 0, code;

	for (;;) {
		pthread_mutex_lock(&s->lock);
		more = favo_lazy_next(s->lazy, favo_now_ms(), &r, &late);
		__atomic_store_n(&state->waiting, favo_lazy_waiting(s->lazy),
				 __ATOMIC_RELAXED);
		pthread_mutex_unlock(&s->lock);
		if (!more || ret < 0)
			return ret;
		code = late ? EIO : 0;
		if (late)
			favo_log(FAVO_ERROR,
				 "%u bytes at %llu did not come in %llu s: a guest gets "
				 "an I/O error",
				 r.length, (unsigned long long)r.offset,
				 (unsigned long long)s->options->limit_ms / 1000);
		else if (favo_partial_read(s->partial, s->buf, r.length, r.offset, err) <
			 0)
			code = EIO;
		if (code)
			__atomic_add_fetch(&state->failed, 1, __ATOMIC_RELAXED);
		__atomic_add_fetch(&state->served, r.length, __ATOMIC_RELAXED);
		ret = favo_nbd_reply(s->nbd_fd, r.cookie, code, s->buf, r.length, err);
	}
}

/* 1: the kernel is done with us. */
static int take_request(struct server *s, struct favo_err *err)
{
	unsigned char bytes[FAVO_NBD_REQUEST_SIZE];
	struct favo_nbd_request request;
	struct favo_lazy_request r;
	int ret;

	ret = favo_read_all(s->nbd_fd, bytes, sizeof(bytes), -1, err);
	if (ret == -ENODATA || ret == -ECONNRESET)
		return 1;
	if (ret >= 0)
		ret = favo_nbd_parse(&request, bytes, err);
	if (ret < 0)
		return ret;
	if (request.type == NBD_CMD_DISC)
		return 1;
	/* A write would bring data behind it; the device is read-only. */
	if (request.type == NBD_CMD_WRITE)
		return favo_fail(err, EPROTO, "NBD: the kernel writes");
	r = (struct favo_lazy_request){request.cookie, request.offset, request.length};
	pthread_mutex_lock(&s->lock);
	ret = request.type == NBD_CMD_READ && request.length <= READ_MAX
		      ? favo_lazy_ask(s->lazy, &r, favo_now_ms(), NULL)
		      : -EINVAL;
	pthread_cond_broadcast(&s->wanted);
	pthread_mutex_unlock(&s->lock);
	return ret < 0 ? favo_nbd_reply(s->nbd_fd, request.cookie, -ret, NULL, 0, err)
		       : 0;
}

static int wait_ms(struct server *s)
{
	int64_t deadline, now = favo_now_ms();

	pthread_mutex_lock(&s->lock);
	deadline = favo_lazy_deadline(s->lazy);
	pthread_mutex_unlock(&s->lock);
	if (deadline == INT64_MAX)
		return -1;
	/* What noded puts comes without a word to us. */
	return (int)FAVO_MIN(FAVO_MAX(deadline - now, 0), LOOK_MS);
}

/* Until the kernel says that nobody uses the device any more. */
static int serve(struct server *s, struct favo_err *err)
{
	struct pollfd p[] = {
		{.fd = s->nbd_fd, .events = POLLIN},
		{.fd = s->event_fd, .events = POLLIN},
	};
	eventfd_t count;
	int ret = 0;

	while (ret == 0) {
		if (poll(p, FAVO_ARRAY_SIZE(p), wait_ms(s)) < 0 && errno != EINTR)
			return favo_fail(err, errno, "poll: %m");
		if (p[1].revents & POLLIN)
			(void)eventfd_read(s->event_fd, &count);
		if (p[0].revents)
			ret = take_request(s, err);
		if (ret >= 0 && answer(s, err) < 0)
			ret = -EIO;
	}
	return ret < 0 ? ret : 0;
}

/* ---- start ---- */

static void write_queue(unsigned int device, const char *name, const char *value)
{
	char path[96];
	favo_autoclose int fd = -1;

	snprintf(path, sizeof(path), "/sys/block/nbd%u/queue/%s", device, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0 || write(fd, value, strlen(value)) < 0)
		favo_log(FAVO_DEBUG, "%s: %m", path);
}

/* Reading ahead moves bytes that nobody asked for; the guest does its own. */
static void tune(unsigned int device)
{
	write_queue(device, "read_ahead_kb", "32");
	write_queue(device, "max_sectors_kb", "1024");
}

static uint64_t own_start_time(void)
{
	favo_autofree char *text = NULL;
	unsigned long long value = 0;
	const char *p;

	if (favo_file_read("/proc/self/stat", 4096, &text, NULL, NULL) < 0)
		return 0;
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d "
			 "%*d %*d %*d %*d %llu",
			 &value) != 1)
		return 0;
	return value;
}

static void publish(struct server *s)
{
	struct favo_partial_state *state = favo_partial_state(s->partial);

	state->device = s->device;
	state->pid = (uint32_t)getpid();
	state->start_time = own_start_time();
	__atomic_thread_fence(__ATOMIC_RELEASE);
	memcpy(state->magic, FAVO_PARTIAL_MAGIC, sizeof(state->magic));
}

/* As Debian ships it, the module is loaded by nobody but us. */
static void load_module(void)
{
	char *argv[] = {(char *)"modprobe", (char *)"-q", (char *)"nbd", NULL};
	pid_t pid;

	if (access("/sys/module/nbd", F_OK) == 0)
		return;
	if (posix_spawnp(&pid, "modprobe", NULL, NULL, argv, environ) == 0)
		waitpid(pid, NULL, 0);
}

/*
 * Tell noded, and hold the device until it has opened it too, which it tells
 * by closing our stdin. A thread: to open a device is to have its partitions
 * looked for, that is, to read it.
 */
static void *announce(void *arg)
{
	favo_autoclose int fd = -1;
	struct server *s = arg;
	char path[32], byte;

	snprintf(path, sizeof(path), "/dev/nbd%u", s->device);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0) {
		favo_log(FAVO_ERROR, "open %s: %m", path);
		favo_nbd_disconnect(s->device);
		return NULL;
	}
	publish(s);
	printf("ready %u\n", s->device);
	if (fflush(stdout))
		favo_log(FAVO_WARN, "favo-noded has gone: %m");
	while (read(STDIN_FILENO, &byte, 1) > 0)
		;
	return NULL;
}

static int make_device(struct server *s, struct favo_err *err)
{
	uint64_t size = favo_partial_index(s->partial)->size;
	int ret;

	load_module();
	ret = favo_nbd_connect(
		size, (unsigned int)(s->options->limit_ms / 1000) + KERNEL_EXTRA_S,
		&s->nbd_fd, err);
	if (ret < 0)
		return ret;
	s->device = (unsigned int)ret;
	tune(s->device);
	return 0;
}

static int start_thread(void *(*fn)(void *), struct server *s, struct favo_err *err)
{
	pthread_t thread;
	int ret = pthread_create(&thread, NULL, fn, s);

	if (ret)
		return favo_fail(err, ret, "start thread: %m");
	pthread_detach(thread);
	return 0;
}

static int run(const struct options *options, struct favo_err *err)
{
	struct server s = {.options = options, .nbd_fd = -1};
	int ret;

	pthread_mutex_init(&s.lock, NULL);
	pthread_mutex_init(&s.put_lock, NULL);
	pthread_cond_init(&s.wanted, NULL);
	s.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	s.buf = malloc(READ_MAX);
	if (s.event_fd < 0 || !s.buf)
		return favo_fail(err, ENOMEM, "out of memory");
	/* Fetchers use all of it until the process ends: nothing is freed. */
	ret = favo_partial_open(&s.partial, options->folder, err);
	if (ret == 0)
		ret = favo_lazy_new(&s.lazy, s.partial, (int64_t)options->limit_ms, err);
	if (ret == 0)
		ret = make_device(&s, err);
	for (int i = 0; ret == 0 && i < FETCHERS; i++)
		ret = start_thread(fetcher, &s, err);
	if (ret == 0)
		ret = start_thread(announce, &s, err);
	return ret < 0 ? ret : serve(&s, err);
}

static int load(int argc, char **argv, struct options *options, struct favo_err *err)
{
	const struct favo_opts opts = {
		.program = "favo-lazy",
		.synopsis = "--folder DIR --favod-url URL",
		.about = "Serves an image that is not complete yet to the VMs of this "
			 "node, as a block device. Started by favo-noded.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = options,
	};
	int first, ret;

	ret = favo_opts_defaults(&opts, err);
	if (ret >= 0)
		ret = favo_opts_cli(&opts, argc, argv, &first, err);
	if (ret)
		return ret;
	if (first < argc)
		return favo_fail(err, EINVAL, "unknown argument '%s'; try --help",
				 argv[first]);
	if (options->version) {
		puts("favo-lazy " PACKAGE_VERSION);
		return 1;
	}
	if (!options->folder || !options->favod_url)
		return favo_fail(err, EINVAL, "--folder and --favod-url are needed");
	return 0;
}

int main(int argc, char **argv)
{
	struct options options = {0};
	struct favo_err err = {0};
	int ret;

	favo_log_init("favo-lazy", FAVO_INFO, false, NULL);
	signal(SIGPIPE, SIG_IGN);
	ret = load(argc, argv, &options, &err);
	if (ret > 0)
		return 0;
	if (ret == 0)
		ret = run(&options, &err);
	if (ret < 0) {
		favo_log(FAVO_ERROR, "%s", err.msg);
		return 1;
	}
	/* Fetchers are in the midst of their work. */
	_exit(0);
}
