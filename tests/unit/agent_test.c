// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Unit tests of the agent protocol: frames, HELLO, requests, connections and
 * their credit, guest configuration, environments of tasks and commands.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"
#include "images/guest/agent.h"
#include "images/guest/command.h"
#include "images/guest/conn.h"
#include "images/guest/guest_config.h"
#include "images/guest/init.h"
#include "images/guest/relay.h"
#include "images/guest/run.h"
#include "slurm-plugin/task/task.h"

static const uint8_t secret[FAVO_AGENT_SECRET_SIZE] = {1, 2, 3, 4, 5, 6, 7, 8};

static void frames(void **state)
{
	/* length, channel, type, stream, flags, reserved; right one first */
	static const struct {
		uint32_t len, channel;
		uint8_t type, stream, flags, reserved;
		int ret;
	} cases[] = {
		{4, 1, FAVO_FRAME_DATA, 1, 0, 0, 16},
		{0, 1, FAVO_FRAME_DATA, 1, 0, 0, -EPROTO},
		{4, 0, FAVO_FRAME_DATA, 1, 0, 0, -EPROTO},
		{4, 1, FAVO_FRAME_DATA, 3, 0, 0, -EPROTO},
		{4, 1, FAVO_FRAME_DATA, 1, 1, 0, -EPROTO},
		{4, 1, FAVO_FRAME_DATA, 1, 0, 1, -EPROTO},
		{65537, 1, FAVO_FRAME_DATA, 1, 0, 0, -EPROTO},
		{UINT32_MAX, 1, FAVO_FRAME_DATA, 1, 0, 0, -EPROTO},
		{4, 1, 0, 0, 0, 0, -EPROTO},
		{4, 1, FAVO_FRAME_TYPES, 0, 0, 0, -EPROTO},
		{4, 1, FAVO_FRAME_RUN, 0, 1, 0, 16},
		{4, 1, FAVO_FRAME_RUN, 1, 0, 0, -EPROTO},
		{4, 1, FAVO_FRAME_RUN, 0, 2, 0, -EPROTO},
		{2, 1, FAVO_FRAME_SIGNAL, 0, 0, 0, 14},
		{3, 1, FAVO_FRAME_SIGNAL, 0, 0, 0, -EPROTO},
		{1, 1, FAVO_FRAME_SHUTDOWN, 0, 0, 0, -EPROTO},
		{1, 0, FAVO_FRAME_SHUTDOWN, 0, 0, 0, 13},
		{33, 1, FAVO_FRAME_OPEN, 0, 0, 0, -EPROTO},
	};
	uint8_t buf[FAVO_FRAME_HEADER + 64] = {0};
	struct favo_frame f;

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		struct favo_err err = {0};

		favo_put_le32(buf, cases[i].len);
		favo_put_le32(buf + 4, cases[i].channel);
		buf[8] = cases[i].type;
		buf[9] = cases[i].stream;
		buf[10] = cases[i].flags;
		buf[11] = cases[i].reserved;
		assert_int_equal(favo_frame_parse(&f, buf, sizeof(buf), &err),
				 cases[i].ret);
		assert_int_equal(err.code, cases[i].ret < 0 ? EPROTO : 0);
		/* A good frame that is not all there yet. */
		for (int n = 0; n < cases[i].ret; n++)
			assert_int_equal(favo_frame_parse(&f, buf, (size_t)n, NULL), 0);
	}
}

static void *answer_hello(void *arg)
{
	const uint8_t *bytes = arg;
	uint8_t in[FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD];
	int fd = *(const int *)(const void *)(bytes + 256);

	if (favo_read_all(fd, in, sizeof(in), 5000, NULL) < 0)
		return NULL;
	if (favo_write_all(fd, bytes, (size_t)bytes[255] + 2, 5000, NULL) < 0)
		return NULL;
	return arg;
}

static int try_hello(const uint8_t *answer, size_t len, struct favo_err *err)
{
	_Alignas(int) uint8_t bytes[256 + sizeof(int)] = {0};
	pthread_t thread;
	uint8_t rest[2];
	int sv[2];
	int ret;

	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	memcpy(bytes, answer, len);
	memcpy(bytes + len, "xy", 2);
	bytes[255] = (uint8_t)len;
	memcpy(bytes + 256, &sv[1], sizeof(int));
	assert_int_equal(pthread_create(&thread, NULL, answer_hello, bytes), 0);
	ret = favo_agent_hello(sv[0], secret, 3000, err);
	pthread_join(thread, NULL);
	/* What follows the answer is left for whoever gets the socket. */
	if (ret == 0) {
		assert_int_equal(favo_read_all(sv[0], rest, 2, 1000, NULL), 0);
		assert_memory_equal(rest, "xy", 2);
	}
	close(sv[0]);
	close(sv[1]);
	return ret;
}

