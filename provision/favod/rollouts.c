// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Rollouts that are under way; see rollouts.h. rollout.c decides, rollout_db.c
 * stores, rollout_act.c acts, and this file brings them together: an action
 * starts only after everything that led to it is on the disk.
 */
#include "provision/favod/rollouts.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <string.h>
#include <time.h>

#include "common/json.h"
#include "common/log.h"
#include "common/util.h"
#include "provision/favod/rollout_act.h"
#include "provision/favod/rollout_db.h"

#define WORKERS_MAX 64
#define NODES_MAX 100000
#define STOP_MS 2000
#define RETRY_S 5 /* after a failed write */

struct entry {
	struct favo_rollout *r;
	json_t *spec;
	struct favo_rollout_opts opts; /* read by workers; made once */
	char digest[FAVO_DIGEST_TEXT_SIZE];
	struct entry *next;
};

struct favo_rollouts {
	pthread_mutex_t lock;
	pthread_cond_t cond; /* something changed */
	struct favo_nodes *nodes;
	const struct favo_conf *conf;
	struct entry *entries; /* all that were live since the start */
	unsigned int workers;
	bool stop;
	pthread_t thread;
};

struct job {
	struct favo_rollouts *rs;
	struct entry *entry;
	size_t node;
	struct favo_rollout_act act;
	char *name, *mark;
	char digest[FAVO_DIGEST_TEXT_SIZE];
};

static int64_t now_s(void)
{
	return time(NULL);
}

static void free_entry(struct entry *e)
{
	favo_rollout_free(e->r);
	json_decref(e->spec);
	free(e->opts.reboot);
	free(e->opts.probe);
	free(e);
}

static const char *spec_text(const json_t *spec, const char *key, const char *def)
{
	const char *text = json_string_value(json_object_get(spec, key));

	text = text ? text : def;
	return text && *text ? text : NULL;
}

static bool spec_bool(const json_t *spec, const char *key, bool def)
{
	const json_t *value = json_object_get(spec, key);

	return json_is_boolean(value) ? json_is_true(value) : def;
}

static char *dup_text(const char *text)
{
	return text ? strdup(text) : NULL;
}

static void fill_opts(struct entry *e, const struct favo_conf *conf)
{
	e->opts.slurm = spec_bool(e->spec, "slurm", true);
	e->opts.test = spec_bool(e->spec, "test", conf->rollout_test);
	e->opts.reboot = dup_text(spec_text(e->spec, "reboot", conf->rollout_reboot));
	e->opts.probe = dup_text(spec_text(e->spec, "probe", conf->rollout_probe));
	e->opts.health_s =
		(uint64_t)json_integer_value(json_object_get(e->spec, "health_s"));
	if (!e->opts.health_s)
		e->opts.health_s = 180;
}

static struct entry *find(struct favo_rollouts *rs, int64_t id)
{
	for (struct entry *e = rs->entries; e; e = e->next)
		if (e->r->id == id)
			return e;
	return NULL;
}

/* ---- at work ---- */

/* Digest of "name:tag@digest". */
static void image_digest(char digest[FAVO_DIGEST_TEXT_SIZE], const char *image)
{
	const char *at = strchr(image, '@');

	snprintf(digest, FAVO_DIGEST_TEXT_SIZE, "%s", at ? at + 1 : "");
}

static void log_step(const struct favo_rollout *r, size_t i)
{
	const struct favo_rollout_node *node = &r->nodes[i];

	favo_log(node->step == FAVO_STEP_FAILED ? FAVO_WARN : FAVO_INFO,
		 "rollout %" PRId64 ": node %s: %s%s%s", r->id, node->name,
		 favo_rollout_step_name(node->step), *node->note ? ": " : "", node->note);
}

