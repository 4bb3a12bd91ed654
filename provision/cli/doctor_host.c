// SPDX-License-Identifier: GPL-2.0-or-later
/* favo doctor: what this host itself must have, and its node agent's word. */
#include "config.h"
#include "provision/cli/doctor.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/munge_auth.h"
#include "common/util.h"

#define WHERE "this host"
#define NODED_MS 12000 /* it may have to run its checks first */
#define REPLY_MAX 65536

static void check_munge(struct favo_cli *cli, json_t *results)
{
	favo_autofree char *cred = NULL;
	struct favo_err err = {0};
	uid_t uid;
	gid_t gid;

	if (favo_munge_sign(&cred, cli->conf.munge_socket, "GET", "/", "", 0, &err) < 0 ||
	    favo_munge_verify(cred, cli->conf.munge_socket, "GET", "/", "", 0, &uid, &gid,
			      &err) < 0)
		favo_doctor_add(
			results, WHERE, "munge", FAVO_CHECK_FAULT,
			"systemctl restart munge; the key is the same on all hosts?",
			"%s", err.msg);
	else
		favo_doctor_add(results, WHERE, "munge", FAVO_CHECK_GOOD, NULL,
				"signs and checks credentials");
}

static void check_favod(struct favo_cli *cli, json_t *results)
{
	favo_autojson json_t *reply = NULL;
	struct favo_err err = {0};
	struct favo_http *http;
	const char *version;

	if (favo_cli_http(cli, &http, &err) < 0 ||
	    favo_http_json(http, "GET", "/v1/version", NULL, &reply, &err) < 0 ||
	    favo_json_str(&version, reply, "version", &err) < 0) {
		favo_doctor_add(results, WHERE, "favod", FAVO_CHECK_FAULT,
				"on favod's host: systemctl restart favod; here: is "
				"favod_url in favo.conf right?",
				"%s", err.msg);
		return;
	}
	if (strcmp(version, PACKAGE_VERSION) != 0)
		favo_doctor_add(results, WHERE, "favod", FAVO_CHECK_FAULT,
				"install one version on all hosts",
				"favod has version %s, this host %s", version,
				PACKAGE_VERSION);
	else
		favo_doctor_add(results, WHERE, "favod", FAVO_CHECK_GOOD, NULL,
				"version %s answers at %s", version, cli->conf.favod_url);
}

static void check_submit(json_t *results)
{
	if (access(FAVO_LIBEXECDIR "/favo-submit", X_OK) < 0)
		favo_doctor_add(results, WHERE, "favo-submit", FAVO_CHECK_FAULT,
				"install Favo's plugin on this host",
				"%s/favo-submit: %m", FAVO_LIBEXECDIR);
	else
		favo_doctor_add(results, WHERE, "favo-submit", FAVO_CHECK_GOOD, NULL,
				"%s/favo-submit is there", FAVO_LIBEXECDIR);
}

/* One line from the node agent; the caller frees it. NULL: err says why. */
static char *ask_noded(const char *path, const char *request, struct favo_err *err)
{
	int64_t end = favo_now_ms() + NODED_MS;
	favo_autofree char *line = calloc(1, REPLY_MAX);
	favo_autoclose int sock = -1;
	size_t len = 0;

	if (!line || favo_unix_connect(&sock, path, 3000, err) < 0 ||
	    favo_write_all(sock, request, strlen(request), 3000, err) < 0)
		return NULL;
	while (len + 1 < REPLY_MAX) {
		int left = (int)FAVO_MAX(end - favo_now_ms(), 1);

		if (favo_read_all(sock, line + len, 1, left, err) < 0)
			return NULL;
		if (line[len] == '\n')
			break;
		len++;
	}
	line[len] = '\0';
	return favo_steal_ptr(&line);
}

static void check_noded(struct favo_cli *cli, json_t *results)
{
	favo_autojson json_t *reply = NULL;
	favo_autofree char *line = NULL;
	struct favo_err err = {0};
	json_t *checks, *row;
	size_t i;

	if (access(cli->conf.noded_socket, F_OK) < 0) {
		favo_doctor_add(results, WHERE, "favo-noded", FAVO_CHECK_NOTE,
				"on a compute node: systemctl start favo-noded",
				"no %s: this host runs no VMs", cli->conf.noded_socket);
		return;
	}
	line = ask_noded(cli->conf.noded_socket, "{\"op\":\"doctor\"}\n", &err);
	if (!line || favo_json_parse(&reply, line, strlen(line), &err) < 0 ||
	    favo_json_array(&checks, reply, "checks", &err) < 0) {
		favo_doctor_add(results, WHERE, "favo-noded", FAVO_CHECK_FAULT,
				"systemctl restart favo-noded; running VMs go on", "%s",
				err.msg);
		return;
	}
	favo_doctor_add(results, WHERE, "favo-noded", FAVO_CHECK_GOOD, NULL,
			"answers at %s", cli->conf.noded_socket);
	json_array_foreach(checks, i, row)
	{
		json_object_set_new(row, "where", json_string(WHERE));
		json_array_append(results, row);
	}
}

void favo_doctor_host(struct favo_cli *cli, json_t *results)
{
	check_munge(cli, results);
	check_favod(cli, results);
	check_submit(results);
	check_noded(cli, results);
}
