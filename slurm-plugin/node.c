// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Node side, as root: prolog and epilog (slurmstepd spank prolog|epilog) and
 * the start of each slurmstepd. All of them tell favo-noded what happens and
 * wait only for "understood". They never fail: a failing prolog would drain
 * the node for a user's mistake; noded keeps the reason for favo-task.
 *
 * The job's environment is the user's: noded trusts nothing in it but what
 * the grant's signature covers.
 */
#include "slurm-plugin/plugin.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <slurm/slurm.h>

#define PREPARE_MS 5000
#define BOOT_MS 2000
#define DESTROY_MS 20000
#define REQUEST_MAX 24576

/* A 32-bit number; 0 for anything else, as the variable may be the user's. */
static uint32_t number_env(const char *name)
{
	const char *text = getenv(name);
	unsigned long long n = 0;
	char *end = NULL;

	if (text && *text >= '0' && *text <= '9')
		n = strtoull(text, &end, 10);
	return end && !*end && n <= UINT32_MAX ? (uint32_t)n : 0;
}

int favo_node_prolog(const struct favo_plugin *p, spank_t sp)
{
	/* spank_job_control_getenv() crashes here in Slurm 22.05. */
	const char *grant = getenv("SPANK_FAVO_GRANT");
	char request[REQUEST_MAX], answer[1024];
	struct favo_json_text j = {.buf = request, .size = sizeof(request)};
	uint32_t job = 0;
	uid_t uid = (uid_t)-1;
	gid_t gid = (gid_t)-1;
	int ret;

	if (!grant || !*grant)
		return 0;
	if (spank_get_item(sp, S_JOB_ID, &job) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_UID, &uid) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_GID, &gid) != ESPANK_SUCCESS) {
		slurm_error("favo: prolog: Slurm gives no job id, uid or gid");
		return 0;
	}
	favo_json_raw(&j, "{\"op\":\"prepare\"");
	favo_json_put_u64(&j, "job", job);
	favo_json_put_u64(&j, "restart", number_env("SLURM_JOB_RESTART_COUNT"));
	favo_json_put_u64(&j, "uid", uid);
	favo_json_put_u64(&j, "gid", gid);
	favo_json_put(&j, "nodelist", getenv("SLURM_NODELIST"));
	favo_json_put(&j, "node", getenv("SLURMD_NODENAME"));
	favo_json_put(&j, "grant", grant);
	favo_json_put(&j, "mounts", getenv("SPANK_FAVO_MOUNTS"));
	favo_json_put(&j, "workdir", getenv("SLURM_JOB_WORK_DIR"));
	if (getenv("SPANK_FAVO_SANDBOX"))
		favo_json_raw(&j, ",\"sandbox\":true");
	favo_json_raw(&j, "}\n");
	if (j.overflow) {
		slurm_error("favo: job %u: grant and node list are longer than %d bytes",
			    job, REQUEST_MAX);
		return 0;
	}
	ret = favo_noded_call(p, request, answer, sizeof(answer), PREPARE_MS);
	if (ret < 0)
		slurm_error("favo: job %u: prepare: favo-noded: %s%s%.200s", job,
			    strerror(-ret), *answer ? ": " : "", answer);
	return 0;
}

/* Leave word for noded, which looks for it at its start. */
static void mark_ended(const struct favo_plugin *p, uint32_t job)
{
	char path[sizeof(p->run_dir) + 32];
	int fd;

	snprintf(path, sizeof(path), "%s/job/%u.ended", p->run_dir, job);
	fd = open(path, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		slurm_error("favo: job %u: create %s: %m", job, path);
	else
		close(fd);
}

int favo_node_epilog(const struct favo_plugin *p, spank_t sp)
{
	const char *grant = getenv("SPANK_FAVO_GRANT");
	char request[128], answer[1024];
	uint32_t job = 0;
	int ret;

	if (spank_get_item(sp, S_JOB_ID, &job) != ESPANK_SUCCESS)
		return 0;
	if (!(grant && *grant) && !favo_job_has_vms(p, job))
		return 0;
	snprintf(request, sizeof(request), "{\"op\":\"destroy\",\"job\":%u}\n", job);
	ret = favo_noded_call(p, request, answer, sizeof(answer), DESTROY_MS);
	if (ret < 0) {
		slurm_error("favo: job %u: destroy: favo-noded: %s", job, strerror(-ret));
		mark_ended(p, job);
	}
	return 0;
}

/*
 * In every slurmstepd, because the job's cgroup exists from the first of them
 * on: the extern step with PrologFlags=Contain, else batch or a step. noded
 * takes the first call and answers the others at once.
 */
int favo_node_boot(const struct favo_plugin *p, spank_t sp, bool post_fork)
{
	char request[REQUEST_MAX], answer[1024];
	struct favo_json_text j = {.buf = request, .size = sizeof(request)};
	uint32_t job = 0, step = 0;
	uint64_t mem_mb = 0;
	uint16_t ncpus = 0;
	char *cores = NULL;
	int ret;

	/*
	 * The extern step's control groups, which stay as long as the job, are
	 * there after its fork only: the VMs are to be counted and frozen in them.
	 */
	if (spank_get_item(sp, S_JOB_ID, &job) != ESPANK_SUCCESS ||
	    spank_get_item(sp, S_JOB_STEPID, &step) != ESPANK_SUCCESS ||
	    (step == SLURM_EXTERN_CONT) != post_fork || !favo_job_has_vms(p, job))
		return 0;
	favo_json_raw(&j, "{\"op\":\"boot\"");
	favo_json_put_u64(&j, "job", job);
	if (spank_get_item(sp, S_JOB_ALLOC_MEM, &mem_mb) == ESPANK_SUCCESS)
		favo_json_put_u64(&j, "mem_mb", mem_mb);
	if (spank_get_item(sp, S_JOB_ALLOC_CORES, &cores) == ESPANK_SUCCESS)
		favo_json_put(&j, "cores", cores);
	if (spank_get_item(sp, S_JOB_NCPUS, &ncpus) == ESPANK_SUCCESS)
		favo_json_put_u64(&j, "ncpus", ncpus);
	if (post_fork)
		favo_json_raw(&j, ",\"extern\":true");
	favo_json_raw(&j, "}\n");
	ret = j.overflow ? -EMSGSIZE
			 : favo_noded_call(p, request, answer, sizeof(answer), BOOT_MS);
	if (ret < 0)
		slurm_error("favo: job %u: boot: favo-noded: %s%s%.200s", job,
			    strerror(-ret), *answer ? ": " : "", answer);
	return 0;
}