static void *worker(void *arg)
{
	struct job *job = arg;
	struct favo_rollouts *rs = job->rs;
	enum favo_rollout_result result = favo_rollout_act(&job->act);
	struct favo_rollout *r = job->entry->r;
	enum favo_rollout_step before;
	enum favo_rollout_state state;

	pthread_mutex_lock(&rs->lock);
	if (!rs->stop) {
		before = r->nodes[job->node].step;
		state = r->state;
		favo_rollout_done(r, job->node, result, job->act.note, now_s());
		if (r->nodes[job->node].step != before)
			log_step(r, job->node);
		if (r->state != state)
			favo_log(FAVO_WARN, "rollout %" PRId64 " is %s: %s", r->id,
				 favo_rollout_state_name(r->state), r->reason);
	}
	rs->workers--;
	pthread_cond_broadcast(&rs->cond);
	pthread_mutex_unlock(&rs->lock);
	free(job->name);
	free(job->mark);
	free(job);
	return NULL;
}

static int start_job(struct favo_rollouts *rs, struct entry *e,
		     const struct favo_rollout_todo *todo)
{
	const struct favo_rollout_node *node = &e->r->nodes[todo->node];
	struct job *job = calloc(1, sizeof(*job));
	pthread_attr_t attr;
	pthread_t thread;
	int ret;

	if (!job)
		return -ENOMEM;
	job->rs = rs;
	job->entry = e;
	job->node = todo->node;
	job->name = strdup(node->name);
	job->mark = dup_text(node->mark);
	image_digest(job->digest, node->image);
	job->act = (struct favo_rollout_act){
		.action = todo->action,
		.nodes = rs->nodes,
		.opts = &e->opts,
		.rollout = e->r->id,
		.since = node->since,
		.node = job->name,
		.digest = job->digest,
		.mark = job->mark,
	};
	pthread_attr_init(&attr);
	pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED);
	ret = job->name ? pthread_create(&thread, &attr, worker, job) : ENOMEM;
	pthread_attr_destroy(&attr);
	if (ret == 0) {
		rs->workers++;
		return 0;
	}
	free(job->name);
	free(job->mark);
	free(job);
	return -ret;
}

/* Everything due of one rollout; returns when to come again. */
static int64_t work(struct favo_rollouts *rs, struct entry *e)
{
	struct favo_rollout_todo todo;
	struct favo_err err = {0};
	int64_t now = now_s();
	bool more = true;

	while (more && rs->workers < WORKERS_MAX) {
		more = favo_rollout_next(e->r, now, &todo);
		if (favo_rollout_db_save(rs->nodes, e->r, now, &err) < 0) {
			favo_log(FAVO_ERROR, "rollout %" PRId64 " waits: %s", e->r->id,
				 err.msg);
			if (more)
				e->r->nodes[todo.node].busy = false;
			return now + RETRY_S;
		}
		if (more && start_job(rs, e, &todo) < 0) {
			e->r->nodes[todo.node].busy = false;
			return now + RETRY_S;
		}
	}
	return rs->workers < WORKERS_MAX ? favo_rollout_wake(e->r) : INT64_MAX;
}

static void *run(void *arg)
{
	struct favo_rollouts *rs = arg;

	pthread_mutex_lock(&rs->lock);
	while (!rs->stop) {
		int64_t wake = INT64_MAX;
		struct timespec ts = {0};

		for (struct entry *e = rs->entries; e; e = e->next)
			wake = FAVO_MIN(wake, work(rs, e));
		if (wake == INT64_MAX) {
			pthread_cond_wait(&rs->cond, &rs->lock);
		} else {
			ts.tv_sec = wake;
			pthread_cond_timedwait(&rs->cond, &rs->lock, &ts);
		}
	}
	pthread_mutex_unlock(&rs->lock);
	return NULL;
}

/* ---- start and end ---- */

static int add_entry(struct favo_rollouts *rs, struct favo_rollout *r, json_t *spec,
		     struct favo_err *err)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		return favo_fail(err, ENOMEM, "rollout: %m");
	e->r = r;
	e->spec = spec;
	fill_opts(e, rs->conf);
	e->next = rs->entries;
	rs->entries = e;
	return 0;
}

