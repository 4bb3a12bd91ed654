// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Checks of a compute node, for --check, for favo doctor and for favod's list
 * of nodes. A new dependency of the node agent gets a row in the table below.
 */
#include "provision/noded/health.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/run.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/grant.h"
#include "provision/noded/cgroup.h"
#include "provision/noded/network.h"
#include "provision/noded/noded.h"

#define PROBE_MS 6000
#define PROBE_OUTPUT 1024
#define DISK_MIN_BYTES (UINT64_C(1) << 30)
#define FRESH_MS 3000
#define PERIOD_MS 600000

enum result {
	GOOD,
	NOTE, /* no fault */
	FAULT,
};

struct check {
	const struct favo_conf *conf;
	char what[512];
	const char *remedy;
};

typedef enum result check_fn(struct check *c);

static enum result say(struct check *c, enum result result, const char *remedy,
		       const char *fmt, ...) favo_printf(4, 5);
static enum result say(struct check *c, enum result result, const char *remedy,
		       const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(c->what, sizeof(c->what), fmt, ap);
	va_end(ap);
	c->remedy = remedy;
	return result;
}

/* ---- the checks ---- */

static enum result check_kvm(struct check *c)
{
	static const char firmware[] =
		"switch virtualization on in the firmware, and: modprobe kvm_amd or "
		"kvm_intel";
	char *argv[] = {c->conf->vmm_path, (char[]){"--probe"}, NULL};
	char out[PROBE_OUTPUT];
	int ret;

	if (access(c->conf->vmm_path, X_OK) < 0)
		return say(c, FAULT, "install favo's node part, or set vmm_path",
			   "%s: %m", c->conf->vmm_path);
	if (access("/dev/kvm", R_OK | W_OK) < 0)
		return say(c, FAULT, firmware, "/dev/kvm: %m");
	ret = favo_run_output(argv, true, PROBE_MS, out, sizeof(out));
	out[strcspn(out, "\n")] = '\0';
	if (ret < 0)
		return say(c, FAULT, firmware, "%s --probe: %s", c->conf->vmm_path,
			   strerror(-ret));
	if (ret > 0)
		return say(c, FAULT, firmware, "%s", out);
	return say(c, GOOD, NULL, "a guest ran");
}

static enum result check_vsock(struct check *c)
{
	if (access("/dev/vhost-vsock", R_OK | W_OK) < 0)
		return say(c, FAULT, "modprobe vhost_vsock", "/dev/vhost-vsock: %m");
	return say(c, GOOD, NULL, "/dev/vhost-vsock is there");
}

static enum result check_vhost_net(struct check *c)
{
	if (access("/dev/vhost-net", R_OK | W_OK) < 0)
		return say(c, NOTE, "modprobe vhost_net",
			   "/dev/vhost-net: %m: networks of guests are slower");
	return say(c, GOOD, NULL, "/dev/vhost-net is there");
}

/* The whole thing as for a job, for two nodes that do not exist. */
static enum result check_network(struct check *c)
{
	static const char *const names[] = {"a", "b"};
	const struct in_addr addresses[] = {{htonl(INADDR_LOOPBACK)},
					    {htonl(INADDR_LOOPBACK + 1)}};
	favo_autofree struct favo_cluster *cluster = NULL;
	struct favo_network net = {.addresses = addresses,
				   .vxlan_port = (uint16_t)c->conf->vxlan_port};
	favo_autoclose int tap = -1;
	struct favo_err err = {0};
	int ret = favo_cluster_plan(&cluster, 0, names, 2, c->conf->vc_subnet, &err);

	net.cluster = cluster;
	if (ret == 0)
		ret = favo_network_build(&net, &tap, &err);
	if (ret < 0)
		return say(c, FAULT,
			   "modprobe bridge vxlan tun; is UDP port vxlan_port free?",
			   "%s", err.msg);
	return say(c, GOOD, NULL, "bridge, VXLAN and tap can be made");
}

static enum result check_cgroup(struct check *c)
{
	bool v2 = access(FAVO_CGROUP_ROOT "/cgroup.controllers", F_OK) == 0;
	bool v1 = access(FAVO_CGROUP_ROOT "/memory", F_OK) == 0;

	if (!v1 && !v2)
		return say(c, FAULT, "mount the cgroup file systems, as systemd does",
			   "%s holds neither cgroup v1 nor v2", FAVO_CGROUP_ROOT);
	return say(c, GOOD, NULL, "version %s", v2 ? "2" : "1");
}

static enum result check_disk(struct check *c)
{
	uint64_t have, size;
	char text[32], bound[32];
	struct statvfs fs;

