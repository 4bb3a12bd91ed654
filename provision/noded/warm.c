// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Warm pool; see warm.h. Snapshots are in STATE-DIR/warm/KEY/{state,memory};
 * KEY is a digest of everything that a snapshot depends on, so that nothing has
 * to be compared later: a new kernel, image or program simply has another key.
 * A snapshot is made in KEY.new and renamed when it is on disk.
 */
#include "provision/noded/warm.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <net/if.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/utsname.h>
#include <sys/wait.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/log.h"
#include "common/sha256.h"
#include "common/str.h"
#include "common/util.h"
#include "images/cpio.h"
#include "provision/noded/noded.h"

#define STARTS_BEFORE 2 /* cold starts of a combination until it is worth it */
#define SAVE_MS 120000
#define FDS_MAX 32
#define ARGS_MAX 64

struct warm {
	struct warm *next;
	char key[FAVO_WARM_KEY];
	unsigned starts;
	bool making, broken;
};

struct warm_vm {
	struct warm_vm *next;
	uint32_t cid;
	bool asked;
};

struct warm_source {
	char key[FAVO_WARM_KEY];
	char *argv[ARGS_MAX];
	int fds[FDS_MAX];
	struct favo_warm_plan plan;
};

static char *warm_path(const struct noded *nd, const char *key, const char *file,
		       char *buf, size_t size)
{
	snprintf(buf, size, "%s/warm%s%s%s%s", nd->conf->state_dir, *key ? "/" : "", key,
		 *file ? "/" : "", file);
	return buf;
}

/* ---- key ----------------------------------------------------------------- */

static int add_text(struct favo_sha256_ctx *ctx, const char *text, struct favo_err *err)
{
	return favo_sha256_update(ctx, text, strlen(text) + 1, err);
}

/* A program is what its file is; reading it at each start would take longer. */
static int add_program(struct favo_sha256_ctx *ctx, const char *path,
		       struct favo_err *err)
{
	struct stat st;
	char text[160];

	if (stat(path, &st) < 0)
		return favo_fail(err, errno, "%s: %m", path);
	snprintf(text, sizeof(text), "%llu %llu %lld %lld.%09ld",
		 (unsigned long long)st.st_dev, (unsigned long long)st.st_ino,
		 (long long)st.st_size, (long long)st.st_mtim.tv_sec, st.st_mtim.tv_nsec);
	return add_text(ctx, text, err);
}

/* Model, features and microcode of the first CPU, and the node's kernel. */
static int add_host(struct favo_sha256_ctx *ctx, struct favo_err *err)
{
	static const char *const wanted[] = {"model name", "flags", "microcode",
					     "stepping"};
	favo_autofree char *text = NULL;
	struct utsname u;
	char *save = NULL;
	int ret = favo_file_read("/proc/cpuinfo", 16 << 20, &text, NULL, err);

	if (ret < 0)
		return ret;
	for (char *line = strtok_r(text, "\n", &save); ret == 0 && line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (strncmp(line, "processor", 9) == 0 && strstr(line, ": 1"))
			break;
		for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(wanted); i++)
			if (strncmp(line, wanted[i], strlen(wanted[i])) == 0)
				ret = add_text(ctx, line, err);
	}
	if (ret == 0 && uname(&u) < 0)
		ret = favo_fail(err, errno, "uname: %m");
	ret = ret ? ret : add_text(ctx, u.release, err);
	return ret ? ret : add_text(ctx, u.version, err);
}

/* What belongs to the job and not to the kind of VM is left out. */
static int add_args(struct favo_sha256_ctx *ctx, char *const *argv, struct favo_err *err)
{
	int ret = 0;

	for (size_t i = 1; ret == 0 && argv[i]; i++) {
		const char *mac;

		if (!strcmp(argv[i], "--name") || !strcmp(argv[i], "--vsock")) {
			ret = add_text(ctx, argv[i++], err);
			if (!argv[i])
				break;
			continue;
		}
		mac = strstr(argv[i], ",mac=");
		if (mac)
			ret = favo_sha256_update(ctx, argv[i], (size_t)(mac - argv[i]),
						 err);
		else
			ret = add_text(ctx, argv[i], err);
	}
	return ret;
}

