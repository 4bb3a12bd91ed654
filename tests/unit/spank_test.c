// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The SPANK plugin under a fake Slurm: each hook in each context, with the
 * daemons there, down, silent and lying, and with a hostile environment. The
 * plugin is loaded as Slurm loads it; a hook runs in a forked child, as some
 * end their process.
 */
#include "tests/unit/spank_world.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "common/json.h"
#include "common/util.h"

#define BATCH 0xfffffffbu
#define EXTERN 0xfffffffcu
#define INTERACTIVE 0xfffffffau

/* ---- what is exported ---- */

static void test_exports_only_what_slurm_asks_for(void **state)
{
	FILE *f = popen("nm -D --defined-only " SPANK_PLUGIN_PATH, "r");
	char line[256], name[128], kind;
	int n = 0;

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f)) {
		assert_int_equal(sscanf(line, "%*s %c %127s", &kind, name), 2);
		if (strncmp(name, "slurm_spank_", 12) != 0 &&
		    strncmp(name, "plugin_", 7) != 0 &&
		    strcmp(name, "spank_plugin_version") != 0)
			fail_msg("exports %s", name);
		n++;
	}
	pclose(f);
	assert_true(n >= 10);
	assert_string_equal(dlsym(favo_world.so, "plugin_name"), "favo");
	assert_string_equal(dlsym(favo_world.so, "plugin_type"), "spank");
}

static void test_links_only_libc(void **state)
{
	FILE *f = popen("readelf -d " SPANK_PLUGIN_PATH, "r");
	char line[256];

	(void)state;
	assert_non_null(f);
	while (fgets(line, sizeof(line), f))
		if (strstr(line, "NEEDED") && !strstr(line, "libc.so") &&
		    !strstr(line, "libasan") && !strstr(line, "libubsan"))
			fail_msg("%s", line);
	pclose(f);
}

/* ---- without the flag ---- */

static int scene_no_flag(void)
{
	static const spank_context_t all[] = {S_CTX_LOCAL, S_CTX_ALLOCATOR, S_CTX_REMOTE,
					      S_CTX_SLURMD, S_CTX_JOB_SCRIPT};

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(all); i++) {
		host_reset(all[i]);
		host->has_job = host->has_step = host->has_task = true;
		host->job = 12;
		host->argc = 1;
		host->argv[0] = host->words[0];
		if (all[i] == S_CTX_JOB_SCRIPT) {
			if (favo_world_call("slurm_spank_job_prolog") ||
			    favo_world_call("slurm_spank_job_epilog"))
				return 1;
			continue;
		}
		if (favo_world_start() || favo_world_call("slurm_spank_init_post_opt"))
			return 2;
		if (all[i] == S_CTX_LOCAL &&
		    favo_world_call("slurm_spank_local_user_init"))
			return 3;
		if (all[i] == S_CTX_REMOTE && favo_world_call("slurm_spank_task_init"))
			return 4;
		if (host->argv[0] != host->words[0] || host->env[0].name[0] ||
		    host->control[0].name[0] || host->log[0])
			return 5;
	}
	return 0;
}

static void test_without_the_flag_nothing_happens(void **state)
{
	(void)state;
	/* No daemon, no favo-submit, no folder: none of them is looked at. */
	assert_int_equal(favo_world_in_child(scene_no_flag), 0);
	assert_false(favo_world_has_file("asked"));
}

static void test_cost_without_the_flag(void **state)
{
	enum { ROUNDS = 200 };
	int64_t start_ns = favo_now_ns(), us;

	(void)state;
	for (int i = 0; i < ROUNDS; i++) {
		void *so = dlopen(SPANK_PLUGIN_PATH, RTLD_LAZY);

		assert_int_equal(scene_no_flag(), 0);
		dlclose(so);
	}
	us = (favo_now_ns() - start_ns) / 1000 / ROUNDS;
	print_message("all hooks of all contexts without the flag: %ld us\n", (long)us);
	/* Five contexts at once stay under the limit of one. */
	assert_true(us < 1000);
}

/* ---- submission ---- */

