// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * favo image save: the root of a running guest as a new image. A step of the
 * job (srun --overlap) asks the agent for the root as a tar stream
 * (images/guest/save.h), which is kept in an unlinked file until it is known
 * to be whole, and imported as any other tar. Chunks that the site has, which
 * are all but the changed ones, are not stored again.
 */
#include "provision/cli/save.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "common/json.h"
#include "common/options.h"
#include "common/str.h"
#include "common/util.h"
#include "images/digest.h"
#include "images/guest/save.h"
#include "provision/cli/target.h"

#define SHOW_MS 500

struct guest {
	uint64_t job;
	char vm[64];
	char node[256];
	char digest[FAVO_DIGEST_TEXT_SIZE];
	char image[256];
	char *cmdline; /* of the image that it runs */
	json_t *extra; /* parent, history, config of the new manifest */
};

static void guest_fini(struct guest *g)
{
	free(g->cmdline);
	json_decref(g->extra);
}
#define autoguest __attribute__((cleanup(guest_fini)))

/* "12" or "12/vm3" */
static int parse_word(struct guest *g, const char *word, struct favo_err *err)
{
	const char *slash = strchr(word, '/');
	char number[24];

	snprintf(number, sizeof(number), "%.*s",
		 (int)(slash ? FAVO_MIN(slash - word, 23) : 23), word);
	if (favo_parse_u64(&g->job, number, 1, UINT32_MAX, err) < 0)
		return favo_cli_usage(err, "%s is no job id", number);
	snprintf(g->vm, sizeof(g->vm), "%s", slash ? slash + 1 : "vm0");
	if (!favo_is_name(g->vm, "-", 60))
		return favo_cli_usage(err, "%s is no name of a VM", g->vm);
	return 0;
}

static const char *str(const json_t *obj, const char *key)
{
	const char *text = json_string_value(json_object_get(obj, key));

	return text ? text : "";
}

static int find_guest(struct guest *g, struct favo_http *http, struct favo_err *err)
{
	favo_autojson json_t *vc = NULL;
	const json_t *member;
	char path[64];
	size_t i;
	int ret;

	snprintf(path, sizeof(path), "/v1/vcs/%" PRIu64, g->job);
	ret = favo_http_json(http, "GET", path, NULL, &vc, err);
	if (ret < 0)
		return ret;
	snprintf(g->digest, sizeof(g->digest), "%s", str(vc, "digest"));
	snprintf(g->image, sizeof(g->image), "%s", str(vc, "image"));
	json_array_foreach(json_object_get(vc, "members"), i, member)
	{
		if (strcmp(str(member, "name"), g->vm) != 0)
			continue;
		if (strcmp(str(member, "state"), "ready") != 0)
			return favo_fail(err, ESHUTDOWN,
					 "%s of job %" PRIu64
					 " is %s; only a running guest can be saved",
					 g->vm, g->job, str(member, "state"));
		snprintf(g->node, sizeof(g->node), "%s", str(member, "node"));
		return 0;
	}
	return favo_fail(err, ENOENT,
			 "job %" PRIu64 " has no %s; see: favo vc show %" PRIu64, g->job,
			 g->vm, g->job);
}

/* What the new image takes over from the one that the guest runs. */
static int read_parent(struct guest *g, struct favo_http *http, struct favo_err *err)
{
	favo_autojson json_t *manifest = NULL;
	json_t *history, *config;
	char path[128];
	int ret;

	snprintf(path, sizeof(path), "/v1/manifests/%s", g->digest);
	ret = favo_http_json(http, "GET", path, NULL, &manifest, err);
	if (ret < 0)
		return favo_wrap(err, ret, "image %s of the job", g->image);
	g->cmdline = strdup(str(manifest, "cmdline"));
	history = json_deep_copy(json_object_get(manifest, "history"));
	if (!history)
		history = json_array();
	config = json_object_get(manifest, "config");
	json_array_append_new(history, json_pack("{s:s, s:s, s:s, s:I, s:I}", "action",
						 "saved", "image", g->image, "vm", g->vm,
						 "job", (json_int_t)g->job, "time",
						 (json_int_t)time(NULL)));
	g->extra = json_pack("{s:s, s:o, s:O*}", "parent", g->digest, "history", history,
			     "config", config);
	return g->cmdline && g->extra ? 0 : favo_fail(err, ENOMEM, "out of memory");
}

