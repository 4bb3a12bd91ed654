// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * A host for SPANK plugins; see spank_host.h. What is refused in which
 * context follows Slurm 22.05.
 */
#include "tests/unit/spank_host.h"

#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

/* The plugin finds these in the program that loads it. */
#pragma GCC visibility push(default)

struct spank_host *host;

/* The callbacks are pointers into the plugin: kept per process. */
static spank_opt_cb_f callbacks[HOST_OPTS];

void host_reset(spank_context_t ctx)
{
	if (!host)
		host = mmap(NULL, sizeof(*host), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	memset(host, 0, sizeof(*host));
	host->ctx = ctx;
}

const char *host_get(struct host_var *vars, const char *name)
{
	for (int i = 0; i < HOST_ENV; i++)
		if (strcmp(vars[i].name, name) == 0)
			return vars[i].value;
	return NULL;
}

void host_set(struct host_var *vars, const char *name, const char *value)
{
	for (int i = 0; i < HOST_ENV; i++) {
		if (vars[i].name[0] && strcmp(vars[i].name, name) != 0)
			continue;
		snprintf(vars[i].name, sizeof(vars[i].name), "%s", name);
		snprintf(vars[i].value, sizeof(vars[i].value), "%s", value);
		return;
	}
	abort();
}

int host_give(const char *option, const char *value)
{
	for (unsigned int i = 0; i < host->options; i++)
		if (strcmp(host->option_names[i], option) == 0)
			return callbacks[i](host->option_vals[i], value,
					    host->ctx == S_CTX_REMOTE);
	abort();
}

spank_context_t spank_context(void)
{
	return host->ctx;
}

int spank_remote(spank_t sp)
{
	(void)sp;
	return host->ctx == S_CTX_REMOTE;
}

spank_err_t spank_option_register(spank_t sp, struct spank_option *opt)
{
	(void)sp;
	if (host->options == HOST_OPTS || strlen(opt->usage) > SPANK_OPTION_MAXLEN)
		return ESPANK_ERROR;
	snprintf(host->option_names[host->options], 64, "%s", opt->name);
	host->option_vals[host->options] = opt->val;
	callbacks[host->options++] = opt->cb;
	return ESPANK_SUCCESS;
}

spank_err_t spank_get_item(spank_t sp, spank_item_t item, ...)
{
	bool remote = host->ctx == S_CTX_REMOTE;
	spank_err_t ret = ESPANK_SUCCESS;
	va_list ap;

	(void)sp;
	va_start(ap, item);
	if (item == S_JOB_ID && host->has_job)
		*va_arg(ap, uint32_t *) = host->job;
	else if (item == S_JOB_UID && host->has_job)
		*va_arg(ap, uid_t *) = host->uid;
	else if (item == S_JOB_GID && host->has_job)
		*va_arg(ap, gid_t *) = host->gid;
	else if (item == S_JOB_STEPID && host->has_step)
		*va_arg(ap, uint32_t *) = host->step;
	else if (item == S_JOB_ALLOC_MEM && remote)
		*va_arg(ap, uint64_t *) = host->mem;
	else if (item == S_JOB_NCPUS && remote)
		*va_arg(ap, uint16_t *) = host->ncpus;
	else if (item == S_JOB_ALLOC_CORES && remote)
		*va_arg(ap, char **) = host->cores;
	else if (item == S_TASK_ID && host->has_task)
		*va_arg(ap, int *) = host->task;
	else if (item == S_JOB_ARGV && (remote || host->ctx == S_CTX_LOCAL)) {
		*va_arg(ap, int *) = host->argc;
		*va_arg(ap, char ***) = host->argv;
	} else
		ret = ESPANK_NOT_AVAIL;
	va_end(ap);
	return ret;
}

spank_err_t spank_getenv(spank_t sp, const char *name, char *buf, int len)
{
	const char *value = host_get(host->env, name);

	(void)sp;
	if (host->ctx != S_CTX_REMOTE)
		return ESPANK_NOT_REMOTE;
	if (!value)
		return ESPANK_ENV_NOEXIST;
	if (snprintf(buf, (size_t)len, "%s", value) >= len)
		return ESPANK_NOSPACE;
	return ESPANK_SUCCESS;
}

spank_err_t spank_setenv(spank_t sp, const char *name, const char *value, int overwrite)
{
	(void)sp;
	if (host->ctx != S_CTX_REMOTE)
		return ESPANK_NOT_REMOTE;
	if (!overwrite && host_get(host->env, name))
		return ESPANK_ENV_EXISTS;
	host_set(host->env, name, value);
	return ESPANK_SUCCESS;
}

static bool may_control(void)
{
	return host->ctx == S_CTX_LOCAL || host->ctx == S_CTX_ALLOCATOR;
}

spank_err_t spank_job_control_setenv(spank_t sp, const char *name, const char *value,
				     int overwrite)
{
	(void)sp;
	(void)overwrite;
	if (!may_control())
		return ESPANK_NOT_LOCAL;
	host_set(host->control, name, value);
	return ESPANK_SUCCESS;
}

spank_err_t spank_job_control_unsetenv(spank_t sp, const char *name)
{
	(void)sp;
	if (!may_control())
		return ESPANK_NOT_LOCAL;
	for (int i = 0; i < HOST_ENV; i++)
		if (strcmp(host->control[i].name, name) == 0)
			host->control[i].name[0] = '\0';
	return ESPANK_SUCCESS;
}

/* It ends slurmstepd in a prolog; nowhere else is it needed. */
spank_err_t spank_job_control_getenv(spank_t sp, const char *name, char *buf, int len)
{
	(void)sp;
	(void)name;
	(void)buf;
	(void)len;
	abort();
}

void slurm_error(const char *fmt, ...)
{
	size_t len = strlen(host->log);
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(host->log + len, sizeof(host->log) - len, fmt, ap);
	va_end(ap);
	len = strlen(host->log);
	snprintf(host->log + len, sizeof(host->log) - len, "\n");
}

#pragma GCC visibility pop
