// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The directories of the node that a VM sees: one favo-share, which becomes
 * virtiofsd, for each, as the job's user in the job's cgroup (favo-share.c
 * has its sandbox). favo-vmm gets the other end of its socket; with the VM
 * that end closes and the file server ends, and what does not is killed with
 * the cgroup.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "provision/noded/noded.h"

/* An automounted home, or one on a file server under load. */
#define SOURCE_MS 20000
#define SERVER_PACKAGE "qemu-system-common"

/* ---- one file server ---- */

struct share_watch {
	struct watch watch;
	struct job *job;
	char target[FAVO_MOUNT_PATH_MAX];
};

/* Main thread: a file server ended; the job's thread finds out what it means. */
static void share_ended(struct noded *nd, struct watch *w, uint32_t events)
{
	struct share_watch *sw = favo_container_of(w, struct share_watch, watch);
	struct job *job = sw->job;
	siginfo_t info = {0};
	int fd = w->fd;

	(void)events;
	favo_noded_unwatch(nd, w);
	pthread_mutex_lock(&nd->lock);
	while (waitid(P_PIDFD, (id_t)fd, &info, WEXITED) < 0 && errno == EINTR)
		;
	if (!job->vm.share_ended[0])
		snprintf(job->vm.share_ended, sizeof(job->vm.share_ended),
			 "file server of %.120s ended (%s %d)", sw->target,
			 info.si_code == CLD_EXITED ? "code" : "signal", info.si_status);
	favo_noded_changed(nd);
	favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
	close(fd);
	free(sw);
}

/* Takes over the pidfd in any case. */
static int watch_share(struct job *job, const char *target, struct favo_process *process,
		       struct favo_err *err)
{
	struct share_watch *sw = calloc(1, sizeof(*sw));
	int ret;

	if (!sw) {
		favo_close(&process->pidfd);
		return favo_fail(err, ENOMEM, "allocate watch");
	}
	sw->watch.ready = share_ended;
	sw->watch.fd = favo_steal_fd(&process->pidfd);
	sw->job = job;
	snprintf(sw->target, sizeof(sw->target), "%s", target);
	pthread_mutex_lock(&job->nd->lock);
	job->refs++;
	pthread_mutex_unlock(&job->nd->lock);
	ret = favo_noded_watch(job->nd, &sw->watch, err);
	if (ret < 0) {
		pthread_mutex_lock(&job->nd->lock);
		favo_job_unref(job);
		pthread_mutex_unlock(&job->nd->lock);
		close(sw->watch.fd);
		free(sw);
	}
	return ret;
}

/* What favo-share has to say; silence until the end of file is success. */
static int await_status(int fd, const struct favo_mount *m, struct favo_err *err)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	char text[200];
	ssize_t n;

	if (poll(&p, 1, SOURCE_MS) == 0)
		return favo_fail(err, ETIMEDOUT, "%.150s: no answer within %d s",
				 m->source, SOURCE_MS / 1000);
	n = read(fd, text, sizeof(text) - 1);
	if (n == 0)
		return 0;
	favo_text_printable(text, sizeof(text), text, n > 0 ? (size_t)n : 0);
	return favo_fail(err, EACCES, "%s", text);
}

/* A listening socket that only we ever connect to. */
static int make_socket(int *server, int *client, const char *path, struct favo_err *err)
{
	int ret = favo_unix_listen(server, path, 0600, err);

	/* Accepted by virtiofsd later; the kernel keeps it until then. */
	if (ret >= 0)
		ret = favo_unix_connect(client, path, 1000, err);
	unlink(path);
	return ret;
}

static int run_share(struct favo_process *process, struct job *job,
		     const struct favo_mount *m, const int fds[2], int log_fd,
		     const struct favo_launch_user *user, struct favo_err *err)
{
	char *const argv[] = {
		(char *)"favo-share",
		(char *)"--source",
		(char *)m->source,
		(char *)"--server",
		job->nd->conf->virtiofsd_path,
		m->read_only ? (char *)"--read-only" : NULL,
		NULL,
	};
	const struct favo_launch l = {
		.path = job->nd->conf->share_path,
		.argv = argv,
		.fds = fds,
		.nfds = 2,
		.log_fd = log_fd,
		.uid = user->uid,
		.gid = user->gid,
		.groups = user->groups,
		.ngroups = user->ngroups,
		.cgroup = &job->vm.cgroup,
		.cores = job->s.cores,
		.nofile = FAVO_SHARE_FILES,
	};
	int gate = -1;
	int ret = favo_launch_begin(&l, process, &gate, err);

	/* Nothing to save: what is in the cgroup goes with it. */
	return ret < 0 ? ret : favo_launch_go(&gate, l.path, err);
}