static int spawn_step(const struct guest *g, int out, pid_t *pid, struct favo_err *err)
{
	favo_autofree char *job = favo_asprintf("--jobid=%" PRIu64, g->job);
	favo_autofree char *node = favo_asprintf("--nodelist=%s", g->node);
	char *argv[] = {(char *)"srun",
			job,
			node,
			(char *)"--overlap",
			(char *)"--nodes=1",
			(char *)"--ntasks=1",
			(char *)"--mem=0",
			(char *)"--mpi=none",
			(char *)"--input=none",
			(char *)"--chdir=/",
			(char *)"--quiet",
			(char *)FAVO_SAVE_COMMAND,
			NULL};
	posix_spawn_file_actions_t actions;
	int ret;

	if (!job || !node)
		return favo_fail(err, ENOMEM, "out of memory");
	posix_spawn_file_actions_init(&actions);
	posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
	ret = posix_spawnp(pid, "srun", &actions, NULL, argv, environ);
	posix_spawn_file_actions_destroy(&actions);
	return ret ? favo_fail(err, ret, "srun: %m") : 0;
}

static void show(int fd, int64_t start_ms, bool end)
{
	uint64_t ms = (uint64_t)(favo_now_ms() - start_ms) + 1;
	char size[32], rate[32];
	struct stat st;

	if (!isatty(STDERR_FILENO) || fstat(fd, &st) < 0)
		return;
	fprintf(stderr, "\r  guest    %s read, %s/s   %s",
		favo_format_size(size, sizeof(size), (uint64_t)st.st_size),
		favo_format_size(rate, sizeof(rate), (uint64_t)st.st_size * 1000 / ms),
		end ? "\n" : "");
}

/* The whole root in an unlinked file, positioned at its start. */
static int read_guest(const struct guest *g, bool quiet, int *out, struct favo_err *err)
{
	const struct timespec pause = {.tv_nsec = 100000000};
	const char *dir = getenv("TMPDIR") ? getenv("TMPDIR") : "/var/tmp";
	favo_autoclose int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
	int64_t start = favo_now_ms(), shown = start;
	int status = 0, ret;
	pid_t pid, done;

	if (fd < 0)
		return favo_fail(err, errno, "%s: %m (set TMPDIR)", dir);
	ret = spawn_step(g, fd, &pid, err);
	if (ret < 0)
		return ret;
	while ((done = waitpid(pid, &status, WNOHANG)) == 0) {
		nanosleep(&pause, NULL);
		if (!quiet && favo_now_ms() - shown > SHOW_MS) {
			show(fd, start, false);
			shown = favo_now_ms();
		}
	}
	if (!quiet)
		show(fd, start, true);
	/* A stream that was cut short must not become an image. */
	if (done < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
		return favo_fail(err, EIO,
				 "the root of %s of job %" PRIu64
				 " was not read to its end; nothing is saved",
				 g->vm, g->job);
	if (lseek(fd, 0, SEEK_SET) < 0)
		return favo_fail(err, errno, "%s: %m", dir);
	*out = favo_steal_fd(&fd);
	return 0;
}

static int save(struct favo_cli *cli, const char *word, const char *name, bool quiet,
		struct favo_err *err)
{
	autoguest struct guest g = {.job = 0};
	favo_autoclose int fd = -1;
	struct favo_http *http;
	int ret = parse_word(&g, word, err);

	if (ret == 0)
		ret = favo_cli_http(cli, &http, err);
	/* Before minutes of work: may he, is it there? */
	if (ret == 0 && !favo_cli_has_store(cli))
		ret = favo_push_allowed(http, name, err);
	if (ret == 0)
		ret = find_guest(&g, http, err);
	if (ret == 0)
		ret = read_parent(&g, http, err);
	if (ret == 0)
		ret = read_guest(&g, quiet, &fd, err);
	if (ret < 0)
		return ret;
	if (dup2(fd, STDIN_FILENO) < 0)
		return favo_fail(err, errno, "dup2: %m");
	return favo_cli_import_stdin(cli, name, g.cmdline, g.extra, quiet, err);
}

int favo_cli_image_save(struct favo_cli *cli, int argc, char **argv, struct favo_err *err)
{
	struct args {
		bool quiet;
	} args = {0};
	static const struct favo_opt rows[] = {
		FAVO_OPT_FLAG("quiet", struct args, quiet, FAVO_FROM_CLI,
			      "no progress, only the new image's id"),
	};
	struct favo_opts opts = {
		.program = argv[0],
		.synopsis = "[--quiet] JOB[/VM] NAME[:TAG]",
		.about = "Make an image of the root of a running guest (vm0 unless "
			 "another is named): its image and what was changed, without "
			 "anything that is mounted. The guest's processes stand still "
			 "while it is read.",
		.table = rows,
		.n = FAVO_ARRAY_SIZE(rows),
		.target = &args,
	};
	int first, ret = favo_cli_options(&opts, argc, argv, 2, 2, &first, err);

	if (ret != 0)
		return ret > 0 ? 0 : ret;
	return save(cli, argv[first], argv[first + 1], args.quiet, err);
}