static int make_key(const struct noded *nd, const struct favo_warm_plan *plan,
		    char key[FAVO_WARM_KEY], struct favo_err *err)
{
	favo_autosha256 struct favo_sha256_ctx *ctx = NULL;
	uint8_t sum[FAVO_SHA256_SIZE];
	int ret = favo_sha256_new(&ctx, err);

	ret = ret ? ret : add_text(ctx, "favo warm 1", err);
	ret = ret ? ret : add_text(ctx, plan->image, err);
	ret = ret ? ret : add_args(ctx, plan->argv, err);
	ret = ret ? ret : add_program(ctx, nd->conf->vmm_path, err);
	ret = ret ? ret : add_program(ctx, nd->conf->init_path, err);
	ret = ret ? ret : add_host(ctx, err);
	ret = ret ? ret : favo_sha256_final(ctx, sum, err);
	if (ret == 0)
		favo_hex_encode(key, sum, sizeof(sum));
	return ret;
}

/* ---- what there is -------------------------------------------------------- */

bool favo_warm_suits(const struct noded *nd, const struct favo_warm_plan *plan)
{
	if (!nd->conf->warm_pool_bytes || plan->nfds > FDS_MAX)
		return false;
	for (size_t i = 0; plan->argv[i]; i++) {
		if (i + 4 > ARGS_MAX)
			return false;
		/* Their state is in other processes, or differs from job to job. */
		if (!strcmp(plan->argv[i], "--fs") ||
		    !strcmp(plan->argv[i], "--shared") ||
		    strstr(plan->argv[i], "overlay"))
			return false;
	}
	return true;
}

/* With the lock held; NULL without memory. */
static struct warm *find(struct noded *nd, const char *key)
{
	struct warm *w;

	for (w = nd->warms; w && strcmp(w->key, key) != 0; w = w->next)
		;
	if (w)
		return w;
	w = calloc(1, sizeof(*w));
	if (!w)
		return NULL;
	snprintf(w->key, sizeof(w->key), "%s", key);
	w->next = nd->warms;
	nd->warms = w;
	return w;
}

