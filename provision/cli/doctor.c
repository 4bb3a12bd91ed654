// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo doctor: checks this host's part of the chain and says what mends it.
 * A check prints one line; the exit status is 1 when any of them failed.
 */
#include "provision/cli/cli.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/munge_auth.h"
#include "common/options.h"
#include "common/util.h"
#include "provision/grant.h"

enum verdict {
	GOOD,
	ABSENT, /* not a fault: this host has no such role */
	BAD,
};

typedef enum verdict check_fn(struct favo_cli *cli, char *said, size_t size);

static enum verdict check_munge(struct favo_cli *cli, char *said, size_t size)
{
	favo_autofree char *cred = NULL;
	struct favo_err err = {0};
	uid_t uid;
	gid_t gid;

	if (favo_munge_sign(&cred, cli->conf.munge_socket, "GET", "/", "", 0, &err) < 0 ||
	    favo_munge_verify(cred, cli->conf.munge_socket, "GET", "/", "", 0, &uid, &gid,
			      &err) < 0) {
		snprintf(said, size, "%s", err.msg);
		return BAD;
	}
	snprintf(said, size, "signs and checks credentials");
	return GOOD;
}

static enum verdict check_favod(struct favo_cli *cli, char *said, size_t size)
{
	favo_autojson json_t *reply = NULL;
	struct favo_err err = {0};
	struct favo_http *http;
	const char *version = "?";

	if (favo_cli_http(cli, &http, &err) < 0 ||
	    favo_http_json(http, "GET", "/v1/version", NULL, &reply, &err) < 0) {
		snprintf(said, size,
			 "%s; see favod_url in favo.conf, and: systemctl status favod",
			 err.msg);
		return BAD;
	}
	if (favo_json_str(&version, reply, "version", NULL) < 0)
		version = "?";
	snprintf(said, size, "version %s answers at %s", version, cli->conf.favod_url);
	return GOOD;
}

static enum verdict check_noded(struct favo_cli *cli, char *said, size_t size)
{
	static const char request[] = "{\"op\":\"list\"}\n";
	favo_autoclose int sock = -1;
	struct favo_err err = {0};
	char c;

	if (access(cli->conf.noded_socket, F_OK) < 0) {
		snprintf(said, size,
			 "no %s: this host runs no VMs; on a compute node: systemctl "
			 "start favo-noded",
			 cli->conf.noded_socket);
		return ABSENT;
	}
	if (favo_unix_connect(&sock, cli->conf.noded_socket, 3000, &err) < 0 ||
	    favo_write_all(sock, request, sizeof(request) - 1, 3000, &err) < 0 ||
	    favo_read_all(sock, &c, 1, 3000, &err) < 0) {
		snprintf(said, size, "%s; systemctl restart favo-noded", err.msg);
		return BAD;
	}
	snprintf(said, size, "answers at %s", cli->conf.noded_socket);
	return GOOD;
}

static enum verdict check_kvm(struct favo_cli *cli, char *said, size_t size)
{
	favo_autoclose int fd = -1;

	if (access(cli->conf.noded_socket, F_OK) < 0) {
		snprintf(said, size, "not asked: this host runs no VMs");
		return ABSENT;
	}
	fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (fd < 0 && errno == EACCES) {
		snprintf(said, size, "root only; run favo doctor as root to check it");
		return ABSENT;
	}
	if (fd < 0) {
		snprintf(said, size,
			 "/dev/kvm: %m; modprobe kvm-intel or kvm-amd, and see that "
			 "virtualization is on in the firmware");
		return BAD;
	}
	snprintf(said, size, "/dev/kvm opens");
	return GOOD;
}

static enum verdict check_grant_pub(struct favo_cli *cli, char *said, size_t size)
{
	favo_autograntkey struct favo_grant_key *key = NULL;
	struct favo_err err = {0};

	if (access(cli->conf.noded_socket, F_OK) < 0) {
		snprintf(said, size, "not asked: this host runs no VMs");
		return ABSENT;
	}
	if (favo_grant_key_load_public(&key, cli->conf.grant_pub, &err) < 0) {
		snprintf(said, size, "%s; copy it from favod's host", err.msg);
		return BAD;
	}
	snprintf(said, size, "%s is a public key", cli->conf.grant_pub);
	return GOOD;
}

static enum verdict check_submit(struct favo_cli *cli, char *said, size_t size)
{
	(void)cli;
	if (access(FAVO_LIBEXECDIR "/favo-submit", X_OK) < 0) {
		snprintf(said, size,
			 "%s/favo-submit: %m; install Favo's plugin on this host",
			 FAVO_LIBEXECDIR);
		return BAD;
	}
	snprintf(said, size, "%s/favo-submit is there", FAVO_LIBEXECDIR);
	return GOOD;
}

static const struct {
	const char *name;
	check_fn *check;
} checks[] = {
	{"munge", check_munge},		{"favod", check_favod},
	{"favo-submit", check_submit},	{"noded", check_noded},
	{"grant key", check_grant_pub}, {"kvm", check_kvm},
};

struct args {
	bool json;
};

static const struct favo_opt rows[] = {
	FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON"),
};

static int run(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const char *const words[] = {
		[GOOD] = "ok", [ABSENT] = "-", [BAD] = "FAILED"};
	static const char *const heads[] = {"CHECK", "RESULT", "WHAT", NULL};
	favo_autotable struct favo_table *table = favo_table_new(heads);
	favo_autojson json_t *list = json_array();
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json]",
		.about = "Check this host's part of Favo; what fails is named with its "
			 "remedy.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	bool bad = false;
	int first, ret;

	ret = favo_cli_options(&opts, argc, argv, 0, 0, &first, err);
	if (ret != 0)
		return ret > 0 ? 0 : ret;
	for (size_t i = 0; i < FAVO_ARRAY_SIZE(checks); i++) {
		char said[700] = "";
		enum verdict v = checks[i].check(cli, said, sizeof(said));

		bad = bad || v == BAD;
		favo_table_row(table, checks[i].name, words[v], said);
		json_array_append_new(list,
				      json_pack("{s:s s:s s:s}", "check", checks[i].name,
						"result", words[v], "what", said));
	}
	ret = args.json ? favo_cli_print_json(list, err) : favo_table_print(table, err);
	return ret < 0 ? ret : bad;
}

const struct favo_cli_verb favo_cli_doctor = {
	"doctor",
	"[--json]",
	"check this host's part of Favo and say what mends it",
	run,
};