static void hello(void **state)
{
	uint8_t good[FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD], bad[sizeof(good)];
	struct favo_err err = {0};
	int sv[2];

	(void)state;
	favo_hello_format(good, secret);
	assert_int_equal(try_hello(good, sizeof(good), NULL), 0);
	memcpy(bad, good, sizeof(bad));
	bad[sizeof(bad) - 1] ^= 1;
	assert_int_equal(try_hello(bad, sizeof(bad), &err), -EACCES);
	memcpy(bad, good, sizeof(bad));
	bad[FAVO_FRAME_HEADER] ^= 1;
	assert_int_equal(try_hello(bad, sizeof(bad), NULL), -EPROTO);
	memcpy(bad, good, sizeof(bad));
	bad[FAVO_FRAME_HEADER + 8] = 2;
	assert_int_equal(try_hello(bad, sizeof(bad), &err), -EPROTO);
	assert_non_null(strstr(err.msg, "version 2"));
	memcpy(bad, good, sizeof(bad));
	bad[FAVO_FRAME_HEADER + 12] = 1;
	assert_int_equal(try_hello(bad, sizeof(bad), NULL), -EPROTO);
	bad[2] = 1;
	assert_int_equal(try_hello(bad, sizeof(bad), NULL), -EPROTO);
	/* Nobody answers. */
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(favo_agent_hello(sv[0], secret, 50, &err), -ETIMEDOUT);
	close(sv[1]);
	assert_true(favo_agent_hello(sv[0], secret, 50, &err) < 0);
	close(sv[0]);
}

static void fill_run(struct favo_run *run)
{
	static char *argv[] = {"prog", "", "a b", NULL};
	static char *env[] = {"A=1", "B=", "C==", NULL};
	static char *uris[] = {"URI=x:", "URI2=y:", NULL};
	static char *fds[] = {"PMI_FD=", NULL};
	static gid_t groups[] = {4, 5};
	static struct favo_run_rlimit limits[] = {{7, 1024, 4096}, {4, 0, UINT64_MAX}};
	static struct favo_run_file files[] = {{"/spool/script", 0700,
						(uint8_t *)"#!/bin/sh\n\0x", 12},
					       {"/e", 0600, NULL, 0}};
	static struct favo_run_relay relays[] = {{FAVO_RELAY_TCP, "pmix", uris},
						 {FAVO_RELAY_FD, "pmi", fds}};

	*run = (struct favo_run){
		.argv = argv,
		.env = env,
		.cwd = "/home/x",
		.group = "12.0",
		.session = "abc",
		.flags = FAVO_RUN_PTY | FAVO_RUN_COMMANDS,
		.uid = 1000,
		.gid = 1001,
		.groups = groups,
		.n_groups = 2,
		.umask = 027,
		.winsize = {24, 80, 640, 480},
		.rlimits = limits,
		.n_rlimits = 2,
		.files = files,
		.n_files = 2,
		.relays = relays,
		.n_relays = 2,
	};
}

