// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Start of a job's VM: its shape within the allocation, the descriptors that
 * favo-vmm gets instead of privileges, the initrds of agent and configuration
 * (docs/format-agent.md, "config.json"), its cgroup and its process.
 */
#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/util.h"
#include "images/cpio.h"
#include "provision/noded/network.h"
#include "provision/noded/noded.h"
#include "provision/noded/warm.h"

#define MIB (UINT64_C(1) << 20)
/*
 * Below this a Debian kernel does not reach pid 1; the unpacked initramfs
 * comes on top twice (archive and files) until the root is mounted.
 */
#define MEM_MIN_MB 96
#define CPUS_MAX 255
#define INIT_MAX (64 * MIB)
#define NSS_BUF 16384
#define GROUPS_MAX 256
#define ARGS_MAX 80

static int say(struct favo_failure *f, const char *remedy, const char *fmt, ...)
	favo_printf(3, 4);
static int say(struct favo_failure *f, const char *remedy, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(f->cause, sizeof(f->cause), fmt, ap);
	va_end(ap);
	snprintf(f->remedy, sizeof(f->remedy), "%s", remedy);
	return -EINVAL;
}

/* ---- shape ---- */

static int shape_memory(struct vm_shape *out, const struct job *job,
			const struct favo_manifest *m, struct favo_failure *f)
{
	uint64_t kept = job->nd->conf->vm_overhead_bytes / MIB;
	uint64_t least = MEM_MIN_MB + (2 * m->initramfs.size + MIB - 1) / MIB;
	uint64_t given = job->s.mem_mb, free_mb, want = job->grant.mem_mb;

	if (!given)
		given = job->nd->conf->vm_memory_bytes / MIB + kept;
	/* Without a limit by Slurm the wish alone counts. */
	if (!job->s.mem_mb && want)
		given = want + kept;
	free_mb = given > kept ? given - kept : 0;
	if (want > free_mb)
		return say(f, "give the job more with --mem or the VM less with --vm-mem",
			   "--vm-mem=%lluM needs %llu MiB with the %llu MiB that "
			   "favo-vmm takes, "
			   "the job has %llu MiB on this node",
			   (unsigned long long)want, (unsigned long long)(want + kept),
			   (unsigned long long)kept, (unsigned long long)given);
	out->mem_mb = (want ? want : free_mb) & ~UINT64_C(1);
	if (out->mem_mb < least)
		return say(
			f, "give the job more memory with --mem",
			"not enough memory: image %.80s needs at least %llu MiB, the VM "
			"would have %llu MiB (%llu MiB of the job less %llu MiB for "
			"favo-vmm)",
			job->grant.image, (unsigned long long)least,
			(unsigned long long)out->mem_mb, (unsigned long long)given,
			(unsigned long long)kept);
	return 0;
}

static int shape_cpus(struct vm_shape *out, const struct job *job, struct favo_failure *f)
{
	unsigned int given = job->s.ncpus;

	if (!given && *job->s.cores)
		(void)!favo_cpulist_count(job->s.cores, &given, NULL);
	if (!given)
		given = job->grant.cpus ? job->grant.cpus : 1;
	if (job->grant.cpus > given)
		return say(f,
			   "give the job more with --cpus-per-task or the VM less with "
			   "--vm-cpus",
			   "--vm-cpus=%u is more than the %u CPUs that the job has on "
			   "this node",
			   job->grant.cpus, given);
	out->cpus = job->grant.cpus ? job->grant.cpus : given;
	out->cpus = FAVO_MIN(out->cpus, CPUS_MAX);
	return 0;
}

int favo_vm_shape(struct vm_shape *out, const struct job *job,
		  const struct favo_manifest *manifest, struct favo_failure *failure)
{
	int ret = shape_memory(out, job, manifest, failure);

	return ret < 0 ? ret : shape_cpus(out, job, failure);
}

/* ---- what the guest is told ---- */

