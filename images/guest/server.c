// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Server side of run requests; see server.h. A process goes through: spawned,
 * started (exec happened), reaped, drained (what it wrote before its end is
 * sent), EXIT. Its entry stays until its connection is gone, because its
 * group (the job step on this node) ends only then.
 */
#include "images/guest/server.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/pump.h"
#include "images/guest/relay.h"
#include "images/guest/spawn.h"
#include "images/guest/tree.h"

#define RELAYS_MAX 16
/* How often a cgroup is tried again whose processes are still dying. */
#define SWEEP_MS 200

struct proc {
	struct favo_server *srv;
	struct proc *next;
	struct favo_conn *conn; /* NULL once lost */
	struct favo_channel *ch; /* NULL once EXIT is sent */
	struct favo_watch status;
	struct favo_sink in;
	struct favo_source out, err;
	struct favo_listener *listeners[RELAYS_MAX];
	pid_t pid;
	bool decided, failed, reaped, dead_cgroup, stops_others;
	bool out_open, err_open;
	int wait_status;
	struct favo_exit failure;
	char note[512];
	char session[33];
	char group[65];
	char *cgroup; /* directory, or NULL */
};

struct favo_server {
	struct favo_loop *loop;
	struct favo_server_config config;
	struct favo_timer sweep;
	struct proc *procs;
	unsigned long serial;
};

static bool group_in_use(const struct favo_server *srv, const char *group)
{
	for (const struct proc *p = srv->procs; p; p = p->next)
		if (p->conn && strcmp(p->group, group) == 0)
			return true;
	return false;
}

static void proc_free(struct proc *p)
{
	struct favo_server *srv = p->srv;

	for (struct proc **pp = &srv->procs; *pp; pp = &(*pp)->next) {
		if (*pp == p) {
			*pp = p->next;
			break;
		}
	}
	favo_watch_del(&p->status);
	favo_close(&p->status.fd);
	favo_sink_fini(&p->in);
	favo_source_fini(&p->out);
	favo_source_fini(&p->err);
	for (int i = 0; i < RELAYS_MAX; i++)
		favo_listener_free(p->listeners[i]);
	free(p->cgroup);
	free(p);
}

/* Drop entries whose connection and process are gone, with their cgroups. */
static void sweep(struct favo_server *srv)
{
	struct proc *next;
	bool again = false;

	for (struct proc *p = srv->procs; p; p = next) {
		next = p->next;
		if (p->conn || (p->pid > 0 && !p->reaped) ||
		    (p->group[0] && group_in_use(srv, p->group)))
			continue;
		if (p->cgroup && favo_cgroup_remove(p->cgroup) < 0) {
			again = true;
			continue;
		}
		proc_free(p);
	}
	if (again)
		favo_timer_set(srv->loop, &srv->sweep, SWEEP_MS);
}

static void on_sweep(struct favo_timer *timer)
{
	sweep(timer->user);
}

static void send_exit(struct proc *p)
{
	struct favo_exit ex = p->failure;

	if (!p->failed) {
		ex = (struct favo_exit){.kind = FAVO_EXIT_STATUS,
					.number = (uint32_t)WEXITSTATUS(p->wait_status)};
		if (WIFSIGNALED(p->wait_status))
			ex = (struct favo_exit){
				.kind = FAVO_EXIT_SIGNAL,
				.core = WCOREDUMP(p->wait_status),
				.number = (uint32_t)WTERMSIG(p->wait_status)};
	}
	favo_channel_exit(p->ch, &ex);
	p->ch = NULL;
	p->in.ch = NULL;
	favo_sink_fini(&p->in);
}

static void check_end(struct proc *p)
{
	if (!p->reaped || !p->decided || p->out_open || p->err_open)
		return;
	if (p->ch)
		send_exit(p);
	/* Without a group nothing is owed to others: a long task may run many. */
	if (!p->group[0])
		p->conn = NULL;
	for (int i = 0; i < RELAYS_MAX; i++) {
		favo_listener_free(p->listeners[i]);
		p->listeners[i] = NULL;
	}
	sweep(p->srv);
}

static void on_out_done(struct favo_source *src)
{
	struct proc *p = src->user;

	p->out_open = false;
	check_end(p);
}

static void on_err_done(struct favo_source *src)
{
	struct proc *p = src->user;

	p->err_open = false;
	check_end(p);
}

/* The process is gone or cannot be started: only what it wrote is of interest. */
static void drain(struct proc *p)
{
	favo_source_drain(&p->out);
	favo_source_drain(&p->err);
	check_end(p);
}

static void decide(struct proc *p)
{
	p->decided = true;
	favo_watch_del(&p->status);
	favo_close(&p->status.fd);
	if (!p->failed && p->ch)
		favo_channel_started(p->ch, (uint32_t)p->pid, p->note);
	if (p->reaped)
		drain(p);
}

