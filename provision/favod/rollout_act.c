// SPDX-License-Identifier: GPL-2.0-or-later
/* Rollout of an image over nodes: carrying actions out; see rollout_act.h. */
#include "provision/favod/rollout_act.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/run.h"
#include "common/str.h"
#include "common/util.h"

#define SCONTROL_MS 30000
#define REBOOT_MS 120000
#define WORDS_MAX 64
#define OUTPUT 8192
#define REASON "favo rollout"

static enum favo_rollout_result say(struct favo_rollout_act *a,
				    enum favo_rollout_result result, const char *fmt, ...)
	favo_printf(3, 4);
static enum favo_rollout_result say(struct favo_rollout_act *a,
				    enum favo_rollout_result result, const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(a->note, sizeof(a->note), fmt, ap);
	va_end(ap);
	/* It goes into JSON and terminals: one line of plain text. */
	for (char *p = a->note; *p; p++)
		if ((unsigned char)*p < ' ' || (unsigned char)*p >= 0x7f)
			*p = ' ';
	return result;
}

/* One word of a command with its % filled in. */
static char *expand(const char *word, size_t len, const char *node, const char *verb,
		    const char *digest)
{
	char buf[4096];
	size_t n = 0;

	for (size_t i = 0; i < len; i++) {
		char plain[2] = {word[i], '\0'};
		const char *put = plain;
		size_t put_len;

		if (word[i] == '%' && i + 1 < len) {
			i++;
			put = word[i] == 'n'   ? node
			      : word[i] == 'a' ? verb
			      : word[i] == 'd' ? digest
					       : "%";
		}
		put_len = strlen(put);
		if (n + put_len >= sizeof(buf))
			return NULL;
		memcpy(buf + n, put, put_len);
		n += put_len;
	}
	buf[n] = '\0';
	return strdup(buf);
}

char **favo_rollout_command(const char *text, const char *node, const char *word,
			    const char *digest)
{
	char **argv = calloc(WORDS_MAX + 1, sizeof(*argv));
	size_t n = 0;

	while (argv && *(text += strspn(text, " \t"))) {
		size_t len = strcspn(text, " \t");

		argv[n] = n < WORDS_MAX ? expand(text, len, node, word, digest) : NULL;
		if (!argv[n++]) {
			favo_strv_free(argv);
			return NULL;
		}
		text += len;
	}
	return argv;
}

/* 0, or -1 with the reason in the note. */
static int run_in(struct favo_rollout_act *a, char *const argv[], int timeout_ms,
		  char *out, size_t size)
{
	int ret = favo_run_output(argv, true, timeout_ms, out, size);

	if (ret == 0)
		return 0;
	if (ret == -ETIMEDOUT)
		say(a, FAVO_RESULT_FAILED, "%s was not done within %d s", argv[0],
		    timeout_ms / 1000);
	else if (ret < 0)
		say(a, FAVO_RESULT_FAILED, "%s: %s", argv[0], strerror(-ret));
	else
		say(a, FAVO_RESULT_FAILED, "%s ended with %d: %.250s", argv[0], ret,
		    out[0] ? out : "no word on stderr");
	return -1;
}

#define run(a, timeout_ms, ...)                                                          \
	({                                                                               \
		char out_[OUTPUT];                                                       \
		const char *argv_[] = {__VA_ARGS__, NULL};                               \
		run_in(a, (char *const *)(const void *)argv_, timeout_ms, out_,          \
		       sizeof(out_));                                                    \
	})

/* ---- Slurm ---- */

struct slurm_node {
	char state[128]; /* "IDLE+DRAIN" */
	char reason[200];
	char partition[64]; /* the first one */
};

/* The value behind key, up to a blank, or to the line's end when rest is set. */
static void take_value(char *buf, size_t size, const char *text, const char *key,
		       bool rest)
{
	const char *at = strstr(text, key);

	buf[0] = '\0';
	if (!at)
		return;
	at += strlen(key);
	snprintf(buf, size, "%.*s", (int)strcspn(at, rest ? "\n" : " \n"), at);
}

