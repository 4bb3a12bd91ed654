// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The cgroup of a job's VMs; see cgroup.h. Layouts of Slurm 22.05:
 *   v1  ROOT/CONTROLLER/slurm_NODE/uid_U/job_J/step_S   (slurm/ on builds
 *       without --enable-multiple-slurmd)
 *   v2  ROOT/system.slice/[NODE_]slurmstepd.scope/job_J/step_S
 * Slurm removes only its steps' directories while ours is there and takes
 * EBUSY above them as "in use"; what it leaves behind we remove.
 *
 * With v1 and an extern step (PrologFlags=Contain), the group is a child of
 * that step's: its figures are what jobacct_gather/cgroup reads, and it is
 * frozen with it by "scontrol suspend". A child, and not the step's own group,
 * since Slurm kills what is in that at the first SIGTERM to the job, when the
 * tasks in the guests still have KillWait seconds to end in.
 */
#include "provision/noded/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>

#include "common/fd.h"
#include "common/util.h"

#define PATH_SIZE 1024
#define LOCK_WAIT_MS 2000
#define FILE_MAX_BYTES (1u << 20)

/*
 * v1 controllers that a VM is put into. devices is left out: the VMM opens no
 * device itself, it gets descriptors.
 */
static const char *const controllers[] = {"memory", "cpuset", "cpu", "cpuacct",
					  "freezer"};

static bool exists(const char *path)
{
	return access(path, F_OK) == 0;
}

static bool is_v2(const struct favo_job_cgroup *cg)
{
	char path[PATH_SIZE];

	snprintf(path, sizeof(path), "%s/cgroup.controllers", cg->root);
	return exists(path);
}

/* Slurm's top directory of this node. */
static void base_path(const struct favo_job_cgroup *cg, const char *controller, char *buf,
		      size_t size)
{
	if (cg->base[0]) {
		snprintf(buf, size, "%s/%s%s%s", cg->root, controller ? controller : "",
			 controller ? "/" : "", cg->base);
		return;
	}
	if (controller) {
		snprintf(buf, size, "%s/%s/slurm_%s", cg->root, controller, cg->node);
		if (exists(buf))
			return;
		snprintf(buf, size, "%s/%s/slurm", cg->root, controller);
		if (!exists(buf))
			snprintf(buf, size, "%s/%s/slurm_%s", cg->root, controller,
				 cg->node);
		return;
	}
	snprintf(buf, size, "%s/system.slice/%s_slurmstepd.scope", cg->root, cg->node);
	if (exists(buf))
		return;
	snprintf(buf, size, "%s/system.slice/slurmstepd.scope", cg->root);
	if (!exists(buf))
		snprintf(buf, size, "%s/favo.slice", cg->root);
}

char *favo_job_cgroup_path(const struct favo_job_cgroup *cg, const char *controller,
			   int depth, char *buf, size_t size)
{
	char base[PATH_SIZE / 2], user[32] = "";

	base_path(cg, controller, base, sizeof(base));
	if (controller)
		snprintf(user, sizeof(user), "/uid_%u", (unsigned int)cg->uid);
	if (depth >= 2)
		snprintf(buf, size, "%s%s", base, user);
	else
		snprintf(buf, size, "%s%s/job_%u%s", base, user, cg->job,
			 depth == 0 ? "/favo" : "");
	return buf;
}

/*
 * Where the extern step's processes are counted below dir, its directory: in
 * task_N, made by the accounting plugin. False: there is none.
 */
static bool find_task_dir(const char *dir, char *buf, size_t size)
{
	DIR *d = opendir(dir);
	bool found = false;
	struct dirent *e;

	while (d && !found && (e = readdir(d))) {
		found = !strncmp(e->d_name, "task_", 5);
		if (found)
			found = snprintf(buf, size, "%s/%s", dir, e->d_name) < (int)size;
	}
	if (d)
		closedir(d);
	return found;
}

/*
 * The directory of the extern step that our group is to be made in, for
 * controllers by which Slurm counts or freezes.
 */
static bool step_path(const struct favo_job_cgroup *cg, const char *controller, char *buf,
		      size_t size)
{
	char job[PATH_SIZE], dir[PATH_SIZE + 16];

	favo_job_cgroup_path(cg, controller, 1, job, sizeof(job));
	snprintf(dir, sizeof(dir), "%s/step_extern", job);
	if (strcmp(controller, "freezer") != 0)
		return find_task_dir(dir, buf, size);
	return exists(dir) && snprintf(buf, size, "%s", dir) < (int)size;
}