static void requests(void **state)
{
	favo_autobuf struct favo_buf wire = {0};
	favo_autorun struct favo_run *r = NULL;
	struct favo_err err = {0};
	struct favo_run run;

	(void)state;
	fill_run(&run);
	assert_int_equal(favo_run_encode(&wire, &run, &err), 0);
	assert_int_equal(favo_run_decode(&r, favo_buf_data(&wire), wire.len, &err), 0);
	for (int i = 0; run.argv[i]; i++)
		assert_string_equal(r->argv[i], run.argv[i]);
	for (int i = 0; run.env[i]; i++)
		assert_string_equal(r->env[i], run.env[i]);
	assert_null(r->argv[3]);
	assert_string_equal(r->cwd, "/home/x");
	assert_string_equal(r->group, "12.0");
	assert_string_equal(r->session, "abc");
	assert_int_equal(r->flags, run.flags);
	assert_int_equal(r->uid, 1000);
	assert_int_equal(r->gid, 1001);
	assert_int_equal(r->n_groups, 2);
	assert_int_equal(r->groups[1], 5);
	assert_int_equal(r->umask, 027);
	assert_memory_equal(&r->winsize, &run.winsize, sizeof(run.winsize));
	assert_int_equal(r->rlimits[1].hard, UINT64_MAX);
	assert_int_equal(r->n_files, 2);
	assert_memory_equal(r->files[0].data, "#!/bin/sh\n\0x", 12);
	assert_int_equal(r->files[0].mode, 0700);
	assert_int_equal(r->relays[0].kind, FAVO_RELAY_TCP);
	assert_string_equal(r->relays[0].env[1], "URI2=y:");
	assert_string_equal(r->relays[1].endpoint, "pmi");
	assert_string_equal(favo_env_get(r->env, "C"), "=");
	assert_null(favo_env_get(r->env, "D"));
	/* Cut anywhere, or with one byte changed: refused or still a request. */
	for (size_t i = 0; i < wire.len; i++) {
		struct favo_run *cut = NULL;

		if (favo_run_decode(&cut, favo_buf_data(&wire), i, NULL) == 0)
			favo_run_free(cut);
		for (int bit = 0; bit < 8; bit++) {
			wire.mem[wire.head + i] ^= (uint8_t)(1 << bit);
			if (favo_run_decode(&cut, favo_buf_data(&wire), wire.len, NULL) ==
			    0)
				favo_run_free(cut);
			wire.mem[wire.head + i] ^= (uint8_t)(1 << bit);
		}
	}
}

static void bad_requests(void **state)
{
	/* One item after the user's and an argument. */
	static const struct {
		uint8_t tag;
		const char *data;
		size_t len;
	} cases[] = {
		{1, "a\0b", 3}, /* NUL in an argument */
		{2, "NAME", 4}, /* no value */
		{2, "=x", 2}, /* no name */
		{3, "relative", 8}, /* directory */
		{3, "", 0}, /* empty directory */
		{4, "\0\0\0\0\0\0\0\0", 8}, /* second user */
		{5, "\xff\0\0\0\0\0\0\0", 8}, /* unknown flag */
		{5, "\0\0\0\0\0\4\0\0", 8}, /* umask 02000 */
		{6, "\0\0", 2}, /* short window size */
		{7, "\x63\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0", 20}, /* limit 99 */
		{7, "\1\0\0\0\2\0\0\0\0\0\0\0\1\0\0\0\0\0\0\0", 20}, /* soft > hard */
		{8, "\0\0\0\0\1\0\0\0x", 9}, /* relative file */
		{8, "\0\4\0\0\1\0\0\0/", 9}, /* mode 02000 */
		{8, "\0\0\0\0\2\0\0\0/", 9}, /* path beyond the item */
		{9, "\3x", 2}, /* relay of no kind */
		{9, "\1", 1}, /* no endpoint */
		{10, "A=", 2}, /* no relay before it */
		{13, "x", 1}, /* unknown item */
		{0, "", 0},
	};
	static const uint8_t start[] = {8, 0, 0, 0, 4, 1, 0, 0, 0,  2,
					0, 0, 0, 1, 0, 0, 0, 1, 'x'};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		uint8_t buf[128];
		struct favo_run *run = NULL;
		struct favo_err err = {0};

		memcpy(buf, start, sizeof(start));
		assert_int_equal(favo_run_decode(&run, buf, sizeof(start), &err), 0);
		favo_run_free(run);
		favo_put_le32(buf + sizeof(start), (uint32_t)cases[i].len);
		buf[sizeof(start) + 4] = cases[i].tag;
		memcpy(buf + sizeof(start) + 5, cases[i].data, cases[i].len);
		assert_int_equal(favo_run_decode(&run, buf,
						 sizeof(start) + 5 + cases[i].len, &err),
				 -EPROTO);
		assert_true(err.msg[0]);
	}
}

