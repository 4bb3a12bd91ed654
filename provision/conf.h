/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Site configuration: every key of /etc/favo/favo.conf, for all programs.
 * The rows are in conf.c; favo.conf(5) lists them. Loaded once at start,
 * read-only afterwards.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>

#include "common/err.h"
#include "common/options.h"

#define FAVO_CONF_PATH "/etc/favo/favo.conf"

struct favo_conf {
	/* both sides */
	char *favod_url;
	char *munge_socket;
	char *registry_http;
	char *state_dir;
	char *run_dir;
	char *log_level;
	/* favod */
	char *favod_listen;
	char *store_dir;
	char *grant_key;
	uint64_t grant_lifetime_ms;
	char *site_kernel;
	char *site_modules;
	char *image_admins;
	char *node_admins;
	char *rollout_reboot;
	char *rollout_probe;
	bool rollout_test;
	uint64_t image_quota_bytes;
	char *image_key;
	char *image_pub;
	bool image_sign_users;
	uint64_t source_port;
	/* favod's boot service */
	bool netboot;
	char *boot_interface;
	uint64_t boot_port;
	char *boot_dhcp;
	char *boot_range;
	char *boot_files;
	char *boot_loaders;
	char *boot_cache_label;
	uint64_t boot_timeout_fetch_ms;
	uint64_t boot_tries;
	char *netinit_path;
	char *dnsmasq_path;
	/* nodes */
	char *grant_pub;
	char *noded_socket;
	char *vmm_path;
	char *init_path;
	char *share_path;
	char *virtiofsd_path;
	char *vc_subnet;
	char *node_suffix;
	uint64_t vxlan_port;
	uint64_t peer_port;
	uint64_t peer_rate;
	uint64_t fetch_rate;
	uint64_t boot_timeout_ms;
	uint64_t vm_overhead_bytes;
	uint64_t vm_memory_bytes;
	uint64_t cache_bytes;
	char *image_lazy;
	uint64_t image_lazy_timeout_ms;
	char *lazy_path;
	uint64_t console_bytes;
	uint64_t warm_pool_bytes;
	uint64_t warm_uid;
	char *cgroup;
	char *huge_pages;
	char *image_verity;
	char *image_trust;
	char *image_keys;
	bool sandbox;
};

/* Every row; programs that take them on their command line add none twice. */
const struct favo_opt *favo_conf_table(size_t *n);

/*
 * Defaults, then path (NULL: FAVO_CONF_PATH, which may be absent; an explicit
 * path must exist), then the environment (FAVO_CONF_<KEY>) when use_env is
 * set, which privileged programs started by others leave off.
 */
int favo_conf_load(struct favo_conf *conf, const char *path, bool use_env,
		   struct favo_err *err) favo_must_check;
void favo_conf_fini(struct favo_conf *conf);
