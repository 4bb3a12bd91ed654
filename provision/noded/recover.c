// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What a daemon that starts finds of its former life: jobs that go on with
 * the VM that still runs, jobs whose VM died meanwhile, jobs that ended
 * meanwhile (RUN_DIR/job/<id>.ended), and what belongs to no job any more.
 * Another boot id of the kernel makes all of it stale: no process of that
 * time can be alive.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "provision/noded/noded.h"

static void cleanup_dir(DIR **dir)
{
	if (*dir)
		closedir(*dir);
}
#define autodir __attribute__((cleanup(cleanup_dir)))

/* ---- directories ---- */

static int make_dirs(struct noded *nd, struct favo_err *err)
{
	static const struct {
		const char *name;
		mode_t mode;
		bool run;
	} dirs[] = {{"", 0755, true},
		    {"/job", 0755, true},
		    {"/vm", 0700, true},
		    {"/vm", 0700, false}};
	char path[512];
	int ret = 0;

	for (size_t i = 0; ret >= 0 && i < FAVO_ARRAY_SIZE(dirs); i++) {
		snprintf(path, sizeof(path), "%s%s",
			 dirs[i].run ? nd->conf->run_dir : nd->conf->state_dir,
			 dirs[i].name);
		ret = favo_mkdirs(path, 0755, err);
		/* Whatever the umask and a former version made of it. */
		if (ret >= 0 && chmod(path, dirs[i].mode) < 0)
			ret = favo_fail(err, errno, "chmod %s: %m", path);
	}
	return ret;
}

/*
 * RUN_DIR is on tmpfs as a rule; where it is not, the jobs of the former
 * boot are dropped by this mark.
 */
static bool is_same_boot(struct noded *nd)
{
	favo_autofree char *text = NULL;
	char path[512];
	bool same;

	snprintf(path, sizeof(path), "%s/boot_id", nd->conf->run_dir);
	same = favo_file_read(path, 64, &text, NULL, NULL) >= 0 &&
	       !strcmp(text, nd->boot_id);
	if (!same)
		(void)!favo_file_replace(path, nd->boot_id, strlen(nd->boot_id), 0644,
					 NULL);
	return same;
}

/* ---- jobs ---- */

/* The saved state of a job's VM, whichever index it has. */
static bool find_vm(struct noded *nd, uint32_t job, struct favo_vm_state *out)
{
	char path[512];
	autodir DIR *dir = NULL;
	struct dirent *e;

	snprintf(path, sizeof(path), "%s/vm", nd->conf->state_dir);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		uint32_t id, index;

		if (!favo_vm_name_parse(e->d_name, &id, &index) || id != job)
			continue;
		favo_vm_dir(nd, id, index, "state.json", path, sizeof(path));
		if (favo_vm_state_load(out, path, NULL) >= 0 && out->job == job &&
		    out->index == index && !strcmp(out->boot_id, nd->boot_id))
			return true;
	}
	return false;
}

static void resume_job(struct noded *nd, uint32_t id)
{
	struct favo_process process = {.pidfd = -1};
	struct favo_job_state state = {0};
	struct favo_vm_state vm = {0};
	struct favo_err err = {0};
	char path[512];
	bool ended, has_vm;
	int ret;

	ended = access(favo_job_path(nd, id, ".ended", path, sizeof(path)), F_OK) == 0;
	favo_job_path(nd, id, "", path, sizeof(path));
	ret = favo_job_state_load(&state, path, &err);
	if (ret >= 0 && state.job != id)
		ret = favo_fail(&err, EBADMSG, "%s: is of job %u", path, state.job);
	if (ret < 0) {
		/* The VM, if there is one, goes with what belongs to no job. */
		favo_log(FAVO_ERROR, "%s; the job's VM is removed", err.msg);
		favo_job_state_fini(&state);
		unlink(path);
		return;
	}
	has_vm = find_vm(nd, id, &vm);
	if (has_vm && vm.pid)
		(void)!favo_process_adopt(&process, vm.pid, vm.start_time, NULL);
	favo_log(FAVO_INFO, "job %u: %s", id,
		 ended		      ? "ended while favo-noded was away"
		 : process.pidfd >= 0 ? "its VM runs on"
				      : "taken up again");
	ret = favo_job_resume(nd, &state, has_vm ? &vm : NULL, &process, ended, &err);
	if (ret < 0) {
		/* What there is of its VM belongs to no job then. */
		favo_log(FAVO_ERROR, "job %u: cannot go on: %s", id, err.msg);
		unlink(path);
	}
	favo_job_state_fini(&state);
	favo_close(&process.pidfd);
}

static void resume_jobs(struct noded *nd, bool same_boot)
{
	char path[512];
	autodir DIR *dir = NULL;
	struct dirent *e;
	uint32_t id;

	snprintf(path, sizeof(path), "%s/job", nd->conf->run_dir);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		if (!favo_job_name_parse(e->d_name, &id))
			continue;
		if (same_boot) {
			resume_job(nd, id);
		} else {
			unlink(favo_job_path(nd, id, "", path, sizeof(path)));
			unlink(favo_job_path(nd, id, ".ended", path, sizeof(path)));
		}
	}
}

/*
 * Marks of jobs that are not here, left by an epilog, and halves of files that
 * a crash kept from being renamed. Runs before the first job does.
 */