static void on_status(struct favo_watch *watch, short revents)
{
	struct proc *p = watch->user;
	struct favo_spawn_report rep;
	int ret;

	(void)revents;
	while ((ret = favo_spawn_result(watch->fd, &rep)) > 0) {
		if (rep.code == 0) {
			snprintf(p->note, sizeof(p->note), "%s", rep.text);
			continue;
		}
		p->failed = true;
		p->failure = (struct favo_exit){.kind = FAVO_EXIT_FAILED,
						.number = (uint32_t)rep.code};
		snprintf(p->failure.reason, sizeof(p->failure.reason), "%s", rep.text);
	}
	if (ret != -EAGAIN)
		decide(p);
}

static void on_data(struct favo_channel *ch, unsigned stream, const uint8_t *data,
		    size_t n)
{
	struct proc *p = favo_channel_user(ch);

	(void)stream;
	favo_sink_data(&p->in, data, n);
}

static void on_eof(struct favo_channel *ch, unsigned stream)
{
	struct proc *p = favo_channel_user(ch);

	(void)stream;
	favo_sink_eof(&p->in);
}

static void on_stop(struct favo_channel *ch, unsigned stream)
{
	struct proc *p = favo_channel_user(ch);

	favo_source_end(stream == FAVO_STREAM_ERR ? &p->err : &p->out);
}

static void on_ready(struct favo_channel *ch)
{
	struct proc *p = favo_channel_user(ch);

	favo_source_ready(&p->out);
	favo_source_ready(&p->err);
}

static void on_signal(struct favo_channel *ch, int signo, enum favo_signal_target target)
{
	struct proc *p = favo_channel_user(ch);

	if (!p->reaped)
		favo_tree_signal(p->pid, signo, target);
}

static void on_winsize(struct favo_channel *ch, const struct winsize *ws)
{
	struct proc *p = favo_channel_user(ch);

	if (p->out.active && p->out.is_tty)
		ioctl(p->out.watch.fd, TIOCSWINSZ, ws);
}

/* The opener gave up, or the connection broke. */
static void on_closed(struct favo_channel *ch, const char *reason)
{
	struct proc *p = favo_channel_user(ch);

	(void)reason;
	p->ch = NULL;
	p->in.ch = NULL;
	p->out.ch = NULL;
	p->err.ch = NULL;
	if (!p->reaped)
		favo_tree_kill(p->pid, p->cgroup);
	favo_sink_eof(&p->in);
	favo_source_end(&p->out);
	favo_source_end(&p->err);
}

static const struct favo_channel_ops proc_ops = {
	.data = on_data,
	.eof = on_eof,
	.stop = on_stop,
	.ready = on_ready,
	.signal = on_signal,
	.winsize = on_winsize,
	.closed = on_closed,
};

/* Environment under construction; strings of run->env are borrowed. */
struct env {
	char **v;
	size_t n;
	char *owned[64];
	size_t n_owned;
};

static int env_add(struct env *env, char *owned)
{
	size_t name;

	if (!owned)
		return -ENOMEM;
	if (env->n_owned == FAVO_ARRAY_SIZE(env->owned)) {
		free(owned);
		return -E2BIG;
	}
	env->owned[env->n_owned++] = owned;
	name = strcspn(owned, "=") + 1;
	for (size_t i = 0; i < env->n; i++) {
		if (strncmp(env->v[i], owned, name) == 0) {
			env->v[i] = owned;
			return 0;
		}
	}
	env->v[env->n++] = owned;
	return 0;
}

static void env_fini(struct env *env)
{
	for (size_t i = 0; i < env->n_owned; i++)
		free(env->owned[i]);
	free(env->v);
}

static int env_init(struct env *env, struct proc *p, const struct favo_run *run)
{
	const char *path = favo_env_get(run->env, "PATH");
	size_t n = 0;
	int ret = 0;

	while (run->env[n])
		n++;
	*env = (struct env){
		.v = calloc(n + FAVO_ARRAY_SIZE(env->owned) + 1, sizeof(char *))};
	if (!env->v)
		return -ENOMEM;
	memcpy(env->v, run->env, n * sizeof(char *));
	env->n = n;
	if ((run->flags & FAVO_RUN_COMMANDS) && p->srv->config.command_dir) {
		ret = env_add(env, favo_asprintf("PATH=%s:%s", p->srv->config.command_dir,
						 path ? path
						      : "/usr/local/bin:/usr/bin:/bin"));
		if (ret == 0)
			ret = env_add(env, favo_asprintf("FAVO_SESSION=%s", p->session));
	}
	return ret;
}