/* The group of a v1 controller as it is: the extern step's, else the job's. */
static void group_path(const struct favo_job_cgroup *cg, const char *controller,
		       char *buf, size_t size)
{
	char step[PATH_SIZE];

	if (step_path(cg, controller, step, sizeof(step)) &&
	    snprintf(buf, size, "%s/favo", step) < (int)size && exists(buf))
		return;
	favo_job_cgroup_path(cg, controller, 0, buf, size);
}

/* The directory whose lock Slurm takes while it makes or removes groups. */
static int lock_root(const struct favo_job_cgroup *cg, const char *controller)
{
	const struct timespec pause = {.tv_nsec = 20000000};
	int64_t end = favo_now_ms() + LOCK_WAIT_MS;
	char path[PATH_SIZE];
	int fd;

	snprintf(path, sizeof(path), "%s%s%s", cg->root, controller ? "/" : "",
		 controller ? controller : "");
	fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	/*
	 * Any user can hold this lock: going on without it after a while risks
	 * a rare clash with Slurm, waiting for ever would hand the user a brake.
	 */
	while (flock(fd, LOCK_EX | LOCK_NB) < 0 && favo_now_ms() < end)
		nanosleep(&pause, NULL);
	return fd;
}

static int put(const char *dir, const char *file, const char *text)
{
	char path[PATH_SIZE];
	favo_autoclose int fd = -1;
	size_t len = strlen(text);

	if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= (int)sizeof(path))
		return -ENAMETOOLONG;
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, text, len) == (ssize_t)len ? 0 : -errno;
}

/* Content without its last newline, or NULL. */
static char *get(const char *dir, const char *file)
{
	char path[PATH_SIZE];
	char *text = NULL;
	size_t len = 0;

	if (snprintf(path, sizeof(path), "%s/%s", dir, file) >= (int)sizeof(path) ||
	    favo_file_read(path, FILE_MAX_BYTES, &text, &len, NULL) < 0)
		return NULL;
	if (len && text[len - 1] == '\n')
		text[len - 1] = '\0';
	return text;
}

/* A new v1 cpuset takes no process until it has CPUs and memory nodes. */
static void inherit_cpuset(const char *dir, const char *parent)
{
	static const char *const files[] = {"cpuset.cpus", "cpuset.mems"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(files); i++) {
		favo_autofree char *own = get(dir, files[i]);
		favo_autofree char *above = get(parent, files[i]);

		if (own && !*own && above)
			(void)put(dir, files[i], above);
	}
}

static int make_dir(const char *path, struct favo_err *err)
{
	if (mkdir(path, 0755) < 0 && errno != EEXIST)
		return favo_fail(err, errno, "mkdir %s: %m", path);
	return 0;
}

/* The chain base, user, job, favo of one v1 controller. */
static int create_v1_dirs(const struct favo_job_cgroup *cg, const char *controller,
			  struct favo_err *err)
{
	char parent[PATH_SIZE], path[PATH_SIZE];
	int ret = 0;

	snprintf(parent, sizeof(parent), "%s/%s", cg->root, controller);
	for (int depth = 3; ret >= 0 && depth >= 0; depth--) {
		if (depth == 3)
			base_path(cg, controller, path, sizeof(path));
		else
			favo_job_cgroup_path(cg, controller, depth, path, sizeof(path));
		ret = make_dir(path, err);
		if (!strcmp(controller, "cpuset"))
			inherit_cpuset(path, parent);
		memcpy(parent, path, sizeof(parent));
	}
	return ret;
}

static void limit_memory_v1(const char *dir, uint64_t bytes)
{
	char text[32];

	if (!bytes)
		return;
	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	(void)put(dir, "memory.limit_in_bytes", text);
	/* Absent without swap accounting. */
	(void)put(dir, "memory.memsw.limit_in_bytes", text);
}

