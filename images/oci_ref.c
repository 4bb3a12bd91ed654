// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * References to container images; see oci.h. The grammar of names in
 * registries is that of the OCI distribution-spec ("Pulling manifests"), what
 * stands for what when parts are left out is Docker's habit.
 */
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/str.h"
#include "common/util.h"
#include "images/oci.h"

#define HUB "docker.io"
#define REPO_MAX 255
#define TAG_MAX 128

static const struct {
	const char *prefix;
	enum favo_oci_kind kind;
} kinds[] = {
	{"docker://", FAVO_OCI_DOCKER},
	{"oci:", FAVO_OCI_LAYOUT},
	{"oci-archive:", FAVO_OCI_ARCHIVE},
	{"docker-archive:", FAVO_OCI_DOCKER_ARCHIVE},
};

bool favo_oci_is_ref(const char *text)
{
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(kinds); i++)
		if (strncmp(text, kinds[i].prefix, strlen(kinds[i].prefix)) == 0)
			return true;
	return false;
}

void favo_oci_ref_fini(struct favo_oci_ref *ref)
{
	free(ref->path);
	free(ref->user);
	free(ref->host);
	free(ref->repo);
	free(ref->tag);
	*ref = (struct favo_oci_ref){0};
}

static bool is_tag(const char *tag)
{
	return favo_is_name(tag, "_.-", TAG_MAX) && tag[0] != '.' && tag[0] != '-';
}

/* Lower-case words, joined by ".", "_", "__" or dashes, in parts by "/". */
static bool is_repo(const char *repo)
{
	size_t len = strlen(repo);
	bool word = false; /* the last character belongs to one */

	if (len == 0 || len > REPO_MAX)
		return false;
	for (size_t i = 0; i < len; i++) {
		char c = repo[i];

		if (islower((unsigned char)c) || isdigit((unsigned char)c)) {
			word = true;
			continue;
		}
		if (!strchr("._-/", c) || (!word && c != '-' && c != '_'))
			return false;
		if (!word && (i == 0 || repo[i - 1] != c))
			return false;
		word = false;
	}
	return word;
}

static bool is_host(const char *host)
{
	const char *port = strrchr(host, ':');
	size_t len = port ? (size_t)(port - host) : strlen(host);
	uint64_t number;

	if (port && host[0] == '[' && host[strlen(host) - 1] == ']') {
		port = NULL; /* an IPv6 address without port */
		len = strlen(host);
	}
	if (len == 0 || len > REPO_MAX ||
	    (port && favo_parse_u64(&number, port + 1, 1, 65535, NULL) < 0))
		return false;
	if (host[0] == '[')
		return len > 2 && host[len - 1] == ']' &&
		       strspn(host + 1, "0123456789abcdefABCDEF:.") == len - 2;
	for (size_t i = 0; i < len; i++)
		if (!isalnum((unsigned char)host[i]) && !strchr(".-", host[i]))
			return false;
	return host[0] != '-' && host[0] != '.';
}

/* Is the word before the first "/" a host, and not part of a name at Docker Hub? */
static bool looks_like_host(const char *word)
{
	return strchr(word, '.') || strchr(word, ':') || strcmp(word, "localhost") == 0;
}

static int take(char **out, const char *text, size_t len, struct favo_err *err)
{
	free(*out);
	*out = strndup(text, len);
	return *out ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

/* Cut "@DIGEST" and ":TAG" off the end of name. */
static int parse_tail(struct favo_oci_ref *ref, char *name, struct favo_err *err)
{
	char *at = strchr(name, '@'), *colon;
	int ret = 0;

	if (at) {
		*at = '\0';
		ret = favo_digest_parse(&ref->digest, at + 1, err);
		ref->has_digest = true;
	}
	/* A tag before a digest is a comment for humans. */
	colon = strrchr(name, ':');
	if (ret == 0 && colon) {
		*colon = '\0';
		ret = take(&ref->tag, colon + 1, strlen(colon + 1), err);
		if (ret == 0 && !is_tag(ref->tag))
			return favo_fail(err, EINVAL, "'%.64s' is no tag", ref->tag);
	}
	return ret;
}

static int parse_docker(struct favo_oci_ref *ref, const char *text, struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	char *name = copy, *slash, *at;
	int ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "out of memory");
	/* USER@ is before the first slash; without one, @ begins a digest. */
	slash = strchr(name, '/');
	if (slash)
		*slash = '\0';
	at = slash ? strrchr(name, '@') : NULL;
	if (at) {
		ret = take(&ref->user, name, (size_t)(at - name), err);
		if (ret < 0)
			return ret;
		if (!ref->user[0] || strchr(ref->user, ':'))
			return favo_fail(err, EINVAL,
					 "a user name stands before the '@', and "
					 "passwords are kept in a file (docs/images.md)");
		name = at + 1;
	}
	if (slash && looks_like_host(name)) {
		ret = take(&ref->host, name, strlen(name), err);
		name = slash + 1;
	} else {
		ret = take(&ref->host, HUB, strlen(HUB), err);
		if (slash)
			*slash = '/';
	}
	if (ret == 0)
		ret = parse_tail(ref, name, err);
	if (ret < 0)
		return ret;
	if (!is_host(ref->host))
		return favo_fail(err, EINVAL, "'%.64s' is no host", ref->host);
	if (strcmp(ref->host, HUB) == 0 && !strchr(name, '/'))
		ref->repo = favo_asprintf("library/%s", name);
	else
		ref->repo = strdup(name);
	if (!ref->repo)
		return favo_fail(err, ENOMEM, "out of memory");
	if (!is_repo(ref->repo))
		return favo_fail(
			err, EINVAL,
			"'%.64s' is no name of a repository (lower-case letters, "
			"digits, and . _ - / between them)",
			name);
	return 0;
}

