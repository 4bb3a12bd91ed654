// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Import of a job's own image at submission; see submit_import.h. A second
 * thread takes the signals, removes the unfinished store when one comes, and
 * writes a "busy" line each second.
 */
#include "slurm-plugin/submit_import.h"

#include <ctype.h>
#include <errno.h>
#include <pthread.h>
#include <pwd.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/http.h"
#include "common/json.h"
#include "common/sha256.h"
#include "common/str.h"
#include "common/util.h"
#include "images/import.h"
#include "images/oci.h"
#include "images/source.h"
#include "provision/push.h"

#define HTTP_MS 120000 /* one batch of a push at most */
#define QUIET_MS 2000 /* what is faster than this says nothing */
#define LINE_MS 5000 /* between lines when stderr is no terminal */
#define TAG_HEX 16
#define NAME_MAX_ 80

struct favo_submit_import {
	const struct favo_conf *conf;
	char *source; /* what is imported, a registry's image by digest */
	char *base; /* "alice/run/debian" */
	char *tag; /* NULL until it is known */
	char *dir; /* store of our own, or NULL */
	json_t *boot; /* kernel of the site, or NULL */
	struct favo_http *http;
	pthread_t thread;
	bool has_thread;
	atomic_bool ended;
	/* of the progress */
	const char *step;
	int64_t start_ms, step_ms, shown_ms;
	bool open; /* a line without its end is on the terminal */
};

bool favo_submit_is_source(const char *image)
{
	return strncmp(image, "docker://", 9) == 0 || image[0] == '/' ||
	       strncmp(image, "./", 2) == 0 || strncmp(image, "../", 3) == 0;
}

/* ---- signals and patience ---- */

static void end_line(struct favo_submit_import *im)
{
	if (im->open)
		fputc('\n', stderr);
	im->open = false;
}

static void remove_store(struct favo_submit_import *im)
{
	/* Threads may still be writing there: what they make goes, too. */
	for (int i = 0; im->dir && i < 50; i++) {
		if (favo_remove_tree(im->dir, NULL) == 0 && access(im->dir, F_OK) != 0)
			return;
		usleep(20000);
	}
}

static void *keep_watch(void *user)
{
	static const char busy[] = "busy\n";
	struct favo_submit_import *im = user;
	struct timespec second = {.tv_sec = 1};
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	for (;;) {
		int sig = sigtimedwait(&set, NULL, &second);

		if (atomic_load(&im->ended))
			return NULL;
		/* Nobody waits for the answer any more, or somebody said stop. */
		if (sig > 0 ||
		    (sig < 0 && errno == EAGAIN &&
		     favo_write_all(STDOUT_FILENO, busy, strlen(busy), 1000, NULL) < 0)) {
			remove_store(im);
			end_line(im);
			_exit(1);
		}
	}
}

static int start_watch(struct favo_submit_import *im, struct favo_err *err)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGINT);
	sigaddset(&set, SIGTERM);
	sigaddset(&set, SIGHUP);
	sigaddset(&set, SIGPIPE);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	if (pthread_create(&im->thread, NULL, keep_watch, im) != 0)
		return favo_fail(err, EAGAIN, "cannot start a thread");
	im->has_thread = true;
	return 0;
}

/* ---- progress ---- */

static void show_progress(const char *step, uint64_t done, uint64_t total, void *user)
{
	struct favo_submit_import *im = user;
	int64_t now = favo_now_ms();
	bool tty = isatty(STDERR_FILENO);
	char done_text[32], total_text[32], rate_text[32];
	uint64_t rate;

	if (!im->step || strcmp(im->step, step) != 0) {
		end_line(im);
		im->step = step;
		im->step_ms = now;
	}
	if (now - im->start_ms < QUIET_MS || (done < total && now - im->shown_ms < 100) ||
	    (!tty && now - im->shown_ms < LINE_MS))
		return;
	im->shown_ms = now;
	rate = done * 1000 / (uint64_t)FAVO_MAX(now - im->step_ms, 1);
	fprintf(stderr, "%sfavo: %s %s of %s, %s/s, %ju s left %s", tty ? "\r" : "", step,
		favo_format_size(done_text, sizeof(done_text), done),
		favo_format_size(total_text, sizeof(total_text), total),
		favo_format_size(rate_text, sizeof(rate_text), rate),
		rate ? (uintmax_t)((total - done) / rate) : 0, tty ? "  " : "\n");
	im->open = tty;
}

/* ---- names ---- */

/* "alice/run/debian" for docker://registry/x/debian:12. */
static char *base_name(const char *image)
{
	const struct passwd *pw = getpwuid(geteuid());
	favo_autofree char *name = favo_source_name(image);
	char clean[NAME_MAX_];
	size_t n = 0;

	for (const char *p = name ? name : ""; *p && *p != ':' && n < sizeof(clean) - 1;
	     p++) {
		if (isalnum((unsigned char)*p) || (n && strchr("._-", *p)))
			clean[n++] = *p;
	}
	clean[n] = '\0';
	return pw ? favo_asprintf("%s/run/%s", pw->pw_name, n ? clean : "image") : NULL;
}

/*
 * A registry's image by its digest, which with the site's kernel decides what
 * the import makes; so the tag is known before.
 */