	if (statvfs(c->conf->state_dir, &fs) < 0)
		return say(c, FAULT, "make the folder, or set state_dir", "%s: %m",
			   c->conf->state_dir);
	have = (uint64_t)fs.f_bavail * fs.f_frsize;
	size = (uint64_t)fs.f_blocks * fs.f_frsize;
	favo_format_size(text, sizeof(text), have);
	favo_format_size(bound, sizeof(bound), c->conf->cache_bytes);
	if (fs.f_flag & ST_RDONLY)
		return say(c, FAULT, "look for disk errors in dmesg, then remount it",
			   "%s is mounted read-only", c->conf->state_dir);
	if (have < DISK_MIN_BYTES)
		return say(c, FAULT, "free some space, or set a smaller cache_size",
			   "%s has %s left", c->conf->state_dir, text);
	if (size < c->conf->cache_bytes)
		return say(c, NOTE, "set a smaller cache_size",
			   "%s has %s left and is smaller than cache_size (%s)",
			   c->conf->state_dir, text, bound);
	return say(c, GOOD, NULL, "%s has %s left", c->conf->state_dir, text);
}

static enum result check_grant(struct check *c)
{
	favo_autograntkey struct favo_grant_key *key = NULL;
	struct favo_err err = {0};

	if (favo_grant_key_load_public(&key, c->conf->grant_pub, &err) < 0)
		return say(c, FAULT, "copy it from favod's host", "%s", err.msg);
	return say(c, GOOD, NULL, "%s is a public key", c->conf->grant_pub);
}

static enum result check_init(struct check *c)
{
	if (access(c->conf->init_path, R_OK) < 0)
		return say(c, FAULT, "install favo's node part, or set init_path",
			   "%s: %m", c->conf->init_path);
	return say(c, GOOD, NULL, "%s is there", c->conf->init_path);
}

static const struct {
	const char *name;
	check_fn *fn;
} checks[] = {
	{"kvm", check_kvm},
	{"vsock", check_vsock},
	{"vhost-net", check_vhost_net},
	{"network", check_network},
	{"cgroup", check_cgroup},
	{"disk", check_disk},
	{"grant key", check_grant},
	{"guest agent", check_init},
};

json_t *favo_health_check(const struct favo_conf *conf)
{
	static const char *const words[] = {
		[GOOD] = "ok", [NOTE] = "-", [FAULT] = FAVO_HEALTH_FAILED};
	json_t *list = json_array();

	for (size_t i = 0; list && i < FAVO_ARRAY_SIZE(checks); i++) {
		struct check c = {.conf = conf};
		enum result result = checks[i].fn(&c);
		json_t *row = json_pack("{s:s, s:s, s:s}", "check", checks[i].name,
					"result", words[result], "what", c.what);

		if (row && c.remedy)
			json_object_set_new(row, "remedy", json_string(c.remedy));
		if (!row || json_array_append_new(list, row) < 0) {
			json_decref(list);
			list = NULL;
		}
	}
	return list;
}

unsigned int favo_health_failures(const json_t *list)
{
	unsigned int n = 0;
	const json_t *row;
	size_t i;

	json_array_foreach(list, i, row)
	{
		const char *result = json_string_value(json_object_get(row, "result"));

		n += result && !strcmp(result, FAVO_HEALTH_FAILED);
	}
	return n;
}

/* ---- in the daemon ---- */

/* Say what is wrong now and was not before. */
static void log_new_faults(const json_t *before, const json_t *now)
{
	const json_t *row;
	size_t i;

	json_array_foreach(now, i, row)
	{
		const json_t *former = json_array_get(before, i);
		const char *remedy = json_string_value(json_object_get(row, "remedy"));

		if (!strcmp(json_string_value(json_object_get(row, "result")),
			    FAVO_HEALTH_FAILED) &&
		    !json_equal(row, former))
			favo_log(FAVO_WARN, "%s: %s; no VM can start before: %s",
				 json_string_value(json_object_get(row, "check")),
				 json_string_value(json_object_get(row, "what")),
				 remedy ? remedy : "see favo doctor");
	}
}

json_t *favo_health_get(struct noded *nd)
{
	json_t *list;

	while (nd->health_running)
		favo_noded_wait_until(nd, INT64_MAX);
	if (nd->health && favo_now_ms() < nd->health_ms + FRESH_MS)
		return json_incref(nd->health);
	nd->health_running = true;
	pthread_mutex_unlock(&nd->lock);
	list = favo_health_check(nd->conf);
	pthread_mutex_lock(&nd->lock);
	if (list) {
		log_new_faults(nd->health, list);
		nd->report_due = nd->report_due || !json_equal(list, nd->health);
		json_decref(nd->health);
		nd->health = json_incref(list);
		nd->health_ms = favo_now_ms();
	}
	nd->health_running = false;
	favo_noded_changed(nd);
	return list;
}

static void *health_thread(void *arg)
{
	struct noded *nd = arg;

	pthread_mutex_lock(&nd->lock);
	for (;;) {
		int64_t next_ms = favo_now_ms() + PERIOD_MS;

		json_decref(favo_health_get(nd));
		while (favo_now_ms() < next_ms)
			favo_noded_wait_until(nd, next_ms);
	}
	return NULL;
}

int favo_health_start(struct noded *nd, struct favo_err *err)
{
	return favo_noded_thread(health_thread, nd, err);
}
