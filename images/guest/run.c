// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Encoding of run requests and exit results; see run.h and
 * docs/format-agent.md, "RUN". Checks form, not policy: whether a uid or a
 * program is allowed is for whoever serves the request.
 */
#include "images/guest/run.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/resource.h>

#include "common/str.h"
#include "common/util.h"
#include "images/guest/agent.h"

/* Items: u32 length, u8 tag, bytes. docs/format-agent.md, "Items". */
enum {
	ITEM_ARG = 1,
	ITEM_ENV = 2,
	ITEM_CWD = 3,
	ITEM_IDS = 4,
	ITEM_MODE = 5,
	ITEM_WINSIZE = 6,
	ITEM_RLIMIT = 7,
	ITEM_FILE = 8,
	ITEM_RELAY = 9,
	ITEM_RELAY_ENV = 10,
	ITEM_GROUP = 11,
	ITEM_SESSION = 12,
};

#define ITEM_HEADER 5
#define NAME_MAX_BYTES 64
#define ENDPOINT_MAX 32

static int put_item(struct favo_buf *out, uint8_t tag, const void *data, size_t len)
{
	uint8_t *p = favo_buf_reserve(out, ITEM_HEADER + len);

	if (!p || len > FAVO_RUN_MAX)
		return -ENOMEM;
	favo_put_le32(p, (uint32_t)len);
	p[4] = tag;
	if (len)
		memcpy(p + ITEM_HEADER, data, len);
	favo_buf_commit(out, ITEM_HEADER + len);
	return 0;
}

static int put_string(struct favo_buf *out, uint8_t tag, const char *s)
{
	return s ? put_item(out, tag, s, strlen(s)) : 0;
}

static int put_strings(struct favo_buf *out, uint8_t tag, char **v)
{
	int ret = 0;

	for (; ret == 0 && v && *v; v++)
		ret = put_string(out, tag, *v);
	return ret;
}

static int put_ids(struct favo_buf *out, const struct favo_run *run)
{
	size_t len = 8 + 4 * run->n_groups;
	favo_autofree uint8_t *p = malloc(len);

	if (!p)
		return -ENOMEM;
	favo_put_le32(p, run->uid);
	favo_put_le32(p + 4, run->gid);
	for (size_t i = 0; i < run->n_groups; i++)
		favo_put_le32(p + 8 + 4 * i, run->groups[i]);
	return put_item(out, ITEM_IDS, p, len);
}

static int put_fixed(struct favo_buf *out, const struct favo_run *run)
{
	uint8_t p[20];
	int ret;

	favo_put_le32(p, run->flags);
	favo_put_le32(p + 4, run->umask);
	ret = put_item(out, ITEM_MODE, p, 8);
	if (ret == 0 && (run->flags & FAVO_RUN_PTY)) {
		favo_put_le16(p, run->winsize.ws_row);
		favo_put_le16(p + 2, run->winsize.ws_col);
		favo_put_le16(p + 4, run->winsize.ws_xpixel);
		favo_put_le16(p + 6, run->winsize.ws_ypixel);
		ret = put_item(out, ITEM_WINSIZE, p, 8);
	}
	for (size_t i = 0; ret == 0 && i < run->n_rlimits; i++) {
		favo_put_le32(p, run->rlimits[i].resource);
		favo_put_le64(p + 4, run->rlimits[i].soft);
		favo_put_le64(p + 12, run->rlimits[i].hard);
		ret = put_item(out, ITEM_RLIMIT, p, 20);
	}
	return ret;
}

static int put_file(struct favo_buf *out, const struct favo_run_file *file)
{
	size_t path_len = strlen(file->path);
	size_t len = 8 + path_len + file->len;
	uint8_t *p = favo_buf_reserve(out, ITEM_HEADER + len);

	if (!p)
		return -ENOMEM;
	favo_put_le32(p, (uint32_t)len);
	p[4] = ITEM_FILE;
	favo_put_le32(p + 5, file->mode);
	favo_put_le32(p + 9, (uint32_t)path_len);
	memcpy(p + 13, file->path, path_len);
	if (file->len)
		memcpy(p + 13 + path_len, file->data, file->len);
	favo_buf_commit(out, ITEM_HEADER + len);
	return 0;
}

static int put_relay(struct favo_buf *out, const struct favo_run_relay *relay)
{
	uint8_t p[1 + ENDPOINT_MAX];
	size_t len = strlen(relay->endpoint);
	int ret;

	if (len > ENDPOINT_MAX)
		return -EINVAL;
	p[0] = (uint8_t)relay->kind;
	memcpy(p + 1, relay->endpoint, len);
	ret = put_item(out, ITEM_RELAY, p, 1 + len);
	if (ret == 0)
		ret = put_strings(out, ITEM_RELAY_ENV, relay->env);
	return ret;
}

