// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A job's life on this node. Each job has one thread that goes through
 * prepare, boot, run and clean-up; requests and the guest only change the
 * job's state under the lock and wake it.
 *
 * A failure is kept until the job's end: the tasks come for it by "attach".
 */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/noded/network.h"
#include "provision/noded/noded.h"
#include "provision/noded/warm.h"

#define STOP_GRACE_MS 1000
#define VERDICT_MS 1000
#define RETRY_CLEANUP_MS 5000
#define NODES_MAX 10000
#define DESTROY_WAIT_MS 20000
#define SNAPSHOT_LIMIT_MS 30000
#define ENDED_MAX 256 /* favod has been away for a while */

/* ---- objects ---- */

struct job *favo_job_find(struct noded *nd, uint32_t id)
{
	for (struct job *job = nd->jobs; job; job = job->next) {
		if (job->s.job == id) {
			job->refs++;
			return job;
		}
	}
	return NULL;
}

/* With the lock held. */
void favo_job_unref(struct job *job)
{
	if (!job || --job->refs)
		return;
	favo_job_state_fini(&job->s);
	free(job->cluster);
	favo_close(&job->vm.process.pidfd);
	favo_close(&job->tap_fd);
	favo_root_close(job);
	favo_cache_image_fini(&job->image);
	json_decref(job->vm.identity);
	favo_warm_source_free(job->vm.warm_source);
	free(job->log);
	free(job);
}

static struct job *job_new(struct noded *nd, struct favo_err *err)
{
	struct job *job = calloc(1, sizeof(*job));

	if (!job) {
		favo_fail(err, ENOMEM, "allocate job");
		return NULL;
	}
	job->nd = nd;
	job->refs = 1;
	job->tap_fd = job->root_dev = -1;
	job->vm.process.pidfd = -1;
	job->image.kernel_fd = job->image.initramfs_fd = job->image.root_fd = -1;
	return job;
}

void favo_job_save(struct job *job)
{
	struct favo_err err = {0};
	char path[512];

	favo_job_path(job->nd, job->s.job, "", path, sizeof(path));
	if (favo_job_state_save(&job->s, path, &err) < 0)
		favo_log(FAVO_ERROR, "job %u: %s", job->s.job, err.msg);
}

bool favo_job_failed(const struct job *job)
{
	return job->s.failure.phase[0] != '\0';
}

void favo_job_fail(struct job *job, enum favo_phase phase, const char *remedy,
		   const char *cause, ...)
{
	struct favo_failure *f = &job->s.failure;
	va_list ap;

	if (favo_job_failed(job))
		return;
	va_start(ap, cause);
	vsnprintf(f->cause, sizeof(f->cause), cause, ap);
	va_end(ap);
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy);
	snprintf(f->phase, sizeof(f->phase), "%s", favo_phase_name(phase));
	favo_log(FAVO_WARN, "job %u: %s: %s", job->s.job, f->phase, f->cause);
	job->nd->report_due = true;
	favo_job_save(job);
	favo_noded_changed(job->nd);
}

void favo_job_note(struct job *job, const char *fmt, ...)
{
	size_t len = strlen(job->note);
	va_list ap;

	if (len + 3 < sizeof(job->note) && len)
		len += (size_t)snprintf(job->note + len, sizeof(job->note) - len, "; ");
	va_start(ap, fmt);
	vsnprintf(job->note + len, sizeof(job->note) - len, fmt, ap);
	va_end(ap);
	favo_log(FAVO_INFO, "job %u: %s", job->s.job, job->note);
}

void favo_job_reach(struct job *job, enum favo_phase phase)
{
	if (!favo_timeline_reach(&job->s.timeline, phase, favo_now_ms()))
		return;
	favo_log(FAVO_INFO, "job %u: %s after %lld ms", job->s.job,
		 favo_phase_name(phase),
		 (long long)(favo_now_ms() - job->s.timeline.start_ms));
	job->nd->report_due = true;
	favo_job_save(job);
	favo_noded_changed(job->nd);
}