static json_t *members_json(const struct favo_cluster *c)
{
	json_t *list = json_array();
	char mac[18];

	for (unsigned int i = 0; i < c->count; i++) {
		const struct favo_member *m = &c->members[i];

		favo_mac_format(mac, m->mac);
		json_array_append_new(list, json_pack("{s:s, s:s, s:s, s:s}", "name",
						      m->name, "address", m->address,
						      "mac", mac, "node", m->node));
	}
	return list;
}

/* Groups as the node's name service has them; those without a name are left out. */
static json_t *groups_json(const gid_t *gids, int n)
{
	json_t *list = json_array();
	char buf[NSS_BUF];

	for (int i = 0; i < n; i++) {
		struct group grp, *found = NULL;

		if (getgrgid_r(gids[i], &grp, buf, sizeof(buf), &found) == 0 && found)
			json_array_append_new(list,
					      json_pack("{s:s, s:I}", "name", grp.gr_name,
							"gid", (json_int_t)gids[i]));
	}
	return list;
}

struct user {
	char name[64];
	char home[256];
	char shell[128];
	gid_t gids[GROUPS_MAX];
	int ngids;
};

static int find_user(struct user *out, const struct job *job, struct favo_err *err)
{
	struct passwd pw, *found = NULL;
	char buf[NSS_BUF];
	int ret;

	ret = getpwuid_r(job->s.uid, &pw, buf, sizeof(buf), &found);
	if (ret || !found)
		return favo_fail(err, ret ? ret : ENOENT,
				 "user %u is not known on this node",
				 (unsigned int)job->s.uid);
	snprintf(out->name, sizeof(out->name), "%s", pw.pw_name);
	snprintf(out->home, sizeof(out->home), "%s", pw.pw_dir);
	snprintf(out->shell, sizeof(out->shell), "%s", pw.pw_shell);
	out->ngids = GROUPS_MAX;
	if (getgrouplist(pw.pw_name, job->s.gid, out->gids, &out->ngids) < 0)
		out->ngids = GROUPS_MAX; /* it filled what fits */
	return 0;
}

static json_t *mounts_json(const struct favo_shares *shares)
{
	json_t *list = json_array();
	char tag[32];

	for (size_t i = 0; i < shares->n; i++) {
		const struct favo_mount *m = &shares->mounts[i];

		snprintf(tag, sizeof(tag), "favo%zu", i);
		json_array_append_new(list,
				      json_pack("{s:s, s:s, s:b, s:b}", "tag", tag,
						"path", m->target, "ro", m->read_only,
						"required", m->wanted));
	}
	return list;
}

static json_t *config_json(const struct job *job, const struct user *user,
			   const struct favo_shares *shares)
{
	const struct favo_cluster *c = job->cluster;
	const struct favo_member *self = &c->members[job->index];
	char mac[18];

	favo_mac_format(mac, self->mac);
	return json_pack("{s:i, s:s, s:I, s:I, s:s, s:I, s:i, s:i, s:s, s:s, s:o,"
			 " s:{s:s, s:I, s:I, s:s, s:s, s:o}, s:{s:s, s:s}, s:s, s:o}",
			 "format", 1, "hostname", self->name, "job",
			 (json_int_t)job->s.job, "index", (json_int_t)job->index,
			 "secret", job->grant.secret, "time_ns",
			 (json_int_t)favo_realtime_ns(), "prefix_len", (int)c->prefix_len,
			 "mtu", FAVO_NETWORK_MTU, "mac", mac, "address", self->address,
			 "members", members_json(c), "user", "name", user->name, "uid",
			 (json_int_t)job->s.uid, "gid", (json_int_t)job->s.gid, "home",
			 user->home, "shell", user->shell, "groups",
			 groups_json(user->gids, user->ngids), "root", "device",
			 "/dev/vda", "fstype", job->image.manifest->root.fstype,
			 "network", job->grant.network, "mounts", mounts_json(shares));
}

static int agent_initrd(const struct noded *nd, struct favo_err *err)
{
	favo_autocpio struct favo_cpio *cpio = NULL;
	int ret = favo_cpio_new(&cpio, err);

	if (ret >= 0)
		ret = favo_cpio_copy(cpio, "init", 0755, nd->conf->init_path, INIT_MAX,
				     err);
	return ret < 0 ? ret : favo_cpio_finish_memfd(cpio, "favo-init", err);
}