static int pin(struct favo_submit_import *im, const char *image, struct favo_err *err)
{
	struct favo_oci_params params = {.http_hosts = im->conf->registry_http};
	favo_autofree char *boot = NULL, *key = NULL;
	char digest[FAVO_DIGEST_TEXT_SIZE], hex[FAVO_SHA256_HEX];
	struct favo_oci_ref ref = {0};
	size_t len = 0;
	int ret = favo_oci_ref_parse(&ref, image, err);

	if (ret == 0)
		ret = favo_oci_resolve(&ref.digest, &ref, &params, err);
	if (ret == 0) {
		favo_digest_format(&ref.digest, digest);
		im->source =
			favo_asprintf("docker://%s%s%s/%s@%s", ref.user ? ref.user : "",
				      ref.user ? "@" : "", ref.host, ref.repo, digest);
	}
	favo_oci_ref_fini(&ref);
	if (ret == 0 && im->boot)
		ret = favo_json_canonical(&boot, &len, im->boot, err);
	if (ret < 0)
		return ret;
	key = favo_asprintf("%s %s", digest, boot ? boot : "");
	if (!key || !im->source)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = favo_sha256_hex(hex, key, strlen(key), err);
	if (ret < 0)
		return ret;
	im->tag = strndup(hex, TAG_HEX);
	return im->tag ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int full_name(const struct favo_submit_import *im, char **name,
		     struct favo_err *err)
{
	*name = favo_asprintf("%s:%s", im->base, im->tag);
	return *name ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

/* ---- import ---- */

void favo_submit_import_free(struct favo_submit_import *im)
{
	if (!im)
		return;
	if (im->has_thread) {
		atomic_store(&im->ended, true);
		pthread_kill(im->thread, SIGHUP);
		pthread_join(im->thread, NULL);
	}
	remove_store(im);
	favo_http_free(im->http);
	json_decref(im->boot);
	free(im->source);
	free(im->base);
	free(im->tag);
	free(im->dir);
	free(im);
}

int favo_submit_import_open(struct favo_submit_import **out, const char *image,
			    const struct favo_conf *conf, char **name,
			    struct favo_err *err)
{
	struct favo_http_params params = {.base_url = conf->favod_url,
					  .munge_socket = conf->munge_socket,
					  .timeout_ms = HTTP_MS};
	struct favo_submit_import *im = calloc(1, sizeof(*im));
	int ret;

	if (!im)
		return favo_fail(err, ENOMEM, "out of memory");
	im->conf = conf;
	im->start_ms = favo_now_ms();
	im->base = base_name(image);
	ret = im->base ? start_watch(im, err)
		       : favo_fail(err, ENOENT, "you are no user of this host");
	if (ret == 0)
		ret = favo_http_new(&im->http, &params, err);
	if (ret == 0)
		ret = favo_push_site_boot(im->http, &im->boot, err);
	/* An image may bring its kernel; the import says what is missing. */
	if (ret == -ENOENT)
		ret = 0;
	if (ret == 0 && favo_oci_is_ref(image)) {
		ret = pin(im, image, err);
		if (ret == 0)
			ret = full_name(im, name, err);
	} else if (ret == 0) {
		im->source = strdup(image);
		ret = im->source ? 0 : favo_fail(err, ENOMEM, "out of memory");
	}
	if (ret < 0) {
		favo_submit_import_free(im);
		return favo_wrap(err, ret, "--vm-image=%.200s", image);
	}
	*out = im;
	return 0;
}

static int make_store(struct favo_submit_import *im, struct favo_store **store,
		      struct favo_err *err)
{
	const char *base = getenv("TMPDIR");
	char *dir =
		favo_asprintf("%s/favo-import-XXXXXX", base && *base ? base : "/var/tmp");

	if (!dir || !mkdtemp(dir)) {
		int ret = favo_fail(err, dir ? errno : ENOMEM, "%s: %m",
				    dir ? dir : "store");

		free(dir);
		return ret;
	}
	im->dir = dir;
	return favo_store_open(store, dir, FAVO_STORE_CREATE, err);
}

int favo_submit_import_run(struct favo_submit_import *im, char **name,
			   struct favo_err *err)
{
	struct favo_import import = {.name = im->base,
				     .site_boot = im->boot,
				     .registry_http = im->conf->registry_http,
				     .progress = show_progress,
				     .user = im};
	favo_autostore struct favo_store *store = NULL;
	struct favo_import_result result = {0};
	char hex[FAVO_DIGEST_HEX_SIZE];
	char *full = NULL;
	int ret;

	if ((ret = favo_push_allowed(im->http, im->base, err)) < 0 ||
	    (ret = make_store(im, &store, err)) < 0 ||
	    (ret = favo_import_path(store, im->source, &import, &result, err)) < 0)
		return ret;
	if (!im->tag)
		im->tag = strndup(favo_digest_format_hex(&result.id, hex), TAG_HEX);
	if (!im->tag)
		return favo_fail(err, ENOMEM, "out of memory");
	ret = full_name(im, &full, err);
	if (ret == 0)
		ret = favo_push_image(im->http, store, &result.id, full, NULL,
				      show_progress, im, err);
	end_line(im);
	if (ret < 0) {
		free(full);
		return ret;
	}
	*name = full;
	return 0;
}
