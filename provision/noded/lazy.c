// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Lazy start: a VM boots while its image is still on its way.
 *
 * The fetch of an image (fetch.c) goes in three parts then: what a VM needs
 * to begin (index, kernel, initramfs); the chunks that an earlier start is
 * known to read, in that order; and, once the first task has started and the
 * guest is quiet, the rest. Meanwhile favo-lazy serves the partial image as a
 * block device and fetches by itself what a guest reads too early. It is a
 * process of its own: VMs go on while favo-noded is restarted.
 *
 * A job that runs on a partial image is one of its fetch's waiters until its
 * end ("rides" on it), so that the fetch goes on and never gives up. When the
 * image is complete it is a cached image like any other; a device that is in
 * use stays until its last user is gone.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/fs.h>
#include <spawn.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <time.h>

#include "common/fd.h"
#include "common/http.h"
#include "common/log.h"
#include "common/util.h"
#include "images/partial.h"
#include "provision/noded/noded.h"

#define START_MS 15000 /* for favo-lazy to make its device */
#define QUIET_MS 2000 /* a guest that reads nothing for so long has started */
#define POLL_MS 200
#define YIELD_MS 2000
#define TRACE_TIMEOUT_MS 10000
/* When nothing is known of the way to favod: a gigabit link. */
#define RATE_DEFAULT (100ull << 20)
/* A full fetch that is expected to take no longer is not worth the trouble. */
#define WORTH_MS 5000

/* ---- when ---- */

static bool is_worth_it(const struct noded *nd, const struct favo_fetch_progress *p)
{
	uint64_t rate = nd->fetch_rate ? nd->fetch_rate : RATE_DEFAULT;

	return (p->total - p->done) / (rate / 1000 + 1) > WORTH_MS;
}

static bool is_chosen(struct noded *nd, const struct favo_fetch_progress *p)
{
	bool chosen;

	pthread_mutex_lock(&nd->lock);
	chosen = strcmp(nd->conf->image_lazy, "never") != 0 &&
		 (!strcmp(nd->conf->image_lazy, "always") || is_worth_it(nd, p));
	pthread_mutex_unlock(&nd->lock);
	return chosen;
}

/* ---- what the last start read ---- */

static int open_http(struct favo_http **out, const struct favo_conf *conf,
		     struct favo_err *err)
{
	const struct favo_http_params params = {
		.base_url = conf->favod_url,
		.munge_socket = *conf->munge_socket ? conf->munge_socket : NULL,
		.timeout_ms = TRACE_TIMEOUT_MS,
		.max_reply = FAVO_TRACE_MAX,
	};

	return favo_http_new(out, &params, err);
}

static char *trace_path(const struct favo_digest *id, char path[128])
{
	char text[FAVO_DIGEST_TEXT_SIZE];

	snprintf(path, 128, "/v1/prefetch/%s", favo_digest_format(id, text));
	return path;
}

/* Best effort: without a list the guest's own reads say what comes first. */
static void get_trace(struct fetch *fetch, struct favo_fetch *fill)
{
	favo_autohttp struct favo_http *http = NULL;
	favo_autofree uint32_t *chunks = NULL;
	struct favo_http_reply reply = {0};
	struct favo_err err = {0};
	char path[128];
	size_t n = 0;
	int ret;

	ret = open_http(&http, fetch->nd->conf, &err);
	if (ret >= 0)
		ret = favo_http_request(http, "GET", trace_path(&fetch->id, path), NULL,
					0, &reply, &err);
	if (ret >= 0 && reply.status == 200)
		ret = favo_trace_parse(&chunks, &n, reply.body, reply.len,
				       favo_fetch_chunks(fill), &err);
	if (ret >= 0 && n)
		ret = favo_fetch_first(fill, chunks, n, &err);
	if (ret < 0)
		favo_log(FAVO_INFO, "order of the last start: %s", err.msg);
	fetch->first = n;
	favo_http_reply_fini(&reply);
}

static char *part_path(const struct fetch *fetch, const char *suffix, char *buf,
		       size_t size)
{
	char hex[FAVO_DIGEST_HEX_SIZE];

	snprintf(buf, size, "%s/cache/images/%s.part%s", fetch->nd->conf->state_dir,
		 favo_digest_format_hex(&fetch->id, hex), suffix);
	return buf;
}

