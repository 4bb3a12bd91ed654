// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A VM's files and its process: where they are, why it ended, how it is
 * stopped, and how every trace of it is removed. Everything that is read here
 * (console, events, log) may have been written by a hostile guest or a VMM
 * that it took over: it is only ever shown, and made printable before.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/util.h"
#include "provision/noded/noded.h"

#define TAIL_SIZE 8192
#define KILL_WAIT_MS 10000
#define CGROUP_WAIT_MS 5000

static const char *slash_file(const char *file)
{
	return *file ? "/" : "";
}

char *favo_vm_dir(const struct noded *nd, uint32_t job, uint32_t index, const char *file,
		  char *buf, size_t size)
{
	snprintf(buf, size, "%s/vm/%u.%u%s%s", nd->conf->state_dir, job, index,
		 slash_file(file), file);
	return buf;
}

char *favo_vm_run_dir(const struct noded *nd, uint32_t job, uint32_t index,
		      const char *file, char *buf, size_t size)
{
	snprintf(buf, size, "%s/vm/%u.%u%s%s", nd->conf->run_dir, job, index,
		 slash_file(file), file);
	return buf;
}

char *favo_job_path(const struct noded *nd, uint32_t job, const char *suffix, char *buf,
		    size_t size)
{
	snprintf(buf, size, "%s/job/%u%s", nd->conf->run_dir, job, suffix);
	return buf;
}

void favo_vm_cgroup(const struct noded *nd, const char *node, uid_t uid, uint32_t job,
		    struct favo_job_cgroup *out)
{
	memset(out, 0, sizeof(*out));
	snprintf(out->root, sizeof(out->root), "%s", FAVO_CGROUP_ROOT);
	snprintf(out->node, sizeof(out->node), "%s", node);
	if (strcmp(nd->conf->cgroup, "auto"))
		snprintf(out->base, sizeof(out->base), "%s", nd->conf->cgroup);
	out->uid = uid;
	out->job = job;
}

/* ---- text that others wrote ---- */

void favo_text_printable(char *out, size_t size, const char *text, size_t len)
{
	size_t n = 0;

	for (size_t i = 0; i < len && n + 1 < size; i++) {
		unsigned char c = (unsigned char)text[i];

		out[n++] = c >= 0x20 && c < 0x7f ? (char)c : c == '\t' ? ' ' : '.';
	}
	while (n && out[n - 1] == ' ')
		n--;
	out[n] = '\0';
}

/* The last bytes of a file, NUL-terminated; the caller frees. */
static char *read_tail(const char *path)
{
	favo_autoclose int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	char *text = calloc(1, TAIL_SIZE + 1);
	struct stat st;
	off_t from;

	if (!text || fd < 0 || fstat(fd, &st) < 0)
		return text;
	from = st.st_size > TAIL_SIZE ? st.st_size - TAIL_SIZE : 0;
	if (pread(fd, text, TAIL_SIZE, from) < 0)
		text[0] = '\0';
	return text;
}

/*
 * The last line that has a visible character and, unless needle is NULL,
 * holds needle.
 */
static bool last_line(const char *text, const char *needle, char *out, size_t size)
{
	bool found = false;

	while (text && *text) {
		size_t len = strcspn(text, "\r\n");
		char line[512];

		favo_text_printable(line, sizeof(line), text, len);
		if (line[strspn(line, " .")] && (!needle || strstr(line, needle))) {
			snprintf(out, size, "%s", line);
			found = true;
		}
		text += len + (text[len] != '\0');
	}
	return found;
}

static bool console_find(const struct noded *nd, uint32_t job, uint32_t index,
			 const char *needle, char *buf, size_t size)
{
	favo_autofree char *text = NULL;
	char path[512];

	text = read_tail(favo_vm_dir(nd, job, index, "console.log", path, sizeof(path)));
	return last_line(text, needle, buf, size);
}

void favo_vm_console_line(const struct noded *nd, uint32_t job, uint32_t index, char *buf,
			  size_t size)
{
	if (!console_find(nd, job, index, NULL, buf, size))
		snprintf(buf, size, "(nothing on its console)");
}

char *favo_vm_console_tail(const struct noded *nd, uint32_t job, uint32_t index)
{
	favo_autofree char *text = NULL;
	char path[512];

	text = read_tail(favo_vm_dir(nd, job, index, "console.log", path, sizeof(path)));
	if (!text || !*text)
		return NULL;
	for (char *p = text; *p; p++)
		if (*p != '\n' && (*p < 0x20 || *p > 0x7e))
			*p = *p == '\r' || *p == '\t' ? ' ' : '.';
	return favo_steal_ptr(&text);
}

/* ---- why it ended ---- */