/* Take the lock, note a failure that was found without it. */
static void fail_locked(struct job *job, enum favo_phase phase,
			const struct favo_failure *f)
{
	pthread_mutex_lock(&job->nd->lock);
	favo_job_fail(job, f->phase[0] ? favo_phase_parse(f->phase) : phase, f->remedy,
		      "%s", f->cause);
	pthread_mutex_unlock(&job->nd->lock);
}

/* ---- prepare ---- */

static int check_grant(struct job *job, struct favo_grant *grant, struct favo_err *err)
{
	favo_autograntkey struct favo_grant_key *key = NULL;
	int ret;

	/* Read each time: the site may have changed it. */
	ret = favo_grant_key_load_public(&key, job->nd->conf->grant_pub, err);
	if (ret < 0)
		return ret;
	ret = favo_grant_verify(key, job->s.grant, time(NULL), grant, err);
	if (ret < 0)
		return favo_wrap(err, ret, "grant");
	/* Slurm says whose job it is; the grant came through the user's hands. */
	if (grant->uid != job->s.uid)
		return favo_fail(err, EACCES,
				 "grant: it is for user %u, the job belongs to %u",
				 grant->uid, (unsigned int)job->s.uid);
	return 0;
}

static int plan_cluster(const struct job *job, struct favo_cluster **out,
			struct favo_err *err)
{
	favo_autostrv char **nodes = NULL;
	size_t n;
	int ret;

	ret = favo_hostlist_expand(&nodes, &n, job->s.nodelist, NODES_MAX, err);
	if (ret < 0)
		return ret;
	ret = favo_cluster_plan(out, job->s.job, (const char *const *)nodes,
				(unsigned int)n, job->nd->conf->vc_subnet, err);
	if (ret < 0)
		return ret;
	if (favo_cluster_find(*out, job->s.node) < 0) {
		free(favo_steal_ptr(out));
		return favo_fail(err, EINVAL, "node %s is not in the job's node list %s",
				 job->s.node, job->s.nodelist);
	}
	return 0;
}

/* Identity and plan, from a fresh request or a saved one. */
static int set_identity(struct job *job, const struct favo_grant *grant,
			struct favo_err *err)
{
	struct favo_cluster *cluster = NULL;
	int ret = plan_cluster(job, &cluster, err);

	if (ret < 0)
		return ret;
	pthread_mutex_lock(&job->nd->lock);
	job->grant = *grant;
	job->cluster = cluster;
	job->index = (unsigned int)favo_cluster_find(cluster, job->s.node);
	job->vm.s.job = job->s.job;
	job->vm.s.index = job->index;
	job->vm.s.uid = job->s.uid;
	snprintf(job->vm.s.node, sizeof(job->vm.s.node), "%s", job->s.node);
	snprintf(job->vm.s.boot_id, sizeof(job->vm.s.boot_id), "%s", job->nd->boot_id);
	snprintf(job->vm.s.digest, sizeof(job->vm.s.digest), "%s", grant->digest);
	favo_vm_cgroup(job->nd, job->s.node, job->s.uid, job->s.job, &job->vm.cgroup);
	pthread_mutex_unlock(&job->nd->lock);
	return 0;
}

/* From here on there is something of the VM on disk that a restart finds. */
static int make_vm_dir(struct job *job, struct favo_err *err)
{
	char path[512];
	int ret;

	favo_vm_dir(job->nd, job->s.job, job->index, "", path, sizeof(path));
	ret = favo_mkdirs(path, 0700, err);
	if (ret < 0)
		return ret;
	favo_vm_dir(job->nd, job->s.job, job->index, "state.json", path, sizeof(path));
	return favo_vm_state_save(&job->vm.s, path, err);
}

