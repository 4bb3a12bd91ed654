/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Connection of the agent protocol: many channels on one stream socket, with
 * credit per stream, so that a slow reader holds up nobody else.
 *
 * A channel is a process (opened by RUN) or a byte stream (opened by OPEN).
 * Both sides may open channels. Callbacks come from the loop, never from
 * within a call; channels and connections are freed by the connection and
 * loop, at the end of a round. One thread.
 */
#pragma once

#include <stdbool.h>
#include <stdint.h>
#include <sys/ioctl.h>

#include "common/err.h"
#include "images/guest/agent.h"
#include "images/guest/loop.h"
#include "images/guest/run.h"

struct favo_conn;
struct favo_channel;

/* Every member may be NULL. */
struct favo_channel_ops {
	/* Bytes of a stream; give the credit back with favo_channel_consumed(). */
	void (*data)(struct favo_channel *ch, unsigned stream, const uint8_t *p,
		     size_t n);
	void (*eof)(struct favo_channel *ch, unsigned stream);
	void (*stop)(struct favo_channel *ch, unsigned stream);
	/* There may be room to send again. */
	void (*ready)(struct favo_channel *ch);
	/* The peer took n bytes of a stream (for forwarders). */
	void (*credit)(struct favo_channel *ch, unsigned stream, uint32_t n);
	/* Opener only. note is "" or a sentence. */
	void (*started)(struct favo_channel *ch, uint32_t pid, const char *note);
	/* Opener only; the channel is gone after this. */
	void (*exited)(struct favo_channel *ch, const struct favo_exit *ex);
	/* Acceptor only. */
	void (*signal)(struct favo_channel *ch, int signo,
		       enum favo_signal_target target);
	void (*winsize)(struct favo_channel *ch, const struct winsize *ws);
	/* The peer closed it or the connection broke; it is gone after this. */
	void (*closed)(struct favo_channel *ch, const char *reason);
};

struct favo_conn_ops {
	/* HELLO was right (acceptors with a secret only). */
	void (*ready)(struct favo_conn *conn);
	/*
	 * The peer asks to run something or for a byte stream. Accept by
	 * favo_channel_set(), refuse by favo_channel_exit() or _close(). The
	 * callee owns run.
	 */
	void (*run)(struct favo_conn *conn, struct favo_channel *ch,
		    struct favo_run *run);
	void (*open)(struct favo_conn *conn, struct favo_channel *ch,
		     const char *endpoint);
	void (*shutdown)(struct favo_conn *conn, enum favo_shutdown how);
	/* All channels are closed; free the connection here. */
	void (*lost)(struct favo_conn *conn, const char *reason);
};

/*
 * Take over fd. The initiator is the side that connected. With a secret the
 * connection first waits for the peer's HELLO and answers it; without one the
 * exchange was made already. ops and user are borrowed.
 */
int favo_conn_new(struct favo_conn **out, struct favo_loop *loop, int fd, bool initiator,
		  const uint8_t *secret, const struct favo_conn_ops *ops, void *user,
		  struct favo_err *err) favo_must_check;
/* Channels get no callback any more. */
void favo_conn_free(struct favo_conn *conn);
void *favo_conn_user(const struct favo_conn *conn);
bool favo_conn_is_ready(const struct favo_conn *conn);
/* End it at the end of this round: channels are closed, lost is called. */
void favo_conn_fail(struct favo_conn *conn, const char *reason);
/* Are bytes still queued for the peer? */
bool favo_conn_has_output(const struct favo_conn *conn);
int favo_conn_shutdown_peer(struct favo_conn *conn, enum favo_shutdown how,
			    struct favo_err *err) favo_must_check;

/* Open a channel. */
int favo_channel_run(struct favo_channel **out, struct favo_conn *conn,
		     const struct favo_run *run, const struct favo_channel_ops *ops,
		     void *user, struct favo_err *err) favo_must_check;
int favo_channel_open(struct favo_channel **out, struct favo_conn *conn,
		      const char *endpoint, const struct favo_channel_ops *ops,
		      void *user, struct favo_err *err) favo_must_check;

void favo_channel_set(struct favo_channel *ch, const struct favo_channel_ops *ops,
		      void *user);
void *favo_channel_user(const struct favo_channel *ch);
struct favo_conn *favo_channel_conn(const struct favo_channel *ch);

/* Bytes that may be sent now: credit, and not too much queued already. */
size_t favo_channel_room(const struct favo_channel *ch, unsigned stream);
/* Send n bytes within the credit. */
void favo_channel_send(struct favo_channel *ch, unsigned stream, const void *p, size_t n);
void favo_channel_consumed(struct favo_channel *ch, unsigned stream, size_t n);
void favo_channel_eof(struct favo_channel *ch, unsigned stream);
void favo_channel_stop(struct favo_channel *ch, unsigned stream);
void favo_channel_started(struct favo_channel *ch, uint32_t pid, const char *note);
void favo_channel_signal(struct favo_channel *ch, int signo,
			 enum favo_signal_target target);
void favo_channel_winsize(struct favo_channel *ch, const struct winsize *ws);
/* Both end the channel; it must not be used afterwards. */
void favo_channel_exit(struct favo_channel *ch, const struct favo_exit *ex);
void favo_channel_close(struct favo_channel *ch, const char *reason);
