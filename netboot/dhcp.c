// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * dnsmasq(8) for DHCP and TFTP: its files are written from the node database
 * and it is kept running. A firmware's own PXE gets iPXE by TFTP (or by HTTP,
 * when it can); iPXE gets the start script by HTTP. Architectures: RFC 4578
 * and its registry at IANA.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/util.h"
#include "netboot/boot.h"

#define RESTART_FIRST_MS 500
#define RESTART_LAST_MS 30000
#define STEADY_MS 60000

struct favo_boot_dhcp {
	struct favo_favod *d;
	char *dir;
	pthread_t thread;
	pthread_mutex_t lock;
	pthread_cond_t changed;
	bool stop, reload; /* under lock */
};

/* ---- files ---- */

static void put_range(FILE *f, const struct favo_conf *conf,
		      const struct favo_boot_net *net)
{
	const char *dash = strchr(conf->boot_range, '-');

	if (strcmp(conf->boot_dhcp, "proxy") == 0)
		fprintf(f, "dhcp-range=%s,proxy,%s\n", net->network, net->netmask);
	else if (dash)
		fprintf(f, "dhcp-range=%.*s,%s,%s,10m\ndhcp-authoritative\n",
			(int)(dash - conf->boot_range), conf->boot_range, dash + 1,
			net->netmask);
	if (strcmp(conf->boot_dhcp, "full") == 0)
		fprintf(f, "dhcp-range=%s,static,%s,infinite\n", net->network,
			net->netmask);
}

static void put_proxy_boot(FILE *f, const char *url)
{
	fprintf(f,
		"pxe-service=tag:!ipxe,x86PC,\"Favo\",undionly.kpxe\n"
		"pxe-service=tag:!ipxe,BC_EFI,\"Favo\",ipxe.efi\n"
		"pxe-service=tag:!ipxe,X86-64_EFI,\"Favo\",ipxe.efi\n"
		"pxe-service=tag:ipxe,x86PC,\"Favo\",%s/boot/start.ipxe\n"
		"pxe-service=tag:ipxe,BC_EFI,\"Favo\",%s/boot/start.ipxe\n"
		"pxe-service=tag:ipxe,X86-64_EFI,\"Favo\",%s/boot/start.ipxe\n",
		url, url, url);
}

char *favo_boot_dhcp_config(const struct favo_conf *conf, const struct favo_boot_net *net,
			    const char *dir)
{
	favo_autofree char *url =
		favo_asprintf("http://%s:%u", net->address, (unsigned)conf->boot_port);
	char *text = NULL;
	size_t len;
	FILE *f = url ? open_memstream(&text, &len) : NULL;

	if (!f)
		return NULL;
	fprintf(f,
		"# written by favod at each start\n"
		"port=0\nkeep-in-foreground\nlog-facility=-\nno-ping\n"
		"interface=%s\nbind-interfaces\nno-hosts\nno-resolv\n"
		"dhcp-leasefile=%s/leases\ndhcp-hostsfile=%s/hosts\n"
		"enable-tftp=%s\ntftp-root=%s/tftp\n"
		"dhcp-match=set:ipxe,175\n"
		"dhcp-match=set:efi64,option:client-arch,7\n"
		"dhcp-match=set:efi64,option:client-arch,9\n"
		"dhcp-match=set:efihttp,option:client-arch,16\n"
		"dhcp-option-force=tag:efihttp,60,HTTPClient\n",
		net->interface, dir, dir, net->interface, dir);
	put_range(f, conf, net);
	fprintf(f,
		"dhcp-boot=tag:ipxe,%s/boot/start.ipxe\n"
		"dhcp-boot=tag:!ipxe,tag:efi64,ipxe.efi\n"
		"dhcp-boot=tag:!ipxe,tag:efihttp,%s/boot/loader/ipxe.efi\n"
		"dhcp-boot=tag:!ipxe,tag:!efi64,tag:!efihttp,undionly.kpxe\n",
		url, url);
	if (strcmp(conf->boot_dhcp, "proxy") == 0)
		put_proxy_boot(f, url);
	fclose(f);
	return text;
}

static int write_host(void *user, const struct favo_node *node)
{
	FILE *f = user;
	const char *slash = node->addresses[0] ? strchr(node->addresses[0], '/') : NULL;

	if (!node->macs[0] || !node->addresses[0])
		return 0;
	fprintf(f, "%s,%.*s,%s,infinite\n", node->macs[0],
		slash ? (int)(slash - node->addresses[0]) : INT_MAX, node->addresses[0],
		node->name);
	return 0;
}