/* The VMM's own last word; reason is "" when it left none. */
static void exit_event(const struct job *job, char *reason, size_t rsize, char *detail,
		       size_t dsize)
{
	favo_autofree char *text = NULL;
	favo_autojson json_t *obj = NULL;
	const char *value;
	char path[512], line[512];

	reason[0] = detail[0] = '\0';
	text = read_tail(favo_vm_dir(job->nd, job->s.job, job->index, "events.jsonl",
				     path, sizeof(path)));
	if (!last_line(text, "\"exit\"", line, sizeof(line)) ||
	    favo_json_parse(&obj, line, strlen(line), NULL) < 0)
		return;
	if (favo_json_str(&value, obj, "reason", NULL) == 0)
		favo_text_printable(reason, rsize, value, strlen(value));
	if (favo_json_str(&value, obj, "detail", NULL) == 0)
		favo_text_printable(detail, dsize, value, strlen(value));
}

static void panic_reason(const struct job *job, const char *detail,
			 struct favo_failure *f)
{
	char line[256];

	if (console_find(job->nd, job->s.job, job->index, "Kernel panic", line,
			 sizeof(line)))
		snprintf(f->cause, sizeof(f->cause), "guest kernel panicked: %s",
			 strstr(line, "Kernel panic"));
	else
		snprintf(f->cause, sizeof(f->cause), "guest kernel panicked%s%s",
			 *detail ? ": " : "", detail);
	snprintf(f->remedy, sizeof(f->remedy), "see: favo vc logs %u", job->s.job);
}

/* Ended without a word: killed, or it never came to its main loop. */
static void silent_reason(const struct job *job, struct favo_failure *f)
{
	favo_autofree char *text = NULL;
	char path[512], line[256] = "";
	const char *message = line;
	int status = job->vm.wait_status;

	if (favo_job_cgroup_oom_kills(&job->vm.cgroup)) {
		snprintf(f->cause, sizeof(f->cause),
			 "out of memory: favo-vmm was killed at the job's memory limit");
		snprintf(f->remedy, sizeof(f->remedy),
			 "give the VM less with --vm-mem or the job more with --mem");
		return;
	}
	text = read_tail(favo_vm_dir(job->nd, job->s.job, job->index, "vmm.log", path,
				     sizeof(path)));
	if (last_line(text, NULL, line, sizeof(line)) && !strncmp(line, "favo-vmm: ", 10))
		message += 10;
	if (job->vm.reaped && WIFSIGNALED(status))
		snprintf(f->cause, sizeof(f->cause),
			 "favo-vmm was killed by signal %d (%s)", WTERMSIG(status),
			 strsignal(WTERMSIG(status)));
	else if (job->vm.reaped && WIFEXITED(status))
		snprintf(f->cause, sizeof(f->cause), "favo-vmm ended with code %d: %s",
			 WEXITSTATUS(status), *message ? message : "it said nothing");
	else
		snprintf(f->cause, sizeof(f->cause), "favo-vmm ended: %s",
			 *message ? message : "it was killed");
	snprintf(f->remedy, sizeof(f->remedy), "see: favo vc logs %u", job->s.job);
}

void favo_vm_end_reason(struct job *job, struct favo_failure *f)
{
	char reason[32], detail[256];
	const char *when = job->vm.ready ? "while the job ran" : "before it was ready";

	exit_event(job, reason, sizeof(reason), detail, sizeof(detail));
	snprintf(f->remedy, sizeof(f->remedy), "see: favo vc logs %u", job->s.job);
	if (!strcmp(reason, "panic"))
		panic_reason(job, detail, f);
	else if (!strcmp(reason, "reset"))
		snprintf(f->cause, sizeof(f->cause), "guest asked for a reset %s%s%s",
			 when, *detail ? ": " : "", detail);
	else if (!strcmp(reason, "shutdown"))
		snprintf(f->cause, sizeof(f->cause), "guest shut itself down %s", when);
	else if (!strcmp(reason, "stopped"))
		snprintf(f->cause, sizeof(f->cause), "favo-vmm was told to stop %s",
			 when);
	else if (!strcmp(reason, "error"))
		snprintf(f->cause, sizeof(f->cause), "favo-vmm failed: %s",
			 *detail ? detail : "it gave no reason");
	else
		silent_reason(job, f);
}

/* ---- the process ---- */

struct vm_watch {
	struct watch watch;
	struct job *job;
};