/* Tell favod what this start read, unless that is what it told us. */
static void put_trace(const struct fetch *fetch, size_t n_chunks)
{
	favo_autohttp struct favo_http *http = NULL;
	favo_autofree uint32_t *chunks = NULL;
	favo_autofree char *data = NULL;
	struct favo_http_reply reply = {0};
	struct favo_err err = {0};
	size_t len = 0, n = 0;
	char path[512];
	int ret;

	part_path(fetch, "/trace", path, sizeof(path));
	ret = favo_file_read(path, FAVO_TRACE_MAX, &data, &len, &err);
	if (ret >= 0)
		ret = favo_trace_parse(&chunks, &n, data, len, n_chunks, &err);
	if (ret < 0 || !n || (fetch->first && n <= fetch->first + fetch->first / 8))
		return;
	ret = open_http(&http, fetch->nd->conf, &err);
	if (ret >= 0)
		ret = favo_http_request(http, "PUT", trace_path(&fetch->id, path), data,
					len, &reply, &err);
	if (ret >= 0 && reply.status >= 300)
		ret = favo_fail(&err, EIO, "favod answers %ld", reply.status);
	if (ret < 0)
		favo_log(FAVO_INFO, "order of this start: %s", err.msg);
	favo_http_reply_fini(&reply);
}

/* ---- the fetch's side ---- */

static bool load_state(const struct fetch *fetch, struct favo_partial_state *state)
{
	char path[512];

	return favo_partial_state_load(state, part_path(fetch, "", path, sizeof(path)),
				       NULL) == 0;
}

static void sleep_ms(int ms)
{
	const struct timespec pause = {.tv_sec = ms / 1000,
				       .tv_nsec = ms % 1000 * 1000000L};

	nanosleep(&pause, NULL);
}

/* What a guest waits for goes before what nobody waits for. */
static void yield(const struct fetch *fetch)
{
	int64_t end = favo_now_ms() + YIELD_MS;
	struct favo_partial_state state;

	while (favo_now_ms() < end && load_state(fetch, &state) && state.waiting)
		sleep_ms(10);
}

void favo_lazy_step(struct fetch *fetch, struct favo_fetch *fill)
{
	struct noded *nd = fetch->nd;
	struct favo_fetch_progress progress;
	bool riders, chosen;

	if (!fetch->decided && favo_fetch_chunks(fill)) {
		fetch->decided = true;
		favo_fetch_progress(fill, &progress);
		chosen = is_chosen(nd, &progress);
		favo_fetch_hold(fill, chosen);
		if (chosen)
			get_trace(fetch, fill);
		pthread_mutex_lock(&nd->lock);
		fetch->lazy = chosen;
		pthread_mutex_unlock(&nd->lock);
	}
	pthread_mutex_lock(&nd->lock);
	if (fetch->lazy && !fetch->bootable && favo_fetch_is_bootable(fill)) {
		fetch->bootable = true;
		fetch->bootable_ms = favo_now_ms();
		favo_noded_changed(nd);
	}
	riders = fetch->riders;
	pthread_mutex_unlock(&nd->lock);
	if (riders)
		yield(fetch);
}

/* Do all jobs on this image have what they need to run? With the lock held. */
static bool all_started(const struct fetch *fetch)
{
	for (const struct job *job = fetch->nd->jobs; job; job = job->next)
		if (job->ride == fetch && !job->destroy && !favo_job_failed(job) &&
		    !job->s.timeline.reached_ms[FAVO_PHASE_TASK])
			return false;
	return true;
}

/* Bytes of the image that moved until now, by both of the ways. */
static uint64_t bytes_moved(const struct fetch *fetch, struct favo_fetch *fill)
{
	struct favo_partial_state state = {.moved = 0};
	struct favo_fetch_progress progress;

	(void)load_state(fetch, &state);
	favo_fetch_progress(fill, &progress);
	return progress.moved + state.moved;
}

/*
 * Wait until the guests have started: their first task is there and they read
 * nothing new for a moment. False: nobody waits for the image any more.
 */
static bool await_start(struct fetch *fetch, struct favo_fetch *fill)
{
	struct noded *nd = fetch->nd;
	int64_t now = favo_now_ms(), quiet_ms = now;
	int64_t end = now + (int64_t)nd->conf->boot_timeout_ms;
	uint64_t moved = 0, before;
	bool go_on = true, started = false;

	while (go_on && now < end && (!started || now - quiet_ms < QUIET_MS)) {
		sleep_ms(POLL_MS);
		now = favo_now_ms();
		before = moved;
		moved = bytes_moved(fetch, fill);
		pthread_mutex_lock(&nd->lock);
		go_on = fetch->waiters > 0;
		if (fetch->rush)
			end = now;
		started = fetch->riders && all_started(fetch);
		pthread_mutex_unlock(&nd->lock);
		if (!started || moved != before)
			quiet_ms = now;
	}
	return go_on;
}