static int write_hosts(struct favo_boot_dhcp *dhcp, struct favo_err *err)
{
	favo_autofree char *path = favo_asprintf("%s/hosts", dhcp->dir), *text = NULL;
	size_t len = 0;
	FILE *f = path ? open_memstream(&text, &len) : NULL;
	int ret;

	if (!f)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_nodes_list(dhcp->d->nodes, write_host, f, err);
	fclose(f);
	return ret < 0 ? ret : favo_file_replace(path, text, len, 0644, err);
}

/* iPXE's own files go where TFTP serves them; nothing else is there. */
static int copy_loaders(const struct favo_conf *conf, const char *dir,
			struct favo_err *err)
{
	static const char *const names[] = {"undionly.kpxe", "ipxe.efi"};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(names); i++) {
		favo_autofree char *from =
			favo_asprintf("%s/%s", conf->boot_loaders, names[i]);
		favo_autofree char *to = favo_asprintf("%s/tftp/%s", dir, names[i]);
		favo_autofree char *data = NULL;
		size_t len = 0;
		int ret;

		if (!from || !to)
			return favo_fail(err, ENOMEM, "out of memory");
		ret = favo_file_read(from, 16 << 20, &data, &len, err);
		if (ret == 0)
			ret = favo_file_replace(to, data, len, 0644, err);
		if (ret < 0)
			return favo_wrap(err, ret, "boot loader %s (Debian package ipxe)",
					 names[i]);
	}
	return 0;
}

static int write_files(struct favo_boot_dhcp *dhcp, const struct favo_boot_net *net,
		       struct favo_err *err)
{
	favo_autofree char *text = favo_boot_dhcp_config(&dhcp->d->conf, net, dhcp->dir);
	favo_autofree char *tftp = favo_asprintf("%s/tftp", dhcp->dir);
	favo_autofree char *path = favo_asprintf("%s/dnsmasq.conf", dhcp->dir);
	int ret;

	if (!text || !tftp || !path)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_mkdirs(tftp, 0755, err);
	if (ret == 0)
		ret = copy_loaders(&dhcp->d->conf, dhcp->dir, err);
	if (ret == 0)
		ret = favo_file_replace(path, text, strlen(text), 0644, err);
	return ret < 0 ? ret : write_hosts(dhcp, err);
}

/* ---- the process ---- */

static pid_t spawn(struct favo_boot_dhcp *dhcp)
{
	favo_autofree char *file =
		favo_asprintf("--conf-file=%s/dnsmasq.conf", dhcp->dir);
	char *argv[] = {dhcp->d->conf.dnsmasq_path, file, NULL};
	sigset_t none;
	pid_t pid;

	if (!file)
		return -1;
	sigemptyset(&none);
	pid = fork();
	if (pid != 0)
		return pid;
	/* It ends with the thread that watches it, whatever happens to favod. */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	sigprocmask(SIG_SETMASK, &none, NULL);
	execvp(argv[0], argv);
	_exit(127);
}

/* Wait until it ends, passing changes on meanwhile. */
static int watch(struct favo_boot_dhcp *dhcp, pid_t pid)
{
	struct timespec until;
	int status = 0;
	bool ended = false, asked = false;

	pthread_mutex_lock(&dhcp->lock);
	while (!ended) {
		if (dhcp->stop && !asked) {
			kill(pid, SIGTERM);
			asked = true;
		}
		if (dhcp->reload) {
			dhcp->reload = false;
			kill(pid, SIGHUP);
		}
		clock_gettime(CLOCK_MONOTONIC, &until);
		until.tv_nsec += 200000000;
		if (until.tv_nsec >= 1000000000) {
			until.tv_sec++;
			until.tv_nsec -= 1000000000;
		}
		pthread_cond_timedwait(&dhcp->changed, &dhcp->lock, &until);
		ended = waitpid(pid, &status, WNOHANG) == pid;
	}
	pthread_mutex_unlock(&dhcp->lock);
	return status;
}

