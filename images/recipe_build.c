// SPDX-License-Identifier: GPL-2.0-or-later
/*
 * Build of a recipe: mmdebstrap writes a tar to our pipe, which becomes the
 * tree to import; nothing is unpacked a second time. What the recipe adds
 * runs as one shell script in mmdebstrap's customize hook, while the chroot
 * with its mounts is there.
 *
 * The kernel package is unpacked without its dependencies: they would bring
 * initramfs-tools and all of perl into every image, and the initramfs of a
 * Favo guest is not made by them.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "common/fd.h"
#include "common/json.h"
#include "common/util.h"
#include "images/clean.h"
#include "images/recipe.h"
#include "images/store_internal.h"

#define ARGS_MAX 8192
#define POLL_MS 300
#define OUTPUT_MAX 65536

struct build {
	const struct favo_recipe *recipe;
	const struct favo_import *import;
	const char *log_path;
	char *script_path;
	pid_t pid;
	int pipe_fd; /* tar comes out here */
	int log_fd; /* for reading what the child wrote */
	char line[256]; /* of the log, not yet complete */
	size_t line_len;
};

struct args {
	char *argv[ARGS_MAX];
	size_t n;
	bool failed;
};

/* ---- script ---- */

/* text as one shell word */
static void put_word(FILE *f, const char *text)
{
	fputc('\'', f);
	for (; *text; text++) {
		if (*text == '\'')
			fputs("'\\''", f);
		else
			fputc(*text, f);
	}
	fputc('\'', f);
}

static void put_kernel(FILE *f, const char *package)
{
	fputs("in_root '\n"
	      "package=$1\n"
	      "real=$(apt-cache depends --important \"$package\" |\n"
	      "	sed -n \"s/.*Depends: \\(linux-image-[0-9].*\\)/\\1/p\" | head -n 1)\n"
	      "echo \"I: unpacking kernel ${real:-$package}...\" >&2\n"
	      "mkdir /tmp/favo-kernel\n"
	      "cd /tmp/favo-kernel\n"
	      "apt-get -q -o APT::Sandbox::User=root download \"${real:-$package}\"\n"
	      /* Not to /: it would put a folder over the symlink /lib. */
	      "dpkg-deb -x ./*.deb tree\n"
	      "mkdir -p /usr/lib/modules\n"
	      "for dir in tree/lib tree/usr/lib; do\n"
	      "	[ ! -d $dir/modules ] || cp -a $dir/modules/. /usr/lib/modules/\n"
	      "done\n"
	      "cp -a tree/boot/. /boot/\n"
	      "cd /\n"
	      "rm -r /tmp/favo-kernel\n"
	      "for dir in /usr/lib/modules/*; do depmod \"${dir##*/}\"; done\n"
	      "' ",
	      f);
	put_word(f, package);
	fputc('\n', f);
}

/*
 * Modules that the distribution's kernel leaves out, from its own source package:
 * unpack only their folders, build against the headers of the image's kernel with
 * the compiler that it was built with, and remove all that was installed for it.
 */