static void drop_marks(struct noded *nd)
{
	char path[512];
	autodir DIR *dir = NULL;
	struct dirent *e;

	snprintf(path, sizeof(path), "%s/job", nd->conf->run_dir);
	dir = opendir(path);
	while (dir && (e = readdir(dir))) {
		char *dot = strrchr(e->d_name, '.');
		bool ended = dot && !strcmp(dot, ".ended");
		uint32_t id;

		if (!dot || e->d_name[0] == '.')
			continue;
		if (ended) {
			*dot = '\0';
			if (favo_job_name_parse(e->d_name, &id) &&
			    access(favo_job_path(nd, id, "", path, sizeof(path)), F_OK) ==
				    0)
				continue;
			*dot = '.';
		}
		snprintf(path, sizeof(path), "%s/job/%s", nd->conf->run_dir, e->d_name);
		unlink(path);
	}
}

/*
 * The epilog leaves its mark when it cannot reach a daemon. This may be one that
 * has looked for marks already and does not listen yet.
 */
static void take_mark(struct noded *nd, char *name)
{
	char *dot = strrchr(name, '.');
	struct job *job;
	char path[512];
	uint32_t id;

	if (!dot || strcmp(dot, ".ended") != 0)
		return;
	*dot = '\0';
	if (!favo_job_name_parse(name, &id))
		return;
	pthread_mutex_lock(&nd->lock);
	job = favo_job_find(nd, id);
	favo_job_path(nd, id, ".ended", path, sizeof(path));
	if (!job) {
		unlink(path);
	} else if (!job->destroy && access(path, F_OK) == 0) {
		favo_log(FAVO_INFO, "job %u: ended while favo-noded was away", id);
		job->destroy = true;
		favo_noded_changed(nd);
	}
	favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
}

static void marks_ready(struct noded *nd, struct watch *w, uint32_t events)
{
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n = read(w->fd, buf, sizeof(buf));

	(void)events;
	for (char *at = buf; n > 0 && at < buf + n;) {
		struct inotify_event *e = (struct inotify_event *)at;

		if (e->len)
			take_mark(nd, e->name);
		at += sizeof(*e) + e->len;
	}
}

/* From before the first look at them on, so that none comes in between. */
static int watch_marks(struct noded *nd, struct favo_err *err)
{
	static struct watch w = {.ready = marks_ready};
	char path[512];

	snprintf(path, sizeof(path), "%s/job", nd->conf->run_dir);
	w.fd = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	if (w.fd < 0 || inotify_add_watch(w.fd, path, IN_CREATE) < 0)
		return favo_fail(err, errno, "watch %s: %m", path);
	return favo_noded_watch(nd, &w, err);
}

/* ---- what belongs to no job ---- */

static bool is_known(struct noded *nd, uint32_t id)
{
	struct job *job;

	pthread_mutex_lock(&nd->lock);
	job = favo_job_find(nd, id);
	favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
	return job != NULL;
}

static void cleanup_stray(struct noded *nd, uint32_t id, uint32_t index)
{
	struct favo_vm_state vm = {0};
	struct favo_job_cgroup cg;
	struct favo_err err = {0};
	char path[512];
	bool good;

	favo_vm_dir(nd, id, index, "state.json", path, sizeof(path));
	good = favo_vm_state_load(&vm, path, NULL) >= 0 && vm.job == id &&
	       vm.index == index;
	vm.job = id;
	vm.index = index;
	if (good && !strcmp(vm.boot_id, nd->boot_id))
		favo_vm_cgroup(nd, vm.node, vm.uid, id, &cg);
	else
		good = false; /* its processes went with the former boot */
	if (favo_vm_cleanup(nd, &vm, good ? &cg : NULL, &err) < 0)
		favo_log(FAVO_ERROR, "remains of VM %u.%u: %s", id, index, err.msg);
	else
		favo_log(FAVO_INFO, "removed remains of VM %u.%u", id, index);
}

static void cleanup_strays(struct noded *nd, const char *parent)
{
	char path[512];
	autodir DIR *dir = NULL;
	struct dirent *e;
	uint32_t id, index;

	snprintf(path, sizeof(path), "%s/vm", parent);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (favo_vm_name_parse(e->d_name, &id, &index) && !is_known(nd, id))
			cleanup_stray(nd, id, index);
}

/*
 * Pins are named as the VMs are. One that ends may have come by before the
 * cache was open, and left its pin to us.
 */
static bool is_pin_alive(const char *holder, void *user)
{
	struct noded *nd = user;
	uint32_t id, index;
	struct job *job;
	bool alive;

	if (!favo_vm_name_parse(holder, &id, &index))
		return false;
	pthread_mutex_lock(&nd->lock);
	job = favo_job_find(nd, id);
	alive = job && !job->destroy;
	favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
	return alive;
}

void favo_recover_pins(struct noded *nd)
{
	(void)!favo_cache_prune_pins(nd->cache, is_pin_alive, nd, NULL);
}

int favo_recover_all(struct noded *nd, struct favo_err *err)
{
	int ret = make_dirs(nd, err);

	if (ret >= 0)
		ret = watch_marks(nd, err);
	if (ret < 0)
		return ret;
	drop_marks(nd);
	resume_jobs(nd, is_same_boot(nd));
	cleanup_strays(nd, nd->conf->state_dir);
	cleanup_strays(nd, nd->conf->run_dir);
	return 0;
}