/* PATH[:TAG]: the shortest PATH that exists, for tags may have colons too. */
static int parse_path(struct favo_oci_ref *ref, const char *text, struct favo_err *err)
{
	favo_autofree char *copy = strdup(text);
	int ret;

	if (!copy)
		return favo_fail(err, ENOMEM, "out of memory");
	if (!text[0])
		return favo_fail(err, EINVAL, "no path");
	if (access(text, F_OK) != 0) {
		for (char *p = copy + 1; copy[0] && (p = strchr(p, ':')); *p++ = ':') {
			*p = '\0';
			if (access(copy, F_OK) == 0 && p[1]) {
				ret = take(&ref->tag, p + 1, strlen(p + 1), err);
				return ret < 0 ? ret
					       : take(&ref->path, copy, strlen(copy),
						      err);
			}
		}
	}
	return take(&ref->path, text, strlen(text), err);
}

int favo_oci_ref_parse(struct favo_oci_ref *out, const char *text, struct favo_err *err)
{
	struct favo_oci_ref ref = {0};
	int ret = -EINVAL;

	for (size_t i = 0; i < FAVO_ARRAY_SIZE(kinds); i++) {
		size_t len = strlen(kinds[i].prefix);

		if (strncmp(text, kinds[i].prefix, len) != 0)
			continue;
		ref.kind = kinds[i].kind;
		ret = ref.kind == FAVO_OCI_DOCKER ? parse_docker(&ref, text + len, err)
						  : parse_path(&ref, text + len, err);
		if (ret == 0) {
			*out = ref;
			return 0;
		}
		favo_oci_ref_fini(&ref);
		return ret;
	}
	return favo_fail(err, EINVAL,
			 "not a container image (docker://, oci:, oci-archive:, "
			 "docker-archive:)");
}

char *favo_oci_ref_format(const struct favo_oci_ref *ref)
{
	char digest[FAVO_DIGEST_TEXT_SIZE] = "";

	if (ref->kind != FAVO_OCI_DOCKER)
		return favo_asprintf("%s%s%s", ref->path, ref->tag ? ":" : "",
				     ref->tag ? ref->tag : "");
	if (ref->has_digest)
		return favo_asprintf("%s/%s@%s", ref->host, ref->repo,
				     favo_digest_format(&ref->digest, digest));
	return favo_asprintf("%s/%s:%s", ref->host, ref->repo,
			     ref->tag ? ref->tag : "latest");
}

char *favo_oci_ref_name(const struct favo_oci_ref *ref)
{
	favo_autofree char *full = NULL;
	const char *base = ref->repo, *tag = ref->tag;
	size_t len;

	if (ref->kind != FAVO_OCI_DOCKER) {
		full = realpath(ref->path, NULL);
		base = full ? full : ref->path;
		/* "app:v1" of docker save is a name of its own. */
		if (tag && strchr(tag, ':'))
			base = tag;
	}
	base = strrchr(base, '/') ? strrchr(base, '/') + 1 : base;
	if (base == tag || (tag && strchr(tag, ':')))
		return strdup(base);
	len = strstr(base, ".tar") ? (size_t)(strstr(base, ".tar") - base) : strlen(base);
	return favo_asprintf("%.*s%s%s", (int)len, base, tag ? ":" : "", tag ? tag : "");
}