static void put_modules(FILE *f, char *const *folders)
{
	fputs("in_root '\n"
	      "release=$(ls /usr/lib/modules)\n"
	      "version=$(apt-cache show \"linux-image-$release\" |\n"
	      "	sed -n \"s/^Version: //p\" | head -n 1)\n"
	      "series=$(echo \"$version\" | sed \"s/^\\([0-9]*\\.[0-9]*\\).*/\\1/\")\n"
	      "echo \"I: building kernel modules of linux-source-$series...\" >&2\n"
	      "mkdir /tmp/favo-modules\n"
	      "cd /tmp/favo-modules\n"
	      "dpkg-query -W -f \"\\${binary:Package}\\n\" >before\n"
	      "apt-get -q -y -o APT::Sandbox::User=root install --no-install-recommends "
	      "\"linux-headers-$release\" make xz-utils >&2\n"
	      "apt-get -q -o APT::Sandbox::User=root download "
	      "\"linux-source-$series=$version\" >&2\n"
	      "source=linux-source-$series\n"
	      "for folder; do\n"
	      "	dpkg-deb --fsys-tarfile ./*.deb |\n"
	      "		tar -xO \"./usr/src/$source.tar.xz\" | xz -dc |\n"
	      "		tar -x --occurrence=1 \"$source/$folder/\"\n"
	      "	here=/tmp/favo-modules/$source/$folder\n"
	      "	make -C \"/usr/src/linux-headers-$release\" M=\"$here\" "
	      "KCFLAGS=-g0 $(sed -n \"s/^obj-\\$(\\(CONFIG_[A-Z0-9_]*\\)).*/\\1=m/p\" "
	      "\"$here/Makefile\") modules >&2\n"
	      "	for ko in \"$here\"/*.ko; do\n"
	      "		install -D -m 644 \"$ko\" "
	      "\"/usr/lib/modules/$release/extra/${ko##*/}\"\n"
	      "	done\n"
	      "done\n"
	      "dpkg-query -W -f \"\\${binary:Package}\\n\" |\n"
	      "	grep -vxFf before | xargs apt-get -q -y purge >&2\n"
	      "cd /\n"
	      "rm -r /tmp/favo-modules\n"
	      "depmod \"$release\"\n"
	      "' ",
	      f);
	for (; *folders; folders++) {
		put_word(f, *folders);
		fputc(' ', f);
	}
	fputc('\n', f);
}

static void put_script(FILE *f, const struct favo_recipe *recipe)
{
	fputs("#!/bin/sh\nset -eu\nroot=$1\n"
	      "in_root() {\n"
	      "	script=$1\n"
	      "	shift\n"
	      "	env -u TMPDIR HOME=/root LC_ALL=C.UTF-8 "
	      "PATH=/usr/sbin:/usr/bin:/sbin:/bin \\\n"
	      "		chroot \"$root\" /bin/sh -euc \"$script\" sh \"$@\"\n"
	      "}\n",
	      f);
	if (recipe->kernel)
		put_kernel(f, recipe->kernel);
	if (recipe->kernel && recipe->modules)
		put_modules(f, recipe->modules);
	for (size_t i = 0; i < recipe->n_files; i++) {
		fprintf(f, "install -D -m %o ", recipe->files[i].mode);
		put_word(f, recipe->files[i].source);
		fputs(" \"$root\"", f);
		put_word(f, recipe->files[i].target);
		fputc('\n', f);
	}
	for (size_t i = 0; recipe->runs && recipe->runs[i]; i++) {
		fputs("echo ", f);
		put_word(f, "I: run ");
		put_word(f, recipe->runs[i]);
		fputs(" >&2\nin_root ", f);
		put_word(f, recipe->runs[i]);
		fputc('\n', f);
	}
}

static int write_script(struct build *build, const char *dir, struct favo_err *err)
{
	favo_autofclose FILE *f = NULL;
	int fd;

	build->script_path = favo_asprintf("%s/hook-XXXXXX", dir);
	if (!build->script_path)
		return favo_fail(err, ENOMEM, "out of memory");
	fd = mkostemp(build->script_path, O_CLOEXEC);
	f = fd < 0 ? NULL : fdopen(fd, "w");
	if (!f) {
		int ret = favo_fail(err, errno, "%s: %m", build->script_path);

		favo_close(&fd);
		return ret;
	}
	put_script(f, build->recipe);
	if (ferror(f) || fflush(f) != 0)
		return favo_fail(err, errno, "%s: %m", build->script_path);
	return 0;
}

/* ---- command line ---- */

/* Takes text. */
static void add(struct args *args, char *text)
{
	if (!text || args->n + 1 >= ARGS_MAX) {
		args->failed = true;
		free(text);
		return;
	}
	args->argv[args->n++] = text;
}