static int start_share(int *out, struct job *job, const struct favo_mount *m,
		       const struct favo_launch_user *user, struct favo_err *err)
{
	favo_autoclose int server = -1, client = -1, log_fd = -1, ours = -1, theirs = -1;
	struct favo_process process = {.pidfd = -1};
	char path[512];
	int pair[2], fds[2], ret;

	favo_vm_dir(job->nd, job->s.job, job->index, "share.log", path, sizeof(path));
	log_fd = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (log_fd < 0)
		return favo_fail(err, errno, "open %s: %m", path);
	if (pipe2(pair, O_CLOEXEC) < 0)
		return favo_fail(err, errno, "pipe: %m");
	ours = pair[0];
	theirs = pair[1];
	favo_vm_run_dir(job->nd, job->s.job, job->index, "share.sock", path,
			sizeof(path));
	ret = make_socket(&server, &client, path, err);
	if (ret < 0)
		return ret;
	fds[0] = server;
	fds[1] = theirs;
	ret = run_share(&process, job, m, fds, log_fd, user, err);
	favo_close(&theirs);
	if (ret >= 0)
		ret = await_status(ours, m, err);
	if (ret < 0 && process.pidfd >= 0) {
		pidfd_send_signal(process.pidfd, SIGKILL, NULL, 0);
		favo_process_reap(&process);
		favo_close(&process.pidfd);
	}
	if (ret >= 0)
		ret = watch_share(job, m->target, &process, err);
	if (ret >= 0)
		*out = favo_steal_fd(&client);
	return ret;
}

/* ---- all of a VM ---- */

static void note(struct job *job, const char *cause)
{
	pthread_mutex_lock(&job->nd->lock);
	favo_job_note(job, "%s", cause);
	pthread_mutex_unlock(&job->nd->lock);
}

static int refuse(struct favo_failure *f, const char *remedy, const char *cause)
{
	snprintf(f->cause, sizeof(f->cause), "%.399s", cause);
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy);
	return -EINVAL;
}

static int wanted_mounts(struct favo_mounts *m, const struct job *job, const char *home,
			 struct favo_failure *f)
{
	struct favo_err err = {0};

	if (job->s.sandbox || job->nd->conf->sandbox) {
		if (*job->s.mounts)
			return refuse(
				f, "leave --vm-mount off",
				"--vm-mount in a sandbox: this site or job shares no "
				"files with its VMs");
		return 0;
	}
	if (favo_mounts_parse(m, job->s.mounts, &err) < 0)
		return refuse(f, "see: srun --help", err.msg);
	favo_mounts_add_defaults(m, home, job->s.workdir);
	favo_mounts_sort(m);
	return 0;
}

int favo_shares_start(struct favo_shares *out, struct job *job, const char *home,
		      const struct favo_launch_user *user, struct favo_failure *f)
{
	struct favo_mounts m = {0};
	struct favo_err err = {0};
	bool server = access(job->nd->conf->virtiofsd_path, X_OK) == 0;
	int ret = wanted_mounts(&m, job, home, f);

	if (ret < 0 || !m.n)
		return ret;
	if (!server) {
		snprintf(err.msg, sizeof(err.msg),
			 "no files are shared with the VM: the node lacks %.120s",
			 job->nd->conf->virtiofsd_path);
		if (*job->s.mounts)
			return refuse(f,
				      "ask the administrator to install " SERVER_PACKAGE,
				      err.msg);
		note(job, err.msg);
		return 0;
	}
	for (size_t i = 0; i < m.n; i++) {
		ret = start_share(&out->fds[out->n], job, &m.v[i], user, &err);
		if (ret < 0 && m.v[i].wanted)
			return refuse(f, "check --vm-mount; access is your own", err.msg);
		if (ret < 0) {
			char text[300];

			snprintf(text, sizeof(text), "not shared with the VM: %.250s",
				 err.msg);
			note(job, text);
			continue;
		}
		out->mounts[out->n++] = m.v[i];
	}
	return 0;
}

void favo_shares_fini(struct favo_shares *s)
{
	for (size_t i = 0; i < s->n; i++)
		favo_close(&s->fds[i]);
	s->n = 0;
}