static void exits(void **state)
{
	struct favo_exit ex = {.kind = FAVO_EXIT_FAILED, .number = ENOENT}, back;
	uint8_t wire[FAVO_EXIT_WIRE_MAX];
	size_t n;

	(void)state;
	snprintf(ex.reason, sizeof(ex.reason), "no \033[1msuch");
	n = favo_exit_encode(wire, &ex);
	assert_int_equal(favo_exit_decode(&back, wire, n, NULL), 0);
	assert_string_equal(back.reason, "no ?[1msuch");
	assert_int_equal(favo_exit_decode(&back, wire, 11, NULL), -EPROTO);
	wire[0] = 9;
	assert_int_equal(favo_exit_decode(&back, wire, n, NULL), -EPROTO);
	ex = (struct favo_exit){.kind = FAVO_EXIT_SIGNAL, .core = true, .number = 11};
	n = favo_exit_encode(wire, &ex);
	assert_int_equal(favo_exit_decode(&back, wire, n, NULL), 0);
	assert_true(back.core && back.number == 11);
	favo_put_le32(wire + 4, 65);
	assert_int_equal(favo_exit_decode(&back, wire, n, NULL), -EPROTO);
}

/* Two connections in one loop. */
struct pair {
	struct favo_loop *loop;
	struct favo_conn *a, *b;
	struct favo_channel *sender[2];
	size_t sent[2], got[2];
	bool ready;
	char lost[256];
};

static void fast_data(struct favo_channel *ch, unsigned stream, const uint8_t *p,
		      size_t n)
{
	struct pair *t = favo_channel_user(ch);

	(void)p;
	t->got[1] += n;
	favo_channel_consumed(ch, stream, n);
}

static void slow_data(struct favo_channel *ch, unsigned stream, const uint8_t *p,
		      size_t n)
{
	struct pair *t = favo_channel_user(ch);

	(void)stream;
	(void)p;
	t->got[0] += n;
}

static void pair_open(struct favo_conn *conn, struct favo_channel *ch,
		      const char *endpoint)
{
	static const struct favo_channel_ops fast = {.data = fast_data};
	static const struct favo_channel_ops slow = {.data = slow_data};

	favo_channel_set(ch, strcmp(endpoint, "slow") == 0 ? &slow : &fast,
			 favo_conn_user(conn));
}

static void pair_ready(struct favo_conn *conn)
{
	struct pair *t = favo_conn_user(conn);

	t->ready = true;
}

static void pair_lost(struct favo_conn *conn, const char *reason)
{
	struct pair *t = favo_conn_user(conn);

	snprintf(t->lost, sizeof(t->lost), "%s", reason);
	*(conn == t->a ? &t->a : &t->b) = NULL;
	favo_conn_free(conn);
}

static const struct favo_conn_ops pair_ops = {
	.ready = pair_ready,
	.open = pair_open,
	.lost = pair_lost,
};

static void send_all(struct favo_channel *ch)
{
	static const uint8_t bytes[16384];
	struct pair *t = favo_channel_user(ch);
	int i = ch == t->sender[1];
	size_t room;

	while ((room = favo_channel_room(ch, FAVO_STREAM_IN)) > 0) {
		room = FAVO_MIN(room, sizeof(bytes));
		favo_channel_send(ch, FAVO_STREAM_IN, bytes, room);
		t->sent[i] += room;
	}
}

static void credit(void **state)
{
	static const struct favo_channel_ops ops = {.ready = send_all};
	static const char *const names[] = {"slow", "fast"};
	struct favo_err err = {0};
	struct pair t = {0};
	int sv[2];

	(void)state;
	assert_int_equal(favo_loop_new(&t.loop, &err), 0);
	assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv), 0);
	assert_int_equal(
		favo_conn_new(&t.a, t.loop, sv[0], true, NULL, &pair_ops, &t, &err), 0);
	assert_int_equal(
		favo_conn_new(&t.b, t.loop, sv[1], false, NULL, &pair_ops, &t, &err), 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(favo_channel_open(&t.sender[i], t.a, names[i], &ops, &t,
						   &err),
				 0);
		send_all(t.sender[i]);
	}
	for (int i = 0; i < 100000 && t.got[1] < 8 << 20; i++)
		assert_int_equal(favo_loop_once(t.loop, 100, &err), 0);
	/* The reader that takes nothing got its window; the other one all it wants. */
	assert_true(t.got[1] >= 8 << 20);
	assert_int_equal(t.sent[0], FAVO_STREAM_WINDOW);
	assert_int_equal(t.got[0], FAVO_STREAM_WINDOW);
	/* One end goes: the other notices. */
	favo_conn_free(t.a);
	t.a = NULL;
	for (int i = 0; i < 100 && t.b; i++)
		assert_int_equal(favo_loop_once(t.loop, 100, &err), 0);
	assert_null(t.b);
	favo_loop_free(t.loop);
}