static int scene_submit(void)
{
	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start() || host_give("vm-image", "debian12") ||
	    host_give("vm-mem", "512M"))
		return 100;
	if (favo_world_call("slurm_spank_init_post_opt"))
		return 101;
	host_set(host->env, "seen", getenv("SLURM_SPANK_FAVO_GRANT"));
	return 0;
}

static void test_submission_carries_the_grant(void **state)
{
	char asked[256];

	(void)state;
	favo_world_fake_submit("echo 'grant abc.def'");
	assert_int_equal(favo_world_in_child(scene_submit), 0);
	assert_string_equal(host_get(host->control, "FAVO_GRANT"), "abc.def");
	assert_string_equal(host_get(host->env, "seen"), "abc.def");
	favo_world_read_file("asked", asked, sizeof(asked));
	assert_string_equal(asked, "--vm-image=debian12\n--vm-mem=512M\n");
	assert_string_equal(host->log, "");
}

static int scene_env_default(void)
{
	host_reset(S_CTX_LOCAL);
	if (favo_world_start())
		return 100;
	setenv("FAVO_VM_IMAGE", "from-env", 1);
	setenv("FAVO_VM_CPUS", "2", 1);
	setenv("FAVO_VM_NETWORK", "", 1);
	if (host_give("vm-cpus", "3"))
		return 101;
	return favo_world_call("slurm_spank_init_post_opt");
}

static void test_environment_gives_defaults(void **state)
{
	char asked[256];

	(void)state;
	favo_world_fake_submit("echo 'grant abc.def'");
	assert_int_equal(favo_world_in_child(scene_env_default), 0);
	favo_world_read_file("asked", asked, sizeof(asked));
	assert_string_equal(asked, "--vm-image=from-env\n--vm-cpus=3\n");
}

/* sbatch reads the first component's options from its environment again. */
static int scene_components(void)
{
	static const char var[] = "SLURM_SPANK__SLURM_SPANK_OPTION_favo_vm_image";

	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start() || host_give("vm-image", "debian12") ||
	    host_give("vm-mount", "/data") ||
	    favo_world_call("slurm_spank_init_post_opt"))
		return 100;
	setenv(var, "debian12", 1);
	if (host_give("vm-image", "rocky") || getenv(var))
		return 101;
	return favo_world_call("slurm_spank_init_post_opt");
}

static void test_components(void **state)
{
	char asked[256];

	(void)state;
	favo_world_fake_submit("echo 'grant abc.def'");
	assert_int_equal(favo_world_in_child(scene_components), 0);
	favo_world_read_file("asked", asked, sizeof(asked));
	assert_string_equal(asked, "--vm-image=rocky\n");
}

static int scene_exit_code(void)
{
	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start() || host_give("vm-image", "debian12"))
		return 100;
	setenv("SLURM_EXIT_ERROR", "77", 1);
	return favo_world_call("slurm_spank_init_post_opt");
}

static void test_submission_errors_end_the_command(void **state)
{
	static const struct {
		const char *body;
		const char *sentence;
	} rows[] = {
		{"echo 'error there is no image \"debain\"; did you mean debian12?'; "
		 "exit 1",
		 "favo: there is no image \"debain\"; did you mean debian12?\n"},
		{"exit 0", "ended without an answer"},
		{"kill -9 $$", "ended without an answer"},
		{"printf 'grant abc.def'", "ended without an answer"}, /* cut off */
		{"echo 'grant '", "ended without an answer"},
		{"head -c 100000 /dev/zero | tr '\\0' x", "ended without an answer"},
		{"exec >&-; exec sleep 0.1", "ended without an answer"},
	};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(rows); i++) {
		favo_world_fake_submit(rows[i].body);
		assert_int_equal(favo_world_in_child(scene_submit), 1);
		if (!strstr(host->log, rows[i].sentence))
			fail_msg("%s: %s", rows[i].body, host->log);
		assert_null(host_get(host->control, "FAVO_GRANT"));
	}
	assert_int_equal(favo_world_in_child(scene_exit_code), 77);
}