/* The group within the extern step; false: that has none for this controller. */
static bool create_in_step(const struct favo_job_cgroup *cg, const char *controller,
			   char *path, size_t size)
{
	favo_autoclose int lock = -1;
	char step[PATH_SIZE];

	lock = lock_root(cg, controller);
	return step_path(cg, controller, step, sizeof(step)) &&
	       snprintf(path, size, "%s/favo", step) < (int)size &&
	       make_dir(path, NULL) >= 0;
}

static int create_v1(const struct favo_job_cgroup *cg,
		     const struct favo_job_cgroup_limits *limits, struct favo_err *err)
{
	char path[PATH_SIZE];
	int made = 0;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(controllers); i++) {
		favo_autoclose int lock = -1;
		int ret;

		snprintf(path, sizeof(path), "%s/%s", cg->root, controllers[i]);
		if (!exists(path))
			continue;
		/*
		 * A cpuset of our own making would stand in Slurm's way: a parent
		 * cannot be narrowed below its child. So ours comes only inside
		 * Slurm's; else the launcher binds the VMM to the job's CPUs.
		 */
		favo_job_cgroup_path(cg, controllers[i], 1, path, sizeof(path));
		if (!strcmp(controllers[i], "cpuset") && !exists(path))
			continue;
		if (!limits->extern_step ||
		    !create_in_step(cg, controllers[i], path, sizeof(path))) {
			lock = lock_root(cg, controllers[i]);
			ret = create_v1_dirs(cg, controllers[i], err);
			if (ret < 0)
				return ret;
			favo_job_cgroup_path(cg, controllers[i], 0, path, sizeof(path));
		}
		if (!strcmp(controllers[i], "memory"))
			limit_memory_v1(path, limits->mem_bytes);
		made++;
	}
	return made ? 0
		    : favo_fail(err, ENOTSUP, "no cgroup controller below %s", cg->root);
}

static int create_v2(const struct favo_job_cgroup *cg,
		     const struct favo_job_cgroup_limits *limits, struct favo_err *err)
{
	static const char *const enable[] = {"+memory", "+cpuset", "+cpu"};
	favo_autoclose int lock = -1;
	char path[PATH_SIZE], text[32];

	lock = lock_root(cg, NULL);
	for (int depth = 2; depth >= 0; depth--) {
		int ret;

		favo_job_cgroup_path(cg, NULL, depth, path, sizeof(path));
		ret = make_dir(path, err);
		if (ret < 0)
			return ret;
		/* One by one: a controller that is missing must not hide the rest. */
		for (size_t i = 0; depth && i < FAVO_ARRAY_SIZE(enable); i++)
			(void)put(path, "cgroup.subtree_control", enable[i]);
	}
	if (limits->mem_bytes) {
		snprintf(text, sizeof(text), "%llu",
			 (unsigned long long)limits->mem_bytes);
		(void)put(path, "memory.max", text);
		(void)put(path, "memory.swap.max", "0");
	}
	/* Slurm's own narrower cpuset above ours wins, as v2 intersects them. */
	if (limits->cores && *limits->cores)
		(void)put(path, "cpuset.cpus", limits->cores);
	return 0;
}

int favo_job_cgroup_create(const struct favo_job_cgroup *cg,
			   const struct favo_job_cgroup_limits *limits,
			   struct favo_err *err)
{
	return is_v2(cg) ? create_v2(cg, limits, err) : create_v1(cg, limits, err);
}

/*
 * Call fn for each directory of the group that exists; stops at a negative
 * return.
 */
static int each_dir(const struct favo_job_cgroup *cg,
		    int (*fn)(const char *dir, void *arg), void *arg)
{
	char path[PATH_SIZE];
	int ret = 0;

	if (is_v2(cg)) {
		favo_job_cgroup_path(cg, NULL, 0, path, sizeof(path));
		return exists(path) ? fn(path, arg) : 0;
	}
	for (size_t i = 0; ret >= 0 && i < FAVO_ARRAY_SIZE(controllers); i++) {
		group_path(cg, controllers[i], path, sizeof(path));
		if (exists(path))
			ret = fn(path, arg);
	}
	return ret;
}

static int add_pid(const char *dir, void *arg)
{
	return put(dir, "cgroup.procs", arg);
}

int favo_job_cgroup_add(const struct favo_job_cgroup *cg, pid_t pid, struct favo_err *err)
{
	char text[16];
	int ret;

	snprintf(text, sizeof(text), "%d", (int)pid);
	ret = each_dir(cg, add_pid, text);
	if (ret < 0)
		return favo_fail(err, -ret,
				 "put process %d into the cgroup of job %u: %m", (int)pid,
				 cg->job);
	return 0;
}