/* Main thread: the VM's process ended. */
static void vm_ended(struct noded *nd, struct watch *w, uint32_t events)
{
	struct vm_watch *vw = favo_container_of(w, struct vm_watch, watch);
	struct job *job = vw->job;
	siginfo_t info = {0};

	(void)events;
	favo_noded_unwatch(nd, w);
	pthread_mutex_lock(&nd->lock);
	/* Not our child when it was adopted. */
	if (waitid(P_PIDFD, (id_t)w->fd, &info, WEXITED | WNOHANG) == 0 && info.si_pid) {
		job->vm.reaped = true;
		job->vm.wait_status = info.si_code == CLD_EXITED
					      ? (info.si_status & 0xff) << 8
					      : info.si_status & 0x7f;
	}
	job->vm.exited = true;
	favo_noded_changed(nd);
	favo_job_unref(job);
	pthread_mutex_unlock(&nd->lock);
	free(vw);
}

int favo_vm_watch(struct job *job, struct favo_err *err)
{
	struct vm_watch *vw = calloc(1, sizeof(*vw));
	int ret;

	if (!vw)
		return favo_fail(err, ENOMEM, "allocate watch");
	vw->watch.ready = vm_ended;
	vw->watch.fd = job->vm.process.pidfd;
	vw->job = job;
	pthread_mutex_lock(&job->nd->lock);
	job->refs++;
	pthread_mutex_unlock(&job->nd->lock);
	ret = favo_noded_watch(job->nd, &vw->watch, err);
	if (ret < 0) {
		pthread_mutex_lock(&job->nd->lock);
		favo_job_unref(job);
		pthread_mutex_unlock(&job->nd->lock);
		free(vw);
	}
	return ret;
}

static void control_stop(const struct job *job)
{
	static const char line[] = "{\"op\":\"stop\"}\n";
	favo_autoclose int fd = -1;
	char path[512];

	favo_vm_run_dir(job->nd, job->s.job, job->index, "control.sock", path,
			sizeof(path));
	if (favo_unix_connect(&fd, path, 500, NULL) < 0 ||
	    favo_write_all(fd, line, sizeof(line) - 1, 500, NULL) < 0)
		favo_log(FAVO_DEBUG, "job %u: no answer on the VM's control socket",
			 job->s.job);
}

void favo_vm_stop(struct job *job, int grace_ms)
{
	struct favo_process *process = &job->vm.process;

	if (!job->vm.started || process->pidfd < 0 || favo_process_wait(process, 0))
		return;
	favo_job_cgroup_thaw(&job->vm.cgroup);
	if (grace_ms > 0) {
		control_stop(job);
		if (favo_process_wait(process, grace_ms))
			return;
	}
	pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0);
	/* In the kernel's hands now; a process stuck there is not ours to solve. */
	if (!favo_process_wait(process, KILL_WAIT_MS))
		favo_log(FAVO_ERROR, "job %u: favo-vmm %d does not die", job->s.job,
			 (int)process->pid);
}

/* ---- clean-up ---- */

static int cleanup_cgroup(const struct favo_job_cgroup *cg, struct favo_err *err)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	int64_t end = favo_now_ms() + CGROUP_WAIT_MS;
	int ret;

	for (;;) {
		/*
		 * Takes what a crash between fork and the saved state left, and
		 * gives the kernel time to empty the group.
		 */
		favo_job_cgroup_kill(cg);
		ret = favo_job_cgroup_remove(cg, err);
		if (ret != -EBUSY || favo_now_ms() > end)
			return ret;
		nanosleep(&pause, NULL);
	}
}

static void drop_pin(struct noded *nd, const struct favo_vm_state *s)
{
	struct favo_digest id;
	char holder[32];
	bool open;

	pthread_mutex_lock(&nd->lock);
	open = nd->cache != NULL;
	pthread_mutex_unlock(&nd->lock);
	/* Who opens the cache drops the pins of VMs that are gone. */
	if (!open || favo_digest_parse(&id, s->digest, NULL) < 0)
		return;
	snprintf(holder, sizeof(holder), "%u.%u", s->job, s->index);
	/*
	 * Without the cache_lock, which is held for long while an image is
	 * checked: an eviction that misses this change is none the worse.
	 */
	(void)favo_cache_unpin(nd->cache, &id, holder, NULL);
}

int favo_vm_cleanup(struct noded *nd, const struct favo_vm_state *s,
		    const struct favo_job_cgroup *cg, struct favo_err *err)
{
	char path[512];
	int ret, other;

	ret = cg ? cleanup_cgroup(cg, err) : 0;
	drop_pin(nd, s);
	other = favo_remove_tree(
		favo_vm_run_dir(nd, s->job, s->index, "", path, sizeof(path)), err);
	if (ret >= 0)
		ret = other;
	/* Last, since it is what a restart finds the rest by. */
	if (ret >= 0)
		ret = favo_remove_tree(
			favo_vm_dir(nd, s->job, s->index, "", path, sizeof(path)), err);
	return ret;
}
