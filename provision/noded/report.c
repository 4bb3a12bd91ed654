// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * What this node tells favod: versions, VMs and their time lines, whenever
 * something changed and every now and then. Best effort: favod may be away
 * for as long as it likes, nothing here waits for it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <time.h>
#include <unistd.h>

#include "config.h"
#include "common/fd.h"
#include "common/http.h"
#include "common/json.h"
#include "common/log.h"
#include "common/util.h"
#include "provision/noded/noded.h"

#define TIMEOUT_MS 5000
#define BOOTED_MAX 65536
#define HEARTBEAT_MS 30000
#define GATHER_MS 200 /* changes come in bursts */
#define BACKOFF_FIRST_MS 2000
#define BACKOFF_LAST_MS 60000

static const char *state_name(const struct job *job, bool ended)
{
	if (ended)
		return "ended";
	if (favo_job_failed(job))
		return "failed";
	if (job->vm.ready)
		return "ready";
	return job->vm.started ? "booting" : "preparing";
}

json_t *favo_report_vm(const struct job *job, bool ended)
{
	json_t *obj;

	/* A grant that does not hold says nothing that favod could file. */
	if (!job->cluster)
		return NULL;
	obj = json_pack("{s:I, s:i, s:s, s:s, s:I, s:s, s:s, s:o}", "job",
			(json_int_t)job->s.job, "index", (int)job->index, "name",
			job->cluster->members[job->index].name, "address",
			job->cluster->members[job->index].address, "uid",
			(json_int_t)job->s.uid, "grant", job->grant.id, "state",
			state_name(job, ended), "timeline",
			favo_timeline_json(&job->s.timeline));
	if (obj && favo_job_failed(job)) {
		json_object_set_new(obj, "error",
				    json_pack("{s:s, s:s, s:s}", "phase",
					      job->s.failure.phase, "cause",
					      job->s.failure.cause, "remedy",
					      job->s.failure.remedy));
		if (job->log)
			json_object_set_new(obj, "log", json_string(job->log));
	}
	return obj;
}

/*
 * The image that this node runs as its own system: what booted it left word
 * of it in run_dir, which does not outlive a boot. Nodes that came up by
 * themselves have no such file.
 */
static json_t *booted_digest(const struct noded *nd)
{
	favo_autofree char *path = favo_asprintf("%s/booted.json", nd->conf->run_dir);
	favo_autofree char *text = NULL;
	favo_autojson json_t *file = NULL;
	struct favo_err err = {0};
	const char *digest;
	size_t len;
	int ret;

	if (!path || access(path, F_OK) < 0)
		return NULL;
	ret = favo_file_read(path, BOOTED_MAX, &text, &len, &err);
	if (ret == 0)
		ret = favo_json_parse(&file, text, len, &err);
	if (ret == 0)
		ret = favo_json_str(&digest, file, "digest", &err);
	if (ret == 0)
		return json_string(digest);
	favo_log(FAVO_WARN, "%s: %s", path, err.msg);
	return NULL;
}

/* What this node runs itself; whoever hears from an agent knows it is up. */
static void add_boot(const struct noded *nd, json_t *report)
{
	struct utsname uts;
	struct sysinfo si;

	json_object_set_new(report, "phase", json_string("up"));
	if (uname(&uts) == 0)
		json_object_set_new(report, "kernel", json_string(uts.release));
	if (sysinfo(&si) == 0)
		json_object_set_new(report, "boot_time",
				    json_integer(time(NULL) - si.uptime));
	json_object_set_new(report, "digest", booted_digest(nd));
}

/* With the lock held. */
static json_t *whole_report(struct noded *nd)
{
	json_t *vms = json_array(), *report;

	json_array_extend(vms, nd->ended);
	for (struct job *job = nd->jobs; job; job = job->next) {
		json_t *vm = favo_report_vm(job, false);

		if (vm)
			json_array_append_new(vms, vm);
	}
	report = json_pack("{s:s, s:s, s:I, s:O*, s:o}", "version", PACKAGE_VERSION,
			   "boot_id", nd->boot_id, "time_ms",
			   (json_int_t)(favo_realtime_ns() / 1000000), "checks",
			   nd->health, "vms", vms);
	if (report)
		add_boot(nd, report);
	return report;
}

static int send_report(struct noded *nd, const char *node, const json_t *body,
		       struct favo_err *err)
{
	const struct favo_http_params params = {
		.base_url = nd->conf->favod_url,
		.munge_socket = *nd->conf->munge_socket ? nd->conf->munge_socket : NULL,
		.timeout_ms = TIMEOUT_MS,
		.max_reply = 65536,
	};
	favo_autohttp struct favo_http *http = NULL;
	char path[300];
	int ret;

	ret = favo_http_new(&http, &params, err);
	if (ret < 0)
		return ret;
	snprintf(path, sizeof(path), "/v1/nodes/%s/report", node);
	return favo_http_json(http, "POST", path, body, NULL, err);
}

/* What was sent of the ended VMs need not be sent again. */
static void drop_ended(struct noded *nd, size_t n)
{
	while (n--)
		json_array_remove(nd->ended, 0);
}

static void *report_thread(void *arg)
{
	int64_t heard_ms = 0, backoff_ms = BACKOFF_FIRST_MS, next_ms = 0;
	struct noded *nd = arg;
	bool down = false;

	pthread_mutex_lock(&nd->lock);
	for (;;) {
		favo_autojson json_t *body = NULL;
		struct favo_err err = {0};
		char node[256];
		size_t ended;
		int ret;

		while (favo_now_ms() < next_ms ||
		       (!nd->report_due && favo_now_ms() < heard_ms + HEARTBEAT_MS))
			favo_noded_wait_until(
				nd,
				FAVO_MAX(next_ms,
					 nd->report_due ? 0 : heard_ms + HEARTBEAT_MS));
		nd->report_due = false;
		body = whole_report(nd);
		ended = json_array_size(nd->ended);
		snprintf(node, sizeof(node), "%s", nd->node);
		pthread_mutex_unlock(&nd->lock);
		ret = send_report(nd, node, body, &err);
		heard_ms = favo_now_ms();
		if (ret < 0 && !down)
			favo_log(FAVO_INFO, "report to favod: %s", err.msg);
		down = ret < 0;
		backoff_ms = down ? FAVO_MIN(backoff_ms * 2, BACKOFF_LAST_MS)
				  : BACKOFF_FIRST_MS;
		next_ms = heard_ms + (down ? backoff_ms : GATHER_MS);
		pthread_mutex_lock(&nd->lock);
		nd->report_due |= down;
		if (!down)
			drop_ended(nd, ended);
	}
	return NULL;
}

int favo_report_start(struct noded *nd, struct favo_err *err)
{
	nd->ended = json_array();
	nd->report_due = true;
	if (!nd->ended)
		return favo_fail(err, ENOMEM, "allocate report");
	return favo_noded_thread(report_thread, nd, err);
}