static int load_live(struct favo_rollouts *rs, struct favo_err *err)
{
	favo_autojson json_t *list = NULL;
	const json_t *one;
	int ret = favo_rollout_db_list(rs->nodes, &list, err);
	size_t i;

	json_array_foreach(list, i, one)
	{
		favo_autorollout struct favo_rollout *r = NULL;
		favo_autojson json_t *spec = NULL;

		if (ret == 0)
			ret = favo_rollout_db_load(
				rs->nodes, json_integer_value(json_object_get(one, "id")),
				&r, &spec, err);
		if (ret < 0)
			return ret;
		if (!favo_rollout_is_live(r))
			continue;
		ret = add_entry(rs, r, spec, err);
		if (ret < 0)
			return ret;
		favo_log(FAVO_INFO, "rollout %" PRId64 " goes on", r->id);
		r = NULL;
		spec = NULL;
	}
	return ret;
}

int favo_rollouts_start(struct favo_rollouts **out, struct favo_nodes *nodes,
			const struct favo_conf *conf, struct favo_err *err)
{
	struct favo_rollouts *rs = calloc(1, sizeof(*rs));
	int ret;

	if (!rs)
		return favo_fail(err, ENOMEM, "rollouts: %m");
	pthread_mutex_init(&rs->lock, NULL);
	pthread_cond_init(&rs->cond, NULL);
	rs->nodes = nodes;
	rs->conf = conf;
	ret = load_live(rs, err);
	if (ret == 0) {
		ret = pthread_create(&rs->thread, NULL, run, rs);
		if (ret)
			ret = favo_fail(err, ret, "start a thread: %m");
	}
	if (ret < 0) {
		while (rs->entries) {
			struct entry *e = rs->entries;

			rs->entries = e->next;
			free_entry(e);
		}
		free(rs);
		return ret;
	}
	*out = rs;
	return 0;
}

bool favo_rollouts_stop(struct favo_rollouts *rs)
{
	struct timespec ts;
	int ret = 0;

	if (!rs)
		return true;
	pthread_mutex_lock(&rs->lock);
	rs->stop = true;
	pthread_cond_broadcast(&rs->cond);
	pthread_mutex_unlock(&rs->lock);
	pthread_join(rs->thread, NULL);
	clock_gettime(CLOCK_REALTIME, &ts);
	ts.tv_sec += STOP_MS / 1000;
	pthread_mutex_lock(&rs->lock);
	while (rs->workers && ret == 0)
		ret = pthread_cond_timedwait(&rs->cond, &rs->lock, &ts);
	pthread_mutex_unlock(&rs->lock);
	/* Workers that are still out hold on to it; the process ends. */
	if (rs->workers)
		return false;
	while (rs->entries) {
		struct entry *e = rs->entries;

		rs->entries = e->next;
		free_entry(e);
	}
	free(rs);
	return true;
}

/* ---- admins' commands ---- */

static json_t *text_or_null(const char *text)
{
	return text ? json_string(text) : json_null();
}

static json_t *to_json(const struct favo_rollout *r, const json_t *spec)
{
	json_t *list = json_array();
	json_t *out = json_pack("{s:I s:s s:s s:O s:o}", "id", (json_int_t)r->id, "state",
				favo_rollout_state_name(r->state), "reason", r->reason,
				"spec", spec, "nodes", list);

	for (size_t i = 0; out && i < r->n; i++) {
		const struct favo_rollout_node *n = &r->nodes[i];

		json_array_append_new(
			list, json_pack("{s:s s:s s:I s:s s:o s:s s:I}", "name", n->name,
					"step", favo_rollout_step_name(n->step), "since",
					(json_int_t)n->since, "image", n->image, "former",
					text_or_null(n->former), "note", n->note, "wave",
					(json_int_t)favo_rollout_wave(&r->rules, i)));
	}
	return out;
}

