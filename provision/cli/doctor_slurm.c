// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo doctor: what Slurm must be told so that VMs start and are limited, and
 * a job that proves it. Reads what slurmctld and the files say; changes
 * nothing.
 */
#include "provision/cli/doctor.h"

#include <dlfcn.h>
#include <errno.h>
#include <glob.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/run.h"
#include "common/util.h"

#define WHERE "slurm"
#define SCONTROL_MS 10000
#define OUTPUT_MAX 65536
#define PLUGSTACK_MAX (1u << 20)
#define INCLUDE_DEPTH 4
#define JOB_MS 600000
/* Slurm's PMIx plugin opens this name, which only libpmix-dev brings. */
#define PMIX_LIB "/usr/lib/x86_64-linux-gnu/pmix2/lib/libpmix.so"

/* Value of "Key   = value" in what scontrol prints; "" when absent. */
static void config_value(const char *text, const char *key, char *out, size_t size)
{
	size_t len = strlen(key);

	out[0] = '\0';
	for (const char *line = text; line; line = strchr(line, '\n')) {
		const char *p;

		line += *line == '\n';
		p = line + strcspn(line, " =\n");
		if ((size_t)(p - line) != len || strncmp(line, key, len) != 0)
			continue;
		p += strspn(p, " ");
		if (*p != '=')
			continue;
		p += 1 + strspn(p + 1, " ");
		snprintf(out, size, "%.*s", (int)strcspn(p, "\n"), p);
		return;
	}
}

/* Is word one of the values of a list with commas? Case does not matter. */
static bool has_word(const char *list, const char *word)
{
	size_t len = strlen(word);

	for (const char *p = list; *p; p += strcspn(p, ",") + (p[strcspn(p, ",")] == ','))
		if (strncasecmp(p, word, len) == 0 && (p[len] == ',' || !p[len]))
			return true;
	return false;
}

static void check_slurm_conf(const char *config, json_t *results)
{
	char value[1024];

	config_value(config, "PrologFlags", value, sizeof(value));
	if (!has_word(value, "Alloc") && !has_word(value, "Contain"))
		favo_doctor_add(
			results, WHERE, "PrologFlags", FAVO_CHECK_FAULT,
			"PrologFlags=Alloc,Contain,DeferBatch in slurm.conf, and: "
			"scontrol reconfigure",
			"%s: VMs would start with a node's first step only",
			*value ? value : "(null)");
	else if (!has_word(value, "Contain"))
		favo_doctor_add(results, WHERE, "PrologFlags", FAVO_CHECK_NOTE,
				"add Contain to PrologFlags",
				"%s: VMs start before Slurm tells a job's memory and "
				"cores",
				value);
	else
		favo_doctor_add(results, WHERE, "PrologFlags", FAVO_CHECK_GOOD, NULL,
				"%s", value);
	config_value(config, "ProctrackType", value, sizeof(value));
	if (!strstr(value, "cgroup"))
		favo_doctor_add(
			results, WHERE, "ProctrackType", FAVO_CHECK_FAULT,
			"ProctrackType=proctrack/cgroup in slurm.conf, and restart "
			"slurmctld and the slurmds",
			"%s lets processes outlive their job", value);
	else
		favo_doctor_add(results, WHERE, "ProctrackType", FAVO_CHECK_GOOD, NULL,
				"%s", value);
	config_value(config, "TaskPlugin", value, sizeof(value));
	if (!strstr(value, "cgroup"))
		favo_doctor_add(results, WHERE, "TaskPlugin", FAVO_CHECK_NOTE,
				"TaskPlugin=task/cgroup in slurm.conf",
				"%s: Slurm's limits do not hold for VMs", value);
	else
		favo_doctor_add(results, WHERE, "TaskPlugin", FAVO_CHECK_GOOD, NULL, "%s",
				value);
}