/* Frames that a peer may not send at all, or not then. */
static void violations(void **state)
{
	static const uint8_t zero[64];
	static const struct {
		struct favo_frame f[2];
	} cases[] = {
		{{{.type = FAVO_FRAME_DATA, .channel = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 2, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 3, .len = 4},
		  {.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4},
		  {.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4},
		  {.type = FAVO_FRAME_DATA, .channel = 1, .stream = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4},
		  {.type = FAVO_FRAME_DATA, .channel = 1, .stream = 2, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4},
		  {.type = FAVO_FRAME_CREDIT, .channel = 1, .stream = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4},
		  {.type = FAVO_FRAME_SIGNAL, .channel = 1, .len = 2}}},
		{{{.type = FAVO_FRAME_OPEN, .channel = 1, .len = 4},
		  {.type = FAVO_FRAME_EXIT, .channel = 1, .len = 12}}},
		{{{.type = FAVO_FRAME_RUN, .channel = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_RUN, .channel = 1, .flags = 1, .len = 4},
		  {.type = FAVO_FRAME_DATA, .channel = 1, .len = 4}}},
		{{{.type = FAVO_FRAME_STARTED, .channel = 2, .len = 4}}},
		{{{.type = FAVO_FRAME_SHUTDOWN, .len = 1}}},
		{{{.type = FAVO_FRAME_HELLO, .len = FAVO_HELLO_PAYLOAD}}},
	};
	struct favo_err err = {0};

	(void)state;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(cases); i++) {
		struct pair t = {0};
		int sv[2];

		assert_int_equal(favo_loop_new(&t.loop, &err), 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv),
				 0);
		assert_int_equal(favo_conn_new(&t.b, t.loop, sv[1], false, NULL,
					       &pair_ops, &t, &err),
				 0);
		for (int k = 0; k < 2 && cases[i].f[k].type; k++) {
			uint8_t header[FAVO_FRAME_HEADER];
			const uint8_t *body = cases[i].f[k].type == FAVO_FRAME_OPEN
						      ? (const uint8_t *)"slow"
						      : zero;

			favo_frame_put_header(header, &cases[i].f[k]);
			assert_int_equal(favo_write_all(sv[0], header, sizeof(header),
							1000, &err),
					 0);
			assert_int_equal(favo_write_all(sv[0], body, cases[i].f[k].len,
							1000, &err),
					 0);
		}
		for (int k = 0; k < 50 && t.b; k++)
			assert_int_equal(favo_loop_once(t.loop, 100, &err), 0);
		assert_null(t.b);
		assert_string_not_equal(t.lost, "connection closed");
		close(sv[0]);
		favo_loop_free(t.loop);
	}
}

static void secrets(void **state)
{
	uint8_t out[FAVO_FRAME_HEADER + FAVO_HELLO_PAYLOAD];
	struct favo_err err = {0};

	(void)state;
	for (int wrong = 0; wrong < 2; wrong++) {
		struct pair t = {0};
		uint8_t other[FAVO_AGENT_SECRET_SIZE];
		int sv[2];

		memcpy(other, secret, sizeof(other));
		other[31] ^= (uint8_t)wrong;
		assert_int_equal(favo_loop_new(&t.loop, &err), 0);
		assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv),
				 0);
		assert_int_equal(favo_conn_new(&t.b, t.loop, sv[1], false, secret,
					       &pair_ops, &t, &err),
				 0);
		favo_hello_format(out, other);
		assert_int_equal(favo_write_all(sv[0], out, sizeof(out), 1000, &err), 0);
		for (int k = 0; k < 5; k++)
			assert_int_equal(favo_loop_once(t.loop, 20, &err), 0);
		assert_int_equal(t.ready, !wrong);
		assert_int_equal(t.b == NULL, wrong);
		favo_conn_free(t.b);
		close(sv[0]);
		favo_loop_free(t.loop);
	}
}