static int build_network(struct job *job, struct favo_err *err)
{
	favo_autofree struct in_addr *addresses = NULL;
	struct favo_network net = {
		.cluster = job->cluster,
		.self = job->index,
		.vxlan_port = (uint16_t)job->nd->conf->vxlan_port,
	};
	int ret;

	if (!strcmp(job->grant.network, "none"))
		return 0;
	ret = favo_network_resolve(&addresses, job->cluster, job->nd->conf->node_suffix,
				   err);
	if (ret < 0)
		return ret;
	net.addresses = addresses;
	return favo_network_build(&net, &job->tap_fd, err);
}

/* 0, or negative when it failed (noted) or the end was asked for. */
static int do_prepare(struct job *job)
{
	struct favo_failure failure = {0};
	struct favo_grant grant = {0};
	struct favo_err err = {0};
	int ret;

	ret = check_grant(job, &grant, &err);
	if (ret >= 0)
		ret = set_identity(job, &grant, &err);
	if (ret >= 0)
		ret = make_vm_dir(job, &err);
	if (ret < 0) {
		snprintf(failure.cause, sizeof(failure.cause), "%.399s", err.msg);
		snprintf(failure.remedy, sizeof(failure.remedy), "%s",
			 ret == -EKEYEXPIRED ? "submit the job again"
					     : "ask the administrator");
		fail_locked(job, FAVO_PHASE_IMAGE, &failure);
		return ret;
	}
	/* Milliseconds, while the image may take minutes: first, and not beside. */
	ret = build_network(job, &err);
	if (ret < 0) {
		snprintf(failure.cause, sizeof(failure.cause), "%.399s", err.msg);
		snprintf(failure.remedy, sizeof(failure.remedy), "ask the administrator");
		fail_locked(job, FAVO_PHASE_NETWORK, &failure);
		return ret;
	}
	ret = favo_image_get(job, &failure);
	if (ret < 0) {
		if (ret != -ECANCELED)
			fail_locked(job, FAVO_PHASE_IMAGE, &failure);
		return ret;
	}
	pthread_mutex_lock(&job->nd->lock);
	favo_job_reach(job, FAVO_PHASE_IMAGE);
	pthread_mutex_unlock(&job->nd->lock);
	return 0;
}

/* ---- boot and run ---- */

static int await_boot(struct job *job)
{
	struct noded *nd = job->nd;
	bool asked;

	pthread_mutex_lock(&nd->lock);
	while (!job->s.boot_asked && !job->destroy)
		favo_noded_wait_until(nd, INT64_MAX);
	asked = job->s.boot_asked && !job->destroy;
	pthread_mutex_unlock(&nd->lock);
	return asked ? 0 : -ECANCELED;
}

/* A start from a snapshot takes no time; when it does, there is another way. */
static int64_t boot_limit_ms(const struct job *job)
{
	int64_t limit = (int64_t)job->nd->conf->boot_timeout_ms;

	return job->vm.from_snapshot ? FAVO_MIN(limit, SNAPSHOT_LIMIT_MS) : limit;
}

static int do_boot(struct job *job)
{
	struct favo_failure failure = {0};
	struct noded *nd = job->nd;
	struct favo_err err = {0};
	int ret;

	ret = favo_vm_start(job, &failure);
	if (ret < 0) {
		fail_locked(job, FAVO_PHASE_BOOT, &failure);
		return ret;
	}
	pthread_mutex_lock(&nd->lock);
	job->vm.started = true;
	job->vm.deadline_ms = favo_now_ms() + boot_limit_ms(job);
	favo_job_reach(job, FAVO_PHASE_BOOT);
	pthread_mutex_unlock(&nd->lock);
	ret = favo_vm_watch(job, &err);
	if (ret < 0) {
		snprintf(failure.cause, sizeof(failure.cause), "%.399s", err.msg);
		fail_locked(job, FAVO_PHASE_BOOT, &failure);
	}
	return ret;
}

