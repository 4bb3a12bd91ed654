// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo-submit: asks favod for the grant of a job; child of the SPANK plugin
 * in srun, sbatch and salloc, as the user (submit.c says why a child).
 *
 * Writes one line to stdout: "grant TEXT" or "error SENTENCE". The parent
 * gives up on it after ten seconds, so its own limit is shorter. While it
 * imports an image that the job brings along (submit_import.h), each line
 * "busy" before the answer gives it another ten.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "common/http.h"
#include "common/json.h"
#include "common/str.h"
#include "common/util.h"
#include "provision/conf.h"
#include "provision/grant.h"
#include "provision/mounts.h"
#include "slurm-plugin/submit_import.h"

#define TIMEOUT_MS 8000

struct request {
	char *image;
	uint64_t cpus;
	uint64_t mem_bytes;
	char *network;
	char *mounts;
	bool sandbox;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_STR("vm-image", "NAME", struct request, image, FAVO_FROM_CLI, NULL,
		     "image to boot"),
	FAVO_OPT_U64("vm-cpus", "N", struct request, cpus, FAVO_FROM_CLI, "0",
		     "virtual CPUs of each VM; 0: the allocation's"),
	FAVO_OPT_SIZE("vm-mem", "SIZE", struct request, mem_bytes, FAVO_FROM_CLI, "0",
		      "memory of each VM; 0: the allocation's"),
	FAVO_OPT_STR("vm-network", "private|none", struct request, network, FAVO_FROM_CLI,
		     "private", "network of the VMs"),
	FAVO_OPT_STR("vm-mount", "LIST", struct request, mounts, FAVO_FROM_CLI, NULL,
		     "directories of the node in the VMs"),
	FAVO_OPT_BOOL("vm-sandbox", "yes|no", struct request, sandbox, FAVO_FROM_CLI,
		      "no", "no files of the node in the VMs"),
};

/* favod checks all of it again; this says it sooner and in the user's words. */
static int check_request(const struct request *r, struct favo_err *err)
{
	struct favo_mounts mounts = {0};

	if (!r->image)
		return favo_fail(err, EINVAL, "--vm-image is missing");
	if (r->cpus > 4096)
		return favo_fail(err, EINVAL, "--vm-cpus=%ju is more than any node has",
				 (uintmax_t)r->cpus);
	if (r->mem_bytes && r->mem_bytes < 32u << 20)
		return favo_fail(
			err, EINVAL,
			"--vm-mem: no guest starts in less than 32M; a bare number is "
			"bytes, 512M is 512 MiB");
	if (strcmp(r->network, "nat") == 0 || strncmp(r->network, "bridge", 6) == 0)
		return favo_fail(
			err, EINVAL,
			"--vm-network=%s is not in this version; private and none are",
			r->network);
	if (strcmp(r->network, "private") != 0 && strcmp(r->network, "none") != 0)
		return favo_fail(err, EINVAL, "--vm-network=%s: private or none is meant",
				 r->network);
	if (r->mounts && r->sandbox)
		return favo_fail(
			err, EINVAL,
			"--vm-mount and --vm-sandbox: a sandbox sees no files of "
			"the node");
	return r->mounts ? favo_mounts_parse(&mounts, r->mounts, err) : 0;
}

static int ask(char **grant, const struct request *r, const struct favo_conf *conf,
	       struct favo_err *err)
{
	struct favo_http_params params = {
		.base_url = conf->favod_url,
		.munge_socket = conf->munge_socket,
		.timeout_ms = TIMEOUT_MS,
		.max_reply = 64u << 10,
	};
	favo_autojson json_t *body = NULL, *reply = NULL;
	favo_autohttp struct favo_http *http = NULL;
	const char *text;
	int ret;

	body = json_pack("{s:s s:I s:I s:i s:s}", "image", r->image, "cpus",
			 (json_int_t)r->cpus, "mem_mb", (json_int_t)(r->mem_bytes >> 20),
			 "per_node", 1, "network", r->network);
	if (!body)
		return favo_fail(err, EINVAL, "--vm-image: the name is not UTF-8 text");
	ret = favo_http_new(&http, &params, err);
	if (ret == 0)
		ret = favo_http_json(http, "POST", "/v1/grants", body, &reply, err);
	if ((ret == -ECONNREFUSED || ret == -ETIMEDOUT) &&
	    strncmp(err->msg, "munge", 5) != 0)
		return favo_wrap(err, ret,
				 "favod does not answer, the job was not submitted");
	if (ret < 0)
		return ret;
	ret = favo_json_str(&text, reply, "grant", err);
	if (ret < 0)
		return favo_wrap(err, ret, "answer of favod");
	if (strlen(text) > FAVO_GRANT_TEXT_MAX || strpbrk(text, " \n"))
		return favo_fail(err, EIO, "answer of favod: the grant is malformed");
	*grant = strdup(text);
	return *grant ? 0 : favo_fail(err, ENOMEM, "favo-submit: %m");
}

/* The grant of a job that brings its image along. */
static int ask_with_import(char **grant, struct request *r, const struct favo_conf *conf,
			   struct favo_err *err)
{
	struct favo_submit_import *import = NULL;
	favo_autofree char *given = r->image, *name = NULL;
	int ret = favo_submit_import_open(&import, given, conf, &name, err);

	r->image = NULL;
	if (ret < 0)
		return ret;
	/* Imported before, by this user, and still the same: nothing to do. */
	r->image = name;
	ret = name ? ask(grant, r, conf, err) : -ENOENT;
	if (ret == -ENOENT) {
		free(favo_steal_ptr(&name));
		ret = favo_submit_import_run(import, &name, err);
		if (ret < 0)
			favo_wrap(err, ret, "--vm-image");
		r->image = name;
		if (ret == 0)
			ret = ask(grant, r, conf, err);
	}
	r->image = NULL; /* the options do not own it */
	favo_submit_import_free(import);
	return ret;
}

static int run(int argc, char **argv, struct favo_err *err)
{
	struct request r = {0};
	struct favo_opts opts = {
		.program = "favo-submit",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &r,
		.about = "Ask favod for the grant of a job; started by Slurm's plugin.",
	};
	favo_autofree char *grant = NULL;
	struct favo_conf conf = {0};
	int first, ret;

	ret = favo_opts_defaults(&opts, err);
	if (ret == 0)
		ret = favo_opts_cli(&opts, argc, argv, &first, err);
	if (ret == 0)
		ret = check_request(&r, err);
	if (ret == 0)
		ret = favo_conf_load(&conf, getenv("FAVO_CONF"), true, err);
	if (ret == 0)
		ret = favo_submit_is_source(r.image)
			      ? ask_with_import(&grant, &r, &conf, err)
			      : ask(&grant, &r, &conf, err);
	if (ret == 0)
		printf("grant %s\n", grant);
	favo_conf_fini(&conf);
	favo_opts_fini(&opts);
	return ret;
}

int main(int argc, char **argv)
{
	struct favo_err err = {0};
	int ret = run(argc, argv, &err);

	if (ret < 0) {
		for (char *p = err.msg; *p; p++)
			if (*p == '\n')
				*p = ' ';
		printf("error %s\n", err.msg);
	}
	return ret < 0 || fflush(stdout) != 0;
}