/* Each "busy" line buys ten seconds, and is no part of the answer. */
static void test_import_takes_its_time(void **state)
{
	int ret;
	int64_t us;

	(void)state;
	favo_world_fake_submit("printf bu; printf 'sy\\nbusy\\n'; sleep 6; echo busy; "
			       "sleep 6; printf 'busy\\ngrant abc.def\\n'");
	us = favo_world_elapsed_us(scene_submit, &ret);
	assert_int_equal(ret, 0);
	assert_in_range(us, 11500000, 60000000);
	assert_string_equal(host_get(host->control, "FAVO_GRANT"), "abc.def");
	favo_world_fake_submit("echo busy; echo 'error no such image'");
	assert_int_equal(favo_world_in_child(scene_submit), 1);
	assert_non_null(strstr(host->log, "favo: no such image"));
}

static void test_missing_favo_submit(void **state)
{
	(void)state;
	assert_int_equal(favo_world_in_child(scene_submit), 1);
	assert_non_null(strstr(host->log, "is Favo installed on this host?"));
}

static void test_silent_favo_submit_is_given_up(void **state)
{
	int ret;
	int64_t us;

	(void)state;
	favo_world_fake_submit("exec sleep 60");
	us = favo_world_elapsed_us(scene_submit, &ret);
	assert_int_equal(ret, 1);
	assert_in_range(us, 9500000, 12000000);
	assert_non_null(strstr(host->log, "no answer within 10 s"));
}

static int scene_shape_without_image(void)
{
	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start() || host_give("vm-cpus", "2"))
		return 100;
	return favo_world_call("slurm_spank_init_post_opt");
}

static int scene_shape_from_env(void)
{
	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start())
		return 100;
	setenv("FAVO_VM_MEM", "2G", 1);
	return favo_world_call("slurm_spank_init_post_opt");
}

static void test_shape_without_image(void **state)
{
	(void)state;
	assert_int_equal(favo_world_in_child(scene_shape_without_image), 1);
	assert_non_null(strstr(host->log, "without --vm-image"));
	/* A site's or user's default must not break jobs without VMs. */
	assert_int_equal(favo_world_in_child(scene_shape_from_env), 0);
	assert_string_equal(host->log, "");
}

static int scene_bad_values(void)
{
	static char huge[5000];

	memset(huge, 'a', sizeof(huge) - 1);
	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start())
		return 100;
	if (host_give("vm-image", "") == 0 || host_give("vm-image", NULL) == 0)
		return 101;
	if (host_give("vm-image", huge) == 0)
		return 102;
	setenv("FAVO_VM_IMAGE", huge, 1);
	return favo_world_call("slurm_spank_init_post_opt");
}

static void test_bad_values(void **state)
{
	(void)state;
	assert_int_equal(favo_world_in_child(scene_bad_values), 1);
	assert_false(favo_world_has_file("asked"));
}

static int scene_stale_grant(void)
{
	host_reset(S_CTX_ALLOCATOR);
	if (favo_world_start())
		return 100;
	setenv("SLURM_SPANK_FAVO_GRANT", "of.another", 1);
	setenv("SLURM_JOB_ID", "12", 1);
	host_set(host->control, "FAVO_GRANT", "of.another");
	if (favo_world_call("slurm_spank_init_post_opt"))
		return 101;
	return getenv("SLURM_SPANK_FAVO_GRANT") || host_get(host->control, "FAVO_GRANT");
}

static void test_sbatch_in_a_job_drops_its_grant(void **state)
{
	(void)state;
	assert_int_equal(favo_world_in_child(scene_stale_grant), 0);
}

/* ---- srun in an allocation ---- */

static int inside(const char *grant, const char *inherited, const char *image)
{
	host_reset(S_CTX_LOCAL);
	if (favo_world_start())
		return 100;
	setenv("SLURM_JOB_ID", "12", 1);
	if (grant)
		setenv("SLURM_SPANK_FAVO_GRANT", grant, 1);
	if (inherited) {
		setenv("SLURM_SPANK__SLURM_SPANK_OPTION_favo_vm_image", inherited, 1);
		host_give("vm-image", inherited);
	}
	if (image && host_give("vm-image", image))
		return 101;
	return favo_world_call("slurm_spank_init_post_opt");
}

