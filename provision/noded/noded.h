/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Inside favo-noded: the daemon, its jobs and their VMs.
 *
 * Threads: the main thread runs one epoll loop (new connections, reports of
 * guests, ends of VMs); each connection on the socket, each job and each
 * image fetch has a thread of its own that reads like a story from top to
 * bottom; one thread tells favod. All shared state is under one lock, and
 * every change of it wakes all who wait on one condition. Nobody blocks on
 * anything else while holding the lock, except for saving a job's small
 * state file on tmpfs.
 *
 * "L" marks what is read and written under the lock. The rest of a job
 * belongs to its thread.
 */
#pragma once

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "images/cache.h"
#include "images/verity.h"
#include "provision/cluster.h"
#include "provision/conf.h"
#include "provision/grant.h"
#include "provision/mounts.h"
#include "provision/noded/cgroup.h"
#include "provision/noded/launch.h"
#include "provision/noded/request.h"
#include "provision/noded/state.h"

#define FAVO_CGROUP_ROOT "/sys/fs/cgroup"

struct noded;
struct link;
struct warm;
struct warm_vm;
struct warm_source;
struct favo_hub;
struct peers_session;

/* One image on its way to this node, for all jobs that wait for it. */
struct fetch {
	struct fetch *next;
	struct noded *nd;
	struct favo_digest id;
	unsigned int waiters; /* L; nobody waits: the fetch gives up */
	bool done; /* L */
	struct favo_failure failure; /* L; empty cause: success */
	struct favo_fetch_progress progress; /* L */
	char trouble[200]; /* L; what is being retried */
	/* lazy start */
	unsigned int riders; /* L; waiters whose VMs run on the partial image */
	bool lazy; /* L; VMs may start before it is complete */
	bool bootable; /* L; they may now */
	int64_t bootable_ms; /* L */
	bool rush; /* L; no lazy start after all: everything, now */
	bool decided; /* the fetch's thread alone */
	size_t first; /* the same: chunks that an earlier start is known to read */
};

struct vm {
	struct favo_vm_state s;
	struct favo_job_cgroup cgroup;
	struct favo_process process;
	bool started; /* L: process is valid */
	bool exited; /* L */
	bool reaped; /* L: wait_status is valid */
	int wait_status;
	bool ready; /* L */
	bool placed; /* in the cgroups that came with the first task */
	char guest_failure[200]; /* L: the guest's own word */
	char share_ended[200]; /* L: a file server that is gone */
	unsigned int reports; /* L: lines taken from the guest */
	int64_t deadline_ms; /* L: to be ready */
	json_t *identity; /* L: what a VM from a snapshot waits for, or NULL */
	char warm_key[65]; /* of its snapshot */
	struct warm_source *warm_source; /* to be made a snapshot of once it runs */
	bool from_snapshot; /* and until ready a failure means: try without */
	bool cold; /* start it without a snapshot */
};

struct job {
	struct job *next;
	struct noded *nd;
	unsigned int refs; /* L: the list, its thread, attached clients */
	struct favo_job_state s; /* L; texts never change */
	struct favo_grant grant; /* L: once cluster is set */
	struct favo_cluster *cluster; /* L: NULL until the grant is checked */
	unsigned int index;
	bool extern_step; /* L: Slurm has a step to be counted in */
	bool destroy; /* L: wanted */
	bool gone; /* L: cleaned up and off the list */
	char detail[120]; /* L: of the phase, for people */
	char note[400]; /* L: for the user, told with the first task */
	char *log; /* L: end of the console after a failure, or NULL */
	struct vm vm;
	int tap_fd;
	struct favo_cache_image image;
	struct fetch *ride; /* L: the VM runs on this one's partial image, or NULL */
	int root_dev; /* the dm-verity device, held to ask it at the end; or -1 */
	char root_name[FAVO_VERITY_NAME_SIZE]; /* its name, or "" */
};

struct noded {
	const struct favo_conf *conf;
	char boot_id[37];
	char hostname[256];
	struct favo_cache *cache; /* L: NULL until it is open */
	char cache_trouble[200]; /* L: why it never will be */
	pthread_mutex_t cache_lock; /* around favo_cache_get, evict, prune */
	pthread_mutex_t verity_lock; /* around favo_verity_open, favo_verity_find */
	pthread_mutex_t lock;
	pthread_cond_t changed; /* CLOCK_MONOTONIC */
	struct job *jobs; /* L */
	struct fetch *fetches; /* L */
	struct favo_hub *hub; /* door for other nodes, or NULL */
	pthread_mutex_t peers_lock; /* around peers */
	struct peers_session *peers;
	uint64_t fetch_rate; /* L; bytes of images per second, 0: not known yet */
	struct client_count *clients; /* L */
	unsigned int nclients; /* L */
	bool report_due; /* L: favod should hear of a change */
	json_t *ended; /* L: last reports of VMs that are gone */
	json_t *health; /* L: last checks of this node, or NULL (health.h) */
	int64_t health_ms; /* L: when they were made */
	bool health_running; /* L: they are being made */
	char node[256]; /* L: Slurm's name of this node */
	int epoll_fd;
	struct link *links; /* main thread: connections of guests */
	struct warm *warms; /* L: combinations that were started, see warm.h */
	struct warm_vm *warm_vms; /* L: those that become snapshots now */
};

