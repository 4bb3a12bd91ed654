// SPDX-License-Identifier: GPL-2.0-or-later
/* The store that new images go to; see target.h. */
#include "provision/cli/target.h"

#include <errno.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "provision/cli/image_sign.h"

bool favo_cli_has_store(const struct favo_cli *cli)
{
	return geteuid() == 0 || access(cli->conf.store_dir, W_OK) == 0;
}

/* "alice/NAME" for whoever asks. */
static char *own_name(const char *name)
{
	const struct passwd *pw = getpwuid(geteuid());

	return pw ? favo_asprintf("%s/%s", pw->pw_name, name) : strdup(name);
}

static int open_own(struct favo_cli *cli, struct favo_cli_target *t, struct favo_err *err)
{
	const char *base = getenv("TMPDIR");
	struct favo_http *http;
	int ret = favo_cli_http(cli, &http, err);

	if (ret == 0)
		ret = favo_push_allowed(http, t->name, err);
	if (ret < 0)
		return ret;
	t->dir = favo_asprintf("%s/favo-image-XXXXXX", base && *base ? base : "/var/tmp");
	if (!t->dir)
		return favo_fail(err, ENOMEM, "out of memory");
	if (!mkdtemp(t->dir)) {
		ret = favo_fail(err, errno, "%s: %m", t->dir);
		free(t->dir);
		t->dir = NULL;
		return ret;
	}
	return favo_store_open(&t->store, t->dir, FAVO_STORE_CREATE, err);
}

int favo_cli_target_open(struct favo_cli *cli, const char *name, bool is_default,
			 struct favo_cli_target *target, struct favo_err *err)
{
	struct favo_cli_target t = {0};
	bool push = !favo_cli_has_store(cli);
	int ret;

	t.name = push && is_default && !strchr(name, '/') ? own_name(name) : strdup(name);
	if (!t.name)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = push ? open_own(cli, &t, err)
		   : favo_store_open(&t.store, cli->conf.store_dir, FAVO_STORE_CREATE,
				     err);
	if (ret < 0) {
		favo_cli_target_fini(&t);
		return ret;
	}
	*target = t;
	return 0;
}

int favo_cli_target_finish(struct favo_cli *cli, struct favo_cli_target *target,
			   const struct favo_digest *id, uint64_t *moved,
			   favo_progress_fn *progress, void *user, struct favo_err *err)
{
	struct favo_http *http;
	int ret;

	*moved = 0;
	if (!target->dir)
		return favo_cli_sign_new(cli, target->store, id, err);
	ret = favo_cli_http(cli, &http, err);
	return ret < 0 ? ret
		       : favo_push_image(http, target->store, id, target->name, moved,
					 progress, user, err);
}

void favo_cli_target_fini(struct favo_cli_target *target)
{
	favo_store_close(target->store);
	if (target->dir && favo_remove_tree(target->dir, NULL) < 0)
		fprintf(stderr, "favo: %s cannot be removed\n", target->dir);
	free(target->dir);
	free(target->name);
	*target = (struct favo_cli_target){0};
}