#define CONFIG_TEXT                                                                      \
	"{\"format\":1,\"hostname\":\"vm0\",\"job\":12,\"index\":0,"                     \
	"\"secret\":"                                                                    \
	"\"0102030405060708000000000000000000000000000000000000000000000000\","          \
	"\"time_ns\":5,\"prefix_len\":16,\"mtu\":1450,\"mac\":\"02:fa:00:0c:00:00\","    \
	"\"address\":\"10.128.0.1\",\"members\":[{\"name\":\"vm0\","                     \
	"\"address\":\"10.128.0.1\",\"mac\":\"02:fa:00:0c:00:00\",\"node\":\"n1\"}],"    \
	"\"user\":{\"name\":\"alice\",\"uid\":1000,\"gid\":1000,\"home\":\"/home/"       \
	"alice\","                                                                       \
	"\"shell\":\"/bin/bash\",\"groups\":[{\"name\":\"users\",\"gid\":1000}]},"       \
	"\"root\":{\"device\":\"/dev/"                                                   \
	"vda\",\"fstype\":\"erofs\"},\"network\":\"private\"}"

static void replace_text(char *out, size_t size, const char *from, const char *to)
{
	const char *at = strstr(CONFIG_TEXT, from);

	assert_non_null(at);
	snprintf(out, size, "%.*s%s%s", (int)(at - CONFIG_TEXT), CONFIG_TEXT, to,
		 at + strlen(from));
}

static void configuration(void **state)
{
	static const char *const bad[][2] = {
		{"\"format\":1", "\"format\":2"},
		{"\"hostname\":\"vm0\"", "\"hostname\":\"v m0\""},
		{"\"hostname\":\"vm0\"", "\"hostname\":7"},
		{"\"hostname\":\"vm0\",", ""},
		{"\"index\":0", "\"index\":-1"},
		{"0102", "01"},
		{"0102", "zz02"},
		{"\"prefix_len\":16", "\"prefix_len\":33"},
		{"\"mtu\":1450", "\"mtu\":10"},
		{"02:fa:00:0c:00:00", "02:fa:00:0c:00"},
		{"02:fa:00:0c:00:00", "02:fa:00:0c:00:00:1"},
		{"10.128.0.1", "10.128.0"},
		{"\"alice\"", "\"al:ice\""},
		{"\"alice\"", "\"al\\nice\""},
		{"\"uid\":1000", "\"uid\":4294967295"},
		{"/home/alice", "home"},
		{"\"users\"", "\"a:b\""},
		{"\"root\"", "\"roof\""},
		{"}", ""},
	};
	struct favo_guest_config c;
	struct favo_err err = {0};
	char text[2048];

	(void)state;
	assert_int_equal(
		favo_guest_config_parse(&c, CONFIG_TEXT, strlen(CONFIG_TEXT), &err), 0);
	assert_string_equal(c.hostname, "vm0");
	assert_int_equal(c.n_members, 1);
	assert_int_equal(c.members[0].mac[3], 0x0c);
	assert_int_equal(ntohl(c.address.s_addr), 0x0a800001);
	assert_int_equal(c.groups[0].gid, 1000);
	assert_memory_equal(c.secret, secret, sizeof(secret));
	favo_guest_config_fini(&c);
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(bad); i++) {
		replace_text(text, sizeof(text), bad[i][0], bad[i][1]);
		err = (struct favo_err){0};
		assert_true(favo_guest_config_parse(&c, text, strlen(text), &err) < 0);
		assert_true(err.msg[0]);
	}
	replace_text(text, sizeof(text), "/bin/bash", "");
	assert_int_equal(favo_guest_config_parse(&c, text, strlen(text), &err), 0);
	assert_string_equal(c.shell, "/bin/sh");
	favo_guest_config_fini(&c);
}

static void put_file(const char *root, const char *name, const char *text)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	assert_int_equal(favo_file_replace(path, text, strlen(text), 0644, NULL), 0);
}

static void expect_file(const char *root, const char *name, const char *text)
{
	favo_autofree char *got = NULL;
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", root, name);
	assert_int_equal(favo_file_read(path, 65536, &got, NULL, NULL), 0);
	assert_string_equal(got, text);
}