static bool open_snapshot(const struct noded *nd, const char *key, int *state_fd,
			  int *memory_fd)
{
	char path[512];

	*state_fd = open(warm_path(nd, key, "state", path, sizeof(path)),
			 O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	*memory_fd = open(warm_path(nd, key, "memory", path, sizeof(path)),
			  O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (*state_fd >= 0 && *memory_fd >= 0) {
		/* The oldest use goes first when the pool is full. */
		futimens(*state_fd, NULL);
		return true;
	}
	favo_close(state_fd);
	favo_close(memory_fd);
	return false;
}

void favo_warm_source_free(struct warm_source *source)
{
	if (!source)
		return;
	for (size_t i = 0; i < ARGS_MAX; i++)
		free(source->argv[i]);
	for (size_t i = 0; i < FDS_MAX; i++)
		favo_close(&source->fds[i]);
	free(source);
}

static struct warm_source *source_new(const struct favo_warm_plan *plan, const char *key)
{
	struct warm_source *s = calloc(1, sizeof(*s));
	bool good = true;

	if (!s)
		return NULL;
	snprintf(s->key, sizeof(s->key), "%s", key);
	s->plan = *plan;
	for (size_t i = 0; i < FDS_MAX; i++)
		s->fds[i] = -1;
	for (size_t i = 0; plan->argv[i]; i++) {
		s->argv[i] = strdup(plan->argv[i]);
		good &= s->argv[i] != NULL;
	}
	for (size_t i = 0; i < plan->nfds; i++) {
		bool own = i == plan->config || i == plan->vsock || i == plan->console ||
			   i == plan->control || i == plan->events || i == plan->tap ||
			   i == plan->vhost;

		if (own)
			continue;
		s->fds[i] = fcntl(plan->fds[i], F_DUPFD_CLOEXEC, 3);
		good &= s->fds[i] >= 0;
	}
	s->plan.argv = s->argv;
	s->plan.fds = s->fds;
	s->plan.image = NULL;
	if (good)
		return s;
	favo_warm_source_free(s);
	return NULL;
}

int favo_warm_begin(struct noded *nd, const struct favo_warm_plan *plan,
		    char key[FAVO_WARM_KEY], int *state_fd, int *memory_fd,
		    struct warm_source **source)
{
	struct favo_err err = {0};
	struct warm *w;
	bool usable, wanted;

	if (make_key(nd, plan, key, &err) < 0) {
		favo_log(FAVO_WARN, "warm pool: %s", err.msg);
		return 0;
	}
	pthread_mutex_lock(&nd->lock);
	w = find(nd, key);
	if (w)
		w->starts++;
	usable = w && !w->broken && !w->making;
	wanted = usable && w->starts >= STARTS_BEFORE;
	pthread_mutex_unlock(&nd->lock);
	if (!usable)
		return 0;
	if (open_snapshot(nd, key, state_fd, memory_fd))
		return 1;
	*source = wanted ? source_new(plan, key) : NULL;
	return 0;
}

void favo_warm_drop(struct noded *nd, const char *key)
{
	char path[512];
	struct warm *w;

	pthread_mutex_lock(&nd->lock);
	w = find(nd, key);
	if (w)
		w->broken = true;
	pthread_mutex_unlock(&nd->lock);
	(void)!favo_remove_tree(warm_path(nd, key, "", path, sizeof(path)), NULL);
}

void favo_warm_recover(struct noded *nd)
{
	char path[512];
	struct dirent *d;
	DIR *dir = opendir(warm_path(nd, "", "", path, sizeof(path)));

	while (dir && (d = readdir(dir))) {
		if (!strstr(d->d_name, ".new"))
			continue;
		(void)!favo_remove_tree(warm_path(nd, d->d_name, "", path, sizeof(path)),
					NULL);
	}
	if (dir)
		closedir(dir);
}

/* ---- guests --------------------------------------------------------------- */

bool favo_warm_is_cid(const struct noded *nd, uint32_t cid)
{
	for (const struct warm_vm *vm = nd->warm_vms; vm; vm = vm->next)
		if (vm->cid == cid)
			return true;
	return false;
}

void favo_warm_asked(struct noded *nd, uint32_t cid)
{
	for (struct warm_vm *vm = nd->warm_vms; vm; vm = vm->next)
		if (vm->cid == cid)
			vm->asked = true;
	favo_noded_changed(nd);
}

/* ---- making one ----------------------------------------------------------- */

struct maker {
	struct noded *nd;
	struct warm_source *source;
};

/* A tap that leads nowhere. */
static int open_tap(struct favo_err *err)
{
	struct ifreq ifr = {.ifr_name = "fvwarm%d",
			    .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR};
	favo_autoclose int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);

	if (fd < 0 || ioctl(fd, TUNSETIFF, &ifr) < 0)
		return favo_fail(err, errno, "tap: %m");
	return favo_steal_fd(&fd);
}

static int warm_config(struct favo_err *err)
{
	favo_autocpio struct favo_cpio *cpio = NULL;
	favo_autofree char *text = NULL;
	char secret[2 * FAVO_SHA256_SIZE + 1];
	uint8_t raw[FAVO_SHA256_SIZE];
	int ret;

	if (getrandom(raw, sizeof(raw), 0) != (ssize_t)sizeof(raw))
		return favo_fail(err, EIO, "no random bytes");
	favo_hex_encode(secret, raw, sizeof(raw));
	text = favo_asprintf(
		"{\"format\":1,\"root\":{\"device\":\"/dev/vda\",\"fstype\":"
		"\"erofs\"},\"secret\":\"%s\",\"time_ns\":%lld,\"warm\":true}",
		secret, (long long)favo_realtime_ns());
	if (!text)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_cpio_new(&cpio, err);
	if (ret >= 0)
		ret = favo_cpio_file(cpio, "favo/config.json", 0600, text, strlen(text),
				     err);
	return ret < 0 ? ret : favo_cpio_finish_memfd(cpio, "favo-warm", err);
}

static int open_own(int *fd, const char *path, struct favo_err *err)
{
	*fd = open(path, O_RDWR | O_CLOEXEC);
	return *fd < 0 ? favo_fail(err, errno, "open %s: %m", path) : 0;
}

static int fill_descriptors(struct warm_source *s, const char *control,
			    struct favo_err *err)
{
	const struct favo_warm_plan *p = &s->plan;
	int ret = s->fds[p->config] = warm_config(err);

	if (ret < 0)
		return ret;
	ret = open_own(&s->fds[p->vsock], "/dev/vhost-vsock", err);
	ret = ret ? ret : open_own(&s->fds[p->console], "/dev/null", err);
	ret = ret ? ret : open_own(&s->fds[p->events], "/dev/null", err);
	ret = ret ? ret : favo_unix_listen(&s->fds[p->control], control, 0600, err);
	if (ret == 0 && p->tap < p->nfds)
		ret = FAVO_MIN(s->fds[p->tap] = open_tap(err), 0);
	if (ret == 0 && p->vhost < p->nfds)
		ret = open_own(&s->fds[p->vhost], "/dev/vhost-net", err);
	return ret;
}

/* The job's arguments with a name and a context id of our own. */
static int fill_args(struct warm_source *s, uint32_t cid, struct favo_err *err)
{
	for (size_t i = 1; s->argv[i] && s->argv[i + 1]; i++) {
		char **value = &s->argv[i + 1];
		char *text = NULL, *comma;

		if (!strcmp(s->argv[i], "--name")) {
			text = strdup("warm");
		} else if (!strcmp(s->argv[i], "--vsock")) {
			comma = strchr(*value, ',');
			text = favo_asprintf("cid=%u%s", cid, comma ? comma : "");
		} else {
			continue;
		}
		if (!text)
			return favo_fail(err, ENOMEM, "out of memory");
		free(*value);
		*value = text;
	}
	return 0;
}

static uint32_t choose_cid(const struct noded *nd)
{
	uint32_t cid = 0;
	bool used;

	do {
		if (getrandom(&cid, sizeof(cid), 0) != (ssize_t)sizeof(cid))
			return 0;
		cid = (cid & 0x7fffffff) | 0x10000;
		used = favo_warm_is_cid(nd, cid);
		for (const struct job *job = nd->jobs; job; job = job->next)
			used |= job->vm.s.cid == cid;
	} while (used);
	return cid;
}

static bool wait_asked(struct noded *nd, struct warm_vm *vm,
		       const struct favo_process *process)
{
	int64_t end = favo_now_ms() + (int64_t)nd->conf->boot_timeout_ms;
	bool asked;

	pthread_mutex_lock(&nd->lock);
	while (!vm->asked && favo_now_ms() < end && !favo_process_wait(process, 0))
		favo_noded_wait_until(nd, FAVO_MIN(end, favo_now_ms() + 1000));
	asked = vm->asked;
	pthread_mutex_unlock(&nd->lock);
	return asked;
}

static int save(const char *control, int state_fd, int memory_fd, struct favo_err *err)
{
	static const char line[] = "{\"op\":\"snapshot\",\"then\":\"stop\"}\n";
	const int fds[] = {state_fd, memory_fd};
	favo_autoclose int sock = -1;
	favo_autojson json_t *obj = NULL;
	char reply[1024];
	size_t len = 0;
	const char *why;
	int ret = favo_unix_connect(&sock, control, 2000, err);

	ret = ret ? ret : favo_send_fds(sock, line, sizeof(line) - 1, fds, 2, err);
	while (ret == 0 && len < sizeof(reply) && (!len || reply[len - 1] != '\n'))
		ret = favo_read_all(sock, reply + len++, 1, SAVE_MS, err);
	ret = ret ? ret : favo_json_parse(&obj, reply, len, err);
	if (ret < 0)
		return ret;
	if (json_is_true(json_object_get(obj, "ok")))
		return 0;
	why = json_string_value(json_object_get(obj, "error"));
	return favo_fail(err, EIO, "favo-vmm: %s", why ? why : "no reason given");
}

/* Run the VM until it asks, and save it into two files. */
static int run_and_save(struct noded *nd, struct warm_source *s, struct warm_vm *vm,
			const char *control, int state_fd, int memory_fd, int log_fd,
			struct favo_err *err)
{
	const struct favo_launch l = {
		.path = nd->conf->vmm_path,
		.argv = s->argv,
		.fds = s->fds,
		.nfds = s->plan.nfds,
		.log_fd = log_fd,
		.uid = (uid_t)nd->conf->warm_uid,
		.gid = (gid_t)nd->conf->warm_uid,
		.groups = NULL,
		.ngroups = 0,
		.cores = "",
		.die_with_us = true,
	};
	struct favo_process process = {.pidfd = -1};
	int gate = -1, ret = favo_launch_begin(&l, &process, &gate, err);

	if (ret < 0)
		return ret;
	ret = favo_launch_go(&gate, l.path, err);
	if (ret == 0 && !wait_asked(nd, vm, &process))
		ret = favo_fail(err, ETIMEDOUT, "its guest did not come up");
	ret = ret ? ret : save(control, state_fd, memory_fd, err);
	if (ret < 0 || !favo_process_wait(&process, 5000))
		kill(process.pid, SIGKILL);
	favo_process_reap(&process);
	favo_close(&process.pidfd);
	return ret;
}

/* Remove the least recently used snapshots until bytes more have room. */
static void make_room(struct noded *nd, const char *keep)
{
	for (;;) {
		char path[512], oldest[256] = "";
		struct timespec first = {0};
		uint64_t total = 0;
		struct dirent *d;
		DIR *dir = opendir(warm_path(nd, "", "", path, sizeof(path)));

		while (dir && (d = readdir(dir))) {
			struct stat state, memory;

			if (strlen(d->d_name) != FAVO_WARM_KEY - 1 ||
			    stat(warm_path(nd, d->d_name, "state", path, sizeof(path)),
				 &state) < 0 ||
			    stat(warm_path(nd, d->d_name, "memory", path, sizeof(path)),
				 &memory) < 0)
				continue;
			total += (uint64_t)(state.st_blocks + memory.st_blocks) * 512;
			if (strcmp(d->d_name, keep) == 0 ||
			    (oldest[0] && state.st_mtim.tv_sec >= first.tv_sec))
				continue;
			snprintf(oldest, sizeof(oldest), "%s", d->d_name);
			first = state.st_mtim;
		}
		if (dir)
			closedir(dir);
		if (total <= nd->conf->warm_pool_bytes || !oldest[0])
			return;
		favo_log(FAVO_INFO, "warm pool: full, snapshot %.12s goes", oldest);
		if (favo_remove_tree(warm_path(nd, oldest, "", path, sizeof(path)),
				     NULL) < 0)
			return;
	}
}

static int open_file(int *fd, const struct noded *nd, const char *dir, const char *name,
		     struct favo_err *err)
{
	char path[512];

	*fd = open(warm_path(nd, dir, name, path, sizeof(path)),
		   O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	return *fd < 0 ? favo_fail(err, errno, "create %s: %m", path) : 0;
}

static int make(struct noded *nd, struct warm_source *s, struct warm_vm *vm,
		const char *dir, struct favo_err *err)
{
	favo_autoclose int state_fd = -1, memory_fd = -1, log_fd = -1;
	char path[512], control[512], final[512];
	int ret = favo_mkdirs(warm_path(nd, dir, "", path, sizeof(path)), 0700, err);

	warm_path(nd, dir, "control", control, sizeof(control));
	ret = ret ? ret : open_file(&state_fd, nd, dir, "state", err);
	ret = ret ? ret : open_file(&memory_fd, nd, dir, "memory", err);
	ret = ret ? ret : open_file(&log_fd, nd, dir, "log", err);
	ret = ret ? ret : fill_descriptors(s, control, err);
	ret = ret ? ret : fill_args(s, vm->cid, err);
	ret = ret ? ret
		  : run_and_save(nd, s, vm, control, state_fd, memory_fd, log_fd, err);
	if (ret < 0)
		return ret;
	unlink(control);
	unlink(warm_path(nd, dir, "log", path, sizeof(path)));
	if (fdatasync(memory_fd) < 0 || fdatasync(state_fd) < 0)
		return favo_fail(err, errno, "write to disk: %m");
	if (rename(warm_path(nd, dir, "", path, sizeof(path)),
		   warm_path(nd, s->key, "", final, sizeof(final))) < 0)
		return favo_fail(err, errno, "rename %s: %m", path);
	make_room(nd, s->key);
	return 0;
}

static void *maker_thread(void *arg)
{
	struct maker *m = arg;
	struct noded *nd = m->nd;
	struct warm_source *s = m->source;
	struct warm_vm vm = {0}, **p;
	struct favo_err err = {0};
	char dir[FAVO_WARM_KEY + 8], path[512];
	int64_t begin = favo_now_ms();
	struct warm *w;
	int ret;

	snprintf(dir, sizeof(dir), "%s.new", s->key);
	pthread_mutex_lock(&nd->lock);
	vm.cid = choose_cid(nd);
	vm.next = nd->warm_vms;
	nd->warm_vms = &vm;
	pthread_mutex_unlock(&nd->lock);
	ret = make(nd, s, &vm, dir, &err);
	if (ret < 0) {
		favo_log(FAVO_WARN, "warm pool: snapshot %.12s: %s", s->key, err.msg);
		(void)!favo_remove_tree(warm_path(nd, dir, "", path, sizeof(path)), NULL);
	} else {
		favo_log(FAVO_INFO, "warm pool: snapshot %.12s made in %lld ms", s->key,
			 (long long)(favo_now_ms() - begin));
	}
	pthread_mutex_lock(&nd->lock);
	for (p = &nd->warm_vms; *p != &vm; p = &(*p)->next)
		;
	*p = vm.next;
	w = find(nd, s->key);
	if (w) {
		w->making = false;
		w->broken = ret < 0;
	}
	pthread_mutex_unlock(&nd->lock);
	favo_warm_source_free(s);
	free(m);
	return NULL;
}

void favo_warm_make(struct noded *nd, struct warm_source *source)
{
	struct maker *m = calloc(1, sizeof(*m));
	struct warm *w;
	bool mine;

	pthread_mutex_lock(&nd->lock);
	w = find(nd, source->key);
	mine = m && w && !w->making && !w->broken;
	if (mine)
		w->making = true;
	pthread_mutex_unlock(&nd->lock);
	if (mine) {
		*m = (struct maker){.nd = nd, .source = source};
		if (favo_noded_thread(maker_thread, m, NULL) == 0)
			return;
		pthread_mutex_lock(&nd->lock);
		w->making = false;
		pthread_mutex_unlock(&nd->lock);
	}
	free(m);
	favo_warm_source_free(source);
}