static int config_initrd(const struct job *job, const struct user *user,
			 const struct favo_shares *shares, struct favo_err *err)
{
	favo_autocpio struct favo_cpio *cpio = NULL;
	favo_autojson json_t *obj = config_json(job, user, shares);
	favo_autofree char *text = NULL;
	size_t len;
	int ret;

	if (!obj)
		return favo_fail(err, ENOMEM,
				 "guest configuration: not text or no memory");
	ret = favo_json_canonical(&text, &len, obj, err);
	if (ret >= 0)
		ret = favo_cpio_new(&cpio, err);
	/* Holds the cluster's secret: for pid 1 alone. */
	if (ret >= 0)
		ret = favo_cpio_file(cpio, "favo/config.json", 0600, text, len, err);
	return ret < 0 ? ret : favo_cpio_finish_memfd(cpio, "favo-config", err);
}

/* ---- descriptors and arguments of favo-vmm ---- */

enum slot {
	FD_KVM,
	FD_KERNEL,
	FD_INITRAMFS,
	FD_AGENT,
	FD_CONFIG,
	FD_ROOT,
	FD_VSOCK,
	FD_CONSOLE,
	FD_CONTROL,
	FD_EVENTS,
	FD_ALWAYS, /* those above are always there */
	FD_TAP = FD_ALWAYS,
	FD_VHOST_NET,
	FD_SNAPSHOT, /* state and memory, behind the last of the others */
	FD_COUNT = FD_SNAPSHOT + 2,
};

struct start {
	struct job *job;
	struct user user;
	struct vm_shape shape;
	struct favo_shares shares;
	int fds[FD_COUNT + FAVO_MOUNTS_MAX];
	size_t nfds;
	int log_fd;
	char *argv[ARGS_MAX];
	size_t argc;
};

static void start_fini(struct start *s)
{
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(s->fds); i++)
		favo_close(&s->fds[i]);
	favo_close(&s->log_fd);
	favo_shares_fini(&s->shares);
	for (size_t i = 0; i < s->argc; i++)
		free(s->argv[i]);
}
#define autostart __attribute__((cleanup(start_fini)))

static int open_device(int *out, const char *path, const char *hint, struct favo_err *err)
{
	*out = open(path, O_RDWR | O_CLOEXEC);
	if (*out < 0)
		return favo_fail(err, errno, "open %s: %m (%s)", path, hint);
	return 0;
}

static int open_log(int *out, const struct job *job, const char *name,
		    struct favo_err *err)
{
	char path[512];