static int env_relay(struct env *env, const struct favo_run_relay *relay, unsigned number)
{
	int ret = 0;

	for (char **v = relay->env; ret == 0 && v && *v; v++)
		ret = env_add(env, favo_asprintf("%s%u", *v, number));
	return ret;
}

/* Relays of a request: listeners, and socket pairs of which keep[] are ours to give. */
static int make_relays(struct proc *p, const struct favo_run *run, struct env *env,
		       int *keep, size_t *n_keep, struct favo_err *err)
{
	for (size_t i = 0; i < run->n_relays; i++) {
		const struct favo_run_relay *r = &run->relays[i];
		int ret;

		if (r->kind == FAVO_RELAY_TCP) {
			ret = favo_listener_new(&p->listeners[i], p->srv->loop, p->conn,
						r->endpoint, run->uid, run->gid, err);
			if (ret < 0)
				return ret;
			ret = env_relay(env, r, favo_listener_port(p->listeners[i]));
		} else {
			int sv[2];

			if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
				return favo_fail(err, errno, "relay %s: %m", r->endpoint);
			keep[(*n_keep)++] = sv[1];
			ret = favo_relay_open(p->srv->loop, p->conn, sv[0], r->endpoint,
					      err);
			if (ret < 0)
				return ret;
			ret = env_relay(env, r, (unsigned)sv[1]);
		}
		if (ret < 0)
			return favo_fail(err, -ret, "relay %s: environment", r->endpoint);
	}
	return 0;
}

static int make_cgroup(struct proc *p, struct favo_err *err)
{
	int ret;

	if (!p->srv->config.cgroup_root)
		return 0;
	p->cgroup =
		favo_asprintf("%s/p%lu", p->srv->config.cgroup_root, ++p->srv->serial);
	if (!p->cgroup)
		return favo_fail(err, ENOMEM, "allocate");
	ret = favo_cgroup_make(p->cgroup, err);
	if (ret < 0) {
		free(p->cgroup);
		p->cgroup = NULL;
	}
	return ret;
}

static int start_pumps(struct proc *p, struct favo_spawned *s, struct favo_err *err)
{
	int ret;

	p->pid = s->pid;
	p->in.user = p->out.user = p->err.user = p;
	p->out.done = on_out_done;
	p->err.done = on_err_done;
	p->status = (struct favo_watch){
		.fd = s->status, .events = POLLIN, .fn = on_status, .user = p};
	ret = favo_watch_add(p->srv->loop, &p->status, err);
	if (ret == 0)
		ret = favo_sink_start(&p->in, p->srv->loop, favo_steal_fd(&s->in), p->ch,
				      FAVO_STREAM_IN, err);
	if (ret == 0)
		ret = favo_source_start(&p->out, p->srv->loop, favo_steal_fd(&s->out),
					p->ch, FAVO_STREAM_OUT, err);
	p->out_open = ret == 0;
	if (ret == 0 && s->err >= 0) {
		ret = favo_source_start(&p->err, p->srv->loop, favo_steal_fd(&s->err),
					p->ch, FAVO_STREAM_ERR, err);
		p->err_open = ret == 0;
	}
	favo_close(&s->in);
	favo_close(&s->out);
	favo_close(&s->err);
	return ret;
}

static int start(struct proc *p, const struct favo_run *run, struct favo_choice *choice,
		 struct favo_err *err)
{
	const struct favo_server_config *config = &p->srv->config;
	struct favo_spawned spawned;
	int keep[RELAYS_MAX + 1];
	size_t n_keep = 0;
	struct env env;
	int ret = make_cgroup(p, err);

	if (ret < 0)
		return ret;
	ret = env_init(&env, p, run);
	if (ret < 0)
		ret = favo_fail(err, -ret, "environment: %s", strerror(-ret));
	else
		ret = make_relays(p, run, &env, keep, &n_keep, err);
	if (choice->fd >= 0)
		keep[n_keep++] = favo_steal_fd(&choice->fd);
	if (ret == 0) {
		const struct favo_spawn spawn = {
			.run = run,
			.env = env.v,
			.program = choice->program,
			.home = config->home,
			.cgroup_dir = p->cgroup,
			.keep = keep,
			.n_keep = n_keep,
			.switch_ids = config->switch_ids,
			.keep_cwd = !config->home,
		};

		ret = favo_spawn(&spawned, &spawn, err);
	}
	for (size_t i = 0; i < n_keep; i++)
		favo_close(&keep[i]);
	env_fini(&env);
	if (ret == 0) {
		ret = start_pumps(p, &spawned, err);
		if (ret < 0)
			favo_tree_kill(p->pid, p->cgroup);
	}
	return ret;
}

