// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo image: build, import and look after the images of the site's store.
 * root on favod's host works on the store's folder itself; everybody else
 * makes images as himself and pushes them to favod, which decides what he may.
 */
#include "provision/cli/cli.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "images/index.h"
#include "images/recipe.h"
#include "images/source.h"
#include "images/store.h"
#include "provision/cli/image_export.h"
#include "provision/cli/image_rules.h"
#include "provision/cli/image_sign.h"
#include "provision/cli/save.h"
#include "provision/cli/target.h"

#define NEAR_MAX 5
#define INDEX_MAX (256u << 20)

struct args {
	char *name;
	char *log;
	char *kernel;
	char *modules;
	char *cmdline;
	uint64_t partition;
	uint64_t max_bytes;
	bool json;
	bool quiet;
	const json_t *extra; /* for the manifest */
};

#define JSON_ROW FAVO_OPT_FLAG("json", struct args, json, FAVO_FROM_CLI, "print JSON")
#define NAME_ROW                                                                         \
	FAVO_OPT_STR("name", "NAME[:TAG]", struct args, name, FAVO_FROM_CLI, NULL,       \
		     "what to call the image")
#define QUIET_ROW                                                                        \
	FAVO_OPT_FLAG("quiet", struct args, quiet, FAVO_FROM_CLI,                        \
		      "no progress, only the new image's id")
#define KERNEL_ROWS                                                                      \
	FAVO_OPT_STR("kernel", "PATH", struct args, kernel, FAVO_FROM_CLI, NULL,         \
		     "boot this kernel instead of the image's own"),                     \
		FAVO_OPT_STR("modules", "DIR", struct args, modules, FAVO_FROM_CLI,      \
			     NULL, "its modules, as under /lib/modules/RELEASE"),        \
		FAVO_OPT_STR("cmdline", "TEXT", struct args, cmdline, FAVO_FROM_CLI,     \
			     NULL, "kernel parameters of the image")

static const char *text_or_null(const char *text)
{
	return text && *text ? text : NULL;
}

/* Store of the site, for verbs that work on it themselves. */
static int open_store(struct favo_cli *cli, struct favo_store **store,
		      struct favo_err *err)
{
	return favo_store_open(store, cli->conf.store_dir, 0, err);
}

/* resolve that names similar images when there is no such one */
static int resolve(struct favo_store *store, const char *name, struct favo_digest *id,
		   struct favo_err *err)
{
	char *near[NEAR_MAX];
	favo_autofree char *list = NULL;
	int ret = favo_store_resolve(store, name, id, err), n;

	if (ret != -ENOENT)
		return ret;
	n = favo_store_near(store, name, near, NEAR_MAX, NULL);
	for (int i = 0; i < n; i++) {
		char *longer = favo_asprintf("%s%s%s", list ? list : "", list ? ", " : "",
					     near[i]);

		free(list);
		free(near[i]);
		list = longer;
	}
	if (list)
		return favo_fail(err, ENOENT, "no image %s; near: %s", name, list);
	return favo_fail(err, ENOENT, "no image %s; see: favo image ls", name);
}

/* ---- progress ---- */

struct progress {
	bool quiet;
	bool tty;
	int64_t start_ms;
	const char *step; /* that is shown, since step_ms */
	int64_t step_ms;
	bool open; /* a line without its end is on the terminal */
};

static void end_line(struct progress *progress)
{
	if (progress->open)
		fputc('\n', stderr);
	progress->open = false;
}

static void show_note(const char *text, void *user)
{
	struct progress *progress = user;

	if (progress->quiet)
		return;
	end_line(progress);
	fprintf(stderr, "%6.1f s  %s\n",
		(double)(favo_now_ms() - progress->start_ms) / 1000, text);
}

static void show_progress(const char *step, uint64_t done, uint64_t total, void *user)
{
	struct progress *progress = user;
	char done_text[32], total_text[32], rate_text[32];
	int64_t now = favo_now_ms();
	uint64_t rate;

	if (progress->quiet || !progress->tty)
		return;
	if (!progress->step || strcmp(progress->step, step) != 0) {
		progress->step = step;
		progress->step_ms = now;
	}
	rate = done * 1000 / (uint64_t)FAVO_MAX(now - progress->step_ms, 1);
	fprintf(stderr, "\r%6.1f s  %s %s of %s, %s/s, %ju s left   ",
		(double)(now - progress->start_ms) / 1000, step,
		favo_format_size(done_text, sizeof(done_text), done),
		favo_format_size(total_text, sizeof(total_text), total),
		favo_format_size(rate_text, sizeof(rate_text), rate),
		rate ? (uintmax_t)((total - done) / rate) : 0);
	progress->open = true;
	if (done == total)
		end_line(progress);
}