static int show_slurm(struct favo_rollout_act *a, struct slurm_node *sn)
{
	const char *argv[] = {"scontrol", "-o", "show", "node", a->node, NULL};
	char out[OUTPUT];

	if (run_in(a, (char *const *)(const void *)argv, SCONTROL_MS, out, sizeof(out)) <
	    0)
		return -1;
	take_value(sn->state, sizeof(sn->state), out, " State=", false);
	take_value(sn->reason, sizeof(sn->reason), out, " Reason=", true);
	take_value(sn->partition, sizeof(sn->partition), out, " Partitions=", false);
	sn->partition[strcspn(sn->partition, ",")] = '\0';
	if (sn->state[0])
		return 0;
	say(a, FAVO_RESULT_FAILED, "scontrol does not tell the state of %s", a->node);
	return -1;
}

static bool has_any(const char *text, const char *const *words)
{
	for (; *words; words++)
		if (strstr(text, *words))
			return true;
	return false;
}

static bool is_away(const struct slurm_node *sn)
{
	static const char *const words[] = {"DRAIN", "DOWN", "FAIL", NULL};

	return has_any(sn->state, words);
}

static int set_drain(struct favo_rollout_act *a, const char *why)
{
	char name[300], reason[FAVO_ROLLOUT_NOTE + 64];

	snprintf(name, sizeof(name), "nodename=%s", a->node);
	snprintf(reason, sizeof(reason), "reason=" REASON " %" PRId64 "%s%.200s",
		 a->rollout, *why ? ": " : "", why);
	return run(a, SCONTROL_MS, "scontrol", "update", name, "state=drain", reason);
}

static int set_resume(struct favo_rollout_act *a)
{
	struct slurm_node sn;
	char name[300];

	if (show_slurm(a, &sn) < 0)
		return -1;
	if (!is_away(&sn))
		return 0;
	snprintf(name, sizeof(name), "nodename=%s", a->node);
	return run(a, SCONTROL_MS, "scontrol", "update", name, "state=resume");
}

/* ---- actions ---- */

static enum favo_rollout_result act_drain(struct favo_rollout_act *a)
{
	favo_autonode struct favo_node *node = NULL;
	struct favo_err err = {0};
	struct slurm_node sn = {0};
	bool away = false;

	if (favo_nodes_get(a->nodes, a->node, &node, &err) < 0)
		return say(a, FAVO_RESULT_SKIP, "%s", err.msg);
	if (a->opts->slurm) {
		if (show_slurm(a, &sn) < 0)
			return FAVO_RESULT_FAILED;
		away = strstr(sn.state, "DRAIN");
		if (away && strncmp(sn.reason, REASON, strlen(REASON)) != 0)
			return say(a, FAVO_RESULT_SKIP, "somebody else drained it: %s",
				   sn.reason);
	}
	if (!away && node->booted && strcmp(node->booted, a->digest) == 0 &&
	    node->phase && strcmp(node->phase, "up") == 0)
		return say(a, FAVO_RESULT_ALREADY, "it runs this image already");
	if (!a->opts->slurm || set_drain(a, "") == 0)
		return FAVO_RESULT_OK;
	return FAVO_RESULT_FAILED;
}

static enum favo_rollout_result act_see_idle(struct favo_rollout_act *a)
{
	static const char *const busy[] = {"ALLOC", "MIXED", "COMPLETING", NULL};
	const char *argv[] = {"squeue", "-h", "-w", a->node, "-o", "%i (%L left)", NULL};
	struct slurm_node sn;
	char out[OUTPUT];

	if (!a->opts->slurm)
		return FAVO_RESULT_OK;
	if (show_slurm(a, &sn) < 0) /* slurmctld is away for a moment, perhaps */
		return FAVO_RESULT_NOT_YET;
	if (!has_any(sn.state, busy))
		return FAVO_RESULT_OK;
	if (run_in(a, (char *const *)(const void *)argv, SCONTROL_MS, out, sizeof(out)) <
		    0 ||
	    !out[0])
		return say(a, FAVO_RESULT_NOT_YET, "it is %s", sn.state);
	out[strcspn(out, "\n")] = '\0';
	return say(a, FAVO_RESULT_NOT_YET, "job %s runs", out);
}