static int scene_inside_inherits(void)
{
	return inside("abc.def", "debian12", NULL);
}

static int scene_inside_same(void)
{
	return inside("abc.def", "debian12", "debian12");
}

static int scene_inside_other(void)
{
	return inside("abc.def", "debian12", "rocky9");
}

static int scene_inside_plain(void)
{
	return inside(NULL, NULL, "debian12");
}

static void test_step_in_an_allocation(void **state)
{
	(void)state;
	favo_world_fake_submit("echo 'grant must.not.be.asked'");
	assert_int_equal(favo_world_in_child(scene_inside_inherits), 0);
	assert_int_equal(favo_world_in_child(scene_inside_same), 0);
	assert_int_equal(favo_world_in_child(scene_inside_other), 1);
	assert_non_null(
		strstr(host->log, "run debian12; a step cannot have another image"));
	assert_int_equal(favo_world_in_child(scene_inside_plain), 1);
	assert_non_null(strstr(host->log, "give --vm-image to salloc or sbatch"));
	assert_false(favo_world_has_file("asked"));
}

/* ---- prolog, epilog, slurmstepd ---- */

static int scene_prolog(void)
{
	favo_world_clear_env();
	host_reset(S_CTX_JOB_SCRIPT);
	host->has_job = true;
	host->job = 12;
	host->uid = 1000;
	host->gid = 100;
	setenv("SPANK_FAVO_GRANT", "abc.def", 1);
	setenv("SLURM_NODELIST", "n[1-2]", 1);
	setenv("SLURMD_NODENAME", "n1", 1);
	setenv("SLURM_JOB_RESTART_COUNT", "3", 1);
	return favo_world_call("slurm_spank_job_prolog");
}

static void test_prolog_prepares(void **state)
{
	(void)state;
	favo_world_fake_noded("{\"ok\":true}\n");
	assert_int_equal(favo_world_in_child(scene_prolog), 0);
	assert_string_equal(favo_world.request,
			    "{\"op\":\"prepare\",\"job\":12,\"restart\":3,\"uid\":1000,"
			    "\"gid\":100,\"nodelist\":\"n[1-2]\",\"node\":\"n1\","
			    "\"grant\":\"abc.def\"}\n");
	assert_string_equal(host->log, "");
}

static void test_prolog_never_fails(void **state)
{
	static const char *const answers[] = {
		"{\"ok\":false,\"error\":{\"cause\":\"the grant is not for you\"}}\n", "",
		"\n", "{\"ok\":true}", /* no end of line, then closed */
		"garbage\n"};

	(void)state;
	assert_int_equal(favo_world_in_child(scene_prolog), 0); /* no socket at all */
	assert_non_null(strstr(host->log, "No such file"));
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(answers); i++) {
		favo_world_fake_noded(answers[i]);
		assert_int_equal(favo_world_in_child(scene_prolog), 0);
		assert_non_null(strstr(host->log, "job 12: prepare"));
		favo_world_end_noded();
	}
	/* The socket is left behind, and nobody listens. */
	assert_int_equal(favo_world_in_child(scene_prolog), 0);
	assert_non_null(strstr(host->log, "refused"));
}

static int scene_hostile_prolog(void)
{
	favo_world_clear_env();
	host_reset(S_CTX_JOB_SCRIPT);
	host->has_job = true;
	host->job = 12;
	setenv("SPANK_FAVO_GRANT", "a\",\"op\":\"destroy\"}\n{\"x\\\x01\x80\xff", 1);
	setenv("SLURM_NODELIST", "\\\"n1", 1);
	setenv("SLURM_JOB_RESTART_COUNT", "-1e9999;rm", 1);
	return favo_world_call("slurm_spank_job_prolog");
}

static int scene_huge_prolog(void)
{
	char *huge = malloc(100000);

	memset(huge, '"', 99999);
	huge[99999] = '\0';
	favo_world_clear_env();
	host_reset(S_CTX_JOB_SCRIPT);
	host->has_job = true;
	setenv("SPANK_FAVO_GRANT", huge, 1);
	return favo_world_call("slurm_spank_job_prolog");
}