int favo_run_encode(struct favo_buf *out, const struct favo_run *run,
		    struct favo_err *err)
{
	size_t before = out->len;
	int ret = put_ids(out, run);

	if (ret == 0)
		ret = put_fixed(out, run);
	if (ret == 0)
		ret = put_strings(out, ITEM_ARG, run->argv);
	if (ret == 0)
		ret = put_strings(out, ITEM_ENV, run->env);
	if (ret == 0)
		ret = put_string(out, ITEM_CWD, run->cwd);
	if (ret == 0)
		ret = put_string(out, ITEM_GROUP, run->group);
	if (ret == 0)
		ret = put_string(out, ITEM_SESSION, run->session);
	for (size_t i = 0; ret == 0 && i < run->n_files; i++)
		ret = put_file(out, &run->files[i]);
	for (size_t i = 0; ret == 0 && i < run->n_relays; i++)
		ret = put_relay(out, &run->relays[i]);
	if (ret < 0)
		return favo_fail(err, -ret, "run request: %s", strerror(-ret));
	if (out->len - before > FAVO_RUN_MAX)
		return favo_fail(
			err, E2BIG,
			"arguments, environment and script: %zu bytes, more than %d",
			out->len - before, FAVO_RUN_MAX);
	return 0;
}

/* Vector under construction: capacity doubles, always NULL-terminated. */
struct strings {
	char **v;
	size_t n, cap;
};

static int push_string(struct strings *s, char *owned)
{
	if (s->n + 1 >= s->cap) {
		size_t cap = s->cap ? 2 * s->cap : 16;
		char **v = reallocarray(s->v, cap, sizeof(*v));

		if (!v) {
			free(owned);
			return -ENOMEM;
		}
		s->v = v;
		s->cap = cap;
	}
	s->v[s->n++] = owned;
	s->v[s->n] = NULL;
	return 0;
}

/* Item as a string without NUL bytes in it. */
static int get_string(char **out, const uint8_t *p, size_t len, size_t max)
{
	char *s;

	if (len > max || memchr(p, '\0', len))
		return -EPROTO;
	s = strndup((const char *)p, len);
	if (!s)
		return -ENOMEM;
	*out = s;
	return 0;
}

static int get_once(char **out, const uint8_t *p, size_t len, size_t max)
{
	if (*out || len == 0)
		return -EPROTO;
	return get_string(out, p, len, max);
}

static int get_ids(struct favo_run *run, const uint8_t *p, size_t len)
{
	if (len < 8 || len % 4 || (len - 8) / 4 > NGROUPS_MAX)
		return -EPROTO;
	run->uid = favo_get_le32(p);
	run->gid = favo_get_le32(p + 4);
	/* -1 means "leave it" to setresuid(2): it would keep root. */
	if (run->uid == (uid_t)-1 || run->gid == (gid_t)-1)
		return -EPROTO;
	run->n_groups = (len - 8) / 4;
	run->groups = calloc(run->n_groups + 1, sizeof(*run->groups));
	if (!run->groups)
		return -ENOMEM;
	for (size_t i = 0; i < run->n_groups; i++)
		run->groups[i] = favo_get_le32(p + 8 + 4 * i);
	return 0;
}

static int get_mode(struct favo_run *run, const uint8_t *p, size_t len)
{
	if (len != 8)
		return -EPROTO;
	run->flags = favo_get_le32(p);
	run->umask = favo_get_le32(p + 4);
	if ((run->flags & ~(uint32_t)FAVO_RUN_FLAGS) || run->umask > 0777)
		return -EPROTO;
	return 0;
}

static int get_rlimit(struct favo_run *run, const uint8_t *p, size_t len)
{
	struct favo_run_rlimit *r;

	if (len != 20 || run->n_rlimits >= RLIM_NLIMITS)
		return -EPROTO;
	if (!run->rlimits)
		run->rlimits = calloc(RLIM_NLIMITS, sizeof(*run->rlimits));
	if (!run->rlimits)
		return -ENOMEM;
	r = &run->rlimits[run->n_rlimits++];
	r->resource = favo_get_le32(p);
	r->soft = favo_get_le64(p + 4);
	r->hard = favo_get_le64(p + 12);
	if (r->resource >= RLIM_NLIMITS || r->soft > r->hard)
		return -EPROTO;
	return 0;
}

