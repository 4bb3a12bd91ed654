// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Environments of tasks and commands; see task.h. Slurm's variables go into
 * the guest as they are; what names things that exist on the host only does
 * not. The PMIx server's address is replaced by the relay's in the guest.
 */
#include "slurm-plugin/task/task.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/str.h"
#include "common/util.h"

/* Guest variables on their way through a Slurm command on the host. */
#define CARRIED "FAVO_GUEST_ENV_"

static bool starts(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

static bool starts_any(const char *s, const char *const *prefixes)
{
	for (; *prefixes; prefixes++)
		if (starts(s, *prefixes))
			return true;
	return false;
}

/* Entries end with '=' where the whole name is meant. */
static const char *const host_only[] = {
	"FAVO_",
	"SLURM_SPANK_FAVO",
	"SPANK_FAVO",
	"LD_",
	"PMIX_DSTORE_",
	"PMIX_SERVER_URI",
	"PMIX_SERVER_TMPDIR=",
	"PMIX_SYSTEM_TMPDIR=",
	"PMIX_GDS_MODULE=",
	"PMIX_SECURITY_MODE=",
	"PMIX_MCA_gds=",
	"PMIX_MCA_psec=",
	"PMI_FD=",
	"XDG_RUNTIME_DIR=",
	"XDG_SESSION_ID=",
	"DBUS_SESSION_BUS_ADDRESS=",
	"SSH_AUTH_SOCK=",
	"SSH_CONNECTION=",
	"SSH_CLIENT=",
	"SSH_TTY=",
	"HOSTNAME=",
	NULL,
};

struct vector {
	char **v;
	size_t n, cap;
};

static int push(struct vector *vec, char *owned)
{
	if (!owned)
		return -ENOMEM;
	if (vec->n + 1 >= vec->cap) {
		size_t cap = vec->cap ? 2 * vec->cap : 64;
		char **v = reallocarray(vec->v, cap, sizeof(*v));

		if (!v) {
			free(owned);
			return -ENOMEM;
		}
		vec->v = v;
		vec->cap = cap;
	}
	vec->v[vec->n++] = owned;
	vec->v[vec->n] = NULL;
	return 0;
}

static size_t name_len(const char *entry)
{
	return strcspn(entry, "=") + 1;
}

/* Replace the entry of the same name, or add. */
static int set(struct vector *vec, const char *entry)
{
	size_t len = name_len(entry);
	char *copy = strdup(entry);

	if (!copy)
		return -ENOMEM;
	for (size_t i = 0; i < vec->n; i++) {
		if (strncmp(vec->v[i], entry, len) == 0) {
			free(vec->v[i]);
			vec->v[i] = copy;
			return 0;
		}
	}
	return push(vec, copy);
}

/* A TMPDIR other than /tmp is a directory that Slurm made on the host. */
static bool goes_into_guest(const char *entry)
{
	if (starts(entry, "TMPDIR=") && strcmp(entry, "TMPDIR=/tmp") != 0)
		return false;
	return strchr(entry, '=') && entry[0] != '=' && !starts_any(entry, host_only);
}

/*
 * From guest to guest: its search paths and directories are those of the same
 * image, a script that sets LD_LIBRARY_PATH means its programs.
 */
static bool goes_on(const char *entry)
{
	static const char *const never[] = {
		"FAVO_",   "SLURM_SPANK_FAVO", "SPANK_FAVO", "PMIX_",
		"PMI_FD=", "HOSTNAME=",	       NULL};

	return strchr(entry, '=') && entry[0] != '=' && !starts_any(entry, never);
}

/* "PMIX_SERVER_URI2=pmix-server.7;tcp4://127.0.0.1:4711" to prefix and port. */
static int pmix_port(const char *entry)
{
	const char *colon = strrchr(entry, ':');
	uint64_t port;

	if (!starts(entry, "PMIX_SERVER_URI") || !colon ||
	    !strstr(entry, ";tcp4://127.0.0.1:") ||
	    favo_parse_u64(&port, colon + 1, 1, 65535, NULL) < 0)
		return 0;
	return (int)port;
}

static int add_relay(struct favo_run *run, enum favo_relay_kind kind,
		     const char *endpoint, char **env)
{
	struct favo_run_relay *relays =
		reallocarray(run->relays, run->n_relays + 1, sizeof(*relays));
	char *name = strdup(endpoint);

	if (!relays || !name) {
		free(name);
		if (relays)
			run->relays = relays;
		return -ENOMEM;
	}
	run->relays = relays;
	relays[run->n_relays++] =
		(struct favo_run_relay){.kind = kind, .endpoint = name, .env = env};
	return 0;
}

static int add_pmix(struct favo_run *run, struct favo_task *task, struct vector *out,
		    char *const *env)
{
	struct vector uris = {0};
	int ret = 0;

	for (; ret == 0 && *env; env++) {
		int port = pmix_port(*env);

		/* One server, one port; an URI of another one would mislead. */
		if (!port || (task->pmix_port && port != task->pmix_port))
			continue;
		task->pmix_port = port;
		ret = push(&uris, strndup(*env, (size_t)(strrchr(*env, ':') + 1 - *env)));
	}
	if (ret == 0 && uris.n)
		ret = add_relay(run, FAVO_RELAY_TCP, "pmix", uris.v);
	if (ret < 0 || !uris.n) {
		favo_strv_free(uris.v);
		return ret;
	}
	/* The dstore's files and munge exist on the host only. */
	ret = set(out, "PMIX_MCA_gds=hash");
	if (ret == 0)
		ret = set(out, "PMIX_MCA_psec=native");
	if (ret == 0)
		ret = set(out, "PMIX_GDS_MODULE=hash");
	if (ret == 0)
		ret = set(out, "PMIX_SECURITY_MODE=native");
	return ret;
}

static int add_pmi(struct favo_run *run, const struct favo_task *task)
{
	struct vector env = {0};
	int ret;

	if (task->pmi_fd < 0)
		return 0;
	ret = push(&env, strdup("PMI_FD="));
	if (ret == 0)
		ret = add_relay(run, FAVO_RELAY_FD, "pmi", env.v);
	if (ret < 0)
		favo_strv_free(env.v);
	return ret;
}

int favo_task_env(struct favo_run *run, struct favo_task *task, char *const *env,
		  struct favo_err *err)
{
	struct vector out = {0};
	int ret = push(&out, strdup("FAVO_VM=1"));

	for (char *const *e = env; ret == 0 && *e; e++)
		if (goes_into_guest(*e))
			ret = push(&out, strdup(*e));
	/* What a process in a guest had set when it called srun or sbatch. */
	for (char *const *e = env; ret == 0 && *e; e++)
		if (starts(*e, CARRIED) && goes_on(*e + strlen(CARRIED)))
			ret = set(&out, *e + strlen(CARRIED));
	if (ret == 0)
		ret = add_pmix(run, task, &out, env);
	if (ret == 0)
		ret = add_pmi(run, task);
	run->env = out.v;
	return ret < 0 ? favo_fail(err, -ret, "environment: %s", strerror(-ret)) : 0;
}

/* Options of Slurm's commands, which take effect on the host. */
static const char *const command_options[] = {
	"SLURM_", "SLURMD_", "SBATCH_",	 "SALLOC_",   "SRUN_", "SQUEUE_",
	"SINFO_", "SACCT_",  "SCANCEL_", "SCONTROL_", NULL,
};

static const char *const command_private[] = {
	"SLURM_CONF=",
	"SLURM_SPANK_FAVO",
	"SLURM_JWT=",
	NULL,
};

/* What belongs to the step of this task and not to a new one. */
static const char *const step_private[] = {
	"PMI_",		 "PMIX_",	  "FAVO_TASK_", "FAVO_STEP_",
	"FAVO_SESSION=", "FAVO_COMMAND_", CARRIED,	NULL,
};

static bool same_in(char *const *env, const char *entry)
{
	for (; *env; env++)
		if (strcmp(*env, entry) == 0)
			return true;
	return false;
}

int favo_task_command_env(char ***out, char *const *host, char *const *guest,
			  struct favo_err *err)
{
	struct vector v = {0};
	int ret = 0;

	for (char *const *e = host; ret == 0 && *e; e++)
		if (strchr(*e, '=') && !starts_any(*e, step_private))
			ret = push(&v, strdup(*e));
	for (char *const *e = guest; ret == 0 && *e; e++) {
		if (starts_any(*e, command_private) || starts_any(*e, step_private) ||
		    starts(*e, "FAVO_"))
			continue;
		if (starts_any(*e, command_options)) {
			ret = set(&v, *e);
		} else if (!same_in(host, *e)) {
			favo_autofree char *carried = favo_asprintf(CARRIED "%s", *e);

			ret = carried ? set(&v, carried) : -ENOMEM;
		}
	}
	if (ret < 0) {
		favo_strv_free(v.v);
		return favo_fail(err, ENOMEM, "environment: out of memory");
	}
	*out = v.v;
	return 0;
}