	favo_vm_dir(job->nd, job->s.job, job->index, name, path, sizeof(path));
	*out = open(path, O_RDWR | O_CREAT | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
	return *out < 0 ? favo_fail(err, errno, "open %s: %m", path) : 0;
}

static int open_control(int *out, const struct job *job, struct favo_err *err)
{
	char path[512];
	int ret;

	favo_vm_run_dir(job->nd, job->s.job, job->index, "", path, sizeof(path));
	ret = favo_mkdirs(path, 0700, err);
	if (ret < 0)
		return ret;
	favo_vm_run_dir(job->nd, job->s.job, job->index, "control.sock", path,
			sizeof(path));
	return favo_unix_listen(out, path, 0600, err);
}

static int open_all(struct start *s, struct favo_err *err)
{
	struct job *job = s->job;
	int ret;

	s->nfds = FD_ALWAYS;
	if ((ret = open_device(
		     &s->fds[FD_KVM], "/dev/kvm",
		     "is virtualization on, kernel module kvm_intel or kvm_amd loaded?",
		     err)) < 0 ||
	    (ret = open_device(&s->fds[FD_VSOCK], "/dev/vhost-vsock",
			       "is kernel module vhost_vsock loaded?", err)) < 0 ||
	    (ret = s->fds[FD_AGENT] = agent_initrd(job->nd, err)) < 0 ||
	    (ret = s->fds[FD_CONFIG] = config_initrd(job, &s->user, &s->shares, err)) <
		    0 ||
	    (ret = open_log(&s->fds[FD_CONSOLE], job, "console.log", err)) < 0 ||
	    (ret = open_log(&s->fds[FD_EVENTS], job, "events.jsonl", err)) < 0 ||
	    (ret = open_log(&s->log_fd, job, "vmm.log", err)) < 0)
		return ret;
	s->fds[FD_KERNEL] = favo_steal_fd(&job->image.kernel_fd);
	s->fds[FD_INITRAMFS] = favo_steal_fd(&job->image.initramfs_fd);
	ret = favo_root_open(job, &s->fds[FD_ROOT], err);
	if (ret < 0)
		return ret;
	if (job->tap_fd < 0)
		return 0;
	s->fds[FD_TAP] = favo_steal_fd(&job->tap_fd);
	s->nfds = FD_TAP + 1;
	/* Without it favo-vmm moves the packets itself. */
	s->fds[FD_VHOST_NET] = open("/dev/vhost-net", O_RDWR | O_CLOEXEC);
	if (s->fds[FD_VHOST_NET] >= 0)
		s->nfds = FD_VHOST_NET + 1;
	return 0;
}

/* The number that a descriptor has in favo-vmm. */
static int number(enum slot slot)
{
	return FAVO_LAUNCH_FD0 + (int)slot;
}

static void arg(struct start *s, const char *option, const char *fmt, ...)
	favo_printf(3, 4);
static void arg(struct start *s, const char *option, const char *fmt, ...)
{
	char *value = NULL;
	va_list ap;

	va_start(ap, fmt);
	if (s->argc + 3 > ARGS_MAX || vasprintf(&value, fmt, ap) < 0)
		value = NULL;
	va_end(ap);
	if (!value)
		return;
	s->argv[s->argc++] = strdup(option);
	s->argv[s->argc++] = value;
}

static void network_arg(struct start *s)
{
	const struct job *job = s->job;
	char mac[18], vhost[16] = "off";

	if (s->nfds <= FD_TAP)
		return;
	favo_mac_format(mac, job->cluster->members[job->index].mac);
	if (s->nfds > FD_VHOST_NET)
		snprintf(vhost, sizeof(vhost), "%d", number(FD_VHOST_NET));
	/* The interface may be in a network namespace where favo-vmm cannot ask. */
	arg(s, "--net", "fd=%d,vhost=%s,mtu=%d,mac=%s", number(FD_TAP), vhost,
	    FAVO_NETWORK_MTU, mac);
}

/* Behind the others, whose numbers are fixed. */
static void share_args(struct start *s)
{
	for (size_t i = 0; i < s->shares.n; i++) {
		arg(s, "--fs", "fd=%zu,tag=favo%zu", FAVO_LAUNCH_FD0 + s->nfds, i);
		s->fds[s->nfds++] = favo_steal_fd(&s->shares.fds[i]);
	}
}

static int build_args(struct start *s, struct favo_err *err)
{
	struct job *job = s->job;

	s->argv[s->argc++] = strdup("favo-vmm");
	arg(s, "--name", "%u.%u", job->s.job, job->index);
	arg(s, "--kvm", "fd=%d", number(FD_KVM));
	arg(s, "--kernel", "fd=%d", number(FD_KERNEL));
	arg(s, "--initrd", "fd=%d", number(FD_INITRAMFS));
	arg(s, "--initrd", "fd=%d", number(FD_AGENT));
	arg(s, "--initrd", "fd=%d", number(FD_CONFIG));
	/* A panic must end the VM even where the kernel lacks pvpanic. */
	arg(s, "--cmdline", "panic=-1 %s", job->image.manifest->cmdline);
	arg(s, "--cpus", "%u", s->shape.cpus);
	arg(s, "--mem", "%lluM", (unsigned long long)s->shape.mem_mb);
	arg(s, "--disk", "fd=%d,ro,id=root", number(FD_ROOT));
	network_arg(s);
	share_args(s);
	arg(s, "--vsock", "cid=%u,fd=%d", job->vm.s.cid, number(FD_VSOCK));
	arg(s, "--console", "fd=%d", number(FD_CONSOLE));
	arg(s, "--control", "fd=%d", number(FD_CONTROL));
	arg(s, "--events", "fd=%d", number(FD_EVENTS));
	s->argv[s->argc++] = strdup("--rng");
	s->argv[s->argc++] = strdup("--jail");
	for (size_t i = 0; i < s->argc; i++)
		if (!s->argv[i])
			return favo_fail(err, ENOMEM, "allocate arguments of favo-vmm");
	s->argv[s->argc] = NULL;
	return 0;
}

/* Take an option and its value out of the arguments. */
static void drop_arg(struct start *s, const char *option)
{
	for (size_t i = 0; i + 1 < s->argc; i++) {
		if (strcmp(s->argv[i], option) != 0)
			continue;
		free(s->argv[i]);
		free(s->argv[i + 1]);
		memmove(s->argv + i, s->argv + i + 2,
			(s->argc - i - 1) * sizeof(s->argv[0]));
		s->argc -= 2;
		i--;
	}
}

/* What favo-vmm does not need when it boots nothing; it sees no more of the job. */
static int drop_boot_files(struct start *s, struct favo_err *err)
{
	static const enum slot unused[] = {FD_KERNEL, FD_INITRAMFS, FD_AGENT, FD_CONFIG};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(unused); i++) {
		favo_close(&s->fds[unused[i]]);
		s->fds[unused[i]] = open("/dev/null", O_RDONLY | O_CLOEXEC);
		if (s->fds[unused[i]] < 0)
			return favo_fail(err, errno, "open /dev/null: %m");
	}
	return 0;
}

