// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * The agent's connections; see service.h. Trust: whoever knows the secret may
 * run processes, as the job's user only. Processes of the job's user may ask
 * for Slurm commands on a unix socket; their requests are passed to the host
 * connection that runs them, and the host decides.
 */
#include "images/guest/service.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <linux/vm_sockets.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/log.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/conn.h"
#include "images/guest/forward.h"
#include "images/guest/save.h"
#include "images/guest/server.h"

struct favo_service {
	struct favo_loop *loop;
	struct favo_service_config config;
	struct favo_watch listener;
	struct favo_watch commands;
	struct favo_server *server;
	struct link *links;
};

/* One accepted connection, of the host or of a command inside. */
struct link {
	struct favo_service *svc;
	struct link *next;
	struct favo_conn *conn;
};

static void drop_link(struct link *l)
{
	for (struct link **p = &l->svc->links; *p; p = &(*p)->next) {
		if (*p == l) {
			*p = l->next;
			break;
		}
	}
	favo_conn_free(l->conn);
	free(l);
}

static void host_run(struct favo_conn *conn, struct favo_channel *ch,
		     struct favo_run *run)
{
	struct link *l = favo_conn_user(conn);

	favo_server_run(l->svc->server, ch, run);
}

static void host_shutdown(struct favo_conn *conn, enum favo_shutdown how)
{
	struct link *l = favo_conn_user(conn);

	if (l->svc->config.shutdown)
		l->svc->config.shutdown(l->svc->config.user, how);
}

static void host_lost(struct favo_conn *conn, const char *reason)
{
	struct link *l = favo_conn_user(conn);

	favo_log(FAVO_DEBUG, "agent: host connection: %s", reason);
	favo_server_conn_lost(l->svc->server, conn);
	drop_link(l);
}

static const struct favo_conn_ops host_ops = {
	.run = host_run,
	.shutdown = host_shutdown,
	.lost = host_lost,
};

static void command_run(struct favo_conn *conn, struct favo_channel *ch,
			struct favo_run *run)
{
	struct link *l = favo_conn_user(conn);
	struct favo_conn *target = favo_server_find(l->svc->server, run->session);
	struct favo_exit ex = {.kind = FAVO_EXIT_FAILED, .number = ESRCH};

	if (target && favo_conn_is_ready(target)) {
		favo_forward_run(ch, target, run);
		return;
	}
	favo_run_free(run);
	snprintf(ex.reason, sizeof(ex.reason),
		 "the task that this process belongs to has ended");
	favo_channel_exit(ch, &ex);
}

static void command_lost(struct favo_conn *conn, const char *reason)
{
	(void)reason;
	drop_link(favo_conn_user(conn));
}

static const struct favo_conn_ops command_ops = {
	.run = command_run,
	.lost = command_lost,
};

static int add_link(struct favo_service *svc, int fd, const uint8_t *secret,
		    const struct favo_conn_ops *ops, struct favo_err *err)
{
	favo_autoclose int owned = fd;
	struct link *l = calloc(1, sizeof(*l));
	int ret;

	if (!l)
		return favo_fail(err, ENOMEM, "allocate connection");
	l->svc = svc;
	ret = favo_conn_new(&l->conn, svc->loop, fd, false, secret, ops, l, err);
	if (ret < 0) {
		free(l);
		return ret;
	}
	favo_steal_fd(&owned);
	l->next = svc->links;
	svc->links = l;
	return 0;
}

static void on_host(struct favo_watch *watch, short revents)
{
	struct favo_service *svc = watch->user;
	struct sockaddr_storage addr = {0};
	socklen_t len = sizeof(addr);
	favo_autoclose int fd = accept4(watch->fd, (struct sockaddr *)&addr, &len,
					SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct favo_err err = {0};

	(void)revents;
	if (fd < 0)
		return;
	if (addr.ss_family == AF_VSOCK &&
	    ((struct sockaddr_vm *)(void *)&addr)->svm_cid != VMADDR_CID_HOST) {
		favo_log(FAVO_WARN, "agent: connection from CID %u turned away",
			 ((struct sockaddr_vm *)(void *)&addr)->svm_cid);
		return;
	}
	if (add_link(svc, favo_steal_fd(&fd), svc->config.secret, &host_ops, &err) < 0)
		favo_log(FAVO_WARN, "agent: %s", err.msg);
}

static void on_command(struct favo_watch *watch, short revents)
{
	struct favo_service *svc = watch->user;
	favo_autoclose int fd =
		accept4(watch->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
	struct favo_err err = {0};
	struct ucred cred;
	socklen_t len = sizeof(cred);

	(void)revents;
	if (fd < 0)
		return;
	if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) < 0 ||
	    cred.uid != svc->config.uid) {
		favo_log(FAVO_WARN, "agent: Slurm command of uid %u turned away",
			 cred.uid);
		return;
	}
	if (add_link(svc, favo_steal_fd(&fd), NULL, &command_ops, &err) < 0)
		favo_log(FAVO_WARN, "agent: %s", err.msg);
}