static void test_hostile_environment(void **state)
{
	json_t *obj;

	(void)state;
	favo_world_fake_noded("{\"ok\":true}\n");
	assert_int_equal(favo_world_in_child(scene_hostile_prolog), 0);
	assert_non_null(strchr(favo_world.request, '\n'));
	assert_int_equal(strchr(favo_world.request, '\n')[1], '\0');
	assert_int_equal(favo_json_parse(&obj, favo_world.request,
					 strlen(favo_world.request), NULL),
			 0);
	assert_string_equal(json_string_value(json_object_get(obj, "op")), "prepare");
	assert_string_equal(json_string_value(json_object_get(obj, "nodelist")),
			    "\\\"n1");
	json_decref(obj);
	favo_world_end_noded();
	assert_int_equal(favo_world_in_child(scene_huge_prolog), 0);
	assert_non_null(strstr(host->log, "longer than"));
}

static int scene_epilog(void)
{
	favo_world_clear_env();
	host_reset(S_CTX_JOB_SCRIPT);
	host->has_job = true;
	host->job = 12;
	setenv("SPANK_FAVO_GRANT", "abc.def", 1);
	return favo_world_call("slurm_spank_job_epilog");
}

static int scene_epilog_without_grant(void)
{
	favo_world_clear_env();
	host_reset(S_CTX_JOB_SCRIPT);
	host->has_job = true;
	host->job = 12;
	return favo_world_call("slurm_spank_job_epilog");
}

static void test_epilog(void **state)
{
	char path[160];

	(void)state;
	favo_world_fake_noded("{\"ok\":true}\n");
	assert_int_equal(favo_world_in_child(scene_epilog), 0);
	assert_string_equal(favo_world.request, "{\"op\":\"destroy\",\"job\":12}\n");
	assert_false(favo_world_has_file("job/12.ended"));
	favo_world_end_noded();
	/* noded is down: word is left for its next start. */
	assert_int_equal(favo_world_in_child(scene_epilog), 0);
	assert_true(favo_world_has_file("job/12.ended"));
	/* A link in its place is not followed. */
	snprintf(path, sizeof(path), "%s/job/12.ended", favo_world.dir);
	unlink(path);
	assert_int_equal(symlink("/tmp/favo-must-not-be-made", path), 0);
	assert_int_equal(favo_world_in_child(scene_epilog), 0);
	assert_int_not_equal(access("/tmp/favo-must-not-be-made", F_OK), 0);
	unlink(path);
	/* A job of which only noded's file is known is destroyed, too. */
	favo_world_write_file("job/12", 0600, "");
	favo_world_fake_noded("{\"ok\":true}\n");
	assert_int_equal(favo_world_in_child(scene_epilog_without_grant), 0);
	assert_non_null(strstr(favo_world.request, "destroy"));
}

static uint32_t stepd_step;
static int scene_stepd(void)
{
	host_reset(S_CTX_REMOTE);
	host->has_job = host->has_step = true;
	host->job = 12;
	host->step = stepd_step;
	host->mem = 900;
	host->ncpus = 2;
	snprintf(host->cores, sizeof(host->cores), "0-1");
	if (favo_world_start())
		return 100;
	if (favo_world_call("slurm_spank_init_post_opt") ||
	    (stepd_step == EXTERN && favo_world.request[0]))
		return 101; /* it has its control groups after its fork only */
	return favo_world_call("slurm_spank_task_post_fork");
}

static int scene_stepd_huge(void)
{
	host_reset(S_CTX_REMOTE);
	host->has_job = host->has_step = true;
	host->job = 12;
	memset(host->cores, '\x01', sizeof(host->cores) - 1);
	if (favo_world_start())
		return 100;
	return favo_world_call("slurm_spank_init_post_opt");
}