/* "name:tag@digest" of what text names now. */
static int pin_text(char **out, struct favo_nodes *nodes, const char *text,
		    struct favo_err *err)
{
	struct favo_node probe = {.name = (char *)"", .image = (char *)text};
	struct favo_image_name name;
	struct favo_digest id;
	char digest[FAVO_DIGEST_TEXT_SIZE];
	int ret = favo_image_name_parse(&name, text, err);

	if (ret == 0)
		ret = favo_nodes_wanted(nodes, &probe, &id, err);
	if (ret < 0)
		return ret == -ENOENT ? favo_wrap(err, ret, "image") : ret;
	favo_digest_format(&id, digest);
	*out = favo_asprintf("%s:%s@%s", name.name, name.tag, digest);
	return *out ? 0 : favo_fail(err, ENOMEM, "rollout: %m");
}

/*
 * What undo brings back: what the node runs, by the name that its image has
 * had; else what it would have booted.
 */
static char *former_of(struct favo_nodes *nodes, const struct favo_node *node)
{
	struct favo_image_name name;
	char *former = NULL;

	if (node->booted && node->image &&
	    favo_image_name_parse(&name, node->image, NULL) == 0)
		former = favo_asprintf("%s:%s@%s", name.name, name.tag, node->booted);
	else if (node->booted)
		former = favo_asprintf("former:latest@%s", node->booted);
	else if (node->image)
		(void)!pin_text(&former, nodes, node->image, NULL);
	return former;
}

static int check_free(struct favo_rollouts *rs, const char *name, struct favo_err *err)
{
	for (struct entry *e = rs->entries; e; e = e->next) {
		bool open = e->r->state == FAVO_ROLLOUT_RUNNING ||
			    e->r->state == FAVO_ROLLOUT_PAUSED;

		for (size_t i = 0; i < e->r->n; i++) {
			const struct favo_rollout_node *n = &e->r->nodes[i];

			if (strcmp(n->name, name) != 0 || favo_rollout_is_final(n->step))
				continue;
			if (n->step == FAVO_STEP_WAITING && !open)
				continue;
			return favo_fail(err, EBUSY,
					 "node %s is in rollout %" PRId64
					 " (%s); wait for it, or favo rollout undo it",
					 name, e->r->id, favo_rollout_step_name(n->step));
		}
	}
	return 0;
}

static int add_node(struct favo_rollouts *rs, struct favo_rollout *r, const char *name,
		    const char *image, struct favo_err *err)
{
	favo_autonode struct favo_node *node = NULL;
	struct favo_rollout_node *n = &r->nodes[r->n];
	int ret = favo_nodes_get(rs->nodes, name, &node, err);

	if (ret == 0)
		ret = check_free(rs, name, err);
	for (size_t i = 0; ret == 0 && i < r->n; i++)
		if (strcmp(r->nodes[i].name, name) == 0)
			ret = favo_fail(err, EINVAL, "node %s is named twice", name);
	if (ret < 0)
		return ret;
	n->name = strdup(name);
	n->image = strdup(image);
	n->former = former_of(rs->nodes, node);
	r->n++;
	return n->name && n->image ? 0 : favo_fail(err, ENOMEM, "rollout: %m");
}

static int check_spec(const json_t *spec, struct favo_err *err)
{
	static const char *const known[] = {"image",	"nodes",       "canaries",
					    "batch",	"concurrency", "budget",
					    "drain_s",	"boot_s",      "slurm",
					    "test",	"reboot",      "probe",
					    "health_s", "dry_run",     NULL};
	static const char *const texts[] = {"reboot", "probe"};
	static const char *const bools[] = {"slurm", "test", "dry_run"};
	int ret = favo_json_only(spec, known, err);
	uint64_t number;
	const char *text;
	bool flag;

	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(texts); i++) {
		if (!json_object_get(spec, texts[i]))
			continue;
		ret = favo_json_str(&text, spec, texts[i], err);
		if (ret == 0 && text[0] != '/')
			ret = favo_fail(err, EINVAL,
					"%s: \"%.60s\" does not begin with the path of a "
					"program",
					texts[i], text);
	}
	for (size_t i = 0; ret == 0 && i < FAVO_ARRAY_SIZE(bools); i++)
		if (json_object_get(spec, bools[i]))
			ret = favo_json_bool(&flag, spec, bools[i], err);
	if (ret == 0 && json_object_get(spec, "health_s"))
		ret = favo_json_u64(&number, spec, "health_s", 1, 3600, err);
	return ret;
}

