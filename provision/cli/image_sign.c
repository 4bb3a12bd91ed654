// SPDX-License-Identifier: GPL-2.0-or-later
/* favo image keygen, sign, verify, history: who made an image, and what was before. */
#include "provision/cli/image_sign.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/util.h"
#include "images/sign.h"
#include "images/store.h"

struct args {
	char *key;
	char *keys;
};

int favo_cli_sign_new(struct favo_cli *cli, struct favo_store *store,
		      const struct favo_digest *id, struct favo_err *err)
{
	favo_autosignkey struct favo_sign_key *key = NULL;
	int ret = favo_sign_key_load(&key, cli->conf.image_key, err);

	/* A site without favod's first start, or a store of one's own. */
	if (ret == -ENOENT || ret == -EACCES)
		return 0;
	return ret < 0 ? ret : favo_store_sign(store, id, key, err);
}

int favo_cli_image_keygen(struct favo_cli *cli, int argc, char **argv,
			  struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "NAME",
		.about = "Make a key pair, NAME.sec and NAME.pub, in signify's format "
			 "and without a passphrase.",
	};
	favo_autofree char *secret = NULL, *public = NULL;
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	(void)cli;
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	secret = favo_asprintf("%s.sec", argv[first]);
	public = favo_asprintf("%s.pub", argv[first]);
	if (!secret || !public)
		return favo_fail(err, ENOMEM, "out of memory");
	return favo_sign_keygen(secret, public, "favo", err);
}

static int open_image(struct favo_cli *cli, const char *image, struct favo_store **store,
		      struct favo_digest *id, struct favo_err *err)
{
	int ret = favo_store_open(store, cli->conf.store_dir, 0, err);

	return ret < 0 ? ret : favo_store_resolve(*store, image, id, err);
}

static int sign(struct favo_cli *cli, const char *path, const char *image,
		struct favo_err *err)
{
	favo_autosignkey struct favo_sign_key *key = NULL;
	favo_autostore struct favo_store *store = NULL;
	struct favo_digest id;
	int ret;

	if ((ret = favo_sign_key_load(&key, path ? path : cli->conf.image_key, err)) <
		    0 ||
	    (ret = open_image(cli, image, &store, &id, err)) < 0)
		return ret;
	return favo_store_sign(store, &id, key, err);
}

int favo_cli_image_sign(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		FAVO_OPT_STR("key", "PATH", struct args, key, FAVO_FROM_CLI, NULL,
			     "secret key [image_key of favo.conf]"),
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--key PATH] IMAGE",
		.about = "Sign an image; signatures by other keys stay.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	if (ret == 0)
		ret = sign(cli, args.key, argv[first], err);
	else if (ret > 0)
		ret = 0;
	favo_opts_fini(&opts);
	return ret;
}

static int load_keys(struct favo_sign_keys **keys, const char *path, struct favo_err *err)
{
	int ret = favo_sign_keys_load(keys, path, err);

	return ret == -ENOTDIR ? favo_sign_keys_load_file(keys, path, err) : ret;
}

static int verify(struct favo_cli *cli, const char *path, const char *image,
		  struct favo_err *err)
{
	favo_autosignkeys struct favo_sign_keys *keys = NULL;
	favo_autostore struct favo_store *store = NULL;
	favo_automanifest struct favo_manifest *m = NULL;
	favo_autofree char *text = NULL, *data = NULL;
	size_t len = 0, data_len = 0;
	const char *name = NULL;
	struct favo_digest id;
	int ret;

	if ((ret = load_keys(&keys, path ? path : cli->conf.image_pub, err)) < 0 ||
	    (ret = open_image(cli, image, &store, &id, err)) < 0 ||
	    (ret = favo_store_manifest(store, &id, &m, err)) < 0 ||
	    (ret = favo_manifest_format(m->json, &data, &data_len, err)) < 0)
		return ret;
	ret = favo_store_signature(store, &id, &text, &len, err);
	if (ret == -ENOENT)
		return favo_fail(err, ENOENT, "image %s is not signed", image);
	if (ret == 0)
		ret = favo_sign_verify(keys, text, len, data, data_len, &name, err);
	if (ret < 0)
		return favo_wrap(err, ret, "image %s", image);
	printf("image %s is signed by %s\n", image, name);
	return 0;
}

int favo_cli_image_verify(struct favo_cli *cli, int argc, char **argv,
			  struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		FAVO_OPT_STR("keys", "PATH", struct args, keys, FAVO_FROM_CLI, NULL,
			     "public key, or a folder of them [image_pub of favo.conf]"),
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--keys PATH] IMAGE",
		.about = "Check the signature of an image.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	if (ret == 0)
		ret = verify(cli, args.keys, argv[first], err);
	else if (ret > 0)
		ret = 0;
	favo_opts_fini(&opts);
	return ret;
}

static int history(struct favo_cli *cli, const char *text, struct favo_err *err)
{
	static const char *const heads[] = {"ID", "SINCE", "DATA", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	struct favo_store_event events[FAVO_STORE_HISTORY_MAX];
	favo_autostore struct favo_store *store = NULL;
	struct favo_image_name name;
	size_t n = 0;
	int ret;

	if (!table)
		return favo_fail(err, ENOMEM, "out of memory");
	if ((ret = favo_image_name_parse(&name, text, err)) < 0 ||
	    (ret = favo_store_open(&store, cli->conf.store_dir, 0, err)) < 0 ||
	    (ret = favo_store_history(store, &name, events, FAVO_ARRAY_SIZE(events), &n,
				      err)) < 0)
		return ret;
	for (size_t i = 0; i < n; i++) {
		favo_automanifest struct favo_manifest *m = NULL;
		char id[FAVO_DIGEST_TEXT_SIZE], date[32] = "-";
		time_t when = (time_t)events[i].time;
		struct tm tm;

		if (localtime_r(&when, &tm))
			strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
		favo_store_manifest(store, &events[i].id, &m, NULL);
		favo_table_row(table, favo_digest_format(&events[i].id, id), date,
			       i == 0 ? "current"
			       : m    ? "kept"
				      : "removed");
	}
	return favo_table_print(table, err);
}

int favo_cli_image_history(struct favo_cli *cli, int argc, char **argv,
			   struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "NAME[:TAG]",
		.about = "What a tag pointed to before, the newest first.",
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	return history(cli, argv[first], err);
}