static void identity(void **state)
{
	char root[] = "/tmp/favo-identity-XXXXXX";
	char text[8192], crowd[6000], path[128];
	struct favo_guest_config c;
	struct favo_err err = {0};
	struct stat st;

	(void)state;
	/* A site's group may have hundreds of members. */
	memset(crowd, 'm', sizeof(crowd));
	memcpy(crowd, "crowd:x:300:", 12);
	crowd[sizeof(crowd) - 1] = '\0';
	assert_non_null(mkdtemp(root));
	replace_text(text, sizeof(text), "\"uid\":1000", "\"uid\":4711");
	assert_int_equal(favo_guest_config_parse(&c, text, strlen(text), &err), 0);
	/* Only root can give a home directory away. */
	c.uid = getuid() ? getuid() : 4711;
	c.gid = getuid() ? getgid() : 1000;
	snprintf(path, sizeof(path), "%s/etc", root);
	assert_int_equal(mkdir(path, 0755), 0);
	snprintf(text, sizeof(text),
		 "root:x:0:0::/root:/bin/sh\nalice:x:77:77::/old:/bin/sh\n"
		 "debian:x:%u:1::/d:/bin/sh\nbob:x:78:78::/b:/bin/sh\n",
		 c.uid);
	put_file(root, "etc/passwd", text);
	snprintf(text, sizeof(text),
		 "root:x:0:\nusers:x:100:\nother:x:1000:bob\nbin:x:2:\n%s\n", crowd);
	put_file(root, "etc/group", text);
	assert_int_equal(favo_identity_setup(root, &c, &err), 0);
	snprintf(text, sizeof(text),
		 "root:x:0:0::/root:/bin/sh\nbob:x:78:78::/b:/bin/sh\n"
		 "alice:x:%u:%u::/home/alice:/bin/bash\n",
		 c.uid, c.gid);
	expect_file(root, "etc/passwd", text);
	snprintf(text, sizeof(text), "root:x:0:\nbin:x:2:\n%s\nusers:x:1000:%s\n", crowd,
		 c.gid == 1000 ? "" : "alice");
	expect_file(root, "etc/group", text);
	expect_file(root, "etc/hostname", "vm0\n");
	expect_file(root, "etc/hosts",
		    "127.0.0.1 localhost\n::1 localhost ip6-localhost\n10.128.0.1 vm0\n");
	snprintf(path, sizeof(path), "%s/home/alice", root);
	assert_int_equal(stat(path, &st), 0);
	assert_int_equal(st.st_uid, c.uid);
	assert_int_equal(st.st_mode & 0777, 0700);
	favo_guest_config_fini(&c);
	assert_int_equal(favo_remove_tree(root, &err), 0);
}

static void task_environment(void **state)
{
	static char *host[] = {
		"PATH=/bin",
		"SLURM_JOB_ID=1",
		"FAVO_TASK_ARGV0=x",
		"SLURM_SPANK_FAVO_GRANT=secret",
		"LD_PRELOAD=x.so",
		"PMIX_RANK=3",
		"PMIX_SERVER_URI2=pmix-server.7;tcp4://127.0.0.1:4711",
		"PMIX_SERVER_URI3=pmix-server.7;tcp4://127.0.0.1:4711",
		"PMIX_SERVER_URI4=pmix-server.7;tcp4://127.0.0.1:99",
		"PMIX_DSTORE_21_BASE_PATH=/spool",
		"PMIX_SECURITY_MODE=munge,native",
		"TMPDIR=/tmp/job1",
		"PMI_FD=11",
		"FAVO_GUEST_ENV_PATH=/guest/bin",
		"FAVO_GUEST_ENV_X=1 2",
		"FAVO_GUEST_ENV_LD_LIBRARY_PATH=/guest/lib",
		"FAVO_GUEST_ENV_PMIX_RANK=9",
		"FAVO_GUEST_ENV_FAVO_TASK_ARGV0=y",
		NULL,
	};
	struct favo_run *run = calloc(1, sizeof(*run));
	struct favo_task task = {.pmi_fd = 11};
	struct favo_err err = {0};

	(void)state;
	assert_int_equal(favo_task_env(run, &task, host, &err), 0);
	assert_string_equal(favo_env_get(run->env, "PATH"), "/guest/bin");
	assert_string_equal(favo_env_get(run->env, "X"), "1 2");
	assert_string_equal(favo_env_get(run->env, "SLURM_JOB_ID"), "1");
	assert_string_equal(favo_env_get(run->env, "PMIX_RANK"), "3");
	assert_string_equal(favo_env_get(run->env, "PMIX_MCA_gds"), "hash");
	assert_string_equal(favo_env_get(run->env, "PMIX_SECURITY_MODE"), "native");
	assert_null(favo_env_get(run->env, "FAVO_TASK_ARGV0"));
	assert_null(favo_env_get(run->env, "SLURM_SPANK_FAVO_GRANT"));
	assert_null(favo_env_get(run->env, "LD_PRELOAD"));
	/* What was set in a guest is for guests. */
	assert_string_equal(favo_env_get(run->env, "LD_LIBRARY_PATH"), "/guest/lib");
	assert_null(favo_env_get(run->env, "PMIX_SERVER_URI2"));
	assert_null(favo_env_get(run->env, "PMIX_DSTORE_21_BASE_PATH"));
	assert_null(favo_env_get(run->env, "TMPDIR"));
	assert_null(favo_env_get(run->env, "PMI_FD"));
	assert_int_equal(task.pmix_port, 4711);
	assert_int_equal(run->n_relays, 2);
	assert_string_equal(run->relays[0].env[0],
			    "PMIX_SERVER_URI2=pmix-server.7;tcp4://127.0.0.1:");
	assert_non_null(run->relays[0].env[1]);
	assert_null(run->relays[0].env[2]);
	assert_string_equal(run->relays[1].env[0], "PMI_FD=");
	favo_run_free(run);
}