/* Store it and let it run; takes *r. *out borrows nothing. */
static int launch(struct favo_rollouts *rs, struct favo_rollout **r, const json_t *spec,
		  bool dry, json_t **out, struct favo_err *err)
{
	favo_autojson json_t *copy = json_deep_copy(spec);
	int ret = copy ? 0 : favo_fail(err, ENOMEM, "rollout: %m");

	json_object_del(copy, "nodes");
	json_object_del(copy, "dry_run");
	if (ret == 0 && !dry)
		ret = favo_rollout_db_add(
			rs->nodes, *r, copy,
			json_integer_value(json_object_get(copy, "undoes")), now_s(),
			err);
	if (ret < 0)
		return ret;
	*out = to_json(*r, copy);
	if (dry)
		return 0;
	ret = add_entry(rs, *r, copy, err);
	if (ret < 0) /* it is stored: the next start of favod goes on with it */
		return ret;
	*r = NULL;
	copy = NULL;
	pthread_cond_broadcast(&rs->cond);
	return 0;
}

int favo_rollouts_create(struct favo_rollouts *rs, const json_t *body, json_t **out,
			 struct favo_err *err)
{
	favo_autorollout struct favo_rollout *r = calloc(1, sizeof(*r));
	favo_autofree char *image = NULL;
	favo_autojson json_t *spec = json_copy((json_t *)body);
	const char *text;
	json_t *names;
	size_t n = 0;
	int ret = r && spec ? check_spec(body, err) : favo_fail(err, ENOMEM, "%m");

	if (ret == 0)
		ret = favo_json_str(&text, body, "image", err);
	if (ret == 0)
		ret = favo_json_array(&names, body, "nodes", err);
	if (ret == 0)
		ret = favo_rollout_rules_parse(&r->rules, body, err);
	if (ret == 0)
		ret = pin_text(&image, rs->nodes, text, err);
	if (ret < 0)
		return ret;
	n = json_array_size(names);
	if (n == 0 || n > NODES_MAX)
		return favo_fail(err, EINVAL, "a rollout has 1 to %d nodes", NODES_MAX);
	r->nodes = calloc(n, sizeof(*r->nodes));
	if (!r->nodes)
		return favo_fail(err, ENOMEM, "rollout: %m");
	json_object_set_new(spec, "image", json_string(image));
	pthread_mutex_lock(&rs->lock);
	for (size_t i = 0; ret == 0 && i < n; i++) {
		const char *name = json_string_value(json_array_get(names, i));

		ret = name ? add_node(rs, r, name, image, err)
			   : favo_fail(err, EINVAL, "nodes: a name is text");
	}
	if (ret == 0)
		ret = launch(rs, &r, spec, json_is_true(json_object_get(body, "dry_run")),
			     out, err);
	pthread_mutex_unlock(&rs->lock);
	return ret;
}

