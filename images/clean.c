// SPDX-License-Identifier: GPL-2.0-or-later
/* Tables of what is taken out of trees; see clean.h. */
#include "images/clean.h"

#include <stddef.h>

#include "common/util.h"

/* What packages and users leave, and no two machines may share. */
static const char *const secrets[] = {
	"etc/munge/munge.key",
	"etc/munge/*.key",
	"etc/ssh/ssh_host_*",
	"etc/dropbear/dropbear_*_host_key",
	"etc/slurm/jwt_hs256.key",
	"etc/slurm/slurm.key",
	"etc/slurm/slurmdbd.conf",
	"etc/favo/*.key",
	"etc/ssl/private/ssl-cert-snakeoil.key",
	"etc/ssl/certs/ssl-cert-snakeoil.pem",
	"etc/pki/tls/private/localhost.key",
	"etc/krb5.keytab",
	"etc/wireguard/*",
	"etc/iscsi/initiatorname.iscsi",
	"etc/nvme/hostid",
	"etc/nvme/hostnqn",
	"etc/machine-id",
	"var/lib/dbus/machine-id",
	"var/lib/systemd/random-seed",
	"var/lib/systemd/credential.secret",
	"var/lib/urandom/random-seed",
	"var/lib/NetworkManager/secret_key",
	"var/lib/NetworkManager/*.lease",
	"var/lib/dhcp/*.leases",
	"var/lib/cloud/instances/*",
	"root/.ssh/id_*",
	"root/.bash_history",
	"root/.netrc",
	"root/.docker/config.json",
	"root/.aws/credentials",
	"home/*/.ssh/id_*",
	"home/*/.bash_history",
	"home/*/.netrc",
	"home/*/.docker/config.json",
	"home/*/.aws/credentials",
};

static const char *const transient[] = {"dev/*", "proc/*", "sys/*",
					"run/*", "tmp/*",  "var/tmp/*"};

/* Written by apt, dpkg, ldconfig, debconf and the like while they work. */
static const char *const build[] = {
	"var/log/*",
	"var/lib/apt/lists/*",
	"var/cache/apt/*",
	"var/cache/debconf/*",
	"var/cache/ldconfig/aux-cache",
	"var/cache/man/*",
	"var/lib/dpkg/*-old",
	"var/lib/dpkg/lock*",
	"var/lib/dpkg/triggers/Lock",
	"var/cache/dnf/*",
	"var/cache/yum/*",
	"var/lib/dnf/history*",
	"etc/*-",
	"etc/.pwd.lock",
};

int favo_clean_secrets(struct favo_tree *tree, favo_tree_seen_fn *seen, void *user,
		       struct favo_err *err)
{
	return favo_tree_remove_matching(tree, secrets, FAVO_ARRAY_SIZE(secrets), seen,
					 user, err);
}

int favo_clean_transient(struct favo_tree *tree, struct favo_err *err)
{
	return favo_tree_remove_matching(tree, transient, FAVO_ARRAY_SIZE(transient),
					 NULL, NULL, err);
}

static void clamp(struct favo_inode *inode, int64_t epoch)
{
	if (inode->mtime >= epoch) {
		inode->mtime = epoch;
		inode->mtime_ns = 0;
	}
	for (size_t i = 0; i < inode->n_entries; i++)
		clamp(inode->entries[i].inode, epoch);
}

int favo_clean_build(struct favo_tree *tree, int64_t epoch, struct favo_err *err)
{
	clamp(tree->root, epoch);
	return favo_tree_remove_matching(tree, build, FAVO_ARRAY_SIZE(build), NULL, NULL,
					 err);
}
