// SPDX-License-Identifier: GPL-2.0-or-later
/* Site configuration; see conf.h. */
#include "provision/conf.h"

#include <errno.h>
#include <string.h>

#include "common/util.h"

#define FILE_OR_ENV (FAVO_FROM_FILE | FAVO_FROM_ENV)
#define STR(name, arg, field, def, help)                                                 \
	FAVO_OPT_STR(name, arg, struct favo_conf, field, FILE_OR_ENV, def, help)
#define U64(name, arg, field, def, help)                                                 \
	FAVO_OPT_U64(name, arg, struct favo_conf, field, FILE_OR_ENV, def, help)
#define SIZE(name, arg, field, def, help)                                                \
	FAVO_OPT_SIZE(name, arg, struct favo_conf, field, FILE_OR_ENV, def, help)
#define DURATION(name, arg, field, def, help)                                            \
	FAVO_OPT_DURATION(name, arg, struct favo_conf, field, FILE_OR_ENV, def, help)
#define BOOL(name, arg, field, def, help)                                                \
	FAVO_OPT_BOOL(name, arg, struct favo_conf, field, FILE_OR_ENV, def, help)

static const struct favo_opt rows[] = {
	STR("favod-url", "URL", favod_url, "http://localhost:7411",
	    "where favod answers, seen from nodes and submit hosts"),
	STR("munge-socket", "PATH", munge_socket, "",
	    "socket of munged; empty: MUNGE's default"),
	STR("registry-http", "HOST[:PORT],...", registry_http, "",
	    "container registries that are spoken to without TLS"),
	STR("state-dir", "DIR", state_dir, "/var/lib/favo",
	    "what survives a restart: registry, image cache, VM directories"),
	STR("run-dir", "DIR", run_dir, "/run/favo", "sockets and marks of running jobs"),
	STR("log-level", "LEVEL", log_level, "info", "error, warning, info or debug"),

	STR("favod-listen", "ADDRESS:PORT", favod_listen, "0.0.0.0:7411",
	    "where favod listens"),
	STR("store-dir", "DIR", store_dir, "/var/lib/favo/store", "image store of favod"),
	STR("grant-key", "PATH", grant_key, "/etc/favo/grant.key",
	    "private Ed25519 key that favod signs grants with; only on favod's host"),
	DURATION("grant-lifetime", "TIME", grant_lifetime_ms, "30d",
		 "how long after submission a job may start"),
	STR("site-kernel", "PATH", site_kernel, "", "kernel for images that bring none"),
	STR("site-modules", "DIR", site_modules, "",
	    "modules of site_kernel, as under /lib/modules/RELEASE"),

	STR("image-admins", "NAME,...", image_admins, "",
	    "users, and groups written @GROUP, who may change the site's images"),
	STR("node-admins", "NAME,...", node_admins, "",
	    "users, and groups written @GROUP, who may change nodes and roll images out; "
	    "they can run programs as favod's user"),
	STR("rollout-reboot", "COMMAND", rollout_reboot, "",
	    "reboots node %n into the image %d; empty: the node's power command, or "
	    "scontrol reboot"),
	STR("rollout-probe", "COMMAND", rollout_probe, "",
	    "tells by its exit status whether node %n is well after its reboot"),
	BOOL("rollout-test", "yes|no", rollout_test, "yes",
	     "run a job on a node before it is given back to Slurm's users"),

	SIZE("image-quota", "SIZE", image_quota_bytes, "20G",
	     "what a user's own images may take in the store; 0: users push none"),

	STR("image-key", "PATH", image_key, "/etc/favo/image.key",
	    "secret key (signify's format) that favod signs images with; only on "
	    "favod's host"),
	STR("image-pub", "PATH", image_pub, "/etc/favo/image.pub",
	    "public key of image_key; to be copied into image_keys of every node"),
	BOOL("image-sign-users", "yes|no", image_sign_users, "yes",
	     "sign the images that users push, too"),

	U64("source-port", "PORT", source_port, "7413",
	    "where favod gives images to nodes that fetch together; 0: nowhere"),
	BOOL("netboot", "yes|no", netboot, "no",
	     "favod boots the nodes of its database over the network"),
	STR("boot-interface", "NAME", boot_interface, "",
	    "interface of favod's host that nodes boot from"),
	U64("boot-port", "PORT", boot_port, "7414",
	    "where nodes that boot get kernel, image and configuration, by plain HTTP"),
	STR("boot-dhcp", "HOW", boot_dhcp, "full",
	    "full: favod's dnsmasq gives addresses; proxy: another server does; off: the "
	    "other server names the boot file, too"),
	STR("boot-range", "FIRST-LAST", boot_range, "",
	    "addresses for machines that are no nodes yet; empty: they get none"),
	STR("boot-files", "DIR", boot_files, "/etc/favo/netboot",
	    "files and secrets that nodes get when they boot"),
	STR("boot-loaders", "DIR", boot_loaders, "/usr/lib/ipxe",
	    "where undionly.kpxe and ipxe.efi are"),
	STR("boot-cache-label", "TEXT", boot_cache_label, "favo-cache",
	    "ext4 file system of a node's disk that keeps images; empty: memory only"),
	DURATION("boot-fetch-timeout", "TIME", boot_timeout_fetch_ms, "10m",
		 "a node that boots tries this long to get its image"),
	U64("boot-tries", "N", boot_tries, "3",
	    "after so many starts of an image that failed a node gets the last good one"),
	STR("netinit-path", "PATH", netinit_path, FAVO_LIBEXECDIR "/favo-netinit",
	    "first process of nodes that boot"),
	STR("dnsmasq-path", "PATH", dnsmasq_path, "dnsmasq", "DHCP and TFTP server"),
	STR("grant-pub", "PATH", grant_pub, "/etc/favo/grant.pub",
	    "public key of grant_key; on every node"),
	STR("noded-socket", "PATH", noded_socket, "/run/favo/noded.sock",
	    "where favo-noded answers on its node"),
	STR("vmm-path", "PATH", vmm_path, FAVO_LIBEXECDIR "/favo-vmm",
	    "hypervisor program"),
	STR("init-path", "PATH", init_path, FAVO_LIBEXECDIR "/favo-init",
	    "agent that becomes pid 1 of guests"),
	STR("share-path", "PATH", share_path, FAVO_LIBEXECDIR "/favo-share",
	    "program that serves directories to VMs"),
	STR("virtiofsd-path", "PATH", virtiofsd_path, "/usr/lib/qemu/virtiofsd",
	    "file server that favo-share becomes; without it VMs see no files of the "
	    "node"),
	STR("vc-subnet", "NET/LEN", vc_subnet, "10.128.0.0/16",
	    "addresses inside each virtual cluster; clusters do not see each other"),
	STR("node-suffix", "TEXT", node_suffix, "",
	    "appended to Slurm's node names to find their addresses"),
	U64("vxlan-port", "PORT", vxlan_port, "4789", "UDP port between nodes"),
	U64("peer-port", "PORT", peer_port, "7412",
	    "TCP port where nodes give images to each other; 0: nowhere"),
	SIZE("peer-rate", "SIZE", peer_rate, "0",
	     "bytes per second that a node gives to others, per image; 0: no limit"),
	SIZE("fetch-rate", "SIZE", fetch_rate, "0",
	     "bytes per second that a node takes from others, per image; 0: no limit"),
	DURATION("boot-timeout", "TIME", boot_timeout_ms, "120s",
		 "a guest that is not ready after this fails its job"),
	SIZE("vm-overhead", "SIZE", vm_overhead_bytes, "48M",
	     "memory of the allocation kept for the hypervisor and the kernel's page "
	     "tables"),
	SIZE("vm-memory", "SIZE", vm_memory_bytes, "1G",
	     "guest memory when Slurm gives the job no memory limit"),
	SIZE("cache-size", "SIZE", cache_bytes, "20G", "bound of a node's image cache"),
	STR("image-lazy", "WHEN", image_lazy, "never",
	    "start VMs before their image is complete: auto, always or never"),
	DURATION("image-lazy-timeout", "TIME", image_lazy_timeout_ms, "120s",
		 "a guest's read of bytes that cannot be had ends in an I/O error after "
		 "this"),
	STR("lazy-path", "PATH", lazy_path, FAVO_LIBEXECDIR "/favo-lazy",
	    "program that serves incomplete images"),
	SIZE("console-size", "SIZE", console_bytes, "1M", "bound of a VM's console log"),
	SIZE("warm-pool", "SIZE", warm_pool_bytes, "0",
	     "bound of a node's snapshots of images that start often; 0: none are made"),
	U64("warm-uid", "UID", warm_uid, "65534",
	    "user and group that the VMs run as from which snapshots are made"),
	STR("cgroup", "PATH", cgroup, "auto",
	    "where Slurm keeps its cgroups, below each hierarchy; auto: found by itself"),
	STR("huge-pages", "WHEN", huge_pages, "auto", "auto, always or never"),
	STR("image-verity", "WHEN", image_verity, "auto",
	    "verify every block of an image that is read: auto (where the kernel can), "
	    "always or never"),
	STR("image-trust", "WHOM", image_trust, "any",
	    "signed: start only images signed by a key of image_keys; any: start all "
	    "that favod has"),
	STR("image-keys", "DIR", image_keys, "/etc/favo/image.keys",
	    "folder of the public keys (*.pub) whose signatures a node believes"),
	BOOL("sandbox", "yes|no", sandbox, "no", "every job runs as with --vm-sandbox"),
};

static struct favo_opts opts_of(struct favo_conf *conf)
{
	return (struct favo_opts){
		.program = "favo.conf",
		.env_prefix = "FAVO_CONF",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = conf,
	};
}

const struct favo_opt *favo_conf_table(size_t *n)
{
	*n = FAVO_ARRAY_SIZE(rows);
	return rows;
}

int favo_conf_load(struct favo_conf *conf, const char *path, bool use_env,
		   struct favo_err *err)
{
	struct favo_opts opts = opts_of(conf);
	int ret;

	memset(conf, 0, sizeof(*conf));
	ret = favo_opts_defaults(&opts, err);
	if (ret == 0) {
		ret = favo_opts_file(&opts, path ? path : FAVO_CONF_PATH, NULL, err);
		if (ret == -ENOENT && !path)
			ret = 0;
	}
	if (ret == 0 && use_env)
		ret = favo_opts_env(&opts, err);
	if (ret < 0)
		favo_conf_fini(conf);
	return ret;
}

void favo_conf_fini(struct favo_conf *conf)
{
	struct favo_opts opts = opts_of(conf);

	favo_opts_fini(&opts);
}