/* The rollout that brings back what the nodes of old ran before. */
static int undo(struct favo_rollouts *rs, struct favo_rollout *old,
		const json_t *old_spec, json_t **out, struct favo_err *err)
{
	favo_autorollout struct favo_rollout *r = calloc(1, sizeof(*r));
	favo_autojson json_t *spec = json_deep_copy(old_spec);
	int ret = 0;

	if (!r || !spec)
		return favo_fail(err, ENOMEM, "rollout: %m");
	if (old->state == FAVO_ROLLOUT_UNDONE)
		return favo_fail(err, EINVAL, "rollout %" PRId64 " is undone %s", old->id,
				 old->reason);
	r->nodes = calloc(old->n, sizeof(*r->nodes));
	r->rules = old->rules;
	/* They ran it before: no canaries, and a failure does not keep the others. */
	r->rules.canaries = r->rules.forgiven = 0;
	r->rules.budget = old->n;
	for (size_t i = 0; ret == 0 && r->nodes && i < old->n; i++) {
		const struct favo_rollout_node *n = &old->nodes[i];
		struct favo_rollout_node *m = &r->nodes[r->n];

		if (!favo_rollout_touched(n) || !n->former ||
		    strcmp(n->former, n->image) == 0)
			continue;
		if (n->busy)
			return favo_fail(
				err, EBUSY,
				"node %s is at its step \"%s\" just now; try again "
				"in a moment",
				n->name, favo_rollout_step_name(n->step));
		m->name = strdup(n->name);
		m->image = strdup(n->former);
		m->former = strdup(n->image);
		r->n++;
		if (!m->name || !m->image || !m->former)
			ret = favo_fail(err, ENOMEM, "rollout: %m");
	}
	if (ret < 0)
		return ret;
	if (!r->nodes || r->n == 0)
		return favo_fail(err, EINVAL,
				 "rollout %" PRId64 " has changed no node yet; favo "
				 "rollout pause stops it",
				 old->id);
	json_object_set_new(spec, "undoes", json_integer(old->id));
	json_object_set_new(spec, "canaries", json_integer(0));
	json_object_set_new(spec, "budget", json_integer((json_int_t)old->n));
	json_object_del(spec, "forgiven");
	json_object_set_new(spec, "image", json_string(r->nodes[0].image));
	ret = launch(rs, &r, spec, false, out, err);
	if (ret == 0)
		favo_rollout_set_undone(
			old, json_integer_value(json_object_get(*out, "id")), now_s());
	return ret;
}

int favo_rollouts_command(struct favo_rollouts *rs, int64_t id, const char *command,
			  json_t **out, struct favo_err *err)
{
	favo_autorollout struct favo_rollout *r = NULL;
	favo_autojson json_t *spec = NULL;
	struct entry *e;
	int ret = 0;

	pthread_mutex_lock(&rs->lock);
	e = find(rs, id);
	if (!e) {
		/* over since before the start: bring it back */
		ret = favo_rollout_db_load(rs->nodes, id, &r, &spec, err);
		if (ret == 0)
			ret = add_entry(rs, r, spec, err);
		if (ret == 0) {
			r = NULL;
			spec = NULL;
			e = find(rs, id);
		}
	}
	if (ret == 0 && strcmp(command, "pause") == 0)
		ret = favo_rollout_pause(e->r, err);
	else if (ret == 0 && strcmp(command, "resume") == 0)
		ret = favo_rollout_resume(e->r, err);
	else if (ret == 0 && strcmp(command, "undo") == 0)
		ret = undo(rs, e->r, e->spec, out, err);
	else if (ret == 0)
		ret = favo_fail(err, EINVAL, "\"%.40s\" is none of pause, resume, undo",
				command);
	if (ret == 0)
		ret = favo_rollout_db_save(rs->nodes, e->r, now_s(), err);
	if (ret == 0 && !*out)
		*out = to_json(e->r, e->spec);
	pthread_cond_broadcast(&rs->cond);
	pthread_mutex_unlock(&rs->lock);
	return ret;
}

int favo_rollouts_show(struct favo_rollouts *rs, int64_t id, json_t **out,
		       struct favo_err *err)
{
	favo_autorollout struct favo_rollout *r = NULL;
	favo_autojson json_t *spec = NULL;
	struct entry *e;
	int ret = 0;

	pthread_mutex_lock(&rs->lock);
	e = find(rs, id);
	if (e) {
		*out = to_json(e->r, e->spec);
	} else {
		ret = favo_rollout_db_load(rs->nodes, id, &r, &spec, err);
		if (ret == 0)
			*out = to_json(r, spec);
	}
	pthread_mutex_unlock(&rs->lock);
	return ret;
}