bool favo_lazy_rest(struct fetch *fetch, struct favo_fetch *fill)
{
	struct favo_fetch_progress progress;
	uint64_t moved;

	if (!favo_fetch_is_held(fill))
		return false;
	if (!await_start(fetch, fill))
		return false;
	favo_fetch_hold(fill, false);
	moved = bytes_moved(fetch, fill);
	favo_fetch_progress(fill, &progress);
	if (!fetch->rush) {
		favo_log(FAVO_INFO,
			 "image %.12s: first task after %llu bytes came (compressed), "
			 "image %llu bytes",
			 favo_fetch_name(fill), (unsigned long long)moved,
			 (unsigned long long)progress.total);
		put_trace(fetch, favo_fetch_chunks(fill));
	}
	return true;
}

/* ---- favo-lazy ---- */

static void *reap(void *arg)
{
	pid_t pid = (pid_t)(intptr_t)arg;

	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	return NULL;
}

/* Start it; *in is its stdin, *out its stdout. */
static int spawn_server(const struct noded *nd, const char *folder, int *in, int *out,
			struct favo_err *err)
{
	favo_autofree char *limit = favo_asprintf(
		"%llums", (unsigned long long)nd->conf->image_lazy_timeout_ms);
	char *argv[] = {(char *)"favo-lazy",
			(char *)"--folder",
			(char *)folder,
			(char *)"--favod-url",
			nd->conf->favod_url,
			(char *)"--munge-socket",
			nd->conf->munge_socket,
			(char *)"--limit",
			limit,
			NULL};
	static char *const env[] = {(char *)"PATH=/usr/sbin:/usr/bin:/sbin:/bin", NULL};
	posix_spawn_file_actions_t actions;
	posix_spawnattr_t attr;
	int to[2], from[2], ret;
	sigset_t none;
	pid_t pid;

	if (!limit)
		return favo_fail(err, ENOMEM, "favo-lazy: out of memory");
	if (pipe2(to, O_CLOEXEC) < 0)
		return favo_fail(err, errno, "favo-lazy: pipe: %m");
	if (pipe2(from, O_CLOEXEC) < 0) {
		close(to[0]);
		close(to[1]);
		return favo_fail(err, errno, "favo-lazy: pipe: %m");
	}
	sigemptyset(&none);
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSID);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, to[0], STDIN_FILENO);
	posix_spawn_file_actions_adddup2(&actions, from[1], STDOUT_FILENO);
	ret = posix_spawn(&pid, nd->conf->lazy_path, &actions, &attr, argv, env);
	posix_spawn_file_actions_destroy(&actions);
	posix_spawnattr_destroy(&attr);
	close(to[0]);
	close(from[1]);
	*in = to[1];
	*out = from[0];
	if (ret)
		return favo_fail(err, ret, "start %s: %m", nd->conf->lazy_path);
	if (favo_noded_thread(reap, (void *)(intptr_t)pid, err) < 0)
		favo_log(FAVO_WARN, "favo-lazy %d: %s", (int)pid, err->msg);
	return 0;
}

/* Open the device for a VM, and see that it is the image's. */
static int open_device(unsigned int device, uint64_t size, struct favo_err *err)
{
	favo_autoclose int fd = -1;
	uint64_t has = 0;
	char path[32];

	snprintf(path, sizeof(path), "/dev/nbd%u", device);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return favo_fail(err, errno, "open %s: %m", path);
	if (ioctl(fd, BLKGETSIZE64, &has) < 0 || has != size)
		return favo_fail(err, ENODEV, "%s: %llu bytes instead of %llu", path,
				 (unsigned long long)has, (unsigned long long)size);
	return favo_steal_fd(&fd);
}

/*
 * The device of a server that runs already, of another job or from before a
 * restart. Once we have it open it stays; that its process was alive then
 * says that it is the right one.
 */
static int join_server(const char *folder, uint64_t size, struct favo_err *err)
{
	struct favo_process process = {.pidfd = -1};
	struct favo_partial_state state;
	favo_autoclose int fd = -1;
	int ret;

	ret = favo_partial_state_load(&state, folder, err);
	if (ret < 0)
		return ret;
	fd = open_device(state.device, size, err);
	if (fd < 0)
		return fd;
	ret = favo_process_adopt(&process, (pid_t)state.pid, state.start_time, err);
	favo_close(&process.pidfd);
	return ret < 0 ? ret : favo_steal_fd(&fd);
}