static int get_file(struct favo_run *run, const uint8_t *p, size_t len)
{
	struct favo_run_file *files;
	struct favo_run_file f = {0};
	size_t path_len;
	int ret;

	if (len < 8 || run->n_files >= 64)
		return -EPROTO;
	f.mode = favo_get_le32(p);
	path_len = favo_get_le32(p + 4);
	if (f.mode > 0777 || path_len > len - 8 || path_len == 0 || p[8] != '/')
		return -EPROTO;
	files = reallocarray(run->files, run->n_files + 1, sizeof(*files));
	if (!files)
		return -ENOMEM;
	run->files = files;
	ret = get_string(&f.path, p + 8, path_len, PATH_MAX - 1);
	if (ret < 0)
		return ret;
	f.len = len - 8 - path_len;
	f.data = malloc(f.len + 1);
	if (!f.data) {
		free(f.path);
		return -ENOMEM;
	}
	memcpy(f.data, p + 8 + path_len, f.len);
	run->files[run->n_files++] = f;
	return 0;
}

static int get_relay(struct favo_run *run, const uint8_t *p, size_t len)
{
	struct favo_run_relay *relays;
	struct favo_run_relay r = {0};
	int ret;

	if (len < 2 || run->n_relays >= 16)
		return -EPROTO;
	r.kind = (enum favo_relay_kind)p[0];
	if (r.kind != FAVO_RELAY_TCP && r.kind != FAVO_RELAY_FD)
		return -EPROTO;
	ret = get_string(&r.endpoint, p + 1, len - 1, ENDPOINT_MAX);
	if (ret < 0)
		return ret;
	relays = reallocarray(run->relays, run->n_relays + 1, sizeof(*relays));
	if (!relays) {
		free(r.endpoint);
		return -ENOMEM;
	}
	run->relays = relays;
	run->relays[run->n_relays++] = r;
	return 0;
}

static int get_relay_env(struct favo_run *run, const uint8_t *p, size_t len)
{
	struct favo_run_relay *r;
	struct strings s = {0};
	char *text = NULL;
	int ret;

	if (!run->n_relays || !memchr(p, '=', len))
		return -EPROTO;
	r = &run->relays[run->n_relays - 1];
	for (s.v = r->env; s.v && s.v[s.n];)
		s.n++;
	if (s.n >= 16)
		return -EPROTO;
	ret = get_string(&text, p, len, 4096);
	if (ret < 0)
		return ret;
	/* The count is small: room for all of it is taken with the first. */
	s.cap = s.v ? 32 : 0;
	if (!s.v) {
		s.v = calloc(32, sizeof(*s.v));
		s.cap = 32;
		if (!s.v) {
			free(text);
			return -ENOMEM;
		}
	}
	ret = push_string(&s, text);
	r->env = s.v;
	return ret;
}

static int get_text(struct strings *s, const uint8_t *p, size_t len)
{
	char *text = NULL;
	int ret = get_string(&text, p, len, FAVO_RUN_MAX);

	return ret < 0 ? ret : push_string(s, text);
}

static int get_item(struct favo_run *run, struct strings *argv, struct strings *env,
		    uint8_t tag, const uint8_t *p, size_t len)
{
	switch (tag) {
	case ITEM_ARG:
		return get_text(argv, p, len);
	case ITEM_ENV:
		/* NAME=value with a name. */
		if (len < 2 || p[0] == '=' || !memchr(p, '=', len))
			return -EPROTO;
		return get_text(env, p, len);
	case ITEM_CWD:
		return len && p[0] == '/' ? get_once(&run->cwd, p, len, PATH_MAX - 1)
					  : -EPROTO;
	case ITEM_IDS:
		return run->groups ? -EPROTO : get_ids(run, p, len);
	case ITEM_MODE:
		return get_mode(run, p, len);
	case ITEM_WINSIZE:
		if (len != 8)
			return -EPROTO;
		run->winsize = (struct winsize){
			.ws_row = favo_get_le16(p),
			.ws_col = favo_get_le16(p + 2),
			.ws_xpixel = favo_get_le16(p + 4),
			.ws_ypixel = favo_get_le16(p + 6),
		};
		return 0;
	case ITEM_RLIMIT:
		return get_rlimit(run, p, len);
	case ITEM_FILE:
		return get_file(run, p, len);
	case ITEM_RELAY:
		return get_relay(run, p, len);
	case ITEM_RELAY_ENV:
		return get_relay_env(run, p, len);
	case ITEM_GROUP:
		return get_once(&run->group, p, len, NAME_MAX_BYTES);
	case ITEM_SESSION:
		return get_once(&run->session, p, len, NAME_MAX_BYTES);
	default:
		return -EPROTO;
	}
}

