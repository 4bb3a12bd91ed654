// SPDX-License-Identifier: GPL-2.0-or-later
/* Guest configuration; see guest_config.h. Checks everything, touches nothing. */
#include "images/guest/guest_config.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "common/json.h"
#include "common/str.h"
#include "common/util.h"

static int get_text(char *out, size_t size, const json_t *obj, const char *key,
		    struct favo_err *err)
{
	const char *s;
	int ret = favo_json_str(&s, obj, key, err);

	if (ret < 0)
		return ret;
	/* These strings end up in lines of /etc/hosts, passwd and group. */
	if (!*s || strlen(s) >= size || strpbrk(s, ":\n"))
		return favo_fail(err, EINVAL, "%s: \"%.64s\" cannot be used", key, s);
	snprintf(out, size, "%s", s);
	return 0;
}

static int get_name(char *out, size_t size, const json_t *obj, const char *key,
		    struct favo_err *err)
{
	int ret = get_text(out, size, obj, key, err);

	if (ret == 0 && (!favo_is_name(out, "._-@$", size - 1) || out[0] == '-'))
		return favo_fail(err, EINVAL, "%s: \"%s\" is not a name", key, out);
	return ret;
}

static int get_path(char *out, size_t size, const json_t *obj, const char *key,
		    struct favo_err *err)
{
	int ret = get_text(out, size, obj, key, err);

	if (ret == 0 && out[0] != '/')
		return favo_fail(err, EINVAL, "%s: \"%s\" is not an absolute path", key,
				 out);
	return ret;
}

static int get_mac(uint8_t out[6], const json_t *obj, struct favo_err *err)
{
	const char *s;
	unsigned v[6];
	int n = 0;
	int ret = favo_json_str(&s, obj, "mac", err);

	if (ret < 0)
		return ret;
	if (sscanf(s, "%2x:%2x:%2x:%2x:%2x:%2x%n", &v[0], &v[1], &v[2], &v[3], &v[4],
		   &v[5], &n) != 6 ||
	    s[n])
		return favo_fail(err, EINVAL, "mac: \"%.32s\" is not an address", s);
	for (int i = 0; i < 6; i++)
		out[i] = (uint8_t)v[i];
	return 0;
}

static int get_address(struct in_addr *out, const json_t *obj, struct favo_err *err)
{
	const char *s;
	int ret = favo_json_str(&s, obj, "address", err);

	if (ret < 0)
		return ret;
	if (inet_pton(AF_INET, s, out) != 1)
		return favo_fail(err, EINVAL, "address: \"%.32s\" is not an IPv4 address",
				 s);
	return 0;
}

static int get_u32(uint32_t *out, const json_t *obj, const char *key, uint32_t max,
		   struct favo_err *err)
{
	uint64_t v;
	int ret = favo_json_u64(&v, obj, key, 0, max, err);

	if (ret == 0)
		*out = (uint32_t)v;
	return ret;
}

static int get_members(struct favo_guest_config *c, const json_t *obj,
		       struct favo_err *err)
{
	static const char *const keys[] = {"name", "address", "mac", "node", NULL};
	json_t *list;
	int ret = favo_json_array(&list, obj, "members", err);

	if (ret < 0)
		return ret;
	if (json_array_size(list) > FAVO_GUEST_MEMBERS_MAX)
		return favo_fail(err, EINVAL, "members: more than %d",
				 FAVO_GUEST_MEMBERS_MAX);
	c->members = calloc(json_array_size(list) + 1, sizeof(*c->members));
	if (!c->members)
		return favo_fail(err, ENOMEM, "members: out of memory");
	for (; ret == 0 && c->n_members < json_array_size(list); c->n_members++) {
		struct favo_guest_member *m = &c->members[c->n_members];
		const json_t *item = json_array_get(list, c->n_members);

		ret = favo_json_only(item, keys, err);
		if (ret == 0)
			ret = get_name(m->name, sizeof(m->name), item, "name", err);
		if (ret == 0)
			ret = get_name(m->node, sizeof(m->node), item, "node", err);
		if (ret == 0)
			ret = get_address(&m->address, item, err);
		if (ret == 0)
			ret = get_mac(m->mac, item, err);
	}
	return ret < 0 ? favo_wrap(err, ret, "member %zu", c->n_members - 1) : 0;
}

static int get_groups(struct favo_guest_config *c, const json_t *user,
		      struct favo_err *err)
{
	static const char *const keys[] = {"name", "gid", NULL};
	json_t *list;
	int ret = favo_json_array(&list, user, "groups", err);

