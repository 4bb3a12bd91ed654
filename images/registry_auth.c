// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Authentication at container registries: the challenge of the server, which
 * is foreign, and the credentials of the user, which are in his files. See
 * registry.h.
 */
#include <ctype.h>
#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "images/registry.h"

#define HEADER_MAX 8192
#define FILE_MAX (1u << 20)
#define SPACE " \t\r\n"

/* ---- challenge ---- */

void favo_challenge_fini(struct favo_challenge *challenge)
{
	free(challenge->realm);
	free(challenge->service);
	free(challenge->scope);
	*challenge = (struct favo_challenge){0};
}

static bool is_token_char(char c)
{
	return isalnum((unsigned char)c) || (c && strchr("!#$%&'*+-.^_`|~", c));
}

static size_t token_len(const char *p)
{
	size_t len = 0;

	while (is_token_char(p[len]))
		len++;
	return len;
}

/* Value of a parameter, a token or a quoted string, to *out; NULL: malformed. */
static const char *parse_value(const char *p, char **out)
{
	size_t len = token_len(p), n = 0;
	char *value;

	*out = NULL;
	if (*p != '"') {
		*out = len ? strndup(p, len) : NULL;
		return *out ? p + len : NULL;
	}
	value = malloc(strlen(p));
	if (!value)
		return NULL;
	for (p++; *p && *p != '"'; p++) {
		if (*p == '\\' && p[1])
			p++;
		value[n++] = *p;
	}
	value[n] = '\0';
	if (*p != '"') {
		free(value);
		return NULL;
	}
	*out = value;
	return p + 1;
}

static void take_parameter(struct favo_challenge *c, const char *name, size_t len,
			   char *value)
{
	char **field = len == 5 && strncasecmp(name, "realm", 5) == 0	  ? &c->realm
		       : len == 7 && strncasecmp(name, "service", 7) == 0 ? &c->service
		       : len == 5 && strncasecmp(name, "scope", 5) == 0	  ? &c->scope
									  : NULL;

	if (field && !*field)
		*field = value;
	else
		free(value);
}

/*
 * Parameters behind a scheme: "a=b, c="d"". Stops before the next scheme,
 * which is a token that no "=" follows. NULL: malformed.
 */
static const char *parse_parameters(const char *p, struct favo_challenge *c)
{
	const char *name, *after;
	char *value;
	size_t len;

	for (;;) {
		p += strspn(p, SPACE ",");
		len = token_len(p);
		name = p;
		after = p + len + strspn(p + len, SPACE);
		if (!*p)
			return p;
		if (len == 0)
			return NULL;
		if (*after != '=')
			return p;
		after++;
		after += strspn(after, SPACE);
		p = parse_value(after, &value);
		if (!p)
			return NULL;
		take_parameter(c, name, len, value);
	}
}

int favo_challenge_parse(struct favo_challenge *out, const char *header,
			 struct favo_err *err)
{
	struct favo_challenge best = {0};
	const char *p = header;
	bool found = false;

	if (strlen(header) > HEADER_MAX)
		return favo_fail(err, EBADMSG, "WWW-Authenticate: too long");
	while (p && *(p += strspn(p, SPACE ","))) {
		struct favo_challenge c = {0};
		size_t len = token_len(p);
		bool basic = len == 5 && strncasecmp(p, "basic", 5) == 0;

		c.bearer = len == 6 && strncasecmp(p, "bearer", 6) == 0;
		p = len ? parse_parameters(p + len, &c) : NULL;
		if (p && (c.bearer || basic) && (!found || (c.bearer && !best.bearer))) {
			favo_challenge_fini(&best);
			best = c;
			found = true;
		} else {
			favo_challenge_fini(&c);
		}
	}
	if (p && found && (!best.bearer || best.realm)) {
		*out = best;
		return 0;
	}
	favo_challenge_fini(&best);
	if (p && !found)
		return favo_fail(err, ENOTSUP,
				 "the registry wants an authentication that is neither "
				 "basic nor bearer");
	return favo_fail(err, EBADMSG, "malformed WWW-Authenticate header");
}

/* ---- credentials ---- */

void favo_credentials_fini(struct favo_credentials *credentials)
{
	if (credentials->password)
		explicit_bzero(credentials->password, strlen(credentials->password));
	free(credentials->user);
	free(credentials->password);
	*credentials = (struct favo_credentials){0};
}

static int give(struct favo_credentials *out, const char *user, const char *password)
{
	out->user = strdup(user);
	out->password = strdup(password);
	if (out->user && out->password)
		return 0;
	favo_credentials_fini(out);
	return -ENOMEM;
}