/* ---- main.c ---- */

/* What an epoll event is for; first member of what its data pointer is. */
struct watch {
	void (*ready)(struct noded *nd, struct watch *w, uint32_t events);
	int fd;
};

/* Watch fd for input; called from any thread. */
int favo_noded_watch(struct noded *nd, struct watch *w, struct favo_err *err);
void favo_noded_unwatch(struct noded *nd, struct watch *w);

/* Start a detached thread with a small stack and all signals blocked. */
int favo_noded_thread(void *(*fn)(void *), void *arg, struct favo_err *err);

/* Wake everybody who waits for a change; with the lock held. */
void favo_noded_changed(struct noded *nd);

/* Wait for a change, at most until the monotonic time; with the lock held. */
void favo_noded_wait_until(struct noded *nd, int64_t until_ms);

/* ---- job.c ---- */

/* Find a job and take a reference, or NULL; with the lock held. */
struct job *favo_job_find(struct noded *nd, uint32_t id);
void favo_job_unref(struct job *job);

/*
 * Make a job from a prepare request, on the list, saved, its thread running.
 * An existing job is success unless restart is newer: that one is destroyed
 * first (up to 20 s). Takes the lock itself.
 */
int favo_job_prepare(struct noded *nd, const struct favo_request *req,
		     struct favo_err *err);

/*
 * Take up a job again after a restart; steals the content of s and process
 * (pidfd -1: it does not run). vm is NULL when nothing of it was on disk.
 */
int favo_job_resume(struct noded *nd, struct favo_job_state *s,
		    const struct favo_vm_state *vm, struct favo_process *process,
		    bool ended, struct favo_err *err);

/* Note the first boot request; with the lock held. */
int favo_job_boot(struct job *job, const struct favo_request *req, struct favo_err *err);

/* Note a failure, the first one counts; with the lock held. */
void favo_job_fail(struct job *job, enum favo_phase phase, const char *remedy,
		   const char *cause, ...) favo_printf(4, 5);
bool favo_job_failed(const struct job *job);

/* Something that the user should know although his job runs; with the lock held. */
void favo_job_note(struct job *job, const char *fmt, ...) favo_printf(2, 3);

/* A phase was reached; with the lock held. */
void favo_job_reach(struct job *job, enum favo_phase phase);
void favo_job_save(struct job *job);

/* Ask for the end and wait for it; true when it is gone. Takes the lock. */
bool favo_job_destroy(struct noded *nd, uint32_t id, int timeout_ms);

/* ---- boot.c ---- */

/* Start the job's VM: files, limits, process. The job's thread, no lock. */
int favo_vm_start(struct job *job, struct favo_failure *failure);

/* Memory and CPUs of the guest; pure but for conf. */
struct vm_shape {
	uint64_t mem_mb;
	unsigned int cpus;
};
int favo_vm_shape(struct vm_shape *out, const struct job *job,
		  const struct favo_manifest *manifest, struct favo_failure *failure);

/* ---- share.c ---- */

#define FAVO_SHARE_FILES (UINT64_C(1) << 20) /* virtiofsd keeps files open */

/* The user whose files they are, with his groups. */
struct favo_launch_user {
	uid_t uid;
	gid_t gid;
	const gid_t *groups;
	size_t ngroups;
};

/* Mounts that are served, and favo-vmm's ends of their sockets. */
struct favo_shares {
	size_t n;
	struct favo_mount mounts[FAVO_MOUNTS_MAX];
	int fds[FAVO_MOUNTS_MAX];
};

/*
 * Start the file servers of the job's VM; its cgroup and directories exist.
 * What the user asked for by name and cannot have is a failure, what every
 * job gets is noted then. Blocks as long as the file systems take.
 */
int favo_shares_start(struct favo_shares *out, struct job *job, const char *home,
		      const struct favo_launch_user *user, struct favo_failure *failure);
void favo_shares_fini(struct favo_shares *shares);

/* ---- vm.c ---- */

char *favo_vm_dir(const struct noded *nd, uint32_t job, uint32_t index, const char *file,
		  char *buf, size_t size);
char *favo_vm_run_dir(const struct noded *nd, uint32_t job, uint32_t index,
		      const char *file, char *buf, size_t size);
char *favo_job_path(const struct noded *nd, uint32_t job, const char *suffix, char *buf,
		    size_t size);

/* Watch for the end of the VM's process from now on. */
int favo_vm_watch(struct job *job, struct favo_err *err);