	if (ret < 0)
		return ret;
	if (json_array_size(list) > FAVO_GUEST_GROUPS_MAX)
		return favo_fail(err, EINVAL, "groups: more than %d",
				 FAVO_GUEST_GROUPS_MAX);
	c->groups = calloc(json_array_size(list) + 1, sizeof(*c->groups));
	if (!c->groups)
		return favo_fail(err, ENOMEM, "groups: out of memory");
	for (; ret == 0 && c->n_groups < json_array_size(list); c->n_groups++) {
		struct favo_guest_group *g = &c->groups[c->n_groups];
		const json_t *item = json_array_get(list, c->n_groups);

		ret = favo_json_only(item, keys, err);
		if (ret == 0)
			ret = get_text(g->name, sizeof(g->name), item, "name", err);
		if (ret == 0)
			ret = get_u32(&g->gid, item, "gid", UINT32_MAX - 1, err);
	}
	return ret < 0 ? favo_wrap(err, ret, "group %zu", c->n_groups - 1) : 0;
}

/* passwd(5): an empty shell is /bin/sh. */
static int get_shell(struct favo_guest_config *c, const json_t *user,
		     struct favo_err *err)
{
	const char *shell;
	int ret = favo_json_str(&shell, user, "shell", err);

	if (ret < 0 || *shell)
		return ret < 0 ? ret
			       : get_path(c->shell, sizeof(c->shell), user, "shell", err);
	snprintf(c->shell, sizeof(c->shell), "/bin/sh");
	return 0;
}

static int get_user(struct favo_guest_config *c, const json_t *obj, struct favo_err *err)
{
	static const char *const keys[] = {"name",  "uid",    "gid", "home",
					   "shell", "groups", NULL};
	json_t *user;
	int ret = favo_json_object(&user, obj, "user", err);

	if (ret == 0)
		ret = favo_json_only(user, keys, err);
	if (ret == 0)
		ret = get_text(c->user, sizeof(c->user), user, "name", err);
	if (ret == 0)
		ret = get_u32(&c->uid, user, "uid", UINT32_MAX - 1, err);
	if (ret == 0)
		ret = get_u32(&c->gid, user, "gid", UINT32_MAX - 1, err);
	if (ret == 0)
		ret = get_path(c->home, sizeof(c->home), user, "home", err);
	if (ret == 0)
		ret = get_shell(c, user, err);
	if (ret == 0)
		ret = get_groups(c, user, err);
	return ret < 0 ? favo_wrap(err, ret, "user") : 0;
}

static int get_network(struct favo_guest_config *c, const json_t *obj,
		       struct favo_err *err)
{
	int ret = get_text(c->network, sizeof(c->network), obj, "network", err);

	if (ret == 0)
		ret = get_address(&c->address, obj, err);
	if (ret == 0)
		ret = get_mac(c->mac, obj, err);
	if (ret == 0)
		ret = get_u32(&c->prefix_len, obj, "prefix_len", 32, err);
	if (ret == 0)
		ret = get_u32(&c->mtu, obj, "mtu", 65535, err);
	if (ret == 0 && (c->mtu < 576 || c->prefix_len < 1))
		return favo_fail(err, EINVAL, "mtu %u, prefix_len %u: too small", c->mtu,
				 c->prefix_len);
	return ret;
}

static int get_root(struct favo_guest_config *c, const json_t *obj, struct favo_err *err)
{
	static const char *const keys[] = {"device", "fstype", NULL};
	json_t *root;
	int ret = favo_json_object(&root, obj, "root", err);

	if (ret == 0)
		ret = favo_json_only(root, keys, err);
	if (ret == 0)
		ret = get_path(c->root_device, sizeof(c->root_device), root, "device",
			       err);
	if (ret == 0)
		ret = get_name(c->root_fstype, sizeof(c->root_fstype), root, "fstype",
			       err);
	return ret < 0 ? favo_wrap(err, ret, "root") : 0;
}

static int get_secret(struct favo_guest_config *c, const json_t *obj,
		      struct favo_err *err)
{
	const char *secret;
	int ret = favo_json_str(&secret, obj, "secret", err);

	if (ret == 0 && favo_hex_decode(c->secret, sizeof(c->secret), secret, NULL) < 0)
		return favo_fail(err, EINVAL, "secret: not %zu hex digits",
				 2 * sizeof(c->secret));
	return ret;
}

/* Optional: only what a warm guest gets has one. */
static int get_seed(struct favo_guest_config *c, const json_t *obj, struct favo_err *err)
{
	const char *seed;
	int ret;

	if (!json_object_get(obj, "seed"))
		return 0;
	ret = favo_json_str(&seed, obj, "seed", err);
	if (ret == 0 && favo_hex_decode(c->seed, sizeof(c->seed), seed, NULL) < 0)
		return favo_fail(err, EINVAL, "seed: not %zu hex digits",
				 2 * sizeof(c->seed));
	c->has_seed = ret == 0;
	return ret;
}

/* A guest without a job: what it takes to boot, and nothing of anybody's. */
static int parse_warm(struct favo_guest_config *c, const json_t *obj,
		      struct favo_err *err)
{
	uint64_t time_ns;
	int ret = get_secret(c, obj, err);