static void report(const struct favo_import_result *r, const char *name, bool quiet)
{
	char id[FAVO_DIGEST_TEXT_SIZE], root[32], kernel[32], added[32];

	favo_digest_format(&r->id, id);
	if (quiet) {
		printf("%s\n", id);
		return;
	}
	printf("%s\n  id      %s\n  root    %s, %" PRIu64 " chunks, %" PRIu64
	       " of them new, %s added to the store\n"
	       "  kernel  %s, %s, from the %s, %s\n",
	       name, id, favo_format_size(root, sizeof(root), r->root_bytes), r->chunks,
	       r->pack.new_chunks,
	       favo_format_size(added, sizeof(added), r->pack.stored_bytes),
	       r->kernel_release, r->kernel_is_vmlinux ? "vmlinux" : "bzImage",
	       r->kernel_source,
	       favo_format_size(kernel, sizeof(kernel), r->kernel_bytes));
}

static struct favo_import import_of(const struct favo_cli *cli, const struct args *args,
				    struct progress *progress)
{
	*progress = (struct progress){.quiet = args->quiet,
				      .tty = isatty(STDERR_FILENO),
				      .start_ms = favo_now_ms()};
	return (struct favo_import){.name = args->name,
				    .cmdline = args->cmdline,
				    .kernel = args->kernel,
				    .modules = args->modules,
				    .site_kernel = text_or_null(cli->conf.site_kernel),
				    .site_modules = text_or_null(cli->conf.site_modules),
				    .registry_http = cli->conf.registry_http,
				    .max_bytes = args->max_bytes,
				    .extra = args->extra,
				    .note = show_note,
				    .progress = show_progress,
				    .user = progress};
}

/* ---- build ---- */

/* A word without '/' that is no file is the name of an installed recipe. */
static int find_recipe(struct favo_recipe **recipe, const char *word,
		       struct favo_err *err)
{
	favo_autofree char *path = NULL;

	if (!strchr(word, '/') && access(word, F_OK) != 0) {
		path = favo_asprintf("%s/%s.recipe", FAVO_RECIPEDIR, word);
		if (!path)
			return favo_fail(err, ENOMEM, "out of memory");
		if (access(path, F_OK) != 0)
			return favo_fail(err, ENOENT,
					 "no recipe %s, neither as a file nor in %s",
					 word, FAVO_RECIPEDIR);
		word = path;
	}
	return favo_recipe_load(recipe, word, err);
}

static char *log_path(const struct args *args, const struct favo_recipe *recipe,
		      struct favo_err *err)
{
	char *path =
		args->log ? strdup(args->log)
			  : favo_asprintf("%s/build-%s.log", FAVO_LOGDIR, recipe->name);

	if (!args->log && favo_mkdirs(FAVO_LOGDIR, 0755, err) < 0) {
		free(path);
		return NULL;
	}
	for (char *p = path ? path + strlen(FAVO_LOGDIR) + 1 : NULL;
	     !args->log && p && *p; p++)
		if (*p == '/')
			*p = '-';
	if (!path)
		favo_fail(err, ENOMEM, "out of memory");
	return path;
}

/* The image is made: push it where that is needed, then tell. */
static int finish(struct favo_cli *cli, struct favo_cli_target *target,
		  const struct favo_import_result *result, struct progress *progress,
		  struct favo_err *err)
{
	char size[32];
	uint64_t moved = 0;
	int ret = favo_cli_target_finish(cli, target, &result->id, &moved, show_progress,
					 progress, err);

	end_line(progress);
	if (ret < 0)
		return ret;
	report(result, target->name, progress->quiet);
	if (target->dir && !progress->quiet)
		printf("  pushed  %s\n", favo_format_size(size, sizeof(size), moved));
	return 0;
}