static void refuse(struct favo_channel *ch, const struct favo_err *err)
{
	struct favo_exit ex = {.kind = FAVO_EXIT_FAILED, .number = (uint32_t)err->code};

	snprintf(ex.reason, sizeof(ex.reason), "%.500s", err->msg);
	favo_channel_exit(ch, &ex);
}

static int new_session(char out[33], struct favo_err *err)
{
	uint8_t raw[16];

	if (getrandom(raw, sizeof(raw), 0) != sizeof(raw))
		return favo_fail(err, EIO, "getrandom");
	favo_hex_encode(out, raw, sizeof(raw));
	return 0;
}

static int check(struct favo_server *srv, struct favo_run *run,
		 struct favo_choice *choice, struct favo_err *err)
{
	int ret = 0;

	if (srv->config.check)
		ret = srv->config.check(srv->config.user, run, choice, err);
	/* check() takes out the files that it has a use for. */
	if (ret == 0 && !srv->config.relays && (run->n_relays || run->n_files))
		return favo_fail(err, EPERM, "files and relays are not for this side");
	return ret;
}

static void choice_fini(struct favo_choice *choice)
{
	free(choice->program);
	favo_close(&choice->fd);
}

void favo_server_run(struct favo_server *srv, struct favo_channel *ch,
		     struct favo_run *run)
{
	favo_autorun __attribute__((unused)) struct favo_run *owned = run;
	__attribute__((cleanup(choice_fini))) struct favo_choice choice = {.fd = -1};
	struct favo_err err = {0};
	struct proc *p;

	if (check(srv, run, &choice, &err) < 0) {
		refuse(ch, &err);
		return;
	}
	p = calloc(1, sizeof(*p));
	if (!p || new_session(p->session, &err) < 0) {
		free(p);
		favo_fail(&err, ENOMEM, "out of memory");
		refuse(ch, &err);
		return;
	}
	p->srv = srv;
	p->stops_others = choice.stops_others;
	p->conn = favo_channel_conn(ch);
	p->ch = ch;
	p->status.fd = -1;
	snprintf(p->group, sizeof(p->group), "%s", run->group ? run->group : "");
	p->next = srv->procs;
	srv->procs = p;
	if (start(p, run, &choice, &err) < 0) {
		refuse(ch, &err);
		p->ch = NULL;
		p->in.ch = p->out.ch = NULL;
		p->err.ch = NULL;
		p->decided = true;
		/* Reaped by pid when the fork happened; else it ends with its connection. */
		return;
	}
	favo_channel_set(ch, &proc_ops, p);
}

void favo_server_conn_lost(struct favo_server *srv, const struct favo_conn *conn)
{
	for (struct proc *p = srv->procs; p; p = p->next) {
		if (p->conn != conn)
			continue;
		p->conn = NULL;
		for (int i = 0; i < RELAYS_MAX; i++) {
			favo_listener_free(p->listeners[i]);
			p->listeners[i] = NULL;
		}
	}
	sweep(srv);
}

void favo_server_reaped(struct favo_server *srv, pid_t pid, int wait_status)
{
	struct proc *p = srv->procs;

	while (p && (p->reaped || p->pid != pid))
		p = p->next;
	if (!p)
		return;
	p->reaped = true;
	p->wait_status = wait_status;
	if (p->stops_others && srv->config.resume)
		srv->config.resume();
	if (p->decided)
		drain(p);
	else
		on_status(&p->status, POLLIN);
}

struct favo_conn *favo_server_find(const struct favo_server *srv, const char *session)
{
	struct favo_conn *any = NULL;

	for (const struct proc *p = srv->procs; p; p = p->next) {
		if (!p->conn)
			continue;
		if (session && strcmp(p->session, session) == 0)
			return p->conn;
		any = p->conn;
	}
	/* A cleaned environment has no token: the oldest task serves it. */
	return session ? NULL : any;
}

size_t favo_server_running(const struct favo_server *srv)
{
	size_t n = 0;

	for (const struct proc *p = srv->procs; p; p = p->next)
		n += p->pid > 0 && !p->reaped;
	return n;
}

int favo_server_new(struct favo_server **out, struct favo_loop *loop,
		    const struct favo_server_config *config, struct favo_err *err)
{
	struct favo_server *srv = calloc(1, sizeof(*srv));

	if (!srv)
		return favo_fail(err, ENOMEM, "allocate server");
	srv->loop = loop;
	srv->config = *config;
	srv->sweep = (struct favo_timer){.fn = on_sweep, .user = srv};
	*out = srv;
	return 0;
}

void favo_server_free(struct favo_server *srv)
{
	if (!srv)
		return;
	while (srv->procs) {
		struct proc *p = srv->procs;

		if (p->pid > 0 && !p->reaped)
			favo_tree_kill(p->pid, p->cgroup);
		proc_free(p);
	}
	favo_timer_cancel(&srv->sweep);
	free(srv);
}
