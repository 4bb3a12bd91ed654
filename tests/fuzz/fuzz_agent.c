// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Agent protocol: the input is what a peer sends on a connection. It goes
 * through framing, channels and requests as in favo-init and favo-task, and
 * each parser also gets it alone.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include "common/fd.h"
#include "images/guest/agent.h"
#include "images/guest/conn.h"
#include "images/guest/guest_config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void on_data(struct favo_channel *ch, unsigned stream, const uint8_t *p, size_t n)
{
	(void)p;
	favo_channel_consumed(ch, stream, n);
}

static const struct favo_channel_ops channel_ops = {.data = on_data};

static void on_run(struct favo_conn *conn, struct favo_channel *ch, struct favo_run *run)
{
	(void)conn;
	favo_run_free(run);
	favo_channel_set(ch, &channel_ops, NULL);
}

static void on_open(struct favo_conn *conn, struct favo_channel *ch, const char *endpoint)
{
	(void)conn;
	if (endpoint[0] == 'x')
		favo_channel_close(ch, "no");
	else
		favo_channel_set(ch, &channel_ops, NULL);
}

static void on_lost(struct favo_conn *conn, const char *reason)
{
	struct favo_conn **slot = favo_conn_user(conn);

	(void)reason;
	*slot = NULL;
	favo_conn_free(conn);
}

static void feed(const uint8_t *data, size_t size)
{
	static const struct favo_conn_ops ops = {
		.run = on_run, .open = on_open, .lost = on_lost};
	struct favo_conn *conn = NULL;
	struct favo_loop *loop = NULL;
	int sv[2];

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return;
	if (favo_loop_new(&loop, NULL) < 0 ||
	    favo_conn_new(&conn, loop, sv[1], false, NULL, &ops, &conn, NULL) < 0)
		abort();
	if (size && favo_write_all(sv[0], data, size, 0, NULL) < 0)
		size = 0;
	shutdown(sv[0], SHUT_WR);
	for (int i = 0; conn && i < 64; i++)
		if (favo_loop_once(loop, 0, NULL) < 0)
			break;
	favo_conn_free(conn);
	favo_loop_free(loop);
	close(sv[0]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct favo_guest_config config;
	struct favo_run *run = NULL;
	struct favo_exit ex;

	if (size > 60000)
		return 0;
	feed(data, size);
	if (favo_run_decode(&run, data, size, NULL) == 0)
		favo_run_free(run);
	if (favo_exit_decode(&ex, data, size, NULL) == 0 && ex.kind == 0)
		abort();
	if (favo_guest_config_parse(&config, (const char *)data, size, NULL) == 0)
		favo_guest_config_fini(&config);
	return 0;
}