static void command_environment(void **state)
{
	static char *host[] = {"PATH=/usr/bin",
			       "HOME=/h",
			       "SLURM_JOB_ID=1",
			       "PMI_FD=4",
			       "FAVO_TASK_ARGV0=x",
			       "SLURM_SPANK_FAVO_GRANT=g",
			       NULL};
	static char *guest[] = {"PATH=/run/favo/bin:/usr/bin",
				"HOME=/h",
				"SLURM_JOB_ID=2",
				"SBATCH_PARTITION=p",
				"SLURM_CONF=/evil",
				"SLURM_SPANK_FAVO_GRANT=evil",
				"LD_PRELOAD=/evil.so",
				"FOO=bar",
				"FAVO_SESSION=x",
				NULL};
	struct favo_err err = {0};
	char **env = NULL;

	(void)state;
	assert_int_equal(favo_task_command_env(&env, host, guest, &err), 0);
	assert_string_equal(favo_env_get(env, "PATH"), "/usr/bin");
	assert_string_equal(favo_env_get(env, "SLURM_JOB_ID"), "2");
	assert_string_equal(favo_env_get(env, "SBATCH_PARTITION"), "p");
	assert_string_equal(favo_env_get(env, "SLURM_SPANK_FAVO_GRANT"), "g");
	assert_string_equal(favo_env_get(env, "FAVO_GUEST_ENV_FOO"), "bar");
	assert_null(favo_env_get(env, "FAVO_GUEST_ENV_HOME"));
	assert_null(favo_env_get(env, "LD_PRELOAD"));
	assert_null(favo_env_get(env, "SLURM_CONF"));
	assert_null(favo_env_get(env, "PMI_FD"));
	assert_null(favo_env_get(env, "FOO"));
	favo_strv_free(env);
	assert_string_equal(favo_command_name("/run/favo/bin/srun"), "srun");
	assert_null(favo_command_name("/bin/sh"));
	assert_null(favo_command_name("srunx"));
}

static void peers(void **state)
{
	struct sockaddr_in addr = {.sin_family = AF_INET,
				   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof(addr);
	int l = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	int c = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	struct favo_err err = {0};
	int fd;

	(void)state;
	assert_int_equal(bind(l, (struct sockaddr *)&addr, sizeof(addr)), 0);
	assert_int_equal(listen(l, 1), 0);
	assert_int_equal(getsockname(l, (struct sockaddr *)&addr, &len), 0);
	assert_int_equal(connect(c, (struct sockaddr *)&addr, sizeof(addr)), 0);
	fd = accept(l, NULL, NULL);
	assert_true(fd >= 0);
	assert_int_equal(favo_peer_check(fd, geteuid(), getegid(), &err), 0);
	assert_int_equal(favo_peer_check(fd, geteuid() + 1, getegid(), &err), -EACCES);
	assert_int_equal(favo_peer_check(fd, geteuid(), getegid() + 1, &err), -EACCES);
	close(c);
	close(l);
	close(fd);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(frames),
		cmocka_unit_test(hello),
		cmocka_unit_test(requests),
		cmocka_unit_test(bad_requests),
		cmocka_unit_test(exits),
		cmocka_unit_test(credit),
		cmocka_unit_test(violations),
		cmocka_unit_test(secrets),
		cmocka_unit_test(configuration),
		cmocka_unit_test(identity),
		cmocka_unit_test(task_environment),
		cmocka_unit_test(command_environment),
		cmocka_unit_test(peers),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, NULL, NULL);
}