static void check_pmix(const char *config, json_t *results)
{
	char dirs[1024], path[1200];

	config_value(config, "PluginDir", dirs, sizeof(dirs));
	snprintf(path, sizeof(path), "%.*s/mpi_pmix.so", (int)strcspn(dirs, ":"), dirs);
	if (access(path, F_OK) < 0)
		favo_doctor_add(results, WHERE, "PMIx", FAVO_CHECK_NOTE, NULL,
				"no %s: --mpi=pmix is not for this Slurm", path);
	else if (access(PMIX_LIB, R_OK) < 0)
		favo_doctor_add(
			results, WHERE, "PMIx", FAVO_CHECK_FAULT,
			"apt-get install libpmix-dev, on every node and submit host",
			"%s: %m: --mpi=pmix is listed and does not load", PMIX_LIB);
	else
		favo_doctor_add(results, WHERE, "PMIx", FAVO_CHECK_GOOD, NULL,
				"%s is there", PMIX_LIB);
}

/* ---- plugstack.conf ---- */

struct plugstack {
	const char *plugin_dir; /* for names without a slash */
	char line[256]; /* the plugin's, with file and number */
	char path[1024]; /* of the plugin; "": not found */
	char trouble[512]; /* what could not be read */
};

static void read_plugstack(struct plugstack *ps, const char *file, int depth);

static void include_plugstack(struct plugstack *ps, const char *pattern, int depth)
{
	glob_t found;

	if (glob(pattern, 0, NULL, &found) != 0)
		return;
	for (size_t i = 0; i < found.gl_pathc; i++)
		read_plugstack(ps, found.gl_pathv[i], depth + 1);
	globfree(&found);
}

static void plugstack_line(struct plugstack *ps, const char *file, unsigned int number,
			   char *line, int depth)
{
	char *save = NULL, *word, *path;

	line[strcspn(line, "#")] = '\0';
	word = strtok_r(line, " \t\r", &save);
	path = word ? strtok_r(NULL, " \t\r", &save) : NULL;
	if (!path)
		return;
	if (strcmp(word, "include") == 0) {
		include_plugstack(ps, path, depth);
		return;
	}
	if (!strstr(path, "spank_favo.so"))
		return;
	snprintf(ps->line, sizeof(ps->line), "%.200s:%u", file, number);
	if (*path == '/')
		snprintf(ps->path, sizeof(ps->path), "%s", path);
	else
		snprintf(ps->path, sizeof(ps->path), "%.*s/%.200s",
			 (int)strcspn(ps->plugin_dir, ":"), ps->plugin_dir, path);
}

static void read_plugstack(struct plugstack *ps, const char *file, int depth)
{
	favo_autofree char *text = NULL;
	struct favo_err err = {0};
	unsigned int number = 0;

	if (depth > INCLUDE_DEPTH ||
	    favo_file_read(file, PLUGSTACK_MAX, &text, NULL, &err) < 0) {
		snprintf(ps->trouble, sizeof(ps->trouble), "%s",
			 depth > INCLUDE_DEPTH ? "it includes itself" : err.msg);
		return;
	}
	for (char *line = text, *next; line; line = next) {
		next = strchr(line, '\n');
		if (next)
			*next++ = '\0';
		plugstack_line(ps, file, ++number, line, depth);
	}
}

/* Slurm refuses a plugin of another release; 0 when it cannot be told. */
static unsigned int plugin_release(const char *path)
{
	void *plugin = dlopen(path, RTLD_LAZY | RTLD_LOCAL);
	const unsigned int *version = plugin ? dlsym(plugin, "plugin_version") : NULL;
	unsigned int release = version ? *version >> 8 : 0;

	if (plugin)
		dlclose(plugin);
	return release;
}

static void check_plugin_release(const struct plugstack *ps, const char *config,
				 json_t *results)
{
	unsigned int major = 0, minor = 0, release = plugin_release(ps->path);
	char version[64];

	config_value(config, "SLURM_VERSION", version, sizeof(version));
	if (sscanf(version, "%u.%u", &major, &minor) == 2 && release &&
	    release != (major << 8) + minor)
		favo_doctor_add(results, WHERE, "plugin", FAVO_CHECK_FAULT,
				"build Favo against this Slurm and install it",
				"%s was built for Slurm %u.%02u, this is %s", ps->path,
				release >> 8, release & 255, version);
	else
		favo_doctor_add(results, WHERE, "plugin", FAVO_CHECK_GOOD, NULL,
				"%s, named in %s", ps->path, ps->line);
}