/* Start from the snapshot in the last two descriptors instead of the kernel. */
static int use_snapshot(struct start *s, struct favo_err *err)
{
	static const char *const cold[] = {"--kernel", "--initrd", "--cmdline", "--cpus",
					   "--mem"};
	struct job *job = s->job;
	json_t *identity = config_json(job, &s->user, &s->shares);
	int first = FAVO_LAUNCH_FD0 + (int)s->nfds;

	if (!identity)
		return favo_fail(err, ENOMEM, "identity of the guest: out of memory");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cold); i++)
		drop_arg(s, cold[i]);
	arg(s, "--restore", "state-fd=%d,memory-fd=%d", first, first + 1);
	s->argv[s->argc] = NULL;
	/* Should this fail, the job starts once more and needs its interface again. */
	if (s->nfds > FD_TAP)
		job->tap_fd = fcntl(s->fds[FD_TAP], F_DUPFD_CLOEXEC, 3);
	s->nfds += 2;
	pthread_mutex_lock(&job->nd->lock);
	json_decref(job->vm.identity);
	job->vm.identity = identity;
	job->vm.from_snapshot = true;
	pthread_mutex_unlock(&job->nd->lock);
	favo_log(FAVO_INFO, "job %u: starts from snapshot %.12s", job->s.job,
		 job->vm.warm_key);
	return drop_boot_files(s, err);
}

static int try_warm(struct start *s, struct favo_err *err)
{
	struct job *job = s->job;
	const struct favo_warm_plan plan = {
		.argv = s->argv,
		.fds = s->fds,
		.nfds = s->nfds,
		.image = job->grant.digest,
		.config = FD_CONFIG,
		.vsock = FD_VSOCK,
		.console = FD_CONSOLE,
		.control = FD_CONTROL,
		.events = FD_EVENTS,
		.tap = FD_TAP,
		.vhost = FD_VHOST_NET,
	};

	if (job->vm.cold || !favo_warm_suits(job->nd, &plan) ||
	    favo_warm_begin(job->nd, &plan, job->vm.warm_key, &s->fds[s->nfds],
			    &s->fds[s->nfds + 1], &job->vm.warm_source) <= 0)
		return 0;
	return use_snapshot(s, err);
}