/* Stop a VM's process: asked nicely for grace_ms, then killed. No lock. */
void favo_vm_stop(struct job *job, int grace_ms);

/* Why a VM ended, in words; cause and remedy are filled. */
void favo_vm_end_reason(struct job *job, struct favo_failure *failure);

/* End of the console as text for favod, or NULL; the caller frees. */
char *favo_vm_console_tail(const struct noded *nd, uint32_t job, uint32_t index);

/* Last line of the console that has text, made printable. */
void favo_vm_console_line(const struct noded *nd, uint32_t job, uint32_t index, char *buf,
			  size_t size);

/*
 * Remove every trace of a VM: processes in its cgroup, the cgroup, control
 * socket, pin, directory. Idempotent; no lock.
 */
int favo_vm_cleanup(struct noded *nd, const struct favo_vm_state *s,
		    const struct favo_job_cgroup *cg, struct favo_err *err);
void favo_vm_cgroup(const struct noded *nd, const char *node, uid_t uid, uint32_t job,
		    struct favo_job_cgroup *out);

/* ---- guest.c ---- */

/* Listen for reports of guests. */
int favo_guest_listen(struct noded *nd, struct favo_err *err);

/* Connect to the agent of a VM and authenticate; blocks up to timeout_ms. */
int favo_guest_connect(uint32_t cid, const char *secret, int timeout_ms, int *out,
		       struct favo_err *err);

/* Replace what a terminal would not show as text; cuts to size. */
void favo_text_printable(char *out, size_t size, const char *text, size_t len);

/* ---- fetch.c ---- */

/*
 * Have the job's image on this node: from the cache, or fetched together with
 * the others who want it. Fills job->image and pins it. -ECANCELED when the
 * job's end is asked for; else a failure.
 */
int favo_image_get(struct job *job, struct favo_failure *failure);

/* Open the image cache in the background; jobs wait for it. */
int favo_image_start(struct noded *nd, struct favo_err *err);

/* The running fetch of this image, or a new one; with the lock held. */
struct fetch *favo_fetch_join(struct noded *nd, const struct favo_digest *id,
			      struct favo_err *err);
/* A waiter is gone (counted by the caller); with the lock held. */
void favo_fetch_release(struct fetch *fetch);

/* ---- lazy.c ---- */

/*
 * For the thread of a fetch: after each answer that was put; decides whether
 * it is a lazy one, and yields to what guests wait for.
 */
void favo_lazy_step(struct fetch *fetch, struct favo_fetch *fill);

/*
 * For the same, when favo_fetch_missing() gave nothing: wait for the start of
 * the guests. True: ask again, for the rest now.
 */
bool favo_lazy_rest(struct fetch *fetch, struct favo_fetch *fill);

/*
 * Give a job that rides on a fetch its partial image, the root as a block
 * device. -ENOENT: get the image the usual way (it is complete, or there is
 * no lazy start on this node); the job rides no more.
 */
int favo_lazy_get(struct job *job, const struct favo_digest *id, const char *holder,
		  struct favo_err *err);

/* The job's VM is gone; nothing when it was no lazy start. */
void favo_lazy_leave(struct job *job);

/* After a restart: go on with the images of VMs that run; cache is open. */
void favo_lazy_resume(struct noded *nd);

/* ---- trust.c ---- */

/*
 * Is the image signed as image_trust wants it? 0, or -EKEYREJECTED or another
 * error with the reason. May ask favod.
 */
int favo_trust_check(const struct noded *nd, const struct favo_digest *id,
		     struct favo_err *err);

/* ---- root.c ---- */

/*
 * Descriptor of the root disk for the VM: of the dm-verity device over
 * job->image.root_fd, or that file itself where image_verity allows it.
 */
int favo_root_open(struct job *job, int *fd, struct favo_err *err);
/* After a restart: hold the device of a VM that still runs. */
void favo_root_adopt(struct job *job);
/* Was a damaged block read? Whoever read it got an I/O error. */
bool favo_root_is_damaged(const struct job *job);
/* Find the damage, put it into words, and drop the image from the cache. */
void favo_root_discard(struct job *job, struct favo_failure *failure);
void favo_root_close(struct job *job);

/* ---- server.c ---- */
int favo_server_listen(struct noded *nd, struct favo_err *err);

/* State and time line of a job, with the lock held; new reference. */
json_t *favo_job_json(struct job *job);

/* ---- recover.c ---- */
int favo_recover_all(struct noded *nd, struct favo_err *err);

/* Drop pins of VMs that are gone; with the cache_lock held. */
void favo_recover_pins(struct noded *nd);

/* ---- report.c ---- */
int favo_report_start(struct noded *nd, struct favo_err *err);

/* What favod keeps of a VM, with the lock held; new reference or NULL. */
json_t *favo_report_vm(const struct job *job, bool ended);
