/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Byte streams between a socket and a channel: PMIx and PMI of a task on its
 * way out of the guest, and their way into slurmstepd on the host. One thread.
 */
#pragma once

#include <sys/types.h>

#include "common/err.h"
#include "images/guest/conn.h"
#include "images/guest/loop.h"

/*
 * Pump both ways between fd (taken over) and a channel that was opened by us
 * (ours) or by the peer, until both directions ended. Frees itself.
 */
int favo_relay_attach(struct favo_loop *loop, struct favo_channel *ch, int fd, bool ours,
		      struct favo_err *err) favo_must_check;
/* Open a channel to endpoint and pump. */
int favo_relay_open(struct favo_loop *loop, struct favo_conn *conn, int fd,
		    const char *endpoint, struct favo_err *err) favo_must_check;

/*
 * Listener on 127.0.0.1 whose connections become channels to endpoint. Only
 * processes with exactly this uid and gid get through: a client with another
 * identity would leave slurmstepd's PMIx server deadlocked.
 */
struct favo_listener;
int favo_listener_new(struct favo_listener **out, struct favo_loop *loop,
		      struct favo_conn *conn, const char *endpoint, uid_t uid, gid_t gid,
		      struct favo_err *err) favo_must_check;
uint16_t favo_listener_port(const struct favo_listener *l);
void favo_listener_free(struct favo_listener *l);

/*
 * Does the process at the other end of a loopback TCP connection have this
 * uid and gid, effectively, in our user namespace? -EACCES when not.
 */
int favo_peer_check(int fd, uid_t uid, gid_t gid, struct favo_err *err) favo_must_check;