int favo_credentials_netrc(struct favo_credentials *out, char *text, const char *host,
			   const char *user)
{
	const char *machine = NULL, *login = NULL, *password = NULL, *key;
	char *save = NULL;

	/* "machine H login U password P", words in any order behind machine. */
	for (key = strtok_r(text, SPACE, &save); key;
	     key = strtok_r(NULL, SPACE, &save)) {
		const char *value = strtok_r(NULL, SPACE, &save);

		if (!value)
			break;
		if (strcmp(key, "machine") == 0) {
			machine = value;
			login = password = NULL;
		} else if (strcmp(key, "login") == 0) {
			login = value;
		} else if (strcmp(key, "password") == 0) {
			password = value;
		}
		if (machine && login && password && strcasecmp(machine, host) == 0 &&
		    (!user || strcmp(user, login) == 0))
			return give(out, login, password);
	}
	return -ENOENT;
}

/* Is key of "auths" ("https://index.docker.io/v1/", "quay.io") the host? */
static bool is_auth_of(const char *key, const char *host)
{
	size_t len;

	if (strncmp(key, "https://", 8) == 0)
		key += 8;
	else if (strncmp(key, "http://", 7) == 0)
		key += 7;
	len = strcspn(key, "/");
	if (strcmp(host, "docker.io") == 0 && len == strlen("index.docker.io") &&
	    strncmp(key, "index.docker.io", len) == 0)
		return true;
	return len == strlen(host) && strncasecmp(key, host, len) == 0;
}

/* base64 of "USER:PASSWORD". */
static int decode_auth(struct favo_credentials *out, const char *auth, const char *user)
{
	size_t len = strlen(auth);
	favo_autofree unsigned char *plain = calloc(1, len + 4);
	char *colon;
	int ret = -ENOENT;

	if (!plain)
		return -ENOMEM;
	if (len == 0 || len % 4 || len > FILE_MAX ||
	    EVP_DecodeBlock(plain, (const unsigned char *)auth, (int)len) < 0)
		return -ENOENT;
	colon = strchr((char *)plain, ':');
	if (colon) {
		*colon = '\0';
		if (!user || strcmp(user, (char *)plain) == 0)
			ret = give(out, (char *)plain, colon + 1);
	}
	explicit_bzero(plain, len);
	return ret;
}

int favo_credentials_docker(struct favo_credentials *out, const char *text, size_t len,
			    const char *host, const char *user, struct favo_err *err)
{
	favo_autojson json_t *root = NULL;
	const char *key;
	json_t *entry;
	int ret = favo_json_parse(&root, text, len, err);

	if (ret < 0)
		return ret;
	json_object_foreach(json_object_get(root, "auths"), key, entry)
	{
		const char *auth = json_string_value(json_object_get(entry, "auth"));

		if (!auth || !is_auth_of(key, host))
			continue;
		ret = decode_auth(out, auth, user);
		if (ret != -ENOENT)
			return ret;
	}
	return -ENOENT;
}

/* One file; -ENOENT when it is not there or has nothing for host. */
static int search_file(struct favo_credentials *out, const char *path, bool netrc,
		       const char *host, const char *user, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	struct stat st;
	size_t len = 0;
	int ret;

	if (stat(path, &st) < 0)
		return -ENOENT;
	if (netrc && st.st_mode & 077)
		return favo_fail(
			err, EACCES,
			"%s: others can read your passwords; mend it with: chmod "
			"600 %s",
			path, path);
	ret = favo_file_read(path, FILE_MAX, &text, &len, err);
	if (ret < 0)
		return ret;
	ret = netrc ? favo_credentials_netrc(out, text, host, user)
		    : favo_credentials_docker(out, text, len, host, user, err);
	explicit_bzero(text, len);
	return ret == -ENOENT ? ret : ret < 0 ? favo_wrap(err, ret, "%s", path) : 0;
}

static char *below(const char *variable, const char *home_path, const char *name)
{
	const char *dir = getenv(variable), *home = getenv("HOME");

	if (dir && *dir)
		return favo_asprintf("%s%s%s", dir, *name ? "/" : "", name);
	if (!home_path || !home)
		return NULL;
	return favo_asprintf("%s/%s%s%s", home, home_path, *name ? "/" : "", name);
}

int favo_credentials_find(struct favo_credentials *out, const char *host,
			  const char *user, struct favo_err *err)
{
	char *files[] = {
		below("FAVO_CREDENTIALS", ".config/favo/credentials", ""),
		below("REGISTRY_AUTH_FILE", NULL, ""),
		below("XDG_RUNTIME_DIR", NULL, "containers/auth.json"),
		below("DOCKER_CONFIG", ".docker", "config.json"),
	};
	int ret = -ENOENT;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(files); i++) {
		if (files[i] && ret == -ENOENT)
			ret = search_file(out, files[i], i == 0, host, user, err);
	}
	if (ret == -ENOENT && user)
		favo_fail(err, ENOENT,
			  "no password of %s for %s; put the line \"machine %s login %s "
			  "password ...\" into %s (mode 600)",
			  user, host, host, user,
			  files[0] ? files[0] : "~/.config/favo/credentials");
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(files); i++)
		free(files[i]);
	return ret;
}