static void test_stepd_boots(void **state)
{
	int64_t us;
	int ret;

	(void)state;
	favo_world_write_file("job/12", 0600, "");
	stepd_step = EXTERN;
	favo_world_fake_noded("{\"ok\":true}\n");
	assert_int_equal(favo_world_in_child(scene_stepd), 0);
	assert_string_equal(favo_world.request,
			    "{\"op\":\"boot\",\"job\":12,\"mem_mb\":900,"
			    "\"cores\":\"0-1\",\"ncpus\":2,\"extern\":true}\n");
	favo_world_end_noded();
	favo_world_fake_noded("{\"ok\":true}\n");
	stepd_step = BATCH;
	assert_int_equal(favo_world_in_child(scene_stepd), 0);
	assert_non_null(strstr(favo_world.request, "boot"));
	assert_null(strstr(favo_world.request, "extern"));
	favo_world_end_noded();
	favo_world_fake_noded(NULL);
	us = favo_world_elapsed_us(scene_stepd, &ret);
	assert_int_equal(ret, 0);
	assert_in_range(us, 1900000, 3000000);
	assert_non_null(strstr(host->log, "timed out"));
	favo_world_end_noded();
	assert_int_equal(favo_world_in_child(scene_stepd_huge), 0);
}

/* ---- tasks ---- */

static uint32_t task_step;
static bool task_option, task_grant, task_multi;
static char task_config[512];
static int task_number;

static int scene_task(void)
{
	int ret;

	host_reset(S_CTX_REMOTE);
	host->has_job = host->has_step = host->has_task = true;
	host->job = 12;
	host->step = task_step;
	host->task = task_number;
	host->argc = 2;
	snprintf(host->words[0], sizeof(host->words[0]), "hostname");
	snprintf(host->words[1], sizeof(host->words[1]), "-f");
	host->argv[0] = host->words[0];
	host->argv[1] = *task_config ? task_config : host->words[1];
	if (favo_world_start() || (task_option && host_give("vm-image", "debian12")))
		return 100;
	if (task_grant)
		host_set(host->env, "SLURM_SPANK_FAVO_GRANT",
			 "a.much.longer.text.than.eight");
	if (task_multi)
		host_set(host->env, "FAVO_STEP_MULTI_PROG", "1");
	ret = favo_world_call("slurm_spank_task_init");
	snprintf(host->argv0, sizeof(host->argv0), "%s", host->argv[0]);
	return ret;
}

static void expect_task(bool in_guest)
{
	char launcher[96];

	snprintf(launcher, sizeof(launcher), "%s/favo-task", favo_world.dir);
	assert_int_equal(favo_world_in_child(scene_task), 0);
	assert_string_equal(host->argv0, in_guest ? launcher : "hostname");
	if (!in_guest) {
		assert_null(host_get(host->env, "FAVO_TASK_ARGV0"));
		return;
	}
	assert_string_equal(host_get(host->env, "FAVO_TASK_ARGV0"), "hostname");
	assert_string_equal(host_get(host->env, "FAVO_TASK_JOB"), "12");
}

/* slurmstepd has made the task's argv of the file: nothing is changed. */
static void expect_multi_task(void)
{
	assert_int_equal(favo_world_in_child(scene_task), 0);
	assert_string_equal(host->argv0, "hostname");
	assert_null(host_get(host->env, "FAVO_TASK_ARGV0"));
}

static void test_tasks(void **state)
{
	(void)state;
	task_step = 0;
	task_number = 0;
	task_option = task_grant = task_multi = false;
	expect_task(false);
	task_option = true;
	expect_task(true);
	task_option = false;
	task_grant = true;
	expect_task(true);
	task_grant = false;
	favo_world_write_file("job/12", 0600, "");
	expect_task(true);
	task_step = BATCH;
	expect_task(true);
	task_step = EXTERN;
	expect_task(false);
	task_step = INTERACTIVE;
	expect_task(false);
	task_step = 4;
	task_multi = true;
	assert_int_equal(favo_world_in_child(scene_task), 1);
	assert_string_equal(host->argv0, "");
	snprintf(task_config, sizeof(task_config), "0 %s/favo-task echo\n",
		 favo_world.dir);
	expect_multi_task();
	snprintf(task_config, sizeof(task_config),
		 "# none\n\n 0-1\t%s/favo-task echo a \\\n0 b\n*  %s/favo-task %%t\n",
		 favo_world.dir, favo_world.dir);
	expect_multi_task();
	snprintf(task_config, sizeof(task_config), "0 %s/favo-task echo\n1 hostname\n",
		 favo_world.dir);
	assert_int_equal(favo_world_in_child(scene_task), 1);
	snprintf(task_config, sizeof(task_config), "0 %s/favo-taskx\n", favo_world.dir);
	assert_int_equal(favo_world_in_child(scene_task), 1);
	snprintf(task_config, sizeof(task_config), "# nothing\n");
	assert_int_equal(favo_world_in_child(scene_task), 1);
}