static void check_plugstack(const char *config, json_t *results)
{
	char file[1024], dirs[1024];
	struct plugstack ps = {.plugin_dir = dirs};

	config_value(config, "PlugStackConfig", file, sizeof(file));
	config_value(config, "PluginDir", dirs, sizeof(dirs));
	read_plugstack(&ps, file, 0);
	if (!*ps.path && *ps.trouble)
		favo_doctor_add(results, WHERE, "plugin", FAVO_CHECK_FAULT,
				"make the file, with the line: optional "
				"LIBDIR/favo/spank_favo.so",
				"plugstack.conf: %s", ps.trouble);
	else if (!*ps.path)
		favo_doctor_add(results, WHERE, "plugin", FAVO_CHECK_FAULT,
				"add the line: optional LIBDIR/favo/spank_favo.so",
				"%s does not name spank_favo.so", file);
	else if (access(ps.path, R_OK) < 0)
		favo_doctor_add(results, WHERE, "plugin", FAVO_CHECK_FAULT,
				"install Favo's plugin on this host, or mend the path",
				"%s names %s: %m", ps.line, ps.path);
	else
		check_plugin_release(&ps, config, results);
}

void favo_doctor_slurm(struct favo_cli *cli, json_t *results)
{
	char *argv[] = {(char[]){"scontrol"}, (char[]){"show"}, (char[]){"config"}, NULL};
	favo_autofree char *config = malloc(OUTPUT_MAX);
	int ret;

	(void)cli;
	if (!config)
		return;
	ret = favo_run_output(argv, true, SCONTROL_MS, config, OUTPUT_MAX);
	if (ret == -ENOENT) {
		favo_doctor_add(results, WHERE, "slurmctld", FAVO_CHECK_NOTE,
				"install slurm-client where jobs are submitted",
				"this host has no scontrol");
		return;
	}
	if (ret != 0) {
		config[strcspn(config, "\n")] = '\0';
		favo_doctor_add(results, WHERE, "slurmctld", FAVO_CHECK_FAULT,
				"systemctl status slurmctld, on its host",
				"scontrol show config: %.400s",
				ret < 0 ? strerror(-ret) : config);
		return;
	}
	favo_doctor_add(results, WHERE, "slurmctld", FAVO_CHECK_GOOD, NULL, "answers");
	check_slurm_conf(config, results);
	check_plugstack(config, results);
	check_pmix(config, results);
}

/* ---- the test job ---- */

/* Lines "favo-doctor vmN": each VM of the job must have said one. */
static unsigned int count_answers(const char *out)
{
	unsigned int n = 0;

	for (const char *p = out; (p = strstr(p, "favo-doctor vm")); p++)
		n += p == out || p[-1] == '\n';
	return n;
}

void favo_doctor_test_job(const char *image, json_t *results)
{
	favo_autofree char *option = favo_asprintf("--vm-image=%s", image);
	char *argv[] = {(char[]){"srun"},
			(char[]){"-N1-2"},
			(char[]){"--ntasks-per-node=1"},
			(char[]){"--job-name=favo-doctor"},
			(char[]){"--time=8"},
			(char[]){"--mpi=none"},
			option,
			(char[]){"/bin/sh"},
			(char[]){"-c"},
			(char[]){"echo favo-doctor $(hostname)"},
			NULL};
	int64_t start = favo_now_ms();
	char out[4096];
	int ret;

	if (!option)
		return;
	fprintf(stderr, "favo doctor: a job of image %s on up to two nodes ...\n", image);
	ret = favo_run_output(argv, true, JOB_MS, out, sizeof(out));
	if (ret == 0 && count_answers(out))
		favo_doctor_add(results, "job", "test job", FAVO_CHECK_GOOD, NULL,
				"%u virtual machine%s of %s answered after %.1f s",
				count_answers(out), count_answers(out) == 1 ? "" : "s",
				image, (double)(favo_now_ms() - start) / 1000);
	else if (ret == 0)
		favo_doctor_add(results, "job", "test job", FAVO_CHECK_FAULT,
				"see plugin above: srun took --vm-image and ran nothing "
				"in a VM",
				"the task ran on the node itself");
	else
		favo_doctor_add(results, "job", "test job", FAVO_CHECK_FAULT, NULL,
				"srun: %.400s", ret < 0 ? strerror(-ret) : out);
}