	if (ret == 0 && !json_is_true(json_object_get(obj, "warm")))
		ret = favo_fail(err, EINVAL, "warm: neither true nor absent");
	if (ret == 0)
		ret = favo_json_u64(&time_ns, obj, "time_ns", 0, INT64_MAX, err);
	if (ret == 0)
		ret = get_root(c, obj, err);
	if (ret < 0)
		return ret;
	c->time_ns = (int64_t)time_ns;
	c->warm = true;
	return 0;
}

static int get_mount(struct favo_guest_mount *m, const json_t *item, struct favo_err *err)
{
	static const char *const keys[] = {"tag", "path", "ro", "required", NULL};
	int ret = favo_json_only(item, keys, err);

	if (ret == 0)
		ret = get_name(m->tag, sizeof(m->tag), item, "tag", err);
	if (ret == 0)
		ret = get_path(m->path, sizeof(m->path), item, "path", err);
	if (ret == 0)
		ret = favo_json_bool(&m->ro, item, "ro", err);
	if (ret == 0 && json_object_get(item, "required"))
		ret = favo_json_bool(&m->required, item, "required", err);
	return ret;
}

static int get_mounts(struct favo_guest_config *c, const json_t *obj,
		      struct favo_err *err)
{
	json_t *list;
	int ret;

	if (!json_object_get(obj, "mounts"))
		return 0;
	ret = favo_json_array(&list, obj, "mounts", err);
	if (ret < 0)
		return ret;
	if (json_array_size(list) > FAVO_GUEST_MOUNTS_MAX)
		return favo_fail(err, EINVAL, "mounts: more than %d",
				 FAVO_GUEST_MOUNTS_MAX);
	c->mounts = calloc(json_array_size(list) + 1, sizeof(*c->mounts));
	if (!c->mounts)
		return favo_fail(err, ENOMEM, "mounts: out of memory");
	for (; ret == 0 && c->n_mounts < json_array_size(list); c->n_mounts++)
		ret = get_mount(&c->mounts[c->n_mounts],
				json_array_get(list, c->n_mounts), err);
	return ret < 0 ? favo_wrap(err, ret, "mount %zu", c->n_mounts - 1) : 0;
}

static int parse(struct favo_guest_config *c, const json_t *obj, struct favo_err *err)
{
	static const char *const keys[] = {"format", "hostname", "job",	    "index",
					   "secret", "time_ns",	 "network", "prefix_len",
					   "mtu",    "mac",	 "address", "members",
					   "user",   "root",	 "warm",    "seed",
					   "mounts", NULL};
	static const char *const warm_keys[] = {"format", "secret", "time_ns",
						"root",	  "warm",   NULL};
	const json_t *warm = json_object_get(obj, "warm");
	uint64_t u64;
	int ret = favo_json_only(obj, warm ? warm_keys : keys, err);

	if (ret == 0)
		ret = favo_json_u64(&u64, obj, "format", 1, 1, err);
	if (ret == 0 && warm)
		return parse_warm(c, obj, err);
	if (ret == 0)
		ret = get_seed(c, obj, err);
	if (ret == 0)
		ret = get_name(c->hostname, sizeof(c->hostname), obj, "hostname", err);
	if (ret == 0)
		ret = favo_json_u64(&c->job, obj, "job", 0, INT64_MAX, err);
	if (ret == 0)
		ret = get_u32(&c->index, obj, "index", UINT32_MAX, err);
	if (ret == 0)
		ret = favo_json_u64(&u64, obj, "time_ns", 0, INT64_MAX, err);
	if (ret < 0)
		return ret;
	c->time_ns = (int64_t)u64;
	ret = get_secret(c, obj, err);
	if (ret == 0)
		ret = get_network(c, obj, err);
	if (ret == 0)
		ret = get_members(c, obj, err);
	if (ret == 0)
		ret = get_user(c, obj, err);
	if (ret == 0)
		ret = get_root(c, obj, err);
	if (ret == 0)
		ret = get_mounts(c, obj, err);
	return ret;
}

int favo_guest_config_parse(struct favo_guest_config *out, const char *text, size_t len,
			    struct favo_err *err)
{
	favo_autojson json_t *obj = NULL;
	struct favo_guest_config c = {0};
	int ret = favo_json_parse(&obj, text, len, err);

	if (ret == 0)
		ret = parse(&c, obj, err);
	if (ret < 0) {
		favo_guest_config_fini(&c);
		return ret;
	}
	*out = c;
	return 0;
}

void favo_guest_config_fini(struct favo_guest_config *config)
{
	free(config->mounts);
	config->mounts = NULL;
	config->n_mounts = 0;
	free(config->members);
	free(config->groups);
	config->members = NULL;
	config->groups = NULL;
	config->n_members = 0;
	config->n_groups = 0;
}