/*
 * The root as a stream: our own program as root, whose words are fixed, so
 * that it can be asked for but not be used for anything else.
 */
static int choose_save(struct favo_run *run, struct favo_choice *choice,
		       struct favo_err *err)
{
	char **argv;

	/* They would be written as root. */
	if (run->n_files)
		return favo_fail(err, EPERM, FAVO_SAVE_COMMAND " takes no files");
	argv = calloc(3, sizeof(*argv));
	choice->program = strdup("/run/favo/favo-init");
	if (!argv || !choice->program || !(argv[0] = strdup("favo-init")) ||
	    !(argv[1] = strdup("--save"))) {
		favo_strv_free(argv);
		return favo_fail(err, ENOMEM, "out of memory");
	}
	favo_strv_free(run->argv);
	run->argv = argv;
	favo_strv_free(run->env);
	run->env = calloc(1, sizeof(*run->env));
	if (!run->env)
		return favo_fail(err, ENOMEM, "out of memory");
	run->uid = 0;
	run->gid = 0;
	run->n_groups = 0;
	free(run->cwd);
	run->cwd = NULL;
	choice->stops_others = true;
	return 0;
}

static int check_run(void *user, struct favo_run *run, struct favo_choice *choice,
		     struct favo_err *err)
{
	struct favo_service *svc = user;

	if (run->uid != svc->config.uid)
		return favo_fail(err, EPERM, "this guest is for uid %u, not %u",
				 svc->config.uid, run->uid);
	if (strcmp(run->argv[0], FAVO_SAVE_COMMAND) == 0)
		return choose_save(run, choice, err);
	return 0;
}

static int listen_for_commands(struct favo_service *svc, struct favo_err *err)
{
	int ret;

	if (!svc->config.command_socket)
		return 0;
	ret = favo_unix_listen(&svc->commands.fd, svc->config.command_socket, 0666, err);
	if (ret < 0)
		return ret;
	svc->commands.events = POLLIN;
	svc->commands.fn = on_command;
	svc->commands.user = svc;
	return favo_watch_add(svc->loop, &svc->commands, err);
}

int favo_service_new(struct favo_service **out, struct favo_loop *loop, int listen_fd,
		     const struct favo_service_config *config, struct favo_err *err)
{
	struct favo_service *svc = calloc(1, sizeof(*svc));
	struct favo_server_config sc = {
		.switch_ids = config->switch_ids,
		.relays = true,
		.home = config->home,
		.cgroup_root = config->cgroup_root,
		.command_dir = config->command_dir,
		.check = check_run,
		.resume = favo_save_thaw,
		.user = svc,
	};
	int ret;

	if (!svc) {
		close(listen_fd);
		return favo_fail(err, ENOMEM, "allocate agent");
	}
	svc->loop = loop;
	svc->config = *config;
	svc->commands.fd = -1;
	svc->listener = (struct favo_watch){
		.fd = listen_fd, .events = POLLIN, .fn = on_host, .user = svc};
	ret = favo_server_new(&svc->server, loop, &sc, err);
	if (ret == 0)
		ret = favo_watch_add(loop, &svc->listener, err);
	if (ret == 0)
		ret = listen_for_commands(svc, err);
	if (ret < 0) {
		favo_service_free(svc);
		return ret;
	}
	*out = svc;
	return 0;
}

void favo_service_free(struct favo_service *svc)
{
	if (!svc)
		return;
	favo_server_free(svc->server);
	while (svc->links)
		drop_link(svc->links);
	favo_watch_del(&svc->listener);
	favo_watch_del(&svc->commands);
	favo_close(&svc->listener.fd);
	favo_close(&svc->commands.fd);
	free(svc);
}

void favo_service_reap(struct favo_service *svc)
{
	pid_t pid;
	int status;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		favo_server_reaped(svc->server, pid, status);
}
