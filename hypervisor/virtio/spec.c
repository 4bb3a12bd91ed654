/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * Values of device options. There is no quoting: a path with a comma in it goes
 * by descriptor.
 */
#include "hypervisor/virtio/spec.h"

#include <limits.h>
#include <string.h>

#include "common/fd.h"
#include "common/str.h"
#include "common/util.h"

static const struct favo_spec_key *find(const struct favo_spec_key *keys, size_t nkeys,
					const char *name)
{
	for (size_t i = 0; i < nkeys; i++)
		if (strcmp(keys[i].name, name) == 0)
			return &keys[i];
	return NULL;
}

static int set_word(const struct favo_spec_key *keys, size_t nkeys, char *word,
		    struct favo_err *err)
{
	char *value = strchr(word, '=');
	const struct favo_spec_key *key;

	if (value)
		*value++ = '\0';
	key = find(keys, nkeys, word);
	if (!key)
		return favo_fail(err, EINVAL, "\"%s\" is not known here", word);
	if (key->flag) {
		if (value)
			return favo_fail(err, EINVAL, "\"%s\" takes no value", word);
		*key->flag = true;
		return 0;
	}
	if (!value || !*value)
		return favo_fail(err, EINVAL, "\"%s\" needs a value", word);
	if (*key->value)
		return favo_fail(err, EINVAL, "\"%s\" is given twice", word);
	*key->value = value;
	return 0;
}

int favo_spec_parse(char *text, const struct favo_spec_key *keys, size_t nkeys,
		    struct favo_err *err)
{
	char *word;

	while ((word = strsep(&text, ",")) != NULL) {
		int ret = set_word(keys, nkeys, word, err);

		if (ret < 0)
			return ret;
	}
	return 0;
}

int favo_spec_fd(int *fd, const char *text, struct favo_err *err)
{
	uint64_t n;
	int ret;

	ret = favo_parse_u64(&n, text, 0, INT_MAX, err);
	if (ret < 0)
		return favo_wrap(err, ret, "file descriptor");
	if (favo_set_cloexec((int)n, true) < 0)
		return favo_fail(err, EBADF, "file descriptor %s is not open", text);
	*fd = (int)n;
	return 0;
}