/* The guest did not become ready in time: say how far it came. */
static void late_reason(const struct job *job, struct favo_failure *f)
{
	char line[200];

	favo_vm_console_line(job->nd, job->s.job, job->index, line, sizeof(line));
	snprintf(f->cause, sizeof(f->cause),
		 "guest was not ready after %llu s; its last console line: %s",
		 (unsigned long long)(job->nd->conf->boot_timeout_ms / 1000), line);
	snprintf(f->remedy, sizeof(f->remedy),
		 "see: favo vc logs %u, or raise boot_timeout", job->s.job);
}

/*
 * A file server ends with its VM, too, and the news may come in any order:
 * give the VM's own end a moment to be known. With the lock held.
 */
static void await_verdict(struct job *job)
{
	int64_t until_ms = favo_now_ms() + VERDICT_MS;

	while (!job->vm.exited && !job->vm.guest_failure[0] && !job->destroy &&
	       favo_now_ms() < until_ms)
		favo_noded_wait_until(job->nd, until_ms);
}

/* The VM failed, in one of four ways: find the words. */
static void failure_reason(struct job *job, struct favo_failure *f)
{
	if (favo_root_is_damaged(job)) {
		favo_root_discard(job, f);
	} else if (job->vm.guest_failure[0]) {
		snprintf(f->cause, sizeof(f->cause), "guest: %s", job->vm.guest_failure);
		snprintf(f->remedy, sizeof(f->remedy), "see: favo vc logs %u",
			 job->s.job);
	} else if (job->vm.exited) {
		favo_vm_end_reason(job, f);
	} else if (job->vm.share_ended[0]) {
		snprintf(f->cause, sizeof(f->cause), "%s", job->vm.share_ended);
		snprintf(f->remedy, sizeof(f->remedy),
			 "was it killed for lack of memory? see: favo vc logs %u",
			 job->s.job);
	} else {
		late_reason(job, f);
	}
}

/*
 * Slurm's cpuset comes only with the first step: follow it there. With the
 * lock held, which is given up meanwhile.
 */
static void place_again(struct job *job)
{
	const struct favo_job_cgroup_limits limits = {.cores = job->s.cores,
						      .extern_step = job->extern_step};

	job->vm.placed = true;
	pthread_mutex_unlock(&job->nd->lock);
	if (favo_job_cgroup_create(&job->vm.cgroup, &limits, NULL) >= 0)
		(void)favo_job_cgroup_add(&job->vm.cgroup, job->vm.s.pid, NULL);
	pthread_mutex_lock(&job->nd->lock);
}

/*
 * A job that is suspended while its guest boots gets its time again. Lock as
 * above.
 */
static bool is_late(struct job *job)
{
	bool frozen;

	if (job->vm.ready || favo_now_ms() < job->vm.deadline_ms)
		return false;
	pthread_mutex_unlock(&job->nd->lock);
	frozen = favo_job_cgroup_is_frozen(&job->vm.cgroup);
	pthread_mutex_lock(&job->nd->lock);
	if (frozen)
		job->vm.deadline_ms = favo_now_ms() + boot_limit_ms(job);
	return !frozen && !job->vm.ready;
}

/* What favod shows of a VM when its files are gone. */
static void keep_log(struct job *job)
{
	char *log = favo_vm_console_tail(job->nd, job->s.job, job->index);

	pthread_mutex_lock(&job->nd->lock);
	free(job->log);
	job->log = log;
	pthread_mutex_unlock(&job->nd->lock);
}

/* Its guest runs: time to have a snapshot for the next ones. Lock as above. */
static void make_snapshot(struct job *job)
{
	pthread_mutex_unlock(&job->nd->lock);
	favo_warm_make(job->nd, favo_steal_ptr(&job->vm.warm_source));
	pthread_mutex_lock(&job->nd->lock);
}

/*
 * The VM came from a snapshot and did not get ready: that must not cost the job
 * anything but time. Make everything as it was before the first start.
 */