/* A context id that no VM of ours has; random, so that none comes back soon. */
static int choose_cid(struct job *job, struct favo_err *err)
{
	struct noded *nd = job->nd;
	bool used;
	uint32_t cid;

	pthread_mutex_lock(&nd->lock);
	do {
		if (getrandom(&cid, sizeof(cid), 0) != sizeof(cid)) {
			pthread_mutex_unlock(&nd->lock);
			return favo_fail(err, EIO, "no random bytes for a vsock address");
		}
		cid = (cid & 0x7fffffff) | 0x10000; /* away from the well-known ones */
		used = false;
		for (struct job *other = nd->jobs; other; other = other->next)
			used |= other->vm.s.cid == cid;
		used |= favo_warm_is_cid(nd, cid);
	} while (used);
	job->vm.s.cid = cid;
	pthread_mutex_unlock(&nd->lock);
	return 0;
}

static int save_vm(const struct job *job, struct favo_err *err)
{
	char path[512];

	favo_vm_dir(job->nd, job->s.job, job->index, "state.json", path, sizeof(path));
	return favo_vm_state_save(&job->vm.s, path, err);
}

static int launch(struct start *s, struct favo_err *err)
{
	struct job *job = s->job;
	const struct favo_launch l = {
		.path = job->nd->conf->vmm_path,
		.argv = s->argv,
		.fds = s->fds,
		.nfds = s->nfds,
		.log_fd = s->log_fd,
		.uid = job->s.uid,
		.gid = job->s.gid,
		.groups = &job->s.gid,
		.ngroups = 1,
		.cgroup = &job->vm.cgroup,
		.cores = job->s.cores,
	};
	int gate = -1, ret;

	ret = favo_launch_begin(&l, &job->vm.process, &gate, err);
	if (ret < 0)
		return ret;
	job->vm.s.pid = job->vm.process.pid;
	job->vm.s.start_time = job->vm.process.start_time;
	ret = save_vm(job, err);
	if (ret < 0)
		favo_close(&gate); /* ends the child */
	else
		ret = favo_launch_go(&gate, l.path, err);
	if (ret < 0) {
		favo_process_reap(&job->vm.process);
		favo_close(&job->vm.process.pidfd);
	}
	return ret;
}

static int make_cgroup(const struct job *job, struct favo_err *err)
{
	const struct favo_job_cgroup_limits limits = {
		.mem_bytes = job->s.mem_mb * MIB,
		.cores = job->s.cores,
		.extern_step = job->extern_step,
	};

	return favo_job_cgroup_create(&job->vm.cgroup, &limits, err);
}

static int start_shares(struct start *s, struct favo_failure *failure)
{
	const struct favo_launch_user user = {
		.uid = s->job->s.uid,
		.gid = s->job->s.gid,
		.groups = s->user.gids,
		.ngroups = (size_t)s->user.ngids,
	};

	return favo_shares_start(&s->shares, s->job, s->user.home, &user, failure);
}

int favo_vm_start(struct job *job, struct favo_failure *failure)
{
	autostart struct start s = {.job = job, .log_fd = -1};
	struct favo_err err = {0};
	int ret;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(s.fds); i++)
		s.fds[i] = -1;
	ret = favo_vm_shape(&s.shape, job, job->image.manifest, failure);
	if (ret < 0)
		return ret;
	job->vm.s.mem_mb = s.shape.mem_mb;
	job->vm.s.cpus = s.shape.cpus;
	ret = find_user(&s.user, job, &err);
	if (ret >= 0)
		ret = choose_cid(job, &err);
	if (ret >= 0)
		ret = open_control(&s.fds[FD_CONTROL], job, &err);
	if (ret >= 0)
		ret = make_cgroup(job, &err);
	if (ret >= 0 && start_shares(&s, failure) < 0)
		return -EINVAL;
	if (ret >= 0)
		ret = open_all(&s, &err);
	if (ret >= 0)
		ret = build_args(&s, &err);
	if (ret >= 0)
		ret = try_warm(&s, &err);
	if (ret >= 0)
		ret = launch(&s, &err);
	if (ret < 0)
		return say(failure, "ask the administrator to look at this node", "%s",
			   err.msg);
	favo_log(FAVO_INFO, "job %u: favo-vmm %d, %u CPUs, %llu MiB, image %s",
		 job->s.job, (int)job->vm.s.pid, s.shape.cpus,
		 (unsigned long long)s.shape.mem_mb, job->grant.image);
	return 0;
}