static bool pause_ms(struct favo_boot_dhcp *dhcp, int ms)
{
	struct timespec until;
	bool stop;

	clock_gettime(CLOCK_MONOTONIC, &until);
	until.tv_sec += ms / 1000;
	until.tv_nsec += (ms % 1000) * 1000000L;
	if (until.tv_nsec >= 1000000000) {
		until.tv_sec++;
		until.tv_nsec -= 1000000000;
	}
	pthread_mutex_lock(&dhcp->lock);
	while (!dhcp->stop &&
	       pthread_cond_timedwait(&dhcp->changed, &dhcp->lock, &until) == 0)
		;
	stop = dhcp->stop;
	pthread_mutex_unlock(&dhcp->lock);
	return stop;
}

static void *supervise(void *arg)
{
	struct favo_boot_dhcp *dhcp = arg;
	int wait_ms = RESTART_FIRST_MS;

	for (;;) {
		int64_t start_ms = favo_now_ms();
		pid_t pid = spawn(dhcp);
		int status = pid > 0 ? watch(dhcp, pid) : 0;

		pthread_mutex_lock(&dhcp->lock);
		if (dhcp->stop) {
			pthread_mutex_unlock(&dhcp->lock);
			return NULL;
		}
		pthread_mutex_unlock(&dhcp->lock);
		if (favo_now_ms() - start_ms > STEADY_MS)
			wait_ms = RESTART_FIRST_MS;
		if (WIFEXITED(status) && WEXITSTATUS(status) == 127)
			favo_log(FAVO_ERROR, "dnsmasq does not start: install Debian's "
					     "dnsmasq-base, or "
					     "set dnsmasq_path");
		else
			favo_log(FAVO_ERROR,
				 "dnsmasq ended (status 0x%x), nodes cannot boot; its "
				 "last "
				 "lines say why; starting it again in %d ms",
				 (unsigned)status, wait_ms);
		if (pause_ms(dhcp, wait_ms))
			return NULL;
		wait_ms = FAVO_MIN(wait_ms * 2, RESTART_LAST_MS);
	}
}

static void on_change(void *user)
{
	struct favo_boot_dhcp *dhcp = user;
	struct favo_err err = {0};

	if (write_hosts(dhcp, &err) < 0)
		favo_log(FAVO_ERROR, "addresses of nodes: %s", err.msg);
	pthread_mutex_lock(&dhcp->lock);
	dhcp->reload = true;
	pthread_cond_broadcast(&dhcp->changed);
	pthread_mutex_unlock(&dhcp->lock);
}

static void dhcp_free(struct favo_boot_dhcp *dhcp)
{
	pthread_mutex_destroy(&dhcp->lock);
	pthread_cond_destroy(&dhcp->changed);
	free(dhcp->dir);
	free(dhcp);
}

int favo_boot_dhcp_start(struct favo_boot_dhcp **out, struct favo_favod *d,
			 const struct favo_boot_net *net, struct favo_err *err)
{
	struct favo_boot_dhcp *dhcp = calloc(1, sizeof(*dhcp));
	pthread_condattr_t attr;
	int ret;

	if (!dhcp)
		return favo_fail(err, ENOMEM, "dhcp: out of memory");
	pthread_mutex_init(&dhcp->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&dhcp->changed, &attr);
	pthread_condattr_destroy(&attr);
	dhcp->d = d;
	dhcp->dir = favo_asprintf("%s/netboot", d->conf.run_dir);
	ret = dhcp->dir ? write_files(dhcp, net, err)
			: favo_fail(err, ENOMEM, "dhcp: out of memory");
	if (ret == 0) {
		ret = -pthread_create(&dhcp->thread, NULL, supervise, dhcp);
		if (ret < 0)
			ret = favo_fail(err, -ret, "dhcp: no thread");
	}
	if (ret < 0) {
		dhcp_free(dhcp);
		return ret;
	}
	favo_nodes_watch(d->nodes, FAVO_NODES_BOOT, on_change, dhcp);
	*out = dhcp;
	return 0;
}

void favo_boot_dhcp_stop(struct favo_boot_dhcp *dhcp)
{
	if (!dhcp)
		return;
	favo_nodes_watch(dhcp->d->nodes, FAVO_NODES_BOOT, NULL, NULL);
	pthread_mutex_lock(&dhcp->lock);
	dhcp->stop = true;
	pthread_cond_broadcast(&dhcp->changed);
	pthread_mutex_unlock(&dhcp->lock);
	pthread_join(dhcp->thread, NULL);
	dhcp_free(dhcp);
}