static int build(struct favo_cli *cli, const struct args *args, const char *word,
		 struct favo_err *err)
{
	favo_autorecipe struct favo_recipe *recipe = NULL;
	struct favo_cli_target target = {0};
	struct favo_import_result result = {0};
	favo_autofree char *log = NULL;
	struct progress progress;
	struct favo_import import = import_of(cli, args, &progress);
	int ret = find_recipe(&recipe, word, err);

	if (ret < 0)
		return ret;
	log = log_path(args, recipe, err);
	if (!log)
		return -EIO;
	ret = favo_cli_target_open(cli, args->name ? args->name : recipe->name,
				   !args->name, &target, err);
	if (ret < 0)
		return ret;
	import.name = target.name;
	ret = favo_recipe_build(target.store, recipe, &import, log, &result, err);
	end_line(&progress);
	if (ret == 0)
		ret = finish(cli, &target, &result, &progress, err);
	favo_cli_target_fini(&target);
	return ret;
}

static int run_build(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		NAME_ROW,
		FAVO_OPT_STR("log", "FILE", struct args, log, FAVO_FROM_CLI, NULL,
			     "output of mmdebstrap [" FAVO_LOGDIR "/build-NAME.log]"),
		KERNEL_ROWS,
		QUIET_ROW,
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[OPTION]... RECIPE",
		.about = "Build an image from a recipe: a file, or the name of a shipped "
			 "one.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	if (ret == 0)
		ret = build(cli, &args, argv[first], err);
	else if (ret > 0)
		ret = 0;
	favo_opts_fini(&opts);
	return ret;
}

/* ---- import ---- */

static int import_words(struct favo_cli *cli, const struct args *args, const char *text,
			struct favo_err *err)
{
	struct favo_cli_target target = {0};
	favo_autofree char *name = NULL;
	struct favo_import_result result = {0};
	struct progress progress;
	struct favo_import import = import_of(cli, args, &progress);
	struct favo_image_name parsed;
	favo_autojson json_t *boot = NULL;
	struct favo_http *http;
	int ret;

	if (!args->name && strcmp(text, "-") == 0)
		return favo_cli_usage(err, "give --name when the tar comes from stdin");
	name = args->name ? strdup(args->name) : favo_source_name(text);
	if (!name)
		return favo_fail(err, ENOMEM, "out of memory");
	if (favo_image_name_parse(&parsed, name, err) < 0)
		return favo_wrap(err, -EINVAL, "give a name with --name");
	ret = favo_cli_target_open(cli, name, !args->name, &target, err);
	if (ret < 0)
		return ret;
	import.name = target.name;
	import.partition = (unsigned int)args->partition;
	/* Elsewhere than on favod's host, the site's kernel is favod's. */
	if (target.dir && favo_cli_http(cli, &http, NULL) == 0 &&
	    favo_push_site_boot(http, &boot, NULL) == 0)
		import.site_boot = boot;
	ret = favo_import_path(target.store, text, &import, &result, err);
	end_line(&progress);
	if (ret == 0)
		ret = finish(cli, &target, &result, &progress, err);
	favo_cli_target_fini(&target);
	return ret;
}

int favo_cli_import_stdin(struct favo_cli *cli, const char *name, const char *cmdline,
			  const json_t *extra, bool quiet, struct favo_err *err)
{
	const struct args args = {.name = (char *)name,
				  .cmdline = (char *)cmdline,
				  .extra = extra,
				  .quiet = quiet};

	return import_words(cli, &args, "-", err);
}

static int run_import(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {
		NAME_ROW,
		FAVO_OPT_U64("partition", "N", struct args, partition, FAVO_FROM_CLI,
			     NULL,
			     "root file system of a disk image, as told when there "
			     "are several"),
		FAVO_OPT_SIZE("max-size", "SIZE", struct args, max_bytes, FAVO_FROM_CLI,
			      "0", "bound of a container image's contents [64G]"),
		KERNEL_ROWS,
		QUIET_ROW,
	};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[OPTION]... SOURCE",
		.about =
			"Import a root file system: a folder, a tar file (- is stdin), a "
			"squashfs file, a disk image (raw, qcow2, VMDK, VDI), or a "
			"container image (docker://[USER@][HOST/]NAME[:TAG|@DIGEST], "
			"oci:DIR[:TAG], oci-archive:FILE, docker-archive:FILE).",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	if (ret == 0)
		ret = import_words(cli, &args, argv[first], err);
	else if (ret > 0)
		ret = 0;
	favo_opts_fini(&opts);
	return ret;
}