static int start_server(const struct noded *nd, const char *folder, uint64_t size,
			struct favo_err *err)
{
	favo_autoclose int in = -1, out = -1;
	int64_t end = favo_now_ms() + START_MS;
	char line[32] = "";
	unsigned int device;
	size_t len = 0;
	int ret;

	ret = spawn_server(nd, folder, &in, &out, err);
	/* One line; its own words about a failure went to our log. */
	while (ret >= 0 && !strchr(line, '\n') && len < sizeof(line) - 1) {
		ret = favo_read_all(out, line + len, 1, (int)(end - favo_now_ms()), err);
		len++;
	}
	if (ret < 0 || sscanf(line, "ready %u", &device) != 1)
		return favo_fail(err, EIO, "favo-lazy made no device, see the log");
	/* in is closed on return: from then on the device lives by its users. */
	return open_device(device, size, err);
}

/* ---- the job's side ---- */

void favo_lazy_leave(struct job *job)
{
	struct noded *nd = job->nd;
	struct fetch *fetch;

	pthread_mutex_lock(&nd->lock);
	fetch = job->ride;
	job->ride = NULL;
	if (fetch) {
		fetch->riders--;
		fetch->waiters--;
		favo_noded_changed(nd);
		favo_fetch_release(fetch);
	}
	pthread_mutex_unlock(&nd->lock);
}

/* No VM can start before the image is complete: get it all, and at once. */
static void give_up(struct job *job, const struct favo_digest *id,
		    const struct favo_err *err)
{
	struct noded *nd = job->nd;

	favo_log(FAVO_WARN, "no lazy start: %s; waiting for the whole image", err->msg);
	pthread_mutex_lock(&nd->lock);
	for (struct fetch *fetch = nd->fetches; fetch; fetch = fetch->next) {
		if (!favo_digest_equal(&fetch->id, id))
			continue;
		fetch->rush = true;
		fetch->bootable = false;
		fetch->lazy = false;
	}
	favo_noded_changed(nd);
	pthread_mutex_unlock(&nd->lock);
}

int favo_lazy_get(struct job *job, const struct favo_digest *id, const char *holder,
		  struct favo_err *err)
{
	struct noded *nd = job->nd;
	favo_autofree char *folder = NULL;
	int ret;

	pthread_mutex_lock(&nd->cache_lock);
	ret = favo_cache_get_partial(nd->cache, id, holder, &job->image, &folder, err);
	if (ret >= 0) {
		ret = join_server(folder, job->image.manifest->root.bytes, NULL);
		if (ret < 0)
			ret = start_server(nd, folder, job->image.manifest->root.bytes,
					   err);
		job->image.root_fd = ret;
	}
	pthread_mutex_unlock(&nd->cache_lock);
	if (ret >= 0)
		return 0;
	favo_lazy_leave(job);
	if (ret != -ENOENT) {
		favo_cache_image_fini(&job->image);
		(void)favo_cache_unpin(nd->cache, id, holder, NULL);
		give_up(job, id, err);
	}
	return -ENOENT;
}

/* ---- after a restart ---- */

/* Is there a partial image of this job's? */
static bool runs_on_partial(const struct job *job, const struct favo_cache_entry *entries,
			    size_t n, struct favo_digest *id)
{
	if (!job->vm.started || job->vm.exited || job->destroy || job->ride ||
	    favo_digest_parse(id, job->vm.s.digest, NULL) < 0)
		return false;
	for (size_t i = 0; i < n; i++)
		if (!entries[i].complete && favo_digest_equal(&entries[i].id, id))
			return true;
	return false;
}

void favo_lazy_resume(struct noded *nd)
{
	favo_autofree struct favo_cache_entry *entries = NULL;
	struct favo_err err = {0};
	struct favo_digest id;
	size_t n = 0;

	if (favo_cache_list(nd->cache, &entries, &n, NULL) < 0)
		return;
	pthread_mutex_lock(&nd->lock);
	for (struct job *job = nd->jobs; job; job = job->next) {
		if (!runs_on_partial(job, entries, n, &id))
			continue;
		job->ride = favo_fetch_join(nd, &id, &err);
		if (job->ride)
			job->ride->riders++;
		else
			favo_log(FAVO_WARN, "job %u: %s", job->s.job, err.msg);
	}
	pthread_mutex_unlock(&nd->lock);
}