/* Has it booted since the mark was taken? */
static bool is_new_boot(const struct favo_rollout_act *a, const struct favo_node *node)
{
	if (a->mark && *a->mark)
		return node->boot_id && strcmp(node->boot_id, a->mark) != 0;
	return node->boot_id && node->reported >= a->since;
}

static enum favo_rollout_result act_reboot(struct favo_rollout_act *a)
{
	favo_autonode struct favo_node *node = NULL;
	favo_autostrv char **argv = NULL;
	struct favo_err err = {0};
	const char *command;
	char out[OUTPUT];

	if (favo_nodes_get(a->nodes, a->node, &node, &err) < 0)
		return say(a, FAVO_RESULT_FAILED, "%s", err.msg);
	/* favod was killed after the node had been told */
	if (is_new_boot(a, node))
		return FAVO_RESULT_OK;
	command = a->opts->reboot ? a->opts->reboot : node->power;
	if (!command && !a->opts->slurm)
		return say(a, FAVO_RESULT_FAILED,
			   "there is no way to reboot it: set its power command, or "
			   "rollout_reboot in favo.conf");
	if (!command)
		return run(a, SCONTROL_MS, "scontrol", "reboot", a->node) < 0
			       ? FAVO_RESULT_FAILED
			       : FAVO_RESULT_OK;
	argv = favo_rollout_command(command, a->node, "cycle", a->digest);
	if (!argv || !argv[0])
		return say(a, FAVO_RESULT_FAILED, "its reboot command has no words");
	return run_in(a, argv, REBOOT_MS, out, sizeof(out)) < 0 ? FAVO_RESULT_FAILED
								: FAVO_RESULT_OK;
}

static enum favo_rollout_result act_see_up(struct favo_rollout_act *a)
{
	favo_autonode struct favo_node *node = NULL;
	struct favo_err err = {0};

	if (favo_nodes_get(a->nodes, a->node, &node, &err) < 0)
		return say(a, FAVO_RESULT_FAILED, "%s", err.msg);
	if (!is_new_boot(a, node))
		return say(a, FAVO_RESULT_NOT_YET, "it has not reported since");
	if (!node->phase || strcmp(node->phase, "up") != 0)
		return say(a, FAVO_RESULT_NOT_YET, "phase %s%s%.200s",
			   node->phase ? node->phase : "unknown",
			   node->message ? ": " : "", node->message ? node->message : "");
	if (!node->booted)
		return say(
			a, FAVO_RESULT_FAILED,
			"it does not tell which image it runs: was it booted by favo?");
	if (strcmp(node->booted, a->digest) != 0)
		return say(a, FAVO_RESULT_FAILED,
			   "it came up with %.19s, not %.19s%s%.200s", node->booted,
			   a->digest, node->message ? ": " : "",
			   node->message ? node->message : "");
	return FAVO_RESULT_OK;
}

static int wait_slurmd(struct favo_rollout_act *a, struct slurm_node *sn)
{
	static const char *const bad[] = {"NOT_RESPONDING", "*",     "UNKNOWN",
					  "REBOOT",	    "POWER", NULL};
	int64_t end_ms = favo_now_ms() + (int64_t)a->opts->health_s * 1000;

	for (;;) {
		bool good = show_slurm(a, sn) == 0 && !has_any(sn->state, bad);

		/* a drained node that does not answer is DOWN+DRAIN */
		if (good && !strstr(sn->state, "DOWN"))
			return 0;
		/* DOWN and answering: Slurm minds the reboot, nothing else */
		if (good && strstr(sn->reason, "rebooted"))
			return 0;
		if (favo_now_ms() >= end_ms) {
			say(a, FAVO_RESULT_FAILED,
			    "slurmd is not up after %" PRIu64 " s: %s", a->opts->health_s,
			    sn->state);
			return -1;
		}
		usleep(1000000);
	}
}

/*
 * A job on the node before anybody else's: a reservation keeps them away while
 * the node is resumed for it.
 */