/* ---- ls ---- */

static json_t *ref_json(const struct favo_store_ref *ref, const struct favo_manifest *m)
{
	char id[FAVO_DIGEST_TEXT_SIZE];

	return json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:I}", "name", ref->name, "tag",
			 ref->tag, "digest", favo_digest_format(&ref->id, id), "os",
			 m->os_pretty, "kernel", m->kernel.release, "size",
			 (json_int_t)favo_manifest_total_size(m), "time",
			 (json_int_t)ref->time);
}

static void ref_row(struct favo_table *table, const json_t *image)
{
	char size[32], date[32] = "-", id[16];
	time_t when = (time_t)json_integer_value(json_object_get(image, "time"));
	const char *digest = json_string_value(json_object_get(image, "digest"));
	struct tm tm;

	if (localtime_r(&when, &tm))
		strftime(date, sizeof(date), "%Y-%m-%d %H:%M", &tm);
	snprintf(id, sizeof(id), "%.12s",
		 digest && strlen(digest) > 7 ? digest + 7 : "-");
	favo_format_size(size, sizeof(size),
			 (uint64_t)json_integer_value(json_object_get(image, "size")));
	favo_table_row(table, json_string_value(json_object_get(image, "name")),
		       json_string_value(json_object_get(image, "tag")), id,
		       json_string_value(json_object_get(image, "os")),
		       json_string_value(json_object_get(image, "kernel")), size, date);
}

/* {"images": [...]} of the store; a damaged image is told and left out. */
static int list_store(struct favo_store *store, json_t **out, struct favo_err *err)
{
	favo_autojson json_t *images = json_array();
	struct favo_store_ref *refs = NULL;
	size_t n = 0;
	int ret = images ? favo_store_list(store, &refs, &n, err)
			 : favo_fail(err, ENOMEM, "out of memory");

	for (size_t i = 0; ret == 0 && i < n; i++) {
		favo_automanifest struct favo_manifest *m = NULL;
		struct favo_err one = {0};

		if (favo_store_manifest(store, &refs[i].id, &m, &one) < 0)
			fprintf(stderr, "favo: %s:%s: %s\n", refs[i].name, refs[i].tag,
				one.msg);
		else if (json_array_append_new(images, ref_json(&refs[i], m)) < 0)
			ret = favo_fail(err, ENOMEM, "out of memory");
	}
	favo_store_refs_free(refs, n);
	if (ret == 0)
		*out = json_pack("{s:O}", "images", images);
	return ret < 0 || *out ? ret : favo_fail(err, ENOMEM, "out of memory");
}

static int list(struct favo_cli *cli, const struct args *args, struct favo_err *err)
{
	static const char *const heads[] = {"NAME",   "TAG",   "ID",   "SYSTEM",
					    "KERNEL", ">SIZE", "DATE", NULL};
	favo_autotable struct favo_table *table = NULL;
	favo_autostore struct favo_store *store = NULL;
	favo_autojson json_t *reply = NULL;
	struct favo_http *http;
	const json_t *image;
	size_t i;
	int ret;

	if (favo_cli_has_store(cli) && open_store(cli, &store, NULL) == 0) {
		ret = list_store(store, &reply, err);
	} else {
		ret = favo_cli_http(cli, &http, err);
		if (ret == 0)
			ret = favo_http_json(http, "GET", "/v1/images", NULL, &reply,
					     err);
	}
	if (ret < 0)
		return ret;
	if (args->json)
		return favo_cli_print_json(reply, err);
	table = favo_table_new(heads);
	json_array_foreach(json_object_get(reply, "images"), i, image)
		ref_row(table, image);
	return favo_table_print(table, err);
}

static int run_ls(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {JSON_ROW};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json]",
		.about = "List the images.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 0, 0, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	return list(cli, &args, err);
}

/* ---- show ---- */