static int start_again_cold(struct job *job, struct favo_failure *failure)
{
	struct noded *nd = job->nd;
	struct vm *vm = &job->vm;

	failure_reason(job, failure);
	favo_log(FAVO_WARN, "job %u: start from snapshot %.12s failed (%s); starts cold",
		 job->s.job, vm->warm_key, failure->cause);
	favo_warm_drop(nd, vm->warm_key);
	favo_vm_stop(job, 0);
	memset(failure, 0, sizeof(*failure));
	pthread_mutex_lock(&nd->lock);
	while (!vm->exited)
		favo_noded_wait_until(nd, INT64_MAX);
	vm->started = vm->exited = vm->reaped = vm->ready = vm->placed = false;
	vm->cold = true;
	vm->guest_failure[0] = '\0';
	vm->reports = 0;
	vm->from_snapshot = false;
	json_decref(vm->identity);
	vm->identity = NULL;
	pthread_mutex_unlock(&nd->lock);
	favo_close(&vm->process.pidfd);
	favo_root_close(job);
	favo_cache_image_fini(&job->image);
	return favo_image_get(job, failure);
}

/*
 * Until the end is asked for or the VM fails; the failure is noted. True: the
 * VM is to be started once more.
 */
static bool supervise(struct job *job)
{
	struct favo_failure failure = {0};
	struct noded *nd = job->nd;
	struct vm *vm = &job->vm;
	bool end;

	pthread_mutex_lock(&nd->lock);
	while (!job->destroy && !favo_job_failed(job) && !vm->exited &&
	       !vm->guest_failure[0] && !vm->share_ended[0] && !is_late(job)) {
		if (vm->ready && vm->warm_source)
			make_snapshot(job);
		else if (job->s.timeline.reached_ms[FAVO_PHASE_TASK] && !vm->placed)
			place_again(job);
		else
			favo_noded_wait_until(nd,
					      vm->ready ? INT64_MAX : vm->deadline_ms);
	}
	if (vm->share_ended[0])
		await_verdict(job);
	end = job->destroy || favo_job_failed(job);
	pthread_mutex_unlock(&nd->lock);
	if (end)
		return false;
	if (!vm->ready && vm->from_snapshot) {
		if (start_again_cold(job, &failure) >= 0)
			return true;
		fail_locked(job, FAVO_PHASE_IMAGE, &failure);
		return false;
	}
	failure_reason(job, &failure);
	snprintf(failure.phase, sizeof(failure.phase), "%s",
		 favo_phase_name(favo_timeline_current(&job->s.timeline)));
	keep_log(job);
	fail_locked(job, FAVO_PHASE_BOOT, &failure);
	return false;
}

static void await_destroy(struct job *job)
{
	pthread_mutex_lock(&job->nd->lock);
	while (!job->destroy)
		favo_noded_wait_until(job->nd, INT64_MAX);
	pthread_mutex_unlock(&job->nd->lock);
}

/* ---- clean-up ---- */

static int remove_files(struct job *job, struct favo_err *err)
{
	char path[512];
	int ret = 0;

	/* Before the grant was checked there was nothing of the VM yet. */
	if (job->cluster)
		ret = favo_vm_cleanup(job->nd, &job->vm.s, &job->vm.cgroup, err);
	if (ret < 0)
		return ret;
	/* The job's file goes last: a restart continues here as long as it is there. */
	if (unlink(favo_job_path(job->nd, job->s.job, "", path, sizeof(path))) < 0 &&
	    errno != ENOENT)
		return favo_fail(err, errno, "unlink %s: %m", path);
	unlink(favo_job_path(job->nd, job->s.job, ".ended", path, sizeof(path)));
	return 0;
}

/* A guest that went on after an I/O error: whoever asks for its end shall hear. */
static void tell_damage(struct job *job)
{
	struct favo_failure failure = {0};

	if (favo_job_failed(job) || !favo_root_is_damaged(job))
		return;
	favo_root_discard(job, &failure);
	fail_locked(job, FAVO_PHASE_TASK, &failure);
}