/* ---- programs ---- */

/*
 * Start argv with stdout to out_fd and stderr to err_fd; returns the pid or
 * -errno. The child goes when this process does. With own_mounts, what it
 * mounts is seen by nobody else, who could keep it busy, and goes with it.
 */
static int start(char *const argv[], int out_fd, int err_fd, bool own_mounts,
		 struct favo_err *err)
{
	pid_t pid = fork();

	if (pid < 0)
		return favo_fail(err, errno, "fork: %m");
	if (pid > 0)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* When it fails, mmdebstrap sends its whole process group a SIGHUP. */
	if (own_mounts)
		setpgid(0, 0);
	if ((!own_mounts || (unshare(CLONE_NEWNS) == 0 &&
			     mount("none", "/", NULL, MS_REC | MS_PRIVATE, NULL) == 0)) &&
	    dup2(out_fd, STDOUT_FILENO) >= 0 && dup2(err_fd, STDERR_FILENO) >= 0)
		execvp(argv[0], argv);
	dprintf(err_fd, "E: cannot run %s: errno %d\n", argv[0], errno);
	_exit(127);
}

/* Exit status, or 128 + signal. */
static int wait_for(pid_t pid)
{
	int status = 0;

	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

/* First lines of what a program prints; the caller frees. NULL: it failed. */
static char *output_of(char *const argv[])
{
	favo_autoclose int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	favo_autofree char *text = calloc(1, OUTPUT_MAX + 1);
	int fds[2], pid;
	size_t len = 0;
	ssize_t n;

	if (null_fd < 0 || !text || pipe2(fds, O_CLOEXEC) < 0)
		return NULL;
	pid = start(argv, fds[1], null_fd, false, NULL);
	close(fds[1]);
	while (pid > 0 && len < OUTPUT_MAX) {
		n = read(fds[0], text + len, OUTPUT_MAX - len);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			break;
		len += (size_t)n;
	}
	close(fds[0]);
	if (pid <= 0 || wait_for(pid) != 0)
		return NULL;
	return favo_steal_ptr(&text);
}

/*
 * The mirror from which apt of this machine has the suite, asked from apt,
 * which knows all forms of source files. NULL: mmdebstrap's default.
 */
static char *find_mirror(const char *suite)
{
	static char *const argv[] = {"apt-get",
				     "indextargets",
				     "--format",
				     "$(RELEASE) $(COMPONENT) $(REPO_URI)",
				     "Created-By: Packages",
				     NULL};
	favo_autofree char *text = output_of(argv),
			   *wanted = favo_asprintf("%s main ", suite);

	for (char *line = text; wanted && line && *line;) {
		char *end = line + strcspn(line, "\n");

		if (strncmp(line, wanted, strlen(wanted)) == 0) {
			line += strlen(wanted);
			return strndup(line, (size_t)(end - line));
		}
		line = *end ? end + 1 : end;
	}
	return NULL;
}

/* Source lines: one for the mirror, then the recipe's own. */
static void add_sources(struct args *args, const struct favo_recipe *r)
{
	favo_autofree char *mirror =
		r->mirror ? strdup(r->mirror) : find_mirror(r->suite);

	if (mirror)
		add(args, favo_asprintf("deb %s %s %s", mirror, r->suite,
					r->components ? r->components : "main"));
	for (size_t i = 0; r->sources && r->sources[i]; i++)
		add(args, strdup(r->sources[i]));
}

static char *join(char *const *words)
{
	char *text = NULL, *longer;

	for (; words && *words; words++) {
		longer = favo_asprintf("%s%s%s", text ? text : "", text ? "," : "",
				       *words);
		free(text);
		text = longer;
	}
	return text;
}

static int make_args(struct args *args, const struct build *build, struct favo_err *err)
{
	const struct favo_recipe *r = build->recipe;
	favo_autofree char *packages = join(r->packages);

	add(args, strdup("mmdebstrap"));
	add(args, strdup("--mode=root"));
	add(args, strdup("--format=tar"));
	add(args, favo_asprintf("--variant=%s", r->variant ? r->variant : "minbase"));
	add(args,
	    favo_asprintf("--components=%s", r->components ? r->components : "main"));
	add(args, strdup("--aptopt=Acquire::Languages \"none\""));
	add(args, strdup("--aptopt=APT::Install-Recommends \"false\""));
	if (packages)
		add(args,
		    favo_asprintf("--include=%s%s", packages, r->kernel ? ",kmod" : ""));
	else if (r->kernel)
		add(args, strdup("--include=kmod"));
	for (size_t i = 0; r->excludes && r->excludes[i]; i++)
		add(args, favo_asprintf("--dpkgopt=path-exclude=%s", r->excludes[i]));
	add(args, favo_asprintf("--customize-hook=sh '%s' \"$1\"", build->script_path));
	add(args, strdup(r->suite));
	add(args, strdup("-"));
	add_sources(args, r);
	return args->failed ? favo_fail(err, ENOMEM, "out of memory") : 0;
}

/* ---- progress ---- */

/* Tell the steps that mmdebstrap and our script wrote to the log ("I: ..."). */
static void tell_progress(struct build *build)
{
	const struct favo_import *import = build->import;
	char chunk[4096];
	ssize_t n;

	while ((n = read(build->log_fd, chunk, sizeof(chunk))) > 0) {
		for (ssize_t i = 0; i < n; i++) {
			if (chunk[i] != '\n') {
				if (build->line_len + 1 < sizeof(build->line))
					build->line[build->line_len++] = chunk[i];
				continue;
			}
			build->line[build->line_len] = '\0';
			build->line_len = 0;
			if (strncmp(build->line, "I: ", 3) == 0 && import->note)
				import->note(build->line + 3, import->user);
		}
	}
}

/* Until the tar begins or the program ends. */
static void wait_for_tar(struct build *build)
{
	struct pollfd poll_fd = {.fd = build->pipe_fd, .events = POLLIN};

	while (poll(&poll_fd, 1, POLL_MS) == 0 || (poll_fd.revents == 0))
		tell_progress(build);
	tell_progress(build);
}

/* ---- build ---- */

static int launch(struct build *build, struct favo_err *err)
{
	favo_autofree struct args *args = calloc(1, sizeof(*args));
	favo_autoclose int log =
		open(build->log_path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC,
		     0644);
	int fds[2], ret;

	if (!args)
		return favo_fail(err, ENOMEM, "out of memory");
	if (log < 0)
		return favo_fail(err, errno, "%s: %m", build->log_path);
	build->log_fd = open(build->log_path, O_RDONLY | O_CLOEXEC);
	if (build->log_fd < 0 || pipe2(fds, O_CLOEXEC) < 0)
		return favo_fail(err, errno, "%s: %m", build->log_path);
	build->pipe_fd = fds[0];
	ret = make_args(args, build, err);
	if (ret == 0)
		ret = start(args->argv, fds[1], log, true, err);
	close(fds[1]);
	for (size_t i = 0; i < args->n; i++)
		free(args->argv[i]);
	if (ret < 0)
		return ret;
	build->pid = ret;
	return 0;
}

/* The log's first error line says why; the later ones that something failed. */
static int fail_build(const struct build *build, int status, struct favo_err *err)
{
	favo_autofree char *text = NULL;
	char *why = NULL;

	if (favo_file_read(build->log_path, 64 << 20, &text, NULL, NULL) == 0) {
		why = strncmp(text, "E: ", 3) == 0 ? text : strstr(text, "\nE: ");
		if (why) {
			why += strspn(why, "\nE: ");
			why[strcspn(why, "\n")] = '\0';
		}
	}
	return favo_fail(err, EIO, "mmdebstrap failed with status %d: %.200s; see %s",
			 status, why ? why : "no reason given", build->log_path);
}

static int load_tree(struct build *build, const char *spool_dir, struct favo_tree **tree,
		     struct favo_err *err)
{
	struct favo_err tar_err = {0};
	bool stopped;
	int ret, status;
	char c;

	wait_for_tar(build);
	ret = favo_tree_load_tar(tree, build->pipe_fd, spool_dir, &tar_err);
	/* Who is to blame for a bad tar: a writer that stopped, or the content? */
	stopped = ret < 0 && read(build->pipe_fd, &c, 1) == 0;
	favo_close(&build->pipe_fd); /* ends a program that still writes */
	status = wait_for(build->pid);
	build->pid = 0;
	tell_progress(build);
	if (status != 0 && (ret == 0 || stopped))
		return fail_build(build, status, err);
	if (ret < 0)
		return favo_fail(err, -ret, "%s", tar_err.msg);
	return 0;
}

static int build_tree(struct build *build, const char *dir, struct favo_tree **tree,
		      struct favo_err *err)
{
	int ret = write_script(build, dir, err);

	if (ret == 0)
		ret = launch(build, err);
	if (ret == 0)
		ret = load_tree(build, dir, tree, err);
	if (build->script_path)
		unlink(build->script_path);
	free(build->script_path);
	favo_close(&build->pipe_fd);
	favo_close(&build->log_fd);
	return ret;
}

static json_t *describe(const struct favo_recipe *r)
{
	return json_pack("{s:s, s:s, s:s, s:I}", "kind", "recipe", "name", r->name,
			 "suite", r->suite, "epoch", (json_int_t)r->epoch);
}

int favo_recipe_build(struct favo_store *store, const struct favo_recipe *recipe,
		      const struct favo_import *import, const char *log_path,
		      struct favo_import_result *result, struct favo_err *err)
{
	favo_autofree char *tmp = favo_asprintf("%s/tmp", favo_store_path(store)),
			   *epoch = NULL;
	favo_autotree struct favo_tree *tree = NULL;
	favo_autojson json_t *source = describe(recipe);
	favo_autoclose int lock = -1;
	struct favo_import full = *import;
	struct build build = {.recipe = recipe,
			      .import = import,
			      .log_path = log_path,
			      .pipe_fd = -1,
			      .log_fd = -1};
	int64_t begin = favo_now_ms();
	int ret;

	epoch = favo_asprintf("%llu", (unsigned long long)recipe->epoch);
	if (!tmp || !epoch || !source)
		return favo_fail(err, ENOMEM, "out of memory");
	if (geteuid() != 0)
		return favo_fail(err, EPERM,
				 "building needs root (mmdebstrap --mode=root)");
	lock = favo_store_lock(store, LOCK_SH, err); /* gc would empty tmp */
	if (lock < 0)
		return lock;
	/* Inherited by mmdebstrap: its chroot lies where there is room. */
	if (setenv("SOURCE_DATE_EPOCH", epoch, 1) < 0 || setenv("TMPDIR", tmp, 1) < 0)
		return favo_fail(err, errno, "environment: %m");
	ret = build_tree(&build, tmp, &tree, err);
	if (ret < 0)
		return favo_wrap(err, ret, "recipe %s", recipe->name);
	ret = favo_clean_build(tree, (int64_t)recipe->epoch, err);
	if (ret < 0)
		return ret;
	result->tree_ms = favo_now_ms() - begin;
	if (!full.name)
		full.name = recipe->name;
	if (!full.cmdline)
		full.cmdline = recipe->cmdline;
	full.drop = (const char *const *)recipe->drops;
	for (full.n_drop = 0; recipe->drops && recipe->drops[full.n_drop];)
		full.n_drop++;
	full.netboot |= recipe->netboot;
	full.source = source;
	return favo_import_tree(store, tree, &full, result, err);
}