/* Chunks of the root, and what they take in the store. */
static int measure_root(struct favo_store *store, const struct favo_manifest *m,
			size_t *chunks, uint64_t *stored, struct favo_err *err)
{
	favo_autoindex struct favo_index *index = NULL;
	favo_autofree void *data = NULL;
	size_t len = 0;
	int ret =
		favo_store_read_blob(store, &m->root.index, INDEX_MAX, &data, &len, err);

	if (ret == 0)
		ret = favo_index_parse(&index, data, len, m->root.bytes, err);
	for (size_t i = 0; ret == 0 && i < index->n_chunks; i++) {
		uint64_t size = 0;
		int fd =
			favo_store_open_blob(store, &index->chunks[i].digest, &size, err);

		if (fd < 0)
			return fd;
		close(fd);
		*stored += size;
	}
	if (ret == 0)
		*chunks = index->n_chunks;
	return ret;
}

static void print_image(const struct favo_manifest *m, size_t chunks, uint64_t stored)
{
	char id[FAVO_DIGEST_TEXT_SIZE], a[32], b[32];

	printf("name       %s\nid         %s\nsystem     %s\n", m->name,
	       favo_digest_format(&m->id, id), m->os_pretty);
	printf("root       %s, %s, %zu chunks, %s in the store\n", m->root.fstype,
	       favo_format_size(a, sizeof(a), m->root.size), chunks,
	       favo_format_size(b, sizeof(b), stored));
	printf("kernel     %s, from the %s, %s\n", m->kernel.release, m->kernel.source,
	       favo_format_size(a, sizeof(a), m->kernel.size));
	printf("initramfs  %s\ncmdline    %s\n",
	       favo_format_size(a, sizeof(a), m->initramfs.size), m->cmdline);
}

static int show(struct favo_cli *cli, const struct args *args, const char *name,
		struct favo_err *err)
{
	favo_autostore struct favo_store *store = NULL;
	favo_automanifest struct favo_manifest *m = NULL;
	struct favo_digest id;
	uint64_t stored = 0;
	size_t chunks = 0;
	int ret;

	if ((ret = open_store(cli, &store, err)) < 0 ||
	    (ret = resolve(store, name, &id, err)) < 0 ||
	    (ret = favo_store_manifest(store, &id, &m, err)) < 0)
		return ret;
	if (args->json)
		return favo_cli_print_json(m->json, err);
	ret = measure_root(store, m, &chunks, &stored, err);
	if (ret == 0)
		print_image(m, chunks, stored);
	return ret;
}

static int run_show(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	static const struct favo_opt rows[] = {JSON_ROW};
	struct args args = {0};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--json] IMAGE",
		.about = "What an image is made of; with --json, its manifest.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	return show(cli, &args, argv[first], err);
}

/* ---- tag, rm, gc ---- */

/* The same by favod, which decides whether the caller may. */
static int remote_tag(struct favo_cli *cli, const char *image, const char *name,
		      struct favo_err *err)
{
	favo_autofree char *from = favo_asprintf("/v1/images/%s", image);
	favo_autofree char *to = favo_asprintf("/v1/images/%s", name);
	favo_autojson json_t *reply = NULL, *body = NULL;
	struct favo_http *http;
	const char *digest;
	int ret = favo_cli_http(cli, &http, err);

	if (!from || !to)
		return favo_fail(err, ENOMEM, "out of memory");
	if (ret == 0)
		ret = favo_http_json(http, "GET", from, NULL, &reply, err);
	if (ret == 0)
		ret = favo_json_str(&digest, reply, "digest", err);
	if (ret < 0)
		return ret;
	body = json_pack("{s:s}", "digest", digest);
	return body ? favo_http_json(http, "PUT", to, body, NULL, err)
		    : favo_fail(err, ENOMEM, "out of memory");
}

static int remote_rm(struct favo_cli *cli, char **names, struct favo_err *err)
{
	struct favo_http *http;
	int ret = favo_cli_http(cli, &http, err);

	for (; ret == 0 && *names; names++) {
		favo_autofree char *path = favo_asprintf("/v1/images/%s", *names);

		ret = path ? favo_http_json(http, "DELETE", path, NULL, NULL, err)
			   : favo_fail(err, ENOMEM, "out of memory");
	}
	return ret;
}