static int test_job(struct favo_rollout_act *a, const char *partition)
{
	char name[300], nodes[300], part[80], opt[300];
	struct favo_rollout_act dropped = *a;
	char saved[FAVO_ROLLOUT_NOTE];
	int ret;

	snprintf(name, sizeof(name), "reservationname=favo-%s", a->node);
	snprintf(nodes, sizeof(nodes), "nodes=%s", a->node);
	snprintf(opt, sizeof(opt), "--reservation=favo-%s", a->node);
	snprintf(part, sizeof(part), "--partition=%s", partition);
	/* one of a favod that was killed */
	run(&dropped, SCONTROL_MS, "scontrol", "delete", name);
	ret = run(a, SCONTROL_MS, "scontrol", "create", "reservation", name, nodes,
		  "users=root", "starttime=now", "duration=30",
		  "flags=maint,ignore_jobs");
	if (ret < 0)
		return ret;
	ret = set_resume(a);
	if (ret == 0)
		ret = run(a, (int)a->opts->health_s * 1000, "srun", "--quiet", opt, part,
			  "--nodelist", a->node, "--nodes=1", "--ntasks=1", "--time=5",
			  "--chdir=/", "--job-name=favo-rollout", "/bin/true");
	if (ret < 0) {
		snprintf(saved, sizeof(saved), "%s", a->note);
		say(a, FAVO_RESULT_FAILED, "test job: %.350s", saved);
		/* before the reservation goes */
		set_drain(&dropped, a->note);
	}
	run(&dropped, SCONTROL_MS, "scontrol", "delete", name);
	return ret;
}

static enum favo_rollout_result act_health(struct favo_rollout_act *a)
{
	favo_autostrv char **argv = NULL;
	struct slurm_node sn = {0};
	char saved[FAVO_ROLLOUT_NOTE], out[OUTPUT];

	if (a->opts->slurm && wait_slurmd(a, &sn) < 0)
		return FAVO_RESULT_FAILED;
	if (a->opts->probe) {
		argv = favo_rollout_command(a->opts->probe, a->node, "probe", a->digest);
		if (!argv || !argv[0])
			return say(a, FAVO_RESULT_FAILED, "the probe has no words");
		if (run_in(a, argv, (int)a->opts->health_s * 1000, out, sizeof(out)) <
		    0) {
			snprintf(saved, sizeof(saved), "%s", a->note);
			return say(a, FAVO_RESULT_FAILED, "probe: %.350s", saved);
		}
	}
	if (a->opts->slurm && a->opts->test && test_job(a, sn.partition) < 0)
		return FAVO_RESULT_FAILED;
	return FAVO_RESULT_OK;
}

static enum favo_rollout_result act_resume(struct favo_rollout_act *a)
{
	if (a->opts->slurm && set_resume(a) < 0)
		return FAVO_RESULT_FAILED;
	return FAVO_RESULT_OK;
}

enum favo_rollout_result favo_rollout_act(struct favo_rollout_act *a)
{
	static enum favo_rollout_result (*const acts[])(struct favo_rollout_act *) = {
		[FAVO_DO_DRAIN] = act_drain,   [FAVO_DO_SEE_IDLE] = act_see_idle,
		[FAVO_DO_REBOOT] = act_reboot, [FAVO_DO_SEE_UP] = act_see_up,
		[FAVO_DO_HEALTH] = act_health, [FAVO_DO_RESUME] = act_resume,
	};
	enum favo_rollout_result result;
	struct favo_rollout_act marked;

	a->note[0] = '\0';
	result = acts[a->action](a);
	if (result == FAVO_RESULT_OK)
		a->note[0] = '\0'; /* left by a program that came right later */
	if (result == FAVO_RESULT_FAILED && a->opts->slurm &&
	    (a->action == FAVO_DO_REBOOT || a->action == FAVO_DO_SEE_UP ||
	     a->action == FAVO_DO_HEALTH)) {
		/* so that sinfo -R tells it, too */
		marked = *a;
		set_drain(&marked, a->note);
	}
	return result;
}