uint64_t favo_job_cgroup_oom_kills(const struct favo_job_cgroup *cg)
{
	bool v2 = is_v2(cg);
	favo_autofree char *text = NULL;
	char path[PATH_SIZE];
	const char *line;

	if (v2)
		favo_job_cgroup_path(cg, NULL, 0, path, sizeof(path));
	else
		group_path(cg, "memory", path, sizeof(path));
	text = get(path, v2 ? "memory.events" : "memory.oom_control");
	line = text ? strstr(text, "oom_kill ") : NULL;
	return line ? strtoull(line + strlen("oom_kill "), NULL, 10) : 0;
}

static int kill_dir(const char *dir, void *arg)
{
	favo_autofree char *text = get(dir, "cgroup.procs");
	bool *empty = arg;

	for (char *p = text; p && *p;) {
		char *end;
		long pid = strtol(p, &end, 10);

		if (end == p)
			break;
		*empty = false;
		if (pid > 1)
			kill((pid_t)pid, SIGKILL);
		p = end + strspn(end, "\n");
	}
	return 0;
}

void favo_job_cgroup_thaw(const struct favo_job_cgroup *cg)
{
	char path[PATH_SIZE];

	if (!is_v2(cg) && step_path(cg, "freezer", path, sizeof(path)))
		(void)put(path, "freezer.state", "THAWED");
}

bool favo_job_cgroup_is_frozen(const struct favo_job_cgroup *cg)
{
	favo_autofree char *text = NULL;
	char path[PATH_SIZE];

	if (is_v2(cg))
		return false;
	group_path(cg, "freezer", path, sizeof(path));
	text = get(path, "freezer.state");
	return text && strcmp(text, "THAWED") != 0;
}

bool favo_job_cgroup_kill(const struct favo_job_cgroup *cg)
{
	bool empty = true;

	/* Of a suspended job: what is frozen does not die. */
	favo_job_cgroup_thaw(cg);
	each_dir(cg, kill_dir, &empty);
	return empty;
}

/* Ours in the extern step, and of that what Slurm could not remove for it. */
static int remove_from_step(const struct favo_job_cgroup *cg, const char *controller,
			    struct favo_err *err)
{
	char path[PATH_SIZE], group[PATH_SIZE + 8];

	if (!step_path(cg, controller, path, sizeof(path)))
		return 0;
	snprintf(group, sizeof(group), "%s/favo", path);
	if (rmdir(group) < 0 && errno != ENOENT)
		return favo_fail(err, errno, "rmdir %s: %m", group);
	/* Not while slurmstepd or its child is there. */
	rmdir(path);
	if (strcmp(controller, "freezer") != 0) {
		*strrchr(path, '/') = '\0';
		rmdir(path);
	}
	return 0;
}

static int remove_one(const struct favo_job_cgroup *cg, const char *controller,
		      struct favo_err *err)
{
	favo_autoclose int lock = -1;
	char path[PATH_SIZE];
	int ret;

	favo_job_cgroup_path(cg, controller, 1, path, sizeof(path));
	if (!exists(path))
		return 0;
	lock = lock_root(cg, controller);
	ret = controller ? remove_from_step(cg, controller, err) : 0;
	if (ret < 0)
		return ret;
	favo_job_cgroup_path(cg, controller, 0, path, sizeof(path));
	if (rmdir(path) < 0 && errno != ENOENT)
		return favo_fail(err, errno, "rmdir %s: %m", path);
	/* Those above go if nobody else uses them. */
	for (int depth = 1; depth <= (controller ? 2 : 1); depth++)
		rmdir(favo_job_cgroup_path(cg, controller, depth, path, sizeof(path)));
	return 0;
}

int favo_job_cgroup_remove(const struct favo_job_cgroup *cg, struct favo_err *err)
{
	int ret = 0;

	if (is_v2(cg))
		return remove_one(cg, NULL, err);
	for (size_t i = 0; ret >= 0 && i < FAVO_ARRAY_SIZE(controllers); i++)
		ret = remove_one(cg, controllers[i], err);
	return ret;
}