static int get_items(struct favo_run *run, struct strings *argv, struct strings *env,
		     const uint8_t *data, size_t len, struct favo_err *err)
{
	while (len) {
		uint32_t n;
		int ret;

		if (len < ITEM_HEADER)
			return favo_fail(err, EPROTO, "run request: %zu bytes left over",
					 len);
		n = favo_get_le32(data);
		if (n > len - ITEM_HEADER)
			return favo_fail(err, EPROTO,
					 "run request: item %u: %u bytes of %zu", data[4],
					 n, len - ITEM_HEADER);
		ret = get_item(run, argv, env, data[4], data + ITEM_HEADER, n);
		if (ret == -ENOMEM)
			return favo_fail(err, ENOMEM, "run request: out of memory");
		if (ret < 0)
			return favo_fail(err, EPROTO, "run request: item %u: bad value",
					 data[4]);
		data += ITEM_HEADER + n;
		len -= ITEM_HEADER + n;
	}
	return 0;
}

int favo_run_decode(struct favo_run **out, const uint8_t *data, size_t len,
		    struct favo_err *err)
{
	favo_autorun struct favo_run *run = calloc(1, sizeof(*run));
	struct strings argv = {0}, env = {0};
	int ret;

	if (!run)
		return favo_fail(err, ENOMEM, "run request: out of memory");
	run->umask = 022;
	ret = get_items(run, &argv, &env, data, len, err);
	run->argv = argv.v;
	run->env = env.v;
	if (ret < 0)
		return ret;
	if (!argv.n || !argv.v[0][0])
		return favo_fail(err, EPROTO, "run request: no program");
	if (!run->groups)
		return favo_fail(err, EPROTO, "run request: no user");
	if (!run->env)
		run->env = calloc(1, sizeof(*run->env));
	if (!run->env)
		return favo_fail(err, ENOMEM, "run request: out of memory");
	*out = favo_steal_ptr(&run);
	return 0;
}

void favo_run_free(struct favo_run *run)
{
	int saved = errno;

	if (!run)
		return;
	favo_strv_free(run->argv);
	favo_strv_free(run->env);
	free(run->cwd);
	free(run->group);
	free(run->session);
	free(run->groups);
	free(run->rlimits);
	for (size_t i = 0; i < run->n_files; i++) {
		free(run->files[i].path);
		free(run->files[i].data);
	}
	free(run->files);
	for (size_t i = 0; i < run->n_relays; i++) {
		free(run->relays[i].endpoint);
		favo_strv_free(run->relays[i].env);
	}
	free(run->relays);
	free(run);
	errno = saved;
}

void favo_cleanup_run(struct favo_run **run)
{
	favo_run_free(*run);
}

size_t favo_exit_encode(uint8_t out[FAVO_EXIT_WIRE_MAX], const struct favo_exit *ex)
{
	size_t len = ex->kind == FAVO_EXIT_FAILED ? strnlen(ex->reason, 511) : 0;

	out[0] = (uint8_t)ex->kind;
	out[1] = ex->core;
	favo_put_le16(out + 2, 0);
	favo_put_le32(out + 4, ex->number);
	favo_put_le32(out + 8, 0);
	memcpy(out + 12, ex->reason, len);
	return 12 + len;
}

int favo_exit_decode(struct favo_exit *out, const uint8_t *data, size_t len,
		     struct favo_err *err)
{
	struct favo_exit ex = {0};

	if (len < 12 || len - 12 >= sizeof(ex.reason) || data[1] > 1 ||
	    favo_get_le16(data + 2) || favo_get_le32(data + 8))
		return favo_fail(err, EPROTO, "exit result: bad form");
	ex.kind = (enum favo_exit_kind)data[0];
	ex.core = data[1];
	ex.number = favo_get_le32(data + 4);
	if (ex.kind < FAVO_EXIT_STATUS || ex.kind > FAVO_EXIT_FAILED ||
	    ex.number > (ex.kind == FAVO_EXIT_SIGNAL ? 64u : 4095u))
		return favo_fail(err, EPROTO, "exit result: kind %d, number %u",
				 (int)ex.kind, ex.number);
	memcpy(ex.reason, data + 12, len - 12);
	/* It goes to a user's terminal. */
	for (char *c = ex.reason; *c; c++)
		if ((unsigned char)*c < ' ' || *c == 0x7f)
			*c = '?';
	*out = ex;
	return 0;
}

const char *favo_env_get(char *const *env, const char *name)
{
	size_t len = strlen(name);

	for (; env && *env; env++)
		if (strncmp(*env, name, len) == 0 && (*env)[len] == '=')
			return *env + len + 1;
	return NULL;
}