static void do_cleanup(struct job *job)
{
	const struct timespec pause = {.tv_nsec = RETRY_CLEANUP_MS % 1000 * 1000000L,
				       .tv_sec = RETRY_CLEANUP_MS / 1000};
	struct favo_err err = {0};

	favo_vm_stop(job, STOP_GRACE_MS);
	favo_close(&job->tap_fd);
	tell_damage(job);
	favo_root_close(job);
	favo_cache_image_fini(&job->image);
	favo_lazy_leave(job);
	while (remove_files(job, &err) < 0) {
		favo_log(FAVO_ERROR, "job %u: clean-up: %s; trying again", job->s.job,
			 err.msg);
		nanosleep(&pause, NULL);
	}
}

static void leave_list(struct job *job)
{
	struct noded *nd = job->nd;
	struct job **p;

	pthread_mutex_lock(&nd->lock);
	for (p = &nd->jobs; *p; p = &(*p)->next) {
		if (*p == job) {
			*p = job->next;
			job->refs--;
			break;
		}
	}
	job->gone = true;
	if (json_array_size(nd->ended) < ENDED_MAX)
		json_array_append_new(nd->ended, favo_report_vm(job, true));
	nd->report_due = true;
	favo_log(FAVO_INFO, "job %u: nothing left on this node", job->s.job);
	favo_noded_changed(nd);
	favo_job_unref(job); /* the thread's own */
	pthread_mutex_unlock(&nd->lock);
}

static void *job_thread(void *arg)
{
	struct job *job = arg;
	bool failed = favo_job_failed(job);

	if (!job->vm.started && !failed && !job->destroy && do_prepare(job) >= 0 &&
	    await_boot(job) >= 0)
		(void)do_boot(job);
	while (job->vm.started && supervise(job))
		(void)do_boot(job);
	if (job->vm.started)
		favo_vm_stop(job, 0);
	await_destroy(job);
	do_cleanup(job);
	leave_list(job);
	return NULL;
}

/* ---- requests ---- */

/* Put on the list and start; with the lock held. Takes over the reference. */
static int job_start(struct job *job, struct favo_err *err)
{
	struct noded *nd = job->nd;
	int ret;

	job->refs++; /* the list's; the first one is the thread's */
	job->next = nd->jobs;
	nd->jobs = job;
	ret = favo_noded_thread(job_thread, job, err);
	if (ret < 0) {
		nd->jobs = job->next;
		job->refs--;
		favo_job_unref(job);
		return ret;
	}
	snprintf(nd->node, sizeof(nd->node), "%s", job->s.node);
	nd->report_due = true;
	return 0;
}

static int fill_state(struct favo_job_state *s, const struct favo_request *req,
		      struct favo_err *err)
{
	s->job = req->job;
	s->restart = req->restart;
	s->uid = req->uid;
	s->gid = req->gid;
	s->nodelist = strdup(req->nodelist);
	s->node = strdup(req->node);
	s->grant = strdup(req->grant);
	s->cores = strdup("");
	s->mounts = strdup(req->mounts);
	s->workdir = strdup(req->workdir);
	s->sandbox = req->sandbox;
	if (!s->nodelist || !s->node || !s->grant || !s->cores || !s->mounts ||
	    !s->workdir)
		return favo_fail(err, ENOMEM, "allocate job %u", req->job);
	favo_timeline_start(&s->timeline, favo_now_ms(), favo_realtime_ns() / 1000000);
	return 0;
}

int favo_job_prepare(struct noded *nd, const struct favo_request *req,
		     struct favo_err *err)
{
	struct job *job;
	char path[512];
	bool stale;
	int ret;

	if (!favo_is_name(req->node, "-._", 255))
		return favo_fail(err, EINVAL, "'%.64s' is not a node name", req->node);
	pthread_mutex_lock(&nd->lock);
	job = favo_job_find(nd, req->job);
	stale = job && (job->destroy || job->s.restart != req->restart);
	favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
	if (job && !stale)
		return 0;
	if (job && !favo_job_destroy(nd, req->job, DESTROY_WAIT_MS))
		return favo_fail(err, EBUSY,
				 "job %u: its former run is still being removed",
				 req->job);