/* srun's own command line is read: this program is started again as srun. */
static int scene_multi_prog(void)
{
	char wanted[1024];
	int ret;

	host_reset(S_CTX_LOCAL);
	if (favo_world_start() || host_give("vm-image", "debian12"))
		return 100;
	host->argc = 2; /* Slurm counts the file's content */
	host->argv[0] = "prog.conf";
	host->argv[1] = "0 a\n# 1 b\n\n1-2\tb c\\\nd\n3 e";
	snprintf(
		wanted, sizeof(wanted),
		"0 %s/favo-task a\n# 1 b\n\n1-2\t%s/favo-task b c\\\nd\n3 %s/favo-task e",
		favo_world.dir, favo_world.dir, favo_world.dir);
	if (favo_world_call("slurm_spank_local_user_init") != 0)
		return 101;
	if (!getenv("FAVO_STEP_MULTI_PROG"))
		return strncmp(host->argv[1], "0 a\n", 4) ? 102 : 0;
	ret = strcmp(host->argv[1], wanted) ? 103 : 9;
	free(host->argv[1]); /* as srun never does */
	return ret;
}

static int as_srun(char **argv)
{
	int status;
	pid_t pid = fork();

	if (pid == 0) {
		setenv("FAVO_TEST_SRUN", "1", 1);
		execv("/proc/self/exe", argv);
		_exit(127);
	}
	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000;
}

static void test_multi_prog(void **state)
{
	char *with[] = {"srun", "-n2", "--multi-prog", "prog.conf", NULL};
	char *shortened[] = {"srun", "--multi", "-n2", "prog.conf", NULL};
	char *without[] = {"srun", "-n2", "prog", "--multi-prog", NULL};
	char *other[] = {"srun", "--mem=2", "prog", "a", NULL};

	(void)state;
	assert_int_equal(as_srun(with), 9);
	assert_int_equal(as_srun(shortened), 9);
	assert_int_equal(as_srun(without), 0);
	assert_int_equal(as_srun(other), 0);
}

int main(void)
{
#define TEST(name)                                                                       \
	cmocka_unit_test_setup_teardown(name, favo_world_setup, favo_world_teardown)
	static const struct CMUnitTest tests[] = {
		TEST(test_exports_only_what_slurm_asks_for),
		TEST(test_links_only_libc),
		TEST(test_without_the_flag_nothing_happens),
		TEST(test_cost_without_the_flag),
		TEST(test_submission_carries_the_grant),
		TEST(test_environment_gives_defaults),
		TEST(test_submission_errors_end_the_command),
		TEST(test_import_takes_its_time),
		TEST(test_missing_favo_submit),
		TEST(test_silent_favo_submit_is_given_up),
		TEST(test_shape_without_image),
		TEST(test_bad_values),
		TEST(test_sbatch_in_a_job_drops_its_grant),
		TEST(test_step_in_an_allocation),
		TEST(test_prolog_prepares),
		TEST(test_prolog_never_fails),
		TEST(test_hostile_environment),
		TEST(test_epilog),
		TEST(test_components),
		TEST(test_stepd_boots),
		TEST(test_tasks),
		TEST(test_multi_prog),
	};

	if (getenv("FAVO_TEST_SRUN")) {
		int ret;

		unsetenv("FAVO_TEST_SRUN");
		favo_world_setup(NULL);
		ret = scene_multi_prog();
		favo_world_teardown(NULL);
		return ret;
	}
	host_reset(S_CTX_LOCAL);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