static int run_tag(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "IMAGE NAME[:TAG]",
		.about = "Give an image another name.",
	};
	favo_autostore struct favo_store *store = NULL;
	struct favo_image_name name;
	struct favo_digest id;
	int first, ret = favo_cli_options(&opts, argc, argv, 2, 2, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (favo_image_name_parse(&name, argv[first + 1], err) < 0)
		return favo_cli_usage(err, "%s is no image name", argv[first + 1]);
	if (name.has_digest)
		return favo_cli_usage(err, "a new name has no digest");
	if (!favo_cli_has_store(cli))
		return remote_tag(cli, argv[first], argv[first + 1], err);
	if ((ret = open_store(cli, &store, err)) < 0 ||
	    (ret = resolve(store, argv[first], &id, err)) < 0)
		return ret;
	return favo_store_tag(store, &name, &id, err);
}

static int collect(struct favo_store *store, struct favo_err *err)
{
	struct favo_gc_stats stats;
	char size[32];
	int ret = favo_store_gc(store, &stats, err);

	if (ret == 0)
		printf("%zu images and %zu blobs removed, %s freed\n", stats.manifests,
		       stats.blobs, favo_format_size(size, sizeof(size), stats.bytes));
	return ret;
}

static int run_rm(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "NAME[:TAG]...",
		.about = "Remove images, and the data that no other image has.",
	};
	favo_autostore struct favo_store *store = NULL;
	struct favo_image_name name;
	struct favo_digest id;
	int first, ret = favo_cli_options(&opts, argc, argv, 1, 1000, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	if (!favo_cli_has_store(cli))
		return remote_rm(cli, argv + first, err);
	ret = open_store(cli, &store, err);
	for (int i = first; ret == 0 && i < argc; i++) {
		ret = favo_image_name_parse(&name, argv[i], err);
		if (ret == 0 && name.has_digest)
			return favo_cli_usage(err, "%s: images are removed by name",
					      argv[i]);
		if (ret == 0)
			ret = favo_store_untag(store, &name, err);
		if (ret == -ENOENT) /* for the sentence with near names */
			return resolve(store, argv[i], &id, err);
	}
	return ret < 0 ? ret : collect(store, err);
}

static int run_gc(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct favo_opts opts = {
		.program = argv[0],
		.about = "Remove data that belongs to no image.",
	};
	favo_autostore struct favo_store *store = NULL;
	int first, ret = favo_cli_options(&opts, argc, argv, 0, 0, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	ret = open_store(cli, &store, err);
	return ret < 0 ? ret : collect(store, err);
}

static const struct favo_cli_verb verbs[] = {
	{"build", "[OPTION]... RECIPE", "make an image from a recipe", run_build},
	{"import", "[OPTION]... DIR|TAR|-", "make an image from a root file system",
	 run_import},
	{"save", "[--quiet] JOB[/VM] NAME[:TAG]", "make an image of a running guest",
	 favo_cli_image_save},
	{"ls", "[--json]", "list the images", run_ls},
	{"show", "[--json] IMAGE", "what an image is made of", run_show},
	{"diff", "[--json] OLD NEW", "what differs between two images",
	 favo_cli_image_diff},
	{"export", "IMAGE FILE|-|oci:DIR[:TAG]|erofs:FILE",
	 "write the root file system of an image", favo_cli_image_export},
	{"tag", "IMAGE NAME[:TAG]", "give an image another name", run_tag},
	{"rm", "NAME[:TAG]...", "remove images", run_rm},
	{"history", "NAME[:TAG]", "what a tag pointed to before", favo_cli_image_history},
	{"allow", "NAME|REPO/ USER|@GROUP...|all", "say who may run an image",
	 favo_cli_image_allow},
	{"rules", "[--json] [NAME|REPO/]", "who may run which images",
	 favo_cli_image_rules},
	{"sign", "[--key PATH] IMAGE", "sign an image", favo_cli_image_sign},
	{"verify", "[--keys PATH] IMAGE", "check the signature of an image",
	 favo_cli_image_verify},
	{"keygen", "NAME", "make a key pair to sign with", favo_cli_image_keygen},
	{"gc", "", "remove data that belongs to no image", run_gc},
	{0},
};

const struct favo_cli_noun favo_cli_image = {
	.name = "image",
	.about = "the site's images",
	.verbs = verbs,
};