	pthread_mutex_lock(&nd->lock);
	job = favo_job_find(nd, req->job);
	if (job) {
		/* Somebody else asked for the same meanwhile. */
		favo_job_unref(job);
		pthread_mutex_unlock(&nd->lock);
		return 0;
	}
	job = job_new(nd, err);
	ret = job ? fill_state(&job->s, req, err) : -ENOMEM;
	if (ret >= 0) {
		favo_job_path(nd, req->job, "", path, sizeof(path));
		ret = favo_job_state_save(&job->s, path, err);
	}
	if (ret < 0)
		favo_job_unref(job);
	else
		ret = job_start(job, err);
	pthread_mutex_unlock(&nd->lock);
	return ret;
}

int favo_job_resume(struct noded *nd, struct favo_job_state *s,
		    const struct favo_vm_state *vm, struct favo_process *process,
		    bool ended, struct favo_err *err)
{
	struct favo_grant grant = {0};
	struct job *job = job_new(nd, err);
	int ret = 0;

	if (!job)
		return -ENOMEM;
	job->s = *s;
	memset(s, 0, sizeof(*s));
	/*
	 * A VM that was started had a checked grant; it came from a file that
	 * only root writes, and the grant may have run out since.
	 */
	if (vm) {
		ret = favo_grant_peek(job->s.grant, &grant, err);
		if (ret >= 0)
			ret = set_identity(job, &grant, err);
		job->vm.s = *vm;
	}
	/* A start that never came to favo-vmm's own code is done again. */
	job->vm.started =
		process->pidfd >= 0 || job->s.timeline.reached_ms[FAVO_PHASE_BOOT];
	job->vm.exited = job->vm.started && process->pidfd < 0;
	job->vm.process = *process;
	process->pidfd = -1;
	job->vm.ready = job->s.timeline.reached_ms[FAVO_PHASE_READY] != 0;
	job->vm.deadline_ms = favo_now_ms() + (int64_t)nd->conf->boot_timeout_ms;
	job->destroy = ended;
	if (ret >= 0 && job->vm.process.pidfd >= 0) {
		favo_root_adopt(job);
		ret = favo_vm_watch(job, err);
	}
	pthread_mutex_lock(&nd->lock);
	if (ret >= 0)
		ret = job_start(job, err);
	else
		favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
	return ret;
}

int favo_job_boot(struct job *job, const struct favo_request *req, struct favo_err *err)
{
	char *cores;

	if (job->destroy)
		return favo_fail(err, ESHUTDOWN, "job %u is ending", job->s.job);
	if (job->s.boot_asked)
		return 0;
	cores = strdup(req->cores);
	if (!cores)
		return favo_fail(err, ENOMEM, "allocate boot request");
	free(job->s.cores);
	job->s.cores = cores;
	job->s.mem_mb = req->mem_mb;
	job->s.ncpus = req->ncpus;
	job->extern_step = req->extern_step;
	job->s.boot_asked = true;
	favo_job_save(job);
	favo_noded_changed(job->nd);
	return 0;
}

bool favo_job_destroy(struct noded *nd, uint32_t id, int timeout_ms)
{
	int64_t end = favo_now_ms() + timeout_ms;
	struct job *job;
	char path[512];
	bool gone = true;
	int fd;

	pthread_mutex_lock(&nd->lock);
	job = favo_job_find(nd, id);
	if (job) {
		/* The mark lets a restart go on with it if we die meanwhile. */
		fd = open(favo_job_path(nd, id, ".ended", path, sizeof(path)),
			  O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
		favo_close(&fd);
		job->destroy = true;
		favo_noded_changed(nd);
		while (!job->gone && favo_now_ms() < end)
			favo_noded_wait_until(nd, end);
		gone = job->gone;
		favo_job_unref(job);
	}
	pthread_mutex_unlock(&nd->lock);
	return gone;
}
